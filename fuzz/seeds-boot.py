#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made seeds of fuzz-elf and fuzz-bzimage into fuzz/corpus."""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
LOAD, NOTE = 1, 4


def save(target, name, data, initrd_pages=0, cpus_devices=0x12):
    directory = os.path.join(HERE, "corpus", target)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as f:
        f.write(bytes([initrd_pages, cpus_devices]) + data)


def phdr(kind, offset, paddr, filesz, memsz, align=4):
    return struct.pack("<IIQQQQQQ", kind, 5, offset, paddr, paddr, filesz, memsz, align)


def elf(headers, body, entry=0x100010, kind=2, machine=62, phoff=64):
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, entry, phoff, 0, 0, 64, 56, len(headers), 0, 0, 0) + (
        b"".join(headers) + body
    )


def note(kind, desc, name=b"Xen\0"):
    return struct.pack("<III", len(name), len(desc), kind) + name + desc


NOTES = note(6, b"linux\0\0\0") + note(18, struct.pack("<Q", 0x100008))
AT = 64 + 3 * 56
BODY = NOTES + b"\x90" * 64
TWO = [
    phdr(LOAD, AT + len(NOTES), 0x100000, 32, 32),
    phdr(LOAD, AT + len(NOTES) + 32, 0x110000, 32, 0x10000),
]
save("elf", "pvh", elf(TWO + [phdr(NOTE, AT, 0, len(NOTES), len(NOTES))], BODY), 3)
save("elf", "zero-page", elf(TWO + [phdr(NOTE, AT, 0, 24, 24)], BODY), 3)
save("elf", "notes-align-8", elf(TWO + [phdr(NOTE, AT, 0, len(NOTES), len(NOTES), 8)], BODY))
save("elf", "note-wraps", elf(TWO + [phdr(NOTE, AT, 0, 60, 60)], struct.pack("<III", 2**32 - 1, 2**32 - 1, 18) + BODY))
save("elf", "low", elf([phdr(LOAD, AT, 0x30000, 32, 32)] + [phdr(0, 0, 0, 0, 0)] * 2, BODY, 0x30000), 200, 0xFF)
save("elf", "on-the-tables", elf([phdr(LOAD, AT, 0x7000, 32, 32)] * 3, BODY, 0x7000))
save("elf", "wraps", elf([phdr(LOAD, 2**64 - 16, 2**64 - 16, 32, 32)] * 3, BODY))
save("elf", "crosses-regions", elf([phdr(LOAD, AT, 0x17FFF0, 64, 64)] + TWO, BODY, 0x180000))
save("elf", "cut", elf(TWO + [phdr(NOTE, AT, 0, len(NOTES), len(NOTES))], BODY)[:-1])
save("elf", "dyn", elf(TWO, BODY, kind=3))
save("elf", "arm", elf(TWO, BODY, machine=183))
save("elf", "table-far", elf(TWO, BODY, phoff=2**63 - 1))
save("elf", "gzip", b"\x1f\x8b\x08\0")


def bzimage(name, syssize=64, version=0x20F, xload=1, pref=0x100000, init=0x20000, sects=1, jump=0x6A, limit=0x7FFFFFFF, **kw):
    h = bytearray(1024 - 0x1F1)

    def put(at, fmt, value):
        struct.pack_into("<" + fmt, h, at - 0x1F1, value)

    put(0x1F1, "B", sects)
    put(0x1F4, "I", syssize)
    put(0x200, "H", 0xEB | jump << 8)
    put(0x206, "H", version)
    put(0x211, "B", 1)
    put(0x22C, "I", limit)
    put(0x236, "H", xload)
    put(0x258, "Q", pref)
    put(0x260, "I", init)
    save("bzimage", name, bytes(h) + b"\xc3" * 1024, **kw)


bzimage("plain", initrd_pages=3)
bzimage("initrd-below", limit=0x180FFF, initrd_pages=3, cpus_devices=0xFF)
bzimage("initrd-limit-0", limit=0, initrd_pages=3)
bzimage("default-sectors", sects=0)
bzimage("long-header", jump=0xFF)
bzimage("short-header", jump=0x10)
bzimage("old", version=0x20B)
bzimage("32-bit", xload=0)
bzimage("no-code", syssize=32)
bzimage("cut", syssize=65)
bzimage("huge", syssize=2**32 - 1, init=2**32 - 1)
bzimage("wraps", pref=2**64 - 1)
bzimage("crosses-regions", pref=0x17FF00)
