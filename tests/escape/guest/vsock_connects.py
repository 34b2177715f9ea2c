# SPDX-License-Identifier: Apache-2.0
# 10,000 connects to the host, many held open, ports that listen and ports that don't.
import socket

held, refused, done = [], 0, 0
for i in range(10000):
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    s.settimeout(2)
    try:
        s.connect((2, (1024, 1025, 1026, 80, 1 << 30, 0xFFFFFFFE)[i % 6]))
        held.append(s)
        if len(held) > 900:
            held.pop(0).close()
    except OSError:
        refused += 1
        s.close()
    done += 1
print("connects", done, "refused", refused, "held", len(held), flush=True)
