/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/macro.h"

#define TEMP_TRIES 16

const char *tree_why(int error)
{
    switch (-error) {
    case EISDIR:
        return "is a directory and can't be replaced";
    case ENOTDIR:
    case ELOOP:
        return "exists, or its parent does, and is not a directory";
    case EEXIST:
        return "exists and is not a file, directory or symlink";
    default:
        return NULL;
    }
}

/* ---- the destination --------------------------------------------------- */

/* dest does not exist as a directory: its parent is the base, its last part the copy's name. */
static int open_parent(struct tree *t, const char *dest)
{
    char parent[WIRE_MAX_PATH];
    struct wire_str name = transfer_base_name(dest);
    size_t n;

    if (name.len == 0)
        return -ENOENT;
    if (name.len >= sizeof(t->top))
        return -ENAMETOOLONG;
    n = (size_t)(name.s - dest);
    memcpy(parent, n > 0 ? dest : ".", n > 0 ? n : 1);
    parent[n > 0 ? n : 1] = '\0';
    t->base_fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (t->base_fd < 0)
        return -errno;
    memcpy(t->top, name.s, name.len);
    t->top[name.len] = '\0';
    t->dir_only = name.s[name.len] == '/';
    return 0;
}

int tree_open(struct tree *t, const struct transfer_receive_options *options)
{
    const char *name = options->name ? options->name : "";
    size_t len = strlen(options->dest);
    struct stat st;
    int n;

    *t = (struct tree){
            .mode_mask = options->mode_mask ? options->mode_mask & 07777 : 0777,
            .keep_owner = options->keep_owner,
            .base_fd = -1,
            .file_fd = -1,
    };
    while (len > 1 && options->dest[len - 1] == '/')
        len--;
    (void)snprintf(t->shown, sizeof(t->shown), "%.*s", (int)MIN(len, sizeof(t->shown)), options->dest);
    if (len == 0)
        return -ENOENT;
    if (len >= sizeof(t->shown) || strlen(name) >= sizeof(t->top))
        return -ENAMETOOLONG;
    if (!wire_path_ok(name, strlen(name)) || strchr(name, '/'))
        return -EINVAL;
    /* The destination is the caller's own word: symlinks in it count, up to the directory that receives the copy. */
    if (stat(options->dest, &st) < 0 || !S_ISDIR(st.st_mode))
        return open_parent(t, options->dest);
    t->base_fd = open(options->dest, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (t->base_fd < 0)
        return -errno;
    memcpy(t->top, name, strlen(name) + 1);
    n = snprintf(t->shown, sizeof(t->shown), "%.*s%s%s", (int)len, options->dest,
            *name && options->dest[len - 1] != '/' ? "/" : "", name);
    return n < 0 || (size_t)n >= sizeof(t->shown) ? -ENAMETOOLONG : 0;
}

/* ---- attributes --------------------------------------------------------- */

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* Owner first, since chown clears mode bits. Times are as good as the file system can store them, so never an error. */
static int apply_attrs(const struct tree *t, int fd, const struct tree_attrs *a)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, timespec_of(a->mtime_ns)};

    if (t->keep_owner && fchown(fd, a->uid, a->gid) < 0)
        return -errno;
    if (fchmod(fd, a->mode & t->mode_mask) < 0)
        return -errno;
    (void)futimens(fd, times);
    return 0;
}

/* ---- the stack of open directories --------------------------------------- */

static int pop(struct tree *t)
{
    struct tree_level *l = &t->stack[--t->depth];
    int r = l->made ? apply_attrs(t, l->fd, &l->attrs) : 0;

    fd_close(l->fd);
    return r;
}

static size_t top_len(const struct tree *t)
{
    return t->depth > 0 ? t->stack[t->depth - 1].path_len : 0;
}

static int top_fd(const struct tree *t)
{
    return t->depth > 0 ? t->stack[t->depth - 1].fd : t->base_fd;
}

/* Opens the directory `name` of the innermost one; a symlink is ENOTDIR or ELOOP. */
static int push(struct tree *t, const char *name, const struct tree_attrs *made)
{
    const int flags = O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    size_t len = top_len(t), n = strlen(name), sep = len > 0 ? 1 : 0;
    int fd;

    if (t->depth == ARRAY_SIZE(t->stack) || len + sep + n >= sizeof(t->path))
        return -ENAMETOOLONG;
    fd = openat(top_fd(t), name, O_RDONLY | flags);
    if (fd < 0 && errno == EACCES && !made)
        fd = openat(top_fd(t), name, O_PATH | flags); /* one that was there and may be entered, but not listed */
    if (fd < 0)
        return -errno;
    if (sep)
        t->path[len] = '/';
    memcpy(t->path + len + sep, name, n);
    t->stack[t->depth++] = (struct tree_level){
            .fd = fd, .made = made, .attrs = made ? *made : (struct tree_attrs){0}, .path_len = len + sep + n};
    return 0;
}

/* Does `full` lie strictly below the directory of this level? */
static bool below(const struct tree *t, const struct tree_level *l, const char *full, size_t len)
{
    return l->path_len < len && full[l->path_len] == '/' && memcmp(t->path, full, l->path_len) == 0;
}

/* Makes the parent of the entry the innermost open directory, and copies the entry's own name. */
static int enter_parent(struct tree *t, const char *path, size_t len, char ret_leaf[256])
{
    char full[WIRE_MAX_PATH + 256];
    size_t full_len, at;
    int r;

    full_len = strlen(t->top);
    memcpy(full, t->top, full_len);
    if (len > 0 && full_len > 0)
        full[full_len++] = '/';
    memcpy(full + full_len, path, len);
    full_len += len;
    full[full_len] = '\0';

    while (t->depth > 0 && !below(t, &t->stack[t->depth - 1], full, full_len)) {
        r = pop(t);
        if (r < 0)
            return r;
    }
    at = t->depth > 0 ? top_len(t) + 1 : 0;
    for (;;) {
        char *slash = memchr(full + at, '/', full_len - at);
        size_t n = slash ? (size_t)(slash - full) - at : full_len - at;

        memcpy(ret_leaf, full + at, n);
        ret_leaf[n] = '\0';
        if (!slash)
            return 0;
        r = push(t, ret_leaf, NULL);
        if (r < 0)
            return r;
        at += n + 1;
    }
}

/* ---- entries -------------------------------------------------------------- */

/* What an existing name may be replaced by: a directory by nothing, special files by nothing. */
static int may_replace(int dirfd, const char *name)
{
    struct stat st;

    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    return S_ISREG(st.st_mode) || S_ISLNK(st.st_mode) ? 0 : -EEXIST;
}

static int temp_name(char ret[TREE_TEMP_SIZE])
{
    uint64_t random;

    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return -EIO;
    (void)snprintf(ret, TREE_TEMP_SIZE, ".ironclaw-%016llx", (unsigned long long)random);
    return 0;
}

int tree_directory(struct tree *t, const char *path, size_t len, const struct tree_attrs *attrs)
{
    char leaf[256];
    struct stat st;
    int r;

    if (len == 0 && t->top[0] == '\0')
        return 0; /* the existing destination itself */
    r = enter_parent(t, path, len, leaf);
    if (r < 0)
        return r;
    if (mkdirat(top_fd(t), leaf, 0700) == 0) {
        r = push(t, leaf, attrs);
        if (r < 0)
            (void)unlinkat(top_fd(t), leaf, AT_REMOVEDIR);
        return r;
    }
    if (errno != EEXIST)
        return -errno;
    if (fstatat(top_fd(t), leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return S_ISDIR(st.st_mode) ? push(t, leaf, NULL) : -ENOTDIR;
}

static int replace_symlink(struct tree *t, const char *target, const char *leaf)
{
    char temp[TREE_TEMP_SIZE];
    int r = may_replace(top_fd(t), leaf);

    for (int i = 0; r == 0; i++) {
        r = temp_name(temp);
        if (r < 0)
            return r;
        if (symlinkat(target, top_fd(t), temp) == 0)
            break;
        if (errno != EEXIST || i == TEMP_TRIES)
            return -errno;
    }
    if (r == 0 && renameat(top_fd(t), temp, top_fd(t), leaf) < 0) {
        r = -errno;
        (void)unlinkat(top_fd(t), temp, 0);
    }
    return r;
}

int tree_symlink(struct tree *t, const char *path, size_t len, const char *target, const struct tree_attrs *attrs)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, timespec_of(attrs->mtime_ns)};
    char leaf[256];
    int r;

    if (len == 0 && t->top[0] == '\0')
        return -EISDIR;
    if (len == 0 && t->dir_only)
        return -ENOTDIR;
    r = enter_parent(t, path, len, leaf);
    if (r == 0 && symlinkat(target, top_fd(t), leaf) < 0)
        r = errno == EEXIST ? replace_symlink(t, target, leaf) : -errno;
    if (r < 0)
        return r;
    (void)utimensat(top_fd(t), leaf, times, AT_SYMLINK_NOFOLLOW);
    if (t->keep_owner && fchownat(top_fd(t), leaf, attrs->uid, attrs->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return 0;
}

int tree_file(struct tree *t, const char *path, size_t len, const struct tree_attrs *attrs)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC;
    int r;

    if (len == 0 && t->top[0] == '\0')
        return -EISDIR;
    if (len == 0 && t->dir_only)
        return -ENOTDIR;
    r = enter_parent(t, path, len, t->leaf);
    if (r < 0)
        return r;
    t->file_attrs = *attrs;
    t->file_temp = false;
    t->file_fd = openat(top_fd(t), t->leaf, flags, 0600);
    if (t->file_fd >= 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    r = may_replace(top_fd(t), t->leaf);
    for (int i = 0; r == 0 && t->file_fd < 0; i++) {
        r = temp_name(t->temp);
        if (r < 0)
            return r;
        t->file_fd = openat(top_fd(t), t->temp, flags, 0600);
        if (t->file_fd < 0 && (errno != EEXIST || i == TEMP_TRIES))
            return -errno;
    }
    t->file_temp = r == 0;
    return r;
}

int tree_write(struct tree *t, const void *data, size_t len, uint64_t offset)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = pwrite(t->file_fd, p, len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static void abort_file(struct tree *t)
{
    fd_close(t->file_fd);
    t->file_fd = -1;
    (void)unlinkat(top_fd(t), t->file_temp ? t->temp : t->leaf, 0);
}

int tree_file_end(struct tree *t, uint64_t size)
{
    struct stat st;
    int r = 0;

    /* A hole at the end was not written. */
    if (fstat(t->file_fd, &st) < 0 || ((uint64_t)st.st_size < size && ftruncate(t->file_fd, (off_t)size) < 0))
        r = -errno;
    if (r == 0)
        r = apply_attrs(t, t->file_fd, &t->file_attrs);
    if (r == 0) {
        r = close(t->file_fd) < 0 && errno != EINTR ? -errno : 0;
        t->file_fd = -1;
    }
    if (r == 0 && t->file_temp && renameat(top_fd(t), t->temp, top_fd(t), t->leaf) < 0)
        r = -errno;
    if (r < 0)
        abort_file(t);
    return r;
}

int tree_close(struct tree *t)
{
    int r = 0;

    if (t->file_fd >= 0)
        abort_file(t);
    while (t->depth > 0) {
        int e = pop(t);

        if (r == 0)
            r = e;
    }
    fd_close(t->base_fd);
    t->base_fd = -1;
    return r;
}
