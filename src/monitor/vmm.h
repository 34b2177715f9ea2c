/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMM thread: the process's main thread. It owns the loop, the controller
 * and the VM; requests of the API thread come through a mailbox of one letter,
 * signals through a signalfd, the guest's end through vm.h.
 */
#pragma once

#include "jail/seccomp.h"
#include "monitor/options.h"

#define VMM_PROFILES 5u
/* The VMM thread's own, and one for each kind of thread. */
extern const struct seccomp_profile vmm_seccomp;
extern const struct seccomp_profile *const vmm_profiles[VMM_PROFILES];
extern const struct seccomp_compiled vmm_compiled; /* of these; generated, and linked into what has a main() */

/* Returns the exit status. */
int vmm_run(const struct options *options, const struct seccomp_compiled *filters);
