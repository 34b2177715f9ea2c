/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/table.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/audit-log.h"
#include "base/log.h"
#include "orchestrator/confine.h"
#include "orchestrator/paths.h"
#include "orchestrator/state.h"
#include "orchestrator/table-lock.h"
#include "orchestrator/vitals.h"

#define PATH_SIZE      4200u
#define END_TIMEOUT_MS 10000u

void table_entry_deinit(struct table_entry *entry)
{
    if (entry->dir)
        fd_unlock(entry->lock_fd);
    free(entry->dir);
    *entry = (struct table_entry){.lock_fd = -1};
}

static void sleep_ms(unsigned ms)
{
    struct timespec ts = {.tv_nsec = (long)ms * 1000000};

    (void)nanosleep(&ts, NULL);
}

int lock_path(const char *path, enum lock_kind kind, uint64_t deadline, int *ret_fd)
{
    const int flags = kind == LOCK_DIRECTORY  ? O_RDONLY | O_DIRECTORY
                      : kind == LOCK_NEW_FILE ? O_RDWR | O_NOFOLLOW | O_CREAT
                                              : O_RDWR | O_NOFOLLOW;

    for (;;) {
        _cleanup_(fd_closep) int fd = open(path, flags | O_CLOEXEC, 0600);
        struct stat mine, there;

        if (fd < 0)
            return -errno;
        while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            if (errno != EWOULDBLOCK && errno != EINTR)
                return -errno;
            if (deadline_poll_ms(deadline) == 0)
                return -EWOULDBLOCK;
            sleep_ms(2);
        }
        /* The holder before us may have removed the file: then the lock is on nothing. */
        if (fstat(fd, &mine) < 0)
            return -errno;
        if (stat(path, &there) == 0 && there.st_ino == mine.st_ino && there.st_dev == mine.st_dev) {
            *ret_fd = TAKE_FD(fd);
            return 0;
        }
        if (kind == LOCK_EXISTING_FILE)
            return -ENOENT;
    }
}

static int vm_dir(char **ret, const char *vm_id, struct ic_error *error)
{
    if (!path_vm_id_ok(vm_id))
        return ic_fail(error, IC_ERR_INVALID, "vm id: must be 1 to %d of the characters a-z A-Z 0-9 _ -", IC_VM_ID_MAX);
    return path_in(ret, error, IC_PATH_STATE, "vms/%s", vm_id);
}

static int open_entry(struct table_entry *ret, char *dir, const char *vm_id, bool create, uint64_t deadline)
{
    char path[PATH_SIZE];
    int fd, r;

    if ((size_t)snprintf(path, sizeof(path), "%s/lock", dir) >= sizeof(path))
        return -ENAMETOOLONG;
    r = lock_path(path, create ? LOCK_NEW_FILE : LOCK_EXISTING_FILE, deadline, &fd);
    if (r < 0)
        return r;
    (void)snprintf(ret->vm_id, sizeof(ret->vm_id), "%s", vm_id);
    ret->dir = dir;
    ret->lock_fd = fd;
    return 0;
}

static int claim_locked(struct table_entry *ret, char *dir, const struct record *record, struct ic_error *error)
{
    struct table_entry entry = {.lock_fd = -1};
    int r;

    if (mkdir(dir, 0700) < 0) {
        if (errno == EEXIST)
            return ic_fail(error, IC_ERR_EXISTS,
                    "VM '%s': the name is taken; choose another, or end that VM with 'ironclaw rm -f %s'",
                    record->vm_id, record->vm_id);
        return ic_fail_errno(error, -errno, "directory %s", dir);
    }
    r = open_entry(&entry, dir, record->vm_id, true, 0);
    if (r < 0) {
        (void)path_remove_tree(dir, NULL);
        return ic_fail_errno(error, r, "lock of VM '%s' in %s", record->vm_id, dir);
    }
    r = table_write(&entry, record, error);
    if (r < 0) {
        (void)path_remove_tree(dir, NULL);
        entry.dir = NULL; /* stays the caller's */
        fd_close(entry.lock_fd);
        return r;
    }
    *ret = entry;
    return 0;
}

/* With the claim lock held. What has ended and left only its logs takes nothing; of a record that can't be read it
 * counts whether processes live. */
/* The records are read only when it may matter: when their number says that there may be too many, or their memory
 * counts. */
static int count_usage(const struct limits *limits, struct limits_usage *ret, struct ic_error *error)
{
    struct limits_usage usage = {0};
    size_t count = 0;
    char **ids = NULL;
    int r = table_ids(&ids, &count, error);

    if (r < 0)
        return r;
    if (count < limits->max_vms && limits->max_total_memory_mib == 0) {
        usage.vms = (uint32_t)count;
        table_free_ids(ids, count);
        *ret = usage;
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        _cleanup_(freep) char *dir = NULL;
        struct record record = {0};

        if (table_read(&record, ids[i], NULL) < 0) {
            usage.vms += vm_dir(&dir, ids[i], NULL) == 0 && table_anyone_alive(dir);
            continue;
        }
        if (!state_is_final(record.state)) {
            usage.vms++;
            usage.memory_mib += record.memory_mib;
        }
        record_deinit(&record);
    }
    table_free_ids(ids, count);
    *ret = usage;
    return 0;
}

int table_claim(
        struct table_entry *ret, const struct record *record, const struct limits *limits, struct ic_error *error)
{
    struct limits_usage usage;
    _cleanup_(freep) char *vms = NULL, *dir = NULL;
    _cleanup_(fd_unlockp) int claim_fd = -1;
    int r;

    if ((r = path_in(&vms, error, IC_PATH_STATE, "vms")) < 0 || (r = vm_dir(&dir, record->vm_id, error)) < 0 ||
            (r = path_make_dir(vms, error)) < 0)
        return r;
    r = lock_path(vms, LOCK_DIRECTORY, deadline_after_ms(END_TIMEOUT_MS), &claim_fd);
    if (r < 0)
        return ic_fail_errno(error, r, "lock of %s", vms);
    if (limits && ((r = count_usage(limits, &usage, error)) < 0 ||
                          (r = limits_check_room(limits, &usage, record, error)) < 0))
        return r;
    r = claim_locked(ret, dir, record, error);
    if (r == 0)
        dir = NULL;
    return r;
}

int table_lock(struct table_entry *ret, const char *vm_id, uint64_t deadline, struct ic_error *error)
{
    _cleanup_(freep) char *dir = NULL;
    int r = vm_dir(&dir, vm_id, error);

    if (r < 0)
        return r;
    r = open_entry(ret, dir, vm_id, false, deadline);
    if (r == -ENOENT || r == -ENOTDIR)
        return ic_fail(error, IC_ERR_NOT_FOUND, "no VM '%s'; 'ironclaw ps -a' lists them", vm_id);
    if (r == -EWOULDBLOCK)
        return ic_fail(error, IC_ERR_TIMEOUT, "VM '%s': another command is changing it; try again", vm_id);
    if (r < 0)
        return ic_fail_errno(error, r, "lock of VM '%s' in %s", vm_id, dir);
    dir = NULL;
    return 0;
}

int table_read(struct record *ret, const char *vm_id, struct ic_error *error)
{
    _cleanup_(freep) char *dir = NULL, *text = NULL;
    char path[PATH_SIZE];
    size_t len = 0;
    int r = vm_dir(&dir, vm_id, error);

    if (r < 0)
        return r;
    if ((size_t)snprintf(path, sizeof(path), "%s/record.json", dir) >= sizeof(path))
        return ic_fail(error, IC_ERR_INVALID, "%s: path too long", dir);
    r = fd_read_file(AT_FDCWD, path, RECORD_MAX_BYTES, &text, &len);
    if (r == -ENOENT || r == -ENOTDIR)
        return ic_fail(error, IC_ERR_NOT_FOUND, "no VM '%s'; 'ironclaw ps -a' lists them", vm_id);
    if (r == -EFBIG)
        return ic_fail(error, IC_ERR_CORRUPT, "record %s: is damaged; 'ironclaw rm -f %s' removes it", path, vm_id);
    if (r < 0)
        return ic_fail_errno(error, r, "record %s", path);
    r = record_decode(ret, text, len);
    if (r == -ENOMEM)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    if (r == -EPROTONOSUPPORT)
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "record %s: another version of IronClaw started this VM; use that one, or 'ironclaw rm -f %s'", path,
                vm_id);
    if (r == 0 && strcmp(ret->vm_id, vm_id) != 0) {
        record_deinit(ret);
        r = -EBADMSG;
    }
    if (r < 0)
        return ic_fail(error, IC_ERR_CORRUPT, "record %s: is damaged; 'ironclaw rm %s' removes it", path, vm_id);
    return 0;
}

/* No fsync: after a power loss the boot id makes every record stale anyway, and a torn one is an orphan. */
static int replace_file(const char *dir, const char *text, size_t len)
{
    char path[PATH_SIZE], tmp[PATH_SIZE];
    _cleanup_(fd_closep) int fd = -1;
    int r;

    if ((size_t)snprintf(path, sizeof(path), "%s/record.json", dir) >= sizeof(path) ||
            (size_t)snprintf(tmp, sizeof(tmp), "%s/record.new", dir) >= sizeof(tmp))
        return -ENAMETOOLONG;
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    r = fd_write_all(fd, text, len, DEADLINE_NEVER);
    if (r == 0 && rename(tmp, path) < 0)
        r = -errno;
    if (r < 0)
        (void)unlink(tmp);
    return r;
}

int table_write(const struct table_entry *entry, const struct record *record, struct ic_error *error)
{
    _cleanup_(freep) char *text = record_encode(record);
    int r;

    if (!text)
        return ic_fail(error, IC_ERR_INVALID,
                "record of VM '%s': out of memory, or a path or variable that is not UTF-8", record->vm_id);
    if (strlen(text) > RECORD_MAX_BYTES)
        return ic_fail(error, IC_ERR_INVALID, "VM '%s': its environment is too large; at most about %u KiB",
                record->vm_id, RECORD_MAX_BYTES >> 10);
    r = replace_file(entry->dir, text, strlen(text));
    if (r == 0)
        vitals_put(entry->dir, record, NULL);
    return r < 0 ? ic_fail_errno(error, r, "record of VM '%s' in %s", record->vm_id, entry->dir) : 0;
}

static void log_change(const struct table_entry *entry, enum ic_vm_state from, enum ic_vm_state to, const char *cause)
{
    char path[PATH_SIZE], line[1024], when[32] = "";
    _cleanup_(fd_closep) int fd = -1;
    struct timespec now;
    struct stat st;
    struct tm tm;
    int n;

    if ((size_t)snprintf(path, sizeof(path), "%s/monitor.log", entry->dir) >= sizeof(path))
        return;
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > (off_t)LOG_MAX_BYTES)
        return; /* the change itself matters more than its line */
    clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &tm))
        (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
    n = snprintf(line, sizeof(line), "%s.%03ldZ ironclaw[%ld]: %s: %s -> %s: %s\n", when, now.tv_nsec / 1000000,
            (long)getpid(), entry->vm_id, ic_vm_state_name(from), ic_vm_state_name(to), cause);
    if (n >= (int)sizeof(line)) {
        n = (int)sizeof(line) - 1;
        line[n - 1] = '\n';
    }
    (void)fd_write_all(fd, line, (size_t)n, DEADLINE_NEVER);
}

int table_change(const struct table_entry *entry, struct record *record, enum ic_vm_state to, const char *cause,
        struct ic_error *error)
{
    enum ic_vm_state from = record->state;
    int r;

    if (!state_allowed(from, to))
        return ic_fail(error, IC_ERR_STATE, "VM '%s': is %s, from there it can't become %s", record->vm_id,
                ic_vm_state_name(from), ic_vm_state_name(to));
    record->state = to;
    if (to == IC_VM_FAILED)
        (void)log_escape(record->failure, sizeof(record->failure), cause, strlen(cause));
    if (state_is_final(to)) {
        record->run_dir_inode = 0; /* gone, and the number may be given again */
        record->monitor = (struct process_id){0};
        record->vsock = (struct process_id){0};
    }
    r = table_write(entry, record, error);
    if (r < 0) {
        record->state = from;
        return r;
    }
    log_change(entry, from, to, cause);
    return 0;
}

static int run_paths(const char *run_dir, char parent[PATH_SIZE], char link[PATH_SIZE])
{
    const char *slash = strrchr(run_dir, '/');

    if (!slash || slash == run_dir)
        return -EINVAL;
    if ((size_t)snprintf(parent, PATH_SIZE, "%.*s", (int)(slash - run_dir), run_dir) >= PATH_SIZE ||
            (size_t)snprintf(link, PATH_SIZE, "%s/state", run_dir) >= PATH_SIZE)
        return -ENAMETOOLONG;
    return 0;
}

int table_make_run_dir(const struct table_entry *entry, struct record *record, struct ic_error *error)
{
    const char *run_dir = record->run_dir;
    _cleanup_(fd_unlockp) int claim_fd = -1;
    char parent[PATH_SIZE], link[PATH_SIZE];
    struct stat st;
    int r = run_paths(run_dir, parent, link);

    if (r < 0)
        return ic_fail_errno(error, r, "runtime directory %s", run_dir);
    r = path_make_dir(parent, error);
    if (r < 0)
        return r;
    r = lock_path(parent, LOCK_DIRECTORY, deadline_after_ms(END_TIMEOUT_MS), &claim_fd);
    if (r < 0)
        return ic_fail_errno(error, r, "lock of the runtime directory %s", parent);
    if (mkdir(run_dir, 0700) < 0) {
        if (errno == EEXIST)
            return ic_fail(error, IC_ERR_EXISTS,
                    "%s: is there already, of a VM with another state directory; choose another name", run_dir);
        return ic_fail_errno(error, -errno, "directory %s", run_dir);
    }
    if (lstat(run_dir, &st) < 0 || symlink(entry->dir, link) < 0) {
        r = -errno;
        (void)rmdir(run_dir);
        return ic_fail_errno(error, r, "link %s", link);
    }
    record->run_dir_inode = st.st_ino;
    return 0;
}

int table_remove_run_dir(const struct table_entry *entry, const char *run_dir, uint64_t inode, struct ic_error *error)
{
    char parent[PATH_SIZE], link[PATH_SIZE], target[PATH_SIZE];
    const char *slash = strrchr(run_dir, '/');
    struct stat st;
    ssize_t n;

    if (run_paths(run_dir, parent, link) < 0 || strcmp(slash + 1, entry->vm_id) != 0)
        return ic_fail(error, IC_ERR_CORRUPT, "record of VM '%s': runtime directory '%s' is not its own", entry->vm_id,
                run_dir);
    /* The link may be gone, or lie: the monitor may write here. */
    if (inode != 0 && lstat(run_dir, &st) == 0 && st.st_ino == inode && S_ISDIR(st.st_mode))
        return path_remove_tree(run_dir, error);
    n = readlink(link, target, sizeof(target) - 1);
    if (n < 0)
        return 0; /* never made, or not ours; what is half made is reap's, which takes the claim lock */
    target[n] = '\0';
    return strcmp(target, entry->dir) == 0 ? path_remove_tree(run_dir, error) : 0;
}

int table_hold_alive(const struct table_entry *entry, int *ret_fd, struct ic_error *error)
{
    char path[PATH_SIZE];
    _cleanup_(fd_closep) int fd = -1;
    int r = -ENAMETOOLONG;

    if ((size_t)snprintf(path, sizeof(path), "%s/alive", entry->dir) < sizeof(path)) {
        fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0 ? -errno : fd_above_stdio(&fd);
    }
    if (r < 0)
        return ic_fail_errno(error, r, "lock %s", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

bool table_anyone_alive(const char *dir)
{
    char path[PATH_SIZE];
    _cleanup_(fd_closep) int fd = -1;

    if ((size_t)snprintf(path, sizeof(path), "%s/alive", dir) >= sizeof(path))
        return false;
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno != ENOENT;
    return flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

int table_end_processes(const struct table_entry *entry, const struct record *record, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(END_TIMEOUT_MS);
    char boot_id[BOOT_ID_SIZE];
    /* A creator that died between fork and its next record knew of processes that the record does not name; the record
     * names all of them or none. */
    bool all_known = record && record->monitor.pid > 0;
    int r = process_boot_id(boot_id);

    if (r == 0 && record && strcmp(boot_id, record->boot_id) == 0) {
        r = process_kill(&record->monitor, deadline);
        if (r == 0)
            r = process_kill(&record->vsock, deadline);
    }
    while (r >= 0 && (!all_known || table_anyone_alive(entry->dir))) {
        all_known = true;
        r = process_kill_marked(entry->dir, deadline);
        if (r < 0 || !table_anyone_alive(entry->dir))
            break;
        if (deadline_poll_ms(deadline) == 0)
            r = -ETIMEDOUT;
        sleep_ms(2); /* a child between fork and execve holds the lock, but has no mark yet */
    }
    if (r >= 0 && record)
        r = confine_end(record, deadline);
    if (r < 0)
        return ic_fail_errno(error, r, "VM '%s': its processes could not be ended", entry->vm_id);
    audit_take_over(entry->dir, entry->vm_id, record);
    return 0;
}

int table_remove_claimed(struct table_entry *entry, const struct record *record, struct ic_error *error)
{
    int r = record && record->run_dir ? table_remove_run_dir(entry, record->run_dir, record->run_dir_inode, error) : 0;
    char path[PATH_SIZE];

    /* The record before the rest: killed in between, we leave a directory without one, which reap knows. One with a
     * record and without a lock would be nobody's. */
    if (r == 0 && (size_t)snprintf(path, sizeof(path), "%s/record.json", entry->dir) < sizeof(path) &&
            unlink(path) < 0 && errno != ENOENT)
        r = ic_fail_errno(error, -errno, "remove %s", path);
    if (r == 0)
        r = path_remove_tree(entry->dir, error);
    table_entry_deinit(entry);
    return r;
}

int table_remove(struct table_entry *entry, const struct record *record, struct ic_error *error)
{
    _cleanup_(freep) char *vms = NULL;
    _cleanup_(fd_unlockp) int claim_fd = -1;
    int r = path_in(&vms, error, IC_PATH_STATE, "vms");

    /* Once the directory's lock file is gone, reap may take the rest and somebody else the name: not before we are
     * done with the path. Without the lock it is removed all the same. */
    if (r == 0)
        (void)lock_path(vms, LOCK_DIRECTORY, deadline_after_ms(END_TIMEOUT_MS), &claim_fd);
    return table_remove_claimed(entry, record, error);
}

void table_free_ids(char **ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(ids[i]);
    free(ids);
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int table_ids(char ***ret, size_t *ret_count, struct ic_error *error)
{
    _cleanup_(freep) char *vms = NULL;
    struct dirent *entry;
    char **ids = NULL;
    size_t count = 0;
    struct stat st;
    DIR *dir;
    int r = path_in(&vms, error, IC_PATH_STATE, "vms");

    if (r < 0)
        return r;
    r = path_check_dir(vms, error); /* root with another user's HOME must not believe that user's records */
    if (r < 0 && r != -IC_ERR_NOT_FOUND)
        return r;
    dir = r == 0 ? opendir(vms) : NULL;
    if (r == 0 && !dir)
        return ic_fail_errno(error, -errno, "directory %s", vms);
    r = 0;
    while (dir && r == 0 && (entry = readdir(dir))) {
        char **grown;

        /* A VM is a directory; whatever else lies here is not ours. */
        if (!path_vm_id_ok(entry->d_name) || fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
                !S_ISDIR(st.st_mode))
            continue;
        grown = realloc(ids, (count + 1) * sizeof(*ids));
        if (grown)
            ids = grown;
        if (!grown || !(ids[count] = strdup(entry->d_name)))
            r = ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
        else
            count++;
    }
    if (dir)
        closedir(dir);
    if (r < 0) {
        table_free_ids(ids, count);
        return r;
    }
    if (count > 0)
        qsort(ids, count, sizeof(*ids), compare_ids);
    *ret = ids;
    *ret_count = count;
    return 0;
}
