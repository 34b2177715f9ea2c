/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device: where packets and descriptors meet connections.
 *
 * Packets of the guest find their connection by (our port, the guest's port),
 * are checked against its state, and go on to the unix socket (conn.c). What
 * has none is a REQUEST, or answered with RST from a bounded queue: while
 * that is full, the transport must not bring more (vsock_can_take()), so a
 * guest that sends and never receives stops itself.
 *
 * To the guest, connections with something to say wait in a list of turns.
 * One turn is one packet; who has more goes to the end of the list. The
 * transport pulls: vsock_next_packet() reads from the unix socket when there
 * is a buffer of the guest to read into, and no bytes wait on our side.
 *
 * The transport is told (rx_ready) each time that there is something after
 * there was nothing, and not while it has not taken all of that yet.
 */
#include "vsock/vsock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/fd.h"
#include "vsock/device.h"

#define CONNECT_TIMEOUT_MS                                                                                             \
    8000u /* a guest that swaps, or is emulated, may be that slow; less than the clients' own patience */
#define ACCEPT_AGAIN_MS 100u
#define ACCEPT_BATCH    16 /* connections at one wake-up, so that a flood of them leaves the others their turn */

void device_set_deadline(struct vsock *v, struct conn *c, uint32_t ms)
{
    c->deadline = deadline_after_ms(ms);
    if (!v->deadlines.armed || c->deadline < v->deadlines.deadline)
        loop_arm(v->loop, &v->deadlines, c->deadline);
}

void device_announce(struct vsock *v)
{
    bool before = v->announced;

    v->announced = vsock_has_packets(v);
    if (v->announced && !before && v->rx_ready)
        v->rx_ready(v->userdata);
}

void device_release(struct vsock *v, struct conn *c)
{
    table_release(&v->table, c);
    if (v->listener.added && !v->accept_again.armed)
        (void)loop_modify(v->loop, &v->listener, EPOLLIN);
}

/* Deadlines are rare, and most are taken back before they pass: one timer for the earliest, and a look at all
 * connections when it fires. */
static int deadlines_passed(struct loop_timer *timer)
{
    struct vsock *v = CONTAINER_OF(timer, struct vsock, deadlines);
    uint64_t now = clock_now_ms(), earliest = DEADLINE_NEVER;

    for (uint32_t i = 0; i < v->table.fresh; i++) {
        struct conn *c = &v->table.slots[i];

        if (c->state != CONN_FREE && c->deadline <= now)
            conn_expire(c);
        if (c->state != CONN_FREE)
            earliest = MIN(earliest, c->deadline);
    }
    if (earliest != DEADLINE_NEVER)
        loop_arm(v->loop, &v->deadlines, earliest);
    device_announce(v);
    return 0;
}

static int accept_is_possible_again(struct loop_timer *timer)
{
    struct vsock *v = CONTAINER_OF(timer, struct vsock, accept_again);

    (void)loop_modify(v->loop, &v->listener, EPOLLIN);
    return 0;
}

static int listener_ready(struct loop_fd *source, uint32_t events)
{
    struct vsock *v = CONTAINER_OF(source, struct vsock, listener);

    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct conn *c;
        int fd;

        if (table_full(&v->table)) {
            (void)loop_modify(v->loop, &v->listener, 0);
            break;
        }
        fd = accept4(v->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
                break;
            /* Out of descriptors or memory: the connection stays in the backlog and would wake us at once again. */
            (void)loop_modify(v->loop, &v->listener, 0);
            loop_arm(v->loop, &v->accept_again, deadline_after_ms(ACCEPT_AGAIN_MS));
            break;
        }
        c = table_take(&v->table);
        c->device = v;
        (void)conn_accept(c, fd);
    }
    device_announce(v);
    return 0;
}

static void reply_rst(struct vsock *v, const struct vsock_hdr *to)
{
    uint32_t at = (v->replies_first + v->replies_count) % VSOCK_REPLIES_MAX;

    if (!vsock_can_take(v)) {
        v->stats.dropped++;
        return;
    }
    v->replies[at] = (struct reply){.local_port = to->dst_port, .guest_port = to->src_port, .type = to->type};
    v->replies_count++;
}

static int connect_unix(const struct vsock *v, uint32_t port, int *ret_fd)
{
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];

    if ((size_t)snprintf(path, sizeof(path), "%s_%u", v->uds_path, port) >= sizeof(path))
        return -ENAMETOOLONG;
    return unix_connect(path, true, ret_fd);
}

static int open_connection(struct vsock *v, const struct vsock_hdr *request)
{
    struct conn *c;
    int fd, r;

    if (table_full(&v->table))
        return -EMFILE;
    r = connect_unix(v, request->dst_port, &fd);
    if (r < 0)
        return r;
    c = table_take(&v->table);
    c->device = v;
    return conn_open(c, fd, request);
}

static int take_unconnected(struct vsock *v, const struct vsock_hdr *hdr)
{
    if (hdr->op == VSOCK_OP_RST)
        return 0; /* never answered: two sides could go on for ever */
    if (hdr->op == VSOCK_OP_REQUEST && hdr->type == VSOCK_TYPE_STREAM) {
        if (open_connection(v, hdr) == 0)
            return 0;
        v->stats.refused++;
        reply_rst(v, hdr);
        return 0;
    }
    reply_rst(v, hdr);
    return VSOCK_PACKET_DROPPED;
}

/* Whether a REQUEST for c's ports is the guest's way to say that it knows nothing of c any more. */
static bool is_left_over(const struct conn *c)
{
    return c->state == CONN_DEAD || (c->state == CONN_CLOSING && c->told_shut == c->host_shut);
}

static int dispatch(struct vsock *v, const struct vsock_hdr *hdr, const struct iovec *payload, size_t count)
{
    struct conn *c;

    if (hdr->src_cid != v->guest_cid || hdr->dst_cid != VSOCK_HOST_CID)
        return VSOCK_PACKET_DROPPED;
    c = hdr->type == VSOCK_TYPE_STREAM ? table_find(&v->table, hdr->dst_port, hdr->src_port) : NULL;
    if (c && hdr->op == VSOCK_OP_REQUEST && is_left_over(c)) {
        conn_drop(c);
        c = NULL;
    }
    if (!c)
        return take_unconnected(v, hdr);
    return conn_take_packet(c, hdr, payload, count) ? 0 : VSOCK_PACKET_DROPPED;
}

int vsock_take_packet(struct vsock *v, const struct vsock_hdr *hdr, const struct iovec *payload, size_t count)
{
    int r;

    v->stats.packets_from_guest++;
    r = dispatch(v, hdr, payload, count);
    if (r == VSOCK_PACKET_DROPPED)
        v->stats.dropped++;
    device_announce(v);
    return r;
}

bool vsock_can_take(const struct vsock *v)
{
    return v->replies_count < VSOCK_REPLIES_MAX;
}

bool vsock_has_packets(const struct vsock *v)
{
    return v->replies_count > 0 || v->table.turn_first;
}

static bool next_reply(struct vsock *v, struct vsock_hdr *ret_hdr)
{
    const struct reply *reply = &v->replies[v->replies_first];

    if (v->replies_count == 0)
        return false;
    *ret_hdr = (struct vsock_hdr){
            .src_port = reply->local_port,
            .dst_port = reply->guest_port,
            .type = reply->type,
            .op = VSOCK_OP_RST,
    };
    v->replies_first = (v->replies_first + 1) % VSOCK_REPLIES_MAX;
    v->replies_count--;
    return true;
}

int vsock_next_packet(struct vsock *v, struct vsock_hdr *ret_hdr, const struct iovec *space, size_t count)
{
    bool found = next_reply(v, ret_hdr);

    /* A turn may come to nothing, when the socket had no more; as many turns as connections are enough to know. */
    for (uint32_t turns = v->table.used; turns > 0 && !found && v->table.turn_first; turns--)
        found = conn_next_packet(v->table.turn_first, ret_hdr, space, count);
    v->announced = found && vsock_has_packets(v);
    if (!found)
        return 0;
    ret_hdr->src_cid = VSOCK_HOST_CID;
    ret_hdr->dst_cid = v->guest_cid;
    v->stats.packets_to_guest++;
    return 1;
}

void vsock_reset(struct vsock *v)
{
    for (uint32_t i = 0; i < v->table.fresh; i++) {
        if (v->table.slots[i].state != CONN_FREE)
            conn_drop(&v->table.slots[i]);
    }
    v->replies_first = v->replies_count = 0;
    v->announced = false;
}

void vsock_get_stats(const struct vsock *v, struct vsock_stats *ret)
{
    *ret = v->stats;
    ret->connections = v->table.used;
}

static int check_options(const struct vsock_options *options)
{
    struct sockaddr_un addr;

    if (options->size != sizeof(*options) || !options->loop || !options->uds_path || !options->uds_path[0])
        return -EINVAL;
    if (options->guest_cid < VSOCK_GUEST_CID_MIN || options->guest_cid >= UINT32_MAX)
        return -EINVAL;
    if (options->max_connections > VSOCK_MAX_CONNECTIONS)
        return -EINVAL;
    if (strlen(options->uds_path) + sizeof("_4294967295") > sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    return 0;
}

static int add_listener(struct vsock *v, int fd)
{
    int r = fd_set_nonblock(fd, true);

    v->listener = (struct loop_fd){.fd = fd, .events = EPOLLIN, .ready = listener_ready};
    return r < 0 ? r : loop_add(v->loop, &v->listener);
}

int vsock_new(struct vsock **ret, const struct vsock_options *options)
{
    _cleanup_(vsock_freep) struct vsock *v = NULL;
    int r = check_options(options);

    if (r < 0)
        return r;
    v = calloc(1, sizeof(*v));
    if (!v)
        return -ENOMEM;
    v->loop = options->loop;
    v->guest_cid = options->guest_cid;
    v->connect_timeout_ms = options->connect_timeout_ms ? options->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    v->rx_ready = options->rx_ready;
    v->userdata = options->userdata;
    v->deadlines.expired = deadlines_passed;
    v->accept_again.expired = accept_is_possible_again;
    v->uds_path = strdup(options->uds_path);
    if (!v->uds_path)
        return -ENOMEM;
    r = table_init(&v->table, options->max_connections ? options->max_connections : VSOCK_MAX_CONNECTIONS);
    if (r >= 0 && options->listen_fd >= 0)
        r = add_listener(v, options->listen_fd);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(v);
    return 0;
}

void vsock_free(struct vsock *v)
{
    if (!v)
        return;
    vsock_reset(v);
    loop_remove(v->loop, &v->listener);
    loop_disarm(v->loop, &v->deadlines);
    loop_disarm(v->loop, &v->accept_again);
    table_deinit(&v->table);
    free(v->uds_path);
    free(v);
}
