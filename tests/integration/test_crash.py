# SPDX-License-Identifier: Apache-2.0
"""kill -9 of our processes: the next command finds and removes what is left. At random moments: test_kills.py."""

import os
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
