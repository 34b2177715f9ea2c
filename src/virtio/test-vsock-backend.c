/* SPDX-License-Identifier: Apache-2.0 */
/* The glue between queues and core, with a core of a few lines in place of the real one. */
#include "base/test.h"

#include <string.h>

#include "virtio/vsock-backend.h"
#include "virtio/test-ring.h"

#define RAM_SIZE 0x40000u
#define SIZE     64u
#define TX_DATA  0x10000u
#define RX_DATA  0x20000u

/* The core: remembers what it took, gives `to_send` packets of as many bytes as fit. */
struct vsock {
    unsigned taken, to_send, room; /* room: packets that it takes before it is full */
    struct vsock_hdr last;
    uint8_t payload[256];
    bool lies; /* says that it has packets, and has none */
};

static struct vsock core;

void vsock_hdr_decode(struct vsock_hdr *ret, const uint8_t bytes[VSOCK_HDR_SIZE])
{
    *ret = (struct vsock_hdr){0};
    memcpy(&ret->src_cid, bytes, 8);
    memcpy(&ret->len, bytes + 24, 4);
}

void vsock_hdr_encode(uint8_t bytes[VSOCK_HDR_SIZE], const struct vsock_hdr *hdr)
{
    memset(bytes, 0, VSOCK_HDR_SIZE);
    memcpy(bytes, &hdr->src_cid, 8);
    memcpy(bytes + 24, &hdr->len, 4);
}

int vsock_take_packet(struct vsock *v, const struct vsock_hdr *hdr, const struct iovec *payload, size_t count)
{
    size_t total = 0;

    v->taken++;
    v->room--;
    v->last = *hdr;
    for (size_t i = 0; i < count; i++) {
        size_t part = MIN(payload[i].iov_len, sizeof(v->payload) - total);

        memcpy(v->payload + total, payload[i].iov_base, part);
        total += part;
    }
    assert_true(total >= MIN((size_t)hdr->len, sizeof(v->payload)));
    return 0;
}

bool vsock_can_take(const struct vsock *v)
{
    return v->room > 0;
}

bool vsock_has_packets(const struct vsock *v)
{
    return v->to_send > 0 || v->lies;
}

int vsock_next_packet(struct vsock *v, struct vsock_hdr *ret_hdr, const struct iovec *space, size_t count)
{
    size_t total = 0;

    if (v->to_send == 0)
        return 0;
    v->to_send--;
    for (size_t i = 0; i < count; i++) {
        memset(space[i].iov_base, 'p', space[i].iov_len);
        total += space[i].iov_len;
    }
    assert_true(total > 0);
    *ret_hdr = (struct vsock_hdr){.src_cid = VSOCK_HOST_CID, .len = (uint32_t)total};
    v->room++;
    return 1;
}

static uint8_t ram[RAM_SIZE] __attribute__((aligned(4096)));
static struct gmem mem;
static struct test_ring rx_ring, tx_ring;
static struct virtqueue rx, tx;
static struct vsock_backend backend;
static struct vsock_backend_turn turn;

static int setup(void **state)
{
    struct vq_config config;

    memset(ram, 0, sizeof(ram));
    mem = (struct gmem){0};
    core = (struct vsock){.room = 100000};
    assert_int_equal(gmem_add(&mem, (struct gpa){0}, RAM_SIZE, ram), 0);
    rx_ring = ring_at(ram, 0x1000, SIZE);
    tx_ring = ring_at(ram, 0x3000, SIZE);
    config = ring_config(&rx_ring, true, true);
    assert_int_equal(vq_start(&rx, &mem, &config), 0);
    config = ring_config(&tx_ring, true, true);
    assert_int_equal(vq_start(&tx, &mem, &config), 0);
    vsock_backend_init(&backend, &core);
    return 0;
}

static void run(void)
{
    vsock_backend_run(&backend, &rx, &tx, &turn);
}

static void put_header(uint32_t at, uint32_t len)
{
    struct vsock_hdr hdr = {.src_cid = 7, .len = len};

    vsock_hdr_encode(ram + at, &hdr);
}

static void offer_rx(unsigned count, uint32_t len)
{
    for (unsigned i = 0; i < count; i++) {
        uint16_t slot = rx_ring.avail_idx % SIZE;

        ring_desc(&rx_ring, slot, RX_DATA + 0x100u * slot, len, RING_WRITE, 0);
        ring_offer(&rx_ring, slot);
    }
}

static void test_transmit(void **state)
{
    uint32_t head = 0, len = 0;

    /* A header over three descriptors, the last of which starts the payload. */
    put_header(TX_DATA, 5);
    assert_int_equal(gmem_write(&mem, (struct gpa){TX_DATA + 44}, "hello", 5), 0);
    ring_desc(&tx_ring, 4, TX_DATA, 1, RING_NEXT, 9);
    ring_desc(&tx_ring, 9, TX_DATA + 1, 40, RING_NEXT, 2);
    ring_desc(&tx_ring, 2, TX_DATA + 41, 8, 0, 0);
    ring_offer(&tx_ring, 4);
    run();
    assert_int_equal(core.taken, 1);
    assert_int_equal(core.last.src_cid, 7);
    assert_int_equal(core.last.len, 5);
    assert_memory_equal(core.payload, "hello", 5);
    assert_true(ring_take_used(&tx_ring, &head, &len));
    assert_int_equal(head, 4);
    assert_int_equal(len, 0);
    assert_true(turn.signal_tx);
    assert_false(turn.signal_rx);
    assert_false(turn.more);
    assert_int_equal(ring_avail_event(&tx_ring), 1); /* kicks are on */
    run();
    assert_false(turn.signal_tx);
}

static void test_malformed_packets_are_returned(void **state)
{
    uint32_t head = 0, len = 0;

    put_header(TX_DATA, 100);
    ring_desc(&tx_ring, 0, TX_DATA, 43, 0, 0);  /* shorter than a header */
    ring_desc(&tx_ring, 1, TX_DATA, 143, 0, 0); /* a byte less than it says */
    ring_desc(&tx_ring, 2, TX_DATA, 100, RING_WRITE, 0);
    ring_desc(&tx_ring, 3, TX_DATA, 0, 0, 0);
    for (uint16_t i = 0; i < 4; i++)
        ring_offer(&tx_ring, i);
    run();
    assert_int_equal(core.taken, 0);
    assert_int_equal(backend.malformed, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(ring_take_used(&tx_ring, &head, &len));
        assert_int_equal(head, i);
        assert_int_equal(len, 0);
    }

    ring_desc(&rx_ring, 0, RX_DATA, 43, RING_WRITE, 0);
    ring_desc(&rx_ring, 1, RX_DATA, 44, RING_WRITE, 0);
    ring_desc(&rx_ring, 2, RX_DATA, 100, 0, 0);
    ring_desc(&rx_ring, 3, RX_DATA, 45, RING_WRITE, 0);
    for (uint16_t i = 0; i < 4; i++)
        ring_offer(&rx_ring, i);
    core.to_send = 1;
    run();
    assert_int_equal(backend.malformed, 7);
    assert_int_equal(core.to_send, 0);
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(ring_take_used(&rx_ring, &head, &len));
        assert_int_equal(len, i < 3 ? 0 : 45);
    }
}

static void test_receive(void **state)
{
    uint32_t head = 0, len = 0;
    struct vsock_hdr hdr;

    offer_rx(4, 200);
    run();
    assert_false(turn.signal_rx);
    core.to_send = 2;
    run();
    assert_true(turn.signal_rx);
    assert_false(turn.more);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(ring_take_used(&rx_ring, &head, &len));
        assert_int_equal(len, 200);
        vsock_hdr_decode(&hdr, ram + RX_DATA + 0x100u * head);
        assert_int_equal(hdr.len, 156);
        assert_int_equal(ram[RX_DATA + 0x100u * head + 44], 'p');
        assert_int_equal(ram[RX_DATA + 0x100u * head + 199], 'p');
    }
    assert_false(ring_take_used(&rx_ring, &head, &len));
}

static void test_no_buffers_no_spin(void **state)
{
    core.to_send = 1;
    run();
    assert_false(turn.more);
    assert_int_equal(ring_avail_event(&rx_ring), 0); /* the next buffer kicks */
    offer_rx(1, 200);
    run();
    assert_int_equal(core.to_send, 0);

    core.lies = true;
    offer_rx(1, 200);
    run();
    assert_false(turn.more);
    core.lies = false;
    core.to_send = 1;
    run(); /* the buffer is still there */
    assert_int_equal(core.to_send, 0);
}

static void test_full_core_leaves_tx_alone(void **state)
{
    uint32_t head = 0, len = 0;

    put_header(TX_DATA, 0);
    for (uint16_t i = 0; i < 4; i++) {
        ring_desc(&tx_ring, i, TX_DATA, 44, 0, 0);
        ring_offer(&tx_ring, i);
    }
    core.room = 2;
    core.to_send = 3;
    run(); /* and no rx buffers to drain into */
    assert_int_equal(core.taken, 2);
    assert_false(turn.more);
    offer_rx(1, 200);
    run(); /* the drained packet makes room */
    assert_int_equal(core.to_send, 2);
    assert_true(turn.more);
    run();
    assert_int_equal(core.taken, 3);
    assert_true(ring_take_used(&tx_ring, &head, &len));
}

static void test_work_is_bounded(void **state)
{
    struct test_ring big = ring_at(ram, 0x8000, 1024);
    struct vq_config config = ring_config(&big, true, true);

    assert_int_equal(vq_start(&tx, &mem, &config), 0);
    put_header(TX_DATA + 0x8000, 0);
    for (uint16_t i = 0; i < 2 * VSOCK_BACKEND_BATCH; i++) {
        ring_desc(&big, i, TX_DATA + 0x8000, 44, 0, 0);
        ring_offer(&big, i);
    }
    run();
    assert_int_equal(core.taken, VSOCK_BACKEND_BATCH);
    assert_true(turn.more);
    run();
    run();
    assert_int_equal(core.taken, 2 * VSOCK_BACKEND_BATCH);
    assert_false(turn.more);

    core.to_send = 1000;
    offer_rx(SIZE, 200);
    for (unsigned left = SIZE; left > 0; left -= VSOCK_BACKEND_BATCH) {
        run();
        assert_int_equal(core.to_send, 1000 - SIZE + left - VSOCK_BACKEND_BATCH);
        assert_true(turn.more);
    }
    run();
    assert_false(turn.more);
}

static void test_broken_queue_rests(void **state)
{
    ring_offer(&tx_ring, SIZE);
    core.to_send = 1;
    offer_rx(1, 200);
    run();
    assert_int_equal(tx.fault, VQ_FAULT_HEAD);
    assert_int_equal(core.to_send, 0); /* rx goes on */
    assert_false(turn.more);
    ring_set_avail_idx(&rx_ring, 30000);
    core.to_send = 1;
    run();
    assert_int_equal(rx.fault, VQ_FAULT_AVAIL_INDEX);
    assert_false(turn.more);
    assert_false(turn.signal_rx);
}

static void test_queues_that_are_not_there(void **state)
{
    core.to_send = 1;
    vsock_backend_run(&backend, NULL, NULL, &turn);
    assert_false(turn.more);
    assert_false(turn.signal_rx);
    vsock_backend_run(&backend, NULL, &tx, &turn);
    offer_rx(1, 200);
    vsock_backend_run(&backend, &rx, NULL, &turn);
    assert_int_equal(core.to_send, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup(test_transmit, setup),
            cmocka_unit_test_setup(test_malformed_packets_are_returned, setup),
            cmocka_unit_test_setup(test_receive, setup),
            cmocka_unit_test_setup(test_no_buffers_no_spin, setup),
            cmocka_unit_test_setup(test_full_core_leaves_tx_alone, setup),
            cmocka_unit_test_setup(test_work_is_bounded, setup),
            cmocka_unit_test_setup(test_broken_queue_rests, setup),
            cmocka_unit_test_setup(test_queues_that_are_not_there, setup),
    };

    return cmocka_run_group_tests_name("vsock backend", tests, NULL, NULL);
}
