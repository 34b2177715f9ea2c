/* SPDX-License-Identifier: Apache-2.0 */
#include "block.h"
#include "hostile.h"
#include "vsock.h"

#define SIZE 64u /* of the queues here */

static bool offers_statistics(const struct device *d)
{
    set_reg(d, R_DEVICE_FEATURES_SEL, 0);
    return reg(d, R_DEVICE_FEATURES) & 2;
}

unsigned queues_of(const struct device *d)
{
    switch (d->id) {
    case ID_BALLOON:
        return offers_statistics(d) ? 3 : 2;
    case ID_VSOCK:
        return 3;
    default:
        return 1;
    }
}

void start_all(struct device *d, uint64_t features, bool checked)
{
    if (d->id == ID_BALLOON && offers_statistics(d))
        features |= 2;
    (checked ? device_start : device_set_up)(d, features, queues_of(d), SIZE);
}

static void block_works(struct device *d)
{
    static struct blk_request *request;
    static uint8_t *data;
    struct buffer b[3];

    if (!request) {
        request = allocate(sizeof(*request), 16);
        data = allocate(513, 512);
    }
    *request = (struct blk_request){.type = BLK_IN, .sector = 1};
    b[0] = (struct buffer){request, 16, false};
    b[1] = (struct buffer){data, 512, true};
    b[2] = (struct buffer){data + 512, 1, true};
    data[512] = 0xff;
    CHECK_EQ(queue_do(&d->queues[0], b, 3), 513);
    CHECK_EQ(data[512], 0);
}

/* A packet for a port where nobody listens is answered with a reset. */
static void vsock_works(struct device *d)
{
    static struct packet *out, *in;
    uint16_t head;
    uint32_t len;

    if (!out) {
        out = allocate(sizeof(*out), 64);
        in = allocate(4096, 64);
    }
    *out = (struct packet){.src_cid = GUEST_CID,
            .dst_cid = HOST_CID,
            .src_port = 77,
            .dst_port = 1,
            .type = 1,
            .op = OP_REQUEST,
            .buf_alloc = 4096};
    queue_offer(&d->queues[RX], queue_chain(&d->queues[RX], &(struct buffer){in, 4096, true}, 1));
    queue_kick(&d->queues[RX]);
    CHECK_EQ(queue_do(&d->queues[TX], &(struct buffer){out, sizeof(*out), false}, 1), 0);
    CHECK(queue_take(&d->queues[RX], 20, &head, &len));
    CHECK_EQ(in->op, OP_RST);
}

void must_work(struct device *d)
{
    static uint8_t *page;

    if (!page)
        page = allocate(4096, 4096);
    start_all(d, 0, true);
    switch (d->id) {
    case ID_BLOCK:
        block_works(d);
        break;
    case ID_RNG:
        CHECK(queue_do(&d->queues[0], &(struct buffer){page, 16, true}, 1) > 0);
        break;
    case ID_BALLOON:
        *(uint32_t *)page = 0x700; /* a page of RAM that nobody uses */
        queue_do(&d->queues[0], &(struct buffer){page, 4, false}, 1);
        break;
    case ID_VSOCK:
        vsock_works(d);
        break;
    default:
        FAIL("device %u?", (uint64_t)d->id);
    }
}

enum outcome settle(const struct queue *q, bool due)
{
    uint64_t end = rdtsc() + (due ? 10 * SECONDS : SECONDS / 50);

    while (rdtsc() < end) {
        if (reg(q->device, R_STATUS) & S_NEEDS_RESET)
            return MARKED;
        if (queue_used(q))
            return ANSWERED;
    }
    return NOTHING;
}
