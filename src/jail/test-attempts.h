/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each of the attempts by a child that has one thread's filter: the process
 * must end with the status of a refused call, whatever the arguments.
 */
#pragma once

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/macro.h"
#include "base/test.h"
#include "jail/attempts.h"
#include "jail/seccomp.h"

/* How a child ends that has the profile: 0, or with SECCOMP_EXIT_STATUS. */
static int attempt_child(enum seccomp_level level, const struct seccomp_compiled *compiled,
        const struct seccomp_profile *profile, const struct attempt *a)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        log_init("test", LOG_ERROR, -1);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || seccomp_prepare(level, compiled) != 0)
            _exit(99);
        seccomp_enter(profile);
        (void)syscall(a->nr, a->args[0], a->args[1], a->args[2], a->args[3], a->args[4], a->args[5]);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Every attempt by each of the profiles, the first of which is `first` in `allowed`. */
_unused_ static void attempt_all(enum seccomp_level level, const struct seccomp_compiled *compiled,
        const struct seccomp_profile *const *profiles, size_t count, unsigned first)
{
    unsigned all = ((1u << count) - 1) * first;

    for (size_t i = 0; i < ARRAY_SIZE(attempts) * count; i++) {
        const struct attempt *a = &attempts[i / count];
        bool allowed = a->allowed & (level == SECCOMP_BASIC ? all : first << i % count);
        int status = attempt_child(level, compiled, profiles[i % count], a);

        if (status != (allowed ? 0 : SECCOMP_EXIT_STATUS))
            fail_msg("%s by %s: status %d, should be %s", a->name, profiles[i % count]->name, status,
                    allowed ? "allowed" : "refused");
    }
}
