# SPDX-License-Identifier: Apache-2.0
"""A guest's root who drives the devices by hand, or puts other code in place of the kernel (tests/escape/guest/root).

The attacker takes the vsock from the agent, so what it does is read from the console. After each attack: the neighbour
answers, the hostile VM is gone on demand, its processes stayed small and ended in order, the image is what it was.
"""

import contextlib
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from harness import BLOCKED, GOT_THROUGH, HOW, NOT_MADE, SLOW, Failure, build_static, until

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from test_escape import check_neighbour, check_size, neighbour, remove_hostile  # noqa: E402

SOURCES = sorted((HERE / "guest/root").glob("*.c"))
STOPPED = 2  # attempts that may stop their guest: one does in QEMU, whose disk reads into its own registers
QUIET = 8  # seconds without a word of the attacker until it counts as stopped
GUESTS = 12  # at most, for one attack
CONSOLE_READ = 8 << 20  # bytes; only a flood writes more
LINE = re.compile(rb"^@ (try|did|GOT|not|fail|end) ?([^\r\n]*)\r?$", re.MULTILINE)
# Assertions of QEMU 7.2 itself that a guest can make fail: QEMU ends, as its authors meant it to. Any other is news.
KNOWN_OF_QEMU = (re.compile(r"hw/char/serial\.c:\d+: serial_ioport_write: Assertion `size == 1 && addr < 8' failed"),)
# What a process of ours, or QEMU, says when it does not end in order.
CRASH = re.compile(r"Sanitizer|runtime error:|[Aa]ssertion|\*\*\* |Segmentation|core dumped")


def attacker(t):
    if (kind := kernel_kind(t)) != "debian":
        t.attempt("root's own devices", "all", NOT_MADE, f"the {kind} kernel has no /dev/mem and no kexec")
        t.skip(f"the {kind} kernel has no /dev/mem, no iopl() and no kexec_load()")
    more = [str(source) for source in SOURCES[1:]]
    return build_static(SOURCES[0], t.build / "tests/hostile-root", "-D_GNU_SOURCE", *more)


def kernel_kind(t):
    return t.json("image", "inspect", t.image)[0]["manifest"]["kernel"]["kind"]


class Host:
    """Programs behind the ports of the hostile VM: 6000 reads all, 6001 reads nothing, 6002 sends without end."""

    def __init__(self, t):
        self.alien, self.sockets, self.paths = 0, [], []
        for port, serve in ((6000, self.read), (6001, self.keep), (6002, self.send)):
            path = t.home / f"run/hostile/v_{port}"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            path.chmod(0o666)  # the VM may have a user of its own; nobody else gets into its directory
            listener.listen(1024)
            self.paths.append(path)
            self.sockets.append(listener)
            threading.Thread(target=self.accept, args=(listener, serve), daemon=True).start()

    def accept(self, listener, serve):
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            self.sockets.append(s)
            if serve != self.keep:
                threading.Thread(target=serve, args=(s,), daemon=True).start()

    def read(self, s):
        """The attacker sends nothing but A; anything else is a byte of somebody else."""
        with contextlib.suppress(OSError):
            while data := s.recv(65536):
                self.alien += len(data) - data.count(b"A")

    def keep(self, s):
        pass

    @staticmethod
    def send(s):
        with contextlib.suppress(OSError):
            while True:
                s.sendall(b"h" * 65536)

    def close(self):
        for s in self.sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()
        for path in self.paths:
            path.unlink(missing_ok=True)


class Guest:
    """One hostile VM, whose processes' ends are seen."""

    def __init__(self, t, program, options):
        self.t = t
        self.report = t.work / f"ends-{time.monotonic_ns()}"
        keeper = [sys.executable, str(HERE / "keeper.py"), str(self.report)]
        # The attacker speaks virtio-mmio, and a clone on QEMU has its vsock on PCI.
        cold = ["--cold"] if t.backend == "qemu" else []
        argv = t.argv("run", *cold, "--keep", "--name", "hostile", "--memory", "128", "--guest-seccomp", "permissive",
                      *options, "--", "true")
        t.start_other([*keeper, *argv])
        until(self.ends, 60, "the hostile VM's start", step=0.1)
        if self.ends()[0] != ("command", 0):
            raise Failure(f"the hostile VM did not start: {self.ends()}")
        self.console = t.home / "state/vms/hostile/console.log"
        t.ic("cp", program, "hostile:/tmp/root", rc=0)

    def ends(self):
        """(name, status) of each process that ended, the command that started them first."""
        lines = self.report.read_text().splitlines() if self.report.exists() else []
        return [(line.rpartition(" ")[0], int(line.rpartition(" ")[2])) for line in lines]

    def attack(self, skip, attacks):
        # The session ends with the attack's beginning, in one way or another.
        self.t.ic("exec", "--timeout", "5s", "-u", "root", "hostile", "--", "/tmp/root", str(skip), *attacks)

    def lines(self):
        try:
            with open(self.console, "rb") as f:
                text = f.read(CONSOLE_READ)
        except OSError:
            return []
        return [(verb.decode(), text.decode("utf-8", "replace")) for verb, text in LINE.findall(text)]

    def how_it_stopped(self):
        """What an attempt came to that the attacker said nothing more of."""
        if self.console.exists() and self.console.stat().st_size > CONSOLE_READ:
            return "limit"  # its next words did not get into the log
        return "ended the VM" if self.ended() else "guest stopped"

    def watch(self, quiet):
        """Until the attacker has said its last word; True: it came to its end."""
        seen, since = 0, time.monotonic()
        while time.monotonic() - since < quiet * SLOW and not self.ended():
            lines = self.lines()
            if lines and lines[-1][0] in ("end", "fail"):
                break
            if len(lines) > seen:
                seen, since = len(lines), time.monotonic()
            time.sleep(0.2)
        lines = self.lines()
        if lines and lines[-1][0] == "fail":
            raise Failure(f"the attacker can't do its work: {lines[-1][1]}")
        return bool(lines) and lines[-1][0] == "end"

    def ended(self):
        """Whether its monitor has ended by itself."""
        return any(name.startswith(("qemu", self.t.monitor[:15])) for name, _ in self.ends()[1:])

    def check_end(self):
        """After `rm -f`: no process of it crashed. What rm killed was killed by SIGKILL."""
        until(lambda: len(self.ends()) > (2 if self.t.backend == "qemu" else 1), 10, "the end of its processes")
        aborts = ()
        for known in KNOWN_OF_QEMU:
            if known.search(self.log):
                # The first process of a namespace can't end by SIGABRT; abort() then ends it by a forbidden instruction.
                self.log, aborts = known.sub("", self.log), (-signal.SIGABRT, -signal.SIGSEGV)
        for name, status in self.ends()[1:]:
            if status not in (0, 1, -signal.SIGKILL, -signal.SIGTERM) and not (name.startswith("qemu") and status in aborts):
                raise Failure(f"{name} ended with status {status}; see its last words:\n{self.log[-2000:]}")
        if CRASH.search(self.log):
            raise Failure(f"a crash in the log:\n{self.log[-3000:]}")

    def remove(self):
        path = self.t.home / "state/vms/hostile/monitor.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        self.log = re.sub(r"; last line of its console: .*", "", text)  # the guest's words
        remove_hostile(self.t)


def note(t, lines, how_it_ended):
    """What the attacker said of each attempt; one without an outcome ended the guest."""
    trying = None
    for verb, text in [*lines, ("end", "")]:
        what, _, how = text.partition(" = ")
        group, _, name = what.partition(": ")
        if trying and verb in ("try", "not", "end"):
            t.attempt(*trying, BLOCKED, how_it_ended)
            trying = None
        if verb == "try":
            trying = (group, name)
        elif verb in ("did", "GOT", "not"):
            # The noise of one may run on behind what is said of it; any other word there is news.
            if group == "serial port" and not (how.isascii() and how.isprintable()):
                how = next((known for known in HOW if how.startswith(known)), how)
            t.attempt(group, name, {"did": BLOCKED, "GOT": GOT_THROUGH, "not": NOT_MADE}[verb], how)
            trying = None


def attack(t, *attacks, options=(), quiet=QUIET, ends=False):
    """As many guests as it takes for all attempts; ends: one is enough, as the attack is the guest's end."""
    program, made, before = attacker(t), 0, t.digests()
    with neighbour(t):
        for _ in range(GUESTS):
            t.deadline += 60 * SLOW
            guest = Guest(t, program, options)
            host = Host(t)
            try:
                guest.attack(made, attacks)
                finished = guest.watch(quiet)
                check_neighbour(t)
                check_size(t)
                lines = guest.lines()
                how = guest.how_it_stopped()
            finally:
                host.close()
                guest.remove()
            guest.check_end()
            note(t, lines, how)
            made += sum(verb in ("try", "not") for verb, _ in lines)
            if host.alien:
                t.attempt("vsock packets", "bytes that were not sent", GOT_THROUGH, f"{host.alien} bytes reached the host")
            if finished or ends:
                break
            if not lines:
                raise Failure("the attacker said nothing")
        else:
            raise Failure(f"{GUESTS} guests did not suffice; the last words: {lines[-1]}")
        check_neighbour(t)
    stopped = [attempt for attempt in t.attempts if attempt[-1] == "guest stopped"]
    assert ends or len(stopped) <= STOPPED, f"attempts that nothing answered, and nothing after them: {stopped}"
    assert made > 0, "no attempt was made"
    assert t.digests() == before, "the image changed"


def test_devices(t):
    attack(t, "disk", "balloon", "registers", "vsock")


def test_rings(t):
    attack(t, "queues")


def test_ports(t):
    attack(t, "ports", "serial")


def ending(name, asked_for):
    def test(t):
        attack(t, name, ends=True, quiet=3)

    test.__name__ = "test_" + name.replace("-", "_")
    test.asked_for = asked_for
    globals()[test.__name__] = test


# Each takes a guest of its own: `make test` runs the first of each row.
for _names in (("reboot", "i8042", "port92", "cf9", "acpi-reset", "acpi-off", "power-off", "panic"),
               ("kernel-triple_fault", "kernel-stack_in_registers", "kernel-code_in_registers", "kernel-code_in_apic",
                "kernel-code_nowhere", "kernel-spin", "kernel-halt"),
               ("kernel-registers", "kernel-ports", "kernel-serial", "kernel-serial_strings", "kernel-kicks",
                "kernel-interrupts")):
    for _name in _names:
        ending(_name, asked_for=_name != _names[0])
