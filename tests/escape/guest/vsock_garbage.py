# SPDX-License-Identifier: Apache-2.0
# Random bytes and half-true frames to every low port of the host and to the ones that IronClaw uses.
import os
import random
import socket
import struct
import sys

rng = random.Random(7)


def garbage():
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 5000))
    if kind == 1:  # a frame of a known type with a payload of noise
        payload = rng.randbytes(rng.randrange(200))
        return struct.pack("<IB", len(payload), rng.choice([1, 2, 3, 16, 17, 20, 24, 32, 34, 48, 52])) + payload
    if kind == 2:  # a length that never comes
        return struct.pack("<IB", rng.choice([0xFFFFFFFF, 1 << 20, 1 << 16, 0x7FFFFFFF]), rng.randrange(256))
    return b"\x1b]0;owned\x07\n" * 100


talked = 0
for port in [*range(int(sys.argv[1])), *[1025] * 200, *[1024] * 50, (1 << 30) + 1, 0xFFFFFFFF]:
    for cid in (2, 0) if port < 4 else (2,):
        s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        s.settimeout(1)
        try:
            s.connect((cid, port))
            for _ in range(5):
                s.send(garbage())
            talked += 1
        except OSError:
            pass
        s.close()
print("talked", talked, flush=True)
os._exit(0)
