# SPDX-License-Identifier: Apache-2.0
"""The suites that need no image: meson's tests, man pages, the Windows build, the monitor's API; the test host."""

import concurrent.futures
import importlib.util
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALL = ("unit", "docs", "cross", "api", "guests", "integration", "escape", "external", "bench-host")
ASKED_FOR = ("load",)  # too long for every run

# What `make test` runs on a real KVM: each part of the product once. `make bench-host` runs everything.
ON_KVM = """
integration/run.python_from_stdin integration/run.64_mib_through_cat integration/run.exit_status_of_a_signal
integration/run.timeout integration/run.environment_directory_user integration/run.memory_and_cpus integration/run.json
integration/run.interrupt_while_booting integration/guest.only_loopback integration/guest.root_device_is_read_only
integration/guest.root_file_system_is_an_overlay integration/guest.clock_and_entropy
integration/kept.twenty_execs_at_once integration/kept.logs integration/kept.ps_and_inspect integration/kept.stop_kill_rm
integration/kept.pause integration/tty.session integration/crash.kill_of_everything
integration/jail.stages integration/jail.group integration/jail.limit_above_the_group integration/jail.strict
integration/jail.disk_limit
integration/audit.refused_call_ends_the_vm escape/intruder.jail_of_ironclaw escape/intruder.memory
integration/errors.hardware_isolation_required escape/hostile_agent.lies_when_ready
integration/clones.no_two_clones_have_a_secret_in_common integration/clones.the_check_notices_clones_that_are_not_reseeded
integration/clones.nothing_runs_in_a_clone_before_its_handshake integration/snapshots.run_makes_a_template_and_starts_from_it
integration/pool.warm_up integration/pool.kept_vm_of_a_pool integration/snapshots.kill_of_snapshot_create
integration/snapshots.restore_of_a_kept_vm integration/snapshots.fork_into_three_while_commands_run
integration/snapshots.snapshot_under_load integration/generation.the_kernel_notices_that_it_is_a_copy
integration/snapshots.signal_to_restore_and_fork integration/import.image_that_is_needed escape/root.rings
""".split()
ON_KVM_S = 480          # in each of two hosts; on a slow machine the last of these are left out then, and counted
ON_KVM_MIN_S = 240      # where the hosts' kernel took some of it, which is built once
HOST_TIMEOUT_S = 1200
STOOD_STILL = 123       # bench-host/host.py


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
    only = ["guests-suite"] if wanted == ["guests"] else []  # with sanitizers the rest takes minutes
    if not step(report, "build: warnings are errors", ["ninja", "-C", build, "--quiet", *only]):
        return False
    if not set(wanted) & {"integration", "escape", "external", "bench-host", "load"}:
        return True
    print("image build base", flush=True)
    if not step(report, "image build base", ["ironclaw", "image", "build", "base"], show=True):
        return False
    # Tests that need the fast kernel take this image if somebody made it, and then with the agent of this tree.
    if subprocess.run(["ironclaw", "image", "inspect", "base:fast"], stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL, check=False).returncode == 0:
        return step(report, "image build base:fast", ["ironclaw", "image", "build", "--kernel", "fast", "base:fast"])
    return True


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


def on_kvm(names, options, report, budget, again=True):
    """These tests in one test host; each of its lines is one of ours. The emulated machine as a whole stands still now and
    then (HACKING.md, "Test host"): then what it had not yet done is done in another, once."""
    started, seen, current, text = time.monotonic(), set(), None, ""
    argv = [ROOT / "tests/bench-host/run", "--build", options.build, "--memory", "2048", "--timeout", str(HOST_TIMEOUT_S),
            "--budget", str(budget), "--only", ",".join(names)]
    child = subprocess.Popen([str(a) for a in argv], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             env=dict(os.environ, IRONCLAW_TEST_ATTEMPTS="lines"))
    outcomes = {"ok": "passed", "FAIL": "failed", "skip": "skipped"}

    def flush():
        if current:
            report.add(f"bench-host/{current[1]}", outcomes[current[0]], float(current[2]), text.strip() or current[3])

    for line in child.stdout:
        line = line.decode("utf-8", "replace")
        if line.startswith("attempt ["):
            report.add_attempts([tuple(json.loads(line.removeprefix("attempt ")))])
            continue
        match = re.match(r"(ok|FAIL|skip) +(\S+)  ([0-9.]+) s(?:  \((.*)\))?$", line)
        if match or not line.startswith("    "):
            flush()
            current, text = match.groups() if match else None, ""
            seen |= {match[2]} if match else set()
        else:
            text += line[4:]
    flush()
    child.wait()
    missing = [name for name in names if name not in seen]
    if child.returncode == STOOD_STILL and again:
        print(f"bench-host: another test host for: {' '.join(missing)}", flush=True)
        on_kvm(missing, options, report, budget // 2, again=False)
        return
    if child.returncode not in (0, 1) or missing:
        report.add("bench-host", "failed", time.monotonic() - started,
                   f"status {child.returncode}; not run: {' '.join(missing) or 'none'}")


def fetch_debian_kernel(build):
    """For the one test that wants its driver of VM generation ids; who can't reach Debian's packages does without."""
    try:
        result = subprocess.run([ROOT / "scripts/debian-kernel", build / "debian-kernel"], timeout=300, check=False,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except subprocess.TimeoutExpired:
        return
    if result.returncode == 0:
        os.environ["IRONCLAW_TEST_VMGENID_KERNEL"] = result.stdout.strip()


def bench_host(options, report):
    """A selection of the suites with guests on a real KVM, in two test hosts at once: each has one CPU."""
    names = [name for name in ON_KVM if options.name in f"bench-host/{name}"]
    started = time.monotonic()
    if not names or not step(report, "bench-host kernel", [ROOT / "tests/bench-host/run", "--kernel"], show=True):
        return
    if "integration/generation" in " ".join(names):
        fetch_debian_kernel(Path(options.build))
    budget = max(ON_KVM_MIN_S, ON_KVM_S - int(time.monotonic() - started))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(on_kvm, part, options, report, budget) for part in (names[0::2], names[1::2]) if part]:
            future.result()
