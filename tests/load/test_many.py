# SPDX-License-Identifier: Apache-2.0
"""Many VMs, one after another and at once; the harness looks at what they leave behind."""

import os
import threading

from harness import Failure

COUNT = int(os.environ.get("IRONCLAW_TEST_VMS", "50"))
AT_ONCE = 8


def host_state():
    """What a VM could leave outside of its home. Only the test host (tests/bench-host) changes nothing by itself."""
    if os.uname().nodename != "bench-host":
        return None
    with open("/proc/mounts", encoding="utf-8") as mounts:
        mounted = [line.split()[1] for line in mounts]
    return {"mounts": mounted, "cgroups": [d for d, _, _ in os.walk("/sys/fs/cgroup")],
            "processes": [p for p in os.listdir("/proc") if p.isdigit() and os.path.exists(f"/proc/{p}/exe")],
            "files": sorted(os.listdir("/tmp") + os.listdir("/dev/shm"))}


def one(t, i):
    result = t.ic("run", "--memory", "128", "--", "sh", "-c", f"echo {i}; exit {i % 100}", rc=i % 100)
    if result.out != b"%d\n" % i:
        raise Failure(f"VM {i}: {result}")


def test_one_after_another(t):
    t.deadline += COUNT * 20
    one(t, 0)
    before = host_state()
    for i in range(COUNT):
        one(t, i)
        t.assert_clean(f"after VM {i + 1} of {COUNT}")
    assert host_state() == before, (before, host_state())


def test_at_once(t):
    t.deadline += 300
    one(t, 0)
    before, failures = host_state(), []

    def body(i):
        try:
            one(t, i)
        except Exception as e:  # pylint: disable=broad-except
            failures.append(str(e))

    threads = [threading.Thread(target=body, args=(i,)) for i in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, "\n".join(failures)
    t.assert_clean(f"after {AT_ONCE} VMs at once")
    assert host_state() == before, (before, host_state())


test_one_after_another.alone = True
test_at_once.alone = True
