/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM's processes may read from and write to the host's disks: its
 * record's max_disk_*, as io.max of its group for each disk that has a file of
 * theirs. Who asks for a limit that the kernel would not keep is refused: a
 * file system without a disk of its own (btrfs, NFS, overlayfs), one whose
 * writes belong to no group, a group without the controllers. What lies in
 * memory needs none.
 *
 * Source: Documentation/admin-guide/cgroup-v2.rst of the kernel, "IO" and
 * "Writeback".
 */
#pragma once

#include "orchestrator/error.h"
#include "orchestrator/record.h"

bool disk_limit_wanted(const struct record *record);
/* For a record whose group and run directory are there. */
int disk_limit_set(const struct record *record, struct ic_error *error);
/* For a moment: a VM that is held while it is saved gets done with it. */
int disk_limit_lift(const struct record *record, struct ic_error *error);
