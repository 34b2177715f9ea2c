#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of fuzz-audit: fuzz/seeds-audit.py fuzz/corpus/audit"""

import struct
import sys
from pathlib import Path


def header(total, capacity=63, version=1, minimum=1, entry=320):
    return b"ICAUDIT\0" + struct.pack("<IIIIQ", version, minimum, capacity, entry, total) + bytes(32)


def entry(action=1, call=59, count=1, vm=b"vm", process=b"ironclaw-vmm", thread=b"fc_vcpu 0", text=b""):
    return (struct.pack("<qIi6QQI", 1700000000000, action, call, 1, 2, 3, 4, 5, 6, count, 42)
            + vm.ljust(72, b"\0") + process.ljust(20, b"\0") + thread.ljust(16, b"\0") + text.ljust(108, b"\0") + bytes(28))


SEEDS = {
    "empty": header(0),
    "one": header(1) + entry(),
    "user": header(2, 10000) + entry(3, -1, 5, text=b"max_vms") + entry(5, -1),
    "cut": header(3) + entry() + entry()[:100],
    "wrapped": header(70) + entry() * 63,
    "lies": header(2**64 - 1) + entry(),
    "unwritten": header(2) + bytes(320) + entry(),
    "hostile": header(3) + entry(9) + entry(1, -2**31, 0) + entry(2, 2**31 - 1, 2**64 - 1, *[b"\x1b" * 16] * 3),
    "later": header(1, version=2, minimum=2) + entry(),
    "other": header(1, 9) + entry(),
}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in SEEDS.items():
        (folder / name).write_bytes(data)
