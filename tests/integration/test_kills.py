# SPDX-License-Identifier: Apache-2.0
"""kill -9 of one process of ours per run, which one and when drawn from a seed, while others look at the state.

Round i of a seed draws the same whatever ran before it: `make kill-test SEED=s FROM=i N=1` repeats it. Its moment is a
share of the time that a run takes on this machine at present.
"""

import collections
import concurrent.futures
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

from harness import FAILED, SLOW, Failure, until

OUTPUT = b"1\n2\n3\n"
SCRIPT = "for i in 1 2 3; do echo $i; sleep 0.1; done; exit"
FAILURES_MAX = 10


def process_of(vm, program):
    """The pid of the VM's process that runs the program: each has the VM in its environment."""
    mark = b"IRONCLAW_VM=" + os.fsencode(str(vm)) + b"\0"
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes() + b"\0":
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if program in os.path.basename(os.fsdecode(argv[0])):
                    return int(entry.name)
        except OSError:
            continue
    return None


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False  # it ended by itself just now


class Reader:
    """Looks at every VM again and again: the state can be read at any time, whoever was killed while writing it."""

    def __init__(self, t):
        self.t, self.turn, self.done = t, threading.Lock(), threading.Event()
        self.reads, self.failure = 0, None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _look(self):
        for vm in self.t.json("ps", "-a", "--json"):
            result = self.t.ic("inspect", vm["vm_id"])
            if result.rc == 0:
                json.loads(result.out)
            elif result.rc != FAILED or "no VM" not in result.errors:  # it may be gone since
                raise Failure(f"a VM that ps shows can't be read: {result}")
            self.reads += 1

    def _run(self):
        while not self.done.wait(0.1):
            try:
                with self.turn:
                    self._look()
            except (Failure, ValueError) as e:
                self.failure = f"the state, {self.reads} reads: {e}"
                return

    def close(self):
        self.done.set()
        self.thread.join()


class Rounds:
    def __init__(self, t, seed):
        self.t, self.seed = t, seed
        self.victims = {"cli": None, "ps": None, "monitor": t.monitor}
        if t.backend == "qemu":  # has the vsock from a process of its own
            self.victims["vsock"] = "ironclaw-vsock"
        self.killed, self.in_vain = collections.Counter(), 0
        started = time.monotonic()
        self._end_of(t.start("run", "--", "sh", "-c", f"{SCRIPT} 3"), "nobody", 3, False)
        self.run_takes = time.monotonic() - started
        started = time.monotonic()
        t.ic("ps", rc=0)
        self.ps_takes = time.monotonic() - started

    def _end_of(self, child, victim, status, killed):
        """The exit status is the command's own with all of its output, or says what happened."""
        try:
            out, err = child.communicate(timeout=60 * SLOW)
        except subprocess.TimeoutExpired:
            child.kill()
            raise Failure(f"run does not end after its {victim} was killed; stderr {child.communicate()[1]!r}") from None
        rc = child.returncode
        if rc == status and out == OUTPUT:
            return
        if killed and victim == "cli" and rc == -signal.SIGKILL:
            return
        if killed and victim in ("monitor", "vsock") and rc == FAILED and err.startswith(b"ironclaw: "):
            return
        raise Failure(f"run, whose {victim} was {'' if killed else 'not '}killed, ended with {rc}, its command with {status}; "
                      f"stdout {out!r}, stderr {err!r}")

    def _kill_ps(self, share):
        ps = self.t.start("ps", "-a", "--json")
        time.sleep(share * self.ps_takes)
        ps.kill()
        out, err = ps.communicate()
        if ps.returncode == 0:
            json.loads(out)
        elif ps.returncode != -signal.SIGKILL:
            raise Failure(f"ps ended with {ps.returncode}: {err!r}")
        return ps.returncode != 0

    def play(self, i):
        draw = random.Random(f"{self.seed}/{i}")
        victim = draw.choice(list(self.victims))
        share, of_ps, status = draw.uniform(0, 1.1), draw.uniform(0, 1.2), draw.randrange(1, 100)
        name, started = f"k{i}", time.monotonic()
        child = self.t.start("run", "--name", name, "--", "sh", "-c", f"{SCRIPT} {status}")
        time.sleep(share * self.run_takes)
        if victim == "cli":
            killed = child.poll() is None and kill(child.pid)
        elif victim == "ps":
            killed = self._kill_ps(of_ps)
        else:
            vm, program = self.t.home / "state/vms" / name, self.victims[victim]
            pid = until(lambda: process_of(vm, program) or child.poll() is not None, 30, f"{victim} to kill", step=0.01)
            killed = pid is not True and kill(pid)
        self.killed[victim] += killed
        self.in_vain += not killed
        try:
            self._end_of(child, victim, status, killed)
        except Failure as e:
            raise Failure(f"round {i} ({victim} at {share * self.run_takes:.2f} s): {e}") from None
        if victim == "ps":  # nobody disturbed this one: machines get faster and slower
            self.run_takes = time.monotonic() - started


def play_all(t, rounds, reader, numbers):
    """As many rounds at a time as tests, then a look at what they left behind. The failures."""
    failures, at_once = [], t.options.jobs
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for first in range(0, len(numbers), at_once):
            batch = numbers[first : first + at_once]
            for future in [pool.submit(rounds.play, i) for i in batch]:
                try:
                    future.result()
                except Failure as e:
                    failures.append(str(e))
            with reader.turn:
                try:
                    t.ic("ps", rc=0)
                    t.assert_clean(f"after rounds {list(batch)}", 2)
                except Failure as e:
                    return failures + [str(e)]
            if reader.failure or len(failures) >= FAILURES_MAX:
                break
            if batch[-1] % 50 == 49:
                print(f"     kill-test: round {batch[-1]}, {dict(rounds.killed)}, {reader.reads} reads, "
                      f"{len(failures)} failures", flush=True)
    return failures


def test_kill_at_random(t):
    count = int(os.environ.get("IRONCLAW_TEST_KILLS") or 6)
    seed = os.environ.get("IRONCLAW_TEST_SEED") or str(int(time.time()))
    first = int(os.environ.get("IRONCLAW_TEST_KILLS_FROM") or 0)
    t.deadline += count * 20
    rounds = Rounds(t, seed)
    print(f"     kill-test: SEED={seed}, rounds {first} to {first + count - 1}, {t.options.jobs} at once; a run takes "
          f"{rounds.run_takes:.2f} s, a ps {1000 * rounds.ps_takes:.0f} ms", flush=True)
    reader = Reader(t)
    try:
        failures = play_all(t, rounds, reader, range(first, first + count))
    finally:
        reader.close()
    if reader.failure:
        failures.append(reader.failure)
    print(f"     kill-test: SEED={seed}: killed {dict(rounds.killed)}, {rounds.in_vain} had ended before; the state of a VM "
          f"was read {reader.reads} times", flush=True)
    assert sum(rounds.killed.values()) > 0 or count < 3, "nobody was ever killed"
    assert not failures, f"SEED={seed}: {len(failures)} failures\n" + "\n".join(failures)


test_kill_at_random.alone = True
