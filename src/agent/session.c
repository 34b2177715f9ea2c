/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/control.h"
#include "agent/copy.h"
#include "agent/exec.h"
#include "agent/freeze.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define OUT_MAX ((size_t)1 << 20) /* hard cap of out: SESSION_OUT_HIGH and one more round of frames */

static int on_connection(struct loop_fd *source, uint32_t events);
static int on_timer(struct loop_timer *timer);

int session_new(struct session **ret, struct agent *agent, int fd, bool ready)
{
    struct session *s = calloc(1, sizeof(*s));
    int r;

    if (!s) {
        fd_close(fd);
        return -ENOMEM;
    }
    s->agent = agent;
    s->out.max = OUT_MAX;
    s->ready = s->connecting = ready;
    s->state = ready ? WIRE_ST_READY : WIRE_ST_START;
    s->kind = ready ? WIRE_SESSION_CONTROL : 0;
    s->version = WIRE_VERSION;
    s->timer.expired = on_timer;
    s->conn = (struct loop_fd){.fd = fd, .ready = on_connection, .events = ready ? EPOLLOUT : EPOLLIN | EPOLLRDHUP};
    r = loop_add(&agent->loop, &s->conn);
    if (r < 0) {
        session_free(s);
        return r;
    }
    if (!ready)
        loop_arm(&agent->loop, &s->timer, deadline_after_ms(SESSION_GREET_MS));
    *ret = s;
    return 0;
}

static void close_connection(struct session *s)
{
    if (s->conn.fd < 0)
        return;
    loop_remove(&s->agent->loop, &s->conn);
    fd_close(s->conn.fd);
    s->conn.fd = -1;
}

void session_free(struct session *s)
{
    if (!s)
        return;
    exec_free(s->exec);
    copy_ended(s);
    loop_disarm(&s->agent->loop, &s->timer);
    close_connection(s);
    wire_reader_deinit(&s->reader);
    buf_deinit(&s->out);
    free(s);
}

void session_close(struct session *s)
{
    struct agent *agent = s->agent;
    bool tied = s->ready && agent->options.tied && !agent->freeze.on;

    agent->sessions[s->index] = NULL;
    agent->session_count--;
    if (agent->ready == s)
        agent->ready = NULL;
    freeze_session_gone(agent, s);
    session_free(s);
    if (tied)
        agent_untied(agent);
}

size_t session_unsent(const struct session *s)
{
    return s->out.len - s->out_at;
}

void session_touch(struct session *s)
{
    s->dirty = true;
}

void session_step(struct session *s, enum wire_type type)
{
    if (wire_step(&s->state, s->kind, WIRE_FROM_AGENT, type, false) < 0)
        log_msg(LOG_ERROR, "frame %d sent in state %d", (int)type, (int)s->state);
}

void session_end(struct session *s)
{
    s->ending = true;
    s->state = WIRE_ST_ENDED;
    loop_arm(&s->agent->loop, &s->timer, deadline_after_ms(SESSION_LINGER_MS));
    session_touch(s);
}

void session_fail(struct session *s, enum wire_error_code code, int os_errno, const char *fmt, ...)
{
    char message[WIRE_MAX_MESSAGE];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    wire_put_error(&s->out, code, (uint32_t)os_errno, message);
    session_end(s);
}

static void watch(struct session *s)
{
    uint32_t events = EPOLLRDHUP;

    if (s->ending || (!s->waiting && (!s->exec || !exec_is_full(s->exec))))
        events |= EPOLLIN;
    if (session_unsent(s) > 0)
        events |= EPOLLOUT;
    if (s->lingering)
        events = EPOLLIN;
    (void)loop_modify(&s->agent->loop, &s->conn, events);
}

static int send_some(struct session *s)
{
    while (session_unsent(s) > 0) {
        ssize_t n = send(s->conn.fd, s->out.data + s->out_at, session_unsent(s), MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        s->out_at += (size_t)n;
    }
    return 0;
}

void session_flush(struct session *s)
{
    s->dirty = false;
    if (s->conn.fd < 0 || s->connecting)
        return;
    if (s->out.error < 0 || send_some(s) < 0) {
        session_close(s);
        return;
    }
    if (session_unsent(s) == 0) {
        buf_reset(&s->out);
        s->out_at = 0;
    } else if (s->out_at >= SESSION_OUT_LOW) {
        buf_consume(&s->out, s->out_at);
        s->out_at = 0;
    }
    if (s->ending && !s->lingering && session_unsent(s) == 0) {
        s->lingering = true;
        (void)shutdown(s->conn.fd, SHUT_WR);
    }
    if (s->exec && session_unsent(s) <= SESSION_OUT_LOW)
        exec_resume_output(s->exec);
    watch(s);
}

static void take_hello(struct session *s, const uint8_t *payload, size_t len)
{
    struct wire_hello hello;

    if (wire_get_hello(&hello, payload, len) < 0) {
        session_fail(s, WIRE_E_PROTOCOL, 0, "malformed HELLO");
    } else if (!wire_version_ok(&hello)) {
        session_fail(s, WIRE_E_VERSION, 0, "the agent speaks protocol %u to %u, the host asks for %u to %u",
                WIRE_VERSION_MIN, WIRE_VERSION, hello.version_min, hello.version);
    } else {
        s->kind = hello.session;
        s->version = MIN(hello.version, (uint16_t)WIRE_VERSION);
    }
}

static int take_frame(struct session *s, const struct wire_frame *frame, const uint8_t *payload)
{
    int r;

    if (wire_step(&s->state, s->kind, WIRE_FROM_HOST, frame->type, false) < 0)
        return -EPROTO;
    if (frame->type != WIRE_HELLO && !s->ready)
        loop_disarm(&s->agent->loop, &s->timer);
    switch (frame->type) {
    case WIRE_HELLO:
        take_hello(s, payload, frame->len);
        return 0;
    case WIRE_EXEC:
        exec_start(s, payload, frame->len);
        return 0;
    case WIRE_PUT:
    case WIRE_GET:
        copy_start(s, frame->type, payload, frame->len);
        return 0;
    case WIRE_STDIN:
    case WIRE_CLOSE_STDIN:
    case WIRE_RESIZE:
    case WIRE_SIGNAL:
        return s->exec ? exec_frame(s->exec, frame->type, payload, frame->len) : 0;
    default:
        r = control_frame(s, frame->type, payload, frame->len);
        /* Whoever sees a later snapshot's memory must not learn what the kernel drew from it. */
        if (frame->type == WIRE_ENTROPY || frame->type == WIRE_CLONE)
            wire_reader_wipe(&s->reader);
        return r;
    }
}

void session_resume(struct session *s)
{
    struct wire_frame frame;
    const uint8_t *payload;
    int r = 0;

    while (!s->ending && s->copy_pid == 0 && (!s->exec || !exec_is_full(s->exec)) && !freeze_holds(s)) {
        r = wire_reader_next(&s->reader, &frame, &payload);
        if (r == 0)
            break;
        if (r > 0)
            r = take_frame(s, &frame, payload);
        if (r < 0) {
            session_fail(s, WIRE_E_PROTOCOL, -r, "%s",
                    r == -EPROTO ? "a frame that is not legal in this state" : "a malformed frame");
            break;
        }
    }
    if (s->conn.fd >= 0)
        watch(s);
}

static int on_input(struct session *s)
{
    size_t room;
    uint8_t *space;
    ssize_t n;

    if (s->ending) {
        uint8_t discard[4096];

        n = recv(s->conn.fd, discard, sizeof(discard), MSG_DONTWAIT);
        return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)) ? 0 : -ECONNRESET;
    }
    space = wire_reader_space(&s->reader, &room);
    if (!space)
        return -ENOMEM;
    n = recv(s->conn.fd, space, room, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return -ECONNRESET;
    wire_reader_filled(&s->reader, (size_t)n);
    session_resume(s);
    return 0;
}

/* The ready connection's connect(2) ended. Nobody listening there is in order: the host then connects by itself. */
static int on_connected(struct session *s)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(s->conn.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error != 0)
        return -ECONNREFUSED;
    s->connecting = false;
    control_send_ready(s);
    return 0;
}

static int on_connection(struct loop_fd *source, uint32_t events)
{
    struct session *s = CONTAINER_OF(source, struct session, conn);
    int r = 0;

    if (s->connecting) {
        r = on_connected(s);
    } else {
        /* A host that is gone can't be answered; what it sent before is still served when there was no command. */
        if (events & EPOLLIN)
            r = on_input(s);
        if (r == 0 && (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) && !(events & EPOLLIN))
            r = -ECONNRESET;
        if (r == 0 && (events & (EPOLLHUP | EPOLLRDHUP)) && s->exec)
            r = -ECONNRESET;
        if (r == 0 && (events & EPOLLOUT))
            session_touch(s);
    }
    if (r < 0)
        session_close(s);
    return 0;
}

static int on_timer(struct loop_timer *timer)
{
    struct session *s = CONTAINER_OF(timer, struct session, timer);

    if (s->ending)
        session_close(s);
    else if (s->waiting)
        loop_arm(&s->agent->loop, &s->timer, deadline_after_ms(SESSION_GREET_MS));
    else
        session_fail(s, WIRE_E_PROTOCOL, ETIMEDOUT, "no request within %u ms", SESSION_GREET_MS);
    return 0;
}
