/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock device core: stream connections between one guest and unix
 * sockets of the host (virtio 1.2 §5.10). It knows packets, connections,
 * credit and the unix-socket muxer, and nothing of virtqueues: a transport
 * (vhost-user, later virtio-mmio) hands it the guest's packets and asks it
 * for packets to the guest.
 *
 * Host to guest (the hybrid convention, as in Firecracker): a program connects
 * to the VM's unix socket, sends "CONNECT <port>\n" and reads "OK <hostport>\n"
 * once the guest accepted; a refusal closes the connection.
 * Guest to host: a guest connection to CID 2, port P is a connection to the
 * unix socket "<uds_path>_<P>"; nobody listening there is a RST.
 *
 * Single-threaded: every call and every loop callback on one thread. All
 * tables have fixed sizes; nothing is allocated once vsock_new() returned.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/loop.h"
#include "base/macro.h"

#define VSOCK_HOST_CID        2u
#define VSOCK_GUEST_CID_MIN   3u
#define VSOCK_MAX_CONNECTIONS 1023u
#define VSOCK_BUF_ALLOC       (256u << 10) /* bytes that we let the guest have in flight, per connection */
#define VSOCK_MAX_PKT_PAYLOAD (64u << 10)  /* largest payload of one packet, both directions */
#define VSOCK_HOST_PORT_BASE  (1u << 30)   /* local ports given to host-initiated connections */

/* virtio 1.2 §5.10.6: 44 bytes, packed, little-endian. Here in host order; convert with the two functions. */
struct vsock_hdr {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
};
#define VSOCK_HDR_SIZE 44u

enum vsock_op {
    VSOCK_OP_INVALID = 0,
    VSOCK_OP_REQUEST = 1,
    VSOCK_OP_RESPONSE = 2,
    VSOCK_OP_RST = 3,
    VSOCK_OP_SHUTDOWN = 4,
    VSOCK_OP_RW = 5,
    VSOCK_OP_CREDIT_UPDATE = 6,
    VSOCK_OP_CREDIT_REQUEST = 7,
};
#define VSOCK_TYPE_STREAM           1u
#define VSOCK_SHUTDOWN_RECEIVE      1u
#define VSOCK_SHUTDOWN_SEND         2u
#define VSOCK_EVENT_TRANSPORT_RESET 0u

void vsock_hdr_decode(struct vsock_hdr *ret, const uint8_t bytes[VSOCK_HDR_SIZE]);
void vsock_hdr_encode(uint8_t bytes[VSOCK_HDR_SIZE], const struct vsock_hdr *hdr);

struct vsock_options {
    size_t size; /* sizeof(struct vsock_options) */
    struct loop *loop;
    uint64_t guest_cid;
    const char *uds_path;        /* prefix of the "<uds_path>_<port>" sockets; copied */
    int listen_fd;               /* listening stream socket for host-initiated connections, borrowed; -1 for none */
    uint32_t connect_timeout_ms; /* 0 means 8,000: CONNECT line or RESPONSE that does not come */
    uint32_t max_connections;    /* of both directions together, at most and by default (0) VSOCK_MAX_CONNECTIONS.
                                  * Beyond them the guest is refused, and hosts wait in the listener's backlog. */
    /* vsock_has_packets() became true: call vsock_next_packet(), here or later, until it returns 0 or that is false.
     * Not called again before: a transport that stops earlier, for want of buffers, goes on by itself. */
    void (*rx_ready)(void *userdata);
    void *userdata;
};

struct vsock;

int vsock_new(struct vsock **ret, const struct vsock_options *options);
void vsock_free(struct vsock *v); /* closes every connection; accepts NULL */
DEFINE_CLEANUP(struct vsock *, vsock_free)

/*
 * One packet from the guest. `hdr` is the transport's private copy; `payload`
 * is a view of at least hdr->len bytes, used only during the call.
 * 0, or VSOCK_PACKET_DROPPED when the guest broke the protocol (counted;
 * answered with RST where the specification asks for it). Never an error
 * that ends the device. Call only while vsock_can_take() is true.
 */
enum { VSOCK_PACKET_DROPPED = 1 };
int vsock_take_packet(struct vsock *v, const struct vsock_hdr *hdr, const struct iovec *payload, size_t count);

/* False while the fixed reply queue is full: the transport leaves the tx queue alone until it drained rx packets. */
bool vsock_can_take(const struct vsock *v);

/*
 * The next packet for the guest, chosen fairly between connections. Its
 * payload goes into `space` (the transport's view of the rx chain behind the
 * header; the total is the most that one packet may carry, at least 1).
 * Returns 1 and *ret_hdr (payload length in ret_hdr->len), or 0 when there is
 * nothing to send (space untouched, the chain stays available).
 */
int vsock_next_packet(struct vsock *v, struct vsock_hdr *ret_hdr, const struct iovec *space, size_t count);
bool vsock_has_packets(const struct vsock *v);

/* The guest's driver was reset or the VM restored: every connection ends, listeners survive, nothing is sent. */
void vsock_reset(struct vsock *v);

struct vsock_stats {
    uint32_t connections;
    uint64_t packets_from_guest, packets_to_guest, bytes_from_guest, bytes_to_guest, dropped, refused;
};
void vsock_get_stats(const struct vsock *v, struct vsock_stats *ret);
