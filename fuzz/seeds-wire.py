#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made seeds of corpus/wire and corpus/transfer: one of each message, and the known attacks."""
import pathlib
import struct

HERE = pathlib.Path(__file__).parent / "corpus"
(HELLO, ERROR, OK) = (1, 2, 3)
(EXEC, STARTED, STDIN, CLOSE_STDIN, STDOUT, STDERR, RESIZE, SIGNAL, EXIT) = range(16, 25)
(PUT, GET, ENTRY, DATA, HOLE, DONE) = range(32, 38)
(READY, TIME, ENTROPY, STATS_REQ, STATS, SHUTDOWN, PING, FREEZE, THAW, CLONE) = range(48, 58)
FILE, DIR, LINK = 1, 2, 3


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<I", len(raw)) + raw


def frame(kind, payload=b""):
    return struct.pack("<IB", len(payload), kind) + payload


def hello(session, magic=0x574C4349):
    return frame(HELLO, struct.pack("<IHHB", magic, 2, 1, session))


def execute(argv, env=(), flags=0, user="", cwd=""):
    head = struct.pack("<IIIHH", flags, 1000, 100, 24, 80) + string(user) + string(cwd)
    return frame(EXEC, head + struct.pack("<II", len(argv), len(env)) + b"".join(map(string, [*argv, *env])))


def copy(kind, path, flags=0, user="", name=""):
    return frame(kind, struct.pack("<I", flags) + string(path) + string(user) + string(name))


def entry(kind, path, size=0, target="", mode=0o755):
    return frame(ENTRY, struct.pack("<BIIIQQ", kind, mode, 0, 0, 10**18, size) + string(path) + string(target))


def clone(flags=0, name="clone-1", entropy=bytes(range(32))):
    return frame(CLONE, bytes(range(16)) + struct.pack("<QI", 10**18, flags) + string(name) + string(entropy))


def hole(size):
    return frame(HOLE, struct.pack("<Q", size))


def done(skipped=0, text=""):
    return frame(DONE, struct.pack("<I", skipped) + string(text))


def error(code, errno, text):
    return frame(ERROR, struct.pack("<II", code, errno) + string(text))


def write(corpus, name, data):
    (HERE / corpus).mkdir(parents=True, exist_ok=True)
    (HERE / corpus / name).write_bytes(data)


START, READY_STATE = 0, 10
WIRE = {
    "exec": (START, 1, 0, hello(1) + execute(["sh", "-c", "echo"], ["A=1"], 3, "root", "/tmp") + frame(STDIN, b"in")
             + frame(STARTED, struct.pack("<I", 7)) + frame(STDOUT, b"out") + frame(STDERR, b"err")
             + frame(RESIZE, struct.pack("<HH", 24, 80)) + frame(SIGNAL, b"\x0f") + frame(CLOSE_STDIN)
             + frame(EXIT, struct.pack("<BIQQQ", 0, 7, 1, 2, 3))),
    "exec-bytewise": (START, 1, 1, hello(1) + execute(["true"])),
    "exec-counts-lie": (START, 1, 0, hello(1) + frame(EXEC, struct.pack("<IIIHH", 0, 0, 0, 0, 0) + string("")
                                                       + string("") + struct.pack("<II", 4096, 4096))),
    "put": (START, 2, 7, hello(2) + copy(PUT, "/tmp/x", 1, "1000:1000", "x") + entry(DIR, "") + entry(FILE, "f", 7)
            + frame(DATA, b"abc") + hole(4) + entry(LINK, "l", 0, "f") + done() + frame(OK)),
    "get": (START, 3, 0, hello(3) + copy(GET, "/etc/hosts", 2) + entry(FILE, "", 1) + frame(DATA, b"x")
            + done(1, "/dev/x: left out")),
    "control": (START, 4, 0, hello(4) + frame(TIME, struct.pack("<Q", 10**18)) + frame(ENTROPY, bytes(32))
                + frame(OK) + frame(OK) + frame(STATS_REQ) + frame(STATS, struct.pack("<QQQQQIIQQQ", *range(10)))
                + frame(PING) + frame(SHUTDOWN)),
    "freeze": (START, 4, 0, hello(4) + frame(FREEZE) + frame(OK) + frame(THAW) + frame(OK)),
    "clone": (READY_STATE, 4, 5, frame(READY, struct.pack("<HQQ", 2, 2, 3) + string("0.1.0") + string("6.1"))
              + clone(1, "a" * 64, bytes(512)) + frame(OK) + frame(FREEZE) + clone()),
    "clone-lies": (READY_STATE, 4, 0, frame(READY, struct.pack("<HQQ", 2, 2, 3) + string("") + string(""))
                   + clone(2) + clone(0, "a/b") + clone(0, "x" * 64, b"short")
                   + frame(CLONE, bytes(28) + string("") + struct.pack("<I", 0xFFFFFFFF))),
    "ready": (READY_STATE, 4, 3, frame(READY, struct.pack("<HQQ", 1, 2, 3) + string("0.1.0") + string("6.1"))),
    "error": (START, 1, 0, hello(1) + error(3, 2, "no such program")),
    "bad-magic": (START, 1, 0, hello(1, 0x12345678)),
    "too-long": (START, 1, 0, struct.pack("<IB", 0xFFFFFFFF, STDOUT)),
    "unknown": (START, 1, 0, frame(99, b"?")),
    "bad-path": (6, 2, 0, entry(FILE, "../x")),
}
for seed, (state, session, piece, data) in WIRE.items():
    write("wire", seed, bytes([state, session, piece]) + data)

PUT_BIT, NAME, NEW, BITS = 1, 2, 4, 8
TREE = entry(DIR, "") + entry(DIR, "d", mode=0o500) + entry(FILE, "d/f", 3, mode=0o4755) + frame(DATA, b"abc")
TRANSFER = {
    "tree": (NEW, TREE + entry(LINK, "l", 0, "d/f") + entry(FILE, "s", 5000) + hole(4000) + frame(DATA, b"x" * 1000)
             + done()),
    "put": (PUT_BIT | NEW | BITS, TREE + done()),
    "put-fails": (PUT_BIT, TREE + entry(FILE, "d", 0) + done()),
    "file": (NAME, entry(FILE, "", 1) + frame(DATA, b"x") + done()),
    "replace": (0, entry(DIR, "") + entry(FILE, "f", 1) + frame(DATA, b"x") + entry(FILE, "s", 0)
                + entry(LINK, "l", 0, "d") + done(2, "left out")),
    "through-link": (0, entry(DIR, "") + entry(FILE, "l/secret", 1) + frame(DATA, b"x") + done()),
    "plant-link": (0, entry(DIR, "") + entry(LINK, "x", 0, "../outside") + entry(DIR, "x") + entry(FILE, "x/e") + done()),
    "dir-to-link": (0, entry(DIR, "") + entry(DIR, "d") + entry(LINK, "d", 0, "../outside") + entry(FILE, "d/e")),
    "dotdot": (0, entry(DIR, "") + entry(FILE, "../outside/e")),
    "absolute": (0, entry(DIR, "") + entry(FILE, "/tmp/e")),
    "too-much": (NEW, entry(FILE, "", 1) + frame(DATA, b"xy")),
    "too-little": (NEW, entry(FILE, "", 2) + frame(DATA, b"x") + done()),
    "hole-wraps": (NEW, entry(FILE, "", 2**63 - 1) + hole(2**63 - 1) + hole(2**63 - 1)),
    "again": (NEW, TREE + entry(FILE, "g") + entry(DIR, "d") + entry(FILE, "d/f", 1) + frame(DATA, b"z") + done()),
    "error": (NEW, entry(DIR, "") + error(9, 28, "/x: No space left on device")),
    "cut": (NEW, entry(FILE, "", 9) + frame(DATA, b"part")[:-1]),
}
for seed, (flags, data) in TRANSFER.items():
    write("transfer", seed, bytes([flags]) + data)
