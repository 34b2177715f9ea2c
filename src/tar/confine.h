/* SPDX-License-Identifier: Apache-2.0 */
/* What ironclaw-tar may do once it has its archive in front of it. */
#pragma once

#include "jail/seccomp.h"

enum { TAR_PROFILES = 1 };
extern const struct seccomp_profile *const tar_profiles[TAR_PROFILES];
extern const struct seccomp_compiled tar_compiled; /* generated, and linked into what has a main() */

/* From here on: the standard descriptors, bounded memory, no file, process, socket or code of any other kind. -errno:
 * it is not so. */
int tar_confine(void);
