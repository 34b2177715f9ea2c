/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A save that somebody is in the middle of: a directory saving-XXXXXX beside
 * the VM's record, with a flock that lasts as long as its holder. When the
 * lock is free, its holder died, and left a VM that is held, or files that
 * nobody will start from; the next command sees to both.
 */
#pragma once

#include "orchestrator/table.h"

struct saving {
    char *dir; /* NULL: none. Empty at first, and removed with all that is in it then. */
    int lock_fd;
};

#define SAVING_NONE                                                                                                    \
    {                                                                                                                  \
        .dir = NULL, .lock_fd = -1                                                                                     \
    }

/* The caller holds the VM's lock. */
int saving_begin(const struct table_entry *entry, struct saving *ret, struct ic_error *error);
/* For _cleanup_. */
void saving_end(struct saving *saving);

/* Of a healthy VM, for table_reap(): what savers that died have left. Where there is nothing it only looks. */
int saving_reap(const char *vm_id, struct ic_error *error);
