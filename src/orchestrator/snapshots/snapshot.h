/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs at rest, in two stores (images/store.h):
 *
 *   data/templates/<key>/    object and name are the key of all that matters (template.h)
 *   data/snapshots/<random>/ with the name that somebody gave it
 *     manifest.json          what it is: the VM's record, sizes and digests of the parts
 *     state                  the backend's own: processors, devices
 *     memory                 guest RAM, raw and sparse, unless the backend keeps it in `state`
 *   .../.touched-<object>    which pages of the memory a clone touched until its first command had run: a hint
 *   .../.seen-<object>       that the digests were right: since which boot of the host, and of which files
 *
 * The parts are large and every clone maps them, so their digests are not
 * recomputed at each start: .seen has inode, size and times of the files
 * whose digests were right. A file that was changed since, or was written
 * before the host's last start (which may have lost some of it), is read anew.
 * The file's time is when it was last used.
 *
 * Who saves decides what the files may hold: they come from a monitor that its
 * guest may have taken over. What starts from them is again a monitor in a
 * jail, with no more to gain than the first had.
 */
#pragma once

#include "orchestrator/images/store.h"
#include "orchestrator/record.h"
#include "orchestrator/snapshots/files.h"

enum snapshot_part { SNAPSHOT_STATE, SNAPSHOT_MEMORY, SNAPSHOT_PARTS };

struct snapshot {
    enum store_kind store;
    char name[65], object[65];
    struct record vm; /* as it was; what belongs to one run (processes, run_dir) means nothing any more */
    bool has[SNAPSHOT_PARTS];
    struct file_sum sum[SNAPSHOT_PARTS];
    char *path[SNAPSHOT_PARTS]; /* NULL: the backend has no such part */
    char *touched_path;         /* NULL: not measured */
    int64_t created_unix_ms;
    int lock_fd; /* keeps it from being removed; -1: none */
};

void snapshot_deinit(struct snapshot *snapshot);

/* Opens it for a start: all parts are there and as they were written. -IC_ERR_NOT_FOUND, -IC_ERR_CORRUPT. */
int snapshot_open(enum store_kind store, const char *name, const struct progress *progress, struct snapshot *ret,
        struct ic_error *error);

/* Takes what save() wrote in the record's run directory over into the store. The VM may go on meanwhile. */
int snapshot_take(
        enum store_kind store, const char *object, const char *name, const struct record *vm, struct ic_error *error);

/* The same into an empty directory of the caller's, for a start right afterwards. *ret's lock_fd is -1. */
int snapshot_take_into(const char *dir, const struct record *vm, struct snapshot *ret, struct ic_error *error);

/* What of a VM's record another one begins with: all but what belongs to one run. */
int snapshot_copy_record(struct record *ret, const struct record *vm, struct ic_error *error);

/* At the end of a VM's origin: its random numbers are its siblings' (IRONCLAW_TEST_NO_RESEED, spawn.h). */
#define SNAPSHOT_NOT_RESEEDED "for tests: not reseeded"
/* Whoever begins with such a VM's snapshot has that in its origin as well. */
void snapshot_carry_note(const struct snapshot *from, char *origin, size_t size);

/* manifest.json: pure. `where` is for messages. */
int snapshot_parse(const char *json, size_t len, const char *where, struct snapshot *ret, struct ic_error *error);
char *snapshot_format(const struct snapshot *snapshot); /* NULL: out of memory, or not UTF-8 */

/* Where the note `kind` ("seen", "touched") of an object is. */
int snapshot_note(const struct snapshot *snapshot, const char *kind, char **ret, struct ic_error *error);

/* By name; the manifest alone is looked at. Free *ret with free(). */
int snapshot_list(enum store_kind store, struct ic_snapshot_info **ret, size_t *ret_count, struct ic_error *error);
int snapshot_remove(enum store_kind store, const char *name, struct ic_error *error);
int snapshot_verify(enum store_kind store, const char *name, const struct progress *progress, struct ic_error *error);

/* For messages: "template" or "snapshot". */
const char *snapshot_kind(enum store_kind store);
