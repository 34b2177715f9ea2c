/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver's side of a split ring in plain memory. Tests only: it does what
 * it is told, legal or not. Guest address 0 is byte 0 of `ram`.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#include "virtio/virtqueue.h"

#define RING_NEXT     1u
#define RING_WRITE    2u
#define RING_INDIRECT 4u

struct test_ring {
    uint8_t *ram;
    uint16_t size;
    uint64_t desc, avail, used; /* offsets in ram */
    uint16_t avail_idx, used_seen;
};

static inline struct test_ring ring_at(uint8_t *ram, uint64_t at, uint16_t size)
{
    struct test_ring ring = {.ram = ram, .size = size, .desc = at};

    ring.avail = ring.desc + 16u * size;
    ring.used = (ring.avail + 4 + 2u * size + 2 + 3) & ~3ull;
    memset(ram + ring.desc, 0, ring.used + 4 + 8u * size + 2 - ring.desc);
    return ring;
}

static inline struct vq_config ring_config(const struct test_ring *ring, bool indirect, bool event_idx)
{
    return (struct vq_config){.size = ring->size,
            .desc = {ring->desc},
            .avail = {ring->avail},
            .used = {ring->used},
            .next_avail = ring->avail_idx,
            .indirect = indirect,
            .event_idx = event_idx};
}

static inline void put_desc(uint8_t *to, uint64_t addr, uint32_t len, unsigned flags, uint16_t next)
{
    uint16_t flags16 = (uint16_t)flags;

    memcpy(to, &addr, 8);
    memcpy(to + 8, &len, 4);
    memcpy(to + 12, &flags16, 2);
    memcpy(to + 14, &next, 2);
}

static inline void ring_desc(
        struct test_ring *ring, uint16_t i, uint64_t addr, uint32_t len, unsigned flags, uint16_t next)
{
    put_desc(ring->ram + ring->desc + 16u * i, addr, len, flags, next);
}

static inline void ring_set_avail_idx(struct test_ring *ring, uint16_t idx)
{
    ring->avail_idx = idx;
    gmem_store_release16(ring->ram + ring->avail + 2, idx);
}

static inline void ring_offer(struct test_ring *ring, uint16_t head)
{
    gmem_store16(ring->ram + ring->avail + 4 + 2u * (ring->avail_idx & (ring->size - 1)), head);
    ring_set_avail_idx(ring, (uint16_t)(ring->avail_idx + 1));
}

static inline uint16_t ring_used_idx(const struct test_ring *ring)
{
    return gmem_load_acquire16(ring->ram + ring->used + 2);
}

/* The next chain that the device returned; false when there is none. */
static inline bool ring_take_used(struct test_ring *ring, uint32_t *ret_head, uint32_t *ret_len)
{
    const uint8_t *elem = ring->ram + ring->used + 4 + 8u * (ring->used_seen & (ring->size - 1));

    if (ring_used_idx(ring) == ring->used_seen)
        return false;
    memcpy(ret_head, elem, 4);
    memcpy(ret_len, elem + 4, 4);
    ring->used_seen++;
    return true;
}

static inline void ring_set_used_event(struct test_ring *ring, uint16_t idx)
{
    gmem_store16(ring->ram + ring->avail + 4 + 2u * ring->size, idx);
}

static inline uint16_t ring_avail_event(const struct test_ring *ring)
{
    return gmem_load16(ring->ram + ring->used + 4 + 8u * ring->size);
}

static inline void ring_set_avail_flags(struct test_ring *ring, uint16_t flags)
{
    gmem_store16(ring->ram + ring->avail, flags);
}

static inline uint16_t ring_used_flags(const struct test_ring *ring)
{
    return gmem_load16(ring->ram + ring->used);
}
