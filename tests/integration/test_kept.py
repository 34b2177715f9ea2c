# SPDX-License-Identifier: Apache-2.0
"""A VM that outlives its first command: exec, cp, logs, ps, inspect, stop, kill, rm."""

import os
import random
import stat
import subprocess
import threading
import time

from harness import FAILED, SLOW, USAGE, Failure, until


def parallel(count, function):
    """function(i) in `count` threads at once; the first error is raised."""
    errors = []

    def body(i):
        try:
            function(i)
        except Exception as e:  # pylint: disable=broad-except
            errors.append(e)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_twenty_execs_at_once(t):
    with t.vm() as name:
        def one(i):
            script = f"for n in 1 2 3; do echo {i}-$n; sleep 0.1; done; cat; exit {i}"
            result = t.ic("exec", "-i", name, "--", "sh", "-c", script, stdin=b"in%d\n" % i, rc=i)
            assert result.out == b"".join(b"%d-%d\n" % (i, n) for n in (1, 2, 3)) + b"in%d\n" % i, result
        parallel(20, one)


def make_tree(top, count=2000):
    """Files of many kinds, names, modes and sizes."""
    rng = random.Random(1)
    names = ["plain", "with space", "new\nline", "tab\there", "-dash", "quote'\"", "back\\slash", "ünï", ".hidden", "*"]
    directories = [top]
    top.mkdir()
    for i in range(60):
        directory = rng.choice(directories) / f"{names[i % len(names)]} d{i}"
        directory.mkdir()
        directories.append(directory)
    for i in range(count - 60):
        path = rng.choice(directories) / f"{names[i % len(names)]}{i}"
        kind = i % 20
        if kind == 0:
            path.symlink_to(rng.choice(["plain1", "../up", "/absolute/nowhere", "with space/x\ny"]))
        elif kind == 1:
            path.touch()
        elif kind == 2 and i < 200:
            with open(path, "wb") as f:  # sparse: data, 3 MiB hole, data
                f.write(b"begin")
                f.seek(3 << 20)
                f.write(b"end")
        else:
            path.write_bytes(rng.randbytes(rng.choice([1, 100, 4096, 70000])))
        if not path.is_symlink():
            path.chmod(rng.choice([0o644, 0o600, 0o755, 0o444, 0o640, 0o4755, 0o2755]))
    (top / "all-hole").write_bytes(b"")
    os.truncate(top / "all-hole", 5 << 20)
    for directory in directories[1::7]:
        directory.chmod(0o750)
    return top


def listing(top):
    """Everything that cp must keep, of each entry. Set-uid and set-gid bits never come out of a guest."""
    result = {}
    for directory, dirs, files in os.walk(os.fsencode(top)):
        for name in dirs + files:
            path = os.path.join(directory, name)
            st = os.lstat(path)
            what = [stat.S_IFMT(st.st_mode), st.st_mode & 0o777]
            if stat.S_ISLNK(st.st_mode):
                what = ["link", os.readlink(path)]
            elif stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    what += [st.st_size, hash(f.read()), int(st.st_mtime)]
            result[os.path.relpath(path, os.fsencode(top))] = what
    return result


def test_cp_tree_both_ways(t):
    tree = make_tree(t.work / "tree")
    with t.vm("v", "--memory", "512") as name:
        t.ic("cp", tree, f"{name}:/var/tmp/copy", rc=0)
        guest = t.sh(name, "cd /var/tmp/copy && find . | tr -cd '\\n' | wc -c; find . -type l | wc -l; du -sk .",
                     options=("-u", "root"))
        t.ic("cp", f"{name}:/var/tmp/copy", t.work / "back", rc=0)
        assert not [p for p in (t.work / "back").rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o6000]
        before, after = listing(tree), listing(t.work / "back")
        assert len(before) >= 2000
        assert before.keys() == after.keys(), f"{set(before) ^ set(after)} {guest}"
        for path, what in before.items():
            if stat.S_IFREG in what:
                what[1] &= 0o1777  # a guest's file gets no set-id bits on the host
            assert what == after[path], f"{path}: {what} became {after[path]}"
        sparse = (t.work / "back/all-hole").stat()
        assert sparse.st_blocks * 512 < 1 << 20, "the hole was filled"
        # Into a directory that is there, and one file onto another name.
        t.ic("cp", tree / "all-hole", f"{name}:/var/tmp", rc=0)
        t.ic("cp", tree / "all-hole", f"{name}:/var/tmp/other", rc=0)
        t.sh(name, "cmp /var/tmp/all-hole /var/tmp/other")
        assert "no-such" in t.error("cp", f"{name}:/no-such", t.work / "x", status=FAILED, words=["no-such"])
        assert not (t.work / "x").exists()
        until(lambda: t.json("stats", "--json", name)[0]["sessions"] == 1, 20, "what served the copies has ended", step=0.5)


def test_cp_out_of_hostile_names(t):
    """What the guest calls its files can't lead out of the target."""
    with t.vm() as name:
        t.sh(name, "mkdir -p /tmp/d && ln -s / /tmp/d/root && ln -s ../../.. /tmp/d/up && echo x > '/tmp/d/..x'")
        t.ic("cp", f"{name}:/tmp/d", t.work / "d", rc=0)
        assert sorted(os.listdir(t.work / "d")) == ["..x", "root", "up"]
        assert os.readlink(t.work / "d/root") == "/"
        # What the kernel shows as files is no tree to copy, and nobody asked for all of them by leaving the path out.
        t.error("cp", f"{name}:/proc", t.work / "proc", status=FAILED, words=["/proc", "kernel's", "single files"])
        t.error("cp", f"{name}:", t.work / "all", status=USAGE, words=["names no file", f"{name}:/"])
        assert not (t.work / "proc").exists() and not (t.work / "all").exists()
        t.ic("cp", f"{name}:/proc/meminfo", t.work / "meminfo", rc=0)
        assert (t.work / "meminfo").read_text().startswith("MemTotal:")
        # A link in the target's place is not followed.
        outside = t.work / "outside"
        outside.mkdir()
        target = t.work / "e"
        target.mkdir()
        (target / "d").mkdir()
        (target / "d" / "..x").symlink_to(outside / "written")
        t.ic("cp", f"{name}:/tmp/d", target)
        assert not list(outside.iterdir())


def test_closed_descriptors(t):
    """They are as good as /dev/null: a pipe of the command's own in their place would have it wait for itself."""
    with t.vm() as name:
        for closed, out in (("<&-", b"hello\n"), (">&-", b""), ("2>&-", b"hello\n"), ("<&- >&- 2>&-", b"")):
            words = t.argv("exec", "-i", name, "--", "sh", "-c", "cat; echo hello; exit 7")
            child = t.start_other(["sh", "-c", f'exec "$@" {closed}', "sh", *map(str, words)], stdout=subprocess.PIPE)
            try:
                said, _ = child.communicate(timeout=30 * SLOW)
            except subprocess.TimeoutExpired:
                raise Failure(f"no end with {closed}") from None
            assert (child.returncode, said) == (7, out), (closed, child.returncode, said)


def test_logs(t):
    with t.vm() as name:
        boot = t.sh(name, "dmesg", options=("-u", "root")).out
        assert b"Linux version" in boot, boot
        follower = t.start("logs", "-f", name)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(follower.stdout), daemon=True)
        reader.start()
        time.sleep(0.5)
        assert follower.poll() is None, "logs -f ended by itself"
        t.sh(name, "echo marker-$((40+2)) > /dev/kmsg", options=("-u", "root"))
        until(lambda: any(b"marker-42" in line for line in list(lines)), 15, "the guest's kernel message in logs -f")
        t.sh(name, r"printf '\033[31mred\n' > /dev/kmsg", options=("-u", "root"))
        until(lambda: any(b"red" in line for line in list(lines)), 15, "the second message")
        assert not any(b"\x1b" in line for line in list(lines)), "an escape sequence of the guest came through"
        t.ic("kill", name)
        until(lambda: follower.poll() is not None, 15, "the end of logs -f after its VM")
        reader.join(5)


def test_ps_and_inspect(t):
    with t.vm("one", "--memory", "128"):
        for args in (("ps", "--json"), ("inspect", "one"), ("image", "ls", "--json"), ("image", "inspect", "base"),
                     ("doctor", "--json")):
            output = t.ic(*args).out
            subprocess.run(["python3", "-m", "json.tool"], input=output, stdout=subprocess.DEVNULL, check=True)
        entries = t.json("ps", "--json")
        assert len(entries) == 1 and "one" in str(entries) and "ready" in str(entries), entries
        plain = t.ic("ps", rc=0).text
        assert "one" in plain and "ready" in plain, plain
        assert (entries[0]["backend"], entries[0]["isolation"]) == (t.backend, t.isolation), entries
        assert t.backend in plain and t.isolation.split()[0] in plain, plain
        inspected = t.json("inspect", "one")[0]
        assert (inspected["backend"], inspected["isolation"]) == (t.backend, t.isolation), inspected
        assert "base" in t.ic("image", "ls", rc=0).text
    assert t.json("ps", "--json") == []


def test_exec_keeps_its_own_status(t):
    with t.vm() as name:
        t.ic("exec", name, "--", "sh", "-c", "exit 5", rc=5)
        t.ic("exec", name, "--", "nothing-here", rc=127)
        t.ic("exec", "--timeout", "1s", name, "--", "sleep", "100", rc=124)
        assert t.sh(name, "pgrep -x sleep || echo none").out == b"none\n", "the command outlived its timeout"
        assert t.ic("exec", "-u", "root", "-w", "/etc", "-e", "X=y", name, "--", "sh", "-c", "id -u; pwd; echo $X",
                    rc=0).out == b"0\n/etc\ny\n"
        t.error("exec", "nobody", "--", "true", status=FAILED, words=["nobody"])


def test_client_that_goes_away(t):
    """The command of an exec whose client was killed ends too."""
    with t.vm() as name:
        child = t.start("exec", name, "--", "sh", "-c", "echo begun; sleep 4321")
        assert child.stdout.readline() == b"begun\n"
        child.kill()
        until(lambda: b"gone" in t.sh(name, "pgrep -f 'sleep [4]321' >/dev/null || echo gone").out, 20,
              "the end of the command in the guest", step=0.5)


def test_stop_kill_rm(t):
    t.ic("run", "--keep", "--name", "a", "--", "true", rc=0)
    t.ic("stop", "a", rc=0)
    assert not t.processes(), t.processes()
    t.error("exec", "a", "--", "true", status=FAILED, words=["a"])
    assert t.ic("logs", "a", rc=0).out, "the log stays until rm"
    t.ic("rm", "a", rc=0)
    t.assert_clean("after rm")

    t.ic("run", "--keep", "--name", "b", "--", "true", rc=0)
    t.ic("kill", "b", rc=0)
    assert not t.processes(), t.processes()
    t.ic("rm", "b", rc=0)

    t.ic("run", "--keep", "--name", "c", "--", "true", rc=0)
    assert t.ic("rm", "c").rc == FAILED, "rm without -f took a VM that runs"
    t.ic("exec", "c", "--", "true", rc=0)
    t.ic("rm", "-f", "c", rc=0)
    t.error("rm", "c", status=FAILED, words=["c"])


def test_stop_of_a_guest_that_will_not(t):
    """A command that ignores TERM doesn't keep the VM."""
    with t.vm() as name:
        t.start("exec", name, "--", "sh", "-c", "trap '' TERM HUP INT; while :; do :; done")
        time.sleep(1)
        started = time.monotonic()
        t.ic("stop", name, rc=0)
        assert time.monotonic() - started < 30
        assert not t.processes(), t.processes()


def test_one_name_twice_at_once(t):
    """Of two that start at once on a name one wins, the other says that it's taken."""
    results = {}

    def one(i):
        results[i] = t.ic("run", "--keep", "--name", "twin", "--", "true")

    parallel(2, one)
    try:
        statuses = sorted(r.rc for r in results.values())
        assert statuses == [0, FAILED], [str(r) for r in results.values()]
        loser = next(r for r in results.values() if r.rc)
        assert "twin" in loser.errors, loser
        t.ic("exec", "twin", "--", "true", rc=0)
    finally:
        t.ic("rm", "-f", "twin", rc=0)


def test_verbs_at_once(t):
    """stop, kill, rm, ps and exec against one VM at the same moment leave no half-state."""
    for _ in range(2):
        t.ic("run", "--keep", "--name", "busy", "--", "true", rc=0)
        verbs = [("stop", "busy"), ("kill", "busy"), ("rm", "-f", "busy"), ("ps", "--json"),
                 ("exec", "busy", "--", "true")]
        parallel(len(verbs), lambda i, v=verbs: t.ic(*v[i]))
        t.ic("rm", "-f", "busy")
        t.assert_clean("after all verbs at once")


def test_four_vms(t):
    def one(i):
        result = t.ic("run", "--", "sh", "-c", f"echo {i}; hostname >/dev/null", rc=0, timeout=200)
        assert result.out == b"%d\n" % i, result
    parallel(4, one)


def test_pause(t):
    with t.vm() as name:
        t.ic("pause", name, rc=0)
        assert "paused" in t.ic("ps", rc=0).text
        t.ic("unpause", name, rc=0)
        t.ic("exec", name, "--", "true", rc=0)


test_four_vms.alone = True
