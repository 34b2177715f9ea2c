/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process of a VM that an attacker has taken over. The orchestrator starts
 * it for what it takes for the monitor, QEMU or ironclaw-vsock, so it has the
 * real jail, descriptors, arguments and environment. No filter: that would be
 * the program's own doing, and the jail has to hold without.
 *
 * What is outside, and so should be out of reach, is told to it by its plan:
 * lines of key=value behind the end of its own ELF file, the one file of the
 * test's that it can surely read. It writes its outcomes to standard error,
 * the VM's log:
 *
 *   intruder ROLE fd NUMBER TYPE ACCESS INODE      what it has inherited
 *   intruder ROLE try NAME: OUTCOME [COUNT]        done, or why not: an errno's name, "signal N"
 *   intruder ROLE end
 *
 * then it waits for its end.
 */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Value of a key of the plan, "" if it has none. */
const char *plan(const char *key);
long plan_number(const char *key);

extern const char *own_program; /* its path, inside and outside */

/* The inherited descriptor of the file with that inode number, -1. */
int inherited(long inode);

/* For outcomes that are a number: how far it went. Shared with the child that makes the attempt. */
extern volatile long *reached;

/* What came of a system call: 0, or its errno. */
#define TRY(call) ((call) < 0 ? errno : 0)

/* Each attempt is made in a child of its own. 0: it got through; an errno; NOT_HERE. */
#define NOT_HERE (-1)
struct attempt {
    const char *name;
    int (*make)(void);
};
extern const struct attempt file_attempts[], process_attempts[], network_attempts[], kernel_attempts[];
extern const struct attempt *const all_attempts[];

/* Answers as the VM's monitor, and its agent, until the host takes it for ready; then does the plan's `evil`. */
void be_ready(const char *api_path);
