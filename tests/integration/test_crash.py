# SPDX-License-Identifier: Apache-2.0
"""kill -9 of each of our processes at random moments: the next command finds and removes what is left."""

import os
import random
import signal
import time

from harness import until



def victims(t):
    """The processes of a VM: QEMU has the vsock from a process of its own."""
    names = {"cli": " run --", "monitor": t.monitor}
    return dict(names, vsock="ironclaw-vsock") if t.backend == "qemu" else names


def victim(t, which):
    for pid, command in t.processes().items():
        if victims(t)[which] in command and (which == "cli") == (" run --" in command):
            return pid
    return None


def kill_one(t, which, delay):
    child = t.start("run", "--", "sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done")
    time.sleep(delay)
    pid = until(lambda: victim(t, which) or child.poll() is not None, 30, f"a process to kill ({which})", step=0.01)
    if pid is not True:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pid = True  # it ended by itself just now
    until(lambda: child.poll() is not None, 60, f"the end of run after its {which} was killed at {delay:.2f} s")
    if which != "cli" and pid is not True:
        assert child.returncode != 0, f"run said all is well though its {which} was killed at {delay:.2f} s"
    t.ic("ps", rc=0)
    t.assert_clean(f"after {which} was killed at {delay:.2f} s", 2)


def test_kill_at_random(t):
    count = int(os.environ.get("IRONCLAW_TEST_KILLS", "6"))
    seed = int(os.environ.get("IRONCLAW_TEST_SEED", str(int(time.time()))))
    t.deadline += count * 20
    rng = random.Random(seed)
    for i in range(count):
        which = list(victims(t))[i % len(victims(t))]
        delay = rng.uniform(0, 4)
        if t.options.verbose or count > 10:
            print(f"     kill {i + 1} of {count}: {which} at {delay:.2f} s", flush=True)
        try:
            kill_one(t, which, delay)
        except AssertionError as e:
            raise AssertionError(f"round {i} of IRONCLAW_TEST_SEED={seed}: {e}") from None


def test_kill_of_a_kept_vm(t):
    """Its record is reaped; the name is free again."""
    for which in list(victims(t))[1:]:
        t.ic("run", "--keep", "--name", "k", "--", "true", rc=0)
        os.kill(victim(t, which), signal.SIGKILL)
        time.sleep(1)
        assert "ready" not in t.ic("ps", rc=0).text, "a dead VM is shown as ready"
        assert t.ic("exec", "k", "--", "true").rc == 125
        t.ic("rm", "-f", "k")
        t.assert_clean(f"after a kept VM's {which} was killed")


def test_kill_of_everything(t):
    """CLI, monitor and ironclaw-vsock at once."""
    child = t.start("run", "--", "sleep", "1000")
    until(lambda: victim(t, "monitor"), 30, "the monitor")
    time.sleep(2)
    for pid in t.processes():
        os.kill(pid, signal.SIGKILL)
    until(lambda: child.poll() is not None, 10, "the end of run")
    t.ic("ps", rc=0)
    t.assert_clean("after all was killed")


test_kill_at_random.alone = True
