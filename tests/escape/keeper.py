# SPDX-License-Identifier: Apache-2.0
"""Runs a command and stays until all processes that it left behind have ended: nobody else can tell how they did.

    keeper.py REPORT COMMAND...

REPORT gets one line for each, as it ends: its name and its status as Python's subprocess has it (negative: a signal).
"""

import ctypes
import os
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36


def name(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as f:
            return f.read().strip()
    except OSError:
        return "?"


def main():
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with open(sys.argv[1], "a", encoding="utf-8") as report:
        status = subprocess.run(sys.argv[2:], check=False).returncode
        report.write(f"command {status}\n")
        report.flush()
        while True:
            try:
                # A zombie still has its name.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
                what = name(ended.si_pid)
                _, status = os.waitpid(ended.si_pid, 0)
            except ChildProcessError:
                return
            report.write(f"{what} {os.waitstatus_to_exitcode(status)}\n")
            report.flush()


if __name__ == "__main__":
    main()
