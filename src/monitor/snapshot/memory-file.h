/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory file of a snapshot: what the guest's RAM held.
 *
 *   0..ram_bytes     RAM as it was, at its offset in memory->host, sparse. Tools that know memory files of Firecracker
 *                    find the same here.
 *   4096 bytes       the trailer: whose memory it is, its size and kind, and a checksum of all that
 *   a diff only      the bitmap: one bit for each page of RAM that the file holds, padded to whole pages
 *
 * A full file holds every page; those that are zero are holes. A diff holds
 * the pages that changed since an earlier snapshot, its base. Which ones is
 * what the bitmap says and not where the holes are, as copies of a file may
 * lose holes, and as a page that became zero has changed too. A diff is
 * merged into (a copy of) its base before it can be loaded.
 *
 * RAM itself has no checksum: a clone has to start without reading all of it.
 * Who wants that keeps one beside the file. The guest's bytes are its own
 * affair in any case; what is checked here is that it is the right file and
 * all of it, so that no mapping ends early.
 *
 * On load the file is mapped privately. The caller opened it read-only and
 * knows its ram_bytes and id from the state file, which is the one that says
 * what must be there.
 */
#pragma once

#include "monitor/memory.h"

#define MEMORY_FILE_ID      16u
#define MEMORY_FILE_TRAILER 4096u
#define MEMORY_FILE_VERSION 1u

struct memory_file_info {
    uint8_t id[MEMORY_FILE_ID]; /* of the snapshot, as in its state file */
    uint64_t ram_bytes;
    bool diff;
    uint8_t base[MEMORY_FILE_ID]; /* a diff's: the id of the snapshot that it continues; zero: nobody knows */
};

/* All of a file with this content. */
uint64_t memory_file_bytes(const struct memory_file_info *info);

/*
 * Writes the file from its beginning and cuts what was in it. Guest memory is
 * only read, and a page that the guest never used stays unused.
 *
 * only: NULL for a full file; else the pages that the diff holds. The guest
 * and the devices stand still meanwhile. Neither flushed nor renamed: that is
 * done by who made the file. On failure (-ENOSPC, -EFBIG, -EIO) it holds a
 * part, without a trailer that any reader takes.
 */
int memory_file_write(int fd, const struct memory *memory, const struct dirty_pages *only,
        const struct memory_file_info *info, struct vm_error *error);

/* A trailer as it was read. -EBADMSG: no trailer, or damaged; -EPROTONOSUPPORT: a later version's. */
int memory_file_parse(struct memory_file_info *ret, const uint8_t bytes[static MEMORY_FILE_TRAILER]);

/* The trailer of a full file, for who has no state file at hand. */
int memory_file_read_info(int fd, const char *path, struct memory_file_info *ret, struct vm_error *error);

/* Checks the file against what the state file says, then maps it. The caller closes fd. path is for messages. */
int memory_load_file(struct memory *ret, const struct machine_config *config, int fd, const char *path,
        const uint8_t id[static MEMORY_FILE_ID], struct vm_error *error);

/*
 * Puts the pages of a diff into its base, which becomes the full file of the
 * diff's snapshot. In place: who wants to keep the base copies it first (as a
 * reflink, where the file system can). A failure leaves base without a
 * trailer that any reader takes.
 */
int memory_file_merge(int base_fd, const char *base_path, int diff_fd, const char *diff_path, struct vm_error *error);
/* The same by names, and on the disk when it returns. */
int memory_file_merge_paths(const char *base_path, const char *diff_path, struct vm_error *error);
