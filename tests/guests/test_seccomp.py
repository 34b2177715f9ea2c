# SPDX-License-Identifier: Apache-2.0
"""The monitor's system call filters as the kernel sees them. What they refuse is in src/monitor/test-profiles.c;
that they allow all that is needed is what every other test here shows, since filters are on by default."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import until  # noqa: E402
from monitor import SECOND_SECTORS, Vm, numbered  # noqa: E402

LIMITS = {"vmm": 50, "api": 31, "vcpu": 27, "blk": 27, "uffd": 27}


def need_filters(t, vm):
    result = subprocess.run([str(vm.program), "--no-api", "--config-file", "/nonexistent"], stdin=subprocess.DEVNULL,
                            capture_output=True, timeout=20, check=False)
    if b"built with a sanitizer" in result.stderr:
        t.skip("no filters in a build with a sanitizer")


def filters(vm):
    """Thread name to number of filters."""
    found = {}
    for task in Path(f"/proc/{vm.child.pid}/task").iterdir():
        if (task / "comm").read_text().startswith("kvm-"):
            continue  # the kernel's own
        status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
        on = status["Seccomp"].strip() == "2"
        found[(task / "comm").read_text().strip()] = int(status.get("Seccomp_filters", "1")) if on else 0
    return found


def test_each_thread(t):
    """The API's thread from its start, all before the guest runs."""
    vm = Vm(t, "processors_for_ever", "cpus=2", cpus=2, by_api=True)
    need_filters(t, vm)
    configure, vm.configure = vm.configure, lambda: None
    vm.start()
    until(vm.api_sock.exists, 10, "the API socket")
    vm.request("GET", "/", status=200)
    assert filters(vm) == {"ironclaw-vmm": 0, "fc_api": 1}, filters(vm)
    configure()
    vm.read_until(b"spinning")
    names = ("ironclaw-vmm", "fc_api", "fc_vcpu 0", "fc_vcpu 1", "fc_blk root", "fc_blk second")
    assert filters(vm) == dict.fromkeys(names, 1), filters(vm)
    vm.child.terminate()
    vm.finish(rc=128 + signal.SIGTERM, passes=False)


def test_after_the_start(t):
    """What the API can still do to a running VM, and the end with a metrics file."""
    vm = Vm(t, "halt_for_ever", by_api=True, options=["--metrics-path", str(t.work / "metrics")],
            balloon={"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 1})
    vm.start()
    vm.read_until(b"halting")
    other = numbered(t.work / "other.img", SECOND_SECTORS)
    for path in (str(other), "/nonexistent"):
        vm.request("PATCH", "/drives/second", {"drive_id": "second", "path_on_host": path},
                   204 if path == str(other) else 400)
    for method, path, body in (("PATCH", "/vm", {"state": "Paused"}), ("PATCH", "/vm", {"state": "Resumed"}),
                               ("PATCH", "/balloon", {"amount_mib": 3}),
                               ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 2}),
                               ("PUT", "/actions", {"action_type": "FlushMetrics"}),
                               ("PUT", "/actions", {"action_type": "SendCtrlAltDel"})):
        vm.request(method, path, body, 204)
    for path in ("/", "/version", "/vm/config", "/machine-config", "/balloon", "/balloon/statistics"):
        vm.request("GET", path, status=200)
    vm.child.terminate()
    vm.finish(rc=128 + signal.SIGTERM, passes=False)
    lines = (t.work / "metrics").read_text().splitlines()
    assert len(lines) == 2 and all(json.loads(line) for line in lines), lines


def test_terminal(t):
    """A terminal is as it was afterwards, which takes a call of the filtered thread."""
    vm = Vm(t, "serial_echo")
    vm.out = b""
    file = vm.dir / "config.json"
    file.write_text(json.dumps(vm.config))
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with open(vm.log_path, "wb") as log:
        vm.child = subprocess.Popen([str(vm.program), "--no-api", "--config-file", str(file)], stdin=theirs,
                                    stdout=theirs, stderr=log, start_new_session=True)
    t.cleanups.append(vm.kill)
    while b"SYNC echo" not in vm.out:
        vm.out += os.read(ours, 4096)
    assert termios.tcgetattr(theirs) != before
    os.write(ours, b"a word.")
    while b"PASS" not in vm.out:
        vm.out += os.read(ours, 4096)
    assert vm.child.wait(20) == 0, vm.report()
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_levels(t):
    for options, number, words in ((["--no-seccomp"], 0, "no seccomp filters"), (["--seccomp-level", "basic"], 1, ""),
                                   (["--seccomp-level", "permissive"], 1, "refuse nothing")):
        vm = Vm(t, "spin_for_ever", options=options)
        need_filters(t, vm)
        vm.start()
        vm.read_until(b"spinning")
        found = filters(vm)
        supervisor = found.pop("fc_audit", None)  # it lets the others' calls go on
        assert supervisor == (0 if "permissive" in options else None), found
        assert set(found.values()) == {number}, found
        vm.child.terminate()
        vm.finish(rc=128 + signal.SIGTERM, passes=False)
        assert words in vm.log(), vm.log()


def test_report(t):
    vm = Vm(t, "boot")
    text = subprocess.run([str(vm.program), "--seccomp-report"], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=20, check=True).stdout.decode()
    counts = {name: int(count) for name, count in re.findall(r"^(\w+): (\d+) system calls$", text, re.M)}
    assert counts.keys() == LIMITS.keys() and all(counts[n] <= LIMITS[n] for n in LIMITS), counts
    for line in text.splitlines():
        assert re.match(r"\w+: \d+ system calls$|  [a-z]\w+ +.{28} \S+", line), line


def test_sent(t):
    """SIGSYS from outside is a signal like another."""
    vm = Vm(t, "spin_for_ever")
    need_filters(t, vm)
    vm.start()
    vm.read_until(b"spinning")
    vm.child.send_signal(signal.SIGSYS)
    assert vm.child.wait(10) == 128 + signal.SIGSYS, vm.report()
    assert "seccomp" not in vm.log(), vm.log()
