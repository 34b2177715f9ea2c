/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates: a guest that was booted once, frozen before it ran anything, and
 * saved; a VM that is configured alike starts from it in milliseconds.
 *
 * Alike means the same key: a digest of all that is in the saved machine or
 * that it depends on - image, kernel command line, sizes, what commands may
 * ask of the kernel, the backend and its program, the processor, the host's
 * kernel. What only concerns the VM's processes or its commands (limits, jail,
 * user, environment, name) is not in it: each clone has its own.
 *
 * A template is a cache. It can be removed at any time; one that is damaged,
 * or that a newer program can't use, is made anew.
 */
#pragma once

#include "orchestrator/backends/backend.h"
#include "orchestrator/snapshots/snapshot.h"

/* Its making, to people. */
#define TEMPLATE_STEP "making the template of such VMs, once"

/* Why VMs of this kind have no template, or NULL. `custom`: kernel, initramfs or root are not an image's. */
const char *template_none(const struct backend *backend, const struct record *record, bool custom);

/* Opens the template of VMs like `record`, and makes it first when it is not there, or damaged, or `force`d. */
int template_get(const struct ic_vm_config *config, const struct backend *backend, const struct record *record,
        bool force, struct snapshot *ret, bool *ret_built, struct ic_error *error);
