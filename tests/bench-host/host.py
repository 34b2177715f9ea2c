# SPDX-License-Identifier: Apache-2.0
"""One command in the test host: a Linux with a working /dev/kvm, in QEMU's TCG with AMD's SVM emulated.

It sees this machine's files as they are, and can't change them: what it writes is gone with it. HACKING.md tells more.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

import harness  # noqa: E402
import kernel  # noqa: E402

POLL_S = 0.02
PR_SET_PDEATHSIG = 1
TIMED_OUT = 124
STOOD_STILL = 123
STILL_S = 180  # without a sign of life from PID 1's child, which has nothing else to do
SLOW = "12"  # how many times longer tests wait there


class Error(Exception):
    """The test host did not come up or broke; the text says how."""


def hardware_kvm():
    """Whether this machine is itself what the test host stands in for."""
    try:
        flags = next(line for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return False
    return bool({"vmx", "svm"} & set(flags)) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def tsc_khz(build):
    sources = [HERE / "tsc-khz.c", ROOT / "src/orchestrator/backends/tsc.c"]
    program = build / "bench-host/tsc-khz"
    if not program.exists() or program.stat().st_mtime < max(s.stat().st_mtime for s in sources):
        program.parent.mkdir(exist_ok=True)
        part = program.with_suffix(f".{os.getpid()}")
        # Only tsc_khz_measure() is wanted; what the rest of that file calls is dropped with it.
        subprocess.run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-O2", f"-I{ROOT}/src", f"-I{ROOT}/include",
                        "-ffunction-sections", "-Wl,--gc-sections", "-o", part, *sources], check=True)
        part.rename(program)
    return int(subprocess.run([program], check=True, stdout=subprocess.PIPE).stdout)


def initramfs(build, target):
    init = harness.build_static(HERE / "init.c", build / "bench-host/init", "-D_GNU_SOURCE")
    target.write_bytes(harness.newc({"dev": (0o40755, b""), "init": (0o100755, init.read_bytes())}))
    return target


def qemu_argv(build, work, memory_mib, quiet, count):
    """SVM without XSAVE, as QEMU 7.2 does not intercept XSETBV; the TSC's rate told, as the calibration against an
    emulated timer is wrong when the machine is busy; one CPU, as several hang in this QEMU now and then."""
    khz = 1000000 if count else tsc_khz(build)
    cmdline = (f"console=ttyS0 {quiet}panic=-1 mitigations=off nokaslr no_timer_check random.trust_cpu=on "
               f"8250.nr_uarts=1 tsc=reliable tsc_early_khz={khz} lpj={khz * 10}")
    # A 9p path must not have a comma; QEMU reads two as one.
    job = str(work / "job").replace(",", ",,")
    return ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
            "-M", "microvm,acpi=off,rtc=on", "-accel", "tcg,thread=single", "-smp", "1", "-m", str(memory_mib),
            *(["-icount", "shift=0"] if count else []),
            "-cpu", "EPYC-Rome,+svm,-topoext,-xsave", "-kernel", str(kernel.vmlinux()),
            "-initrd", str(initramfs(build, work / "initramfs")), "-append", cmdline,
            "-serial", f"file:{str(work / 'console').replace(',', ',,')}",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
            "-monitor", f"unix:{str(work / 'monitor').replace(',', ',,')},server=on,wait=off",
            "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-device,fsdev=root,mount_tag=root",
            "-fsdev", f"local,id=job,path={job},security_model=none",
            "-device", "virtio-9p-device,fsdev=job,mount_tag=job"]


def die_with_parent(signo=signal.SIGKILL):
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signo))


class Tail:
    """Copies what is appended to a file."""

    def __init__(self, path, sink):
        path.touch()
        self.file, self.sink = open(path, "rb", buffering=0), sink

    def copy(self):
        while data := self.file.read(1 << 16):
            self.sink.write(data)
            self.sink.flush()


def write_job(job, argv, env, cwd, empty, keep):
    job.mkdir()
    lists = {"argv": argv, "env": [f"{k}={v}" for k, v in env.items()], "cwd": [cwd], "empty": empty, "keep": keep}
    for name, strings in lists.items():
        (job / name).write_bytes(b"".join(os.fsencode(str(s)) + b"\0" for s in strings))


def empty_paths():
    """Places of run-time files, those of this machine's VMs above all."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.environ.get("HOME", "/root"), ".local/state")
    return ["/tmp", "/run", os.path.join(base, "ironclaw")]


def kept_paths(build):
    """What lies below those and is needed in the test host all the same."""
    paths = [ROOT, build, harness.data_dir(), Path.cwd()]
    return [p for p in dict.fromkeys(path.resolve() for path in paths)
            if any(str(p).startswith(top + "/") for top in empty_paths())]


def registers(work):
    """Where its processor is, a few times: of a host that stands still, for whoever wants to know why."""
    try:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(2)
            monitor.connect(str(work / "monitor"))
            for _ in range(3):
                monitor.sendall(b"info registers\ninfo lapic\n")
                time.sleep(1)
            lines = monitor.recv(1 << 17).decode("utf-8", "replace").splitlines()
            return "\n".join(line for line in lines if line and not line.startswith(("FPR", "FCW", "XMM", "YMM", "(qemu)")))
    except OSError as e:
        return f"no monitor: {e}"


def stands_still(work):
    """Its kernel is up, since PID 1 has begun, and none of its programs runs any more."""
    beat = work / "job/alive"
    return beat.exists() and beat.stat().st_mtime > 0 and time.time() - beat.stat().st_mtime > STILL_S


def run_here(argv):
    """The same on a machine that needs no test host."""
    status = subprocess.run(argv, check=False).returncode
    return status if status >= 0 else 128 - status


def run(argv, build="build", memory_mib=3072, timeout=600, verbose=False, count=False):
    """Runs argv and returns its exit status; its output is this program's. verbose: so is the kernel's log."""
    build = Path(build).resolve()
    if not shutil.which("qemu-system-x86_64"):
        raise Error("no qemu-system-x86_64; run scripts/setup run")
    work = Path(tempfile.mkdtemp(prefix="ic-bench-host."))
    child = None
    try:
        write_job(work / "job", argv, {"IRONCLAW_TEST_SLOW": SLOW, **os.environ}, os.getcwd(), empty_paths(),
                  kept_paths(build))
        tails = [Tail(work / "job/out", sys.stdout.buffer), Tail(work / "job/err", sys.stderr.buffer)]
        if verbose:
            tails.append(Tail(work / "console", sys.stderr.buffer))
        command = qemu_argv(build, work, memory_mib, "" if verbose else "quiet ", count)
        with open(work / "qemu", "wb") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     preexec_fn=die_with_parent)
        if not count:  # where each instruction counts, this would, too
            (work / "job/alive").touch()
            os.utime(work / "job/alive", (0, 0))
        end = time.monotonic() + timeout
        while child.poll() is None and time.monotonic() < end:
            for tail in tails:
                tail.copy()
            if stands_still(work):
                print(f"bench-host: the emulated machine stands still\n{registers(work)}", file=sys.stderr)
                return STOOD_STILL
            time.sleep(POLL_S)
        for tail in tails:
            tail.copy()
        if child.poll() is None:
            print(f"bench-host: no end within {timeout} s", file=sys.stderr)
            return TIMED_OUT
        status = work / "job/status"
        if not status.exists():
            texts = [(work / name).read_text(errors="replace").strip()[-3000:] for name in ("qemu", "console")
                     if (work / name).exists()]
            raise Error(f"the test host ended without a status (QEMU {child.returncode}):\n" + "\n".join(texts))
        return int(status.read_text())
    finally:
        if child is not None and child.poll() is None:
            child.kill()
            child.wait()
        shutil.rmtree(work, ignore_errors=True)
