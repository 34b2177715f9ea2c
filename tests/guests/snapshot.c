/* SPDX-License-Identifier: Apache-2.0 */
/* Guests that are saved at any moment, and look whether they go on as if nothing had been. */
#include "block.h"
#include "vsock.h"

#define TIMER_VECTOR 0x70u
#define TIMER_COUNT  1000000u
#define PATTERN      (256u << 10)

static volatile uint64_t counters[8];

static void count_for_ever(unsigned number)
{
    for (;;)
        counters[number]++;
}

/* Divided by 16, periodic: as fast as it comes here. */
static void timer_start(void)
{
    mmio_write32(APIC + 0x3e0, 3);
    mmio_write32(APIC + 0x320, 0x20000 | TIMER_VECTOR);
    mmio_write32(APIC + 0x380, TIMER_COUNT);
}

/* One round of everything that has a state: memory, disk with its interrupt, timer, TSC, other processors. */
static void check_round(struct disk *disk, uint8_t *pattern, uint64_t round, unsigned others)
{
    unsigned vector = PIN_VECTOR + VIRTIO_PIN + disk->d.slot;
    uint32_t ticks = interrupts[TIMER_VECTOR], disks = interrupts[vector];
    static uint8_t *data;
    static uint64_t last;
    uint64_t before[8], now = rdtsc();

    if (!data)
        data = allocate(4096, 4096);
    if (now < last)
        FAIL("the TSC went back from %u to %u", last, now);
    last = now;
    for (unsigned i = 0; i < others; i++)
        before[i] = counters[i + 1];
    disk->q->avail[2 + disk->q->size] = disk->q->used_seen; /* used_event, if that was negotiated */
    CHECK_EQ(disk_do(disk, BLK_IN, round % disk->sectors, data, 512), 0);
    CHECK_EQ(*(uint64_t *)(void *)data, round % disk->sectors);
    CHECK(WAIT_UNTIL(interrupts[vector] > disks, 20));
    set_reg(&disk->d, R_INTERRUPT_ACK, 1);
    CHECK(WAIT_UNTIL(interrupts[TIMER_VECTOR] > ticks, 20));
    for (unsigned i = 0; i < others; i++)
        CHECK(WAIT_UNTIL(counters[i + 1] > before[i], 20));
    CHECK(pattern_check(pattern + round % 64 * (PATTERN / 64), PATTERN / 64, round % 64 + 1));
}

/* cpus=: until the host types something, after which the whole pattern must still be there. */
CASE(snapshot_rounds)
{
    unsigned others = (unsigned)argument("cpus", 1) - 1;
    struct disk *disk = disk_open(0, F_EVENT_IDX * argument("event_idx", 0));
    uint8_t *pattern = allocate(PATTERN, 4096);

    for (unsigned i = 0; i < 64; i++)
        pattern_fill(pattern + i * (PATTERN / 64), PATTERN / 64, i + 1);
    if (others > 0)
        CHECK_EQ(processors_start(others, count_for_ever), others);
    pin_enable(VIRTIO_PIN + disk->d.slot);
    timer_start();
    interrupts_on();
    out8(SERIAL + 7, 0xa5);
    print("going\n");
    for (uint64_t round = 0; !(in8(SERIAL + 5) & 1); round++) {
        check_round(disk, pattern, round, others);
        if (round % 4 == 0)
            print("round %u\n", round);
    }
    interrupts_off();
    CHECK_EQ(in8(SERIAL + 7), 0xa5);
    for (unsigned i = 0; i < 64; i++)
        CHECK(pattern_check(pattern + i * (PATTERN / 64), PATTERN / 64, i + 1));
}

#define EVENT_BYTES 8u

/* A buffer for the device's events, or an event, 0 being TRANSPORT_RESET; -1: none in that time. */
static int take_event(struct queue *q, uint32_t *event, unsigned seconds)
{
    uint16_t head;
    uint32_t len;

    if (!queue_take(q, seconds, &head, &len))
        return -1;
    CHECK_EQ(len, 4);
    return (int)*event;
}

/* A host is connected when the VM is saved. Where it was loaded the stream is gone and said to be, and a new one comes.
 */
CASE(snapshot_vsock)
{
    struct vsock *v = vsock_open();
    struct queue *q = &v->d.queues[EVENT];
    uint32_t *event = allocate(EVENT_BYTES, 16);
    const uint8_t *payload;
    struct packet p;
    struct stream s;

    *event = 0xffffffff;
    queue_offer(q, queue_chain(q, &(struct buffer){event, EVENT_BYTES, true}, 1));
    queue_kick(q);
    print("SYNC listening\n");
    stream_accept(v, &s, 5000);
    CHECK(stream_receive(v, &s, 20, &p, &payload));
    CHECK_EQ(p.op, OP_RW);
    print("SYNC connected\n");
    CHECK_EQ(take_event(q, event, 30), 0);
    print("reset\n");
    stream_accept(v, &s, 5000);
    while (!stream_receive(v, &s, 20, &p, &payload) || p.op != OP_RW)
        CHECK(!s.reset);
    CHECK_EQ(p.len, 3);
    stream_send(v, &s, OP_RW, 0, payload, p.len);
    while (!s.reset && !s.host_sends_no_more)
        CHECK(stream_receive(v, &s, 20, &p, &payload));
}

/* Everything that the keyboard controller and the balloon's driver left behind. */
CASE(snapshot_small)
{
    struct device balloon = device_find(ID_BALLOON, 0);

    device_start(&balloon, 0, 2, 64);
    set_reg(&balloon, R_CONFIG + 4, 77); /* actual */
    out8(0x64, 0x60);
    out8(0x60, 0x45); /* the command byte */
    out8(0x64, 0x20); /* asked for, and not read yet */
    out8(SERIAL + 3, 0x83);
    out8(SERIAL, 0x12); /* divisor */
    out8(SERIAL + 3, 0x03);
    print("SYNC save\n");
    CHECK(WAIT_UNTIL(in8(SERIAL + 5) & 1, 30));
    CHECK_EQ(reg(&balloon, R_CONFIG + 4), 77);
    CHECK_EQ(reg(&balloon, R_STATUS), S_ACKNOWLEDGE | S_DRIVER | S_DRIVER_OK | S_FEATURES_OK);
    CHECK_EQ(in8(0x64) & 1, 1);
    CHECK_EQ(in8(0x60), 0x45);
    CHECK_EQ(in8(SERIAL), 'g');
    out8(SERIAL + 3, 0x83);
    CHECK_EQ(in8(SERIAL), 0x12);
    out8(SERIAL + 3, 0x03);
}

/* Writes one page of its own after the other, each with its number, for diffs. */
CASE(snapshot_pages)
{
    uint8_t *at = allocate(1 << 20, 4096);

    for (unsigned i = 0; i < 256; i++)
        mmio_write64((uint64_t)(uintptr_t)at + i * 4096, i + 1);
    sync_with_host("full");
    mmio_write64((uint64_t)(uintptr_t)at + 5 * 4096, 0x5555);
    mmio_write64((uint64_t)(uintptr_t)at + 200 * 4096, 0);
    sync_with_host("diff");
    for (unsigned i = 0; i < 256; i++)
        CHECK_EQ(mmio_read64((uint64_t)(uintptr_t)at + i * 4096), i == 5 ? 0x5555 : i == 200 ? 0 : i + 1);
}
