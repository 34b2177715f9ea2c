#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of fuzz-memory-file: fuzz/seeds-memory-file.py fuzz/corpus/memory-file

Trailers are cut after what matters: the target adds zeroes, and the checksum where bit 1 of the first byte is set."""

import struct
import sys
from pathlib import Path

MIB = 1 << 20
ID = bytes(range(16))


def trailer(ram, flags=0, magic=b"ICLAWMEM", version=1, least=1, base=bytes(16), sum_it=True):
    return bytes([2 * sum_it]) + magic + struct.pack("<II16s16sQII", version, least, ID, base, ram, flags, 0)


def working_set(ram, runs, magic=b"ICLAWSET", version=1, least=1, count=None, sum_it=True):
    body = b"".join(struct.pack("<II", first, n | write << 31) for first, n, write in runs)
    number = len(runs) if count is None else count
    return bytes([1 + 2 * sum_it]) + magic + struct.pack("<II16sQII", version, least, ID, ram, number, 0) + body


SEEDS = {
    "trailer-full": trailer(256 * MIB),
    "trailer-diff": trailer(4096 * MIB, flags=1, base=ID[::-1]),
    "trailer-largest": trailer(0xffffffff * MIB),
    "trailer-nothing": trailer(0),
    "trailer-half-a-page": trailer(256 * MIB + 2048),
    "trailer-wraps": trailer(2**64 - MIB),
    "trailer-flags": trailer(MIB, flags=3),
    "trailer-later": trailer(MIB, version=3, least=2),
    "trailer-no-sum": trailer(MIB, sum_it=False),
    "trailer-other": trailer(MIB, magic=b"\x7fELF\2\1\1\0"),
    "set": working_set(4 * MIB, [(700, 5, 0), (0, 1, 1), (1000, 24, 0)]),
    "set-empty": working_set(4 * MIB, []),
    "set-all": working_set(4 * MIB, [(0, 1024, 1)]),
    "set-too-much": working_set(4 * MIB, [(0, 1024, 0), (0, 1, 0)]),
    "set-across": working_set(4 * MIB, [(1023, 2, 0)]),
    "set-wraps": working_set(2**43, [(0xffffffff, 0x7fffffff, 0)]),
    "set-count": working_set(4 * MIB, [(1, 1, 0)], count=0xffffffff),
    "set-no-ram": working_set(0, [(0, 1, 0)]),
    "set-later": working_set(MIB, [], version=2, least=2),
    "set-no-sum": working_set(MIB, [(0, 1, 0)], sum_it=False),
}


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, data in SEEDS.items():
        (out / name).write_bytes(data)


if __name__ == "__main__":
    main()
