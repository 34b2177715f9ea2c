/* SPDX-License-Identifier: Apache-2.0 */
#include "vsock/table.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/clock.h"

#define BUFFERS_BYTES ((size_t)VSOCK_MAX_CONNECTIONS * VSOCK_BUF_ALLOC)

int table_init(struct table *t, uint32_t limit)
{
    void *buffers =
            mmap(NULL, BUFFERS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (buffers == MAP_FAILED)
        return -errno;
    t->buffers = buffers;
    t->limit = limit;
    t->last_port = VSOCK_HOST_PORT_BASE - 1;
    if (getrandom(&t->seed, sizeof(t->seed), GRND_NONBLOCK) != (ssize_t)sizeof(t->seed))
        t->seed = (uint32_t)clock_now_us();
    return 0;
}

void table_deinit(struct table *t)
{
    if (t->buffers)
        (void)munmap(t->buffers, BUFFERS_BYTES);
    t->buffers = NULL;
}

struct conn *table_take(struct table *t)
{
    struct conn *c = t->free;

    if (table_full(t))
        return NULL;
    if (c)
        t->free = c->free_next;
    else
        c = &t->slots[t->fresh++]; /* there is one: limit <= VSOCK_MAX_CONNECTIONS, and none is free */
    t->used++;
    *c = (struct conn){
            .source.fd = -1,
            .ring = {.data = t->buffers + (size_t)(c - t->slots) * VSOCK_BUF_ALLOC, .size = VSOCK_BUF_ALLOC},
            .deadline = UINT64_MAX,
    };
    return c;
}

void table_release(struct table *t, struct conn *c)
{
    table_unhash(t, c);
    table_turn_remove(t, c);
    if (c->ring.touched)
        (void)madvise(c->ring.data, c->ring.size, MADV_DONTNEED);
    c->state = CONN_FREE;
    c->deadline = UINT64_MAX;
    c->free_next = t->free;
    t->free = c;
    t->used--;
}

static struct conn **bucket_of(const struct table *t, uint32_t local_port, uint32_t guest_port)
{
    uint64_t key = ((uint64_t)local_port << 32 | guest_port) ^ ((uint64_t)t->seed << 16);

    /* Multiplicative hashing: the product's high bits depend on every bit of the key. */
    key *= 0x9e3779b97f4a7c15u;
    key ^= key >> 32;
    key *= 0x9e3779b97f4a7c15u;
    return (struct conn **)&t->buckets[key >> 54];
}
static_assert(TABLE_BUCKETS == 1u << (64 - 54), "bucket_of() yields 10 bits");

struct conn *table_find(const struct table *t, uint32_t local_port, uint32_t guest_port)
{
    struct conn *c = *bucket_of(t, local_port, guest_port);

    while (c && (c->local_port != local_port || c->guest_port != guest_port))
        c = c->hash_next;
    return c;
}

void table_hash(struct table *t, struct conn *c)
{
    struct conn **bucket = bucket_of(t, c->local_port, c->guest_port);

    c->hash_next = *bucket;
    c->hashed = true;
    *bucket = c;
}

void table_unhash(struct table *t, struct conn *c)
{
    struct conn **link = bucket_of(t, c->local_port, c->guest_port);

    if (!c->hashed)
        return;
    while (*link != c)
        link = &(*link)->hash_next;
    *link = c->hash_next;
    c->hash_next = NULL;
    c->hashed = false;
}

static bool port_is_used(const struct table *t, uint32_t port)
{
    for (uint32_t i = 0; i < t->fresh; i++) {
        if (t->slots[i].hashed && t->slots[i].local_port == port)
            return true;
    }
    return false;
}

uint32_t table_unused_port(struct table *t)
{
    /* Ends: there are 3 * 2^30 ports and at most 1,023 in use. */
    do
        t->last_port = t->last_port >= UINT32_MAX - 1 ? VSOCK_HOST_PORT_BASE : t->last_port + 1;
    while (port_is_used(t, t->last_port));
    return t->last_port;
}

void table_turn_add(struct table *t, struct conn *c)
{
    if (c->in_turn)
        return;
    c->in_turn = true;
    c->turn_next = NULL;
    c->turn_prev = t->turn_last;
    if (t->turn_last)
        t->turn_last->turn_next = c;
    else
        t->turn_first = c;
    t->turn_last = c;
}

void table_turn_remove(struct table *t, struct conn *c)
{
    if (!c->in_turn)
        return;
    if (c->turn_prev)
        c->turn_prev->turn_next = c->turn_next;
    else
        t->turn_first = c->turn_next;
    if (c->turn_next)
        c->turn_next->turn_prev = c->turn_prev;
    else
        t->turn_last = c->turn_prev;
    c->turn_prev = c->turn_next = NULL;
    c->in_turn = false;
}
