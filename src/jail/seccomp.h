/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System call filters, one for each kind of thread.
 *
 * A profile is a table that stands beside the code of its thread: each rule
 * is one system call, the condition on one argument where there is one, and
 * why the thread needs it. What no rule allows is not carried out: the kernel
 * sends SIGSYS, whose handler writes one line that names the thread, the call
 * and its arguments, and ends the process with SECCOMP_EXIT_STATUS. Nobody can
 * get around the handler: no profile allows to change it, and a blocked SIGSYS
 * kills. A call of another architecture (32 bits, x32) kills at once.
 *
 * Profiles are compiled by libseccomp, once, before there are threads; then
 * each thread enters its own and never leaves it.
 */
#pragma once

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
#define SECCOMP_ANY_BIT UINT32_MAX
#define SECCOMP_OWN_PID UINT32_MAX /* as value: the id of this process */

struct seccomp_profile {
    const char *name;
    const struct seccomp_rule *rules;
    size_t count;
};

enum seccomp_level {
    SECCOMP_MINIMAL,    /* each thread its own profile */
    SECCOMP_BASIC,      /* each thread all profiles */
    SECCOMP_PERMISSIVE, /* nothing is refused; the kernel logs what MINIMAL would refuse */
};

/* Compiles the profiles and takes SIGSYS. Needs no_new_privs to be set. -ENOSYS, -EOPNOTSUPP: the kernel has no
 * filters. SECCOMP_SANITIZED: built with a sanitizer, whose run-time library makes calls of its own; there will be no
 * filter. */
enum { SECCOMP_SANITIZED = 1 };
int seccomp_prepare(enum seccomp_level level, const struct seccomp_profile *const *profiles, size_t count);

/* The calling thread has its filter from here on, if profiles were prepared. Ends the process if that can't be done. */
void seccomp_enter(const struct seccomp_profile *profile);

/* Every rule with its reason, for people. */
void seccomp_report(FILE *to, const struct seccomp_profile *const *profiles, size_t count);
size_t seccomp_calls(const struct seccomp_profile *profile); /* different ones */
