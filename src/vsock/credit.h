/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credit of one connection (virtio 1.2 §5.10.6.3): pure arithmetic.
 *
 * Each side tells how large its receive buffer is (buf_alloc) and how many
 * bytes left it since the connection began (fwd_cnt). The sender's window is
 * buf_alloc - (sent - fwd_cnt). All counters are free-running 32-bit numbers
 * that wrap, so only differences mean anything.
 *
 * The guest's two numbers may hold anything. A fwd_cnt ahead of what we sent
 * makes the difference huge, which reads as "no room": a guest that lies
 * stalls its own connection and can't make us send more than buf_alloc.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct credit {
    /* host to guest */
    uint32_t sent;        /* bytes that we sent */
    uint32_t guest_alloc; /* the guest's buf_alloc */
    uint32_t guest_fwd;   /* the guest's fwd_cnt */
    /* guest to host */
    uint32_t received;  /* bytes that the guest sent */
    uint32_t forwarded; /* bytes that left our buffer: our fwd_cnt */
    uint32_t told;      /* the fwd_cnt in our last packet */
};

/* Every packet of the guest carries both numbers. */
void credit_heard(struct credit *c, uint32_t guest_alloc, uint32_t guest_fwd);
/* Bytes that may be sent to the guest now. */
uint32_t credit_room(const struct credit *c);
void credit_sent(struct credit *c, uint32_t len);

/* Whether `len` more bytes of the guest fit a buffer of `alloc` bytes; false changes nothing. */
bool credit_receive(struct credit *c, uint32_t len, uint32_t alloc);
void credit_forward(struct credit *c, uint32_t len);
/* Whether so much left the buffer since the guest was last told that it is worth a packet of its own. */
bool credit_update_due(const struct credit *c, uint32_t alloc);
/* To be called for each packet that goes out; returns the fwd_cnt to put into it. */
uint32_t credit_tell(struct credit *c);
