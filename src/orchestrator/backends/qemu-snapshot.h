/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QEMU at rest. Its state file is a header of ours and QEMU's migration
 * stream with the guest's memory in it, without the empty pages
 * (qemu-stream.h); there is no second file, as the memory of a VM must be one
 * that ironclaw-vsock can map and so is each clone's own copy.
 *
 * QEMU opens no file in its jail and can't write one of that size. It writes
 * the stream into a pipe, and we the file; to load it, it is handed the file's
 * descriptor, which stands behind our header by then. QEMU notices no flipped
 * bit: the header has a checksum, which is computed while the clone's QEMU is
 * starting. It is against accidents. Who could write the file could as well
 * write another.
 */
#pragma once

#include "orchestrator/backends/backend.h"

/* Waits until the VM that listens on BACKEND_QMP has no vsock device any more, stops it and writes it to BACKEND_STATE,
 * both in the record's run directory. */
int qemu_save(const struct record *record, struct ic_error *error);

/* The state file, checked: a descriptor that stands at QEMU's stream. -IC_ERR_CORRUPT. */
int qemu_open_state(const char *path, const struct record *record, int *ret_fd, struct ic_error *error);

/* Has the QEMU of `start`, which waits for it, load that, plugs its vsock device and lets it run. */
int qemu_load(const struct backend_start *start, int state_fd, struct ic_error *error);

/* Plugs the VM its vsock device again if it had to let go of it, and lets it run. */
int qemu_go_on(const char *run_dir, struct ic_error *error);

/* The run directory's QMP socket. */
int qemu_qmp_path(char *dst, size_t size, const char *run_dir, struct ic_error *error);
