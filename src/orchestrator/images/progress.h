/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The caller's progress callback, and the one way a long step is cancelled:
 * the callback's answer other than 0 becomes -IC_ERR_CANCELLED.
 */
#pragma once

#include "orchestrator/error.h"

struct progress {
    ic_progress_fn fn; /* may be NULL */
    void *userdata;
};

static inline int progress_report(
        const struct progress *progress, const char *what, uint64_t done, uint64_t total, struct ic_error *error)
{
    if (progress && progress->fn && progress->fn(progress->userdata, what, done, total) != 0)
        return ic_fail(error, IC_ERR_CANCELLED, "cancelled during: %s", what);
    return 0;
}
