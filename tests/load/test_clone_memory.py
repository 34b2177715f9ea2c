# SPDX-License-Identifier: Apache-2.0
"""Many clones of a template alive at once, as the product starts them: what one more of them takes, and that each still
answers. `make clone-memory N=100`."""

import os

import memory
from harness import Failure


def monitors(t):
    return [pid for pid, command in t.processes().items() if t.monitor in os.path.basename(command.split(" ")[0])]


def test_idle_clones_of_a_template(t):
    if t.backend != "ironclaw":
        t.skip("the memory of other monitors is theirs")
    count = int(os.environ.get("IRONCLAW_TEST_CLONES") or 10)
    t.deadline += count * 20
    t.write_config(dict(t.config, limits={"max_vms": count + 4}))
    names = [f"c{i}" for i in range(count)]
    try:
        for name in names:
            t.ic("run", "-q", "--keep", "--name", name, rc=0, timeout=200)
        origins = {vm["origin"] for vm in t.json("inspect", *names)}
        assert len(origins) == 1 and "template" in origins.pop(), "not all are clones of one template"
        pids = monitors(t)
        assert len(pids) == count, (count, pids)
        text, own = memory.table([memory.Usage(pid, "/memory") for pid in pids],
                                 "a Linux of 256 MiB each, which has run nothing yet")
        print(text, flush=True)
        for name in (names[0], names[count // 2], names[-1]):
            result = t.ic("exec", name, "--", "hostname", rc=0)
            if result.out != name.encode() + b"\n":
                raise Failure(f"{name} says {result}")
        assert own <= memory.TARGET_KIB, text
    finally:
        t.ic("rm", "-f", *names, timeout=600)


test_idle_clones_of_a_template.alone = True
