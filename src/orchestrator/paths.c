/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/paths.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/room.h"

#define DEPTH_MAX 32u /* directories open at a time */

static char *format(const char *fmt, ...) _printf_(1, 2);
static char *format(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0)
        s = NULL;
    va_end(ap);
    return s;
}

static const char *absolute_env(const char *name)
{
    const char *value = getenv(name);

    return value && value[0] == '/' ? value : NULL;
}

static const char *home_dir(void)
{
    const char *home = absolute_env("HOME");
    const struct passwd *pw;

    if (home)
        return home;
    pw = getpwuid(getuid());
    return pw && pw->pw_dir && pw->pw_dir[0] == '/' ? pw->pw_dir : NULL;
}

static char *xdg(const char *env, const char *below_home, const char *suffix)
{
    const char *base = absolute_env(env), *home = home_dir();

    if (base)
        return format("%s/ironclaw%s", base, suffix);
    return home ? format("%s/%s/ironclaw%s", home, below_home, suffix) : NULL;
}

static char *runtime_dir(void)
{
    const char *base = absolute_env("XDG_RUNTIME_DIR");

    if (base)
        return format("%s/ironclaw", base);
    if (getuid() == 0)
        return format("/run/ironclaw");
    return format("/tmp/ironclaw-%u", (unsigned)getuid());
}

int path_of(enum ic_path which, char **ret, struct ic_error *error)
{
    static const char *const in_home[] = {
            [IC_PATH_DATA] = "data",
            [IC_PATH_STATE] = "state",
            [IC_PATH_RUNTIME] = "run",
            [IC_PATH_CONFIG] = "config.json",
    };
    const char *home = getenv("IRONCLAW_HOME");
    char *path = NULL;

    if (home && home[0] != '\0') {
        if (home[0] != '/')
            return ic_fail(
                    error, IC_ERR_INVALID, "IRONCLAW_HOME '%s' is not absolute; give a path that starts with /", home);
        path = format("%s/%s", home, in_home[which]);
    } else if (which == IC_PATH_DATA) {
        path = xdg("XDG_DATA_HOME", ".local/share", "");
    } else if (which == IC_PATH_STATE) {
        path = xdg("XDG_STATE_HOME", ".local/state", "");
    } else if (which == IC_PATH_CONFIG) {
        path = xdg("XDG_CONFIG_HOME", ".config", "/config.json");
    } else {
        path = runtime_dir();
    }
    if (!path)
        return ic_fail(error, IC_ERR_NOT_FOUND, "no home directory: set HOME or IRONCLAW_HOME to an absolute path");
    *ret = path;
    return 0;
}

int path_in(char **ret, struct ic_error *error, enum ic_path which, const char *fmt, ...)
{
    _cleanup_(freep) char *base = NULL, *rest = NULL;
    va_list ap;
    int r = path_of(which, &base, error);

    if (r < 0)
        return r;
    va_start(ap, fmt);
    if (vasprintf(&rest, fmt, ap) < 0)
        rest = NULL;
    va_end(ap);
    *ret = rest ? format("%s/%s", base, rest) : NULL;
    return *ret ? 0 : ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
}

int path_check_dir(const char *path, struct ic_error *error)
{
    struct stat st, link;

    if (lstat(path, &link) < 0 || stat(path, &st) < 0)
        return ic_fail_errno(error, -errno, "directory %s", path);
    if (!S_ISDIR(st.st_mode))
        return ic_fail(error, IC_ERR_EXISTS, "%s: is in the way: not a directory", path);
    /* Also the link's owner counts, where it is one: in /tmp somebody else's could lead to any directory of ours. */
    if (link.st_uid != geteuid() || st.st_uid != geteuid() || (st.st_mode & 022))
        return ic_fail(error, IC_ERR_DENIED,
                "directory %s: must belong to you and be writable by nobody else (chmod go-w), or set IRONCLAW_HOME to "
                "a directory of yours",
                path);
    return 0;
}

int path_make_dir(const char *path, struct ic_error *error)
{
    char part[PATH_MAX];
    size_t len = strlen(path);

    if (len == 0 || path[0] != '/' || len >= sizeof(part))
        return ic_fail(
                error, IC_ERR_INVALID, "directory '%.64s...': not an absolute path below %d bytes", path, PATH_MAX);
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        part[i] = '\0';
        if (mkdir(part, 0700) < 0 && errno != EEXIST && errno != EISDIR) {
            int saved = errno;
            struct stat there;
            /* A parent on a read-only file system answers EROFS though it exists. */
            if (stat(part, &there) < 0 || !S_ISDIR(there.st_mode))
                return ic_fail_errno(error, -saved, "directory %s", part);
        }
        part[i] = i < len ? '/' : '\0';
    }
    return path_check_dir(path, error);
}

int path_check_room(const char *dir, struct ic_error *error)
{
    struct statvfs vfs;

    if (statvfs(dir, &vfs) < 0)
        return ic_fail_errno(error, -errno, "%s", dir);
    if (room_is_left(&vfs))
        return 0;
    return ic_fail(error, IC_ERR_NO_SPACE,
            "%s: the disk is nearly full (%llu MiB left); the rest is not for foreign data: make room", dir,
            (unsigned long long)(room_bytes(&vfs) >> 20));
}

/*
 * Removing a tree in which somebody else may write, even now: a process that was taken over and could not be ended, or
 * is not known. So each directory is opened from the one above it, no link is followed, and what is removed is a name
 * in a directory that is open. Who may write in it can also close directories to their owner, or nest them deeper than
 * there are descriptors or a stack for: from DEPTH_MAX on they are lifted to the top and come last.
 */
struct removal {
    int top_fd;
    dev_t dev; /* another file system's directories stay */
    unsigned long lifted;
};

static int open_own_dir(const struct removal *rm, int dir_fd, const char *name, DIR **ret)
{
    _cleanup_(fd_closep) int place_fd = openat(dir_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), fd = -1;
    char by_fd[40];
    struct stat st;

    if (place_fd < 0 || fstat(place_fd, &st) < 0)
        return -errno;
    if (st.st_dev != rm->dev)
        return -EXDEV;
    if ((st.st_mode & 0700) != 0700) {
        (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", place_fd);
        (void)chmod(by_fd, 0700); /* opening says it if that failed */
    }
    fd = openat(place_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *ret = fd < 0 ? NULL : fdopendir(fd);
    if (!*ret)
        return -errno;
    (void)TAKE_FD(fd);
    return 0;
}

static int lift(struct removal *rm, int dir_fd, const char *name)
{
    char to[32];
    int r;

    do {
        (void)snprintf(to, sizeof(to), "lifted-%lu", rm->lifted++);
        r = renameat2(dir_fd, name, rm->top_fd, to, RENAME_NOREPLACE) < 0 ? -errno : 0;
    } while (r == -EEXIST);
    return r;
}

static int remove_contents(struct removal *rm, DIR *dir, unsigned depth);

static int remove_name(struct removal *rm, int dir_fd, const char *name, unsigned depth)
{
    int no_file = unlinkat(dir_fd, name, 0) < 0 ? -errno : 0, r;
    DIR *dir = NULL;

    if (no_file == 0 || no_file == -ENOENT)
        return 0;
    r = open_own_dir(rm, dir_fd, name, &dir);
    if (r == -ENOTDIR || r == -ELOOP)
        return no_file;
    if (r == -EMFILE && depth > 0)
        return lift(rm, dir_fd, name);
    if (!dir)
        return r;
    if (depth == DEPTH_MAX) {
        (void)closedir(dir);
        return lift(rm, dir_fd, name);
    }
    r = remove_contents(rm, dir, depth + 1);
    (void)closedir(dir);
    return r == 0 && unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : r;
}

static int remove_contents(struct removal *rm, DIR *dir, unsigned depth)
{
    struct dirent *entry;
    int r = 0;

    while (r == 0 && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = remove_name(rm, dirfd(dir), entry->d_name, depth);
    }
    return r;
}

static int remove_top(const char *path, const struct stat *st)
{
    struct removal rm = {.dev = st->st_dev};
    unsigned long before;
    DIR *dir = NULL;
    int r = open_own_dir(&rm, AT_FDCWD, path, &dir);

    if (!dir)
        return r;
    rm.top_fd = dirfd(dir);
    do {
        before = rm.lifted;
        rewinddir(dir);
        r = remove_contents(&rm, dir, 0);
    } while (r == 0 && rm.lifted != before);
    (void)closedir(dir);
    return r == 0 && rmdir(path) < 0 ? -errno : r;
}

int path_remove_tree(const char *path, struct ic_error *error)
{
    int r = unlink(path) < 0 ? -errno : 0;
    struct stat st;

    if (r < 0 && lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
        r = remove_top(path, &st);
    return r < 0 && r != -ENOENT ? ic_fail_errno(error, r, "remove %s", path) : 0;
}

bool path_vm_id_ok(const char *id)
{
    size_t len = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");

    return len >= 1 && len <= IC_VM_ID_MAX && id[len] == '\0';
}

bool path_image_name_ok(const char *name)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static const char rest[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    static const char tag[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t n = strspn(name, rest), m;

    if (n < 1 || n > 64 || !memchr(first, name[0], sizeof(first) - 1))
        return false;
    if (name[n] == '\0')
        return !(n == 64 && strspn(name, "0123456789abcdef") == 64);
    m = strspn(name + n + 1, tag);
    return name[n] == ':' && m >= 1 && m <= 32 && name[n + 1 + m] == '\0';
}
