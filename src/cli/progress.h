/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress of a long call, on stderr. On a terminal: one line that redraws
 * itself, with a bar and bytes when the total is known, else a spinner, and
 * the step's name. Elsewhere: one line for each step, at most two a second,
 * and one every 10 s while a step lasts. Calls shorter than 0.3 s show
 * nothing on a terminal.
 */
#pragma once

#include "cli/text.h"

struct progress {
    bool quiet, terminal, drawn;
    uint64_t start_ms, last_ms;
    char what[96];
    unsigned ticks;
};

void progress_init(struct progress *p, bool quiet);
/* An ic_progress_fn: cancels once a signal is pending. */
int progress_update(void *progress, const char *what, uint64_t done, uint64_t total);
void progress_finish(struct progress *p); /* clears the line; before any other output */

/* What progress_update would draw, without control sequences; for it and its test. */
void progress_format(struct text *ret, const char *what, uint64_t done, uint64_t total, unsigned ticks, size_t width);
