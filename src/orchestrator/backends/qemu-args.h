/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command lines of QEMU and of ironclaw-vsock.
 *
 * A template and its clones are the same machine, which QEMU checks device by
 * device when it loads one into the other: so one function builds all of
 * them. They differ from a VM that just boots in the vsock device. On the
 * machine's memory-mapped bus nothing can be plugged later, and QEMU saves
 * and loads no machine that has a vhost-user-vsock. So the template has a PCI
 * bus with an empty port, and a clone is plugged its device there, after the
 * load.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "orchestrator/backends/backend.h"

#define QEMU_ARGS_MAX 72u

/* Names that QMP needs. */
#define QEMU_VSOCK_CHARDEV "vsock"
#define QEMU_VSOCK_PORT    "vsock-port"
#define QEMU_VSOCK_DEVICE  "vsock-device" /* what is plugged there */

struct qemu_args {
    char *v[QEMU_ARGS_MAX + 1]; /* ends with NULL */
    size_t count;
    bool failed; /* out of memory, or of room */
};

void qemu_args_deinit(struct qemu_args *a);

/* The descriptors in `start` and these are inherited. vhost_fd: of ironclaw-vsock; -1 for a template, which has none.
 */
void qemu_args_build(
        struct qemu_args *a, const char *qemu, const struct backend_start *start, int vhost_fd, int qmp_fd);

/* held_fd: closed when the VM's time is over; for a record with max_lifetime_ms. */
void qemu_vsock_args_build(struct qemu_args *a, const char *vsock, const struct backend_start *start, int uds_fd,
        int vhost_fd, int held_fd);
