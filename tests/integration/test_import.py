# SPDX-License-Identifier: Apache-2.0
"""Images of archives from elsewhere."""

import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

from harness import FAILED

PROGRAM = Path("/usr/bin/echo")


def needed():
    """The program and what the dynamic linker wants for it, as paths of this machine."""
    text = subprocess.run(["ldd", PROGRAM], check=True, stdout=subprocess.PIPE).stdout.decode()
    return [PROGRAM, *map(Path, re.findall(r"(?m)^\s+(?:\S+ => )?(/\S+) \(0x", text))]


def archive(path, extra=(), mode="w:xz"):
    with tarfile.open(path, mode) as tar:
        for name in needed():
            tar.add(name.resolve(), arcname=f".{name}")
        for name in ("dev", "proc", "sys", "tmp", "run"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
        for name, data in extra:
            file = tarfile.TarInfo(name)
            file.size = len(data)
            tar.addfile(file, io.BytesIO(data))
    return path


def names(t):
    return t.ic("image", "ls", rc=0).out


def test_a_tar_becomes_an_image(t):
    t.own_data("images", "templates", "snapshots")
    t.ic("image", "import", archive(t.work / "root.tar.xz"), "mine:1", rc=0)
    assert b"mine:1" in names(t)
    t.ic("image", "verify", "mine:1", rc=0)
    result = t.ic("run", "--cold", "--image", "mine:1", "--", PROGRAM, "from an archive", rc=0)
    assert result.out == b"from an archive\n", result
    # There is no /etc in it, in which a copy would find its machine's id.
    result = json.loads(t.ic("run", "--json", "--image", "mine:1", "--", PROGRAM, "from a copy", rc=0, timeout=240).out)
    assert result["stdout"] == "from a copy\n" and result["origin"].startswith("template "), result
    t.ic("image", "rm", "mine:1", rc=0)
    assert b"mine:1" not in names(t)


def digest(t, name):
    return next(image["digest"] for image in t.json("image", "ls", "--json") if image["name"] == name)


def image_with_a_user(t):
    """An image, its name mine:1, that the VM `user` runs: the data directory, and the image's digest."""
    top = t.own_data("images", "templates", "snapshots")
    t.ic("image", "import", archive(t.work / "root.tar.xz"), "mine:1", rc=0)
    t.ic("run", "--keep", "-q", "--name", "user", "--image", "mine:1", rc=0, timeout=240)
    return top, digest(t, "mine:1")


def test_image_that_is_needed(t):
    """What runs or was saved of an image outlives its name, so that it can be copied and restored."""
    top, first = image_with_a_user(t)
    try:
        t.error("image", "rm", "mine:1", status=FAILED, words=["mine:1", "VM 'user' needs it", "image rm -f"])
        t.ic("snapshot", "create", "user", "saved", rc=0)
        t.ic("image", "import", archive(t.work / "other.tar.xz", [("other", b"x")]), "mine:1", rc=0)
        assert digest(t, "mine:1") != first and digest(t, "") == first
        assert t.ic("image", "rm", "mine:1", rc=0).text == "mine:1\n"
        t.ic("fork", "user", "--name", "child", rc=0)
        t.ic("rm", "-f", "user", "child", rc=0)
        t.error("image", "rm", first, status=FAILED, words=["snapshot 'saved' needs it", "can't be copied or restored"])
        t.ic("restore", "saved", "--name", "user", rc=0)
        result = t.ic("exec", "user", "--", PROGRAM, "from what has no name", rc=0)
        assert result.out == b"from what has no name\n", result
        t.ic("image", "rm", "-f", first, rc=0)
        assert not (top / "images" / first).exists()
        for command in (("fork", "user"), ("snapshot", "create", "user", "more")):
            t.error(*command, status=FAILED, words=["VM 'user': its root disk", first, "of image mine:1", "not there"])
    finally:
        t.ic("rm", "-f", "user")
    t.error("restore", "saved", status=FAILED, words=["snapshot saved", first, "image mine:1", "snapshot rm saved"])
    t.ic("snapshot", "rm", "saved", rc=0)
    assert t.ic("image", "rm", "-f", "mine:1", rc=0).out == b""


def test_image_goes_with_the_last_that_needs_it(t):
    top, first = image_with_a_user(t)
    try:
        t.ic("snapshot", "create", "user", "saved", rc=0)
    finally:
        t.ic("rm", "-f", "user")
    t.ic("image", "rm", "-f", "mine:1", rc=0)
    assert (top / "images" / first).exists()
    t.ic("snapshot", "rm", "saved", rc=0)
    assert not (top / "images" / first).exists()


def test_archives_that_are_refused(t):
    t.own_data("images")
    leads_out = archive(t.work / "out.tar", [("../escape", b"x")], mode="w")
    cut = t.work / "short.tar"
    cut.write_bytes(archive(t.work / "whole.tar", mode="w").read_bytes()[:20000])
    none = t.work / "none"
    none.write_bytes(b"not a tar " * 2000)
    for path, word in ((leads_out, "leads out of the root"), (cut, "truncated"), (none, "not a tar"),
                       (t.work, "oci-layout"), (Path("/dev/zero"), "not a regular file"),
                       (t.work / "missing", "No such file")):
        t.error("image", "import", "-q", path, "mine:2", status=FAILED, words=[str(path), word])
        assert b"mine:2" not in names(t), path
    assert not (t.work.parent / "escape").exists()
    left = [p.name for p in (t.home / "data/images").iterdir() if p.name.startswith(".")]
    assert not [p for p in left if "tmp" in p or "new" in p], left
