/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest.json, the file whose sha256 is the image's digest. Format 1:
 *
 *   { "format": 1, "name": "base",
 *     "parts": { "kernel":    { "file": "vmlinux",      "size": n, "sha256": "..." },
 *                "initramfs": { "file": "initramfs",    "size": n, "sha256": "..." },
 *                "rootfs":    { "file": "rootfs.erofs", "size": n, "sha256": "..." } },
 *     "kernel": { "kind": "debian", "release": "...", "version": "...", "devices": "acpi" },
 *     "agent_sha256": "...", "recipe_key": "...", "rootfs_key": "...",
 *     "defaults": { "user": "agent" | null, "workdir": "/..." | null, "env": [ "NAME=value", ... ] } }
 *
 * No time and no machine is in it: the same parts give the same digest. The
 * parser is pure and strict: it takes at most MANIFEST_BYTES_MAX, refuses
 * unknown keys, and accepts no file name but the three above.
 */
#pragma once

#include "orchestrator/images/digest.h"

#define MANIFEST_BYTES_MAX ((size_t)256 << 10)
#define MANIFEST_ENV_MAX   256

enum manifest_part { PART_KERNEL, PART_INITRAMFS, PART_ROOTFS, PART_COUNT };

/* File names and JSON keys of the parts. */
extern const char *const manifest_part_file[PART_COUNT];
extern const char *const manifest_part_key[PART_COUNT];

struct manifest {
    char name[128];
    struct {
        uint64_t size_bytes;
        char sha256[DIGEST_HEX_LEN + 1];
    } parts[PART_COUNT];
    char kernel_kind[16];     /* "debian" or "fast" */
    char kernel_release[128]; /* as uname -r says */
    char kernel_version[128]; /* of the Debian package */
    char kernel_devices[16];  /* how it finds virtio-mmio devices: "acpi" or "cmdline" */
    char agent_sha256[DIGEST_HEX_LEN + 1];
    char recipe_key[DIGEST_HEX_LEN + 1]; /* what the image was made from, besides the parts below */
    char rootfs_key[DIGEST_HEX_LEN + 1]; /* what the root file system was made from */
    char *user, *workdir;                /* may be NULL */
    char **env;                          /* NULL-terminated, or NULL */
};

void manifest_deinit(struct manifest *manifest);

/* `where` names the file in messages. *ret is untouched on failure. -IC_ERR_CORRUPT. */
int manifest_parse(const char *json, size_t len, const char *where, struct manifest *ret, struct ic_error *error);

/* The bytes of the file; the caller frees *ret. The same manifest gives the same bytes. */
int manifest_format(const struct manifest *manifest, char **ret, size_t *ret_len, struct ic_error *error);

bool manifest_kind_ok(const char *kind);    /* "debian", "fast" */
bool manifest_user_ok(const char *user);    /* a name or uid[:gid] */
bool manifest_workdir_ok(const char *path); /* absolute */
bool manifest_env_ok(const char *entry);    /* NAME=value */
