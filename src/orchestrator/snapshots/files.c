/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/snapshots/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#define PAGE        4096u
#define CHUNK_PAGES 256u

struct copy {
    int in, out; /* out -1: only the digest */
    uint64_t size, at;
    struct sha256_ctx sum;
    _Alignas(64) uint8_t chunk[CHUNK_PAGES * PAGE];
};

static bool is_zero(const uint8_t *page, size_t len)
{
    /* Equal to itself shifted by one, and it begins with zero. */
    return page[0] == 0 && memcmp(page, page + 1, len - 1) == 0;
}

static void add_number(struct sha256_ctx *sum, uint64_t number)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(number >> (8 * i));
    sha256_update(sum, sizeof(bytes), bytes);
}

static int write_at(int fd, const uint8_t *data, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, data, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

/* What is in the chunk, `len` bytes of it; runs of pages that are not zero are written at once. */
static int take_chunk(struct copy *c, size_t len)
{
    size_t run = 0;
    int r = 0;

    for (size_t at = 0; r == 0 && at < len; at += PAGE) {
        size_t part = MIN((size_t)PAGE, len - at);
        bool zero = is_zero(c->chunk + at, part);

        if (!zero) {
            add_number(&c->sum, (c->at + at) / PAGE);
            sha256_update(&c->sum, part, c->chunk + at);
            run += part;
        }
        if (c->out >= 0 && run > 0 && (zero || at + part == len)) {
            size_t end = zero ? at : at + part;

            r = write_at(c->out, c->chunk + end - run, run, c->at + end - run);
            run = 0;
        }
    }
    return r;
}

/* The next byte that may be data; the size when there is none. Page-aligned. */
static uint64_t next_data(const struct copy *c)
{
    off_t data = lseek(c->in, (off_t)c->at, SEEK_DATA);

    if (data < 0)
        return errno == ENXIO ? c->size : c->at;
    return MAX((uint64_t)data & ~(uint64_t)(PAGE - 1), c->at);
}

static int run(struct copy *c, const struct progress *progress, const char *what, struct ic_error *error)
{
    int r = 0;

    sha256_init(&c->sum);
    for (c->at = next_data(c); r == 0 && c->at < c->size; c->at = next_data(c)) {
        size_t want = (size_t)MIN((uint64_t)sizeof(c->chunk), c->size - c->at), have = 0;

        while (have < want) {
            ssize_t n = pread(c->in, c->chunk + have, want - have, (off_t)(c->at + have));

            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return ic_fail_errno(error, n < 0 ? -errno : -EIO, "%s", what);
            have += (size_t)n;
        }
        r = take_chunk(c, want);
        if (r < 0)
            return ic_fail_errno(error, r, "%s", what);
        r = progress_report(progress, what, c->at + want, c->size, error);
        c->at += want;
    }
    return r;
}

static void finish(struct copy *c, struct file_sum *ret)
{
    uint8_t digest[SHA256_DIGEST_SIZE];

    add_number(&c->sum, c->size);
    sha256_digest(&c->sum, sizeof(digest), digest);
    for (unsigned i = 0; i < sizeof(digest); i++)
        (void)snprintf(ret->sha256 + 2 * (size_t)i, 3, "%02x", digest[i]);
    ret->size = c->size;
}

static int copy_new(struct copy **ret, int in, struct ic_error *error)
{
    struct copy *c = aligned_alloc(64, (sizeof(*c) + 63) & ~(size_t)63);

    if (!c)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    c->in = in;
    c->out = -1;
    c->at = 0;
    *ret = c;
    return 0;
}

int file_take(
        int dir_fd, const char *name, const char *to, uint64_t max_bytes, struct file_sum *ret, struct ic_error *error)
{
    /* Not to wait for a FIFO that lies there in the file's place. */
    _cleanup_(fd_closep) int in = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    _cleanup_(freep) struct copy *c = NULL;
    struct stat st;
    int r;

    if (in < 0)
        return ic_fail_errno(error, -errno, "the monitor's file %s", name);
    if (fstat(in, &st) < 0)
        return ic_fail_errno(error, -errno, "the monitor's file %s", name);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max_bytes)
        return ic_fail(error, IC_ERR_CORRUPT, "the monitor's file %s: no regular file of at most %llu bytes", name,
                (unsigned long long)max_bytes);
    r = copy_new(&c, in, error);
    if (r < 0)
        return r;
    c->size = (uint64_t)st.st_size;
    c->out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0444);
    if (c->out < 0)
        return ic_fail_errno(error, -errno, "%s", to);
    r = run(c, NULL, to, error);
    if (r == 0 && (fchmod(c->out, 0444) < 0 || ftruncate(c->out, (off_t)c->size) < 0))
        r = ic_fail_errno(error, -errno, "%s", to);
    if (close(c->out) < 0 && r == 0)
        r = ic_fail_errno(error, -errno, "%s", to);
    if (r == 0)
        finish(c, ret);
    else
        (void)unlink(to);
    return r;
}

int file_sum(const char *path, const struct progress *progress, const char *what, struct file_sum *ret,
        struct ic_error *error)
{
    _cleanup_(fd_closep) int in = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    _cleanup_(freep) struct copy *c = NULL;
    struct stat st;
    int r;

    if (in < 0 || fstat(in, &st) < 0)
        return ic_fail_errno(error, -errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return ic_fail(error, IC_ERR_CORRUPT, "%s: not a regular file", path);
    r = copy_new(&c, in, error);
    if (r < 0)
        return r;
    c->size = (uint64_t)st.st_size;
    r = run(c, progress, what, error);
    if (r == 0)
        finish(c, ret);
    return r;
}
