#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made seeds of fuzz-virtqueue and fuzz-vhost-user into fuzz/corpus."""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
BASE, DESC, AVAIL, USED, DATA, TABLE = 0x1000, 0, 0x1000, 0x1800, 0x1C00, 0x1A00
WRITE, POP, PUSH, UNPOP, OFF, ON, SIGNAL, TAKE, SPLIT, RESTART = range(10)


def save(target, name, data):
    directory = os.path.join(HERE, "corpus", target)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as f:
        f.write(data)


def put(at, data):
    return b"".join(
        struct.pack("<BHB", WRITE, at + i, len(data[i : i + 16])) + data[i : i + 16] for i in range(0, len(data), 16)
    )


def desc(i, addr, length, flags, nxt, table=DESC):
    return put(table + 16 * i, struct.pack("<QIHH", addr, length, flags, nxt))


def avail(heads, start=0, size=8):
    out = b"".join(put(AVAIL + 4 + 2 * ((start + i) % size), struct.pack("<H", h)) for i, h in enumerate(heads))
    return out + put(AVAIL + 2, struct.pack("<H", (start + len(heads)) & 0xFFFF))


def queue(name, script, flags=3 | 8 | 16, extra=b""):
    save("virtqueue", name, bytes([flags]) + extra + script)


USE = bytes([POP, TAKE, 44, SPLIT, 44, PUSH, 44, 0, SIGNAL, ON])
queue("direct", desc(0, BASE + DATA, 64, 1, 1) + desc(1, BASE + 0x1FF0, 64, 2, 0) + avail([0]) + USE)
queue("indirect", desc(0, BASE + TABLE, 32, 4, 0) + desc(0, BASE + DATA, 50, 1, 1, TABLE)
      + desc(1, BASE + DATA, 99, 2, 0, TABLE) + avail([0]) + USE + bytes([POP]))
queue("nested", desc(0, BASE + TABLE, 16, 4, 0) + desc(0, BASE + TABLE, 16, 4, 0, TABLE) + avail([0]) + USE)
queue("loop", desc(0, BASE + DATA, 1, 1, 1) + desc(1, BASE + DATA, 1, 1, 0) + avail([0]) + USE)
queue("jump", avail([0] * 9) + USE)
queue("head", avail([9]) + USE)
queue("wrap", desc(0, BASE + DATA, 80, 2, 0) + avail([0, 0, 0], 0xFFFE) + USE * 4, 3 | 8 | 16 | 64, b"\xfe\xff")
queue("end", desc(0, BASE + 0x3FFF, 2, 2, 0) + avail([0]) + USE)
queue("flags", desc(0, BASE + DATA, 80, 2, 0) + avail([0]) + bytes([OFF, POP, UNPOP, POP, PUSH, 1, 0, SIGNAL, ON]), 3)
queue("restart", desc(0, BASE + DATA, 80, 2, 0) + avail([0]) + USE + bytes([RESTART, 0, 0]) + USE)


def msg(request, payload=b"", fds=0, kind=0, flags=1):
    return bytes([fds | kind << 4]) + struct.pack("<III", request, flags, len(payload)) + payload


USER = 0x7F0000000000
FEATURES = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28
HELLO = (msg(1) + msg(15) + msg(16, struct.pack("<Q", 1 | 1 << 3 | 1 << 9 | 1 << 13)) + msg(17) + msg(3)
         + msg(24, struct.pack("<III", 0, 8, 0) + bytes(8)) + msg(2, struct.pack("<Q", FEATURES)))
MEMORY = msg(5, struct.pack("<IIQQQQ", 1, 0, 0, 0x10000, USER, 0), 1, 1)


def ring(i, base=0, enable=True):
    at = USER + 0x4000 * i
    return (msg(8, struct.pack("<II", i, 128)) + msg(10, struct.pack("<II", i, base))
            + msg(9, struct.pack("<IIQQQQ", i, 0, at, at + 0x1000, at + 0x2000, 0))
            + msg(13, struct.pack("<Q", i), 1) + msg(14, struct.pack("<Q", i), 1) + msg(12, struct.pack("<Q", i), 1)
            + (msg(18, struct.pack("<II", i, 1)) if enable else b""))


STOP = msg(11, struct.pack("<II", 0, 0)) + msg(11, struct.pack("<II", 1, 0))
save("vhost-user", "session", HELLO + MEMORY + ring(0) + ring(1) + STOP)
save("vhost-user", "restart", HELLO + MEMORY + ring(0) + ring(1) + STOP + ring(0) + ring(1, 3) + msg(34))
save("vhost-user", "remap", HELLO + MEMORY + ring(0) + ring(1) + MEMORY
     + msg(5, struct.pack("<IIQQQQ", 1, 0, 0x8000, 0x8000, USER + 0x8000, 0x8000), 1, 1) + STOP)
save("vhost-user", "two-regions", HELLO + msg(5, struct.pack("<II", 2, 0)
     + struct.pack("<QQQQ", 0, 0x8000, USER, 0) + struct.pack("<QQQQ", 0x8000, 0x8000, USER + 0x8000, 0x8000), 2, 1)
     + ring(0) + ring(1))
save("vhost-user", "plain", msg(2, struct.pack("<Q", 1 << 32)) + MEMORY + ring(0, enable=False) + ring(1, enable=False))
save("vhost-user", "nofd", HELLO + MEMORY + msg(13, struct.pack("<Q", 0x100)) + msg(12, struct.pack("<Q", 0x100), flags=9))
save("vhost-user", "set-config", HELLO + msg(25, struct.pack("<III", 0, 8, 0) + bytes(8), flags=9))
