/* SPDX-License-Identifier: Apache-2.0 */
/* How full a file system may become by data that is not ours: what somebody's archive claims to hold, an image's
 * layers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/statvfs.h>

#include "base/macro.h"

#define ROOM_PART  20                    /* the last twentieth of it, */
#define ROOM_BYTES ((uint64_t)512 << 20) /* or this much, stays free */

static inline uint64_t room_bytes(const struct statvfs *vfs)
{
    return (uint64_t)vfs->f_bavail * vfs->f_frsize;
}

static inline bool room_is_left(const struct statvfs *vfs)
{
    return room_bytes(vfs) >= MIN((uint64_t)vfs->f_blocks * vfs->f_frsize / ROOM_PART, ROOM_BYTES);
}
