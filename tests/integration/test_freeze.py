# SPDX-License-Identifier: Apache-2.0
"""A guest that is about to be copied, and one that was: FREEZE, THAW and CLONE, spoken to the agent without libironclaw."""

import contextlib
import json
import os
import re
import struct
import time
import uuid

import frames
from harness import SLOW, until

SLEEPS_S = 1.0
FACTS = "hostname; date +%s; cat /etc/machine-id /proc/sys/kernel/random/boot_id /run/ironclaw/generation"


class Template:
    """A machine that was booted to be copied, made by hand: libironclaw would go on to copy it."""

    def __init__(self, t, words=""):
        self.t, self.uds, self.log = t, t.work / "v", t.work / "console"
        self.ready = frames.ReadyListener(self.uds)
        line = t.ic("run", "--", "cat", "/proc/cmdline", rc=0).text.strip()
        self.line = re.sub(r"ironclaw\.(tied|template)=\S+", "", line) + " ironclaw.template=1 " + words
        self.parts = []
        getattr(self, f"_start_{t.backend}")(t.image_dir())

    def _spawn(self, argv, log):
        with open(log, "wb") as out:
            self.parts.append(self.t.start_other(list(map(str, argv)), stdout=out, stderr=out))

    def _start_qemu(self, image):
        socket = self.t.work / "vhost"
        self._spawn([self.t.build / "src/vhost/ironclaw-vsock", "--guest-cid", 3, "--uds-path", self.uds, "--socket",
                     socket], self.t.work / "vsock.log")
        until(socket.exists, 10, "the vsock device listens")
        self._spawn(["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
                     "-global", "virtio-mmio.force-legacy=off",
                     "-M", "microvm,acpi=on,rtc=on,x-option-roms=off,memory-backend=ram", "-bios", "qboot.rom",
                     "-accel", "tcg,thread=single", "-cpu", "max,la57=off,erms=off,fsrm=off", "-m", "256M",
                     "-object", "memory-backend-memfd,id=ram,size=256M,share=on",
                     "-blockdev", f"driver=file,node-name=root,read-only=on,locking=off,filename={image}/rootfs.erofs",
                     "-chardev", f"socket,id=vsock,path={socket}", "-serial", f"file:{self.log}",
                     "-device", "virtio-blk-device,drive=root", "-device", "vhost-user-vsock-device,chardev=vsock",
                     "-kernel", image / "vmlinux", "-initrd", image / "initramfs", "-append", self.line],
                    self.t.work / "qemu.log")

    def _start_ironclaw(self, image):
        config = self.t.work / "config"
        config.write_text(json.dumps({
            "boot-source": {"kernel_image_path": f"{image}/vmlinux", "initrd_path": f"{image}/initramfs",
                            "boot_args": self.line},
            "drives": [{"drive_id": "root", "path_on_host": f"{image}/rootfs.erofs", "is_root_device": True,
                        "is_read_only": True}],
            "machine-config": {"vcpu_count": 1, "mem_size_mib": 256},
            "vsock": {"guest_cid": 3, "uds_path": str(self.uds)}}))
        self._spawn([self.t.build / "src/monitor/ironclaw-vmm", "--no-api", "--config-file", config], self.log)

    def console(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def ended(self):
        return self.parts[-1].poll() is not None

    def close(self):
        self.ready.close()
        for part in reversed(self.parts):
            part.terminate()
            part.wait()


@contextlib.contextmanager
def template(t, words=""):
    if t.backend not in ("qemu", "ironclaw"):
        t.skip(f"no machine made by hand with {t.backend}")
    machine = Template(t, words)
    try:
        yield machine
    finally:
        machine.close()


def refused(function, *words):
    try:
        value = function()
    except frames.Refused as e:
        for word in words:
            assert word in e.message, e
        return e
    raise AssertionError(f"not refused: {value}")


def clone_of(name, generation=None, **kwargs):
    return frames.clone_request(generation or os.urandom(16), time.time_ns(), name, **kwargs)


def test_a_template_runs_nothing_before_it_is_a_clone(t):
    with template(t, "ironclaw.tied=1") as machine:
        ready = machine.ready.accept()
        assert ready.version == 3
        refused(lambda: frames.run(machine.uds, "true"), "template")
        with frames.control(machine.uds) as control:
            control.ask(frames.PING)
            refused(lambda: control.ask(frames.THAW), "template")
        ready.close()  # means nothing yet, tied or not
        ready = machine.ready.accept()
        far = frames.clone_request(os.urandom(16), 2**64 - 1, "wrong")
        refused(lambda: ready.ask(frames.CLONE, far), "setting the clock")
        refused(lambda: frames.run(machine.uds, "true"), "template")  # still
        ready.close()

        ready, generation = machine.ready.accept(), os.urandom(16)
        request = frames.clone_request(generation, 1900000000 * 10**9, "clone-7", flags=frames.CLONE_TIED)
        ready.ask(frames.CLONE, request)
        name, now, machine_id, boot_id, told = frames.run(machine.uds, "sh", "-c", FACTS).split()
        assert name == "clone-7"
        assert 0 <= int(now) - 1900000000 < 60, now
        assert told == str(uuid.UUID(bytes=generation)), told
        assert machine_id == uuid.UUID(bytes=generation, version=4).hex, machine_id
        assert uuid.UUID(boot_id).version == 4 and boot_id != told
        script = "stat -c %a /etc/machine-id /run/ironclaw/generation; echo x >/proc/sys/kernel/random/boot_id || cat $_"
        rc, out = frames.finish(frames.start(machine.uds, ["bash", "-c", script], user="root"))
        assert out.split()[:2] == [b"444", b"444"], (rc, out)
        assert frames.run(machine.uds, "cat", "/proc/sys/kernel/random/boot_id").strip() == boot_id
        refused(lambda: frames.control(machine.uds).ask(frames.CLONE, clone_of("again")), "not frozen")
        assert not machine.ended()
        ready.close()
        until(machine.ended, 20, "a tied clone ends with its ready connection")


def test_a_clone_that_may_outlive_its_ready_connection(t):
    with template(t, "ironclaw.test_no_reseed=1") as machine:
        ready = machine.ready.accept()
        ready.ask(frames.CLONE, clone_of(""))
        assert "random numbers are those of its siblings" in machine.console()  # a switch for tests is heard
        assert frames.run(machine.uds, "hostname").strip() not in ("", "(none)")  # an empty name changes nothing
        ready.close()
        time.sleep(0.5)
        assert frames.run(machine.uds, "echo", "here") == "here\n"


def test_the_latest_clock_that_is_told_counts(t):
    def now():
        return float(frames.run(uds, "date", "+%s.%N"))

    def tell(seconds):
        with frames.control(uds) as control:
            control.ask(frames.TIME, struct.pack("<Q", int(seconds * 10**9)))

    with t.vm() as name:
        uds = t.home / "run" / name / "v"
        tell(1900000000)
        assert 1900000000 <= now() < 1900000000 + 60
        tell(1900000500)
        tell(1900000500 - 0.9)  # came late
        assert 1900000500 <= now()
        tell(1900000000)  # the host's clock was put back
        assert 1900000000 <= now() < 1900000000 + 60
        with frames.control(uds) as control:
            refused(lambda: control.ask(frames.TIME, b"\xff" * 8), "setting the clock")


# Adds the time to a file of its name, for ever.
WRITER = "while :; do date +%s%N >>/tmp/{0}; sleep 0.02; done >/dev/null 2>&1 &"
WRITERS = ("daemon", "mine", "top")


class Workload:
    """Commands of every kind in a VM of the product."""

    def __init__(self, uds):
        self.uds = uds
        self.counter = frames.start(uds, ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"])
        self.seen = b""
        frames.run(uds, "sh", "-c", WRITER.format("daemon"))
        # Root may leave its group: for one of its own, and for the top.
        for where, name in (("mine", "mine"), ("", "top")):
            frames.run(uds, "sh", "-c", f"mkdir -p /sys/fs/cgroup/{where}; echo $$ >/sys/fs/cgroup/{where}/cgroup.procs; "
                       + WRITER.format(name), user="root")
        until(lambda: len(self.times()) == 3, 10, "all have begun")

    def times(self):
        """When each wrote last."""
        files = " ".join(f"/tmp/{name}" for name in WRITERS)
        return [int(ns) for ns in frames.run(self.uds, "sh", "-c", f"tail -qn1 {files} 2>/dev/null || :").split()]

    def pauses(self, name):
        """How often it has been still for as long as the guest was frozen."""
        at = [int(ns) for ns in frames.run(self.uds, "cat", f"/tmp/{name}").split()]
        return sum(b - a >= SLEEPS_S * 1e9 for a, b in zip(at, at[1:]))

    def read(self, seconds):
        """What the counter says in so much time."""
        self.counter.sock.settimeout(0.2)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                kind, payload = self.counter.next()
                assert kind in (frames.STARTED, frames.STDOUT), kind
                if kind == frames.STDOUT:
                    self.seen += payload


def busy_ms(control):
    control.send(frames.STATS_REQ)
    kind, payload = control.next()
    assert kind == frames.STATS
    return struct.unpack("<QQQQQIIQQQ", payload)[7]


def test_nothing_runs_in_a_frozen_guest(t):
    with t.vm() as name:
        uds = t.home / "run" / name / "v"
        work = Workload(uds)
        with frames.control(uds) as control:
            for _ in range(3):
                control.ask(frames.FREEZE)
                control.ask(frames.FREEZE)
                before = busy_ms(control)
                time.sleep(SLEEPS_S)
                waiting = frames.start(uds, ["echo", "now"])
                assert busy_ms(control) - before < 300 * SLEEPS_S, "something was busy"
                waiting.sock.settimeout(0.3)
                try:
                    raise AssertionError(f"answered while frozen: {waiting.next()}")
                except TimeoutError:
                    waiting.sock.settimeout(frames.TIMEOUT)
                control.ask(frames.THAW)
                assert frames.finish(waiting) == (0, b"now\n")
                work.read(0.5)
        before = work.times()
        until(lambda: all(a < b for a, b in zip(before, work.times())), 10, "all go on")
        for writer in WRITERS:
            assert work.pauses(writer) >= 3, f"{writer} ran while it was frozen"
        numbers = work.seen.rsplit(b"\n", 1)[0].split(b"\n")
        assert len(numbers) > 5, numbers
        assert numbers == [b"%d" % (i + 1) for i in range(len(numbers))], f"output was lost: {numbers}"
        groups = frames.run(uds, "sh", "-c", "for p in $(cat /sys/fs/cgroup/cgroup.procs); do readlink /proc/$p/exe; done; :",
                            user="root")
        assert len(groups.splitlines()) == 1, f"besides the agent, outside every group: {groups}"
        work.counter.close()


def test_a_copy_of_files_stops_in_the_middle(t):
    with t.vm() as name:
        uds = t.home / "run" / name / "v"
        data = os.urandom(256 << 10)  # fits into the stream's buffers, so that all of it can be sent while frozen
        with frames.Session.open(uds, frames.SESSION_PUT) as put, frames.control(uds) as control:
            put.send(frames.PUT, struct.pack("<I", 0) + frames.string("/tmp/file") + frames.string("") + frames.string("f"))
            put.send(frames.ENTRY, struct.pack("<BIIIQQ", 1, 0o644, 0, 0, 10**18, len(data)) + frames.string("")
                     + frames.string(""))
            for at in range(0, len(data), 32768):
                if at == len(data) // 2:
                    control.ask(frames.FREEZE)
                put.send(frames.DATA, data[at:at + 32768])
            put.send(frames.DONE, struct.pack("<I", 0) + frames.string(""))
            put.sock.settimeout(SLEEPS_S)
            try:
                raise AssertionError(f"answered while frozen: {put.next()}")
            except TimeoutError:
                pass
            control.ask(frames.THAW)
            put.sock.settimeout(frames.TIMEOUT)
            assert put.next() == (frames.OK, b"")
        got = t.ic("exec", name, "--", "cat", "/tmp/file", rc=0).out
        assert got == data


def test_starts_that_a_freeze_meets(t):
    """Commands on their way to their program, when and wherever they are stopped, still get there."""
    with t.vm() as name:
        uds = t.home / "run" / name / "v"
        with frames.control(uds) as control:
            for i in range(10):
                sessions = [frames.start(uds, ["echo", str(n)]) for n in range(5)]
                time.sleep(i * 0.002)
                control.ask(frames.FREEZE)
                time.sleep(0.02)
                control.ask(frames.THAW)
                for n, session in enumerate(sessions):
                    assert frames.finish(session) == (0, b"%d\n" % n)


def test_what_waits_is_bounded_and_a_clone_runs_none_of_it(t):
    with t.vm() as name:
        uds = t.home / "run" / name / "v"
        with frames.control(uds) as control:
            control.ask(frames.FREEZE)
            waiting = [frames.start(uds, ["touch", "/tmp/asked-of-another"]) for _ in range(130)]
            answers = []
            for session in waiting:
                session.sock.settimeout(5 if not answers else 0.05)
                try:
                    answers.append(session.next())
                except (TimeoutError, frames.Refused) as e:
                    answers.append(e)
            refusals = [e for e in answers if isinstance(e, frames.Refused)]
            assert len(refusals) == 2 and all("frozen" in e.message for e in refusals), answers
            assert sum(isinstance(e, TimeoutError) for e in answers) == 128, answers
            control.ask(frames.CLONE, clone_of(name))
            for session in waiting:
                session.sock.settimeout(frames.TIMEOUT)
                try:
                    raise AssertionError(f"a clone answered what was asked of another: {session.next()}")
                except (frames.HungUp, ConnectionError, frames.Refused):
                    session.close()
            frames.run(uds, "test", "!", "-e", "/tmp/asked-of-another")


def test_what_a_clone_of_a_running_guest_ends_and_keeps(t):
    with t.vm() as name:
        uds = t.home / "run" / name / "v"
        ready = frames.ReadyListener(uds)
        t.cleanups.append(ready.close)
        work = Workload(uds)
        marker = frames.start(uds, ["sh", "-c", "trap 'echo >/tmp/term' TERM HUP; while :; do sleep 0.01; echo >/tmp/ran; done"])
        until(lambda: frames.finish(frames.start(uds, ["test", "-e", "/tmp/ran"]))[0] == 0, 10, "the command has begun")
        control = frames.control(uds)
        control.ask(frames.FREEZE)
        # Its connections end, as a copy's do; nobody hears READY as long as the one that froze it is there.
        for session in (work.counter, marker):
            session.close()
        time.sleep(0.3)
        control.close()
        first = ready.accept()
        facts = []
        for i in range(2):
            if i:
                first.ask(frames.FREEZE)
            first.ask(frames.CLONE, clone_of(f"copy-{i}"))
            facts.append(frames.run(uds, "sh", "-c", FACTS).split())
        for i, kind in ((0, "name"), (2, "machine id"), (3, "boot id"), (4, "generation")):
            assert facts[0][i] != facts[1][i], f"two clones with one {kind}: {facts}"
        before = work.times()
        until(lambda: all(a < b for a, b in zip(before, work.times())), 10, "what was left behind goes on")
        frames.run(uds, "rm", "-f", "/tmp/ran")
        time.sleep(0.3)
        assert frames.run(uds, "sh", "-c", "ls /tmp/ran /tmp/term 2>/dev/null || :") == "", "a command outlived its host"
        first.close()


def test_a_frozen_guest_ends_when_it_is_told_to(t):
    name = "v"
    t.ic("run", "--keep", "--name", name, "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &", rc=0)
    frames.control(t.home / "run" / name / "v").ask(frames.FREEZE)
    t.ic("stop", "-t", f"{100 * SLOW}s", name, rc=0, timeout=120)
    log = (t.home / "state/vms" / name / "monitor.log").read_text(errors="replace")
    assert "powered off when asked" in log, f"it waited for commands that could not end: {log}"
    t.ic("rm", "-f", name)
