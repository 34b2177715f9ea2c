/* SPDX-License-Identifier: Apache-2.0 */
/* The block device, well used (virtio 1.2 §5.2). */
#include "block.h"

CASE(block_features)
{
    struct disk *root = disk_open(0, 0), *second = disk_open(1, 0);

    CHECK(root->d.offered & BLK_F_RO);
    CHECK(!(second->d.offered & BLK_F_RO));
    CHECK(root->d.offered & F_VERSION_1);
    CHECK_EQ(root->sectors, argument("root", 0));
    CHECK_EQ(second->sectors, argument("second", 0));
}

/* Every sector of the root has its number in it. */
CASE(block_read)
{
    struct disk *root = disk_open(0, 0);
    uint8_t *data = allocate(64 << 10, 4096);

    for (uint64_t sector = 0; sector < root->sectors; sector += 128) {
        CHECK_EQ(disk_do(root, BLK_IN, sector, data, 64 << 10), 0);
        for (unsigned i = 0; i < 128; i++)
            CHECK_EQ(*(uint64_t *)(data + 512 * i), sector + i);
    }
    CHECK_EQ(disk_do(root, BLK_IN, root->sectors - 1, data, 512), 0);
    CHECK_EQ(*(uint64_t *)data, root->sectors - 1);
    CHECK_EQ(disk_do(root, BLK_IN, root->sectors, data, 512), 1);
    CHECK_EQ(disk_do(root, BLK_IN, root->sectors - 1, data, 1024), 1);
    CHECK_EQ(disk_do(root, BLK_IN, UINT64_MAX, data, 512), 1);
    CHECK_EQ(disk_do(root, BLK_IN, UINT64_MAX / 512, data, 512), 1);
    CHECK_EQ(disk_do(root, BLK_IN, 1ull << 55, data, 512), 1);
    CHECK_EQ(disk_do(root, BLK_IN, 1ull << 54, data, 512), 1);
}

/* The root takes no write of any kind; the test compares the file. */
CASE(block_read_only)
{
    struct disk *root = disk_open(0, 0);
    uint8_t *data = allocate(4096, 4096);

    memset(data, 0x55, 4096);
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(disk_do(root, BLK_OUT, i, data, 4096), 1);
    CHECK_EQ(disk_do(root, BLK_OUT, root->sectors - 1, data, 512), 1);
    CHECK(disk_discard(root, BLK_DISCARD, 0, 8, 0) != 0);
    CHECK(disk_discard(root, BLK_WRITE_ZEROES, 0, 8, 0) != 0);
    CHECK(disk_discard(root, BLK_WRITE_ZEROES, 0, 8, 1) != 0);
    CHECK_EQ(disk_do(root, BLK_IN, 0, data, 512), 0);
    CHECK_EQ(*(uint64_t *)data, 0);
    CHECK_EQ(*(uint64_t *)(data + 8), 0);
}

CASE(block_write)
{
    struct disk *disk = disk_open(1, BLK_F_FLUSH);
    uint8_t *out = allocate(64 << 10, 4096), *in = allocate(64 << 10, 4096);

    for (uint64_t sector = 0; sector + 128 <= disk->sectors; sector += 512) {
        pattern_fill(out, 64 << 10, sector << 20);
        CHECK_EQ(disk_do(disk, BLK_OUT, sector, out, 64 << 10), 0);
        memset(in, 0, 64 << 10);
        CHECK_EQ(disk_do(disk, BLK_IN, sector, in, 64 << 10), 0);
        CHECK(pattern_check(in, 64 << 10, sector << 20));
    }
    CHECK_EQ(disk_do(disk, BLK_FLUSH, 0, NULL, 0), 0);
    CHECK_EQ(disk_do(disk, BLK_OUT, disk->sectors, out, 512), 1);
    CHECK_EQ(disk_do(disk, BLK_OUT, disk->sectors - 1, out, 1024), 1);
    pattern_fill(out, 512, 0x1234);
    CHECK_EQ(disk_do(disk, BLK_OUT, disk->sectors - 1, out, 512), 0); /* the test looks for it in the file */
    CHECK_EQ(disk_do(disk, BLK_FLUSH, 0, NULL, 0), 0);
}

/* One request in many small pieces, in a table of its own too. */
CASE(block_pieces)
{
    struct disk *disk = disk_open(1, 0);
    struct buffer pieces[66];
    uint8_t *data = allocate(4096, 4096);

    pattern_fill(data, 4096, 77);
    disk->request->type = BLK_OUT;
    disk->request->sector = 3;
    pieces[0] = (struct buffer){disk->request, 16, false};
    for (unsigned i = 0; i < 64; i++)
        pieces[1 + i] = (struct buffer){data + 64 * i, 64, false};
    pieces[65] = (struct buffer){disk->status, 1, true};
    CHECK_EQ(queue_do(disk->q, pieces, 66), 1);
    CHECK_EQ(*disk->status, 0);

    memset(data, 0, 4096);
    disk->request->type = BLK_IN;
    for (unsigned i = 0; i < 64; i++)
        pieces[1 + i].write = true;
    *disk->status = 0xff;
    CHECK_EQ(queue_do(disk->q, pieces, 66), 4097);
    CHECK_EQ(*disk->status, 0);
    CHECK(pattern_check(data, 4096, 77));

    /* The status is the last byte of the last buffer, whatever else is in there. */
    pieces[1] = (struct buffer){data, 512 + 1, true};
    data[512] = 0xff;
    CHECK_EQ(queue_do(disk->q, pieces, 2), 513);
    CHECK_EQ(data[512], 0);

    struct device d = device_find(ID_BLOCK, 1);
    struct desc *table = allocate(4096, 16);

    device_start(&d, F_INDIRECT, 1, 64);
    table[0] = (struct desc){(uint64_t)disk->request, 16, D_NEXT, 1};
    table[1] = (struct desc){(uint64_t)data, 4096, D_NEXT | D_WRITE, 2};
    table[2] = (struct desc){(uint64_t)disk->status, 1, D_WRITE, 0};
    memset(data, 0, 4096);
    *disk->status = 0xff;
    d.queues[0].desc[0] = (struct desc){(uint64_t)table, 48, D_INDIRECT, 0};
    queue_offer(&d.queues[0], 0);
    queue_kick(&d.queues[0]);
    uint16_t head;
    uint32_t len;
    CHECK(queue_take(&d.queues[0], 20, &head, &len));
    CHECK_EQ(len, 4097);
    CHECK_EQ(*disk->status, 0);
    CHECK(pattern_check(data, 4096, 77));
}

CASE(block_id)
{
    struct disk *root = disk_open(0, 0), *second = disk_open(1, 0);
    char id[21] = "";

    CHECK_EQ(disk_do(root, BLK_GET_ID, 0, id, 20), 0);
    print("id root '%s'\n", id);
    memset(id, 0, sizeof(id));
    CHECK_EQ(disk_do(second, BLK_GET_ID, 0, id, 20), 0);
    print("id second '%s'\n", id);
}

/* Discarded and zeroed sectors read as zeros where the device offers it; the others stay. */
CASE(block_discard)
{
    struct disk *disk = disk_open(1, 0);
    uint64_t features = disk->d.offered & (BLK_F_DISCARD | BLK_F_WRITE_ZEROES);
    uint8_t *data = allocate(64 << 10, 4096);

    print("offered: discard %u, write zeroes %u\n", (uint64_t) !!(features & BLK_F_DISCARD),
            (uint64_t) !!(features & BLK_F_WRITE_ZEROES));
    disk = disk_open(1, features);
    for (unsigned kind = 0; kind < 2; kind++) {
        uint32_t type = kind ? BLK_WRITE_ZEROES : BLK_DISCARD;

        memset(data, 0xaa, 64 << 10);
        CHECK_EQ(disk_do(disk, BLK_OUT, 0, data, 64 << 10), 0);
        if (!(features & (kind ? BLK_F_WRITE_ZEROES : BLK_F_DISCARD))) {
            CHECK_EQ(disk_discard(disk, type, 8, 8, 0), 2);
            continue;
        }
        CHECK_EQ(disk_discard(disk, type, 8, 8, 0), 0);
        CHECK_EQ(disk_do(disk, BLK_IN, 0, data, 64 << 10), 0);
        CHECK_EQ(data[4095], 0xaa);
        CHECK_EQ(data[8192], 0xaa);
        if (kind || argument("zeros", 0)) {
            for (unsigned i = 4096; i < 8192; i += 8)
                CHECK_EQ(*(uint64_t *)(data + i), 0);
        }
        CHECK_EQ(disk_discard(disk, type, disk->sectors, 8, 0), 1);
        CHECK_EQ(disk_discard(disk, type, disk->sectors - 1, 8, 0), 1);
        CHECK_EQ(disk_discard(disk, type, UINT64_MAX, 8, 0), 1);
        CHECK_EQ(disk_discard(disk, type, UINT64_MAX - 7, 8, 0), 1);
        CHECK(disk_discard(disk, type, 0, 8, 0xfffffffe) != 0);
    }
}

CASE(block_unknown)
{
    struct disk *disk = disk_open(1, 0);
    uint8_t *data = allocate(4096, 4096);

    for (uint32_t type = 14; type < 40; type++)
        CHECK_EQ(disk_do(disk, type, 0, data, 512), 2);
    CHECK_EQ(disk_do(disk, 0xffffffff, 0, data, 512), 2);
    CHECK_EQ(disk_do(disk, BLK_IN, 0, data, 512), 0);
}

/* Many requests at once come back each with its own data. */
CASE(block_depth)
{
    struct device d = device_find(ID_BLOCK, 0);
    struct blk_request *requests = allocate(64 * 16, 16);
    uint8_t *data = allocate(64 * 4096, 4096), *status = allocate(64, 64);
    uint32_t len;
    uint16_t head;

    device_start(&d, 0, 1, 256);
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < 64; i++) {
            struct buffer b[] = {{&requests[i], 16, false}, {data + 4096 * i, 4096, true}, {&status[i], 1, true}};

            requests[i] = (struct blk_request){.type = BLK_IN, .sector = 8ull * ((i * 37 + round) % 64)};
            status[i] = 0xff;
            queue_offer(&d.queues[0], queue_chain(&d.queues[0], b, 3));
        }
        queue_kick(&d.queues[0]);
        for (unsigned i = 0; i < 64; i++)
            CHECK(queue_take(&d.queues[0], 20, &head, &len));
        for (unsigned i = 0; i < 64; i++) {
            CHECK_EQ(status[i], 0);
            CHECK_EQ(*(uint64_t *)(data + 4096 * i), requests[i].sector);
        }
    }
}

/* The answer raises the interrupt of the slot, and InterruptStatus says why until it is acknowledged. */
CASE(block_interrupt)
{
    struct disk *root = disk_open(0, 0);
    unsigned vector = PIN_VECTOR + VIRTIO_PIN + root->d.slot;
    uint8_t *data = allocate(4096, 4096);

    pin_enable(VIRTIO_PIN + root->d.slot);
    interrupts_on();
    for (unsigned i = 1; i <= 50; i++) {
        CHECK_EQ(disk_do(root, BLK_IN, i, data, 512), 0);
        CHECK(WAIT_UNTIL(interrupts[vector] >= i, 5));
        CHECK_EQ(reg(&root->d, R_INTERRUPT_STATUS), 1);
        set_reg(&root->d, R_INTERRUPT_ACK, 1);
        CHECK_EQ(reg(&root->d, R_INTERRUPT_STATUS), 0);
    }
    CHECK_EQ(interrupts[vector], 50);
    root->q->avail[0] = 1; /* the driver wants none */
    for (unsigned i = 0; i < 20; i++)
        CHECK_EQ(disk_do(root, BLK_IN, i, data, 512), 0);
    spin(SECONDS / 20);
    CHECK_EQ(interrupts[vector], 50);
    interrupts_off();
}

/* With event indices only the chain that is named interrupts. */
CASE(block_event_index)
{
    struct disk *root = disk_open(0, F_EVENT_IDX);
    unsigned vector = PIN_VECTOR + VIRTIO_PIN + root->d.slot;
    uint8_t *data = allocate(4096, 4096);

    pin_enable(VIRTIO_PIN + root->d.slot);
    interrupts_on();
    root->q->avail[2 + root->q->size] = 10; /* used_event: behind the tenth more */
    for (unsigned i = 0; i <= 10; i++) {
        CHECK_EQ(interrupts[vector], 0);
        CHECK_EQ(disk_do(root, BLK_IN, i, data, 512), 0);
    }
    CHECK(WAIT_UNTIL(interrupts[vector] == 1, 5));
    interrupts_off();
}

/* The drive gets another file while the guest runs: a configuration interrupt, and the new size. */
CASE(block_replaced)
{
    struct disk *disk = disk_open(1, 0);
    uint64_t before = disk->sectors;
    uint8_t *data = allocate(4096, 4096);

    CHECK_EQ(disk_do(disk, BLK_IN, 0, data, 512), 0);
    sync_with_host("replace");
    CHECK(WAIT_UNTIL(reg(&disk->d, R_INTERRUPT_STATUS) & 2, 10));
    disk->sectors = disk_sectors(&disk->d);
    CHECK_EQ(disk->sectors, before * 2);
    CHECK_EQ(disk_do(disk, BLK_IN, disk->sectors - 1, data, 512), 0);
    CHECK_EQ(*(uint64_t *)data, disk->sectors - 1);
}

/* A hundred drivers one after another; and without DRIVER_OK no work is done. */
CASE(block_life)
{
    struct disk *root = disk_open(0, 0);
    uint8_t *data = allocate(4096, 4096);
    struct buffer b[] = {{root->request, 16, false}, {data, 512, true}, {root->status, 1, true}};

    for (unsigned i = 0; i < 100; i++) {
        device_start(&root->d, 0, 1, 128);
        CHECK_EQ(disk_do(root, BLK_IN, i, data, 512), 0);
        CHECK_EQ(*(uint64_t *)data, i);
    }
    device_begin(&root->d, 0);
    queue_clear(root->q);
    queue_tell(root->q);
    queue_offer(root->q, queue_chain(root->q, b, 3));
    queue_kick(root->q);
    spin(SECONDS / 10);
    CHECK(!queue_used(root->q));
    device_go(&root->d);
    queue_kick(root->q);
    CHECK(WAIT_UNTIL(queue_used(root->q), 10));
}

/* One request again and again, with more of it always waiting: the device's thread has no pause until the VM ends. */
CASE(block_for_ever)
{
    struct disk *disk = disk_open(1, 0);
    struct buffer b[] = {
            {disk->request, 16, false}, {allocate(256 << 10, 4096), 256 << 10, true}, {disk->status, 1, true}};
    uint16_t head = queue_chain(disk->q, b, 3);

    for (unsigned i = 0; i < disk->q->size; i++)
        disk->q->avail[2 + i] = head;
    print("flooding\n");
    for (;;) {
        uint16_t ahead = (uint16_t)(disk->q->used[1] + disk->q->size / 2);

        if (disk->q->avail[1] == ahead)
            continue;
        disk->q->avail[1] = ahead;
        queue_kick(disk->q);
    }
}
