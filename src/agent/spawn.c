/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macro.h"

pid_t spawn_fork(int cgroup_fd)
{
    struct clone_args args = {.exit_signal = SIGCHLD};
    long pid;

    if (cgroup_fd >= 0) {
        args.flags = CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup_fd;
    }
    /* Not fork(3): glibc has no call for the control group. The agent has one thread and no fork handlers. */
    pid = syscall(SYS_clone3, &args, sizeof(args));
    if (pid < 0 && errno == ENOSYS && cgroup_fd < 0)
        pid = fork();
    return pid < 0 ? (pid_t)-errno : (pid_t)pid;
}

int spawn_become(const struct user *user)
{
    if (setgroups(user->group_count, user->groups) < 0 || setresgid(user->gid, user->gid, user->gid) < 0 ||
            setresuid(user->uid, user->uid, user->uid) < 0)
        return -errno;
    if (user->uid != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    return 0;
}

static int set_stdio(const struct spawn *spawn)
{
    if (setsid() < 0)
        return -errno;
    if (spawn->tty && ioctl(spawn->in, TIOCSCTTY, 0) < 0)
        return -errno;
    if (dup2(spawn->in, STDIN_FILENO) < 0 || dup2(spawn->out, STDOUT_FILENO) < 0 || dup2(spawn->err, STDERR_FILENO) < 0)
        return -errno;
    return 0;
}

/* Returns only on failure, with the errno that says most: of a program that is there before "not there". */
static int exec_on_path(const struct spawn *spawn)
{
    const char *name = spawn->argv[0], *dir = spawn->path;
    char file[PATH_MAX];
    int error = ENOENT;

    if (!*name)
        return -ENOENT;
    if (strchr(name, '/')) {
        (void)execve(name, spawn->argv, spawn->env);
        return -errno;
    }
    while (*dir) {
        size_t len = strcspn(dir, ":");
        int n = snprintf(file, sizeof(file), "%.*s/%s", (int)MIN(len, (size_t)PATH_MAX), len > 0 ? dir : ".", name);

        /* access(2) first: a failing execve costs the kernel a new address space. */
        if (n > 0 && (size_t)n < sizeof(file) && access(file, F_OK) == 0) {
            (void)execve(file, spawn->argv, spawn->env);
            if (errno != EACCES && errno != ENOENT && errno != ENOTDIR)
                return -errno;
            error = errno;
        }
        dir += len;
        dir += *dir == ':';
    }
    return -error;
}

static int run_child(const struct spawn *spawn, enum spawn_stage *ret_stage)
{
    sigset_t none;
    int r;

    *ret_stage = SPAWN_SETUP;
    r = set_stdio(spawn);
    if (r < 0)
        return r;
    *ret_stage = SPAWN_USER;
    r = spawn->user ? spawn_become(spawn->user) : 0;
    if (r < 0)
        return r;
    *ret_stage = SPAWN_CWD;
    if (chdir(spawn->cwd) < 0 && (!spawn->cwd_optional || chdir("/") < 0))
        return -errno;
    *ret_stage = SPAWN_EXEC;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    return exec_on_path(spawn);
}

static _noreturn_ void child_main(const struct spawn *spawn, int report_fd)
{
    enum spawn_stage stage;
    int r = run_child(spawn, &stage);
    struct spawn_error report = {.stage = stage, .error = -r};

    if (write(report_fd, &report, sizeof(report)) < 0)
        _exit(126);
    _exit(127);
}

int spawn_program(const struct spawn *spawn, pid_t *ret_pid, int *ret_report_fd)
{
    int pipe_fds[2];
    pid_t pid;

    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    pid = spawn_fork(spawn->cgroup_fd);
    if (pid == 0)
        child_main(spawn, pipe_fds[1]);
    fd_close(pipe_fds[1]);
    if (pid < 0) {
        fd_close(pipe_fds[0]);
        return pid;
    }
    *ret_pid = pid;
    *ret_report_fd = pipe_fds[0];
    return 0;
}
