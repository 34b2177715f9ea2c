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
#define ic_fail(...) error_negative(ic_fail(__VA_ARGS__))

/* The same with ": <strerror>" appended and the code chosen by errno (ENOENT -> NOT_FOUND, ENOSPC -> NO_SPACE, ...).
 * `negative_errno` is what the layers below return. */
int ic_fail_errno(struct ic_error *error, int negative_errno, const char *fmt, ...) _printf_(3, 4);
#define ic_fail_errno(...) error_negative(ic_fail_errno(__VA_ARGS__))

/* Tells static analysis that a failure is one, so that it does not follow callers with unset results. */
static inline int error_negative(int result)
{
    if (result >= 0)
        __builtin_unreachable();
    return result;
}
