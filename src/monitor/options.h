/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of ironclaw-vmm: Firecracker's flags, and its exit statuses where they make sense. */
#pragma once

#include <stdbool.h>

#include "base/log.h"
#include "jail/seccomp.h"

enum {
    EXIT_OK = 0,
    EXIT_ERROR = 1,                      /* the VM or the monitor failed; the last line of the log says why */
    EXIT_LIFETIME = 124,                 /* --max-lifetime-ms is over; as timeout(1) */
    EXIT_BAD_CALL = SECCOMP_EXIT_STATUS, /* a system call that no filter allows */
    EXIT_BAD_CONFIG = 152,               /* --config-file, or what it describes can't be built */
    EXIT_BAD_USAGE = 153,
    EXIT_SIGNAL_BASE = 128, /* + the signal that ended us in good order */
};

struct options {
    const char *api_sock; /* NULL with --no-api */
    const char *id;
    const char *config_file; /* NULL: none */
    const char *log_path, *metrics_path;
    enum log_level level;
    enum seccomp_level seccomp_level;
    const char *merge_full, *merge_diff; /* --merge-memory: both, and nothing else is done; NULL: it wasn't asked for */
    uint32_t set_pid;                    /* --working-set, likewise; 0: not asked for */
    const char *set_memory, *set_path;
    bool boot_timer, no_seccomp, seccomp_report;
    uint32_t vsock_max_connections, max_lifetime_ms; /* 0: the device's own limit; none */
};

#define OPTIONS_DEFAULT_SOCKET "/run/firecracker.socket"

/* OPTIONS_DONE: --help or --version was answered on stdout. -EINVAL: the reason is on stderr. */
enum { OPTIONS_DONE = 1 };
int options_parse(struct options *ret, int argc, char **argv);

/* "Error", "Warning", "Warn", "Info", "Debug", "Trace", "Off", any case. -EINVAL. */
int options_parse_level(const char *text, enum log_level *ret);
