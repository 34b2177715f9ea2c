/* SPDX-License-Identifier: Apache-2.0 */
/* Between table.c and reap.c only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define LOG_MAX_BYTES (16u << 20)

/* Opens (and with `create` makes) the file and takes its lock. The lock is on the file that the path names when this
 * returns. -EWOULDBLOCK past the deadline; 0 does not wait. */
int lock_file(const char *path, bool create, uint64_t deadline, int *ret_fd);
