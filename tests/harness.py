# SPDX-License-Identifier: Apache-2.0
"""What every test gets: a home of its own, the ironclaw command in it, and a look at what is left behind.

A test is a function test_<name>(t) in tests/<suite>/test_*.py. It fails by raising (assert, t.fail), is skipped by
t.skip(reason), and passes by returning. When it returns, its home may hold nothing but what the harness put there: no
process, socket, mount, record or temporary file.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Waits are for real machines; where everything is slower (a test host that is emulated itself), so much longer.
SLOW = float(os.environ.get("IRONCLAW_TEST_SLOW", "1"))
BOOT_TIMEOUT_MS = 10000  # on hardware, unless SLOW says otherwise

# What runs the VM, as on its command line.
MONITORS = {"qemu": "qemu-system", "ironclaw": "ironclaw-vmm",
            "firecracker": os.path.basename(os.environ.get("IRONCLAW_FIRECRACKER", "firecracker"))}

# The exit status of ironclaw itself; everything else is the command's.
USAGE, TIMED_OUT, FAILED, NOT_EXECUTABLE, NOT_FOUND = 2, 124, 125, 126, 127


# What became of an attempt to break out, and what stopped it. See Context.attempt().
BLOCKED, GOT_THROUGH, NOT_MADE = "blocked", "got through", "not made"
HOW = {
    "device reset": "the device is marked, or off, until its driver begins anew",
    "refused": "an answer that says no",
    "ignored": "nothing happened, or the queue is not served until its driver begins anew",
    "served in full": "odd, but within the rules: answered inside the guest's own memory",
    "limit": "went on as far as a limit: of a table, a queue, a file, the guest's own memory and processors",
    "seccomp": "the system call filter",
    "jail": "namespaces, an empty root, no privileges, cgroups",
    "guest stopped": "harmed only the guest that did it, which was gone on demand",
    "ended the VM": "its processes ended, in order and with a cause",
}


class Skip(Exception):
    """The test can't run here; the text says why."""


class Failure(AssertionError):
    """The product did something else than it should."""


class Result:
    def __init__(self, argv, rc, out, err):
        self.argv, self.rc, self.out, self.err = argv, rc, out, err

    @property
    def text(self):
        return self.out.decode("utf-8", "replace")

    @property
    def errors(self):
        return self.err.decode("utf-8", "replace")

    def __str__(self):
        return f"{' '.join(self.argv)[:300]}\n  status {self.rc}\n  stdout {self.out[-1500:]!r}\n  stderr {self.err[-1500:]!r}"


def data_dir():
    """The image store that all tests share: the user's own."""
    home = os.environ.get("IRONCLAW_HOME")
    if home:
        return Path(home) / "data"
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.environ.get("HOME", "/root"), ".local/share")
    return Path(base) / "ironclaw"


def short_tmp():
    """A directory whose path leaves room for unix sockets below it."""
    base = os.environ.get("TMPDIR", "/tmp")
    return base if len(base) <= 40 else "/tmp"


def build_static(source, target, *flags):
    """Compiles a program that runs in any guest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sources = [source, *(Path(flag) for flag in flags if flag.endswith(".c"))]
    if not target.exists() or target.stat().st_mtime < max(s.stat().st_mtime for s in sources):
        part = target.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        command = ["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-static", *flags, "-o", str(part),
                   str(source)]
        subprocess.run(command, check=True)
        part.rename(target)
    return target


def newc(files):
    """A cpio archive as the kernel unpacks it; files: {name: (mode, bytes)}. Behind another one its files win."""
    archive = b""
    for name, (mode, data) in [*files.items(), ("TRAILER!!!", (0, b""))]:
        fields = [1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
        archive += head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
    return archive


def initramfs_with(image, files, target, compress=False):
    """The initramfs of an image directory in which `files` replace those of the same names. LZ4 as the kernel reads it
    has no end, so the new archive can't just follow the packed one."""
    unpacked = subprocess.run(["lz4", "-dc", image / "initramfs"], check=True, stdout=subprocess.PIPE).stdout
    data = unpacked + b"\0" * (-len(unpacked) % 4) + newc(files)
    if compress:
        data = subprocess.run(["lz4", "-lc9"], check=True, input=data, stdout=subprocess.PIPE).stdout
    target.write_bytes(data)
    return target


def until(condition, seconds, what, step=0.05):
    """Waits for a condition that something else brings about; its value."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"not within {seconds * SLOW:g} s: {what}")
        time.sleep(step)


class Processes:
    """Processes that belong to a home: it is in their environment or on their command line."""

    @staticmethod
    def _read(pid, name):
        try:
            return Path(f"/proc/{pid}/{name}").read_bytes()
        except OSError:
            return b""

    @classmethod
    def of(cls, home):
        needle, found = os.fsencode(str(home)), {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            cmdline = cls._read(entry, "cmdline")
            values = [v.partition(b"=")[2] for v in cls._read(entry, "environ").split(b"\0") if v[:9] == b"IRONCLAW_"]
            in_env = any(v == needle or v.startswith(needle + b"/") for v in values)
            if in_env or needle + b"/" in cmdline or cmdline.rstrip(b"\0").endswith(needle):
                state = cls._read(entry, "stat").rpartition(b")")[2].split()
                if state and state[0] != b"Z":
                    found[int(entry)] = cmdline.replace(b"\0", b" ").decode("utf-8", "replace").strip()
        return found


def cgroups(home):
    """Groups of a home's VMs: their names end in a hash (FNV-1a) of its state directory; src/orchestrator/confine.c."""
    value = 2166136261
    for byte in os.fsencode(str(home / "state")):
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        tops = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    paths = [os.path.join(directory, name) for top in tops for directory, names, _ in os.walk(top) for name in names
             if name.endswith(f".{value:08x}")]
    once = {}
    for path in paths:  # a file system may be mounted at several places
        with contextlib.suppress(FileNotFoundError):
            once.setdefault(os.stat(path).st_ino, path)
    return list(once.values())


class Context:
    """One test's world."""

    def __init__(self, name, options):
        self.name, self.options = name, options
        self.build = Path(options.build).resolve()
        self.home = Path(tempfile.mkdtemp(prefix="ic.", dir=short_tmp()))
        self.work = self.home / "work"  # the test's own files
        self.tmp = self.home / "tmp"  # TMPDIR of ironclaw
        self.work.mkdir()
        self.tmp.mkdir()
        data = data_dir()
        if data.is_dir():
            (self.home / "data").symlink_to(data)
        self.env = dict(os.environ, IRONCLAW_HOME=str(self.home), TMPDIR=str(self.tmp), LC_ALL="C.UTF-8")
        self.image = getattr(options, "image", None) or "base"
        wanted = {"backend": options.backend, "image": self.image, "vcpu_count": getattr(options, "cpus", None)}
        self.config = {k: v for k, v in wanted.items() if v not in (None, "auto", "base")}
        if SLOW > 1:
            self.config["boot_timeout_ms"] = int(BOOT_TIMEOUT_MS * SLOW)
        self.write_config(self.config)
        self.cleanups = []
        self.kept = []  # of what cleanups looked at before they removed it
        self.attempts = []
        self.deadline = time.monotonic() + options.timeout * SLOW
        self._host = None

    # -- running ironclaw

    def write_config(self, config):
        path = self.home / "config.json"
        if config:
            path.write_text(json.dumps(config))
        elif path.exists():
            path.unlink()

    @property
    def host(self):
        """What doctor says of this machine."""
        if self._host is None:
            self._host = json.loads(self.ic("doctor", "--json").out)
        return self._host

    @property
    def backend(self):
        """The backend that VMs of this test get."""
        return self.host["backend"] if self.options.backend == "auto" else self.options.backend

    @property
    def isolation(self):
        """What must be said of them. Every backend uses hardware virtualization where it is there."""
        return self.host["isolation"]

    @property
    def monitor(self):
        """The name of the program that runs them."""
        return MONITORS[self.backend]

    def argv(self, *args):
        return [shutil.which("ironclaw") or str(self.build / "src/cli/ironclaw"), *map(str, args)]

    def remaining(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Failure(f"the test took longer than {self.options.timeout * SLOW:.0f} s")
        return left

    def ic(self, *args, stdin=b"", timeout=120, env=None, rc=None):
        """Runs ironclaw to its end; rc: the status that it must have."""
        argv = self.argv(*args)
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 env=dict(self.env, **(env or {})), start_new_session=True)
        try:
            out, err = child.communicate(stdin, timeout=min(timeout * SLOW, self.remaining()))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, err = child.communicate()
            raise Failure(f"no end within {timeout * SLOW:.0f} s: {Result(argv, 'none', out, err)}") from None
        result = Result(argv, child.returncode, out, err)
        if rc is not None and result.rc != rc:
            raise Failure(f"expected status {rc}: {result}")
        return result

    def start(self, *args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=None):
        """Starts ironclaw; it is killed at the end of the test if it still runs."""
        return self.start_other(self.argv(*args), stdin, stdout, stderr, env)

    def start_other(self, argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=None):
        """The same for any program."""
        child = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=dict(self.env, **(env or {})),
                                 start_new_session=True)
        self.cleanups.append(lambda: self._end(child))
        return child

    @staticmethod
    def _end(child):
        if child.poll() is None:
            child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            with contextlib.suppress(BrokenPipeError):  # what was written for one that had ended already
                if stream:
                    stream.close()

    @contextlib.contextmanager
    def vm(self, name="v", *options):
        """A kept VM, removed afterwards."""
        self.ic("run", "--keep", "--name", name, *options, "--", "true", rc=0)
        try:
            yield name
        finally:
            self.ic("rm", "-f", name)

    def sh(self, name, script, rc=0, **kwargs):
        """A shell script in a kept VM."""
        return self.ic("exec", *kwargs.pop("options", ()), name, "--", "sh", "-c", script, rc=rc, **kwargs)

    def json(self, *args):
        result = self.ic(*args, rc=0)
        try:
            return json.loads(result.out)
        except ValueError as e:
            raise Failure(f"not JSON ({e}): {result}") from None

    def error(self, *args, status, words, env=None, timeout=60):
        """ironclaw must fail with this status and one line on stderr that has all the words."""
        result = self.ic(*args, rc=status, env=env, timeout=timeout)
        lines = [line for line in result.errors.splitlines() if line.strip()]
        assert len(lines) == 1, f"expected one line: {result}"
        for word in words:
            assert word.lower() in lines[0].lower(), f"no '{word}' in the message: {lines[0]}"
        assert not result.out, f"output besides the error: {result}"
        return lines[0]

    # -- images

    def image_dir(self):
        """The directory of the image that the VMs run."""
        return (self.home / "data/images/names" / self.image).resolve()

    def digests(self):
        """The sha256 of each file of the image, computed here."""
        directory = self.image_dir()
        result = {}
        for path in sorted(directory.iterdir()):
            result[path.name] = subprocess.run(["sha256sum", path], check=True, stdout=subprocess.PIPE).stdout.split()[0]
        return result

    def own_store(self, copied=()):
        """Replaces the shared store by one with only this image, in which the files `copied` may be changed."""
        shared = self.image_dir()
        (self.home / "data").unlink()
        mine = self.home / "data/images" / shared.name
        names = self.home / "data/images/names"
        for directory in (self.home / "data", self.home / "data/images", mine, names):
            directory.mkdir(mode=0o700)
        for path in shared.iterdir():
            try:
                if path.name in copied:
                    raise OSError
                os.link(path, mine / path.name)
            except OSError:
                shutil.copy2(path, mine / path.name)
        (names / self.image).symlink_to(Path("..") / shared.name)
        self.cleanups.append(lambda: shutil.rmtree(self.home / "data"))
        return mine

    def own_data(self, *own):
        """Replaces the shared store by one in which these parts ("templates", "snapshots") are the test's own, and empty.
        What is being built there must be gone at the test's end."""
        shared, mine = (self.home / "data").resolve(), self.home / "data"
        mine.unlink()
        mine.mkdir(mode=0o700)
        for name in ("images", "kernels", "templates", "snapshots", "tsc"):
            if name in own:
                (mine / name / "names").mkdir(mode=0o700, parents=True)
                (mine / name).chmod(0o700)
            elif (shared / name).exists():
                (mine / name).symlink_to(shared / name)
        self.cleanups.append(lambda: self._end_data(own))
        return mine

    def unfinished(self):
        """What is in the middle of being built in stores of the test's own."""
        tops = [top for top in (self.home / "data").glob("*") if top.name in ("templates", "snapshots") and not top.is_symlink()]
        return [str(path) for top in tops for path in [*top.glob(".tmp-*"), *top.glob("names/.new")]]

    def _end_data(self, own):
        self.ic("ps")  # lets it remove what others left
        self.kept = [f"unfinished {path}" for path in self.unfinished()] if own else []
        shutil.rmtree(self.home / "data")

    # -- outcomes

    def attempt(self, group, what, outcome, how, backend=None):
        """Notes for the table at the end what became of one attempt, as it was observed. how: a key of HOW if it was
        blocked; why, if it was not made (no test fails for that); what was had, if it got through (the test fails).
        backend: of the VM, if it is not the test's."""
        assert outcome in (BLOCKED, GOT_THROUGH, NOT_MADE), outcome
        assert outcome != BLOCKED or how in HOW, f"'{how}' is no way to stop an attempt"
        self.attempts.append((backend or self.backend, group, what, outcome, how))

    def need_jail(self):
        """All of its stages but the group, for which a host may have no controllers. In a chroot, say, there are fewer."""
        detail = next(check for check in self.host["checks"] if check["name"] == "jail")["detail"]
        if any(f"{stage}: " in detail for stage in ("namespaces", "root", "user", "capabilities", "limits")):
            self.skip(f"this host's jail is {detail}")

    def skip(self, reason):
        raise Skip(reason)

    def fail(self, text):
        raise Failure(text)

    # -- the end

    def processes(self):
        return Processes.of(self.home)

    def leftovers(self):
        """What is left of VMs, as lines; the harness's own entries do not count."""
        lines = [f"process {pid}: {cmd[:160]}" for pid, cmd in self.processes().items()]
        lines += [f"cgroup {path}" for path in cgroups(self.home)]
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            lines += [f"mount {line.split()[1]}" for line in mounts if str(self.home) in line]
        for top in ("run", "state", "tmp"):
            for directory, dirs, files in os.walk(self.home / top):
                lines += [f"file {directory}/{name}" for name in files if not self._may_stay(name)]
                if top != "state" or directory.endswith("/vms"):
                    lines += [f"directory {directory}/{name}" for name in dirs]
        allowed = {"data", "config.json", "run", "state", "work", "tmp"}
        lines += [f"file {self.home}/{name}" for name in os.listdir(self.home) if name not in allowed]
        return lines + self.kept

    @staticmethod
    def _may_stay(name):
        # What was measured of this machine's clock, what was refused, who used how much: part of no VM.
        return name in ("tsc", "audit.ring", "share")

    def assert_clean(self, when, seconds=3):
        """Nothing is left; what is on its way out gets a moment."""
        with contextlib.suppress(Failure):
            until(lambda: not self.leftovers(), seconds, "clean")
        left = self.leftovers()
        if left:
            raise Failure(f"left behind {when}:\n    " + "\n    ".join(left[:20]))

    def close(self):
        """Ends whatever still runs and removes the home; returns what went wrong and what was left behind, or None."""
        wrong = []
        for cleanup in reversed(self.cleanups):
            try:
                cleanup()
            except Exception as e:  # pylint: disable=broad-except
                wrong.append(f"at the end of the test: {type(e).__name__}: {e}")
        self.cleanups.clear()
        try:
            self.assert_clean("at the end of the test")
        except Failure as e:
            wrong.append(str(e))
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        data = self.home / "data"
        if data.is_symlink():
            data.unlink()
        if not any(line.startswith("mount ") for line in self.leftovers()):
            shutil.rmtree(self.home, ignore_errors=True)
        return "\n".join(wrong) or None
