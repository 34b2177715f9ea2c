/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define TERM_WAIT_MS  5000
#define STRAYS_ROUNDS 200 /* of 10 ms */

static void report(int fd, int failure)
{
    while (write(fd, &failure, sizeof(failure)) < 0 && errno == EINTR)
        ;
}

static _noreturn_ void exec_tool(const struct guard_tool *tool, pid_t guard)
{
    static const int reset[] = {SIGPIPE, SIGINT, SIGTERM, SIGCHLD, SIGHUP, SIGQUIT};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;

    (void)sigemptyset(&none);
    for (size_t i = 0; i < ARRAY_SIZE(reset); i++)
        (void)signal(reset[i], SIG_DFL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != guard)
        _exit(127);
    if (null >= 0 && dup2(tool->stdin_fd >= 0 ? tool->stdin_fd : null, 0) >= 0 &&
            dup2(tool->stdout_fd >= 0 ? tool->stdout_fd : null, 1) >= 0 &&
            dup2(tool->stderr_fd >= 0 ? tool->stderr_fd : null, 2) >= 0 && (!tool->cwd || chdir(tool->cwd) == 0)) {
        (void)close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
        (void)execve(tool->path, tool->argv, tool->env);
    }
    report(tool->report_fd, errno);
    _exit(127);
}

/* Waits until the tool ends; on SIGTERM ends its group. */
static int wait_tool(pid_t tool, const sigset_t *signals)
{
    const struct timespec step = {.tv_nsec = 50 * 1000 * 1000};
    uint64_t deadline = DEADLINE_NEVER;
    int wstatus = 0;

    for (;;) {
        pid_t pid;

        while ((pid = waitpid(-1, &wstatus, WNOHANG)) > 0) {
            if (pid == tool)
                return wstatus;
        }
        if (sigtimedwait(signals, NULL, &step) == SIGTERM && deadline == DEADLINE_NEVER) {
            deadline = clock_now_ms() + TERM_WAIT_MS;
            (void)kill(-tool, SIGTERM);
        }
        if (clock_now_ms() > deadline)
            (void)kill(-tool, SIGKILL);
    }
}

/* Kills every child that is left; false when there is none. The kernel lists them as "pid pid ". */
static bool kill_children(void)
{
    int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    char text[4096];
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text)) : -1;
    bool any = false;
    pid_t pid = 0;

    (void)close(fd);
    for (ssize_t i = 0; i < n; i++) {
        if (text[i] >= '0' && text[i] <= '9') {
            pid = pid * 10 + (text[i] - '0');
        } else if (pid > 0) {
            (void)kill(pid, SIGKILL);
            any = true;
            pid = 0;
        }
    }
    return any;
}

static void end_strays(pid_t tool)
{
    const struct timespec step = {.tv_nsec = 10 * 1000 * 1000};

    (void)kill(-tool, SIGKILL);
    for (unsigned i = 0; i < STRAYS_ROUNDS && kill_children(); i++) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        (void)nanosleep(&step, NULL);
    }
}

_noreturn_ void guard_main(const struct guard_tool *tool, pid_t parent)
{
    const struct rlimit no_core = {0};
    sigset_t signals, none;
    pid_t pid, self = getpid();
    int wstatus;

    (void)setpgid(0, 0);
    (void)sigfillset(&signals);
    (void)sigprocmask(SIG_SETMASK, &signals, NULL);
    (void)signal(SIGCHLD, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(127);
    pid = _Fork();
    if (pid == 0)
        exec_tool(tool, self);
    if (pid < 0) {
        report(tool->report_fd, errno);
        _exit(127);
    }
    (void)setpgid(pid, pid);
    /* Nothing of the caller's is kept open here: not its pipes, nor its locks. */
    (void)close_range(0, ~0U, 0);
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGCHLD);
    (void)sigaddset(&signals, SIGTERM);
    wstatus = wait_tool(pid, &signals);
    end_strays(pid);
    if (WIFSIGNALED(wstatus)) {
        (void)setrlimit(RLIMIT_CORE, &no_core);
        (void)signal(WTERMSIG(wstatus), SIG_DFL);
        (void)sigemptyset(&none);
        (void)kill(getpid(), WTERMSIG(wstatus));
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        _exit(128 + WTERMSIG(wstatus));
    }
    _exit(WEXITSTATUS(wstatus));
}
