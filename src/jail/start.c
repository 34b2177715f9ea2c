/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/start.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "jail/supervise.h"

int seccomp_start(bool off, enum seccomp_level level, const struct seccomp_compiled *compiled)
{
    int r;

    if (off) {
        log_msg(LOG_WARN, "no seccomp filters (--no-seccomp): whoever breaks out of the guest may call all of the "
                          "kernel");
        return 0;
    }
    r = seccomp_prepare(level, compiled);
    if (r == SECCOMP_SANITIZED)
        log_msg(LOG_INFO, "no seccomp filters: built with a sanitizer, which makes calls of its own");
    else if (r < 0)
        log_msg(LOG_ERROR, "seccomp filters: %s%s", strerror(-r),
                r == -ENOSYS || r == -EOPNOTSUPP
                        ? "; a kernel with CONFIG_SECCOMP_FILTER has them, --no-seccomp does without"
                        : "");
    else if (level == SECCOMP_PERMISSIVE)
        log_msg(LOG_WARN,
                "the seccomp filters refuse nothing (--seccomp-level permissive); what minimal would refuse is logged");
    return r < 0 ? r : 0;
}

int seccomp_audit_to(const char *fd)
{
    char *end;
    long n;
    int r;

    errno = 0;
    n = strtol(fd, &end, 10);
    if (fd[0] < '0' || fd[0] > '9' || *end != '\0' || errno != 0 || n <= STDERR_FILENO || n > INT_MAX)
        return -EINVAL;
    r = audit_ring_map((int)n, &seccomp_ring);
    if (r < 0)
        return -EINVAL;
    fd_close((int)n);
    return 0;
}
