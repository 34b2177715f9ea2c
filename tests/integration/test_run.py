# SPDX-License-Identifier: Apache-2.0
"""`ironclaw run`: one command in a VM of its own, and what its caller sees."""

import hashlib
import json
import os
import signal
import time

from harness import FAILED, NOT_EXECUTABLE, NOT_FOUND, TIMED_OUT, USAGE, until


def test_python_from_stdin(t):
    result = t.ic("run", "-i", "--", "python3", "-", stdin=b"print(6*7)\n", rc=0)
    assert result.out == b"42\n", result
    assert (b"software emulation" in result.err) != (t.isolation == "hardware"), result


def test_64_mib_through_cat(t):
    data = os.urandom(64 << 20)
    result = t.ic("run", "-i", "--", "cat", stdin=data, rc=0)
    assert len(result.out) == len(data), f"{len(result.out)} bytes came back of {len(data)}"
    assert hashlib.sha256(result.out).digest() == hashlib.sha256(data).digest()


def test_exit_status_of_the_command(t):
    t.ic("run", "--", "sh", "-c", "exit 7", rc=7)


def test_exit_status_of_a_signal(t):
    t.ic("run", "--", "sh", "-c", "kill -SEGV $$", rc=128 + signal.SIGSEGV)


def test_timeout(t):
    started = time.monotonic()
    result = t.ic("run", "--timeout", "3s", "--", "sh", "-c", "trap '' TERM; echo begun; sleep 1000", rc=TIMED_OUT)
    assert b"begun" in result.out, result
    assert time.monotonic() - started < 60, "the limit was 3 s of the command's time"


def test_not_found_and_not_executable(t):
    t.ic("run", "--", "no-such-program", rc=NOT_FOUND)
    t.ic("run", "--", "/etc/passwd", rc=NOT_EXECUTABLE)


def test_usage(t):
    for args in (["run"], ["run", "--no-such-option", "--", "true"], ["no-such-verb"], [], ["exec"],
                 ["run", "--memory", "lots", "--", "true"]):
        result = t.ic(*args, rc=USAGE)
        assert result.err and not result.out, result


def test_no_such_image(t):
    t.error("run", "--image", "no-such-image", "--", "true", status=FAILED, words=["no-such-image"])


def test_output_streams_apart(t):
    result = t.ic("run", "--", "sh", "-c", "echo out; echo err >&2", rc=0)
    assert result.out == b"out\n", result
    assert b"err\n" in result.err, result


def test_environment_directory_user(t):
    script = "echo $A; pwd; id -u; id -un; cat /proc/self/status"
    result = t.ic("run", "-e", "A=b c=d", "-w", "/var/tmp", "--", "sh", "-c", script, rc=0)
    lines = result.text.splitlines()
    assert lines[:4] == ["b c=d", "/var/tmp", "1000", "agent"], result
    assert "NoNewPrivs:\t1" in lines, result
    assert t.ic("run", "-u", "root", "--", "id", "-u", rc=0).out == b"0\n"


def test_memory_and_cpus(t):
    script = "nproc; awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo"
    cpus, memory = t.ic("run", "--memory", "512", "--cpus", "2", "--", "sh", "-c", script, rc=0).text.split()
    assert cpus == "2" and 380 < int(memory) <= 512, (cpus, memory)


def test_json(t):
    report = json.loads(t.ic("run", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3", rc=3).out)
    assert (report["status"], report["stdout"], report["stderr"]) == (3, "out\n", "err\n"), report
    assert (report["backend"], report["isolation"]) == (t.backend, t.isolation), report


def test_stdin_is_not_read_without_i(t):
    result = t.ic("run", "--", "sh", "-c", "cat; echo end", stdin=b"not for you", rc=0)
    assert result.out == b"end\n", result


def test_reader_that_goes_away(t):
    """`run ... | head -1`: the command ends when nobody reads it."""
    child = t.start("run", "--", "sh", "-c", "while :; do echo line; done")
    assert child.stdout.readline() == b"line\n"
    child.stdout.close()
    child.stdout = None
    until(lambda: child.poll() is not None, 60, "the end of run after its reader left")


def test_interrupt_ends_run(t):
    child = t.start("run", "--", "sh", "-c", "echo begun; sleep 1000")
    assert child.stdout.readline() == b"begun\n"
    child.send_signal(signal.SIGTERM)
    until(lambda: child.poll() is not None, 30, "the end of run after SIGTERM")
    assert child.returncode != 0
    t.assert_clean("after SIGTERM to run", 5)


def test_interrupt_while_booting(t):
    for delay in (0.05, 0.4, 1.2):
        child = t.start("run", "--", "true")
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        until(lambda c=child: c.poll() is not None, 30, f"the end of run after SIGINT at {delay} s")
        t.assert_clean(f"after SIGINT at {delay} s", 5)
    # Also of one that was to be kept nothing is left but its name, free.
    child = t.start("run", "--keep", "--cold", "--name", "v")
    until(lambda: (t.home / "state/vms/v/console.log").exists(), 30, "the VM's logs")
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 130, child.returncode
    assert t.json("ps", "-a", "--json") == []


def test_guest_out_of_memory(t):
    """The command dies, not the VM's answer."""
    eater = "b=[]\nwhile True: b.append(b'x' * (8 << 20))"
    result = t.ic("run", "--memory", "256", "--", "python3", "-c", eater)
    assert result.rc in (137, 1), result
