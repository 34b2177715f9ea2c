/* SPDX-License-Identifier: Apache-2.0 */
#include "vsock/conn.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "vsock/connect-line.h"
#include "vsock/device.h"

#define SHUT_BOTH    (VSOCK_SHUTDOWN_RECEIVE | VSOCK_SHUTDOWN_SEND)
#define EVENTS_IN    (EPOLLIN | EPOLLRDHUP | EPOLLET)
#define EVENTS_INOUT (EVENTS_IN | EPOLLOUT)

static struct table *table_of(struct conn *c)
{
    return &c->device->table;
}

/* What the connection holds on the host's side: the descriptor and the bytes that wait for it. */
static void close_unix(struct conn *c)
{
    if (c->source.fd < 0)
        return;
    loop_remove(c->device->loop, &c->source);
    fd_close(c->source.fd);
    c->source.fd = -1;
    c->readable = false;
    credit_forward(&c->credit, c->ring.len);
    ring_drop(&c->ring, c->ring.len);
}

void conn_drop(struct conn *c)
{
    close_unix(c);
    device_release(c->device, c);
}

void conn_abort(struct conn *c)
{
    close_unix(c);
    c->state = CONN_DEAD;
    c->pending = PENDING_RST;
    c->deadline = DEADLINE_NEVER;
    table_turn_add(table_of(c), c);
}

static bool guest_to_host_ended(const struct conn *c)
{
    return (c->host_shut & VSOCK_SHUTDOWN_RECEIVE) || ((c->guest_shut & VSOCK_SHUTDOWN_SEND) && c->ring.len == 0);
}

static bool host_to_guest_ended(const struct conn *c)
{
    return (c->host_shut & VSOCK_SHUTDOWN_SEND) || (c->guest_shut & VSOCK_SHUTDOWN_RECEIVE);
}

static bool may_read(const struct conn *c)
{
    return c->state == CONN_ESTABLISHED && c->readable && !c->out_of_credit && !host_to_guest_ended(c);
}

/* A guest that will not send any more has no use for a window. */
static bool update_due(const struct conn *c)
{
    return c->state == CONN_ESTABLISHED && !(c->guest_shut & VSOCK_SHUTDOWN_SEND) &&
           credit_update_due(&c->credit, VSOCK_BUF_ALLOC);
}

static bool has_work(const struct conn *c)
{
    return c->pending != 0 || (c->host_shut & ~c->told_shut) != 0 || may_read(c) || update_due(c);
}

/* Out of credit at zero; back in it once a packet of decent size may go, or with any amount after a probe: a guest
 * that updates us only when asked would otherwise wait for ever. */
static void settle_credit(struct conn *c)
{
    uint32_t room = credit_room(&c->credit), enough = c->credit.guest_alloc / 4;

    if (!c->readable || host_to_guest_ended(c))
        return;
    if (c->out_of_credit) {
        enough = c->probed ? 1 : MAX(MIN(enough, VSOCK_RESUME_BYTES), 1u);
        if (room < enough)
            return;
        c->out_of_credit = false;
        c->deadline = DEADLINE_NEVER;
    } else if (room == 0) {
        c->out_of_credit = true;
        c->probed = false;
        device_set_deadline(c->device, c, VSOCK_CREDIT_PROBE_MS);
    }
}

/* The unix side of directions that ended, and the connection's end when both did. */
static void settle_established(struct conn *c)
{
    if (guest_to_host_ended(c) && host_to_guest_ended(c)) {
        close_unix(c);
        if (c->guest_shut == SHUT_BOTH) {
            conn_abort(c);
            return;
        }
        c->state = CONN_CLOSING;
        c->host_shut = SHUT_BOTH;
        c->pending &= PENDING_RESPONSE;
        device_set_deadline(c->device, c, VSOCK_CLOSE_TIMEOUT_MS);
        return;
    }
    if (guest_to_host_ended(c) && !c->write_closed) {
        c->write_closed = true;
        (void)shutdown(c->source.fd, SHUT_WR);
    }
    if ((c->guest_shut & VSOCK_SHUTDOWN_RECEIVE) && !c->read_closed) {
        c->read_closed = true;
        (void)shutdown(c->source.fd, SHUT_RD);
    }
    settle_credit(c);
}

/* Draws the conclusions from what an event changed. May free the slot: nobody looks at c after it. */
static void conn_settle(struct conn *c)
{
    if (c->state == CONN_ESTABLISHED)
        settle_established(c);
    if (c->state == CONN_CLOSING && c->guest_shut == SHUT_BOTH)
        conn_abort(c);
    if (c->state == CONN_DRAINING && guest_to_host_ended(c)) {
        conn_drop(c);
        return;
    }
    if (has_work(c))
        table_turn_add(table_of(c), c);
    else
        table_turn_remove(table_of(c), c);
}

/* The unix side takes nothing any more; what waits for it is thrown away, so that the guest's window stays right. */
static void refuse_writes(struct conn *c)
{
    c->host_shut |= VSOCK_SHUTDOWN_RECEIVE;
    credit_forward(&c->credit, c->ring.len);
    ring_drop(&c->ring, c->ring.len);
}

/* Returns how many of `len` bytes the socket took. */
static uint32_t write_unix(struct conn *c, struct iovec *pieces, size_t count, uint32_t len)
{
    struct msghdr msg = {.msg_iov = pieces, .msg_iovlen = count};
    uint32_t written;
    ssize_t n;

    do
        n = sendmsg(c->source.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN) {
        refuse_writes(c);
        return 0;
    }
    written = n > 0 ? (uint32_t)n : 0;
    credit_forward(&c->credit, written);
    /* Asking for the edge looks at the socket's state as well, so room that came since the write is not missed. */
    if (written < len && loop_modify(c->device->loop, &c->source, EVENTS_INOUT) < 0)
        refuse_writes(c);
    return written;
}

static void flush_ring(struct conn *c)
{
    if (c->ring.len == 0) {
        (void)loop_modify(c->device->loop, &c->source, EVENTS_IN);
        return;
    }
    while (c->ring.len > 0) {
        struct iovec pieces[2];
        size_t count = ring_peek(&c->ring, pieces);
        uint32_t len = c->ring.len, written = write_unix(c, pieces, count, len);

        if (c->host_shut & VSOCK_SHUTDOWN_RECEIVE)
            return;
        ring_drop(&c->ring, written);
        if (written < len)
            return;
    }
}

/* Copies descriptors of pieces, cut to `len` bytes together; *ret_len is what they came to. */
static size_t cut_pieces(
        struct iovec cut[VSOCK_IOV_MAX], const struct iovec *pieces, size_t count, uint32_t len, uint32_t *ret_len)
{
    uint32_t left = len;
    size_t n = 0;

    for (size_t i = 0; i < count && n < VSOCK_IOV_MAX && left > 0; i++) {
        if (pieces[i].iov_len == 0)
            continue;
        cut[n] = pieces[i];
        cut[n].iov_len = MIN(cut[n].iov_len, (size_t)left);
        left -= (uint32_t)cut[n++].iov_len;
    }
    *ret_len = len - left;
    return n;
}

static bool holds_bytes(const struct iovec *pieces, size_t count, size_t len)
{
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].iov_len >= len)
            return true;
        len -= pieces[i].iov_len;
    }
    return len == 0;
}

/* Straight from the guest's memory to the socket when nothing waits before it; the rest is copied. */
static bool take_data(struct conn *c, const struct vsock_hdr *hdr, const struct iovec *payload, size_t count)
{
    struct iovec pieces[VSOCK_IOV_MAX];
    uint32_t len = hdr->len, tried = 0, written = 0;

    if (len > VSOCK_MAX_PKT_PAYLOAD || !holds_bytes(payload, count, len) || (c->guest_shut & VSOCK_SHUTDOWN_SEND) ||
            !credit_receive(&c->credit, len, VSOCK_BUF_ALLOC))
        return false;
    c->device->stats.bytes_from_guest += len;
    if (len > 0 && c->ring.len == 0 && !(c->host_shut & VSOCK_SHUTDOWN_RECEIVE)) {
        size_t n = cut_pieces(pieces, payload, count, len, &tried);

        written = write_unix(c, pieces, n, tried);
    }
    if (c->host_shut & VSOCK_SHUTDOWN_RECEIVE) {
        credit_forward(&c->credit, len - written);
    } else if (written < len) {
        ring_put(&c->ring, payload, count, written, len - written);
        if (written == tried && tried > 0)
            flush_ring(c); /* there were more pieces than one call takes */
    }
    return true;
}

/* The guest accepted. The line is the first thing that is written to this socket: it fits, or the peer is gone. */
static void take_response(struct conn *c)
{
    char line[sizeof("OK 4294967295\n")];
    int len = snprintf(line, sizeof(line), "OK %u\n", c->local_port);

    c->state = CONN_ESTABLISHED;
    c->deadline = DEADLINE_NEVER;
    c->readable = true; /* edges so far were not acted on */
    if (send(c->source.fd, line, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) != len)
        c->host_shut |= VSOCK_SHUTDOWN_RECEIVE;
}

static void take_rst(struct conn *c)
{
    if (c->state == CONN_REQUESTING)
        c->device->stats.refused++;
    /* The guest sent all that it wanted to send: a slow reader still gets it. */
    if (c->state == CONN_ESTABLISHED && (c->guest_shut & VSOCK_SHUTDOWN_SEND) && !guest_to_host_ended(c)) {
        c->state = CONN_DRAINING;
        c->pending = 0;
        c->host_shut |= VSOCK_SHUTDOWN_SEND;
        c->told_shut = SHUT_BOTH;
        c->deadline = DEADLINE_NEVER;
        table_unhash(table_of(c), c);
        conn_settle(c);
        return;
    }
    conn_drop(c);
}

static bool op_is_legal(const struct conn *c, uint16_t op)
{
    switch (op) {
    case VSOCK_OP_RESPONSE:
        return c->state == CONN_REQUESTING && !(c->pending & PENDING_REQUEST);
    case VSOCK_OP_SHUTDOWN:
    case VSOCK_OP_RW:
    case VSOCK_OP_CREDIT_UPDATE:
    case VSOCK_OP_CREDIT_REQUEST:
        return c->state == CONN_ESTABLISHED || c->state == CONN_CLOSING;
    default:
        return false;
    }
}

bool conn_take_packet(struct conn *c, const struct vsock_hdr *hdr, const struct iovec *payload, size_t count)
{
    bool good;

    if (hdr->op == VSOCK_OP_RST) {
        take_rst(c);
        return true;
    }
    if (c->state == CONN_DEAD)
        return true; /* sent before the guest could know */
    good = op_is_legal(c, hdr->op);
    if (good) {
        credit_heard(&c->credit, hdr->buf_alloc, hdr->fwd_cnt);
        if (hdr->op == VSOCK_OP_RESPONSE)
            take_response(c);
        else if (hdr->op == VSOCK_OP_SHUTDOWN)
            c->guest_shut |= hdr->flags & SHUT_BOTH;
        else if (hdr->op == VSOCK_OP_RW)
            good = take_data(c, hdr, payload, count);
        else if (hdr->op == VSOCK_OP_CREDIT_REQUEST)
            c->pending |= PENDING_CREDIT_UPDATE;
    }
    if (!good) {
        conn_abort(c);
        return false;
    }
    conn_settle(c);
    return true;
}

/* Reads the CONNECT line and not a byte more: what follows it is for the guest. */
static void read_connect_line(struct conn *c, bool hung_up)
{
    char line[CONNECT_LINE_MAX];
    ssize_t n = recv(c->source.fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
    int len = n > 0 ? connect_line_parse(line, (size_t)n, &c->guest_port) : 0;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || len < 0 || hung_up || (len > 0 && recv(c->source.fd, line, (size_t)len, MSG_DONTWAIT) != len)) {
        conn_drop(c);
        return;
    }
    if (len == 0)
        return;
    c->local_port = table_unused_port(table_of(c));
    c->state = CONN_REQUESTING;
    c->pending = PENDING_REQUEST;
    device_set_deadline(c->device, c, c->device->connect_timeout_ms);
    table_hash(table_of(c), c);
    table_turn_add(table_of(c), c);
}

/* The guest did not accept yet, and it is of no use any more that it does. */
static void give_up(struct conn *c)
{
    if (c->state == CONN_REQUESTING && !(c->pending & PENDING_REQUEST))
        conn_abort(c);
    else
        conn_drop(c);
}

static int unix_event(struct loop_fd *source, uint32_t events)
{
    struct conn *c = CONTAINER_OF(source, struct conn, source);
    struct vsock *v = c->device;
    bool hung_up = (events & (EPOLLHUP | EPOLLERR)) != 0;

    switch (c->state) {
    case CONN_AWAIT_LINE:
        read_connect_line(c, hung_up);
        break;
    case CONN_REQUESTING:
        if (hung_up)
            give_up(c);
        break;
    case CONN_ESTABLISHED:
    case CONN_DRAINING:
        if (events & ~(uint32_t)EPOLLOUT)
            c->readable = true;
        if (hung_up)
            refuse_writes(c);
        else if (events & EPOLLOUT)
            flush_ring(c);
        conn_settle(c);
        break;
    default:
        break;
    }
    device_announce(v);
    return 0;
}

static int watch(struct conn *c, int fd)
{
    int r;

    c->source = (struct loop_fd){.fd = fd, .events = EVENTS_IN, .ready = unix_event};
    r = loop_add(c->device->loop, &c->source);
    if (r < 0)
        conn_drop(c);
    return r;
}

int conn_accept(struct conn *c, int fd)
{
    c->state = CONN_AWAIT_LINE;
    device_set_deadline(c->device, c, c->device->connect_timeout_ms);
    return watch(c, fd);
}

int conn_open(struct conn *c, int fd, const struct vsock_hdr *request)
{
    int r;

    c->state = CONN_ESTABLISHED;
    c->local_port = request->dst_port;
    c->guest_port = request->src_port;
    credit_heard(&c->credit, request->buf_alloc, request->fwd_cnt);
    r = watch(c, fd);
    if (r < 0)
        return r;
    c->pending = PENDING_RESPONSE;
    c->readable = true;
    table_hash(table_of(c), c);
    conn_settle(c);
    return 0;
}

/* Bytes from the socket straight into the guest's buffers; 0 when there are none now. */
static uint32_t read_unix(struct conn *c, const struct iovec *space, size_t count)
{
    struct iovec pieces[VSOCK_IOV_MAX];
    uint32_t max = MIN(credit_room(&c->credit), (uint32_t)VSOCK_MAX_PKT_PAYLOAD), len;
    size_t n = cut_pieces(pieces, space, count, max, &len);
    ssize_t got;

    if (len == 0)
        return 0;
    do
        got = readv(c->source.fd, pieces, (int)n);
    while (got < 0 && errno == EINTR);
    if (got > 0) {
        credit_sent(&c->credit, (uint32_t)got);
        c->device->stats.bytes_to_guest += (uint64_t)got;
        return (uint32_t)got;
    }
    c->readable = false;
    if (got == 0 || errno != EAGAIN)
        c->host_shut |= VSOCK_SHUTDOWN_SEND;
    if (got < 0 && errno != EAGAIN)
        refuse_writes(c);
    return 0;
}

/* The most urgent control packet, VSOCK_OP_INVALID for none; forgets that it was pending. */
static enum vsock_op next_control(struct conn *c)
{
    static const struct {
        uint8_t bit;
        enum vsock_op op;
    } order[] = {
            {PENDING_CREDIT_REQUEST, VSOCK_OP_CREDIT_REQUEST},
            {PENDING_CREDIT_UPDATE, VSOCK_OP_CREDIT_UPDATE},
    };

    if (c->host_shut & ~c->told_shut) {
        c->told_shut = c->host_shut;
        return VSOCK_OP_SHUTDOWN;
    }
    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        if (c->pending & order[i].bit) {
            c->pending &= (uint8_t)~order[i].bit;
            return order[i].op;
        }
    }
    return update_due(c) ? VSOCK_OP_CREDIT_UPDATE : VSOCK_OP_INVALID;
}

/* A handshake packet before anything else, data before the rest: it carries our credit, and its end is what a
 * SHUTDOWN has to wait for. */
static enum vsock_op next_op(struct conn *c, const struct iovec *space, size_t count, uint32_t *ret_len)
{
    *ret_len = 0;
    if (c->pending & PENDING_RST)
        return VSOCK_OP_RST;
    if (c->pending & (PENDING_REQUEST | PENDING_RESPONSE)) {
        bool request = (c->pending & PENDING_REQUEST) != 0;

        c->pending &= (uint8_t) ~(PENDING_REQUEST | PENDING_RESPONSE);
        return request ? VSOCK_OP_REQUEST : VSOCK_OP_RESPONSE;
    }
    if (may_read(c)) {
        *ret_len = read_unix(c, space, count);
        if (*ret_len > 0) {
            c->pending &= (uint8_t)~PENDING_CREDIT_UPDATE;
            return VSOCK_OP_RW;
        }
        if (c->state == CONN_ESTABLISHED)
            settle_established(c);
        if (c->pending & PENDING_RST)
            return VSOCK_OP_RST;
    }
    return next_control(c);
}

bool conn_next_packet(struct conn *c, struct vsock_hdr *ret_hdr, const struct iovec *space, size_t count)
{
    uint32_t len;
    enum vsock_op op = next_op(c, space, count, &len);

    if (op != VSOCK_OP_INVALID) {
        *ret_hdr = (struct vsock_hdr){
                .src_port = c->local_port,
                .dst_port = c->guest_port,
                .len = len,
                .type = VSOCK_TYPE_STREAM,
                .op = op,
                .flags = op == VSOCK_OP_SHUTDOWN ? c->told_shut : 0,
                .buf_alloc = VSOCK_BUF_ALLOC,
                .fwd_cnt = credit_tell(&c->credit),
        };
    }
    if (op == VSOCK_OP_RST) {
        conn_drop(c);
        return true;
    }
    table_turn_remove(table_of(c), c);
    conn_settle(c);
    return op != VSOCK_OP_INVALID;
}

void conn_expire(struct conn *c)
{
    c->deadline = DEADLINE_NEVER;
    switch (c->state) {
    case CONN_AWAIT_LINE:
    case CONN_REQUESTING:
        give_up(c);
        break;
    case CONN_ESTABLISHED:
        if (c->out_of_credit && !host_to_guest_ended(c)) {
            c->probed = true;
            c->pending |= PENDING_CREDIT_REQUEST;
            conn_settle(c);
        }
        break;
    case CONN_CLOSING:
        conn_abort(c);
        break;
    default:
        break;
    }
}
