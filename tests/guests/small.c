/* SPDX-License-Identifier: Apache-2.0 */
/* Entropy and balloon, well used (virtio 1.2 §5.4, §5.5). */
#include "lib/virtio.h"

CASE(rng)
{
    struct device d = device_find(ID_RNG, 0);
    uint8_t *a = allocate(4096, 4096), *b = allocate(4096, 4096);
    struct buffer pieces[] = {{a, 32, true}, {a + 32, 32, true}};
    unsigned ones = 0;

    device_start(&d, 0, 1, 64);
    CHECK_EQ(queue_do(&d.queues[0], &(struct buffer){a, 64, true}, 1), 64);
    CHECK_EQ(queue_do(&d.queues[0], &(struct buffer){b, 64, true}, 1), 64);
    CHECK(memcmp(a, b, 64) != 0);
    CHECK_EQ(queue_do(&d.queues[0], pieces, 2), 64);
    CHECK(memcmp(a, b, 64) != 0);
    CHECK(queue_do(&d.queues[0], &(struct buffer){a, 4096, true}, 1) > 0);
    for (unsigned i = 0; i < 64; i++) {
        for (unsigned bit = 0; bit < 8; bit++)
            ones += a[i] >> bit & 1;
    }
    CHECK(ones > 160 && ones < 352); /* of 512; chance misses this once in 10^16 */
}

/* More than the device gives in a second: it comes late, but it comes. */
CASE(rng_rate)
{
    struct device d = device_find(ID_RNG, 0);
    uint8_t *at = allocate(64 << 10, 4096);
    uint64_t got = 0;

    device_start(&d, 0, 1, 64);
    for (unsigned i = 0; i < 1000 && got < 3 << 20; i++)
        got += queue_do(&d.queues[0], &(struct buffer){at, 64 << 10, true}, 1);
    CHECK(got >= 3 << 20);
}

#define BALLOON_F_STATS 2ull /* bit 1 */
enum { B_NUM_PAGES = R_CONFIG, B_ACTUAL = R_CONFIG + 4 };

static void give(struct device *d, unsigned queue, uint64_t at, uint32_t pages)
{
    static uint32_t *numbers;

    if (!numbers)
        numbers = allocate(4096, 4096);
    for (; pages; pages -= pages < 256 ? pages : 256, at += 256 << 12) {
        uint32_t now = pages < 256 ? pages : 256;

        for (uint32_t i = 0; i < now; i++)
            numbers[i] = (uint32_t)(at >> 12) + i;
        queue_do(&d->queues[queue], &(struct buffer){numbers, 4 * now, false}, 1);
    }
}

/* mib= of memory filled, given to the host, seen as zeros when touched again, and taken back. */
CASE(balloon)
{
    struct device d = device_find(ID_BALLOON, 0);
    uint64_t start = 8ull << 20, bytes = argument("mib", 16) << 20;

    device_start(&d, 0, 2, 64);
    CHECK_EQ(reg(&d, B_NUM_PAGES), argument("target", 0) << 8);
    for (uint64_t at = start; at < start + bytes; at += 4096)
        mmio_write64(at, at);
    mmio_write64(start - 8, 0x1111);
    mmio_write64(start + bytes, 0x2222);
    sync_with_host("filled");
    give(&d, 0, start, (uint32_t)(bytes >> 12));
    set_reg(&d, B_ACTUAL, (uint32_t)(bytes >> 12));
    CHECK_EQ(reg(&d, B_ACTUAL), bytes >> 12);
    sync_with_host("inflated");
    for (uint64_t at = start; at < start + bytes; at += 4096)
        CHECK_EQ(mmio_read64(at), 0);
    CHECK_EQ(mmio_read64(start - 8), 0x1111);
    CHECK_EQ(mmio_read64(start + bytes), 0x2222);
    give(&d, 1, start, (uint32_t)(bytes >> 12));
    set_reg(&d, B_ACTUAL, 0);
    for (uint64_t at = start; at < start + bytes; at += 4096)
        mmio_write64(at, at);
    for (uint64_t at = start; at < start + bytes; at += 4096)
        CHECK_EQ(mmio_read64(at), at);
    sync_with_host("deflated");
}

/* The host changes the target: a configuration interrupt and the new number. */
CASE(balloon_target)
{
    struct device d = device_find(ID_BALLOON, 0);

    device_start(&d, 0, 2, 64);
    pin_enable(VIRTIO_PIN + d.slot);
    interrupts_on();
    sync_with_host("target");
    CHECK(WAIT_UNTIL(interrupts[PIN_VECTOR + VIRTIO_PIN + d.slot] > 0, 10));
    interrupts_off();
    CHECK(reg(&d, R_INTERRUPT_STATUS) & 2);
    set_reg(&d, R_INTERRUPT_ACK, 2);
    CHECK_EQ(reg(&d, B_NUM_PAGES), 5 << 8);
    set_reg(&d, B_ACTUAL, 5 << 8);
    sync_with_host("done");
}

/* Statistics go to the host when it asks, that is when it gives the buffer back. */
CASE(balloon_stats)
{
    struct {
        uint16_t tag;
        uint64_t value;
    } __attribute__((packed)) *stats = allocate(4096, 4096);
    struct device d = device_find(ID_BALLOON, 0);
    uint16_t head;
    uint32_t len;

    device_start(&d, BALLOON_F_STATS, 3, 64);
    for (uint64_t turn = 0; turn < 3; turn++) {
        for (uint16_t i = 0; i < 10; i++) {
            stats[i].tag = i;
            stats[i].value = 1000 * (turn + 1) + i;
        }
        stats[10].tag = 0xffff; /* one that nobody knows */
        queue_offer(&d.queues[2], queue_chain(&d.queues[2], &(struct buffer){stats, 11 * 10, false}, 1));
        queue_kick(&d.queues[2]);
        if (turn < 2)
            CHECK(queue_take(&d.queues[2], 20, &head, &len));
    }
    sync_with_host("stats");
}
