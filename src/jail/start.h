/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs that filter themselves have in common: their options' words and what they log at the start. */
#pragma once

#include <stdbool.h>

#include "jail/seccomp.h"

/* seccomp_prepare(), with one line in the log when there will be no filter, or one that refuses nothing. `off`: none is
 * wanted. Fails only when one is wanted and can't be had. */
int seccomp_start(bool off, enum seccomp_level level, const struct seccomp_compiled *compiled);

/* Notes what is refused in the ring of this inherited descriptor, which is closed then. Before there are threads.
 * -EINVAL: there is no such descriptor, or it is none of a ring. */
int seccomp_audit_to(const char *fd);
