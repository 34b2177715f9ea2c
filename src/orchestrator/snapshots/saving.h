/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A save that somebody is in the middle of: a directory saving-XXXXXX beside
 * the VM's record, with a flock that lasts as long as its holder. For the
 * moment in which the VM answers nobody a file `held` lies there, too, locked
 * in the same way: who wants to talk to it waits (session_open). When the
 * lock is free, its holder died, and left a VM that is held, or files that
 * nobody will start from; the next command sees to both. A VM that does not
 * even then let itself be thawed for a minute is of no use any more, and ends.
 */
#pragma once

#include "orchestrator/table.h"

struct saving {
    char *dir; /* NULL: none. Empty at first, and removed with all that is in it then. */
    char *run_dir;
    int lock_fd;
    int held_fd;
    bool held; /* the VM: then the directory stays, with a free lock, and the next command sees to the VM */
};

#define SAVING_NONE                                                                                                    \
    {                                                                                                                  \
        .dir = NULL, .run_dir = NULL, .lock_fd = -1, .held_fd = -1, .held = false                                      \
    }

/* The caller holds the VM's lock. */
int saving_begin(
        const struct table_entry *entry, const struct record *record, struct saving *ret, struct ic_error *error);
/* For _cleanup_. */
void saving_end(struct saving *saving);

/* From before FREEZE until a THAW was answered. */
int saving_hold(struct saving *saving, struct ic_error *error);
void saving_release(struct saving *saving);

/* Of a healthy VM, for table_reap(): what savers that died have left. Where there is nothing it only looks. */
int saving_reap(const char *vm_id, struct ic_error *error);
