# SPDX-License-Identifier: Apache-2.0
"""A guest whose agent is the attacker: the host's side must call every lie a failure and keep it harmless."""

import json
import os

from harness import BLOCKED, FAILED, ROOT, build_static, initramfs_with

WIRE = [str(ROOT / "src" / name) for name in
        ("wire/frame.c", "wire/messages.c", "wire/reader.c", "wire/state.c", "base/buf.c")]


def configure(t, mode):
    """A config file for a VM of the image whose /init is the hostile agent."""
    source = ROOT / "tests/escape/guest/hostile_agent.c"
    agent = build_static(source, t.build / "tests/hostile-agent", "-D_GNU_SOURCE", f"-I{ROOT}/src", *WIRE)
    image = t.image_dir()
    initrd = initramfs_with(image, {"init": (0o100755, agent.read_bytes()), "mode": (0o100644, mode.encode())},
                            t.work / "initramfs")
    config = t.work / "config.json"
    config.write_text(json.dumps({**t.config, "initrd_path": str(initrd), "boot_timeout_ms": 15000}))
    return config


def check_message(result):
    """One line that says what is wrong, with no control character of the guest in it."""
    assert not any(c < 32 and c != 10 for c in result.err), result
    lines = [line for line in result.errors.splitlines() if line.startswith("ironclaw: ") and "isolation:" not in line]
    assert len(lines) == 1, result


def bad_boot(t, mode):
    result = t.ic("run", "--config", configure(t, mode), "--", "true", rc=FAILED, timeout=60)
    check_message(result)
    t.assert_clean(f"after {mode}")
    t.attempt("agent's lies", mode, BLOCKED, "refused")


def bad_exec(t, mode, *statuses):
    result = t.ic("run", "--config", configure(t, mode), "--", "true", timeout=60)
    assert result.rc in (statuses or (FAILED,)), result
    check_message(result)
    t.assert_clean(f"after {mode}")
    t.attempt("agent's lies", mode, BLOCKED, "refused")


def test_never_ready(t):
    for mode in ("panic", "power-off", "ready-silent"):
        bad_boot(t, mode)


def test_lies_when_ready(t):
    for mode in ("ready-noise", "ready-huge-frame", "ready-endless"):
        bad_boot(t, mode)


def test_lies_in_exec(t):
    for mode in ("exec-noise", "exec-huge-frame", "exec-exit-big"):
        bad_exec(t, mode)
    bad_exec(t, "exec-message", 127)
    # The first EXIT may count, or the second may spoil it.
    assert t.ic("run", "--config", configure(t, "exec-exit-twice"), "--", "true").rc in (137, FAILED)


def test_silence_in_exec(t):
    """A limit of time holds although the agent that should keep it does not, before and after the start."""
    for mode in ("exec-stuck", "exec-silent"):
        result = t.ic("run", "--timeout", "1s", "--config", configure(t, mode), "--", "true", timeout=60)
        assert result.rc in (124, FAILED), result
        check_message(result)
        t.attempt("agent's lies", mode, BLOCKED, "limit")


def test_lies_in_cp(t):
    before = sorted(os.listdir("/tmp"))
    for mode in ("get-dotdot", "get-absolute", "get-through-link", "get-link-then-file", "get-too-long", "get-noise"):
        target = t.work / mode / "in"
        target.mkdir(parents=True)
        t.ic("run", "--keep", "--name", "h", "--config", configure(t, mode), rc=0)
        result = t.ic("cp", "h:/tree", target / "tree", timeout=60)
        t.ic("rm", "-f", "h", rc=0)
        assert "/tree" not in result.errors or "no such" not in result.errors.lower(), f"the real agent: {result}"
        assert result.rc == FAILED, f"{mode}: {result}"
        check_message(result)
        assert os.listdir(t.work / mode) == ["in"], f"{mode} wrote outside of the target"
        assert set(os.listdir(target)) <= {"tree"}, f"{mode} wrote beside the target"
        assert "ironclaw-evil" not in os.listdir("/tmp") or "ironclaw-evil" in before
        for _, _, names in os.walk(target):
            assert "evil" not in names, f"{mode} wrote its file"
        t.attempt("agent's lies", mode, BLOCKED, "refused")


def test_forged_texts(t):
    """What the guest says of itself is shown without its control characters."""
    t.ic("run", "--keep", "--name", "h", "--config", configure(t, "none"), rc=0)
    for args in (("ps",), ("inspect", "h"), ("ps", "--json")):
        result = t.ic(*args, rc=0)
        assert b"\x1b" not in result.out + result.err, result
    t.ic("rm", "-f", "h", rc=0)
