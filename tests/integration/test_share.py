# SPDX-License-Identifier: Apache-2.0
"""A VM that uses much of the processors comes after those that do not, until it no longer does."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from harness import SLOW, Failure, cgroups

NORMAL, LATE = {"weight": "100", "nice": "0"}, {"weight": "10", "nice": "7"}


SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # and not longer than who wants it


def vm_of(pid):
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return [v.rpartition(b"/")[2].decode() for v in environ if v.startswith(b"IRONCLAW_VM=")]


def places(t, vm):
    """{what: value} of all that says how much of the processors the VM gets; empty: nothing does on this machine."""
    found = {}
    for group in cgroups(t.home):
        weight = Path(group) / "cpu.weight"
        if Path(group).name.startswith(f"{vm}.") and weight.exists():
            found["weight"] = weight.read_text(encoding="ascii").strip()
    if found:
        return found  # and the rest does not count
    with contextlib.suppress(OSError):
        if Path("/proc/sys/kernel/sched_autogroup_enabled").read_text(encoding="ascii").strip() != "1":
            return found
        for pid in t.processes():
            if vm_of(pid) == [vm]:
                found["nice"] = Path(f"/proc/{pid}/autogroup").read_text(encoding="ascii").split()[-1]
    return found


@contextlib.contextmanager
def crowd():
    """More that wants to run than there are processors."""
    busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for child in busy:
            child.kill()
            child.wait()


def until_it_is(t, vm, wanted, by):
    end = time.monotonic() + 60 * SLOW
    while True:
        t.ic("exec", by, "--", "true", rc=0)
        found = places(t, vm)
        if found and all(wanted[what] == value for what, value in found.items()):
            return
        if time.monotonic() > end:
            raise Failure(f"VM {vm} has {found}, not {wanted}")
        time.sleep(0.1)


def test_who_computes_comes_last(t):
    with t.vm("busy"), t.vm("quiet"):
        if not places(t, "busy") or (places(t, "busy").get("nice") and os.geteuid() != 0):
            t.skip("neither a delegated cgroup nor, for root, autogroup")
        load = t.start("exec", "busy", "--", "sh", "-c", "while :; do :; done")
        with crowd():
            until_it_is(t, "busy", LATE, by="quiet")
            assert places(t, "quiet").items() <= NORMAL.items(), places(t, "quiet")
            load.kill()
            load.wait()
            until_it_is(t, "busy", NORMAL, by="quiet")
        t.ic("exec", "busy", "--", "true", rc=0)
