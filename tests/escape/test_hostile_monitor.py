# SPDX-License-Identifier: Apache-2.0
"""A thread of a VM's process that makes a call as an attacker in it would: test builds of ironclaw-vmm and
ironclaw-vsock (src/jail/test-hostile.c) do so as soon as the thread has its filter, with a guest that runs natively.
In the place of QEMU it is tests/escape/intruder. Without filters, in the jail alone, all else is in test_intruder.py."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "guests")]

from harness import BLOCKED, GOT_THROUGH, ROOT, SLOW, Failure  # noqa: E402
from intruder_world import World, users  # noqa: E402
from monitor import Vm  # noqa: E402

REFUSED = 148
ORDER = b"@hostile order:"  # as in src/jail/test-hostile.c
ORDER_BYTES = 128
THREADS = {"vmm": "ironclaw-vmm", "api": "fc_api", "vcpu": "fc_vcpu 0", "blk": "fc_blk root"}  # by profile
BITS = dict(zip(THREADS, ("VMM", "API", "CPU", "BLK")), vsock="VSK")
# What every run tries; the rest of the table when asked for.
FIRST = {"make a file", "socket AF_INET", "ptrace", "fork", "execve", "mmap code", "mount", "setns", "io_uring_setup", "kill",
         "read another process"}
# The jail behind the filter: what the same calls meet there.
IN_JAIL = {"open a file": {"ENOENT"}, "execve": {"ENOENT"}, "mount": {"EPERM"}, "setuid": {"EINVAL"},
           "kexec_load": {"EPERM", "ENOSYS"}}
EXPECTED = {"run a shell": {"ENOENT"}}
OF_QEMU = ("image: change its mode through the descriptor", "image: change its times through the descriptor",
           "image: change its flags through the descriptor", "connect to AF_VSOCK on the host", "run a shell",
           "read a key of the user's", "signal another VM", "fork without end", "read another VM's memory", "make a device",
           "make a user namespace", "connect to a unix socket")


def table():
    """{name: who is allowed} of src/jail/attempts.h."""
    text = (ROOT / "src/jail/attempts.h").read_text()
    found = {name: set(re.findall(r"[A-Z]+", allowed))
             for name, allowed in re.findall(r'\{"([^"]+)",\s*([A-Z0-9 |]+),\s*SYS_', text)}
    assert len(found) == text.count("SYS_") and FIRST | IN_JAIL.keys() <= found.keys(), found.keys()
    return found


def refused(profile):
    return [name for name, allowed in table().items() if not allowed & {BITS[profile], "ALL"}]


def ordered(program, target, order):
    """A copy of a test build that has its order."""
    if not program.exists():
        raise Failure(f"{program} is not built")
    data = program.read_bytes()
    at = data.find(ORDER)
    assert at > 0 and data.find(ORDER, at + 1) < 0
    text = order.encode().ljust(ORDER_BYTES, b"\0")
    target.write_bytes(data[:at] + text + data[at + ORDER_BYTES:])
    target.chmod(0o755)
    return target


def need_filters(t, program):
    if b"__asan_init" in program.read_bytes():
        t.skip("no filters in a build with a sanitizer")


def monitor_run(t, order):
    """How a monitor ended, and its log."""
    vm = Vm(t, "boot", second=False, api=True)
    vm.program = ordered(t.build / "src/monitor/ironclaw-vmm-hostile", vm.dir / "ironclaw-vmm", order)
    vm.start(stdout=subprocess.DEVNULL)
    try:
        vm.child.wait(30 * vm.patience)
    except subprocess.TimeoutExpired:
        raise Failure(f"{order}: no end; {vm.report()}") from None
    log = vm.log()
    shutil.rmtree(vm.dir)
    vm.dir.mkdir()  # its number is taken
    return vm.child.returncode, log


def vsock_run(t, order):
    place = t.work / "vsock"
    place.mkdir(exist_ok=True)
    program = ordered(t.build / "src/vhost/ironclaw-vsock-hostile", place / "ironclaw-vsock", order)
    argv = [program, "--guest-cid", "3", "--uds-path", place / "v", "--socket", place / "s", "--max-lifetime-ms", "300"]
    result = subprocess.run(list(map(str, argv)), stdin=subprocess.DEVNULL, capture_output=True, timeout=30 * SLOW,
                            check=False)
    for path in place.iterdir():
        path.unlink()
    return result.returncode, result.stderr.decode("utf-8", "replace")


def check_refused(t, profile, thread, names, run, backend):
    """Each call ends the process, with a line that names thread and call."""
    for name in names:
        status, log = run(t, f"{profile}={name}")
        named = re.search(rf"seccomp: the thread {re.escape(thread)} may not call \w+ \(\d+\)", log)
        blocked = status == REFUSED and named and "hostile " not in log
        t.attempt(f"call past the filter of {profile}", name, BLOCKED if blocked else GOT_THROUGH,
                  "seccomp" if blocked else f"status {status}: {log[-300:]}", backend)


def check_can_fail(t, profile, run):
    """Without its filter the same thread is not stopped, so that it is the filter that does."""
    status, log = run(t, f"{profile}!socket AF_INET")
    assert status != REFUSED and f"hostile {profile}: socket AF_INET: done" in log, (status, log)


def monitor_threads(t, wanted):
    need_filters(t, t.build / "src/monitor/ironclaw-vmm-hostile")
    for profile, thread in THREADS.items():
        check_refused(t, profile, thread, [n for n in refused(profile) if wanted(n)], monitor_run, "ironclaw")
        check_can_fail(t, profile, monitor_run)


def test_threads(t):
    monitor_threads(t, lambda name: name in FIRST)


def test_threads_all_calls(t):
    monitor_threads(t, lambda name: name not in FIRST)


def test_vsock(t):
    need_filters(t, t.build / "src/vhost/ironclaw-vsock-hostile")
    check_refused(t, "vsock", "ironclaw-vsock", [n for n in refused("vsock") if n in FIRST], vsock_run, "qemu")
    check_can_fail(t, "vsock", vsock_run)


def test_vsock_all_calls(t):
    need_filters(t, t.build / "src/vhost/ironclaw-vsock-hostile")
    check_refused(t, "vsock", "ironclaw-vsock", [n for n in refused("vsock") if n not in FIRST], vsock_run, "qemu")


test_threads_all_calls.asked_for = test_vsock_all_calls.asked_for = True


def test_jail_without_filters(t):
    """From each thread of a monitor that ironclaw has started, its filter left out: the jail alone holds."""
    t.need_jail()
    guest = t.build / "tests/guests/guest.elf"
    Vm(t, "boot")  # skips where it can't run
    for user in users():
        if user == "ordinary" and len(users()) == 1 and t.host["backend"] == "qemu":
            t.skip("only root can make this machine look like one with hardware virtualization")
        world = World(t, "ironclaw", user)
        kernel = Path(shutil.copy(guest, world.base / "parts/guest"))
        kernel.chmod(0o644)
        for i, (profile, name) in enumerate((p, n) for p in THREADS for n in list(IN_JAIL)[:None if p == "vcpu" else 1]):
            libexec = world.base / f"h{i}"
            libexec.mkdir()
            ordered(t.build / "src/monitor/ironclaw-vmm-hostile", libexec / "ironclaw-vmm", f"{profile}!{name}")
            child = world.launch(f"h{i}", libexec, kernel=kernel)
            try:
                child.wait(30 * SLOW)
            except subprocess.TimeoutExpired:
                raise Failure(f"{profile}: {name}: no end; {world.log(child.vm)}") from None
            said = re.search(rf"^hostile {profile}: {name}: (\w+)$", world.log(child.vm), re.M)
            assert said, f"{profile}: {name}: {world.log(child.vm)} {child.stdout.read()}"
            blocked = said[1] in IN_JAIL[name]
            t.attempt(f"escape from the jail, {user}'s thread {profile}", name, BLOCKED if blocked else GOT_THROUGH,
                      "jail" if blocked else said[1], "ironclaw")
        world.end()


def test_qemu(t):
    """Whoever runs code in QEMU has our filter on all that is not QEMU's own: a refused call ends the VM."""
    world = World(t, "qemu", users()[-1])
    world.start("victim", "victim", filtered=False)
    for i, name in enumerate(OF_QEMU):
        world.start(f"q{i}", "one", until_end=True, filtered=True, only=name, other_pid=world.pid("victim"))
        child = world.children[-1]
        out, _ = child.communicate(timeout=60 * SLOW)
        came_back = re.search(rf"^intruder qemu try {re.escape(name)}: (\w+)$", world.log(child.vm), re.M)
        assert b"ended by seccomp (SIGSYS)" in out, out
        # QEMU is started behind its filter, so execve is let through, to find nothing.
        blocked = not came_back or came_back[1] in EXPECTED.get(name, ())
        t.attempt("call past the filter of qemu", name, BLOCKED if blocked else GOT_THROUGH,
                  ("jail" if came_back else "seccomp") if blocked else came_back[1], "qemu")
    assert world.lives(world.pid("victim"))
    world.end()
