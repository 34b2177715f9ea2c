/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two files of a snapshot. They are written under names of their own,
 * PATH.new, and get theirs only when both are whole and on the disk: whatever
 * goes wrong before, a snapshot that was there stays, and nothing is left. The
 * memory file is renamed first. Who ends in between leaves the state of the
 * old snapshot with the memory of the new one, which their ids tell to whoever loads them.
 */
#pragma once

#include "monitor/snapshot/format.h"
#include "monitor/vm.h"

/* Of a paused VM, which can go on afterwards, whatever comes of it. */
int snapshot_create(struct vm *vm, const struct vm_config *config, const struct snapshot_create_config *request,
        struct vm_error *error);

/* A state file as it was read and checked; `bytes` is to be freed after the last use of `ret`, which borrows it. */
int snapshot_read(const char *path, struct snapshot *ret, void **ret_bytes, struct vm_error *error);
/*
 * What is to be built from it: its configuration, as the request changes it,
 * with what is the loader's own from `config` (id, serial port's output).
 * Refused on another processor, and when it is not the machine that the
 * request expects.
 */
int snapshot_configure(const struct snapshot *snapshot, const struct snapshot_load_config *request,
        const struct vm_config *config, struct vm_config *ret, struct vm_error *error);
