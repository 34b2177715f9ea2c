/* SPDX-License-Identifier: Apache-2.0 */
/* ironclaw-agent: PID 1 of the guest; or, for tests, an ordinary process that serves a unix socket. */
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
    (void)fprintf(to, "usage: ironclaw-agent --listen-unix PATH | --version\n"
                      "PID 1 of an IronClaw guest. Outside of one it only serves PATH, for tests.\n");
    return status;
}

static int serve_unix(const char *path)
{
    struct agent_options options = {.listen_unix = path, .init_us = clock_now_us()};
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

static _noreturn_ void serve_guest(void)
{
    struct agent_options options = {.init_us = clock_now_us(), .cgroup_mount = CGROUP_MOUNT};
    struct boot_options boot;
    int r;

    boot_system(&boot, options.init_us);
    options.tied = boot.tied;
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
            {"version", no_argument, NULL, 'V'},
            {"help", no_argument, NULL, 'h'},
            {0},
    };
    const char *path = NULL;
    int c;

    tune_malloc();
    if (getpid() == 1)
        serve_guest(); /* what the kernel left in argv is not for us */
    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        switch (c) {
        case 'l':
            path = optarg;
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
    return serve_unix(path);
}
