# SPDX-License-Identifier: Apache-2.0
"""Each device of the monitor, used as it should be, by a bare-metal guest."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import Failure, until  # noqa: E402
from monitor import ROOT_SECTORS, SECOND_SECTORS, SECTOR, Vm, host_mib, numbered  # noqa: E402

DISKS = f"root={ROOT_SECTORS} second={SECOND_SECTORS}"


def simple(case, words="", **options):
    """A case that needs nobody outside; by both boot protocols where that is asked for."""
    both = options.pop("both", False)
    seconds = options.pop("seconds", 60)

    def test(t):
        for pvh in (False, True) if both else (True,):
            Vm(t, case, words, pvh=pvh, **options).run(seconds=seconds)

    test.__name__ = "test_" + case
    return test


for _test in (
        simple("boot", both=True),
        simple("serial_registers"),
        simple("keyboard_controller"),
        simple("cpuid_truth", "cpus=3", cpus=3),
        simple("processors_interrupt", cpus=2),
        simple("block_features", DISKS),
        simple("block_read"),
        simple("block_read_only"),
        simple("block_pieces"),
        simple("block_unknown"),
        simple("block_depth"),
        simple("block_interrupt"),
        simple("block_event_index"),
        simple("block_life"),
        simple("block_discard"),
        simple("rng"),
        simple("rng_rate"),
):
    globals()[_test.__name__] = _test


def test_boot_by_api(t):
    """The same VM, configured and started by requests."""
    vm = Vm(t, "serial_echo", by_api=True).start()
    assert vm.request("GET", "/", status=200)["state"] == "Running"
    vm.finish(syncs={"echo": lambda: vm.answer(b"a word.") or False})
    assert b"a word." in vm.out, vm.report()


def test_memory_sizes(t):
    """From 2 MiB to beyond the gap at 3 GiB."""
    sizes = [mib for mib in (2, 3, 16, 127, 1024, 3071, 3072, 3073, 4096, 6144) if mib < host_mib()]
    for mib in sizes:
        for pvh in (False, True):
            Vm(t, "memory", f"mem={mib}", memory=mib, pvh=pvh).run()


def test_memory_too_small(t):
    """A kernel that does not fit is refused in one line."""
    vm = Vm(t, "boot", memory=1).run(rc=152, passes=False)
    errors = [line for line in vm.log().splitlines() if "error" in line]
    assert len(errors) == 1 and "guest" in errors[0], vm.report()


def test_processors(t):
    """Started by INIT and SIPI, each once, with its own number."""
    for count in (1, 2, 4, 32):
        Vm(t, "processors", f"cpus={count}", cpus=count).run()


def test_dirty_log(t):
    """Memory whose writes KVM logs is memory like any other."""
    machine = {"vcpu_count": 1, "mem_size_mib": 64, "track_dirty_pages": True}
    Vm(t, "memory", "mem=64", config={"machine-config": machine}).run()


# -- serial port

def test_serial_out(t):
    vm = Vm(t, "serial_out").run()
    wanted = "".join(f"line {i} of output\n" for i in range(1000))
    wanted = f"begin\nstring output of a line that crosses no limit\n{wanted}end\nPASS serial_out\n"
    assert vm.text().replace("\r", "").endswith(wanted), vm.report()


def test_serial_to_file(t):
    """serial_out_path gets what stdout would."""
    path = t.work / "serial.log"
    vm = Vm(t, "serial_out", serial=path)
    vm.run(passes=False)
    text = path.read_text()
    assert text.count(" of output\n") == 1000 and "PASS serial_out" in text, f"{text[-500:]!r}; {vm.report()}"
    assert not vm.out, vm.report()


def test_serial_echo(t):
    """Input arrives, more of it at once than the FIFO holds."""
    text = bytes(b"0123456789abcdefghijklmnopqrstuvwxyz"[i % 36] for i in range(3000))
    vm = Vm(t, "serial_echo").start()
    vm.finish(syncs={"echo": lambda: vm.answer(text + b".") or False})
    assert text in vm.out, vm.report()


def test_serial_interrupt(t):
    vm = Vm(t, "serial_interrupt").start()
    vm.finish(syncs={"type": lambda: vm.answer(b"!") or False})


# -- the end

def ends(t, case, rc, words="", **options):
    """A VM whose guest ends it in its own way."""
    return Vm(t, case, words, **options).run(rc=rc)


def test_triple_fault(t):
    vm = ends(t, "triple_fault", 0)
    assert "triple fault" in vm.log(), vm.report()


def test_jump_to_nothing(t):
    """What KVM can't emulate is a failure with a cause in the log."""
    vm = ends(t, "jump_to_nothing", 1)
    assert "vCPU 0" in vm.log() and "rip" in vm.log(), vm.report()


def test_stack_in_nothing(t):
    """An interrupt whose frame goes nowhere: whatever KVM makes of it, the monitor ends with a documented status."""
    vm = Vm(t, "stack_in_nothing").start()
    try:
        vm.finish(rc=1, seconds=10)
    except Failure:
        if vm.child.poll() is None:  # a VM that runs on in vain is the guest's own affair
            vm.child.terminate()
            vm.finish(rc=128 + signal.SIGTERM)
        else:
            vm.check_end(0, True)


def test_reset_by_another(t):
    for by in (1, 3):
        Vm(t, "reset_by_another", f"cpus=4 by={by}", cpus=4).run()


def test_signals(t):
    """Whatever the guest does, SIGTERM and SIGINT end the monitor at once with 128 + N."""
    for case, words, cpus, said in (("halt_for_ever", "", 1, b"halting"), ("spin_for_ever", "", 1, b"spinning"),
                                    ("processors_for_ever", "cpus=4", 4, b"spinning"),
                                    ("block_for_ever", "", 1, b"flooding")):
        for number in (signal.SIGTERM, signal.SIGINT):
            vm = Vm(t, case, words, cpus=cpus).start()
            vm.read_until(said)
            sent = time.monotonic()
            vm.child.send_signal(number)
            vm.finish(rc=128 + number, passes=False)
            took = time.monotonic() - sent
            assert took < 3 * vm.patience, f"it took {took:.1f} s; {vm.report()}"


def test_lifetime(t):
    """--max-lifetime-ms ends it: a guest that runs, one that is paused, and a monitor that never got one."""
    said = "is over (--max-lifetime-ms)"
    vm = Vm(t, "spin_for_ever", options=("--max-lifetime-ms", "500")).start()
    vm.finish(rc=124, passes=False)
    assert f"500 ms {said}" in vm.log(), vm.report()
    vm = Vm(t, "ticks", api=True, options=("--max-lifetime-ms", str(int(4000 * vm.patience)))).start()
    vm.read_until(b"tick 1\n")
    vm.request("PATCH", "/vm", {"state": "Paused"}, 204)
    vm.finish(rc=124, passes=False)
    assert said in vm.log(), vm.report()
    idle = subprocess.run([vm.program, "--api-sock", vm.api_sock, "--max-lifetime-ms", "100"], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, timeout=60 * vm.patience, check=False)
    assert idle.returncode == 124 and said in idle.stderr.decode() and not vm.api_sock.exists(), idle


def test_killed(t):
    """kill -9 leaves no process; the next monitor starts in the same place."""
    vm = Vm(t, "spin_for_ever").start()
    vm.read_until(b"spinning")
    vm.kill()
    vm.uds.unlink()
    vm.start()
    vm.read_until(b"spinning")
    vm.child.terminate()
    vm.finish(rc=128 + signal.SIGTERM, passes=False)


def test_log_unread(t):
    """Whoever was to read the log does not: the monitor runs, and ends when it is told to."""
    vm = Vm(t, "spin_for_ever")
    file = vm.dir / "config.json"
    file.write_text(json.dumps(vm.config))
    fifo = vm.dir / "fifo"
    os.mkfifo(fifo)
    reader, full = os.pipe()
    os.set_blocking(full, False)
    try:
        while True:
            os.write(full, bytes(4096))
    except BlockingIOError:
        os.set_blocking(full, True)
    for options in ((), ("--log-path", str(fifo))):
        child = subprocess.Popen([str(vm.program), "--no-api", "--config-file", str(file), *options],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=full)
        t.cleanups.append(child.kill)
        assert any(b"spinning" in line for line in child.stdout)
        child.terminate()
        assert child.wait(20 * vm.patience) == 128 + signal.SIGTERM
        child.stdout.close()
    os.close(reader)
    os.close(full)


def test_log_renewed(t):
    """Each PUT /logger takes the place of the one before."""
    vm = Vm(t, "boot", api=True)
    child = subprocess.Popen([str(vm.program), "--api-sock", str(vm.api_sock)], stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    t.cleanups.append(child.kill)
    until(vm.api_sock.exists, 10 * vm.patience, "the API socket")
    for i in range(40):
        vm.request("PUT", "/logger", {"log_path": str(vm.dir / f"log{i % 2}"), "level": "Info"}, 204)
    fds = os.listdir(f"/proc/{child.pid}/fd")
    assert len(fds) < 20, fds
    child.terminate()
    assert child.wait(20 * vm.patience) == 128 + signal.SIGTERM
    assert not (vm.dir / "log0").read_text() and "signal" in (vm.dir / "log1").read_text()


def test_terminal(t):
    """Ctrl-C is ours until there is a guest to have it; the terminal is as it was afterwards."""
    vm = Vm(t, "spin_for_ever", api=True)
    ours, its = pty.openpty()
    before = termios.tcgetattr(its)
    child = subprocess.Popen([str(vm.program), "--api-sock", str(vm.api_sock)], stdin=its, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    t.cleanups.append(child.kill)
    until(vm.api_sock.exists, 10 * vm.patience, "the API socket")
    vm.request("GET", "/", None, 200)
    assert termios.tcgetattr(its) == before
    vm.configure()
    assert not termios.tcgetattr(its)[3] & (termios.ISIG | termios.ICANON)
    child.terminate()
    assert child.wait(20 * vm.patience) == 128 + signal.SIGTERM
    assert termios.tcgetattr(its) == before
    os.close(ours)
    os.close(its)


def test_ctrl_alt_del(t):
    vm = Vm(t, "ctrl_alt_del", api=True).start()

    def press():
        vm.request("PUT", "/actions", {"action_type": "SendCtrlAltDel"}, 204)
        return False

    vm.finish(syncs={"ready": press})


def test_boot_timer(t):
    vm = Vm(t, "boot_timer", options=["--boot-timer"]).run()
    assert vm.log().count("Guest-boot-time") == 1, vm.report()
    vm = Vm(t, "boot_timer").run()
    assert "Guest-boot-time" not in vm.log(), vm.report()


# -- pause

def test_pause(t):
    """While it is paused the guest does nothing; afterwards it goes on where it was."""
    for cpus in (1, 4):
        vm = Vm(t, "ticks", api=True, cpus=cpus).start()
        vm.read_until(b"tick 3\n")
        for _ in range(5):
            vm.request("PATCH", "/vm", {"state": "Paused"}, 204)
            assert vm.request("GET", "/", status=200)["state"] == "Paused"
            time.sleep(0.1)
            drain(vm, 0.1)
            before = len(vm.out)
            time.sleep(0.3)
            drain(vm, 0.1)
            assert len(vm.out) == before, f"it ran while paused; {vm.report()}"
            vm.request("PATCH", "/vm", {"state": "Resumed"}, 204)
            last = vm.out.count(b"tick")
            vm.read_until(b"tick %d\n" % (last + 2))
        numbers = [int(line[5:]) for line in vm.out.split(b"\n")[:-1] if line.startswith(b"tick ")]
        assert numbers == list(range(len(numbers))), vm.report()
        vm.request("PATCH", "/vm", {"state": "Paused"}, 204)
        vm.child.terminate()
        vm.finish(rc=128 + signal.SIGTERM, passes=False)


def drain(vm, seconds):
    """Takes what the guest said until now."""
    end = time.monotonic() + seconds
    os.set_blocking(vm.child.stdout.fileno(), False)
    try:
        while time.monotonic() < end:
            try:
                vm.out += os.read(vm.child.stdout.fileno(), 65536)
            except BlockingIOError:
                time.sleep(0.01)
    finally:
        os.set_blocking(vm.child.stdout.fileno(), True)


# -- block

def test_block_write(t):
    vm = Vm(t, "block_write").run(seconds=120)
    data = vm.second.read_bytes()
    assert len(data) == SECOND_SECTORS * SECTOR, vm.report()
    assert data[-SECTOR:] == b"".join((0x1234 + i).to_bytes(8, "little") for i in range(64)), vm.report()
    for sector in range(0, SECOND_SECTORS - 127, 512):
        first = int.from_bytes(data[sector * SECTOR:sector * SECTOR + 8], "little")
        assert first == sector << 20, f"sector {sector} begins with {first:#x}; {vm.report()}"
    assert int.from_bytes(data[200 * SECTOR:200 * SECTOR + 8], "little") == 200, vm.report()


def test_block_id(t):
    vm = Vm(t, "block_id").run()
    assert "id root 'root'" in vm.text() and "id second 'second'" in vm.text(), vm.report()


def test_block_replaced(t):
    vm = Vm(t, "block_replaced", api=True).start()

    def replace():
        other = numbered(vm.dir / "other.img", SECOND_SECTORS * 2)
        vm.request("PATCH", "/drives/second", {"drive_id": "second", "path_on_host": str(other)}, 204)

    vm.finish(syncs={"replace": replace})


def test_block_busy(t):
    """Requests without a pause on a drive: it can be replaced, the VM paused, and ended."""
    vm = Vm(t, "block_for_ever", api=True).start()
    vm.read_until(b"flooding")
    other = numbered(vm.dir / "other.img", SECOND_SECTORS)
    for path in (other, vm.second) * 4:
        vm.request("PATCH", "/drives/second", {"drive_id": "second", "path_on_host": str(path)}, 204)
        vm.request("PATCH", "/vm", {"state": "Paused"}, 204)
        vm.request("PATCH", "/vm", {"state": "Resumed"}, 204)
    vm.child.terminate()
    vm.finish(rc=128 + signal.SIGTERM, passes=False)


# -- balloon

def test_balloon(t):
    mib, resident = 32, {}
    vm = Vm(t, "balloon", f"mib={mib} target=7",
            balloon={"amount_mib": 7, "deflate_on_oom": True, "stats_polling_interval_s": 0}).start()

    def note(what):
        return lambda: resident.__setitem__(what, vm.resident_kib())

    vm.finish(syncs={what: note(what) for what in ("filled", "inflated", "deflated")}, seconds=120)
    given = resident["filled"] - resident["inflated"]
    assert given > mib * 1024 * 0.8, f"of {mib} MiB only {given} KiB went back: {resident}; {vm.report()}"


def test_balloon_target(t):
    vm = Vm(t, "balloon_target", api=True).start()

    def target():
        vm.request("PATCH", "/balloon", {"amount_mib": 5}, 204)

    def done():
        assert vm.request("GET", "/balloon", status=200)["amount_mib"] == 5, vm.report()

    vm.finish(syncs={"target": target, "done": done})


def test_balloon_stats(t):
    vm = Vm(t, "balloon_stats", api=True,
            balloon={"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 1}).start()

    def stats():
        end = time.monotonic() + 10
        while True:
            answer = vm.request("GET", "/balloon/statistics", status=200)
            if answer.get("free_memory") == 3004 or time.monotonic() > end:
                break
            time.sleep(0.2)
        for number, name in ((0, "swap_in"), (1, "swap_out"), (4, "free_memory"), (5, "total_memory")):
            assert answer.get(name) == 3000 + number, f"{answer}; {vm.report()}"

    vm.finish(syncs={"stats": stats})


# -- vsock

PAYLOAD = bytes(i * 7 + (i >> 8) & 0xff for i in range(1 << 20))


def echo_once(vm, data):
    """Sends and receives at once, closes its half, and returns what came."""
    got = bytearray()
    with vm.connect(5000) as s:
        def send():
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        while piece := s.recv(65536):
            got += piece
        sender.join()
    return bytes(got)


def test_vsock_host_connects(t):
    """1 MiB each way, and ten short ones."""
    failures = []
    vm = Vm(t, "vsock_host_connects", "times=11").start()

    def run():
        try:
            for data in [PAYLOAD, *(PAYLOAD[i:i * 1000] for i in range(10))]:
                if echo_once(vm, data) != data:
                    failures.append(f"the echo of {len(data)} bytes differs")
        except Exception as e:  # pylint: disable=broad-except
            failures.append(repr(e))

    thread = threading.Thread(target=run, daemon=True)
    vm.finish(syncs={"listening": lambda: thread.start() or False}, seconds=120)
    thread.join(10)
    assert not failures and not thread.is_alive(), f"{failures}; {vm.report()}"


def test_vsock_guest_connects(t):
    """1 MiB from the guest, its half closed, 1 MiB back."""
    failures, vm = [], Vm(t, "vsock_guest_connects").start()
    wanted = b"".join(i.to_bytes(8, "little") for i in range((1 << 20) // 8))

    def serve(listener):
        try:
            s, _ = listener.accept()
            listener.close()
            with s:
                s.settimeout(60 * vm.patience)
                got = bytearray()
                while piece := s.recv(65536):
                    got += piece
                if got != wanted:
                    failures.append(f"{len(got)} bytes came, or others")
                s.sendall(wanted)
        except Exception as e:  # pylint: disable=broad-except
            failures.append(repr(e))

    listener = vm.listen(6000)
    thread = threading.Thread(target=serve, args=(listener,), daemon=True)
    thread.start()
    vm.finish(syncs={"connect": lambda: None}, seconds=120)
    thread.join(10)
    assert not failures and not thread.is_alive(), f"{failures}; {vm.report()}"
    assert f"sum {sum(range((1 << 20) // 8))}" in vm.text(), vm.report()


def test_vsock_refused(t):
    vm = Vm(t, "vsock_refused").start()
    kept = []

    def unwanted():
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        s.connect(str(vm.uds))
        s.sendall(b"CONNECT 99\n")
        kept.append(s)

    def refused():
        assert kept[0].recv(10) == b"", f"a refused connection is closed without a word; {vm.report()}"
        kept[0].close()

    listener = vm.listen(6000)
    vm.finish(syncs={"connect": lambda: None, "unwanted": unwanted, "refused": refused})
    listener.close()


def test_vsock_few_connections(t):
    """--vsock-max-connections counts both directions."""
    vm = Vm(t, "vsock_few_connections", options=("--vsock-max-connections", "2")).start()
    held = []

    def fill():
        for _ in range(2):  # a client that has not said yet which port it wants
            s = socket.socket(socket.AF_UNIX)
            s.connect(str(vm.uds))
            held.append(s)

    listener = vm.listen(6000)
    vm.finish(syncs={"filled": fill, "freed": lambda: held[0].close()})
    held[1].close()
    listener.close()


def test_vsock_credit(t):
    """What the guest has no room for stays on the host."""
    vm, kept = Vm(t, "vsock_credit").start(), []

    def connect():
        def run():
            s = vm.connect(5000)
            kept.append(s)
            try:
                s.sendall(PAYLOAD)
            except OSError:
                pass  # the guest ends the connection in the middle

        threading.Thread(target=run, daemon=True).start()
        return False

    vm.finish(syncs={"listening": connect})
    for s in kept:
        s.close()


def test_vsock_dead_peer(t):
    """The host program goes away in the middle: the guest is told."""
    vm = Vm(t, "vsock_host_connects", "times=1").start()

    def connect():
        def run():
            s = vm.connect(5000)
            s.sendall(b"x" * 1000)
            s.shutdown(socket.SHUT_WR)
            until(lambda: s.recv(1000) == b"", 30, "the end of the echo")
            s.close()

        threading.Thread(target=run, daemon=True).start()
        return False

    vm.finish(syncs={"listening": connect})
