/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a snapshot: large, mostly zero, and written by a monitor that
 * may be in foreign hands by then. So they are copied out of its reach before
 * anything else happens to them, and what is copied is digested on the way.
 *
 * The digest is of content, not of layout: sha256 over each page of 4 KiB
 * that is not all zero, with its number before it (le64), and the file's size
 * at the end. Where the holes are makes no difference.
 */
#pragma once

#include "orchestrator/images/digest.h"

struct file_sum {
    uint64_t size;
    char sha256[DIGEST_HEX_LEN + 1];
};

/* The regular file `name` below dir_fd, which no link leads to, into the new file `to`: sparse, mode 0444, not synced.
 * -IC_ERR_CORRUPT when it is larger than max_bytes or no file; -IC_ERR_NO_SPACE. */
int file_take(
        int dir_fd, const char *name, const char *to, uint64_t max_bytes, struct file_sum *ret, struct ic_error *error);

int file_sum(const char *path, const struct progress *progress, const char *what, struct file_sum *ret,
        struct ic_error *error);
