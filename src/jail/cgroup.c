/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/macro.h"

#define BASE_NAME     "ironclaw"
#define BASE_ENV      "IRONCLAW_CGROUP"
#define FILE_MAX      (1u << 20) /* mountinfo of a host with many containers */
#define MAKE_TRIES    5
#define CPU_PERIOD_US 100000u

static const char *const controllers[] = {"memory", "pids", "cpu"};

/* ---- where ---- */

/* The mount point of cgroup2 from a line of mountinfo (proc_pid_mountinfo(5)): its fifth field, if the type is that. */
static bool cgroup2_mount(char *line, char *ret, size_t size)
{
    char *dash = strstr(line, " - cgroup2 "), *save = NULL, *field;

    if (!dash)
        return false;
    *dash = '\0';
    field = strtok_r(line, " ", &save);
    for (int i = 1; field && i < 5; i++)
        field = strtok_r(NULL, " ", &save);
    /* Escaped characters (\040) are left as they are: nobody mounts it at such a place, and the path is then not found.
     */
    return field && (size_t)snprintf(ret, size, "%s", field) < size;
}

static int find_mount(char *ret, size_t size)
{
    _cleanup_(freep) char *text = NULL;
    char *save = NULL;
    int r = fd_read_file(AT_FDCWD, "/proc/self/mountinfo", FILE_MAX, &text, NULL);

    if (r < 0)
        return r;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (cgroup2_mount(line, ret, size))
            return 0;
    }
    return -ENOENT;
}

/* The caller's own group: "0::/path" in /proc/self/cgroup. */
static int find_own(char *ret, size_t size)
{
    _cleanup_(freep) char *text = NULL;
    const char *line;
    size_t len;
    int r = fd_read_file(AT_FDCWD, "/proc/self/cgroup", FILE_MAX, &text, NULL);

    if (r < 0)
        return r;
    line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    if (!line)
        return -ENOENT;
    line += *line == '\n' ? 4 : 3;
    len = strcspn(line, "\n");
    return (size_t)snprintf(ret, size, "%.*s", (int)len, line) < size ? 0 : -ENAMETOOLONG;
}

static int find_base(char *ret, size_t size)
{
    const char *given = getenv(BASE_ENV);
    char top[PATH_MAX / 4], own[PATH_MAX / 4];
    int r;

    if (given && given[0])
        return given[0] == '/' && (size_t)snprintf(ret, size, "%s", given) < size ? 0 : -EINVAL;
    r = find_mount(top, sizeof(top));
    if (r < 0)
        return r;
    if (geteuid() == 0)
        return (size_t)snprintf(ret, size, "%s/" BASE_NAME, top) < size ? 0 : -ENAMETOOLONG;
    r = find_own(own, sizeof(own));
    if (r < 0)
        return r;
    *strrchr(own, '/') = '\0'; /* its parent; a path of a group begins with a slash */
    return (size_t)snprintf(ret, size, "%s%s/" BASE_NAME, top, own) < size ? 0 : -ENAMETOOLONG;
}

/* ---- making ---- */

static int write_file(const char *dir, const char *name, const char *text)
{
    char path[PATH_MAX];
    _cleanup_(fd_closep) int fd = -1;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
        return -ENAMETOOLONG;
    fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
}

/* Each on its own: one that is not there must not keep the others from it. Done already by others, mostly. */
static void enable_controllers(const char *dir)
{
    char word[16];

    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++) {
        (void)snprintf(word, sizeof(word), "+%s", controllers[i]);
        (void)write_file(dir, "cgroup.subtree_control", word);
    }
}

static int make_base(const char *base)
{
    char parent[PATH_MAX];
    struct statfs fs;

    (void)snprintf(parent, sizeof(parent), "%s", base);
    *strrchr(parent, '/') = '\0';
    /* Before it is made, so that no directory is left where a name was mistaken. */
    if (statfs(base, &fs) < 0 && (errno != ENOENT || statfs(parent[0] ? parent : "/", &fs) < 0))
        return -errno;
    if (fs.f_type != CGROUP2_SUPER_MAGIC)
        return -ENOTSUP;
    if (mkdir(base, 0755) < 0 && errno != EEXIST)
        return -errno;
    enable_controllers(parent);
    enable_controllers(base);
    return 0;
}

static int set_limits(const char *path, const struct cgroup_limits *l, char *why, size_t why_size)
{
    char memory[24], pids[16], cpu[40];
    const struct {
        const char *file, *value;
    } limits[] = {{"memory.max", memory}, {"memory.swap.max", "0"}, {"pids.max", pids}, {"cpu.max", cpu}};
    size_t len = 0;
    int missing = 0;

    (void)snprintf(memory, sizeof(memory), "%llu", (unsigned long long)l->memory_bytes);
    (void)snprintf(pids, sizeof(pids), "%u", l->pids);
    (void)snprintf(
            cpu, sizeof(cpu), "%llu %u", (unsigned long long)l->cpu_percent * CPU_PERIOD_US / 100, CPU_PERIOD_US);
    why[0] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        int r = write_file(path, limits[i].file, limits[i].value);

        if (r == 0 || (r == -ENOENT && i == 1)) /* a kernel without swap has no limit of it */
            continue;
        missing++;
        len += (size_t)snprintf(why + MIN(len, why_size), why_size - MIN(len, why_size), "%s%s",
                len == 0 ? "no limits here by " : ", ", limits[i].file);
    }
    (void)write_file(path, "memory.oom.group", "1");
    return missing;
}

static int make_group(const char *base, const char *name, char **ret_path)
{
    _cleanup_(freep) char *path = NULL;
    int r = 0;

    if (asprintf(&path, "%s/%s", base, name) < 0)
        return -ENOMEM;
    /* The base may go with somebody's last group in between. */
    for (int i = 0; i < MAKE_TRIES; i++) {
        r = make_base(base);
        if (r < 0)
            return r;
        if (mkdir(path, 0755) == 0) {
            *ret_path = TAKE_PTR(path);
            return 0;
        }
        r = -errno;
        if (r == -EEXIST)
            r = cgroup_end(path, deadline_after_ms(1000)) == 0 ? -ENOENT : r;
        if (r != -ENOENT)
            break;
    }
    return r;
}

static void explain(int r, const char *base, char *why, size_t size)
{
    if (r == -ENOENT && !base[0])
        (void)snprintf(why, size, "no cgroup2 file system is mounted");
    else if ((r == -EACCES || r == -EPERM || r == -EROFS) && geteuid() != 0)
        (void)snprintf(why, size,
                "%.120s is not delegated to this user (systemd-run --user --scope -p Delegate=yes; or " BASE_ENV ")",
                base);
    else
        (void)snprintf(why, size, "%.200s: %s", base, strerror(-r));
}

int cgroup_make(
        const char *name, const struct cgroup_limits *limits, char **ret_path, int *ret_fd, char *why, size_t why_size)
{
    _cleanup_(freep) char *path = NULL;
    char base[PATH_MAX / 2] = "";
    int fd, missing, r = find_base(base, sizeof(base));

    if (r == 0)
        r = make_group(base, name, &path);
    if (r < 0 || !path) {
        explain(r, base, why, why_size);
        return r;
    }
    missing = set_limits(path, limits, why, why_size);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        r = -errno;
        (void)rmdir(path);
        explain(r, base, why, why_size);
        return r;
    }
    *ret_path = TAKE_PTR(path);
    *ret_fd = fd;
    return missing;
}

/* ---- the end ---- */

/* For a kernel without cgroup.kill (before 5.14). */
static void kill_each(const char *path)
{
    _cleanup_(freep) char *text = NULL;
    char procs[PATH_MAX], *save = NULL;

    if ((size_t)snprintf(procs, sizeof(procs), "%s/cgroup.procs", path) >= sizeof(procs) ||
            fd_read_file(AT_FDCWD, procs, FILE_MAX, &text, NULL) < 0)
        return;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        long pid = strtol(line, NULL, 10);

        if (pid > 1)
            (void)kill((pid_t)pid, SIGKILL);
    }
}

int cgroup_end(const char *path, uint64_t deadline)
{
    const struct timespec step = {.tv_nsec = 1000000};
    char base[PATH_MAX];
    struct statfs fs;

    if (statfs(path, &fs) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (fs.f_type != CGROUP2_SUPER_MAGIC)
        return -EINVAL;
    while (rmdir(path) < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return 0;
        if (errno != EBUSY)
            return -errno;
        if (write_file(path, "cgroup.kill", "1") == -ENOENT)
            kill_each(path);
        if (deadline_poll_ms(deadline) == 0)
            return -ETIMEDOUT;
        (void)nanosleep(&step, NULL);
    }
    if ((size_t)snprintf(base, sizeof(base), "%s", path) < sizeof(base) && strrchr(base, '/')) {
        *strrchr(base, '/') = '\0';
        if (!getenv(BASE_ENV))
            (void)rmdir(base); /* not while there are others */
    }
    return 0;
}

int cgroup_end_named(const char *name, uint64_t deadline)
{
    char base[PATH_MAX / 2], path[PATH_MAX];

    if (find_base(base, sizeof(base)) < 0)
        return 0; /* nor could it be made */
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", base, name) >= sizeof(path))
        return -ENAMETOOLONG;
    return cgroup_end(path, deadline);
}

int cgroup_set_weight(const char *path, unsigned weight)
{
    struct statfs fs;
    char text[16];

    if (statfs(path, &fs) < 0)
        return -errno;
    if (fs.f_type != CGROUP2_SUPER_MAGIC)
        return -EINVAL;
    (void)snprintf(text, sizeof(text), "%u", weight);
    return write_file(path, "cpu.weight", text);
}

/* Only for who asks for such a limit: it costs all groups beside and above this one a little. */
static void enable_io(const char *path)
{
    char dir[PATH_MAX], *slash;

    (void)snprintf(dir, sizeof(dir), "%s", path);
    if ((slash = strrchr(dir, '/')))
        *slash = '\0'; /* the base, which has it only if what is above gives it */
    if ((slash = strrchr(dir, '/'))) {
        *slash = '\0';
        (void)write_file(dir, "cgroup.subtree_control", "+io");
        *slash = '/';
    }
    (void)write_file(dir, "cgroup.subtree_control", "+io");
}

static void put_limit(char *line, size_t size, const char *word, uint64_t value)
{
    size_t len = strlen(line);

    if (value > 0)
        (void)snprintf(line + len, size - len, " r%s=%llu w%s=%llu", word, (unsigned long long)value, word,
                (unsigned long long)value);
    else
        (void)snprintf(line + len, size - len, " r%s=max w%s=max", word, word);
}

int cgroup_limit_io(const char *path, const dev_t *disks, size_t count, uint64_t bytes_per_s, uint32_t ops_per_s,
        char *why, size_t why_size)
{
    char memory[PATH_MAX];

    enable_io(path);
    if ((size_t)snprintf(memory, sizeof(memory), "%s/memory.max", path) >= sizeof(memory) || access(memory, F_OK) < 0) {
        (void)snprintf(why, why_size,
                "%.120s has no memory controller, without which the kernel does not know whose "
                "the writes are",
                path);
        return -ENOTSUP;
    }
    for (size_t i = 0; i < count; i++) {
        char line[160];
        int r;

        (void)snprintf(line, sizeof(line), "%u:%u", major(disks[i]), minor(disks[i]));
        put_limit(line, sizeof(line), "bps", bytes_per_s);
        put_limit(line, sizeof(line), "iops", ops_per_s);
        r = write_file(path, "io.max", line);
        if (r == -ENOENT) {
            (void)snprintf(why, why_size, "the io controller of cgroup v2 can't be had in %.120s (io.max)", path);
            return -ENOTSUP;
        }
        if (r < 0) {
            (void)snprintf(why, why_size, "io.max of disk %u:%u: %s", major(disks[i]), minor(disks[i]), strerror(-r));
            return r;
        }
    }
    return 0;
}

bool cgroup_was_oom(const char *path)
{
    _cleanup_(freep) char *text = NULL;
    char events[PATH_MAX];
    const char *count;

    if ((size_t)snprintf(events, sizeof(events), "%s/memory.events", path) >= sizeof(events) ||
            fd_read_file(AT_FDCWD, events, FILE_MAX, &text, NULL) < 0)
        return false;
    count = strstr(text, "oom_kill ");
    return count && strtoul(count + strlen("oom_kill "), NULL, 10) > 0;
}

void cgroup_end_orphans(
        const char *suffix, bool (*known)(const char *name, void *userdata), void *userdata, uint64_t deadline)
{
    char base[PATH_MAX / 2], path[PATH_MAX];
    struct dirent *item;
    DIR *dir;

    if (find_base(base, sizeof(base)) < 0)
        return;
    dir = opendir(base);
    while (dir && (item = readdir(dir))) {
        size_t len = strlen(item->d_name), end = strlen(suffix);

        if (len <= end || strcmp(item->d_name + len - end, suffix) != 0 || known(item->d_name, userdata))
            continue;
        if ((size_t)snprintf(path, sizeof(path), "%s/%s", base, item->d_name) < sizeof(path))
            (void)cgroup_end(path, deadline);
    }
    if (dir)
        closedir(dir);
}
