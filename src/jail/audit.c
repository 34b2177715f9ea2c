/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/audit.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/macro.h"

#define VERSION         1u
#define MIN_VERSION     1u /* who reads this one reads us */
#define LOCK_TIMEOUT_MS 2000u
#define LOCK_POLL_NS    1000000

static const char magic[8] = "ICAUDIT"; /* and NUL */

struct disk_header {
    char magic[8];
    uint32_t version, min_version;
    uint32_t capacity, entry_size;
    uint64_t total;
    uint8_t reserved[32];
};
static_assert(sizeof(struct disk_header) == AUDIT_HEADER_SIZE, "on-disk format");
static_assert(
        offsetof(struct disk_header, capacity) == 16 && offsetof(struct disk_header, total) == 24, "on-disk format");

struct disk_entry {
    int64_t time_unix_ms;
    uint32_t action;
    int32_t call;
    uint64_t args[6];
    uint64_t count;
    uint32_t pid;
    char vm_id[72];
    char process[20];
    char thread[16];
    char text[108];
    uint8_t reserved[28];
};
static_assert(sizeof(struct disk_entry) == AUDIT_ENTRY_SIZE, "on-disk format");
static_assert(offsetof(struct disk_entry, args) == 16 && offsetof(struct disk_entry, pid) == 72 &&
                      offsetof(struct disk_entry, vm_id) == 76 && offsetof(struct disk_entry, text) == 184,
        "on-disk format");

static size_t ring_size(uint32_t capacity)
{
    return AUDIT_HEADER_SIZE + (size_t)capacity * AUDIT_ENTRY_SIZE;
}

int64_t audit_now(void)
{
    struct timespec ts;

    /* The vDSO knows the coarse clock on every host, so no filter is asked. */
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- entries ---- */

static void put_text(char *dst, size_t size, const char *src, size_t src_size)
{
    size_t len = strnlen(src, MIN(src_size, size - 1));

    memcpy(dst, src, len);
    memset(dst + len, 0, size - len);
}

void audit_encode(const struct audit_entry *entry, uint8_t dst[static AUDIT_ENTRY_SIZE])
{
    struct disk_entry d = {
            .time_unix_ms = (int64_t)htole64((uint64_t)entry->time_unix_ms),
            .action = htole32((uint32_t)entry->action),
            .call = (int32_t)htole32((uint32_t)entry->call),
            .count = htole64(entry->count),
            .pid = htole32(entry->pid),
    };

    for (size_t i = 0; i < ARRAY_SIZE(d.args); i++)
        d.args[i] = htole64(entry->args[i]);
    put_text(d.vm_id, sizeof(d.vm_id), entry->vm_id, sizeof(entry->vm_id));
    put_text(d.process, sizeof(d.process), entry->process, sizeof(entry->process));
    put_text(d.thread, sizeof(d.thread), entry->thread, sizeof(entry->thread));
    put_text(d.text, sizeof(d.text), entry->text, sizeof(entry->text));
    memcpy(dst, &d, sizeof(d));
}

static void get_text(char *dst, size_t size, const char *src, size_t src_size)
{
    size_t len = strnlen(src, MIN(src_size, size - 1));

    for (size_t i = 0; i < len; i++)
        dst[i] = src[i] >= 0x20 && src[i] < 0x7f ? src[i] : '?';
    memset(dst + len, 0, size - len);
}

int audit_decode(const uint8_t src[static AUDIT_ENTRY_SIZE], struct audit_entry *ret)
{
    struct disk_entry d;
    uint32_t action;

    memcpy(&d, src, sizeof(d));
    action = le32toh(d.action);
    if (action == 0 || action >= AUDIT_ACTIONS || d.count == 0)
        return -EBADMSG;
    *ret = (struct audit_entry){
            .time_unix_ms = (int64_t)le64toh((uint64_t)d.time_unix_ms),
            .action = (enum audit_action)action,
            .call = (int32_t)le32toh((uint32_t)d.call),
            .count = le64toh(d.count),
            .pid = le32toh(d.pid),
    };
    for (size_t i = 0; i < ARRAY_SIZE(d.args); i++)
        ret->args[i] = le64toh(d.args[i]);
    get_text(ret->vm_id, sizeof(ret->vm_id), d.vm_id, sizeof(d.vm_id));
    get_text(ret->process, sizeof(ret->process), d.process, sizeof(d.process));
    get_text(ret->thread, sizeof(ret->thread), d.thread, sizeof(d.thread));
    get_text(ret->text, sizeof(ret->text), d.text, sizeof(d.text));
    return 0;
}

/* ---- reading ---- */

static void make_header(struct disk_header *ret, uint32_t capacity)
{
    *ret = (struct disk_header){
            .version = htole32(VERSION),
            .min_version = htole32(MIN_VERSION),
            .capacity = htole32(capacity),
            .entry_size = htole32(AUDIT_ENTRY_SIZE),
    };
    memcpy(ret->magic, magic, sizeof(magic));
}

static int check_header(const struct disk_header *h, uint32_t capacity)
{
    if (memcmp(h->magic, magic, sizeof(magic)) != 0 || h->version == 0)
        return -EBADMSG;
    if (le32toh(h->min_version) > VERSION)
        return -EPROTONOSUPPORT;
    return le32toh(h->capacity) == capacity && le32toh(h->entry_size) == AUDIT_ENTRY_SIZE ? 0 : -EBADMSG;
}

void audit_log_deinit(struct audit_log *log)
{
    free(log->entries);
    *log = (struct audit_log){0};
}

int audit_parse(const void *data, size_t len, uint32_t capacity, struct audit_log *ret)
{
    const uint8_t *slots = (const uint8_t *)data + AUDIT_HEADER_SIZE;
    struct audit_log log = {0};
    struct disk_header header;
    uint64_t total, first;
    int r;

    if (len < sizeof(header))
        return -EBADMSG;
    memcpy(&header, data, sizeof(header));
    r = check_header(&header, capacity);
    if (r < 0)
        return r;
    total = le64toh(header.total);
    first = total > capacity ? total - capacity : 0;
    log.dropped = first;
    log.entries = calloc((size_t)(total - first) + 1, sizeof(*log.entries));
    if (!log.entries)
        return -ENOMEM;
    for (uint64_t n = first; n < total; n++) {
        size_t at = (size_t)(n % capacity) * AUDIT_ENTRY_SIZE;

        /* A file may be shorter than it should be, and a slot be torn. */
        if (len - AUDIT_HEADER_SIZE < at + AUDIT_ENTRY_SIZE || audit_decode(slots + at, &log.entries[log.count]) < 0)
            log.dropped = log.dropped == UINT64_MAX ? UINT64_MAX : log.dropped + 1;
        else
            log.count++;
    }
    *ret = log;
    return 0;
}

int audit_read(const char *path, uint32_t capacity, struct audit_log *ret)
{
    _cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    _cleanup_(freep) uint8_t *data = NULL;
    size_t size = ring_size(capacity), len = 0;
    ssize_t n = 1;

    if (fd < 0)
        return -errno;
    data = malloc(size);
    if (!data)
        return -ENOMEM;
    while (len < size && n > 0) {
        n = pread(fd, data + len, size - len, (off_t)len);
        if (n < 0 && errno != EINTR)
            return -errno;
        len += n > 0 ? (size_t)n : 0;
        n = n < 0 ? 1 : n;
    }
    return audit_parse(data, len, capacity, ret);
}

/* ---- a user's ring ---- */

static int lock(int fd)
{
    const struct timespec step = {.tv_nsec = LOCK_POLL_NS};
    uint64_t deadline = deadline_after_ms(LOCK_TIMEOUT_MS);

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (deadline_poll_ms(deadline) == 0)
            return -ETIMEDOUT;
        (void)nanosleep(&step, NULL);
    }
    return 0;
}

static int write_at(int fd, const void *data, size_t len, size_t at)
{
    ssize_t n = pwrite(fd, data, len, (off_t)at);

    if (n < 0)
        return -errno;
    return n == (ssize_t)len ? 0 : -ENOSPC;
}

/* The header, or that of a new ring. */
static int read_header(int fd, struct disk_header *ret)
{
    ssize_t n = pread(fd, ret, sizeof(*ret), 0);
    int r = n == (ssize_t)sizeof(*ret) ? check_header(ret, AUDIT_ENTRIES) : n < 0 ? -errno : -EBADMSG;

    if (r != -EBADMSG)
        return r;
    if (ftruncate(fd, 0) < 0)
        return -errno;
    make_header(ret, AUDIT_ENTRIES);
    return 0;
}

int audit_append(const char *path, const struct audit_entry *entries, size_t count)
{
    _cleanup_(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct disk_header header = {0};
    uint64_t total;
    int r;

    if (fd < 0)
        return -errno;
    r = lock(fd);
    if (r == 0)
        r = read_header(fd, &header);
    if (r < 0)
        return r;
    total = le64toh(header.total);
    for (size_t i = 0; r == 0 && i < count; i++) {
        struct audit_entry entry = entries[i];
        uint8_t slot[AUDIT_ENTRY_SIZE];

        if (entry.time_unix_ms == 0)
            entry.time_unix_ms = audit_now();
        entry.count = MAX(entry.count, (uint64_t)1);
        audit_encode(&entry, slot);
        r = write_at(fd, slot, sizeof(slot), AUDIT_HEADER_SIZE + (size_t)(total % AUDIT_ENTRIES) * sizeof(slot));
        if (r == 0)
            total++;
    }
    /* Last: an entry that the header does not count is not there. Those that were written are, whatever became of the
     * rest. */
    header.total = htole64(total);
    if (count > 0) {
        int w = write_at(fd, &header, sizeof(header), 0);

        r = r < 0 ? r : w;
    }
    return r;
}

/* ---- a process's ring ---- */

int audit_ring_create(const char *path, int *ret_fd)
{
    _cleanup_(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct disk_header header;
    int r;

    if (fd < 0)
        return -errno;
    /* All of it now: a full disk must not end the process with SIGBUS when it writes into its mapping. */
    r = -posix_fallocate(fd, 0, (off_t)ring_size(AUDIT_PROCESS_ENTRIES));
    if (r == 0) {
        make_header(&header, AUDIT_PROCESS_ENTRIES);
        r = write_at(fd, &header, sizeof(header), 0);
    }
    if (r < 0) {
        (void)unlink(path);
        return r;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int audit_ring_map(int fd, struct audit_ring *ret)
{
    size_t size = ring_size(AUDIT_PROCESS_ENTRIES);
    struct disk_header header;
    struct stat st;
    void *map;
    int r;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size != (off_t)size)
        return -EBADMSG;
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    memcpy(&header, map, sizeof(header));
    r = check_header(&header, AUDIT_PROCESS_ENTRIES);
    if (r < 0) {
        (void)munmap(map, size);
        return r;
    }
    *ret = (struct audit_ring){.map = map};
    return 0;
}

void audit_ring_update(const struct audit_ring *ring, uint32_t slot, const struct audit_entry *entry)
{
    uint8_t bytes[AUDIT_ENTRY_SIZE];

    if (!ring->map)
        return;
    audit_encode(entry, bytes);
    memcpy(ring->map + AUDIT_HEADER_SIZE + (size_t)(slot % AUDIT_PROCESS_ENTRIES) * AUDIT_ENTRY_SIZE, bytes,
            sizeof(bytes));
}

uint32_t audit_ring_add(const struct audit_ring *ring, const struct audit_entry *entry)
{
    struct audit_entry copy = *entry;
    struct disk_header *header = (struct disk_header *)(void *)ring->map;
    uint64_t n;

    if (!header)
        return 0;
    if (copy.time_unix_ms == 0)
        copy.time_unix_ms = audit_now();
    copy.count = MAX(copy.count, (uint64_t)1);
#if __BYTE_ORDER != __LITTLE_ENDIAN
#error "the counter in a mapped ring is little endian"
#endif
    /* Claimed first, so that two threads never share a slot; what is read before it is written is no entry. */
    n = __atomic_fetch_add(&header->total, 1, __ATOMIC_RELAXED);
    audit_ring_update(ring, (uint32_t)(n % AUDIT_PROCESS_ENTRIES), &copy);
    return (uint32_t)(n % AUDIT_PROCESS_ENTRIES);
}
