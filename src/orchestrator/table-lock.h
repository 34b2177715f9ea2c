/* SPDX-License-Identifier: Apache-2.0 */
/* Between table.c and reap.c only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define LOG_MAX_BYTES (16u << 20)

enum lock_kind { LOCK_EXISTING_FILE, LOCK_NEW_FILE, LOCK_DIRECTORY };

/* Opens the file (LOCK_NEW_FILE makes it if need be) or directory and takes its lock. The lock is on what the path
 * names when this returns. -EWOULDBLOCK past the deadline; 0 does not wait. */
int lock_path(const char *path, enum lock_kind kind, uint64_t deadline, int *ret_fd);

struct ic_error;
struct record;
struct table_entry;

/* As table_remove(), for one who has the lock of the table itself. */
int table_remove_claimed(struct table_entry *entry, const struct record *record, struct ic_error *error);
