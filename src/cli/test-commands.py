#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole command line against a library without VMs (test-fake.c): exit statuses, output, signals, terminals."""
import base64, fcntl, json, os, pty, re, select, shutil, signal, struct, subprocess, sys, tempfile, termios, time, unittest

EXE = os.path.abspath(sys.argv.pop(1))
DIR = tempfile.TemporaryDirectory()
LOG = os.path.join(DIR.name, "log")
ENV = {"PATH": os.environ["PATH"], "FAKE_LOG": LOG, "IRONCLAW_HOME": DIR.name, "HOST_ONLY": "from the host"}


def run(*args, stdin=b"", env=None):
    if os.path.exists(LOG):
        os.unlink(LOG)
    p = subprocess.run([EXE, *args], input=stdin, capture_output=True, env={**ENV, **(env or {})}, timeout=30)
    return p.returncode, p.stdout.decode(errors="surrogateescape"), p.stderr.decode(errors="surrogateescape")


def log():
    try:
        with open(LOG) as f:
            return f.read().splitlines()
    except FileNotFoundError:
        return []


def wait_for(line, timeout=10):
    end = time.time() + timeout
    while time.time() < end:
        if any(entry.startswith(line) for entry in log()):
            return
        time.sleep(0.01)
    raise AssertionError(f"no {line!r} in {log()}")


class Run(unittest.TestCase):
    def test_status_is_the_commands(self):
        status, out, err = run("run", "--", "sh", "-c", "echo hello; exit 7")
        self.assertEqual((status, out), (7, "hello\n"))
        self.assertEqual(err, "ironclaw: backend qemu, isolation: software emulation\n")
        self.assertEqual(log()[-1], "destroy task-1")
        self.assertIn("spawn keep=0 tied=1", log())

    def test_other_statuses(self):
        for command, expected in ((["sh", "-c", "kill -TERM $$"], 143), (["/nonexistent"], 127), (["/etc/passwd"], 126)):
            status, _, err = run("run", "-q", *command)
            self.assertEqual(status, expected)
            self.assertEqual(log()[-1], "destroy task-1")
            if expected < 128:
                self.assertEqual(err, "ironclaw: run: the program can't be run \\x1b[31m\n")

    def test_timeout(self):
        status, _, err = run("run", "-q", "--timeout", "100ms", "sleep", "20")
        self.assertEqual(status, 124)
        self.assertRegex(err, "^ironclaw: run: sleep: timed out after .* ms\n$")
        self.assertIn("set timeout_ms=100", log())

    def test_limits(self):
        status, _, err = run("run", "-q", "--max-lifetime", "1m", "--max-output", "64k", "--max-connections", "8",
                             "--max-disk", "20", "--max-disk-ops", "300", "true")
        self.assertEqual((status, err), (0, ""))
        for line in ("set max_lifetime_ms=60000", "set max_output_bytes=65536", "set max_connections=8",
                     "set max_disk_mib_per_s=20", "set max_disk_ops_per_s=300"):
            self.assertIn(line, log())
        status, _, err = run("exec", "--max-output", "10k", "alpha", "--", "true")
        self.assertEqual((status, err), (125, "ironclaw: exec: true: wrote too much; it was killed; see --max-output\n"))
        self.assertIn("max_output=10240 none=0", log())
        status, out, _ = run("exec", "--json", "--max-output", "3", "alpha", "--", "echo", "hel")
        result = json.loads(out)
        self.assertEqual((status, result["status"], result["outcome"], result["signal"]), (125, 125, "output limit", 9))
        self.assertEqual((result["stdout"], result["exit_code"]), ("hel\n", None))
        self.assertEqual(run("exec", "--max-output", "0", "alpha", "--", "true")[0], 0)
        self.assertIn("max_output=0 none=1", log())

    def test_stdin(self):
        self.assertEqual(run("run", "-qi", "cat", stdin=b"in")[1], "in")
        self.assertEqual(run("run", "-q", "cat", stdin=b"in")[1], "")

    def test_environment(self):
        path = os.path.join(DIR.name, "env")
        with open(path, "w") as f:
            f.write("# comment\n\nA=from file\r\nB=two=three\nHOST_ONLY\nNOT_SET_ANYWHERE\n")
        self.assertEqual(run("run", "-q", "--env-file", path, "-e", "A=1", "-e", "C=", "--", "true")[0], 0)
        self.assertEqual([line for line in log() if line.startswith("set env")],
                ["set env=A=1", "set env=B=two=three", "set env=HOST_ONLY=from the host", "set env=C="])
        status, out, _ = run("exec", "-e", "A=a b", "alpha", "--", "sh", "-c", 'echo "$A"')
        self.assertEqual((status, out), (0, "a b\n"))
        for args in (["-e", "=x"], ["-e", ""], ["--env-file", "/nonexistent"], ["--env-file", EXE]):
            status, _, err = run("run", *args, "true")
            self.assertEqual((status, err.count("\n")), (2, 1))
            self.assertEqual([line for line in log() if line.startswith("spawn")], [])

    def test_usage(self):
        for args in (["run"], ["run", "--"], ["run", "--memroy", "1"], ["run", "--memory", "1", "true"],
                ["run", "--cpus", "33", "true"], ["run", "--cpus", "0", "true"], ["run", "--name", "../x", "true"],
                ["run", "--backend", "xen", "true"], ["run", "-w", "relative", "true"], ["run", "-t", "true"],
                ["run", "--keep", "--rm", "true"], ["run", "-di"], ["run", "--config", "/nonexistent", "true"],
                ["exec", "alpha"], ["nonsense"], ["image"], ["image", "nonsense"], ["--nonsense"], ["cp", "a", "b"],
                ["cp", "alpha:/a", "alpha:/b"], ["cp", "alpha:/a", "-"], ["completion", "tcsh"], ["ps", "x"],
                ["inspect", "--type", "x", "y"], ["logs", "--tail", "x", "alpha"], ["run", "\x1b[2J--x"][:1]):
            status, out, err = run(*args)
            self.assertEqual((status, out, err.count("\n")), (2, "", 1), args)
            self.assertTrue(err.startswith("ironclaw: "), err)
            self.assertEqual([line for line in log() if line.startswith("spawn")], [])

    def test_no_such_image(self):
        status, out, err = run("run", "--image", "nope", "true")
        self.assertEqual((status, out, err), (125, "", "ironclaw: run: image nope: not found; run 'ironclaw image ls'\n"))

    def test_keep(self):
        status, out, err = run("run", "-d", "--name", "mine")
        self.assertEqual((status, out, err), (0, "mine\n", "ironclaw: backend qemu, isolation: software emulation\n"))
        self.assertIn("spawn keep=1 tied=0", log())
        self.assertNotIn("destroy mine", log())
        status, out, err = run("run", "--keep", "--name", "mine", "echo", "x")
        self.assertEqual((status, out), (0, "x\n"))
        self.assertIn("VM mine is kept", err)
        self.assertNotIn("destroy mine", log())

    def test_configuration_order(self):
        path = os.path.join(DIR.name, "config.json")
        for p in (path, path + "2"):
            with open(p, "w") as f:
                f.write("{}")
        run("run", "--config", path + "2", "--memory", "1g", "true")
        os.unlink(path)
        self.assertEqual(log()[:3], [f"load {path}", f"load {path}2", "set memory_mib=1024"])

    def test_json(self):
        status, out, err = run("run", "--json", "--", "sh", "-c", r"printf 'a\n\303\251'; printf 'e\377' >&2; exit 3")
        self.assertEqual(out.count("\n"), 1)
        result = json.loads(out)
        self.assertEqual((status, err), (3, ""))
        self.assertEqual((result["status"], result["exit_code"], result["signal"]), (3, 3, None))
        self.assertEqual((result["stdout"], result["stdout_truncated"]), ("a\n\u00e9", False))
        self.assertEqual(base64.b64decode(result["stderr_base64"]), b"e\xff")
        self.assertEqual((result["backend"], result["isolation"]), ("qemu", "software emulation"))
        status, out, _ = run("exec", "--json", "alpha", "true")
        self.assertEqual((status, json.loads(out)["stdout"]), (0, ""))
        status, out, err = run("run", "--json", "--image", "nope", "true")
        self.assertEqual((status, json.loads(out)["error"]["code"]), (125, "IC_ERR_NOT_FOUND"))

    def test_json_is_bounded(self):
        status, out, _ = run("run", "--json", "--", "head", "-c", "20000000", "/dev/zero")
        result = json.loads(out)
        self.assertEqual((status, len(result["stdout"]), result["stdout_truncated"]), (0, 16 << 20, True))

    def test_closed_pipe(self):
        p = subprocess.run(["bash", "-c", f"{EXE} run -q -- yes | head -n1; echo ${{PIPESTATUS[0]}}"],
                capture_output=True, env=ENV, timeout=30)
        self.assertEqual((p.stdout, p.stderr), (b"y\n141\n", b""))
        p = subprocess.run(["bash", "-c", f"{EXE} help | true; {EXE} ps > /dev/full"], capture_output=True, env=ENV)
        self.assertEqual((p.returncode, p.stderr.count(b"\n")), (125, 1))


class Signals(unittest.TestCase):
    def start(self, *args, **env):
        if os.path.exists(LOG):
            os.unlink(LOG)
        return subprocess.Popen([EXE, *args], env={**ENV, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL)

    def finish(self, p):
        out, err = p.communicate(timeout=20)
        return p.returncode, out.decode(), err.decode()

    def test_during_boot(self):
        for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            p = self.start("run", "true", FAKE_SPAWN_MS="10000")
            wait_for("spawn")
            time.sleep(0.05)
            p.send_signal(signo)
            self.assertEqual(self.finish(p), (128 + signo, "", ""))
            self.assertIn("spawn cancelled", log())

    def test_forwarded(self):
        for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            p = self.start("run", "-q", "--", "sleep", "20")
            wait_for("exec")
            time.sleep(0.1)
            p.send_signal(signo)
            self.assertEqual(self.finish(p), (128 + signo, "", ""))
            self.assertEqual(log()[-1], "destroy task-1")

    def test_twice_cancels(self):
        for signo in (signal.SIGINT, signal.SIGTERM):
            p = self.start("run", "-q", "--", "sh", "-c", "trap '' INT TERM; echo on; while :; do sleep 1; done")
            self.assertEqual(p.stdout.read(3), b"on\n")
            p.send_signal(signo)
            time.sleep(0.2)
            self.assertIsNone(p.poll())
            p.send_signal(signo)
            self.assertEqual(self.finish(p), (128 + signo, "", ""))
            self.assertEqual(log()[-1], "destroy task-1")

    def test_command_may_handle_it(self):
        p = self.start("run", "-q", "--", "sh", "-c", "trap 'echo got; exit 5' TERM; echo on; while :; do sleep 0.1; done")
        self.assertEqual(p.stdout.read(3), b"on\n")
        p.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(p)[:2], (5, "got\n")) # the shell itself may say "Terminated"


class Terminal(unittest.TestCase):
    """A command on a real pseudo-terminal; the fake gives the command the terminal itself."""

    def setUp(self):
        if os.path.exists(LOG):
            os.unlink(LOG)
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        self.before = termios.tcgetattr(self.slave)

    def tearDown(self):
        os.close(self.master)
        os.close(self.slave)

    def start(self, *args):
        return subprocess.Popen([EXE, *args], env=ENV, stdin=self.slave, stdout=self.slave, stderr=self.slave,
                start_new_session=True)

    def read(self, timeout=5, until=b""):
        out, end = b"", time.time() + timeout
        while time.time() < end and (not until or until not in out):
            if select.select([self.master], [], [], 0.05)[0]:
                out += os.read(self.master, 65536)
        return out

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def test_raw_and_restored(self):
        for ending in (None, signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV):
            p = self.start("run", "-qit", "--", "sh", "-c", "echo started; sleep 0.5; sleep %d" % (20 if ending else 0))
            self.read(until=b"started")
            time.sleep(0.1)
            self.assertTrue(self.is_raw())
            if ending:
                p.send_signal(ending)
            p.wait(timeout=20)
            self.assertEqual(termios.tcgetattr(self.slave), self.before, ending)

    def test_term_ends_what_ignores_it(self):
        for signo in (signal.SIGTERM, signal.SIGHUP):
            p = self.start("run", "-qit", "--", "sh", "-c", "trap '' TERM HUP; echo started; sleep 20")
            self.read(until=b"started")
            time.sleep(0.1)
            p.send_signal(signo)
            self.assertEqual(p.wait(timeout=10), 128 + signo)
            self.assertEqual(log()[-1], "destroy task-1")
            self.assertEqual(termios.tcgetattr(self.slave), self.before)

    def test_size(self):
        p = self.start("run", "-qit", "--", "sh", "-c", "echo started; sleep 1")
        self.read(until=b"started")
        self.assertIn("exec sh tty=1 33x99", log())
        time.sleep(0.2)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 11, 22, 0, 0))
        p.send_signal(signal.SIGWINCH)
        wait_for("resize 11x22")
        self.assertEqual(p.wait(timeout=10), 0)

    def test_stop_and_continue(self):
        p = self.start("run", "-qit", "--", "sh", "-c", "echo started; sleep 2")
        self.read(until=b"started")
        time.sleep(0.2)
        p.send_signal(signal.SIGTSTP)
        time.sleep(0.2)
        self.assertEqual(termios.tcgetattr(self.slave), self.before)
        p.send_signal(signal.SIGCONT)
        time.sleep(0.2)
        self.assertTrue(self.is_raw())
        self.assertEqual(p.wait(timeout=10), 0)
        self.assertEqual(termios.tcgetattr(self.slave), self.before)

    def test_logs_are_escaped(self):
        path = os.path.join(DIR.name, "console")
        with open(path, "wb") as f:
            f.write(b"one\r\ntwo \x1b]0;title\x07\xc2\x9b\tend\n")
        ENV["FAKE_CONSOLE"] = path
        p = self.start("logs", "alpha")
        out = self.read(until=b"end\r\n")
        self.assertEqual(p.wait(timeout=10), 0)
        self.assertEqual(out, b"one\r\ntwo \\x1b]0;title\\x07\\xc2\\x9b\tend\r\n")
        self.assertEqual(run("logs", "alpha")[1].encode(), out.replace(b"\r\n", b"\n"))
        self.assertEqual(run("logs", "--raw", "alpha")[1].encode(errors="surrogateescape"),
                b"one\r\ntwo \x1b]0;title\x07\xc2\x9b\tend\n")


class Others(unittest.TestCase):
    def test_json_parses(self):
        for args in (["ps", "-a", "--json"], ["ps", "--json"], ["stats", "--json"], ["image", "ls", "--json"],
                ["kernel", "ls", "--json"], ["doctor", "--json"], ["version", "--json"], ["inspect", "alpha", "base"],
                ["image", "inspect", "base"], ["cp", "--json", "x", "alpha:/"]):
            status, out, _ = run(*args)
            self.assertEqual(status, 0, args)
            json.loads(out)
        self.assertEqual(len(json.loads(run("inspect", "alpha", "base")[1])), 2)
        self.assertEqual(len(json.loads(run("ps", "--json")[1])), 1)

    def test_tables_hold_hostile_bytes(self):
        _, out, _ = run("ps", "-a", "--no-trunc")
        self.assertTrue(all(32 <= ord(c) < 127 or c == "\n" for c in out))
        self.assertEqual(out.count("\n"), 3)

    def test_ids(self):
        self.assertEqual(run("ps", "-q")[1], "alpha\n")
        self.assertEqual(run("ps", "-aq")[1], "alpha\nomega\n")

    def test_each_vm(self):
        status, out, err = run("stop", "-t", "2", "al", "nope", "omega")
        self.assertEqual((status, out), (125, "al\nomega\n"))
        self.assertEqual(err, "ironclaw: stop: no VM 'nope'; see 'ironclaw ps -a'\n")
        self.assertEqual(log(), ["stop alpha 2000", "stop omega 2000"])
        for verb, entry in (("kill", "kill alpha"), ("pause", "pause alpha"), ("unpause", "resume alpha")):
            self.assertEqual(run(verb, "alpha")[0], 0)
            self.assertEqual(log(), [entry])

    def test_rm(self):
        self.assertEqual(run("rm", "alpha")[0], 125)
        self.assertEqual(log(), [])
        self.assertEqual(run("rm", "omega")[:2], (0, "omega\n"))
        self.assertEqual(run("rm", "-f", "alpha", "nope")[0], 0)
        self.assertEqual(log(), ["destroy alpha"])

    def test_cp(self):
        self.assertEqual(run("cp", "-q", "-aL", "-u", "agent", "./x", "alpha:tmp")[0], 0)
        self.assertEqual(log(), ["copy ./x -> /tmp user=agent follow=1 owner=1"])
        self.assertEqual(run("cp", "alpha:/x/.", "y")[0], 0)
        self.assertEqual(log(), ["copy /x/. -> y user= follow=0 owner=0"])

    def test_audit(self):
        status, out, err = run("logs", "--audit")
        self.assertEqual((status, err), (0, ""))
        lines = out.splitlines()
        self.assertEqual(lines[0].split(), ["TIME", "VM", "PROCESS/THREAD", "CALL", "ACTION", "COUNT", "ARGUMENTS"])
        self.assertRegex(lines[1], r"^2023-11-14T22:13:20\.123Z +alpha +ironclaw-vmm/fc_vcpu \\x1b\[2J +execve +killed +1 +"
                         r"0x123 0xffffffffffffffff 0 0 0 0$")
        self.assertRegex(lines[2], r"^2023-11-14T22:13:21\.000Z +- +- +- +refused +1 +max_vms 64$")
        self.assertEqual(lines[3:], ["7 dropped"])
        self.assertEqual(run("logs", "--audit", "-n", "1")[1].splitlines()[-1:], lines[3:])
        self.assertNotIn("execve", run("logs", "--audit", "-n", "1")[1])
        answer = json.loads(run("logs", "--audit", "--json", "alpha")[1])
        self.assertEqual(answer["dropped"], 7)
        entry, = answer["entries"]
        self.assertEqual((entry["vm_id"], entry["call"], entry["arguments"][:2], entry["text"]),
                         ("alpha", "execve", [0x123, 2**64 - 1], None))
        for wrong in (["logs"], ["logs", "--json", "alpha"], ["logs", "--audit", "-f"], ["logs", "--audit", "--raw"],
                      ["logs", "--audit", "--monitor", "alpha"], ["logs", "--audit", "a", "b"]):
            self.assertEqual(run(*wrong)[0], 2, wrong)

    def test_logs(self):
        path = os.path.join(DIR.name, "log.txt")
        env = {"FAKE_CONSOLE": path}
        for content, tail, expected in (("a\nb\nc\n", 2, "b\nc\n"), ("a\nb\nc", 2, "b\nc"), ("a\n", 5, "a\n"),
                ("", 5, ""), ("a\nb\n", 0, ""), ("\n\n\n", 1, "\n"), ("x", 1, "x")):
            with open(path, "w") as f:
                f.write(content)
            self.assertEqual(run("logs", "--tail", str(tail), "alpha", env=env)[1], expected, content)
        p = subprocess.Popen([EXE, "logs", "-f", "alpha"], env={**ENV, **env}, stdout=subprocess.PIPE)
        with open(path, "a") as f:
            f.write("more\n")
        self.assertEqual(p.stdout.read(6), b"xmore\n")
        p.terminate()
        p.wait()
        p.stdout.close()
        self.assertEqual(run("logs", "-f", "omega", env=env)[1], "xmore\n")

    def test_images(self):
        self.assertEqual(run("image", "build")[2], "ironclaw: image base is up to date\n")
        self.assertEqual(run("image", "build", "--kernel", "fast", "-f", "dev")[0], 0)
        self.assertEqual(log(), ["build dev kernel=fast force=1"])
        self.assertEqual(run("image", "import", "a.tar", "mine")[0], 0)
        self.assertEqual(log(), ["import a.tar mine"])
        self.assertEqual(run("image", "verify")[:2], (0, "base: every digest is right\n"))
        self.assertEqual(run("image", "verify", "bad")[0], 125)
        self.assertEqual(run("image", "rm", "nope")[0], 125)
        self.assertEqual(run("image", "rm", "-f", "nope")[0], 0)

    def test_help(self):
        for args in (["help"], ["--help"], ["help", "run"], ["run", "--help"], ["image", "--help"], ["image", "ls", "-h"]):
            status, out, err = run(*args)
            self.assertEqual((status, err), (0, ""))
            self.assertTrue(out.startswith("Usage: ironclaw "))
        status, out, err = run()
        self.assertEqual((status, out), (2, ""))
        self.assertTrue(err.startswith("Usage: ironclaw "))
        self.assertEqual(run("--version"), run("version"))

    def test_snapshots(self):
        def expect(args, status, out, *lines):
            result = run(*args)
            self.assertEqual((*result[:2], log()), (status, out, list(lines)), result[2])
            return result[2]
        err = expect(["snapshot", "create", "alpha", "before"], 0, "before\n", "snapshot alpha before")
        self.assertEqual(err, "ironclaw: the VM was held for 12.3 ms\n")
        self.assertEqual(json.loads(run("snapshot", "create", "--json", "alpha", "b")[1]), {"name": "b", "pause_us": 12340})
        expect(["restore", "before", "--name", "n", "--max-lifetime", "1m"], 0, "alpha\n",
                "restore before as n keep=1 max_lifetime_ms=60000")
        expect(["restore", "before", "--max-disk", "20", "--max-disk-ops", "0"], 0, "alpha\n",
               "restore before as - keep=1 max_lifetime_ms=0", "max_disk=20 ops=4294967295")
        expect(["restore", "nope"], 125, "")
        expect(["fork", "-q", "-n", "2", "--name", "c", "alpha"], 0, "alpha\nalpha\n", "fork alpha 2 c")
        self.assertEqual(len(json.loads(run("fork", "--json", "-n", "3", "alpha")[1])["vms"]), 3)
        expect(["fork", "-n", "65", "alpha"], 2, "")
        expect(["fork", "-n", "0", "alpha"], 2, "")

    def test_pools(self):
        self.assertEqual(run("pool", "start", "-n", "2", "--memory", "128"), (0, "00112233445566aa\n", ""))
        self.assertEqual(log(), ["set memory_mib=128", "pool run 2 memory_mib=128"])
        self.assertEqual(run("pool", "start", "--foreground")[:2], (0, "00112233445566aa\n"))
        log()
        # What follows the first operand is the command's, also options; and --foreground comes before it.
        self.assertEqual(run("pool", "start", "-n", "3", "--", "sh", "-c", "x", "-n")[:2], (0, "00112233445566aa\n"))
        self.assertEqual(log()[-5:], ["pool run 3 memory_mib=256 warm-up", "warm-up sh", "warm-up -c", "warm-up x", "warm-up -n"])
        run("pool", "start", "--no-warm-up")
        self.assertEqual(log()[-1], "pool run 4 memory_mib=256 warm-up=none")
        status, out, err = run("pool", "start", "-n", "13")
        self.assertEqual((status, out, err.count("\n")), (125, "", 1))
        self.assertIn("limits.max_vms 12", err)
        for wrong in (["-n", "0"], ["-n", "65"], ["--ready-fd", "1"], ["--cpus", "99"], ["--no-warm-up", "true"]):
            self.assertEqual(run("pool", "start", *wrong)[:2], (2, ""), wrong)
        self.assertEqual(json.loads(run("pool", "ls", "--json")[1])[0]["handed_over"], 7)
        self.assertIn("3 of 4", run("pool", "ls")[1])
        self.assertEqual(run("pool", "stop", "-a")[:2], (0, "00112233445566aa\n"))
        self.assertEqual(run("pool", "stop", "nope")[0], 125)
        self.assertEqual(run("pool", "stop")[0], 2)
        self.assertEqual(run("pool", "stop", "-a", "x")[0], 2)

    def test_stores(self):
        def expect(args, status, out, *lines):
            self.assertEqual((*run(*args)[:2], log()), (status, out, list(lines)))
        for kind in ("template", "snapshot"):
            listed = json.loads(run(kind, "ls", "--json")[1])
            self.assertEqual(len(listed), 1)
            self.assertEqual("vm_id" in listed[0], kind == "snapshot")
            expect([kind, "ls", "-q"], 0, listed[0]["name"] + "\n")
            self.assertIn("1 CPU, 256 MiB", run(kind, "ls")[1])
            expect([kind, "rm", "x"], 0, "x\n", f"{kind} rm x")
            expect([kind, "rm", "nope"], 125, "")
            expect([kind, "rm", "-f", "nope"], 0, "")
            expect([kind, "verify"], 0, listed[0]["name"] + ": every digest is right\n")
            expect([kind, "verify", "bad"], 125, "")
        expect(["template", "build", "-m", "512", "-f"], 0, "0123456789abcdef\n", "set memory_mib=512",
                "template build force=1 memory_mib=512")
        expect(["template", "prune"], 0, "2 removed\n", "template prune 4294967295 4294967295")
        expect(["template", "prune", "--max-age", "3"], 0, "2 removed\n", "template prune 3 0")
        expect(["template", "prune", "--max-total", "1g"], 0, "2 removed\n", "template prune 65535 1024")


class Completion(unittest.TestCase):
    CASES = {"ironclaw run --backend f": ["firecracker"], "ironclaw exec al": ["alpha"], "ironclaw image rm ": ["base"],
            "ironclaw unp": ["unpause"], "ironclaw restore ": ["before"], "ironclaw pool stop 0": ["00112233445566aa"], "ironclaw kernel ": ["build", "ls"], "ironclaw cp om": ["omega:"],
            "ironclaw inspect ": ["alpha", "base", "omega"],
            "ironclaw exec -w /x al": ["alpha"], "ironclaw exec alpha omega": [],
            "ironclaw help template ": ["build", "ls", "prune", "rm", "verify"]}
    # As bash splits lines: at "=" and ":", too.
    BASH = {"ironclaw run --backend=f": ["firecracker"], "ironclaw run --backend=": ["auto", "firecracker", "ironclaw",
            "qemu"], "ironclaw fork alpha ": [], "ironclaw fork -n 2 al": ["alpha"], "ironclaw help kernel build ": [],
            "ironclaw exec --user=me al": ["alpha"], "ironclaw rm alpha om": ["omega"],
            "ironclaw cp alpha:/etc/hosts om": ["omega:"], "ironclaw run --image mine:1 --backend f": ["firecracker"],
            "ironclaw run -e A=b --backend f": ["firecracker"], "ironclaw exec -e A=b al": ["alpha"],
            "ironclaw exec --env=A=b:c al": ["alpha"]}

    def ask(self, shell, script):
        if not shutil.which(shell):
            self.skipTest(f"{shell} is not installed")
        bin_dir = os.path.join(DIR.name, "bin")
        os.makedirs(bin_dir, exist_ok=True)
        if not os.path.exists(os.path.join(bin_dir, "ironclaw")):
            os.symlink(EXE, os.path.join(bin_dir, "ironclaw"))
        path = os.path.join(DIR.name, "completion." + shell)
        with open(path, "w") as f:
            f.write(run("completion", shell)[1])
        p = subprocess.run([shell, "-c", script, shell, path], capture_output=True, text=True, timeout=60,
                env={**ENV, "PATH": bin_dir + ":" + ENV["PATH"], "HOME": DIR.name})
        self.assertEqual(p.stderr, "")
        return p.stdout

    def test_bash(self):
        for line, expected in {**self.CASES, **self.BASH}.items():
            words = [w for w in re.split(r"([=:])| ", line) if w] + ([""] if line.endswith(" ") else [])
            script = ("source $1; COMP_WORDS=(%s); COMP_CWORD=%d; _ironclaw; printf '%%s\\n' \"${COMPREPLY[@]}\""
                    % (" ".join(f"'{w}'" for w in words), len(words) - 1))
            answer = self.ask("bash", script).split()
            self.assertEqual(sorted(w for w in answer if w != "--help"), expected, line)
        answer = self.ask("bash", "source $1; COMP_WORDS=(ironclaw exec alpha tru); COMP_CWORD=3; _ironclaw; "
                          "printf '%s\\n' \"${COMPREPLY[@]}\"").split()
        self.assertIn("true", answer)

    def test_fish(self):
        for line, expected in self.CASES.items():
            answer = self.ask("fish", "source $argv[2]; complete -C '%s'" % line)
            words = [entry.split("\t")[0] for entry in answer.splitlines()]
            self.assertEqual(sorted(words), expected, line)

    def test_zsh(self):
        self.ask("zsh", "zsh -n $1")


if __name__ == "__main__":
    # The commands here inherit what is ignored: under nohup that would be SIGHUP, and they would rightly ignore it too.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unittest.main()
