/* SPDX-License-Identifier: Apache-2.0 */
/* Commands of the library's own. */
#pragma once

#include <ironclaw/ironclaw.h>

/* As ic_vm_exec_start(), in a VM whose record does not yet say that it is ready, by who has its lock. */
int exec_start_before_ready(
        const char *vm_id, const struct ic_exec_options *options, ic_exec **ret, struct ic_error *error);
