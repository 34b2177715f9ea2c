#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the tests and ends with one line of counts.

    tests/run.py [-k NAME] [-v] [-j N] [--backend B] [--image I] [--cpus N] [--build DIR] [SUITE...]

Suites: unit (meson's), docs, cross, api, guests, integration, escape, external; without one: all of these.
bench-host: a selection of them that runs where KVM works; load: many VMs. -k takes part of a name.
`make test` is the usual way in; scripts/env sets what this needs.
"""

import argparse
import concurrent.futures
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import attempts  # noqa: E402
import harness  # noqa: E402
import suites  # noqa: E402

GUEST_SUITES = ("guests", "integration", "escape", "external", "load")


class Report:
    """Counts and prints; may be used from several threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.passed, self.failed, self.skipped = 0, [], []
        self.left_out = []
        self.attempts = []  # (backend, group, what, outcome, how)

    def add(self, name, outcome, seconds, text=""):
        with self.lock:
            mark = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[outcome]
            reason = f"  ({text})" if outcome == "skipped" else ""
            print(f"{mark} {name}  {seconds:.1f} s{reason}", flush=True)
            if outcome == "passed":
                self.passed += 1
            elif outcome == "skipped":
                self.skipped.append((name, text))
            else:
                self.failed.append(name)
                print("    " + text.rstrip().replace("\n", "\n    "), flush=True)

    def add_attempts(self, attempts):
        with self.lock:
            self.attempts += attempts
            if os.environ.get("IRONCLAW_TEST_ATTEMPTS") == "lines":  # for suites.on_kvm
                for attempt in attempts:
                    print("attempt " + json.dumps(attempt), flush=True)

    def close(self, seconds):
        if self.attempts:
            print("\n" + attempts.table(self.attempts))
        if self.left_out:
            print(f"\n{len(self.left_out)} more when asked for: make {' '.join(sorted({n.split('/')[0] for n in self.left_out}))}")
        if self.skipped:
            print("\nSkipped:")
            for name, reason in self.skipped:
                print(f"  {name}: {reason}")
        if self.failed:
            print("\nFailed:")
            for name in self.failed:
                print(f"  {name}")
        print(f"\n{seconds:.0f} s")
        print(f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped")
        return 1 if self.failed or not self.passed else 0


def discover(suite, wanted, only):
    """The test functions of a suite in order of definition. wanted: part of a name; only: whole names, or none."""
    tests = []
    for path in sorted((Path(__file__).parent / suite).glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"{suite}_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        functions = [f for n, f in vars(module).items() if n.startswith("test_") and callable(f)]
        for function in functions:
            name = f"{suite}/{path.stem[5:]}.{function.__name__[5:]}"
            if wanted in name and (not only or name in only):
                tests.append((name, function))
    return tests


def short(tests, report):
    """Without those that have to be asked for, by their suite or their name: they take long."""
    report.left_out = [name for name, function in tests if getattr(function, "asked_for", False)]
    return [test for test in tests if test[0] not in report.left_out]


def run_one(name, function, options, report):
    started = time.monotonic()
    if options.until and started > options.until:
        report.add(name, "skipped", 0, f"no time: {options.budget} s were over; run it by its name")
        return
    t = harness.Context(name, options)
    outcome, text = "passed", ""
    try:
        function(t)
    except harness.Skip as e:
        outcome, text = "skipped", str(e)
    except Exception as e:  # pylint: disable=broad-except
        outcome = "failed"
        frames = [f for f in traceback.extract_tb(e.__traceback__) if "harness" not in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line}\n" if frames else ""
        text = f"{where}{type(e).__name__}: {e}"
    left = t.close()
    if left:
        outcome, text = "failed", f"{text}\n{left}".strip()
    through = [f"{group}: {what}: {how}" for _, group, what, result, how in t.attempts if result == harness.GOT_THROUGH]
    if through:
        outcome, text = "failed", "\n".join(["got through:", *through, text]).strip()
    if t.attempts:
        report.add_attempts(t.attempts)
    report.add(name, outcome, time.monotonic() - started, text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", dest="name", default="", help="only tests with this in their name")
    parser.add_argument("-v", dest="verbose", action="store_true", help="commands and their output as they run")
    parser.add_argument("-j", dest="jobs", type=int, default=min(2, os.cpu_count() or 1), help="tests at once")
    parser.add_argument("--backend", default=os.environ.get("IRONCLAW_TEST_BACKEND", "auto"))
    parser.add_argument("--image", default=os.environ.get("IRONCLAW_TEST_IMAGE"), help="of the VMs, instead of base")
    parser.add_argument("--cpus", type=int, default=os.environ.get("IRONCLAW_TEST_CPUS"), help="of each VM")
    parser.add_argument("--only", default="", help="whole names of tests, with commas between them; in this order")
    parser.add_argument("--budget", type=int, help="begin no test after so many seconds; the rest counts as skipped")
    parser.add_argument("--prepared", action="store_true", help="the build tree and the image are up to date")
    parser.add_argument("--build", default="build")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one test")
    parser.add_argument("suite", nargs="*", help=" ".join(suites.ALL + suites.ASKED_FOR))
    options = parser.parse_args()
    wanted = options.suite or list(suites.ALL)
    for suite in wanted:
        if suite not in suites.ALL + suites.ASKED_FOR:
            parser.error(f"no suite '{suite}'; there are: {' '.join(suites.ALL + suites.ASKED_FOR)}")

    report, started = Report(), time.monotonic()
    if not options.prepared and not suites.prepare(wanted, options, report):
        return report.close(time.monotonic() - started)
    for suite in wanted:
        if suite not in GUEST_SUITES:
            getattr(suites, suite.replace("-", "_"))(options, report)
    only = [name for name in options.only.split(",") if name]
    tests = [test for suite in wanted if suite in GUEST_SUITES for test in discover(suite, options.name, only)]
    if only:
        tests.sort(key=lambda test: only.index(test[0]))
    options.until = started + options.budget if options.budget else None
    if not (options.suite or options.name or only):
        tests = short(tests, report)
    together = [test for test in tests if not getattr(test[1], "alone", False)]
    alone = [test for test in tests if getattr(test[1], "alone", False)]
    with concurrent.futures.ThreadPoolExecutor(max(1, options.jobs)) as pool:
        for future in [pool.submit(run_one, n, f, options, report) for n, f in together]:
            future.result()
    for name, function in alone:
        run_one(name, function, options, report)
    return report.close(time.monotonic() - started)


if __name__ == "__main__":
    # Tests send signals to what they start; nobody may inherit from nohup or a background job that they are ignored.
    for signo in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signo, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
