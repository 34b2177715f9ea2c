# SPDX-License-Identifier: Apache-2.0
"""What the guest can see and may not do."""


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
    import time
    before = time.time()
    one = t.ic("run", "--", "python3", "-c", "import os, time; print(time.time(), os.urandom(16).hex())", rc=0)
    guest, first = one.text.split()
    assert before - 5 < float(guest) < time.time() + 5, (before, guest)
    second = t.ic("run", "--", "python3", "-c", "import os; print(os.urandom(16).hex())", rc=0).text.strip()
    assert first != second
