/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* The last `tail` entries of the audit ring, of one VM or of all (NULL): a table, or a JSON object. Returns an exit
 * status. */
int audit_print(const char *vm_id, bool json, uint32_t tail);
