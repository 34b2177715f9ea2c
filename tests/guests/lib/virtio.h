/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver for virtio-mmio version 2 with split queues (virtio 1.2 §2.7, §4.2), by polling, from one processor.
 * Everything is open, because a hostile case spoils one piece of it and leaves the others right.
 */
#pragma once

#include "guest.h"

#define VIRTIO_BASE  0xc0001000ull
#define VIRTIO_STEP  0x1000ull
#define VIRTIO_SLOTS 16u
#define VIRTIO_MAGIC 0x74726976u
#define VIRTIO_PIN   5u /* IOAPIC pin of the first slot */

enum { ID_BLOCK = 2, ID_RNG = 4, ID_BALLOON = 5, ID_VSOCK = 19 };

/* Registers. */
enum {
    R_MAGIC = 0x000,
    R_VERSION = 0x004,
    R_DEVICE_ID = 0x008,
    R_VENDOR_ID = 0x00c,
    R_DEVICE_FEATURES = 0x010,
    R_DEVICE_FEATURES_SEL = 0x014,
    R_DRIVER_FEATURES = 0x020,
    R_DRIVER_FEATURES_SEL = 0x024,
    R_QUEUE_SEL = 0x030,
    R_QUEUE_NUM_MAX = 0x034,
    R_QUEUE_NUM = 0x038,
    R_QUEUE_READY = 0x044,
    R_QUEUE_NOTIFY = 0x050,
    R_INTERRUPT_STATUS = 0x060,
    R_INTERRUPT_ACK = 0x064,
    R_STATUS = 0x070,
    R_QUEUE_DESC = 0x080,
    R_QUEUE_DRIVER = 0x090,
    R_QUEUE_DEVICE = 0x0a0,
    R_CONFIG_GENERATION = 0x0fc,
    R_CONFIG = 0x100,
};

enum { S_ACKNOWLEDGE = 1, S_DRIVER = 2, S_DRIVER_OK = 4, S_FEATURES_OK = 8, S_NEEDS_RESET = 0x40, S_FAILED = 0x80 };

#define F_INDIRECT  (1ull << 28)
#define F_EVENT_IDX (1ull << 29)
#define F_VERSION_1 (1ull << 32)

enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct queue {
    struct device *device;
    unsigned index;
    uint16_t size, avail_idx, used_seen, next_desc;
    volatile struct desc *desc;
    volatile uint16_t *avail; /* flags, idx, ring[size], used_event */
    volatile uint16_t *used;  /* flags, idx, then {u32 id, u32 len}[size], avail_event */
};

#define MAX_QUEUES 3u
struct device {
    uint64_t base, offered, features;
    uint32_t id;
    unsigned slot;
    struct queue queues[MAX_QUEUES];
};

struct buffer {
    const volatile void *at;
    uint32_t len;
    bool write; /* by the device */
};

static inline uint32_t reg(const struct device *d, unsigned offset)
{
    return mmio_read32(d->base + offset);
}
static inline void set_reg(const struct device *d, unsigned offset, uint32_t v)
{
    mmio_write32(d->base + offset, v);
}
void set_reg64(const struct device *d, unsigned offset, uint64_t v); /* low, then high half */

/* The nth device of this kind; fails the case when there is none, and device_try returns false. */
bool device_try(struct device *ret, uint32_t id, unsigned nth);
struct device device_find(uint32_t id, unsigned nth);
/* All there are, in the order of their slots. */
unsigned devices_all(struct device *ret, unsigned max);

/* Reset to FEATURES_OK with `features` and VERSION_1; fails the case when the device does not take them. */
void device_begin(struct device *d, uint64_t features);
/* Rings of fresh memory for a queue; does not tell the device. */
void queue_memory(struct device *d, unsigned index, uint16_t size);
/* Empties the rings of a queue, so that they can be given to the device again after a reset. */
void queue_clear(struct queue *q);
void queue_tell(const struct queue *q); /* the registers, READY included */
void device_go(struct device *d);       /* DRIVER_OK */
/* All of the above, with `count` queues of `size`; a second call uses the same rings. */
void device_start(struct device *d, uint64_t features, unsigned count, uint16_t size);
void device_set_up(struct device *d, uint64_t features, unsigned count, uint16_t size); /* the same; may fail */
bool device_reset(struct device *d); /* false: the status did not become 0 */

/* Writes a chain of descriptors and returns its head; does not offer it. */
uint16_t queue_chain(struct queue *q, const struct buffer *buffers, unsigned count);
void queue_offer(struct queue *q, uint16_t head);
void queue_kick(struct queue *q);
bool queue_used(const struct queue *q); /* a chain came back that was not taken yet */
/* Takes one that came back; false when none does in that time. */
bool queue_take(struct queue *q, unsigned seconds, uint16_t *ret_head, uint32_t *ret_len);
/* Chain, offer, kick, take: the bytes that the device says it wrote. */
uint32_t queue_do(struct queue *q, const struct buffer *buffers, unsigned count);
