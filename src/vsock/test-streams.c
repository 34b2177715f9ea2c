/* SPDX-License-Identifier: Apache-2.0 */
/* What well-behaved programs on both sides see: handshakes, data, half-close, ends. */
#include "vsock/fake-guest.h"

#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"

#define BOTH (VSOCK_SHUTDOWN_RECEIVE | VSOCK_SHUTDOWN_SEND)

static void host_connects_and_talks(void **state)
{
    struct stream s = {0};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 52);
    host_write(fd, "ping", 4);
    guest_expect(&g, &s, VSOCK_OP_RW, &p);
    assert_int_equal(p.hdr.len, 4);
    assert_memory_equal(p.data, "ping", 4);
    guest_expect_nothing(&g);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, "pong", 4), 0);
    host_expect_bytes(&g, fd, "pong", 4);
    host_expect_silence(&g, fd);
    guest_expect_nothing(&g); /* four bytes are not worth a credit update */
    guest_deinit(&g);
}

static void bytes_after_the_line_are_not_lost(void **state)
{
    struct stream s = {.guest_port = 8, .alloc = 256u << 10};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = host_dial(&g);
    host_write(fd, "CONN", 4);
    guest_expect_nothing(&g);
    host_write(fd, "ECT 8\nearly", 11);
    assert_true(guest_receive(&g, NULL, &p));
    assert_int_equal(p.hdr.op, VSOCK_OP_REQUEST);
    guest_expect_nothing(&g); /* not before the guest accepted */
    s.host_port = p.hdr.src_port;
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RESPONSE, 0, NULL, 0), 0);
    guest_expect(&g, &s, VSOCK_OP_RW, &p);
    assert_int_equal(p.hdr.len, 5);
    assert_memory_equal(p.data, "early", 5);
    guest_deinit(&g);
}

static void bad_lines_close_the_connection(void **state)
{
    static const char *const lines[] = {"GET / HTTP/1.1\r\n", "CONNECT 4294967296\n", "CONNECT 1 2\n"};
    struct guest g;

    guest_init(&g, 0);
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        _cleanup_(fd_closep) int fd = host_dial(&g);
        char c;

        host_write(fd, lines[i], strlen(lines[i]));
        guest_run(&g, 0);
        assert_true(recv(fd, &c, 1, 0) <= 0);
        assert_int_equal(connections(&g), 0);
    }
    guest_expect_nothing(&g);
    guest_deinit(&g);
}

static void guest_refuses(void **state)
{
    struct stream s = {.guest_port = 9};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = host_dial(&g);
    host_write(fd, "CONNECT 9\n", 10);
    assert_true(guest_receive(&g, NULL, &p));
    s.host_port = p.hdr.src_port;
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RST, 0, NULL, 0), 0);
    host_expect_eof(&g, fd);
    assert_int_equal(connections(&g), 0);
    guest_expect_nothing(&g);
    guest_deinit(&g);
}

static void guest_connects_and_talks(void **state)
{
    struct stream s = {0};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int listener = -1, fd = -1;

    guest_init(&g, 0);
    listener = host_listen(&g, 1024);
    fd = connect_to_host(&g, &s, listener, 40000, 1024);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, "hello", 5), 0);
    host_expect_bytes(&g, fd, "hello", 5);
    host_write(fd, "hi", 2);
    guest_expect(&g, &s, VSOCK_OP_RW, &p);
    assert_memory_equal(p.data, "hi", 2);
    guest_deinit(&g);
}

static void nobody_listens(void **state)
{
    struct stream s = {.guest_port = 40000, .host_port = 1024};
    struct guest g;

    guest_init(&g, 0);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_REQUEST, 0, NULL, 0), 0);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    fd_close(host_listen(&g, 1024)); /* the socket's file is there, nobody behind it */
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_REQUEST, 0, NULL, 0), 0);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    assert_int_equal(connections(&g), 0);
    guest_deinit(&g);
}

static void host_half_closes(void **state)
{
    struct stream s = {0};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    host_write(fd, "last words", 10);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    guest_expect(&g, &s, VSOCK_OP_RW, &p);
    guest_expect(&g, &s, VSOCK_OP_SHUTDOWN, &p);
    assert_int_equal(p.hdr.flags, VSOCK_SHUTDOWN_SEND);
    guest_expect_nothing(&g);
    /* The other direction goes on, until the guest closes as Linux does. */
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, "answer", 6), 0);
    host_expect_bytes(&g, fd, "answer", 6);
    host_expect_silence(&g, fd);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_SHUTDOWN, BOTH, NULL, 0), 0);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    host_expect_eof(&g, fd);
    assert_int_equal(connections(&g), 0);
    guest_deinit(&g);
}

static void guest_half_closes(void **state)
{
    struct stream s = {0};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, "request", 7), 0);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_SEND, NULL, 0), 0);
    host_expect_bytes(&g, fd, "request", 7);
    host_expect_eof(&g, fd);
    host_write(fd, "answer", 6);
    guest_expect(&g, &s, VSOCK_OP_RW, &p);
    assert_memory_equal(p.data, "answer", 6);
    /* Now the host ends too: SHUTDOWN of both, which the guest answers with RST. */
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    guest_expect(&g, &s, VSOCK_OP_SHUTDOWN, &p);
    assert_int_equal(p.hdr.flags, BOTH);
    guest_expect_nothing(&g);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RST, 0, NULL, 0), 0);
    assert_int_equal(connections(&g), 0);
    guest_deinit(&g);
}

static void guest_stops_reading(void **state)
{
    struct stream s = {0};
    struct guest g;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_RECEIVE, NULL, 0), 0);
    guest_run(&g, 0);
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, "still here", 10), 0);
    host_expect_bytes(&g, fd, "still here", 10);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_SEND, NULL, 0), 0);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    host_expect_eof(&g, fd);
    assert_int_equal(connections(&g), 0);
    guest_deinit(&g);
}

static void host_stops_reading(void **state)
{
    struct stream s = {0};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    assert_int_equal(shutdown(fd, SHUT_RD), 0);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, "into the void", 13), 0);
    guest_expect(&g, &s, VSOCK_OP_SHUTDOWN, &p);
    assert_int_equal(p.hdr.flags, VSOCK_SHUTDOWN_RECEIVE);
    assert_int_equal(p.hdr.fwd_cnt, 13);
    /* What was under way is thrown away without a fuss. */
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, "more", 4), 0);
    host_write(fd, "heard you", 9);
    guest_expect(&g, &s, VSOCK_OP_RW, &p);
    assert_int_equal(p.hdr.fwd_cnt, 17);
    guest_deinit(&g);
}

static void host_sends_and_vanishes(void **state)
{
    struct stream s = {0};
    struct guest g;
    struct packet p;
    int fd;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    host_write(fd, "last words", 10);
    fd_close(fd);
    guest_expect(&g, &s, VSOCK_OP_RW, &p);
    assert_int_equal(p.hdr.len, 10);
    guest_expect(&g, &s, VSOCK_OP_SHUTDOWN, &p);
    assert_int_equal(p.hdr.flags, BOTH);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, "too late", 8), 0);
    guest_expect_nothing(&g);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RST, 0, NULL, 0), 0);
    assert_int_equal(connections(&g), 0);
    guest_deinit(&g);
}

static void guest_sends_and_closes(void **state)
{
    static char big[VSOCK_MAX_PKT_PAYLOAD];
    struct stream s = {0};
    struct guest g;
    _cleanup_(fd_closep) int fd = -1;
    size_t total = 0;
    ssize_t n;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    memset(big, 'x', sizeof(big));
    for (int i = 0; i < 4; i++) /* more than a unix socket takes */
        assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, big, sizeof(big)), 0);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_SHUTDOWN, BOTH, NULL, 0), 0);
    guest_expect_nothing(&g); /* RST would tell the guest that all has arrived */
    /* A guest that loses patience and resets still gets its bytes through. */
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RST, 0, NULL, 0), 0);
    assert_int_equal(connections(&g), 1);
    while ((n = recv(fd, big, sizeof(big), 0)) > 0) {
        total += (size_t)n;
        guest_run(&g, 0);
    }
    assert_int_equal(n, 0);
    assert_int_equal(total, 4 * sizeof(big));
    assert_int_equal(connections(&g), 0);
    guest_expect_nothing(&g);
    guest_deinit(&g);
}

static void rst_answers_a_close_once_all_is_written(void **state)
{
    static char big[VSOCK_MAX_PKT_PAYLOAD];
    struct stream s = {0};
    struct guest g;
    _cleanup_(fd_closep) int fd = -1;
    size_t total = 0;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, big, sizeof(big)), 0);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_SHUTDOWN, BOTH, NULL, 0), 0);
    while (total < 4 * sizeof(big)) {
        ssize_t n = recv(fd, big, sizeof(big), 0);

        assert_true(n > 0);
        total += (size_t)n;
        guest_run(&g, 0);
    }
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    host_expect_eof(&g, fd);
    guest_deinit(&g);
}

static void reset_ends_everything_but_the_listener(void **state)
{
    struct stream s = {0};
    struct guest g;
    _cleanup_(fd_closep) int a = -1, b = -1, c = -1;

    guest_init(&g, 0);
    a = connect_to_guest(&g, &s, 1);
    b = host_dial(&g);
    host_write(b, "CONNECT 2\n", 10);
    guest_run(&g, 0);
    assert_true(vsock_has_packets(g.v));
    vsock_reset(g.v);
    assert_false(vsock_has_packets(g.v));
    assert_int_equal(connections(&g), 0);
    host_expect_eof(&g, a);
    host_expect_eof(&g, b);
    guest_expect_nothing(&g);
    s = (struct stream){0};
    c = connect_to_guest(&g, &s, 1);
    assert_int_equal(connections(&g), 1);
    guest_deinit(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(host_connects_and_talks),
            cmocka_unit_test(bytes_after_the_line_are_not_lost),
            cmocka_unit_test(bad_lines_close_the_connection),
            cmocka_unit_test(guest_refuses),
            cmocka_unit_test(guest_connects_and_talks),
            cmocka_unit_test(nobody_listens),
            cmocka_unit_test(host_half_closes),
            cmocka_unit_test(guest_half_closes),
            cmocka_unit_test(guest_stops_reading),
            cmocka_unit_test(host_stops_reading),
            cmocka_unit_test(host_sends_and_vanishes),
            cmocka_unit_test(guest_sends_and_closes),
            cmocka_unit_test(rst_answers_a_close_once_all_is_written),
            cmocka_unit_test(reset_ends_everything_but_the_listener),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
