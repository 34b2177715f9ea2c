/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/virtqueue.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"

/* Layout: virtio 1.2 §2.7.5 to §2.7.8. */
#define DESC_SIZE     16u
#define DESC_NEXT     1u
#define DESC_WRITE    2u
#define DESC_INDIRECT 4u

#define AVAIL_FLAGS        0u
#define AVAIL_IDX          2u
#define AVAIL_RING         4u
#define AVAIL_NO_INTERRUPT 1u
#define USED_FLAGS         0u
#define USED_IDX           2u
#define USED_RING          4u
#define USED_ELEM_SIZE     8u
#define USED_NO_NOTIFY     1u

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
static_assert(sizeof(struct desc) == DESC_SIZE, "a descriptor is 16 bytes in memory");

static uint8_t *used_event(const struct virtqueue *vq)
{
    return vq->avail + AVAIL_RING + 2u * vq->config.size;
}

static uint8_t *avail_event(const struct virtqueue *vq)
{
    return vq->used + USED_RING + USED_ELEM_SIZE * vq->config.size;
}

static uint8_t *ring_view(const struct gmem *mem, struct gpa at, uint64_t len, uintptr_t align)
{
    uint8_t *view = gmem_slice(mem, at, len);

    return view && ((uintptr_t)view & (align - 1)) == 0 ? view : NULL;
}

/* The event words at the ends of the rings exist in the layout whether they were negotiated or not. */
static int map_rings(struct virtqueue *vq)
{
    const struct vq_config *c = &vq->config;
    uint8_t *desc = ring_view(vq->mem, c->desc, (uint64_t)DESC_SIZE * c->size, 16);
    uint8_t *avail = ring_view(vq->mem, c->avail, AVAIL_RING + 2u * c->size + 2u, 2);
    uint8_t *used = ring_view(vq->mem, c->used, USED_RING + (uint64_t)USED_ELEM_SIZE * c->size + 2u, 4);

    if (!desc || !avail || !used)
        return -EFAULT;
    vq->desc = desc;
    vq->avail = avail;
    vq->used = used;
    return 0;
}

int vq_start(struct virtqueue *vq, const struct gmem *mem, const struct vq_config *config)
{
    int r;

    if (config->size == 0 || config->size > VQ_MAX_SIZE || (config->size & (config->size - 1)) != 0)
        return -EINVAL;
    *vq = (struct virtqueue){
            .mem = mem, .config = *config, .next_avail = config->next_avail, .avail_seen = config->next_avail};
    r = map_rings(vq);
    if (r < 0) {
        *vq = (struct virtqueue){0};
        return r;
    }
    /* Continue where the ring's last user stopped; for a fresh ring the driver put 0 there. */
    vq->next_used = vq->signalled_used = gmem_load16(vq->used + USED_IDX);
    vq->started = true;
    return 0;
}

void vq_stop(struct virtqueue *vq)
{
    vq->started = false;
    vq->mem = NULL;
    vq->desc = vq->avail = vq->used = NULL;
}

void vq_break(struct virtqueue *vq, enum vq_fault fault)
{
    if (vq->fault == VQ_FAULT_NONE)
        vq->fault = fault;
}

const char *vq_fault_text(enum vq_fault fault)
{
    static const char *const text[] = {
            [VQ_FAULT_NONE] = "no fault",
            [VQ_FAULT_AVAIL_INDEX] = "available index jumped",
            [VQ_FAULT_HEAD] = "chain head out of range",
            [VQ_FAULT_NEXT] = "next descriptor out of range",
            [VQ_FAULT_CHAIN_LENGTH] = "chain too long or looping",
            [VQ_FAULT_ADDRESS] = "address outside of guest memory",
            [VQ_FAULT_INDIRECT] = "bad indirect descriptor",
            [VQ_FAULT_ORDER] = "readable descriptor after a writable one",
            [VQ_FAULT_BYTES] = "chain of 4 GiB or more",
    };

    return fault < ARRAY_SIZE(text) ? text[fault] : "unknown fault";
}

/* True while the queue may be touched at all. */
static bool usable(const struct virtqueue *vq)
{
    return vq->started && vq->fault == VQ_FAULT_NONE;
}

/* Reads the driver's index once; the acquire makes everything that it published before visible. */
static bool refresh_avail(struct virtqueue *vq)
{
    uint16_t seen = gmem_load_acquire16(vq->avail + AVAIL_IDX);

    if ((uint16_t)(seen - vq->next_avail) > vq->config.size) {
        vq_break(vq, VQ_FAULT_AVAIL_INDEX);
        return false;
    }
    vq->avail_seen = seen;
    return true;
}

/* Where the walk along a chain is: the ring's own table, or the indirect one. */
struct walk {
    const uint8_t *table;
    uint32_t entries;
    uint32_t steps_left; /* descriptors that the chain may still have */
    bool indirect;
};

static enum vq_fault enter_indirect(const struct virtqueue *vq, const struct desc *desc, struct walk *walk)
{
    uint32_t entries = desc->len / DESC_SIZE;
    const uint8_t *table;

    if (!vq->config.indirect || walk->indirect || (desc->flags & DESC_NEXT) || desc->len % DESC_SIZE != 0 ||
            entries == 0 || entries > VQ_MAX_CHAIN)
        return VQ_FAULT_INDIRECT;
    table = gmem_slice(vq->mem, (struct gpa){desc->addr}, desc->len);
    if (!table)
        return VQ_FAULT_ADDRESS;
    *walk = (struct walk){.table = table, .entries = entries, .steps_left = entries, .indirect = true};
    return VQ_FAULT_NONE;
}

static enum vq_fault add_buffer(const struct virtqueue *vq, const struct desc *desc, struct vq_chain *chain)
{
    size_t used = chain->readable_count + chain->writable_count;
    bool write = desc->flags & DESC_WRITE;
    uint32_t *bytes = write ? &chain->writable_bytes : &chain->readable_bytes;
    int n;

    if (!write && chain->writable_count > 0)
        return VQ_FAULT_ORDER;
    if (add_overflows(*bytes, desc->len, bytes))
        return VQ_FAULT_BYTES;
    n = gmem_iovec(vq->mem, (struct gpa){desc->addr}, desc->len, &chain->iov[used], ARRAY_SIZE(chain->iov) - used);
    if (n == -EMSGSIZE)
        return VQ_FAULT_CHAIN_LENGTH;
    if (n < 0)
        return VQ_FAULT_ADDRESS;
    if (!write) {
        chain->readable_count += (size_t)n;
        return VQ_FAULT_NONE;
    }
    chain->writable_count += (size_t)n;
    for (int i = 0; i < n; i++)
        gmem_wrote(vq->mem, chain->iov[used + (size_t)i].iov_base, chain->iov[used + (size_t)i].iov_len);
    return VQ_FAULT_NONE;
}

static enum vq_fault walk_chain(const struct virtqueue *vq, struct vq_chain *chain)
{
    struct walk walk = {.table = vq->desc, .entries = vq->config.size, .steps_left = vq->config.size};
    uint16_t index = chain->head;

    for (;;) {
        enum vq_fault fault;
        struct desc desc;

        if (walk.steps_left-- == 0)
            return VQ_FAULT_CHAIN_LENGTH;
        gmem_copy_once(&desc, walk.table + (size_t)index * DESC_SIZE, sizeof(desc));
        if (desc.flags & DESC_INDIRECT) {
            fault = enter_indirect(vq, &desc, &walk);
            if (fault != VQ_FAULT_NONE)
                return fault;
            index = 0;
            continue;
        }
        fault = add_buffer(vq, &desc, chain);
        if (fault != VQ_FAULT_NONE)
            return fault;
        if (!(desc.flags & DESC_NEXT))
            return VQ_FAULT_NONE;
        if (desc.next >= walk.entries)
            return VQ_FAULT_NEXT;
        index = desc.next;
    }
}

int vq_pop(struct virtqueue *vq, struct vq_chain *ret)
{
    enum vq_fault fault;
    uint16_t slot;

    if (vq->fault != VQ_FAULT_NONE)
        return VQ_BROKEN;
    if (!vq->started)
        return VQ_EMPTY;
    if (vq->next_avail == vq->avail_seen) {
        if (!refresh_avail(vq))
            return VQ_BROKEN;
        if (vq->next_avail == vq->avail_seen)
            return VQ_EMPTY;
    }
    slot = vq->next_avail & (vq->config.size - 1);
    ret->head = gmem_load16(vq->avail + AVAIL_RING + 2u * slot);
    ret->readable_count = ret->writable_count = 0;
    ret->readable_bytes = ret->writable_bytes = 0;
    fault = ret->head >= vq->config.size ? VQ_FAULT_HEAD : walk_chain(vq, ret);
    if (fault != VQ_FAULT_NONE) {
        vq_break(vq, fault);
        return VQ_BROKEN;
    }
    ret->readable = ret->iov;
    ret->writable = ret->iov + ret->readable_count;
    vq->next_avail++;
    return VQ_CHAIN;
}

void vq_unpop(struct virtqueue *vq)
{
    vq->next_avail--;
}

void vq_push(struct virtqueue *vq, uint16_t head, uint32_t written)
{
    uint16_t slot = vq->next_used & (vq->config.size - 1);
    uint32_t elem[2] = {head, written};
    uint8_t *to;

    if (!usable(vq))
        return;
    to = vq->used + USED_RING + (size_t)USED_ELEM_SIZE * slot;
    memcpy(to, elem, sizeof(elem));
    gmem_wrote(vq->mem, to, sizeof(elem));
    vq->next_used++;
    gmem_store_release16(vq->used + USED_IDX, vq->next_used);
    gmem_wrote(vq->mem, vq->used + USED_IDX, sizeof(uint16_t));
}

bool vq_should_signal(struct virtqueue *vq)
{
    uint16_t fresh = (uint16_t)(vq->next_used - vq->signalled_used);
    uint16_t event;

    if (!usable(vq) || fresh == 0)
        return false;
    vq->signalled_used = vq->next_used;
    /* The used index must be visible before the driver's wish is read, or both sides could go to sleep. */
    gmem_fence();
    if (!vq->config.event_idx)
        return !(gmem_load16(vq->avail + AVAIL_FLAGS) & AVAIL_NO_INTERRUPT);
    event = gmem_load16(used_event(vq));
    /* Was entry number `event` among the fresh ones? Both sides modulo 2^16 (virtio 1.2 §2.7.7.2). */
    return (uint16_t)(vq->next_used - event - 1) < fresh;
}

static void put_word(const struct virtqueue *vq, uint8_t *at, uint16_t value)
{
    gmem_store16(at, value);
    gmem_wrote(vq->mem, at, sizeof(value));
}

void vq_disable_kicks(struct virtqueue *vq)
{
    /* With event index there is nothing to say: the driver kicks once, when it passes the last avail_event. */
    if (usable(vq) && !vq->config.event_idx)
        put_word(vq, vq->used + USED_FLAGS, USED_NO_NOTIFY);
}

bool vq_enable_kicks(struct virtqueue *vq)
{
    if (!usable(vq))
        return false;
    if (vq->config.event_idx)
        put_word(vq, avail_event(vq), vq->next_avail);
    else
        put_word(vq, vq->used + USED_FLAGS, 0);
    /* A driver that published before it saw our wish did not kick: look once more, after the wish is out. */
    gmem_fence();
    return !refresh_avail(vq) || vq->avail_seen != vq->next_avail;
}

/* Drops len bytes, which must be there, from the front of the views. */
static void advance(struct iovec **iov, size_t *count, size_t len)
{
    while (len > 0) {
        size_t part = MIN(len, (*iov)->iov_len);

        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + part;
        (*iov)->iov_len -= part;
        len -= part;
        if ((*iov)->iov_len == 0) {
            (*iov)++;
            (*count)--;
        }
    }
}

bool vq_chain_take(struct vq_chain *chain, void *dst, uint32_t len)
{
    uint8_t *to = dst;

    if (chain->readable_bytes < len)
        return false;
    chain->readable_bytes -= len;
    while (len > 0) {
        uint32_t part = (uint32_t)MIN((size_t)len, chain->readable->iov_len);

        gmem_copy_once(to, chain->readable->iov_base, part);
        advance(&chain->readable, &chain->readable_count, part);
        to += part;
        len -= part;
    }
    return true;
}

size_t vq_chain_split(struct vq_chain *chain, uint32_t len, struct iovec *ret, size_t max)
{
    size_t used = 0;
    uint32_t left = len;

    if (chain->writable_bytes < len)
        return 0;
    for (const struct iovec *iov = chain->writable; left > 0; iov++) {
        uint32_t part = (uint32_t)MIN((size_t)left, iov->iov_len);

        if (used == max)
            return 0;
        ret[used++] = (struct iovec){.iov_base = iov->iov_base, .iov_len = part};
        left -= part;
    }
    advance(&chain->writable, &chain->writable_count, len);
    chain->writable_bytes -= len;
    return used;
}

uint8_t *vq_chain_split_last(struct vq_chain *chain)
{
    struct iovec *last;

    if (chain->writable_bytes == 0)
        return NULL;
    last = &chain->writable[chain->writable_count - 1]; /* views are never empty */
    chain->writable_bytes--;
    if (--last->iov_len == 0)
        chain->writable_count--;
    return (uint8_t *)last->iov_base + last->iov_len;
}

void vq_scatter(const struct iovec *iov, const void *src, size_t len)
{
    const uint8_t *from = src;

    for (; len > 0; iov++) {
        size_t part = MIN(len, iov->iov_len);

        memcpy(iov->iov_base, from, part);
        from += part;
        len -= part;
    }
}
