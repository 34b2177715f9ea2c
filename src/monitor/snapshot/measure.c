/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages of a memory file a monitor has touched: /proc/PID/maps and pagemap, see proc(5). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "monitor/snapshot/prefetch.h"

#define PAGE      DIRTY_PAGE
#define MAPS_MAX  (4u << 20)
#define PRESENT   (1ull << 63)
#define SWAPPED   (1ull << 62)
#define FILE_PAGE (1ull << 61) /* not the process's own */
#define AT_ONCE   512u         /* entries of pagemap */

/* By inode and length: names differ in a jail, and devices on some file systems. */
static int find_mapping(const char *maps, ino_t inode, uint64_t bytes, uint64_t *ret_start)
{
    for (const char *line = maps; line && *line; line = strchr(line, '\n')) {
        unsigned long long start, end, offset, number;
        char mode[5];

        line += *line == '\n';
        /* Numbers from the kernel, which fit. NOLINTNEXTLINE(cert-err34-c) */
        if (sscanf(line, "%llx-%llx %4s %llx %*x:%*x %llu", &start, &end, mode, &offset, &number) == 5 &&
                number == inode && offset == 0 && end - start == bytes && mode[3] == 'p') {
            *ret_start = start;
            return 0;
        }
    }
    return -ESRCH;
}

static int locate(pid_t pid, const char *path, int fd, uint64_t bytes, uint64_t *ret_start, struct vm_error *error)
{
    _cleanup_(freep) char *maps = NULL;
    char name[64];
    struct stat st;
    size_t len;
    int r;

    (void)snprintf(name, sizeof(name), "/proc/%d/maps", (int)pid);
    r = fd_read_file(AT_FDCWD, name, MAPS_MAX, &maps, &len);
    if (r < 0)
        return vm_fail(error, r, "%s: %s", name, strerror(-r));
    if (fstat(fd, &st) < 0)
        return vm_fail(error, -errno, "memory file %s: %s", path, strerror(errno));
    r = find_mapping(maps, st.st_ino, bytes, ret_start);
    return r < 0 ? vm_fail(error, r, "memory file %s: process %d has not mapped it", path, (int)pid) : 0;
}

struct runs {
    struct prefetch_run *table; /* PREFETCH_MAX_RUNS; what is beyond is left out */
    size_t count;
};

static void add_page(struct runs *runs, uint32_t page, bool write)
{
    struct prefetch_run *last = runs->count > 0 ? &runs->table[runs->count - 1] : NULL;

    if (last && last->write == write && last->first + last->count == page)
        last->count++;
    else if (runs->count < PREFETCH_MAX_RUNS)
        runs->table[runs->count++] = (struct prefetch_run){page, 1, write};
}

static int read_pagemap(pid_t pid, uint64_t start, uint64_t bytes, struct runs *runs, struct vm_error *error)
{
    _cleanup_(fd_closep) int fd = -1;
    uint64_t pages = bytes / PAGE, entries[AT_ONCE];
    char name[64];

    (void)snprintf(name, sizeof(name), "/proc/%d/pagemap", (int)pid);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return vm_fail(error, -errno, "%s: %s", name, strerror(errno));
    for (uint64_t page = 0; page < pages; page += AT_ONCE) { /* RAM is whole MiB, so there are as many each time */
        size_t n = (size_t)MIN(pages - page, (uint64_t)AT_ONCE);

        if (pread(fd, entries, n * sizeof(*entries), (off_t)((start / PAGE + page) * sizeof(*entries))) !=
                (ssize_t)(n * sizeof(*entries)))
            return vm_fail(error, -EIO, "%s: can't be read; has the process ended?", name);
        for (size_t i = 0; i < n; i++) {
            if (entries[i] & (PRESENT | SWAPPED))
                add_page(runs, (uint32_t)(page + i), !(entries[i] & FILE_PAGE));
        }
    }
    return 0;
}

int prefetch_measure(pid_t pid, const char *memory_path, const char *set_path, struct vm_error *error)
{
    _cleanup_(fd_closep) int fd = open(memory_path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    _cleanup_(freep) struct prefetch_run *table = calloc(PREFETCH_MAX_RUNS, sizeof(*table));
    _cleanup_(buf_deinit) struct buf buf = {0};
    struct memory_file_info info = {0};
    struct runs runs = {.table = table};
    uint64_t start = 0;
    int r;

    if (fd < 0)
        return vm_fail(error, -errno, "memory file %s: %s", memory_path, strerror(errno));
    if (!table)
        return vm_fail(error, -ENOMEM, "out of memory");
    r = memory_file_read_info(fd, memory_path, &info, error);
    if (r == 0)
        r = locate(pid, memory_path, fd, info.ram_bytes, &start, error);
    if (r == 0)
        r = read_pagemap(pid, start, info.ram_bytes, &runs, error);
    if (r < 0)
        return r;
    r = prefetch_make(&buf, info.id, info.ram_bytes, runs.table, runs.count);
    if (r == 0)
        r = fd_write_file_atomic(AT_FDCWD, set_path, buf.data, buf.len, 0600);
    return r < 0 ? vm_fail(error, r, "working set %s: %s", set_path, strerror(-r)) : 0;
}
