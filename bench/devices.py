#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vsock and block device of ironclaw-vmm beside QEMU's (with ironclaw-vsock, and its own virtio-blk), on a real KVM.

    bench/devices.py [--rounds N] [--image I] [--build DIR] [--json FILE] [vsock|block...]

One kept VM of each backend; the rounds alternate between them. Medians, and ratios of medians.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import bench  # noqa: E402
import harness  # noqa: E402

SIDES = ("ironclaw", "qemu")
STREAM_MIB, PINGS, READS = 32, 500, 500


def ratio(table, what, how, values, unit, better):
    """values: {"what backend": [numbers]}; ours to QEMU's, at least as good is the target."""
    medians = {side: statistics.median(values[f"{what} {side}"]) for side in SIDES}
    table.add(f"{what}, ironclaw / qemu", f"{medians['ironclaw']:.1f} and {medians['qemu']:.1f} {unit}; {how}",
              medians["ironclaw"] / medians["qemu"], "times", 1.0, better,
              values={side: values[f"{what} {side}"] for side in SIDES})


def vsock(t, table, vms, rounds):
    program = t.build / "bench/vsock-stream"
    for name in vms.values():
        t.ic("cp", program, f"{name}:/tmp/vsock-stream", rc=0)
        server = t.start("exec", name, "--", "/tmp/vsock-stream", "serve", bench.PORT)
        assert server.stdout.readline() == b"listening\n", server.stderr.read()

    def client(side, verb, count):
        path = t.home / "run" / vms[side] / "v"
        result = subprocess.run([program, verb, path, str(bench.PORT), str(count)], check=True, stdout=subprocess.PIPE)
        return bench.lines(result.stdout)

    def speed(side, verb):
        return STREAM_MIB * 1048576 / 1e6 / client(side, verb, STREAM_MIB)[0]

    measures = {}
    for side in SIDES:
        measures[f"vsock stream to the guest {side}"] = lambda side=side: speed(side, "send")
        measures[f"vsock stream from the guest {side}"] = lambda side=side: speed(side, "receive")
        measures[f"vsock 64-byte round trip {side}"] = lambda side=side: statistics.median(client(side, "ping", PINGS))
    values = bench.compare(rounds, measures)
    how = f"medians of {rounds} streams of {STREAM_MIB} MiB, C program on both ends"
    ratio(table, "vsock stream to the guest", how, values, "MB/s", "higher")
    ratio(table, "vsock stream from the guest", how, values, "MB/s", "higher")
    ratio(table, "vsock 64-byte round trip", f"median of {rounds} medians of {PINGS}, one after another", values, "µs",
          "lower")


def block(t, table, vms, rounds):
    program = t.build / "bench/block-read"
    for name in vms.values():
        t.ic("cp", program, f"{name}:/tmp/block-read", rc=0)

    def read(side, *args):
        return bench.lines(t.ic("exec", "-u", "root", vms[side], "--", "/tmp/block-read", *args, rc=0).out)

    measures = {}
    for side in SIDES:
        measures[f"block read stream {side}"] = \
            lambda side=side: STREAM_MIB * 1048576 / 1e6 / read(side, "stream", "/dev/vda", STREAM_MIB)[0]
        measures[f"block read of 4 KiB {side}"] = \
            lambda side=side: statistics.median(read(side, "random", "/dev/vda", READS))
    values = bench.compare(rounds, measures)
    ratio(table, "block read stream", f"medians of {rounds}; {STREAM_MIB} MiB of /dev/vda, O_DIRECT in the guest, "
          "128 KiB each, one at a time; the image is in the host's page cache", values, "MB/s", "higher")
    ratio(table, "block read of 4 KiB", f"median of {rounds} medians of {READS} at random places, O_DIRECT, one at a "
          "time", values, "µs", "lower")


PARTS = {"vsock": vsock, "block": block}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image", default=None)
    parser.add_argument("--build", default="build")
    parser.add_argument("--json", help="write the values there")
    parser.add_argument("--prepare", action="store_true", help="only compile what it needs")
    parser.add_argument("part", nargs="*", help=" ".join(PARTS))
    options = parser.parse_args()
    options.timeout, options.backend = 3600, "auto"
    for source, flags in (("vsock-stream", []), ("block-read", ["-D_GNU_SOURCE"])):
        harness.build_static(HERE / f"{source}.c", Path(options.build).resolve() / "bench" / source, *flags)
    if options.prepare:
        return 0
    table = bench.Table()
    print(f"{os.uname().nodename}: Linux {os.uname().release}, {os.cpu_count()} CPU, image {options.image or 'base'}")
    with contextlib.closing(harness.Context("bench", options)) as t:
        with contextlib.ExitStack() as stack:
            permissive = ("--guest-seccomp", "permissive")  # else commands have no vsock
            vms = {side: stack.enter_context(t.vm(f"b-{side}", "--backend", side, *permissive)) for side in SIDES}
            for part in options.part or PARTS:
                PARTS[part](t, table, vms, options.rounds)
    if options.json:
        Path(options.json).write_text(json.dumps({"results": table.rows}, indent=1))
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
