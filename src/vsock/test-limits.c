/* SPDX-License-Identifier: Apache-2.0 */
/* Full tables, timeouts, peers that vanish in each state, and guests that break the protocol. */
#include "vsock/fake-guest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"

#define BOTH     (VSOCK_SHUTDOWN_RECEIVE | VSOCK_SHUTDOWN_SEND)
#define SHORT_MS 60

static void raise_fd_limit(void)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur >= 4096)
        return;
    limit.rlim_cur = MIN((rlim_t)4096, limit.rlim_max);
    if (limit.rlim_cur < 3000 || setrlimit(RLIMIT_NOFILE, &limit) < 0)
        skip();
}

/* Both directions count, the guest is refused, a host waits until there is room. */
static void fewer_connections_when_told(void **state)
{
    enum { LIMIT = 3 };
    struct stream s[LIMIT + 2] = {0};
    int fds[LIMIT + 1];
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int listener = -1;

    guest_init_limited(&g, 0, LIMIT);
    listener = host_listen(&g, 5);
    fds[0] = connect_to_guest(&g, &s[0], 80);
    for (unsigned i = 1; i < LIMIT; i++)
        fds[i] = connect_to_host(&g, &s[i], listener, 1000 + i, 5);
    s[LIMIT] = (struct stream){.guest_port = 9999, .host_port = 5};
    assert_int_equal(guest_send(&g, &s[LIMIT], VSOCK_OP_REQUEST, 0, NULL, 0), 0);
    guest_expect(&g, &s[LIMIT], VSOCK_OP_RST, NULL);
    fds[LIMIT] = host_dial(&g);
    host_write(fds[LIMIT], "CONNECT 80\n", 11);
    guest_expect_nothing(&g);
    assert_int_equal(connections(&g), LIMIT);
    assert_int_equal(guest_send(&g, &s[1], VSOCK_OP_RST, 0, NULL, 0), 0);
    host_expect_eof(&g, fds[1]);
    assert_true(guest_receive(&g, NULL, &p));
    assert_int_equal(p.hdr.op, VSOCK_OP_REQUEST);
    assert_int_equal(connections(&g), LIMIT);
    for (unsigned i = 0; i <= LIMIT; i++)
        fd_close(fds[i]);
    guest_deinit(&g);
}

static void guest_fills_the_table(void **state)
{
    static int fds[VSOCK_MAX_CONNECTIONS];
    static struct stream s[VSOCK_MAX_CONNECTIONS + 1];
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int listener = -1;

    raise_fd_limit();
    guest_init(&g, 0);
    listener = host_listen(&g, 5);
    for (uint32_t i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
        fds[i] = connect_to_host(&g, &s[i], listener, 1000 + i, 5);
    assert_int_equal(connections(&g), VSOCK_MAX_CONNECTIONS);
    s[VSOCK_MAX_CONNECTIONS] = (struct stream){.guest_port = 9999, .host_port = 5};
    assert_int_equal(guest_send(&g, &s[VSOCK_MAX_CONNECTIONS], VSOCK_OP_REQUEST, 0, NULL, 0), 0);
    guest_expect(&g, &s[VSOCK_MAX_CONNECTIONS], VSOCK_OP_RST, NULL);
    /* All of them work. */
    for (uint32_t i = 0; i < VSOCK_MAX_CONNECTIONS; i++) {
        assert_int_equal(guest_send(&g, &s[i], VSOCK_OP_RW, 0, &i, sizeof(i)), 0);
        host_expect_bytes(&g, fds[i], &i, sizeof(i));
    }
    /* A place that becomes free is used again. */
    assert_int_equal(guest_send(&g, &s[500], VSOCK_OP_RST, 0, NULL, 0), 0);
    host_expect_eof(&g, fds[500]);
    fd_close(fds[500]);
    fds[500] = connect_to_host(&g, &s[VSOCK_MAX_CONNECTIONS], listener, 9999, 5);
    for (uint32_t i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
        fd_close(fds[i]);
    for (uint32_t i = 0; i < VSOCK_MAX_CONNECTIONS; i++) {
        assert_true(guest_receive(&g, NULL, &p));
        assert_int_equal(p.hdr.op, VSOCK_OP_SHUTDOWN);
        assert_int_equal(p.hdr.flags, BOTH);
    }
    guest_expect_nothing(&g);
    guest_deinit(&g);
}

static void host_fills_the_table(void **state)
{
    static int fds[VSOCK_MAX_CONNECTIONS + 1];
    static struct stream s[VSOCK_MAX_CONNECTIONS];
    struct guest g;
    struct packet p;

    raise_fd_limit();
    guest_init(&g, 0);
    for (uint32_t i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
        fds[i] = connect_to_guest(&g, &s[i], 80);
    for (uint32_t i = 1; i < VSOCK_MAX_CONNECTIONS; i++)
        assert_int_not_equal(s[i].host_port, s[i - 1].host_port);
    /* The next one waits in the backlog, without making the loop spin, until there is a place. */
    fds[VSOCK_MAX_CONNECTIONS] = host_dial(&g);
    host_write(fds[VSOCK_MAX_CONNECTIONS], "CONNECT 80\n", 11);
    guest_expect_nothing(&g);
    assert_int_equal(guest_send(&g, &s[7], VSOCK_OP_RST, 0, NULL, 0), 0);
    assert_true(guest_receive(&g, NULL, &p));
    assert_int_equal(p.hdr.op, VSOCK_OP_REQUEST);
    assert_int_equal(connections(&g), VSOCK_MAX_CONNECTIONS);
    for (uint32_t i = 0; i <= VSOCK_MAX_CONNECTIONS; i++)
        fd_close(fds[i]);
    guest_deinit(&g);
}

static void out_of_descriptors(void **state)
{
    struct rlimit limit, low;
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int fd = -1, next = -1;

    guest_init(&g, 0);
    fd = host_dial(&g);
    host_write(fd, "CONNECT 80\n", 11);
    next = fcntl(0, F_DUPFD_CLOEXEC, 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = (rlim_t)next;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    guest_expect_nothing(&g); /* and no spinning */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    guest_run(&g, 1000);
    assert_true(guest_receive(&g, NULL, &p));
    assert_int_equal(p.hdr.op, VSOCK_OP_REQUEST);
    guest_deinit(&g);
}

static void no_line_times_out(void **state)
{
    struct guest g;
    _cleanup_(fd_closep) int silent = -1, slow = -1;

    guest_init(&g, SHORT_MS);
    silent = host_dial(&g);
    slow = host_dial(&g);
    host_write(slow, "CONNECT 1", 9);
    guest_run(&g, 0);
    assert_int_equal(connections(&g), 2);
    for (uint64_t until = clock_now_ms() + 10 * SHORT_MS; connections(&g) > 0 && clock_now_ms() < until;)
        guest_run(&g, SHORT_MS);
    host_expect_eof(&g, silent);
    assert_int_equal(connections(&g), 0);
    guest_expect_nothing(&g);
    guest_deinit(&g);
}

static void no_response_times_out(void **state)
{
    struct stream s = {.guest_port = 1};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int asked = -1, not_asked = -1;

    guest_init(&g, SHORT_MS);
    asked = host_dial(&g);
    host_write(asked, "CONNECT 1\n", 10);
    assert_true(guest_receive(&g, NULL, &p));
    s.host_port = p.hdr.src_port;
    not_asked = host_dial(&g); /* a guest that gives no buffers never learns of this one */
    host_write(not_asked, "CONNECT 2\n", 10);
    guest_run(&g, 0);
    for (uint64_t until = clock_now_ms() + 10 * SHORT_MS; connections(&g) > 1 && clock_now_ms() < until;)
        guest_run(&g, SHORT_MS);
    host_expect_eof(&g, asked);
    host_expect_eof(&g, not_asked);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    guest_expect_nothing(&g);
    assert_int_equal(connections(&g), 0);
    /* The guest accepts after all. */
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RESPONSE, 0, NULL, 0), VSOCK_PACKET_DROPPED);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    guest_deinit(&g);
}

/* As though the time had passed. */
static void pass_deadline(struct guest *g, struct stream *s)
{
    struct conn *c = table_find(&g->v->table, s->host_port, s->guest_port);

    assert_non_null(c);
    assert_in_range(
            c->deadline, clock_now_ms() + VSOCK_CLOSE_TIMEOUT_MS - 1000, clock_now_ms() + VSOCK_CLOSE_TIMEOUT_MS);
    c->deadline = clock_now_ms();
    loop_arm(&g->loop, &g->v->deadlines, c->deadline);
    guest_run(g, 0);
}

static void no_answer_to_shutdown_times_out(void **state)
{
    struct stream s = {0};
    struct guest g;

    guest_init(&g, 0);
    fd_close(connect_to_guest(&g, &s, 1));
    guest_expect(&g, &s, VSOCK_OP_SHUTDOWN, NULL);
    pass_deadline(&g, &s);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    assert_int_equal(connections(&g), 0);
    guest_deinit(&g);
}

static void host_vanishes_early(void **state)
{
    struct stream s = {.guest_port = 1};
    struct guest g;
    struct packet p;
    int fd;

    guest_init(&g, 0);
    fd_close(host_dial(&g)); /* before its line */
    guest_expect_nothing(&g);
    fd = host_dial(&g); /* with half a line */
    host_write(fd, "CONN", 4);
    guest_run(&g, 0);
    fd_close(fd);
    guest_expect_nothing(&g);
    fd = host_dial(&g); /* before the guest was asked */
    host_write(fd, "CONNECT 1\n", 10);
    guest_run(&g, 0);
    assert_int_equal(connections(&g), 1);
    fd_close(fd);
    guest_expect_nothing(&g);
    fd = host_dial(&g); /* while the guest thinks about it */
    host_write(fd, "CONNECT 1\n", 10);
    assert_true(guest_receive(&g, NULL, &p));
    s.host_port = p.hdr.src_port;
    fd_close(fd);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    assert_int_equal(connections(&g), 0);
    guest_deinit(&g);
}

static void host_vanishes_before_the_response_is_sent(void **state)
{
    struct stream s = {.guest_port = 1, .host_port = 5, .alloc = 1000};
    struct guest g;
    struct packet p;
    _cleanup_(fd_closep) int listener = -1;

    guest_init(&g, 0);
    listener = host_listen(&g, 5);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_REQUEST, 0, NULL, 0), 0);
    fd_close(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    guest_expect(&g, &s, VSOCK_OP_RESPONSE, NULL);
    guest_expect(&g, &s, VSOCK_OP_SHUTDOWN, &p);
    assert_int_equal(p.hdr.flags, BOTH);
    /* Linux forgets the old pair of ports as soon as both directions are shut, and may use it anew. */
    fd_close(connect_to_host(&g, &s, listener, 1, 5));
    assert_int_equal(connections(&g), 1);
    guest_deinit(&g);
}

static void guest_vanishes_mid_stream(void **state)
{
    struct stream s = {0};
    struct guest g;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RW, 0, "half a mess", 11), 0);
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RST, 0, NULL, 0), 0);
    host_expect_bytes(&g, fd, "half a mess", 11);
    host_expect_eof(&g, fd);
    guest_expect_nothing(&g);
    assert_int_equal(connections(&g), 0);
    guest_deinit(&g);
}

static void packets_without_a_connection(void **state)
{
    struct stream s = {.guest_port = 77, .host_port = 88};
    struct guest g;
    struct vsock_hdr hdr = {.src_cid = GUEST_CID, .dst_cid = VSOCK_HOST_CID, .src_port = 77, .dst_port = 88, .type = 2};
    struct packet p;

    guest_init(&g, 0);
    for (int op = 0; op <= 9; op++) {
        if (op == VSOCK_OP_REQUEST || op == VSOCK_OP_RST)
            continue;
        assert_int_equal(guest_send(&g, &s, (enum vsock_op)op, 0, "x", 1), VSOCK_PACKET_DROPPED);
        guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    }
    (void)guest_send(&g, &s, VSOCK_OP_RST, 0, NULL, 0);
    guest_expect_nothing(&g);
    /* Another type than stream: RST of the same type. */
    hdr.op = VSOCK_OP_REQUEST;
    assert_int_equal(guest_send_raw(&g, &hdr, NULL), VSOCK_PACKET_DROPPED);
    assert_true(guest_receive(&g, NULL, &p));
    assert_int_equal(p.hdr.op, VSOCK_OP_RST);
    assert_int_equal(p.hdr.type, 2);
    /* Neither from us nor to us. */
    hdr.type = VSOCK_TYPE_STREAM;
    hdr.src_cid = GUEST_CID + 1;
    assert_int_equal(guest_send_raw(&g, &hdr, NULL), VSOCK_PACKET_DROPPED);
    hdr.src_cid = GUEST_CID | 1ull << 32;
    assert_int_equal(guest_send_raw(&g, &hdr, NULL), VSOCK_PACKET_DROPPED);
    hdr.src_cid = GUEST_CID;
    hdr.dst_cid = 1;
    assert_int_equal(guest_send_raw(&g, &hdr, NULL), VSOCK_PACKET_DROPPED);
    guest_expect_nothing(&g);
    guest_deinit(&g);
}

static void illegal_packets_reset_their_connection(void **state)
{
    static const uint8_t bytes[VSOCK_MAX_PKT_PAYLOAD + 1];
    static const struct {
        enum vsock_op op, before;
        uint32_t flags, len, there;
    } cases[] = {
            {VSOCK_OP_REQUEST, 0, 0, 0, 0}, {VSOCK_OP_RESPONSE, 0, 0, 0, 0}, {VSOCK_OP_INVALID, 0, 0, 0, 0},
            {(enum vsock_op)8, 0, 0, 0, 0}, {(enum vsock_op)0xffff, 0, 0, 0, 0},
            {VSOCK_OP_RW, 0, 0, VSOCK_MAX_PKT_PAYLOAD + 1, VSOCK_MAX_PKT_PAYLOAD + 1},
            {VSOCK_OP_RW, 0, 0, UINT32_MAX, 100},
            {VSOCK_OP_RW, 0, 0, 101, 100}, /* the transport's view is shorter than the header says */
            {VSOCK_OP_RW, 0, 0, 1, 0},
            {VSOCK_OP_RW, VSOCK_OP_SHUTDOWN, 0, 10, 10}, /* after "I will not send any more" */
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct stream s = {0}, other = {0};
        struct iovec payload = {(void *)bytes, cases[i].there};
        struct vsock_hdr hdr;
        struct guest g;
        struct packet p;
        _cleanup_(fd_closep) int fd = -1, other_fd = -1;

        guest_init(&g, 0);
        fd = connect_to_guest(&g, &s, 1);
        other_fd = connect_to_guest(&g, &other, 2);
        if (cases[i].before)
            (void)guest_send(&g, &s, cases[i].before, VSOCK_SHUTDOWN_SEND, NULL, 0);
        hdr = (struct vsock_hdr){.src_cid = GUEST_CID,
                .dst_cid = VSOCK_HOST_CID,
                .src_port = s.guest_port,
                .dst_port = s.host_port,
                .len = cases[i].len,
                .type = VSOCK_TYPE_STREAM,
                .op = (uint16_t)cases[i].op,
                .flags = cases[i].flags,
                .buf_alloc = s.alloc};
        assert_int_equal(vsock_take_packet(g.v, &hdr, &payload, 1), VSOCK_PACKET_DROPPED);
        host_expect_eof(&g, fd);
        guest_expect(&g, &s, VSOCK_OP_RST, NULL);
        guest_expect_nothing(&g);
        assert_int_equal(connections(&g), 1);
        host_write(other_fd, "ok", 2);
        guest_expect(&g, &other, VSOCK_OP_RW, &p);
        guest_deinit(&g);
    }
}

static void data_past_credit_resets(void **state)
{
    static const uint8_t bytes[VSOCK_MAX_PKT_PAYLOAD];
    struct stream s = {0};
    struct guest g;
    _cleanup_(fd_closep) int fd = -1;
    int r = 0, packets = 0;

    guest_init(&g, 0);
    fd = connect_to_guest(&g, &s, 1);
    assert_true(fd >= 0);
    while (r == 0 && packets++ < 100)
        r = guest_send(&g, &s, VSOCK_OP_RW, 0, bytes, sizeof(bytes));
    assert_int_equal(r, VSOCK_PACKET_DROPPED);
    assert_in_range(packets, 5, 12);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    assert_int_equal(connections(&g), 0);
    guest_deinit(&g);
}

static void early_packets_reset_the_request(void **state)
{
    static const enum vsock_op ops[] = {VSOCK_OP_RW, VSOCK_OP_SHUTDOWN, VSOCK_OP_CREDIT_UPDATE, VSOCK_OP_REQUEST};

    for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
        struct stream s = {.guest_port = 1};
        struct guest g;
        struct packet p;
        _cleanup_(fd_closep) int fd = -1;

        guest_init(&g, 0);
        fd = host_dial(&g);
        host_write(fd, "CONNECT 1\n", 10);
        assert_true(guest_receive(&g, NULL, &p));
        s.host_port = p.hdr.src_port;
        assert_int_equal(guest_send(&g, &s, ops[i], 0, "x", ops[i] == VSOCK_OP_RW), VSOCK_PACKET_DROPPED);
        host_expect_eof(&g, fd);
        guest_expect(&g, &s, VSOCK_OP_RST, NULL);
        guest_deinit(&g);
    }
}

static void a_guess_at_the_port_is_no_response(void **state)
{
    struct stream s = {.guest_port = 1, .host_port = VSOCK_HOST_PORT_BASE};
    struct guest g;
    _cleanup_(fd_closep) int fd = -1;

    guest_init(&g, 0);
    fd = host_dial(&g);
    host_write(fd, "CONNECT 1\n", 10);
    guest_run(&g, 0);
    /* The REQUEST did not go out yet. */
    assert_int_equal(guest_send(&g, &s, VSOCK_OP_RESPONSE, 0, NULL, 0), VSOCK_PACKET_DROPPED);
    host_expect_eof(&g, fd);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    guest_deinit(&g);
}

static void reply_queue_is_bounded(void **state)
{
    struct stream s = {.guest_port = 1, .host_port = 2};
    struct guest g;
    struct vsock_stats stats;
    unsigned n = 0;

    guest_init(&g, 0);
    while (vsock_can_take(g.v)) {
        (void)guest_send(&g, &s, VSOCK_OP_RW, 0, "x", 1);
        assert_true(n++ < 10000);
    }
    assert_int_equal(n, VSOCK_REPLIES_MAX);
    guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    assert_true(vsock_can_take(g.v));
    while (--n > 0)
        guest_expect(&g, &s, VSOCK_OP_RST, NULL);
    guest_expect_nothing(&g);
    vsock_get_stats(g.v, &stats);
    assert_int_equal(stats.dropped, VSOCK_REPLIES_MAX);
    guest_deinit(&g);
}

static void options_are_checked(void **state)
{
    struct loop loop;
    struct vsock *v = NULL;
    char path[128];
    struct vsock_options good = {
            .size = sizeof(good), .loop = &loop, .guest_cid = 3, .uds_path = "/x", .listen_fd = -1};
    struct vsock_options bad;

    assert_int_equal(loop_init(&loop), 0);
    bad = good;
    bad.size = 8;
    assert_int_equal(vsock_new(&v, &bad), -EINVAL);
    bad = good;
    bad.guest_cid = VSOCK_HOST_CID;
    assert_int_equal(vsock_new(&v, &bad), -EINVAL);
    bad.guest_cid = UINT32_MAX;
    assert_int_equal(vsock_new(&v, &bad), -EINVAL);
    bad = good;
    bad.max_connections = VSOCK_MAX_CONNECTIONS + 1;
    assert_int_equal(vsock_new(&v, &bad), -EINVAL);
    bad = good;
    bad.listen_fd = 4095; /* not open */
    assert_int_equal(vsock_new(&v, &bad), -EBADF);
    memset(path, 'a', sizeof(path));
    path[97] = '\0';
    bad = good;
    bad.uds_path = path;
    assert_int_equal(vsock_new(&v, &bad), -ENAMETOOLONG);
    path[96] = '\0';
    assert_null(v);
    assert_int_equal(vsock_new(&v, &bad), 0);
    vsock_free(v);
    vsock_free(NULL);
    loop_deinit(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(fewer_connections_when_told),
            cmocka_unit_test(guest_fills_the_table),
            cmocka_unit_test(host_fills_the_table),
            cmocka_unit_test(out_of_descriptors),
            cmocka_unit_test(no_line_times_out),
            cmocka_unit_test(no_response_times_out),
            cmocka_unit_test(no_answer_to_shutdown_times_out),
            cmocka_unit_test(host_vanishes_early),
            cmocka_unit_test(host_vanishes_before_the_response_is_sent),
            cmocka_unit_test(guest_vanishes_mid_stream),
            cmocka_unit_test(packets_without_a_connection),
            cmocka_unit_test(illegal_packets_reset_their_connection),
            cmocka_unit_test(data_past_credit_resets),
            cmocka_unit_test(early_packets_reset_the_request),
            cmocka_unit_test(a_guess_at_the_port_is_no_response),
            cmocka_unit_test(reply_queue_is_bounded),
            cmocka_unit_test(options_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
