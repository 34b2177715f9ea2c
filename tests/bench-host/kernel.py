# SPDX-License-Identifier: Apache-2.0
"""The test host's kernel, built once from Debian's linux-source and kept in the user's cache.

The key of the cache is everything that its bytes depend on: the source's version, kernel.config, compiler and linker.
IRONCLAW_BENCH_SOURCE names another source, as Debian packs it: linux-source-6.12.tar.xz of its backports, say.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "linux-source-6.1"
GIVEN = os.environ.get("IRONCLAW_BENCH_SOURCE")
TAR = Path(GIVEN or f"/usr/src/{PACKAGE}.tar.xz")
FRAGMENT = HERE / "kernel.config"
STEPS = 1600  # lines of make's output for this fragment; only the progress depends on it
BYTES_MIN = 2 << 30

# Code that an x86 kernel without PCI, network card, sound and graphics never compiles: two thirds of the source.
# Kconfig and make files stay, as the configuration reads them all.
UNUSED = ("Documentation", "arch/[!x]*", "arch/xtensa", "sound", "samples", "drivers/gpu", "drivers/net/*",
          "drivers/media", "drivers/staging", "drivers/infiniband", "drivers/usb", "drivers/iio", "tools/testing",
          "tools/perf")
ENDINGS = ("[ch]", "S", "rst", "dts", "dtsi", "json", "yaml", "txt", "svg")

# The bytes must not depend on who builds them and when.
ENV = {"KBUILD_BUILD_USER": "ironclaw", "KBUILD_BUILD_HOST": "ironclaw", "KBUILD_BUILD_TIMESTAMP": "2023-11-14",
       "KBUILD_BUILD_VERSION": "1", "MAKEFLAGS": "", "MFLAGS": "", "LC_ALL": "C"}


class Error(Exception):
    """The kernel can't be had; the text says why and what to do."""


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", "/root"), ".cache")
    return Path(base) / "ironclaw" / "bench-host"


def output(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def source_version():
    """What the folder of this kernel is named for, before its first hyphen; and what tells one source from another."""
    if not GIVEN:
        return output("dpkg-query", "-W", "-f", "${Version}", PACKAGE)
    with open(GIVEN, "rb") as tar:
        return f"{TAR.name.removesuffix('.tar.xz').rpartition('-')[2]}-{hashlib.file_digest(tar, 'sha256').hexdigest()}"


def cached():
    """Where this kernel is, or will be."""
    try:
        version = source_version()
        tools = [output(tool, "--version").splitlines()[0] for tool in ("gcc", "ld")]
    except (OSError, subprocess.CalledProcessError):
        version = ""
    if not version or not TAR.exists():
        raise Error(f"{GIVEN or PACKAGE} or a compiler is not there; run scripts/setup test")
    key = hashlib.sha256("\0".join([version, *tools, FRAGMENT.read_text()]).encode()).hexdigest()[:16]
    return cache_dir() / f"{version.partition('-')[0]}-{key}" / "vmlinux"


class Progress:
    """One line that changes on a terminal; elsewhere a line every 30 seconds."""

    def __init__(self):
        self.tty, self.shown, self.started = sys.stderr.isatty(), 0.0, time.monotonic()

    def show(self, text):
        now = time.monotonic()
        if now - self.shown >= (0.2 if self.tty else 30):
            self.shown = now
            line = f"bench-host kernel: {text}, {now - self.started:.0f} s"
            print(f"\r\033[K{line}" if self.tty else line, end="" if self.tty else "\n", file=sys.stderr, flush=True)

    def close(self, text):
        print(("\r\033[K" if self.tty else "") + f"bench-host kernel: {text}, {time.monotonic() - self.started:.0f} s",
              file=sys.stderr, flush=True)


def run(argv, what, progress, total=0):
    """Runs one step of the build; its last lines are the error's text."""
    child = subprocess.Popen(["nice", "-n", "10", *map(str, argv)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, errors="replace", env=dict(os.environ, **ENV))
    last, done = [], 0
    try:
        for line in child.stdout:
            last, done = [*last[-30:], line], done + 1
            progress.show(f"{what}, {min(99, done * 100 // total)} %" if total else what)
    finally:
        if child.poll() is None and sys.exc_info()[0]:
            child.kill()
        child.stdout.close()
        child.wait()
    if child.returncode != 0:
        raise Error(f"{what}: {argv[0]} ended with {child.returncode}:\n{''.join(last)}")


def configure(source, progress):
    run(["make", "-C", source, "ARCH=x86", "tinyconfig"], "configuring", progress)
    fragment = FRAGMENT.read_text()
    with open(source / ".config", "a", encoding="utf-8") as config:
        config.write(fragment)
    run(["make", "-C", source, "ARCH=x86", "olddefconfig"], "configuring", progress)
    final = set((source / ".config").read_text().splitlines())
    for line in fragment.splitlines():
        if line.startswith("CONFIG_") and line not in final:
            raise Error(f"{FRAGMENT}: '{line}' did not survive in the configuration")
        if line.startswith("# CONFIG_") and any(x.startswith(line.split()[1] + "=") for x in final):
            raise Error(f"{FRAGMENT}: '{line}', but another option needs it")


def build(target):
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent.parent).free < BYTES_MIN:
        raise Error(f"{target.parent.parent}: less than {BYTES_MIN >> 20} MiB free for the kernel's build")
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="build.", dir=target.parent.parent) as work:
        source = Path(work) / "source"
        source.mkdir()
        unused = [f"--exclude=*/{folder}/*.{ending}" for folder in UNUSED for ending in ENDINGS]
        run(["tar", "-xJf", TAR, "-C", source, "--strip-components=1", "--no-same-owner", "--checkpoint=2000",
             *unused], "unpacking", progress)
        configure(source, progress)
        run(["make", "-C", source, "ARCH=x86", f"-j{len(os.sched_getaffinity(0))}", "vmlinux"], "compiling", progress,
            STEPS)
        result = Path(work) / "result"
        result.mkdir()
        run(["objcopy", "-S", "-R", ".comment", source / "vmlinux", result / "vmlinux"], "stripping", progress)
        shutil.copy(source / ".config", result / "config")
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(target.parent)
        result.rename(target.parent)
    progress.close(f"{target}")


def vmlinux():
    """The kernel's path; builds it if it is not there. One build at a time."""
    target = cached()
    if target.exists():
        return target
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent.parent / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            print("bench-host kernel: not built yet; once, 5 to 15 minutes on two cores", file=sys.stderr, flush=True)
            build(target)
    return target


if __name__ == "__main__":
    try:
        print(vmlinux())
    except Error as e:
        sys.exit(f"bench-host: {e}")
