/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Level permissive: who makes a call that minimal would refuse waits for a
 * thread of its own process, the supervisor. That notes the call in the audit
 * ring, writes one line for each that is new, and lets the call go on.
 *
 * For finding what a list lacks, not a defence: the thread that asks can
 * change the arguments once they were looked at (seccomp(2),
 * SECCOMP_USER_NOTIF_FLAG_CONTINUE), and nothing is refused anyway.
 *
 * The supervisor must hear of a thread's filter without another call of that
 * thread, which might itself be one to wait for: the thread announces itself
 * first, then installs the filter, then stores the descriptor that it got.
 */
#pragma once

#include <linux/filter.h>

#include "jail/audit.h"
#include "jail/seccomp.h"

/* Starts the supervisor. -EOPNOTSUPP: this kernel has no notifications (before 5.5). */
int supervise_start(void);

/* The calling thread enters the program, whose SECCOMP_RET_USER_NOTIF are answered. */
int supervise_enter(const struct sock_fprog *program, const struct seccomp_profile *profile, const char *thread_name);

/* Where this process notes what is refused, for both levels; before there are threads. */
extern struct audit_ring seccomp_ring;
