#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The API as its clients see it: each endpoint before and after the start, with good and bad requests, by curl.

    tests/api/conformance.py [-k NAME] MONITOR

Also the suite "api" of tests/run.py. The half after the start needs /dev/kvm; its guest is three bytes long.
"""

import argparse
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BEFORE, AFTER, ALWAYS = "before", "after", "always"
NOT_BEFORE = "The requested operation is not supported before starting the microVM."
NOT_AFTER = "The requested operation is not supported after starting the microVM."
BAD_BODY = "An error occurred when deserializing the json body of a request: "
BODY_MAX, LINE_MAX, CONNECTIONS_MAX = 51200, 1024, 10
WAIT = 10 * float(os.environ.get("IRONCLAW_TEST_SLOW", "1"))  # seconds until anything counts as stuck

BOOT = {"kernel_image_path": "{dir}/guest", "boot_args": "console=ttyS0"}
DRIVE = {"drive_id": "d1", "path_on_host": "{dir}/disk", "is_root_device": False, "is_read_only": True}
BALLOON = {"amount_mib": 1, "deflate_on_oom": True, "stats_polling_interval_s": 1}
START = {"action_type": "InstanceStart"}

# (method, path, when it is legal, a good body, its required members)
QUESTIONS = [("/", ALWAYS), ("/version", ALWAYS), ("/vm/config", ALWAYS), ("/machine-config", ALWAYS),
             ("/balloon", ALWAYS), ("/balloon/statistics", AFTER)]
ENDPOINTS = [
    ("PUT", "/machine-config", BEFORE, {"vcpu_count": 1, "mem_size_mib": 64}, ("vcpu_count", "mem_size_mib")),
    ("PATCH", "/machine-config", BEFORE, {"mem_size_mib": 32}, ()),
    ("PUT", "/boot-source", BEFORE, BOOT, ("kernel_image_path",)),
    ("PUT", "/drives/d1", BEFORE, DRIVE, ("drive_id", "path_on_host", "is_root_device")),
    ("PUT", "/vsock", BEFORE, {"guest_cid": 3, "uds_path": "{dir}/v"}, ("guest_cid", "uds_path")),
    ("PUT", "/entropy", BEFORE, {}, ()),
    ("PUT", "/serial", BEFORE, {"serial_out_path": "{dir}/serial"}, ()),
    ("PUT", "/logger", BEFORE, {"log_path": "{dir}/log", "level": "Debug", "show_level": True,
                                "show_log_origin": True}, ()),
    ("PUT", "/metrics", BEFORE, {"metrics_path": "{dir}/metrics"}, ("metrics_path",)),
    ("PUT", "/balloon", BEFORE, BALLOON, ("amount_mib", "deflate_on_oom")),
    ("PATCH", "/balloon", AFTER, {"amount_mib": 2}, ("amount_mib",)),
    ("PATCH", "/balloon/statistics", AFTER, {"stats_polling_interval_s": 2}, ("stats_polling_interval_s",)),
    ("PATCH", "/drives/d1", AFTER, {"drive_id": "d1", "path_on_host": "{dir}/disk"}, ("drive_id",)),
    ("PATCH", "/vm", AFTER, {"state": "Paused"}, ("state",)),
    ("PUT", "/actions", AFTER, {"action_type": "FlushMetrics"}, ("action_type",)),
]
SNAPSHOT = {"snapshot_path": "{dir}/s", "mem_file_path": "{dir}/m"}
BACKEND = {"backend_type": "File", "backend_path": "{dir}/m"}

# (method, path, body, status, what is in the answer): the same before and after the start
REFUSALS = [
    ("PUT", "/network-interfaces/eth0", {"iface_id": "eth0", "host_dev_name": "tap0"}, 400, "no network card"),
    ("PATCH", "/network-interfaces/eth0", {"iface_id": "eth0"}, 400, "no network card"),
    ("PUT", "/mmds", {}, 400, "no network card"),
    ("PATCH", "/mmds", {}, 400, "no network card"),
    ("GET", "/mmds", None, 400, "no network card"),
    ("PUT", "/mmds/config", {"network_interfaces": []}, 400, "no network card"),
    ("PUT", "/cpu-config", {}, 400, "CPU templates are not supported"),
    ("GET", "/nothing", None, 400, "Invalid request method and/or path: GET nothing."),
    ("PUT", "/nothing", {}, 400, "Invalid request method and/or path: PUT nothing."),
    ("PUT", "/version", {}, 400, "Invalid request method and/or path: PUT version."),
    ("PATCH", "/boot-source", {}, 400, "Invalid request method and/or path: PATCH boot-source."),
    ("DELETE", "/drives/d1", None, 400, "Invalid request method and/or path: DELETE drives/d1."),
    ("POST", "/actions", START, 400, "Invalid request method and/or path: POST actions."),
    ("GET", "/", {}, 400, "GET request cannot have a body."),
    ("PUT", "/actions", {"action_type": "InstanceHalt"}, 400, "InstanceHalt"),
    ("PATCH", "/vm", {"state": "Running"}, 400, "Running"),
    ("PUT", "/machine-config", {"vcpu_count": 0, "mem_size_mib": 64}, 400, "vcpu_count"),
    ("PUT", "/machine-config", {"vcpu_count": 33, "mem_size_mib": 64}, 400, "vcpu_count"),
    ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 0}, 400, "mem_size_mib"),
    ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64, "smt": True}, 400, "smt"),
    ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64, "cpu_template": "T2"}, 400, "CPU templates"),
    ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64, "huge_pages": "1G"}, 400, "huge_pages"),
    ("PATCH", "/machine-config", {}, 400, "Empty PATCH request."),
    ("PUT", "/drives/", DRIVE, 400, "The ID cannot be empty."),
    ("PUT", "/drives/d-1", DRIVE, 400, "API Resource IDs can only contain alphanumeric characters and underscores."),
    ("PUT", "/drives/d2", DRIVE, 400, "The id from the path does not match the id from the body!"),
    ("PATCH", "/drives/d2", {"drive_id": "d1"}, 400, "The id from the path does not match the id from the body!"),
    ("PUT", "/drives/d1", {**DRIVE, "rate_limiter": {"ops": {"size": 1, "refill_time": 1}}}, 400, "rate_limiter"),
    ("PUT", "/drives/d1", {**DRIVE, "io_engine": "Async"}, 400, "io_engine"),
    ("PUT", "/drives/d1", {**DRIVE, "partuuid": "0eaa91a0-01"}, 400, "partuuid"),
    ("PUT", "/drives/d1", {**DRIVE, "socket": "/s"}, 400, "socket"),
    ("PUT", "/vsock", {"guest_cid": 2, "uds_path": "v"}, 400, "guest_cid"),
    ("PUT", "/vsock", {"guest_cid": 3, "uds_path": "v" * 108}, 400, "uds_path"),
]

# Firecracker's getting-started guide, but for its network card.
GETTING_STARTED = [
    ("PUT", "/logger", {"log_path": "{dir}/log", "level": "Debug", "show_level": True, "show_log_origin": True}),
    ("PUT", "/boot-source", {"kernel_image_path": "{dir}/guest",
                             "boot_args": "console=ttyS0 reboot=k panic=1 pci=off"}),
    ("PUT", "/drives/rootfs", {"drive_id": "rootfs", "path_on_host": "{dir}/disk", "is_root_device": True,
                               "is_read_only": False}),
    ("PUT", "/actions", START),
]


def guest():
    """A 64-bit ELF kernel that halts for ever: hlt; jmp to it."""
    code, address, offset = b"\xf4\xeb\xfd", 0x100000, 0x1000
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, address, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, offset, address, address, len(code), len(code), 0x1000)
    return (header + segment).ljust(offset, b"\0") + code


class Failed(Exception):
    """An answer that is not what it should be."""


class Monitor:
    """One ironclaw-vmm in a directory of its own."""

    def __init__(self, binary, *options, config=None):
        self.dir = Path(tempfile.mkdtemp(prefix="ic-api-"))
        self.socket = str(self.dir / "api")
        (self.dir / "guest").write_bytes(guest())
        (self.dir / "disk").write_bytes(bytes(1 << 20))
        if config is not None:
            (self.dir / "config").write_bytes(self.fill(config))
            options += ("--config-file", "{dir}/config")
        argv = [binary, "--api-sock", self.socket, "--id", "conformance"]
        argv += [o.replace("{dir}", str(self.dir)) for o in options]
        with open(self.dir / "output", "wb") as output:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + WAIT
        while not os.path.exists(self.socket) or self.process.poll() is not None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                text, status = self.output(), self.process.poll()
                self.close()
                raise Failed(f"the monitor did not start (status {status}): {text}")
            time.sleep(0.002)

    def output(self):
        return (self.dir / "output").read_text(errors="replace")[-2000:]

    def close(self):
        """Ends it as a supervisor does. True when it ended in good order."""
        self.process.terminate()
        try:
            good = self.process.wait(WAIT) == 143 and not os.path.exists(self.socket)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            good = False
        shutil.rmtree(self.dir, ignore_errors=True)
        return good

    def fill(self, body):
        return json.dumps(body).replace("{dir}", str(self.dir)).encode()

    def curl(self, method, path, body=None, *more):
        """(status, headers, body), checked for what every answer has in common."""
        argv = ["curl", "-sS", "-i", "--max-time", str(WAIT), "--unix-socket", self.socket, "-X", method, *more]
        data = body if body is None or isinstance(body, bytes) else self.fill(body)
        if data is not None:
            argv += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        result = subprocess.run(argv + ["http://localhost" + path], input=data or b"", stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, check=False)
        if result.returncode != 0:
            raise Failed(f"curl ended with {result.returncode}: {result.stderr.decode()}\n{self.output()}")
        text = result.stdout.decode()
        while text.startswith("HTTP/1.1 100 "):
            text = text.split("\r\n\r\n", 1)[1]
        return parse_response(text)

    def dial(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WAIT)
        connection.connect(self.socket)
        return connection


def parse_response(text):
    head, body = text.split("\r\n\r\n", 1)
    lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    status = int(lines[0].split(" ")[1])
    if not lines[0].startswith("HTTP/1.1 ") or headers.get("Server") != "Firecracker API":
        raise Failed(f"not the head of an answer of ours: {head}")
    if status == 204 and (body or "Content-Length" in headers):
        raise Failed(f"204 with a body: {text}")
    if status != 204 and (headers.get("Content-Type") != "application/json" or
                          headers.get("Content-Length") != str(len(body.encode()))):
        raise Failed(f"wrong headers: {head}")
    if status >= 400 and not json.loads(body)["fault_message"]:
        raise Failed(f"no reason: {body}")
    return status, headers, body


def receive(connection, count):
    """Exactly count answers, from one connection in their order."""
    answers, data = [], b""
    while len(answers) < count:
        head, end, rest = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.startswith(b"Content-Length: "):
                length = int(line[16:])
        if end and len(rest) >= length:
            answers.append(parse_response((head + end + rest[:length]).decode()) if head[9:12] != b"100" else (100,))
            data = rest[length:]
            continue
        more = connection.recv(65536)
        if not more:
            raise Failed(f"the connection ended after {answers} and {data!r}")
        data += more
    if data:
        raise Failed(f"more than {count} answers: {data!r}")
    return answers


def request(method, path, body=None):
    data = b"" if body is None else json.dumps(body).encode()
    length = f"Content-Length: {len(data)}\r\n" if data else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n".encode() + data


def expect(answer, status, text=""):
    if answer[0] != status or text not in answer[2]:
        raise Failed(f"expected {status} with '{text}', got {answer[0]} {answer[2]}")
    return answer


def wrong(value):
    return 7 if isinstance(value, str) else "seven"


def body_cases(phase):
    """(name, method, path, body, status, text) for what is wrong with a body, which no state excuses."""
    for method, path, _, good, required in ENDPOINTS:
        name = f"{method} {path}"
        yield f"{name}: no body", method, path, None, 400, f"Empty {method} request."
        yield f"{name}: not JSON", method, path, b"{\"", 400, BAD_BODY
        yield f"{name}: a list", method, path, [], 400, "expected an object"
        yield f"{name}: unknown member", method, path, {**good, "bogus": 1}, 400, "unknown field `bogus`"
        yield f"{name}: a member twice", method, path, b'{"a": 1, "a": 1}', 400, "duplicate"
        yield (f"{name}: oversized", method, path, b" " * (BODY_MAX + 1), 400,
               "Request payload with size 51201 is larger than the limit of 51200 allowed by server.")
        for member in required:
            rest = {k: v for k, v in good.items() if k != member}
            yield f"{name}: no {member}", method, path, rest, 400, f"missing field `{member}`"
        for member, value in good.items():
            yield f"{name}: wrong type of {member}", method, path, {**good, member: wrong(value)}, 400, f"`{member}`"
    for method, path, body, status, text in REFUSALS:
        yield f"{method} {path}: refused ({text[:40]})", method, path, body, status, text
    yield "PUT /snapshot/create: no members", "PUT", "/snapshot/create", {}, 400, "missing field `snapshot_path`"
    yield "PUT /snapshot/load: no members", "PUT", "/snapshot/load", {}, 400, "missing field `snapshot_path`"
    late = phase == AFTER
    yield "PUT /snapshot/create: good", "PUT", "/snapshot/create", SNAPSHOT, 400, \
        "pause it first" if late else NOT_BEFORE
    yield "PUT /snapshot/load: good", "PUT", "/snapshot/load", SNAPSHOT, 400, \
        NOT_AFTER if late else "No such file or directory"
    yield ("PUT /snapshot/load: two memories", "PUT", "/snapshot/load", {**SNAPSHOT, "mem_backend": BACKEND}, 400,
           "too many fields: either `mem_backend` or `mem_file_path` exclusively is required")
    yield ("PUT /snapshot/load: no memory", "PUT", "/snapshot/load", {"snapshot_path": "{dir}/s"}, 400,
           "missing field: either `mem_backend` or `mem_file_path` is required")
    yield ("PUT /snapshot/load: a network card", "PUT", "/snapshot/load",
           {**SNAPSHOT, "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap0"}]}, 400, "no network card")
    yield ("PUT /snapshot/load: unknown member of mem_backend", "PUT", "/snapshot/load",
           {"snapshot_path": "{dir}/s", "mem_backend": {**BACKEND, "bogus": 1}}, 400, "unknown field `bogus`")
    yield ("PUT /snapshot/load: half of what is expected", "PUT", "/snapshot/load",
           {**SNAPSHOT, "expect": {"vcpu_count": 1}}, 400, "missing field `mem_size_mib`")
    yield ("PUT /snapshot/load: wrong type of expect", "PUT", "/snapshot/load", {**SNAPSHOT, "expect": 1}, 400,
           "`expect`")


def transport_cases():
    """(name, function of a monitor): HTTP itself, whose state is not the VM's."""
    ok = request("GET", "/version")

    def raw(data, *statuses):
        def case(monitor):
            with monitor.dial() as c:
                c.sendall(data)
                answers = receive(c, len(statuses))
            if tuple(a[0] for a in answers) != statuses:
                raise Failed(f"expected {statuses}, got {answers}")
        return case

    def in_order(monitor):
        data = request("GET", "/") + request("PUT", "/actions", {"x": 1}) + request("GET", "/version") + \
            request("GET", "/nothing") + request("GET", "/machine-config")
        with monitor.dial() as c:
            c.sendall(data)
            answers = receive(c, 5)
        for answer, (status, text) in zip(answers, [(200, "app_name"), (400, "action_type"), (200, "_version"),
                                                    (400, "GET nothing"), (200, "vcpu_count")]):
            if text != "action_type":
                expect(answer, status, text)
            else:
                expect(answer, status, "`x`")

    def byte_by_byte(monitor):
        with monitor.dial() as c:
            for byte in request("PUT", "/actions", {"x": 1}):
                c.sendall(bytes([byte]))
            expect(receive(c, 1)[0], 400, "unknown field `x`")

    def half_sent(cut):
        def case(monitor):
            data = request("PUT", "/actions", {"x": 1})
            with monitor.dial() as c:
                c.sendall(data[:cut])
                expect(monitor.curl("GET", "/version"), 200)  # who waits makes nobody wait
                c.sendall(data[cut:])
                expect(receive(c, 1)[0], 400, "unknown field `x`")
            with monitor.dial() as c:
                c.sendall(data[:cut])
            expect(monitor.curl("GET", "/version"), 200)
        return case

    def not_reading(monitor):
        with monitor.dial() as c:
            c.settimeout(0.2)
            sent = 0
            try:
                while sent < 64 << 20:
                    sent += c.send(ok[sent % len(ok):])
            except socket.timeout:
                pass
            if sent >= 64 << 20:
                raise Failed("64 MiB of requests were taken from a client that reads no answer")
            expect(monitor.curl("GET", "/version"), 200)
            c.settimeout(WAIT)
            receive(c, sent // len(ok))

    def too_many(monitor):
        held = []
        for _ in range(CONNECTIONS_MAX):
            held.append(monitor.dial())
            held[-1].sendall(ok)
            receive(held[-1], 1)
        try:
            expect(monitor.curl("GET", "/version"), 503, "Too many open connections")
            expect(monitor.curl("PUT", "/actions", {"x": 1}), 503)
            held[0].sendall(ok)
            receive(held[0], 1)
        finally:
            for c in held:
                c.close()
        deadline = time.monotonic() + WAIT
        while monitor.curl("GET", "/version")[0] != 200:
            if time.monotonic() > deadline:
                raise Failed("closed connections keep their places")

    def closes(data, text):
        def case(monitor):
            with monitor.dial() as c:
                c.sendall(data)
                expect(receive(c, 1)[0], 400, text)
                if c.recv(1):
                    raise Failed("the connection goes on after an error of framing")
        return case

    def curl(status, text, method, path, body, *more):
        return lambda monitor: expect(monitor.curl(method, path, body, *more), status, text)

    def two_on_one(monitor):
        out = subprocess.run(["curl", "-sS", "-v", "--unix-socket", monitor.socket, "http://localhost/version",
                              "http://localhost/version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             check=True).stdout.decode()
        if "Re-using existing connection" not in out:
            raise Failed(out)

    long_line = LINE_MAX - len("a: \r\n")
    return [
        ("pipelined, answered in order", in_order),
        ("byte by byte", byte_by_byte),
        ("half-sent request line", half_sent(9)),
        ("half-sent header", half_sent(30)),
        ("half-sent body", half_sent(-2)),
        ("a client that reads nothing", not_reading),
        (f"connection {CONNECTIONS_MAX + 1}", too_many),
        ("keep-alive", two_on_one),
        ("HTTP/1.0", curl(200, "", "GET", "/version", None, "-0")),
        ("HTTP/1.0 body", curl(400, "`x`", "PUT", "/actions", {"x": 1}, "-0")),
        ("Expect: 100-continue", curl(400, "`x`", "PUT", "/actions", {"x": 1}, "-H", "Expect: 100-continue")),
        ("the longest body", curl(400, BAD_BODY, "PUT", "/entropy", b" " * BODY_MAX)),
        ("the longest header line", curl(200, "", "GET", "/version", None, "-H", "a: " + "b" * long_line)),
        ("header line too long", curl(400, "longer than 1024", "GET", "/version", None, "-H",
                                      "a: " + "b" * (long_line + 1))),
        ("the longest request line", curl(400, "Invalid request method", "GET",
                                          "/" + "a" * (LINE_MAX - len("GET / HTTP/1.1\r\n")), None)),
        ("request line too long", curl(400, "longer than 1024", "GET",
                                       "/" + "a" * (LINE_MAX + 1 - len("GET / HTTP/1.1\r\n")), None)),
        ("chunked", curl(400, "Transfer-Encoding", "PUT", "/actions", {"x": 1}, "-H", "Transfer-Encoding: chunked")),
        ("an empty line before a request", raw(b"\r\n" + ok + b"\r\n" + ok, 200, 200)),
        ("absolute target", raw(ok.replace(b" /", b" http://localhost/"), 200)),
        ("100, then the answer", raw(b"PUT /actions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
                                     100, 400)),
        ("Content-Length twice", closes(b"PUT /entropy HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
                                        "more than one Content-Length")),
        ("Content-Length that wraps", closes(b"PUT / HTTP/1.1\r\nContent-Length: 18446744073709551618\r\n\r\n{}",
                                             "larger than the limit")),
        ("Content-Length that is negative", closes(b"PUT / HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}",
                                                   "not a number")),
        ("a bare line feed", closes(b"GET / HTTP/1.1\n\n", "line feed")),
        ("folded header", closes(b"GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n", "Invalid header.")),
        ("HTTP/2", closes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "Invalid HTTP Version")),
        ("TLS", closes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", "control character")),
    ]


class Table:
    """Runs cases under names, and counts."""

    def __init__(self, name, report):
        self.wanted, self.report = name, report

    def case(self, name, function, needed=False):
        """needed: what comes later builds on it, so it runs whether it is asked for or not."""
        name = "api/" + name
        wanted = self.wanted in name
        if not wanted and not needed:
            return
        started = time.monotonic()
        try:
            function()
            outcome, text = "passed", ""
        except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as e:
            outcome, text = "failed", f"{type(e).__name__}: {e}"
        if wanted or outcome == "failed":
            self.report.add(name, outcome, time.monotonic() - started, text)

    def ask(self, monitor, name, method, path, body, status, text="", needed=False):
        self.case(name, lambda: expect(monitor.curl(method, path, body), status, text), needed)


def before(table, monitor):
    """Bad requests first: none of them may change anything."""
    config = monitor.curl("GET", "/vm/config")[2]
    for name, *case in body_cases(BEFORE):
        table.ask(monitor, f"before {name}", *case)
    for name, function in transport_cases():
        table.case(f"before {name}", lambda f=function: f(monitor))
    for path, when in QUESTIONS:
        status, text = (200, "") if when == ALWAYS else (400, NOT_BEFORE)
        if path == "/balloon":
            status, text = 400, "No balloon device found."
        table.ask(monitor, f"before GET {path}", "GET", path, None, status, text)
    table.ask(monitor, "before PUT /actions: no kernel yet", "PUT", "/actions", START, 400,
              "Cannot start microvm without kernel configuration.")
    for action in ("FlushMetrics", "SendCtrlAltDel"):
        table.ask(monitor, f"before PUT /actions: {action}", "PUT", "/actions", {"action_type": action}, 400,
                  NOT_BEFORE)
    for method, path, when, good, _ in ENDPOINTS:
        if when == AFTER:
            table.ask(monitor, f"before {method} {path}: good", method, path, good, 400, NOT_BEFORE)
    table.case("before: what was refused changed nothing",
               lambda: expect(monitor.curl("GET", "/vm/config"), 200, config))


def configure(table, monitor):
    """Good requests; the machine that they describe is started by the next part."""
    for method, path, when, good, _ in ENDPOINTS:
        if when == BEFORE:
            table.ask(monitor, f"configure {method} {path}: good", method, path, good, 204, needed=True)
    root = {**DRIVE, "drive_id": "r", "is_root_device": True}
    table.ask(monitor, "configure PUT /drives: the root", "PUT", "/drives/r", root, 204, needed=True)
    table.ask(monitor, "configure PUT /drives: a second root", "PUT", "/drives/r2", {**root, "drive_id": "r2"}, 400,
              "A root block device already exists!")
    table.ask(monitor, "configure PUT /drives: the same again", "PUT", "/drives/r", root, 204)
    table.ask(monitor, "configure PUT /balloon: larger than memory", "PUT", "/balloon", {**BALLOON, "amount_mib": 33},
              400, "Amount of pages requested is too large.")

    def config():
        answer = json.loads(expect(monitor.curl("GET", "/vm/config"), 200)[2])
        found = {"network-interfaces": answer["network-interfaces"], "mmds-config": answer["mmds-config"],
                 "cid": answer["vsock"]["guest_cid"], "memory": answer["machine-config"]["mem_size_mib"],
                 "drives": [d["drive_id"] for d in answer["drives"]], "balloon": answer["balloon"],
                 "args": answer["boot-source"]["boot_args"], "entropy": answer["entropy"] is not None}
        wanted = {"network-interfaces": [], "mmds-config": None, "cid": 3, "memory": 32, "drives": ["r", "d1"],
                  "balloon": BALLOON, "args": "console=ttyS0", "entropy": True}
        if found != wanted:
            raise Failed(f"{found}\nis not\n{wanted}")
    table.case("configure GET /vm/config: what was set", config)


def after(table, monitor):
    def is_in(state):
        return lambda: expect(monitor.curl("GET", "/"), 200, f'"state":"{state}"')

    table.case("after GET /: Running", is_in("Running"))
    for name, *case in body_cases(AFTER):
        table.ask(monitor, f"after {name}", *case)
    for name, function in transport_cases():
        table.case(f"after {name}", lambda f=function: f(monitor))
    for path, _ in QUESTIONS:
        table.ask(monitor, f"after GET {path}", "GET", path, None, 200)
    table.ask(monitor, "after PUT /actions: InstanceStart again", "PUT", "/actions", START, 400, NOT_AFTER)
    for method, path, when, good, _ in ENDPOINTS:
        answer = (204,) if when == AFTER else (400, NOT_AFTER)
        table.ask(monitor, f"after {method} {path}: good", method, path, good, *answer, needed=True)
    table.case("after GET /: Paused", is_in("Paused"))
    table.ask(monitor, "after PATCH /vm: Paused again", "PATCH", "/vm", {"state": "Paused"}, 204)
    table.ask(monitor, "after PATCH /vm: Resumed", "PATCH", "/vm", {"state": "Resumed"}, 204, needed=True)
    table.case("after GET /: Running again", is_in("Running"))
    table.ask(monitor, "after PATCH /balloon: larger than memory", "PATCH", "/balloon", {"amount_mib": 33}, 400,
              "Amount of pages requested is too large.")
    table.ask(monitor, "after PATCH /balloon/statistics: off", "PATCH", "/balloon/statistics",
              {"stats_polling_interval_s": 0}, 400, "Cannot enable/disable the statistics after boot.")
    table.ask(monitor, "after PATCH /drives: no such drive", "PATCH", "/drives/none",
              {"drive_id": "none", "path_on_host": "{dir}/disk"}, 400, "none")
    table.ask(monitor, "after PATCH /drives: no such file", "PATCH", "/drives/d1",
              {"drive_id": "d1", "path_on_host": "{dir}/nowhere"}, 400, "/nowhere")

    def metrics():
        lines = (monitor.dir / "metrics").read_text().splitlines()
        if not lines or "utc_timestamp_ms" not in json.loads(lines[-1]):
            raise Failed(f"metrics: {lines}")
    table.case("after FlushMetrics: a line of JSON", metrics)


def wrong_starts(table, binary):
    """A start that fails says why, and may be tried again."""
    monitor = Monitor(binary)
    start = ("PUT", "/actions", START)
    try:
        for name, path, text in (("no kernel there", "{dir}/nowhere", "/nowhere"),
                                 ("a kernel that is none", "{dir}/disk", "/disk"),
                                 ("a kernel that is a directory", "{dir}", "")):
            monitor.curl("PUT", "/boot-source", {"kernel_image_path": path})
            table.ask(monitor, f"start: {name}", *start, 400, text)
        monitor.curl("PUT", "/boot-source", BOOT)
        monitor.curl("PUT", "/drives/d1", {**DRIVE, "path_on_host": "{dir}/nowhere"})
        table.ask(monitor, "start: no drive there", *start, 400, "/nowhere")
        monitor.curl("PUT", "/drives/d1", DRIVE)
        table.ask(monitor, "start: mended", *start, 204)
    finally:
        table.case("start: ends in good order", lambda: ended(monitor), needed=True)


def by_options(table, binary):
    """The same by --config-file and --metrics-path."""
    sections = {"boot-source": BOOT, "drives": [DRIVE], "machine-config": {"vcpu_count": 1, "mem_size_mib": 64},
                "balloon": BALLOON, "network-interfaces": []}

    def refused(section, value, text):
        def case():
            try:
                monitor = Monitor(binary, config={**sections, section: value})
                # Its socket is there before the file is read.
                said = f"(status {monitor.process.wait(WAIT)}) {monitor.output()}"
                monitor.close()
            except Failed as e:
                said = str(e)
            if "(status 152)" not in said or text not in said:
                raise Failed(f"expected 152 and '{text}': {said}")
        return case

    table.case("config file: unknown section", refused("boot", {}, 'unknown section "boot"'))
    table.case("config file: unknown member", refused("entropy", {"bogus": 1}, "unknown field `bogus`"))
    table.case("config file: a network card", refused("network-interfaces", [{}], "no network card"))
    table.case("config file: no kernel", refused("boot-source", None, "without kernel configuration"))
    monitor = Monitor(binary, "--metrics-path", "{dir}/m", config=sections)
    try:
        table.case("config file: Running", lambda: expect(monitor.curl("GET", "/"), 200, '"state":"Running"'))
        table.ask(monitor, "config file: what was set", "GET", "/vm/config", None, 200, '"mem_size_mib":64')
        table.ask(monitor, "config file: FlushMetrics", "PUT", "/actions", {"action_type": "FlushMetrics"}, 204)
    finally:
        table.case("config file: ends in good order", lambda: ended(monitor), needed=True)
    monitor = Monitor(binary, "--metrics-path", "{dir}/m")
    try:
        table.ask(monitor, "--metrics-path, then PUT /metrics", "PUT", "/metrics", {"metrics_path": "{dir}/n"}, 400,
                  "have their file already")
    finally:
        table.case("--metrics-path: ends in good order", lambda: ended(monitor), needed=True)


def snapshots(table, binary):
    """Saved by one monitor, loaded by others."""
    first = Monitor(binary)
    saved = {"snapshot_path": str(first.dir / "s"), "mem_file_path": str(first.dir / "m")}
    try:
        for path, body in (("/boot-source", BOOT), ("/machine-config", {"vcpu_count": 1, "mem_size_mib": 16}),
                           ("/drives/d1", DRIVE), ("/actions", START)):
            table.ask(first, f"snapshot PUT {path}", "PUT", path, body, 204, needed=True)
        table.ask(first, "snapshot: create while it runs", "PUT", "/snapshot/create", saved, 400, "pause it first")
        table.ask(first, "snapshot: pause", "PATCH", "/vm", {"state": "Paused"}, 204, needed=True)
        table.ask(first, "snapshot: create", "PUT", "/snapshot/create", {**saved, "snapshot_type": "Full"}, 204,
                  needed=True)
        table.ask(first, "snapshot: create a diff untracked", "PUT", "/snapshot/create",
                  {**saved, "snapshot_type": "Diff"}, 400, "track_dirty_pages")
        table.ask(first, "snapshot: resume", "PATCH", "/vm", {"state": "Resumed"}, 204)
        for name, body, state in (
                ("mem_file_path", saved, "Paused"),
                ("mem_backend", {"snapshot_path": saved["snapshot_path"], "resume_vm": True, "mem_backend": {
                    "backend_type": "File", "backend_path": saved["mem_file_path"]}}, "Running")):
            load_by(table, binary, f"snapshot, load by {name}", body, state)
    finally:
        table.case("snapshot: ends in good order", lambda: ended(first), needed=True)


def load_by(table, binary, name, body, state):
    monitor = Monitor(binary)
    try:
        table.ask(monitor, f"{name}: no such file", "PUT", "/snapshot/load", {**body, "snapshot_path": "/nowhere"}, 400,
                  "/nowhere")
        table.ask(monitor, f"{name}: more memory than expected", "PUT", "/snapshot/load",
                  {**body, "expect": {"vcpu_count": 1, "mem_size_mib": 15}}, 400, "has 16 MiB of memory")
        table.ask(monitor, f"{name}: fewer vCPUs than expected", "PUT", "/snapshot/load",
                  {**body, "expect": {"vcpu_count": 2, "mem_size_mib": 16}}, 400, "has 1 vCPUs")
        table.ask(monitor, name, "PUT", "/snapshot/load", {**body, "expect": {"vcpu_count": 1, "mem_size_mib": 16}}, 204,
                  needed=True)
        table.case(f"{name}: {state}", lambda: expect(monitor.curl("GET", "/"), 200, f'"state":"{state}"'))
        table.ask(monitor, f"{name}: its configuration", "GET", "/vm/config", None, 200, '"mem_size_mib":16')
        table.ask(monitor, f"{name}: twice", "PUT", "/snapshot/load", body, 400, NOT_AFTER)
        for word in ("Resumed", "Paused", "Resumed"):
            table.ask(monitor, f"{name}: {word}", "PATCH", "/vm", {"state": word}, 204)
    finally:
        table.case(f"{name}: ends in good order", lambda: ended(monitor), needed=True)


def ended(monitor):
    output = monitor.output()
    if not monitor.close():
        raise Failed(f"SIGTERM did not end it with 143 and without its socket\n{output}")


def run_all(table, binary):
    monitor = Monitor(binary)
    try:
        before(table, monitor)
        configure(table, monitor)
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            table.report.add("api/after", "skipped", 0, "no /dev/kvm that can be opened: nothing was started")
            return
        table.ask(monitor, "start", "PUT", "/actions", START, 204, needed=True)
        after(table, monitor)
    finally:
        table.case("ends in good order", lambda: ended(monitor), needed=True)
    wrong_starts(table, binary)
    by_options(table, binary)
    snapshots(table, binary)
    monitor = Monitor(binary)
    try:
        for method, path, body in GETTING_STARTED:
            table.ask(monitor, f"getting started: {method} {path}", method, path, body, 204, needed=True)
    finally:
        table.case("getting started: ends in good order", lambda: ended(monitor), needed=True)


def run(binary, name, report):
    """All cases with `name` in theirs."""
    if not shutil.which("curl"):
        report.add("api", "skipped", 0, "curl is not installed; run scripts/setup test")
        return
    try:
        run_all(Table(name, report), binary)
    except (Failed, OSError) as e:
        report.add("api", "failed", 0, str(e))


def main():
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from run import Report  # pylint: disable=import-outside-toplevel

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", dest="name", default="", help="only cases with this in their name")
    parser.add_argument("monitor", help="build/src/monitor/ironclaw-vmm")
    options = parser.parse_args()
    report, started = Report(), time.monotonic()
    run(options.monitor, options.name, report)
    return report.close(time.monotonic() - started)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.exit(main())
