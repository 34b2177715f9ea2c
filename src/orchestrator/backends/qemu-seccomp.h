/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system call filter of QEMU, which the process enters between fork and
 * execve: all of QEMU's run is under it, from the dynamic linker on.
 *
 * What no rule allows kills the process (QEMU has no handler that could say
 * more); the two calls that have a fallback fail instead. QEMU's own filters
 * (-sandbox) come on top, once it has read its options: spawn=deny takes away
 * execve(2), which ours must leave it for its own start, and fork(2), which
 * ours does not allow either.
 *
 * Under KVM no memory is writable and code at the same time. Under TCG it has
 * to be: the translator writes the guest's code there. What a process maps of
 * a file it may map as code in both, as the dynamic linker does, and the
 * guest's memory is such a file: no filter keeps new code out of a QEMU that
 * somebody has taken over.
 */
#pragma once

#include <stdbool.h>

#include "jail/seccomp.h"

enum { QEMU_TCG, QEMU_KVM, QEMU_ANY, QEMU_PROFILES };
extern const struct seccomp_profile *const qemu_profiles[QEMU_PROFILES];
extern const struct seccomp_compiled qemu_compiled; /* generated of them */

/* minimal: the accelerator's own; basic: what either needs; permissive: nothing is refused, the kernel logs. The filter
 * is to be freed. -ENOMEM. */
int qemu_filter(enum seccomp_level level, bool kvm, struct sock_fprog *ret);
