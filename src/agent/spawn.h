/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a process for somebody: born in its control group, its own session,
 * its user's rights and no more, and the program found on its PATH.
 *
 * The start is asynchronous: the child reports through a close-on-exec pipe.
 * End of file there means that it left the agent's memory (the program runs,
 * or a signal ended the child first); a struct spawn_error means that the
 * program can't run and why. So a directory or program on a file system that
 * hangs, or a fork bomb that has the CPU, holds up only its own session.
 *
 * Until then the child shares the agent's memory (CLONE_VM), on a stack of its
 * own: copying even a small address space is a quarter of the time that
 * starting a program takes under emulation. The rules that make this sound:
 *
 *   - the child only reads what is in its struct spawn, and only makes raw
 *     system calls: errno is the agent's, which runs on beside it;
 *   - the struct lives until end of file on the pipe, or until the child is
 *     reaped (after an error report the child still has to exit).
 */
#pragma once

#include <limits.h>
#include <linux/filter.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/command.h"
#include "agent/user.h"

#define SPAWN_STACK_SIZE 16384u

struct spawn {
    struct command command; /* owned */
    struct user user;
    bool change_user;                /* else it runs as the agent itself */
    bool tty;                        /* in is a terminal and becomes the controlling one */
    const struct sock_fprog *filter; /* NULL: none */
    int in, out, err;                /* become 0, 1, 2; all above 2; borrowed until spawn_program() returned */
    int cgroup_fd;                   /* or -1; borrowed in the same way */

    pid_t pid;          /* set by spawn_program(); the caller reaps it */
    struct spawn *next; /* for the caller's list */
    int child_report_fd;
    char file[PATH_MAX]; /* the child's scratch space */
    _Alignas(16) char stack[SPAWN_STACK_SIZE];
};

enum spawn_stage { SPAWN_SETUP = 1, SPAWN_USER, SPAWN_CWD, SPAWN_EXEC };

struct spawn_error {
    uint32_t stage; /* enum spawn_stage */
    int32_t error;  /* positive errno */
};

/* All unset but the descriptors, which are -1. NULL when out of memory. */
struct spawn *spawn_new(void);
void spawn_free(struct spawn *spawn); /* accepts NULL; see above when */

/* 0 and the read end of the child's pipe (non-blocking). On failure there is no child. */
int spawn_program(struct spawn *spawn, int *ret_report_fd);

/* fork(2) into a control group. Returns as fork does, with a negative errno. Signals are blocked in the child as here.
 */
pid_t spawn_fork(int cgroup_fd);

/* Takes on the user's ids, for good; anybody but root also gets no_new_privs. Negative errno on failure: exit then. */
int spawn_become(const struct user *user);
