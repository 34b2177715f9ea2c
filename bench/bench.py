#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: what IronClaw adds to its peers, as ratios measured in one interleaved run.

    bench/bench.py [--rounds N] [--build DIR] [--backend B] [--json FILE] [boot|exec|vsock|kernels|jail...]

Each comparison alternates between its sides, so that both see the same noise of the machine, and takes medians.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import harness  # noqa: E402

MARKER = b"IRONCLAW-BENCH-PID1"
PORT = 5000


class Table:
    def __init__(self):
        self.rows, self.passed = [], True

    def add(self, what, how, value, unit, target=None, better="lower", **more):
        ok = None if target is None else (value <= target if better == "lower" else value >= target)
        self.passed &= ok is not False
        self.rows.append({"what": what, "how": how, "value": value, "unit": unit, "target": target, "better": better,
                          "met": ok, **more})
        goal = "" if target is None else f"   target {'<=' if better == 'lower' else '>='} {target:g}: " + \
            ("met" if ok else "MISSED")
        print(f"{what:<52} {value:10.2f} {unit}{goal}\n    {how}", flush=True)


def timed(function):
    started = time.monotonic()
    function()
    return time.monotonic() - started


def compare(rounds, sides):
    """sides: {name: function() -> seconds}; {name: [values]} of interleaved rounds, after one that does not count."""
    values = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, function in sides.items():
            value = function()
            if i > 0:
                values[name].append(value)
    return values


# ---- bare boot -------------------------------------------------------------------------------------------------------

def bare_initramfs(image, build, target):
    """The image's initramfs with another /init."""
    init = harness.build_static(HERE / "marker-init.c", build / "bench/marker-init")
    return harness.initramfs_with(image, {"init": (0o100755, init.read_bytes())}, target, compress=True)


def qemu_argv(t):
    """What the qemu backend started, of a VM that runs now."""
    for pid, command in t.processes().items():
        if "qemu-system" in command.split(" ")[0]:
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    raise SystemExit("bench: no QEMU process to compare with")


def bare_argv(argv, image, initrd):
    """The same machine, processor, memory and kernel command line; no device besides a serial port."""
    kept = [argv[0], "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", str(image / "vmlinux"), "-initrd", str(initrd)]
    takes = ("-M", "-machine", "-accel", "-cpu", "-m", "-smp", "-object", "-append", "-bios", "-global", "-L")
    for option, value in zip(argv[1:], argv[2:]):
        if option in takes and not (option == "-object" and "memory-backend" not in value):
            kept += [option, value]
    return kept


def bare_boot(argv):
    """Seconds from QEMU's start to the first line of PID 1."""
    started = time.monotonic()
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        seen = b""
        while MARKER not in seen:
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                raise SystemExit(f"bench: the bare boot ended without its marker: {seen[-500:]!r}")
            seen = (seen + data)[-65536:]
        return time.monotonic() - started
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def image_dir(t, image="base"):
    return (t.home / "data/images/names" / image).resolve()


def boot(t, table, rounds):
    t.ic("run", "--cold", "--keep", "--name", "model", "--", "true", rc=0)
    argv = qemu_argv(t)
    t.ic("rm", "-f", "model", rc=0)
    image = image_dir(t)
    bare = bare_argv(argv, image, bare_initramfs(image, t.build, t.work / "bare-initramfs"))
    values = compare(rounds, {
        "run": lambda: timed(lambda: t.ic("run", "--cold", "--", "true", rc=0)),
        "bare": lambda: bare_boot(bare),
    })
    run, bare_s = (statistics.median(values[k]) for k in ("run", "bare"))
    table.add("`ironclaw run --cold -- true` / bare boot to PID 1", f"medians of {rounds}: {run:.3f} s, {bare_s:.3f} s; "
              "same QEMU, kernel, command line; bare: same initramfs with a PID 1 that prints a line, serial port only",
              run / bare_s, "times", 1.25, values=values)


# ---- exec ------------------------------------------------------------------------------------------------------------

def lines(data):
    return [float(x) for x in data.split()]


def host_program(name, t, *flags):
    """A benchmark program on the host, with the build tree's library."""
    target = t.build / "bench" / name
    target.parent.mkdir(exist_ok=True)
    lib = next(t.build.rglob("libironclaw.so")).parent
    subprocess.run(["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{harness.ROOT}/include", "-o",
                    target, HERE / f"{name}.c", f"-L{lib}", f"-Wl,-rpath,{lib}", "-lironclaw", *flags], check=True)
    return target


def execs(t, table, rounds):
    inside = harness.build_static(HERE / "spawn-true.c", t.build / "bench/spawn-true")
    outside = host_program("exec-true", t)
    with t.vm() as name:
        t.ic("cp", inside, f"{name}:/tmp/spawn-true", rc=0)
        values = {"guest": [], "library": [], "cli": []}
        for i in range(rounds + 1):
            guest = lines(t.ic("exec", name, "--", "/tmp/spawn-true", "20", rc=0).out)
            library = lines(subprocess.run([outside, name, "20"], env=t.env, check=True, stdout=subprocess.PIPE).stdout)
            cli = [timed(lambda: t.ic("exec", name, "--", "/bin/true", rc=0)) * 1e6 for _ in range(5)]
            if i > 0:
                values["guest"] += guest
                values["library"] += library
                values["cli"] += cli
    medians = {k: statistics.median(v) / 1e3 for k, v in values.items()}
    how = f"medians of {rounds} rounds: {{:.2f}} ms from the host, {medians['guest']:.2f} ms for fork+exec+wait in the guest"
    table.add("exec of /bin/true added by ic_vm_exec", how.format(medians["library"]),
              medians["library"] - medians["guest"], "ms", 3.0, values=values)
    table.add("exec of /bin/true added by `ironclaw exec`", how.format(medians["cli"]) + "; with the command's own start",
              medians["cli"] - medians["guest"], "ms")


# ---- vsock -----------------------------------------------------------------------------------------------------------

def vsock(t, table, rounds):
    program = harness.build_static(HERE / "vsock-stream.c", t.build / "bench/vsock-stream")
    mib, pings = 64, 2000
    with t.vm("v", "--guest-seccomp", "permissive") as name:  # else commands have no vsock
        t.ic("cp", program, f"{name}:/tmp/vsock-stream", rc=0)
        server = t.start("exec", name, "--", "/tmp/vsock-stream", "serve", PORT)
        assert server.stdout.readline() == b"listening\n", server.stderr.read()
        path = t.home / "run" / name / "v"

        def client(verb, count):
            result = subprocess.run([program, verb, path, str(PORT), str(count)], check=True, stdout=subprocess.PIPE)
            return lines(result.stdout)

        values = compare(rounds, {
            "to guest": lambda: mib * 1048576 / 1e6 / client("send", mib)[0],
            "from guest": lambda: mib * 1048576 / 1e6 / client("receive", mib)[0],
            "ping": lambda: client("ping", pings),
            "here": lambda: lines(subprocess.run([program, "here", str(pings)], check=True,
                                                 stdout=subprocess.PIPE).stdout),
        })
        client("quit", 0)
        server.wait(10)
    for side in ("to guest", "from guest"):
        table.add(f"vsock stream {side}", f"median of {rounds} streams of {mib} MiB, C program on both ends",
                  statistics.median(values[side]), "MB/s", 120, "higher", values=values[side])
    trips = sorted(x for run in values["ping"] for x in run)
    p99 = trips[int(len(trips) * 0.99)]
    medians = [statistics.median(run) for run in values["ping"]]
    table.add("vsock 64-byte round trip, p50", f"of the quietest of {rounds} rounds of {pings}, as the target is for an idle machine; "
              f"of all: {statistics.median(trips):.0f} µs, p99 {p99:.0f} µs; between two processes of this machine: "
              f"{statistics.median(x for run in values['here'] for x in run):.1f} µs",
              min(medians), "µs", 150, values=medians, p99=p99)


# ---- kernels ---------------------------------------------------------------------------------------------------------

def kernels(t, table, rounds):
    images = t.json("image", "ls", "--json")
    images = images.get("images", []) if isinstance(images, dict) else images
    kinds = {}
    for image in images:
        kinds.setdefault(image.get("kernel_kind"), image["name"])
    if "fast" not in kinds or "debian" not in kinds:
        print("kernels: skipped, no image with the fast kernel; "
              "run: ironclaw kernel build && ironclaw image build --kernel fast base-fast")
        return
    values = compare(rounds, {k: (lambda n=n: timed(lambda: t.ic("run", "--cold", "--image", n, "--", "true", rc=0)))
                              for k, n in kinds.items()})
    fast, debian = (statistics.median(values[k]) for k in ("fast", "debian"))
    table.add("`run --cold` with the fast kernel / with Debian's", f"medians of {rounds}: {fast:.3f} s, {debian:.3f} s",
              fast / debian, "times", 0.6, values=values)


# ---- jail ------------------------------------------------------------------------------------------------------------

def without_filters(t):
    """A directory of our programs as IRONCLAW_LIBEXEC wants it, in which each is started with --no-seccomp."""
    launcher = harness.build_static(HERE / "without-filters.c", t.build / "bench/without-filters")
    libexec = t.work / "libexec"
    libexec.mkdir()
    for name in ("ironclaw-vmm", "ironclaw-vsock"):
        shutil.copy(Path(t.env["IRONCLAW_LIBEXEC"]) / name, libexec / f"{name}.real")
        shutil.copy(launcher, libexec / name)
    return libexec


def jail(t, table, rounds):
    """What the jail and the filters cost a start. The fast kernel where there is one: the shorter, the clearer."""
    libexec = without_filters(t)
    image = "base:fast" if (t.home / "data/images/names/base:fast").exists() else "base"

    def run(*options, **env):
        return timed(lambda: t.ic("run", "--cold", "--image", image, *options, "--", "true", rc=0, env=env or None))

    values = compare(rounds, {"with": lambda: run("--jail", "auto"),
                              "without": lambda: run("--jail", "off", IRONCLAW_LIBEXEC=str(libexec))})
    inside, outside = (statistics.median(values[k]) for k in ("with", "without"))
    added = (inside - outside) * 1e3
    # Whichever of the two is more generous: 3 ms, or a tenth.
    table.add("start with jail and filters / without", f"medians of {rounds}: {inside * 1e3:.1f} ms, {outside * 1e3:.1f} ms "
              f"({added:+.1f} ms), `ironclaw run --cold -- true`, {image}; without: --jail off, --no-seccomp",
              inside / outside, "times", max(1.1, (outside + 0.003) / outside), values=values)


PARTS = {"boot": boot, "exec": execs, "vsock": vsock, "kernels": kernels, "jail": jail}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--build", default="build")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", help="write the values there (default: BUILD/bench.json)")
    parser.add_argument("part", nargs="*", help="boot exec vsock kernels jail")
    options = parser.parse_args()
    options.timeout = 3600
    for part in options.part:
        if part not in PARTS:
            parser.error(f"no part '{part}'; there are: {' '.join(PARTS)}")
    if not shutil.which("ironclaw"):
        parser.error("no ironclaw in PATH; use make bench")
    table = Table()
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, load {load:.1f}"
          + ("  (not idle: expect noise)" if load > 0.5 else ""))
    with contextlib.closing(harness.Context("bench", options)) as t:
        for part in options.part or PARTS:
            PARTS[part](t, table, options.rounds)
    path = Path(options.json or Path(options.build) / "bench.json")
    path.write_text(json.dumps({"load": load, "results": table.rows}, indent=1))
    print(f"values: {path}")
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
