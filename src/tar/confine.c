/* SPDX-License-Identifier: Apache-2.0 */
#include "tar/confine.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/macro.h"

#define MEMORY_MAX ((rlim_t)2 << 30) /* address space; the largest dictionaries of xz take 1.5 GiB */

static int limit(int what, rlim_t most)
{
    struct rlimit rlimit;

    if (getrlimit(what, &rlimit) < 0)
        return -errno;
    rlimit.rlim_max = MIN(rlimit.rlim_max, most);
    rlimit.rlim_cur = MIN(rlimit.rlim_cur, most);
    return setrlimit(what, &rlimit) < 0 ? -errno : 0;
}

int tar_confine(void)
{
    int r = close_range(STDERR_FILENO + 1, ~0u, 0) < 0 ? -errno : 0;

    if (r == 0)
        r = limit(RLIMIT_CORE, 0);
    if (r == 0)
        r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
    if (r == 0)
        r = seccomp_prepare(SECCOMP_MINIMAL, &tar_compiled);
    if (r == SECCOMP_SANITIZED) /* which takes terabytes of addresses, too */
        return 0;
    if (r == 0)
        r = limit(RLIMIT_AS, MEMORY_MAX);
    if (r == 0)
        seccomp_enter(tar_profiles[0]);
    return r;
}
