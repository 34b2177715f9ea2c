# SPDX-License-Identifier: Apache-2.0
"""What the processes of many clones take, by their smaps: what is each one's own, and what all of them share."""

import re
import statistics
from pathlib import Path

TARGET_KIB = 1536  # of an idle clone, besides the pages that its guest has changed


class Usage:
    """Of one monitor, in KiB. Pages of a file that several have mapped count in parts (PSS), together once."""

    def __init__(self, pid, memory):
        """memory: how the name of the snapshot's memory file ends, which is guest RAM."""
        self.pss = self.changed = self.shared = self.tables = 0
        name, rows = "", {}
        for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
            head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$", line)
            if head:
                self._add(name, rows, memory)
                name, rows = head[1], {}
            elif match := re.match(r"(\w+): +(\d+) kB", line):
                rows[match[1]] = int(match[2])
        self._add(name, rows, memory)
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmPTE:"):
                self.tables = int(line.split()[1])

    def _add(self, name, rows, memory):
        self.pss += rows.get("Pss", 0)
        if name.removesuffix(" (deleted)").endswith(memory):
            self.changed += rows["Anonymous"]  # copied when the guest wrote to them
            self.shared += rows["Pss"] - rows["Anonymous"]


def table(usages, what):
    """Text, and KiB of one more idle clone without the pages that its guest changed: all of its PSS besides its part of
    the snapshot's pages, which all clones share, and its page tables."""
    def median(values):
        return statistics.median(values)

    count = len(usages)
    own = [u.pss - u.changed - u.shared + u.tables for u in usages]
    rows = [
        ("all of them, PSS", sum(u.pss for u in usages), ""),
        ("the snapshot's pages, which are in the page cache once", sum(u.shared for u in usages), "shared"),
        ("pages that guests changed, together", sum(u.changed for u in usages), ""),
        ("one clone: pages that its guest changed, median", median([u.changed for u in usages]), ""),
        ("one clone: its monitor, median", median(own), f"target <= {TARGET_KIB}"),
        ("of that page tables, median", median([u.tables for u in usages]), ""),
        ("one clone: its monitor, the largest", max(own), ""),
    ]
    text = [f"{count} clones alive at once, idle: {what}"]
    text += [f"  {name:<58} {kib:>10,.0f} KiB  {note}".rstrip() for name, kib, note in rows]
    return "\n".join(text), median(own)
