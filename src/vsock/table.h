/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fixed table of connections: slots, lookup by pair of ports, and the
 * turns in which connections with something to send are served.
 *
 * Buffers for what guests send are one mapping without reserve, a part for
 * each slot: pages that were never used cost nothing, and a slot's pages go
 * back to the kernel when it is released.
 */
#pragma once

#include "vsock/conn.h"

#define TABLE_BUCKETS 1024u /* a power of two */

struct table {
    struct conn slots[VSOCK_MAX_CONNECTIONS];
    struct conn *buckets[TABLE_BUCKETS];
    struct conn *free; /* released slots, last first */
    struct conn *turn_first, *turn_last;
    uint32_t limit;       /* of slots in use */
    uint32_t used, fresh; /* slots in use; slots that were ever used, the first ones */
    uint32_t seed;        /* a guest that picks its ports can't aim at one bucket */
    uint32_t last_port;   /* the last one that was given to a host-initiated connection */
    uint8_t *buffers;     /* VSOCK_MAX_CONNECTIONS * VSOCK_BUF_ALLOC bytes */
};

int table_init(struct table *t, uint32_t limit); /* of at most VSOCK_MAX_CONNECTIONS */
void table_deinit(struct table *t);

/* A cleared slot with its ring, no descriptor and no deadline, or NULL when as many as may be are in use. */
struct conn *table_take(struct table *t);
/* Takes it out of everything. Its descriptor is the caller's business, and closed before. */
void table_release(struct table *t, struct conn *c);
static inline bool table_full(const struct table *t)
{
    return t->used >= t->limit;
}

struct conn *table_find(const struct table *t, uint32_t local_port, uint32_t guest_port);
void table_hash(struct table *t, struct conn *c); /* by c's ports; no other connection has them */
void table_unhash(struct table *t, struct conn *c);

/* A local port from VSOCK_HOST_PORT_BASE on that no connection uses; the last one given comes again last. */
uint32_t table_unused_port(struct table *t);

/* The turns: a connection is in them at most once. */
void table_turn_add(struct table *t, struct conn *c); /* at the end, unless it is in already */
void table_turn_remove(struct table *t, struct conn *c);
