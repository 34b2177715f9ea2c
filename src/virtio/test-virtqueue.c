/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/test-ring.h"
#include "virtio/virtqueue.h"

#define RAM_SIZE 0x40000u /* two regions of half that, adjacent for the guest and for the host */
#define HALF     (RAM_SIZE / 2)
#define SIZE     8
#define DATA     0x10000u
#define TABLE    0x8000u /* where tests put indirect tables */

static uint8_t ram[RAM_SIZE] __attribute__((aligned(4096)));
static struct gmem mem;
static struct test_ring ring;
static struct virtqueue vq;
static struct vq_chain chain;

static void start_at(bool indirect, bool event_idx, uint16_t index)
{
    struct vq_config config;

    memset(ram, 0, sizeof(ram));
    mem = (struct gmem){0};
    assert_int_equal(gmem_add(&mem, (struct gpa){0}, HALF, ram), 0);
    assert_int_equal(gmem_add(&mem, (struct gpa){HALF}, HALF, ram + HALF), 0);
    ring = ring_at(ram, 0x1000, SIZE);
    ring_set_avail_idx(&ring, index);
    ring.used_seen = index;
    gmem_store16(ram + ring.used + 2, index);
    config = ring_config(&ring, indirect, event_idx);
    assert_int_equal(vq_start(&vq, &mem, &config), 0);
}

static void start(void)
{
    start_at(true, true, 0);
}

static void expect_fault(enum vq_fault fault)
{
    uint16_t used = ring_used_idx(&ring);

    assert_int_equal(vq_pop(&vq, &chain), VQ_BROKEN);
    assert_int_equal(vq.fault, fault);
    assert_int_equal(vq_pop(&vq, &chain), VQ_BROKEN);
    vq_push(&vq, 0, 0);
    assert_int_equal(ring_used_idx(&ring), used);
    assert_false(vq_should_signal(&vq));
    assert_false(vq_enable_kicks(&vq));
}

static void test_start_checks_layout(void **state)
{
    struct vq_config good, bad;

    start();
    good = ring_config(&ring, true, true);
    bad = good;
    bad.size = 0;
    assert_int_equal(vq_start(&vq, &mem, &bad), -EINVAL);
    bad.size = 6;
    assert_int_equal(vq_start(&vq, &mem, &bad), -EINVAL);
    bad.size = 2 * VQ_MAX_SIZE;
    assert_int_equal(vq_start(&vq, &mem, &bad), -EINVAL);
    bad = good;
    bad.desc.v += 8;
    assert_int_equal(vq_start(&vq, &mem, &bad), -EFAULT);
    bad = good;
    bad.avail.v += 1;
    assert_int_equal(vq_start(&vq, &mem, &bad), -EFAULT);
    bad = good;
    bad.used.v += 2;
    assert_int_equal(vq_start(&vq, &mem, &bad), -EFAULT);
    bad = good;
    bad.desc.v = RAM_SIZE - 16 * SIZE + 16;
    assert_int_equal(vq_start(&vq, &mem, &bad), -EFAULT);
    bad.desc.v = HALF - 16; /* crosses the regions */
    assert_int_equal(vq_start(&vq, &mem, &bad), -EFAULT);
    bad.desc.v = UINT64_MAX - 15;
    assert_int_equal(vq_start(&vq, &mem, &bad), -EFAULT);
    assert_false(vq.started);
    assert_int_equal(vq_pop(&vq, &chain), VQ_EMPTY);
    /* The last byte of a ring may be the last byte of memory. */
    bad = good;
    bad.used.v = RAM_SIZE - (4 + 8 * SIZE + 4);
    assert_int_equal(vq_start(&vq, &mem, &bad), 0);
    bad.used.v += 4;
    assert_int_equal(vq_start(&vq, &mem, &bad), -EFAULT);
}

static void test_chain_of_both_kinds(void **state)
{
    uint32_t head, len;

    start();
    assert_int_equal(vq_pop(&vq, &chain), VQ_EMPTY);
    ring_desc(&ring, 3, DATA, 44, RING_NEXT, 5);
    ring_desc(&ring, 5, DATA + 100, 10, RING_NEXT, 1);
    ring_desc(&ring, 1, HALF - 4, 12, RING_WRITE | RING_NEXT, 0); /* two views: it crosses the regions */
    ring_desc(&ring, 0, DATA, 0, RING_WRITE, 7);                  /* empty: no view; next is ignored */
    ring_offer(&ring, 3);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    assert_int_equal(chain.head, 3);
    assert_int_equal(chain.readable_count, 2);
    assert_int_equal(chain.readable_bytes, 54);
    assert_ptr_equal(chain.readable[1].iov_base, ram + DATA + 100);
    assert_int_equal(chain.writable_count, 2);
    assert_int_equal(chain.writable_bytes, 12);
    assert_int_equal(chain.writable[0].iov_len, 4);
    assert_ptr_equal(chain.writable[1].iov_base, ram + HALF);
    vq_push(&vq, chain.head, 12);
    assert_true(ring_take_used(&ring, &head, &len));
    assert_int_equal(head, 3);
    assert_int_equal(len, 12);
    assert_false(ring_take_used(&ring, &head, &len));
    assert_int_equal(vq_pop(&vq, &chain), VQ_EMPTY);
}

static void test_descriptor_is_copied_once(void **state)
{
    start();
    ring_desc(&ring, 0, DATA, 16, 0, 0);
    ring_offer(&ring, 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    ring_desc(&ring, 0, RAM_SIZE, UINT32_MAX, RING_WRITE, 0); /* too late for the guest */
    assert_int_equal(chain.readable_bytes, 16);
    assert_ptr_equal(chain.readable[0].iov_base, ram + DATA);
    vq_unpop(&vq);
    expect_fault(VQ_FAULT_ADDRESS);
}

static void test_unpop(void **state)
{
    start();
    ring_desc(&ring, 2, DATA, 16, RING_WRITE, 0);
    ring_offer(&ring, 2);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
        assert_int_equal(chain.head, 2);
        assert_int_equal(vq_pop(&vq, &chain), VQ_EMPTY);
        vq_unpop(&vq);
    }
}

static void test_loops_end(void **state)
{
    start();
    ring_desc(&ring, 0, DATA, 1, RING_NEXT, 0);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_CHAIN_LENGTH);

    start();
    ring_desc(&ring, 0, DATA, 1, RING_NEXT, 1);
    ring_desc(&ring, 1, DATA, 1, RING_NEXT, 0);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_CHAIN_LENGTH);

    start();
    put_desc(ram + TABLE, DATA, 1, RING_NEXT, 1);
    put_desc(ram + TABLE + 16, DATA, 1, RING_NEXT, 0);
    ring_desc(&ring, 0, TABLE, 32, RING_INDIRECT, 0);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_CHAIN_LENGTH);
}

static void test_longest_chains(void **state)
{
    start();
    for (uint16_t i = 0; i < SIZE; i++)
        ring_desc(&ring, i, DATA, 1, i + 1 < SIZE ? RING_NEXT : 0, (uint16_t)(i + 1));
    ring_offer(&ring, 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    assert_int_equal(chain.readable_bytes, SIZE);

    start();
    for (uint16_t i = 0; i < VQ_MAX_CHAIN; i++)
        put_desc(ram + TABLE + 16u * i, DATA, 1, i + 1 < (int)VQ_MAX_CHAIN ? RING_NEXT : 0, (uint16_t)(i + 1));
    ring_desc(&ring, 0, TABLE, 16 * VQ_MAX_CHAIN, RING_INDIRECT, 0);
    ring_offer(&ring, 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    assert_int_equal(chain.readable_count, VQ_MAX_CHAIN);

    /* As many descriptors, but one of them needs two views. */
    put_desc(ram + TABLE, HALF - 1, 2, RING_NEXT, 1);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_CHAIN_LENGTH);

    start();
    ring_desc(&ring, 0, TABLE, 16 * (VQ_MAX_CHAIN + 1), RING_INDIRECT, 0);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_INDIRECT);
}

static void test_addresses(void **state)
{
    static const struct {
        uint64_t addr;
        uint32_t len;
        bool good;
    } cases[] = {
            {0, 1, true},
            {RAM_SIZE - 1, 1, true},
            {0, RAM_SIZE, true},
            {RAM_SIZE - 1, 2, false},
            {RAM_SIZE, 1, false},
            {1, RAM_SIZE, false},
            {0, UINT32_MAX, false},
            {UINT64_MAX, 1, false},
            {UINT64_MAX, 2, false},
            {UINT64_MAX - 0xfff, 0x2000, false},
            {UINT64_MAX - UINT32_MAX + 1, UINT32_MAX, false},
            {1ull << 63, 16, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        start();
        ring_desc(&ring, 0, cases[i].addr, cases[i].len, RING_WRITE, 0);
        ring_offer(&ring, 0);
        if (cases[i].good)
            assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
        else
            expect_fault(VQ_FAULT_ADDRESS);
    }
}

static void test_total_length_is_bounded(void **state)
{
    struct test_ring small;
    struct vq_config config;
    static uint8_t dummy[1];
    struct gmem big = {0};

    /* 4 GiB of guest memory that nobody touches: views only. */
    start();
    small = ring;
    assert_int_equal(gmem_add(&big, (struct gpa){0}, RAM_SIZE, ram), 0);
    assert_int_equal(gmem_add(&big, (struct gpa){1ull << 40}, 1ull << 33, dummy), 0);
    config = ring_config(&small, true, true);
    assert_int_equal(vq_start(&vq, &big, &config), 0);
    ring_desc(&ring, 0, 1ull << 40, 1u << 31, RING_NEXT, 1);
    ring_desc(&ring, 1, 1ull << 40, 1u << 31, 0, 0);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_BYTES);
}

static void test_indices_out_of_table(void **state)
{
    start();
    ring_offer(&ring, SIZE);
    expect_fault(VQ_FAULT_HEAD);

    start();
    ring_offer(&ring, 0xffff);
    expect_fault(VQ_FAULT_HEAD);

    start();
    ring_desc(&ring, 0, DATA, 1, RING_NEXT, SIZE);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_NEXT);

    start();
    put_desc(ram + TABLE, DATA, 1, RING_NEXT, 1);
    ring_desc(&ring, 0, TABLE, 16, RING_INDIRECT, 0);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_NEXT);
}

static void test_order(void **state)
{
    start();
    ring_desc(&ring, 0, DATA, 1, RING_WRITE | RING_NEXT, 1);
    ring_desc(&ring, 1, DATA, 1, 0, 0);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_ORDER);
}

static void test_indirect(void **state)
{
    /* A chain of direct descriptors may end in a table; WRITE means nothing on the table's descriptor. */
    start();
    ring_desc(&ring, 0, DATA, 5, RING_NEXT, 4);
    ring_desc(&ring, 4, TABLE + 8, 48, RING_INDIRECT | RING_WRITE, 0);
    put_desc(ram + TABLE + 8, DATA, 7, RING_NEXT, 2);
    put_desc(ram + TABLE + 8 + 32, DATA, 9, RING_WRITE, 0);
    ring_offer(&ring, 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    assert_int_equal(chain.readable_bytes, 12);
    assert_int_equal(chain.writable_bytes, 9);
    assert_int_equal(chain.head, 0);
}

static void test_indirect_refusals(void **state)
{
    static const struct {
        uint64_t addr;
        uint32_t len;
        unsigned flags;
        enum vq_fault fault;
    } cases[] = {
            {TABLE, 0, RING_INDIRECT, VQ_FAULT_INDIRECT},
            {TABLE, 15, RING_INDIRECT, VQ_FAULT_INDIRECT},
            {TABLE, 17, RING_INDIRECT, VQ_FAULT_INDIRECT},
            {TABLE, UINT32_MAX - 15, RING_INDIRECT, VQ_FAULT_INDIRECT},
            {TABLE, 16, RING_INDIRECT | RING_NEXT, VQ_FAULT_INDIRECT},
            {RAM_SIZE, 16, RING_INDIRECT, VQ_FAULT_ADDRESS},
            {RAM_SIZE - 16, 32, RING_INDIRECT, VQ_FAULT_ADDRESS},
            {HALF - 16, 32, RING_INDIRECT, VQ_FAULT_ADDRESS},
            {UINT64_MAX - 7, 16, RING_INDIRECT, VQ_FAULT_ADDRESS},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        start();
        ring_desc(&ring, 0, cases[i].addr, cases[i].len, cases[i].flags, 1);
        ring_offer(&ring, 0);
        expect_fault(cases[i].fault);
    }

    start(); /* nested */
    ring_desc(&ring, 0, TABLE, 16, RING_INDIRECT, 0);
    put_desc(ram + TABLE, TABLE + 64, 16, RING_INDIRECT, 0);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_INDIRECT);

    start_at(false, false, 0); /* not negotiated */
    ring_desc(&ring, 0, TABLE, 16, RING_INDIRECT, 0);
    ring_offer(&ring, 0);
    expect_fault(VQ_FAULT_INDIRECT);
}

static void test_avail_jumps(void **state)
{
    start();
    ring_set_avail_idx(&ring, SIZE); /* the most that is legal */
    for (int i = 0; i < SIZE; i++)
        assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    assert_int_equal(vq_pop(&vq, &chain), VQ_EMPTY);

    start();
    ring_set_avail_idx(&ring, SIZE + 1);
    expect_fault(VQ_FAULT_AVAIL_INDEX);

    start_at(true, true, 100);
    ring_set_avail_idx(&ring, 99); /* backwards */
    expect_fault(VQ_FAULT_AVAIL_INDEX);

    start();
    ring_set_avail_idx(&ring, SIZE + 1); /* seen first by the check for a missed kick */
    assert_true(vq_enable_kicks(&vq));
    expect_fault(VQ_FAULT_AVAIL_INDEX);
}

static void test_indices_wrap(void **state)
{
    uint32_t head, len;

    start_at(true, true, 65534);
    for (uint16_t i = 0; i < 5; i++) {
        ring_desc(&ring, i, DATA, i + 1u, 0, 0);
        ring_offer(&ring, i);
        ring_set_used_event(&ring, (uint16_t)(65534 + i));
        assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
        assert_int_equal(chain.readable_bytes, i + 1);
        vq_push(&vq, chain.head, 0);
        assert_true(vq_should_signal(&vq));
        assert_true(ring_take_used(&ring, &head, &len));
        assert_int_equal(head, i);
        assert_false(vq_enable_kicks(&vq));
        assert_int_equal(ring_avail_event(&ring), (uint16_t)(65535 + i));
    }
    assert_int_equal(ring_used_idx(&ring), 3);
    ring_set_avail_idx(&ring, (uint16_t)(3 + SIZE + 1));
    expect_fault(VQ_FAULT_AVAIL_INDEX);
}

static void push_some(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        ring_desc(&ring, 0, DATA, 1, 0, 0);
        ring_offer(&ring, 0);
        assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
        vq_push(&vq, chain.head, 0);
    }
}

static void test_signals_with_event_index(void **state)
{
    static const uint16_t bases[] = {0, 1000, 32767, 65533, 65535};

    for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
        uint16_t base = bases[i];

        start_at(true, true, base);
        assert_false(vq_should_signal(&vq)); /* nothing pushed */
        ring_set_used_event(&ring, base);
        push_some(1);
        assert_true(vq_should_signal(&vq));
        assert_false(vq_should_signal(&vq)); /* told already */
        push_some(1);
        assert_false(vq_should_signal(&vq)); /* the event lies behind */
        ring_set_used_event(&ring, (uint16_t)(base + 4));
        push_some(2);
        assert_false(vq_should_signal(&vq)); /* not there yet */
        push_some(3);
        assert_true(vq_should_signal(&vq)); /* passed within the batch */
    }
}

static void test_signals_without_event_index(void **state)
{
    start_at(true, false, 0);
    push_some(1);
    assert_true(vq_should_signal(&vq));
    ring_set_avail_flags(&ring, 1);
    push_some(1);
    assert_false(vq_should_signal(&vq));
    ring_set_avail_flags(&ring, 0);
    assert_false(vq_should_signal(&vq));
    push_some(1);
    assert_true(vq_should_signal(&vq));
}

static void test_kicks(void **state)
{
    start_at(true, false, 0);
    vq_disable_kicks(&vq);
    assert_int_equal(ring_used_flags(&ring), 1);
    ring_offer(&ring, 0); /* without a kick, as the driver was told */
    assert_true(vq_enable_kicks(&vq));
    assert_int_equal(ring_used_flags(&ring), 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    assert_false(vq_enable_kicks(&vq));

    start_at(true, true, 0);
    assert_false(vq_enable_kicks(&vq));
    assert_int_equal(ring_avail_event(&ring), 0);
    ring_offer(&ring, 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    vq_disable_kicks(&vq);
    assert_int_equal(ring_used_flags(&ring), 0);
    ring_offer(&ring, 0);
    assert_true(vq_enable_kicks(&vq));
    assert_int_equal(ring_avail_event(&ring), 1);
}

static void test_restart_continues(void **state)
{
    struct vq_config config;

    start();
    push_some(3);
    config = ring_config(&ring, true, true);
    config.next_avail = vq.next_avail;
    vq_stop(&vq);
    assert_int_equal(vq_pop(&vq, &chain), VQ_EMPTY);
    assert_false(vq_enable_kicks(&vq));
    assert_int_equal(vq_start(&vq, &mem, &config), 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_EMPTY);
    push_some(1);
    assert_int_equal(ring_used_idx(&ring), 4);
}

static void test_take_and_split(void **state)
{
    struct iovec iov[4];
    uint8_t got[6];

    start();
    assert_int_equal(gmem_write(&mem, (struct gpa){DATA}, "abcdefgh", 8), 0);
    ring_desc(&ring, 0, DATA, 4, RING_NEXT, 1);
    ring_desc(&ring, 1, DATA + 4, 4, RING_NEXT, 2);
    ring_desc(&ring, 2, DATA + 0x100, 3, RING_WRITE | RING_NEXT, 3);
    ring_desc(&ring, 3, DATA + 0x200, 8, RING_WRITE, 0);
    ring_offer(&ring, 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    assert_true(vq_chain_take(&chain, got, 6));
    assert_memory_equal(got, "abcdef", 6);
    assert_int_equal(chain.readable_count, 1);
    assert_int_equal(chain.readable_bytes, 2);
    assert_false(vq_chain_take(&chain, got, 3));
    assert_true(vq_chain_take(&chain, got, 2));
    assert_memory_equal(got, "gh", 2);
    assert_int_equal(chain.readable_count, 0);

    assert_int_equal(vq_chain_split(&chain, 12, iov, 4), 0);
    assert_int_equal(vq_chain_split(&chain, 5, iov, 1), 0);
    assert_int_equal(vq_chain_split(&chain, 5, iov, 4), 2);
    assert_int_equal(chain.writable_count, 1);
    assert_int_equal(chain.writable_bytes, 6);
    assert_ptr_equal(chain.writable[0].iov_base, ram + DATA + 0x202);
    vq_scatter(iov, "12345", 5);
    assert_memory_equal(ram + DATA + 0x100, "123", 3);
    assert_memory_equal(ram + DATA + 0x200, "45\0", 3);
}

static void test_split_last(void **state)
{
    start();
    ring_desc(&ring, 0, DATA, 2, RING_WRITE | RING_NEXT, 1);
    ring_desc(&ring, 1, DATA + 0x100, 0, RING_WRITE | RING_NEXT, 2);
    ring_desc(&ring, 2, DATA + 0x200, 1, RING_WRITE | RING_NEXT, 3);
    ring_desc(&ring, 3, DATA + 0x300, 0, RING_WRITE, 0);
    ring_offer(&ring, 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    assert_ptr_equal(vq_chain_split_last(&chain), ram + DATA + 0x200);
    assert_int_equal(chain.writable_count, 1);
    assert_ptr_equal(vq_chain_split_last(&chain), ram + DATA + 1);
    assert_int_equal(chain.writable_bytes, 1);
    assert_ptr_equal(vq_chain_split_last(&chain), ram + DATA);
    assert_int_equal(chain.writable_count, 0);
    assert_null(vq_chain_split_last(&chain));
}

/* ---- what the device writes is marked ---- */

static struct dirty_pages dirty;

/* True when exactly these of the first 64 pages were marked; then they are clean again. */
static bool marked(uint64_t pages)
{
    bool same = dirty.words[0] == pages;

    dirty.words[0] = 0;
    return same;
}

/* The ring's used part at `used`, so that a test can tell its words apart by their pages. */
static void start_tracked(bool event_idx, uint64_t used)
{
    struct vq_config config;

    start_at(true, event_idx, 0);
    dirty_pages_deinit(&dirty);
    assert_int_equal(dirty_pages_init(&dirty, ram, RAM_SIZE), 0);
    mem.dirty = &dirty;
    ring.used = used;
    config = ring_config(&ring, true, event_idx);
    assert_int_equal(vq_start(&vq, &mem, &config), 0);
    assert_true(marked(0));
}

static void test_marks_rings(void **state)
{
    /* flags and index in page 5, entries in page 6 */
    start_tracked(false, 0x5ffc);
    vq_disable_kicks(&vq);
    assert_true(marked(1 << 5));
    assert_false(vq_enable_kicks(&vq));
    assert_true(marked(1 << 5));
    vq_push(&vq, 0, 0);
    assert_true(marked(1 << 5 | 1 << 6));
    assert_true(vq_should_signal(&vq));
    assert_true(marked(0));
    /* all in page 5 but the event word */
    start_tracked(true, 0x6000 - 4 - 8 * SIZE);
    vq_disable_kicks(&vq); /* writes nothing */
    assert_true(marked(0));
    assert_false(vq_enable_kicks(&vq));
    assert_true(marked(1 << 6));
    vq_push(&vq, 0, 0);
    assert_true(marked(1 << 5));
    vq_break(&vq, VQ_FAULT_HEAD);
    vq_push(&vq, 0, 0);
    assert_false(vq_enable_kicks(&vq));
    assert_true(marked(0));
}

static void test_marks_writable_buffers(void **state)
{
    start_tracked(true, 0x5000);
    ring_desc(&ring, 0, DATA, 0x3000, RING_NEXT, 1); /* only read */
    ring_desc(&ring, 1, DATA + 0x4fff, 2, RING_WRITE | RING_NEXT, 2);
    ring_desc(&ring, 2, HALF - 4, 12, RING_WRITE | RING_NEXT, 3); /* across the regions */
    ring_desc(&ring, 3, DATA + 0x8000, 0, RING_WRITE, 0);         /* nothing in it */
    ring_offer(&ring, 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    assert_true(marked(1ull << 0x14 | 1ull << 0x15 | 1ull << 0x1f | 1ull << 0x20));
    vq_push(&vq, chain.head, 1);
    assert_true(marked(1 << 5));
    put_desc(ram + TABLE, DATA + 0x1000, 1, RING_WRITE, 0);
    ring_desc(&ring, 0, TABLE, 16, RING_INDIRECT, 0);
    ring_offer(&ring, 0);
    assert_int_equal(vq_pop(&vq, &chain), VQ_CHAIN);
    assert_true(marked(1 << 0x11));
    dirty_pages_deinit(&dirty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_start_checks_layout),
            cmocka_unit_test(test_chain_of_both_kinds),
            cmocka_unit_test(test_descriptor_is_copied_once),
            cmocka_unit_test(test_unpop),
            cmocka_unit_test(test_loops_end),
            cmocka_unit_test(test_longest_chains),
            cmocka_unit_test(test_addresses),
            cmocka_unit_test(test_total_length_is_bounded),
            cmocka_unit_test(test_indices_out_of_table),
            cmocka_unit_test(test_order),
            cmocka_unit_test(test_indirect),
            cmocka_unit_test(test_indirect_refusals),
            cmocka_unit_test(test_avail_jumps),
            cmocka_unit_test(test_indices_wrap),
            cmocka_unit_test(test_signals_with_event_index),
            cmocka_unit_test(test_signals_without_event_index),
            cmocka_unit_test(test_kicks),
            cmocka_unit_test(test_restart_continues),
            cmocka_unit_test(test_take_and_split),
            cmocka_unit_test(test_split_last),
            cmocka_unit_test(test_marks_rings),
            cmocka_unit_test(test_marks_writable_buffers),
    };

    return cmocka_run_group_tests_name("virtqueue", tests, NULL, NULL);
}
