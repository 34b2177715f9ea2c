# SPDX-License-Identifier: Apache-2.0
"""Hostile monitors: what a process of a VM finds when somebody else's code runs in it, started by the real backend in
the real jail as root's and as an ordinary user's, without any filter of its own. The filters are in
test_hostile_monitor.py.

Each outcome is what stopped the attempt. It can also fail: one run is made without a jail, where the same attempts get
through."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import BLOCKED, FAILED, GOT_THROUGH, NOT_MADE, SLOW, Failure  # noqa: E402
from intruder_world import ROLES, World, users  # noqa: E402

# What must come of each attempt: errors that may be the answer, of any role. Where it is not in the jail's hands it is
# in those of the filter (LEFT), which test_hostile_monitor.py and the table in src/jail/attempts.h see to.
ABSENT = {"ENOENT"}
NOBODY = {"ESRCH"}
DENIED = {"EPERM"}
NO_ROUTE = {"ENETUNREACH"}
READ_ONLY = {"EROFS", "ENOENT", "EACCES"}
NO_WRITE = {"EBADF", "EACCES"}
NO_PRIVILEGE = {"EPERM", "ENOSYS"}
EXPECTED = {
    "open /etc/passwd": ABSENT,
    "open a user's file": ABSENT,
    "open the user's configuration": ABSENT,
    "open /proc/self/mem": ABSENT,
    "open /proc": ABSENT,
    "open /sys": ABSENT,
    "open /dev/mem": ABSENT,
    "open the terminal": ABSENT,
    "open the VM's log by its path": ABSENT,
    "leave the root by ..": ABSENT,
    "leave the run directory by ..": ABSENT,
    "leave by an inherited directory": {"ENOTDIR"},
    "open a file by its handle": {"EPERM"},
    "write its own program": {"EACCES", "EROFS", "ETXTBSY"},
    "make a file in the root": {"EROFS"},
    "link a user's file": ABSENT,
    "make a device": {"EPERM", "EROFS"},
    "run a file that it wrote": {"EACCES", "EROFS"},
    "map code that it wrote": {"EPERM", "EROFS"},
    "image: open for writing": READ_ONLY,
    "image: truncate": READ_ONLY,
    "image: change its mode": READ_ONLY,
    "image: write through the descriptor": NO_WRITE,
    "image: truncate through the descriptor": NO_WRITE,
    "image: map for writing through the descriptor": NO_WRITE,
    "image: change its mode through the descriptor": NO_WRITE | DENIED,
    "image: change its times through the descriptor": NO_WRITE | DENIED,
    "image: change its flags through the descriptor": NO_WRITE | DENIED | {"ENOTTY"},
    "image: open a file beside it": ABSENT,
    "signal another VM": NOBODY,
    "signal a program of the user's": NOBODY,
    "signal everybody": NOBODY,
    "trace another VM": NOBODY,
    "trace a program of the user's": NOBODY,
    "read another VM's memory": NOBODY,
    "write another VM's memory": NOBODY,
    "open another VM's process": NOBODY,
    "open another VM's memory": ABSENT,
    "see another VM's limits": NOBODY,
    "change another VM's priority": NOBODY,
    "see another VM's processors": NOBODY,
    "attach a System V segment": {"EINVAL"},
    "read a key of the user's": {"ENOKEY", "ENOSYS", "EPERM"},
    "fork without end": {"EAGAIN"},
    "connect to TCP on the host": NO_ROUTE,
    "connect to TCP on the host by IPv6": NO_ROUTE | {"EADDRNOTAVAIL", "EAFNOSUPPORT"},
    "send UDP to the host": NO_ROUTE,
    "turn on the loopback": DENIED,
    "find a network card": {"ENODEV"},
    "send raw frames": DENIED | {"EAFNOSUPPORT"},
    "send raw IP": DENIED,
    "connect to a unix socket": ABSENT,
    "connect to an abstract unix socket": {"ECONNREFUSED"},
    "connect to a unix socket through a link": ABSENT | {"EROFS"},
    "connect to another VM's agent": ABSENT,
    "connect to another VM's agent by ..": ABSENT,
    "connect to the system's bus": ABSENT,
    "run a shell": ABSENT,
    "mount a file system": DENIED | ABSENT,
    "bind a directory": DENIED | ABSENT,
    "make the root writable": DENIED,
    "unmount": DENIED | ABSENT,
    "clone a mount": DENIED,
    "open a file system": DENIED,
    "pivot_root": DENIED,
    "chroot": DENIED,
    "make a user namespace": DENIED | {"ENOSPC", "EINVAL"},
    "make a mount namespace": DENIED,
    "make a net namespace": DENIED,
    "join a namespace again": DENIED,
    "join another VM's namespace": NOBODY,
    "become root": {"EINVAL"},
    "become root's group": {"EINVAL"},
    "take groups": DENIED,
    "take a capability": DENIED,
    "allow new privileges": {"EINVAL"},
    "allow core dumps": DENIED,
    "dump core": DENIED,
    "raise the limit of files": DENIED,
    "raise the limit of locked memory": DENIED,
    "raise its priority": {"EACCES"},
    "run in real time": DENIED,
    "use I/O ports": NO_PRIVILEGE,
    "raise its I/O level": NO_PRIVILEGE,
    "set the clock": DENIED,
    "set the host's name": DENIED,
    "restart the host": DENIED,
    "load a module": NO_PRIVILEGE,
    "load a kernel": NO_PRIVILEGE,
    "turn swap off": NO_PRIVILEGE,
    "load a BPF program": NO_PRIVILEGE | {"EACCES"},
    "watch a processor": NO_PRIVILEGE | {"EACCES", "ENOENT"},
    "catch the kernel's page faults": NO_PRIVILEGE,
    "grow a log without end": {"EFBIG"},
}
# The jail alone does not stop these, which is known; src/jail/attempts.h and test_hostile_monitor.py show what does.
LEFT = {
    "map memory as code": "the filter's",
    "set up an io_uring": "the filter's",
    "connect to AF_VSOCK on the host": "the filter's: no namespace is about it",
    "fill the run directory with files": "the filter's: it makes no file",
    "fill the run directory with bytes": "the filter's: it makes no file",
    "read the kernel's log": "the host's kernel.dmesg_restrict",
}
# QEMU has the image's descriptor, and an ordinary user is the image's owner.
OWNER_LEFT = {f"image: change its {what} through the descriptor" for what in ("mode", "times", "flags")}
PLACES_AT_MOST = 8  # directories in the root: of the program, the image, devices; for a dynamic program libraries
PROCESSES_AT_MOST = 64  # of one VM with one vCPU

# These get through when there is no jail, or they would not be attempts.
WITHOUT_A_JAIL = """open /etc/passwd;open a user's file;open the user's configuration;open /proc/self/mem;open /proc;
open /sys;open the VM's log by its path;leave the root by ..;leave the run directory by ..;link a user's file;
run a file that it wrote;map code that it wrote;image: open for writing;signal another VM;
signal a program of the user's;read another VM's memory;write another VM's memory;
open another VM's process;open another VM's memory;see another VM's limits;see another VM's processors;
attach a System V segment;read a key of the user's;connect to TCP on the host;send UDP to the host;
connect to a unix socket;connect to an abstract unix socket;connect to a unix socket through a link;
connect to another VM's agent;connect to another VM's agent by ..;run a shell;fork without end;
make a user namespace""".replace("\n", "").split(";")


def victim(world, **more):
    """A VM of the same user's beside it; what the attacker's plan says of it."""
    world.start("victim", "victim", **more)
    return {"other_pid": world.pid("victim"), "other_socket": world.run_dir("victim") / "v",
            "other_socket_above": "../victim/v", "other_state": world.state_dir("victim")}


def check_descriptors(world, role, outcome):
    """No directory, nobody's file but the VM's own; to write to are only its logs and its ring of refusals."""
    state = world.state_dir("attacker")
    inode = {path.stat().st_ino: path.name for path in state.iterdir()}
    inode[world.parts[2].stat().st_ino] = "image"
    inode[os.stat("/dev/null").st_ino] = "null"
    writable = set()
    for fd, (kind, access, number) in outcome.fds.items():
        assert kind in ("file", "socket") or (kind, inode.get(number)) == ("device", "null"), (role, fd, kind)
        if kind == "file":
            assert number in inode, f"{role} has the descriptor {fd} of a file that is not the VM's"
            if access != "read":
                writable.add(inode[number])
    logs = {"console.log", "monitor.log"}
    rings = {name for name in inode.values() if name.startswith("audit") or name.endswith("audit")}
    assert writable <= logs | rings, f"{role} may write {writable}"
    sockets = sum(kind == "socket" for kind, _, _ in outcome.fds.values())
    assert sockets <= (2 if role in ("qemu", "vsock") else 0), outcome.fds


def judge(world, name, outcome, count):
    """(outcome, how) for the table; None for what is left to filters, and seen to where they are on."""
    if outcome == "not here":
        return NOT_MADE, "nothing to try it on"
    if name == "list the root":
        return (BLOCKED, "jail") if outcome == "done" and count <= PLACES_AT_MOST else (GOT_THROUGH, f"{count} places")
    if name in LEFT or (name in OWNER_LEFT and outcome == "done" and world.user == "ordinary" and world.backend == "qemu"):
        return None
    if outcome not in EXPECTED[name] or (count is not None and count > PROCESSES_AT_MOST):
        return GOT_THROUGH, f"{outcome}, {count}" if count else outcome
    return BLOCKED, "limit" if name.endswith("without end") else "jail"


def attack(t, backend, user):
    world = World(t, backend, user)
    outcomes = world.start("attacker", "attack", **victim(world))
    stages = world.record("attacker")["jail"]["stages"]
    missing = [stage for stage, state in stages.items() if state != "done" and stage != "cgroup"]
    assert not missing, f"{backend} as {user}: the jail is without {missing}: {stages}"
    through = []
    for role, outcome in outcomes.items():
        check_descriptors(world, role, outcome)
        assert outcome.tries.keys() == {*EXPECTED, *LEFT, "list the root", "take memory without end"}, outcome.tries.keys()
        for name, (result, count) in outcome.tries.items():
            verdict = judge(world, name, result, count) if name != "take memory without end" else None
            if verdict:
                t.attempt(f"escape from the jail, {user}'s {role}", name, *verdict, backend)
            if verdict and verdict[0] == GOT_THROUGH:
                through.append(f"{role}: {name}: {verdict[1]}")
    assert not through, f"{backend} as {user}: got through:\n    " + "\n    ".join(through)
    assert not world.heard(), world.heard()
    assert world.bystander.poll() is None
    world.end()


def backends(t):
    """Those whose processes can be started here, whether or not they could run a guest."""
    if not os.path.exists("/dev/kvm"):
        return ("qemu",)
    if os.geteuid() != 0 and t.host["backend"] == "qemu":
        return ("qemu",)  # only root can make it look like hardware
    return ("qemu", "ironclaw", "firecracker")


def attack_all(t, backend):
    if backend not in backends(t):
        t.skip("no /dev/kvm here, or no right to make it look like hardware")
    t.need_jail()
    for user in users():
        attack(t, backend, user)


def test_jail_of_qemu(t):
    attack_all(t, "qemu")


def test_jail_of_ironclaw(t):
    attack_all(t, "ironclaw")


def test_jail_of_firecracker(t):
    """Which has the code of ironclaw's backend, but for the program and its devices."""
    attack_all(t, "firecracker")


test_jail_of_firecracker.asked_for = True


def test_memory(t):
    """Memory without end ends the VM that took it, and nobody else, where the cgroup has its limits."""
    t.need_jail()
    world = World(t, backends(t)[-1], users()[0])
    around = victim(world)
    cgroup = world.record("victim")["jail"]["stages"]["cgroup"]
    if cgroup != "done":
        world.end()
        t.skip(cgroup)
    world.start("attacker", "attack", until_end=True, only=";take memory without end;", memory_mib=1024, **around)
    world.children[-1].wait(60 * SLOW)
    assert " done" not in world.log("attacker"), world.log("attacker")
    assert world.lives(around["other_pid"]), "another VM has ended"
    t.attempt(f"escape from the jail, {world.user}'s {ROLES[world.backend][0]}", "take memory without end", BLOCKED, "limit",
              world.backend)
    world.end()


def test_without_a_jail(t):
    """The same attempts get through, so that it is the jail that they fail in."""
    t.need_jail()
    for user in users():
        world = World(t, backends(t)[-1], user)
        wanted = [name for name in WITHOUT_A_JAIL if user == "root" or name != "signal everybody"]
        outcomes = world.start("attacker", "attack", jail="off", only=f";{';'.join(wanted)};",
                               **victim(world, jail="off"))
        for role, outcome in outcomes.items():
            assert role != "qemu" or outcome.fds
            failed = {name: result for name in wanted for result in [outcome.tries[name]] if result[0] not in ("done", "ENOSYS")}  # not in every kernel
            if role != "monitor":
                failed = {name: result for name, result in failed.items() if "agent" not in name}
            assert not failed, f"{user}'s {role}: not attempts that a jail could stop: {failed}"
        heard = world.heard()
        assert {"tcp", "udp", "unix", "abstract"} <= set(heard), heard
        world.end()


def with_evil(t, backend, user, evil, check):
    """A VM that becomes ready and then does something to its run directory; what must hold while it lives, and that all
    of it goes."""
    world = World(t, backend, user)
    around = victim(world)
    world.start("attacker", "ready", evil=evil, **around)
    run = world.children[-1]
    try:
        out, _ = run.communicate(timeout=60 * SLOW)
    except subprocess.TimeoutExpired:
        raise Failure(f"{evil}: run does not end") from None
    assert "intruder:" not in world.log("attacker"), world.log("attacker")
    check(world, run, out)
    assert not world.heard(), f"{evil}: the host's side went to {world.heard()}"
    result = world.ic("rm", "-f", "attacker", libexec=run.libexec)
    assert result.returncode == 0 or not world.state_dir("attacker").exists(), (evil, result)
    assert not world.run_dir("attacker").exists() and not world.state_dir("attacker").exists()
    assert (world.precious / "file").read_text() == "precious"
    assert world.run_dir("victim").is_dir() and world.state_dir("victim").is_dir(), f"{evil}: another VM's are gone"
    assert world.pid("victim")
    t.attempt(f"harm the host's side, {user}'s {ROLES[backend][-1]}", evil, BLOCKED, "refused", backend)
    world.end()


def test_sockets_replaced(t):
    """The host's side connects to no socket that a link leads to."""
    t.need_jail()
    def check(world, run, out):
        assert run.returncode == FAILED, out
        for command in (("exec", "attacker", "--", "true"), ("pause", "attacker")):
            result = world.ic(*command, libexec=run.libexec)
            assert result.returncode == FAILED, result

    for backend in backends(t):
        for user in users():
            with_evil(t, backend, user, "sockets", check)


def test_run_directory(t):
    """Whatever lies in it, it is removed, and nothing else."""
    t.need_jail()
    def check(world, run, _):
        assert world.ic("ps", libexec=run.libexec).returncode == 0

    for user in users():
        with_evil(t, backends(t)[-1], user, "directory", check)


def test_alive(t):
    """A VM that gives up the lock by which it is seen to live is still ended."""
    t.need_jail()
    def check(world, run, _):
        pid = world.pid("attacker")
        assert world.ic("rm", "-f", "attacker", libexec=run.libexec).returncode == 0
        assert not world.lives(pid), "its process lives on"

    for user in users():
        with_evil(t, "qemu", user, "unlock", check)


def test_babble(t):
    """Somebody at the agent's socket who never stops: an error, in bounded time and memory."""
    t.need_jail()
    def check(world, run, out):
        assert run.returncode == FAILED, out

    for user in users()[-1:]:
        with_evil(t, backends(t)[-1], user, "babble", check)
