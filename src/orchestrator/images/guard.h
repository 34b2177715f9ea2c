/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guard is a process between us and a tool: it outlives neither, and sees
 * to it that nothing of the tool outlives them. When it gets SIGTERM (from us
 * or, when we die in whatever way, from the kernel), it ends the tool's
 * process group; whenever the tool has ended, it kills what the tool left
 * running, in other sessions too, as orphans below it become its children.
 */
#pragma once

#include <sys/types.h>

#include "base/macro.h"

/* What a tool needs; everything is prepared before the fork. */
struct guard_tool {
    const char *path;
    char *const *argv, *const *env;
    const char *cwd;                    /* NULL: as it is */
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null */
    int report_fd;                      /* gets the errno when the tool can't be started; close-on-exec */
};

/* The guard's whole life, in a fresh child of `parent`: async-signal-safe calls only, as the caller may have threads.
 * It ends as the tool did: the same exit status, or the same signal. */
_noreturn_ void guard_main(const struct guard_tool *tool, pid_t parent);
