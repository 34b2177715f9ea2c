/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives from anywhere, by libarchive: what kind one is, and a tar of what a
 * root file system needs of it. Only ironclaw-tar is linked with this: it
 * is a lot of foreign code for foreign bytes, so it runs in a process of its
 * own, which has the two files and nothing else (main.c); and its libraries
 * take longer to load than all else that a command does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macro.h"

#define TAR_ERROR_MAX 512 /* bytes */

enum tar_kind { TAR_ROOT, TAR_OCI, TAR_DOCKER };

/* In a word each, for the caller of ironclaw-tar: tar_codes[]. */
enum tar_code {
    TAR_CODE_FAILED = 1, /* of the machine: reading, writing, memory */
    TAR_CODE_INVALID,    /* not what was asked for */
    TAR_CODE_CORRUPT,    /* it was, up to some place */
    TAR_CODE_NO_SPACE,
    TAR_CODES,
};
extern const char *const tar_codes[TAR_CODES];

struct tar_error {
    enum tar_code code;
    char text[TAR_ERROR_MAX]; /* one line, which does not name the archive */
};

/* All of these return 0 or -1 with *error. */

/* By the names at its start, and the markers that these formats must have. */
int tar_detect(int fd, enum tar_kind *ret, struct tar_error *error);

struct tar_progress {
    void (*report)(void *userdata, uint64_t done); /* bytes of the archive; NULL: nobody wants to know */
    void *userdata;
};
/* Reads any tar and writes one with files, directories and links below "./" alone. */
int tar_clean(int from_fd, int to_fd, const struct tar_progress *progress, struct tar_error *error);

/* Writes a name without ".", empty parts and a leading '/' ("" is the root); false when it leads out or is too long. */
bool tar_path_ok(const char *name, char *ret, size_t size);
