/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the table only: a VM in it, whose processes are sleeps. */
#pragma once

#include "orchestrator/test-util.h"

#include <fcntl.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/table.h"

static inline struct process_id start_sleep(const char *mark, int alive_fd)
{
    char *argv[] = {(char *)"sleep", (char *)"60", NULL};
    _cleanup_(fd_closep) int log = open("/dev/null", O_WRONLY | O_CLOEXEC), pidfd = -1;
    struct process_options o = {.size = sizeof(o),
            .path = "/bin/sleep",
            .argv = argv,
            .mark = mark,
            .out_fd = log,
            .err_fd = log,
            .keep_fds = &alive_fd,
            .keep_count = alive_fd >= 0};
    struct process_id id;

    assert_int_equal(process_spawn(&o, &id, &pidfd), 0);
    return id;
}

/* A VM with two processes, in the given state; the entry is left locked. */
static inline void make_vm(
        const char *vm_id, enum ic_vm_state to, bool keep, struct table_entry *entry, struct record *record)
{
    struct ic_error error;
    int alive = -1;

    *record = sample_record(vm_id);
    record->keep = keep;
    assert_int_equal(table_claim(entry, record, NULL, &error), 0);
    assert_int_equal(table_make_run_dir(entry, record, &error), 0);
    assert_int_equal(table_hold_alive(entry, &alive, &error), 0);
    assert_int_equal(table_change(entry, record, IC_VM_BOOTING, "test", &error), 0);
    record->monitor = start_sleep(entry->dir, alive);
    record->vsock = start_sleep(entry->dir, alive);
    fd_close(alive);
    if (to == IC_VM_READY)
        assert_int_equal(table_change(entry, record, to, "test", &error), 0);
}
