/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/server.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/macro.h"
#include "vhost/session.h"
#include "virtio/vsock-backend.h"

#define RING_RX 0u /* virtio 1.2 §5.10.2; queue 2 (events) stays with the VMM */
#define RING_TX 1u
static_assert(VU_RINGS == 2, "a vsock device has two queues here");

#define HOST_BACKLOG  128
#define RUNS_PER_TURN 8u

struct server {
    const struct options *options;
    struct loop loop;
    struct vsock *core;
    struct vsock_backend backend;
    struct vu_session session;
    bool has_session;
    uint8_t config[8]; /* virtio 1.2 §5.10.4: guest_cid */
    int uds_fd;
    bool made_uds, made_listener;
    struct loop_fd listener, signals;
    struct loop_timer linger, lifetime;
    struct log_limit log_limit;
    int status;
};

/* ---- what the process may ask the kernel for ---- */

/* From the first message of the front-end on. It makes no process, no thread, no file, no listener and no code any
 * more, and sends no signal to another process. Paths are checked by no filter. */
static const struct seccomp_rule calls[] = {
        SECCOMP_ALLOW(epoll_wait, "the loop"),
        SECCOMP_ALLOW(epoll_ctl, "sources of the loop come, go, and wait for room"),
        SECCOMP_ALLOW(read, "kicks"),
        SECCOMP_ALLOW(write, "interrupts; log"),
        SECCOMP_ALLOW(readv, "host to guest"),
        SECCOMP_ALLOW(sendmsg, "guest to host; answers to the front-end"),
        SECCOMP_ALLOW(recvmsg, "the front-end: messages, with the guest's memory and eventfds as descriptors"),
        SECCOMP_ALLOW(recvfrom, "a host's first line"),
        SECCOMP_ALLOW(sendto, "OK to a host"),
        SECCOMP_ALLOW(clock_gettime, "timers of the loop; no vDSO without a stable TSC"),
        SECCOMP_ALLOW(accept4, "hosts; with --socket the next front-end"),
        SECCOMP_ALLOW_IF(socket, 0, SECCOMP_ANY_BIT, AF_UNIX, "the guest connects to a host"),
        SECCOMP_ALLOW(connect, "the same"),
        SECCOMP_ALLOW(shutdown, "half-closed connections"),
        SECCOMP_ALLOW(close, "connections, memory and eventfds of the front-end"),
        SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTNEED, "buffers of what is closed"),
        SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTDUMP, "the guest's memory in no core dump"),
        SECCOMP_ALLOW_IF(mmap, 2, PROT_EXEC, 0, "the guest's memory; malloc"),
        SECCOMP_ALLOW(munmap, "the guest's memory; free"),
        SECCOMP_ALLOW(brk, "malloc"),
        SECCOMP_ALLOW(fstat, "whether the guest's memory is as long as the front-end says"),
        SECCOMP_ALLOW(newfstatat, "the same, by a newer libc"),
        SECCOMP_ALLOW_IF(fcntl, 1, SECCOMP_ANY_BIT, F_GET_SEALS, "whether that file can shrink"),
        SECCOMP_ALLOW_IF(fcntl, 1, SECCOMP_ANY_BIT, F_GETFL, "eventfds of the front-end: non-blocking"),
        SECCOMP_ALLOW_IF(fcntl, 1, SECCOMP_ANY_BIT, F_SETFL, "the same"),
        SECCOMP_ALLOW(unlink, "the end: sockets"),
        SECCOMP_ALLOW(rt_sigprocmask, "abort()"),
        SECCOMP_ALLOW(getpid, "the same"),
        SECCOMP_ALLOW(gettid, "the same"),
        SECCOMP_ALLOW_IF(tgkill, 0, SECCOMP_ANY_BIT, SECCOMP_OWN_PID, "the same"),
        SECCOMP_ALLOW(exit_group, "the end"),
};
static const struct seccomp_profile profile = {"vsock", calls, ARRAY_SIZE(calls)};
const struct seccomp_profile *const vsock_profiles[VSOCK_PROFILES] = {&profile};

/* ---- the server ---- */

/* The core asks for a run; the loop's every turn ends in one, so there is nothing to remember. */
static void rx_ready(void *userdata)
{
}

static int on_signal(struct loop_fd *source, uint32_t events)
{
    struct server *server = CONTAINER_OF(source, struct server, signals);

    log_msg(LOG_INFO, "ending on a signal");
    loop_stop(&server->loop);
    return 0;
}

static int on_linger_over(struct loop_timer *timer)
{
    struct server *server = CONTAINER_OF(timer, struct server, linger);

    log_msg(LOG_INFO, "no new front-end within %u ms", server->options->linger_ms);
    loop_stop(&server->loop);
    return 0;
}

static int on_lifetime_over(struct loop_timer *timer)
{
    struct server *server = CONTAINER_OF(timer, struct server, lifetime);

    log_msg(LOG_WARN, "the lifetime of %u ms is over (--max-lifetime-ms)", server->options->max_lifetime_ms);
    server->status = EXIT_LIFETIME;
    loop_stop(&server->loop);
    return 0;
}

static int open_session(struct server *server, int fd)
{
    const struct vu_offer offer = {
            .size = sizeof(offer),
            .features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_INDIRECT_DESC | 1ull << VIRTIO_F_EVENT_IDX,
            .config = server->config,
            .config_size = sizeof(server->config),
    };
    int r = vu_session_init(&server->session, &server->loop, fd, &offer);

    server->has_session = r == 0;
    if (r == 0)
        log_msg(LOG_INFO, "front-end connected");
    return r;
}

static int on_front_end(struct loop_fd *source, uint32_t events)
{
    struct server *server = CONTAINER_OF(source, struct server, listener);
    int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) /* it left again before we came */
        return 0;
    loop_disarm(&server->loop, &server->linger);
    loop_remove(&server->loop, source); /* others wait in the backlog until this one has left */
    return open_session(server, fd);
}

static int close_session(struct server *server)
{
    int error = server->session.error;

    vu_session_deinit(&server->session);
    server->has_session = false;
    vsock_reset(server->core);
    if (error < 0)
        log_msg(LOG_ERROR, "front-end broke the protocol: %s", strerror(-error));
    else
        log_msg(LOG_INFO, "front-end left");
    if (server->options->linger_ms == 0) {
        if (error < 0)
            server->status = EXIT_PROTOCOL;
        loop_stop(&server->loop);
        return 0;
    }
    loop_arm(&server->loop, &server->linger, deadline_after_ms(server->options->linger_ms));
    return loop_add(&server->loop, &server->listener);
}

/* A queue breaks once per start, but a guest can reset its device all day long. */
static void check_ring(struct server *server, unsigned index, const struct virtqueue *queue, bool signal)
{
    if (signal)
        vu_ring_signal(&server->session, index);
    if (!queue || queue->fault == VQ_FAULT_NONE)
        return;
    if (log_allowed(&server->log_limit))
        log_msg(LOG_WARN, "guest broke its %s queue: %s; it is not served until the driver resets the device",
                index == RING_RX ? "rx" : "tx", vq_fault_text(queue->fault));
    vu_ring_broken(&server->session, index);
}

/*
 * After every turn of the loop. Several runs, each with its own interrupt: the
 * guest takes the first packets while we fill in the next. With event index
 * the driver asks for no second interrupt as long as it is busy with the first.
 * True when there is work that no event will announce.
 */
static bool serve(struct server *server)
{
    struct vsock_backend_turn turn = {.more = true};

    if (server->session.driver_reset) {
        server->session.driver_reset = false;
        vsock_reset(server->core);
    }
    for (unsigned i = 0; i < RUNS_PER_TURN && turn.more; i++) {
        struct virtqueue *rx = vu_ring_queue(&server->session, RING_RX);
        struct virtqueue *tx = vu_ring_queue(&server->session, RING_TX);

        vsock_backend_run(&server->backend, rx, tx, &turn);
        check_ring(server, RING_RX, rx, turn.signal_rx);
        check_ring(server, RING_TX, tx, turn.signal_tx);
    }
    return turn.more;
}

static int run(struct server *server)
{
    bool more = false;
    int r = 0;

    while (!server->loop.stop && r >= 0) {
        r = loop_once(&server->loop, more ? 0 : -1);
        more = false;
        if (r < 0 || !server->has_session)
            continue;
        if (server->session.ended)
            r = close_session(server);
        else
            more = serve(server);
    }
    return r;
}

static int fail(int error, const char *what, const char *name)
{
    log_msg(LOG_ERROR, "%s %s: %s", what, name, strerror(-error));
    return error;
}

static int open_core(struct server *server)
{
    const struct options *o = server->options;
    struct vsock_options vsock = {
            .size = sizeof(vsock),
            .loop = &server->loop,
            .guest_cid = o->guest_cid,
            .uds_path = o->uds_path,
            .max_connections = o->max_connections,
            .rx_ready = rx_ready,
            .userdata = server,
    };
    int r = 0;

    for (size_t i = 0; i < sizeof(server->config); i++)
        server->config[i] = (uint8_t)(o->guest_cid >> (8 * i));
    server->uds_fd = o->uds_fd;
    if (server->uds_fd < 0) {
        r = unix_listen(o->uds_path, HOST_BACKLOG, &server->uds_fd);
        if (r < 0)
            return fail(r, "cannot listen at", o->uds_path);
        server->made_uds = true;
    }
    r = fd_set_nonblock(server->uds_fd, true);
    vsock.listen_fd = server->uds_fd;
    if (r == 0)
        r = vsock_new(&server->core, &vsock);
    if (r < 0)
        return fail(r, "cannot serve", o->uds_path);
    vsock_backend_init(&server->backend, server->core);
    return 0;
}

static int open_front_end(struct server *server)
{
    const struct options *o = server->options;
    int r;

    if (o->frontend_fd >= 0) {
        r = open_session(server, o->frontend_fd);
        return r < 0 ? fail(r, "cannot serve", "--fd") : 0;
    }
    r = unix_listen(o->frontend_path, 1, &server->listener.fd);
    if (r < 0)
        return fail(r, "cannot listen at", o->frontend_path);
    server->made_listener = true;
    r = fd_set_nonblock(server->listener.fd, true);
    if (r == 0)
        r = loop_add(&server->loop, &server->listener);
    return r < 0 ? fail(r, "cannot serve", o->frontend_path) : 0;
}

static void close_all(struct server *server)
{
    vu_session_deinit(&server->session);
    vsock_free(server->core);
    if (server->made_listener)
        (void)unlink(server->options->frontend_path);
    if (server->made_uds)
        (void)unlink(server->options->uds_path);
    fd_close(server->listener.fd);
    fd_close(server->uds_fd);
    loop_deinit(&server->loop);
}

int server_run(const struct options *options, int signal_fd)
{
    static struct server server; /* large, and one per process */
    int r;

    server = (struct server){
            .options = options,
            .loop = {.epoll_fd = -1},
            .uds_fd = -1,
            .listener = {.fd = -1, .events = EPOLLIN, .ready = on_front_end},
            .signals = {.fd = signal_fd, .events = EPOLLIN, .ready = on_signal},
            .linger = {.expired = on_linger_over},
            .lifetime = {.expired = on_lifetime_over},
            .log_limit = {.burst = 2},
            .status = EXIT_OK,
    };
    r = loop_init(&server.loop);
    if (r == 0)
        r = loop_add(&server.loop, &server.signals);
    if (r < 0)
        (void)fail(r, "cannot set up", "epoll");
    if (r == 0)
        r = open_core(&server);
    if (r == 0)
        r = open_front_end(&server);
    if (r == 0 && options->max_lifetime_ms > 0)
        loop_arm(&server.loop, &server.lifetime, deadline_after_ms(options->max_lifetime_ms));
    if (r == 0) {
        seccomp_enter(&profile);
        r = run(&server);
        if (r < 0)
            (void)fail(r, "cannot go on", "serving");
    }
    close_all(&server);
    return r < 0 ? EXIT_FAILED : server.status;
}
