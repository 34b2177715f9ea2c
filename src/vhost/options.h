/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of ironclaw-vsock (docs/man/ironclaw-vsock.8). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "jail/seccomp.h"

enum {
    EXIT_OK = 0,         /* the front-end left, or a signal asked us to end */
    EXIT_FAILED = 1,     /* something of this host failed */
    EXIT_USAGE = 2,      /* the command line is wrong */
    EXIT_PROTOCOL = 3,   /* the front-end broke the vhost-user protocol */
    EXIT_LIFETIME = 124, /* as timeout(1) */
};

struct options {
    uint64_t guest_cid;
    const char *uds_path;
    int uds_fd;      /* -1: listen at uds_path */
    int frontend_fd; /* -1: listen at frontend_path */
    const char *frontend_path;
    uint32_t linger_ms;
    uint32_t max_connections; /* 0: the core's own limit */
    uint32_t max_lifetime_ms; /* 0: none */
    int held_fd;              /* kept open until the end; -1: none */
    enum log_level log_level;
    enum seccomp_level seccomp_level;
    bool seccomp_report; /* print it; the rest need not make sense */
    bool no_seccomp;
};

enum { OPTIONS_DONE = 1 }; /* --help or --version was printed */
/* 0, OPTIONS_DONE, or -EINVAL with one line on stderr. Strings point into argv. */
int options_parse(struct options *ret, int argc, char **argv);
