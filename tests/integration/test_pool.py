# SPDX-License-Identifier: Apache-2.0
"""VMs that wait in a pool: they are taken, made anew, and nothing of them is left, whoever is killed."""

import hashlib
import json
import os
import shutil
import signal
import time

from harness import FAILED, SLOW, USAGE, Processes, until


def pool(t):
    pools = t.json("pool", "ls", "--json")
    assert len(pools) <= 1, pools
    return pools[0] if pools else None


def start(t, size=2, *more):
    name = t.ic("pool", "start", "-q", "-n", str(size), *more, rc=0).text.strip()
    t.cleanups.append(lambda: t.ic("pool", "stop", "-a"))
    info = pool(t)
    assert info["name"] == name and info["ready"] == info["wanted"] == size, info
    return info


def test_vms_are_taken_and_made_anew(t):
    start(t)
    seen = set()
    for i in range(3):
        until(lambda: pool(t)["ready"] > 0, 60, "a VM that waits")
        result = t.ic("run", "-i", "--", "sh", "-c", "cat; hostname; cat /etc/machine-id", stdin=b"line %d\n" % i, rc=0)
        line, host, machine = result.text.splitlines()
        assert line == f"line {i}", result
        seen |= {host, machine}
    assert len(seen) == 6, seen
    assert pool(t)["handed_over"] == 3, pool(t)
    # Who wants a name of its own, or another machine, gets one that was not waiting.
    t.ic("run", "--name", "mine", "--", "true", rc=0)
    t.ic("run", "--memory", "192", "--", "true", rc=0)
    assert pool(t)["handed_over"] == 3, pool(t)
    until(lambda: pool(t)["ready"] == 2, 60, "a full pool")
    t.error("pool", "start", "-q", "-n", "1", status=FAILED, words=["there is one already", "pool stop"])
    t.error("pool", "start", "--foreground", "--ready-fd", "77", status=USAGE, words=["--ready-fd 77", "open"])


def test_kept_vm_of_a_pool(t):
    start(t, 1)
    name = t.ic("run", "--keep", "-q", rc=0).text.strip()
    assert pool(t)["handed_over"] == 1
    t.ic("pool", "stop", "-a", rc=0)
    assert pool(t) is None
    # It goes on without its pool, and the pool's other VMs are gone.
    assert t.ic("exec", name, "--", "hostname", rc=0).text.strip() == name
    assert [vm["vm_id"] for vm in t.json("ps", "-a", "--json")] == [name]
    assert t.json("inspect", name)[0]["origin"].startswith("template ")
    t.own_data("snapshots")
    t.ic("snapshot", "create", name, "of-a-pool", rc=0)
    t.ic("restore", "of-a-pool", "--name", "copy", rc=0)
    assert t.ic("exec", "copy", "--", "hostname", rc=0).text.strip() == "copy"
    t.ic("rm", "-f", "copy", rc=0)
    t.ic("rm", "-f", name, rc=0)


def test_kill_of_the_keeper(t):
    info = start(t)
    os.kill(info["pid"], signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{info['pid']}/exe"), 10, "the end of the keeper")
    t.ic("run", "--", "true", rc=0)  # starts one of its own, and cleans up
    assert t.json("ps", "-a", "--json") == [] and pool(t) is None
    until(lambda: not Processes.of(t.home), 10, "no process left")
    assert not [name for name in os.listdir(t.home / "run") if name.startswith(".pool")]


def test_kill_of_the_taker(t):
    start(t, 1)
    child = t.start("run", "-q", "--", "sleep", "1000")
    until(lambda: pool(t)["handed_over"] == 1, 30, "a hand-over")
    vm = until(lambda: next((v for v in t.json("ps", "--json") if v["state"] == "ready"), None), 30, "a taken VM")
    taken = t.json("inspect", vm["vm_id"])[0]["monitor"]["pid"]
    child.kill()
    child.wait()
    # Nobody runs another command: the guest sees its connection end, the keeper the process.
    until(lambda: taken not in Processes.of(t.home), 30, "the end of the taken VM")


def test_dead_vms_are_replaced(t):
    start(t, 1)
    vm = t.json("ps", "--json")[0]
    assert vm["state"] == "booting", vm
    os.kill(t.json("inspect", vm["vm_id"])[0]["monitor"]["pid"], signal.SIGKILL)
    until(lambda: [v for v in t.json("ps", "-a", "--json") if v["vm_id"] != vm["vm_id"]] and pool(t)["ready"] == 1, 60,
          "another VM that waits")
    t.ic("run", "--", "true", rc=0)
    assert pool(t)["handed_over"] == 1


IDENTITY = ("cat /etc/machine-id /proc/sys/kernel/random/boot_id /run/ironclaw/generation; "
            "head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '")


def test_warm_up(t):
    """It runs before the VM waits, as somebody else than who takes it, and no two VMs as the same."""
    leave = "(while :; do sleep 0.1; echo >>/tmp/alive; done) &"
    start(t, 2, "--", "sh", "-c", f"({IDENTITY}) >/tmp/before; date +%s >/tmp/when; echo >/tmp/alive; {leave}")
    seen = []
    for i in range(2):
        until(lambda: pool(t)["ready"] == 2, 120, "a full pool")
        alive = '[ "$a" -lt "$(wc -c </tmp/alive)" ] && echo alive'
        script = (f"cat /tmp/before; echo --; {IDENTITY}; echo --; cat /tmp/when; date +%s; "
                  f"a=$(wc -c </tmp/alive); sleep 2; {alive}")
        before, after, rest = t.ic("run", "--", "sh", "-c", script, rc=0).text.split("--\n")
        then, now, alive = rest.split()
        assert alive == "alive", rest  # what it left has gone on
        assert 0 <= int(now) - int(then) < 600, rest
        seen += [*before.split(), *after.split()]
        assert pool(t)["handed_over"] == i + 1, pool(t)
    assert len(seen) == 2 * 2 * 4 and len(set(seen)) == len(seen), seen


def config(t, **values):
    path = t.work / "config.json"
    path.write_text(json.dumps(values))
    return path


def test_warm_up_has_nothing_of_the_configuration_for_commands(t):
    """As the VM may be taken by somebody whose commands have another user and environment."""
    given = config(t, env=["TOKEN=secret"], user="root")
    start(t, 1, "--config", given, "--", "sh", "-c", "id -u >/tmp/seen; env >>/tmp/seen")
    seen = t.ic("run", "--", "cat", "/tmp/seen", rc=0).text
    assert pool(t)["handed_over"] == 1
    assert int(seen.split()[0]) > 0 and "PATH=" in seen and "TOKEN" not in seen and "secret" not in seen, seen
    until(lambda: pool(t)["ready"] == 1, 120, "a full pool")
    mine = t.ic("run", "--config", given, "--", "sh", "-c", "id -u; echo $TOKEN", rc=0).text.split()
    assert mine == ["0", "secret"] and pool(t)["handed_over"] == 2, mine


def test_warm_up_that_fails(t):
    for argv, words in ((("sh", "-c", "exit 3"), ["'sh' ended with status 3", "name another command"]),
                        (("no-such-program",), ["'no-such-program' ended with status 127", "not"])):
        t.error("pool", "start", "-q", "-n", "1", "--", *argv, status=FAILED, words=words)
        assert pool(t) is None and t.json("ps", "-a", "--json") == []
    short = config(t, boot_timeout_ms=int(10000 * SLOW))
    t.error("pool", "start", "-q", "-n", "1", "--config", short, "--", "sleep", "1000", status=FAILED,
            words=["'sleep' took longer", "boot_timeout_ms"])
    assert not Processes.of(t.home), Processes.of(t.home)


def test_pool_ends_in_the_middle_of_a_warm_up(t):
    child = t.start("pool", "start", "-q", "-n", "1", "--foreground", "--config", config(t, boot_timeout_ms=600000), "--",
                    "sleep", "1000")
    until(lambda: t.json("ps", "-a", "--json"), 120, "a VM")
    time.sleep(3 * SLOW)  # until the command runs, which nobody outside can see
    t.ic("pool", "stop", "-a", rc=0)  # which gives up after a minute
    child.wait(30)
    assert t.json("ps", "-a", "--json") == []


def test_warm_up_dies_with_its_keeper(t):
    child = t.start("pool", "start", "-q", "-n", "1", "--foreground", "--config", config(t, boot_timeout_ms=600000), "--",
                    "sleep", "1000")
    until(lambda: t.json("ps", "-a", "--json"), 120, "a VM")
    time.sleep(3 * SLOW)
    child.kill()
    child.wait()
    until(lambda: not Processes.of(t.home), 60, "no process left, with nobody's help")
    assert t.json("ps", "-a", "--json") == []


def test_no_warm_up(t):
    start(t, 1, "--no-warm-up")
    assert t.ic("run", "--", "echo", "x", rc=0).text == "x\n"
    assert pool(t)["handed_over"] == 1


def test_signal_while_it_starts(t):
    """Nobody would know of a pool whose start was interrupted."""
    child = t.start("pool", "start", "-q", "-n", "1", "--config", config(t, boot_timeout_ms=600000), "--", "sleep", "1000")
    until(lambda: t.json("ps", "-a", "--json"), 120, "a VM")
    child.terminate()
    assert child.wait(60) == 128 + signal.SIGTERM, child.returncode
    assert pool(t) is None and t.json("ps", "-a", "--json") == []
    assert not Processes.of(t.home), Processes.of(t.home)


def test_limit_while_it_starts(t):
    t.write_config({**t.config, "limits": {"max_vms": 1}})
    t.error("pool", "start", "-q", "-n", "2", status=FAILED, words=["limits.max_vms 1", "ironclaw ps"], timeout=200)
    assert pool(t) is None and t.json("ps", "-a", "--json") == []
    start(t, 1)


def test_memory_that_a_command_is_counted(t):
    """Of its own, and not what the template's agent once had to clear all that was free."""
    start(t, 1)
    used = json.loads(t.ic("run", "--json", "--", "true", rc=0).out)["max_rss_kib"]
    assert 0 < used < 32 << 10, used


def test_image_that_was_built_anew(t):
    """What the pool's VMs have in their memory is of the image that was."""
    mine = t.own_store(copied=["manifest.json"])
    start(t, 1)
    manifest = json.loads((mine / "manifest.json").read_text())
    manifest["defaults"]["env"].append("NEW=1")
    text = json.dumps(manifest).encode()
    other = mine.parent / hashlib.sha256(text).hexdigest()
    shutil.copytree(mine, other)
    other.chmod(0o700)
    (other / "manifest.json").chmod(0o600)
    (other / "manifest.json").write_bytes(text)
    name = t.home / "data/images/names" / t.image
    name.unlink()
    name.symlink_to(f"../{other.name}")
    assert t.ic("run", "--cold", "--", "sh", "-c", "echo $NEW", rc=0).text == "1\n"
    assert t.ic("run", "--image", mine.name, "--", "sh", "-c", "echo .$NEW", rc=0).text == ".\n"
    assert pool(t)["handed_over"] == 1
    until(lambda: "built or imported anew" in pool(t)["trouble"], 60, "trouble")
    assert pool(t)["ready"] == 0
