#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of fuzz-snapshot: fuzz/seeds-snapshot.py [DIRECTORY]. Layouts: src/monitor/snapshot/, and save() of
each device."""

import struct
import sys
from pathlib import Path

HOST, CONFIG, VM, VCPU, VIRTIO, SERIAL, KEYBOARD, IOAPIC, RAM = 1, 2, 3, 4, 5, 6, 7, 8, 255
RINGS, SIZE = 0x1000, 16
VERSION_1, INDIRECT, EVENT_IDX = 1 << 32, 1 << 28, 1 << 29


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def string(text):
    return struct.pack("<I", len(text)) + text


def optional(text):
    return b"\0" if text is None else b"\1" + string(text)


def file(parts):
    """The state file of [(part, index, bytes)]."""
    table, body, at = b"", b"", 64 + 32 * len(parts)
    for part, index, data in parts:
        table += struct.pack("<IIQQII", part, index, at + len(body), len(data), crc32c(data), 0)
        body += data + bytes(-len(data) % 8)
    head = struct.pack("<8sII16sQIIQQ", b"IronClaw", 2, 2, bytes(range(16)), at + len(body), len(parts), 0, 0, 0)
    head = head[:44] + struct.pack("<I", crc32c(head + table)) + head[48:]
    return b"\0" + head + table + body


def pieces(parts):
    return b"\1" + b"".join(struct.pack("<BBH", part, index, len(data)) + data for part, index, data in parts)


def virtio(device, queues, own=b"", status=15, interrupt=0, features=VERSION_1 | INDIRECT | EVENT_IDX, next_avail=0):
    data = struct.pack("<IIIIIIIQI", device, status, interrupt, 1, 0, 1, 0, features, queues)
    for i in range(queues):
        ring = RINGS * (i + 1)
        data += struct.pack("<IIIIQQQ", 1, SIZE, next_avail, 0, ring, ring + 16 * SIZE, ring + 0x200)
    return data + own


def balloon(has_buffer=0):
    return struct.pack("<IIIIQ16Q", 16, 8, has_buffer, 2, 1 << 4, *range(16))


def ram(address=0x800, flags=2):
    """The ring of queue 0 with a chain that waits."""
    page = bytearray(0x600)
    struct.pack_into("<QIHH", page, 0, address, 512, flags, 0)
    struct.pack_into("<HHH", page, 16 * SIZE, 0, 1, 0)
    return bytes(page)


def config(vcpus=1, memory=32, drives=2, flags=15):
    data = struct.pack("<III", vcpus, memory, flags) + optional(b"/kernel") + optional(None) + optional(b"quiet")
    data += struct.pack("<I", drives)
    for i in range(drives):
        data += string(b"drive%d" % i) + string(b"/disk%d" % i) + struct.pack("<I", 1 + 2 * (i == 0))
    return data + optional(b"/run/v") + struct.pack("<III", 3, 5, 1)


HOST_PART = b"GenuineIntel" + struct.pack("<I", 0x806f8) + string(b"0.1.0")
SERIAL_PART = bytes([0x12, 0x34, 1, 3, 0x0b, 0x5a, 1, 0, 3]) + b"abc" + bytes(13)
KEYBOARD_PART = bytes([0x45, 0x60, 2, 0xfa, 0xaa]) + bytes(30)
IOAPIC_PART = struct.pack("<50I", 0x12, 5 << 24, *(v for pin in range(24) for v in (0x30 + pin, pin << 24)))
DISKS = struct.pack("<Q", 64)

ALL = [(HOST, 0, HOST_PART), (CONFIG, 0, config()), (VM, 0, bytes(8)), (VCPU, 0, bytes(64)),
       (VIRTIO, 0, virtio(2, 1, DISKS)), (VIRTIO, 1, virtio(2, 1, DISKS)), (VIRTIO, 2, virtio(4, 1)),
       (VIRTIO, 3, virtio(5, 3, balloon())), (SERIAL, 0, SERIAL_PART), (KEYBOARD, 0, KEYBOARD_PART), (IOAPIC, 0, IOAPIC_PART)]

SEEDS = {
    "file": file(ALL),
    "file-cut": file(ALL)[:500],
    "file-newer": file(ALL)[:13] + b"\x09" + file(ALL)[14:],
    "file-empty": file([]),
    "pieces": pieces(ALL),
    "disk-waits": pieces([(RAM, 0, ram(flags=3)), (VIRTIO, 0, virtio(2, 1, DISKS)), (VIRTIO, 1, virtio(2, 1, DISKS))]),
    "disk-size": pieces([(VIRTIO, 0, virtio(2, 1, struct.pack("<Q", 65)))]),
    "rng-waits": pieces([(RAM, 0, ram()), (VIRTIO, 2, virtio(4, 1, interrupt=1))]),
    "rng-outside": pieces([(RAM, 0, ram(1 << 40)), (VIRTIO, 2, virtio(4, 1))]),
    "rng-jumped": pieces([(RAM, 0, ram()), (VIRTIO, 2, virtio(4, 1, next_avail=40000))]),
    "balloon-buffer": pieces([(VIRTIO, 3, virtio(5, 3, balloon(1)))]),
    "balloon-none": pieces([(VIRTIO, 3, virtio(5, 3, balloon(1), status=0x4f))]),
    "features": pieces([(VIRTIO, 2, virtio(4, 1, features=VERSION_1 | 2))]),
    "setting-up": pieces([(VIRTIO, 2, virtio(4, 1, status=11)), (VIRTIO, 3, virtio(5, 3, balloon(), status=0x8f))]),
    "serial": pieces([(SERIAL, 0, SERIAL_PART), (SERIAL, 0, SERIAL_PART)]),
    "serial-wrong": pieces([(SERIAL, 0, b"\xff" * 25)]),
    "keyboard": pieces([(KEYBOARD, 0, KEYBOARD_PART)]),
    "ioapic": pieces([(IOAPIC, 0, IOAPIC_PART)]),
    "ioapic-wrong": pieces([(IOAPIC, 0, b"\xff" * 200)]),
    "config": pieces([(CONFIG, 0, config(32, 1 << 20, 8, 0))]),
    "config-drives": pieces([(CONFIG, 0, config(drives=9))]),
    "host": pieces([(HOST, 0, HOST_PART)]),
}


def main():
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "corpus/snapshot"
    target.mkdir(parents=True, exist_ok=True)
    for name, data in SEEDS.items():
        (target / name).write_bytes(data)


if __name__ == "__main__":
    main()
