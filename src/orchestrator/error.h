/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors inside libironclaw: every fallible function of this layer takes a
 * struct ic_error last and returns 0 or -enum ic_error_code. ic_fail() fills
 * and returns in one go; the message names the thing, the value, the way out.
 */
#pragma once

#include <ironclaw/ironclaw.h>

#include "base/macro.h"

/* Fills *error (NULL is fine) and returns -code. */
int ic_fail(struct ic_error *error, enum ic_error_code code, const char *fmt, ...) _printf_(3, 4);

/* The same with ": <strerror>" appended and the code chosen by errno (ENOENT -> NOT_FOUND, ENOSPC -> NO_SPACE, ...).
 * `negative_errno` is what the layers below return. */
int ic_fail_errno(struct ic_error *error, int negative_errno, const char *fmt, ...) _printf_(3, 4);
