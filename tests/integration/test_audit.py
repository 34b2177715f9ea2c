# SPDX-License-Identifier: Apache-2.0
"""What becomes of a VM one of whose processes makes a call that its filter refuses, and where it can be read. The
processes are test builds that do so when a host asks for port 4242 (src/vhost/test-refused.c)."""

import shutil
import socket
import time
from pathlib import Path

from harness import FAILED, build_static

SERVES = {"qemu": ("ironclaw-vsock", "ironclaw-vsock", "its vsock process"),
          "ironclaw": ("ironclaw-vmm", "ironclaw-vmm", "its monitor")}  # program, thread, in words


def taken_over(t):
    """The environment in which the program that serves the vsock is a test build."""
    if t.backend not in SERVES:
        t.skip(f"no test build of backend {t.backend}")
    libexec = t.work / "libexec"
    libexec.mkdir()
    programs = {"ironclaw-vsock": "src/vhost/ironclaw-vsock", "ironclaw-vmm": "src/monitor/ironclaw-vmm"}
    for name, path in programs.items():
        shutil.copy2(f"{t.build / path}-refused", libexec / name)
    return {"IRONCLAW_LIBEXEC": str(libexec)}


def provoke(t, name):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(str(Path(t.json("inspect", name)[0]["run_dir"]) / "v"))
        s.sendall(b"CONNECT 4242\n")
        try:
            assert s.recv(100) == b""
        except ConnectionResetError:
            pass


def entries(t, *args):
    answer = t.json("logs", "--audit", "--json", *args)
    assert answer["dropped"] == 0, answer
    return answer["entries"]


def check(t, entry, name, action):
    program, thread, _ = SERVES[t.backend]
    assert entry["vm_id"] == name and entry["action"] == action and entry["process"] == program, entry
    assert entry["thread"] == thread and entry["call"] == "execve" and entry["arguments"][1] == 0x42, entry
    assert abs(entry["time_unix_ms"] / 1000 - time.time()) < 600, entry
    assert entry["pid"] > 0, entry


def need_filters(t, name):
    if "built with a sanitizer" in t.ic("logs", "--monitor", name).text:
        t.skip("no filters in a build with a sanitizer")


def test_refused_call_ends_the_vm(t):
    env, (_, thread, who) = taken_over(t), SERVES[t.backend]
    cause = f"{who} was ended by seccomp: thread {thread} called execve"
    t.ic("run", "-d", "--name", "v", env=env, rc=0)
    t.ic("run", "-d", "--name", "other", rc=0)
    need_filters(t, "v")
    provoke(t, "v")
    t.error("exec", "v", "--", "true", status=FAILED, words=[cause])
    vms = {vm["vm_id"]: vm for vm in t.json("ps", "-a", "--json")}
    assert vms["v"]["state"] == "failed" and vms["v"]["failure"] == cause, vms
    assert vms["other"]["state"] == "ready", vms
    entry, = entries(t)
    check(t, entry, "v", "killed")
    assert entries(t, "other") == []
    t.ic("rm", "-f", "v", "other", rc=0)
    entry, = entries(t, "v")  # it outlives the VM
    check(t, entry, "v", "killed")
    table = t.ic("logs", "--audit", rc=0).text.splitlines()
    assert len(table) == 3 and "execve" in table[1] and table[2] == "0 dropped", table


def test_refused_call_during_a_command(t):
    """Status 125 and one line."""
    env, (_, thread, who) = taken_over(t), SERVES[t.backend]
    child = t.start("run", "--name", "v", "--", "sh", "-c", "echo runs; sleep 100", env=env)
    assert child.stdout.readline() == b"runs\n"
    need_filters(t, "v")
    provoke(t, "v")
    _, err = child.communicate(timeout=60)
    lines = [line for line in err.decode().splitlines() if "isolation" not in line]
    assert child.returncode == FAILED and len(lines) == 1, (child.returncode, err)
    assert f"{who} was ended by seccomp: thread {thread} called execve" in lines[0], lines
    entry, = entries(t, "v")
    check(t, entry, "v", "killed")


def test_permissive_lets_it_go_on(t):
    env = taken_over(t)
    t.write_config({**t.config, "seccomp_level": "permissive"})
    t.ic("run", "-d", "--name", "v", env=env, rc=0)
    need_filters(t, "v")
    for _ in range(3):
        provoke(t, "v")
    assert t.sh("v", "echo still").out == b"still\n"
    entry, = [e for e in entries(t, "v") if e["call"] == "execve"]  # of a VM that lives
    check(t, entry, "v", "allowed")
    assert entry["count"] == 3, entry
    t.ic("rm", "-f", "v", rc=0)
    entry, = [e for e in entries(t, "v") if e["call"] == "execve"]
    check(t, entry, "v", "allowed")


def test_qemu_ended_by_its_filter(t):
    """A program in the place of QEMU that asks for a network socket. It ends by the signal alone."""
    source = t.work / "qemu.c"
    source.write_text("#include <sys/socket.h>\nint main(void) { return socket(AF_INET, SOCK_STREAM, 0) < 0; }\n")
    program = build_static(source, t.work / "qemu-system-x86_64")
    t.error("run", "--backend", "qemu", "--name", "v", "--", "true", status=FAILED, env={"IRONCLAW_QEMU": str(program)},
            words=["'v'", "its monitor was ended by seccomp (SIGSYS)", "logs --audit v"])
    entry, = entries(t, "v")
    assert (entry["process"], entry["action"], entry["call"]) == ("qemu", "killed", None), entry


def test_firecracker_is_never_permissive(t):
    t.write_config({**t.config, "seccomp_level": "permissive", "backend": "firecracker"})
    if t.host["isolation"] != "hardware":
        t.skip("backend firecracker needs hardware virtualization")
    t.error("run", "--", "true", status=FAILED, words=["seccomp_level permissive", "firecracker"],
            env={"IRONCLAW_FIRECRACKER": str(t.build / "src/monitor/ironclaw-vmm")})
