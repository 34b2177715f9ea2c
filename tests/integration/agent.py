# SPDX-License-Identifier: Apache-2.0
"""The host's end of exec and control sessions (docs/protocol.md), for tests of a monitor without libironclaw."""

import os
import socket
import struct
import time

MAGIC, VERSION, EXEC_SESSION = 0x574C4349, (1, 2), 1
HELLO, ERROR, OK, EXEC, STARTED, STDOUT, STDERR, EXIT = 1, 2, 3, 16, 17, 20, 21, 24
READY, FREEZE, THAW, CLONE = 48, 55, 56, 57
PORT, READY_PORT = 1024, 1025


def connect(uds, port=PORT, timeout=60):
    """A stream to the guest; OSError: refused."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(timeout)
    s.connect(str(uds))
    s.sendall(b"CONNECT %d\n" % port)
    line = b""
    while not line.endswith(b"\n"):
        byte = s.recv(1)
        if not byte:
            s.close()
            raise ConnectionRefusedError(f"port {port} of the guest")
        line += byte
    return s


def string(text):
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def frame(kind, payload):
    return struct.pack("<IB", len(payload), kind) + payload


def receive(s, size):
    data = b""
    while len(data) < size:
        piece = s.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("the agent hung up")
        data += piece
    return data


def take(s):
    """The next frame: its type and payload."""
    size, kind = struct.unpack("<IB", receive(s, 5))
    return kind, receive(s, size)


def control(s, kind, payload=b""):
    """A request of a control session, which is answered OK."""
    s.sendall(frame(kind, payload))
    answer = take(s)
    assert answer[0] == OK, answer


def become_clone(s, hostname="clone"):
    """What a new clone is told first, on the connection that it made."""
    assert take(s)[0] == READY
    entropy = os.urandom(64)
    control(s, CLONE, os.urandom(16) + struct.pack("<QI", time.time_ns(), 1) + string(hostname)
            + struct.pack("<I", len(entropy)) + entropy)


def begin(uds, argv, user="root", timeout=60):
    """A session whose command runs."""
    s = connect(uds, timeout=timeout)
    s.sendall(frame(HELLO, struct.pack("<IHHB", MAGIC, VERSION[1], VERSION[0], EXEC_SESSION)))
    body = struct.pack("<IIIHH", 0, 0, 1000, 0, 0) + string(user) + string("/") + struct.pack("<II", len(argv), 1)
    s.sendall(frame(EXEC, body + b"".join(map(string, argv)) + string("PATH=/usr/bin:/bin:/usr/sbin:/sbin")))
    return s


def finish(s):
    """(exit status, what it wrote)"""
    out = b""
    while True:
        kind, payload = take(s)
        if kind in (STDOUT, STDERR):
            out += payload
        elif kind == EXIT:
            return struct.unpack("<I", payload[1:5])[0], out.decode()
        elif kind == ERROR:
            raise AssertionError(f"the agent says: {payload[12:]!r}")


def execute(uds, argv, **options):
    with begin(uds, argv, **options) as s:
        return finish(s)
