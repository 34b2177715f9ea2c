# SPDX-License-Identifier: Apache-2.0
"""ironclaw-vmm with one of our guests in it, and what has to hold whatever the guest does."""

import contextlib
import hashlib
import http.client
import json
import os
import selectors
import signal
import socket
import subprocess
import time
from pathlib import Path

from harness import SLOW, Failure, until

SECTOR = 512
ROOT_SECTORS, SECOND_SECTORS = 2048, 4096
# What the log of a whole run may have: the lines that every run has, and per second 4 of each device and some more.
LOG_BASE, LOG_PER_SECOND = 45, 25
TROUBLE = ("AddressSanitizer", "ThreadSanitizer", "LeakSanitizer", "runtime error:", "assert", "Assertion", "stack smash")


def host_mib():
    """No VM may have more memory than its host."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def numbered(path, sectors):
    """A disk whose every sector begins with its number."""
    path.write_bytes(b"".join(n.to_bytes(8, "little") + bytes(SECTOR - 8) for n in range(sectors)))
    return path


class Vm:
    """One run. run() starts the monitor, talks to the guest over its serial port, and checks the end."""

    def __init__(self, t, case, words="", *, pvh=False, memory=128, cpus=1, second=True, balloon=None, api=False,
                 by_api=False, options=(), config=None, serial=None):
        self.t, self.case, self.pvh, self.api, self.by_api = t, case, pvh, api or by_api, by_api
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            t.skip("no /dev/kvm here, or no right to use it")
        self.program = t.build / "src/monitor/ironclaw-vmm"
        guest = t.build / "tests/guests" / ("guest-pvh.elf" if pvh else "guest.elf")
        if not self.program.exists() or not guest.exists():
            t.skip(f"{self.program.name} or {guest.name} is not built for this system")
        sanitized = b"__tsan_init" in self.program.read_bytes() or b"__asan_init" in self.program.read_bytes()
        self.patience = (4 if sanitized else 1) * SLOW
        self.dir = t.work / f"vm{len(list(t.work.iterdir()))}"
        self.dir.mkdir()
        self.root = numbered(self.dir / "root.img", ROOT_SECTORS)
        self.second = numbered(self.dir / "second.img", SECOND_SECTORS)
        self.uds, self.api_sock = self.dir / "v.sock", self.dir / "api.sock"
        self.serial = serial
        self.options = list(options)
        self.config = {
            "boot-source": {"kernel_image_path": str(guest), "boot_args": f"case={case} {words}".strip()},
            "machine-config": {"vcpu_count": cpus, "mem_size_mib": memory},
            "drives": [{"drive_id": "root", "path_on_host": str(self.root), "is_root_device": True,
                        "is_read_only": True}],
            "vsock": {"guest_cid": 3, "uds_path": str(self.uds)},
            "entropy": {},
            "balloon": balloon or {"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 0},
        }
        if second:
            self.config["drives"].append({"drive_id": "second", "path_on_host": str(self.second),
                                          "is_root_device": False, "is_read_only": False, "cache_type": "Writeback"})
        if serial:
            self.config["serial"] = {"serial_out_path": str(serial)}
        for section, value in (config or {}).items():
            if value is None:
                self.config.pop(section)
            else:
                self.config[section] = value
        self.child, self.log_path = None, self.dir / "log"
        self.root_digest = self.digest(self.root)

    @staticmethod
    def digest(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()

    # -- starting

    def start(self, stdout=subprocess.PIPE):
        argv = [str(self.program), "--id", "guest"]
        argv += ["--api-sock", str(self.api_sock)] if self.api else ["--no-api"]
        if not self.by_api:
            file = self.dir / "config.json"
            file.write_text(json.dumps(self.config))
            argv += ["--config-file", str(file)]
        env = dict(os.environ, ASAN_OPTIONS="abort_on_error=0:detect_leaks=1",
                   TSAN_OPTIONS=f"halt_on_error=1:suppressions={Path(__file__).with_name('tsan.supp')}",
                   UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
        with open(self.log_path, "wb") as log:
            self.child = subprocess.Popen([*argv, *self.options], stdin=subprocess.PIPE, stdout=stdout, stderr=log,
                                          env=env, start_new_session=True)
        self.started, self.out = time.monotonic(), b""
        self.t.cleanups.append(self.kill)
        if self.by_api:
            self.configure()
        return self

    def wait_for_api(self):
        """Its socket is there before it listens."""
        def listens():
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
                s.connect(str(self.api_sock))
                return True
            return False

        until(listens, 10 * self.patience, "the API socket", step=0.01)

    def configure(self):
        """The whole configuration and the start by API."""
        self.wait_for_api()
        for section in ("boot-source", "machine-config", "vsock", "entropy", "balloon", "serial"):
            if section in self.config:
                self.request("PUT", f"/{section}", self.config[section], 204)
        for drive in self.config["drives"]:
            self.request("PUT", f"/drives/{drive['drive_id']}", drive, 204)
        self.request("PUT", "/actions", {"action_type": "InstanceStart"}, 204)

    def kill(self):
        if self.child and self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        if self.child:
            self.child.wait()
            for stream in (self.child.stdin, self.child.stdout):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()

    # -- while it runs

    def request(self, method, path, body=None, status=None):
        """One API request; the decoded answer."""
        connection = http.client.HTTPConnection("localhost", timeout=20 * self.patience)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20 * self.patience)
        connection.sock.connect(str(self.api_sock))
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if status is not None and answer.status != status:
            raise Failure(f"{method} {path}: {answer.status} {text}; {self.report()}")
        return json.loads(text) if text else None

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def resident_kib(self):
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise Failure("no VmRSS")

    def answer(self, byte=b"g"):
        with contextlib.suppress(BrokenPipeError):  # it has ended, which others look at
            self.child.stdin.write(byte)
            self.child.stdin.flush()

    def read_until(self, text, seconds=30):
        """Reads serial output until it has this text."""
        end = time.monotonic() + seconds * self.patience
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            while text not in self.out:
                if time.monotonic() > end:
                    raise Failure(f"no {text!r} within {seconds} s; {self.report()}")
                if selector.select(0.2):
                    piece = os.read(self.child.stdout.fileno(), 65536)
                    if not piece:
                        raise Failure(f"the output ended without {text!r}; {self.report()}")
                    self.out += piece

    def connect(self, port):
        """A stream to the guest."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(30 * self.patience)
        s.connect(str(self.uds))
        s.sendall(b"CONNECT %d\n" % port)
        line = b""
        while not line.endswith(b"\n"):
            byte = s.recv(1)
            if not byte:
                raise Failure(f"the connection to port {port} was closed; {self.report()}")
            line += byte
        assert line.startswith(b"OK "), line
        return s

    def listen(self, port):
        """Where the guest's connections to that port come in."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(30 * self.patience)
        s.bind(f"{self.uds}_{port}")
        s.listen(4096)
        return s

    # -- the end

    def finish(self, *, seconds=60, rc=0, passes=True, syncs=None):
        """Reads to the end, answering each SYNC; then checks all that has to hold."""
        end = self.started + seconds * self.patience
        syncs, done = dict(syncs or {}), 0
        if self.child.stdout:
            with selectors.DefaultSelector() as selector:
                selector.register(self.child.stdout, selectors.EVENT_READ)
                while True:
                    if time.monotonic() > end:
                        raise Failure(f"no end within {seconds * self.patience} s; {self.report()}")
                    for line in self.out[done:].split(b"\n")[:-1]:
                        done += len(line) + 1
                        if line.startswith(b"SYNC "):
                            self.sync(line[5:].decode(), syncs)
                    if not selector.select(0.2):
                        continue
                    piece = os.read(self.child.stdout.fileno(), 65536)
                    if not piece:
                        break
                    self.out += piece
        try:
            self.child.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Failure(f"it has closed its output and does not end; {self.report()}") from None
        self.check_end(rc, passes)
        return self

    def sync(self, what, syncs):
        function = syncs.get(what)
        if function is None:
            raise Failure(f"the guest waits for '{what}'; {self.report()}")
        if function() is not False:  # False: it has answered itself, or nothing is to be said
            self.answer()

    def check_end(self, rc, passes):
        log = self.log()
        took = time.monotonic() - self.started
        for word in TROUBLE:
            if word in log:
                raise Failure(f"the log has '{word}'; {self.report()}")
        if self.child.returncode != rc:
            raise Failure(f"status {self.child.returncode} and not {rc}; {self.report()}")
        if passes and b"PASS " + self.case.encode() not in self.out:
            raise Failure(f"no PASS; {self.report()}")
        lines = log.count("\n")
        if lines > LOG_BASE + LOG_PER_SECOND * took:
            raise Failure(f"{lines} lines of log in {took:.1f} s; {self.report()}")
        left = [s.name for s in (self.uds, self.api_sock) if s.exists()]
        if left:
            raise Failure(f"sockets are left: {left}; {self.report()}")
        if self.digest(self.root) != self.root_digest:
            raise Failure(f"the root image has changed; {self.report()}")

    def run(self, **kwargs):
        return self.start().finish(**kwargs)

    def log(self):
        return self.log_path.read_text("utf-8", "replace")

    def text(self):
        return self.out.decode("utf-8", "replace")

    def report(self):
        log = self.log()
        cut = log if len(log) < 6000 else log[:3000] + "\n...\n" + log[-3000:]
        return (f"{self.case}{' by PVH' if self.pvh else ''}: status {self.child.poll()}\n"
                f"  serial {self.text()[-2000:]!r}\n  log:\n{cut}")
