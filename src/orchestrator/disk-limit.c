/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/disk-limit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "jail/cgroup.h"
#include "orchestrator/paths.h"

#define DISKS_MAX  8u
#define XFS_MAGIC  0x58465342
#define F2FS_MAGIC 0xf2f52010

struct disks {
    dev_t device[DISKS_MAX];
    size_t count;
};

bool disk_limit_wanted(const struct record *record)
{
    return record->max_disk_mib_per_s > 0 || record->max_disk_ops_per_s > 0;
}

static int refuse(const struct record *record, const char *why, struct ic_error *error)
{
    return ic_fail(error, IC_ERR_UNSUPPORTED, "VM '%s': %s: %s; 0 is no limit", record->vm_id,
            record->max_disk_mib_per_s > 0 ? "max_disk_mib_per_s" : "max_disk_ops_per_s", why);
}

/* A partition has no limits, its disk has. */
static dev_t disk_of(dev_t device)
{
    _cleanup_(freep) char *text = NULL;
    char path[80], *end;
    unsigned long first, second;

    (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(device), minor(device));
    if (access(path, F_OK) < 0)
        return device;
    (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../dev", major(device), minor(device));
    if (fd_read_file(AT_FDCWD, path, 64, &text, NULL) < 0)
        return device;
    first = strtoul(text, &end, 10);
    second = *end == ':' ? strtoul(end + 1, &end, 10) : 0;
    return *end == '\n' ? makedev((unsigned)first, (unsigned)second) : device;
}

/* Whose pages are written back for the group that made them dirty. */
static bool tells_writers(const struct statfs *fs, const struct stat *st)
{
    return S_ISBLK(st->st_mode) || fs->f_type == EXT4_SUPER_MAGIC || fs->f_type == XFS_MAGIC ||
           fs->f_type == F2FS_MAGIC;
}

static int add(struct disks *disks, const struct record *record, const char *path, bool written, struct ic_error *error)
{
    char why[400];
    struct statfs fs;
    struct stat st;
    size_t i = 0;

    if (!path)
        return 0;
    if (stat(path, &st) < 0 || statfs(path, &fs) < 0)
        return errno == ENOENT ? 0 : ic_fail_errno(error, -errno, "%s", path);
    if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)
        return 0;
    disks->device[disks->count] = disk_of(S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev);
    if (major(disks->device[disks->count]) == 0 || (written && !tells_writers(&fs, &st))) {
        (void)snprintf(why, sizeof(why), "%.250s is on a file system whose %s the kernel can't limit for a cgroup",
                path, major(disks->device[disks->count]) == 0 ? "disk" : "writes");
        return refuse(record, why, error);
    }
    while (disks->device[i] != disks->device[disks->count])
        i++;
    disks->count += i == disks->count;
    return 0;
}

static int add_place(struct disks *disks, const struct record *record, enum ic_path place, const char *below,
        bool written, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    int r = path_in(&path, error, place, "%s", below);

    return r < 0 ? r : add(disks, record, path, written, error);
}

static int find_disks(struct disks *ret, const struct record *record, struct ic_error *error)
{
    int r = add(ret, record, record->rootfs_path, false, error);

    if (r == 0)
        r = add(ret, record, record->kernel_path, false, error);
    if (r == 0)
        r = add(ret, record, record->overlay_path, true, error);
    if (r == 0)
        r = add(ret, record, record->run_dir, true, error);
    if (r == 0)
        r = add_place(ret, record, IC_PATH_STATE, "vms", true, error);
    if (r == 0 && strncmp(record->origin, "template ", strlen("template ")) == 0)
        r = add_place(ret, record, IC_PATH_DATA, "templates", false, error);
    if (r == 0 && strncmp(record->origin, "snapshot ", strlen("snapshot ")) == 0)
        r = add_place(ret, record, IC_PATH_DATA, "snapshots", false, error);
    return r;
}

static int limit(const struct record *record, uint64_t bytes_per_s, uint32_t ops_per_s, struct ic_error *error)
{
    struct disks disks = {.count = 0};
    char why[400];
    int r;

    if (!disk_limit_wanted(record))
        return 0;
    if (!record->cgroup)
        return refuse(record,
                record->jail_mode == IC_JAIL_OFF ? "needs a cgroup, which is part of the jail, and that is off"
                                                 : record->jail[JAIL_CGROUP],
                error);
    r = find_disks(&disks, record, error);
    if (r < 0)
        return r;
    r = cgroup_limit_io(record->cgroup, disks.device, disks.count, bytes_per_s, ops_per_s, why, sizeof(why));
    return r < 0 ? refuse(record, why, error) : 0;
}

int disk_limit_set(const struct record *record, struct ic_error *error)
{
    return limit(record, (uint64_t)record->max_disk_mib_per_s << 20, record->max_disk_ops_per_s, error);
}

int disk_limit_lift(const struct record *record, struct ic_error *error)
{
    return limit(record, 0, 0, error);
}
