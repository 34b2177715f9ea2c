#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made seeds of fuzz-mmio and fuzz-block into fuzz/corpus."""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))


def save(target, name, data):
    directory = os.path.join(HERE, "corpus", target)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as f:
        f.write(data)


RO, RW, RNG, BALLOON, VSOCK = range(5)
READ, WRITE, MEMORY, KICK, SERVE, START, DESC, OFFER, HOST, PACKET = range(10)
DIAL, ACCEPT, CONNECT, SEND, RECEIVE, SHUTDOWN, CLOSE, TRANSPORT_RESET = range(8)
DATA = 0x4000


def op(device, kind, *fields):
    return bytes([device, kind]) + b"".join(f if isinstance(f, bytes) else bytes([f]) for f in fields)


def reg(device, at, value):
    return op(device, WRITE, 2, struct.pack("<HI", at, value))


def desc(device, queue, i, addr, length, flags, nxt=0):
    return op(device, DESC, queue, i, struct.pack("<II", addr, length), flags | nxt << 3)


def memory(device, at, data):
    return b"".join(op(device, MEMORY, struct.pack("<HB", at + i, len(data[i : i + 31])), data[i : i + 31])
                    for i in range(0, len(data), 31))


def go(device, queue, head):
    return op(device, OFFER, queue, head) + op(device, KICK, queue) + op(device, SERVE, 2)


def request(device, kind, sector, length, flags):
    return (memory(device, DATA, struct.pack("<IIQ", kind, 0, sector)) + desc(device, 0, 0, DATA, 16, 1, 1)
            + desc(device, 0, 1, DATA + 0x1000, length, 1 | flags, 2) + desc(device, 0, 2, DATA + 0x100, 1, 2)
            + go(device, 0, 0))


STOP = b"".join(reg(d, 0x70, 0) for d in range(5))
save("mmio", "block-read", op(RO, START, 0) + request(RO, 0, 3, 4096, 2) + request(RO, 1, 0, 512, 0)
     + request(RO, 8, 0, 20, 2) + STOP)
save("mmio", "block-write", op(RW, START, 1) + request(RW, 1, 3, 4096, 0) + request(RW, 4, 0, 512, 0)
     + request(RW, 11, 0, 16, 0) + request(RW, 13, 0, 16, 0) + op(RW, HOST, 1) + STOP)
save("mmio", "block-loop", op(RO, START, 2) + desc(RO, 0, 0, DATA, 16, 1, 1) + desc(RO, 0, 1, DATA, 16, 1, 0) + go(RO, 0, 0)
     + op(RO, START, 0) + request(RO, 0, 0, 512, 2))
save("mmio", "block-cut", op(RO, START, 0) + request(RO, 0, 60, 512, 2) + op(RO, OFFER, 0, 0) + op(RO, KICK, 0) + op(RO, HOST, 4))
save("mmio", "rng", op(RNG, START, 0) + desc(RNG, 0, 0, DATA, 64, 3, 1) + desc(RNG, 0, 1, DATA + 256, 99999, 2)
     + go(RNG, 0, 0) * 20 + op(RNG, HOST, 0))
save("mmio", "balloon", op(BALLOON, START, 0) + memory(BALLOON, DATA, struct.pack("<6I", 64, 65, 66, 90, 89, 88))
     + desc(BALLOON, 0, 0, DATA, 24, 0) + go(BALLOON, 0, 0) + desc(BALLOON, 1, 0, DATA, 24, 0) + go(BALLOON, 1, 0)
     + op(BALLOON, HOST, 2) + reg(BALLOON, 0x104, 6)
     + memory(BALLOON, DATA, struct.pack("<HQHQ", 4, 1000, 5, 2000)) + desc(BALLOON, 2, 0, DATA, 20, 0) + go(BALLOON, 2, 0) * 2
     + op(BALLOON, HOST, 3))
save("mmio", "balloon-outside", op(BALLOON, START, 4) + memory(BALLOON, DATA, struct.pack("<3I", 64, 0x100, 0xFFFFFFFF))
     + desc(BALLOON, 0, 0, DATA, 12, 0) + go(BALLOON, 0, 0) + reg(BALLOON, 0x70, 15) + op(BALLOON, START, 0))
SETUP = (reg(RNG, 0x70, 1) + reg(RNG, 0x70, 3) + reg(RNG, 0x24, 1) + reg(RNG, 0x20, 1) + reg(RNG, 0x70, 11) + reg(RNG, 0x30, 0)
         + reg(RNG, 0x38, 8) + reg(RNG, 0x80, 0x1000) + reg(RNG, 0x90, 0x2000) + reg(RNG, 0xA0, 0x3000) + reg(RNG, 0x44, 1)
         + reg(RNG, 0x70, 15))
save("mmio", "by-hand", SETUP + memory(RNG, 0x1000, struct.pack("<QIHH", DATA, 64, 2, 0)) + memory(RNG, 0x2002, b"\1\0")
     + op(RNG, KICK, 0) + op(RNG, SERVE, 2) + op(RNG, READ, 2, struct.pack("<H", 0x60)) + reg(RNG, 0x64, 1) + STOP + SETUP)
save("mmio", "reconfigured", op(RNG, START, 0) + desc(RNG, 0, 0, DATA, 64, 2) + op(RNG, OFFER, 0, 0) + op(RNG, KICK, 0)
     + reg(RNG, 0x30, 0) + reg(RNG, 0x44, 0) + op(RNG, SERVE, 2) + reg(RNG, 0x44, 1) + reg(RNG, 0x80, 0xFFFFFFF0)
     + op(RNG, SERVE, 2))
save("mmio", "registers", b"".join(op(d, READ, w, struct.pack("<H", at)) for d in range(5) for w in (0, 2, 3)
     for at in range(0, 0x140, 16)))


def host(what, *fields, program=0):
    return op(VSOCK, HOST, what << 2 | program, *fields) + op(VSOCK, SERVE, 2)


def packet(kind, ports=0, length=0, answer=True, credit=0xFFFF):
    return op(VSOCK, PACKET, kind | 0x10 * answer, ports, struct.pack("<HH", length, credit))


RX_BUFFERS = b"".join(desc(VSOCK, 0, i, 0x8000, 3000, 2) for i in range(16))
VSOCK_START = op(VSOCK, START, 0) + RX_BUFFERS + desc(VSOCK, 2, 0, DATA, 8, 2) + op(VSOCK, OFFER, 2, 0) + go(VSOCK, 0, 0)
MORE = b"".join(go(VSOCK, 0, i) for i in range(1, 4))
REQUEST, RESPONSE, RST, SHUT, RW_, UPDATE, CREDIT = range(1, 8)
CALL = VSOCK_START + MORE + host(DIAL) + host(CONNECT, 5) + packet(RESPONSE)
save("mmio", "vsock-host-calls", CALL + host(SEND, b"\x00\x01") + packet(RW_, length=100) + host(RECEIVE, b"\xff\x0f")
     + packet(UPDATE) + host(SHUTDOWN, 1) + go(VSOCK, 0, 5) + packet(SHUT, ports=0xC0) + packet(RST))
save("mmio", "vsock-guest-calls", VSOCK_START + MORE + packet(REQUEST, ports=7 | 1 << 3, answer=False) + host(ACCEPT, program=1)
     + packet(RW_, ports=7 | 1 << 3, length=60000, answer=False) + host(RECEIVE, b"\xff\xff", program=1)
     + packet(CREDIT, ports=7 | 1 << 3, answer=False) + host(SEND, b"\xff\xff", program=1) + host(CLOSE, program=1))
save("mmio", "vsock-nobody", VSOCK_START + MORE + b"".join(packet(k, ports=k | 2 << 3, answer=False) for k in range(9)) * 3)
save("mmio", "vsock-resets", CALL + host(TRANSPORT_RESET) + packet(RW_, length=9) + reg(VSOCK, 0x70, 0) + op(VSOCK, SERVE, 2)
     + CALL + reg(VSOCK, 0x70, 0) + CALL + host(CLOSE))
save("mmio", "vsock-lengths", CALL + packet(RW_ | 0x40, length=0xFFFF) + packet(UPDATE | 0x40, length=50)
     + desc(VSOCK, 1, 3, 0x9000, 20, 0) + go(VSOCK, 1, 3) + desc(VSOCK, 1, 4, 0x9000, 44, 2) + go(VSOCK, 1, 4)
     + desc(VSOCK, 0, 6, 0x8000, 40, 2) + go(VSOCK, 0, 6) + host(SEND, b"\x10\x00"))


def chain(kind, sector, *parts, segment=None):
    shape = len(parts) << 1 | (0x10 if segment else 0)
    return bytes([shape, kind, sector]) + (segment or b"") + b"".join(parts)


def part(at, blocks, write):
    return bytes([2 if write else 0]) + struct.pack("<H", at) + bytes([blocks])


ANSWER = bytes([0x42]) + struct.pack("<H", 9999) + bytes([1])
IN, OUT, FLUSH, ID, DISCARD, ZEROES, ODD = 0, 2, 4, 5, 6, 7, 8
SEGMENT = struct.pack("<QII", 8, 8, 0)
for flags in (0, 1):
    name = "ro-" if flags else "rw-"
    save("block", name + "io", bytes([flags]) + b"\x00" + chain(IN, 0, part(0, 8, True), ANSWER)
         + b"\x00" + chain(OUT, 1, part(64, 2, False), part(999, 1, False), ANSWER) + b"\x00" + chain(FLUSH, 0, ANSWER)
         + b"\x00" + chain(ID, 0, part(0, 1, True), ANSWER) + b"\x00" + chain(ODD, 0, ANSWER))
    save("block", name + "batch", bytes([flags]) + b"\x03" + b"".join(chain(IN, i, part(64 * i, 1, True), ANSWER) for i in range(4)))
    save("block", name + "discard", bytes([flags]) + b"\x00" + chain(DISCARD, 0, ANSWER, segment=SEGMENT)
         + b"\x00" + chain(ZEROES, 0, ANSWER, segment=SEGMENT[:12] + b"\1\0\0\0")
         + b"\x00" + chain(ZEROES, 0, ANSWER, segment=b"\xff" * 8 + SEGMENT[8:]))
    save("block", name + "end", bytes([flags]) + b"\x00" + chain(IN, 63, part(0, 1, True), ANSWER)
         + b"\x00" + chain(IN, 63, part(0, 2, True), ANSWER) + b"\x00" + chain(OUT, 64, part(0, 1, False), ANSWER)
         + b"\x00" + bytes([5, IN]) + b"\xff" * 8 + part(0, 1, True) + ANSWER)
    save("block", name + "no-answer", bytes([flags]) + b"\x00" + chain(IN, 0) + b"\x00" + chain(IN, 0, part(0, 1, False)))
    save("block", name + "outside", bytes([flags]) + b"\x00" + chain(IN, 0, bytes([0x32]) + struct.pack("<QI", 0xFFE00, 512), ANSWER)
         + b"\x00" + chain(IN, 0, bytes([0x32]) + struct.pack("<QI", 0xFFE01, 512), ANSWER)
         + b"\x00" + chain(IN, 0, bytes([0x32]) + struct.pack("<QI", 2**64 - 1, 0xFFFFFFFF), ANSWER))
