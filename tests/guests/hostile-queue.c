/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings, chains and addresses that no driver would make, on each queue of each
 * device. After each the device is marked, or has refused the request, or has
 * ignored it; and after a reset it works.
 */
#include "block.h"
#include "hostile.h"
#include "vsock.h"

#define SIZE 64u

static struct device devices[VIRTIO_SLOTS];
static unsigned device_count;
static struct desc *table; /* for indirect descriptors: 4096 entries */
static uint8_t *page;
static uint64_t outcomes[3];

static struct desc plain(uint16_t flags, uint16_t next)
{
    return (struct desc){(uint64_t)page, 512, flags, next};
}

/* Each spoils the queue, which is live and empty; the caller kicks. True: the device has to be marked. */
static bool loop_of_one(struct queue *q)
{
    q->desc[0] = plain(D_NEXT, 0);
    queue_offer(q, 0);
    return true;
}

static bool loop_of_two(struct queue *q)
{
    q->desc[0] = plain(D_NEXT | D_WRITE, 1);
    q->desc[1] = plain(D_NEXT | D_WRITE, 0);
    queue_offer(q, 0);
    return true;
}

static bool loop_of_all(struct queue *q)
{
    for (uint16_t i = 0; i < q->size; i++)
        q->desc[i] = plain(D_NEXT, (uint16_t)((i + 1) % q->size));
    queue_offer(q, 0);
    return true;
}

static bool next_outside(struct queue *q)
{
    q->desc[0] = plain(D_NEXT, q->size);
    queue_offer(q, 0);
    return true;
}

static bool next_far_outside(struct queue *q)
{
    q->desc[0] = plain(D_NEXT, 0xffff);
    queue_offer(q, 0);
    return true;
}

static bool head_outside(struct queue *q)
{
    q->desc[0] = plain(0, 0);
    queue_offer(q, q->size);
    return true;
}

static bool head_far_outside(struct queue *q)
{
    queue_offer(q, 0xffff);
    return true;
}

static bool jump(struct queue *q, int by)
{
    q->desc[0] = plain(D_WRITE, 0);
    q->avail[1] = (uint16_t)(q->avail[1] + by);
    return true;
}

static bool jump_by_size_and_one(struct queue *q)
{
    return jump(q, q->size + 1);
}

static bool jump_by_half(struct queue *q)
{
    return jump(q, 0x8000);
}

static bool jump_back(struct queue *q)
{
    return jump(q, -1);
}

static bool same_head_everywhere(struct queue *q)
{
    q->desc[0] = plain(0, 0);
    jump(q, q->size);
    return false;
}

static bool readable_after_writable(struct queue *q)
{
    q->desc[0] = plain(D_WRITE | D_NEXT, 1);
    q->desc[1] = plain(0, 0);
    queue_offer(q, 0);
    return true;
}

static bool four_gib(struct queue *q)
{
    for (uint16_t i = 0; i < 3; i++)
        q->desc[i] = (struct desc){0, 0x7fffffff, (uint16_t)(D_WRITE | (i < 2 ? D_NEXT : 0)), (uint16_t)(i + 1)};
    queue_offer(q, 0);
    return true;
}

static bool empty_buffers(struct queue *q)
{
    q->desc[0] = (struct desc){(uint64_t)page, 0, D_NEXT, 1};
    q->desc[1] = (struct desc){(uint64_t)page, 0, D_WRITE, 0};
    queue_offer(q, 0);
    return false;
}

static bool unknown_flags(struct queue *q)
{
    q->desc[0] = plain(0xfff8, 0);
    queue_offer(q, 0);
    return false;
}

/* The device writes its answer into the rings themselves. */
static bool ring_as_buffer(struct queue *q)
{
    q->desc[0] = (struct desc){(uint64_t)q->used, 512, D_WRITE | D_NEXT, 1};
    q->desc[1] = (struct desc){(uint64_t)q->avail, 128, D_WRITE | D_NEXT, 2};
    q->desc[2] = (struct desc){(uint64_t)q->desc, 512, D_WRITE, 0};
    queue_offer(q, 0);
    return false;
}

/* Without the feature an indirect descriptor is against the rules; with it, each of these is. */
static bool indirect(struct queue *q, uint64_t addr, uint32_t len, uint16_t flags)
{
    q->desc[0] = (struct desc){addr, len, (uint16_t)(D_INDIRECT | flags), 1};
    q->desc[1] = plain(0, 0);
    queue_offer(q, 0);
    return true;
}

static bool indirect_valid_or_not(struct queue *q)
{
    table[0] = plain(D_WRITE, 0);
    indirect(q, (uint64_t)table, 16, 0);
    return !(q->device->features & F_INDIRECT);
}

static bool indirect_nested(struct queue *q)
{
    table[0] = (struct desc){(uint64_t)table, 16, D_INDIRECT, 0};
    return indirect(q, (uint64_t)table, 16, 0);
}

static bool indirect_odd(struct queue *q)
{
    table[0] = plain(0, 0);
    return indirect(q, (uint64_t)table, 17, 0);
}

static bool indirect_empty(struct queue *q)
{
    return indirect(q, (uint64_t)table, 0, 0);
}

static bool indirect_huge(struct queue *q)
{
    return indirect(q, (uint64_t)table, 0xfffffff0, 0);
}

static bool indirect_over_limit(struct queue *q)
{
    for (unsigned i = 0; i < 1100; i++)
        table[i] = (struct desc){(uint64_t)page, 1, i < 1099 ? D_NEXT : 0, (uint16_t)(i + 1)};
    return indirect(q, (uint64_t)table, 1100 * 16, 0);
}

static bool indirect_loop(struct queue *q)
{
    table[0] = plain(D_NEXT, 1);
    table[1] = plain(D_NEXT, 0);
    return indirect(q, (uint64_t)table, 32, 0);
}

static bool indirect_next_outside(struct queue *q)
{
    table[0] = plain(D_NEXT, 2);
    return indirect(q, (uint64_t)table, 32, 0);
}

static bool indirect_and_next(struct queue *q)
{
    table[0] = plain(0, 0);
    return indirect(q, (uint64_t)table, 16, D_NEXT);
}

static bool indirect_beyond_memory(struct queue *q)
{
    return indirect(q, ram_low_end() - 8, 16, 0);
}

static bool indirect_at_the_top(struct queue *q)
{
    return indirect(q, UINT64_MAX - 15, 32, 0);
}

static const struct spoil {
    const char *name;
    bool (*make)(struct queue *q);
} spoils[] = {
        {"loop of one", loop_of_one},
        {"loop of two", loop_of_two},
        {"loop of all", loop_of_all},
        {"next outside", next_outside},
        {"next far outside", next_far_outside},
        {"head outside", head_outside},
        {"head far outside", head_far_outside},
        {"jump by size + 1", jump_by_size_and_one},
        {"jump by half", jump_by_half},
        {"jump back", jump_back},
        {"same head everywhere", same_head_everywhere},
        {"readable after writable", readable_after_writable},
        {"four GiB", four_gib},
        {"empty buffers", empty_buffers},
        {"unknown flags", unknown_flags},
        {"ring as buffer", ring_as_buffer},
        {"indirect", indirect_valid_or_not},
        {"indirect nested", indirect_nested},
        {"indirect odd", indirect_odd},
        {"indirect empty", indirect_empty},
        {"indirect huge", indirect_huge},
        {"indirect over the limit", indirect_over_limit},
        {"indirect loop", indirect_loop},
        {"indirect next outside", indirect_next_outside},
        {"indirect and next", indirect_and_next},
        {"indirect beyond memory", indirect_beyond_memory},
        {"indirect at the top", indirect_at_the_top},
};

static void prepare(void)
{
    device_count = devices_all(devices, VIRTIO_SLOTS);
    CHECK(device_count >= 4);
    table = allocate(4096 * sizeof(*table), 4096);
    page = allocate(4096, 4096);
}

/* A device looks into some queues only when it has something to say: the vsock device into the first, where an answer
 * to a request belongs, and never into the third. */
static bool is_served(const struct queue *q)
{
    return q->device->id != ID_VSOCK || q->index != EVENT;
}

static void have_it_served(struct queue *q)
{
    static struct packet request = {
            .src_cid = GUEST_CID, .dst_cid = HOST_CID, .src_port = 9, .dst_port = 9, .type = 1, .op = OP_REQUEST};
    struct queue *tx = &q->device->queues[TX];

    queue_kick(q);
    if (q->device->id != ID_VSOCK || q->index != RX)
        return;
    queue_offer(tx, queue_chain(tx, &(struct buffer){&request, sizeof(request), false}, 1));
    queue_kick(tx);
}

static void spoil_all(uint64_t features)
{
    for (unsigned n = 0; n < device_count; n++) {
        struct device *d = &devices[n];

        for (unsigned i = 0; i < queues_of(d); i++) {
            for (size_t s = 0; s < sizeof(spoils) / sizeof(*spoils); s++) {
                struct queue *q = &d->queues[i];
                enum outcome outcome;
                bool mark;

                start_all(d, features, true);
                mark = spoils[s].make(q);
                have_it_served(q);
                outcome = settle(q, mark && is_served(q));
                outcomes[outcome]++;
                if (mark && is_served(q) && outcome != MARKED)
                    FAIL("%s on queue %u of device %u: outcome %u, status 0x%x", spoils[s].name, (uint64_t)i,
                            (uint64_t)d->id, (uint64_t)outcome, (uint64_t)reg(d, R_STATUS));
            }
        }
        must_work(d);
    }
    print("nothing %u, answered %u, marked %u\n", outcomes[NOTHING], outcomes[ANSWERED], outcomes[MARKED]);
}

CASE(hostile_chains)
{
    prepare();
    spoil_all(0);
}

CASE(hostile_indirect)
{
    prepare();
    spoil_all(F_INDIRECT | F_EVENT_IDX);
}

static bool is_ram(uint64_t at, uint64_t len)
{
    for (unsigned i = 0; i < ram_count; i++) {
        if (at >= ram[i].start && at - ram[i].start < ram[i].size && len <= ram[i].size - (at - ram[i].start))
            return true;
    }
    /* The monitor's view has no hole at 640 KiB. */
    return at < ram_low_end() && len <= ram_low_end() - at;
}

/* Every edge of memory × lengths, as the one buffer of a request, on each device. */
CASE(hostile_addresses)
{
    prepare();
    const uint64_t end = ram_low_end();
    const uint64_t addresses[] = {0, 1, 0x4ff, end - 4096, end - 16, end - 1, end, end + 1, (3ull << 30) - 1,
            3ull << 30, 0xc0001000, 0xc0001050, 0xfec00000, 0xfee00000, (4ull << 30) - 1, 4ull << 30, 5ull << 30,
            1ull << 39, 1ull << 46, 1ull << 47, 1ull << 52, 1ull << 63, UINT64_MAX - 4095, UINT64_MAX - 15,
            UINT64_MAX - 1, UINT64_MAX};
    static const uint32_t lengths[] = {1, 2, 16, 17, 512, 4096, 65536, 0x7fffffff, 0x80000000, 0xfffff000, 0xffffffff};
    uint64_t tried = 0;

    for (unsigned n = 0; n < device_count; n++) {
        struct device *d = &devices[n];
        unsigned index = d->id == ID_VSOCK ? 1 : 0;
        struct queue *q;

        start_all(d, 0, true);
        q = &d->queues[index];
        for (size_t a = 0; a < sizeof(addresses) / sizeof(*addresses); a++) {
            for (size_t l = 0; l < sizeof(lengths) / sizeof(*lengths); l++) {
                bool fine = is_ram(addresses[a], lengths[l]);
                enum outcome outcome;

                /* What lies in RAM is the guest's own, and it would overwrite or give away itself. */
                if (fine && (d->id == ID_RNG || d->id == ID_BALLOON))
                    continue;
                q->desc[0] = (struct desc){addresses[a], lengths[l], d->id == ID_RNG ? D_WRITE : 0, 0};
                queue_offer(q, 0);
                queue_kick(q);
                outcome = settle(q, true);
                tried++;
                if (!fine && outcome != MARKED)
                    FAIL("device %u took 0x%x + 0x%x: outcome %u", (uint64_t)d->id, addresses[a], (uint64_t)lengths[l],
                            (uint64_t)outcome);
                if (fine && outcome == NOTHING)
                    FAIL("device %u does not answer to 0x%x + 0x%x", (uint64_t)d->id, addresses[a],
                            (uint64_t)lengths[l]);
                if (outcome == MARKED)
                    start_all(d, 0, true);
                else
                    q->used_seen = q->used[1];
            }
        }
        must_work(d);
    }
    print("tried %u\n", tried);
}

/* The same edges behind a good header: a request that is half right. */
CASE(hostile_block_buffers)
{
    struct disk *disk = disk_open(1, 0);
    const uint64_t end = ram_low_end();
    const uint64_t addresses[] = {end - 511, end - 1, end, 3ull << 30, 0xc0001000, 0xfee00000, (4ull << 30) - 512,
            4ull << 30, 1ull << 52, UINT64_MAX - 511, UINT64_MAX};
    uint8_t *data = allocate(4096, 4096);

    for (uint32_t type = 0; type < 16; type++) {
        for (size_t a = 0; a < sizeof(addresses) / sizeof(*addresses); a++) {
            for (unsigned which = 0; which < 3; which++) {
                struct buffer b[3] = {
                        {disk->request, 16, false}, {data, 512, type != BLK_OUT}, {disk->status, 1, true}};
                uint64_t at = addresses[a];

                if (which != 1 && is_ram(at, 1)) /* request and status are small enough for it */
                    at = end;
                b[which].at = (const volatile void *)at;
                *disk->request = (struct blk_request){.type = type};
                queue_offer(disk->q, queue_chain(disk->q, b, 3));
                queue_kick(disk->q);
                if (settle(disk->q, true) != MARKED)
                    FAIL("type %u, buffer %u at 0x%x", (uint64_t)type, (uint64_t)which, at);
                device_start(&disk->d, 0, 1, 128);
            }
        }
    }
    /* Buffers of RAM that make no request. */
    static const uint32_t odd[] = {0, 1, 15, 17, 511, 513, 4095};

    for (uint32_t type = 0; type < 16; type++) {
        for (size_t a = 0; a < sizeof(odd) / sizeof(*odd); a++) {
            for (unsigned which = 0; which < 3; which++) {
                struct buffer b[3] = {
                        {disk->request, 16, false}, {data, 512, type != BLK_OUT}, {disk->status, 1, true}};

                b[which].len = odd[a];
                if (which != 1)
                    b[which].at = data;
                *disk->request = (struct blk_request){.type = type};
                *disk->status = 0xff;
                memset(data, 0, 4096);
                queue_offer(disk->q, queue_chain(disk->q, b, 3));
                queue_kick(disk->q);
                if (settle(disk->q, true) == NOTHING)
                    FAIL("type %u, buffer %u of %u bytes: no answer", (uint64_t)type, (uint64_t)which,
                            (uint64_t)odd[a]);
                device_start(&disk->d, 0, 1, 128);
            }
        }
    }
    must_work(&disk->d);
}

/* Ring sizes and ring addresses: a queue that can't be is not served, and the device says so or ignores it. */
CASE(hostile_rings)
{
    prepare();
    static const uint32_t sizes[] = {0, 3, 63, 65, 1025, 2048, 32768, 65535, 65536, 0x80000000, 0xffffffff};
    const uint64_t end = ram_low_end();
    const uint64_t places[] = {end - 16, end - 1, end, 3ull << 30, 0xc0001000, 0xfee00000, 4ull << 30, 1ull << 52,
            UINT64_MAX - 15, UINT64_MAX - 4095, UINT64_MAX, 1, 3, 8};

    for (unsigned n = 0; n < device_count; n++) {
        struct device *d = &devices[n];

        for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
            device_begin(d, 0);
            queue_memory(d, 0, SIZE);
            set_reg(d, R_QUEUE_SEL, 0);
            CHECK(reg(d, R_QUEUE_NUM_MAX) > 0 && reg(d, R_QUEUE_NUM_MAX) <= 1024);
            queue_tell(&d->queues[0]);
            set_reg(d, R_QUEUE_READY, 0);
            set_reg(d, R_QUEUE_NUM, sizes[s]);
            set_reg(d, R_QUEUE_READY, 1);
            set_reg(d, R_STATUS, 15);
            queue_kick(&d->queues[0]);
        }
        for (size_t p = 0; p < sizeof(places) / sizeof(*places); p++) {
            for (unsigned which = 0; which < 3; which++) {
                device_begin(d, 0);
                set_reg(d, R_QUEUE_SEL, 0);
                set_reg(d, R_QUEUE_NUM, SIZE);
                set_reg64(d, R_QUEUE_DESC, which == 0 ? places[p] : (uint64_t)page);
                set_reg64(d, R_QUEUE_DRIVER, which == 1 ? places[p] : (uint64_t)page + 1024);
                set_reg64(d, R_QUEUE_DEVICE, which == 2 ? places[p] : (uint64_t)page + 2048);
                set_reg(d, R_QUEUE_READY, 1);
                set_reg(d, R_STATUS, 15);
                set_reg(d, R_QUEUE_NOTIFY, 0);
                if (places[p] > 16 && !(reg(d, R_STATUS) & S_NEEDS_RESET))
                    FAIL("device %u took ring part %u at 0x%x: status 0x%x", (uint64_t)d->id, (uint64_t)which,
                            places[p], (uint64_t)reg(d, R_STATUS));
            }
        }
        must_work(d);
    }
}

/* While it runs: other addresses, other sizes, not ready, ready again, and status bits taken back. */
CASE(hostile_reconfigured)
{
    prepare();
    for (unsigned n = 0; n < device_count; n++) {
        struct device *d = &devices[n];

        for (unsigned round = 0; round < 30; round++) {
            struct queue *q = &d->queues[0];

            start_all(d, 0, true);
            q->desc[0] = plain(D_WRITE, 0);
            for (unsigned i = 0; i < SIZE / 2; i++)
                queue_offer(q, 0);
            queue_kick(q);
            set_reg(d, R_QUEUE_SEL, round % 4);
            switch (round % 10) {
            case 0:
                set_reg64(d, R_QUEUE_DESC, UINT64_MAX);
                break;
            case 1:
                set_reg64(d, R_QUEUE_DEVICE, 3ull << 30);
                break;
            case 2:
                set_reg(d, R_QUEUE_NUM, 0);
                break;
            case 3:
                set_reg(d, R_QUEUE_READY, 0);
                break;
            case 4:
                set_reg(d, R_QUEUE_READY, 0);
                set_reg(d, R_QUEUE_NUM, 2);
                set_reg(d, R_QUEUE_READY, 1);
                break;
            case 5:
                set_reg(d, R_STATUS, S_ACKNOWLEDGE);
                break;
            case 6:
                set_reg(d, R_STATUS, 0xff);
                break;
            case 7:
                set_reg(d, R_DRIVER_FEATURES_SEL, 0);
                set_reg(d, R_DRIVER_FEATURES, 0xffffffff);
                set_reg(d, R_STATUS, 11);
                break;
            case 8:
                set_reg(d, R_STATUS, 0);
                set_reg(d, R_STATUS, 15);
                break;
            default:
                set_reg(d, R_QUEUE_READY, 1);
                queue_tell(q);
                break;
            }
            for (unsigned i = 0; i < 4; i++)
                set_reg(d, R_QUEUE_NOTIFY, i);
        }
        must_work(d);
    }
}

/* Features that were not offered; features after FEATURES_OK; no VERSION_1; DRIVER_OK at once. */
CASE(hostile_features)
{
    prepare();
    for (unsigned n = 0; n < device_count; n++) {
        struct device *d = &devices[n];

        for (unsigned bit = 0; bit < 64; bit++) {
            CHECK(device_reset(d));
            set_reg(d, R_STATUS, 1);
            set_reg(d, R_STATUS, 3);
            set_reg(d, R_DEVICE_FEATURES_SEL, bit / 32);
            bool offered = reg(d, R_DEVICE_FEATURES) >> bit % 32 & 1;

            set_reg(d, R_DRIVER_FEATURES_SEL, 1);
            set_reg(d, R_DRIVER_FEATURES, 1);
            set_reg(d, R_DRIVER_FEATURES_SEL, bit / 32);
            set_reg(d, R_DRIVER_FEATURES, 1u << bit % 32 | (bit >= 32 ? 1u : 0));
            set_reg(d, R_STATUS, 11);
            if (!offered && (reg(d, R_STATUS) & S_FEATURES_OK))
                FAIL("device %u took feature %u, which it does not offer", (uint64_t)d->id, (uint64_t)bit);
            if (offered && !(reg(d, R_STATUS) & S_FEATURES_OK))
                FAIL("device %u does not take feature %u, which it offers", (uint64_t)d->id, (uint64_t)bit);
        }
        for (unsigned sel = 2; sel < 70; sel++) {
            set_reg(d, R_DEVICE_FEATURES_SEL, sel);
            CHECK_EQ(reg(d, R_DEVICE_FEATURES), 0);
        }
        CHECK(device_reset(d));
        set_reg(d, R_STATUS, 15);
        for (unsigned i = 0; i < 4; i++)
            set_reg(d, R_QUEUE_NOTIFY, i);
        CHECK(device_reset(d));
        set_reg(d, R_STATUS, 3);
        set_reg(d, R_STATUS, 11);
        CHECK(!(reg(d, R_STATUS) & S_FEATURES_OK)); /* without VERSION_1 there is no deal */
        must_work(d);
    }
}

/* Notifications of all queues and of none that exists, in every width. */
CASE(hostile_notify)
{
    prepare();
    for (unsigned n = 0; n < device_count; n++) {
        struct device *d = &devices[n];

        must_work(d);
        for (unsigned i = 0; i < argument("times", 500); i++) {
            static const uint32_t indices[] = {0, 1, 2, 3, 4, 5, 6, 0xffff, 0x10000, 0x80000000, 0xffffffff};

            set_reg(d, R_QUEUE_NOTIFY, indices[i % 11]);
            mmio_write64(d->base + R_QUEUE_NOTIFY, indices[i % 11]);
            mmio_write16(d->base + R_QUEUE_NOTIFY, (uint16_t)indices[i % 11]);
            mmio_write8(d->base + R_QUEUE_NOTIFY, (uint8_t)indices[i % 11]);
        }
        must_work(d);
    }
}

/* A reset while the disk is busy: once the status reads 0, the device touches nothing of the guest's any more. */
CASE(hostile_reset)
{
    struct disk *disk = disk_open(1, 0);
    const uint32_t each = 1 << 20;
    uint8_t *data = allocate(each, 4096);
    struct buffer b[3] = {{disk->request, 16, false}, {data, each, true}, {disk->status, 1, true}};

    for (unsigned round = 0; round < argument("times", 100); round++) {
        bool write = round % 2;

        b[1].write = !write;
        *disk->request = (struct blk_request){.type = write ? BLK_OUT : BLK_IN};
        for (unsigned i = 0; i < 32; i++)
            queue_offer(disk->q, queue_chain(disk->q, b, 3));
        queue_kick(disk->q);
        spin(round * 2000);
        CHECK(device_reset(&disk->d));
        mmio_write64((uint64_t)data, ~0ull);
        mmio_write64((uint64_t)data + each - 8, ~0ull);
        *disk->status = 0x77;
        uint16_t used = disk->q->used[1];

        spin(SECONDS / 500);
        CHECK_EQ(mmio_read64((uint64_t)data), ~0ull);
        CHECK_EQ(mmio_read64((uint64_t)data + each - 8), ~0ull);
        CHECK_EQ(*disk->status, 0x77);
        CHECK_EQ(disk->q->used[1], used);
        device_start(&disk->d, 0, 1, 128);
    }
    must_work(&disk->d);
}

/* Another processor changes descriptors and rings all the while. */
static struct queue *flipped;
static volatile bool stop_flipping;

static void flip(unsigned number)
{
    /* None in RAM but the page: the device would write over the guest. */
    static const uint64_t addresses[] = {1ull << 40, 0xc0001000, 3ull << 30, UINT64_MAX, 0xfee00000};
    uint64_t random = 88172645463325252ull + number;

    while (!stop_flipping) {
        struct queue *q = flipped;
        volatile struct desc *desc;

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        desc = &q->desc[random % 8];
        switch (random >> 8 & 7) {
        case 0:
            desc->addr = addresses[(random >> 16) % 5];
            break;
        case 1:
            desc->addr = (uint64_t)page;
            break;
        case 2:
            desc->len = (uint32_t)(random >> 32);
            break;
        case 3:
            desc->len = 16;
            break;
        case 4:
            desc->flags = (uint16_t)(random >> 16 & 7);
            break;
        case 5:
            desc->next = (uint16_t)(random >> 16 & 15);
            break;
        case 6:
            q->avail[2 + (random >> 16) % q->size] = (uint16_t)(random >> 32 & 15);
            break;
        default:
            if ((random >> 16 & 31) == 0)
                q->avail[1] = (uint16_t)(random >> 32);
            break;
        }
    }
}

CASE(hostile_flip)
{
    uint64_t marked = 0;

    prepare();
    table[0] = plain(D_WRITE, 0);
    for (unsigned n = 0; n < device_count; n++) {
        struct device *d = &devices[n];
        unsigned index = d->id == ID_VSOCK ? 1 : 0;

        if (d->id == ID_BALLOON) /* it would give away the guest's own pages */
            continue;
        start_all(d, F_INDIRECT, false);
        flipped = &d->queues[index];
        if (n == 0)
            CHECK_EQ(processors_start(1, flip), 1);
        for (unsigned i = 0; i < argument("times", 200); i++) {
            struct queue *q = &d->queues[index];

            for (uint16_t k = 0; k < 8; k++)
                q->desc[k] = (struct desc){(uint64_t)page, 64, D_WRITE | D_NEXT, (uint16_t)(k + 1)};
            for (unsigned k = 0; k < 8; k++)
                queue_offer(q, (uint16_t)(i % 8));
            queue_kick(q);
            spin(SECONDS / 10000);
            if (reg(d, R_STATUS) & S_NEEDS_RESET) {
                marked++;
                start_all(d, F_INDIRECT, false);
            }
        }
    }
    stop_flipping = true;
    CHECK(WAIT_UNTIL(processors_done == 1, 10));
    for (unsigned n = 0; n < device_count; n++)
        must_work(&devices[n]);
    print("marked %u times\n", marked);
}

/* Page numbers that are none, lists that are no lists, and statistics that are none. */
CASE(hostile_balloon)
{
    struct device d = device_find(ID_BALLOON, 0);
    const uint32_t end = (uint32_t)(ram_low_end() >> 12);
    const uint32_t pages[] = {
            end, end + 1, 0xbffff, 0xc0000, 0xc0001, 0xfee00, 0xfffff, 0x100000, 0x7fffffff, 0xffffffff};
    uint32_t *numbers = allocate(1 << 20, 4096);

    for (unsigned q = 0; q < 2; q++) {
        start_all(&d, 0, true);
        for (size_t i = 0; i < sizeof(pages) / sizeof(*pages); i++) {
            for (unsigned n = 0; n < 1024; n++)
                numbers[n] = n % 3 ? pages[i] : 0x700;
            queue_offer(&d.queues[q], queue_chain(&d.queues[q], &(struct buffer){numbers, 4096, false}, 1));
            queue_kick(&d.queues[q]);
            if (settle(&d.queues[q], true) == MARKED)
                start_all(&d, 0, true);
            else
                d.queues[q].used_seen = d.queues[q].used[1];
        }
        for (unsigned n = 0; n < 1 << 18; n++)
            numbers[n] = 0x700 + (n & 3);
        for (uint32_t len = 1 << 20; len; len = len / 2 - (len > 64)) { /* a megabyte of numbers, and odd lengths */
            queue_offer(&d.queues[q], queue_chain(&d.queues[q], &(struct buffer){numbers, len, len % 7 == 0}, 1));
            queue_kick(&d.queues[q]);
            if (settle(&d.queues[q], true) == MARKED)
                start_all(&d, 0, true);
            else
                d.queues[q].used_seen = d.queues[q].used[1];
        }
    }
    if (queues_of(&d) == 3) {
        for (uint32_t len = 0; len < 300; len += 7) {
            start_all(&d, 0, true);
            memset(numbers, (int)(len % 5 * 51), 4096);
            queue_offer(&d.queues[2], queue_chain(&d.queues[2], &(struct buffer){numbers, len, len % 2 == 1}, 1));
            queue_offer(&d.queues[2], queue_chain(&d.queues[2], &(struct buffer){numbers, len, false}, 1));
            queue_kick(&d.queues[2]);
            settle(&d.queues[2], false);
        }
        print("with statistics\n");
    }
    must_work(&d);
}

/* Buffers for entropy of many MiB: the rest of the machine goes on meanwhile. */
CASE(hostile_rng)
{
    struct device d = device_find(ID_RNG, 0), disk = device_find(ID_BLOCK, 0);
    uint64_t start = 16ull << 20;
    uint16_t head;
    uint32_t len;

    start_all(&d, 0, true);
    for (unsigned i = 0; i < 64; i++)
        queue_offer(&d.queues[0],
                queue_chain(&d.queues[0], &(struct buffer){(void *)start, (uint32_t)(ram_low_end() - start), true}, 1));
    queue_kick(&d.queues[0]);
    must_work(&disk);
    CHECK(queue_take(&d.queues[0], 20, &head, &len));
    CHECK(len > 0);
    must_work(&d);
}
