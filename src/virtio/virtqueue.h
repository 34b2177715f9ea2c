/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's side of a split virtqueue (virtio 1.2 §2.7), with indirect
 * descriptors and event index.
 *
 * The driver offers chains of buffers in the available ring; vq_pop() turns
 * one into checked host views, the device uses them and returns the chain
 * with vq_push(). Everything in the rings is written by a hostile guest while
 * we look at it:
 *
 *  - every descriptor and index is read once, and the copy is what counts;
 *  - the walk along a chain ends after a fixed number of descriptors, which
 *    also ends loops;
 *  - a driver that breaks the rules makes the queue *broken*. It stays so
 *    until vq_start(), every vq_pop() says VQ_BROKEN, and nothing is written
 *    to the guest any more.
 *
 * The three parts of the ring must each lie inside one memory region; they
 * are looked up at vq_start(), so after a change of the memory table the
 * owner starts the queue again where it was. Buffers are looked up for every
 * chain.
 *
 * What is written here, rings and event words, is marked in the memory's
 * bitmap of dirty pages, if it has one. So are a chain's writable buffers, when
 * vq_pop() hands them out: who collects the marks keeps the devices from
 * running, so that no chain is in the air between its mark and its bytes.
 *
 * Pure: no system call, no allocation. Kicks and interrupts belong to the
 * transport; the queue only says whether the driver wants one. One thread per
 * queue; the guest's vCPUs run beside it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtio/gmem.h"

#define VIRTIO_F_INDIRECT_DESC 28u /* feature bits, virtio 1.2 §6 */
#define VIRTIO_F_EVENT_IDX     29u
#define VIRTIO_F_VERSION_1     32u

#define VQ_MAX_SIZE  1024u /* entries of a ring */
#define VQ_MAX_CHAIN 1024u /* descriptors of one chain, and host views of one chain */

struct vq_config {
    uint16_t size; /* power of two, 1..VQ_MAX_SIZE */
    struct gpa desc, avail, used;
    uint16_t next_avail;      /* index that the driver's next chain has; 0 for a fresh ring */
    bool indirect, event_idx; /* negotiated features */
};

enum vq_fault {
    VQ_FAULT_NONE,
    VQ_FAULT_AVAIL_INDEX,  /* the available index moved further than the ring is long */
    VQ_FAULT_HEAD,         /* a chain's head is not in the table */
    VQ_FAULT_NEXT,         /* a chain continues outside of its table */
    VQ_FAULT_CHAIN_LENGTH, /* more descriptors or views than a chain may have, or a loop */
    VQ_FAULT_ADDRESS,      /* a buffer, an indirect table or a ring is not guest memory */
    VQ_FAULT_INDIRECT,     /* nested, not negotiated, bad size, or continued by NEXT */
    VQ_FAULT_ORDER,        /* a readable descriptor after a writable one */
    VQ_FAULT_BYTES,        /* the buffers add up to 4 GiB or more */
};

/* Owned by virtqueue.c; others may read started, fault and next_avail (where a stopped queue goes on). */
struct virtqueue {
    const struct gmem *mem;
    struct vq_config config;
    uint8_t *desc, *avail, *used; /* views */
    uint16_t next_avail;          /* free-running index of the next chain to take */
    uint16_t next_used;           /* free-running index of the next chain to return */
    uint16_t avail_seen;          /* newest available index that was read and checked */
    uint16_t signalled_used;      /* next_used when the driver was last told */
    bool started;
    enum vq_fault fault;
};

struct vq_chain {
    uint16_t head;
    struct iovec *readable, *writable; /* into iov */
    size_t readable_count, writable_count;
    uint32_t readable_bytes, writable_bytes;
    struct iovec iov[VQ_MAX_CHAIN];
};

/* Starts (or restarts) the queue. -EINVAL: bad size; -EFAULT: a ring is misaligned or not inside one region. */
int vq_start(struct virtqueue *vq, const struct gmem *mem, const struct vq_config *config);
/* Chains that were taken and not returned are forgotten. */
void vq_stop(struct virtqueue *vq);
/* Marks the queue broken for a reason that only the device knows. */
void vq_break(struct virtqueue *vq, enum vq_fault fault);
const char *vq_fault_text(enum vq_fault fault);

enum {
    VQ_EMPTY = 1, /* nothing there, or the queue is stopped; *ret is unspecified */
    VQ_CHAIN,     /* *ret is filled; its views live until the memory table changes */
    VQ_BROKEN,    /* see vq->fault */
};
int vq_pop(struct virtqueue *vq, struct vq_chain *ret);
/* Gives the last popped chain back untouched; the next vq_pop() reads it anew. Only before any vq_push() of it. */
void vq_unpop(struct virtqueue *vq);
/* Returns a chain of which `written` bytes of the writable part were filled. */
void vq_push(struct virtqueue *vq, uint16_t head, uint32_t written);

/* True when the driver wants an interrupt for what was pushed since the last call. Once per batch. */
bool vq_should_signal(struct virtqueue *vq);

/* A hint to the driver that kicks are not needed now. */
void vq_disable_kicks(struct virtqueue *vq);
/* Asks for a kick. True: chains came meanwhile, perhaps without a kick, so the caller has to pop again. */
bool vq_enable_kicks(struct virtqueue *vq);

/* Copies the first len readable bytes and drops them from the chain; false (nothing done) when there are fewer. */
bool vq_chain_take(struct vq_chain *chain, void *dst, uint32_t len);
/*
 * Splits the first len writable bytes off into ret (room for max views, and
 * len views always suffice) for a header that is written last. Returns the
 * count, or 0 when the chain has fewer bytes or max does not suffice.
 */
size_t vq_chain_split(struct vq_chain *chain, uint32_t len, struct iovec *ret, size_t max);
/* Splits the last writable byte off, for a status that is written last. NULL when there is none. */
uint8_t *vq_chain_split_last(struct vq_chain *chain);
/* Writes len bytes across the views, which must have that many. */
void vq_scatter(const struct iovec *iov, const void *src, size_t len);
