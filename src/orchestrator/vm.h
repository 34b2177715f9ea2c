/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handle of a VM: its name, and for a VM that is tied to this process the
 * connection that keeps it. Everything else is read from the record when it
 * is needed, since any other process may have changed it.
 */
#pragma once

#include "orchestrator/table.h"

#define VM_LOCK_TIMEOUT_MS 10000u

struct ic_vm {
    char vm_id[IC_VM_ID_MAX + 1];
    int ready_fd; /* -1 unless tied */
};

int vm_new(const char *vm_id, ic_vm **ret, struct ic_error *error);

/* Lock and record of the VM. */
int vm_lock(const char *vm_id, uint64_t deadline, struct table_entry *ret_entry, struct record *ret_record,
        struct ic_error *error);

static inline void entry_deinitp(struct table_entry *entry)
{
    table_entry_deinit(entry);
}

/* For _cleanup_: a record on the stack. */
static inline void record_deinitp(struct record *record)
{
    record_deinit(record);
}
