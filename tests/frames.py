# SPDX-License-Identifier: Apache-2.0
"""The protocol of docs/protocol.md, as much of it as tests need to talk to an agent without libironclaw."""

import contextlib
import os
import socket
import struct

from harness import SLOW

HELLO, ERROR, OK = 1, 2, 3
EXEC, STARTED, STDIN, CLOSE_STDIN, STDOUT, STDERR, RESIZE, SIGNAL, EXIT = range(16, 25)
PUT, GET, ENTRY, DATA, HOLE, DONE = range(32, 38)
READY, TIME, ENTROPY, STATS_REQ, STATS, SHUTDOWN, PING, FREEZE, THAW, CLONE = range(48, 58)
SESSION_EXEC, SESSION_PUT, SESSION_GET, SESSION_CONTROL = 1, 2, 3, 4
AGENT_PORT, READY_PORT = 1024, 1025
CLONE_TIED = 1
TIMEOUT = 60 * SLOW


class Refused(Exception):
    """ERROR from the agent."""

    def __init__(self, payload):
        self.code, self.errno, length = struct.unpack_from("<III", payload)
        self.message = payload[12:12 + length].decode("utf-8", "replace")
        super().__init__(f"{self.message} (code {self.code}, errno {self.errno})")


class HungUp(Exception):
    """The connection ended."""


def string(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<I", len(raw)) + raw


class Session:
    """One connection; `sock` is connected to the agent."""

    def __init__(self, sock, timeout=TIMEOUT):
        self.sock, self.received = sock, b""
        self.sock.settimeout(timeout)

    @classmethod
    def open(cls, uds, kind, timeout=TIMEOUT, version=(3, 1)):
        """Connects to the agent through the VM's unix socket and sends HELLO."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(str(uds))
        session = cls(sock, timeout)
        sock.sendall(b"CONNECT %d\n" % AGENT_PORT)
        line = b""
        while not line.endswith(b"\n"):
            byte = sock.recv(1)
            if not byte:
                raise HungUp("before OK")
            line += byte
        session.send(HELLO, struct.pack("<IHHB", 0x574C4349, *version, kind))
        return session

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, kind, payload=b""):
        self.sock.sendall(struct.pack("<IB", len(payload), kind) + payload)

    def _fill(self, count):
        while len(self.received) < count:
            try:
                part = self.sock.recv(1 << 17)
            except ConnectionResetError:
                part = b""
            if not part:
                raise HungUp(f"after {len(self.received)} of {count} bytes of a frame")
            self.received += part

    def next(self):
        """(type, payload) of the next frame; raises Refused for ERROR. After TimeoutError it may be called again."""
        self._fill(5)
        length, kind = struct.unpack_from("<IB", self.received)
        self._fill(5 + length)
        payload, self.received = self.received[5:5 + length], self.received[5 + length:]
        if kind == ERROR:
            raise Refused(payload)
        return kind, payload

    def ask(self, kind, payload=b""):
        """A request that is answered OK."""
        self.send(kind, payload)
        answer, _ = self.next()
        assert answer == OK, answer


def control(uds, **kwargs):
    return Session.open(uds, SESSION_CONTROL, **kwargs)


def clone_request(generation, time_ns, name="", entropy=None, flags=0):
    entropy = os.urandom(64) if entropy is None else entropy
    return generation + struct.pack("<QI", time_ns, flags) + string(name) + string(entropy)


def start(uds, argv, user="", **kwargs):
    """An exec session that has sent its EXEC."""
    session = Session.open(uds, SESSION_EXEC, **kwargs)
    head = struct.pack("<IIIHH", 0, 0, 0, 0, 0) + string(user) + string("")
    session.send(EXEC, head + struct.pack("<II", len(argv), 0) + b"".join(map(string, argv)))
    return session


def finish(session):
    """(exit code, output) of an exec session; raises Refused."""
    out = b""
    with session:
        while True:
            kind, payload = session.next()
            if kind in (STDOUT, STDERR):
                out += payload
            elif kind == EXIT:
                how, value = struct.unpack_from("<BI", payload)
                return (value if how == 0 else -value), out


def run(uds, *argv, **kwargs):
    """The output of a command that must succeed."""
    rc, out = finish(start(uds, argv, **kwargs))
    assert rc == 0, (argv, rc, out)
    return out.decode("utf-8", "replace")


class ReadyListener:
    """The host's end of port 1025."""

    def __init__(self, uds):
        self.path = f"{uds}_{READY_PORT}"
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(self.path)
        os.chmod(self.path, 0o666)  # the device is another user, when it has a jail
        self.sock.listen(16)

    def accept(self, timeout=TIMEOUT):
        """The session of the next connection that sends READY. One that ends before it was given up by the agent."""
        self.sock.settimeout(timeout)
        while True:
            session = Session(self.sock.accept()[0], timeout)
            try:
                kind, payload = session.next()
            except HungUp:
                session.close()
                continue
            assert kind == READY, kind
            session.version, session.boot_us, session.init_us = struct.unpack_from("<HQQ", payload)
            return session

    def close(self):
        self.sock.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
