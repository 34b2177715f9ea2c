/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/fd.h"
#include "vhost/test-frontend.h"

#define RX_RING    0x1000u
#define TX_RING    0x3000u
#define RX_BUFFERS 0x10000u
#define TX_BUFFERS 0x90000u
#define TX_BUFFER  0x400u
#define REPLY_MS   5000u

void fe_init(struct frontend *fe, int sock)
{
    *fe = (struct frontend){.sock = sock, .memfd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
    assert_true(fe->memfd >= 0);
    assert_int_equal(ftruncate(fe->memfd, FE_RAM_SIZE), 0);
    fe->ram = mmap(NULL, FE_RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fe->memfd, 0);
    assert_ptr_not_equal(fe->ram, MAP_FAILED);
    for (int i = 0; i < 2; i++) {
        fe->kick[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        fe->call[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_true(fe->kick[i] >= 0 && fe->call[i] >= 0);
    }
}

void fe_deinit(struct frontend *fe)
{
    for (int i = 0; i < 2; i++) {
        fd_close(fe->kick[i]);
        fd_close(fe->call[i]);
    }
    assert_int_equal(munmap(fe->ram, FE_RAM_SIZE), 0);
    fd_close(fe->memfd);
    fd_close(fe->sock);
    fe->sock = -1;
}

static void pump(struct frontend *fe)
{
    if (fe->pump)
        fe->pump(fe->userdata);
}

void fe_send(struct frontend *fe, uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds,
        size_t nfds)
{
    uint8_t bytes[VU_HEADER_SIZE + 1024];
    uint32_t header[3] = {request, flags, size};

    assert_true(size <= 1024);
    memcpy(bytes, header, sizeof(header));
    if (size > 0)
        memcpy(bytes + sizeof(header), payload, size);
    assert_int_equal(unix_send_fds(fe->sock, bytes, sizeof(header) + size, fds, nfds), sizeof(header) + size);
    pump(fe);
}

bool fe_recv(struct frontend *fe, uint32_t request, void *payload, uint32_t size)
{
    uint32_t header[3];

    if (fd_read_all(fe->sock, header, sizeof(header), deadline_after_ms(REPLY_MS)) < 0)
        return false;
    assert_int_equal(header[0], request);
    assert_int_equal(header[1], FE_REPLY);
    assert_int_equal(header[2], size);
    assert_int_equal(fd_read_all(fe->sock, payload, size, deadline_after_ms(REPLY_MS)), 0);
    return true;
}

uint64_t fe_order(
        struct frontend *fe, uint32_t request, const void *payload, uint32_t size, const int *fds, size_t nfds)
{
    uint64_t answer;

    fe_send(fe, request, FE_NEED_REPLY, payload, size, fds, nfds);
    assert_true(fe_recv(fe, request, &answer, sizeof(answer)));
    return answer;
}

uint64_t fe_order_u64(struct frontend *fe, uint32_t request, uint64_t value)
{
    return fe_order(fe, request, &value, sizeof(value), NULL, 0);
}

uint64_t fe_order_vring(struct frontend *fe, uint32_t request, uint32_t index, uint32_t num)
{
    uint32_t payload[2] = {index, num};

    return fe_order(fe, request, payload, sizeof(payload), NULL, 0);
}

uint64_t fe_order_fd(struct frontend *fe, uint32_t request, uint32_t index, int fd)
{
    uint64_t payload = index | (fd < 0 ? 0x100u : 0u);

    return fe_order(fe, request, &payload, sizeof(payload), &fd, fd < 0 ? 0 : 1);
}

uint64_t fe_ask_u64(struct frontend *fe, uint32_t request)
{
    uint64_t answer;

    fe_send(fe, request, FE_PLAIN, NULL, 0, NULL, 0);
    assert_true(fe_recv(fe, request, &answer, sizeof(answer)));
    return answer;
}

uint32_t fe_get_base(struct frontend *fe, uint32_t index)
{
    uint32_t payload[2] = {index, 0};

    fe_send(fe, VU_GET_VRING_BASE, FE_PLAIN, payload, sizeof(payload), NULL, 0);
    assert_true(fe_recv(fe, VU_GET_VRING_BASE, payload, sizeof(payload)));
    assert_int_equal(payload[0], index);
    return payload[1];
}

uint64_t fe_set_memory(struct frontend *fe, const struct vu_region *regions, const int *fds, uint32_t count)
{
    uint64_t payload[1 + 4 * VU_MAX_REGIONS] = {count};

    for (uint32_t i = 0; i < count; i++)
        memcpy(payload + 1 + 4 * i, &regions[i], 32);
    return fe_order(fe, VU_SET_MEM_TABLE, payload, 8 + 32 * count, fds, count);
}

uint64_t fe_set_addr(struct frontend *fe, uint32_t index)
{
    const struct test_ring *ring = &fe->rings[index];
    uint64_t payload[5] = {index, FE_USER_BASE + ring->desc, FE_USER_BASE + ring->used, FE_USER_BASE + ring->avail, 0};

    return fe_order(fe, VU_SET_VRING_ADDR, payload, sizeof(payload), NULL, 0);
}

struct vu_region fe_region(void)
{
    return (struct vu_region){.gpa = FE_GPA_BASE, .size = FE_RAM_SIZE, .user_addr = FE_USER_BASE};
}

void fe_handshake(struct frontend *fe)
{
    const struct vu_region region = fe_region();
    uint64_t wanted = 1ull << VU_PROTOCOL_F_REPLY_ACK | 1ull << VU_PROTOCOL_F_CONFIG | 1ull << VU_PROTOCOL_F_MQ |
                      1ull << VU_PROTOCOL_F_RESET_DEVICE;

    fe->features = fe_ask_u64(fe, VU_GET_FEATURES);
    assert_true(fe->features & 1ull << VHOST_USER_F_PROTOCOL_FEATURES);
    assert_int_equal(fe_ask_u64(fe, VU_GET_PROTOCOL_FEATURES) & wanted, wanted);
    fe_send(fe, VU_SET_PROTOCOL_FEATURES, FE_PLAIN, &wanted, sizeof(wanted), NULL, 0);
    assert_int_equal(fe_ask_u64(fe, VU_GET_QUEUE_NUM), 2);
    assert_int_equal(fe_order(fe, VU_SET_OWNER, NULL, 0, NULL, 0), 0);
    assert_int_equal(fe_order_u64(fe, VU_SET_FEATURES, fe->features), 0);
    assert_int_equal(fe_set_memory(fe, &region, &fe->memfd, 1), 0);
}

void fe_start(struct frontend *fe, uint16_t rx_base, uint16_t tx_base)
{
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(fe_order_vring(fe, VU_SET_VRING_NUM, i, FE_RING_SIZE), 0);
        assert_int_equal(fe_order_vring(fe, VU_SET_VRING_BASE, i, i == 0 ? rx_base : tx_base), 0);
        assert_int_equal(fe_set_addr(fe, i), 0);
        assert_int_equal(fe_order_fd(fe, VU_SET_VRING_CALL, i, fe->call[i]), 0);
        assert_int_equal(fe_order_fd(fe, VU_SET_VRING_KICK, i, fe->kick[i]), 0);
        assert_int_equal(fe_order_vring(fe, VU_SET_VRING_ENABLE, i, 1), 0);
    }
}

/* One used event ahead, so that the device interrupts at once. */
static void want_interrupt(struct test_ring *ring)
{
    ring_set_used_event(ring, ring->used_seen);
    gmem_fence();
}

static void kick(struct frontend *fe, int ring)
{
    static const uint64_t one = 1;

    assert_int_equal(write(fe->kick[ring], &one, sizeof(one)), sizeof(one));
    pump(fe);
}

void fe_fresh_driver(struct frontend *fe)
{
    fe->rings[0] = ring_at(fe->ram, RX_RING, FE_RING_SIZE);
    fe->rings[1] = ring_at(fe->ram, TX_RING, FE_RING_SIZE);
    fe->tx_next = 0;
    for (uint16_t i = 0; i < FE_RING_SIZE; i++) {
        ring_desc(&fe->rings[0], i, FE_GPA_BASE + RX_BUFFERS + 0x1000ull * i, FE_RX_BUFFER, RING_WRITE, 0);
        ring_offer(&fe->rings[0], i);
    }
    want_interrupt(&fe->rings[0]);
}

void fe_transmit(struct frontend *fe, const uint8_t *header, const void *payload, uint32_t len)
{
    struct test_ring *ring = &fe->rings[1];
    uint16_t slot = fe->tx_next;
    uint64_t at = TX_BUFFERS + (uint64_t)TX_BUFFER * slot;

    assert_true(len <= TX_BUFFER - 64);
    fe->tx_next = (uint16_t)((slot + 2) % FE_RING_SIZE);
    memcpy(fe->ram + at, header, 44);
    if (len > 0)
        memcpy(fe->ram + at + 64, payload, len);
    ring_desc(ring, slot, FE_GPA_BASE + at, 44, len > 0 ? RING_NEXT : 0, (uint16_t)(slot + 1));
    ring_desc(ring, (uint16_t)(slot + 1), FE_GPA_BASE + at + 64, len, 0, 0);
    ring_offer(ring, slot);
    kick(fe, 1);
}

uint32_t fe_receive(struct frontend *fe, uint8_t *packet, int timeout_ms)
{
    struct test_ring *ring = &fe->rings[0];
    uint64_t deadline = deadline_after_ms((uint64_t)timeout_ms);
    uint32_t head, len;
    uint64_t count;

    for (;;) {
        pump(fe);
        if (ring_take_used(ring, &head, &len))
            break;
        want_interrupt(ring);
        if (ring_used_idx(ring) != ring->used_seen)
            continue;
        if (fd_wait(fe->call[0], POLLIN, deadline) < 0)
            return 0;
        assert_int_equal(read(fe->call[0], &count, sizeof(count)), sizeof(count));
    }
    assert_true(head < FE_RING_SIZE && len <= FE_RX_BUFFER);
    memcpy(packet, fe->ram + RX_BUFFERS + 0x1000u * head, len);
    ring_offer(ring, (uint16_t)head);
    kick(fe, 0);
    return len;
}
