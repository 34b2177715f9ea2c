/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every mount is first cloned, detached, with the rights it is to have
 * (open_tree, mount_setattr), so that nothing is looked up any more once the
 * new root covers anything of the old. Flags are only added: an unprivileged
 * user may not take away those that the host's mounts came with.
 */
#include "jail/root.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/macro.h"

#define PLACE "/tmp" /* where the new root is attached until it is the root; any directory would do */

static uint64_t attributes(enum jail_access access)
{
    switch (access) {
    case JAIL_WRITE:
        return MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    case JAIL_EXECUTE:
        return MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    case JAIL_DEVICE:
        return MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
    default:
        return MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    }
}

static int clone_tree(const struct jail_mount *m, int *ret_fd)
{
    struct mount_attr attr = {.attr_set = attributes(m->access)};
    int fd = open_tree(AT_FDCWD, m->path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (unsigned)AT_RECURSIVE);

    if (fd < 0)
        return -errno;
    if (mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0) {
        int r = -errno;

        (void)close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

/* The directories above `path`, and the file or directory itself to mount on. */
static int make_place(int root_fd, const char *path, bool directory)
{
    char part[PATH_MAX];
    size_t len = strlen(path);

    if (len >= sizeof(part) || len < 2 || path[0] != '/')
        return -EINVAL;
    memcpy(part, path + 1, len);
    for (char *slash = strchr(part, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (part[0] && mkdirat(root_fd, part, 0755) < 0 && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    if (directory)
        return mkdirat(root_fd, part, 0755) < 0 && errno != EEXIST ? -errno : 0;
    /* Not opened: it may be there already, in a directory that was mounted read-only before. */
    return mknodat(root_fd, part, S_IFREG | 0444, 0) < 0 && errno != EEXIST ? -errno : 0;
}

static int attach(int root_fd, const struct jail_mount *m, int tree_fd)
{
    struct stat st;
    int r;

    if (fstat(tree_fd, &st) < 0)
        return -errno;
    r = make_place(root_fd, m->path, S_ISDIR(st.st_mode));
    if (r < 0)
        return r;
    if (move_mount(tree_fd, "", root_fd, m->path + 1, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -errno;
    return 0;
}

/* For a user of the jail's own, whom the host's node may not be meant for: one like it. Fails where the host's rules
 * for devices forbid it. */
static int make_device(const struct jail *jail, int root_fd, const struct jail_mount *m, int tree_fd)
{
    struct stat st;
    int r;

    if (jail->uid == 0)
        return -EPERM;
    if (fstat(tree_fd, &st) < 0)
        return -errno;
    r = make_place(root_fd, m->path, false);
    if (r < 0)
        return r;
    if (unlinkat(root_fd, m->path + 1, 0) < 0 ||
            mknodat(root_fd, m->path + 1, (st.st_mode & S_IFMT) | 0600, st.st_rdev) < 0)
        return -errno;
    return fchownat(root_fd, m->path + 1, jail->uid, jail->gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int fill(const struct jail *jail, const int *tree_fds)
{
    const struct jail_mount *mounts = jail->mounts;
    const unsigned long flags = MS_NOSUID | MS_NOEXEC | (jail->uid ? 0 : MS_NODEV);
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    int root_fd, r = 0;

    if (mount("tmpfs", PLACE, "tmpfs", flags, "mode=0755,size=256k,nr_inodes=1024") < 0)
        return -errno;
    root_fd = open(PLACE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return -errno;
    for (size_t i = 0; r == 0 && i < jail->mount_count; i++) {
        if (tree_fds[i] >= 0 &&
                (mounts[i].access != JAIL_DEVICE || make_device(jail, root_fd, &mounts[i], tree_fds[i]) < 0))
            r = attach(root_fd, &mounts[i], tree_fds[i]);
    }
    if (r == 0 && mount_setattr(root_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        r = -errno;
    /* The old root comes to lie on the new one, from where it is taken off. */
    if (r == 0 && (fchdir(root_fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
                          chdir("/") < 0))
        r = -errno;
    (void)close(root_fd);
    return r;
}

int root_enter(const struct jail *jail, bool *ret_half)
{
    const struct jail_mount *mounts = jail->mounts;
    const size_t count = jail->mount_count;
    int tree_fds[JAIL_MOUNTS_MAX], r = 0;
    mode_t mask;

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    for (size_t i = 0; i < count; i++)
        tree_fds[i] = -1;
    for (size_t i = 0; r == 0 && i < count; i++) {
        r = clone_tree(&mounts[i], &tree_fds[i]);
        if (r == -ENOENT && mounts[i].optional)
            r = 0;
    }
    /* That a path is not there, or not for us, is no matter of what the host permits. */
    *ret_half = r == -ENOENT || r == -ENOTDIR || r == -EACCES || r == -ELOOP;
    if (r == 0) {
        *ret_half = true;
        mask = umask(022);
        r = fill(jail, tree_fds);
        (void)umask(mask);
    }
    for (size_t i = 0; i < count; i++) {
        if (tree_fds[i] >= 0)
            (void)close(tree_fds[i]);
    }
    return r;
}
