/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request of an exec session made into what execve(2) takes. Pure: no
 * system call, all memory in one block.
 */
#pragma once

#include <stdbool.h>

#include "agent/user.h"
#include "wire/wire.h"

#define COMMAND_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct command {
    char **argv, **env; /* NULL-terminated; the strings are in the same block */
    const char *cwd;
    bool cwd_optional; /* the request named none */
    const char *path;  /* env's PATH */
    void *block;
};

/*
 * The base environment (PATH, HOME, USER, LOGNAME, SHELL, LANG, and TERM on a
 * terminal), then the request's, of which the last of a name wins.
 * 0, -ENOMEM, or -EINVAL for what no program can be given: an empty argv, an
 * entry without '=' or name, a cwd that is not absolute.
 */
int command_build(struct command *ret, const struct wire_exec *exec, const struct user *user);
void command_deinit(struct command *command);
