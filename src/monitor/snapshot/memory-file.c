/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/snapshot/memory-file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/fd.h"

#define PAGE     DIRTY_PAGE
#define RUN_MAX  256u /* pages of one write: what was just looked at is still in the cache */
#define MIB(n)   ((unsigned long long)(n) >> 20)
#define DIFF     1u /* trailer.flags */
#define WAY_OUT  "make the snapshot again"
#define RAM_STEP (1u << 20) /* RAM is whole MiB, so a bitmap is whole words */
#define RAM_MAX  ((uint64_t)UINT32_MAX << 20)

struct trailer { /* little-endian */
    char magic[8];
    uint32_t version, min_version; /* the writer's, and the oldest reader's that understands it */
    uint8_t id[MEMORY_FILE_ID], base[MEMORY_FILE_ID];
    uint64_t ram_bytes;
    uint32_t flags;
    uint32_t bitmap_crc; /* of the words without padding; 0 in a full file */
    uint8_t reserved[MEMORY_FILE_TRAILER - 68];
    uint32_t crc; /* of everything before */
};
static_assert(sizeof(struct trailer) == MEMORY_FILE_TRAILER, "one page");
static_assert(offsetof(struct trailer, ram_bytes) == 48 && offsetof(struct trailer, reserved) == 64, "no padding");

static const char magic[8] = {'I', 'C', 'L', 'A', 'W', 'M', 'E', 'M'};

/* ---- sizes ---- */

static uint64_t bitmap_bytes(uint64_t ram_bytes)
{
    return ram_bytes / PAGE / 8;
}

uint64_t memory_file_bytes(const struct memory_file_info *info)
{
    uint64_t bytes = info->ram_bytes + MEMORY_FILE_TRAILER;

    return info->diff ? bytes + ((bitmap_bytes(info->ram_bytes) + PAGE - 1) & ~(uint64_t)(PAGE - 1)) : bytes;
}

/* ---- input and output ---- */

static int write_at(int fd, const void *data, size_t len, uint64_t at)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

/* -ENODATA: the file ends before. */
static int read_at(int fd, void *data, size_t len, uint64_t at)
{
    uint8_t *p = data;

    while (len > 0) {
        ssize_t n = pread(fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENODATA;
        p += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

/* ---- the trailer ---- */

static void make_trailer(struct trailer *ret, const struct memory_file_info *info, uint32_t bitmap_crc)
{
    *ret = (struct trailer){.version = MEMORY_FILE_VERSION,
            .min_version = MEMORY_FILE_VERSION,
            .ram_bytes = info->ram_bytes,
            .flags = info->diff ? DIFF : 0,
            .bitmap_crc = bitmap_crc};
    memcpy(ret->magic, magic, sizeof(magic));
    memcpy(ret->id, info->id, sizeof(ret->id));
    memcpy(ret->base, info->base, sizeof(ret->base));
    ret->crc = crc32c(0, ret, offsetof(struct trailer, crc));
}

int memory_file_parse(struct memory_file_info *ret, const uint8_t bytes[static MEMORY_FILE_TRAILER])
{
    struct trailer t;

    memcpy(&t, bytes, sizeof(t));
    if (memcmp(t.magic, magic, sizeof(magic)) != 0 || t.crc != crc32c(0, &t, offsetof(struct trailer, crc)))
        return -EBADMSG;
    if (t.min_version > MEMORY_FILE_VERSION)
        return -EPROTONOSUPPORT;
    if (t.ram_bytes == 0 || t.ram_bytes % RAM_STEP != 0 || t.ram_bytes > RAM_MAX || (t.flags & ~DIFF))
        return -EBADMSG;
    *ret = (struct memory_file_info){.ram_bytes = t.ram_bytes, .diff = t.flags & DIFF};
    memcpy(ret->id, t.id, sizeof(ret->id));
    memcpy(ret->base, t.base, sizeof(ret->base));
    return 0;
}

/* The trailer behind ram_bytes of RAM, and the size that goes with it. */
static int read_trailer(struct memory_file_info *ret, struct trailer *ret_trailer, int fd, const char *path,
        uint64_t ram_bytes, struct vm_error *error)
{
    struct memory_file_info info;
    struct trailer trailer;
    struct stat st;
    int r;

    if (fstat(fd, &st) < 0)
        return vm_fail(error, -errno, "memory file %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return vm_fail(error, -EINVAL, "memory file %s: no regular file; name the one that the snapshot wrote", path);
    if ((uint64_t)st.st_size < ram_bytes + MEMORY_FILE_TRAILER)
        return vm_fail(error, -EBADMSG,
                "memory file %s: truncated: %llu bytes, of %llu MiB of memory there are %llu; %s", path,
                (unsigned long long)st.st_size, MIB(ram_bytes), (unsigned long long)ram_bytes + MEMORY_FILE_TRAILER,
                WAY_OUT);
    r = read_at(fd, &trailer, sizeof(trailer), ram_bytes);
    if (r < 0)
        return vm_fail(error, r, "memory file %s: its trailer: %s", path, strerror(-r));
    r = memory_file_parse(&info, (const uint8_t *)&trailer);
    if (r == -EPROTONOSUPPORT)
        return vm_fail(error, r,
                "memory file %s: of format %u, this monitor reads up to %u; use the version that wrote it", path,
                trailer.version, MEMORY_FILE_VERSION);
    if (r < 0)
        return vm_fail(error, r,
                "memory file %s: no valid trailer at byte %llu: of another size than %llu MiB, damaged, or never "
                "finished; %s",
                path, (unsigned long long)ram_bytes, MIB(ram_bytes), WAY_OUT);
    if (info.ram_bytes != ram_bytes)
        return vm_fail(error, -EBADMSG,
                "memory file %s: of %llu MiB of memory, %llu MiB are wanted; name the one of this snapshot", path,
                MIB(info.ram_bytes), MIB(ram_bytes));
    if ((uint64_t)st.st_size != memory_file_bytes(&info))
        return vm_fail(error, -EBADMSG, "memory file %s: %llu bytes, its trailer says %llu; %s", path,
                (unsigned long long)st.st_size, (unsigned long long)memory_file_bytes(&info), WAY_OUT);
    *ret = info;
    *ret_trailer = trailer;
    return 0;
}

int memory_file_read_info(int fd, const char *path, struct memory_file_info *ret, struct vm_error *error)
{
    off_t size = lseek(fd, 0, SEEK_END);
    struct trailer trailer;

    if (size < 0 || (uint64_t)size <= MEMORY_FILE_TRAILER)
        return vm_fail(error, -EBADMSG, "memory file %s: truncated, or no file; %s", path, WAY_OUT);
    return read_trailer(ret, &trailer, fd, path, (uint64_t)size - MEMORY_FILE_TRAILER, error);
}

/* ---- writing ---- */

struct run { /* pages that follow each other */
    size_t first, count;
};

static bool is_wanted(const struct memory *memory, const struct dirty_pages *only, size_t page)
{
    static const uint8_t zeros[PAGE];

    return only ? dirty_pages_has(only, page) : memcmp(memory->host + page * PAGE, zeros, PAGE) != 0;
}

/* The next run behind *run; false: there is none. */
static bool next_run(const struct memory *memory, const struct dirty_pages *only, struct run *run)
{
    size_t pages = (size_t)(memory->bytes / PAGE), at = run->first + run->count, end;

    while (at < pages && !is_wanted(memory, only, at))
        at++;
    for (end = at; end < pages && end - at < RUN_MAX && is_wanted(memory, only, end); end++)
        ;
    *run = (struct run){at, end - at};
    return end > at;
}

static int write_ram(int fd, const struct memory *memory, const struct dirty_pages *only, uint64_t *written)
{
    struct run run = {0};

    while (next_run(memory, only, &run)) {
        int r = write_at(fd, memory->host + run.first * PAGE, run.count * PAGE, run.first * PAGE);

        if (r < 0)
            return r;
        *written += run.count * PAGE;
    }
    return 0;
}

/* Last, so that a file that isn't finished has none. */
static int write_end(int fd, const struct dirty_pages *only, const struct memory_file_info *info)
{
    size_t len = only ? dirty_pages_words(only) * sizeof(*only->words) : 0;
    struct trailer trailer;
    int r = 0;

    if (only)
        r = write_at(fd, only->words, len, info->ram_bytes + MEMORY_FILE_TRAILER);
    if (r < 0)
        return r;
    make_trailer(&trailer, info, only ? crc32c(0, only->words, len) : 0);
    return write_at(fd, &trailer, sizeof(trailer), info->ram_bytes);
}

int memory_file_write(int fd, const struct memory *memory, const struct dirty_pages *only,
        const struct memory_file_info *info, struct vm_error *error)
{
    uint64_t written = 0;
    int r;

    assert(info->ram_bytes == memory->bytes && info->diff == (only != NULL));
    assert(!only || only->count == memory->bytes / PAGE);
    r = ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)memory_file_bytes(info)) < 0 ? -errno : 0;
    if (r == 0)
        r = write_ram(fd, memory, only, &written);
    if (r == 0)
        r = write_end(fd, only, info);
    if (r < 0)
        return vm_fail(error, r, "memory file: %s after %llu MiB; make room (up to %llu MiB), or name another place",
                strerror(-r), MIB(written), MIB(memory_file_bytes(info)) + 1);
    return 0;
}

/* ---- loading ---- */

static void print_id(char ret[static 2 * MEMORY_FILE_ID + 1], const uint8_t *id)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < MEMORY_FILE_ID; i++) {
        ret[2 * i] = digits[id[i] >> 4];
        ret[2 * i + 1] = digits[id[i] & 15];
    }
    ret[2 * (size_t)MEMORY_FILE_ID] = 0;
}

static int check_id(const char *path, const uint8_t *found, const uint8_t *wanted, const char *whose,
        const char *way_out, struct vm_error *error)
{
    char a[2 * MEMORY_FILE_ID + 1], b[2 * MEMORY_FILE_ID + 1];

    if (memcmp(found, wanted, MEMORY_FILE_ID) == 0)
        return 0;
    print_id(a, found);
    print_id(b, wanted);
    return vm_fail(error, -ESTALE, "memory file %s: of snapshot %s, %s %s; %s", path, a, whose, b, way_out);
}

int memory_load_file(struct memory *ret, const struct machine_config *config, int fd, const char *path,
        const uint8_t id[static MEMORY_FILE_ID], struct vm_error *error)
{
    struct memory_file_info info = {0};
    struct trailer trailer;
    int r;

    *ret = (struct memory){0};
    r = read_trailer(&info, &trailer, fd, path, (uint64_t)config->mem_size_mib << 20, error);
    if (r == 0)
        r = check_id(path, info.id, id, "the state file is of", "name the two files of one snapshot", error);
    if (r < 0)
        return r;
    if (info.diff)
        return vm_fail(error, -EINVAL,
                "memory file %s: holds only what changed since another snapshot; merge it into that one's file first",
                path);
    return memory_init_file(ret, config, fd, error);
}

/* ---- merging ---- */

static int copy_pages(int to_fd, int from_fd, size_t first, size_t count)
{
    uint8_t bytes[16 * PAGE];

    while (count > 0) {
        size_t n = MIN(count, sizeof(bytes) / PAGE);
        int r = read_at(from_fd, bytes, n * PAGE, first * PAGE);

        if (r == 0)
            r = write_at(to_fd, bytes, n * PAGE, first * PAGE);
        if (r < 0)
            return r;
        first += n;
        count -= n;
    }
    return 0;
}

/* One word's worth of pages after the other; the bitmap is read with them, its sum comes out at the end. */
static int copy_diff(int base_fd, int diff_fd, uint64_t ram_bytes, uint32_t *ret_crc)
{
    uint64_t words = bitmap_bytes(ram_bytes) / sizeof(uint64_t);
    uint32_t crc = 0;

    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        int r = read_at(diff_fd, &word, sizeof(word), ram_bytes + MEMORY_FILE_TRAILER + i * sizeof(word));

        crc = r == 0 ? crc32c(crc, &word, sizeof(word)) : crc;
        while (r == 0 && word) {
            unsigned first = (unsigned)__builtin_ctzll(word);
            unsigned count = ~(word >> first) ? (unsigned)__builtin_ctzll(~(word >> first)) : 64;

            r = copy_pages(base_fd, diff_fd, i * 64 + first, count);
            word &= count == 64 ? 0 : ~(((1ull << count) - 1) << first);
        }
        if (r < 0)
            return r;
    }
    *ret_crc = crc;
    return 0;
}

/* Looked at before anything is written: a damaged diff leaves its base alone. */
static int check_bitmap(int diff_fd, const char *path, const struct trailer *trailer, struct vm_error *error)
{
    uint64_t left = bitmap_bytes(trailer->ram_bytes), at = trailer->ram_bytes + MEMORY_FILE_TRAILER;
    uint8_t bytes[PAGE];
    uint32_t crc = 0;

    while (left > 0) {
        size_t n = (size_t)MIN(left, (uint64_t)sizeof(bytes));
        int r = read_at(diff_fd, bytes, n, at);

        if (r < 0)
            return vm_fail(error, r, "memory file %s: its bitmap: %s", path, strerror(-r));
        crc = crc32c(crc, bytes, n);
        at += n;
        left -= n;
    }
    if (crc != trailer->bitmap_crc)
        return vm_fail(error, -EBADMSG, "memory file %s: its bitmap is damaged; %s", path, WAY_OUT);
    return 0;
}

static int check_pair(struct trailer *ret_diff, int base_fd, const char *base_path, int diff_fd, const char *diff_path,
        struct vm_error *error)
{
    static const uint8_t unknown[MEMORY_FILE_ID];
    struct memory_file_info base = {0}, diff = {0};
    int r = memory_file_read_info(base_fd, base_path, &base, error);

    if (r == 0)
        r = read_trailer(&diff, ret_diff, diff_fd, diff_path, base.ram_bytes, error);
    if (r < 0)
        return r;
    if (base.diff || !diff.diff)
        return vm_fail(error, -EINVAL,
                "memory files %s and %s: a full one and one with changes are wanted, in this order", base_path,
                diff_path);
    if (memcmp(diff.base, unknown, sizeof(unknown)) == 0)
        return 0;
    return check_id(base_path, base.id, diff.base, "the changes continue", "name the file that they continue", error);
}

int memory_file_merge(int base_fd, const char *base_path, int diff_fd, const char *diff_path, struct vm_error *error)
{
    static const uint8_t none[MEMORY_FILE_TRAILER];
    struct memory_file_info info = {0};
    struct trailer diff = {0}, trailer;
    uint32_t crc = 0;
    int r = check_pair(&diff, base_fd, base_path, diff_fd, diff_path, error);

    if (r == 0)
        r = check_bitmap(diff_fd, diff_path, &diff, error);
    if (r < 0)
        return r;
    /* From here on it is neither the one nor the other until all is there. */
    r = write_at(base_fd, none, sizeof(none), diff.ram_bytes);
    if (r == 0 && fdatasync(base_fd) < 0)
        r = -errno;
    if (r == 0)
        r = copy_diff(base_fd, diff_fd, diff.ram_bytes, &crc);
    if (r == 0 && crc != diff.bitmap_crc)
        r = -ESTALE; /* somebody writes to it */
    if (r == 0) {
        info.ram_bytes = diff.ram_bytes;
        memcpy(info.id, diff.id, sizeof(info.id));
        make_trailer(&trailer, &info, 0);
        r = write_at(base_fd, &trailer, sizeof(trailer), info.ram_bytes);
    }
    return r < 0 ? vm_fail(error, r, "merging %s into %s: %s", diff_path, base_path, strerror(-r)) : 0;
}

int memory_file_merge_paths(const char *base_path, const char *diff_path, struct vm_error *error)
{
    _cleanup_(fd_closep) int base = open(base_path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), diff = -1;
    int r;

    if (base < 0)
        return vm_fail(error, -errno, "memory file %s: %s", base_path, strerror(errno));
    diff = open(diff_path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (diff < 0)
        return vm_fail(error, -errno, "memory file %s: %s", diff_path, strerror(errno));
    r = memory_file_merge(base, base_path, diff, diff_path, error);
    if (r == 0 && fsync(base) < 0)
        r = vm_fail(error, -errno, "memory file %s: %s", base_path, strerror(errno));
    return r;
}
