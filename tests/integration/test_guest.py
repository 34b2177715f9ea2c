# SPDX-License-Identifier: Apache-2.0
"""What the guest can see and may not do."""

import errno
import re
import time
from pathlib import Path

from harness import until

GUEST = Path(__file__).parent / "guest"

def test_only_loopback(t):
    """Interfaces, and what a socket can reach."""
    script = """
ls /sys/class/net
command -v ip >/dev/null && ip -o link | wc -l || echo 1
python3 - <<'EOF'
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.settimeout(3)
try:
    s.connect(("192.0.2.1", 80))
    print("connected")
except OSError as e:
    print("refused")
EOF
ls /sys/bus/virtio/devices/*/ -d | wc -l
cat /sys/bus/virtio/devices/*/device
"""
    lines = t.ic("run", "-u", "root", "--", "sh", "-c", script, rc=0).text.split()
    assert lines[:3] == ["lo", "1", "refused"], lines
    assert "0x0001" not in lines[4:], f"a virtio network device: {lines}"


def test_root_device_is_read_only(t):
    before = t.digests()
    script = """
cat /sys/block/vda/ro
dd if=/dev/zero of=/dev/vda bs=4096 count=1 conv=fsync 2>&1 && echo WRITTEN
blockdev --setrw /dev/vda 2>/dev/null
dd if=/dev/zero of=/dev/vda bs=4096 count=64 oflag=direct conv=fsync 2>&1 && echo WRITTEN
python3 - <<'EOF'
import os
try:
    fd = os.open("/dev/vda", os.O_RDWR)
    os.pwrite(fd, b"x" * 4096, 0)
    os.fsync(fd)
    print("WRITTEN")
except OSError as e:
    print("denied", e.errno)
EOF
echo end
"""
    text = t.ic("run", "-u", "root", "--", "sh", "-c", script, rc=0).text
    assert "WRITTEN" not in text and "denied" in text and text.startswith("1\n") and text.endswith("end\n"), text
    assert t.digests() == before


def test_root_file_system_is_an_overlay(t):
    """Writes work and are gone with the VM."""
    script = "echo x > /usr/bin/new && cat /usr/bin/new && grep ' / ' /proc/mounts"
    text = t.ic("run", "-u", "root", "--", "sh", "-c", script, rc=0).text
    assert text.startswith("x\n") and "overlay" in text, text
    assert t.ic("run", "--", "test", "-e", "/usr/bin/new").rc == 1


def test_unprivileged_command(t):
    """The default user can't get to devices, other users' files or new privileges."""
    script = """
for f in /dev/vda /dev/mem /dev/kmsg /etc/shadow /proc/kcore; do
    head -c1 $f >/dev/null 2>&1 && echo "read $f"
done
find / -xdev -perm -4000 -type f 2>/dev/null | while read f; do "$f" --help >/dev/null 2>&1; done
kill -9 1 2>/dev/null && echo killed
mount -t tmpfs none /mnt 2>/dev/null && echo mounted
dmesg >/dev/null 2>&1 && echo dmesg
id -u
"""
    text = t.ic("run", "--", "sh", "-c", script, rc=0).text
    assert text == "1000\n", text


def test_clock_and_entropy(t):
    before = time.time()
    one = t.ic("run", "--", "python3", "-c", "import os, time; print(time.time(), os.urandom(16).hex())", rc=0)
    guest, first = one.text.split()
    assert before - 5 < float(guest) < time.time() + 5, (before, guest)
    second = t.ic("run", "--", "python3", "-c", "import os; print(os.urandom(16).hex())", rc=0).text.strip()
    assert first != second


# What the filters of commands say to the attempts of guest/attempts.py; the sources are src/agent/filter-rules.c.
NOT_PERMITTED = """mount umount2 pivot_root unshare setns clone_newuser clone_newnet init_module finit_module kexec_load
bpf perf_event_open userfaultfd fanotify_init pidfd_getfd open_by_handle_at iopl ioperm settimeofday clock_settime
adjtimex swapon reboot acct quotactl""".split()
NOT_THERE = "fsopen clone3 io_uring_setup keyctl add_key".split()
NO_FAMILY = "vsock alg rds".split()  # and xdp, which the fast kernel has not
ONLY_BASIC = "ptrace process_vm_readv setuid chroot shmget personality netlink inet6".split()
ALWAYS = "inet unix".split()


def attempts(t, name, *options):
    t.ic("cp", GUEST / "attempts.py", f"{name}:/tmp/attempts.py", rc=0)
    text = t.ic("exec", *options, name, "--", "python3", "/tmp/attempts.py", rc=0).text
    found = dict(line.split(" ", 1) for line in text.splitlines())
    found = {key: value if value.startswith("killed") else int(value) for key, value in found.items()}
    assert set(NOT_PERMITTED + NOT_THERE + NO_FAMILY + ONLY_BASIC + ALWAYS) <= found.keys(), found
    assert found["tomorrow"] == errno.ENOSYS and [found[key] for key in ALWAYS] == [0, 0], found
    return found


def check_killed(found):
    """Calls of 32 bits and of x32; a kernel without the former raises a fault by itself."""
    assert found["x32"] == "killed 31" and found["int80"] in ("killed 31", "killed 11"), found


def check_needs(t, name, *args, options=()):
    t.ic("cp", GUEST / "needs.py", f"{name}:/tmp/needs.py", rc=0)
    text = t.ic("exec", *options, name, "--", "python3", "/tmp/needs.py", *args, rc=0, timeout=300).text
    assert re.fullmatch(r"tried \d+\n", text), text


def test_filter_basic(t):
    """The default: by the user, and by root, to whom the kernel itself would refuse nothing of this."""
    t.deadline += 300
    with t.vm("v", "--memory", "512") as name:
        for options in ((), ("-u", "root")):
            found = attempts(t, name, *options)
            check_killed(found)
            assert {found[key] for key in NOT_PERMITTED} == {errno.EPERM}, found
            assert {found[key] for key in NOT_THERE} == {errno.ENOSYS}, found
            assert {found[key] for key in NO_FAMILY + ["xdp"]} == {errno.EAFNOSUPPORT}, found
            assert not {found[key] for key in ONLY_BASIC} & {errno.EPERM}, found
        check_needs(t, name, "basic")


def test_filter_basic_leaves_root_what_it_needs(t):
    t.deadline += 300
    with t.vm("v", "--memory", "512") as name:
        check_needs(t, name, "root", options=("-u", "root"))


def test_filter_minimal(t):
    t.deadline += 200
    with t.vm("v", "--memory", "512", "--guest-seccomp", "minimal") as name:
        assert t.json("inspect", name)[0]["guest_seccomp"] == "minimal"
        for options in ((), ("-u", "root")):
            found = attempts(t, name, *options)
            check_killed(found)
            refused = {found[key] for key in NOT_PERMITTED + NO_FAMILY + ONLY_BASIC + ["xdp", "keyctl", "fsopen"]}
            assert refused == {errno.EPERM}, found
            assert {found["clone3"], found["io_uring_setup"]} == {errno.ENOSYS}, found


def test_filter_minimal_leaves_what_it_says(t):
    t.deadline += 300
    with t.vm("v", "--memory", "512", "--guest-seccomp", "minimal") as name:
        check_needs(t, name)


# An emulated minute each.
test_filter_basic_leaves_root_what_it_needs.asked_for = test_filter_minimal_leaves_what_it_says.asked_for = True


def test_filter_permissive(t):
    """Nothing is refused, which also shows that the refusals of the others are the filter's."""
    with t.vm("v", "--guest-seccomp", "permissive") as name:
        found = attempts(t, name, "-u", "root")
        there = [key for key in NOT_PERMITTED if found[key] != errno.ENOSYS]  # the fast kernel lacks some
        assert len(there) > 15 and not {found[key] for key in there} & {errno.EPERM}, found
        assert found["vsock"] == 0 and found["clone3"] == errno.EINVAL and found["x32"] == errno.ENOSYS, found
        assert not [key for key, value in found.items() if value == "killed 31"], found
        if t.json("inspect", name)[0]["kernel"]["kind"] != "fast":  # which has no audit
            until(lambda: re.search(r"audit: type=1326 .* syscall=\d+ ", t.ic("logs", name, rc=0).text), 10,
                  "a line of the kernel's audit")
