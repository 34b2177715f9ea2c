/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/power.h"

#include <errno.h>
#include <signal.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

/*
 * Restart before power-off: every monitor that we run under ends at a restart,
 * while a kernel without a power-off method (no ACPI) would halt and hang.
 */
_noreturn_ void power_cut(void)
{
    (void)reboot(RB_AUTOBOOT);
    (void)reboot(RB_POWER_OFF);
    for (;;)
        (void)pause();
}

/* True when no process but us is left: every other one is our descendant, and orphans become our children. */
static bool wait_for_all(uint64_t deadline)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    for (;;) {
        pid_t pid;
        int left_ms = deadline_poll_ms(deadline);
        struct timespec wait = {.tv_sec = left_ms / 1000, .tv_nsec = (long)(left_ms % 1000) * 1000000};

        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            continue;
        if (pid < 0 && errno == ECHILD)
            return true;
        if (left_ms == 0)
            return false;
        (void)sigtimedwait(&set, NULL, &wait);
    }
}

_noreturn_ void power_off(void)
{
    if (!wait_for_all(clock_now_ms())) {
        (void)kill(-1, SIGTERM);
        (void)kill(-1, SIGCONT);
        if (!wait_for_all(deadline_after_ms(POWER_GRACE_MS)))
            (void)kill(-1, SIGKILL);
    }
    sync();
    power_cut();
}
