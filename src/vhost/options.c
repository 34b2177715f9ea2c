/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/macro.h"
#include "jail/start.h"
#include "vsock/vsock.h"

#define GUEST_CID_MAX 0xfffffffeu /* 2^32 - 1 means "any" */

static const char usage[] = "Usage: ironclaw-vsock --guest-cid N --uds-path PATH {--fd N | --socket PATH} [OPTION]...\n"
                            "Lends a virtio-vsock device to one virtual machine, over vhost-user.\n"
                            "\n"
                            "      --guest-cid N      the guest's context id, 3 or more\n"
                            "      --uds-path PATH    unix socket for host programs, and prefix of PATH_<port>\n"
                            "      --uds-fd N         inherited socket that already listens at the path\n"
                            "      --fd N             inherited socket that is connected to the front-end\n"
                            "      --socket PATH      listen here for the front-end\n"
                            "      --linger-ms N      with --socket: wait so long for the next front-end (0)\n"
                            "      --max-connections N  connections at a time, 1 to 1023 (1023)\n"
                            "      --max-lifetime-ms N  end after so long\n"
                            "      --hold-fd N        inherited descriptor to be closed by nothing but the end\n"
                            "      --log-level LEVEL  error, warning, info or debug (warning)\n"
                            "      --seccomp-level L  minimal, basic or permissive (minimal)\n"
                            "      --seccomp-report   print what the process may call, and why, and exit\n"
                            "      --no-seccomp       no filter\n"
                            "      --audit-fd N       inherited ring for what the filter refuses\n"
                            "      --help             print this and exit\n"
                            "      --version          print the version and exit\n"
                            "\n"
                            "Exit status: 0 the front-end left or a signal came, 1 failure, 2 usage,\n"
                            "3 the front-end broke the protocol, 124 the lifetime is over, 148 a system call that\n"
                            "the filter refuses.\n";

enum {
    OPT_GUEST_CID = 256,
    OPT_UDS_PATH,
    OPT_UDS_FD,
    OPT_FD,
    OPT_SOCKET,
    OPT_LINGER_MS,
    OPT_LOG_LEVEL,
    OPT_MAX_CONNECTIONS,
    OPT_MAX_LIFETIME_MS,
    OPT_HOLD_FD,
    OPT_SECCOMP_LEVEL,
    OPT_SECCOMP_REPORT,
    OPT_NO_SECCOMP,
    OPT_AUDIT_FD,
    OPT_HELP,
    OPT_VERSION,
};

static const struct option long_options[] = {
        {"guest-cid", required_argument, NULL, OPT_GUEST_CID},
        {"uds-path", required_argument, NULL, OPT_UDS_PATH},
        {"uds-fd", required_argument, NULL, OPT_UDS_FD},
        {"fd", required_argument, NULL, OPT_FD},
        {"socket", required_argument, NULL, OPT_SOCKET},
        {"linger-ms", required_argument, NULL, OPT_LINGER_MS},
        {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
        {"max-connections", required_argument, NULL, OPT_MAX_CONNECTIONS},
        {"max-lifetime-ms", required_argument, NULL, OPT_MAX_LIFETIME_MS},
        {"hold-fd", required_argument, NULL, OPT_HOLD_FD},
        {"seccomp-level", required_argument, NULL, OPT_SECCOMP_LEVEL},
        {"audit-fd", required_argument, NULL, OPT_AUDIT_FD},
        {"seccomp-report", no_argument, NULL, OPT_SECCOMP_REPORT},
        {"no-seccomp", no_argument, NULL, OPT_NO_SECCOMP},
        {"help", no_argument, NULL, OPT_HELP},
        {"version", no_argument, NULL, OPT_VERSION},
        {NULL, 0, NULL, 0},
};

static int _printf_(1, 2) refuse(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("ironclaw-vsock: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs("; see ironclaw-vsock --help\n", stderr);
    va_end(ap);
    return -EINVAL;
}

static int parse_number(const char *name, const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    unsigned long long v;
    char *end;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || v < min || v > max)
        return refuse("--%s %s: not a number from %llu to %llu", name, text, (unsigned long long)min,
                (unsigned long long)max);
    *ret = v;
    return 0;
}

/* An inherited stream socket of the right kind. Standard descriptors are never meant. */
static int parse_socket(const char *name, const char *text, bool listening, int *ret)
{
    int type = 0, accepts = 0;
    socklen_t len = sizeof(int);
    uint64_t fd = 0;
    int r = parse_number(name, text, 3, INT32_MAX, &fd);

    if (r < 0)
        return r;
    if (getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
        return refuse("--%s %s: not an open socket: %s", name, text, strerror(errno));
    if (type != SOCK_STREAM || getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &len) < 0 ||
            (accepts != 0) != listening)
        return refuse("--%s %s: not a %s stream socket", name, text, listening ? "listening" : "connected");
    *ret = (int)fd;
    return 0;
}

/* Any inherited descriptor. */
static int parse_held(const char *text, int *ret)
{
    uint64_t fd = 0;
    int r = parse_number("hold-fd", text, 3, INT32_MAX, &fd);

    if (r == 0 && fcntl((int)fd, F_GETFD) < 0)
        return refuse("--hold-fd %s: not an open descriptor", text);
    if (r == 0)
        *ret = (int)fd;
    return r;
}

static int parse_u32(const char *name, const char *text, uint32_t min, uint32_t max, uint32_t *ret)
{
    uint64_t v = 0;
    int r = parse_number(name, text, min, max, &v);

    if (r == 0)
        *ret = (uint32_t)v;
    return r;
}

static int parse_level(const char *text, enum log_level *ret)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum log_level)i;
            return 0;
        }
    }
    return refuse("--log-level %s: not one of error, warning, info, debug", text);
}

static int parse_one(struct options *o, int option, const char *arg)
{
    switch (option) {
    case OPT_GUEST_CID:
        return parse_number("guest-cid", arg, VSOCK_GUEST_CID_MIN, GUEST_CID_MAX, &o->guest_cid);
    case OPT_UDS_PATH:
        o->uds_path = arg;
        return 0;
    case OPT_UDS_FD:
        return parse_socket("uds-fd", arg, true, &o->uds_fd);
    case OPT_FD:
        return parse_socket("fd", arg, false, &o->frontend_fd);
    case OPT_SOCKET:
        o->frontend_path = arg;
        return 0;
    case OPT_LINGER_MS:
        return parse_u32("linger-ms", arg, 0, 86400000, &o->linger_ms);
    case OPT_MAX_CONNECTIONS:
        return parse_u32("max-connections", arg, 1, VSOCK_MAX_CONNECTIONS, &o->max_connections);
    case OPT_MAX_LIFETIME_MS:
        return parse_u32("max-lifetime-ms", arg, 1, UINT32_MAX, &o->max_lifetime_ms);
    case OPT_HOLD_FD:
        return parse_held(arg, &o->held_fd);
    case OPT_LOG_LEVEL:
        return parse_level(arg, &o->log_level);
    case OPT_SECCOMP_LEVEL:
        return seccomp_level_parse(arg, &o->seccomp_level) == 0
                       ? 0
                       : refuse("--seccomp-level %s: not one of minimal, basic, permissive", arg);
    case OPT_AUDIT_FD:
        return seccomp_audit_to(arg) == 0 ? 0 : refuse("--audit-fd %s: not an inherited audit ring", arg);
    case OPT_SECCOMP_REPORT:
        o->seccomp_report = true;
        return 0;
    case OPT_NO_SECCOMP:
        o->no_seccomp = true;
        return 0;
    case OPT_HELP:
        fputs(usage, stdout);
        return OPTIONS_DONE;
    case OPT_VERSION:
        puts("ironclaw-vsock " IRONCLAW_VERSION);
        return OPTIONS_DONE;
    default: /* getopt has said what is wrong */
        return -EINVAL;
    }
}

static int check(const struct options *o)
{
    if (o->seccomp_report)
        return 0;
    if (o->guest_cid == 0)
        return refuse("--guest-cid is missing");
    if (!o->uds_path || o->uds_path[0] == '\0')
        return refuse("--uds-path is missing");
    if ((o->frontend_fd >= 0) == (o->frontend_path != NULL))
        return refuse("exactly one of --fd and --socket is needed");
    if (o->frontend_fd >= 0 && o->linger_ms > 0)
        return refuse("--linger-ms needs --socket");
    if (o->frontend_fd >= 0 && o->frontend_fd == o->uds_fd)
        return refuse("--fd and --uds-fd name the same descriptor");
    return 0;
}

int options_parse(struct options *ret, int argc, char **argv)
{
    struct options o = {.uds_fd = -1, .frontend_fd = -1, .held_fd = -1, .log_level = LOG_WARN};
    int option, r;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        r = parse_one(&o, option, optarg);
        if (r != 0)
            return r;
    }
    if (optind < argc)
        return refuse("%s: unexpected argument", argv[optind]);
    r = check(&o);
    if (r == 0)
        *ret = o;
    return r;
}
