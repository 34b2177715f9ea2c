/* SPDX-License-Identifier: Apache-2.0 */
/* Streams between guest and host, well used. */
#include "vsock.h"

static void send_bytes(struct vsock *v, struct stream *s, const void *from, uint32_t bytes)
{
    const uint8_t *at = from, *payload;
    struct packet p;

    while (bytes) {
        uint32_t room = s->peer_alloc - (s->sent - s->peer_fwd), now = bytes < TX_BYTES ? bytes : TX_BYTES;

        CHECK(s->sent - s->peer_fwd <= s->peer_alloc);
        if (room == 0) {
            stream_send(v, s, OP_CREDIT_REQUEST, 0, NULL, 0);
            while (s->peer_alloc == s->sent - s->peer_fwd) {
                CHECK(stream_receive(v, s, 20, &p, &payload));
                CHECK(!s->reset);
            }
            continue;
        }
        now = now < room ? now : room;
        stream_send(v, s, OP_RW, 0, at, now);
        at += now;
        bytes -= now;
    }
}

#define ECHO_BYTES (2u << 20) /* of one stream */

/* What the host sends comes back to it, until it sends no more; both directions at once. */
static void echo(struct vsock *v, struct stream *s, uint8_t *bytes)
{
    uint32_t in = 0, out = 0;
    const uint8_t *payload;
    struct packet p;

    while (!s->host_sends_no_more || out < in) {
        uint32_t room = s->peer_alloc - (s->sent - s->peer_fwd), now = in - out;

        CHECK(s->sent - s->peer_fwd <= s->peer_alloc);
        CHECK(!s->reset);
        if (now && !room)
            stream_send(v, s, OP_CREDIT_REQUEST, 0, NULL, 0);
        if (stream_receive(v, s, now && room ? 0 : 30, &p, &payload)) {
            if (p.op == OP_RW) {
                CHECK(in + p.len <= ECHO_BYTES);
                memcpy(bytes + in, payload, p.len);
                in += p.len;
            }
            continue;
        }
        CHECK(now && room);
        now = now < room ? now : room;
        now = now < TX_BYTES ? now : TX_BYTES;
        stream_send(v, s, OP_RW, 0, bytes + out, now);
        out += now;
    }
    print("echoed %u\n", (uint64_t)out);
    stream_send(v, s, OP_SHUTDOWN, SHUT_SEND | SHUT_RECEIVE, NULL, 0);
    while (!s->reset)
        CHECK(stream_receive(v, s, 20, &p, &payload));
}

/* The host connects: "CONNECT 5000", 1 MiB each way, half close by the host. */
CASE(vsock_host_connects)
{
    struct vsock *v = vsock_open();
    uint8_t *bytes = allocate(ECHO_BYTES, 4096);
    struct stream s;

    print("SYNC listening\n");
    for (unsigned i = 0; i < argument("times", 1); i++) {
        stream_accept(v, &s, 5000);
        echo(v, &s, bytes);
    }
}

/* The guest connects: 1 MiB there, 1 MiB back, half close by the guest. */
CASE(vsock_guest_connects)
{
    struct vsock *v = vsock_open();
    uint32_t bytes = (uint32_t)argument("bytes", 1 << 20);
    const uint8_t *payload;
    struct stream s;
    struct packet p;
    uint64_t sum = 0;

    sync_with_host("connect");
    CHECK(stream_connect(v, &s, 4000, 6000));
    for (uint32_t at = 0; at < bytes; at += TX_BYTES) {
        pattern_fill(v->payload, TX_BYTES, at / 8);
        send_bytes(v, &s, v->payload, TX_BYTES);
    }
    stream_send(v, &s, OP_SHUTDOWN, SHUT_SEND, NULL, 0);
    while (!s.reset && !s.host_sends_no_more) {
        CHECK(stream_receive(v, &s, 30, &p, &payload));
        if (p.op != OP_RW)
            continue;
        for (uint32_t i = 0; i + 8 <= p.len; i += 8)
            sum += *(const uint64_t *)(payload + i);
        if (s.received - s.told > STREAM_ALLOC / 2)
            stream_send(v, &s, OP_CREDIT_UPDATE, 0, NULL, 0);
    }
    CHECK_EQ(s.received, bytes);
    print("sum %u\n", sum);
    if (!s.reset)
        stream_send(v, &s, OP_SHUTDOWN, SHUT_SEND | SHUT_RECEIVE, NULL, 0);
    while (!s.reset)
        CHECK(stream_receive(v, &s, 20, &p, &payload));
}

/* Nobody listens: a reset, and the next connection is as good as any. */
CASE(vsock_refused)
{
    struct vsock *v = vsock_open();
    const uint8_t *payload;
    struct stream s;
    struct packet p;

    CHECK(!stream_connect(v, &s, 4000, 7));
    CHECK(!stream_connect(v, &s, 4000, 0xffffffff));
    sync_with_host("connect");
    CHECK(stream_connect(v, &s, 4000, 6000));
    stream_send(v, &s, OP_RST, 0, NULL, 0);
    /* A connection that the host asks for and nobody here wants. */
    sync_with_host("unwanted");
    CHECK(vsock_receive(v, 20, &p, &payload));
    CHECK_EQ(p.op, OP_REQUEST);
    s = (struct stream){.local = p.dst_port, .peer = p.src_port};
    stream_send(v, &s, OP_RST, 0, NULL, 0);
    sync_with_host("refused");
}

/* Hosts hold as many connections as there may be: a reset, until one of them has gone. */
CASE(vsock_few_connections)
{
    struct vsock *v = vsock_open();
    struct stream s;

    sync_with_host("filled");
    CHECK(!stream_connect(v, &s, 4000, 6000));
    sync_with_host("freed");
    CHECK(stream_connect(v, &s, 4000, 6000));
    stream_send(v, &s, OP_RST, 0, NULL, 0);
}

/* Data that the guest does not read stays with the host: no more comes than there is credit for. */
CASE(vsock_credit)
{
    struct vsock *v = vsock_open();
    const uint8_t *payload;
    struct stream s;
    struct packet p;

    print("SYNC listening\n");
    stream_accept(v, &s, 5000);
    while (s.received < STREAM_ALLOC)
        CHECK(stream_receive(v, &s, 20, &p, &payload));
    spin(SECONDS / 10);
    while (vsock_receive(v, 0, &p, &payload))
        CHECK_EQ(p.op, OP_CREDIT_REQUEST);
    stream_send(v, &s, OP_CREDIT_UPDATE, 0, NULL, 0);
    while (s.received < STREAM_ALLOC + 10)
        CHECK(stream_receive(v, &s, 20, &p, &payload));
    stream_send(v, &s, OP_RST, 0, NULL, 0);
}
