# SPDX-License-Identifier: Apache-2.0
"""Mistakes of the caller and of the machine: one line that names the thing and the way out, status 125 or 2."""

import os
import shutil
import subprocess

from harness import FAILED, USAGE

RUN = ("run", "--", "true")


def configured(t, words, status=USAGE, **config):
    t.write_config({**t.config, **config})
    return t.error(*RUN, status=status, words=words)


def test_networking_is_refused(t):
    configured(t, ["network"], enable_networking=True)


def test_unknown_key(t):
    configured(t, ["colour", "config.json"], colour="red")


def test_read_only_root_has_no_key(t):
    configured(t, ["rootfs_read_only"], rootfs_read_only=False)


def test_wrong_values(t):
    configured(t, ["vm_id", "../x"], vm_id="../x")
    configured(t, ["memory_mib", "64"], memory_mib=1)
    configured(t, ["vcpu_count", "32"], vcpu_count=0)
    configured(t, ["vcpu_count", "32"], vcpu_count=33)
    configured(t, ["vcpu_count"], vcpu_count="two")
    configured(t, ["memory_mib"], memory_mib=-5)
    configured(t, ["memory_mib"], memory_mib=99999999999999)
    configured(t, ["backend", "magic"], backend="magic")


def test_wrong_options(t):
    for args, words in (((("--name", "../x")), ["../x"]), (("--memory", "1"), ["64"]), (("--cpus", "0"), ["32"]),
                        (("--cpus", "33"), ["32"]), (("--timeout", "soon"), ["soon"]), (("-e", "=x"), ["=x"])):
        result = t.ic("run", *args, "--", "true")
        assert result.rc in (USAGE, FAILED) and not result.out, result
        assert len(result.errors.strip().splitlines()) <= 2, result
        for word in words:
            assert word in result.errors, f"no '{word}': {result}"


def test_broken_json(t):
    for text in ("{", "[]", "", "{\"vcpu_count\": 1, \"vcpu_count\": 2}", "\0", "{}x", "[" * 100000):
        (t.home / "config.json").write_text(text)
        t.error(*RUN, status=USAGE, words=["config.json"])
    t.write_config(t.config)


def test_missing_kernel(t):
    configured(t, ["/no/such/vmlinux"], status=FAILED, kernel_path="/no/such/vmlinux")


def test_files_that_are_none(t):
    garbage = t.work / "garbage"
    garbage.write_bytes(os.urandom(100000))
    configured(t, [str(garbage)], status=FAILED, kernel_path=str(garbage))
    configured(t, [str(garbage)], status=FAILED, rootfs_path=str(garbage))
    configured(t, [str(t.work)], status=FAILED, rootfs_path=str(t.work))


def test_hardware_isolation_required(t):
    if t.isolation == "hardware":
        t.write_config({**t.config, "require_hardware_isolation": True})
        t.ic(*RUN, rc=0)
        return
    configured(t, ["hardware"], status=FAILED, require_hardware_isolation=True)


def test_truncated_image(t):
    mine = t.own_store(copied=("rootfs.erofs",))
    os.truncate(mine / "rootfs.erofs", 1 << 20)
    t.error(*RUN, status=FAILED, words=["rootfs.erofs", t.image])
    os.truncate(mine / "rootfs.erofs", 0)
    t.error(*RUN, status=FAILED, words=["rootfs.erofs"])


def test_corrupted_image(t):
    mine = t.own_store(copied=("rootfs.erofs", "initramfs", "manifest.json"))
    t.ic("image", "verify", t.image, rc=0)
    with open(mine / "rootfs.erofs", "r+b") as f:
        f.seek(10 << 20)
        old = f.read(1)
        f.seek(10 << 20)
        f.write(bytes([old[0] ^ 1]))
    t.error("image", "verify", t.image, status=FAILED, words=["rootfs.erofs"])
    with open(mine / "rootfs.erofs", "r+b") as f:
        f.seek(1024)
        f.write(b"\0" * 64)
    t.error(*RUN, status=FAILED, words=["rootfs.erofs"])
    manifest = (mine / "manifest.json").read_text()
    (mine / "manifest.json").write_text(manifest[: len(manifest) // 2])
    t.error(*RUN, status=FAILED, words=["manifest"])
    (mine / "manifest.json").write_text(manifest.replace("rootfs.erofs", "../../../../etc/passwd"))
    t.error(*RUN, status=FAILED, words=["manifest"])


def test_no_image_at_all(t):
    (t.home / "data").unlink()
    t.error(*RUN, status=FAILED, words=[t.image, "image build"])
    shutil.rmtree(t.home / "data", ignore_errors=True)


def test_full_disk(t):
    """No room for records and logs, then none for sockets' directory."""
    for place in ("state", "run"):
        directory = t.home / place
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700,nr_inodes=4", "full", directory],
                          check=False, stderr=subprocess.DEVNULL).returncode:
            t.skip("mounting a small tmpfs needs root")
        try:
            with open(directory / "filler", "wb", buffering=0) as f:
                try:
                    while f.write(b"x" * 4096):
                        pass
                except OSError:
                    pass
            (directory / "one").mkdir()
            (directory / "two").mkdir()
            t.error(*RUN, status=FAILED, words=["no space", place])
            left = sorted(os.listdir(directory))
            assert [n for n in left if n not in ("filler", "one", "two", "vms", "lock")] == [], left
        finally:
            subprocess.run(["umount", "-l", directory], check=True)
    t.ic(*RUN, rc=0)


def test_disk_that_fills_up(t):
    """The record fits, the log does not: the VM still ends cleanly."""
    directory = t.home / "state"
    directory.mkdir(mode=0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k,mode=700", "full", directory],
                      check=False, stderr=subprocess.DEVNULL).returncode:
        t.skip("mounting a small tmpfs needs root")
    try:
        result = t.ic("run", "-u", "root", "--", "sh", "-c",
                      "i=0; while [ $i -lt 3000 ]; do echo filling the log $i > /dev/kmsg; i=$((i+1)); done; echo end")
        assert result.rc in (0, FAILED), result
        t.ic("ps")
        left = [n for _, _, files in os.walk(directory) for n in files if n not in (".claim", "tsc")]
        assert not left, left
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def test_no_qemu(t):
    empty = t.work / "bin"
    empty.mkdir()
    t.write_config({"backend": "qemu"})
    t.error(*RUN, status=FAILED, words=["qemu", "install"], env={"PATH": str(empty)})


def test_no_monitor(t):
    """Ours or Firecracker asked for, and not installed."""
    empty = t.work / "libexec"
    empty.mkdir()
    t.write_config({"backend": "ironclaw"})
    t.error(*RUN, status=FAILED, words=["backend ironclaw", "ironclaw-vmm", "install"],
            env={"IRONCLAW_LIBEXEC": str(empty)})
    t.write_config({"backend": "firecracker"})
    t.error(*RUN, status=FAILED, words=["backend firecracker", "install", "IRONCLAW_FIRECRACKER"],
            env={"IRONCLAW_FIRECRACKER": str(empty / "firecracker")})


def test_no_hardware_virtualization(t):
    if t.isolation == "hardware":
        t.skip("this machine has hardware virtualization")
    programs = t.work / "libexec"  # never started
    programs.mkdir()
    shutil.copy2("/bin/true", programs / "ironclaw-vmm")
    for backend in ("ironclaw", "firecracker"):
        t.write_config({"backend": backend})
        t.error(*RUN, status=FAILED, words=[f"backend {backend}", "kvm", "--backend qemu"],
                env={"IRONCLAW_LIBEXEC": str(programs), "IRONCLAW_FIRECRACKER": "/bin/true"})


def test_runtime_path_too_long(t):
    home = t.work / ("long" * 25)
    home.mkdir()
    (home / "data").symlink_to((t.home / "data").resolve())
    t.error(*RUN, status=FAILED, words=["socket", "108", "IRONCLAW_HOME"], env={"IRONCLAW_HOME": str(home)})
    shutil.rmtree(home / "run", ignore_errors=True)
    shutil.rmtree(home / "state", ignore_errors=True)


def test_unsafe_directories(t):
    run = t.home / "run"
    run.mkdir(mode=0o777)
    run.chmod(0o777)
    t.error(*RUN, status=FAILED, words=["run", "chmod"])
    run.rmdir()
    run.write_text("in the way")
    t.error(*RUN, status=FAILED, words=["run"])
    run.unlink()


def test_relative_home(t):
    t.error(*RUN, status=FAILED, words=["IRONCLAW_HOME", "absolute"], env={"IRONCLAW_HOME": "here"})


def test_garbage_state(t):
    """Foreign or damaged entries among the records stop nobody."""
    vms = t.home / "state/vms"
    vms.mkdir(parents=True, mode=0o700)
    (t.home / "state").chmod(0o700)
    (vms / "broken").mkdir(mode=0o700)
    (vms / "broken/record.json").write_text("{ half")
    (vms / "empty").mkdir(mode=0o700)
    (vms / "file").write_text("x")
    t.ic("ps", rc=0)
    t.ic(*RUN, rc=0)
    for name in ("broken", "empty"):
        t.ic("rm", "-f", name)
    shutil.rmtree(vms)
