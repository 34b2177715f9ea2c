/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: the only way from an address that a guest named to bytes of
 * the host.
 *
 * A guest-physical address is a struct, so that it can't be dereferenced,
 * added to or mixed up with a length by accident. The table of regions is
 * small, sorted by nobody and searched linearly: a VM has a handful.
 *
 * The guest (and, under vhost-user, the VMM) writes this memory while we read
 * it. So a value is copied once with gmem_read() or a load below, checked in
 * the copy, and used from the copy. A view (gmem_slice, gmem_iovec) is for
 * payload that nobody on the host interprets.
 *
 * Who wants to know what the host wrote (a snapshot of what changed) hangs a
 * bitmap on `dirty`. gmem_write() marks there by itself; who writes through a
 * view says gmem_wrote(), for chains and rings virtqueue.c does.
 *
 * Single-threaded, except that the rings' loads and stores are ordered
 * against the guest's vCPUs, and that any thread may mark. Mappings are borrowed: who maps a region removes
 * it here before unmapping. Nothing allocates or makes system calls.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtio/dirty.h"

#define GMEM_MAX_REGIONS 16u

struct gpa {
    uint64_t v;
};

struct gmem_region {
    struct gpa start;
    uint64_t size;
    uint8_t *host;
};

struct gmem {
    struct gmem_region regions[GMEM_MAX_REGIONS];
    size_t count;
    struct dirty_pages *dirty; /* borrowed; NULL: nobody wants to know */
};

/* -EINVAL: empty, or wraps in guest or host addresses; -EEXIST: overlaps another region; -ENOSPC: table full. */
int gmem_add(struct gmem *mem, struct gpa start, uint64_t size, void *host);
/* -ENOENT unless a region starts exactly there. Every view into it is dead afterwards. */
int gmem_remove(struct gmem *mem, struct gpa start);

/* A view of exactly len bytes inside one region, or NULL. An empty range has no view. */
void *gmem_slice(const struct gmem *mem, struct gpa at, uint64_t len);

/*
 * Views of a range that may continue in adjacent regions. Returns how many of
 * the `max` iovecs were used (0 for an empty range), -EFAULT when a byte of
 * the range is not guest memory, -EMSGSIZE when max does not suffice.
 */
int gmem_iovec(const struct gmem *mem, struct gpa at, uint64_t len, struct iovec *iov, size_t max);

/* All or nothing: -EFAULT leaves dst and guest memory alone. May cross adjacent regions. */
int gmem_read(const struct gmem *mem, struct gpa at, void *dst, size_t len);
int gmem_write(const struct gmem *mem, struct gpa at, const void *src, size_t len);

/* The host wrote these bytes of a view, or will before anybody collects the marks. */
static inline void gmem_wrote(const struct gmem *mem, const void *view, size_t len)
{
    if (mem->dirty)
        dirty_pages_add(mem->dirty, view, len);
}

/* Copies out of a view exactly once: the compiler may not go back to the view for a value it has in dst. */
void gmem_copy_once(void *dst, const void *view, size_t len);

/* Little-endian, aligned 16-bit words of a ring. */
static inline uint16_t gmem_load_acquire16(const void *p)
{
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}

static inline uint16_t gmem_load16(const void *p)
{
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
}

static inline void gmem_store_release16(void *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE);
}

static inline void gmem_store16(void *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED);
}

/* Orders everything before against everything after, also against the guest's vCPUs. */
static inline void gmem_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian and accessed in place");
