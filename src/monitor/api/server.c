/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread, one epoll loop, connections that never block. A connection reads
 * only while it has no answer left to write, so that a client that does not
 * read its answers is not read from either, and its buffers stay as small as
 * they are; pipelined requests wait in `in` and are answered in order.
 *
 * One place more than API_MAX_CONNECTIONS is for whoever comes too late: it is
 * told so with a 503. A connection that ends with an error is drained before
 * it is closed, as closing with unread bytes would tear the answer down with
 * it on the client's side.
 */
#include "monitor/api/api.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "monitor/api/http.h"
#include "monitor/api/request.h"

#define IN_SIZE     4096u
#define OUT_SIZE    (HTTP_MAX_HEAD + API_MAX_RESPONSE)
#define DRAIN_MAX   ((size_t)1 << 20)
#define ACCEPT_WAIT 100u /* ms, when the process is out of descriptors or memory */

struct connection {
    struct api_server *server;
    struct loop_fd source; /* fd -1: free */
    struct http_parser http;
    char in[IN_SIZE], out[OUT_SIZE];
    size_t in_at, in_len, out_at, out_len;
    bool closing;   /* once `out` is written */
    size_t drained; /* bytes thrown away since then */
};

struct api_server {
    struct loop loop;
    struct loop_fd listener, wake; /* wake: an eventfd, the thread ends */
    struct loop_timer retry;
    pthread_t thread;
    sem_t confined;
    bool started;
    api_handler handler;
    void *userdata;
    struct api_response response;
    struct connection connections[API_MAX_CONNECTIONS + 1];
};

static void connection_close(struct connection *c)
{
    loop_remove(&c->server->loop, &c->source);
    fd_close(c->source.fd);
    c->source.fd = -1;
    http_reset(&c->http);
}

static void put_response(struct connection *c, int status, const char *body, bool keep_alive)
{
    c->out_at = 0;
    c->out_len = http_format(c->out, sizeof(c->out), status, body, keep_alive);
    if (c->out_len == 0 || !keep_alive)
        c->closing = true;
}

static void serve_request(struct connection *c)
{
    struct api_server *server = c->server;
    struct http_parser *http = &c->http;
    struct api_response *response = &server->response;
    char path[128];

    api_answer(http->method, http->path, http->body, http->body_len, server->handler, server->userdata, response);
    log_msg(LOG_DEBUG, "api: %s /%s: %d %s", http->method,
            log_escape(path, sizeof(path), http->path, strlen(http->path)), response->status,
            response->status == 400 ? response->body : "");
    /* The framing of other methods is not what we know: HEAD has no body in its answer. */
    if (strcmp(http->method, "GET") != 0 && strcmp(http->method, "PUT") != 0 && strcmp(http->method, "PATCH") != 0)
        http->keep_alive = false;
    put_response(c, response->status, response->body, http->keep_alive);
    http_reset(http);
}

/* Takes requests from `in` until there is an answer to write. */
static void serve_input(struct connection *c)
{
    while (c->in_at < c->in_len && c->out_len == 0 && !c->closing) {
        size_t used;
        enum http_event event = http_feed(&c->http, c->in + c->in_at, c->in_len - c->in_at, &used);

        c->in_at += used;
        switch (event) {
        case HTTP_MORE:
            break;
        case HTTP_CONTINUE:
            put_response(c, 100, NULL, true);
            break;
        case HTTP_REQUEST:
            serve_request(c);
            break;
        case HTTP_BAD:
            api_fault(&c->server->response, "%s", c->http.fault);
            put_response(c, 400, c->server->response.body, false);
            break;
        }
    }
}

/* 0: `out` is empty; -EAGAIN; another: the connection is gone. */
static int write_out(struct connection *c)
{
    while (c->out_at < c->out_len) {
        ssize_t n = send(c->source.fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        c->out_at += (size_t)n;
    }
    c->out_at = c->out_len = 0;
    return 0;
}

/* Answers what was read, as far as the client takes the answers. */
static int serve(struct connection *c)
{
    int r;

    do {
        serve_input(c);
        r = write_out(c);
    } while (r == 0 && c->in_at < c->in_len && !c->closing);
    return r;
}

/* One read, so that no client keeps the thread to itself. */
static int read_in(struct connection *c)
{
    ssize_t n = recv(c->source.fd, c->in, sizeof(c->in), 0);

    if (n < 0)
        return -errno;
    c->in_at = 0;
    c->in_len = (size_t)n;
    if (c->closing) {
        c->drained += c->in_len;
        c->in_len = 0;
    }
    return n == 0 || c->drained > DRAIN_MAX ? -ECONNRESET : 0;
}

static int connection_ready(struct loop_fd *source, uint32_t events)
{
    struct connection *c = CONTAINER_OF(source, struct connection, source);
    int r = c->out_len == 0 ? read_in(c) : 0;

    if (r == 0)
        r = serve(c);
    if (r == 0 && c->closing)
        (void)shutdown(source->fd, SHUT_WR);
    if (r == 0 || r == -EAGAIN || r == -EINTR)
        r = loop_modify(&c->server->loop, source, c->out_len > 0 ? EPOLLOUT : EPOLLIN);
    if (r < 0)
        connection_close(c);
    return 0;
}

static void connection_open(struct api_server *server, int fd)
{
    static const char full[] =
            "{\"fault_message\":\"Too many open connections\",\"error\":\"Too many open connections\"}";
    struct connection *c = server->connections, *last = c + API_MAX_CONNECTIONS;

    while (c < last && c->source.fd >= 0)
        c++;
    if (c->source.fd >= 0) {
        fd_close(fd);
        return;
    }
    *c = (struct connection){.server = server, .source = {.fd = fd, .events = EPOLLIN, .ready = connection_ready}};
    if (loop_add(&server->loop, &c->source) < 0) {
        connection_close(c);
        return;
    }
    if (c == last) {
        put_response(c, 503, full, false);
        (void)connection_ready(&c->source, 0);
    }
}

static int listener_ready(struct loop_fd *source, uint32_t events)
{
    struct api_server *server = CONTAINER_OF(source, struct api_server, listener);
    int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        connection_open(server, fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        /* The client stays in the queue, and epoll would tell of it without end. */
        log_msg(LOG_WARN, "api: can't accept a connection: %s", strerror(errno));
        (void)loop_modify(&server->loop, source, 0);
        loop_arm(&server->loop, &server->retry, deadline_after_ms(ACCEPT_WAIT));
    }
    return 0;
}

static int retry_expired(struct loop_timer *timer)
{
    struct api_server *server = CONTAINER_OF(timer, struct api_server, retry);

    return loop_modify(&server->loop, &server->listener, EPOLLIN);
}

static int wake_ready(struct loop_fd *source, uint32_t events)
{
    loop_stop(&CONTAINER_OF(source, struct api_server, wake)->loop);
    return 0;
}

static const struct seccomp_rule calls[] = {
        SECCOMP_ALLOW(epoll_wait, "the loop"),
        SECCOMP_ALLOW(epoll_ctl, "clients come, go, and wait for room"),
        SECCOMP_ALLOW(accept4, "clients"),
        SECCOMP_ALLOW(recvfrom, "requests"),
        SECCOMP_ALLOW(sendto, "answers"),
        SECCOMP_ALLOW(shutdown, "an answer that is the last"),
        SECCOMP_ALLOW(close, "clients"),
        SECCOMP_ALLOW(write, "eventfd: a request for the VMM thread; the log"),
        SECCOMP_ALLOW(futex, "waiting for the VMM thread; the lock of malloc"),
        SECCOMP_ALLOW(clock_gettime, "timers of the loop; no vDSO without a stable TSC"),
        SECCOMP_ALLOW(brk, "malloc"),
        SECCOMP_ALLOW_IF(mmap, 2, PROT_EXEC, 0, "malloc"),
        SECCOMP_ALLOW(munmap, "free"),
        SECCOMP_ALLOW(mremap, "realloc"),
        SECCOMP_ALLOW(rt_sigprocmask, "end of the thread"),
        SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTNEED, "end of the thread: its stack"),
        SECCOMP_ALLOW(exit, "end of the thread"),
        SECCOMP_ALLOW(exit_group, "after a call that is not in this list"),
};
const struct seccomp_profile api_seccomp = {"api", calls, ARRAY_SIZE(calls)};

static void *server_main(void *userdata)
{
    struct api_server *server = userdata;
    int r;

    (void)pthread_setname_np(pthread_self(), "fc_api");
    seccomp_enter(&api_seccomp);
    (void)sem_post(&server->confined);
    r = loop_run(&server->loop);
    if (r < 0)
        log_msg(LOG_ERROR, "api: the server ends: %s", strerror(-r));
    return NULL;
}

int api_server_new(struct api_server **ret, int listen_fd, api_handler handler, void *userdata)
{
    struct api_server *server = calloc(1, sizeof(*server));
    size_t seed = 0;
    int r;

    /* jansson would open /dev/urandom for it, at the first request and so behind the thread's filter. */
    (void)!getrandom(&seed, sizeof(seed), GRND_NONBLOCK);
    json_object_seed(seed);
    if (!server) {
        fd_close(listen_fd);
        return -ENOMEM;
    }
    server->handler = handler;
    server->userdata = userdata;
    server->listener = (struct loop_fd){.fd = listen_fd, .events = EPOLLIN, .ready = listener_ready};
    server->wake =
            (struct loop_fd){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = EPOLLIN, .ready = wake_ready};
    server->retry.expired = retry_expired;
    for (size_t i = 0; i < ARRAY_SIZE(server->connections); i++)
        server->connections[i].source.fd = -1;
    r = loop_init(&server->loop);
    if (r == 0)
        r = server->wake.fd < 0 ? -errno : fd_set_nonblock(listen_fd, true);
    if (r == 0)
        r = loop_add(&server->loop, &server->listener);
    if (r == 0)
        r = loop_add(&server->loop, &server->wake);
    if (r < 0) {
        api_server_free(server);
        return r;
    }
    *ret = server;
    return 0;
}

int api_server_start(struct api_server *server)
{
    sigset_t all, before;
    int r;

    /* Signals are the VMM thread's. */
    (void)sem_init(&server->confined, 0, 0);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&server->thread, NULL, server_main, server);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    server->started = r == 0;
    while (server->started && sem_wait(&server->confined) < 0)
        ; /* a signal */
    return -r;
}

void api_server_free(struct api_server *server)
{
    if (!server)
        return;
    if (server->started) {
        (void)eventfd_write(server->wake.fd, 1);
        (void)pthread_join(server->thread, NULL);
    }
    for (size_t i = 0; i < ARRAY_SIZE(server->connections); i++) {
        if (server->connections[i].source.fd >= 0)
            connection_close(&server->connections[i]);
    }
    fd_close(server->listener.fd);
    fd_close(server->wake.fd);
    loop_deinit(&server->loop);
    free(server);
}
