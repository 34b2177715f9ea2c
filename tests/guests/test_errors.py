# SPDX-License-Identifier: Apache-2.0
"""Bad input to ironclaw-vmm: one line that names the thing and the way out, the documented status, nothing left."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from monitor import Vm  # noqa: E402

BAD_CONFIG, BAD_USAGE = 152, 153


def run(t, change, *, rc=BAD_CONFIG, options=(), prefix=(), words=()):
    """A VM that would run, but for `change(config, dir)`; returns the error line."""
    vm = Vm(t, "boot", pvh=True)
    change(vm.config, vm.dir)
    file = vm.dir / "config.json"
    file.write_text(json.dumps(vm.config))
    argv = [*prefix, str(vm.program), "--no-api", "--config-file", str(file), *options]
    before = sorted(os.listdir(vm.dir))
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                            check=False)
    text = result.stderr.decode()
    assert result.returncode == rc, (result.returncode, text)
    errors = [line for line in text.splitlines() if "error: " in line]
    assert len(errors) == 1 and len(errors[0]) < 700, text
    for word in words:
        assert word in errors[0], (word, errors[0])
    assert sorted(os.listdir(vm.dir)) == before, "something was left behind"
    return errors[0]


def set_in(section, **values):
    return lambda config, _: config[section].update(values)


def test_kernel_missing(t):
    run(t, set_in("boot-source", kernel_image_path="/nowhere/vmlinux"),
        words=("/nowhere/vmlinux", "No such file", "kernel_image_path"))


def test_kernel_is_none(t):
    def change(config, work):
        (work / "text").write_text("hello, I am no kernel\n" * 100)
        config["boot-source"]["kernel_image_path"] = str(work / "text")

    run(t, change, words=("magic", "vmlinux or bzImage"))


def test_kernel_is_a_pipe(t):
    """Which would keep who opens it until somebody writes."""
    def change(section, key):
        def inner(config, work):
            os.mkfifo(work / "pipe")
            config[section][key] = str(work / "pipe")
        return inner

    for key in ("kernel_image_path", "initrd_path"):
        run(t, change("boot-source", key), words=("pipe", "not a regular file"))


def test_kernel_truncated(t):
    """At the end of each of its parts, and in the middle of each."""
    vm = Vm(t, "boot", pvh=True)
    whole = Path(vm.config["boot-source"]["kernel_image_path"]).read_bytes()
    table = int.from_bytes(whole[32:40], "little")
    count = int.from_bytes(whole[56:58], "little")
    cuts = {1, 4, 63, table + 1, table + 56 * count - 1}
    for i in range(count):
        header = whole[table + 56 * i:table + 56 * (i + 1)]
        offset, size = (int.from_bytes(header[at:at + 8], "little") for at in (8, 32))
        if size > 0:
            cuts |= {offset + size // 2, offset + size - 1}
    for cut in sorted(cuts):
        def change(config, work, cut=cut):
            (work / "cut").write_bytes(whole[:cut])
            config["boot-source"]["kernel_image_path"] = str(work / "cut")

        run(t, change, words=("/cut: ",))


def test_initramfs_larger_than_memory(t):
    def change(config, work):
        with open(work / "big", "wb") as f:
            f.truncate(200 << 20)
        config["boot-source"]["initrd_path"] = str(work / "big")

    run(t, change, words=("initramfs", "/big", "mem_size_mib"))


def test_rootfs_missing(t):
    def change(config, _):
        config["drives"][0]["path_on_host"] = "/nowhere/root.img"

    run(t, change, words=("/nowhere/root.img", "No such file", "path_on_host"))


def test_rootfs_is_a_directory(t):
    def change(config, work):
        config["drives"][0]["path_on_host"] = str(work)

    run(t, change, words=("is a directory",))


def test_rootfs_not_readable(t):
    if os.geteuid() != 0:
        t.skip("needs root, to become somebody without rights")

    def change(config, work):
        for directory in (work, work.parent, work.parent.parent):
            directory.chmod(0o755)
        (work / "secret").write_bytes(bytes(512))
        (work / "secret").chmod(0o600)
        config["drives"][0]["path_on_host"] = str(work / "secret")
        config.pop("vsock")  # its folder is not the other user's

    run(t, change, words=("/secret", "Permission denied", "path_on_host"),
        prefix=(*in_dev("mknod -m 666 /dev/kvm c 10 232"), "setpriv", "--reuid=65534", "--clear-groups", "--"))


def test_socket_in_use(t):
    def change(config, work):
        s = socket.socket(socket.AF_UNIX)
        s.bind(config["vsock"]["uds_path"])
        s.listen()
        t.cleanups.append(s.close)

    run(t, change, words=("v.sock", "in use"))


def test_uds_path_too_long(t):
    run(t, set_in("vsock", uds_path="/tmp/" + "x" * 120), words=("107", "uds_path"))


def test_api_socket_in_use(t):
    vm = Vm(t, "boot")
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(vm.api_sock))
    s.listen()
    t.cleanups.append(s.close)
    result = subprocess.run([str(vm.program), "--api-sock", str(vm.api_sock)], stdin=subprocess.DEVNULL,
                            capture_output=True, timeout=20, check=False)
    assert result.returncode == 1, result
    assert b"in use" in result.stderr and str(vm.api_sock).encode() in result.stderr, result.stderr
    assert vm.api_sock.exists(), "somebody else's socket was removed"


def test_memory_beyond_the_host(t):
    run(t, set_in("machine-config", mem_size_mib=64 << 20), words=("mem_size_mib", "this host has"))


def test_vcpus(t):
    for count in (0, 33):
        run(t, set_in("machine-config", vcpu_count=count), words=("vcpu_count",))


def test_unknown_section(t):
    run(t, lambda config, _: config.update(nonsense={}), words=("nonsense",))


def test_network_refused(t):
    run(t, lambda config, _: config.update({"network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0"}]}),
        words=("network",))


def test_usage(t):
    vm = Vm(t, "boot")
    for argv in (["--no-api"], ["--id", "../x"], ["--level", "loud"], ["--seccomp-filter", "f"], ["word"]):
        result = subprocess.run([str(vm.program), *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
                                check=False)
        assert result.returncode == BAD_USAGE, (argv, result)
        assert b"--help" in result.stderr, (argv, result.stderr)


def in_dev(commands):
    """Runs the rest in a mount namespace whose /dev has only what `commands` make. / need be no mount (a chroot)."""
    return ("unshare", "-m", "--propagation", "unchanged", "sh", "-c",
            "mount --make-private /dev && mount -t tmpfs dev /dev && mknod -m 666 /dev/null c 1 3 && "
            f'{commands} && exec "$@"', "sh")


def test_no_kvm(t):
    if os.geteuid() != 0:
        t.skip("needs root, for a /dev of its own")
    run(t, lambda *_: None, prefix=in_dev("true"), words=("/dev/kvm", "kvm-intel or kvm-amd", "qemu backend"))


def test_no_right_to_kvm(t):
    if os.geteuid() != 0:
        t.skip("needs root, for a /dev of its own")

    def change(config, work):
        for directory in (work, work.parent, work.parent.parent):
            directory.chmod(0o755)

    run(t, change, prefix=(*in_dev("mknod -m 600 /dev/kvm c 10 232"), "setpriv", "--reuid=65534", "--clear-groups",
                           "--"), words=("/dev/kvm", "group 'kvm'"))


def test_no_hardware(t):
    """A KVM without vmx or svm behind it is said in the log, with what to do."""
    vm = Vm(t, "boot", pvh=True).run()
    flags = set(Path("/proc/cpuinfo").read_text().split())
    said = "neither vmx nor svm" in vm.log() and "qemu backend" in vm.log()
    assert said == (not flags & {"vmx", "svm"}), vm.report()


def test_out_of_descriptors(t):
    """Whichever is the first that can't be had: one error, nothing left behind, and one more is enough to go on."""
    vm = Vm(t, "boot", cpus=2, balloon={"amount_mib": 1, "deflate_on_oom": False, "stats_polling_interval_s": 1})
    file = vm.dir / "config.json"
    file.write_text(json.dumps(vm.config))
    before, failed = sorted(os.listdir(vm.dir)), 0
    for most in range(4, 100):
        result = subprocess.run(["prlimit", f"--nofile={most}:{most}", str(vm.program), "--api-sock", str(vm.api_sock),
                                 "--config-file", str(file)], stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                                check=False)
        assert sorted(os.listdir(vm.dir)) == before, (most, os.listdir(vm.dir))
        if result.returncode == 0:
            break
        failed += 1
        errors = [line for line in result.stderr.decode().splitlines() if "error: " in line]
        assert result.returncode in (1, BAD_CONFIG), (most, result)
        assert len(errors) == 1 and "Too many open files" in errors[0], (most, result.stderr)
    assert result.returncode == 0 and failed > 20, (failed, result)
