# SPDX-License-Identifier: Apache-2.0
# Fills every file system that takes a write, with bytes and then with names.
import os

tops = {line.split()[1] for line in open("/proc/mounts")} | {"/", "/tmp", "/dev/shm", "/run", "/var/tmp"}
while True:
    for top in tops:
        try:
            fd = os.open(f"{top}/fill", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            for _ in range(64):
                os.write(fd, b"x" * (1 << 20))
            os.close(fd)
        except OSError:
            pass
        try:
            for i in range(1000):
                os.close(os.open(f"{top}/n{os.urandom(4).hex()}", os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError:
            pass
