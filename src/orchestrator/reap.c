/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cleaning up after crashes. Every command does this first, so nothing that
 * a killed process left outlives the next command.
 *
 *   seen                                         means                      done
 *   ready or paused, a process is gone           the VM crashed or ended    end the rest, settle
 *   the same, tied to a caller that is gone      it is about to be killed   end it, settle
 *   created, booting, stopping, and lock free    its holder died            end the processes, settle
 *   a directory without a readable record        the creator died           end marked processes, remove
 *   a socket directory whose record is gone      a remover died             remove
 *   one without a link, empty or sockets only    maker or remover died      remove
 *   a process whose record is gone               the record was deleted     kill
 *   a store's build directory, its lock free     a saver died               remove
 *   ready, a saver's directory with a free lock  a saver died               let it go on, remove (snapshots/saving.h)
 *
 * A healthy VM costs a link and a read in /proc for each of its processes
 * (vitals.h); its record is read when these say nothing, and only when one of
 * the others is seen are locks taken or the process table searched.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/audit-log.h"
#include "orchestrator/confine.h"
#include "orchestrator/images/store.h"
#include "orchestrator/paths.h"
#include "orchestrator/pool/pool.h"
#include "orchestrator/share.h"
#include "orchestrator/snapshots/saving.h"
#include "orchestrator/state.h"
#include "orchestrator/table-lock.h"
#include "orchestrator/table.h"
#include "orchestrator/tail.h"
#include "orchestrator/vitals.h"

#define REAP_TIMEOUT_MS   5000u
#define FORK_TIMEOUT_MS   2000u
#define LIFETIME_GRACE_MS 10000u
#define TARGET_SIZE       4200u

/* The VM's processes were to end it, and have not for so long that they can't be expected to: somebody has taken them
 * over. Start times don't depend on the clock on the wall. */
static bool overdue(const struct record *record)
{
    long ticks_per_s = sysconf(_SC_CLK_TCK);
    struct timespec now;
    uint64_t start_ms;

    if (record->max_lifetime_ms == 0 || record->monitor.pid == 0 || ticks_per_s <= 0 ||
            clock_gettime(CLOCK_BOOTTIME, &now) < 0)
        return false;
    start_ms = record->monitor.start_ticks / (uint64_t)ticks_per_s * 1000;
    return (uint64_t)now.tv_sec * 1000 > start_ms + record->max_lifetime_ms + LIFETIME_GRACE_MS;
}

/* The kernel kills its processes with their caller, which takes a moment: who looks in between must not call it well,
 * or the next command leaves behind what is dead right after it. */
static bool orphaned(const struct record *record)
{
    return record->tied && !process_alive(&record->creator);
}

bool table_healthy(const struct record *record)
{
    char boot_id[BOOT_ID_SIZE];

    if (state_is_final(record->state))
        return true;
    if (record->state != IC_VM_READY && record->state != IC_VM_PAUSED)
        return false; /* a live holder of the lock makes it so; without one it is a leftover */
    if (process_boot_id(boot_id) < 0)
        return true; /* can't be told now */
    return strcmp(boot_id, record->boot_id) == 0 && record_monitor_alive(record) && record_vsock_alive(record) &&
           !overdue(record) && !orphaned(record);
}

bool table_lifetime_over(const struct record *record, const char *dir)
{
    if (record->max_lifetime_ms == 0)
        return false;
    return record_monitor_alive(record) ? overdue(record) : tail_lifetime_over(dir);
}

static void describe_end(char *dst, size_t size, const struct record *record, const char *dir)
{
    char boot_id[BOOT_ID_SIZE], line[256];
    const char *what;

    if (table_lifetime_over(record, dir)) {
        (void)snprintf(dst, size, "max_lifetime_ms %u is over", record->max_lifetime_ms);
        return;
    }
    if (process_boot_id(boot_id) == 0 && strcmp(boot_id, record->boot_id) != 0)
        what = "the host was restarted";
    else if (record->state == IC_VM_CREATED || record->state == IC_VM_BOOTING)
        what = "the program that started it ended before it was ready";
    else if (record->state == IC_VM_STOPPING)
        what = "the program that stopped it ended before it was done";
    else if (audit_violation(dst, size, dir, record))
        return;
    else if (confine_was_oom(record))
        what = CONFINE_OOM;
    else if (!record_monitor_alive(record))
        what = "its monitor process ended";
    else
        what = "its vsock process ended";
    if (tail_line(line, sizeof(line), dir, "console.log")[0])
        (void)snprintf(dst, size, "%s; last line of its console: %s", what, line);
    else if (tail_monitor(line, sizeof(line), dir)[0])
        (void)snprintf(dst, size, "%s; it said: %s", what, line);
    else
        (void)snprintf(dst, size, "%s", what);
}

int table_settle(struct table_entry *entry, struct record *record, struct ic_error *error)
{
    char cause[512];
    bool by_itself = tail_powered_off(entry->dir) || record->state == IC_VM_STOPPING;
    int r;

    describe_end(cause, sizeof(cause), record, entry->dir);
    if (table_lifetime_over(record, entry->dir))
        audit_note(record->vm_id, AUDIT_ENDED, "max_lifetime_ms %u: is over", record->max_lifetime_ms);
    r = table_end_processes(entry, record, error);
    if (r < 0)
        return r;
    if (!record->keep)
        return table_remove(entry, record, error);
    r = table_remove_run_dir(entry, record->run_dir, record->run_dir_inode, error);
    if (r < 0)
        return r;
    if (by_itself && state_allowed(record->state, IC_VM_GONE))
        return table_change(entry, record, IC_VM_GONE, "the guest powered off", error);
    return table_change(entry, record, IC_VM_FAILED, cause, error);
}

/* A directory without a record. Nobody can be making one while we hold the claim lock. */
static int reap_recordless(const char *vm_id, struct ic_error *error)
{
    _cleanup_(freep) char *vms = NULL, *dir = NULL, *run_dir = NULL;
    _cleanup_(fd_unlockp) int claim_fd = -1;
    struct table_entry entry = {.lock_fd = -1};
    struct record record = {0};
    int r;

    if ((r = path_in(&vms, error, IC_PATH_STATE, "vms")) < 0 ||
            (r = path_in(&dir, error, IC_PATH_STATE, "vms/%s", vm_id)) < 0 ||
            (r = path_in(&run_dir, error, IC_PATH_RUNTIME, "%s", vm_id)) < 0)
        return r;
    r = lock_path(vms, LOCK_DIRECTORY, deadline_after_ms(REAP_TIMEOUT_MS), &claim_fd);
    if (r < 0)
        return r == -EWOULDBLOCK ? 0 : ic_fail_errno(error, r, "lock of %s", vms);
    r = table_read(&record, vm_id, NULL);
    if (r == 0)
        record_deinit(&record); /* it has got one meanwhile */
    if (r == 0 || (r != -IC_ERR_NOT_FOUND && r != -IC_ERR_CORRUPT))
        return 0;
    /* Somebody who removes the directory holds its lock, and is then past the record. */
    r = table_lock(&entry, vm_id, 0, NULL);
    if (r == -IC_ERR_TIMEOUT)
        return 0;
    if (r < 0 && r != -IC_ERR_NOT_FOUND)
        return r;
    if (r < 0) { /* killed before it made the lock */
        (void)snprintf(entry.vm_id, sizeof(entry.vm_id), "%s", vm_id);
        entry.dir = TAKE_PTR(dir);
    }
    r = table_end_processes(&entry, NULL, error);
    if (r == 0)
        r = table_remove_run_dir(&entry, run_dir, 0, error);
    if (r == 0)
        r = table_remove_claimed(&entry, NULL, error);
    table_entry_deinit(&entry);
    return r;
}

static int reap_one(const char *vm_id, struct share *share, struct ic_error *error)
{
    struct table_entry entry = {.lock_fd = -1};
    struct process_id own[VITALS_OWN];
    size_t own_count = 0;
    _cleanup_(freep) char *dir = NULL;
    struct record record = {0};
    uint64_t deadline = 0;
    int r = path_in(&dir, error, IC_PATH_STATE, "vms/%s", vm_id);

    if (r < 0)
        return r;
    if (vitals_good(dir, own, &own_count)) {
        share_look(share, vm_id, own, own_count);
        return saving_reap(vm_id, error);
    }
    r = table_read(&record, vm_id, NULL);
    if (r < 0)
        return reap_recordless(vm_id, error);
    if (table_healthy(&record)) {
        if (!state_is_final(record.state))
            share_look(share, vm_id, (const struct process_id[]){record.monitor, record.vsock},
                    record.vsock.pid != 0 ? 2 : 1);
        record_deinit(&record);
        return saving_reap(vm_id, error);
    }
    /* A creator that was killed while it forked: its child has the lock too, but only until its execve. */
    if (record.state == IC_VM_BOOTING && !process_alive(&record.creator))
        deadline = deadline_after_ms(FORK_TIMEOUT_MS);
    record_deinit(&record);
    r = table_lock(&entry, vm_id, deadline, NULL);
    if (r < 0)
        return 0; /* its holder is alive and sees to it, or it is gone */
    r = table_read(&record, vm_id, NULL);
    if (r == 0 && !table_healthy(&record))
        r = table_settle(&entry, &record, error);
    else
        r = 0;
    record_deinit(&record);
    table_entry_deinit(&entry);
    return r;
}

/* Is `target` a state directory of this VM? Only then did we make the link. */
static bool is_state_dir(const char *target, const char *vm_id)
{
    char end[IC_VM_ID_MAX + sizeof("/vms/")];
    int len = snprintf(end, sizeof(end), "/vms/%s", vm_id);
    size_t n = strlen(target);

    return target[0] == '/' && n > (size_t)len && strcmp(target + n - (size_t)len, end) == 0;
}

/* Does a VM of ours that has not ended have the name? Its run directory goes with it; until then the link, which its
 * processes can change, is not asked. */
static bool is_ours(const char *vm_id)
{
    struct record record;
    bool ended;
    int r = table_read(&record, vm_id, NULL);

    if (r < 0)
        return r != -IC_ERR_NOT_FOUND;
    ended = state_is_final(record.state);
    record_deinit(&record);
    return !ended;
}

/* True when the directory may go: its record is gone (*ret_target says where that was), or it may be half made. */
static bool run_dir_is_orphan(int run_fd, const char *vm_id, char ret_target[TARGET_SIZE])
{
    char link[IC_VM_ID_MAX + sizeof("/state")];
    ssize_t n;

    (void)snprintf(link, sizeof(link), "%s/state", vm_id);
    n = readlinkat(run_fd, link, ret_target, TARGET_SIZE - 1);
    ret_target[n > 0 ? n : 0] = '\0';
    if (n < 0)
        return errno == ENOENT && !is_ours(vm_id);
    if (!is_state_dir(ret_target, vm_id))
        return false;
    /* Another state directory's VMs are that one's business, as long as it knows them. */
    return access(ret_target, F_OK) < 0 && errno == ENOENT && !is_ours(vm_id);
}

static bool is_socket(int dir_fd, const char *name)
{
    struct stat st;

    return (strcmp(name, "v") == 0 || strncmp(name, "v_", 2) == 0 || strcmp(name, "q") == 0 ||
                   strcmp(name, "a") == 0) &&
           fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(st.st_mode);
}

/* Without its link a directory may be anybody's. One of ours is then empty, or has sockets left of a removal that was
 * killed; whatever else is in it keeps it. */
static int remove_half_made(int run_fd, const char *vm_id, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = openat(run_fd, vm_id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *item;
    bool ours = dir != NULL;

    if (!dir)
        return 0;
    (void)TAKE_FD(fd);
    while (ours && (item = readdir(dir)))
        ours = strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0 || is_socket(dirfd(dir), item->d_name);
    rewinddir(dir);
    while (ours && (item = readdir(dir))) {
        if (is_socket(dirfd(dir), item->d_name))
            (void)unlinkat(dirfd(dir), item->d_name, 0);
    }
    (void)closedir(dir);
    if (ours && unlinkat(run_fd, vm_id, AT_REMOVEDIR) < 0 && errno != ENOENT && errno != ENOTEMPTY)
        return ic_fail_errno(error, -errno, "runtime directory of VM '%s'", vm_id);
    return 0;
}

static int reap_run_dir(int run_fd, const char *vm_id, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    char target[TARGET_SIZE];
    int r;

    if (!run_dir_is_orphan(run_fd, vm_id, target))
        return 0;
    if (!target[0])
        return remove_half_made(run_fd, vm_id, error);
    r = process_kill_marked(target, deadline_after_ms(REAP_TIMEOUT_MS));
    if (r < 0)
        return ic_fail_errno(error, r, "VM '%s', whose record is gone: its processes could not be ended", vm_id);
    r = path_in(&path, error, IC_PATH_RUNTIME, "%s", vm_id);
    return r < 0 ? r : path_remove_tree(path, error);
}

static int reap_run_dirs(struct ic_error *error)
{
    _cleanup_(freep) char *run = NULL;
    _cleanup_(fd_unlockp) int claim_fd = -1;
    char target[TARGET_SIZE];
    struct dirent *item;
    DIR *dir;
    int r;

    r = path_of(IC_PATH_RUNTIME, &run, error);
    if (r < 0)
        return r;
    r = path_check_dir(run, error);
    if (r < 0)
        return r == -IC_ERR_NOT_FOUND ? 0 : r;
    dir = opendir(run);
    if (!dir)
        return 0;
    while (r == 0 && (item = readdir(dir))) {
        if (!path_vm_id_ok(item->d_name) || !run_dir_is_orphan(dirfd(dir), item->d_name, target))
            continue;
        /* It may be just being made: looked at again under the lock that its maker holds. */
        if (claim_fd < 0 && lock_path(run, LOCK_DIRECTORY, deadline_after_ms(REAP_TIMEOUT_MS), &claim_fd) < 0)
            break;
        r = reap_run_dir(dirfd(dir), item->d_name, error);
    }
    closedir(dir);
    return r;
}

int table_reap(struct ic_error *error)
{
    struct ic_error first;
    struct share share = {.fd = -1};
    size_t count = 0;
    char **ids = NULL;
    int r = table_ids(&ids, &count, error), result = 0;

    if (r < 0)
        return r;
    if (count > 0)
        share_begin_here(&share);
    /* One VM that can't be cleaned must not keep the others from it. */
    for (size_t i = 0; i < count; i++) {
        r = reap_one(ids[i], &share, &first);
        if (r < 0 && result == 0) {
            result = r;
            if (error)
                *error = first;
        }
    }
    share_end(&share);
    table_free_ids(ids, count);
    process_reap_children(); /* after their VMs, which are asked how they ended */
    confine_end_orphans();
    pool_reap();
    store_sweep(STORE_TEMPLATES);
    store_sweep(STORE_SNAPSHOTS);
    r = reap_run_dirs(&first);
    if (r < 0 && result == 0) {
        result = r;
        if (error)
            *error = first;
    }
    return result;
}
