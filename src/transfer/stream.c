/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/stream.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/macro.h"

#define CANCEL_POLL_MS 100
#define LINGER_MS      5000 /* how long the agent waits for the host to read its ERROR and hang up */

void stream_init(struct stream *s, int sock, struct wire_reader *reader, const struct transfer_common *common,
        enum wire_sender self, struct transfer_result *result)
{
    *result = (struct transfer_result){0};
    *s = (struct stream){
            .sock = sock,
            .reader = reader,
            .common = common,
            .result = result,
            .session = common->put ? WIRE_SESSION_PUT : WIRE_SESSION_GET,
            .self = self,
            .state = common->put ? WIRE_ST_PUT : WIRE_ST_GET,
    };
}

int stream_fail(struct stream *s, int error, const char *path, const char *reason)
{
    char safe[WIRE_MAX_MESSAGE - 256];

    if (s->result->message[0] != '\0')
        return error;
    if (!reason)
        reason = strerror(-error);
    if (path)
        (void)snprintf(s->result->message, sizeof(s->result->message), "%s: %.200s",
                log_escape(safe, sizeof(safe), path, strlen(path)), reason);
    else
        (void)snprintf(s->result->message, sizeof(s->result->message), "%.200s", reason);
    return error;
}

static const char *peer_name(const struct stream *s)
{
    return s->self == WIRE_FROM_HOST ? "the guest" : "the host";
}

static int fail_peer(struct stream *s, int error, const char *what)
{
    char text[160];

    (void)snprintf(text, sizeof(text), "%s %s", peer_name(s), what);
    return stream_fail(s, error, NULL, text);
}

int stream_progress(struct stream *s)
{
    const struct transfer_common *c = s->common;

    if (c->deadline && deadline_poll_ms(c->deadline) == 0)
        return stream_fail(s, -ETIMEDOUT, NULL, "the transfer took longer than its limit");
    if ((c->cancel && *c->cancel) ||
            (c->progress && c->progress(c->userdata, s->result->bytes, s->result->entries) != 0))
        return stream_fail(s, -ECANCELED, NULL, "cancelled");
    return 0;
}

/* Waits for `events`; *ret_events says which came. Cancellation is a flag, so the wait is cut into slices. */
static int stream_wait(struct stream *s, short events, short *ret_events)
{
    const struct transfer_common *c = s->common;
    uint64_t deadline = c->deadline ? c->deadline : DEADLINE_NEVER;
    struct pollfd p = {.fd = s->sock, .events = events};

    for (;;) {
        int ms = deadline_poll_ms(deadline);
        int n;

        if (c->cancel && *c->cancel)
            return stream_fail(s, -ECANCELED, NULL, "cancelled");
        if (ms == 0)
            return stream_fail(s, -ETIMEDOUT, NULL, "the transfer took longer than its limit");
        if (c->cancel && (ms < 0 || ms > CANCEL_POLL_MS))
            ms = CANCEL_POLL_MS;
        n = poll(&p, 1, ms);
        if (n > 0) {
            *ret_events = p.revents;
            return 0;
        }
        if (n < 0 && errno != EINTR)
            return stream_fail(s, -errno, NULL, NULL);
        if (n < 0 && c->interruptible)
            return stream_fail(s, -EINTR, NULL, "interrupted");
    }
}

int stream_step(struct stream *s, enum wire_sender sender, enum wire_type type, bool regular_file)
{
    if (wire_step(&s->state, s->session, sender, type, regular_file) < 0)
        return fail_peer(s, -EPROTO, "broke the protocol: a frame that is not allowed now");
    return 0;
}

/* Text of the peer: it is escaped already if the peer is ours, and made harmless if it is not. */
static void keep_peer_text(struct stream *s, struct wire_str text)
{
    size_t len = MIN(text.len, sizeof(s->result->message) - 1);

    if (s->result->message[0] != '\0')
        return;
    for (size_t i = 0; i < len; i++)
        s->result->message[i] = text.s[i] >= 0x20 && text.s[i] < 0x7f ? text.s[i] : '?';
    s->result->message[len] = '\0';
}

static int take_error(struct stream *s, const uint8_t *payload, size_t len)
{
    struct wire_error e;
    int r = wire_get_error(&e, payload, len);

    if (r < 0)
        return fail_peer(s, r, "broke the protocol: malformed ERROR");
    s->result->message[0] = '\0';
    keep_peer_text(s, e.message);
    s->result->peer_code = e.code;
    s->result->peer_errno = e.os_errno;
    return TRANSFER_PEER_ERROR;
}

int stream_next(struct stream *s, struct wire_frame *ret, const uint8_t **ret_payload)
{
    const enum wire_sender peer = s->self == WIRE_FROM_HOST ? WIRE_FROM_AGENT : WIRE_FROM_HOST;
    size_t room;
    uint8_t *p;
    ssize_t n;
    short got;
    int r;

    while ((r = wire_reader_next(s->reader, ret, ret_payload)) == 0) {
        p = wire_reader_space(s->reader, &room);
        if (!p)
            return stream_fail(s, -ENOMEM, NULL, NULL);
        n = recv(s->sock, p, room, MSG_DONTWAIT);
        if (n > 0) {
            wire_reader_filled(s->reader, (size_t)n);
        } else if (n == 0 || errno == ECONNRESET) {
            return fail_peer(s, -ECONNRESET, "closed the connection");
        } else if (errno == EAGAIN) {
            r = stream_wait(s, POLLIN, &got);
            if (r < 0)
                return r;
        } else if (errno != EINTR) {
            return stream_fail(s, -errno, NULL, NULL);
        }
    }
    if (r < 0)
        return fail_peer(s, r, "broke the protocol: no such frame, or too long");
    if (ret->type == WIRE_ENTRY)
        return 0;
    r = stream_step(s, peer, ret->type, false);
    if (r < 0)
        return r;
    return ret->type == WIRE_ERROR ? take_error(s, *ret_payload, ret->len) : 0;
}

/* The peer has something to say, or has gone, while we send. */
static int peer_spoke(struct stream *s)
{
    char byte;
    ssize_t n;

    if (wire_reader_pending(s->reader))
        return STREAM_PEER_SPOKE;
    n = recv(s->sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0)
        return STREAM_PEER_SPOKE;
    if (n == 0 || (errno != EAGAIN && errno != EINTR))
        return fail_peer(s, -ECONNRESET, "closed the connection");
    return 0;
}

int stream_flush(struct stream *s, struct buf *b)
{
    const uint8_t *p = b->data;
    size_t left = b->len;
    short got;
    int r;

    if (s->cut)
        return -EPIPE;
    if (b->error)
        return stream_fail(s, b->error, NULL, NULL);
    r = stream_progress(s);
    if (r == 0)
        r = peer_spoke(s);
    while (r == 0 && left > 0) {
        ssize_t n = send(s->sock, p, left, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n >= 0) {
            p += n;
            left -= (size_t)n;
        } else if (errno == EAGAIN) {
            r = stream_wait(s, POLLIN | POLLOUT, &got);
            if (r == 0 && (got & POLLIN))
                r = peer_spoke(s);
        } else if (errno == EPIPE || errno == ECONNRESET) {
            r = peer_spoke(s); /* its ERROR may have come before it closed */
            if (r == 0)
                r = fail_peer(s, -ECONNRESET, "closed the connection");
        } else if (errno != EINTR) {
            r = stream_fail(s, -errno, NULL, NULL);
        }
    }
    s->cut = r != 0 && left > 0 && left < b->len;
    buf_reset(b);
    return r;
}

void stream_send_error(struct stream *s, int error)
{
    _cleanup_(buf_deinit) struct buf b = {0};
    uint64_t deadline = deadline_after_ms(LINGER_MS);
    uint8_t drop[4096];

    wire_put_error(&b, wire_error_of_errno(-error), (uint32_t)-error, s->result->message);
    if (b.error || fd_set_nonblock(s->sock, true) < 0 || fd_write_all(s->sock, b.data, b.len, deadline) < 0)
        return;
    /* Closing with unread input would reset the connection, and the host might never see the ERROR. */
    while (deadline_poll_ms(deadline) > 0 && fd_wait(s->sock, POLLIN, deadline) == 0) {
        ssize_t n = recv(s->sock, drop, sizeof(drop), MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return;
    }
}
