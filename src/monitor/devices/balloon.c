/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon: the driver names pages that it does not use, and they go
 * back to the host. A page that the guest touches later comes back as zeros
 * (in a clone: as the memory file has it), whether it was deflated or not, so
 * deflating needs no work here. The page has changed thereby, and is marked as
 * any that a device writes: a snapshot of what changed has it as it now is.
 *
 * Statistics: the driver leaves one buffer with us. Giving it back asks for
 * fresh values, which come in the next buffer.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/macro.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/mmio.h"

/* Formats and numbers: virtio 1.2 §5.5. */
#define PAGE_SHIFT 12u
#define PAGE       (1u << PAGE_SHIFT)
#define MIB_PAGES  (1u << (20 - PAGE_SHIFT))

#define F_STATS_VQ       1u
#define F_DEFLATE_ON_OOM 2u
#define BIT(n)           (1ull << (n))

enum { INFLATE, DEFLATE, STATS };

#define QUEUE_SIZE   128u
#define PFNS_MAX     4096u /* of one request: 16 MiB */
#define PFNS_AT_ONCE 256u
#define BATCH        16u   /* requests, or */
#define BATCH_PFNS   4096u /* pages, after which others get their turn */
#define STATS_MAX    64u   /* values in one buffer */

struct config {
    uint32_t num_pages, actual;
};

struct stat {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));
static_assert(sizeof(struct stat) == 10, "virtio 1.2 5.5.6.3");

struct balloon {
    struct virtio_device dev;
    struct virtio_mmio *mmio;
    const struct gmem *mem;
    struct loop *loop;
    struct loop_timer poll;
    struct config config;
    uint32_t interval_s;
    uint64_t present, value[16];
    bool has_buffer; /* of statistics, to be given back */
    uint16_t buffer;
    struct vq_chain chain;
};
static_assert(ARRAY_SIZE(((struct balloon_stats *)0)->value) == 16, "as many as we keep");

/* Neighbours in guest memory, so that one system call serves them all. */
struct run {
    uint32_t first, count;
};

static void release(struct balloon *balloon, struct run *run)
{
    struct iovec iov[GMEM_MAX_REGIONS];
    int n = gmem_iovec(balloon->mem, (struct gpa){(uint64_t)run->first << PAGE_SHIFT},
            (uint64_t)run->count << PAGE_SHIFT, iov, ARRAY_SIZE(iov));

    for (int i = 0; i < n; i++) {
        gmem_wrote(balloon->mem, iov[i].iov_base, iov[i].iov_len);
        /* Parts of a huge page stay: the guest loses nothing, the host gains nothing. */
        if (madvise(iov[i].iov_base, iov[i].iov_len, MADV_DONTNEED) < 0)
            break;
    }
    run->count = 0;
}

/* Drivers hand out pages upwards or downwards. */
static void add_page(struct balloon *balloon, struct run *run, uint32_t pfn)
{
    if (run->count > 0 && run->first > 0 && pfn == run->first - 1) {
        run->first--;
    } else if (run->count == 0 || pfn != run->first + run->count) {
        release(balloon, run);
        run->first = pfn;
    }
    run->count++;
}

/* NULL, or what is wrong with the request. */
static const char *inflate(struct balloon *balloon, uint32_t *ret_pages)
{
    struct vq_chain *chain = &balloon->chain;
    uint32_t pfns[PFNS_AT_ONCE];
    struct run run = {0};

    *ret_pages = chain->readable_bytes / sizeof(*pfns);
    if (chain->readable_bytes % sizeof(*pfns) != 0 || *ret_pages > PFNS_MAX)
        return "a request is no list of at most 4096 pages";
    for (uint32_t left = *ret_pages; left > 0;) {
        uint32_t n = MIN(left, PFNS_AT_ONCE);

        if (!vq_chain_take(chain, pfns, n * (uint32_t)sizeof(*pfns)))
            return "a request changed";
        for (uint32_t i = 0; i < n; i++) {
            if (!gmem_slice(balloon->mem, (struct gpa){(uint64_t)pfns[i] << PAGE_SHIFT}, PAGE))
                return "a page is not guest memory";
            add_page(balloon, &run, pfns[i]);
        }
        left -= n;
    }
    release(balloon, &run);
    return NULL;
}

static void take_stats(struct balloon *balloon)
{
    struct stat stat;

    balloon->present = 0;
    for (unsigned i = 0; i < STATS_MAX && vq_chain_take(&balloon->chain, &stat, sizeof(stat)); i++) {
        if (stat.tag >= ARRAY_SIZE(balloon->value))
            continue;
        balloon->present |= BIT(stat.tag);
        balloon->value[stat.tag] = stat.value;
    }
}

static void give_back_stats(struct balloon *balloon)
{
    if (!balloon->has_buffer)
        return;
    balloon->has_buffer = false;
    vq_push(&balloon->dev.queues[STATS], balloon->buffer, 0);
    virtio_signal_used(&balloon->dev, STATS);
}

static bool run_queue(struct balloon *balloon, unsigned index)
{
    struct virtio_device *dev = &balloon->dev;
    uint32_t pages = 0;
    bool more = true;

    for (unsigned n = 0; n < BATCH && pages < BATCH_PFNS; n++) {
        const char *wrong = NULL;
        uint32_t count = 0;

        more = virtio_next(dev, index, &balloon->chain) == VQ_CHAIN;
        if (!more)
            break;
        if (index == STATS) {
            give_back_stats(balloon); /* there should be none */
            take_stats(balloon);
            balloon->has_buffer = true;
            balloon->buffer = balloon->chain.head;
            continue;
        }
        if (index == INFLATE)
            wrong = inflate(balloon, &count);
        if (wrong) {
            dev->fail(dev, wrong);
            return false;
        }
        pages += count;
        vq_push(&dev->queues[index], balloon->chain.head, 0);
    }
    virtio_signal_used(dev, index);
    return !virtio_check_fault(dev, index) && more;
}

static bool balloon_run(struct virtio_device *dev, unsigned index)
{
    struct balloon *balloon = CONTAINER_OF(dev, struct balloon, dev);
    bool more = false;

    if (index != VIRTIO_ALL_QUEUES)
        return run_queue(balloon, index);
    for (unsigned i = 0; i < dev->queue_count && dev->live; i++)
        more = run_queue(balloon, i) || more;
    return more;
}

static void balloon_reset(struct virtio_device *dev)
{
    struct balloon *balloon = CONTAINER_OF(dev, struct balloon, dev);

    balloon->config.actual = 0;
    balloon->present = 0;
    balloon->has_buffer = false;
}

/* Only `actual`, which is the driver's word and shown as such. */
static void balloon_write_config(struct virtio_device *dev, uint32_t offset, const uint8_t *data, uint32_t len)
{
    struct balloon *balloon = CONTAINER_OF(dev, struct balloon, dev);

    if (offset == offsetof(struct config, actual) && len == sizeof(balloon->config.actual))
        memcpy(&balloon->config.actual, data, len);
}

/* No more than there is: the driver would try for ever. */
static uint32_t target_pages(const struct balloon *balloon, uint32_t mib)
{
    uint64_t most = 0, pages = (uint64_t)mib * MIB_PAGES;

    for (size_t i = 0; i < balloon->mem->count; i++)
        most += balloon->mem->regions[i].size >> PAGE_SHIFT;
    pages = MIN(pages, most);
    return (uint32_t)MIN(pages, (uint64_t)UINT32_MAX);
}

/* u32 num_pages, actual; u32 has_buffer, buffer; u64 present, value[16] */
static void balloon_save(struct virtio_device *dev, struct buf *buf)
{
    const struct balloon *balloon = CONTAINER_OF(dev, struct balloon, dev);

    buf_put_le32(buf, balloon->config.num_pages);
    buf_put_le32(buf, balloon->config.actual);
    buf_put_le32(buf, balloon->has_buffer);
    buf_put_le32(buf, balloon->buffer);
    buf_put_le64(buf, balloon->present);
    for (size_t i = 0; i < ARRAY_SIZE(balloon->value); i++)
        buf_put_le64(buf, balloon->value[i]);
}

static int balloon_load(struct virtio_device *dev, struct rd *rd, struct vm_error *error)
{
    struct balloon *balloon = CONTAINER_OF(dev, struct balloon, dev);
    uint32_t has_buffer, buffer;

    balloon->config.num_pages = rd_le32(rd);
    balloon->config.actual = rd_le32(rd);
    has_buffer = rd_le32(rd);
    buffer = rd_le32(rd);
    balloon->present = rd_le64(rd);
    for (size_t i = 0; i < ARRAY_SIZE(balloon->value); i++)
        balloon->value[i] = rd_le64(rd);
    if (rd->failed)
        return -EBADMSG;
    if (balloon->config.num_pages > target_pages(balloon, UINT32_MAX))
        return vm_fail(error, -EBADMSG, "balloon: a target of %u pages", balloon->config.num_pages);
    if (has_buffer > 1 || (has_buffer && (dev->queue_count <= STATS || !dev->queues[STATS].started ||
                                                 buffer >= dev->queues[STATS].config.size)))
        return vm_fail(error, -EBADMSG, "balloon: a buffer (%u) that no queue has", buffer);
    balloon->has_buffer = has_buffer;
    balloon->buffer = (uint16_t)buffer;
    return 0;
}

static const struct virtio_device_ops balloon_ops = {.run = balloon_run,
        .reset = balloon_reset,
        .write_config = balloon_write_config,
        .save = balloon_save,
        .load = balloon_load};

static void arm_poll(struct balloon *balloon)
{
    if (balloon->interval_s > 0)
        loop_arm(balloon->loop, &balloon->poll, deadline_after_ms((uint64_t)balloon->interval_s * 1000));
    else
        loop_disarm(balloon->loop, &balloon->poll);
}

static int poll_due(struct loop_timer *timer)
{
    struct balloon *balloon = CONTAINER_OF(timer, struct balloon, poll);

    virtio_mmio_lock(balloon->mmio);
    if (balloon->dev.live)
        give_back_stats(balloon);
    virtio_mmio_unlock(balloon->mmio, false);
    arm_poll(balloon);
    return 0;
}

int balloon_new(struct balloon **ret, const struct balloon_config *config, const struct gmem *mem, struct loop *loop,
        struct vm_error *error)
{
    struct balloon *balloon = calloc(1, sizeof(*balloon));

    if (!balloon)
        return vm_fail(error, -ENOMEM, "balloon: no memory");
    balloon->mem = mem;
    balloon->loop = loop;
    balloon->poll.expired = poll_due;
    balloon->interval_s = config->stats_polling_interval_s;
    balloon->config.num_pages = target_pages(balloon, config->amount_mib);
    balloon->dev = (struct virtio_device){.ops = &balloon_ops,
            .name = "balloon",
            .id = VIRTIO_ID_BALLOON,
            .queue_count = 2,
            .queue_size_max = QUEUE_SIZE,
            .config = (const uint8_t *)&balloon->config,
            .config_size = sizeof(balloon->config)};
    if (config->deflate_on_oom)
        balloon->dev.features |= BIT(F_DEFLATE_ON_OOM);
    if (balloon->interval_s > 0) {
        balloon->dev.features |= BIT(F_STATS_VQ);
        balloon->dev.queue_count = 3;
    }
    *ret = balloon;
    return 0;
}

void balloon_free(struct balloon *balloon)
{
    if (!balloon)
        return;
    loop_disarm(balloon->loop, &balloon->poll);
    free(balloon);
}

struct virtio_device *balloon_device(struct balloon *balloon)
{
    return &balloon->dev;
}

void balloon_connect(struct balloon *balloon, struct virtio_mmio *mmio)
{
    balloon->mmio = mmio;
    arm_poll(balloon);
}

void balloon_set_target(struct balloon *balloon, uint32_t mib)
{
    virtio_mmio_lock(balloon->mmio);
    balloon->config.num_pages = target_pages(balloon, mib);
    virtio_mmio_unlock(balloon->mmio, true);
}

void balloon_set_interval(struct balloon *balloon, uint32_t seconds)
{
    if (!(balloon->dev.features & BIT(F_STATS_VQ)))
        return; /* the driver was never offered the queue */
    balloon->interval_s = seconds;
    arm_poll(balloon);
}

void balloon_stats(struct balloon *balloon, struct balloon_stats *ret)
{
    virtio_mmio_lock(balloon->mmio);
    *ret = (struct balloon_stats){.target_pages = balloon->config.num_pages,
            .actual_pages = balloon->config.actual,
            .target_mib = balloon->config.num_pages / MIB_PAGES,
            .actual_mib = balloon->config.actual / MIB_PAGES,
            .present = balloon->present};
    memcpy(ret->value, balloon->value, sizeof(ret->value));
    virtio_mmio_unlock(balloon->mmio, false);
}
