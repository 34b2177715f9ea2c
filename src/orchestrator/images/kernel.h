/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels in the store data/kernels: <kind>-<key>/ with vmlinux, modules/ and
 * kernel.json; the name of the kernel in use is its kind.
 *
 * "debian": the cloud kernel of the machine's configured apt sources. Its
 * drivers are modules, and it finds virtio-mmio devices by ACPI alone.
 * "fast": built from Debian's linux-source with the recipes' fragment. All is
 * built in, and devices are announced on the command line.
 */
#pragma once

#include "orchestrator/images/store.h"

struct kernel {
    char kind[16], release[128], version[128], devices[16];
    char sha256[65]; /* of vmlinux */
    char key[65];    /* of what it was made from */
    uint64_t size_bytes;
    struct strlist modules; /* file names below modules/, in the order to load them */
    char *dir;              /* absolute */
};

void kernel_deinit(struct kernel *kernel);

/* The kernel of this kind that is in the store. -IC_ERR_NOT_FOUND without a message when there is none. */
int kernel_load(const char *kind, struct kernel *ret, struct ic_error *error);

/* The same, after fetching or building it when it is missing, its recipe changed, or `force`. */
int kernel_ensure(const char *kind, bool force, const struct progress *progress, struct kernel *ret, bool *ret_made,
        struct ic_error *error);

/* The two makers fill the build directory with vmlinux and modules/, and *ret but for digest, size, key and dir. */
int kernel_make_debian(
        const struct workdir *workdir, const struct progress *progress, struct kernel *ret, struct ic_error *error);
int kernel_make_fast(const struct workdir *workdir, const char *fragment, const struct progress *progress,
        struct kernel *ret, struct ic_error *error);
