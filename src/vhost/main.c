/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ironclaw-vsock: a virtio-vsock device for one VM of another VMM, over
 * vhost-user. One process per VM; it ends with its VM, because the front-end's
 * socket does.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macro.h"
#include "jail/start.h"
#include "vhost/options.h"
#include "vhost/server.h"
#include "vsock/vsock.h"

#define FDS_BESIDE_CONNECTIONS 64u

/* A closed standard descriptor would be given to the next socket, and a stray message written into it. */
static int open_standard_fds(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return -EBADF;
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b; /* descriptors: no overflow */
}

/* Everything above stderr goes, except for what the command line names (-1: none). */
static int close_other_fds(const struct options *options)
{
    int keep[] = {options->uds_fd, options->frontend_fd, options->held_fd};
    unsigned first = 3;

    qsort(keep, ARRAY_SIZE(keep), sizeof(*keep), compare);
    for (size_t i = 0; i < ARRAY_SIZE(keep); i++) {
        if (keep[i] < 0)
            continue;
        if ((unsigned)keep[i] > first && close_range(first, (unsigned)keep[i] - 1, 0) < 0)
            return -errno;
        first = (unsigned)keep[i] + 1;
    }
    return close_range(first, ~0u, 0) < 0 ? -errno : 0;
}

/* Two descriptors per connection at worst; as many as the hard limit allows, the core refuses connections beyond. */
static void raise_fd_limit(void)
{
    const rlim_t want = 2 * VSOCK_MAX_CONNECTIONS + FDS_BESIDE_CONNECTIONS;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= want)
        return;
    limit.rlim_cur = MIN(want, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_msg(LOG_WARN, "cannot raise the limit of open files: %s", strerror(errno));
}

static int open_signals(int *ret_fd)
{
    sigset_t set;
    int fd;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_SETMASK, &set, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return -errno;
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

static int prepare(const struct options *options, int *ret_signal_fd)
{
    int r = close_other_fds(options);

    if (r < 0)
        return r;
    umask(0077);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    raise_fd_limit();
    return open_signals(ret_signal_fd);
}

int main(int argc, char **argv)
{
    _cleanup_(fd_closep) int signal_fd = -1;
    struct options options;
    int r;

    if (open_standard_fds() < 0)
        return EXIT_FAILED;
    r = options_parse(&options, argc, argv);
    if (r != 0)
        return r == OPTIONS_DONE ? EXIT_OK : EXIT_USAGE;
    if (options.seccomp_report) {
        seccomp_report(stdout, vsock_profiles, VSOCK_PROFILES);
        return EXIT_OK;
    }
    log_init("ironclaw-vsock", options.log_level, STDERR_FILENO);
    r = prepare(&options, &signal_fd);
    if (r < 0) {
        log_msg(LOG_ERROR, "cannot start: %s", strerror(-r));
        return EXIT_FAILED;
    }
    if (seccomp_start(options.no_seccomp, options.seccomp_level, &vsock_compiled) < 0)
        return EXIT_FAILED;
    return server_run(&options, signal_fd);
}
