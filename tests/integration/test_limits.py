# SPDX-License-Identifier: Apache-2.0
"""Limits: what is beyond them is refused or ended, in one line that names the limit, and only that."""

import json
import os

from harness import FAILED, SLOW, TIMED_OUT, USAGE, until


def test_lifetime_of_run(t):
    """Time for a boot and a little more; the command has none of its own."""
    ms = boot_ms(t) * 2 + int(3000 * SLOW)
    result = t.ic("run", "--quiet", "--max-lifetime", f"{ms}ms", "--", "sh", "-c", "echo started; sleep 1000", rc=TIMED_OUT)
    assert result.out == b"started\n", result
    assert len(result.errors.splitlines()) == 1 and f"max_lifetime_ms {ms}" in result.errors, result
    # A VM that is not ready by then is no different.
    line = t.error("run", "--max-lifetime", "20ms", "--", "true", status=FAILED, words=["max_lifetime_ms 20", "before"])
    assert "give it more" in line, line
    assert not t.processes()


def boot_ms(t):
    return json.loads(t.ic("run", "--json", "--", "true", rc=0).out)["boot_ms"]


def test_lifetime_of_a_kept_vm(t):
    """Nobody uses it, it is paused, no command of ours runs: it ends all the same, and its record says why."""
    ms = boot_ms(t) * 2 + int(3000 * SLOW)
    for name, pause in (("idle", False), ("paused", True)):
        t.ic("run", "-d", "--name", name, "--max-lifetime", f"{ms}ms", rc=0)
        if pause:
            t.ic("pause", name, rc=0)
        until(lambda: not t.processes(), ms / 1000 + 20, "the end of the VM")
        t.error("exec", name, "--", "true", status=FAILED, words=[name, f"max_lifetime_ms {ms} is over"])
        audit = [e for e in t.json("logs", "--audit", "--json")["entries"] if e["vm_id"] == name]
        assert [(e["action"], e["text"]) for e in audit] == [("ended", f"max_lifetime_ms {ms}: is over")], audit
        record = t.json("inspect", name)[0]
        assert (record["state"], record["max_lifetime_ms"]) == ("failed", ms), record
        assert not os.path.exists(record["run_dir"]), "its sockets are left"
        t.ic("rm", name, rc=0)


def test_output_and_connections(t):
    """One VM: its limit for each command, a command's own, what is left of one that exceeded it; then connections."""
    with t.vm("v", "--max-output", "10k", "--max-connections", "4"):
        record = t.json("inspect", "v")[0]
        assert (record["max_output_bytes"], record["max_connections"]) == (10240, 4), record
        assert len(t.sh("v", "head -c 5k /dev/zero; head -c 5k /dev/zero >&2").out) == 5120
        result = t.sh("v", "echo $$ >/tmp/pid; head -c 6k /dev/zero >&2; exec yes", rc=FAILED)
        assert len(result.out) + result.err.rindex(b"\0") + 1 == 10240, result
        assert result.errors.endswith("wrote more than its limit of 10240 bytes (max_output_bytes); it was killed; "
                                      "see --max-output\n"), result
        until(lambda: t.sh("v", "test -e /proc/$(cat /tmp/pid) && echo alive || :").out == b"", 20, "the end of 'yes'")
        assert len(t.sh("v", "head -c 50k /dev/zero", options=("--max-output", "0")).out) == 51200
        answer = t.ic("exec", "--json", "--max-output", "3", "v", "--", "echo", "hello", rc=FAILED)
        answer = json.loads(answer.out)
        assert (answer["outcome"], answer["stdout"], answer["status"]) == ("output limit", "hel", FAILED), answer
        too_many_connections(t)


def too_many_connections(t):
    """Four commands have them all; the fifth gives up, and is served once one of them has ended."""
    held = [t.start("exec", "-i", "v", "--", "cat", stdin=-1) for _ in range(4)]
    for child in held:
        child.stdin.write(b"x\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"x\n"
    t.error("exec", "v", "--", "true", status=FAILED, words=["max_connections is 4", "give it more"])
    held[0].stdin.close()
    assert held[0].wait() == 0
    t.ic("exec", "v", "--", "true", rc=0)
    for child in held[1:]:
        child.stdin.close()
        assert child.wait() == 0


def test_output_of_run(t):
    """The command's end is the VM's."""
    result = t.ic("run", "--quiet", "--max-output", "1000", "--", "yes", rc=FAILED)
    assert result.out == b"y\n" * 500 and "limit of 1000 bytes" in result.errors, result


def test_disk_of_the_overlay(t):
    """What is beyond overlay.size_mib is the command's ENOSPC; the VM and its neighbours on the disk go on."""
    t.write_config({**t.config, "memory_mib": 256, "overlay": {"kind": "tmpfs", "size_mib": 16}})
    with t.vm("v"):
        result = t.sh("v", "head -c 30000000 /dev/zero >/var/tmp/big; echo $?; stat -c %s /var/tmp/big")
        status, size = result.out.split()
        assert status == b"1" and 10 << 20 < int(size) <= 16 << 20 and "No space left on device" in result.errors, result
        t.sh("v", "rm /var/tmp/big; echo small >/var/tmp/small; cat /var/tmp/small")


def test_limits_of_the_user(t):
    """max_vms holds also for those that start at once; what has ended or was refused does not count."""
    t.write_config({**t.config, "limits": {"max_vms": 2, "max_memory_mib": 256, "max_vcpus": 4}})
    path = str(t.home / "config.json")
    t.error("run", "-m", "257", "--", "true", status=FAILED, words=["limits.max_memory_mib 256", "memory_mib 257", path])
    t.error("run", "--cpus", "5", "--", "true", status=FAILED, words=["limits.max_vcpus 4", "vcpu_count 5", path])
    assert t.json("ps", "-a", "--json") == []
    children = [t.start("run", "-d", "--name", f"v{i}") for i in range(4)]
    results = [(child.wait(), child.stderr.read().decode()) for child in children]
    refused = [err for status, err in results if status == FAILED]
    assert sorted(status for status, _ in results) == [0, 0, FAILED, FAILED], results
    for err in refused:
        assert len(err.splitlines()) == 1 and "limits.max_vms 2: 2 VMs of yours" in err and path in err, err
    names = [vm["vm_id"] for vm in t.json("ps", "--json")]
    assert len(names) == 2, names
    t.ic("stop", names[0], rc=0)
    t.ic("run", "--", "true", rc=0)
    t.write_config({**t.config, "limits": {"max_total_memory_mib": 511}})
    t.error("run", "--", "true", status=FAILED, words=["limits.max_total_memory_mib 511", "256 MiB", path])
    t.ic("rm", "-f", *names, rc=0)
    # Only the user's own file, and only what it is to have.
    other = t.work / "other.json"
    other.write_text(json.dumps({"limits": {"max_vms": 100}}))
    t.error("run", "--config", other, "--", "true", status=USAGE, words=["limits", path])
    t.write_config({**t.config, "limits": {"max_vm": 1}})
    t.error("run", "--", "true", status=USAGE, words=["limits.max_vm", "max_vms"])


def test_values(t):
    for args, words in ((("--max-connections", "3"), ["max_connections 3", "4 to 1023"]),
                        (("--max-connections", "1024"), ["max_connections 1024"]),
                        (("--max-output", "5g"), ["--max-output", "too large"]),
                        (("--max-output", "much"), ["--max-output", "64k"]),
                        (("--max-lifetime", "0.1ms"), ["--max-lifetime"])):
        t.error("run", *args, "--", "true", status=USAGE, words=words)
