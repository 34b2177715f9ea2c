/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk on a file.
 *
 * One thread per drive makes one request after the other with preadv and
 * pwritev straight from and to guest memory. Not io_uring: with the image in
 * the page cache, where a root file system lives, it is never faster and one
 * request at a time is slower (docs/architecture.md has the numbers), and it
 * would add a large system call surface to the thread's filter.
 *
 * Whether the guest may write is decided once, when the file is opened: a
 * read-only drive has no descriptor that could be written with.
 *
 * A request runs under the device's lock: a vCPU that resets the device in
 * the middle of one waits for it, which is what a reset promises.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macro.h"
#include "monitor/devices/devices.h"

/* Formats and numbers: virtio 1.2 §5.2. */
#define SECTOR 512u

#define F_SIZE_MAX     1u
#define F_SEG_MAX      2u
#define F_RO           5u
#define F_BLK_SIZE     6u
#define F_FLUSH        9u
#define F_DISCARD      13u
#define F_WRITE_ZEROES 14u
#define BIT(n)         (1ull << (n))

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { STATUS_OK, STATUS_IOERR, STATUS_UNSUPP };
#define ID_BYTES        20u
#define UNMAP           1u
#define SEGMENT_MAX     65536u
#define SEGMENTS_MAX    254u /* queue entries less header and status */
#define REQUEST_MAX     (SEGMENT_MAX * SEGMENTS_MAX)
#define DISCARD_SECTORS (1u << 21)

#define QUEUE_SIZE  256u
#define BATCH       16u        /* requests, or */
#define BATCH_BYTES (4u << 20) /* of data after which the lock is given up */

struct request {
    uint32_t type, reserved;
    uint64_t sector;
};
static_assert(sizeof(struct request) == 16, "virtio 1.2 5.2.6");

struct discard {
    uint64_t sector;
    uint32_t sectors, flags;
};
static_assert(sizeof(struct discard) == 16, "virtio 1.2 5.2.6");

struct config {
    uint64_t capacity; /* sectors */
    uint32_t size_max, seg_max;
    uint8_t geometry[4];
    uint32_t blk_size;
    uint8_t topology[8], writeback, unused0[3];
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
};
#define CONFIG_BYTES 60u /* the rest is padding */
static_assert(offsetof(struct config, unused1) + 3 == CONFIG_BYTES, "virtio 1.2 5.2.4");

struct block {
    struct virtio_device dev;
    int fd;
    bool read_only;
    struct config config;
    char id[VM_MAX_ID + 1], name[VM_MAX_ID + 8];
    struct vq_chain chain;
    struct block_stats stats; /* written by the thread, read by any: relaxed atomics */

    struct loop loop;
    struct loop_fd stop;
    pthread_t thread;
    sem_t confined;
    bool running;
};

/* Where `len` bytes at a sector are in the file; false when a byte of them is not on the disk. */
static bool locate(const struct block *block, uint64_t sector, uint64_t len, off_t *ret)
{
    uint64_t capacity = block->config.capacity;

    if (len % SECTOR != 0 || sector > capacity || len / SECTOR > capacity - sector)
        return false;
    *ret = (off_t)(sector * SECTOR);
    return true;
}

/* All `len` bytes of the views, whatever the kernel gives at once. They are used up. */
static int transfer(int fd, bool write, struct iovec *iov, size_t count, off_t at)
{
    while (count > 0) {
        ssize_t n = write ? pwritev(fd, iov, (int)count, at) : preadv(fd, iov, (int)count, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* 0: somebody cut the file */
            return n < 0 ? -errno : -EIO;
        at += n;
        for (; count > 0 && (size_t)n >= iov->iov_len; iov++, count--)
            n -= (ssize_t)iov->iov_len;
        if (count > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    return 0;
}
static_assert(VQ_MAX_CHAIN <= 1024, "IOV_MAX");

static void count(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

static uint8_t read_or_write(struct block *block, bool write, uint64_t sector)
{
    struct vq_chain *chain = &block->chain;
    uint32_t len = write ? chain->readable_bytes : chain->writable_bytes;
    off_t at;
    int r;

    if ((write && block->read_only) || len > REQUEST_MAX || !locate(block, sector, len, &at))
        return STATUS_IOERR;
    if (write)
        r = transfer(block->fd, true, chain->readable, chain->readable_count, at);
    else
        r = transfer(block->fd, false, chain->writable, chain->writable_count, at);
    count(write ? &block->stats.writes : &block->stats.reads, 1);
    count(write ? &block->stats.write_bytes : &block->stats.read_bytes, len);
    return r < 0 ? STATUS_IOERR : STATUS_OK;
}

/* One segment, as the configuration says. */
static uint8_t discard(struct block *block, bool zero)
{
    struct discard segment;
    bool keep;
    off_t at;
    int r;

    if (block->read_only)
        return STATUS_IOERR;
    if (!(block->dev.features & BIT(F_DISCARD)))
        return STATUS_UNSUPP;
    if (block->chain.readable_bytes != sizeof(segment) || !vq_chain_take(&block->chain, &segment, sizeof(segment)))
        return STATUS_IOERR;
    if (segment.flags & ~(zero ? UNMAP : 0u))
        return STATUS_UNSUPP;
    if (segment.sectors > DISCARD_SECTORS || !locate(block, segment.sector, (uint64_t)segment.sectors * SECTOR, &at))
        return STATUS_IOERR;
    if (segment.sectors == 0)
        return STATUS_OK;
    keep = zero && !(segment.flags & UNMAP);
    r = fallocate(block->fd, FALLOC_FL_KEEP_SIZE | (keep ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE), at,
            (off_t)segment.sectors * SECTOR);
    if (r < 0 && keep && errno == EOPNOTSUPP) /* tmpfs: zeros it can, keeping the blocks not */
        r = fallocate(block->fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, at, (off_t)segment.sectors * SECTOR);
    if (r < 0)
        return errno == EOPNOTSUPP ? STATUS_UNSUPP : STATUS_IOERR;
    return STATUS_OK;
}

static uint8_t get_id(struct block *block)
{
    char id[ID_BYTES] = {0};

    if (block->chain.writable_bytes < sizeof(id))
        return STATUS_IOERR;
    memcpy(id, block->id, strnlen(block->id, sizeof(id)));
    vq_scatter(block->chain.writable, id, sizeof(id));
    return STATUS_OK;
}

static uint8_t execute(struct block *block, uint32_t *ret_written)
{
    struct request request;
    uint8_t status;

    if (!vq_chain_take(&block->chain, &request, sizeof(request)))
        return STATUS_IOERR;
    switch (request.type) {
    case T_IN:
        *ret_written = block->chain.writable_bytes;
        status = read_or_write(block, false, request.sector);
        break;
    case T_OUT:
        return read_or_write(block, true, request.sector);
    case T_FLUSH:
        if (!(block->dev.features & BIT(F_FLUSH)))
            return STATUS_UNSUPP;
        count(&block->stats.flushes, 1);
        return fdatasync(block->fd) < 0 ? STATUS_IOERR : STATUS_OK;
    case T_GET_ID:
        *ret_written = ID_BYTES;
        status = get_id(block);
        break;
    case T_DISCARD:
    case T_WRITE_ZEROES:
        return discard(block, request.type == T_WRITE_ZEROES);
    default:
        return STATUS_UNSUPP;
    }
    if (status != STATUS_OK)
        *ret_written = 0;
    return status;
}

static bool block_run(struct virtio_device *dev, unsigned index)
{
    struct block *block = CONTAINER_OF(dev, struct block, dev);
    unsigned requests = 0;
    uint64_t bytes = 0;
    bool more = true;

    while (requests < BATCH && bytes < BATCH_BYTES) {
        uint32_t written = 0;
        uint8_t *status, result;

        more = virtio_next(dev, 0, &block->chain) == VQ_CHAIN;
        if (!more)
            break;
        status = vq_chain_split_last(&block->chain);
        if (!status) {
            dev->fail(dev, "a request has no room for its status");
            return false;
        }
        requests++;
        bytes += (uint64_t)block->chain.readable_bytes + block->chain.writable_bytes;
        result = execute(block, &written);
        vq_scatter(&(struct iovec){status, 1}, &result, 1); /* guest memory, as all that vq_scatter() writes */
        count(&block->stats.failures, result != STATUS_OK);
        vq_push(&dev->queues[0], block->chain.head, written + 1);
    }
    virtio_signal_used(dev, 0);
    return !virtio_check_fault(dev, 0) && more;
}

DEFINE_CLEANUP(struct block *, block_free)

/* u64 capacity */
static void block_save(struct virtio_device *dev, struct buf *buf)
{
    buf_put_le64(buf, CONTAINER_OF(dev, struct block, dev)->config.capacity);
}

/* The guest knows the size, and a file of another one is not what its file system is in. */
static int block_load(struct virtio_device *dev, struct rd *rd, struct vm_error *error)
{
    const struct block *block = CONTAINER_OF(dev, struct block, dev);
    uint64_t capacity = rd_le64(rd);

    if (rd->failed || capacity == block->config.capacity)
        return rd->failed ? -EBADMSG : 0;
    return vm_fail(error, -EINVAL,
            "drive %s: its file has %llu sectors, and had %llu when the snapshot was made; put that file back, or make "
            "the snapshot again",
            block->id, (unsigned long long)block->config.capacity, (unsigned long long)capacity);
}

static const struct virtio_device_ops block_ops = {.run = block_run, .save = block_save, .load = block_load};

static int check_file(const char *id, const char *path, int fd, off_t *ret_size, struct vm_error *error)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return vm_fail(error, -errno, "drive %s: %s: %s", id, path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return vm_fail(error, -EISDIR, "drive %s: %s is a directory; name a disk image or a block device", id, path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return vm_fail(error, -EINVAL, "drive %s: %s is neither a regular file nor a block device", id, path);
    *ret_size = lseek(fd, 0, SEEK_END);
    if (*ret_size < 0)
        return vm_fail(error, -errno, "drive %s: %s: its size: %s", id, path, strerror(errno));
    if (*ret_size % SECTOR != 0)
        log_msg(LOG_WARN, "drive %s: the last %u bytes of %s are no whole sector; the guest does not see them", id,
                (unsigned)(*ret_size % SECTOR), path);
    return 0;
}

/* Opens, looks, and only then replaces what was there. */
int block_replace(struct block *block, const char *path, struct vm_error *error)
{
    /* Without O_NONBLOCK a FIFO would keep us here. It means nothing to a regular file. */
    int flags = (block->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    _cleanup_(fd_closep) int fd = open(path, flags);
    off_t size = 0;
    int r;

    if (fd < 0)
        return vm_fail(error, -errno, "drive %s: cannot open %s%s: %s; check path_on_host%s", block->id, path,
                block->read_only ? "" : " for writing", strerror(errno),
                block->read_only ? "" : ", or set is_read_only");
    r = check_file(block->id, path, fd, &size, error);
    if (r < 0)
        return r;
    block->config.capacity = (uint64_t)size / SECTOR;
    fd_close(block->fd);
    block->fd = TAKE_FD(fd);
    return 0;
}

/* A range past the end: nothing is lost whatever the answer. */
static bool can_discard(const struct block *block)
{
    struct stat st;

    return fstat(block->fd, &st) == 0 && S_ISREG(st.st_mode) &&
           fallocate(block->fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, st.st_size, SECTOR) == 0;
}

static void offer(struct block *block, const struct drive_config *config)
{
    block->config.size_max = SEGMENT_MAX;
    block->config.seg_max = SEGMENTS_MAX;
    block->config.blk_size = SECTOR;
    block->dev = (struct virtio_device){.ops = &block_ops,
            .name = block->name,
            .id = VIRTIO_ID_BLOCK,
            .features = BIT(F_SIZE_MAX) | BIT(F_SEG_MAX) | BIT(F_BLK_SIZE),
            .queue_count = 1,
            .queue_size_max = QUEUE_SIZE,
            .config = (const uint8_t *)&block->config,
            .config_size = CONFIG_BYTES};
    if (block->read_only) {
        block->dev.features |= BIT(F_RO);
        return;
    }
    if (config->writeback)
        block->dev.features |= BIT(F_FLUSH);
    if (can_discard(block)) {
        block->dev.features |= BIT(F_DISCARD) | BIT(F_WRITE_ZEROES);
        block->config.max_discard_sectors = block->config.max_write_zeroes_sectors = DISCARD_SECTORS;
        block->config.max_discard_seg = block->config.max_write_zeroes_seg = 1;
        block->config.discard_sector_alignment = 4096 / SECTOR;
        block->config.write_zeroes_may_unmap = 1;
    }
}

static int stopped(struct loop_fd *source, uint32_t events)
{
    loop_stop(&CONTAINER_OF(source, struct block, stop)->loop);
    return 0;
}

int block_new(struct block **ret, const struct drive_config *config, struct vm_error *error)
{
    _cleanup_(block_freep) struct block *block = calloc(1, sizeof(*block));
    int r;

    if (!block)
        return vm_fail(error, -ENOMEM, "drive %s: no memory", config->drive_id);
    block->fd = block->stop.fd = block->loop.epoll_fd = -1;
    block->read_only = config->is_read_only;
    (void)snprintf(block->id, sizeof(block->id), "%s", config->drive_id);
    (void)snprintf(block->name, sizeof(block->name), "block %s", config->drive_id);
    r = block_replace(block, config->path_on_host, error);
    if (r < 0)
        return r;
    offer(block, config);
    block->stop = (struct loop_fd){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = EPOLLIN, .ready = stopped};
    r = block->stop.fd < 0 ? -errno : loop_init(&block->loop);
    if (r == 0)
        r = loop_add(&block->loop, &block->stop);
    if (r < 0)
        return vm_fail(error, r, "drive %s: %s", config->drive_id, strerror(-r));
    *ret = TAKE_PTR(block);
    return 0;
}

void block_free(struct block *block)
{
    if (!block)
        return;
    block_stop(block);
    loop_deinit(&block->loop);
    fd_close(block->stop.fd);
    fd_close(block->fd);
    free(block);
}

struct virtio_device *block_device(struct block *block)
{
    return &block->dev;
}

struct loop *block_loop(struct block *block)
{
    return &block->loop;
}

static const struct seccomp_rule calls[] = {
        SECCOMP_ALLOW(epoll_wait, "the loop"),
        SECCOMP_ALLOW(preadv, "the guest reads"),
        SECCOMP_ALLOW(read, "eventfds: kicks"),
        SECCOMP_ALLOW_IF(ioctl, 1, SECCOMP_ANY_BIT, (uint32_t)KVM_SIGNAL_MSI, "interrupts"),
        SECCOMP_ALLOW(write, "eventfds: kicks of its own; the log"),
        SECCOMP_ALLOW(futex, "the device's lock"),
        SECCOMP_ALLOW(pwritev, "the guest writes"),
        SECCOMP_ALLOW(fdatasync, "the guest flushes"),
        SECCOMP_ALLOW(fallocate, "the guest discards, or writes zeroes"),
        SECCOMP_ALLOW(clock_gettime, "timers of the loop, bounds of the log; no vDSO without a stable TSC"),
        SECCOMP_ALLOW(rt_sigprocmask, "end of the thread"),
        SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTNEED, "end of the thread: its stack"),
        SECCOMP_ALLOW(exit, "end of the thread"),
        SECCOMP_ALLOW(exit_group, "after a call that is not in this list"),
};
const struct seccomp_profile block_seccomp = {"blk", calls, ARRAY_SIZE(calls)};

static void *block_main(void *arg)
{
    struct block *block = arg;
    char name[16]; /* TASK_COMM_LEN */

    (void)snprintf(name, sizeof(name), "fc_blk %.8s", block->id);
    (void)pthread_setname_np(pthread_self(), name);
    seccomp_enter(&block_seccomp);
    (void)sem_post(&block->confined);
    if (loop_run(&block->loop) < 0)
        log_msg(LOG_ERROR, "%s: its thread ended; the guest's requests stay unanswered", block->name);
    return NULL;
}

void block_get_stats(const struct block *block, struct block_stats *ret)
{
    const uint64_t *from = (const uint64_t *)&block->stats;
    uint64_t *to = (uint64_t *)ret;

    for (size_t i = 0; i < sizeof(*ret) / sizeof(*to); i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

/* Signals are the VMM thread's. */
int block_start(struct block *block)
{
    sigset_t all, before;
    int r;

    (void)sem_init(&block->confined, 0, 0);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&block->thread, NULL, block_main, block);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    block->running = r == 0;
    while (block->running && sem_wait(&block->confined) < 0)
        ; /* a signal */
    return -r;
}

void block_stop(struct block *block)
{
    uint64_t one = 1;

    if (!block->running)
        return;
    if (write(block->stop.fd, &one, sizeof(one)) < 0)
        return; /* can't be: nobody else writes to it */
    (void)pthread_join(block->thread, NULL);
    block->running = false;
}
