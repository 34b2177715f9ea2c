/* SPDX-License-Identifier: Apache-2.0 */
/* cp's operands: VM:/path in a guest, else a path of the host. */
#pragma once

#include <stdbool.h>

#include "cli/text.h"

struct copy_path {
    char *vm;   /* NULL: the host */
    char *path; /* in a guest always absolute: relative ones count from / */
    bool bare;  /* "VM:", nothing behind the colon */
};

/* A colon before the first slash makes it a guest's. "C:\x" and "C:/x" are the host's on Windows. */
void copy_path_parse(const char *operand, struct copy_path *ret);
void copy_path_deinit(struct copy_path *p);
