/* SPDX-License-Identifier: Apache-2.0 */
/* Ending, pausing and asking a running VM. Whatever changes the VM holds its lock. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/backends/backend.h"
#include "orchestrator/session.h"
#include "orchestrator/state.h"
#include "orchestrator/vm.h"

#define STATS_TIMEOUT_MS 10000u
#define STOP_TIMEOUT_MS  10000u
#define KILL_PATIENCE_MS 100u /* before a VM's lock holder is presumed to be its creator, waiting for the boot */
#define SHUTDOWN_SEND_MS 2000u
#define TIME_TIMEOUT_MS  2000u

int vm_lock(const char *vm_id, uint64_t deadline, struct table_entry *ret_entry, struct record *ret_record,
        struct ic_error *error)
{
    int r = table_lock(ret_entry, vm_id, deadline, error);

    if (r < 0)
        return r;
    r = table_read(ret_record, vm_id, error);
    if (r < 0)
        table_entry_deinit(ret_entry);
    return r;
}

/* After its processes are gone: the record stays for a `keep` VM, else nothing does. */
static int finish(struct table_entry *entry, struct record *record, const char *cause, struct ic_error *error)
{
    int r;

    if (!record->keep)
        return table_remove(entry, record, error);
    r = table_remove_run_dir(entry, record->run_dir, record->run_dir_inode, error);
    if (r == 0 && state_allowed(record->state, IC_VM_GONE))
        r = table_change(entry, record, IC_VM_GONE, cause, error);
    return r;
}

/* SHUTDOWN, then patience. Whatever goes wrong, the kill that follows puts right. */
static int ask_to_power_off(const struct record *record, uint64_t deadline)
{
    _cleanup_(fd_closep) int pidfd = -1, fd = -1;
    _cleanup_(buf_deinit) struct buf request = {0};
    uint64_t send_deadline = MIN(deadline, deadline_after_ms(SHUTDOWN_SEND_MS));
    int r;

    if (process_open(&record->monitor, &pidfd) < 0)
        return 0;
    wire_put_empty(&request, WIRE_SHUTDOWN);
    r = session_open(record, WIRE_SESSION_CONTROL, &request, send_deadline, &fd, NULL);
    if (r < 0)
        return r;
    return session_wait(pidfd, POLLIN, deadline);
}

/* A disk that is full, or a stop that failed half-way before, must not keep a VM alive. */
static void note_stopping(const struct table_entry *entry, struct record *record, const char *cause)
{
    (void)table_change(entry, record, IC_VM_STOPPING, cause, NULL);
}

int ic_vm_stop(ic_vm *vm, uint32_t timeout_ms, struct ic_error *error)
{
    _cleanup_(entry_deinitp) struct table_entry entry = {.lock_fd = -1};
    _cleanup_(record_deinitp) struct record record = {0};
    uint64_t deadline = deadline_after_ms(timeout_ms > 0 ? timeout_ms : STOP_TIMEOUT_MS);
    const struct backend *backend;
    bool asked;
    int r = vm_lock(vm->vm_id, deadline_after_ms(VM_LOCK_TIMEOUT_MS), &entry, &record, error);

    if (r < 0)
        return r == -IC_ERR_NOT_FOUND ? 0 : r;
    if (state_is_final(record.state))
        return 0;
    backend = backend_get(record.backend);
    if (record.state == IC_VM_PAUSED && backend && backend->resume &&
            backend->resume(backend, record.run_dir, NULL) == 0)
        r = table_change(&entry, &record, IC_VM_READY, "resumed, to be stopped", error);
    asked = r == 0 && record.state == IC_VM_READY && ask_to_power_off(&record, deadline) == 0;
    note_stopping(&entry, &record, asked ? "the guest powered off when asked" : "to be killed");
    r = table_end_processes(&entry, &record, error);
    if (r == 0)
        r = finish(&entry, &record, asked ? "stopped" : "killed; it did not power off in time", error);
    return r;
}

/* While a VM boots its creator holds the lock. Killed children make the creator clean up and let go. */
static int kill_booting(const char *vm_id, uint64_t deadline, struct ic_error *error)
{
    _cleanup_(record_deinitp) struct record record = {0};
    char boot_id[BOOT_ID_SIZE];
    int r = table_read(&record, vm_id, NULL);

    if (r < 0)
        return 0; /* being made or removed; a damaged one is the lock's next holder's business */
    if (record.state != IC_VM_CREATED && record.state != IC_VM_BOOTING)
        return 0;
    r = process_boot_id(boot_id);
    if (r == 0 && strcmp(boot_id, record.boot_id) == 0) {
        r = process_kill(&record.monitor, deadline);
        if (r == 0)
            r = process_kill(&record.vsock, deadline);
    }
    return r < 0 ? ic_fail_errno(error, r, "VM '%s': its processes could not be ended", vm_id) : 0;
}

/* Again and again: the creator may not have started, or not have recorded, its processes at the first look. */
static int lock_to_kill(const char *vm_id, struct table_entry *entry, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(VM_LOCK_TIMEOUT_MS);
    int r;

    for (;;) {
        r = table_lock(entry, vm_id, MIN(deadline, deadline_after_ms(KILL_PATIENCE_MS)), error);
        if (r != -IC_ERR_TIMEOUT || deadline_poll_ms(deadline) == 0)
            return r;
        r = kill_booting(vm_id, deadline, error);
        if (r < 0)
            return r;
    }
}

static int end_vm(ic_vm *vm, bool remove, struct ic_error *error)
{
    _cleanup_(entry_deinitp) struct table_entry entry = {.lock_fd = -1};
    _cleanup_(record_deinitp) struct record record = {0};
    bool readable;
    int r = lock_to_kill(vm->vm_id, &entry, error);

    if (r < 0)
        return r == -IC_ERR_NOT_FOUND ? 0 : r;
    r = table_read(&record, vm->vm_id, error);
    readable = r == 0;
    if (!readable && (!remove || r == -IC_ERR_IO))
        return r; /* a damaged record can still be removed */
    if (readable && !remove && state_is_final(record.state))
        return 0;
    if (readable && !remove)
        note_stopping(&entry, &record, "to be killed");
    r = table_end_processes(&entry, readable ? &record : NULL, error);
    if (r < 0)
        return r;
    return remove ? table_remove(&entry, readable ? &record : NULL, error) : finish(&entry, &record, "killed", error);
}

static void drop_ready(ic_vm *vm)
{
    fd_close(vm->ready_fd);
    vm->ready_fd = -1;
}

int ic_vm_kill(ic_vm *vm, struct ic_error *error)
{
    int r = end_vm(vm, false, error);

    if (r == 0)
        drop_ready(vm);
    return r;
}

int ic_destroy_vm(ic_vm *vm, struct ic_error *error)
{
    int r = end_vm(vm, true, error);

    if (r == 0)
        drop_ready(vm);
    return r;
}

static int change_running(ic_vm *vm, enum ic_vm_state from, enum ic_vm_state to, struct ic_error *error)
{
    _cleanup_(entry_deinitp) struct table_entry entry = {.lock_fd = -1};
    _cleanup_(record_deinitp) struct record record = {0};
    const struct backend *backend;
    int r = vm_lock(vm->vm_id, deadline_after_ms(VM_LOCK_TIMEOUT_MS), &entry, &record, error);

    if (r < 0)
        return r;
    if (record.state != from)
        return ic_fail(error, IC_ERR_STATE, "VM '%s': is %s, not %s", vm->vm_id, ic_vm_state_name(record.state),
                ic_vm_state_name(from));
    backend = backend_get(record.backend);
    if (!backend || !(backend->capabilities & BACKEND_PAUSE))
        return ic_fail(error, IC_ERR_UNSUPPORTED, "VM '%s': backend %s can't pause", vm->vm_id,
                ic_backend_name(record.backend));
    r = to == IC_VM_PAUSED ? backend->pause(backend, record.run_dir, error)
                           : backend->resume(backend, record.run_dir, error);
    if (r < 0)
        return r;
    return table_change(&entry, &record, to, "asked for", error);
}

int ic_vm_pause(ic_vm *vm, struct ic_error *error)
{
    return change_running(vm, IC_VM_READY, IC_VM_PAUSED, error);
}

/* Its clock may have stood, as QEMU's does. A guest that can't be told goes on with that. */
static void tell_time(const char *vm_id)
{
    _cleanup_(record_deinitp) struct record record = {0};
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    _cleanup_(fd_closep) int fd = -1;
    _cleanup_(buf_deinit) struct buf none = {0};
    uint64_t deadline = deadline_after_ms(TIME_TIMEOUT_MS);

    if (table_read(&record, vm_id, NULL) == 0 &&
            session_open(&record, WIRE_SESSION_CONTROL, &none, deadline, &fd, NULL) == 0)
        (void)session_tell_time(&record, fd, &reader, UINT64_MAX, deadline, NULL);
}

int ic_vm_resume(ic_vm *vm, struct ic_error *error)
{
    int r = change_running(vm, IC_VM_PAUSED, IC_VM_READY, error);

    if (r == 0)
        tell_time(vm->vm_id);
    return r;
}

static void fill_stats(struct ic_vm_stats *ret, const struct wire_stats *stats)
{
    *ret = (struct ic_vm_stats){
            .size = sizeof(*ret),
            .uptime_ms = stats->uptime_ms,
            .mem_total_kib = stats->mem_total_kib,
            .mem_available_kib = stats->mem_available_kib,
            .overlay_size_kib = stats->overlay_size_kib,
            .overlay_used_kib = stats->overlay_used_kib,
            .oom_kills = stats->oom_kills,
            .processes = stats->processes,
            .sessions = stats->sessions,
    };
}

int ic_vm_stats(ic_vm *vm, struct ic_vm_stats *ret, struct ic_error *error)
{
    static const char doing[] = "statistics";
    uint64_t deadline = deadline_after_ms(STATS_TIMEOUT_MS);
    _cleanup_(record_deinitp) struct record record = {0};
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    _cleanup_(buf_deinit) struct buf request = {0};
    _cleanup_(fd_closep) int fd = -1;
    const uint8_t *payload;
    struct wire_stats stats;
    struct wire_frame frame;
    int r = table_read(&record, vm->vm_id, error);

    if (r < 0)
        return r;
    wire_put_empty(&request, WIRE_STATS_REQ);
    r = session_open(&record, WIRE_SESSION_CONTROL, &request, deadline, &fd, error);
    if (r < 0)
        return r;
    r = session_next(fd, &reader, deadline, &frame, &payload);
    if (r == 0 && frame.type == WIRE_ERROR)
        return session_fail_peer(&record, payload, frame.len, doing, error);
    if (r == 0)
        r = frame.type == WIRE_STATS ? wire_get_stats(&stats, payload, frame.len) : -EPROTO;
    if (r < 0)
        return session_fail(&record, r, doing, error);
    fill_stats(ret, &stats);
    return 0;
}
