/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System call filters, one for each kind of thread.
 *
 * A profile is a table that stands beside the code of its thread: each rule
 * is one system call, the condition on one argument where there is one, and
 * why the thread needs it. What no rule allows is not carried out: the kernel
 * sends SIGSYS, whose handler writes one line that names the thread, the call
 * and its arguments, notes it in the audit ring if there is one (audit.h), and
 * ends the process with SECCOMP_EXIT_STATUS. Nobody can
 * get around the handler: no profile allows to change it, and a blocked SIGSYS
 * kills. A call of another architecture (32 bits, x32) kills at once.
 *
 * The tables are compiled when IronClaw is built: seccomp-compile.c, linked
 * with them and libseccomp, prints the programs as C (meson.build says how).
 * What runs has no compiler in it: seccomp_prepare() copies the programs of
 * its level, once, before there are threads; then each thread enters its own
 * and never leaves it.
 */
#pragma once

#include <linux/filter.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>

#define SECCOMP_EXIT_STATUS 148 /* as Firecracker */

struct seccomp_rule {
    int nr;
    int arg; /* which argument must be `value` in the bits of `mask`; -1: none */
    uint32_t mask, value;
    const char *why;
    int error; /* 0: allowed; else what the call fails with */
};

/* Rules of one call add up. Those that come first are the quickest. */
#define SECCOMP_ALLOW(call, why_)                                                                                      \
    {                                                                                                                  \
        .nr = SYS_##call, .arg = -1, .why = why_                                                                       \
    }
/* The lower half of an argument: the kernel takes no more of those that are compared here. */
#define SECCOMP_ALLOW_IF(call, arg_, mask_, value_, why_)                                                              \
    {                                                                                                                  \
        .nr = SYS_##call, .arg = arg_, .mask = mask_, .value = value_, .why = why_                                     \
    }
#define SECCOMP_REFUSE(call, error_, why_)                                                                             \
    {                                                                                                                  \
        .nr = SYS_##call, .arg = -1, .why = why_, .error = error_                                                      \
    }
#define SECCOMP_REFUSE_IF(call, arg_, mask_, value_, error_, why_)                                                     \
    {                                                                                                                  \
        .nr = SYS_##call, .arg = arg_, .mask = mask_, .value = value_, .why = why_, .error = error_                    \
    }
#define SECCOMP_ANY_BIT UINT32_MAX
/* As value, with SECCOMP_ANY_BIT: the id of this process, which a program gets when it is loaded. The number itself is
 * no process's (PID_MAX_LIMIT is 2^22) and no call's. */
#define SECCOMP_OWN_PID 0x5f504944u

struct seccomp_profile {
    const char *name;
    const struct seccomp_rule *rules;
    size_t count;
    uint32_t otherwise; /* what becomes of all other calls, a SECCOMP_RET_… of Linux; 0: SIGSYS, as above */
    int last_call;      /* later ones, which the table does not know, fail with ENOSYS; 0: none do */
};

/* Generated, one for each program that has profiles. */
struct seccomp_program {
    char name[16]; /* its profile's */
    uint16_t first, count;
};
struct seccomp_compiled {
    const struct sock_filter *code; /* of all programs */
    const struct seccomp_program *programs;
    size_t count; /* one for each profile, and the last one is what any of them allows, if that has a meaning */
};

enum seccomp_level {
    SECCOMP_MINIMAL,    /* each thread its own profile */
    SECCOMP_BASIC,      /* each thread all profiles */
    SECCOMP_PERMISSIVE, /* nothing is refused; what MINIMAL would refuse is noted (supervise.h) */
};

/* minimal, basic, permissive; -EINVAL. */
int seccomp_level_parse(const char *text, enum seccomp_level *ret);

/* The program of a profile at a level, to be freed (filter). -ENOENT: there is none of that name. -ENOMEM. */
int seccomp_get_program(
        const struct seccomp_compiled *compiled, enum seccomp_level level, const char *profile, struct sock_fprog *ret);

/* In the process that enters the program, before it does. Reads and writes memory and asks for the pid, nothing else.
 */
void seccomp_set_own_pid(struct sock_fprog *program);

/* Loads all programs and takes SIGSYS. Needs no_new_privs to be set. -ENOSYS, -EOPNOTSUPP: the kernel has no
 * filters. SECCOMP_SANITIZED: built with a sanitizer, whose run-time library makes calls of its own; there will be no
 * filter. */
enum { SECCOMP_SANITIZED = 1 };
int seccomp_prepare(enum seccomp_level level, const struct seccomp_compiled *compiled);

/* The calling thread has its filter from here on, if profiles were prepared. Ends the process if that can't be done. */
void seccomp_enter(const struct seccomp_profile *profile);

/* Every rule with its reason, for people. */
void seccomp_report(FILE *to, const struct seccomp_profile *const *profiles, size_t count);
size_t seccomp_calls(const struct seccomp_profile *profile); /* different ones */
