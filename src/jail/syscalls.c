/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/syscalls.h"

#include <sys/syscall.h>

#include "base/macro.h"

/* Generated; without pointers, which would have to be relocated at each start. */
static const char names[][28] = {
#include "jail/syscall-names.h"
};

const char *syscall_name(int nr)
{
    return nr >= 0 && (size_t)nr < ARRAY_SIZE(names) && names[nr][0] ? names[nr] : "unknown";
}
