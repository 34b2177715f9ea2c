/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside src/transfer only: building a tree below a destination out of what a
 * hostile sender describes. No frames here, only the file system.
 *
 * What keeps it inside:
 *   - the destination's directory is opened once; from there on every step is
 *     one path component, relative to an open directory, O_NOFOLLOW, and never
 *     ".." (wire_path_ok). A symlink is created but never passed through;
 *   - regular files are created O_EXCL, or under a temporary name that is then
 *     renamed over what was there. Nothing that existed is ever opened for writing;
 *   - only files, directories and symlinks are made, with masked modes.
 *
 * Directories being filled are open on a stack. One that we made has mode 0700
 * until the first entry outside it arrives; then it gets its real mode and
 * time, so a read-only directory can be filled, and memory does not grow with
 * the number of directories.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "transfer/transfer.h"

#define TREE_TEMP_SIZE 32u

struct tree_attrs {
    uint32_t mode;
    uint32_t uid, gid;
    uint64_t mtime_ns;
};

struct tree_level {
    int fd;
    bool made; /* attrs are due */
    struct tree_attrs attrs;
    size_t path_len; /* of this directory in tree.path */
};

struct tree {
    uint32_t mode_mask;
    bool keep_owner;
    bool dir_only;             /* dest ended in '/' */
    int base_fd;               /* the directory that holds the copy */
    char top[256];             /* the copy's name in it; empty: the copy is base_fd itself */
    char shown[WIRE_MAX_PATH]; /* the copy's path, for messages */
    struct tree_level stack[TRANSFER_MAX_DEPTH + 1];
    unsigned depth;
    char path[WIRE_MAX_PATH + 256]; /* of the innermost directory on the stack, below base_fd */

    /* the regular file being written */
    int file_fd;
    bool file_temp; /* written under `temp`, replaces `leaf` */
    char leaf[256], temp[TREE_TEMP_SIZE];
    struct tree_attrs file_attrs;
};

/* Every call: 0 or a negative errno. tree_why() then tells more than the errno, or NULL. */
int tree_open(struct tree *t, const struct transfer_receive_options *options);
/* Applies what is due and closes all; an unfinished file is removed. Due also after failures; once more does nothing.
 */
int tree_close(struct tree *t);

/* `path` as in wire_entry, checked by the decoder; "" is the copy itself. */
int tree_directory(struct tree *t, const char *path, size_t len, const struct tree_attrs *attrs);
int tree_symlink(struct tree *t, const char *path, size_t len, const char *target, const struct tree_attrs *attrs);
int tree_file(struct tree *t, const char *path, size_t len, const struct tree_attrs *attrs);
/* The file that tree_file() opened: data at an offset, then its end. */
int tree_write(struct tree *t, const void *data, size_t len, uint64_t offset);
int tree_file_end(struct tree *t, uint64_t size);

/* The reason of an error where strerror() would mislead; NULL if it would not. */
const char *tree_why(int error);
