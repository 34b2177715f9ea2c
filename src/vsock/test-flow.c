/* SPDX-License-Identifier: Apache-2.0 */
/* Credit and buffers at work: back-pressure both ways, few control packets, fair turns, no spinning. */
#include "vsock/fake-guest.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"

#define PKT VSOCK_MAX_PKT_PAYLOAD

static uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i * 7 + (i >> 8));
}

static void fill(uint8_t *bytes, size_t len, uint64_t from)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = pattern(from + i);
}

static void check(const uint8_t *bytes, size_t len, uint64_t from)
{
    for (size_t i = 0; i < len; i++)
        assert_int_equal(bytes[i], pattern(from + i));
}

/* Takes all packets there are now; only credit may move. */
static unsigned drain_credit(struct guest *g, struct stream *s)
{
    struct packet p;
    unsigned n = 0;

    while (guest_receive(g, s, &p)) {
        assert_int_equal(p.hdr.op, VSOCK_OP_CREDIT_UPDATE);
        n++;
    }
    return n;
}

static void slow_host_stops_the_guest(void **state)
{
    static uint8_t bytes[PKT];
    struct stream s = {0};
    struct guest g;
    _cleanup_(fd_closep) int fd = -1;
    uint64_t sent = 0, got = 0;
    unsigned updates = 0;
    ssize_t n;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    /* Until the guest's window is shut: what the socket holds plus one buffer. */
    for (uint32_t len; (len = MIN(guest_room(&s), PKT)) > 0; sent += len) {
        fill(bytes, len, sent);
        assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, bytes, len), 0);
        updates += drain_credit(&g, &s);
        assert_true(sent < 16u << 20);
    }
    assert_true(sent >= VSOCK_BUF_ALLOC);
    assert_true(updates <= sent / (VSOCK_BUF_ALLOC / 2));
    /* One reader that takes small bites: everything arrives in order, and the window opens in large steps. */
    while ((n = recv(fd, bytes, 1000, 0)) > 0) {
        check(bytes, (size_t)n, got);
        got += (uint64_t)n;
        updates += drain_credit(&g, &s);
    }
    assert_int_equal(got, sent);
    assert_true(guest_room(&s) > VSOCK_BUF_ALLOC / 2);
    assert_true(updates <= sent / (VSOCK_BUF_ALLOC / 2));
    guest_deinit(&g);
}

static void guest_to_host_never_stalls(void **state)
{
    static uint8_t bytes[PKT];
    struct stream s = {0};
    struct guest g;
    _cleanup_(fd_closep) int fd = -1;
    uint64_t sent = 0, got = 0;
    unsigned seed = 3;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    while (got < 8u << 20) {
        uint32_t len = MIN((uint32_t)rand_r(&seed) % PKT, guest_room(&s));
        ssize_t n;

        fill(bytes, len, sent);
        assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, bytes, len), 0);
        sent += len;
        n = recv(fd, bytes, (size_t)rand_r(&seed) % PKT + 1, 0);
        if (n > 0) {
            check(bytes, (size_t)n, got);
            got += (uint64_t)n;
        }
        (void)drain_credit(&g, &s);
    }
    guest_deinit(&g);
}

static void many_small_pieces(void **state)
{
    static uint8_t bytes[4096];
    struct iovec pieces[500];
    struct stream s = {0};
    struct guest g;
    _cleanup_(fd_closep) int fd = -1;
    struct vsock_hdr hdr;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    fill(bytes, sizeof(bytes), 0);
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
        pieces[i] = (struct iovec){bytes + 8 * i, 8};
    hdr = (struct vsock_hdr){.src_cid = GUEST_CID,
            .dst_cid = VSOCK_HOST_CID,
            .src_port = s.guest_port,
            .dst_port = s.host_port,
            .len = 8 * ARRAY_SIZE(pieces) - 3,
            .type = VSOCK_TYPE_STREAM,
            .op = VSOCK_OP_RW,
            .buf_alloc = s.alloc};
    assert_int_equal(vsock_take_packet(g.v, &hdr, pieces, ARRAY_SIZE(pieces)), 0);
    host_expect_bytes(&g, fd, bytes, hdr.len);
    host_expect_silence(&g, fd);
    guest_deinit(&g);
}

static void slow_guest_stops_the_host(void **state)
{
    static uint8_t bytes[PKT];
    static struct packet p;
    struct stream s = {.alloc = 10000};
    struct guest g;
    struct pollfd poll_loop;
    _cleanup_(fd_closep) int fd = -1;
    uint64_t sent = 0, got = 0;
    ssize_t n;

    guest_init(&g, 0);
    poll_loop = (struct pollfd){.fd = g.loop.epoll_fd, .events = POLLIN};
    fd = connect_to_guest(&g, &s, 1);
    fill(bytes, sizeof(bytes), 0);
    while ((n = send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL)) > 0) {
        sent += (uint64_t)n;
        fill(bytes, sizeof(bytes), sent);
    }
    while (guest_receive(&g, &s, &p)) {
        assert_int_equal(p.hdr.op, VSOCK_OP_RW);
        check(p.data, p.hdr.len, got);
        got += p.hdr.len;
    }
    assert_int_equal(got, s.alloc); /* guest_receive() fails when it is more */
    assert_false(vsock_has_packets(g.v));
    /* Even a peer that hangs up now wakes us once only. */
    fd_close(fd);
    fd = -1;
    guest_expect(&g, &s, VSOCK_OP_SHUTDOWN, &p);
    assert_int_equal(p.hdr.flags, VSOCK_SHUTDOWN_RECEIVE);
    assert_int_equal(poll(&poll_loop, 1, 0), 0);
    /* A little credit is not worth a packet; a quarter of a small buffer is. */
    s.taken += 1000;
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0), 0);
    guest_expect_nothing(&g);
    while (got < sent) {
        s.taken = s.received;
        assert_int_equal(guest_send(&g, &s, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0), 0);
        while (got < sent && guest_receive(&g, &s, &p)) {
            assert_int_equal(p.hdr.op, VSOCK_OP_RW);
            check(p.data, p.hdr.len, got);
            got += p.hdr.len;
        }
    }
    s.taken = s.received;
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0), 0);
    guest_expect(&g, &s, VSOCK_OP_SHUTDOWN, &p);
    assert_int_equal(p.hdr.flags, VSOCK_SHUTDOWN_RECEIVE | VSOCK_SHUTDOWN_SEND);
    guest_deinit(&g);
}

static void silent_guest_is_asked_for_credit_once(void **state)
{
    static struct packet p;
    struct stream s = {.alloc = 4};
    struct guest g;
    uint64_t start;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    host_write(fd, "123456789", 9);
    guest_expect(&g, &s, VSOCK_OP_RW, &p);
    assert_int_equal(p.hdr.len, 4);
    guest_expect_nothing(&g);
    start = clock_now_ms();
    guest_run(&g, 5000);
    assert_true(clock_now_ms() - start >= VSOCK_CREDIT_PROBE_MS - 5);
    guest_expect(&g, &s, VSOCK_OP_CREDIT_REQUEST, NULL);
    guest_run(&g, (int)VSOCK_CREDIT_PROBE_MS + 50);
    guest_expect_nothing(&g);
    s.taken = 3;
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0), 0);
    guest_expect(&g, &s, VSOCK_OP_RW, &p);
    assert_int_equal(p.hdr.len, 3);
    guest_deinit(&g);
}

static void the_guest_may_ask_for_credit(void **state)
{
    struct stream s = {0};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, "12345", 5), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(guest_send(&g, &s, VSOCK_OP_CREDIT_REQUEST, 0, NULL, 0), 0);
    guest_expect(&g, &s, VSOCK_OP_CREDIT_UPDATE, &p);
    assert_int_equal(p.hdr.fwd_cnt, 5);
    assert_int_equal(p.hdr.buf_alloc, VSOCK_BUF_ALLOC);
    guest_expect_nothing(&g); /* ten questions, one answer */
    guest_deinit(&g);
}

static void counters_wrap_in_a_long_stream(void **state)
{
    static uint8_t bytes[PKT];
    static struct packet p;
    struct stream s = {0};
    struct guest g;
    struct conn *c;
    _cleanup_(fd_closep) int fd = -1;
    const uint32_t near = UINT32_MAX - 5000;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    c = table_find(&g.v->table, s.host_port, s.guest_port);
    c->credit.sent = c->credit.guest_fwd = s.received = s.taken = near;
    c->credit.received = c->credit.forwarded = c->credit.told = s.sent = s.host_fwd = near;
    for (int i = 0; i < 10; i++) {
        fill(bytes, sizeof(bytes), 0);
        assert_true(guest_room(&s) >= PKT);
        assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, bytes, PKT), 0);
        assert_int_equal(recv(fd, bytes, PKT, 0), PKT);
        (void)drain_credit(&g, &s);
        host_write(fd, bytes, 3000);
        guest_expect(&g, &s, VSOCK_OP_RW, &p);
        assert_int_equal(p.hdr.len, 3000);
        s.taken = s.received;
    }
    guest_deinit(&g);
}

static void turns_are_fair(void **state)
{
    static uint8_t bytes[100000];
    static struct packet p;
    struct stream s[3] = {0};
    struct guest g;
    int fds[3];
    unsigned served[3] = {0};

    guest_init(&g, 0);
    for (uint32_t i = 0; i < 3; i++)
        fds[i] = connect_to_guest(&g, &s[i], i);
    host_write(fds[0], bytes, sizeof(bytes)); /* one that has much to say must not keep the others waiting */
    host_write(fds[1], bytes, 20000);
    guest_run(&g, 0);
    for (int i = 0; i < 10; i++) {
        assert_true(guest_receive(&g, NULL, &p));
        served[p.hdr.dst_port]++;
        if (i == 3)
            host_write(fds[2], "quick", 5);
    }
    assert_int_equal(served[2], 1);
    assert_in_range(served[0], 4, 5);
    assert_in_range(served[1], 4, 5);
    for (int i = 0; i < 3; i++)
        fd_close(fds[i]);
    guest_deinit(&g);
}

static void transport_is_told_once(void **state)
{
    struct stream s = {0};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int fd = -1;
    unsigned calls;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    guest_expect_nothing(&g);
    calls = g.ready_calls;
    for (int i = 0; i < 10; i++) {
        host_write(fd, "x", 1);
        guest_run(&g, 0);
    }
    assert_int_equal(g.ready_calls, calls + 1);
    guest_expect(&g, &s, VSOCK_OP_RW, &p);
    assert_int_equal(p.hdr.len, 10); /* coalesced */
    guest_expect_nothing(&g);
    host_write(fd, "x", 1);
    guest_run(&g, 0);
    assert_int_equal(g.ready_calls, calls + 2);
    guest_deinit(&g);
}

/* A transport may stop at vsock_has_packets(), and what it was told of may go away before it looks. */
static void transport_is_told_again(void **state)
{
    struct stream s = {0};
    struct guest g;
    struct packet p;
    struct iovec space = {p.data, GUEST_SPACE};
    int fd, other;
    unsigned calls;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    guest_expect_nothing(&g);
    fd_close(fd);
    guest_run(&g, 0);
    while (vsock_has_packets(g.v))
        assert_int_equal(vsock_next_packet(g.v, &p.hdr, &space, 1), 1);
    assert_int_equal(p.hdr.op, VSOCK_OP_SHUTDOWN);
    for (int i = 0; i < 3; i++) {
        calls = g.ready_calls;
        other = host_dial(&g);
        host_write(other, "CONNECT 1\n", 10);
        guest_run(&g, 0);
        assert_true(vsock_has_packets(g.v));
        assert_int_equal(g.ready_calls, calls + 1);
        fd_close(other);
        guest_run(&g, 0);
        assert_false(vsock_has_packets(g.v));
    }
    guest_deinit(&g);
}

static void no_buffer_no_loss(void **state)
{
    struct stream s = {0};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    host_write(fd, "data", 4);
    guest_run(&g, 0);
    assert_int_equal(vsock_next_packet(g.v, &p.hdr, NULL, 0), 0); /* outside the contract, yet harmless */
    g.space = 1;
    for (int i = 0; i < 4; i++) {
        guest_expect(&g, &s, VSOCK_OP_RW, &p);
        assert_int_equal(p.data[0], "data"[i]);
    }
    guest_expect_nothing(&g);
    guest_deinit(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(slow_host_stops_the_guest),
            cmocka_unit_test(guest_to_host_never_stalls),
            cmocka_unit_test(many_small_pieces),
            cmocka_unit_test(slow_guest_stops_the_host),
            cmocka_unit_test(silent_guest_is_asked_for_credit_once),
            cmocka_unit_test(the_guest_may_ask_for_credit),
            cmocka_unit_test(counters_wrap_in_a_long_stream),
            cmocka_unit_test(turns_are_fair),
            cmocka_unit_test(transport_is_told_once),
            cmocka_unit_test(transport_is_told_again),
            cmocka_unit_test(no_buffer_no_loss),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
