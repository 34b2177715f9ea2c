# SPDX-License-Identifier: Apache-2.0
"""Runs tests/escape/intruder as the processes of a VM, started by ironclaw itself, and keeps what it is to be kept from:
listeners, files, a program and another VM of the user's."""

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

from harness import ROOT, SLOW, Failure, build_static, until

SOURCES = [ROOT / path for path in
           (*(f"tests/escape/intruder/{name}.c" for name in ("main", "files", "others", "kernel", "ready")),
            *(f"src/wire/{name}.c" for name in ("frame", "messages", "reader", "state")), "src/base/buf.c")]
ROLES = {"qemu": ("qemu", "vsock"), "ironclaw": ("monitor",), "firecracker": ("monitor",)}
ORDINARY = 65534
EROFS_MAGIC = 0xE0F5E1E2  # as src/orchestrator/parts.c looks for it
PLAN_MARK = "\n@intruder's plan\n"
SHMGET, IPC_RMID = 29, 0

# Whoever has no hardware virtualization still has this code to be tested: for the command it has, in a mount namespace
# of its own. No guest is run. The node is for an ordinary user too.
AS_IF_HARDWARE = """mount -t tmpfs -o mode=0755 none "$1" && cp /proc/cpuinfo "$1/cpuinfo" &&
sed -i 's/^flags.*/& svm/' "$1/cpuinfo" && mknod -m 666 "$1/kvm" c 10 232 && chmod 666 "$1/kvm" &&
mount --bind "$1/cpuinfo" /proc/cpuinfo && mount --bind "$1/kvm" /dev/kvm && shift && exec "$@\""""


def users():
    return ("root", "ordinary") if os.geteuid() == 0 else ("ordinary",)


def tiny_parts(directory):
    """A kernel and a root file system that pass for such."""
    kernel, initrd, rootfs = (directory / name for name in ("kernel", "initrd", "rootfs"))
    kernel.write_bytes(b"\0" * 0x202 + b"HdrS" + b"\0" * 1024)
    initrd.write_bytes(b"x")
    super_block = EROFS_MAGIC.to_bytes(4, "little") + b"\0" * 8 + bytes([12]) + b"\0" * 115
    rootfs.write_bytes(b"\0" * 1024 + super_block + b"\0" * 4096)
    for path in (kernel, initrd, rootfs):
        path.chmod(0o644)
    return kernel, initrd, rootfs


class Outcome:
    """What one process reported."""

    def __init__(self, text, role):
        self.fds = {}  # number: (type, access, inode)
        self.tries = {}  # name: (outcome, count or None)
        for number, kind, access, inode in re.findall(rf"^intruder {role} fd (\d+) (\w+) (\w+) (\d+)$", text, re.M):
            self.fds[int(number)] = (kind, access, int(inode))
        for name, outcome, count in re.findall(rf"^intruder {role} try (.*): (not here|can't fork.*|\w+|signal \d+)(?: (\d+))?$",
                                               text, re.M):
            self.tries[name] = (outcome, int(count) if count else None)
        self.ended = re.search(rf"^intruder {role} end$", text, re.M) is not None


def use_up_small_pids():
    """In its own namespace an intruder and its children have the first few hundred, in which nobody outside may be."""
    last = 0
    while last < 600:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        last = thread.native_id
        thread.join()


class World:
    """One user and one backend."""

    def __init__(self, t, backend, user):
        self.t, self.backend, self.user = t, backend, user
        self.uid = ORDINARY if user == "ordinary" and os.geteuid() == 0 else os.geteuid()
        for directory in (t.home, t.work):
            directory.chmod(0o711)
        self.base = t.work / f"{backend[0]}{user[0]}{len(list(t.work.iterdir()))}"  # short: unix sockets
        self.base.mkdir()
        for name in ("home", "tmp", "parts"):
            (self.base / name).mkdir()
        self.home = self.base / "home"
        self.parts = tiny_parts(self.base / "parts")
        (self.home / "config.json").write_text("{}")
        self.precious = self.base / "precious"
        self.precious.mkdir()
        (self.precious / "file").write_text("precious")
        for path in (self.base, *self.base.rglob("*")):
            os.chown(path, self.uid, self.uid)
        self.command = self.readable_copy()
        self.program = self.base / "intruder"
        shutil.copy(build_static(SOURCES[0], t.build / "tests/intruder", "-D_GNU_SOURCE", f"-I{ROOT}/src",
                                 *map(str, SOURCES[1:])),
                    self.program)
        self.children = []
        use_up_small_pids()
        self.listen(t)
        t.cleanups.append(self.close)

    def readable_copy(self):
        """ironclaw where the user can run it: the build tree may be in a directory that is closed to others."""
        for part in ("cli/ironclaw", *(f"orchestrator/{p.name}" for p in
                                       (self.t.build / "src/orchestrator").glob("libironclaw.so.[0-9]"))):
            copy = self.base / "build" / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.t.build / "src" / part, copy)
        return self.base / "build/cli/ironclaw"

    # -- what must stay out of reach

    def listen(self, t):
        self.tcp, self.udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.path, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.abstract_name = f"intruder.{t.home.name}.{self.base.name}"
        self.tcp.bind(("127.0.0.1", 0))
        self.udp.bind(("127.0.0.1", 0))
        self.path.bind(str(self.base / "listener"))
        (self.base / "listener").chmod(0o777)
        self.abstract.bind("\0" + self.abstract_name)
        for s in (self.tcp, self.path, self.abstract):
            s.listen(8)
        for s in (self.tcp, self.udp, self.path, self.abstract):
            s.setblocking(False)
        self.secret = self.base / "secret"
        self.secret.write_text("secret")
        os.chown(self.secret, self.uid, self.uid)
        libc = ctypes.CDLL(None, use_errno=True)
        self.segment = libc.syscall(SHMGET, 0, 4096, 0o1666)
        assert self.segment >= 0, os.strerror(ctypes.get_errno())
        t.cleanups.append(lambda: libc.syscall(31, self.segment, IPC_RMID, 0))
        argv = ["sleep", "1000"]
        self.bystander = subprocess.Popen(self.as_user(argv), stdin=subprocess.DEVNULL)

    def heard(self):
        """What reached a listener."""
        found = []
        for name, s in (("tcp", self.tcp), ("unix", self.path), ("abstract", self.abstract)):
            try:
                s.accept()[0].close()
                found.append(name)
            except BlockingIOError:
                pass
        try:
            self.udp.recv(16)
            found.append("udp")
        except BlockingIOError:
            pass
        return found

    # -- commands of the user

    def as_user(self, argv):
        argv = [str(a) for a in argv]
        if self.uid != os.geteuid():
            argv = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--", *argv]
        return argv

    def argv(self, *args):
        argv = [str(self.program), "with-key", self.abstract_name, str(self.command), *map(str, args)]
        argv = self.as_user(argv)
        if self.backend != "qemu" and os.geteuid() == 0:
            mount = self.base / "m"
            mount.mkdir(exist_ok=True)
            argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", AS_IF_HARDWARE, "sh", str(mount), *argv]
        return argv

    def env(self, libexec):
        return dict(self.t.env, IRONCLAW_HOME=str(self.home), TMPDIR=str(self.base / "tmp"), HOME=str(self.home),
                    IRONCLAW_LIBEXEC=str(libexec), IRONCLAW_QEMU=str(libexec / "qemu"),
                    IRONCLAW_FIRECRACKER=str(libexec / "firecracker"))

    def ic(self, *args, libexec=None):
        return subprocess.run(self.argv(*args), env=self.env(libexec or self.base), capture_output=True,
                              timeout=60 * SLOW, stdin=subprocess.DEVNULL, check=False)

    # -- VMs

    def libexec(self, name, **plan):
        """The programs of a VM, which are all the intruder, with a plan."""
        directory, elsewhere = self.base / f"x-{name}", self.base / f"w-{name}"
        directory.mkdir()
        elsewhere.mkdir()
        os.chown(elsewhere, self.uid, self.uid)
        lines = {"run_dir": self.run_dir(name), "elsewhere": elsewhere, "secret": self.secret, "settings": self.home / "config.json", "test_pid": self.bystander.pid,
                 "tcp": self.tcp.getsockname()[1], "udp": self.udp.getsockname()[1], "unix": self.base / "listener",
                 "abstract": self.abstract_name, "segment": self.segment, "key": self.abstract_name,
                 "image": self.parts[2], "image_inode": self.parts[2].stat().st_ino, "image_beside": self.secret,
                 "precious": self.precious, "log": self.state_dir(name) / "monitor.log", **plan}
        text = PLAN_MARK + "".join(f"{key}={value}\n" for key, value in lines.items())
        for program in ("ironclaw-vmm", "ironclaw-vsock", "qemu", "firecracker"):
            shutil.copyfile(self.program, directory / program)
            with open(directory / program, "ab") as f:
                f.write(text.encode())
            (directory / program).chmod(0o755)
        return directory

    def run_dir(self, name):
        return self.home / "run" / name

    def state_dir(self, name):
        return self.home / "state/vms" / name

    def launch(self, name, libexec, jail="auto", kernel=None, filtered=False):
        """Starts a VM of these programs; the command that did."""
        parts = self.parts
        config = self.base / f"{name}.json"
        # QEMU's filter is put on from outside; the others put on their own, so an intruder in their place has none.
        level = {"seccomp_level": "permissive"} if self.backend == "qemu" and not filtered else {}
        config.write_text(json.dumps({**level, "backend": self.backend, "kernel_path": str(kernel or parts[0]),
                                      "initrd_path": str(parts[1]), "rootfs_path": str(parts[2]), "memory_mib": 64,
                                      "boot_timeout_ms": int(200000 * SLOW), "jail": jail}))
        config.chmod(0o644)
        child = subprocess.Popen(self.argv("run", "--keep", "--name", name, "--config", config, "--", "true"),
                                 env=self.env(libexec), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, start_new_session=True)
        self.children.append(child)
        child.vm, child.libexec = name, libexec
        return child

    def start(self, name, act, jail="auto", until_end=False, filtered=False, **plan):
        """Starts a VM of intruders and waits until they have done what the plan says: {role: Outcome}. One that becomes
        ready stays when the command is through. until_end: none of the VM may be left by then."""
        child = self.launch(name, self.libexec(name, act=act, **plan), jail=jail, filtered=filtered)

        def done():
            log = self.log(name)
            outcomes = {role: Outcome(log, role) for role in ROLES[self.backend]}
            if child.poll() is not None and act != "ready" and not until_end:
                raise Failure(f"ironclaw ended with {child.returncode}: {child.stdout.read()[-2000:]!r}\n{log[-1500:]}")
            if until_end and child.poll() is not None:
                return outcomes
            return outcomes if all(o.ended for o in outcomes.values()) else None
        return until(done, 60, f"the end of the attempts of {name}")

    def log(self, name):
        try:
            return (self.state_dir(name) / "monitor.log").read_text("utf-8", "replace")
        except OSError:
            return ""

    def record(self, name):
        return json.loads((self.state_dir(name) / "record.json").read_text())

    def pid(self, name):
        """Of the process of the VM that is most like a monitor, as the host sees it."""
        needle = os.fsencode(str(self.base / f"x-{name}")) + b"/"
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    if Path(f"/proc/{entry}/cmdline").read_bytes().startswith(needle):
                        return int(entry)
                except OSError:
                    pass
        raise Failure(f"no process of {name}")

    @staticmethod
    def lives(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
        except OSError:
            return False

    def end(self):
        """Ends all VMs; nothing may be left of them."""
        for child in self.children:
            if child.poll() is None:
                os.kill(child.pid, signal.SIGINT)
            try:
                child.wait(20 * SLOW)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            result = self.ic("rm", "-f", child.vm, libexec=child.libexec)
            assert result.returncode in (0, 125), result
        left = [str(p) for top in ("run", "state/vms") for p in (self.home / top).rglob("*") if p.name != "tsc"]
        names = {child.vm for child in self.children}
        assert not [p for p in left if names & set(Path(p).parts)], left
        self.children.clear()

    def close(self):
        for child in self.children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        for name in [child.vm for child in self.children]:
            self.ic("rm", "-f", name)
        for s in (self.tcp, self.udp, self.path, self.abstract):
            s.close()
        if self.bystander.poll() is None:
            self.bystander.kill()
        self.bystander.wait()
