/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which kernel modules a guest needs, in the order to load them. The
 * dependencies come from the modules themselves (section .modinfo,
 * "depends=a,b"), so no depmod is needed on the host. A name that is in
 * modules.builtin needs nothing; '-' and '_' in names mean the same.
 */
#pragma once

#include "orchestrator/images/text.h"

/* One module's dependencies, from its bytes: an ELF64 relocatable file. Pure. `name` is for messages. */
int module_depends(const void *ko, size_t len, const char *name, struct strlist *ret, struct ic_error *error);

/*
 * The module's length without the signature that may be appended to it
 * (Linux, Documentation/admin-guide/module-signing.rst); len when it has none
 * or the trailer makes no sense. Pure.
 */
size_t module_unsigned_len(const void *ko, size_t len);

/* dir is lib/modules/<release>. *ret gets paths of .ko files, each after what it needs. */
int modules_resolve(const char *dir, const struct strlist *wanted, struct strlist *ret, struct ic_error *error);
