#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Boot on a real KVM: ironclaw-vmm beside its peers, same kernel, initramfs, command line, 1 vCPU, 128 MiB.

    bench/boot.py [--rounds N] [--image I] [--build DIR] [--profile] [--json FILE]

Peers: QEMU's microvm always; kvmtool and Firecracker where IRONCLAW_BENCH_LKVM (with IRONCLAW_BENCH_BZIMAGE, the same
kernel as a bzImage: it loads no ELF) and IRONCLAW_BENCH_FIRECRACKER name their programs. `make bench-boot` runs it in
the test host. Rounds alternate between the peers; medians, and ratios of medians. bench/launch.c does the measuring.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import bench  # noqa: E402
import harness  # noqa: E402

RAM_MIB, SIGN_S = 128, 60
READY_PORT = 1025  # WIRE_READY_PORT
# Like the product's, and quiet: each character of the kernel's log costs every monitor its exits.
CMDLINE = "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on cryptomgr.notests"
AGENT = ("ironclaw.root=/dev/vda ironclaw.rootfstype=erofs ironclaw.overlay=tmpfs ironclaw.overlay_mib=64 "
         "ironclaw.hostname=bench")
# The guest of kvmtool's flat binaries, in real mode: mov dx, 0x3f8; mov al, '~'; out (3 times); cli; hlt; jmp to hlt.
FLAT = bytes.fromhex("baf803b07eeeeeeefaf4ebfd")


class Lab:
    """Files that all peers get."""

    def __init__(self, options, work):
        self.work, self.build = Path(work), Path(options.build).resolve()
        self.image = (harness.data_dir() / "images/names" / options.image).resolve()
        if not self.image.is_dir():
            raise SystemExit(f"bench: no image {options.image}; run: ironclaw image build, or make image")
        self.acpi = json.loads((self.image / "manifest.json").read_text())["kernel"].get("kind") != "fast"
        self.kernel, self.rootfs = self.image / "vmlinux", self.image / "rootfs.erofs"
        self.initrd = bench.bare_initramfs(self.image, self.build, self.work / "initramfs")
        self.launch = self.compile("launch", "launch.c", "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra",
                                   "-Werror")
        self.tiny = self.compile("first-instruction", "first-instruction.S", "-nostdlib", "-static",
                                 "-Wl,-n,-Ttext=0x100000,--build-id=none")
        self.flat = self.work / "flat"
        self.flat.write_bytes(FLAT)

    def compile(self, name, source, *flags):
        target = self.build / "bench" / name
        target.parent.mkdir(exist_ok=True)
        if not target.exists() or target.stat().st_mtime < (HERE / source).stat().st_mtime:
            subprocess.run(["gcc", *flags, "-o", target, HERE / source], check=True)
        return target

    def measure(self, sign, argv):
        """(ms to the sign, CPU ms, KiB resident besides RAM, VM exits)"""
        result = subprocess.run([self.launch, sign, str(RAM_MIB), str(SIGN_S), *map(str, argv)], check=False,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if result.returncode != 0:
            raise SystemExit(f"bench: {' '.join(map(str, argv))}\n{result.stderr.decode(errors='replace')[-3000:]}")
        us, cpu_us, kib, exits = map(int, result.stdout.split()[-4:])
        return us / 1000, cpu_us / 1000, kib, exits


class Peer:
    """One monitor; argv(kind) of a guest: first (first instruction), pid1, ready (agent), idle (up, not started)."""

    def __init__(self, lab, name, program):
        self.lab, self.name, self.program, self.helper = lab, name, program, None
        self.uds = lab.work / f"{name}.v"
        self.api = lab.work / f"{name}.api"

    def sign(self, kind):
        return {"first": "~~~", "pid1": bench.MARKER.decode(), "ready": f"{self.uds}_{READY_PORT}",
                "idle": f"+{self.api}"}[kind]

    def can(self, kind):
        return True

    def run(self, kind):
        for path in (self.uds, self.api):
            path.unlink(missing_ok=True)
        try:
            return self.lab.measure(self.sign(kind), self.argv(kind))
        finally:
            if self.helper:
                self.helper.kill()
                self.helper.wait()
                self.helper = None


class Firecracker(Peer):
    """Our monitor and Firecracker: the same configuration file."""

    def argv(self, kind):
        if kind == "idle":
            return [self.program, "--api-sock", self.api]
        lab = self.lab
        boot = {"kernel_image_path": str(lab.tiny if kind == "first" else lab.kernel), "boot_args": CMDLINE}
        config = {"boot-source": boot, "drives": [], "machine-config": {"vcpu_count": 1, "mem_size_mib": RAM_MIB}}
        if kind == "pid1":
            boot["initrd_path"] = str(lab.initrd)
        if kind == "ready":
            boot.update(initrd_path=str(lab.image / "initramfs"), boot_args=f"{CMDLINE} {AGENT}")
            config["drives"] = [{"drive_id": "root", "path_on_host": str(lab.rootfs), "is_root_device": False,
                                 "is_read_only": True}]
            config["vsock"] = {"guest_cid": 3, "uds_path": str(self.uds)}
            config["entropy"] = {}
        path = lab.work / f"{self.name}.{kind}.json"
        path.write_text(json.dumps(config))
        return [self.program, "--no-api", "--config-file", path, "--level", "Error"]


class Qemu(Peer):
    """microvm as fast as it gets: no PIT, no PIC, qboot, RAM in huge pages; shared RAM only for vhost-user (ready)."""

    def argv(self, kind):
        lab = self.lab
        machine = f"microvm,acpi={'on' if lab.acpi else 'off'},rtc=on,pit=off,pic=off,x-option-roms=off"
        argv = [self.program, "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-bios", "qboot.rom",
                "-M", machine + (",memory-backend=ram" if kind == "ready" else ""), "-accel", "kvm", "-cpu", "host",
                "-smp", "1", "-m", f"{RAM_MIB}M", "-serial", "stdio",
                "-kernel", lab.tiny if kind == "first" else lab.kernel,
                "-append", CMDLINE + (f" {AGENT}" if kind == "ready" else "")]
        if kind in ("pid1", "ready"):
            argv += ["-initrd", lab.initrd if kind == "pid1" else lab.image / "initramfs"]
        if kind == "idle":
            argv += ["-S", "-qmp", f"unix:{self.api},server=on,wait=off"]
        if kind == "ready":
            argv += ["-object", f"memory-backend-memfd,id=ram,size={RAM_MIB}M,share=on", "-blockdev",
                     f"driver=file,node-name=root,filename={lab.rootfs},read-only=on,locking=off", "-device",
                     "virtio-blk-device,drive=root", "-object", "rng-random,id=rng,filename=/dev/urandom",
                     "-device", "virtio-rng-device,rng=rng", "-chardev", f"socket,id=vsock,path={self.start_vsock()}",
                     "-device", "vhost-user-vsock-device,chardev=vsock"]
        return argv

    def start_vsock(self):
        """ironclaw-vsock is up before the clock starts, in QEMU's favour."""
        path = self.lab.work / "vhost"
        path.unlink(missing_ok=True)
        program = Path(os.environ["IRONCLAW_LIBEXEC"]) / "ironclaw-vsock"
        self.helper = subprocess.Popen([program, "--guest-cid", "3", "--uds-path", self.uds, "--socket", path])
        harness.until(path.exists, 10, "ironclaw-vsock's socket", step=0.005)
        return path


class Kvmtool(Peer):
    def can(self, kind):
        return kind in ("first", "pid1")

    def argv(self, kind):
        kernel = self.lab.flat if kind == "first" else os.environ["IRONCLAW_BENCH_BZIMAGE"]
        argv = [self.program, "run", "--name", f"bench{os.getpid()}", "-c", "1", "-m", str(RAM_MIB), "-n", "mode=none",
                "--console", "serial", "-k", kernel]
        return argv + ([] if kind == "first" else ["-i", self.lab.initrd, "-p", CMDLINE])


def peers(lab):
    found = [Firecracker(lab, "ironclaw-vmm", Path(os.environ["IRONCLAW_LIBEXEC"]) / "ironclaw-vmm"),
             Qemu(lab, "qemu", shutil.which("qemu-system-x86_64"))]
    if os.environ.get("IRONCLAW_BENCH_LKVM") and os.environ.get("IRONCLAW_BENCH_BZIMAGE"):
        found.append(Kvmtool(lab, "kvmtool", os.environ["IRONCLAW_BENCH_LKVM"]))
    if os.environ.get("IRONCLAW_BENCH_FIRECRACKER"):
        found.append(Firecracker(lab, "firecracker", os.environ["IRONCLAW_BENCH_FIRECRACKER"]))
    for peer in found:
        if not peer.program or not Path(peer.program).exists():
            raise SystemExit(f"bench: no {peer.name} at {peer.program}")
    return found


def rounds_of(found, kind, rounds):
    """{peer: [(ms, cpu, kib, exits)]}"""
    sides = {p.name: (lambda p=p: p.run(kind)) for p in found if p.can(kind)}
    return bench.compare(rounds, sides)


def median(values, name, column):
    return statistics.median(row[column] for row in values[name])


def add_ratios(table, what, how, values, column, unit, targets):
    """Our own value, and its ratio to each peer's."""
    ours = median(values, "ironclaw-vmm", column)
    each = ", ".join(f"{name} {median(values, name, column):.1f}" for name in values)
    for name in values:
        if name != "ironclaw-vmm" and median(values, name, column) > 0:
            table.add(f"{what} / {name}", f"{each} {unit}; {how}", ours / median(values, name, column), "times",
                      targets.get(name), values={n: [row[column] for row in rows] for n, rows in values.items()})
    return ours


def first_instruction(table, found, rounds):
    values = rounds_of(found, "first", rounds)
    add_ratios(table, "exec to first guest instruction", f"medians of {rounds}; a guest that writes to the serial "
               "port; from before exec to its bytes in our pipe (ironclaw-vmm writes the console every 5 ms)", values,
               0, "ms", {"qemu": 0.2})
    add_ratios(table, "CPU time until the first guest instruction", "the process's CPU clock then", values, 1, "ms", {})


def pid1(table, found, rounds):
    values = rounds_of(found, "pid1", rounds)
    how = f"medians of {rounds}"
    add_ratios(table, "exec to PID 1", f"{how}; PID 1 prints a line, to our pipe", values, 0, "ms",
               {"qemu": 0.8, "kvmtool": 0.65})
    add_ratios(table, "CPU time until PID 1", f"{how}; the process's CPU clock then, guest included", values, 1, "ms",
               {})
    add_ratios(table, "VM exits until PID 1", f"{how}; /sys/kernel/debug/kvm/PID-FD/exits then", values, 3, "exits", {})
    kib = add_ratios(table, "resident besides guest RAM", f"{how}; smaps then, all mappings smaller than the RAM's",
                     values, 2, "KiB", {})
    table.add("resident besides guest RAM, ironclaw-vmm", "the same values", kib / 1024, "MiB", 1.5)


def ready(table, found, rounds):
    values = rounds_of(found, "ready", rounds)
    add_ratios(table, "exec to agent ready", f"medians of {rounds}; the image's own initramfs, root drive, rng, vsock; "
               "until the agent connects to the ready port; QEMU's ironclaw-vsock already runs", values, 0, "ms", {})


def idle(table, found, rounds):
    values = rounds_of(found, "idle", rounds)
    ours = add_ratios(table, "CPU time until the API answers", f"medians of {rounds}; the process's CPU clock when its "
                      "socket accepts, no guest yet; QEMU: -S and QMP", values, 1, "ms", {})
    native = "hypervisor" not in Path("/proc/cpuinfo").read_text() and os.uname().nodename != "bench-host"
    table.add("CPU time until the API answers, ironclaw-vmm", "the same values" + ("" if native else
              "; of an emulated processor, no target here"), ours, "ms", 8 if native else None)


def exit_profile(found):
    """Where each peer's exits until PID 1 come from, by the tracer's histograms; one boot each."""
    tracing = Path("/sys/kernel/debug/tracing/events/kvm")
    hists = {"kvm_exit": "exit_reason", "kvm_pio": "port", "kvm_msr": "ecx", "kvm_mmio": "gpa"}
    for peer in found:
        for event, key in hists.items():
            (tracing / event / "trigger").write_text(f"hist:keys={key}.hex:sort=hitcount.descending")
        peer.run("pid1")
        print(f"\nexits until PID 1, {peer.name}")
        for event, key in hists.items():
            lines = [x for x in (tracing / event / "hist").read_text().splitlines() if "hitcount:" in x]
            print(f"  {event} by {key}: " + ", ".join(" ".join(x.replace("{", "").replace("}", "").split()[1::2][0:2])
                                                        for x in lines[:12]))
            (tracing / event / "trigger").write_text(f"!hist:keys={key}.hex:sort=hitcount.descending")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image", default="base:fast")
    parser.add_argument("--build", default="build")
    parser.add_argument("--profile", action="store_true", help="only: where the exits of one boot come from")
    parser.add_argument("--only", default="first_instruction,pid1,ready,idle")
    parser.add_argument("--json", help="write the values there")
    parser.add_argument("--prepare", action="store_true", help="only compile what it needs")
    options = parser.parse_args()
    if "IRONCLAW_LIBEXEC" not in os.environ:
        parser.error("no IRONCLAW_LIBEXEC; use make bench-boot, or scripts/env")
    table = bench.Table()
    print(f"{platform.node()}: Linux {platform.release()}, {os.cpu_count()} CPU, image {options.image}\n"
          f"kernel command line: {CMDLINE}")
    with tempfile.TemporaryDirectory(prefix="ic-boot.", dir=harness.short_tmp()) as work:
        lab = Lab(options, work)
        if options.prepare:
            return 0
        found = peers(lab)
        if options.profile:
            exit_profile(found)
            return 0
        for part in options.only.split(","):
            {"first_instruction": first_instruction, "pid1": pid1, "ready": ready, "idle": idle}[part](
                table, found, options.rounds)
    if options.json:
        Path(options.json).write_text(json.dumps({"results": table.rows}, indent=1))
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
