/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that no driver would send. The test looks at the monitor's descriptors before ("SYNC before") and after. */
#include "hostile.h"
#include "vsock.h"

static struct packet to_host(uint16_t op, uint32_t local, uint32_t port)
{
    return (struct packet){.src_cid = GUEST_CID,
            .dst_cid = HOST_CID,
            .src_port = local,
            .dst_port = port,
            .type = 1,
            .op = op,
            .buf_alloc = 65536};
}

/* Takes what the device has to say and forgets it; how many packets that was. */
static unsigned drain(struct vsock *v)
{
    const uint8_t *payload;
    struct packet p;
    unsigned count = 0;

    while (queue_used(v->rx) && vsock_receive(v, 0, &p, &payload))
        count++;
    return count;
}

static void end_and_check(struct vsock *v)
{
    struct device d = v->d;

    spin(SECONDS / 20);
    drain(v);
    CHECK_EQ(reg(&v->d, R_STATUS), 15);
    must_work(&d);
}

/* CIDs, ports, types and operations of others, and of nobody. */
CASE(hostile_vsock_forged)
{
    struct vsock *v = vsock_open();
    static const uint64_t cids[] = {0, 1, 2, 3, 4, 1ull << 32, 0xffffffff, UINT64_MAX};
    unsigned answers = 0;

    sync_with_host("before");
    for (unsigned a = 0; a < 8; a++) {
        for (unsigned b = 0; b < 8; b++) {
            for (uint16_t op = 0; op < 10; op++) {
                struct packet p = to_host(op, 1, 6000);

                p.src_cid = cids[a];
                p.dst_cid = cids[b];
                if (p.src_cid == GUEST_CID && p.dst_cid == HOST_CID && op == OP_REQUEST)
                    continue;
                vsock_send_raw(v, &p, NULL, 0);
                answers += drain(v);
            }
        }
    }
    for (unsigned type = 0; type < 5; type++) {
        struct packet p = to_host((uint16_t)(type == 4 ? 0xffff : OP_REQUEST), 2, 6001);

        p.type = (uint16_t)(type == 1 ? 2 : type * 0x5555);
        vsock_send_raw(v, &p, NULL, 0);
        answers += drain(v);
    }
    print("answers %u\n", (uint64_t)answers);
    end_and_check(v);
    sync_with_host("after");
}

/* Lengths that lie: in the header, in the chain, in both; and headers that are cut short. */
CASE(hostile_vsock_lengths)
{
    struct vsock *v = vsock_open();
    static const uint32_t lengths[] = {
            0, 1, 43, 44, 45, 4095, 4096, 65535, 65536, 65537, 1 << 20, 0x7fffffff, 0xffffffd3, 0xffffffd4, 0xffffffff};
    uint8_t *bytes = allocate(128 << 10, 4096);
    struct stream s;

    sync_with_host("before");
    for (unsigned a = 0; a < 15; a++) {
        for (unsigned b = 0; b < 10; b++) {
            bool connected = stream_connect(v, &s, 3000 + 16 * a + b, 6000);
            struct packet p = to_host(OP_RW, s.local, 6000);

            CHECK(connected);
            p.len = lengths[a];
            vsock_send_raw(v, &p, bytes, lengths[b] <= 128 << 10 ? lengths[b] : 128 << 10);
            p = to_host(OP_RST, s.local, 6000);
            vsock_send_raw(v, &p, NULL, 0);
            spin(SECONDS / 1000);
            drain(v);
        }
    }
    for (uint32_t short_by = 1; short_by <= 44; short_by++)
        queue_do(v->tx, &(struct buffer){bytes, 44 - short_by, false}, short_by < 44 ? 1 : 0 + 1);
    end_and_check(v);
    sync_with_host("after");
}

/* More in flight than allowed, counters that run backwards, a window of nothing, of everything, and RW to nowhere. */
CASE(hostile_vsock_credit)
{
    struct vsock *v = vsock_open();
    static const uint32_t numbers[] = {0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    struct stream s;

    sync_with_host("before");
    for (unsigned a = 0; a < 6; a++) {
        for (unsigned b = 0; b < 6; b++) {
            struct packet p;

            if (!stream_connect(v, &s, 8000 + 8 * a + b, 6000))
                FAIL("refused");
            for (unsigned op = OP_RW; op <= OP_CREDIT_REQUEST; op++) {
                p = to_host((uint16_t)op, s.local, 6000);
                p.buf_alloc = numbers[a];
                p.fwd_cnt = numbers[b];
                p.len = op == OP_RW ? TX_BYTES : 0;
                vsock_send_raw(v, &p, v->payload, p.len);
                drain(v);
            }
            p = to_host(OP_RST, s.local, 6000);
            vsock_send_raw(v, &p, NULL, 0);
            spin(SECONDS / 1000);
            drain(v);
        }
    }
    /* 1 MiB at once to a host program that reads nothing. */
    CHECK(stream_connect(v, &s, 9000, 6001));
    for (unsigned i = 0; i < 256; i++) {
        struct packet p = to_host(OP_RW, 9000, 6001);

        p.len = TX_BYTES;
        vsock_send_raw(v, &p, v->payload, TX_BYTES);
        drain(v);
    }
    struct packet end = to_host(OP_RST, 9000, 6001);

    vsock_send_raw(v, &end, NULL, 0);
    end_and_check(v);
    sync_with_host("after");
}

/* times= requests for connections, most more than there may be; each port only once, then each again. */
CASE(hostile_vsock_connects)
{
    struct vsock *v = vsock_open();
    uint64_t times = argument("times", 10000), answers = 0;

    sync_with_host("before");
    for (uint64_t i = 0; i < times; i++) {
        struct packet p = to_host(OP_REQUEST, (uint32_t)i, i % 3 ? 6000 : 7);

        vsock_send_raw(v, &p, NULL, 0);
        answers += drain(v);
    }
    spin(SECONDS / 10);
    answers += drain(v);
    print("answers %u\n", answers);
    sync_with_host("during");
    for (uint64_t i = 0; i < times; i++) {
        struct packet p = to_host(OP_RST, (uint32_t)i, i % 3 ? 6000 : 7);

        vsock_send_raw(v, &p, NULL, 0);
        drain(v);
    }
    end_and_check(v);
    sync_with_host("after");
}

/* Answers to nothing: no buffer for them, while more and more is asked. */
CASE(hostile_vsock_no_buffers)
{
    struct vsock *v = vsock_open();
    struct packet p = to_host(OP_REQUEST, 1, 7);
    uint64_t taken = 0;

    sync_with_host("before");
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned i = 0; i < 32; i++) {
            struct buffer b = {v->out, sizeof(*v->out), false};

            p.src_port++;
            *v->out = p;
            queue_offer(v->tx, queue_chain(v->tx, &b, 1));
        }
        queue_kick(v->tx);
        uint16_t head;
        uint32_t len;

        for (unsigned i = 0; i < 32 && queue_take(v->tx, 0, &head, &len); i++)
            taken++;
        spin(SECONDS / 1000);
        while (queue_take(v->tx, 0, &head, &len))
            taken++;
        if (taken < 32ull * (round + 1))
            break; /* it waits for us: so it should */
    }
    print("taken %u\n", taken);
    vsock_start(v); /* a new driver ends the wait */
    end_and_check(v);
    sync_with_host("after");
}

/* Connect, half close, data, reset in every order of ten steps that a counter makes. */
CASE(hostile_vsock_orders)
{
    struct vsock *v = vsock_open();

    sync_with_host("before");
    for (uint32_t n = 0; n < argument("times", 600); n++) {
        uint32_t code = n * 2654435761u;

        for (unsigned i = 0; i < 10; i++, code = code >> 3 | code << 29) {
            struct packet p = to_host((uint16_t)(code & 7), 100 + (n & 3), 6000);

            p.len = (code & 7) == OP_RW ? code >> 8 & 63 : 0;
            p.flags = code >> 16;
            vsock_send_raw(v, &p, v->payload, p.len);
            drain(v);
        }
    }
    for (uint32_t n = 0; n < 4; n++) {
        struct packet p = to_host(OP_RST, 100 + n, 6000);

        vsock_send_raw(v, &p, NULL, 0);
    }
    end_and_check(v);
    sync_with_host("after");
}
