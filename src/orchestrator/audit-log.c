/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/audit-log.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"
#include "jail/syscalls.h"
#include "orchestrator/paths.h"

#define PATH_SIZE     4200u
#define FILTER_STATUS 148 /* SECCOMP_EXIT_STATUS, and Firecracker's */

/* The processes of a VM that may have a filter. */
enum { MONITOR, VSOCK, ROLES };
static const char *const files[ROLES] = {"audit-monitor.ring", "audit-vsock.ring"};
static const char *const subjects[ROLES] = {"its monitor", "its vsock process"};

static const char *program_of(const struct record *record, unsigned role)
{
    if (role == VSOCK)
        return "ironclaw-vsock";
    if (!record)
        return "monitor";
    return record->backend == IC_BACKEND_QEMU          ? "qemu"
           : record->backend == IC_BACKEND_FIRECRACKER ? "firecracker"
                                                       : "ironclaw-vmm";
}

static const struct process_id *process_of(const struct record *record, unsigned role)
{
    return role == VSOCK ? &record->vsock : &record->monitor;
}

static int64_t unix_ms(void)
{
    return (int64_t)(clock_unix_ns() / 1000000);
}

static int ring_path(char path[PATH_SIZE], const char *dir, unsigned role)
{
    return (size_t)snprintf(path, PATH_SIZE, "%s/%s", dir, files[role]) < PATH_SIZE ? 0 : -ENAMETOOLONG;
}

static void append(const struct audit_entry *entries, size_t count)
{
    _cleanup_(freep) char *state = NULL, *path = NULL;

    if (count > 0 && path_of(IC_PATH_STATE, &state, NULL) == 0 && path_make_dir(state, NULL) == 0 &&
            path_in(&path, NULL, IC_PATH_STATE, "audit.ring") == 0)
        (void)audit_append(path, entries, count);
}

void audit_note(const char *vm_id, enum audit_action action, const char *fmt, ...)
{
    struct audit_entry entry = {.action = action, .call = AUDIT_NO_CALL, .count = 1};
    va_list ap;

    (void)snprintf(entry.vm_id, sizeof(entry.vm_id), "%s", vm_id ? vm_id : "");
    va_start(ap, fmt);
    (void)vsnprintf(entry.text, sizeof(entry.text), fmt, ap);
    va_end(ap);
    append(&entry, 1);
}

int audit_make_rings(const char *dir, int *ret_monitor_fd, int *ret_vsock_fd, struct ic_error *error)
{
    int fds[ROLES] = {-1, -1}, r = 0;
    char path[PATH_SIZE] = "";

    for (unsigned i = 0; i < ROLES && r == 0; i++) {
        r = ring_path(path, dir, i);
        if (r == 0)
            r = audit_ring_create(path, &fds[i]);
        if (r == 0)
            r = fd_above_stdio(&fds[i]);
    }
    if (r < 0) {
        fd_close(fds[MONITOR]);
        fd_close(fds[VSOCK]);
        return ic_fail_errno(error, r, "audit ring %s", path);
    }
    *ret_monitor_fd = fds[MONITOR];
    *ret_vsock_fd = fds[VSOCK];
    return 0;
}

static bool ended_by_filter(const struct record *record, unsigned role)
{
    int code, status;

    if (!record || !process_how_ended(process_of(record, role), &code, &status))
        return false;
    return code == CLD_EXITED ? status == FILTER_STATUS : status == SIGSYS;
}

/* The process may be anybody's by now. What it may say: which thread called what, whether that was let through, and
 * when, as long as the VM could have lived then. */
static bool believe(struct audit_entry *e, const char *vm_id, const struct record *record, unsigned role, int64_t now)
{
    int64_t first = record ? record->created_unix_ms : now;

    if (e->action != AUDIT_KILLED && e->action != AUDIT_ALLOWED)
        return false;
    if (e->time_unix_ms < first || e->time_unix_ms > now)
        e->time_unix_ms = now;
    e->pid = record ? (uint32_t)process_of(record, role)->pid : 0;
    e->text[0] = '\0';
    (void)snprintf(e->vm_id, sizeof(e->vm_id), "%s", vm_id);
    (void)snprintf(e->process, sizeof(e->process), "%s", program_of(record, role));
    return true;
}

/* What a process's ring says that can be believed, at most AUDIT_PROCESS_ENTRIES + 2. */
static size_t collect(const char *dir, const char *vm_id, const struct record *record, unsigned role,
        struct audit_entry ret[static AUDIT_PROCESS_ENTRIES + 2])
{
    struct audit_log log = {0};
    struct audit_entry own = {.call = AUDIT_NO_CALL, .action = AUDIT_KILLED, .count = 1};
    int64_t now = unix_ms();
    char path[PATH_SIZE];
    bool killed = false;
    size_t n = 0;

    if (ring_path(path, dir, role) < 0 || audit_read(path, AUDIT_PROCESS_ENTRIES, &log) < 0)
        return 0;
    for (size_t i = 0; i < log.count; i++) {
        ret[n] = log.entries[i];
        n += believe(&ret[n], vm_id, record, role, now);
        killed |= log.entries[i].action == AUDIT_KILLED;
    }
    if (!killed && ended_by_filter(record, role) && believe(&own, vm_id, record, role, now))
        ret[n++] = own;
    if (log.dropped > 0 && believe(&own, vm_id, record, role, now)) {
        ret[n] = own;
        ret[n].action = AUDIT_LOST;
        ret[n++].count = log.dropped;
    }
    audit_log_deinit(&log);
    return n;
}

void audit_take_over(const char *dir, const char *vm_id, const struct record *record)
{
    struct audit_entry entries[AUDIT_PROCESS_ENTRIES + 2];
    char path[PATH_SIZE];

    for (unsigned i = 0; i < ROLES; i++) {
        append(entries, collect(dir, vm_id, record, i, entries));
        if (ring_path(path, dir, i) == 0)
            (void)unlink(path);
    }
}

bool audit_violation(char *dst, size_t size, const char *dir, const struct record *record)
{
    struct audit_entry entries[AUDIT_PROCESS_ENTRIES + 2];

    for (unsigned i = 0; i < ROLES; i++) {
        size_t n = process_alive(process_of(record, i)) ? 0 : collect(dir, record->vm_id, record, i, entries);

        while (n > 0 && entries[n - 1].action != AUDIT_KILLED)
            n--;
        if (n == 0)
            continue;
        if (entries[n - 1].call == AUDIT_NO_CALL)
            (void)snprintf(dst, size, "%s was ended by seccomp (SIGSYS)", subjects[i]);
        else
            (void)snprintf(dst, size, "%s was ended by seccomp: thread %s called %s", subjects[i],
                    entries[n - 1].thread, syscall_name(entries[n - 1].call));
        return true;
    }
    return false;
}

/* ---- for people ---- */

struct list {
    struct audit_entry *entries;
    size_t count;
    uint64_t dropped;
};

static int list_add(struct list *list, const struct audit_entry *entries, size_t count, struct ic_error *error)
{
    struct audit_entry *grown = reallocarray(list->entries, list->count + count + 1, sizeof(*grown));

    if (!grown)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    list->entries = grown;
    memcpy(grown + list->count, entries, count * sizeof(*grown));
    list->count += count;
    return 0;
}

static int add_users(struct list *list, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    struct audit_log log = {0};
    int r = path_in(&path, error, IC_PATH_STATE, "audit.ring");

    if (r < 0)
        return r;
    r = audit_read(path, AUDIT_ENTRIES, &log);
    if (r == -ENOENT)
        return 0;
    if (r == -EPROTONOSUPPORT)
        return ic_fail(error, IC_ERR_UNSUPPORTED, "%s: of a later version of IronClaw; use that one to read it", path);
    if (r == -EBADMSG)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: is no audit ring; the next entry starts it anew", path);
    if (r < 0)
        return ic_fail_errno(error, r, "audit ring %s", path);
    list->dropped = log.dropped;
    r = list_add(list, log.entries, log.count, error);
    audit_log_deinit(&log);
    return r;
}

/* VMs that live have theirs still in their own rings. */
static int add_living(struct list *list, struct ic_error *error)
{
    struct audit_entry entries[AUDIT_PROCESS_ENTRIES + 2];
    size_t count = 0;
    char **ids = NULL;
    int r = table_ids(&ids, &count, error);

    for (size_t i = 0; r == 0 && i < count; i++) {
        _cleanup_(freep) char *dir = NULL;
        struct record record;

        if (table_read(&record, ids[i], NULL) < 0)
            continue;
        r = path_in(&dir, error, IC_PATH_STATE, "vms/%s", ids[i]);
        for (unsigned role = 0; role < ROLES && r == 0; role++)
            r = list_add(list, entries, collect(dir, ids[i], &record, role, entries), error);
        record_deinit(&record);
    }
    table_free_ids(ids, count);
    return r;
}

static int compare_time(const void *a, const void *b)
{
    const struct ic_audit_entry *x = a, *y = b;

    if (x->time_unix_ms != y->time_unix_ms)
        return x->time_unix_ms < y->time_unix_ms ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static void to_public(const struct audit_entry *e, size_t number, struct ic_audit_entry *ret)
{
    *ret = (struct ic_audit_entry){
            .number = number,
            .time_unix_ms = e->time_unix_ms,
            .action = (enum ic_audit_action)e->action,
            .call = e->call,
            .count = e->count,
            .pid = (int32_t)e->pid,
    };
    memcpy(ret->args, e->args, sizeof(ret->args));
    if (e->call != AUDIT_NO_CALL)
        (void)snprintf(ret->call_name, sizeof(ret->call_name), "%s", syscall_name(e->call));
    memcpy(ret->vm_id, e->vm_id, sizeof(ret->vm_id));
    memcpy(ret->process, e->process, sizeof(e->process));
    memcpy(ret->thread, e->thread, sizeof(e->thread));
    memcpy(ret->text, e->text, sizeof(e->text));
}

int ic_audit_read(const char *vm_id, struct ic_audit_entry **ret, size_t *ret_count, uint64_t *ret_dropped,
        struct ic_error *error)
{
    _cleanup_(freep) struct ic_audit_entry *entries = NULL;
    struct list list = {0};
    size_t n = 0;
    int r;

    if (vm_id && !path_vm_id_ok(vm_id))
        return ic_fail(error, IC_ERR_INVALID, "vm id: must be 1 to %d of the characters a-z A-Z 0-9 _ -", IC_VM_ID_MAX);
    (void)table_reap(NULL); /* which takes over what a crashed VM has to say */
    r = add_users(&list, error);
    if (r == 0)
        r = add_living(&list, error);
    if (r == 0 && !(entries = calloc(list.count + 1, sizeof(*entries))))
        r = ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; r == 0 && i < list.count; i++) {
        if (!vm_id || strcmp(vm_id, list.entries[i].vm_id) == 0)
            to_public(&list.entries[i], i, &entries[n++]);
    }
    free(list.entries);
    if (r < 0 || !entries)
        return r;
    qsort(entries, n, sizeof(*entries), compare_time);
    *ret = TAKE_PTR(entries);
    *ret_count = n;
    *ret_dropped = list.dropped;
    return 0;
}
