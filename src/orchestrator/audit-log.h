/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit ring of this user (jail/audit.h says what it is), and what the
 * filtered processes of a VM have in theirs.
 *
 *   state/audit.ring                      this user's
 *   state/vms/<id>/audit-monitor.ring     the monitor's, audit-vsock.ring that of ironclaw-vsock; gone when taken over
 */
#pragma once

#include "jail/audit.h"
#include "orchestrator/table.h"

/* One entry of a limit, with AUDIT_REFUSED or AUDIT_ENDED: which limit, its value, what was asked for. vm_id may be
 * NULL, where there is none yet. What can't be written is lost: an audit must not fail what it reports. */
void audit_note(const char *vm_id, enum audit_action action, const char *fmt, ...) _printf_(3, 4);

/* Empty rings for the VM's processes; descriptors above 2. Left of an earlier attempt, they are replaced. */
int audit_make_rings(const char *dir, int *ret_monitor_fd, int *ret_vsock_fd, struct ic_error *error);

/* After the processes have ended: what their rings say, and whether one was ended by a filter of the kernel's alone,
 * goes into the user's ring; theirs are removed. `record` may be NULL. */
void audit_take_over(const char *dir, const char *vm_id, const struct record *record);

/* True when a filter ended one of the VM's processes: "its monitor was ended by seccomp: thread fc_vcpu 0 called
 * openat". Says nothing of processes that live. Before or after audit_take_over(), but before the directory goes. */
bool audit_violation(char *dst, size_t size, const char *dir, const struct record *record);
