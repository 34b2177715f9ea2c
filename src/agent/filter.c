/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/filter.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <unistd.h>

int filter_load(enum seccomp_level level, struct sock_fprog *ret)
{
    const uint32_t needed = level == SECCOMP_PERMISSIVE ? SECCOMP_RET_LOG : SECCOMP_RET_ERRNO;
    const char *profile = level == SECCOMP_MINIMAL ? "minimal" : "basic";
    int r;

    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &needed) < 0)
        return -errno;
    /* Unlike threads' profiles, each of these is a program of its own at its own level. */
    r = seccomp_get_program(&filter_compiled, level == SECCOMP_PERMISSIVE ? level : SECCOMP_MINIMAL, profile, ret);
    for (size_t i = 0; r == 0 && level == SECCOMP_PERMISSIVE && i < ret->len; i++) {
        if (ret->filter[i].code == (BPF_RET | BPF_K) && ret->filter[i].k == SECCOMP_RET_KILL_PROCESS)
            ret->filter[i].k = SECCOMP_RET_LOG; /* 32-bit programs may run, too */
    }
    return r;
}
