# SPDX-License-Identifier: Apache-2.0
"""Hostile programs as root in a guest, beside a VM that only wants to be left alone.

After each: the neighbour answers while the attack runs, the hostile VM is gone on demand, the host's image has the
digest that it had, our own processes stay small, nothing is left.
"""

import contextlib
import os
import random
import socket
import struct
import threading
import time
from pathlib import Path

from harness import BLOCKED, ROOT, SLOW, Failure, until

GUEST = Path(__file__).parent / "guest"
GONE_WITHIN = 10  # seconds from the demand
OURS_AT_MOST_KIB = 400 << 10  # resident memory of a process of ours, whatever the guest does
QEMU_AT_MOST_KIB = OURS_AT_MOST_KIB + (512 << 10)  # with a guest's 256 MiB and as much translated code
LOGS_AT_MOST = 64 << 20  # bytes of records and logs of one VM


def neighbour(t):
    """A VM that only wants to be left alone."""
    return t.vm("neighbour", "--memory", "128")


def remove_hostile(t):
    started = time.monotonic()
    t.ic("rm", "-f", "hostile", timeout=GONE_WITHIN + 20)
    took = time.monotonic() - started
    assert took < GONE_WITHIN, f"the hostile VM went only after {took:.1f} s"
    # A client whose output nobody reads looks for its VM's end once a second.
    until(lambda: not any("hostile" in cmd.replace(str(ROOT), "") for cmd in t.processes().values()), 5,
          "the end of its processes")


@contextlib.contextmanager
def hostile(t, *options):
    """A neighbour, a hostile VM, and what must hold at the end. Who owns the guest's kernel has no filter there."""
    before = t.digests()
    with neighbour(t):
        t.ic("run", "--keep", "--name", "hostile", "--memory", "256", "--guest-seccomp", "permissive",
             *options, "--", "true", rc=0)
        try:
            yield
            check_neighbour(t)
            check_size(t)
        except BaseException:
            t.ic("rm", "-f", "hostile")
            raise
        remove_hostile(t)
        check_neighbour(t)
    assert t.digests() == before, "the image changed"


def check_neighbour(t):
    result = t.ic("exec", "neighbour", "--", "echo", "here", timeout=40)
    assert result.rc == 0 and result.out == b"here\n", f"the neighbour does not answer: {result}"


def check_size(t):
    for pid, command in t.processes().items():
        at_most = QEMU_AT_MOST_KIB if "qemu-system" in command else OURS_AT_MOST_KIB
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    kib = int(line.split()[1])
                    assert kib < at_most, f"{kib} KiB: {command}"
    total = sum(os.lstat(os.path.join(d, f)).st_size for d, _, files in os.walk(t.home / "state") for f in files)
    assert total < LOGS_AT_MOST, f"{total} bytes of records and logs"


def note(t, program, user):
    """What the hostile VM came to; everything else that must hold was looked at."""
    state = t.json("inspect", "hostile")[0]["state"]
    t.attempt("exhaustion", f"{program} as {user}", BLOCKED, "limit" if state == "ready" else "ended the VM")


def attack(t, program, seconds, *args, begins=None, finishes=None, user="root"):
    """Runs a guest program for a while; begins, finishes: words that it must print on its way, or as its last."""
    t.deadline += seconds * SLOW
    with hostile(t):
        t.ic("cp", GUEST / program, "hostile:/tmp/attack.py", rc=0)
        child = t.start("exec", "-u", user, "hostile", "--", "python3", "/tmp/attack.py", *args)
        output = []
        reader = threading.Thread(target=lambda: output.extend(child.stdout), daemon=True)
        if begins or finishes:
            reader.start()
        if begins:
            until(lambda: begins.encode() in b"".join(output) or child.poll() is not None, 30, "the attack's first words")
        end = time.monotonic() + (seconds * SLOW if finishes else seconds)
        while time.monotonic() < end and child.poll() is None:
            check_neighbour(t)
            time.sleep(0.5)
        if finishes and child.poll() is None:
            raise Failure(f"the attack did not come to its end within {seconds * SLOW:.0f} s")
        if finishes:
            reader.join(5)
        text = b"".join(output).decode("utf-8", "replace")
        if (begins or finishes or "") not in text:
            raise Failure(f"the attack did not do its work: {text[-500:]}")
        note(t, program, user)
    until(lambda: child.poll() is not None, 20, "the end of exec after its VM is gone")


def test_fork_bomb(t):
    attack(t, "fork_bomb.py", 8)


def test_fork_bomb_of_the_user(t):
    attack(t, "fork_bomb.py", 8, user="agent")


def test_memory_hog(t):
    attack(t, "memory_hog.py", 12)


def test_disk_filler(t):
    attack(t, "disk_filler.py", 12)


def test_device_writer(t):
    attack(t, "device_writer.py", 20, begins="ports")


def test_ten_thousand_connects(t):
    attack(t, "vsock_connects.py", 120, finishes="connects 10000")


def test_garbage_to_host_ports(t):
    ports = int(os.environ.get("IRONCLAW_TEST_PORTS", "1024"))  # the first so many, besides the ones in use
    attack(t, "vsock_garbage.py", 60 + ports // 20, str(ports), finishes="talked")


def test_log_flood(t):
    attack(t, "log_flood.py", 8)


def test_output_that_nobody_reads(t):
    attack(t, "output_flood.py", 5)


def test_recovers_from_fork_bomb(t):
    """A bomb of the unprivileged user ends with its command; the VM serves the next one."""
    with t.vm("v") as name:
        t.ic("cp", GUEST / "fork_bomb.py", f"{name}:/tmp/bomb.py", rc=0)
        t.ic("exec", "--timeout", "4s", name, "--", "python3", "/tmp/bomb.py", timeout=60)
        until(lambda: t.ic("exec", name, "--", "echo", "alive", timeout=60).out == b"alive\n", 60,
              "a command after the fork bomb", step=1)


def vsock_socket(t, name):
    """A connection to the guest's agent, as any host program could make it."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(5)
    s.connect(str(t.home / "run" / name / "v"))
    s.sendall(b"CONNECT 1024\n")
    reply = b""
    while not reply.endswith(b"\n"):
        byte = s.recv(1)
        if not byte:
            s.close()
            raise OSError("closed")
        reply += byte
    assert reply.startswith(b"OK "), reply
    return s


def test_garbage_to_the_agent(t):
    """The agent outlives what a broken or hostile host program sends it."""
    rng = random.Random(3)
    with t.vm("v") as name:
        for i in range(120):
            with contextlib.suppress(OSError), vsock_socket(t, name) as s:
                kind = i % 4
                if kind == 0:
                    s.sendall(rng.randbytes(rng.randrange(1, 100000)))
                elif kind == 1:
                    payload = rng.randbytes(rng.randrange(100))
                    s.sendall(struct.pack("<IB", len(payload), rng.randrange(64)) + payload)
                elif kind == 2:
                    s.sendall(struct.pack("<IB", 0xFFFFFFFF, 1) + b"x" * 1000)
                else:
                    s.sendall(b"\0")
        # Many that connect and say nothing. The agent may still be busy with what came before.
        idle = []
        for _ in range(300):
            try:
                idle.append(vsock_socket(t, name))
            except OSError:
                if len(idle) >= 10:
                    break
                time.sleep(0.1)
        assert len(idle) >= 10, f"only {len(idle)} connections"
        for s in idle:
            s.close()
        until(lambda: t.ic("exec", name, "--", "echo", "alive", timeout=60).out == b"alive\n", 30,
              "an answer of the agent", step=1)
