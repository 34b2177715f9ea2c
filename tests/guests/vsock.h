/* SPDX-License-Identifier: Apache-2.0 */
/* A driver for virtio-vsock (virtio 1.2 §5.10): packets, and one stream at a time for the well-behaved cases. */
#pragma once

#include "lib/virtio.h"

enum { OP_REQUEST = 1, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST };
enum { HOST_CID = 2, GUEST_CID = 3, RX = 0, TX = 1, EVENT = 2 };
enum { SHUT_RECEIVE = 1, SHUT_SEND = 2 };

struct packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct packet) == 44, "virtio 1.2 §5.10.6");

#define RX_BUFFERS 32u
#define RX_BYTES   4096u /* of payload, behind the header */
#define TX_BYTES   4096u

struct vsock {
    struct device d;
    struct queue *rx, *tx;
    uint8_t *rx_at[RX_BUFFERS];
    struct packet *out;
    uint8_t *payload; /* TX_BYTES to send from */
    int lent;         /* the rx buffer whose payload the caller has, or -1 */
};

/* One stream as its guest end sees it. */
struct stream {
    uint32_t local, peer;
    uint32_t sent, received;       /* bytes */
    uint32_t peer_alloc, peer_fwd; /* the host's credit */
    uint32_t told;                 /* received, as of the last credit update */
    bool reset, host_sends_no_more, host_receives_no_more;
};
#define STREAM_ALLOC (64u << 10)

struct vsock *vsock_open(void);
void vsock_start(struct vsock *v); /* (again) from reset */
/* Sends one packet as it is, with `payload` behind it; waits until the device has taken it. */
void vsock_send_raw(struct vsock *v, const struct packet *p, const void *payload, uint32_t bytes);
/* The next packet from the device; its payload is valid until the next call. False: none within the time. */
bool vsock_receive(struct vsock *v, unsigned seconds, struct packet *ret, const uint8_t **ret_payload);

void stream_send(struct vsock *v, struct stream *s, uint16_t op, uint32_t flags, const void *payload, uint32_t bytes);
void stream_accept(struct vsock *v, struct stream *ret, uint32_t port); /* waits for the host's request */
bool stream_connect(struct vsock *v, struct stream *ret, uint32_t local, uint32_t port); /* false: refused */
/* Takes a packet for the stream and its bookkeeping; false: none within the time. */
bool stream_receive(
        struct vsock *v, struct stream *s, unsigned seconds, struct packet *ret, const uint8_t **ret_payload);
