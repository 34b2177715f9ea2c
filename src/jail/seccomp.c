/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/seccomp.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/log.h"
#include "base/macro.h"
#include "jail/supervise.h"
#include "jail/syscalls.h"

#define PROFILES_MAX  8u
#define UNKNOWN_SIGNO (128 + SIGSYS)
#ifndef SYS_SECCOMP   /* not in every libc */
#define SYS_SECCOMP 1 /* si_code, asm-generic/siginfo.h */
#endif

/* Written before there are threads. */
static struct {
    const char *profile;
    struct sock_fprog program;
} filters[PROFILES_MAX];
static size_t filter_count;
static bool supervised;

static __thread char thread_name[16]; /* TASK_COMM_LEN; for the handler, which can't ask any more */

/* On the thread that made the call. It does not return, so that it may interrupt anything. */
static void on_refused(int signo, siginfo_t *info, void *context)
{
    const greg_t *regs = ((const ucontext_t *)context)->uc_mcontext.gregs;

    struct audit_entry entry = {.action = AUDIT_KILLED,
            .call = info->si_syscall,
            .args = {(uint64_t)regs[REG_RDI], (uint64_t)regs[REG_RSI], (uint64_t)regs[REG_RDX], (uint64_t)regs[REG_R10],
                    (uint64_t)regs[REG_R8], (uint64_t)regs[REG_R9]}};

    if (info->si_code != SYS_SECCOMP)
        _exit(UNKNOWN_SIGNO); /* somebody sent it */
    memcpy(entry.thread, thread_name, sizeof(thread_name));
    log_msg(LOG_ERROR,
            "seccomp: the thread %s may not call %s (%d), arguments %#llx %#llx %#llx; the process ends. If that was "
            "no attack it is a bug: run with --seccomp-level permissive and report this line",
            thread_name, syscall_name(info->si_syscall), info->si_syscall, (unsigned long long)regs[REG_RDI],
            (unsigned long long)regs[REG_RSI], (unsigned long long)regs[REG_RDX]);
    (void)audit_ring_add(&seccomp_ring, &entry);
    _exit(SECCOMP_EXIT_STATUS);
}

static int catch_refusals(void)
{
    struct sigaction action = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO};

    sigfillset(&action.sa_mask);
    return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

static void ask_supervisor(struct sock_fprog *program)
{
    for (size_t i = 0; i < program->len; i++) {
        if (program->filter[i].code == (BPF_RET | BPF_K) && program->filter[i].k == SECCOMP_RET_LOG)
            program->filter[i].k = SECCOMP_RET_USER_NOTIF;
    }
}

int seccomp_prepare(enum seccomp_level level, const struct seccomp_compiled *compiled)
{
    const uint32_t needed = level == SECCOMP_PERMISSIVE ? SECCOMP_RET_LOG : SECCOMP_RET_TRAP;
    size_t count = compiled->count - 1;
    int r;

#ifdef IC_SANITIZING
    return SECCOMP_SANITIZED;
#endif
    if (count > PROFILES_MAX)
        return -EINVAL;
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &needed) < 0)
        return -errno;
    r = catch_refusals();
    if (r == 0 && level == SECCOMP_PERMISSIVE) {
        r = supervise_start();
        supervised = r == 0;
        r = r == -EOPNOTSUPP ? 0 : r; /* then the kernel's log is all there is */
    }
    for (size_t i = 0; r == 0 && i < count; i++) {
        filters[i].profile = compiled->programs[i].name;
        r = seccomp_get_program(compiled, level, filters[i].profile, &filters[i].program);
        if (r == 0)
            seccomp_set_own_pid(&filters[i].program);
        if (r == 0 && supervised)
            ask_supervisor(&filters[i].program);
    }
    filter_count = r == 0 ? count : 0;
    return r;
}

void seccomp_enter(const struct seccomp_profile *profile)
{
    int r = -ENOENT;
    size_t i = 0;
    sigset_t set;

    if (filter_count == 0)
        return;
    while (i < filter_count && strcmp(filters[i].profile, profile->name) != 0)
        i++;
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    (void)prctl(PR_GET_NAME, thread_name);
    if (i < filter_count && supervised)
        r = supervise_enter(&filters[i].program, profile, thread_name);
    else if (i < filter_count)
        r = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filters[i].program) < 0 ? -errno : 0;
    if (r == 0)
        return;
    log_msg(LOG_ERROR, "seccomp: the filter %s of thread %s: %s", profile->name, thread_name,
            i < filter_count ? strerror(-r) : "was not prepared");
    _exit(EXIT_FAILURE);
}

/* ---- the report ---- */

size_t seccomp_calls(const struct seccomp_profile *profile)
{
    size_t calls = 0;

    for (size_t i = 0; i < profile->count; i++) {
        size_t before = 0;

        while (before < i && profile->rules[before].nr != profile->rules[i].nr)
            before++;
        calls += before == i;
    }
    return calls;
}

void seccomp_report(FILE *to, const struct seccomp_profile *const *profiles, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        (void)fprintf(to, "%s: %zu system calls\n", profiles[i]->name, seccomp_calls(profiles[i]));
        for (size_t j = 0; j < profiles[i]->count; j++) {
            const struct seccomp_rule *rule = &profiles[i]->rules[j];
            char condition[48] = "";

            if (rule->arg >= 0 && rule->value == SECCOMP_OWN_PID)
                (void)snprintf(condition, sizeof(condition), "argument %d: own pid", rule->arg);
            else if (rule->arg >= 0 && rule->mask == SECCOMP_ANY_BIT)
                (void)snprintf(condition, sizeof(condition), "argument %d: %#x", rule->arg, rule->value);
            else if (rule->arg >= 0)
                (void)snprintf(
                        condition, sizeof(condition), "argument %d & %#x: %#x", rule->arg, rule->mask, rule->value);
            (void)fprintf(to, "  %-16s %-28s %s\n", syscall_name(rule->nr), condition, rule->why);
        }
    }
}
