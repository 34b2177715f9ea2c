/* SPDX-License-Identifier: Apache-2.0 */
/* The last steps that building and importing an image share. */
#pragma once

#include "orchestrator/images/kernel.h"
#include "orchestrator/images/manifest.h"

/*
 * The build directory has rootfs.erofs; adds the kernel, the initramfs and the manifest, and commits it as `name`.
 * `manifest` has its defaults and keys set, and the rootfs part's size and digest when they are known already
 * (size 0: not known); the rest of it is filled in.
 */
int build_finish(struct workdir *workdir, const char *name, const struct kernel *kernel, struct manifest *manifest,
        const struct progress *progress, struct ic_error *error);

/* The recipe key of an imported image: it has no recipe to be built from again. */
#define BUILD_KEY_IMPORTED "0000000000000000000000000000000000000000000000000000000000000000"

/* How to get a damaged image back, for the end of a message. */
void build_remedy(const struct manifest *manifest, char *ret, size_t size);

/* Copies env; NULL gives NULL. */
int build_copy_env(char *const *env, char ***ret, struct ic_error *error);

/* Reads and checks the manifest of an object in the store: its digest must be the object's name. */
int build_load_manifest(const char *object, struct manifest *ret, struct ic_error *error);

/* Size and magic of one part. `image` is the name for messages. */
int build_check_part(const char *object, const struct manifest *manifest, enum manifest_part part, const char *image,
        struct ic_error *error);
