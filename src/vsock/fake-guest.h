/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest for the tests, without memory or queues: it plays Linux's side of
 * each connection, credit included, and fails the test when the device sends
 * more than the guest has room for. Host programs are plain unix sockets.
 */
#pragma once

#include "base/test.h"

#include "base/loop.h"
#include "vsock/device.h"
#include "vsock/vsock.h"

#define GUEST_CID   7u
#define GUEST_SPACE 3732u /* bytes behind the header in Linux's receive buffers */

struct guest {
    struct loop loop;
    struct vsock *v;
    char dir[32], uds[48];
    int listen_fd;
    unsigned ready_calls;
    size_t space; /* of each receive buffer */
};

/* The guest's half of a connection. */
struct stream {
    uint32_t guest_port, host_port;
    uint32_t alloc;           /* the guest's buffer */
    uint32_t received, taken; /* from the host; read by the guest's program */
    uint32_t sent, host_alloc, host_fwd;
};

struct packet {
    struct vsock_hdr hdr;
    uint8_t data[VSOCK_MAX_PKT_PAYLOAD];
};

void guest_init(struct guest *g, uint32_t connect_timeout_ms);
void guest_init_limited(struct guest *g, uint32_t connect_timeout_ms, uint32_t max_connections);
void guest_deinit(struct guest *g);
/* Serves the loop until nothing is left to do; with wait_ms, waits so long for the first event. */
void guest_run(struct guest *g, int wait_ms);

int guest_send_raw(struct guest *g, const struct vsock_hdr *hdr, const void *data);
int guest_send(struct guest *g, struct stream *s, enum vsock_op op, uint32_t flags, const void *data, uint32_t len);
/* What the host lets the guest send now. */
uint32_t guest_room(const struct stream *s);
/* False when there is no packet. Does the accounting of `s` when the packet is for it. */
bool guest_receive(struct guest *g, struct stream *s, struct packet *ret);
/* The next packet is this one, for s. */
void guest_expect(struct guest *g, struct stream *s, enum vsock_op op, struct packet *ret);
void guest_expect_nothing(struct guest *g);

/* Host programs. Both descriptors are non-blocking. */
int host_dial(struct guest *g);
int host_listen(struct guest *g, uint32_t port);
void host_write(int fd, const void *data, size_t len);
void host_expect_bytes(struct guest *g, int fd, const void *data, size_t len);
void host_expect_eof(struct guest *g, int fd);
void host_expect_silence(struct guest *g, int fd);

/* A complete connection, host end in the return value. */
int connect_to_guest(struct guest *g, struct stream *s, uint32_t guest_port);
int connect_to_host(struct guest *g, struct stream *s, int listener, uint32_t guest_port, uint32_t host_port);
uint32_t connections(const struct guest *g);
