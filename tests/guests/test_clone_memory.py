# SPDX-License-Identifier: Apache-2.0
"""Many clones of one snapshot alive at once: what one more of them takes. `make clone-memory N=100` is the whole of it."""

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import memory  # noqa: E402
from monitor import Vm  # noqa: E402
from test_snapshot import body, boot, new, save  # noqa: E402

PAGES, CHANGES = 512, 32  # of 4 KiB


def test_idle_clones_share_their_memory(t):
    count = int(os.environ.get("IRONCLAW_TEST_CLONES") or 10)
    t.deadline += count * 3
    parent = boot(t, "snapshot_idle", f"pages={PAGES} changes={CHANGES}", memory=256)
    parent.read_until(b"filled")
    save(parent)
    parent.kill()
    clones = []
    for _ in range(count):
        vm = new(t, "snapshot_idle")
        for disk in (vm.root, vm.second):
            disk.unlink()  # those of the parent are what it opens
        vm.request("PUT", "/snapshot/load", body(t, vm), 204)
        vm.answer()
        vm.read_until(b"halting")
        clones.append(vm)
    for vm in clones:
        assert vm.child.poll() is None, f"one has ended; {vm.report()}"
        assert vm.request("GET", "/", status=200)["state"] == "Running"
    usages = [memory.Usage(vm.child.pid, "/memory") for vm in clones]
    for vm in clones:
        vm.kill()
    text, own = memory.table(usages, f"ironclaw-vmm, 256 MiB; a bare-metal guest that has read {PAGES} pages and changed "
                                     f"{CHANGES} of them")
    print(text, flush=True)
    sanitized = any(word in Path(clones[0].program).read_bytes() for word in (b"__tsan_init", b"__asan_init"))
    # All have all of those pages, and together hardly more than once.
    shared, changed = sum(u.shared for u in usages), [u.changed for u in usages]
    assert (PAGES - CHANGES) * 4 <= shared <= 2 * PAGES * 4, text
    assert CHANGES * 4 <= min(changed) and max(changed) <= (CHANGES + 16) * 4, text
    if not sanitized:
        assert own <= memory.TARGET_KIB, text
    shutil.rmtree(t.work)
    t.work.mkdir()


test_idle_clones_share_their_memory.alone = True
