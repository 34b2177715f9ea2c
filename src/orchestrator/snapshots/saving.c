/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/snapshots/saving.h"

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
#include "orchestrator/backends/backend.h"
#include "orchestrator/images/text.h"
#include "orchestrator/paths.h"
#include "orchestrator/session.h"
#include "orchestrator/snapshots/freeze.h"

#define PREFIX       "saving-"
#define PATIENCE_S   60
#define HELD_WAIT_MS 5000u
#define HELD_POLL_US 2000u

static int lock(int fd, int how)
{
    int r;

    do
        r = flock(fd, how) < 0 ? -errno : 0;
    while (r == -EINTR);
    return r;
}

/* What its monitor wrote and nobody took over. */
static void remove_saved(const char *run_dir)
{
    static const char *const names[] = {BACKEND_STATE, BACKEND_MEMORY, BACKEND_STATE ".new", BACKEND_MEMORY ".new"};
    _cleanup_(fd_closep) int fd = open(run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    for (size_t i = 0; fd >= 0 && i < ARRAY_SIZE(names); i++)
        (void)unlinkat(fd, names[i], 0);
}

/* A copy opens it anew. */
static int check_disk(const struct record *record, struct ic_error *error)
{
    if (!record->rootfs_path || access(record->rootfs_path, F_OK) == 0 || errno != ENOENT)
        return 0;
    return ic_fail(error, IC_ERR_NOT_FOUND,
            "VM '%s': its root disk %s%s%s is not there any more, so no copy of it could start; only the very same can "
            "take its place",
            record->vm_id, record->rootfs_path, record->image[0] ? ", of image " : "", record->image);
}

int saving_begin(
        const struct table_entry *entry, const struct record *record, struct saving *ret, struct ic_error *error)
{
    _cleanup_(freep) char *dir = NULL, *run_dir = strdup(record->run_dir);
    int fd, r = check_disk(record, error);

    if (r == 0)
        r = text_format(&dir, error, "%s/" PREFIX "XXXXXX", entry->dir);
    if (r == 0 && !run_dir)
        r = ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    if (r < 0)
        return r;
    if (!mkdtemp(dir))
        return ic_fail_errno(error, -errno, "directory %s", dir);
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    r = fd < 0 ? -errno : lock(fd, LOCK_EX); /* who looks whether it is free holds it for a moment */
    if (r < 0) {
        fd_close(fd);
        (void)rmdir(dir);
        return ic_fail_errno(error, r, "directory %s", dir);
    }
    *ret = (struct saving){.dir = TAKE_PTR(dir), .run_dir = TAKE_PTR(run_dir), .lock_fd = fd, .held_fd = -1};
    return 0;
}

void saving_end(struct saving *saving)
{
    if (saving->dir && !saving->held) {
        remove_saved(saving->run_dir);
        (void)path_remove_tree(saving->dir, NULL);
    }
    free(saving->dir);
    free(saving->run_dir);
    fd_unlock(saving->lock_fd);
    fd_unlock(saving->held_fd);
    *saving = (struct saving)SAVING_NONE;
}

static int held_path(char **ret, const struct saving *saving, struct ic_error *error)
{
    const char *slash = strrchr(saving->dir, '/');

    return text_format(ret, error, "%.*s/" SESSION_HELD, (int)(slash - saving->dir), saving->dir);
}

int saving_hold(struct saving *saving, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    uint64_t deadline = deadline_after_ms(HELD_WAIT_MS);
    int fd, r = held_path(&path, saving, error);

    if (r < 0)
        return r;
    fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    r = fd < 0 ? -errno : lock(fd, LOCK_EX | LOCK_NB);
    while (r == -EWOULDBLOCK && deadline_poll_ms(deadline) != 0) { /* who looks at it holds it for a moment */
        (void)usleep(HELD_POLL_US);
        r = lock(fd, LOCK_EX | LOCK_NB);
    }
    if (r < 0) {
        if (fd >= 0)
            (void)unlink(path); /* nobody else saves this VM */
        fd_close(fd);
        return ic_fail_errno(error, r, "file %s", path);
    }
    saving->held_fd = fd;
    saving->held = true;
    return 0;
}

void saving_release(struct saving *saving)
{
    _cleanup_(freep) char *path = NULL;

    if (held_path(&path, saving, NULL) == 0)
        (void)unlink(path);
    (void)flock(saving->held_fd, LOCK_UN); /* a child that was just forked may still have it */
    fd_unlock(saving->held_fd);
    saving->held_fd = -1;
    saving->held = false;
}

/* Since when it has been there. */
static bool is_old(int fd)
{
    struct timespec now;
    struct stat st;

    clock_gettime(CLOCK_REALTIME, &now);
    return fstat(fd, &st) == 0 && now.tv_sec - st.st_mtim.tv_sec > PATIENCE_S;
}

/* Nobody saves this VM while we hold its lock. One that was paused by its user has to wait until it is not. */
static int undo(struct table_entry *entry, const char *name, int fd, struct ic_error *error)
{
    _cleanup_(record_deinitp) struct record record = {0};
    _cleanup_(freep) char *dir = NULL, *held = NULL;
    int r = table_read(&record, entry->vm_id, error);

    if (r < 0 || record.state == IC_VM_PAUSED)
        return r;
    if (record.state == IC_VM_READY && freeze_undo(&record, NULL) < 0) {
        /* The directory stays, so that the next command tries it again; but not for ever. */
        return is_old(fd) ? table_settle(entry, &record, error) : 0;
    }
    remove_saved(record.run_dir);
    r = text_format(&held, error, "%s/" SESSION_HELD, entry->dir);
    if (r == 0)
        r = text_format(&dir, error, "%s/%s", entry->dir, name);
    if (r < 0)
        return r;
    (void)unlink(held);
    return path_remove_tree(dir, error);
}

static int reap_one(int dir_fd, const char *vm_id, const char *name, struct ic_error *error)
{
    _cleanup_(entry_deinitp) struct table_entry entry = {.lock_fd = -1};
    _cleanup_(fd_closep) int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || lock(fd, LOCK_EX | LOCK_NB) < 0)
        return 0;
    if (table_lock(&entry, vm_id, 0, NULL) < 0)
        return 0; /* its holder may be the one that has just made it; or changes the VM: the next command sees to it */
    return undo(&entry, name, fd, error);
}

int saving_reap(const char *vm_id, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    struct dirent *item;
    DIR *dir;
    int r = path_in(&path, error, IC_PATH_STATE, "vms/%s", vm_id);

    dir = r == 0 ? opendir(path) : NULL;
    if (!dir)
        return r;
    while (r == 0 && (item = readdir(dir))) {
        if (strncmp(item->d_name, PREFIX, strlen(PREFIX)) == 0)
            r = reap_one(dirfd(dir), vm_id, item->d_name, error);
    }
    (void)closedir(dir);
    return r;
}
