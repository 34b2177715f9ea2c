/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a command may ask of the guest's kernel: a seccomp filter that each
 * one gets just before its program starts, and that all its children keep.
 *
 * The machine is the boundary, not this filter. It takes away what a command
 * has no use for, so that a bug in there helps nobody to become root in the
 * guest, and no command speaks to the host in the agent's place. A refused
 * call fails, as it would on a kernel or for a user that may not; nothing is
 * killed but a process that makes a call of 32 bits or of x32.
 *
 * basic    all calls of Linux 6.1 but those in a list: shells, Python, Node,
 *          compilers, debuggers and package tools find what they need.
 *          ptrace is not in the list, because strace and gdb live by it; the
 *          kernel lets a user trace only what runs as that user, never the
 *          agent.
 * minimal  only the calls in a list: shells, core utilities, Python scripts.
 * permissive  refuses nothing; the kernel logs what basic would refuse, if it
 *          has audit.
 *
 * The host chooses (ironclaw.seccomp= on the kernel's command line); nothing
 * in the guest can. It holds for root's commands as well, where it is a
 * hurdle and no wall: root may write /proc/1/mem. File transfers are the
 * agent's own code and have none.
 */
#pragma once

#include "jail/seccomp.h"

#define FILTER_PROFILES 2u
extern const struct seccomp_profile *const filter_profiles[FILTER_PROFILES];
extern const struct seccomp_compiled filter_compiled; /* of these; generated */

/* Allocates ret->filter. -ENOSYS, -EINVAL: the kernel has no filters. -ENOMEM. */
int filter_load(enum seccomp_level level, struct sock_fprog *ret);
