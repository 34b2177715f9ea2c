/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/macro.h"

#define RESERVE_MIN_BYTES ((uint64_t)24 << 20)
#define FREE_MIN_BYTES    ((uint64_t)12 << 20)
#define PIDS_MIN          256u
#define PIDS_MAX          4096u
#define FREEZE_LOOK_MS    20u /* between two looks, should the kernel not tell of a change */
#define PROCS_BYTES_MAX   ((size_t)1 << 20)

static int write_file(int dir_fd, const char *name, const char *text)
{
    _cleanup_(fd_closep) int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return -errno;
    return 0;
}

static int write_number(int dir_fd, const char *name, uint64_t number)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
    return write_file(dir_fd, name, text);
}

/* The number behind `key ` in a flat keyed file. */
static int read_key_of(int fd, const char *key, uint64_t *ret)
{
    size_t key_len = strlen(key);
    char text[512];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    if (n < 0)
        return -errno;
    text[n] = '\0';
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, key_len) == 0 && line[key_len] == ' ') {
            *ret = strtoull(line + key_len + 1, NULL, 10);
            return 0;
        }
    }
    return -ENODATA;
}

static int read_key(int dir_fd, const char *name, const char *key, uint64_t *ret)
{
    _cleanup_(fd_closep) int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);

    return fd < 0 ? -errno : read_key_of(fd, key, ret);
}

uint64_t cgroups_memory_max(uint64_t ram_bytes, uint64_t free_bytes)
{
    uint64_t reserve = MAX(ram_bytes / 100 * 8, RESERVE_MIN_BYTES);
    uint64_t keep_free = MAX(ram_bytes / 100 * 4, FREE_MIN_BYTES);
    uint64_t of_ram = ram_bytes > reserve ? ram_bytes - reserve : 0;
    uint64_t of_free = free_bytes > keep_free ? free_bytes - keep_free : 0;

    return MAX(MIN(of_ram, of_free), ram_bytes / 4);
}

uint64_t cgroups_pids_max(uint64_t ram_bytes)
{
    return MAX(MIN((ram_bytes >> 20) * 4, (uint64_t)PIDS_MAX), (uint64_t)PIDS_MIN);
}

static int set_limits(int base_fd, uint64_t ram_bytes, uint64_t free_bytes)
{
    int r = write_number(base_fd, "memory.max", cgroups_memory_max(ram_bytes, free_bytes));

    if (r == 0)
        r = write_number(base_fd, "pids.max", cgroups_pids_max(ram_bytes));
    if (r < 0)
        return r;
    /* cpu here: each command weighs the same, so one more runs at once beside a fork bomb. */
    r = write_file(base_fd, "cgroup.subtree_control", "+memory +cpu");
    return r < 0 ? write_file(base_fd, "cgroup.subtree_control", "+memory") : r;
}

int cgroups_init(struct cgroups *groups, const char *mount, uint64_t ram_bytes, uint64_t free_bytes)
{
    _cleanup_(fd_closep) int mount_fd = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_(fd_closep) int base_fd = -1;
    int r;

    *groups = (struct cgroups){.root_fd = -1, .base_fd = -1};
    if (mount_fd < 0)
        return -errno;
    /* cpu: all commands together weigh as little as one, so the agent runs in the middle of a fork bomb. */
    r = write_file(mount_fd, "cgroup.subtree_control", "+memory +pids +cpu");
    if (r == -EINVAL || r == -ENOENT)
        r = write_file(mount_fd, "cgroup.subtree_control", "+memory +pids");
    if (r < 0)
        return r;
    if (mkdirat(mount_fd, "ironclaw", 0755) < 0 && errno != EEXIST)
        return -errno;
    base_fd = openat(mount_fd, "ironclaw", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (base_fd < 0)
        return -errno;
    r = set_limits(base_fd, ram_bytes, free_bytes);
    if (r < 0)
        return r;
    groups->root_fd = TAKE_FD(mount_fd);
    groups->base_fd = TAKE_FD(base_fd);
    return 0;
}

static struct cgroup *find_state(struct cgroups *groups, int state)
{
    for (unsigned i = 0; i < CGROUP_MAX; i++) {
        if ((int)groups->table[i].state == state)
            return &groups->table[i];
    }
    return NULL;
}

static int make_group(struct cgroups *groups, struct cgroup **ret)
{
    struct cgroup *group = find_state(groups, CGROUP_UNUSED);
    _cleanup_(fd_closep) int dir_fd = -1;
    char name[32];
    int r;

    if (!group)
        return -EAGAIN;
    (void)snprintf(name, sizeof(name), "cmd-%u", ++groups->last_number);
    if (mkdirat(groups->base_fd, name, 0755) < 0)
        return -errno;
    dir_fd = openat(groups->base_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        r = -errno;
        (void)unlinkat(groups->base_fd, name, AT_REMOVEDIR);
        return r;
    }
    (void)write_file(dir_fd, "memory.oom.group", "1");
    *group = (struct cgroup){.dir_fd = TAKE_FD(dir_fd), .number = groups->last_number, .state = CGROUP_FREE};
    groups->free++;
    *ret = group;
    return 0;
}

static void drop_group(struct cgroups *groups, struct cgroup *group)
{
    char name[32];

    (void)snprintf(name, sizeof(name), "cmd-%u", group->number);
    if (unlinkat(groups->base_fd, name, AT_REMOVEDIR) < 0)
        log_msg(LOG_WARN, "can't remove control group %s: %s", name, strerror(errno));
    fd_close(group->dir_fd);
    *group = (struct cgroup){.dir_fd = -1};
}

void cgroups_prepare(struct cgroups *groups)
{
    struct cgroup *group;

    if (groups->base_fd >= 0 && groups->free == 0)
        (void)make_group(groups, &group);
}

int cgroup_take(struct cgroups *groups, struct cgroup **ret)
{
    struct cgroup *group;
    int r;

    if (groups->base_fd < 0) {
        *ret = NULL;
        return 0;
    }
    group = groups->free > 0 ? find_state(groups, CGROUP_FREE) : NULL;
    if (!group) {
        r = make_group(groups, &group);
        if (r < 0 || !group)
            return MIN(r, -1);
    }
    group->state = CGROUP_TAKEN;
    groups->free--;
    *ret = group;
    return 0;
}

void cgroup_release(struct cgroups *groups, struct cgroup *group)
{
    if (!group)
        return;
    if (cgroup_populated(group) != 0) {
        group->state = CGROUP_LINGERING;
        groups->lingering++;
    } else if (groups->free < CGROUP_KEEP) {
        group->state = CGROUP_FREE;
        groups->free++;
    } else {
        drop_group(groups, group);
    }
}

void cgroups_sweep(struct cgroups *groups)
{
    for (unsigned i = 0; i < CGROUP_MAX && groups->lingering > 0; i++) {
        struct cgroup *group = &groups->table[i];

        if (group->state != CGROUP_LINGERING || cgroup_populated(group) != 0)
            continue;
        groups->lingering--;
        cgroup_release(groups, group);
    }
}

int cgroup_kill(struct cgroup *group)
{
    return group ? write_file(group->dir_fd, "cgroup.kill", "1") : -ENOENT;
}

int cgroup_signal(struct cgroup *group, int signo)
{
    _cleanup_(fd_closep) int fd = -1;
    char text[4096];
    size_t have = 0;
    ssize_t n;

    if (!group)
        return -ENOENT;
    fd = openat(group->dir_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    /* pids.max bounds the list. A number that the end of the buffer cuts is kept for the next round. */
    while ((n = read(fd, text + have, sizeof(text) - 1 - have)) > 0) {
        char *line = text, *end;

        text[have + (size_t)n] = '\0';
        while ((end = strchr(line, '\n'))) {
            long pid = strtol(line, NULL, 10);

            if (pid > 1)
                (void)kill((pid_t)pid, signo);
            line = end + 1;
        }
        have = strlen(line);
        memmove(text, line, have);
    }
    return n < 0 ? -errno : 0;
}

int cgroup_populated(const struct cgroup *group)
{
    uint64_t populated = 0;
    int r = group ? read_key(group->dir_fd, "cgroup.events", "populated", &populated) : -ENOENT;

    return r < 0 ? r : populated != 0;
}

bool cgroup_had_oom(struct cgroup *group)
{
    uint64_t now = 0, before;

    if (!group || read_key(group->dir_fd, "memory.events", "oom_kill", &now) < 0)
        return false;
    before = group->oom_kills;
    group->oom_kills = now;
    return now > before;
}

/* ---- all of the machine's commands ---- */

/* The next directory of the mount's top; its descriptor, or -1 at the end. */
static int next_group(DIR *dir)
{
    struct dirent *entry;

    while ((entry = readdir(dir))) {
        int fd;

        if (entry->d_name[0] == '.' || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN))
            continue;
        fd = openat(dirfd(dir), entry->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0)
            return fd; /* else it is a file, or was just removed */
    }
    return -1;
}

static DIR *open_root(const struct cgroups *groups)
{
    int fd = groups->root_fd < 0 ? -1 : openat(groups->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (!dir)
        fd_close(fd);
    return dir;
}

static int write_all(const struct cgroups *groups, const char *name, const char *text)
{
    DIR *dir = open_root(groups);
    int fd, r = dir ? 0 : -errno;

    while (dir && (fd = next_group(dir)) >= 0) {
        int one = write_file(fd, name, text);

        if (one < 0 && one != -ENOENT && one != -ENODEV)
            r = one;
        fd_close(fd);
    }
    if (dir)
        (void)closedir(dir);
    return r;
}

/* The kernel tells by POLLPRI of a change since the descriptor was last read. */
static int wait_frozen(int group_fd, uint64_t deadline, bool *ret_waited)
{
    _cleanup_(fd_closep) int fd = openat(group_fd, "cgroup.events", O_RDONLY | O_CLOEXEC);

    for (;;) {
        uint64_t frozen = 0;
        int r = fd < 0 ? -errno : read_key_of(fd, "frozen", &frozen);

        if (r == -ENOENT || r == -ENODEV)
            return 0; /* removed meanwhile */
        if (r < 0 || frozen)
            return r;
        if (deadline_poll_ms(deadline) == 0)
            return -ETIMEDOUT;
        *ret_waited = true;
        r = fd_wait(fd, POLLPRI, MIN(deadline, deadline_after_ms(FREEZE_LOOK_MS)));
        if (r < 0 && r != -ETIMEDOUT)
            return r;
    }
}

/* A kernel thread has no program, nor has a process that only waits to be reaped. */
static bool is_stray(pid_t pid)
{
    char link[32], target[8];

    (void)snprintf(link, sizeof(link), "/proc/%d/exe", (int)pid);
    return pid > 1 && pid != getpid() && readlink(link, target, sizeof(target)) >= 0;
}

static int adopt(struct cgroups *groups, pid_t pid)
{
    struct cgroup *group;
    int r = cgroup_take(groups, &group);

    if (r < 0 || !group)
        return MIN(r, -1);
    r = write_number(group->dir_fd, "cgroup.procs", (uint64_t)pid);
    cgroup_release(groups, group);
    return r == -ESRCH ? 0 : r;
}

/* The root group can't be frozen: what is in it comes back into a group of ours. *ret_count is how many that were. */
static int adopt_strays(struct cgroups *groups, unsigned *ret_count)
{
    _cleanup_(freep) char *list = NULL;
    int r = fd_read_file(groups->root_fd, "cgroup.procs", PROCS_BYTES_MAX, &list, NULL);

    *ret_count = 0;
    for (char *line = list; r == 0 && *line; line += strcspn(line, "\n"), line += *line == '\n') {
        pid_t pid = (pid_t)strtol(line, NULL, 10);

        if (!is_stray(pid))
            continue;
        r = adopt(groups, pid);
        ++*ret_count;
    }
    return r;
}

static int wait_all_frozen(const struct cgroups *groups, uint64_t deadline, bool *ret_waited)
{
    DIR *dir = open_root(groups);
    int fd, r = dir ? 0 : -errno;

    while (dir && r == 0 && (fd = next_group(dir)) >= 0) {
        r = wait_frozen(fd, deadline, ret_waited);
        fd_close(fd);
    }
    if (dir)
        (void)closedir(dir);
    return r;
}

int cgroups_freeze(struct cgroups *groups, uint64_t deadline)
{
    unsigned strays = 0;
    bool waited;
    int r;

    if (groups->base_fd < 0)
        return -ENOTSUP;
    /* What still ran during a round may have made a group or left one behind our back; a round in which nothing did is
     * the last one. */
    do {
        waited = false;
        r = write_all(groups, "cgroup.freeze", "1");
        if (r == 0)
            r = wait_all_frozen(groups, deadline, &waited);
        if (r == 0)
            r = adopt_strays(groups, &strays);
        if (r == 0 && strays > 0 && deadline_poll_ms(deadline) == 0)
            r = -ETIMEDOUT;
    } while (r == 0 && (waited || strays > 0));
    if (r < 0)
        (void)cgroups_thaw(groups);
    return r;
}

int cgroups_thaw(struct cgroups *groups)
{
    return groups->base_fd < 0 ? 0 : write_all(groups, "cgroup.freeze", "0");
}

void cgroups_kill(struct cgroups *groups)
{
    if (groups->base_fd >= 0)
        (void)write_all(groups, "cgroup.kill", "1");
}

uint64_t cgroups_oom_kills(const struct cgroups *groups)
{
    uint64_t n = 0;

    if (groups->base_fd >= 0)
        (void)read_key(groups->base_fd, "memory.events", "oom_kill", &n);
    return n;
}
