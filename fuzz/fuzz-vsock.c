/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vsock core between a hostile guest and clumsy host programs: the input
 * is a list of steps, each a packet, a buffer for one, something that a host
 * program does to a real unix socket, or time that passes.
 *
 * Besides what the sanitizers see, it checks that no packet exceeds the
 * guest's credit or buffer, that the tables stay bounded, and at the end that
 * connections whose two peers are gone are gone too.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/fd.h"
#include "vsock/device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define GUEST_CID 3u
#define HOSTS     8u
#define PORTS     4u /* guest ports and host ports come from 0..3, so that they meet */
#define STEPS_MAX 2000

struct world {
    struct loop loop;
    struct vsock *v;
    char uds[64];
    int listen_fd, port_listener[PORTS / 2];
    int hosts[HOSTS];
    uint8_t bytes[VSOCK_MAX_PKT_PAYLOAD];
};

static struct world w;

static void remove_files(void)
{
    char path[80];

    (void)unlink(w.uds);
    for (unsigned i = 0; i < PORTS / 2; i++) {
        (void)snprintf(path, sizeof(path), "%s_%u", w.uds, i);
        (void)unlink(path);
    }
    *strrchr(w.uds, '/') = '\0';
    (void)rmdir(w.uds);
}

/* Sockets live as long as the process: making them for each input would be most of the work. */
static void set_up(void)
{
    static char dir[] = "/tmp/fuzz-vsock-XXXXXX";
    char path[80];

    if (w.uds[0])
        return;
    if (!mkdtemp(dir))
        abort();
    (void)snprintf(w.uds, sizeof(w.uds), "%s/v", dir);
    if (unix_listen(w.uds, 64, &w.listen_fd) < 0)
        abort();
    for (unsigned i = 0; i < PORTS / 2; i++) {
        (void)snprintf(path, sizeof(path), "%s_%u", w.uds, i);
        if (unix_listen(path, 64, &w.port_listener[i]) < 0 || fd_set_nonblock(w.port_listener[i], true) < 0)
            abort();
    }
    (void)atexit(remove_files);
}

static void serve(void)
{
    for (int i = 0; i < 4; i++)
        (void)loop_once(&w.loop, 0);
}

/* Half of the time a pair of ports that exists, so that packets meet their connection. */
static void choose_ports(struct rd *r, struct vsock_hdr *hdr)
{
    uint8_t which = rd_u8(r);

    hdr->src_port = which % PORTS;
    hdr->dst_port = which / PORTS % PORTS;
    if (which >= 0x80 && w.v->table.fresh > 0) {
        const struct conn *c = &w.v->table.slots[which % w.v->table.fresh];

        hdr->src_port = c->guest_port;
        hdr->dst_port = c->local_port;
    }
}

static void guest_sends(struct rd *r)
{
    struct vsock_hdr hdr = {.src_cid = GUEST_CID, .dst_cid = VSOCK_HOST_CID, .type = VSOCK_TYPE_STREAM};
    struct iovec payload[3];
    uint32_t len;

    choose_ports(r, &hdr);
    hdr.op = rd_u8(r) % 9;
    hdr.flags = rd_u8(r);
    len = rd_le16(r);
    hdr.len = hdr.op == VSOCK_OP_RW ? len : 0;
    hdr.buf_alloc = rd_le16(r) * 8u;
    hdr.fwd_cnt = rd_le16(r);
    payload[0] = (struct iovec){w.bytes, len / 3};
    payload[1] = (struct iovec){w.bytes, 0};
    payload[2] = (struct iovec){w.bytes + len / 3, len - len / 3};
    if (vsock_can_take(w.v))
        (void)vsock_take_packet(w.v, &hdr, payload, 3);
}

static void guest_sends_raw(struct rd *r)
{
    const uint8_t *raw = rd_bytes(r, VSOCK_HDR_SIZE);
    struct iovec payload = {w.bytes, sizeof(w.bytes)};
    struct vsock_hdr hdr;

    if (!raw)
        return;
    vsock_hdr_decode(&hdr, raw);
    if (vsock_can_take(w.v))
        (void)vsock_take_packet(w.v, &hdr, &payload, 1);
}

static bool guest_receives(uint32_t space)
{
    struct iovec pieces[2] = {{w.bytes, space / 2}, {w.bytes + space / 2, space - space / 2}};
    uint32_t room[VSOCK_MAX_CONNECTIONS];
    struct vsock_hdr hdr;
    uint32_t fresh = w.v->table.fresh;

    for (uint32_t i = 0; i < fresh; i++)
        room[i] = credit_room(&w.v->table.slots[i].credit);
    if (vsock_next_packet(w.v, &hdr, pieces, 2) == 0)
        return false;
    assert(hdr.len <= space && (hdr.op == VSOCK_OP_RW) == (hdr.len > 0));
    assert(hdr.src_cid == VSOCK_HOST_CID && hdr.dst_cid == GUEST_CID);
    for (uint32_t i = 0; i < fresh && hdr.len > 0; i++) {
        const struct conn *c = &w.v->table.slots[i];

        if (c->hashed && c->local_port == hdr.src_port && c->guest_port == hdr.dst_port)
            assert(hdr.len <= room[i]);
    }
    return true;
}

static void host_acts(struct rd *r)
{
    uint8_t act = rd_u8(r), *at;
    int *fd = &w.hosts[act % HOSTS];
    char line[32];
    int len;

    if (*fd < 0) {
        unsigned port = act / HOSTS % 4;

        if (port < PORTS / 2)
            *fd = accept4(w.port_listener[port], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        else
            (void)unix_connect(w.uds, true, fd);
        return;
    }
    switch (act / HOSTS % 8) {
    case 0:
        len = snprintf(line, sizeof(line), "CONNECT %u\n", rd_u8(r) % PORTS);
        (void)send(*fd, line, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 1:
        len = rd_u8(r) % 40;
        at = (uint8_t *)rd_bytes(r, (size_t)len);
        if (at)
            (void)send(*fd, at, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 2:
        (void)send(*fd, w.bytes, rd_le16(r), MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 3:
    case 4:
        (void)recv(*fd, w.bytes, rd_le16(r) + 1u, MSG_DONTWAIT);
        break;
    case 5:
        (void)shutdown(*fd, SHUT_WR);
        break;
    case 6:
        (void)shutdown(*fd, SHUT_RD);
        break;
    default:
        fd_close(*fd);
        *fd = -1;
        break;
    }
}

static void time_passes(void)
{
    for (uint32_t i = 0; i < w.v->table.fresh; i++) {
        if (w.v->table.slots[i].deadline != UINT64_MAX)
            w.v->table.slots[i].deadline = 0;
    }
    loop_arm(&w.loop, &w.v->deadlines, 0);
    serve();
}

static void step(struct rd *r)
{
    uint8_t kind = rd_u8(r);

    switch (kind % 16) {
    case 0 ... 5:
        guest_sends(r);
        break;
    case 6 ... 8:
        (void)guest_receives(kind < 128 ? 3732 : kind % 64 + 1u);
        break;
    case 9 ... 12:
        host_acts(r);
        break;
    case 13:
        serve();
        break;
    case 14:
        if (kind < 128)
            time_passes();
        else if (kind > 250)
            vsock_reset(w.v);
        break;
    default:
        guest_sends_raw(r);
        break;
    }
}

static void check_table(void)
{
    uint32_t used = 0, turns = 0;

    for (uint32_t i = 0; i < w.v->table.fresh; i++) {
        const struct conn *c = &w.v->table.slots[i];

        used += c->state != CONN_FREE;
        turns += c->in_turn;
        assert(c->state != CONN_FREE || (!c->hashed && !c->in_turn));
        assert(!c->hashed || table_find(&w.v->table, c->local_port, c->guest_port) == c);
        assert(c->ring.len <= c->ring.size);
        assert(c->state == CONN_FREE || c->credit.received - c->credit.forwarded == c->ring.len);
    }
    assert(used == w.v->table.used && used <= VSOCK_MAX_CONNECTIONS);
    assert((turns == 0) == !w.v->table.turn_first);
    assert(w.v->replies_count <= VSOCK_REPLIES_MAX);
    assert(!vsock_has_packets(w.v) || w.v->announced); /* else nobody would ever fetch them */
}

/* All host programs close, the guest resets what it has: nothing may stay. */
static void end_both_sides(void)
{
    for (unsigned i = 0; i < HOSTS; i++)
        fd_close(w.hosts[i]);
    for (unsigned i = 0; i < PORTS / 2; i++) {
        int fd;

        while ((fd = accept4(w.port_listener[i], NULL, NULL, SOCK_CLOEXEC)) >= 0)
            fd_close(fd);
    }
    for (int i = 0; i < 10; i++)
        serve();
    while (guest_receives(3732))
        ;
    for (uint32_t i = 0; i < w.v->table.fresh; i++) {
        const struct conn *c = &w.v->table.slots[i];
        struct vsock_hdr hdr = {.src_cid = GUEST_CID,
                .dst_cid = VSOCK_HOST_CID,
                .src_port = c->guest_port,
                .dst_port = c->local_port,
                .type = VSOCK_TYPE_STREAM,
                .op = VSOCK_OP_RST};

        if (c->hashed)
            (void)vsock_take_packet(w.v, &hdr, NULL, 0);
    }
    check_table();
    assert(w.v->table.used == 0);
    assert(!vsock_has_packets(w.v));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vsock_options options = {.size = sizeof(options), .loop = &w.loop, .guest_cid = GUEST_CID};
    struct rd r = rd_of(data, size);

    set_up();
    options.uds_path = w.uds;
    options.listen_fd = w.listen_fd;
    if (loop_init(&w.loop) < 0 || vsock_new(&w.v, &options) < 0)
        abort();
    for (unsigned i = 0; i < HOSTS; i++)
        w.hosts[i] = -1;
    for (int i = 0; i < STEPS_MAX && r.left > 0 && !r.failed; i++) {
        step(&r);
        check_table();
    }
    end_both_sides();
    vsock_free(w.v);
    loop_deinit(&w.loop);
    return 0;
}
