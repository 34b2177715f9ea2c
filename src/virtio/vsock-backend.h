/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between two virtqueues and the vsock core (virtio 1.2 §5.10): takes the
 * guest's packets from the tx queue, puts the core's packets into the rx
 * queue. Knows neither vhost-user nor virtio-mmio and makes no system call
 * itself, so that any transport can use it.
 *
 * The transport calls vsock_backend_run() after every turn of its loop,
 * whether or not a kick came: what woke it may as well be a host socket. One
 * run does a bounded amount of work and says whether more is left, and whom
 * to interrupt, once for the whole batch.
 *
 * Back-pressure: while the core's reply queue is full the tx queue is left
 * alone, and the core stops reading a host socket when no rx buffer is there.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "virtio/virtqueue.h"
#include "vsock/vsock.h"

#define VSOCK_BACKEND_BATCH 16u /* chains per queue and run */

struct vsock_backend {
    struct vsock *core;
    uint64_t malformed; /* packets dropped before the core saw them */
    struct vq_chain chain;
};

struct vsock_backend_turn {
    bool more;                 /* run again without waiting */
    bool signal_rx, signal_tx; /* interrupt the guest for this queue */
};

void vsock_backend_init(struct vsock_backend *backend, struct vsock *core);

/*
 * A queue that is not served now is NULL. A queue that breaks stays so and
 * has a fault afterwards; it makes no more work.
 */
void vsock_backend_run(
        struct vsock_backend *backend, struct virtqueue *rx, struct virtqueue *tx, struct vsock_backend_turn *ret);
