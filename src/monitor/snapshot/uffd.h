/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory that another process fills: Firecracker's Uffd backend.
 *
 * The memory is anonymous and empty. Its page faults go to a userfaultfd,
 * which is handed to the page-fault handler that listens on a unix socket: one
 * message with the descriptor and, as JSON, where each region is and at which
 * offset of the memory file it belongs (docs of Firecracker,
 * snapshotting/handling-page-faults-on-snapshot-resume.md). From then on
 * whoever touches a missing page, a vCPU or we, waits for the handler. What the
 * balloon gives back it is told (UFFD_EVENT_REMOVE): such a page is zeros when
 * it is touched again, and not what the file has.
 *
 * What the handler puts into memory is its word; this monitor checks none of
 * it. It keeps the connection for as long as it serves. When the connection
 * ends, so does the monitor, with a line in the log and status 1: pages that
 * are still missing would never come, threads that wait for one can't be woken,
 * and zeros in their place would be worse. That is noticed by a thread that
 * never touches guest memory. A handler that is stopped, or that does not
 * answer, stops the VM for as long; nothing here can tell that from a slow one.
 */
#pragma once

#include "jail/seccomp.h"
#include "monitor/memory.h"

extern const struct seccomp_profile uffd_seccomp; /* of that thread */

/*
 * -EPERM: we may have no userfaultfd that also gets the kernel's (KVM's)
 * faults, the message says how to change that; -ENOENT, -ECONNREFUSED...: no
 * handler listens there.
 */
int memory_load_uffd(
        struct memory *ret, const struct machine_config *config, const char *socket_path, struct vm_error *error);

/* For memory.c: ends the thread, lets go of the userfaultfd. NULL is right. */
void uffd_free(struct uffd *uffd);
