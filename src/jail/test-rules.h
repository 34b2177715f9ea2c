/* SPDX-License-Identifier: Apache-2.0 */
/* Profiles for the test of the compiler. */
#pragma once

#include "jail/seccomp.h"

extern const struct seccomp_profile test_small, test_other;
extern const struct seccomp_profile *const test_profiles[2];
extern const struct seccomp_compiled test_compiled;
