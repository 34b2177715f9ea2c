/* SPDX-License-Identifier: Apache-2.0 */
#include "vsock.h"

static void give_back(struct vsock *v, unsigned buffer)
{
    v->rx->desc[buffer].addr = (uint64_t)v->rx_at[buffer];
    v->rx->desc[buffer].len = (uint32_t)sizeof(struct packet) + RX_BYTES;
    v->rx->desc[buffer].flags = D_WRITE;
    queue_offer(v->rx, (uint16_t)buffer);
}

void vsock_start(struct vsock *v)
{
    device_start(&v->d, 0, 3, 64);
    v->rx = &v->d.queues[RX];
    v->tx = &v->d.queues[TX];
    v->lent = -1;
    for (unsigned i = 0; i < RX_BUFFERS; i++)
        give_back(v, i);
    queue_kick(v->rx);
}

struct vsock *vsock_open(void)
{
    struct vsock *v = allocate(sizeof(*v), 16);

    v->d = device_find(ID_VSOCK, 0);
    for (unsigned i = 0; i < RX_BUFFERS; i++)
        v->rx_at[i] = allocate(sizeof(struct packet) + RX_BYTES, 64);
    v->out = allocate(sizeof(*v->out), 64);
    v->payload = allocate(TX_BYTES, 64);
    vsock_start(v);
    CHECK_EQ(reg(&v->d, R_CONFIG), GUEST_CID);
    CHECK_EQ(reg(&v->d, R_CONFIG + 4), 0);
    return v;
}

void vsock_send_raw(struct vsock *v, const struct packet *p, const void *payload, uint32_t bytes)
{
    struct buffer b[] = {{v->out, sizeof(*v->out), false}, {payload, bytes, false}};

    *v->out = *p;
    queue_do(v->tx, b, bytes ? 2 : 1);
}

bool vsock_receive(struct vsock *v, unsigned seconds, struct packet *ret, const uint8_t **ret_payload)
{
    uint16_t head;
    uint32_t len;

    if (v->lent >= 0) {
        give_back(v, (unsigned)v->lent);
        queue_kick(v->rx);
        v->lent = -1;
    }
    if (!queue_take(v->rx, seconds, &head, &len))
        return false;
    CHECK(head < RX_BUFFERS);
    CHECK(len >= sizeof(*ret) && len <= sizeof(*ret) + RX_BYTES);
    memcpy(ret, v->rx_at[head], sizeof(*ret));
    CHECK_EQ(ret->len, len - sizeof(*ret));
    CHECK_EQ(ret->src_cid, HOST_CID);
    CHECK_EQ(ret->dst_cid, GUEST_CID);
    *ret_payload = v->rx_at[head] + sizeof(*ret);
    v->lent = head;
    return true;
}

void stream_send(struct vsock *v, struct stream *s, uint16_t op, uint32_t flags, const void *payload, uint32_t bytes)
{
    struct packet p = {.src_cid = GUEST_CID,
            .dst_cid = HOST_CID,
            .src_port = s->local,
            .dst_port = s->peer,
            .len = bytes,
            .type = 1,
            .op = op,
            .flags = flags,
            .buf_alloc = STREAM_ALLOC,
            .fwd_cnt = s->received};

    s->told = s->received;
    if (op == OP_RW)
        s->sent += bytes;
    vsock_send_raw(v, &p, payload, bytes);
}

static void take_credit(struct stream *s, const struct packet *p)
{
    s->peer_alloc = p->buf_alloc;
    s->peer_fwd = p->fwd_cnt;
}

void stream_accept(struct vsock *v, struct stream *ret, uint32_t port)
{
    const uint8_t *payload;
    struct packet p;

    if (!vsock_receive(v, 30, &p, &payload))
        FAIL("no request from the host");
    CHECK_EQ(p.op, OP_REQUEST);
    CHECK_EQ(p.dst_port, port);
    *ret = (struct stream){.local = port, .peer = p.src_port};
    take_credit(ret, &p);
    stream_send(v, ret, OP_RESPONSE, 0, NULL, 0);
}

bool stream_connect(struct vsock *v, struct stream *ret, uint32_t local, uint32_t port)
{
    const uint8_t *payload;
    struct packet p;

    *ret = (struct stream){.local = local, .peer = port};
    stream_send(v, ret, OP_REQUEST, 0, NULL, 0);
    do {
        if (!vsock_receive(v, 30, &p, &payload))
            FAIL("no answer to a request");
    } while (p.dst_port != local); /* others may have something left to say */
    CHECK_EQ(p.src_port, port);
    if (p.op == OP_RST)
        return false;
    CHECK_EQ(p.op, OP_RESPONSE);
    take_credit(ret, &p);
    return true;
}

bool stream_receive(
        struct vsock *v, struct stream *s, unsigned seconds, struct packet *ret, const uint8_t **ret_payload)
{
    if (!vsock_receive(v, seconds, ret, ret_payload))
        return false;
    CHECK_EQ(ret->type, 1);
    CHECK_EQ(ret->dst_port, s->local);
    CHECK_EQ(ret->src_port, s->peer);
    take_credit(s, ret);
    switch (ret->op) {
    case OP_RW:
        s->received += ret->len;
        CHECK(s->received - s->told <= STREAM_ALLOC);
        break;
    case OP_RST:
        s->reset = true;
        break;
    case OP_SHUTDOWN:
        s->host_sends_no_more |= (ret->flags & SHUT_SEND) != 0;
        s->host_receives_no_more |= (ret->flags & SHUT_RECEIVE) != 0;
        break;
    case OP_CREDIT_REQUEST:
        stream_send(v, s, OP_CREDIT_UPDATE, 0, NULL, 0);
        break;
    case OP_CREDIT_UPDATE:
        break;
    default:
        FAIL("unexpected operation %u", (uint64_t)ret->op);
    }
    return true;
}
