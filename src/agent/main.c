/* SPDX-License-Identifier: Apache-2.0 */
/* ironclaw-agent: PID 1 of the guest; or, for tests, an ordinary process that serves a unix socket. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <linux/close_range.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/boot.h"
#include "agent/filter.h"
#include "agent/power.h"
#include "base/clock.h"
#include "base/log.h"

static struct agent agent;

static void tune_malloc(void)
{
    /* Sessions' buffers come and go; giving their pages back each time costs more than keeping a few. */
    (void)mallopt(M_MMAP_THRESHOLD, 4 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 2 << 20);
}

static int usage(FILE *to, int status)
{
    (void)fprintf(to, "usage: ironclaw-agent --listen-unix PATH [--seccomp LEVEL] [--frozen] | --version\n"
                      "PID 1 of an IronClaw guest. Outside of one it only serves PATH, for tests.\n");
    return status;
}

static int serve_unix(const char *path, const struct sock_fprog *filter, bool frozen)
{
    struct agent_options options = {
            .listen_unix = path, .init_us = clock_now_us(), .filter = *filter, .template = frozen};
    int r;

    log_init("ironclaw-agent", LOG_INFO, STDERR_FILENO);
    /* What our parent left open or ignored is not for the commands. */
    (void)close_range(STDERR_FILENO + 1, UINT_MAX, CLOSE_RANGE_CLOEXEC);
    for (int signo = 1; signo < NSIG; signo++)
        (void)signal(signo, SIG_DFL);
    r = agent_init(&agent, &options);
    if (r < 0) {
        (void)fprintf(stderr, "ironclaw-agent: %s: %s\n", path, strerror(-r));
        return 1;
    }
    r = agent_run(&agent);
    agent_deinit(&agent);
    return r < 0 ? 1 : 0;
}

/* A kernel that somebody brought may have no filters; then only who asked for none goes on. */
static void load_filter(enum seccomp_level level, struct sock_fprog *ret)
{
    int r = filter_load(level, ret);

    if (r < 0 && level != SECCOMP_PERMISSIVE)
        boot_fatal("no seccomp filter for commands: %s%s", strerror(-r),
                r == -ENOMEM ? ""
                             : "; a kernel with CONFIG_SECCOMP_FILTER has them, guest_seccomp permissive does without");
    if (r < 0)
        log_msg(LOG_WARN, "no seccomp filter that would log: %s", strerror(-r));
}

static _noreturn_ void serve_guest(void)
{
    struct agent_options options = {.init_us = clock_now_us(), .cgroup_mount = CGROUP_MOUNT};
    struct boot_options boot;
    int r;

    boot_system(&boot, options.init_us);
    options.tied = boot.tied;
    options.template = boot.template;
    options.test_no_reseed = boot.test_no_reseed;
    load_filter(boot.seccomp, &options.filter);
    r = agent_init(&agent, &options);
    if (r < 0)
        boot_fatal("can't serve the host on vsock: %s", strerror(-r));
    r = agent_run(&agent);
    if (r < 0)
        boot_fatal("the agent's loop failed: %s", strerror(-r));
    power_off();
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
            {"listen-unix", required_argument, NULL, 'l'},
            {"seccomp", required_argument, NULL, 's'},
            {"frozen", no_argument, NULL, 'f'},
            {"version", no_argument, NULL, 'V'},
            {"help", no_argument, NULL, 'h'},
            {0},
    };
    struct sock_fprog filter = {0};
    enum seccomp_level level;
    const char *path = NULL;
    bool frozen = false;
    int c;

    tune_malloc();
    if (getpid() == 1)
        serve_guest(); /* what the kernel left in argv is not for us */
    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        switch (c) {
        case 'l':
            path = optarg;
            break;
        case 's':
            if (seccomp_level_parse(optarg, &level) < 0 || filter_load(level, &filter) < 0)
                return usage(stderr, 2);
            break;
        case 'f':
            frozen = true;
            break;
        case 'V':
            (void)printf("ironclaw-agent %s\n", IRONCLAW_VERSION);
            return 0;
        case 'h':
            return usage(stdout, 0);
        default:
            return usage(stderr, 2);
        }
    }
    if (!path || optind != argc)
        return usage(stderr, 2);
    return serve_unix(path, &filter, frozen);
}
