# SPDX-License-Identifier: Apache-2.0
"""Guests that break every rule. The monitor says so in few lines, marks the device, and goes on."""

import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import until  # noqa: E402
from monitor import Vm, host_mib  # noqa: E402


def simple(case, words="", seconds=120, **options):
    def test(t):
        Vm(t, case, words, **options).run(seconds=seconds)

    test.__name__ = "test_" + case.removeprefix("hostile_")
    return test


STATISTICS = {"amount_mib": 3, "deflate_on_oom": True, "stats_polling_interval_s": 1}

for _test in (
        simple("hostile_chains"),
        simple("hostile_indirect", balloon=STATISTICS),
        simple("hostile_addresses"),
        simple("hostile_block_buffers"),
        simple("hostile_rings"),
        simple("hostile_balloon", balloon=STATISTICS),
        simple("hostile_rng"),
        simple("hostile_reconfigured"),
        simple("hostile_features"),
        simple("hostile_notify"),
        simple("hostile_reset"),
        simple("hostile_flip", cpus=2),
        simple("hostile_registers"),
        simple("hostile_config"),
        simple("hostile_ports"),
        simple("hostile_keyboard"),
        simple("hostile_strings"),
        simple("hostile_holes"),
        simple("hostile_apic"),
        simple("hostile_msrs"),
        simple("hostile_cpuid"),
        simple("hostile_processors", "cpus=4", cpus=4),
):
    globals()[_test.__name__] = _test


def test_addresses_beyond_the_gap(t):
    """The same edges where RAM goes on above 4 GiB."""
    if host_mib() <= 4096:
        t.skip(f"this host has {host_mib()} MiB, the guest would have 4096")
    Vm(t, "hostile_addresses", memory=4096).run(seconds=120)


def test_all_at_once(t):
    """32 processors on the registers of all devices."""
    Vm(t, "hostile_processors", "cpus=32 times=400", cpus=32).run(seconds=180)


def test_api_storm(t):
    """Pause, resume, other drives, other balloons, while four processors are on the registers of all devices."""
    vm = Vm(t, "hostile_processors", "cpus=4 times=6000", cpus=4, api=True, balloon=STATISTICS).start()
    ended, failures = threading.Event(), []

    def storm():
        requests = [("PATCH", "/vm", {"state": "Paused"}), ("GET", "/balloon/statistics", None),
                    ("PATCH", "/drives/second", {"drive_id": "second", "path_on_host": str(vm.second)}),
                    ("PATCH", "/vm", {"state": "Resumed"}), ("PATCH", "/balloon", {"amount_mib": 2}),
                    ("GET", "/", None), ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 2})]
        n = 0
        while not ended.is_set():
            try:
                vm.request(*requests[n % len(requests)])
            except OSError as e:
                if vm.child.poll() is None and not ended.wait(2) and vm.child.poll() is None:
                    failures.append(repr(e))
                return
            n += 1

    until(vm.api_sock.exists, 10 * vm.patience, "the API socket")
    thread = threading.Thread(target=storm, daemon=True)
    thread.start()
    try:
        vm.finish(seconds=180)
    finally:
        ended.set()
        thread.join(30)
    assert not failures, f"{failures}; {vm.report()}"


def test_terminated_at_random(t):
    """SIGTERM in the middle of whatever the guest is at."""
    rng = random.Random(int(os.environ.get("IRONCLAW_TEST_SEED", "7")))
    for case in ("hostile_flip", "hostile_reset", "hostile_notify", "hostile_processors", "hostile_serial_flood",
                 "hostile_registers", "hostile_vsock_connects"):
        vm = Vm(t, case, "kib=100000 cpus=2 times=100000", cpus=2).start()
        if case == "hostile_vsock_connects":
            vm.read_until(b"SYNC before")
            vm.answer()
        time.sleep(rng.uniform(0.1, 1.5))
        if vm.child.poll() is None:
            vm.child.terminate()
        vm.child.wait(20 * vm.patience)
        vm.finish(rc=143, passes=False, syncs={what: lambda: None for what in ("before", "during", "after")})


# -- serial port

def test_serial_bytes(t):
    """The guest's console is its own; nothing of it gets into our log."""
    vm = Vm(t, "hostile_serial_bytes").run(passes=False)
    log = vm.log()
    assert all(" " <= c <= "~" or c == "\n" for c in log), vm.report()


def test_serial_flood_to_file(t):
    """The file is capped, and its end is what came last. Each byte is an exit from the guest, which without hardware
    behind KVM takes 20 us; so most of the flood was there before, unless IRONCLAW_TEST_FLOOD_MIB says how much."""
    path, kib = t.work / "serial.log", int(os.environ.get("IRONCLAW_TEST_FLOOD_MIB", "0")) * 1024
    if not kib:
        path.write_bytes(b"of another time\n" * ((4 << 20) // 16 - 4096))
        kib = 256
    Vm(t, "hostile_serial_flood", f"kib={kib}", serial=path).run(seconds=60 + kib // 32, passes=False)
    size = path.stat().st_size
    assert 1 << 20 < size <= 4 << 20, f"the log of {kib} KiB has {size} bytes"
    assert path.read_bytes().endswith(b"PASS hostile_serial_flood\n"), path.read_bytes()[-300:]


def test_serial_flood_unread(t):
    """Nobody reads the pipe: the guest is not stopped, the monitor does not grow."""
    vm = Vm(t, "hostile_serial_flood", "kib=512").start()
    time.sleep(1)
    before = vm.resident_kib()
    until(lambda: vm.child.poll() is not None, 60 * vm.patience, "the end of a guest that nobody listens to")
    assert before < 200 << 10
    vm.finish(passes=False)


def test_serial_closed(t):
    """Who read the pipe has gone."""
    vm = Vm(t, "hostile_serial_flood", "kib=128").start()
    vm.child.stdout.close()
    vm.child.stdout = None
    vm.finish(passes=False)


def test_serial_input_flood(t):
    """More typed than anybody reads."""
    vm = Vm(t, "ticks").start()
    vm.read_until(b"tick 1\n")
    os.set_blocking(vm.child.stdin.fileno(), False)
    end, sent = time.monotonic() + 3, 0
    while time.monotonic() < end and sent < 64 << 20:
        try:
            sent += os.write(vm.child.stdin.fileno(), b"y" * 65536)
        except BlockingIOError:
            time.sleep(0.05)
    count = vm.out.count(b"tick")
    vm.read_until(b"tick %d\n" % (count + 3))
    assert vm.resident_kib() < 100 << 10, vm.report()
    vm.child.terminate()
    vm.finish(rc=143, passes=False)


# -- vsock

class Host:
    """Programs behind <uds>_6000 (reads all) and <uds>_6001 (reads nothing), and a count of descriptors."""

    def __init__(self, vm):
        self.vm, self.counts, self.kept, self.lock = vm, {}, [], threading.Lock()
        self.listeners = [vm.listen(6000), vm.listen(6001)]
        for listener, reads in zip(self.listeners, (True, False)):
            threading.Thread(target=self.accept, args=(listener, reads), daemon=True).start()

    def accept(self, listener, reads):
        listener.settimeout(None)
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            if reads:
                threading.Thread(target=self.read, args=(s,), daemon=True).start()
            else:
                with self.lock:
                    self.kept.append(s)

    @staticmethod
    def read(s):
        try:
            while s.recv(65536):
                pass
        except OSError:
            pass
        s.close()

    def note(self, what):
        def function():
            if what == "after":  # what is closing may take a moment
                end = time.monotonic() + 5 * self.vm.patience
                while self.vm.descriptors() > self.counts["before"] and time.monotonic() < end:
                    time.sleep(0.05)
            self.counts[what] = self.vm.descriptors()
        return function

    def close(self):
        for s in [*self.listeners, *self.kept]:
            s.close()


def vsock(case, words="", seconds=120):
    def test(t):
        vm = Vm(t, case, words).start()
        host = Host(vm)
        try:
            vm.finish(syncs={what: host.note(what) for what in ("before", "during", "after")}, seconds=seconds)
        finally:
            host.close()
        assert host.counts["after"] == host.counts["before"], f"descriptors: {host.counts}; {vm.report()}"
        # 1,023 connections at most, whatever is asked for
        assert host.counts.get("during", 0) <= host.counts["before"] + 1023, f"{host.counts}; {vm.report()}"

    test.__name__ = "test_" + case.removeprefix("hostile_")
    return test


for _test in (
        vsock("hostile_vsock_forged"),
        vsock("hostile_vsock_lengths"),
        vsock("hostile_vsock_credit"),
        vsock("hostile_vsock_connects"),
        vsock("hostile_vsock_no_buffers"),
        vsock("hostile_vsock_orders"),
):
    globals()[_test.__name__] = _test


def test_vsock_host_flood(t):
    """Programs on the host that connect and say nothing, or nonsense, while the guest does nothing about it."""
    vm = Vm(t, "ticks").start()
    vm.read_until(b"tick 1\n")
    before, sockets = vm.descriptors(), []
    for i in range(1500):
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        try:
            s.connect(str(vm.uds))
            s.send((b"", b"CONNECT 5000\n", b"CONNECT x\n", b"\0" * 100, b"CONNECT 99999999999\n")[i % 5])
        except OSError:
            pass
        sockets.append(s)
    time.sleep(1)
    assert vm.descriptors() <= before + 1023, vm.report()
    for s in sockets:
        s.close()
    until(lambda: vm.descriptors() == before, 20 * vm.patience, "the end of all connections")
    vm.child.terminate()
    vm.finish(rc=143, passes=False)


# -- descriptors and drives

def test_resets_leak_nothing(t):
    """A driver that begins anew a hundred times costs no descriptor and no memory."""
    vm = Vm(t, "block_replaced", api=True).start()
    seen = []

    def replace():
        for _ in range(50):
            vm.request("PATCH", "/drives/second", {"drive_id": "second", "path_on_host": str(vm.second)}, 204)
            seen.append(vm.descriptors())  # perhaps with the connection of the request itself
        other = vm.dir / "other.img"
        subprocess.run(["truncate", "-s", str(vm.second.stat().st_size * 2), other], check=True)
        with open(other, "r+b") as f:
            f.seek(-512, os.SEEK_END)
            f.write((vm.second.stat().st_size * 2 // 512 - 1).to_bytes(8, "little"))
        vm.request("PATCH", "/drives/second", {"drive_id": "second", "path_on_host": str(other)}, 204)

    vm.finish(syncs={"replace": replace})
    assert max(seen) - min(seen) <= 1, f"descriptors: {seen}; {vm.report()}"
