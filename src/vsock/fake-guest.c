/* SPDX-License-Identifier: Apache-2.0 */
#include "vsock/fake-guest.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"

static void rx_ready(void *userdata)
{
    struct guest *g = userdata;

    g->ready_calls++;
}

void guest_init(struct guest *g, uint32_t connect_timeout_ms)
{
    guest_init_limited(g, connect_timeout_ms, 0);
}

void guest_init_limited(struct guest *g, uint32_t connect_timeout_ms, uint32_t max_connections)
{
    struct vsock_options options = {.size = sizeof(options),
            .loop = &g->loop,
            .guest_cid = GUEST_CID,
            .connect_timeout_ms = connect_timeout_ms,
            .max_connections = max_connections,
            .rx_ready = rx_ready,
            .userdata = g};

    *g = (struct guest){.dir = "/tmp/test-vsock-XXXXXX", .space = GUEST_SPACE};
    assert_non_null(mkdtemp(g->dir));
    (void)snprintf(g->uds, sizeof(g->uds), "%s/v.sock", g->dir);
    assert_int_equal(loop_init(&g->loop), 0);
    assert_int_equal(unix_listen(g->uds, 64, &g->listen_fd), 0);
    options.uds_path = g->uds;
    options.listen_fd = g->listen_fd;
    assert_int_equal(vsock_new(&g->v, &options), 0);
}

void guest_deinit(struct guest *g)
{
    DIR *dir = opendir(g->dir);
    struct dirent *entry;

    vsock_free(g->v);
    assert_null(g->loop.timers);
    loop_deinit(&g->loop);
    fd_close(g->listen_fd);
    assert_non_null(dir);
    while ((entry = readdir(dir)))
        (void)unlinkat(dirfd(dir), entry->d_name, 0);
    (void)closedir(dir);
    assert_int_equal(rmdir(g->dir), 0);
}

void guest_run(struct guest *g, int wait_ms)
{
    struct pollfd p = {.fd = g->loop.epoll_fd, .events = POLLIN};

    assert_int_equal(loop_once(&g->loop, wait_ms), 0);
    for (int i = 0; poll(&p, 1, 0) > 0; i++) {
        assert_int_equal(loop_once(&g->loop, 0), 0);
        if (i == 5000)
            fail_msg("the loop spins");
    }
}

int guest_send_raw(struct guest *g, const struct vsock_hdr *hdr, const void *data)
{
    struct iovec payload = {(void *)data, hdr->len};

    assert_true(vsock_can_take(g->v));
    return vsock_take_packet(g->v, hdr, &payload, data ? 1 : 0);
}

int guest_send(struct guest *g, struct stream *s, enum vsock_op op, uint32_t flags, const void *data, uint32_t len)
{
    struct vsock_hdr hdr = {.src_cid = GUEST_CID,
            .dst_cid = VSOCK_HOST_CID,
            .src_port = s->guest_port,
            .dst_port = s->host_port,
            .len = len,
            .type = VSOCK_TYPE_STREAM,
            .op = (uint16_t)op,
            .flags = flags,
            .buf_alloc = s->alloc,
            .fwd_cnt = s->taken};

    s->sent += len;
    return guest_send_raw(g, &hdr, data);
}

uint32_t guest_room(const struct stream *s)
{
    return s->host_alloc - (s->sent - s->host_fwd);
}

static bool is_for(const struct stream *s, const struct vsock_hdr *hdr)
{
    return s && hdr->src_port == s->host_port && hdr->dst_port == s->guest_port;
}

bool guest_receive(struct guest *g, struct stream *s, struct packet *ret)
{
    struct iovec space[2] = {
            {ret->data, MIN(g->space, (size_t)100)}, {ret->data + 100, g->space - MIN(g->space, (size_t)100)}};
    int r;

    guest_run(g, 0);
    r = vsock_next_packet(g->v, &ret->hdr, space, 2);
    assert_in_range(r, 0, 1);
    if (r == 0)
        return false;
    assert_true(ret->hdr.src_cid == VSOCK_HOST_CID && ret->hdr.dst_cid == GUEST_CID);
    assert_true(ret->hdr.len <= g->space && ret->hdr.len <= VSOCK_MAX_PKT_PAYLOAD);
    assert_true((ret->hdr.op == VSOCK_OP_RW) == (ret->hdr.len > 0));
    if (is_for(s, &ret->hdr)) {
        s->host_alloc = ret->hdr.buf_alloc;
        s->host_fwd = ret->hdr.fwd_cnt;
        s->received += ret->hdr.len;
        assert_true(s->received - s->taken <= s->alloc);
    }
    return true;
}

void guest_expect(struct guest *g, struct stream *s, enum vsock_op op, struct packet *ret)
{
    struct packet own;

    if (!ret)
        ret = &own;
    if (!guest_receive(g, s, ret))
        fail_msg("no packet, expected op %d", op);
    assert_int_equal(ret->hdr.op, op);
    assert_true(is_for(s, &ret->hdr));
}

void guest_expect_nothing(struct guest *g)
{
    struct packet p;

    if (guest_receive(g, NULL, &p))
        fail_msg("packet with op %d, expected none", p.hdr.op);
}

int host_dial(struct guest *g)
{
    int fd;

    assert_int_equal(unix_connect(g->uds, true, &fd), 0);
    return fd;
}

int host_listen(struct guest *g, uint32_t port)
{
    char path[64];
    int fd;

    (void)snprintf(path, sizeof(path), "%s_%u", g->uds, port);
    (void)unlink(path);
    assert_int_equal(unix_listen(path, 64, &fd), 0);
    assert_int_equal(fd_set_nonblock(fd, true), 0);
    return fd;
}

void host_write(int fd, const void *data, size_t len)
{
    assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
}

void host_expect_bytes(struct guest *g, int fd, const void *data, size_t len)
{
    char got[4096];

    guest_run(g, 0);
    assert_true(len <= sizeof(got));
    assert_int_equal(recv(fd, got, len, 0), len);
    assert_memory_equal(got, data, len);
}

void host_expect_eof(struct guest *g, int fd)
{
    char c;

    guest_run(g, 0);
    assert_int_equal(recv(fd, &c, 1, 0), 0);
}

void host_expect_silence(struct guest *g, int fd)
{
    char c;

    guest_run(g, 0);
    assert_int_equal(recv(fd, &c, 1, MSG_PEEK), -1);
    assert_int_equal(errno, EAGAIN);
}

int connect_to_guest(struct guest *g, struct stream *s, uint32_t guest_port)
{
    char line[64];
    int fd = host_dial(g), len = snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
    struct packet p;

    host_write(fd, line, (size_t)len);
    if (!guest_receive(g, NULL, &p))
        fail_msg("no REQUEST");
    assert_int_equal(p.hdr.op, VSOCK_OP_REQUEST);
    assert_int_equal(p.hdr.dst_port, guest_port);
    assert_in_range(p.hdr.src_port, VSOCK_HOST_PORT_BASE, UINT32_MAX);
    *s = (struct stream){.guest_port = guest_port,
            .host_port = p.hdr.src_port,
            .alloc = s->alloc ? s->alloc : 256u << 10,
            .host_alloc = p.hdr.buf_alloc};
    assert_int_equal(guest_send(g, s, VSOCK_OP_RESPONSE, 0, NULL, 0), 0);
    len = snprintf(line, sizeof(line), "OK %u\n", s->host_port);
    host_expect_bytes(g, fd, line, (size_t)len);
    return fd;
}

int connect_to_host(struct guest *g, struct stream *s, int listener, uint32_t guest_port, uint32_t host_port)
{
    int fd;

    *s = (struct stream){.guest_port = guest_port, .host_port = host_port, .alloc = s->alloc ? s->alloc : 256u << 10};
    assert_int_equal(guest_send(g, s, VSOCK_OP_REQUEST, 0, NULL, 0), 0);
    guest_expect(g, s, VSOCK_OP_RESPONSE, NULL);
    fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

uint32_t connections(const struct guest *g)
{
    struct vsock_stats stats;

    vsock_get_stats(g->v, &stats);
    return stats.connections;
}
