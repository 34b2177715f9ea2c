#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Starts of a VM: cold, from a template, from a pool; from the request to the first byte of the command's output.

    bench/clone.py [--rounds N] [--backend B] [--image I] [--build DIR] [--json FILE]

`make bench-clone` runs it in the test host with our monitor, and here with QEMU. Rounds alternate between the sides;
medians, and ratios of medians. bench/clone-run.c does the measuring, with libironclaw; beside it the command as users
have it. With IRONCLAW_FIRECRACKER_BIN Firecracker starts clones of a template of its own in the same rounds.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import bench  # noqa: E402
import harness  # noqa: E402

PHASES = ("look", "claim", "spawn", "load", "ready", "identity")
WAYS = ("cold", "template", "pool")
FIRECRACKER = os.environ.get("IRONCLAW_FIRECRACKER_BIN")
POOL_SIZE = 2


class Start:
    """One way to start a VM."""

    def __init__(self, t, program, backend, way):
        self.t, self.program, self.backend, self.way = t, program, backend, way
        self.name = f"{backend} {way}"

    @contextlib.contextmanager
    def pool(self):
        """A pool that is full. There is none but while one of its VMs is measured: filling it takes the CPU, too."""
        if self.way != "pool":
            yield
            return
        name = self.t.ic("pool", "start", "-n", POOL_SIZE, "--backend", self.backend, rc=0, timeout=300).text.split()[0]
        try:
            yield
        finally:
            self.t.ic("pool", "stop", name, rc=0)

    def run(self):
        """{phase: ms} of one, with the whole of the command (`cli`) of another."""
        cold = self.way == "cold"
        argv = [self.program, self.backend, self.t.image, "cold" if cold else "template"]
        with self.pool():
            result = subprocess.run(argv, check=False, env=self.t.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self._check_pool()
        if result.returncode != 0:
            raise SystemExit(f"bench: {self.name}: {result.stderr.decode()}")
        told = json.loads(result.stdout)
        origin = told["vm"]["origin"]
        if bool(origin) == cold:
            raise SystemExit(f"bench: {self.name}: its origin is '{origin}'")
        values = {k: told[k] / 1e3 for k in ("total", "exec", "first_byte", "destroy")}
        values.update({phase: told["vm"]["phases_us"][phase] / 1e3 for phase in PHASES})
        options = ["--backend", self.backend, *(["--cold"] if cold else [])]
        with self.pool():
            values["cli"] = bench.timed(lambda: self.t.ic("run", *options, "--", "true", rc=0)) * 1e3
            self._check_pool()
        return values

    def _check_pool(self):
        """That one of its VMs was taken: else it would be a start from the template."""
        pools = self.t.json("pool", "ls", "--json") if self.way == "pool" else []
        if any(pool["handed_over"] != 1 for pool in pools):
            raise SystemExit(f"bench: {self.name}: no VM was taken: {pools}")


def on_9p(path):
    """As all of this machine's files are in the test host, where each open() is a question to QEMU."""
    return subprocess.run(["stat", "-f", "-c", "%T", path], check=True, stdout=subprocess.PIPE).stdout.strip() == b"v9fs"


def starts(t, program, options):
    ways = [way for way in WAYS if way not in options.without.split(",")]
    found = [Start(t, program, t.backend, way) for way in ways]
    if FIRECRACKER:
        t.env["IRONCLAW_FIRECRACKER"] = FIRECRACKER
        found.append(Start(t, program, "firecracker", "template"))
    return found


def print_phases(values):
    """One line for each way, medians: where the time goes."""
    columns = (*PHASES, "exec", "first_byte", "total", "cli", "destroy")
    width = max(map(len, values)) + 1
    print("\n" + "ms".ljust(width) + "".join(c.rjust(11) for c in columns))
    for name, rows in values.items():
        print(name.ljust(width) + "".join(f"{statistics.median(row[c] for row in rows):11.1f}" for c in columns))
    print()


def report(table, backend, values, options):
    def median(name, column):
        return statistics.median(row[column] for row in values[name])

    how = f"medians of {options.rounds}, in turn; {backend}, image {options.image}"
    # What an emulated processor takes in place of hardware is the same in the numerator and the denominator, or not.
    target = 1 / 5 if backend == "qemu" else 1 / 20
    cold, clone, pool = (f"{backend} {way}" for way in WAYS)
    for column, what in (("total", "request to first byte"), ("cli", "`ironclaw run -- true`")):
        if cold in values and clone in values:
            table.add(f"clone / cold, {what}", f"{median(clone, column):.1f} ms, {median(cold, column):.1f} ms; {how}",
                      median(clone, column) / median(cold, column), "times", target if column == "total" else None)
        if pool in values and clone in values:
            table.add(f"pool / clone, {what}", f"{median(pool, column):.1f} ms, {median(clone, column):.1f} ms; {how}",
                      median(pool, column) / median(clone, column), "times", 0.5 if column == "total" else None)
    if "firecracker template" in values and clone in values:
        ours, theirs = ([row["spawn"] + row["load"] for row in values[name]] for name in (clone, "firecracker template"))
        table.add("process, load and resume / Firecracker's", f"{statistics.median(ours):.1f} ms, "
                  f"{statistics.median(theirs):.1f} ms; same guest, each with a snapshot of its own; {how}",
                  statistics.median(ours) / statistics.median(theirs), "times", 0.7)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--image", default="base")
    parser.add_argument("--build", default="build")
    parser.add_argument("--without", default="", help="leave out cold, template or pool")
    parser.add_argument("--json", help="write the values there")
    parser.add_argument("--prepare", action="store_true", help="only compile what it needs")
    options = parser.parse_args()
    options.timeout = 7200
    table = bench.Table()
    with contextlib.closing(harness.Context("bench", options)) as t:
        program = bench.host_program("clone-run", t, "-pthread")
        if options.prepare:
            return 0
        print(f"{platform.node()}: Linux {platform.release()}, {os.cpu_count()} CPU, backend {t.backend}, load "
              f"{os.getloadavg()[0]:.1f}")
        if on_9p(t.image_dir()):
            t.own_store()
            print("image and templates: in memory, where a machine of its own has them in its page cache")
        sides = starts(t, program, options)
        for backend in dict.fromkeys(side.backend for side in sides if side.way != "cold"):
            t.ic("template", "build", "-q", "--backend", backend, rc=0, timeout=600)
        values = bench.compare(options.rounds, {side.name: side.run for side in sides})
        print_phases(values)
        report(table, t.backend, values, options)
    if options.json:
        Path(options.json).write_text(json.dumps({"results": table.rows, "values": values}, indent=1))
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
