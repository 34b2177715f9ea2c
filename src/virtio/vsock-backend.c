/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vsock-backend.h"

#include "base/macro.h"

void vsock_backend_init(struct vsock_backend *backend, struct vsock *core)
{
    backend->core = core;
    backend->malformed = 0;
}

enum serve {
    SERVE_IDLE,    /* the queue is empty or has nothing to carry; an event will tell */
    SERVE_MORE,    /* the batch is full */
    SERVE_BLOCKED, /* tx only: the core takes no packets until rx moved */
};

/* True when there is a chain in backend->chain. On an empty queue kicks are on again. */
static bool next_chain(struct vsock_backend *backend, struct virtqueue *vq)
{
    for (;;) {
        switch (vq_pop(vq, &backend->chain)) {
        case VQ_CHAIN:
            return true;
        case VQ_EMPTY:
            if (!vq_enable_kicks(vq))
                return false;
            vq_disable_kicks(vq);
            continue;
        default:
            return false;
        }
    }
}

/* The header is gathered into a private copy, whatever descriptors it is spread over; the payload stays where it is. */
static void take_one(struct vsock_backend *backend, struct virtqueue *tx)
{
    struct vq_chain *chain = &backend->chain;
    uint8_t bytes[VSOCK_HDR_SIZE];
    struct vsock_hdr hdr;

    if (vq_chain_take(chain, bytes, sizeof(bytes))) {
        vsock_hdr_decode(&hdr, bytes);
        if (hdr.len <= chain->readable_bytes)
            (void)vsock_take_packet(backend->core, &hdr, chain->readable, chain->readable_count);
        else
            backend->malformed++;
    } else {
        backend->malformed++;
    }
    vq_push(tx, chain->head, 0);
}

static enum serve serve_tx(struct vsock_backend *backend, struct virtqueue *tx)
{
    vq_disable_kicks(tx);
    for (unsigned i = 0; i < VSOCK_BACKEND_BATCH; i++) {
        if (!vsock_can_take(backend->core))
            return SERVE_BLOCKED;
        if (!next_chain(backend, tx))
            return SERVE_IDLE;
        take_one(backend, tx);
    }
    return SERVE_MORE;
}

/* False when the core had nothing after all. The header goes last: only then is the payload's length known. */
static bool give_one(struct vsock_backend *backend, struct virtqueue *rx)
{
    struct vq_chain *chain = &backend->chain;
    struct iovec head[VSOCK_HDR_SIZE];
    uint8_t bytes[VSOCK_HDR_SIZE];
    struct vsock_hdr hdr;

    if (vq_chain_split(chain, VSOCK_HDR_SIZE, head, ARRAY_SIZE(head)) == 0 || chain->writable_bytes == 0) {
        backend->malformed++;
        vq_push(rx, chain->head, 0);
        return true;
    }
    if (vsock_next_packet(backend->core, &hdr, chain->writable, chain->writable_count) != 1) {
        vq_unpop(rx);
        return false;
    }
    vsock_hdr_encode(bytes, &hdr);
    vq_scatter(head, bytes, sizeof(bytes));
    vq_push(rx, chain->head, VSOCK_HDR_SIZE + hdr.len);
    return true;
}

static enum serve serve_rx(struct vsock_backend *backend, struct virtqueue *rx)
{
    if (!vsock_has_packets(backend->core))
        return SERVE_IDLE;
    vq_disable_kicks(rx);
    for (unsigned i = 0; i < VSOCK_BACKEND_BATCH; i++) {
        if (!vsock_has_packets(backend->core) || !next_chain(backend, rx) || !give_one(backend, rx))
            return SERVE_IDLE;
    }
    return SERVE_MORE;
}

void vsock_backend_run(
        struct vsock_backend *backend, struct virtqueue *rx, struct virtqueue *tx, struct vsock_backend_turn *ret)
{
    enum serve from_guest = tx ? serve_tx(backend, tx) : SERVE_IDLE;
    enum serve to_guest = rx ? serve_rx(backend, rx) : SERVE_IDLE; /* second, so that replies go out in this run */

    *ret = (struct vsock_backend_turn){
            .more = from_guest == SERVE_MORE || to_guest == SERVE_MORE ||
                    (from_guest == SERVE_BLOCKED && vsock_can_take(backend->core)),
            .signal_rx = rx && vq_should_signal(rx),
            .signal_tx = tx && vq_should_signal(tx),
    };
}
