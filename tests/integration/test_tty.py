# SPDX-License-Identifier: Apache-2.0
"""`run -it` in a real terminal, driven through tmux."""

import os
import shlex
import shutil
import subprocess
import time

from harness import USAGE, until


class Terminal:
    def __init__(self, t):
        if not shutil.which("tmux"):
            t.skip("tmux is not installed; run scripts/setup test")
        self.t = t
        self.socket = t.work / "tmux"
        env = dict(os.environ, TERM="xterm-256color", LC_ALL="C.UTF-8")
        env.pop("TMUX", None)
        self.env = env
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "-s", "s", "env", "-i",
                  "TERM=screen", "PS1=host> ", f"PATH={os.environ['PATH']}", "bash", "--norc", "--noprofile")
        t.cleanups.append(lambda: self.tmux("kill-server", check=False))
        self.wait("host>")

    def tmux(self, *args, check=True):
        return subprocess.run(["tmux", "-S", str(self.socket), *args], env=self.env, check=check,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout.decode()

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", "s")

    def keys(self, *keys):
        self.tmux("send-keys", "-t", "s", *keys)

    def line(self, text):
        self.tmux("send-keys", "-t", "s", "-l", text)
        self.keys("Enter")

    def wait(self, text, seconds=30):
        try:
            return until(lambda: text in self.screen() and self.screen(), seconds, f"'{text}' on the screen")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.screen()}") from None

    def ironclaw(self, *args):
        names = ("IRONCLAW_HOME", "IRONCLAW_LIBEXEC", "IRONCLAW_RECIPES", "TMPDIR")
        env = [f"{n}={self.t.env[n]}" for n in names if n in self.t.env]
        self.line(shlex.join(["env", *env, *self.t.argv(*args)]))


def test_session(t):
    term = Terminal(t)
    term.line("stty -a > %s" % (t.work / "before"))
    term.ironclaw("run", "-it", "-e", "PS1=guest> ", "--", "bash", "--norc", "--noprofile")
    term.wait("\nguest>", 90)

    term.line("stty size; tty")
    term.wait("30 100")
    term.wait("/dev/pts/")

    # Editing keys: the shell gets them as they are.
    term.tmux("send-keys", "-t", "s", "-l", "echo ac-end")
    term.keys("Left", "Left", "Left", "Left", "Left")
    term.tmux("send-keys", "-t", "s", "-l", "b")
    term.keys("Enter")
    term.wait("\nabc-end")
    term.keys("Up")
    term.wait("guest> echo abc-end")
    term.keys("C-u")

    # Ctrl-C ends the command, not the VM.
    term.line("sleep 1000; echo status=$?")
    term.wait("echo status")
    time.sleep(1)  # until the shell has given its terminal to the command
    term.keys("C-c")
    term.line("echo still-$((20+22))")
    term.wait("still-42")
    assert "status=0" not in term.screen()

    # Ctrl-Z and fg work: there is a session with job control.
    term.line("sleep 777")
    time.sleep(1)
    term.keys("C-z")
    term.wait("Stopped")
    term.line("kill %1; clear")

    # A resize reaches the guest.
    term.tmux("resize-window", "-t", "s", "-x", "120", "-y", "40")
    until(lambda: (term.line("stty size"), "40 120" in term.screen())[1], 20, "the new size", step=0.5)

    # End of file ends the shell; the terminal is as before.
    term.line("exit 9")
    term.wait("host>")
    term.line("echo rc=$?")
    term.wait("rc=9")
    term.tmux("resize-window", "-t", "s", "-x", "100", "-y", "30")
    term.line("stty -a > %s; echo sav\"\"ed" % (t.work / "after"))
    term.wait("saved")
    before, after = (t.work / "before").read_text(), (t.work / "after").read_text()
    assert before == after, f"{before}\n{after}"


def test_terminal_restored_after_kill(t):
    """TERM to the client puts the terminal back too."""
    term = Terminal(t)
    term.line("stty -a > %s" % (t.work / "before"))
    term.ironclaw("run", "-it", "--name", "v", "-e", "PS1=guest> ", "--", "bash", "--norc", "--noprofile")
    term.wait("\nguest>", 90)
    clients = [pid for pid, cmd in t.processes().items() if " run -it " in cmd]
    assert clients, t.processes()
    for pid in clients:
        os.kill(pid, 15)
    until(lambda: not any("tmux" not in cmd for cmd in t.processes().values()), 20, "the end of the client and its VM")
    term.line("stty -a > %s; echo sav\"\"ed" % (t.work / "after"))
    term.wait("saved")
    assert (t.work / "before").read_text() == (t.work / "after").read_text()


def test_no_tty_without_terminal(t):
    """-t without a terminal is said, not guessed."""
    t.error("run", "-it", "--", "true", status=USAGE, words=["tty", "-t"])
