# SPDX-License-Identifier: Apache-2.0
"""The table of attempts to break out, from what the tests observed."""

from collections import Counter

from harness import BLOCKED, GOT_THROUGH, NOT_MADE


def row(backend, group, outcomes):
    """outcomes: (outcome, how) of each attempt of this group."""
    counts = Counter(outcome for outcome, _ in outcomes)
    hows = Counter(how for outcome, how in outcomes if outcome == BLOCKED)
    text = ", ".join(f"{how} {n}" for how, n in hows.most_common())
    reasons = Counter(how for outcome, how in outcomes if outcome == NOT_MADE)
    if reasons:
        text += ("; " if text else "") + "not made: " + ", ".join(f"{why} ({n})" for why, n in reasons.most_common())
    return (backend, group, str(len(outcomes) - counts[NOT_MADE]) + (f" of {len(outcomes)}" if reasons else ""),
            str(counts[BLOCKED]), str(counts[GOT_THROUGH]), text)


def table(attempts):
    """attempts: (backend, group, what, outcome, how). The lines of the table, a group of each backend on each."""
    groups = {}
    for backend, group, _, outcome, how in attempts:
        groups.setdefault((backend, group), []).append((outcome, how))
    rows = [("backend", "attempts to", "made", "blocked", "through", "stopped by")]
    rows += [row(backend, group, outcomes) for (backend, group), outcomes in sorted(groups.items())]
    for backend in sorted({key[0] for key in groups}):
        rows.append(row(backend, "all", [o for key, outcomes in groups.items() if key[0] == backend for o in outcomes]))
    widths = [max(len(r[i]) for r in rows) for i in range(5)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(r, widths)), r[5]]).rstrip() for r in rows)
