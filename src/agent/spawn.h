/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a process for somebody: born in its control group, its own session,
 * its user's rights and no more, and the program found on its PATH.
 *
 * The start is asynchronous: the child reports through a close-on-exec pipe.
 * End of file there means that the program runs; a struct spawn_error means
 * that it does not and why. So a working directory or program on a file
 * system that hangs holds up only its own session.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/user.h"

struct spawn {
    const struct user *user; /* NULL: as the agent itself */
    char *const *argv;       /* NULL-terminated, at least one */
    char *const *env;        /* NULL-terminated */
    const char *path;        /* where argv[0] is looked for when it has no '/' */
    const char *cwd;
    bool cwd_optional; /* go to / when cwd can't be entered */
    bool tty;          /* in is a terminal and becomes the controlling one */
    int in, out, err;  /* become 0, 1, 2; all above 2 */
    int cgroup_fd;     /* or -1 */
};

enum spawn_stage { SPAWN_SETUP = 1, SPAWN_USER, SPAWN_CWD, SPAWN_EXEC };

struct spawn_error {
    uint32_t stage; /* enum spawn_stage */
    int32_t error;  /* positive errno */
};

/* 0, the child's pid and the read end of its pipe (non-blocking); the caller reaps the pid. Else a negative errno. */
int spawn_program(const struct spawn *spawn, pid_t *ret_pid, int *ret_report_fd);

/* fork(2) into a control group. Returns as fork does, with a negative errno. Signals are blocked in the child as here.
 */
pid_t spawn_fork(int cgroup_fd);

/* Takes on the user's ids, for good; anybody but root also gets no_new_privs. Negative errno on failure: exit then. */
int spawn_become(const struct user *user);
