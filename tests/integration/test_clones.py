# SPDX-License-Identifier: Apache-2.0
"""Clones share no secret: what two of one template draw, are called and are told differs, and their clock is the host's.

`make clone-test N=64` is the whole of it; CI makes fewer. What a guest says of itself comes from guest/clone.py.
"""

import collections
import contextlib
import json
import os
import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import frames  # noqa: E402
from harness import SLOW, Failure  # noqa: E402
from test_monitor_snapshot import Monitor, need_kvm  # noqa: E402

PROBE = (Path(__file__).resolve().parent / "guest/clone.py").read_text(encoding="utf-8")
AT_ONCE = 4
PINGS = 20
CLOCK = "import sys, time\nfor _ in sys.stdin: print(time.time_ns())"
CLOCK_ERROR_MS = 50
# All that comes out of the guest's own random number generator; the rest is what the host told it.
RANDOM = {"getrandom", "urandom", "secrets", "uuid4", "boot_id", "mktemp", "tls_random", "layout"}
TOLD = {"hostname", "machine_id", "generation"}


class Clock:
    """A program in a VM that says the time on request."""

    def __init__(self, name, child):
        self.name, self.child = name, child

    def _line(self):
        line = self.child.stdout.readline()
        if not line:
            self.child.wait()
            raise Failure(f"{self.name}: status {self.child.returncode}: {self.child.stderr.read().decode()}")
        return line

    def clock_error_ms(self):
        """How far the guest's clock is from ours, and how well that is known: half of the quickest question's time, as
        the guest read its clock at some moment of it."""
        best = None
        for _ in range(PINGS):
            before = time.time_ns()
            with contextlib.suppress(BrokenPipeError):  # it has ended: the line that is missing says how
                self.child.stdin.write(b"?\n")
                self.child.stdin.flush()
            said = int(self._line())
            after = time.time_ns()
            if best is None or after - before < best[1] - best[0]:
                best = (before, after, said)
        before, after, said = best
        return (said - (before + after) / 2) / 1e6, (after - before) / 2e6

    def close(self):
        self.child.stdin.close()
        status = self.child.wait(60 * SLOW)
        if status != 0:
            raise Failure(f"{self.name}: status {status}: {self.child.stderr.read().decode()}")


class Clone(Clock):
    """One VM that has said what it is, and waits for questions about its clock."""

    def __init__(self, t, name, env=None):
        super().__init__(name, t.start("run", "-q", "-i", "--name", name, "--", "python3", "-u", "-c", PROBE, env=env,
                                       stdin=-1))
        self.facts = None

    def read(self):
        self.facts = json.loads(self._line())
        return self.facts


def make_clones(t, count, at_once=AT_ONCE, env=None, clocks=None, origin="template "):
    """The facts of so many clones, by their names: up to at_once alive at a time, each group after the other."""
    facts = {}
    for first in range(0, count, at_once):
        group = [Clone(t, f"c{i}", env) for i in range(first, min(first + at_once, count))]
        for clone in group:
            facts[clone.name] = clone.read()
        for clone in group:
            if clocks is not None:
                clocks[clone.name] = clone.clock_error_ms()
        seen = {vm["vm_id"]: vm for vm in t.json("inspect", *(clone.name for clone in group))}
        for clone in group:
            vm, own = seen[clone.name], facts[clone.name]
            assert vm["origin"].startswith(origin), f"{clone.name} is no clone: {vm['origin'] or 'it booted'}"
            assert own["hostname"] == clone.name, own
            assert own["generation"].replace("-", "") == vm["generation"], (own["generation"], vm["generation"])
        for clone in group:
            clone.close()
    return facts


def duplicates(facts):
    """{kind: values that more than one clone has}."""
    found = {}
    for kind in next(iter(facts.values())):
        counts = collections.Counter(own[kind] for own in facts.values())
        twice = [value for value, n in counts.items() if n > 1]
        if twice:
            found[kind] = twice
    return found


def check_form(facts):
    """That each kind is what it says it is, and not the same empty text of all clones, or a reader of nothing."""
    for name, own in facts.items():
        assert set(own) | {"layout"} == RANDOM | TOLD, (name, sorted(own))  # QEMU's guests have no random layout
        for kind, digits in (("getrandom", 128), ("urandom", 128), ("secrets", 64), ("tls_random", 64), ("machine_id", 32)):
            assert len(own[kind]) == digits and len(set(own[kind])) > 4, (name, kind, own[kind])
        for kind in ("uuid4", "boot_id", "generation"):
            assert len(own[kind]) == 36 and len(set(own[kind])) > 4, (name, kind, own[kind])


def test_no_two_clones_have_a_secret_in_common(t):
    count = int(os.environ.get("IRONCLAW_TEST_CLONES") or 6)
    t.deadline += count * 15 * SLOW
    t.ic("template", "build", "-q", rc=0, timeout=200)
    clocks = {}
    facts = make_clones(t, count, clocks=clocks)
    check_form(facts)
    found = duplicates(facts)
    assert not found, f"of {count} clones some have in common: {found}"
    # A clock is wrong only by what the time of the question itself does not explain.
    wrong = {name: value for name, value in clocks.items() if abs(value[0]) - value[1] > CLOCK_ERROR_MS}
    assert not wrong, f"clocks that are wrong, in ms, and how well that is known: {wrong}"
    worst = max(clocks.values(), key=lambda value: abs(value[0]))
    print(f"     clone-test: {count} clones, {len(facts['c0'])} kinds, no two equal; clock at worst "
          f"{worst[0]:+.1f} ms (+-{worst[1]:.1f} ms)", flush=True)


def test_the_clock_of_a_vm_that_was_held(t):
    """Saving and pausing stop a machine, on QEMU its clock, too: it has the host's time again when it goes on."""
    with t.vm() as name:
        child = t.start("exec", "-i", name, "python3", "-u", "-c", CLOCK, stdin=-1)
        clock = Clock(name, child)
        clock.clock_error_ms()  # it runs: a command does not begin in a VM that is paused
        t.ic("pause", name, rc=0)
        time.sleep(2)
        t.ic("unpause", name, rc=0)
        paused = clock.clock_error_ms()
        clock.close()
        t.ic("snapshot", "create", name, "held", rc=0)
        child = t.start("exec", "-i", name, "python3", "-u", "-c", CLOCK, stdin=-1)
        clock = Clock(name, child)
        saved = clock.clock_error_ms()
        clock.close()
        t.ic("snapshot", "rm", "held", rc=0)
    for what, (error, known) in (("paused", paused), ("saved", saved)):
        assert abs(error) - known < CLOCK_ERROR_MS, f"{what}: its clock is wrong by {error} ms (+-{known} ms)"


def test_the_check_notices_clones_that_are_not_reseeded(t):
    """The same check, of a template whose clones go without: it must find what they have in common, or it proves nothing."""
    env = {"IRONCLAW_TEST_NO_RESEED": "1"}
    name = t.ic("template", "build", "-q", rc=0, timeout=200, env=env).text.strip()
    try:
        # One at a time, as a young kernel reseeds itself after some seconds.
        facts = make_clones(t, 4, at_once=1, env=env, origin=f"template {name} for tests: not reseeded")
    finally:
        t.ic("template", "rm", "-f", name, rc=0)
    check_form(facts)
    found = duplicates(facts)
    print(f"     clone-test: without the reseed 4 clones have in common: {', '.join(sorted(found)) or 'nothing'}", flush=True)
    assert set(found) & RANDOM, f"clones that were not reseeded were not noticed: {facts}"
    assert not set(found) & TOLD, f"what the host tells them must differ all the same: {found}"


def ready_session(monitor):
    """The connection on which the agent of what was loaded waits for its identity."""
    while True:
        session = frames.Session(monitor.ready.accept()[0], 60 * SLOW)
        try:
            assert session.next()[0] == frames.READY
            return session
        except frames.HungUp:  # of before, or given up
            session.close()


def refused(function):
    try:
        value = function()
    except (frames.Refused, frames.HungUp) as e:
        return str(e)
    raise AssertionError(f"not refused: {value}")


def test_nothing_runs_in_a_clone_before_its_handshake(t):
    """The product's own template in monitors of ours, whose agents are spoken to without libironclaw."""
    need_kvm(t)
    name = t.ic("template", "build", "-q", rc=0, timeout=200).text.strip()
    files = (t.home / "data/templates/names" / name).resolve()
    generations = [os.urandom(16) for _ in range(2)]
    clones = [Monitor(t, f"raw{i}") for i in range(2)]
    sessions = []
    for vm in clones:
        vm.load(files / "state", files / "memory", resume_vm=False)
        vm.request("PATCH", "/vm", {"state": "Resumed"})
        sessions.append(ready_session(vm))
    for vm in clones:
        said = refused(lambda vm=vm: frames.run(vm.uds, "true"))
        assert "template" in said, said
        for kind, session in ((frames.GET, frames.SESSION_GET), (frames.PUT, frames.SESSION_PUT)):
            with frames.Session.open(vm.uds, session) as transfer:
                transfer.send(kind, (b"" if kind == frames.GET else bytes(4)) + frames.string("/etc/hostname") + frames.string("")
                              + frames.string("f") * (kind == frames.PUT))
                refused(transfer.next)
    for i, session in enumerate(sessions):
        session.ask(frames.CLONE, frames.clone_request(generations[i], time.time_ns(), f"raw{i}"))
    told = [frames.run(vm.uds, "sh", "-c", "hostname; cat /run/ironclaw/generation").split() for vm in clones]
    assert told == [[f"raw{i}", str(uuid.UUID(bytes=generations[i]))] for i in range(2)], told
    said = refused(lambda: sessions[0].ask(frames.CLONE, frames.clone_request(os.urandom(16), time.time_ns(), "again")))
    assert "not frozen" in said, said
    for session, vm in zip(sessions, clones):
        session.close()
        vm.kill()


test_no_two_clones_have_a_secret_in_common.alone = True
