/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets that no driver would send, through rings of its own. On the host the test listens: port 6000 reads all that
 * comes (which must be the letter A), 6001 reads nothing, 6002 sends without end.
 */
#include "root.h"

#include <string.h>
#include <unistd.h>

#define GROUP      "vsock packets"
#define RX         0u
#define TX         1u
#define RX_BUFFERS 32u
#define READS_ALL  6000u
#define READS_NONE 6001u
#define SENDS      6002u
#define CONNS_MAX  1023u /* of the device */

enum { HOST = 2, GUEST = 3 };
enum { OP_REQUEST = 1, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST };

struct packet { /* virtio 1.2 §5.10.6 */
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

static struct device *v;
static struct page buffers[RX_BUFFERS];
static uint16_t next_head;

static void offer_buffer(unsigned i)
{
    v->queue[RX].desc[i] = (struct desc){buffers[i].gpa, PAGE, D_WRITE, 0};
    queue_offer(&v->queue[RX], (uint16_t)i);
}

static bool restart(bool with_buffers)
{
    next_head = 0;
    if (!device_start(v, 0))
        return false;
    for (unsigned i = 0; with_buffers && i < RX_BUFFERS; i++)
        offer_buffer(i);
    kick(v, RX);
    return true;
}

static struct packet packet(uint16_t op, uint32_t from, uint32_t to)
{
    return (struct packet){.src_cid = GUEST,
            .dst_cid = HOST,
            .src_port = from,
            .dst_port = to,
            .type = 1,
            .op = op,
            .buf_alloc = 65536};
}

/* The header and `bytes` times A, as one descriptor. False: the device did not take it. */
static bool send_packet(const struct packet *p, uint32_t header, uint32_t bytes)
{
    struct queue *q = &v->queue[TX];
    uint16_t slot = (uint16_t)(next_head++ % q->size), head;
    uint32_t len;

    memcpy(v->page.at, p, sizeof(*p));
    memset(v->page.at + header, 'A', bytes);
    q->desc[slot] = (struct desc){v->page.gpa, header + bytes, 0, 0};
    queue_offer(q, slot);
    kick(v, TX);
    return queue_take(v, TX, 500, &head, &len);
}

/* The next packet that comes, for `port` of the guest. */
static bool receive(uint32_t port, unsigned ms, struct packet *ret)
{
    uint16_t head;
    uint32_t len;

    for (uint64_t end = now_us() + ms * 1000ull; now_us() < end;) {
        if (!queue_take(v, RX, ms, &head, &len))
            return false;
        memcpy(ret, buffers[head % RX_BUFFERS].at, sizeof(*ret));
        offer_buffer(head % RX_BUFFERS);
        kick(v, RX);
        if (len >= sizeof(*ret) && ret->dst_port == port)
            return true;
    }
    return false;
}

static bool connected(uint32_t from, uint32_t to, struct packet *ret)
{
    struct packet p = packet(OP_REQUEST, from, to);

    return send_packet(&p, sizeof(p), 0) && receive(from, 5000, ret) && ret->op == OP_RESPONSE;
}

/* What became of a packet with source port `port` that must not be taken for good. */
static void judge(uint32_t port)
{
    struct packet answer;
    bool any = receive(port, 60, &answer);

    if (reg(v, R_STATUS) & S_NEEDS_RESET)
        did(BY_RESET);
    else if (any && answer.op == OP_RESPONSE)
        got("the host's port %u took the connection", answer.src_port);
    else
        did(any ? BY_REFUSAL : BY_SILENCE);
}

struct lie {
    const char *name;
    size_t offset, size; /* of the field */
    uint64_t values[6];
    uint16_t op;
};

#define FIELD(name) offsetof(struct packet, name), sizeof(((struct packet *)NULL)->name)

static const struct lie lies[] = {
        {"source cid", FIELD(src_cid), {0, 1, 2, 4, (1ull << 32) + 3, UINT64_MAX}, OP_REQUEST},
        {"destination cid", FIELD(dst_cid), {0, 1, 3, 4, (1ull << 32) + 2, UINT64_MAX}, OP_REQUEST},
        {"destination port", FIELD(dst_port), {0, 1, 1024, 1 << 16, 1 << 30, UINT32_MAX}, OP_REQUEST},
        {"type", FIELD(type), {0, 2, 3, 255, 256, 0xffff}, OP_REQUEST},
        {"operation", FIELD(op), {0, 8, 9, 255, 256, 0xffff}, OP_REQUEST},
        {"length of a request", FIELD(len), {1, 4096, 65536, 1 << 30, 1u << 31, UINT32_MAX}, OP_REQUEST},
        {"length of data without connection", FIELD(len), {0, 1, 65536, 1 << 30, 1u << 31, UINT32_MAX}, OP_RW},
        {"operation without connection", FIELD(op),
                {OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST}, OP_REQUEST},
};

static void forge(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(lies[i].values); k++) {
            uint32_t port = 5000 + (uint32_t)(i * 16 + k);
            struct packet p = packet(lies[i].op, port, READS_ALL);

            if (!try(GROUP, "forged %s: %llx", lies[i].name, (unsigned long long)lies[i].values[k]))
                continue;
            memcpy((uint8_t *)&p + lies[i].offset, &lies[i].values[k], lies[i].size);
            restart(true);
            /* A request whose length is a lie may be taken as one: it has no bytes, and none may be delivered. */
            send_packet(&p, sizeof(p), 0);
            if (lies[i].offset == offsetof(struct packet, len) && lies[i].op == OP_REQUEST) {
                struct packet answer;
                bool any = receive(port, 60, &answer);

                did(reg(v, R_STATUS) & S_NEEDS_RESET ? BY_RESET
                        : !any                       ? BY_SILENCE
                        : answer.op == OP_RESPONSE   ? BY_ANSWER
                                                     : BY_REFUSAL);
            } else {
                judge(port);
            }
        }
    }
}

static void short_headers(void)
{
    static const uint32_t sizes[] = {0, 1, 16, 28, 43};

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        uint32_t port = 5300 + (uint32_t)i;
        struct packet p = packet(OP_REQUEST, port, READS_ALL);

        if (!try(GROUP, "a header of %u bytes", sizes[i]))
            continue;
        restart(true);
        send_packet(&p, sizes[i], 0);
        judge(port);
    }
}

/* On a connection that stands: the host's program must never see a byte that was not sent. */
static void lengths(void)
{
    static const uint32_t claims[] = {17, 4096, 65536, 65537, 1u << 31, UINT32_MAX, 0xffffffd4};

    for (size_t i = 0; i < ARRAY_SIZE(claims); i++) {
        uint32_t port = 5400 + (uint32_t)i;
        struct packet p = packet(OP_RW, port, READS_ALL), answer;

        if (!try(GROUP, "16 bytes that claim to be %u", claims[i]))
            continue;
        restart(true);
        if (!connected(port, READS_ALL, &answer))
            fail("the host's port %u does not answer", READS_ALL);
        p.len = claims[i];
        send_packet(&p, sizeof(p), 16);
        judge(port);
    }
}

/* More than the host's credit allows, to a program that reads nothing. */
static void overdraw(void)
{
    struct packet p = packet(OP_RW, 5500, READS_NONE), answer;
    uint32_t sent = 0;

    if (!try(GROUP, "data beyond the credit"))
        return;
    restart(true);
    if (!connected(5500, READS_NONE, &answer))
        fail("the host's port %u does not answer", READS_NONE);
    p.len = 4000;
    while (sent < 16u << 20 && send_packet(&p, sizeof(p), p.len)) {
        sent += p.len;
        if (v->queue[RX].used[1] != v->queue[RX].used_seen && receive(5500, 1, &answer) && answer.op == OP_RST)
            break;
    }
    if (reg(v, R_STATUS) & S_NEEDS_RESET)
        did(BY_RESET);
    else if (answer.op == OP_RST)
        did(BY_REFUSAL);
    else if (sent >= 16u << 20)
        got("%u MiB taken for a reader that does not read", sent >> 20);
    else
        did(BY_LIMIT);
}

/* Credit that the guest does not have: for a host that sends, with few buffers and with none. */
static void credit_lies(void)
{
    static const struct {
        const char *name;
        uint32_t alloc, forward;
        bool buffers;
    } credits[] = {
            {"2^32-1 bytes, no buffers", UINT32_MAX, 0, false},
            {"2^32-1 bytes, buffers", UINT32_MAX, 0, true},
            {"more taken than was sent", 65536, 1u << 31, true},
            {"taken 2^32-1", 0, UINT32_MAX, true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(credits); i++) {
        uint32_t port = 5600 + (uint32_t)i;
        struct packet p = packet(OP_REQUEST, port, SENDS), answer;

        if (!try(GROUP, "credit: %s", credits[i].name))
            continue;
        restart(credits[i].buffers);
        p.buf_alloc = credits[i].alloc;
        send_packet(&p, sizeof(p), 0);
        p.op = OP_CREDIT_UPDATE;
        p.fwd_cnt = credits[i].forward;
        for (unsigned k = 0; k < 200; k++) {
            p.fwd_cnt += credits[i].forward ? k : 0;
            if (!send_packet(&p, sizeof(p), 0) || (credits[i].buffers && !receive(port, 20, &answer)))
                break;
        }
        did(reg(v, R_STATUS) & S_NEEDS_RESET ? BY_RESET : BY_LIMIT);
    }
}

static void fill_table(void)
{
    struct packet answer;
    unsigned opened = 0, refused = 0;

    if (!try(GROUP, "3000 connections"))
        return;
    restart(true);
    for (uint32_t port = 10000; port < 13000; port++) {
        struct packet p = packet(OP_REQUEST, port, READS_NONE);

        send_packet(&p, sizeof(p), 0);
        if (!receive(port, 2000, &answer))
            break;
        opened += answer.op == OP_RESPONSE;
        refused += answer.op == OP_RST;
    }
    if (opened > CONNS_MAX)
        got("%u connections", opened);
    else
        did(refused > 0 ? BY_LIMIT : BY_SILENCE);
}

static void noise(void)
{
    static const uint32_t ports[] = {0, 1, 1024, 1025, READS_ALL, READS_NONE, SENDS, 5700, UINT32_MAX};

    if (!try(GROUP, "noise"))
        return;
    restart(true);
    for (uint64_t end = now_us() + 3000000; now_us() < end;) {
        struct packet p = packet((uint16_t)(random32() % 10), ports[random32() % ARRAY_SIZE(ports)],
                ports[random32() % ARRAY_SIZE(ports)]);

        if (random32() % 8 == 0)
            ((uint8_t *)&p)[random32() % sizeof(p)] = (uint8_t)random32();
        p.len = random32() % 4 ? random32() % 2000 : random32();
        p.fwd_cnt = random32();
        p.buf_alloc = random32() % 2 ? random32() : 65536;
        if (!send_packet(&p, sizeof(p), p.len % 2048)) {
            restart(true);
        } else if (v->queue[RX].used[1] != v->queue[RX].used_seen && random32() % 4) {
            struct packet answer;

            receive(UINT32_MAX - 1, 0, &answer);
            for (uint16_t h; v->queue[RX].used[1] != v->queue[RX].used_seen;) {
                uint32_t len;

                queue_take(v, RX, 1, &h, &len);
                offer_buffer(h % RX_BUFFERS);
            }
            kick(v, RX);
        }
    }
    if (device_works(v))
        did(BY_REFUSAL);
    else
        got("does not work after a reset");
}

void attack_vsock(struct devices *all)
{
    v = devices_find(all, ID_VSOCK);
    if (!v)
        fail("no vsock device");
    for (unsigned i = 0; i < RX_BUFFERS; i++)
        buffers[i] = buffers[i].at ? buffers[i] : page_new();
    forge();
    short_headers();
    lengths();
    overdraw();
    credit_lies();
    fill_table();
    noise();
}
