/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recipe says how an image is made. The recipes are installed with the
 * programs; IRONCLAW_RECIPES (an absolute path) names another directory.
 *
 *   <name>/recipe.json     suite, variant, kernel, time stamp, defaults of the image's commands
 *   <name>/packages        one a line
 *   <name>/customize       a script that mmdebstrap runs on the new root
 *   <name>/dpkg.excludes   dpkg options, path-exclude= and path-include= lines
 *   initramfs/modules      kernel modules of every initramfs, one a line
 *   kernel/fast.config     options of the fast kernel
 */
#pragma once

#include "orchestrator/images/digest.h"
#include "orchestrator/images/text.h"

struct recipe {
    char *suite, *variant, *kernel; /* kernel: "debian" or "fast" */
    char *user, *workdir;           /* may be NULL */
    char **env;                     /* NULL-terminated, or NULL */
    int64_t source_date_epoch;
    struct strlist packages;
    char *customize_path, *excludes_path;
    char rootfs_key[DIGEST_HEX_LEN + 1]; /* of all that the root file system depends on */
    char key[DIGEST_HEX_LEN + 1];        /* of that and the rest */
};

int recipe_load(const char *name, struct recipe *ret, struct ic_error *error);
void recipe_deinit(struct recipe *recipe);

/* The content of a file below the recipes' directory; the caller frees *ret and *ret_path (may be NULL). */
int recipe_read_file(const char *file, char **ret, size_t *ret_len, char **ret_path, struct ic_error *error);

/* The modules that every initramfs has, as the recipes name them. */
int recipe_modules(struct strlist *ret, struct ic_error *error);

/* A program of ours that images are made with, the agent for one: in the installed libexec directory, or in
 * IRONCLAW_LIBEXEC (an absolute path). */
int recipe_program_path(const char *program, char **ret, struct ic_error *error);
