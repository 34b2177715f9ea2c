/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of importing that tests reach directly. */
#pragma once

#include "orchestrator/images/progress.h"

/* Writes a name without ".", empty parts and a leading '/' ("" is the root); false when it leads out or is too long. */
bool import_path_ok(const char *name, char *ret, size_t size);

/* Reads any tar and writes one with files, directories and links below "./" alone. */
int import_clean_tar(const char *path, const char *to_path, const struct progress *progress, struct ic_error *error);
