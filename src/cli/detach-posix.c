/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"

#define ARGS_MORE 4

/* What ends us before it has said its word ends it, too: in its session no terminal reaches it. */
static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static volatile sig_atomic_t child, ended_by;

static void on_signal(int signo)
{
    int saved = errno;

    ended_by = signo;
    if (child > 0)
        (void)kill((pid_t)child, SIGTERM);
    errno = saved;
}

static void handle(void (*handler)(int))
{
    struct sigaction old, action = {.sa_handler = handler};

    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++) {
        /* What nohup or a shell's "&" ignores stays ignored. */
        if (sigaction(forwarded[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(forwarded[i], &action, NULL);
    }
}

static void hold_signals(sigset_t *before)
{
    sigset_t all;

    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, before);
}

static pid_t fork_handling(void)
{
    sigset_t before;
    pid_t pid;

    hold_signals(&before);
    (void)signal(SIGCHLD, SIG_DFL); /* ignored, as some shells leave it, there would be nobody to wait for */
    pid = fork();
    child = pid;
    handle(pid == 0 ? SIG_DFL : on_signal);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}

/* From now on a signal ends us and not the child. Which has ended it before; 0: none. */
static int let_go(void)
{
    sigset_t before;

    hold_signals(&before);
    child = 0;
    handle(SIG_DFL);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return ended_by;
}

/* The exit status for a child that has ended, or is about to, before it was ready. */
static int wait_end(pid_t pid)
{
    siginfo_t info = {0};
    int signo;

    /* While it is not reaped its number is nobody else's. */
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
    }
    signo = let_go();
    (void)waitpid(pid, NULL, 0);
    if (signo)
        return 128 + signo;
    if (info.si_code == CLD_EXITED && info.si_status != 0)
        return info.si_status; /* and has said why */
    if (info.si_code == CLD_EXITED)
        cli_error("it was stopped before it was ready");
    else
        cli_error("it was ended by signal %d before it was ready", info.si_status);
    return CLI_FAILED;
}

static void run_again(char *const *argv, size_t verb, int ready_fd)
{
    size_t count = 0;
    char number[16], self[4096], **args;
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    int null = open("/dev/null", O_RDWR);

    while (argv[count])
        count++;
    args = calloc(count + ARGS_MORE + 2, sizeof(*args));
    if (!args || null < 0 || setsid() < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
        _exit(CLI_FAILED);
    (void)snprintf(number, sizeof(number), "%d", ready_fd);
    args[0] = (char *)"ironclaw";
    memcpy(args + 1, argv, verb * sizeof(*args));
    args[verb + 1] = (char *)"--foreground";
    args[verb + 2] = (char *)"--ready-fd";
    args[verb + 3] = number;
    memcpy(args + verb + 4, argv + verb, (count - verb) * sizeof(*args));
    if (len > 0) { /* by its name, which ps then shows */
        self[len] = '\0';
        (void)execv(self, args);
    }
    (void)execv("/proc/self/exe", args);
    cli_error("/proc/self/exe: %s", strerror(errno));
    _exit(CLI_FAILED);
}

int detach_again(char *const *argv, size_t verb, char *ret_word, size_t size)
{
    int fds[2];
    size_t have = 0;
    pid_t pid;

    if (pipe(fds) < 0) {
        cli_error("pipe: %s", strerror(errno));
        return CLI_FAILED;
    }
    (void)fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    pid = fork_handling();
    if (pid < 0) {
        cli_error("fork: %s", strerror(errno));
        return CLI_FAILED;
    }
    if (pid == 0)
        run_again(argv, verb, fds[1]);
    (void)close(fds[1]);
    while (have + 1 < size) {
        ssize_t n = read(fds[0], ret_word + have, size - 1 - have);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
        if (memchr(ret_word, '\n', have))
            break;
    }
    (void)close(fds[0]);
    ret_word[have] = '\0';
    ret_word[strcspn(ret_word, "\n")] = '\0';
    return ret_word[0] && let_go() == 0 ? CLI_OK : wait_end(pid);
}

bool detach_can_say(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

void detach_say(int fd, const char *word)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    (void)dprintf(fd, "%s\n", word); /* one that waits no more is no reason to end */
    (void)close(fd);
    if (null >= 0)
        (void)dup2(null, STDERR_FILENO);
}
