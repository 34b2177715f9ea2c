/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stream connection between a port of the guest and a unix socket.
 *
 *   host to guest:  AWAIT_LINE --CONNECT line--> REQUESTING --RESPONSE--> ESTABLISHED
 *   guest to host:  REQUEST and connect(2) succeeded ------------------> ESTABLISHED
 *
 *   ESTABLISHED --both directions ended, guest closed---------------------> DEAD
 *               --both directions ended, guest did not close yet----------> CLOSING --RST, or 8 s--> gone
 *               --guest finished and left, the unix side is still behind--> DRAINING --written--> gone
 *   any state   --broken protocol, timeout, vanished peer-----------------> DEAD --our RST is sent--> gone
 *
 * A direction ends in one of two ways. Guest to host: the guest said SHUTDOWN(SEND)
 * and its last byte was written, or the unix side takes no more. Host to
 * guest: end of file was read from the unix side, or the guest said
 * SHUTDOWN(RECEIVE). `guest_shut` and `host_shut` keep what either side
 * did; everything else is derived from them in conn_settle(), which every
 * event ends with. No event sends anything: it leaves facts, and
 * conn_next_packet() makes packets of them when the guest has room. So a
 * connection never has more than one of each kind of packet outstanding,
 * and credit updates coalesce by themselves.
 *
 * The unix socket is watched edge-triggered. `readable` holds from an edge
 * until read(2) says EAGAIN, so a socket whose guest has no credit costs
 * nothing while it waits, not even when its peer hung up. EPOLLOUT is asked
 * for only once a write did not fit, and dropped at the first event that
 * finds nothing to write.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "vsock/credit.h"
#include "vsock/ring.h"
#include "vsock/vsock.h"

#define VSOCK_CLOSE_TIMEOUT_MS                                                                                         \
    8000u /* from SHUTDOWN of both directions to the guest's RST; Linux waits as long for ours */
#define VSOCK_CREDIT_PROBE_MS 200u        /* without credit for so long: ask for it, once */
#define VSOCK_RESUME_BYTES    (16u << 10) /* once out of credit, wait for so much of it: no tiny packets */
#define VSOCK_IOV_MAX         64u         /* pieces of one packet that are given to the kernel at once */

enum conn_state {
    CONN_FREE = 0,
    CONN_AWAIT_LINE, /* unix side connected, its CONNECT line is not complete; the guest knows nothing */
    CONN_REQUESTING, /* REQUEST is pending or sent */
    CONN_ESTABLISHED,
    CONN_DRAINING, /* the guest is gone, and its pair of ports free; its last bytes are being written */
    CONN_CLOSING,  /* SHUTDOWN of both directions is pending or sent; no unix side any more */
    CONN_DEAD,     /* only the RST is left to send */
};

enum conn_pending {
    PENDING_REQUEST = 1 << 0,
    PENDING_RESPONSE = 1 << 1,
    PENDING_CREDIT_UPDATE = 1 << 2,
    PENDING_CREDIT_REQUEST = 1 << 3,
    PENDING_RST = 1 << 4,
};

struct conn {
    struct vsock *device;
    struct loop_fd source; /* the unix side; owns source.fd, -1 for none */
    enum conn_state state;
    uint32_t local_port, guest_port;
    struct credit credit;
    struct ring ring;   /* guest to host: received, not yet written */
    uint64_t deadline;  /* what it ends depends on the state: conn_expire() */
    uint8_t pending;    /* enum conn_pending */
    uint8_t guest_shut; /* VSOCK_SHUTDOWN_*: what the guest will not do any more */
    uint8_t host_shut;  /* the same for the unix side */
    uint8_t told_shut;  /* what the guest was told of it */
    bool readable;      /* reading the unix side may yield something */
    bool write_closed;  /* shutdown(SHUT_WR) was done */
    bool read_closed;   /* shutdown(SHUT_RD) was done */
    bool out_of_credit; /* until VSOCK_RESUME_BYTES may be sent */
    bool probed;        /* credit was asked for; from then on any amount will do */

    /* The table's. */
    bool hashed, in_turn;
    struct conn *hash_next, *free_next, *turn_prev, *turn_next;
};

/* Both take ownership of fd. Negative errno: the connection did not come to be, its slot is free again. */
int conn_accept(struct conn *c, int fd);
int conn_open(struct conn *c, int fd, const struct vsock_hdr *request);

/* One packet of the guest for this connection. False when it broke the protocol, which ends the connection. */
bool conn_take_packet(struct conn *c, const struct vsock_hdr *hdr, const struct iovec *payload, size_t count);

/* True and one packet for the guest, without the addresses' CIDs; false when there is none, or no room for data. The
 * connection may be gone afterwards. */
bool conn_next_packet(struct conn *c, struct vsock_hdr *ret_hdr, const struct iovec *space, size_t count);

/* Its deadline passed. */
void conn_expire(struct conn *c);
/* Ends it with a RST. */
void conn_abort(struct conn *c);
/* Ends it without a word and frees the slot. */
void conn_drop(struct conn *c);
