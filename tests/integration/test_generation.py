# SPDX-License-Identifier: Apache-2.0
"""The VM generation id: a kernel with the driver of it (CONFIG_VMGENID) notices by itself that it is a copy.

Debian's cloud kernel has no such driver, its other one has: `make generation-test` fetches that and runs this with it.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import build_static, newc, until  # noqa: E402
from test_monitor_snapshot import Monitor, need_kvm  # noqa: E402

CMDLINE = "console=ttyS0 loglevel=7 panic=-1 reboot=t random.trust_cpu=on cryptomgr.notests"
NOTICED = "crng reseeded due to virtual machine fork"  # Linux, drivers/char/random.c


def says(vm, text, seconds):
    until(lambda: text in vm.console.read_text("utf-8", "replace"), seconds, f"'{text}' of {vm.name}; {vm.report()}")


def test_the_kernel_notices_that_it_is_a_copy(t):
    need_kvm(t)
    kernel = os.environ.get("IRONCLAW_TEST_VMGENID_KERNEL")
    if not kernel:
        t.skip("no kernel with CONFIG_VMGENID; run: make generation-test")
    t.deadline += 200
    state, memory = t.work / "state", t.work / "memory"
    original = Monitor(t, "original")
    initrd = original.dir / "initramfs"
    init = build_static(Path(__file__).parent / "guest/idle.c", t.build / "tests/guest-idle")
    initrd.write_bytes(newc({"init": (0o100755, init.read_bytes())}))
    for path, body in (("/machine-config", {"vcpu_count": 1, "mem_size_mib": 256}),
                       ("/boot-source", {"kernel_image_path": kernel, "initrd_path": str(initrd), "boot_args": CMDLINE}),
                       ("/actions", {"action_type": "InstanceStart"})):
        original.request("PUT", path, body)
    says(original, "Run /init as init process", 200)
    original.request("PATCH", "/vm", {"state": "Paused"})
    original.request("PUT", "/snapshot/create", {"snapshot_path": str(state), "mem_file_path": str(memory)})
    original.request("PATCH", "/vm", {"state": "Resumed"})
    copies = [Monitor(t, f"copy{i}") for i in range(2)]
    for copy in copies:
        copy.request("PUT", "/snapshot/load", {
            "snapshot_path": str(state), "mem_backend": {"backend_type": "File", "backend_path": str(memory)},
            "resume_vm": True})
    for copy in copies:
        says(copy, NOTICED, 60)
    assert NOTICED not in original.console.read_text("utf-8", "replace"), original.report()
