/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#define AGAIN_S          2 /* SIGINT twice within this many seconds cancels */
#define IMPATIENCE       3 /* that many signals with nothing attached end the program */
#define ALARM_INTERVAL_S 1

static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

static _Atomic(ic_exec *) attached;
static atomic_bool with_terminal;
static atomic_int pending;
static atomic_int counts[NSIG];
static atomic_long last_interrupt_s = -1 - AGAIN_S;
static atomic_int unattached_count;

static long now_s(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (long)now.tv_sec;
}

/* Forwarding it is not, or no longer, enough. */
static bool is_final(int signo)
{
    long now = now_s(), last;

    if (atomic_load(&with_terminal) && (signo == SIGTERM || signo == SIGHUP))
        return true;
    if (signo != SIGINT)
        return atomic_fetch_add(&counts[signo], 1) > 0;
    last = atomic_exchange(&last_interrupt_s, now);
    return now - last <= AGAIN_S;
}

static void on_signal(int signo)
{
    int saved = errno, none = 0;
    ic_exec *exec = atomic_load(&attached);

    if (exec && !is_final(signo)) {
        ic_exec_signal(exec, signo);
    } else if (exec) {
        (void)atomic_compare_exchange_strong(&pending, &none, signo);
        ic_exec_cancel(exec);
    } else {
        (void)atomic_compare_exchange_strong(&pending, &none, signo);
        if (atomic_fetch_add(&unattached_count, 1) + 1 >= IMPATIENCE)
            _exit(128 + signo);
        (void)alarm(ALARM_INTERVAL_S);
    }
    errno = saved;
}

/* Its only work is to interrupt a wait that began after the signal. */
static void on_alarm(int signo)
{
    (void)signo;
    (void)alarm(ALARM_INTERVAL_S);
}

static void install(int signo, void (*handler)(int))
{
    struct sigaction old, action = {.sa_handler = handler};

    (void)sigemptyset(&action.sa_mask);
    /* What nohup or a shell's "&" ignores stays ignored. */
    if (sigaction(signo, NULL, &old) == 0 && old.sa_handler == SIG_IGN && signo != SIGALRM)
        return;
    (void)sigaction(signo, &action, NULL);
}

void signals_init(void)
{
    /* A closed output pipe is then an error of write(2), which libironclaw handles. */
    (void)signal(SIGPIPE, SIG_IGN);
    install(SIGALRM, on_alarm);
    for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
        install(forwarded[i], on_signal);
}

int signals_pending(void)
{
    return atomic_load(&pending);
}

void signals_attach(ic_exec *exec, bool tty)
{
    int signo;

    atomic_store(&with_terminal, tty);
    atomic_store(&attached, exec);
    signo = atomic_exchange(&pending, 0);
    (void)alarm(0);
    if (signo)
        ic_exec_signal(exec, signo);
}

static void block_forwarded(int how, sigset_t *old)
{
    sigset_t set;

    (void)sigemptyset(&set);
    for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
        (void)sigaddset(&set, forwarded[i]);
    (void)sigaddset(&set, SIGALRM);
    (void)sigprocmask(how, &set, old);
}

void signals_detach(void)
{
    sigset_t old;

    /* A handler must not be between reading the pointer and using it when the caller frees the command. */
    block_forwarded(SIG_BLOCK, &old);
    atomic_store(&attached, NULL);
    (void)sigprocmask(SIG_SETMASK, &old, NULL);
}

void signals_hold(void)
{
    (void)alarm(0);
    block_forwarded(SIG_BLOCK, NULL);
}
