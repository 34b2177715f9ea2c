/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root file systems: from a recipe by mmdebstrap, or from a tree that was
 * unpacked from an archive; both end as an erofs file whose bytes depend on
 * the tree alone (fixed UUID and time stamps, no extended attributes).
 */
#pragma once

#include "orchestrator/images/recipe.h"
#include "orchestrator/images/store.h"

/* Writes <dir>/rootfs.erofs, and leaves nothing else there. */
int rootfs_build(const struct recipe *recipe, const char *dir, const struct progress *progress, struct ic_error *error);

/* Unpacks a tar that we or mmdebstrap wrote (uncompressed, owners kept) into <dir>/root, which is made. */
int rootfs_unpack_tar(const char *tar, const char *dir, const struct progress *progress, struct ic_error *error);

/* Makes <dir>/rootfs.erofs from <tree>, which is removed then. */
int rootfs_pack(
        const char *tree, const char *dir, int64_t epoch, const struct progress *progress, struct ic_error *error);
