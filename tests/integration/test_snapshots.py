# SPDX-License-Identifier: Apache-2.0
"""VMs at rest: templates that `run` starts from, snapshots with a name, forks; damage, a full disk and kill -9 among them."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import frames
from harness import FAILED, SLOW, USAGE, Failure, until

GUEST = Path(__file__).resolve().parent / "guest"
BUILD_S = 200  # of a template; times SLOW


def parallel(count, function):
    """The results of function(i), all at once; the first error is raised."""
    results, errors = [None] * count, []

    def body(i):
        try:
            results[i] = function(i)
        except Exception as e:  # pylint: disable=broad-except
            errors.append(e)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


# ---- templates -------------------------------------------------------------------------------------------------------

def ready_template(t):
    """A store of the test's own that has a copy of the shared template, and its name: no test waits for a boot."""
    name = t.ic("template", "build", "-q", rc=0, timeout=BUILD_S).text.strip()
    shared = (t.home / "data/templates/names" / name).resolve()
    top = t.own_data("templates") / "templates"
    shutil.copytree(shared, top / shared.name)
    (top / shared.name).chmod(0o700)
    (top / "names" / name).symlink_to(Path("..") / shared.name)
    t.ic("template", "verify", name, rc=0)
    return name, top / shared.name


def origin(t, *options):
    return json.loads(t.ic("run", "--json", *options, "--", "true", rc=0, timeout=BUILD_S).out)["origin"]


def names(t, kind="template"):
    return t.ic(kind, "ls", "-q", rc=0).text.split()


def test_run_makes_a_template_and_starts_from_it(t):
    t.own_data("templates")
    assert names(t) == []
    assert origin(t, "--cold") == "" and names(t) == [], "--cold made a template"
    first = origin(t)
    (entry,) = t.json("template", "ls", "--json")
    assert first == f"template {entry['name']}", (first, entry)
    assert (entry["backend"], entry["image"], entry["memory_mib"]) == (t.backend, t.image, 256), entry
    assert 10 << 20 < entry["size_bytes"] < 256 << 20, entry
    assert origin(t) == first and origin(t, "--cold") == ""
    again = t.ic("template", "build", rc=0)
    assert again.text.strip() == entry["name"] and "is there already" in again.errors, again
    assert "every digest is right" in t.ic("template", "verify", rc=0).text
    with t.vm("v") as vm:  # what concerns only the VM's processes or its commands needs no other template
        assert t.json("inspect", vm)[0]["origin"] == first
        assert t.sh(vm, "hostname").out == b"v\n"
        t.ic("template", "rm", entry["name"], rc=0)
        assert names(t) == []
        assert int(t.sh(vm, "ls /usr/bin | wc -l").out) > 50, "it lost the memory that it began with"


def test_two_first_runs_make_one_template(t):
    t.own_data("templates")
    found = parallel(2, lambda i: origin(t))
    assert found[0] == found[1] == f"template {names(t)[0]}", found
    assert len(names(t)) == 1


def test_template_rm_and_prune(t):
    name, _ = ready_template(t)
    t.error("template", "rm", "0123456789abcdef", status=FAILED, words=["0123456789abcdef"])
    t.ic("template", "rm", "-f", "0123456789abcdef", rc=0)
    t.error("template", "verify", "0123456789abcdef", status=FAILED, words=["0123456789abcdef"])
    assert t.ic("template", "prune", rc=0).text == "0 removed\n"
    assert t.ic("template", "prune", "--max-age", "1", rc=0).text == "0 removed\n"
    assert names(t) == [name]
    assert t.ic("template", "prune", "--max-total", "1", rc=0).text == "1 removed\n"
    assert names(t) == []


def flip(path, at):
    """One bit, in place."""
    path.chmod(0o600)
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 4]))


def middle_of_data(path):
    """A byte in the middle of a sparse file's longest stretch of data."""
    with open(path, "rb") as f:
        end, at, best = f.seek(0, os.SEEK_END), 0, (0, 0)
        while at < end:
            with contextlib.suppress(OSError):
                at = f.seek(at, os.SEEK_DATA)
                hole = f.seek(at, os.SEEK_HOLE)
                best = max(best, (hole - at, at))
                at = hole
                continue
            break
        return best[1] + best[0] // 2


def damages(directory):
    """(file, what was done to it, function) for each file of a template or snapshot."""
    for part in sorted(p.name for p in directory.iterdir() if p.name in ("state", "memory")):
        path = directory / part
        yield part, "a flipped bit", lambda p=path: flip(p, middle_of_data(p))
        yield part, "truncated by a byte", lambda p=path: os.truncate(p, p.stat().st_size - 1)
        yield part, "empty", lambda p=path: os.truncate(p, 0)
        yield part, "gone", path.unlink
    yield "manifest.json", "truncated", lambda: os.truncate(directory / "manifest.json", 20)


def damaged_in_turn(directory):
    """Does each damage to a copy of the directory's files, which are put back afterwards."""
    for part, what, damage in damages(directory):
        path = directory / part
        saved = path.with_name("saved")
        path.rename(saved)
        subprocess.run(["cp", "--sparse=always", "-p", saved, path], check=True)
        path.chmod(0o600)
        damage()
        yield part, what
        saved.rename(path)


def test_template_that_is_damaged(t):
    name, directory = ready_template(t)
    for part, what in damaged_in_turn(directory):
        message = t.error("template", "verify", "-q", name, status=FAILED, words=[name, part, "template rm"])
        assert "damaged" in message or "bytes" in message or "No such file" in message or "manifest" in message, (what, message)
    t.ic("template", "verify", name, rc=0)
    # Such a one is no reason for a `run` to fail, nor to start what is not as it was saved.
    part = "memory" if (directory / "memory").exists() else "state"
    flip(directory / part, middle_of_data(directory / part))
    result = t.ic("run", "--json", "--", "sh", "-c", "echo well", rc=0, timeout=BUILD_S)
    assert json.loads(result.out)["origin"] == f"template {name}", result
    t.ic("template", "verify", name, rc=0)
    assert names(t) == [name]


# ---- snapshots of VMs that run ---------------------------------------------------------------------------------------

# Writes the time into a file of its name for ever, in a process that its command leaves behind.
BEAT = "(while :; do date +%s%N >/tmp/beat.new; mv /tmp/beat.new /tmp/beat; sleep 0.1; done) >/dev/null 2>&1 </dev/null &"


def keeps_connections(t):
    """Or else a VM is only saved while no command runs in it."""
    return t.backend != "qemu"


def beats(t, vm):
    """That the daemon of before goes on."""
    def beat():
        return t.sh(vm, "cat /tmp/beat 2>/dev/null || :").out.strip()
    seen = beat()
    until(lambda: beat() not in (b"", seen), 20, f"the daemon in {vm} goes on")


def snapshot(t, vm, name):
    told = t.json("snapshot", "create", "--json", vm, name)
    assert told["name"] == name and 0 < told["pause_us"] < 60e6 * SLOW, told
    return told["pause_us"]


@contextlib.contextmanager
def restored(t, snapshot_name, vm):
    told = t.json("restore", "--json", "--name", vm, snapshot_name)["vms"][0]
    try:
        assert (told["vm_id"], told["origin"]) == (vm, f"snapshot {snapshot_name}"), told
        yield told
    finally:
        t.ic("rm", "-f", vm)


def refused(t, vm, *words):
    for verb in (("snapshot", "create", vm, "s"), ("fork", vm)):
        t.error(*verb, status=FAILED, words=[vm, *words])
    assert names(t, "snapshot") == [] and not fork_leftovers(t, vm), fork_leftovers(t, vm)


def test_vm_whose_device_can_not_be_unplugged(t):
    if keeps_connections(t):
        t.skip("the backend of this test saves it with its device")
    t.own_data("snapshots")
    with t.vm("v", "--cold"):
        refused(t, "v", "qemu", "can't save", "--cold")
        assert t.sh("v", "echo goes on").out == b"goes on\n"
    t.error("restore", "s", status=FAILED, words=["s"])


def test_commands_in_progress_are_not_cut_off(t):
    if keeps_connections(t):
        t.skip("the backend of this test saves a VM with commands in progress")
    t.own_data("snapshots")
    with t.vm("v"):
        t.sh("v", f"mkfifo /tmp/never; {BEAT}")
        children = [stream(t, "v", i, 30) for i in range(2)]
        first = [begun(child) for child in children]
        refused(t, "v", "in progress (2)")
        beats(t, "v")
        check_streams(children, first, 30)
        snapshot(t, "v", "s")


def test_commands_that_begin_while_a_vm_is_held_wait(t):
    t.own_data("snapshots")
    with t.vm() as name:
        over, results = threading.Event(), []

        def work():
            while not over.is_set():
                results.append(t.ic("exec", name, "--", "echo", "hi"))
                time.sleep(0.1)  # QEMU saves only between commands

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for i in range(5):
                t.ic("snapshot", "create", name, f"s{i}", rc=0)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert len(results) > 5
        for result in results:
            assert (result.rc, result.text) == (0, "hi\n"), result


def test_a_saver_that_died_lets_nobody_wait(t):
    """What is left of one between FREEZE and THAW: who comes next lets the VM go on; who is there already is told."""
    t.own_data("snapshots")
    with t.vm() as name:
        state = t.home / "state/vms" / name
        with frames.control(t.home / "run" / name / "v") as saver:
            saver.ask(frames.FREEZE)
            there = frames.start(t.home / "run" / name / "v", ["true"])
            time.sleep(0.2)
        try:
            raise AssertionError(f"served by a frozen guest: {there.next()}")
        except frames.Refused as e:
            assert "frozen" in e.message, e
        there.close()
        (state / "saving-000000").mkdir(mode=0o700)
        (state / "held").touch(mode=0o600)
        assert t.ic("exec", name, "--", "echo", "hi", rc=0).text == "hi\n"
        assert sorted(path.name for path in state.iterdir() if path.name.startswith(("saving", "held"))) == []
        with open(state / "held", "w", encoding="utf-8") as held:  # one that is alive
            fcntl.flock(held, fcntl.LOCK_EX)
            child = t.start("exec", name, "--", "echo", "hi")
            time.sleep(0.5)
            assert child.poll() is None, child.communicate()
            (state / "held").unlink()
        assert child.communicate(timeout=30 * SLOW)[0] == b"hi\n"


def test_restore_of_a_kept_vm(t):
    t.own_data("snapshots")
    facts = "hostname; cat /run/ironclaw/generation /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1"
    with t.vm("v"):
        t.sh("v", f"echo before >/tmp/told; {BEAT}")
        beats(t, "v")
        snapshot(t, "v", "s1")
        t.sh("v", "echo after >/tmp/told")
        beats(t, "v")
        assert t.sh("v", "hostname").out == b"v\n"
        (entry,) = t.json("snapshot", "ls", "--json")
        assert (entry["name"], entry["vm_id"], entry["backend"]) == ("s1", "v", t.backend), entry
        with contextlib.ExitStack() as stack:
            two = parallel(2, lambda i: stack.enter_context(restored(t, "s1", f"r{i}")))  # both at the same time
            all_facts = [t.sh("v", facts.replace("/run/ironclaw/generation", "")).text.split("\n")]
            for i, told in enumerate(two):
                assert t.sh(f"r{i}", "cat /tmp/told").out == b"before\n"
                beats(t, f"r{i}")
                own = t.sh(f"r{i}", facts).text.split("\n")
                assert own[0] == f"r{i}" and own[1].replace("-", "") == told["generation"], (own, told)
                all_facts.append(own)
            values = [value for own in all_facts for value in own if value]
            assert len(set(values)) == len(values), f"something is the same in two of them: {all_facts}"
            t.sh("r0", "echo mine >/tmp/told")
            assert t.sh("r1", "cat /tmp/told").out == b"before\n" and t.sh("v", "cat /tmp/told").out == b"after\n"
            t.ic("snapshot", "verify", "s1", rc=0)
            t.ic("snapshot", "rm", "s1", rc=0)
            assert t.sh("r1", "ls /usr/bin | wc -l; cat /tmp/told").out.split()[1:] == [b"before"]
    assert names(t, "snapshot") == []


def test_snapshot_outlives_its_vm(t):
    t.own_data("snapshots")
    with t.vm("v", "-e", "WORD=of the VM"):
        t.sh("v", "echo kept >/var/tmp/file")
        snapshot(t, "v", "s")
    t.assert_clean("after the VM")
    with restored(t, "s", "v"):  # by the same name, too
        assert t.sh("v", "cat /var/tmp/file; echo $WORD").out == b"kept\nof the VM\n"
        snapshot(t, "v", "second")  # of what was restored
    with restored(t, "second", "w"):
        assert t.sh("w", "cat /var/tmp/file; hostname").out == b"kept\nw\n"


def test_names_of_snapshots(t):
    t.own_data("snapshots")
    with t.vm("v"):
        snapshot(t, "v", "s")
        t.error("snapshot", "create", "v", "s", status=FAILED, words=["'s'", "there already", "snapshot rm"])
        for bad in ("", "Upper", "../x", ".hidden", "with space", "a" * 65, "sl/ash", "ü"):
            t.error("snapshot", "create", "v", bad, status=FAILED, words=["name"])
            assert t.ic("restore", bad).rc == FAILED
        t.error("snapshot", "create", "nobody", "x", status=FAILED, words=["nobody"])
        for verb in (("restore", "none"), ("snapshot", "rm", "none"), ("snapshot", "verify", "none")):
            t.error(*verb, status=FAILED, words=["none"])
        t.ic("snapshot", "rm", "-f", "none", rc=0)
        t.error("restore", "--name", "v", "s", status=FAILED, words=["'v'"])
        t.error("restore", "--name", "No Name", "s", status=FAILED, words=["No Name"])
        assert names(t, "snapshot") == ["s"]
        assert t.sh("v", "echo well").out == b"well\n"


def test_snapshot_of_a_vm_that_does_not_run(t):
    t.own_data("snapshots")
    with t.vm("v"):
        t.ic("pause", "v", rc=0)
        t.error("snapshot", "create", "v", "s", status=FAILED, words=["paused"])
        t.error("fork", "v", status=FAILED, words=["paused"])
        t.ic("unpause", "v", rc=0)
        t.sh("v", "true")
        t.ic("stop", "v", rc=0)
        t.error("snapshot", "create", "v", "s", status=FAILED, words=["has ended"])
    assert names(t, "snapshot") == []


def test_signal_to_restore_and_fork(t):
    """Who asked is gone, or wants it no more: there is no VM that nobody knows of, and its name is free."""
    t.own_data("snapshots")
    with t.vm("v"):
        snapshot(t, "v", "s")
        ended = 0
        for command in (("restore", "s", "--name", "w"), ("fork", "v", "--name", "w")):
            for delay in (0, 0.02, 0.1, 0.4):
                child = t.start(*command)
                until(lambda: (t.home / "state/vms/w").exists() or child.poll() is not None, 60, "the VM's record", step=0.001)
                time.sleep(delay)
                child.terminate()
                status, known = child.wait(60), [vm["vm_id"] for vm in t.json("ps", "-a", "--json")]
                assert (status, known) in ((128 + signal.SIGTERM, ["v"]), (0, ["v", "w"])), (command, delay, status, known)
                ended += status != 0
                t.ic("rm", "-f", "w", rc=0)
        assert ended > 0, "all of them were faster than their signal"
        assert t.sh("v", "echo well").out == b"well\n"


def test_snapshot_that_is_damaged(t):
    """It is never started, and says what to do; nothing of the attempt is left."""
    t.own_data("snapshots")
    with t.vm("v"):
        snapshot(t, "v", "s")
    directory = (t.home / "data/snapshots/names/s").resolve()
    for part, what in damaged_in_turn(directory):
        for verb in (("restore", "s"), ("snapshot", "verify", "-q", "s")):
            message = t.error(*verb, status=FAILED, words=["s", part, "snapshot rm s"])
            assert any(word in message for word in ("damaged", "bytes", "No such file", "manifest")), (what, message)
        assert t.json("ps", "-a", "--json") == [], what
    with restored(t, "s", "r"):
        assert t.sh("r", "echo well").out == b"well\n"


def test_restore_without_the_base_image(t):
    t.own_data("snapshots")
    with t.vm("v"):
        snapshot(t, "v", "s")
    manifest = (t.home / "data/snapshots/names/s").resolve() / "manifest.json"
    text = manifest.read_text()
    rootfs = str(t.image_dir() / "rootfs.erofs")
    assert rootfs in text or rootfs.replace("/", "\\/") in text, text
    manifest.chmod(0o600)
    manifest.write_text(text.replace(rootfs, "/nonexistent/rootfs.erofs"))
    t.error("restore", "s", status=FAILED, words=["/nonexistent/rootfs.erofs"])
    assert t.json("ps", "-a", "--json") == []


# ---- under load ------------------------------------------------------------------------------------------------------

LINES, STREAMS = 60, 20
STREAM = "exec 9<>/tmp/never; for i in $(seq {0}); do echo line-$i-{1}; read -t 0.2 -u 9; done; exit {2}"


def stream(t, vm, i, lines):
    """A command that says a line again and again; no process of its own for each, as a slow guest has to keep up."""
    return t.start("exec", vm, "--", "bash", "-c", STREAM.format(lines, i, 40 + i))


def check_streams(children, first, lines):
    """Of a VM that was held meanwhile: nothing is lost, and each ends as it wanted to."""
    for i, child in enumerate(children):
        out, err = child.communicate(timeout=120 * SLOW)
        expected = b"".join(b"line-%d-%d\n" % (n + 1, i) for n in range(lines))
        assert (child.returncode, first[i] + out) == (40 + i, expected), (i, child.returncode, err[-300:], out[-200:])


def start_load(t, vm):
    """A writer of files with their digests as names, and a listener, which their command leaves behind."""
    t.ic("cp", GUEST / "load.py", f"{vm}:/var/tmp/load.py", rc=0)
    t.sh(vm, "mkfifo /tmp/never; python3 /var/tmp/load.py write >/var/tmp/write.log 2>&1 </dev/null & "
             "python3 /var/tmp/load.py listen >/var/tmp/listen.log 2>&1 </dev/null &")
    until(lambda: (seen := load(t, vm))["files"] > 2 and seen["listener"] == "hello", 60, "the load has begun", step=0.5)


def load(t, vm):
    """What the guest finds in its files, and what its listener says."""
    return json.loads(t.sh(vm, "python3 /var/tmp/load.py check").out)


def check_load(t, vm):
    seen = load(t, vm)
    assert not seen["wrong"] and seen["listener"] == "hello", (vm, seen)
    until(lambda: load(t, vm)["newest"] > seen["newest"], 60, f"the writer in {vm} goes on", step=0.5)
    return seen["files"]


def begun(child):
    """What it has said so far, which is something. Read past the buffer, as communicate() does."""
    said = os.read(child.stdout.fileno(), 65536)
    assert said, child.stderr.read()
    return said


def test_snapshot_under_load(t):
    t.own_data("snapshots")
    with t.vm("v", "--memory", "320"):
        start_load(t, "v")
        children = [stream(t, "v", i, LINES) for i in range(STREAMS if keeps_connections(t) else 0)]
        first = [begun(child) for child in children]
        pause_us = snapshot(t, "v", "s")
        with restored(t, "s", "r"):
            assert t.sh("r", "pgrep -f '[l]ine-' >/dev/null && echo one goes on || echo none").out == b"none\n", \
                "a command outlived its caller"
            files = check_load(t, "r")
            assert parallel(4, lambda i: t.sh("r", f"echo {i}").out) == [b"%d\n" % i for i in range(4)]
        check_streams(children, first, LINES)
        check_load(t, "v")
    print(f"     snapshot under load: held for {pause_us / 1000:.0f} ms; {files} files whole, {len(children)} streams complete",
          flush=True)


# ---- forks -----------------------------------------------------------------------------------------------------------

def fork_leftovers(t, vm="v"):
    """What children began from, and must not stay with their parent."""
    found = [str(p) for p in (t.home / "state/vms" / vm).glob("saving-*")]
    return found + [str(p) for p in (t.home / "run" / vm).glob("*") if p.name in ("s", "m", "s.new", "m.new")]


def test_fork_into_three_while_commands_run(t):
    t.own_data("snapshots")
    with t.vm("v"):
        t.sh("v", f"mkfifo /tmp/never; echo before >/tmp/told; {BEAT}")
        children = [stream(t, "v", i, 30) for i in range(3 if keeps_connections(t) else 0)]
        first = [begun(child) for child in children]
        told = t.json("fork", "-n", "3", "--name", "k", "--json", "v")
        try:
            assert [vm["vm_id"] for vm in told["vms"]] == ["k-1", "k-2", "k-3"] and told["pause_us"] > 0, told
            assert {vm["origin"] for vm in told["vms"]} == {"fork of v"}, told
            assert len({vm["generation"] for vm in told["vms"]}) == 3, told
            assert not fork_leftovers(t), fork_leftovers(t)
            for vm in told["vms"]:
                name = vm["vm_id"]
                own = t.sh(name, f"hostname; cat /run/ironclaw/generation; cat /tmp/told; echo {name} >/tmp/told; sync").text.split()
                assert own[0] == name and own[1].replace("-", "") == vm["generation"] and own[2:] == ["before"], (own, vm)
                assert t.sh(name, "pgrep -f '[l]ine-' >/dev/null && echo goes on || echo none").out == b"none\n"
                beats(t, name)
            for name in ("k-1", "k-2", "k-3"):
                assert t.sh(name, "cat /tmp/told").text.strip() == name, "children share a file"
            assert t.sh("v", "cat /tmp/told; hostname").out == b"before\nv\n"
            check_streams(children, first, 30)
        finally:
            t.ic("rm", "-f", "k-1", "k-2", "k-3")
    print(f"     fork: held for {told['pause_us'] / 1000:.0f} ms, children after "
          f"{', '.join(str(vm['boot_ms']) for vm in told['vms'])} ms", flush=True)


def test_fork_that_can_not_be(t):
    t.own_data("snapshots")
    with t.vm("v"):
        for count in ("0", "65", "-1", "x"):
            assert t.ic("fork", "-n", count, "v").rc == USAGE, count
        t.error("fork", "nobody", status=FAILED, words=["nobody"])
        t.error("fork", "--name", "No Name", "v", status=FAILED, words=["No Name"])
        t.error("fork", "-n", "2", "--name", "", "v", status=FAILED, words=["vm id ''"])
        t.ic("run", "--keep", "--name", "x-2", "--", "true", rc=0)
        try:
            t.error("fork", "-n", "2", "--name", "x", "v", status=FAILED, words=["x-2"])
            assert sorted(vm["vm_id"] for vm in t.json("ps", "-a", "--json")) == ["v", "x-2"], "a child stayed"
        finally:
            t.ic("rm", "-f", "x-2")
        assert t.sh("v", "echo well").out == b"well\n" and not fork_leftovers(t), fork_leftovers(t)


# ---- a full disk -----------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def small_disk(t, path, mib):
    """A file system of so many MiB at a directory of the test's."""
    path.mkdir(mode=0o700, exist_ok=True, parents=True)
    result = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "small", path], check=False,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        t.skip(f"can't mount a tmpfs here: {result.stdout.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_full_disk_of_the_store(t):
    t.own_data("snapshots")
    top = t.home / "data/snapshots"
    with t.vm("v") as vm, small_disk(t, top, 150) as disk:
        (disk / "names").mkdir(mode=0o700)
        t.sh("v", "echo before >/tmp/told")
        snapshot(t, vm, "old")
        left = os.statvfs(disk)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(left.f_bavail * left.f_bsize - (20 << 20)))
        t.error("snapshot", "create", vm, "new", status=FAILED, words=["space"])
        assert names(t, "snapshot") == ["old"] and not t.unfinished(), t.unfinished()
        assert not fork_leftovers(t)
        after = os.statvfs(disk)
        assert after.f_bavail * after.f_bsize >= 19 << 20, "the attempt's space was not given back"
        assert t.sh(vm, "echo well").out == b"well\n"
        ballast.unlink()
        t.ic("snapshot", "verify", "old", rc=0)
        with restored(t, "old", "r"):
            assert t.sh("r", "cat /tmp/told").out == b"before\n"


def test_full_disk_of_the_vm(t):
    """Where its monitor writes what it saves."""
    t.own_data("snapshots")
    with small_disk(t, t.home / "run", 24), t.vm("v") as vm:
        for verb in (("snapshot", "create", vm, "s"), ("fork", vm)):
            t.error(*verb, status=FAILED, words=["space"])
            assert names(t, "snapshot") == [] and not t.unfinished() and not fork_leftovers(t), fork_leftovers(t)
            assert t.sh(vm, "echo well").out == b"well\n"
            assert [entry["vm_id"] for entry in t.json("ps", "-a", "--json")] == ["v"]
        used = os.statvfs(t.home / "run")
        assert (used.f_blocks - used.f_bavail) * used.f_bsize < 1 << 20, "something that was saved stayed"


# ---- kill -9 ---------------------------------------------------------------------------------------------------------

MOMENTS = (0.1, 0.35, 0.6, 0.85)


def killed_at(t, argv, seconds):
    child = t.start(*argv)
    time.sleep(seconds)
    child.kill()
    child.communicate()
    return child.returncode != 0


def timed(function):
    started = time.monotonic()
    function()
    return time.monotonic() - started


def check_goes_on(t, what):
    """After whatever became of a save, once somebody has looked: the VM runs commands, alone, and nothing is left."""
    t.ic("ps", rc=0)
    result = t.ic("exec", "--timeout", "30s", "v", "--", "echo", "well")
    if (result.rc, result.out) != (0, b"well\n"):
        raise Failure(f"{what}: the VM does not go on: {result}; state {t.json('inspect', 'v')[0]['state']}")
    with contextlib.suppress(Failure):
        until(lambda: not fork_leftovers(t), 5, "clean")
    assert not fork_leftovers(t), (what, fork_leftovers(t))


def test_kill_of_snapshot_create(t):
    t.own_data("snapshots")
    with t.vm("v"):
        takes = timed(lambda: snapshot(t, "v", "whole"))
        for i, share in enumerate(MOMENTS):
            killed_at(t, ("snapshot", "create", "v", f"s{i}"), share * takes)
            check_goes_on(t, f"killed at {share} of {takes:.2f} s")
        for name in names(t, "snapshot"):  # those that were made before the kill came, and the first
            t.ic("snapshot", "verify", name, rc=0)
        t.ic("snapshot", "rm", "whole", rc=0)  # a change of the store removes what builders left
        assert not t.unfinished(), t.unfinished()


def test_kill_of_fork(t):
    t.own_data("snapshots")
    with t.vm("v"):
        takes = timed(lambda: t.ic("fork", "-q", "-n", "2", "--name", "whole", "v", rc=0))
        t.ic("rm", "-f", "whole-1", "whole-2", rc=0)
        for i, share in enumerate(MOMENTS):
            killed_at(t, ("fork", "-n", "2", "--name", f"f{i}", "v"), share * takes)
            check_goes_on(t, f"killed at {share} of {takes:.2f} s")
            for vm in t.json("ps", "-a", "--json"):  # a child that had begun is whole
                if vm["vm_id"] != "v":
                    if vm["state"] == "ready":
                        assert t.sh(vm["vm_id"], "hostname").text.strip() == vm["vm_id"]
                    t.ic("rm", "-f", vm["vm_id"], rc=0)


def test_kill_of_template_build(t):
    t.own_data("templates")
    takes = timed(lambda: t.ic("template", "build", "-q", rc=0, timeout=BUILD_S))
    t.ic("template", "rm", *names(t), rc=0)
    for share in (0.3, 0.9, 0.97):
        killed_at(t, ("template", "build", "-q"), share * takes)
        t.ic("ps", rc=0)
        t.assert_clean(f"after a build that was killed at {share} of {takes:.2f} s", 5)
        for name in names(t):
            t.ic("template", "verify", name, rc=0)
    t.ic("template", "prune", "--max-total", "1", rc=0)
    t.ic("run", "--", "true", rc=0, timeout=BUILD_S)
    assert not t.unfinished() and len(names(t)) == 1, t.unfinished()


for each in (test_snapshot_under_load, test_kill_of_snapshot_create, test_kill_of_fork, test_kill_of_template_build):
    each.alone = True
