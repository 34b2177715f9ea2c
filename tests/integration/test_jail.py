# SPDX-License-Identifier: Apache-2.0
"""The jail around a VM's processes, looked at from outside; what they can do in it is for tests/escape."""

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

from harness import FAILED, USAGE, Failure, cgroups, until

STAGES = ["cgroup", "namespaces", "root", "user", "capabilities", "limits"]
NAMESPACES = ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"]
USER = 61234  # of nobody
OVERHEAD_MIB = {"hardware": 96, "software emulation": 512}


def status(pid):
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def mounts(pid):
    """{place: options} of the mounts that the process sees, below its root."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines()
    return {line.split()[4]: set(line.split()[5].split(",")) for line in lines}


def inspect(t, name):
    record = t.json("inspect", name)
    return record[0] if isinstance(record, list) else record


def pids(record):
    return [record[p]["pid"] for p in ("monitor", "vsock") if record[p]["pid"]]


def check_process(pid, uid):
    s = status(pid)
    assert s["NoNewPrivs"] == "1", s
    for caps in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(s[caps], 16) == 0, (caps, s[caps])
    assert set(s["Uid"].split()) == {str(uid)}, s["Uid"]
    for name in NAMESPACES:
        assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), name
    seen = mounts(pid)
    assert {"ro", "nosuid", "noexec"} <= seen["/"], seen["/"]
    for place, options in seen.items():
        assert "nosuid" in options, (place, options)
        writable = "rw" in options and not place.startswith("/dev/")
        assert not writable or place.endswith(("/run/jailed", "overlay")), f"{place} is writable: {options}"
        assert "noexec" in options or "ro" in options, f"{place} is writable and executable: {options}"
    for absent in ("/proc", "/sys", "/home", "/etc/passwd", "/bin/sh", "/usr/bin/env", "/tmp/.X11-unix"):
        assert absent not in seen
        # Of the mounts nothing is above these paths, so what the process sees of them is what we see below its root.
        assert not os.path.lexists(f"/proc/{pid}/root{absent}"), absent
    return seen


def test_stages(t):
    t.need_jail()
    with t.vm("jailed"):
        record = inspect(t, "jailed")
        jail = record["jail"]
        assert jail["mode"] == "auto" and list(jail["stages"]) == STAGES, jail
        for stage in STAGES[1:]:
            assert jail["stages"][stage] == "done", jail
        assert (jail["uid"] != 0) == (os.geteuid() == 0), jail
        uid = jail["uid"] or os.geteuid()
        assert uid != 0
        for pid in pids(record):
            seen = check_process(pid, uid)
            assert len(seen) < 24, seen
        with t.vm("other"):
            other = inspect(t, "other")
            assert os.geteuid() != 0 or other["jail"]["uid"] != uid, "two VMs of root share their user"


def check_memory_limit(t):
    """A VM whose processes want more than their group has is ended, and says why."""
    with t.vm("greedy"):
        group = Path(inspect(t, "greedy")["jail"]["cgroup"])
        (group / "memory.max").write_text(str(1 << 20))
        t.ic("exec", "greedy", "--", "head", "-c", "100m", "/dev/zero")
        vm = next(vm for vm in t.json("ps", "-a", "--json") if vm["vm_id"] == "greedy")
        assert vm["state"] == "failed" and "memory.max" in vm["failure"], vm


def test_group(t):
    """Its limits, where cgroup v2 has the controllers; the group itself, where there is cgroup v2 at all."""
    with t.vm("jailed", "--cpus", "2", "--memory", "128"):
        jail = inspect(t, "jailed")["jail"]
        if not jail["cgroup"]:
            assert jail["stages"]["cgroup"] != "done"
            t.skip(jail["stages"]["cgroup"])
        group = Path(jail["cgroup"])
        members = {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
        assert members >= set(pids(inspect(t, "jailed"))), members
        if jail["stages"]["cgroup"] == "done":
            want = 128 + OVERHEAD_MIB[t.isolation]
            assert int((group / "memory.max").read_text()) == want << 20
            assert int((group / "pids.max").read_text()) == 50
            assert (group / "cpu.max").read_text().split() == ["300000", "100000"]
            if (group / "memory.swap.max").exists():
                assert (group / "memory.swap.max").read_text().strip() == "0"
            check_memory_limit(t)
        assert cgroups(t.home) == [str(group)]
        (group / "cgroup.kill").write_text("1")  # as good as any crash
        t.ic("ps")
        assert not group.exists()
    assert not cgroups(t.home)


def test_limit_above_the_group(t):
    """Who limits all VMs together, above their groups, is not got around by a start without the group."""
    control = Path("/sys/fs/cgroup/cgroup.subtree_control")
    if os.geteuid() != 0 or not control.exists() or "pids" not in (control.parent / "cgroup.controllers").read_text().split():
        t.skip("no cgroup v2 with pids here, or not root")
    control.write_text("+pids")
    base = control.parent / f"ironclaw-test-{os.getpid()}"
    base.mkdir()
    t.cleanups.append(base.rmdir)
    (base / "pids.max").write_text("0")
    t.error("run", "--", "true", status=FAILED, words=["temporarily unavailable"], env={"IRONCLAW_CGROUP": str(base)})
    assert not [p for p in base.iterdir() if p.is_dir()]


def seconds_to_read(t, name, skip):
    """How long a guest's root takes to read 8 MiB of its disk, of which this host has nothing in memory."""
    os.sync()  # what is yet to be written stays
    Path("/proc/sys/vm/drop_caches").write_text("3")
    script = f"a=$(date +%s%N); dd if=/dev/vda of=/dev/null bs=1M count=8 skip={skip} 2>/dev/null; echo $(($(date +%s%N) - a))"
    return int(t.ic("exec", "-u", "root", name, "--", "sh", "-c", script, rc=0, timeout=120).text) / 1e9


def partitioned_disk(t, path, size):
    """The loop device of a disk with one partition, as the old tables of PCs say it; skips where there can be none."""
    first = 2048
    entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + struct.pack("<II", first, size >> 9)
    path.write_bytes(bytes(446) + entry + bytes(3 * 16) + b"\x55\xaa")
    os.truncate(path, (first << 9) + size)
    made = subprocess.run(["losetup", "--find", "--show", "--partscan", path], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False)
    if made.returncode != 0:
        t.skip("no loop device here")
    device = made.stdout.decode().strip()
    t.cleanups.append(lambda: subprocess.run(["losetup", "--detach", device], check=True))
    try:
        until(lambda: os.path.exists(f"{device}p1"), 5, "the partition's device")
    except Failure:
        t.skip("loop devices have no partitions here")
    return device


def test_disk_limit(t):
    """What can't be limited is refused; what can is, by the kernel, on a disk of the test's own."""
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    t.error("run", "--max-disk", "4", "--jail", "off", "--", "true", status=FAILED, words=["max_disk_mib_per_s", "jail"])
    if os.geteuid() != 0 or not controllers.exists() or "io" not in controllers.read_text().split():
        t.error("run", "--max-disk", "4", "--", "true", status=FAILED, words=["max_disk_mib_per_s", "0 is no limit"])
        t.skip("no cgroup v2 with io here, or not root")
    work = t.home / "work"
    work.mkdir(exist_ok=True)
    image, disk, place = t.image_dir(), work / "disk", work / "mnt"
    if not os.major(image.stat().st_dev):
        t.error("run", "--max-disk", "4", "--", "true", status=FAILED, words=["max_disk_mib_per_s", "whose disk"])
    whole = partitioned_disk(t, disk, sum(path.stat().st_size for path in image.iterdir()) * 5 // 4 + (400 << 20))
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", f"{whole}p1"], check=True)
    subprocess.run(["mount", f"{whole}p1", place], check=True)
    t.cleanups.append(lambda: subprocess.run(["umount", place], check=True))
    snapshots = t.own_data("snapshots") / "snapshots"
    shutil.move(snapshots, place)
    snapshots.symlink_to(place / "snapshots")
    files = {key: str(shutil.copy(image / name, place)) for key, name in
             (("kernel_path", "vmlinux"), ("initrd_path", "initramfs"), ("rootfs_path", "rootfs.erofs"))}
    config = work / "disk.json"
    config.write_text(json.dumps(dict(files, boot_timeout_ms=100000)), encoding="utf-8")
    with t.vm("kept", "--cold", "--config", config, "--max-disk", "2", "--max-disk-ops", "300"):
        record = inspect(t, "kept")
        assert (record["max_disk_mib_per_s"], record["max_disk_ops_per_s"]) == (2, 300), record
        device = os.stat(whole).st_rdev  # a partition has no limits, its disk has
        assert device != place.stat().st_dev
        device, limits = f"{os.major(device)}:{os.minor(device)}", Path(record["jail"]["cgroup"]) / "io.max"
        assert limits.read_text().split() == [device, "rbps=2097152", "wbps=2097152", "riops=300", "wiops=300"]
        slow = seconds_to_read(t, "kept", 8)
        limits.write_text(f"{device} rbps=max wbps=max riops=max wiops=max")
        free = seconds_to_read(t, "kept", 16)
        assert slow > max(3.0, 2 * free), f"8 MiB in {slow} s at 2 MiB a second, {free} s without a limit"
        print(f"     jail.disk_limit: 8 MiB in {slow:.1f} s at 2 MiB a second, {free:.1f} s without", flush=True)
        t.ic("snapshot", "create", "kept", "slow", rc=0)
    for options, words in ((("--max-disk", "3"), [device, "rbps=3145728", "wbps=3145728", "riops=300", "wiops=300"]),
                           (("--max-disk", "0", "--max-disk-ops", "0"), [])):
        t.ic("restore", "--name", "again", *options, "slow", rc=0)
        limits = Path(inspect(t, "again")["jail"]["cgroup"]) / "io.max"  # there since a VM wanted it, or not at all
        assert (limits.read_text().split() if limits.exists() else []) == words, (options, limits.read_text())
        t.ic("rm", "-f", "again", rc=0)
    t.ic("snapshot", "rm", "slow", rc=0)
    t.error("run", "--cold", "--max-disk", "0x", "--", "true", status=USAGE, words=["--max-disk"])


def test_strict(t):
    record = json.loads(t.ic("doctor", "--json").out)
    complete = next(c for c in record["checks"] if c["name"] == "jail")["status"] == "ok"
    if complete:
        t.ic("run", "--strict", "--", "true", rc=0)
    else:
        t.error("run", "--strict", "--", "true", status=FAILED, words=["jail strict", "the stage", "jail auto"])
    t.write_config({**t.config, "jail": "strict", "seccomp_level": "permissive"})
    t.error("run", "--", "true", status=USAGE, words=["permissive", "jail strict"])
    t.write_config(t.config)
    t.error("run", "--strict", "--jail", "off", "--", "true", status=USAGE, words=["--strict", "exclude"])


def test_doctor_harms_nobody(t):
    """Its trial has a group of its own, whatever VMs are called, and others' commands leave it alone."""
    with t.vm("doctor"):
        doctors = [t.start("doctor", "--json") for _ in range(2)]
        t.ic("ps", rc=0)
        for doctor in doctors:
            out, _ = doctor.communicate(timeout=t.remaining())
            jail = next(c for c in json.loads(out)["checks"] if c["name"] == "jail")
            assert jail["status"] != "failed", jail
        t.ic("exec", "doctor", "--", "true", rc=0)


def test_off_is_said(t):
    result = t.ic("run", "--keep", "--name", "loose", "--jail", "off", "--", "true", rc=0)
    assert "jail is without: all" in result.errors, result
    vms = t.json("ps", "--json")
    assert [vm["jail_missing"] for vm in vms] == ["all"], vms
    pid = pids(inspect(t, "loose"))[0]
    assert os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    t.ic("rm", "-f", "loose", rc=0)


def as_user(t):
    """A copy of all that is needed, for a user who has nothing else, and the words before the command."""
    place = t.work / "user"
    lib = next(t.build.rglob("libironclaw.so.0"))
    for name in ("libexec", "home/data/images/names"):
        (place / name).mkdir(parents=True)
    shutil.copy(t.argv()[0], place / "ironclaw")
    shutil.copy(lib.resolve(), place / lib.name)
    for program in Path(t.env["IRONCLAW_LIBEXEC"]).iterdir():
        shutil.copy(program.resolve(), place / "libexec" / program.name)
    image = t.image_dir()
    shutil.copytree(image, place / "home/data/images" / image.name)
    (place / "home/data/images/names/base").symlink_to(Path("..") / image.name)
    config = dict(t.config)
    config.pop("image", None)
    (place / "home/config.json").write_text(json.dumps(config))
    subprocess.run(["chown", "-R", f"{USER}:{USER}", place / "home"], check=True)
    for directory in ("home", "home/data", "home/data/images", f"home/data/images/{image.name}"):
        (place / directory).chmod(0o700)
    for directory in (t.home, t.work, place):
        directory.chmod(0o711)
    env = {"PATH": "/usr/bin:/bin", "HOME": place / "home", "IRONCLAW_HOME": place / "home", "LD_LIBRARY_PATH": place,
           "IRONCLAW_LIBEXEC": place / "libexec", "TMPDIR": "/tmp"}
    return place, ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", "-i",
                   *(f"{k}={v}" for k, v in env.items()), place / "ironclaw"]


def test_ordinary_user(t):
    """The quick start without any privilege: the same jail, but for the group."""
    if os.geteuid() != 0:
        t.skip("only root can become another user; the other tests ran as an ordinary one")
    t.need_jail()
    place, prefix = as_user(t)

    def ic(*args, rc=0, stdin=b""):
        result = subprocess.run([str(a) for a in (*prefix, *args)], input=stdin, check=False, cwd="/",
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=t.remaining())
        assert result.returncode == rc, (args, result)
        return result.stdout

    assert ic("run", "-i", "--", "python3", "-", stdin=b"print(6*7)") == b"42\n"
    ic("run", "--", "sh", "-c", "exit 7", rc=7)
    ic("run", "--keep", "--name", "jailed", "--", "true")
    try:
        record = json.loads(ic("inspect", "jailed"))
        record = record[0] if isinstance(record, list) else record
        assert record["jail"]["uid"] == 0, record["jail"]
        for stage in STAGES[1:]:
            assert record["jail"]["stages"][stage] == "done", record["jail"]
        for pid in pids(record):
            check_process(pid, USER)
        (place / "home/file").write_bytes(b"from the host\n")
        ic("cp", place / "home/file", "jailed:/tmp/file")
        assert ic("exec", "jailed", "--", "cat", "/tmp/file") == b"from the host\n"
        assert b"jailed" in ic("ps") and b"Linux" in ic("logs", "jailed") + ic("exec", "jailed", "--", "uname")
        ic("stop", "jailed")
    finally:
        ic("rm", "-f", "jailed")
    left = [p for top in ("run", "state/vms") for p in (place / "home" / top).rglob("*")]
    assert not left, left


def test_container_without_namespaces(t):
    """As root of a container that may make no user namespace: the start goes on, and says what it is without."""
    script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\""
    argv = ["unshare", "-Ur", "sh", "-c", script, "sh", *t.argv("run", "--keep", "--name", "inner", "--", "true")]
    if subprocess.run(["unshare", "-Ur", "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        t.skip("no user namespaces here")
    result = subprocess.run(argv, check=False, env=t.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            timeout=t.remaining())
    if b"/dev/kvm" in result.stderr:
        t.skip("/dev/kvm is for another group than root's")
    assert result.returncode == 0 and b"jail is without:" in result.stderr and b"user" in result.stderr, result
    stages = inspect(t, "inner")["jail"]["stages"]
    assert "max_user_namespaces" in stages["user"] and stages["root"] == "done", stages
    t.ic("rm", "-f", "inner", rc=0)


def test_root_of_a_container(t):
    """A root that has no ids to give keeps its own for the VM: that is no user of the VM's own, and is not called so."""
    if subprocess.run(["unshare", "-Ur", "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        t.skip("no user namespaces here")

    def run(*options):
        argv = ["unshare", "-Ur", *t.argv("run", *options, "--", "true")]
        return subprocess.run(argv, check=False, env=t.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=t.remaining())

    result = run("--keep", "--name", "inner")
    if b"/dev/kvm" in result.stderr:
        t.skip("/dev/kvm is for another group than root's")
    assert result.returncode == 0, result
    stages = inspect(t, "inner")["jail"]["stages"]
    assert "keeps root's id" in stages["user"] and stages["root"] == "done", stages
    t.ic("rm", "-f", "inner", rc=0)
    result = run("--strict")
    assert result.returncode == FAILED and b"jail strict" in result.stderr, result


def test_root_without_a_network_namespace(t):
    """Where root can't have a stage that the VM's user depends on, the start says so; nothing runs half jailed."""
    t.need_jail()
    if os.geteuid() != 0:
        t.skip("only root's VMs have users of their own")
    no_networks = "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$@\""
    argv = ["unshare", "-U", "sh", "-c", "read go && exec \"$@\"", "sh",  # root, once it has the ids and starts anew
            "sh", "-c", no_networks, "sh", *t.argv("run", "--", "true")]
    child = t.start_other(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: os.readlink(f"/proc/{child.pid}/ns/user") != os.readlink("/proc/self/ns/user"), 5, "user namespace")
    for kind in ("uid_map", "gid_map"):
        Path(f"/proc/{child.pid}/{kind}").write_text("0 0 4294967295\n", encoding="ascii")
    _, err = child.communicate(b"go\n", timeout=t.remaining())
    assert child.returncode == FAILED, err
    assert b"the VM's own user needs the stages namespaces and root" in err and b"max_user_namespaces" in err, err
