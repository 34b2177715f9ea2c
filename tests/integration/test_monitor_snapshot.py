# SPDX-License-Identifier: Apache-2.0
"""Snapshots of our own monitor by its API, with a Linux guest: saved, its monitor killed, loaded into new ones."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import agent  # noqa: E402
from harness import SLOW, Failure, initramfs_with, until  # noqa: E402

CMDLINE = ("console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on cryptomgr.notests ironclaw.root=/dev/vda "
           "ironclaw.rootfstype=erofs ironclaw.overlay=tmpfs ironclaw.overlay_mib=64 ironclaw.hostname=snapshot")
WORDS = b"of the guest's memory"


class Monitor:
    """One process of ironclaw-vmm."""

    def __init__(self, t, name):
        self.t, self.name, self.control = t, name, None
        self.program = t.build / "src/monitor/ironclaw-vmm"
        self.dir = t.work / name
        self.dir.mkdir()
        self.api, self.uds, self.console, self.log = (self.dir / n for n in ("a", "v", "console", "log"))
        self.ready = socket.socket(socket.AF_UNIX)
        self.ready.settimeout(60 * SLOW)
        self.ready.bind(f"{self.uds}_{agent.READY_PORT}")
        self.ready.listen()
        with open(self.console, "wb") as console, open(self.log, "wb") as log:
            self.child = subprocess.Popen([self.program, "--api-sock", self.api], stdin=subprocess.DEVNULL,
                                          stdout=console, stderr=log, start_new_session=True)
        t.cleanups.append(self.kill)
        until(self.listens, 10, "the API socket", step=0.002)

    def listens(self):
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(str(self.api)) == 0

    def request(self, method, path, body, status=204):
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(120 * SLOW)
        connection.sock.connect(str(self.api))
        connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status != status:
            raise Failure(f"{self.name}: {method} {path}: {answer.status} {text}; {self.report()}")
        return text

    def boot(self, cpus=1, memory=256, track=False):
        image = self.t.image_dir()
        program = self.t.build / "src/agent/ironclaw-agent"
        initrd = initramfs_with(image, {"init": (0o100755, program.read_bytes())}, self.dir / "initramfs",
                                compress=True)  # this build's, whenever the image was made
        for path, body in (
                ("/machine-config", {"vcpu_count": cpus, "mem_size_mib": memory, "track_dirty_pages": track}),
                ("/boot-source", {"kernel_image_path": str(image / "vmlinux"), "initrd_path": str(initrd),
                                  "boot_args": CMDLINE}),
                ("/drives/root", {"drive_id": "root", "path_on_host": str(image / "rootfs.erofs"),
                                  "is_root_device": False, "is_read_only": True}),
                ("/vsock", {"guest_cid": 3, "uds_path": str(self.uds)}),
                ("/entropy", {}),
                ("/actions", {"action_type": "InstanceStart"})):
            self.request("PUT", path, body)
        self.accept()
        assert agent.take(self.control)[0] == agent.READY

    def accept(self):
        """The guest's control connection; it lives as long as it."""
        try:
            self.control = self.ready.accept()[0]
        except TimeoutError:
            raise Failure(f"the agent is not ready; {self.report()}") from None
        self.control.settimeout(60 * SLOW)

    def create(self, state, memory, kind="Full"):
        agent.control(self.control, agent.FREEZE)
        self.request("PATCH", "/vm", {"state": "Paused"})
        self.request("PUT", "/snapshot/create", {"snapshot_path": str(state), "mem_file_path": str(memory),
                                                 "snapshot_type": kind})

    def load(self, state, memory, **more):
        """Seconds from the request to the answer, when the guest runs."""
        body = {"snapshot_path": str(state), "mem_backend": {"backend_type": "File", "backend_path": str(memory)},
                "resume_vm": True, "vsock_override": {"uds_path": str(self.uds)}, **more}
        start = time.monotonic()
        self.request("PUT", "/snapshot/load", body)
        seconds = time.monotonic() - start
        if body["resume_vm"]:
            self.accept()
            agent.become_clone(self.control, self.name)
        return seconds

    def execute(self, *argv):
        try:
            status, out = agent.execute(self.uds, argv, timeout=60 * SLOW)
        except OSError as error:
            raise Failure(f"{self.name}: {argv}: {error!r}; {self.report()}") from None
        if status != 0:
            raise Failure(f"{self.name}: {argv}: status {status}, {out!r}; {self.report()}")
        return out

    def kill(self):
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self.ready.close()
        if self.control:
            self.control.close()

    def report(self):
        return (f"status {self.child.poll()}\n{self.log.read_text('utf-8', 'replace')[-3000:]}\n"
                f"{self.console.read_text('utf-8', 'replace')[-3000:]}")


WRITER = """
import hashlib, itertools, os, time
for i in itertools.count():
    data = os.urandom(4096) * 8
    with open(f"/tmp/files/{i % 50}.part", "wb") as f:
        f.write(hashlib.sha256(data).digest() + data)
    os.rename(f"/tmp/files/{i % 50}.part", f"/tmp/files/{i % 50}")
    time.sleep(0.01)
"""
CHECKER = """
import hashlib, os
names = [n for n in os.listdir("/tmp/files") if not n.endswith(".part")]
for name in names:
    data = open("/tmp/files/" + name, "rb").read()
    assert hashlib.sha256(data[32:]).digest() == data[:32], name
print(len(names))
"""
STREAMS = 6


def need_kvm(t):
    if t.backend != "ironclaw":
        t.skip("only our own monitor has these snapshots")


def check_clone(vm, told):
    """It goes on where it was: memory, disk, processes, timers, random numbers."""
    assert vm.execute("cat", "/tmp/told").encode() == told
    assert vm.execute("sh", "-c", "kill -0 $(cat /tmp/pid) && echo alive") == "alive\n"
    assert int(vm.execute("sh", "-c", "ls /usr/bin | wc -l")) > 50  # much of it was never read before
    slept = vm.execute("python3", "-c", "import time; a = time.monotonic(); time.sleep(0.2); print(time.monotonic() - a)")
    assert 0.2 <= float(slept) < 10 * SLOW, slept
    assert len(set(vm.execute("sh", "-c", "head -c 32 /dev/hwrng | od -An -tx1").split())) > 8


def prepare(vm):
    vm.execute("sh", "-c", f"printf \"%s\" \"{WORDS.decode()}\" > /tmp/told; "
                           "sleep 100000 > /dev/null 2>&1 & echo $! > /tmp/pid")


def test_save_kill_load(t):
    need_kvm(t)
    state, memory = t.work / "state", t.work / "memory"
    vm = Monitor(t, "parent")
    vm.boot(cpus=2)
    prepare(vm)
    vm.create(state, memory)
    vm.kill()
    assert not list(t.work.glob("*.new"))
    for i in range(2):
        clone = Monitor(t, f"clone{i}")
        seconds = clone.load(state, memory)
        check_clone(clone, WORDS)
        said = re.search(r"goes on after (\d+) us", clone.log.read_text("utf-8", "replace"))
        print(f"request to answer {seconds * 1000:.1f} ms, of which the monitor says {int(said[1]) / 1000:.1f} ms; "
              f"state {state.stat().st_size} bytes")
        assert "soft lockup" not in clone.console.read_text("utf-8", "replace")
    assert int(clone.execute("nproc")) == 2


def test_under_load(t):
    """While the guest writes files and commands stream: in the clone the files are whole, connections of before are
    gone and new ones answer; the parent's streams go on."""
    need_kvm(t)
    state, memory = t.work / "state", t.work / "memory"
    vm = Monitor(t, "parent")
    vm.boot()
    vm.execute("mkdir", "/tmp/files")
    writer = agent.begin(vm.uds, ["python3", "-c", WRITER], timeout=60 * SLOW)
    streams = [agent.begin(vm.uds, ["yes", "a line"], timeout=60 * SLOW)
               for _ in range(STREAMS)]
    until(lambda: int(vm.execute("sh", "-c", "ls /tmp/files | wc -l")) > 20, 60, "files", step=0.5)
    vm.create(state, memory)
    clone = Monitor(t, "clone")
    clone.load(state, memory)
    assert int(clone.execute("python3", "-c", CHECKER)) > 10
    assert clone.execute("echo", "alive") == "alive\n"
    clone.kill()
    vm.request("PATCH", "/vm", {"state": "Resumed"})
    agent.control(vm.control, agent.THAW)
    for stream in streams:
        seen = 0
        while seen < 1 << 20:  # more than what was on its way
            kind, payload = agent.take(stream)
            assert kind in (agent.STARTED, agent.STDOUT), (kind, payload)
            seen += len(payload)
        stream.close()
    writer.close()
    assert vm.execute("echo", "alive") == "alive\n"
