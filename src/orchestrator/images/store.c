/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "orchestrator/images/subprocess.h"
#include "orchestrator/images/userns.h"
#include "orchestrator/paths.h"

#define TMP_PREFIX ".tmp-"
#define COPY_CHUNK ((size_t)1 << 30)

static const char *const store_dir[] = {
        [STORE_IMAGES] = "images",
        [STORE_KERNELS] = "kernels",
        [STORE_TEMPLATES] = "templates",
        [STORE_SNAPSHOTS] = "snapshots",
};

int store_path(enum store_kind store, const char *object, const char *file, char **ret, struct ic_error *error)
{
    return file ? path_in(ret, error, IC_PATH_DATA, "%s/%s/%s", store_dir[store], object, file)
                : path_in(ret, error, IC_PATH_DATA, "%s/%s", store_dir[store], object);
}

int store_remove_tree(const char *path, struct ic_error *error)
{
    struct ic_error first = {0};
    int r = path_remove_tree(path, &first);

    if (r < 0 && first.code == IC_ERR_DENIED && geteuid() != 0) {
        const char *const rm[] = {"rm", "-rf", "--one-file-system", "--", path, NULL};

        (void)userns_run(&(struct subprocess){.argv = rm}, NULL);
        r = path_remove_tree(path, &first);
    }
    if (r < 0 && error)
        *error = first;
    return r;
}

static int list_dir(const char *path, struct strlist *ret, bool (*want)(const char *, const void *), const void *arg,
        struct ic_error *error)
{
    DIR *dir = opendir(path);
    int r = 0;

    if (!dir)
        return errno == ENOENT ? 0 : ic_fail_errno(error, -errno, "%s", path);
    for (struct dirent *entry; r == 0 && (entry = readdir(dir));) {
        if (want(entry->d_name, arg))
            r = strlist_add(ret, entry->d_name, error);
    }
    (void)closedir(dir);
    return r;
}

static bool is_entry(const char *name, const void *arg)
{
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

int store_entries(const char *path, struct strlist *ret, struct ic_error *error)
{
    return list_dir(path, ret, is_entry, NULL, error);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_prefix(const char *name, const void *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0 && (name[0] != '.' || ((const char *)prefix)[0] == '.') &&
           strcmp(name, "names") != 0;
}

static bool is_name(const char *name, const void *arg)
{
    return path_image_name_ok(name);
}

int store_list(enum store_kind store, struct strlist *ret, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    int r = store_path(store, "names", NULL, &path, error);

    if (r == 0)
        r = list_dir(path, ret, is_name, NULL, error);
    if (r == 0 && ret->count > 1)
        qsort(ret->items, ret->count, sizeof(*ret->items), compare);
    return r;
}

int store_find(enum store_kind store, const char *prefix, struct strlist *ret, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    int r = path_in(&path, error, IC_PATH_DATA, "%s", store_dir[store]);

    return r < 0 ? r : list_dir(path, ret, has_prefix, prefix, error);
}

int store_resolve(enum store_kind store, const char *name, char **ret, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    char target[256];
    ssize_t n;
    int r;

    if (!path_image_name_ok(name))
        return ic_fail(error, IC_ERR_INVALID, "'%.128s' is not a name: use a-z, 0-9, '.', '_', '-', at most 64", name);
    r = store_path(store, "names", name, &path, error);
    if (r < 0)
        return r;
    n = readlink(path, target, sizeof(target) - 1);
    if (n < 0 && errno == ENOENT)
        return -IC_ERR_NOT_FOUND;
    if (n < 0)
        return ic_fail_errno(error, -errno, "%s", path);
    target[n] = '\0';
    if (strncmp(target, "../", 3) != 0 || target[3] == '.' || target[3] == '\0' || strchr(target + 3, '/'))
        return ic_fail(error, IC_ERR_CORRUPT, "%s: points outside of the store", path);
    return text_format(ret, error, "%s", target + 3);
}

/* The store's directory and its lock. */
static int lock(enum store_kind store, char **ret_path, int *ret_fd, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *names = NULL;
    _cleanup_(freep) char *file = NULL;
    _cleanup_(fd_closep) int fd = -1;
    int r = path_in(&path, error, IC_PATH_DATA, "%s", store_dir[store]);

    if (r == 0)
        r = text_format(&names, error, "%s/names", path);
    if (r == 0)
        r = path_make_dir(names, error);
    if (r == 0)
        r = text_format(&file, error, "%s/.lock", path);
    if (r != 0)
        return r;
    fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return ic_fail_errno(error, -errno, "%s", file);
    while (flock(fd, LOCK_EX) < 0) {
        if (errno != EINTR)
            return ic_fail_errno(error, -errno, "%s", file);
    }
    *ret_path = TAKE_PTR(path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* Removes a directory that nobody holds a flock on, nor needs. */
static int remove_unused(const char *store, const char *name, store_needed_fn needed, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist users = {0};
    _cleanup_(freep) char *path = NULL;
    _cleanup_(fd_unlockp) int fd = -1;
    int r = text_format(&path, error, "%s/%s", store, name);

    if (r < 0)
        return r;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return ic_fail_errno(error, -errno, "%s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return ic_fail(error, IC_ERR_STATE, "%s: another command is using it; try again", path);
    r = needed ? needed(&users, error) : 0;
    if (r < 0)
        return r;
    if (strlist_has(&users, name))
        return ic_fail(error, IC_ERR_STATE, "%s: is needed", path);
    return store_remove_tree(path, error);
}

/* The objects that have names. A name that can't be read must not cost its object. */
static int named(enum store_kind store, struct strlist *ret, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist names = {0};
    int r = store_list(store, &names, error);

    for (size_t i = 0; r == 0 && i < names.count; i++) {
        _cleanup_(freep) char *object = NULL;

        r = store_resolve(store, names.items[i], &object, error);
        if (r == 0)
            r = strlist_add(ret, object, error);
    }
    return r;
}

/* With the lock held: what killed builds left, and objects without a name; without `needed` no images. */
static void collect(enum store_kind store, const char *path, store_needed_fn needed)
{
    _cleanup_(strlist_deinit) struct strlist all = {0}, used = {0};

    if (store_find(store, TMP_PREFIX, &all, NULL) < 0 || named(store, &used, NULL) < 0)
        return;
    if ((store != STORE_IMAGES || needed) && store_find(store, "", &all, NULL) < 0)
        return;
    for (size_t i = 0; i < all.count; i++) {
        if (!strlist_has(&used, all.items[i]))
            (void)remove_unused(path, all.items[i], all.items[i][0] == '.' ? NULL : needed, NULL);
    }
}

void store_collect(enum store_kind store, store_needed_fn needed)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1;

    if (lock(store, &path, &lock_fd, NULL) == 0)
        collect(store, path, needed);
}

int store_remove_object(enum store_kind store, const char *object, store_needed_fn needed, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist used = {0};
    _cleanup_(freep) char *path = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1;
    int r = lock(store, &path, &lock_fd, error);

    if (r == 0)
        r = named(store, &used, error);
    if (r < 0)
        return r;
    if (strlist_has(&used, object))
        return ic_fail(error, IC_ERR_STATE, "%s/%s: has got a name meanwhile", path, object);
    return remove_unused(path, object, needed, error);
}

void store_sweep(enum store_kind store)
{
    _cleanup_(strlist_deinit) struct strlist left = {0};
    _cleanup_(freep) char *path = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1;

    if (store_find(store, TMP_PREFIX, &left, NULL) < 0 || left.count == 0 || lock(store, &path, &lock_fd, NULL) < 0)
        return;
    for (size_t i = 0; i < left.count; i++)
        (void)remove_unused(path, left.items[i], NULL, NULL);
}

int workdir_make(enum store_kind store, struct workdir *ret, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *tmp = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1, fd = -1;
    int r = lock(store, &path, &lock_fd, error);

    if (r < 0)
        return r;
    collect(store, path, NULL);
    r = text_format(&tmp, error, "%s/" TMP_PREFIX "XXXXXX", path);
    if (r < 0)
        return r;
    if (!mkdtemp(tmp))
        return ic_fail_errno(error, -errno, "%s", tmp);
    fd = open(tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
        r = ic_fail_errno(error, -errno, "%s", tmp);
        (void)rmdir(tmp);
        return r;
    }
    *ret = (struct workdir){.store = store, .path = TAKE_PTR(tmp), .lock_fd = TAKE_FD(fd)};
    return 0;
}

void workdir_drop(struct workdir *workdir)
{
    if (workdir->path)
        (void)store_remove_tree(workdir->path, NULL);
    free(workdir->path);
    fd_unlock(workdir->lock_fd);
    *workdir = (struct workdir)WORKDIR_NONE;
}

static int set_name(const char *store, const char *name, const char *object, struct ic_error *error)
{
    _cleanup_(freep) char *link = NULL;
    _cleanup_(freep) char *tmp = NULL;
    _cleanup_(freep) char *target = NULL;
    int r = text_format(&link, error, "%s/names/%s", store, name);

    if (r == 0)
        r = text_format(&tmp, error, "%s/names/.new", store);
    if (r == 0)
        r = text_format(&target, error, "../%s", object);
    if (r != 0)
        return r;
    (void)unlink(tmp);
    if (symlink(target, tmp) < 0 || rename(tmp, link) < 0) {
        r = ic_fail_errno(error, -errno, "%s", link);
        (void)unlink(tmp);
    }
    return r;
}

int workdir_commit(struct workdir *workdir, const char *object, const char *name, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *to = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1;
    int r = lock(workdir->store, &path, &lock_fd, error);

    if (r == 0)
        r = text_format(&to, error, "%s/%s", path, object);
    if (r != 0)
        return r;
    if (fsync(workdir->lock_fd) < 0)
        return ic_fail_errno(error, -errno, "%s", workdir->path);
    if (renameat2(AT_FDCWD, workdir->path, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
        free(TAKE_PTR(workdir->path));
    } else if (errno != EEXIST || renameat2(AT_FDCWD, workdir->path, AT_FDCWD, to, RENAME_EXCHANGE) < 0) {
        return ic_fail_errno(error, -errno, "%s", to);
    }
    r = set_name(path, name, object, error);
    /* After an exchange, what was there before is in the build directory now. */
    workdir_drop(workdir);
    if (r == 0)
        collect(workdir->store, path, NULL);
    return r;
}

int store_lock_build(enum store_kind store, const struct progress *progress, int *ret_fd, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *file = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1, fd = -1;
    int r = lock(store, &path, &lock_fd, error);

    if (r == 0)
        r = text_format(&file, error, "%s/.build", path);
    if (r != 0)
        return r;
    fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return ic_fail_errno(error, -errno, "%s", file);
    fd_unlock(TAKE_FD(lock_fd));
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return ic_fail_errno(error, -errno, "%s", file);
        r = progress_report(progress, "waiting for another build to end", 0, 0, error);
        if (r < 0)
            return r;
        if (poll(NULL, 0, 100) < 0 && !(progress && progress->fn))
            return ic_fail(error, IC_ERR_CANCELLED, "cancelled by a signal while another command changes %s", path);
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int store_remove_name(enum store_kind store, const char *name, const char *object, struct ic_error *error)
{
    _cleanup_(freep) char *now = NULL;
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *link = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1;
    int r = lock(store, &path, &lock_fd, error);

    if (r == 0)
        r = text_format(&link, error, "%s/names/%s", path, name);
    if (r != 0)
        return r;
    if (object && (store_resolve(store, name, &now, error) < 0 || strcmp(now, object) != 0))
        return ic_fail(error, IC_ERR_STATE, "'%.128s' was made anew or removed meanwhile; look again", name);
    if (unlink(link) < 0)
        return ic_fail_errno(error, -errno, "%s", link);
    collect(store, path, NULL);
    return 0;
}

static int copy_file(const char *from, const char *to, struct ic_error *error)
{
    _cleanup_(fd_closep) int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), out = -1;
    ssize_t n;

    if (in < 0)
        return ic_fail_errno(error, -errno, "%s", from);
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0)
        return ic_fail_errno(error, -errno, "%s", to);
    do
        n = copy_file_range(in, NULL, out, NULL, COPY_CHUNK, 0);
    while (n > 0 || (n < 0 && errno == EINTR));
    /* From one kind of file system to another the kernel does not copy, except so. Nothing has been by then. */
    if (n < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)) {
        do
            n = sendfile(out, in, NULL, COPY_CHUNK);
        while (n > 0 || (n < 0 && errno == EINTR));
    }
    return n < 0 ? ic_fail_errno(error, -errno, "%s", to) : 0;
}

int store_link_file(const char *from, const char *to, struct ic_error *error)
{
    if (link(from, to) == 0)
        return 0;
    if (errno != EPERM && errno != EMLINK && errno != EXDEV)
        return ic_fail_errno(error, -errno, "%s", to);
    return copy_file(from, to, error);
}
