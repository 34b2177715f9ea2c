/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's driver for one device, on fake memory: everything goes through the
 * registers that a vCPU would use. Tests and fuzzers only.
 */
#pragma once

#include <string.h>
#include <unistd.h>

#include "monitor/devices/mmio.h"
#include "virtio/test-ring.h"

#define DRIVER_RAM       0x100000u
#define DRIVER_RING_SIZE 16u
#define DRIVER_RINGS     0x1000u /* one page per queue */
#define DRIVER_DATA      0x10000u
#define DRIVER_FEATURES  (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_INDIRECT_DESC | 1ull << VIRTIO_F_EVENT_IDX)

enum {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_VENDOR = 0x00c,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC = 0x080,
    REG_QUEUE_DRIVER = 0x090,
    REG_QUEUE_DEVICE = 0x0a0,
    REG_SHM_LEN = 0x0b0,
    REG_CONFIG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100,
};
#define DRIVER_STATUS_OK    0x0fu
#define DRIVER_STATUS_RESET 0x40u /* DEVICE_NEEDS_RESET */

struct driver {
    uint8_t *ram; /* DRIVER_RAM bytes at guest address 0 */
    struct gmem mem;
    struct loop *loop;
    struct virtio_mmio mmio;
    uint64_t interrupts; /* atomic: raised since they were last asked for */
    struct bus_range range;
    struct test_ring rings[VIRTIO_MAX_QUEUES];
};

static inline uint32_t driver_read(struct driver *d, uint64_t reg)
{
    uint32_t value = 0;

    d->range.read(d->range.device, reg, (uint8_t *)&value, 4);
    return value;
}

static inline void driver_write(struct driver *d, uint64_t reg, uint32_t value)
{
    d->range.write(d->range.device, reg, (const uint8_t *)&value, 4);
}

static inline void driver_count_interrupt(void *driver, uint32_t pin)
{
    (void)__atomic_fetch_add(&((struct driver *)driver)->interrupts, 1, __ATOMIC_SEQ_CST);
}

static inline struct irq_line driver_irq(struct driver *d)
{
    return (struct irq_line){.raise = driver_count_interrupt, .userdata = d};
}

/* `loop` serves the device; 0 or a negative errno. */
static inline int driver_init(struct driver *d, struct virtio_device *dev, uint8_t *ram, struct loop *loop)
{
    int r;

    *d = (struct driver){.ram = ram, .loop = loop};
    memset(ram, 0, DRIVER_RAM);
    r = gmem_add(&d->mem, (struct gpa){0}, DRIVER_RAM, ram);
    if (r == 0)
        r = virtio_mmio_init(&d->mmio, dev, &d->mem, driver_irq(d), loop);
    d->range = virtio_mmio_range(&d->mmio, 0);
    return r;
}

static inline uint64_t driver_offered(struct driver *d)
{
    uint64_t low;

    driver_write(d, REG_DEVICE_FEATURES_SEL, 0);
    low = driver_read(d, REG_DEVICE_FEATURES);
    driver_write(d, REG_DEVICE_FEATURES_SEL, 1);
    return low | (uint64_t)driver_read(d, REG_DEVICE_FEATURES) << 32;
}

static inline void driver_accept(struct driver *d, uint64_t features)
{
    driver_write(d, REG_STATUS, 1);
    driver_write(d, REG_STATUS, 3);
    driver_write(d, REG_DRIVER_FEATURES_SEL, 0);
    driver_write(d, REG_DRIVER_FEATURES, (uint32_t)features);
    driver_write(d, REG_DRIVER_FEATURES_SEL, 1);
    driver_write(d, REG_DRIVER_FEATURES, (uint32_t)(features >> 32));
    driver_write(d, REG_STATUS, 11);
}

static inline void driver_set_ring(struct driver *d, unsigned queue)
{
    const struct test_ring *ring = &d->rings[queue];

    driver_write(d, REG_QUEUE_SEL, queue);
    driver_write(d, REG_QUEUE_NUM, ring->size);
    driver_write(d, REG_QUEUE_DESC, (uint32_t)ring->desc);
    driver_write(d, REG_QUEUE_DESC + 4, (uint32_t)(ring->desc >> 32));
    driver_write(d, REG_QUEUE_DRIVER, (uint32_t)ring->avail);
    driver_write(d, REG_QUEUE_DRIVER + 4, (uint32_t)(ring->avail >> 32));
    driver_write(d, REG_QUEUE_DEVICE, (uint32_t)ring->used);
    driver_write(d, REG_QUEUE_DEVICE + 4, (uint32_t)(ring->used >> 32));
    driver_write(d, REG_QUEUE_READY, 1);
}

/* From reset to DRIVER_OK with all queues, and every kick that this makes is served when the loop is ours. */
static inline void driver_start(struct driver *d, uint64_t features)
{
    driver_write(d, REG_STATUS, 0);
    driver_accept(d, features);
    for (unsigned i = 0; i < d->mmio.dev->queue_count; i++) {
        d->rings[i] = ring_at(d->ram, DRIVER_RINGS * (i + 1), DRIVER_RING_SIZE);
        driver_set_ring(d, i);
    }
    driver_write(d, REG_STATUS, DRIVER_STATUS_OK);
}

static inline void driver_kick(struct driver *d, unsigned queue)
{
    driver_write(d, REG_QUEUE_NOTIFY, queue);
}

/* Serves what is there, at most `turns` turns of the loop. */
static inline void driver_serve(struct driver *d, int turns)
{
    while (turns-- > 0)
        (void)loop_once(d->loop, 0);
}

/* Since the last time. */
static inline uint64_t driver_interrupts(struct driver *d)
{
    return __atomic_exchange_n(&d->interrupts, 0, __ATOMIC_SEQ_CST);
}
