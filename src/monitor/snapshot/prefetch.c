/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/snapshot/prefetch.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/crc32c.h"

#ifndef MADV_POPULATE_READ /* Linux 5.14; headers may be older */
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE      DIRTY_PAGE
#define WRITE     (1u << 31)
#define CRC_AT    44u
#define FILE_MAX  (PREFETCH_HEADER + PREFETCH_MAX_RUNS * PREFETCH_RUN)
#define PAGES_MAX ((uint64_t)1 << 31) /* of all runs: RAM of 8 TiB */

static const uint8_t magic[8] = {'I', 'C', 'L', 'A', 'W', 'S', 'E', 'T'};

/* ---- the format ---- */

static uint32_t checksum(const uint8_t *data, size_t len)
{
    return crc32c(crc32c(0, data, CRC_AT), data + PREFETCH_HEADER, len - PREFETCH_HEADER);
}

bool prefetch_next(struct prefetch *prefetch, struct prefetch_run *ret)
{
    uint32_t count;

    if (prefetch->runs.left < PREFETCH_RUN)
        return false;
    ret->first = rd_le32(&prefetch->runs);
    count = rd_le32(&prefetch->runs);
    ret->count = count & ~WRITE;
    ret->write = count & WRITE;
    return true;
}

/* True when each run is inside of the RAM and all together are no more than it. */
static bool runs_fit(struct prefetch prefetch)
{
    uint64_t pages = prefetch.ram_bytes / PAGE, left = pages;
    struct prefetch_run run;

    while (prefetch_next(&prefetch, &run)) {
        if (run.count == 0 || run.count > left || run.first >= pages || run.count > pages - run.first)
            return false;
        left -= run.count;
    }
    return true;
}

int prefetch_parse(struct prefetch *ret, const void *data, size_t len)
{
    struct rd rd = rd_of(data, len);
    const uint8_t *found = rd_bytes(&rd, sizeof(magic)), *id;
    struct prefetch prefetch = {0};
    uint32_t min_version, crc;

    if (!found || memcmp(found, magic, sizeof(magic)) != 0)
        return -EBADMSG;
    (void)rd_le32(&rd);
    min_version = rd_le32(&rd);
    id = rd_bytes(&rd, sizeof(prefetch.id));
    prefetch.ram_bytes = rd_le64(&rd);
    prefetch.run_count = rd_le32(&rd);
    crc = rd_le32(&rd);
    if (rd.failed || crc != checksum(data, len))
        return -EBADMSG;
    if (min_version > PREFETCH_VERSION)
        return -EPROTONOSUPPORT;
    if (prefetch.run_count > PREFETCH_MAX_RUNS || rd.left != (size_t)prefetch.run_count * PREFETCH_RUN ||
            prefetch.ram_bytes % PAGE != 0 || prefetch.ram_bytes / PAGE > PAGES_MAX)
        return -EBADMSG;
    memcpy(prefetch.id, id, sizeof(prefetch.id));
    prefetch.runs = rd;
    if (!runs_fit(prefetch))
        return -EBADMSG;
    *ret = prefetch;
    return 0;
}

int prefetch_make(struct buf *ret, const uint8_t id[static MEMORY_FILE_ID], uint64_t ram_bytes,
        const struct prefetch_run *runs, size_t count)
{
    struct prefetch check;
    int r;

    if (count > PREFETCH_MAX_RUNS)
        return -EINVAL;
    buf_reset(ret);
    buf_put(ret, magic, sizeof(magic));
    buf_put_le32(ret, PREFETCH_VERSION);
    buf_put_le32(ret, PREFETCH_VERSION);
    buf_put(ret, id, MEMORY_FILE_ID);
    buf_put_le64(ret, ram_bytes);
    buf_put_le32(ret, (uint32_t)count);
    buf_put_le32(ret, 0);
    for (size_t i = 0; i < count; i++) {
        if (runs[i].count & WRITE)
            return -EINVAL;
        buf_put_le32(ret, runs[i].first);
        buf_put_le32(ret, runs[i].count | (runs[i].write ? WRITE : 0));
    }
    if (ret->error)
        return ret->error;
    buf_patch_le32(ret, CRC_AT, checksum(ret->data, ret->len));
    r = prefetch_parse(&check, ret->data, ret->len);
    return r < 0 ? -EINVAL : 0;
}

/* ---- filling memory ---- */

/* *ret_len > FILE_MAX: it is longer than any. */
static int read_file(int fd, uint8_t *to, size_t *ret_len)
{
    size_t len = 0;

    while (len <= FILE_MAX) {
        ssize_t n = pread(fd, to + len, FILE_MAX + 1 - len, (off_t)len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    *ret_len = len;
    return 0;
}

static int populate(struct memory *memory, const struct prefetch_run *run)
{
    uint8_t *at = memory->host + (size_t)run->first * PAGE;
    size_t len = (size_t)run->count * PAGE;

    if (madvise(at, len, run->write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0)
        return 0;
    return -errno;
}

static int fill(struct memory *memory, struct prefetch *prefetch, uint64_t *ret_pages)
{
    struct prefetch_run run;
    uint64_t pages = 0;
    int r = 0;

    while (r == 0 && prefetch_next(prefetch, &run)) {
        r = populate(memory, &run);
        if (r == -EINVAL) { /* a kernel that can't: at least the disk can start */
            (void)madvise(memory->host + (size_t)run.first * PAGE, (size_t)run.count * PAGE, MADV_WILLNEED);
            r = 0;
        } else if (r == 0) {
            pages += run.count;
        }
    }
    if (r == 0)
        *ret_pages = pages;
    return r;
}

int memory_prefetch(struct memory *memory, int fd, const char *path, const uint8_t id[static MEMORY_FILE_ID],
        uint64_t *ret_pages, struct vm_error *error)
{
    _cleanup_(freep) uint8_t *data = malloc(FILE_MAX + 1);
    struct prefetch prefetch;
    size_t len = 0;
    int r;

    if (!data)
        return vm_fail(error, -ENOMEM, "working set %s: out of memory", path);
    r = read_file(fd, data, &len);
    if (r < 0)
        return vm_fail(error, r, "working set %s: %s", path, strerror(-r));
    r = prefetch_parse(&prefetch, data, len);
    if (r == -EPROTONOSUPPORT)
        return vm_fail(
                error, r, "working set %s: of a later version than %u; measure it again", path, PREFETCH_VERSION);
    if (r < 0)
        return vm_fail(error, r, "working set %s: damaged, or none; measure it again", path);
    if (memcmp(prefetch.id, id, sizeof(prefetch.id)) != 0 || prefetch.ram_bytes != memory->bytes)
        return vm_fail(error, -ESTALE, "working set %s: of another snapshot; measure it again", path);
    r = fill(memory, &prefetch, ret_pages);
    return r < 0 ? vm_fail(error, r, "working set %s: filling guest memory: %s", path, strerror(-r)) : 0;
}
