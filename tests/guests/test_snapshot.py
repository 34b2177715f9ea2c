# SPDX-License-Identifier: Apache-2.0
"""Snapshots of bare-metal guests: saved, their monitor killed, loaded into a new one, where they go on; and files that
are not what they should be."""

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import Failure, until  # noqa: E402
from monitor import SECOND_SECTORS, Vm, numbered  # noqa: E402

HEADER, ENTRY = 64, 32
PARTS = {1: "host", 2: "config", 3: "vm", 4: "vcpu", 5: "virtio", 6: "serial", 7: "keyboard", 8: "ioapic"}


def boot(t, case, words="", **options):
    return Vm(t, case, words, by_api=True, memory=options.pop("memory", 32), **options).start()


def files(t):
    return {"snapshot_path": str(t.work / "state"), "mem_file_path": str(t.work / "memory")}


def save(vm, kind="Full", status=204, **paths):
    """Pauses and saves it; the answer."""
    vm.request("PATCH", "/vm", {"state": "Paused"}, 204)
    return vm.request("PUT", "/snapshot/create", {**files(vm.t), "snapshot_type": kind, **paths}, status)


def new(t, case, *, pvh=False):
    """A monitor that was told nothing yet."""
    vm = Vm(t, case, by_api=True, pvh=pvh)
    vm.configure = vm.wait_for_api
    return vm.start()


def body(t, vm, **more):
    return {"snapshot_path": str(t.work / "state"),
            "mem_backend": {"backend_type": "File", "backend_path": str(t.work / "memory")}, "resume_vm": True,
            "vsock_override": {"uds_path": str(vm.uds)}, **more}


def load(t, case, **more):
    """A new monitor in which it goes on."""
    vm = new(t, case)
    vm.request("PUT", "/snapshot/load", body(t, vm, **more), 204)
    return vm


def parts(state):
    """[(name, index, offset, length)] of a state file."""
    count = struct.unpack_from("<I", state, 40)[0]
    found = []
    for i in range(count):
        part, index, offset, length = struct.unpack_from("<IIQQ", state, HEADER + ENTRY * i)
        found.append((PARTS[part], index, offset, length))
    return found


# -- going on


def rounds(t, words="", cpus=1, **options):
    """Saved in the middle; goes on in its own monitor, and in two new ones."""
    vm = boot(t, "snapshot_rounds", f"cpus={cpus} {words}", cpus=cpus, **options)
    vm.read_until(b"round 4")
    save(vm)
    assert not list(t.work.glob("*.new"))
    state = (t.work / "state").read_bytes()
    assert [name for name, *_ in parts(state)].count("vcpu") == cpus
    vm.request("PATCH", "/vm", {"state": "Resumed"}, 204)
    clones = [load(t, "snapshot_rounds") for _ in range(2)]
    for one in (vm, *clones):
        seen = one.out.count(b"round")
        until(lambda one=one, seen=seen: one.read_until(b"round") or more_rounds(one, seen + 3), 60, "more rounds")
        one.answer(b"q")
        one.finish(seconds=120)
    assert (t.work / "state").read_bytes() == state


def more_rounds(vm, count):
    """Reads on."""
    end = time.monotonic() + 30 * vm.patience
    while vm.out.count(b"round") < count:
        if time.monotonic() > end:
            raise Failure(f"it does not go on; {vm.report()}")
        piece = os.read(vm.child.stdout.fileno(), 65536)
        if not piece:
            raise Failure(f"the output ended; {vm.report()}")
        vm.out += piece
    return True


def test_one_processor(t):
    rounds(t)


def test_three_processors(t):
    rounds(t, "event_idx=1", cpus=3)


def test_a_snapshot_of_a_clone(t):
    """Saved, loaded but not resumed, saved again, loaded."""
    vm = boot(t, "snapshot_rounds")
    vm.read_until(b"round 4")
    save(vm)
    vm.kill()
    second = load(t, "snapshot_rounds", resume_vm=False)
    answer = second.request("GET", "/", status=200)
    assert answer["state"] == "Paused", answer
    save(second)
    second.kill()
    third = load(t, "snapshot_rounds")
    more_rounds(third, 3)
    third.answer(b"q")
    third.finish(seconds=120)


def test_vsock(t):
    """A connection of before is gone, and the guest knows; its listener goes on. The parent keeps its own."""
    vm = boot(t, "snapshot_vsock")
    vm.read_until(b"SYNC listening")
    first = vm.connect(5000)
    first.sendall(b"abc")
    vm.read_until(b"SYNC connected")
    save(vm)
    vm.request("PATCH", "/vm", {"state": "Resumed"}, 204)
    first.settimeout(0.5)
    try:
        assert first.recv(1) != b"", "the parent's connection was ended"
    except TimeoutError:
        pass
    clone = load(t, "snapshot_vsock")
    clone.read_until(b"reset")
    with clone.connect(5000) as s:
        s.sendall(b"xyz")
        assert s.recv(10) == b"xyz"
        s.shutdown(socket.SHUT_RDWR)
    clone.finish()
    vm.kill()


def test_small_devices(t):
    vm = boot(t, "snapshot_small", balloon={"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 0})
    vm.read_until(b"SYNC save")
    save(vm)
    vm.kill()
    clone = load(t, "snapshot_small")
    clone.answer()
    clone.finish()


def test_diff(t):
    """What changed since the full one, merged into it: the guest finds all its pages."""
    vm = boot(t, "snapshot_pages", config={"machine-config": {"vcpu_count": 1, "mem_size_mib": 32,
                                                              "track_dirty_pages": True}})
    vm.read_until(b"SYNC full")
    save(vm)
    base = t.work / "base"
    shutil.copy(t.work / "memory", base)
    vm.request("PATCH", "/vm", {"state": "Resumed"}, 204)
    vm.answer()
    vm.read_until(b"SYNC diff")
    save(vm, "Diff")
    vm.kill()
    size, full = ((t.work / name).stat().st_blocks for name in ("memory", "base"))
    assert size < full / 2, (size, full)
    refused = new(t, "snapshot_pages")
    answer = refused.request("PUT", "/snapshot/load", body(t, refused), 400)
    assert "merge it" in answer["fault_message"], answer
    for wrong in ((base, base), (base,), (base, "/nowhere")):
        assert subprocess.run([vm.program, "--merge-memory", *wrong], check=False,
                              stderr=subprocess.DEVNULL).returncode != 0, wrong
    subprocess.run([vm.program, "--merge-memory", base, t.work / "memory"], check=True)
    refused.request("PUT", "/snapshot/load",
                    body(t, refused, mem_backend={"backend_type": "File", "backend_path": str(base)}), 204)
    refused.answer()
    refused.finish()


def test_diff_needs_tracking(t):
    vm = boot(t, "halt_for_ever")
    vm.read_until(b"halting")
    answer = save(vm, "Diff", status=400)
    assert "track_dirty_pages" in answer["fault_message"], answer
    assert not list(t.work.glob("*.new")) and not (t.work / "state").exists()
    save(vm)  # and this one works
    vm.kill()


# -- states of the API


def test_states(t):
    """What is refused when."""
    vm = boot(t, "halt_for_ever")
    vm.read_until(b"halting")
    answer = vm.request("PUT", "/snapshot/create", files(t), 400)
    assert "pause it first" in answer["fault_message"], answer
    save(vm)
    answer = vm.request("PUT", "/snapshot/load", body(t, vm), 400)
    assert "not supported after starting" in answer["fault_message"], answer
    told = vm.request("GET", "/vm/config", status=200)
    vm.kill()
    other = new(t, "halt_for_ever")
    answer = other.request("PUT", "/snapshot/create", files(t), 400)
    assert "not supported before starting" in answer["fault_message"], answer
    other.request("PUT", "/serial", {"serial_out_path": str(other.dir / "serial")}, 204)
    other.request("PUT", "/snapshot/load", body(t, other), 204)
    config = other.request("GET", "/vm/config", status=200)
    assert config["serial"] == {"serial_out_path": str(other.dir / "serial")}, config
    assert config["vsock"]["uds_path"] == str(other.uds), config
    for section in ("drives", "machine-config", "boot-source", "balloon", "entropy"):
        assert config[section] == told[section], (section, config[section], told[section])
    other.kill()
    third = new(t, "halt_for_ever")
    third.request("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 32}, 204)
    answer = third.request("PUT", "/snapshot/load", body(t, third), 400)
    assert answer["fault_message"] == ("Loading a microVM snapshot not allowed after configuring boot-specific "
                                       "resources."), answer
    third.kill()


def test_another_drive_before_it_resumes(t):
    """PATCH /drives of a VM that was loaded and is paused."""
    vm = boot(t, "snapshot_rounds")
    vm.read_until(b"round 4")
    save(vm)
    vm.kill()
    other = shutil.copy(vm.root, t.work / "other.img")
    clone = load(t, "snapshot_rounds", resume_vm=False)
    clone.request("PATCH", "/drives/root", {"drive_id": "root", "path_on_host": str(other)}, 204)
    vm.root.unlink()
    clone.request("PATCH", "/vm", {"state": "Resumed"}, 204)
    more_rounds(clone, 3)
    clone.answer(b"q")
    clone.finish(seconds=120)


# -- files that are not what they should be


class Saved:
    """A good snapshot, and a monitor that is to refuse what was made of it."""

    def __init__(self, t):
        self.t = t
        self.parent = boot(t, "halt_for_ever")
        self.parent.read_until(b"halting")
        save(self.parent)
        self.parent.kill()
        self.state, self.memory = ((t.work / name).read_bytes() for name in ("state", "memory"))
        self.vm = new(t, "halt_for_ever")
        until(lambda: self._descriptors()[0] == 2, 5, "the VM in KVM that the first load takes")
        self.vm.request("GET", "/", status=200)  # it serves: what it opens by itself is open
        self.fds = self._settled()  # without a connection to its API

    def _settled(self):
        counts = [-1]

        def same():
            counts.append(self._descriptors()[1])
            return counts[-1] == counts[-2]

        until(same, 5, "descriptors that come and go no more", step=0.05)
        return counts[-1]

    def _descriptors(self):
        """How many the monitor has: of KVM, which are /dev/kvm and a VM without anything in it; and of all else."""
        targets = []
        for link in Path(f"/proc/{self.vm.child.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed in between
                targets.append(os.readlink(link))
        kvm = sum(target == "/dev/kvm" or target.startswith("anon_inode:kvm") for target in targets)
        return kvm, len(targets) - kvm

    def refused(self, *words, state=None, **more):
        """With a message that has the words; nothing of it stays."""
        (self.t.work / "state").write_bytes(self.state if state is None else state)
        answer = self.vm.request("PUT", "/snapshot/load", body(self.t, self.vm, **more), 400)["fault_message"]
        for word in words:
            assert word in answer, (word, answer)
        until(lambda: self._descriptors()[1] == self.fds, 5, f"as many descriptors as before: {answer}", step=0.01)
        assert self._descriptors()[0] in (0, 2), answer  # what was made of it is gone; what the monitor began may not have been used
        assert not self.vm.uds.exists(), answer
        assert self.vm.request("GET", "/", status=200)["state"] == "Not started", answer

    def accepted(self):
        """The same monitor takes the good one afterwards."""
        (self.t.work / "state").write_bytes(self.state)
        self.vm.request("PUT", "/snapshot/load", body(self.t, self.vm), 204)
        self.vm.kill()


def test_truncated(t):
    """At every part's boundary, and one byte before and behind it."""
    saved = Saved(t)
    path = str(t.work / "state")
    ends = [0, 8, HEADER] + [at for _, _, offset, length in parts(saved.state) for at in (offset, offset + length)]
    for end in sorted({e + d for e in ends for d in (-1, 0, 1) if 0 <= e + d < len(saved.state)}):
        saved.refused(path, state=saved.state[:end])
    saved.refused(path, state=saved.state + b"\0")
    saved.accepted()


def test_flipped(t):
    """One bit in each part, in the header, and in the table."""
    saved = Saved(t)
    for name, index, offset, length in parts(saved.state):
        for at in (offset, offset + length // 2, offset + length - 1):
            bad = bytearray(saved.state)
            bad[at] ^= 0x10
            saved.refused(f"part {name} {index}", "make the snapshot again", state=bytes(bad))
    for at in range(0, HEADER + ENTRY * len(parts(saved.state)), 4):
        bad = bytearray(saved.state)
        bad[at] ^= 1
        saved.refused(str(t.work / "state"), state=bytes(bad))
    saved.accepted()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def changed(state, wanted, change):
    """The file with another content of one part, and sums that fit: as somebody would make it on purpose."""
    state = bytearray(state)
    for i, (name, index, offset, length) in enumerate(parts(state)):
        if (name, index) != wanted:
            continue
        part = bytearray(state[offset:offset + length])
        change(part)
        state[offset:offset + length] = part
        struct.pack_into("<I", state, HEADER + ENTRY * i + 24, crc32c(part))
    return resummed(state)


def resummed(state):
    state = bytearray(state)
    struct.pack_into("<I", state, 44, 0)
    table = HEADER + ENTRY * struct.unpack_from("<I", state, 40)[0]
    struct.pack_into("<I", state, 44, crc32c(state[:table]))
    return bytes(state)


def test_made_on_purpose(t):
    """Other versions, other processors, devices in states that no driver could have brought them into."""
    saved = Saved(t)

    def put(at, kind, value):
        return lambda part: struct.pack_into(kind, part, at, value)

    for at, words in ((8, "older monitor"), (12, "newer monitor")):
        bad = bytearray(saved.state)
        struct.pack_into("<I", bad, at, 0 if at == 8 else 99)
        saved.refused(words, state=resummed(bad))
    saved.refused("another processor", "part" if False else "make the snapshot again here",
                  state=changed(saved.state, ("host", 0), put(0, "4s", b"Fake")))
    saved.refused("another processor", state=changed(saved.state, ("host", 0), put(12, "<I", 0x00600f00)))
    saved.refused("vcpu", "features",
                  state=changed(saved.state, ("vcpu", 0), lambda part: feature(part, 0x7, "<I", 0xffffffff)))
    saved.refused("MSRs", state=changed(saved.state, ("vcpu", 0), lambda part: after_cpuid(part, 0xffffffff)))
    for msr, words in ((0x480, "which no snapshot has"), (0x600, "which no snapshot has"), (0x7ff, "KVM has no")):
        saved.refused("part vcpu 0", f"MSR {msr:#x}", words,
                      state=changed(saved.state, ("vcpu", 0), lambda part: first_msr(part, msr)))
    saved.refused("no machine", state=changed(saved.state, ("config", 0), put(0, "<I", 0)))
    saved.refused("no machine", state=changed(saved.state, ("config", 0), put(0, "<I", 33)))
    saved.refused("memory", state=changed(saved.state, ("config", 0), put(4, "<I", 64)))
    for at, value, words in ((0, 9, "kind"), (4, 0xf00, "impossible"), (4, 4, "impossible"), (8, 4, "impossible"),
                             (36, 7, "queues"), (44, 3, "impossible"), (40, 2, "impossible")):
        saved.refused("virtio 0", words, state=changed(saved.state, ("virtio", 0), put(at, "<I", value)))

    def live(part):
        struct.pack_into("<I", part, 4, 15)
        struct.pack_into("<Q", part, 28, 1 << 32)
        struct.pack_into("<IIIIQQQ", part, 40, 1, 128, 0, 0, 1 << 40, 1 << 40, 1 << 40)

    saved.refused("ring is not in guest memory", state=changed(saved.state, ("virtio", 0), live))
    saved.refused("serial", state=changed(saved.state, ("serial", 0), put(8, "B", 200)))
    saved.refused("keyboard", state=changed(saved.state, ("keyboard", 0), put(2, "B", 200)))
    saved.accepted()


FIXED = 8 + 312 + 144 + 392 + 128 + 1024 + 64


def feature(part, leaf, kind, value):
    """ebx of a leaf of CPUID."""
    count = struct.unpack_from("<I", part, FIXED + 4)[0]
    for i in range(count):
        at = FIXED + 8 + 40 * i
        if struct.unpack_from("<II", part, at) == (leaf, 0):
            struct.pack_into(kind, part, at + 16, value)
            return
    raise Failure("no such leaf")


def after_cpuid(part, value, skip=0):
    count = struct.unpack_from("<I", part, FIXED + 4)[0]
    struct.pack_into("<I", part, FIXED + 8 + 40 * count + skip, value)


def first_msr(part, index):
    """With a value."""
    after_cpuid(part, index, 4)
    after_cpuid(part, 1, 12)


def test_wrong_files(t):
    """Memory of another snapshot, none, cut; a drive that is gone or has another size; no state file at all."""
    saved = Saved(t)
    memory, other = t.work / "memory", t.work / "other"
    other.write_bytes(saved.memory[:-4096] + b"\0" * 4096)
    backend = {"backend_type": "File", "backend_path": str(other)}
    saved.refused(str(other), "trailer", mem_backend=backend)
    other.write_bytes(saved.memory[:-1])
    saved.refused(str(other), mem_backend=backend)
    second = boot(t, "halt_for_ever")
    second.read_until(b"halting")
    save(second, snapshot_path=str(t.work / "s2"), mem_file_path=str(other))
    second.kill()
    saved.refused(str(other), "two files of one snapshot", mem_backend=backend)
    saved.refused("/nowhere", mem_backend={"backend_type": "File", "backend_path": "/nowhere"})
    saved.refused("/nowhere", mem_backend={"backend_type": "Uffd", "backend_path": "/nowhere"})
    saved.refused("/nowhere", snapshot_path="/nowhere")
    for path in ("/dev/null", str(t.work), str(memory)):
        saved.refused(path, "not a state file", snapshot_path=path)
    root = saved.parent.second
    numbered(root, SECOND_SECTORS + 1)
    saved.refused("drive second", f"{SECOND_SECTORS + 1} sectors", "put that file back")
    root.unlink()
    saved.refused("drive second", str(root))
    numbered(root, SECOND_SECTORS)
    saved.accepted()


def test_disk_full(t):
    """The disk fills up in the middle: an error, nothing left, the old snapshot intact, and the VM goes on."""
    if os.geteuid() != 0:
        t.skip("only root can mount a small disk")
    disk = t.work / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", disk], check=False).returncode != 0:
        t.skip("no tmpfs can be mounted here")
    t.cleanups.append(lambda: subprocess.run(["umount", "-l", disk], check=False))
    vm = boot(t, "snapshot_rounds")
    vm.read_until(b"round 4")
    save(vm)
    old = [(t.work / name).read_bytes() for name in ("state", "memory")]
    for state, memory in ((disk / "state", disk / "memory"), (t.work / "state", disk / "memory")):
        answer = save(vm, status=400, snapshot_path=str(state), mem_file_path=str(memory))
        assert "No space left" in answer["fault_message"] and "make room" in answer["fault_message"], answer
        assert not list(disk.iterdir()) and not list(t.work.glob("*.new")), list(disk.iterdir())
    assert [(t.work / name).read_bytes() for name in ("state", "memory")] == old
    vm.request("PATCH", "/vm", {"state": "Resumed"}, 204)
    more_rounds(vm, vm.out.count(b"round") + 3)
    save(vm)
    vm.kill()
    clone = load(t, "snapshot_rounds")
    more_rounds(clone, 3)
    clone.answer(b"q")
    clone.finish(seconds=120)


def test_places(t):
    """Where a snapshot can't be written."""
    vm = boot(t, "halt_for_ever")
    vm.read_until(b"halting")
    for paths, words in (({"snapshot_path": "/nowhere/s"}, "/nowhere/s"), ({"mem_file_path": str(t.work)}, "regular"),
                         ({"mem_file_path": str(t.work / "state")}, "two files"),
                         ({"mem_file_path": "/dev/null"}, "regular"),
                         ({"mem_file_path": str(t.work / ("x" * 253))}, "File name too long")):
        answer = save(vm, status=400, **paths)["fault_message"]
        assert words in answer, answer
        assert not list(t.work.glob("*.new")) and not (t.work / "state").exists(), answer
    (t.work / "state.new").write_bytes(b"left by one that was killed")
    save(vm)
    assert not list(t.work.glob("*.new"))
    vm.kill()
