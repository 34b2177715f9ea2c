# SPDX-License-Identifier: Apache-2.0
"""The suites that need no image: meson's unit tests and corpora, man pages, the Windows build, the monitor's API."""

import importlib.util
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALL = ("unit", "docs", "cross", "api", "integration", "escape", "external")


def step(report, name, argv, show=False, env=None):
    """One command as one test; its output only when it fails, or as it comes."""
    started = time.monotonic()
    try:
        result = subprocess.run([str(a) for a in argv], cwd=ROOT, env=env, check=False,
                                stdout=None if show else subprocess.PIPE, stderr=None if show else subprocess.STDOUT)
    except OSError as e:
        report.add(name, "failed", 0, str(e))
        return False
    ok = result.returncode == 0
    text = "" if show else result.stdout.decode("utf-8", "replace")[-6000:]
    report.add(name, "passed" if ok else "failed", time.monotonic() - started, f"status {result.returncode}\n{text}")
    return ok


def prepare(wanted, options, report):
    """Compiles, and makes the image if a guest will run."""
    build = Path(options.build)
    if not (build / "build.ninja").exists():
        report.add("build", "failed", 0, f"{build} is no build tree; run: meson setup {build}")
        return False
    if not step(report, "build: warnings are errors", ["ninja", "-C", build, "--quiet"]):
        return False
    if not set(wanted) & {"integration", "escape", "external"}:
        return True
    print("image build base", flush=True)
    return step(report, "image build base", ["ironclaw", "image", "build", "base"], show=True)


def unit(options, report):
    """Each of meson's tests is one of ours; fuzz-replay/* feeds each corpus to its target."""
    build = Path(options.build)
    log = build / "meson-logs/testlog.json"
    if log.exists():
        log.unlink()
    subprocess.run(["meson", "test", "-C", build, "--no-rebuild", "--quiet"], cwd=ROOT, check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not log.exists():
        report.add("unit", "failed", 0, "meson test wrote no log")
        return
    for line in log.read_text().splitlines():
        test = json.loads(line)
        name = "unit/" + test["name"].split(" / ")[-1]
        if options.name not in name:
            continue
        outcome = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}.get(test["result"], "failed")
        text = (test.get("stdout") or "")[-4000:] + (test.get("stderr") or "")[-4000:]
        report.add(name, outcome, test["duration"], text.strip() or test["result"])


def docs(options, report):
    """man pages: no warning from mandoc."""
    pages = sorted(ROOT.glob("docs/man/*.[1-8]"))
    for page in pages:
        name = f"docs/man/{page.name}"
        if options.name not in name:
            continue
        if shutil.which("mandoc"):
            step(report, name, ["mandoc", "-T", "lint", "-W", "warning", page])
        else:
            report.add(name, "skipped", 0, "mandoc is not installed; run scripts/setup test")


def cross(options, report):
    """libironclaw and the CLI compile for Windows."""
    name = "cross/mingw-w64"
    if options.name not in name:
        return
    if not shutil.which("x86_64-w64-mingw32-gcc-win32"):
        report.add(name, "skipped", 0, "no x86_64-w64-mingw32-gcc-win32; run scripts/setup test")
        return
    build = Path(options.build + "-mingw")
    if not (build / "build.ninja").exists():
        setup = ["meson", "setup", build, "--cross-file", ROOT / "cross/mingw-w64.ini"]
        if not step(report, name + " setup", setup):
            return
    if step(report, name, ["ninja", "-C", build, "--quiet"]):
        missing = [f for f in ("src/cli/ironclaw.exe",) if not (build / f).exists()]
        if missing:
            report.add(name + " output", "failed", 0, f"not built: {missing}")


def api(options, report):
    """Firecracker's API of ironclaw-vmm, by curl: each case is one test."""
    path = ROOT / "tests/api/conformance.py"
    spec = importlib.util.spec_from_file_location("conformance", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.run(str(Path(options.build).resolve() / "src/monitor/ironclaw-vmm"), options.name, report)
