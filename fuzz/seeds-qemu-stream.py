#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes fuzz/corpus/qemu-stream: small migration streams, whole ones and such that lie."""
import pathlib
import struct

ZERO, DATA, END, CONTINUE = 0x02, 0x08, 0x10, 0x20


def name(text):
    return bytes([len(text)]) + text


def page(offset, block, fill):
    head = struct.pack(">Q", offset | (DATA if fill else ZERO) | (0 if block else CONTINUE))
    return head + (name(block) if block else b"") + (bytes([fill]) * 4096 if fill else b"\0")


def footer(section=2):
    return b"\x7e" + struct.pack(">I", section)


def part(kind, *pages):
    return bytes([kind]) + struct.pack(">I", 2) + b"".join(pages) + struct.pack(">Q", END) + footer()


HEADER = struct.pack(">II", 0x5145564D, 3) + b"\x07" + struct.pack(">I", 7) + b"microvm"
START = (b"\x01" + struct.pack(">I", 2) + name(b"ram") + struct.pack(">IIQ", 0, 4, 0x6000 | 4) + name(b"ram")
         + struct.pack(">Q", 0x4000) + name(b"bios") + struct.pack(">Q", 0x2000) + struct.pack(">Q", END) + footer())
WHOLE = (HEADER + START + part(2, page(0, b"ram", 0), page(0x1000, None, 1), page(0, b"bios", 0))
         + part(3, page(0x1000, None, 0), page(0x2000, b"ram", 0), page(0x3000, None, 2)) + b"\x04devices")
SEEDS = {
    "whole": WHOLE,
    "cut": WHOLE[:len(WHOLE) // 2],
    "no-pages": HEADER + START + part(3),
    "no-devices": WHOLE[:-8],
    "start-twice": HEADER + START + START + part(3),
    "part-first": HEADER + part(2, page(0, b"ram", 0)),
    "page-without-block": HEADER + START + part(3, page(0, None, 0)),
    "blocks-lie": HEADER + START.replace(struct.pack(">Q", 0x4000), struct.pack(">Q", 1 << 63)) + part(3),
    "long-name": HEADER + START + part(3, page(0, b"x" * 255, 3), page(0, b"ram", 0), page(0x1000, b"x" * 255, 0)),
}

directory = pathlib.Path(__file__).parent / "corpus" / "qemu-stream"
directory.mkdir(parents=True, exist_ok=True)
for seed, data in SEEDS.items():
    (directory / seed).write_bytes(data)
