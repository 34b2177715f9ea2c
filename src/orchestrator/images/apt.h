/* SPDX-License-Identifier: Apache-2.0 */
/* Packages from the machine's own configured apt sources. Nothing here names a mirror. */
#pragma once

#include "orchestrator/images/progress.h"
#include "orchestrator/images/text.h"

/* One-line sources ("deb URI SUITE COMPONENTS") of the configured sources that are Debian's, in their order. */
int apt_debian_sources(char **ret, struct ic_error *error);

/* The first package that `package` depends on and whose name starts with prefix. */
int apt_depends(const char *package, const char *prefix, char **ret, struct ic_error *error);

/* Downloads the package's file into dir; *ret is its path, *ret_version its version. The caller frees both. */
int apt_download(const char *package, const char *dir, const struct progress *progress, char **ret, char **ret_version,
        struct ic_error *error);

/* Unpacks the files of a package into dir, which must be there. */
int apt_unpack(const char *deb, const char *dir, const struct progress *progress, struct ic_error *error);
