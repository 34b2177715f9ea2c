/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macro.h"

/* Sanitizers keep state per thread and stack that a child on a foreign stack would spoil. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHARE_MEMORY 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SHARE_MEMORY 0
#endif
#endif
#ifndef SHARE_MEMORY
#ifdef __x86_64__
#define SHARE_MEMORY 1
#else
#define SHARE_MEMORY 0
#endif
#endif

#define KERNEL_SIGSET_SIZE 8u

/* A system call without errno: its result, or a negative errno. */
static long raw(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e)
{
#ifdef __x86_64__
    register uintptr_t r10 __asm__("r10") = d;
    register uintptr_t r8 __asm__("r8") = e;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
#else
    long result = syscall(number, a, b, c, d, e);

    return result < 0 ? -errno : result;
#endif
}

#define RAW(name, a, b, c, d) raw(SYS_##name, (uintptr_t)(a), (uintptr_t)(b), (uintptr_t)(c), (uintptr_t)(d), 0)

/* ---- in the child ---- */

int spawn_become(const struct user *user)
{
    long r = RAW(setgroups, user->group_count, user->groups, 0, 0);

    if (r == 0)
        r = RAW(setresgid, user->gid, user->gid, user->gid, 0);
    if (r == 0)
        r = RAW(setresuid, user->uid, user->uid, user->uid, 0);
    if (r == 0 && user->uid != 0)
        r = RAW(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0);
    return (int)r;
}

static long set_stdio(const struct spawn *spawn)
{
    long r = RAW(setsid, 0, 0, 0, 0);

    if (r >= 0 && spawn->tty)
        r = RAW(ioctl, spawn->in, TIOCSCTTY, 0, 0);
    if (r >= 0)
        r = RAW(dup3, spawn->in, STDIN_FILENO, 0, 0);
    if (r >= 0)
        r = RAW(dup3, spawn->out, STDOUT_FILENO, 0, 0);
    if (r >= 0)
        r = RAW(dup3, spawn->err, STDERR_FILENO, 0, 0);
    return MIN(r, 0L);
}

static long exec_file(const struct spawn *spawn, const char *file)
{
    return RAW(execve, file, spawn->command.argv, spawn->command.env, 0);
}

/* Returns only on failure, with the errno that says most: of a program that is there before "not there". */
static long exec_on_path(struct spawn *spawn)
{
    const char *name = spawn->command.argv[0], *dir = spawn->command.path;
    size_t name_len = strlen(name);
    long error = -ENOENT, r;

    if (name_len == 0)
        return -ENOENT;
    if (strchr(name, '/'))
        return exec_file(spawn, name);
    while (*dir) {
        size_t len = strcspn(dir, ":");

        if (len > 0 && len + name_len + 2 <= sizeof(spawn->file)) {
            memcpy(spawn->file, dir, len);
            spawn->file[len] = '/';
            memcpy(spawn->file + len + 1, name, name_len + 1);
            /* Looked for first: a failing execve costs the kernel a new address space. */
            if (RAW(faccessat, AT_FDCWD, spawn->file, F_OK, 0) == 0) {
                r = exec_file(spawn, spawn->file);
                if (r != -EACCES && r != -ENOENT && r != -ENOTDIR)
                    return r;
                error = r;
            }
        }
        dir += len;
        dir += *dir == ':';
    }
    return error;
}

/* Between here and the program only calls that each profile allows. */
static long set_filter(const struct spawn *spawn)
{
    long r = 0;

    if (!spawn->change_user) /* tests; else an ordinary user has it, and root needs it not */
        r = RAW(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0);
    return r < 0 ? r : RAW(seccomp, SECCOMP_SET_MODE_FILTER, 0, spawn->filter, 0);
}

static long run_child(struct spawn *spawn, enum spawn_stage *stage)
{
    static const uint64_t no_signals;
    long r;

    *stage = SPAWN_SETUP;
    r = set_stdio(spawn);
    if (r < 0)
        return r;
    *stage = SPAWN_USER;
    r = spawn->change_user ? spawn_become(&spawn->user) : 0;
    if (r < 0)
        return r;
    *stage = SPAWN_CWD;
    r = RAW(chdir, spawn->command.cwd, 0, 0, 0);
    if (r < 0 && spawn->command.cwd_optional)
        r = RAW(chdir, "/", 0, 0, 0);
    if (r < 0)
        return r;
    *stage = SPAWN_SETUP;
    r = RAW(rt_sigprocmask, SIG_SETMASK, &no_signals, 0, KERNEL_SIGSET_SIZE);
    if (r == 0 && spawn->filter)
        r = set_filter(spawn);
    if (r < 0)
        return r;
    *stage = SPAWN_EXEC;
    return exec_on_path(spawn);
}

static _noreturn_ void child_main(void *arg)
{
    struct spawn *spawn = arg;
    enum spawn_stage stage;
    long r = run_child(spawn, &stage);
    struct spawn_error report = {.stage = stage, .error = (int32_t)-r};

    (void)RAW(write, spawn->child_report_fd, &report, sizeof(report), 0);
    for (;;)
        (void)RAW(exit_group, 127, 0, 0, 0);
}

/* ---- in the agent ---- */

struct spawn *spawn_new(void)
{
    struct spawn *spawn = malloc(sizeof(*spawn));

    if (spawn)
        memset(spawn, 0, offsetof(struct spawn, file)); /* the rest is only scratch space, untouched pages are free */
    if (spawn)
        spawn->in = spawn->out = spawn->err = spawn->cgroup_fd = spawn->child_report_fd = -1;
    return spawn;
}

void spawn_free(struct spawn *spawn)
{
    if (!spawn)
        return;
    command_deinit(&spawn->command);
    free(spawn);
}

static struct clone_args clone_args_for(int cgroup_fd)
{
    struct clone_args args = {.exit_signal = SIGCHLD};

    if (cgroup_fd >= 0) {
        args.flags = CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)cgroup_fd;
    }
    return args;
}

pid_t spawn_fork(int cgroup_fd)
{
    struct clone_args args = clone_args_for(cgroup_fd);
    /* Not fork(3): it has no way to name the control group. The agent has one thread and no fork handlers. */
    long pid = RAW(clone3, &args, sizeof(args), 0, 0);

    if (pid == -ENOSYS && cgroup_fd < 0) {
        pid = fork();
        if (pid < 0)
            pid = -errno;
    }
    return (pid_t)pid;
}

#if SHARE_MEMORY
static long spawn_sharing_memory(struct spawn *spawn)
{
    struct clone_args args = clone_args_for(spawn->cgroup_fd);
    long pid;

    args.flags |= CLONE_VM;
    args.stack = (uint64_t)(uintptr_t)spawn->stack;
    args.stack_size = sizeof(spawn->stack);
    /* The child returns from the system call onto its own stack, which has no caller to go back to. */
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "mov %[arg], %%rdi\n\t"
                     "call *%[entry]\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(pid)
                     : "a"((long)SYS_clone3), "D"(&args), "S"(sizeof(args)), [entry] "r"(child_main), [arg] "r"(spawn)
                     : "rcx", "r11", "memory");
    return pid;
}
#else
static long spawn_sharing_memory(struct spawn *spawn)
{
    (void)spawn;
    return -ENOSYS;
}
#endif

int spawn_program(struct spawn *spawn, int *ret_report_fd)
{
    int pipe_fds[2];
    long pid;

    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    spawn->child_report_fd = pipe_fds[1];
    pid = spawn_sharing_memory(spawn);
    if (pid == -ENOSYS)
        pid = spawn_fork(spawn->cgroup_fd);
    if (pid == 0)
        child_main(spawn);
    fd_close(pipe_fds[1]);
    if (pid < 0) {
        fd_close(pipe_fds[0]);
        return (int)pid;
    }
    spawn->pid = (pid_t)pid;
    *ret_report_fd = pipe_fds[0];
    return 0;
}
