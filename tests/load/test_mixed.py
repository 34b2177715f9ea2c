# SPDX-License-Identifier: Apache-2.0
"""Eight VMs: five do their worst, three are well-behaved, and must hardly notice.

The same eight VMs are measured idle and under load by turns, so that whatever else the machine does meanwhile is part of
both; for a turn without load the five are paused. What counts is the time of a whole `ironclaw exec VM -- true` in the
others, from the command's start to its end.
"""

import collections
import contextlib
import os
import random
import subprocess
import threading
import time
from pathlib import Path

from harness import ROOT, SLOW, Failure

MINUTES = float(os.environ.get("IRONCLAW_TEST_MINUTES") or 0)
WELL_BEHAVED = ("calm1", "calm2", "calm3")
ATTACKS = ROOT / "tests/escape/guest"
BUILD = """
cd /tmp && i=0
while :; do
    i=$((i + 1)); rm -rf lib; mkdir lib; cp /usr/lib/python3*/[a-e]*.py lib
    python3 -m compileall -q -f lib; tar -c lib | gzip -9 | sort | md5sum >/dev/null
done
"""
LOADS = {"build": ("agent", ["sh", "-c", BUILD]),
         "python": ("agent", ["python3", "-c", "n = 0\nwhile True: n = hash(str(n))"]),
         "output": ("agent", ["python3", "/tmp/output_flood.py"]),
         "forks": ("root", ["python3", "/tmp/fork_bomb.py"]),
         "memory": ("root", ["python3", "/tmp/memory_hog.py"])}
MEMORY_MIB = 128
# Of one VM on the host, beyond the guest's memory: docs/architecture.md, "Memory on the host". And its `ironclaw exec`.
OVERHEAD_MIB = {"qemu": 256 + 64 + 64, "ironclaw": 8 + 64, "firecracker": 8 + 64}
OF_A_COMMAND_MIB = 8
P99_AT_MOST = 3  # times that of the idle machine
SAMPLES_MIN = 100
TURN_S = 20


class Probe:
    """Runs `true` in each well-behaved VM again and again, in turns; their latencies, and the most memory, in MiB, that
    all processes of ours had at once."""

    def __init__(self, t, name):
        self.t, self.name, self.samples, self.memory, self.failure = t, name, [], 0, None

    def turn(self, seconds):
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._run, args=(vm, end)) for vm in WELL_BEHAVED]
        for thread in threads:
            thread.start()
        while time.monotonic() < end and not self.failure:
            self.memory = max(self.memory, sum(pss_kib(pid) for pid in self.t.processes()) / 1024)
            time.sleep(2)
        for thread in threads:
            thread.join()
        if self.failure:
            raise Failure(self.failure)

    def _run(self, vm, end):
        try:
            while time.monotonic() < end and not self.failure:
                started = time.monotonic()
                self.t.ic("exec", vm, "--", "true", rc=0)
                self.samples.append(time.monotonic() - started)
                time.sleep(random.uniform(0.1, 0.5) * SLOW)
        except Failure as e:
            self.failure = f"{vm}: {e}"

    def percentile(self, share):
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def __str__(self):
        figures = "  ".join(f"p{100 * share:.0f} {1000 * self.percentile(share):.0f}" for share in (0.5, 0.9, 0.99, 1))
        return f"     {self.name:5} exec of `true`, ms: {figures}, {len(self.samples)} samples"


def pss_kib(pid):
    """Its share of memory: what several have mapped is counted once in the sum."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return 0


def cpu_seconds(t):
    """Of each VM's processes."""
    used, tick = collections.Counter(), os.sysconf("SC_CLK_TCK")
    for pid in t.processes():
        with contextlib.suppress(OSError):
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            vm = [v.rpartition(b"/")[2].decode() for v in environ if v.startswith(b"IRONCLAW_VM=")]
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            used[vm[0] if vm else "commands"] += (int(fields[11]) + int(fields[12])) / tick
    return used


class Load:
    """One VM's load, begun again when its command ends: the kernel ends the memory hog now and then."""

    def __init__(self, t, vm):
        self.t, self.vm, self.stop, self.runs = t, vm, False, 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        user, argv = LOADS[self.vm]
        while not self.stop:
            self.runs += 1
            child = self.t.start("exec", "-u", user, self.vm, "--", *argv, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            while child.poll() is None and not self.stop:
                time.sleep(0.2)
            time.sleep(0.5)

    def close(self):
        self.stop = True
        self.thread.join()


def start_vms(t):
    for name in (*LOADS, *WELL_BEHAVED):
        t.ic("run", "--keep", "--name", name, "--memory", MEMORY_MIB, "--", "true", rc=0)
    for name in ("output", "forks", "memory"):
        program = {"output": "output_flood.py", "forks": "fork_bomb.py", "memory": "memory_hog.py"}[name]
        t.ic("cp", ATTACKS / program, f"{name}:/tmp/{program}", rc=0)


def measure(t, seconds):
    """Both probes, and how much of a CPU each load used in its turns."""
    idle, loaded, used = Probe(t, "idle"), Probe(t, "load"), collections.Counter()
    loads = [Load(t, vm) for vm in LOADS]
    try:
        time.sleep(5 * SLOW)  # until each is at work
        turns = max(1, round(seconds / TURN_S))
        for _ in range(turns):
            for vm in LOADS:
                t.ic("pause", vm, rc=0)
            idle.turn(seconds / turns / 2)
            for vm in LOADS:
                t.ic("unpause", vm, rc=0)
            before = cpu_seconds(t)
            loaded.turn(seconds / turns)
            used += cpu_seconds(t) - before
    finally:
        for load in loads:
            load.close()
    return idle, loaded, {vm: used[vm] / seconds for vm in LOADS}


def test_mixed(t):
    if not MINUTES:
        t.skip("takes minutes; run make load-test MINUTES=10")
    seconds = 60 * MINUTES
    t.deadline += 2 * seconds + 600
    start_vms(t)
    idle, loaded, shares = measure(t, seconds)
    allowed = (len(LOADS) + len(WELL_BEHAVED)) * (MEMORY_MIB + OVERHEAD_MIB[t.backend] + OF_A_COMMAND_MIB)
    ratio = loaded.percentile(0.99) / idle.percentile(0.99)
    print(f"{idle}\n{loaded}\n     p99 under load: {ratio:.1f} times that of the idle machine, at most {P99_AT_MOST}\n"
          f"     load, % of a CPU: {', '.join(f'{vm} {100 * share:.0f}' for vm, share in shares.items())}\n"
          f"     memory of all processes (PSS): {loaded.memory:.0f} MiB, at most {allowed}", flush=True)
    for name in (*LOADS, *WELL_BEHAVED):
        t.ic("rm", "-f", name, rc=0)
    t.assert_clean("after the load", 5)
    assert all(share > 0.05 for share in shares.values()), f"one was no load: {shares}"
    assert 0 < loaded.memory <= allowed
    assert min(len(idle.samples), len(loaded.samples)) >= SAMPLES_MIN, "too few samples"
    assert ratio <= P99_AT_MOST


test_mixed.alone = True
