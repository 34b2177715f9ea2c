# SPDX-License-Identifier: Apache-2.0
"""What is written to an ext4 file of the caller's instead of the VM's memory."""

import os
import shutil
import subprocess
import time

from harness import FAILED

# ext4 is in the fast kernel only.
IMAGE = "base:fast"


def overlay(t, size_mib=64):
    tool = shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    if not tool:
        t.skip("mkfs.ext4 is not installed (package e2fsprogs)")
    if not (t.home / "data/images/names" / IMAGE).exists():
        t.skip(f"no image {IMAGE}; 'ironclaw image build --kernel fast {IMAGE}' makes it")
    path = t.work / "overlay.img"
    with open(path, "wb") as f:
        f.truncate(size_mib << 20)
    subprocess.run([tool, "-q", path], check=True)
    t.write_config({**t.config, "image": IMAGE, "overlay": {"kind": "ext4", "path": str(path)}})
    return path


def test_writes_outlive_the_vm(t):
    path = overlay(t)
    t.ic("run", "-u", "root", "--", "sh", "-c",
         "echo kept >/etc/mine; touch /tmp/gone; head -c 30000000 /dev/urandom >/big; md5sum </big", rc=0)
    assert t.ic("run", "--", "sh", "-c", "cat /etc/mine; ls /tmp /big", rc=0).out == b"kept\n/big\n\n/tmp:\n"
    stats = os.stat(path)
    assert stats.st_blocks * 512 > 30000000, "the data is not in the file"
    subprocess.run([shutil.which("e2fsck", path="/usr/sbin:/sbin"), "-fn", path], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def test_one_vm_at_a_time(t):
    path = overlay(t)
    with t.vm("holder"):
        t.error("run", "--", "true", status=FAILED, words=[str(path), "in use"])
    t.ic("run", "--", "true", rc=0)


def test_full_disk_is_the_guests_problem(t):
    overlay(t, 16)
    result = t.ic("run", "-u", "root", "--", "sh", "-c", "head -c 50000000 /dev/zero >/big; echo $?", rc=0)
    assert result.out == b"1\n" and b"No space" in result.err, result


def test_crash_loses_nothing_that_was_synced(t):
    overlay(t)
    child = t.start("run", "-u", "root", "--", "sh", "-c", "echo safe >/etc/mine; sync; echo done; sleep 1000")
    assert child.stdout.readline() == b"done\n"
    for pid in t.processes():
        os.kill(pid, 9)
    child.wait()
    time.sleep(0.2)
    assert t.ic("run", "--", "cat", "/etc/mine", rc=0).out == b"safe\n"


def test_wrong_files(t):
    path = overlay(t)
    os.truncate(path, 1 << 20)
    t.error("run", "--", "true", status=FAILED, words=[str(path), "cut short"])
    path.write_bytes(os.urandom(100000))
    t.error("run", "--", "true", status=FAILED, words=[str(path), "not an ext4", "mkfs.ext4"])
    path.unlink()
    t.error("run", "--", "true", status=FAILED, words=[str(path), "no such file"])


def test_debian_kernel_has_no_ext4(t):
    overlay(t)
    if not any(i["name"] == "base" and i["kernel_kind"] == "debian" for i in t.json("image", "ls", "--json")):
        t.skip("image base has another kernel")
    t.error("run", "--image", "base", "--", "true", status=FAILED, words=["overlay.kind ext4", "base:fast"])
