/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at a kernel and a root filesystem before a VM is started with them:
 * enough to say in one line what is wrong with a file that is missing, of
 * another kind, or cut short. A wrong byte elsewhere is for image verify.
 */
#pragma once

#include "orchestrator/error.h"

/* An ELF kernel with all of its segments, or a bzImage. */
int part_check_kernel(const char *path, struct ic_error *error);

/* Opens read-only and checks that it is an erofs image with all of its blocks. */
int part_open_rootfs(const char *path, int *ret_fd, struct ic_error *error);

/* Opens read-write and checks that it is an ext4 file system with all of its blocks. The descriptor, and every one that
 * is inherited of it, holds the only lock on it: -IC_ERR_STATE when another VM has it. */
int part_open_overlay(const char *path, int *ret_fd, uint64_t *ret_bytes, struct ic_error *error);

int part_check_file(const char *what, const char *path, struct ic_error *error);
