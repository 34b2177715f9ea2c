/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the rest of the orchestrator needs of an image: its parts' paths and
 * the defaults of its commands. The store itself is images/store.c.
 */
#pragma once

#include "orchestrator/error.h"
#include "orchestrator/images/store.h"

struct image {
    char name[128]; /* as asked for */
    char digest[65];
    char kernel_release[128];
    char kernel_kind[16];
    /* How this kernel finds virtio-mmio devices: "acpi" (Debian's: keep the machine's ACPI on) or "cmdline" (the fast
     * kernel has no ACPI: turn it off, and let the machine announce them on the command line). */
    char kernel_devices[16];
    int lock_fd;                                   /* keeps the parts from being removed until image_deinit; -1: none */
    char *kernel_path, *initrd_path, *rootfs_path; /* absolute; initrd may be NULL */
    char *user, *cwd;                              /* defaults for commands; may be NULL */
    char **env;                                    /* NULL-terminated or NULL */
};

/* By name, digest or unique digest prefix (at least 8 digits). Checks that every part is there with its recorded size
 * and magic (a full digest check is image verify); *ret is to be released by image_deinit. */
int image_open(const char *name, struct image *ret, struct ic_error *error);
void image_deinit(struct image *image);

/* Keeps an image, by its digest, from being removed until the descriptor is closed; -1: there is none. */
int image_hold(const char *digest);

/* ic_image_build() and ic_image_import(), which leave images that have no name any more. */
int image_build(const struct ic_image_build_options *options, bool *ret_built, struct ic_error *error);
int image_import(const char *path, const struct ic_image_import_options *options, struct ic_error *error);

/* Whether nobody needs the object any more; `named`: it has a name, by which it was asked for or not. */
typedef int (*image_unused_fn)(const char *object, const char *name, bool named, struct ic_error *error);

/* Removes a name, or all names of a digest; of one that has none, the image. `unused` is asked when an image would have
 * no name any more; NULL: whoever uses it, and also a name that is damaged. `needed`, which may be NULL, is asked once
 * more with the locks held when an image goes that has no name. */
int image_remove(const char *name, image_unused_fn unused, store_needed_fn needed, struct ic_error *error);
