/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs one external tool to its end. There is no shell: argv goes to the
 * program as it is. The tool gets its own process group, /dev/null as stdin
 * and only the descriptors that it is told of; what it writes on stderr is
 * kept (its end), and becomes part of the error message when it fails.
 *
 * While the tool runs, `tick` is called about ten times a second; an answer
 * below 0 ends the tool and all that it started (SIGTERM, then SIGKILL) and
 * is returned. The same happens when the calling process dies (guard.h).
 */
#pragma once

#include "base/buf.h"
#include "orchestrator/error.h"

struct subprocess {
    const char *const *argv; /* argv[0] is looked up in PATH, /usr/sbin and /sbin */
    const char *package;     /* the Debian package that has it, for the message when it is missing */
    const char *const *env;  /* NAME=value, over the caller's environment; NULL: none. LC_ALL=C is always set. */
    const char *cwd;         /* NULL: the caller's */
    int stdin_fd;            /* 0: /dev/null */
    int stdout_fd;           /* 0: kept in `output`, or dropped */
    struct buf *output;      /* stdout, bounded by its max (output that does not fit fails); NUL-terminated, or NULL */
    int (*tick)(void *userdata, struct ic_error *error);
    /* Each line of stdout when output is NULL and stdout_fd is 0, without its newline, cut at 1 KiB. */
    int (*line)(void *userdata, const char *line, struct ic_error *error);
    bool line_from_stderr; /* lines of stderr instead, which is kept as well */
    void *userdata;
    int *ret_status; /* when set, an exit status other than 0 is no failure but stored here */
};

int subprocess_run(const struct subprocess *process, struct ic_error *error);

/* Finds an executable; *ret is to be freed. -IC_ERR_NOT_FOUND names the package. */
int subprocess_find(const char *program, const char *package, char **ret, struct ic_error *error);
