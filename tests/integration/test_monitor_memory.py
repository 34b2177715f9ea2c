# SPDX-License-Identifier: Apache-2.0
"""The memory of snapshots of our own monitor, with a Linux guest: what a diff holds, the page-fault handler's backend,
the working set, and the generation id that a clone gets."""

import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import agent  # noqa: E402
from harness import SLOW, until  # noqa: E402
from test_monitor_snapshot import WORDS, Monitor, check_clone, need_kvm, prepare  # noqa: E402

MIB, PAGE = 1 << 20, 4096
GENERATION, GENERATION_BYTES = 0xe3000, 16  # LAYOUT_GENERATION
RAM = 256 * MIB


def generation(memory):
    with open(memory, "rb") as file:
        return os.pread(file.fileno(), GENERATION_BYTES, GENERATION)


def events(vm):
    """Interrupts of the Generic Event Device so far."""
    line = re.search(r"^.*ACPI:Ged$", vm.execute("cat", "/proc/interrupts"), re.M)
    assert line, vm.execute("cat", "/proc/interrupts")
    return sum(map(int, re.findall(r"\s(\d+)(?=\s)", line[0].split("IO-APIC")[0])))


def test_generation(t):
    """Every clone has a generation id of its own, and is told once. (Debian's kernel has the device and no driver.)"""
    need_kvm(t)
    vm = Monitor(t, "parent")
    vm.boot()
    devices = vm.execute("ls", "/sys/bus/acpi/devices").split()
    if not devices:
        t.skip("this guest's kernel has no ACPI")
    assert {"IRCL0001:00", "ACPI0013:00"} <= set(devices), devices
    assert "vm_gen_counter" in vm.execute("cat", "/sys/bus/acpi/devices/IRCL0001:00/modalias").lower()
    assert events(vm) == 0
    files = [t.work / f"{what}{i}" for i in range(3) for what in ("state", "memory")]
    vm.create(files[0], files[1])
    vm.kill()
    for i in (1, 2):
        clone = Monitor(t, f"clone{i}")
        clone.load(files[0], files[1])
        assert events(clone) == 1
        clone.create(files[2 * i], files[2 * i + 1])
        clone.kill()
    ids = {generation(memory) for memory in files[1::2]}
    assert len(ids) == 3 and bytes(GENERATION_BYTES) not in ids, ids


def go_on(vm):
    vm.request("PATCH", "/vm", {"state": "Resumed"})
    agent.control(vm.control, agent.THAW)


def same_ram(one, other):
    with open(one, "rb") as a, open(other, "rb") as b:
        return [at // PAGE for at in range(0, RAM, PAGE) if a.read(PAGE) != b.read(PAGE)]


def test_diff(t):
    """A diff over its base is, to the byte, what a full snapshot of the same moment has; twice in a row."""
    need_kvm(t)
    vm = Monitor(t, "parent")
    vm.boot(cpus=2, track=True)
    prepare(vm)
    merged, state = t.work / "merged", t.work / "state0"
    vm.create(state, merged)
    for i in (1, 2):
        go_on(vm)
        vm.execute("sh", "-c", f"head -c 3000000 /dev/urandom > /tmp/data{i}; ls -R /usr/lib | wc -l")
        state, diff, full = (t.work / f"{name}{i}" for name in ("state", "diff", "full"))
        agent.control(vm.control, agent.FREEZE)
        vm.request("PATCH", "/vm", {"state": "Paused"})
        vm.request("PUT", "/snapshot/create",
                   {"snapshot_path": str(state), "mem_file_path": str(diff), "snapshot_type": "Diff"})
        merge = subprocess.run([vm.program, "--merge-memory", merged, diff], capture_output=True, text=True, check=False)
        assert merge.returncode == 0, merge.stderr
        # Of the same moment: nothing has run since. It becomes the base of the next diff, as it is the later one.
        vm.request("PUT", "/snapshot/create",
                   {"snapshot_path": str(t.work / "unused"), "mem_file_path": str(full), "snapshot_type": "Full"})
        wrong = same_ram(merged, full)
        assert not wrong, f"{len(wrong)} pages are not as they were: {[hex(p) for p in wrong[:20]]}"
        assert diff.stat().st_blocks < full.stat().st_blocks / 2, (diff.stat(), full.stat())
        print(f"diff {i}: {diff.stat().st_blocks / 2048:.1f} MiB of {full.stat().st_blocks / 2048:.1f} MiB")
        again = subprocess.run([vm.program, "--merge-memory", merged, diff], capture_output=True, text=True, check=False)
        assert again.returncode == 1 and "the changes continue" in again.stderr, again
        kept, merged = merged, Path(shutil.copy(full, t.work / f"base{i}"))
    vm.kill()
    clone = Monitor(t, "clone")
    clone.load(state, kept)
    check_clone(clone, WORDS)
    assert clone.execute("sh", "-c", "wc -c < /tmp/data1; wc -c < /tmp/data2") == "3000000\n3000000\n"


class Handler:
    """A process that serves a memory file's pages."""

    def __init__(self, t, memory):
        self.socket = t.work / f"uffd{len(list(t.work.glob('uffd*')))}"
        self.child = subprocess.Popen([t.build / "src/monitor/uffd-handler", self.socket, memory],
                                      stdout=subprocess.PIPE, text=True)
        t.cleanups.append(self.kill)
        until(self.socket.exists, 10, "the handler's socket")

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()


def test_uffd(t):
    """A clone whose pages come from another process, which may die."""
    need_kvm(t)
    state, memory = t.work / "state", t.work / "memory"
    vm = Monitor(t, "parent")
    vm.boot(cpus=2)
    prepare(vm)
    vm.create(state, memory)
    vm.kill()

    handler, clone = Handler(t, memory), Monitor(t, "clone")
    try:
        clone.load(state, memory, mem_backend={"backend_type": "Uffd", "backend_path": str(handler.socket)})
    except Exception as error:
        if "userfaultfd: not permitted" in str(error):
            t.skip("this user may have no userfaultfd")
        raise
    check_clone(clone, WORDS)
    clone.kill()
    faults = re.fullmatch(r"faults (\d+) removals 0 result 0\n", handler.child.communicate(timeout=20 * SLOW)[0])
    assert faults and 100 < int(faults[1]) < RAM // PAGE, faults
    print(f"{faults[1]} pages of {RAM // PAGE}")

    handler, clone = Handler(t, memory), Monitor(t, "orphan")
    clone.load(state, memory, mem_backend={"backend_type": "Uffd", "backend_path": str(handler.socket)})
    handler.kill()
    assert clone.child.wait(20 * SLOW) == 1, clone.report()
    log = clone.log.read_text()
    assert f"page-fault handler {handler.socket}: it has ended" in log, log

    nobody = Monitor(t, "nobody")
    text = nobody.request("PUT", "/snapshot/load", {"snapshot_path": str(state), "resume_vm": True, "mem_backend": {
        "backend_type": "Uffd", "backend_path": str(t.work / "nothing")}}, status=400)
    assert "start it before the snapshot is loaded" in text, text


# ---- the working set ----

def pages(pid, memory):
    """What a monitor has of its memory file, as [(page, whether it wrote it)]."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    found = re.search(rf"^([0-9a-f]+)-([0-9a-f]+) \S+ 00000000 .*{re.escape(str(memory))}$", maps, re.M)
    assert found, maps
    start, end = (int(x, 16) for x in found.groups())
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(start // PAGE * 8)
        bits = struct.unpack(f"<{(end - start) // PAGE}Q", file.read((end - start) // PAGE * 8))
    return [(i, not b >> 61 & 1) for i, b in enumerate(bits) if b >> 63]


def test_working_set(t):
    """What one clone touched the next one has from the start. Advice that is bad costs nothing but a line."""
    need_kvm(t)
    state, memory, advice = t.work / "state", t.work / "memory", t.work / "set"
    vm = Monitor(t, "parent")
    vm.boot()
    prepare(vm)
    vm.create(state, memory)
    vm.kill()

    def first_output(name, **more):
        clone = Monitor(t, name)
        start = time.monotonic()
        clone.load(state, memory, **more)
        clone.execute("true")
        return clone, (time.monotonic() - start) * 1000

    clone, _ = first_output("cold")
    clone.request("PATCH", "/vm", {"state": "Paused"})
    touched = pages(clone.child.pid, memory)
    measured = subprocess.run([clone.program, "--working-set", str(clone.child.pid), memory, advice],
                              capture_output=True, text=True, check=False)
    assert measured.returncode == 0, measured.stderr
    clone.kill()
    assert 500 < len(touched) < RAM // PAGE and any(write for _, write in touched), len(touched)

    waiting = Monitor(t, "waiting")
    waiting.load(state, memory, prefetch_path=str(advice), resume_vm=False)
    assert set(touched) <= set(pages(waiting.child.pid, memory))
    assert "working set" not in waiting.log.read_text()
    waiting.kill()

    times = {"without": [], "with": []}
    for i in range(3):
        for how in times:
            clone, ms = first_output(f"{how}{i}", **({"prefetch_path": str(advice)} if how == "with" else {}))
            times[how].append(ms)
            clone.kill()
    print(f"{len(touched)} pages, {sum(w for _, w in touched)} of them written; load to a command's end, ms: "
          + ", ".join(f"{how} {sorted(ms)[1]:.1f}" for how, ms in times.items()))

    advice.write_bytes(advice.read_bytes()[:-1])
    clone, _ = first_output("bad", prefetch_path=str(advice))
    check_clone(clone, WORDS)
    assert f"working set {advice}: damaged, or none" in clone.log.read_text(), clone.log.read_text()
