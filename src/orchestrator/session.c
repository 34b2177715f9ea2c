/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/audit-log.h"
#include "orchestrator/paths.h"
#include "orchestrator/snapshots/saving.h"
#include "orchestrator/table.h"
#include "orchestrator/tail.h"

#define REPLY_MAX       32u /* "OK 4294967295\n" */
#define BACKLOG_POLL_MS 5
#define HELD_POLL_MS    2
#define HELD_TIMEOUT_MS 150000u /* beyond what a monitor may take to write its memory (backends/) */
#define DYING_GRACE_MS  500u    /* the connection ends a little before the processes do */
#define TIME_QUICK_US   15000u
#define TIME_TRIES      20
#define TIME_WAIT_US    500000u /* on a host that is short of processors; with all tries */

void session_close(int fd)
{
    if (fd >= 0)
        (void)shutdown(fd, SHUT_RDWR);
    fd_close(fd);
}

int session_wait(int fd, short events, uint64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int n = poll(&p, 1, deadline_poll_ms(deadline));

        if (n > 0)
            return 0;
        if (n < 0)
            return -errno;
        if (deadline_poll_ms(deadline) == 0)
            return -ETIMEDOUT;
    }
}

int session_check_state(const struct record *record, struct ic_error *error)
{
    switch (record->state) {
    case IC_VM_READY:
        return 0;
    case IC_VM_PAUSED:
        return ic_fail(error, IC_ERR_STATE, "VM '%s': is paused; 'ironclaw unpause %s' lets it go on", record->vm_id,
                record->vm_id);
    case IC_VM_CREATED:
    case IC_VM_BOOTING:
        return ic_fail(error, IC_ERR_STATE, "VM '%s': is still booting; try again when it is ready", record->vm_id);
    case IC_VM_STOPPING:
        return ic_fail(error, IC_ERR_STATE, "VM '%s': is being stopped", record->vm_id);
    case IC_VM_FAILED:
        return ic_fail(error, IC_ERR_STATE, "VM '%s': has failed: %s", record->vm_id, record->failure);
    case IC_VM_GONE:
        break;
    }
    return ic_fail(error, IC_ERR_STATE, "VM '%s': has ended; only its logs are left", record->vm_id);
}

/* One line, exactly: what follows it is the agent's. */
static int read_reply(int fd, uint64_t deadline)
{
    char line[REPLY_MAX];

    for (;;) {
        ssize_t n;
        char *end;
        int r = session_wait(fd, POLLIN, deadline);

        if (r < 0)
            return r;
        n = recv(fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
        if (n == 0)
            return -ECONNREFUSED;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n < 0)
            return -errno;
        end = memchr(line, '\n', (size_t)n);
        if (!end && n == (ssize_t)sizeof(line))
            return -EBADMSG;
        if (recv(fd, line, end ? (size_t)(end - line) + 1 : (size_t)n, MSG_DONTWAIT) <= 0)
            return -ECONNREFUSED;
        if (end)
            return strncmp(line, "OK ", 3) == 0 ? 0 : -EBADMSG;
        if (n < 3 || strncmp(line, "OK ", 3) != 0)
            return -EBADMSG; /* our side sends the line whole */
    }
}

/* `first` begins with the CONNECT line and goes on with the session's first frames: they wait in the socket until the
 * guest has accepted, which saves a round trip. */
static int connect_agent(const struct record *record, const struct buf *first, uint64_t deadline, int *ret_fd)
{
    _cleanup_(fd_closep) int fd = -1;
    char path[4200];
    int r;

    if ((size_t)snprintf(path, sizeof(path), "%s/v", record->run_dir) >= sizeof(path))
        return -ENAMETOOLONG;
    while ((r = unix_connect_nofollow(path, true, &fd)) ==
            -EAGAIN) { /* its backlog is full; there is nothing to poll for */
        if (deadline_poll_ms(deadline) == 0)
            return -ETIMEDOUT;
        if (poll(NULL, 0, BACKLOG_POLL_MS) < 0)
            return -errno;
    }
    if (r < 0)
        return r == -ENOENT ? -ECONNREFUSED : r;
    r = fd_write_all(fd, first->data, first->len, deadline);
    if (r == 0)
        r = read_reply(fd, deadline);
    if (r < 0)
        return r == -EPIPE || r == -ECONNRESET ? -ECONNREFUSED : r;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int session_connect(
        const struct record *record, enum wire_session kind, const struct buf *request, uint64_t deadline, int *ret_fd)
{
    _cleanup_(buf_deinit) struct buf out = {0};
    char line[32];
    int n = snprintf(line, sizeof(line), "CONNECT %u\n", WIRE_AGENT_PORT);

    buf_put(&out, line, (size_t)n);
    wire_put_hello(&out, kind);
    buf_put(&out, request->data, request->len);
    if (out.error || request->error)
        return out.error ? out.error : request->error;
    return connect_agent(record, &out, deadline, ret_fd);
}

static int open_held(const struct record *record, int *ret_fd)
{
    _cleanup_(freep) char *path = NULL;
    int r = path_in(&path, NULL, IC_PATH_STATE, "vms/%s/" SESSION_HELD, record->vm_id);

    if (r < 0)
        return r;
    *ret_fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    return *ret_fd < 0 ? -errno : 0;
}

/* Positive: it was held, and is not any more. A lock that is free while the file is there is that of a saver who died:
 * then the VM has to be let go first. */
static int wait_not_held(const struct record *record, uint64_t deadline, struct ic_error *error)
{
    for (int was_held = 0;; was_held = 1) {
        _cleanup_(fd_closep) int fd = -1;
        struct stat st;

        if (open_held(record, &fd) < 0)
            return was_held;
        if (flock(fd, LOCK_SH | LOCK_NB) == 0) {
            (void)flock(fd, LOCK_UN);
            if (fstat(fd, &st) == 0 && st.st_nlink > 0)
                (void)saving_reap(record->vm_id, NULL);
        }
        if (deadline_poll_ms(deadline) == 0)
            return ic_fail(error, IC_ERR_TIMEOUT, "VM '%s': is held while it is saved; try again when that is done",
                    record->vm_id);
        if (poll(NULL, 0, HELD_POLL_MS) < 0)
            return session_fail(record, -errno, "waiting until it is saved", error);
    }
}

int session_open(const struct record *record, enum wire_session kind, const struct buf *request, uint64_t deadline,
        int *ret_fd, struct ic_error *error)
{
    uint64_t patience = kind == WIRE_SESSION_CONTROL ? deadline : deadline_after_ms(HELD_TIMEOUT_MS);
    int r = session_check_state(record, error);

    if (r == 0)
        r = wait_not_held(record, patience, error);
    if (r < 0)
        return r;
    if (r > 0)
        deadline = MAX(deadline, deadline_after_ms(SESSION_CONNECT_TIMEOUT_MS));
    r = session_connect(record, kind, request, deadline, ret_fd);
    if (r == -ECONNREFUSED) { /* on its way when the VM let go of its device: nothing of it was taken */
        r = wait_not_held(record, patience, error);
        if (r < 0)
            return r;
        if (r > 0)
            deadline = MAX(deadline, deadline_after_ms(SESSION_CONNECT_TIMEOUT_MS));
        r = r > 0 ? session_connect(record, kind, request, deadline, ret_fd) : -ECONNREFUSED;
    }
    if (r == -ETIMEDOUT && record->max_connections > 0)
        return ic_fail(error, IC_ERR_TIMEOUT,
                "VM '%s': connection to the agent: not within %u s; its max_connections is %u at a time: let commands "
                "or copies end, or give it more",
                record->vm_id, SESSION_CONNECT_TIMEOUT_MS / 1000, record->max_connections);
    return r < 0 ? session_fail(record, r, "connection to the agent", error) : 0;
}

int session_next(
        int fd, struct wire_reader *reader, uint64_t deadline, struct wire_frame *ret, const uint8_t **ret_payload)
{
    for (;;) {
        uint8_t *space;
        size_t room;
        ssize_t n;
        int r = wire_reader_next(reader, ret, ret_payload);

        if (r != 0)
            return r < 0 ? r : 0;
        r = session_wait(fd, POLLIN, deadline);
        if (r < 0)
            return r;
        space = wire_reader_space(reader, &room);
        if (!space)
            return -ENOMEM;
        n = recv(fd, space, room, MSG_DONTWAIT);
        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (n > 0)
            wire_reader_filled(reader, (size_t)n);
    }
}

int session_ask(const struct record *record, int fd, struct wire_reader *reader, const struct buf *requests,
        unsigned count, uint64_t deadline, const char *doing, struct ic_error *error)
{
    const uint8_t *payload;
    struct wire_frame frame;
    int r = requests->error ? requests->error : fd_write_all(fd, requests->data, requests->len, deadline);

    for (unsigned i = 0; r == 0 && i < count; i++) {
        r = session_next(fd, reader, deadline, &frame, &payload);
        if (r == 0 && frame.type == WIRE_ERROR) {
            (void)session_fail_peer(record, payload, frame.len, doing, error);
            r = -EREMOTEIO;
        } else if (r == 0 && frame.type != WIRE_OK) {
            r = -EPROTO;
        }
    }
    return r;
}

/* The guest's clock is late by the way of a message, and what a machine does first after it was copied is slow. The
 * agent takes the latest time that it is told (docs/protocol.md), so of many messages the quickest counts. */
int session_tell_time(const struct record *record, int fd, struct wire_reader *reader, uint64_t took_us,
        uint64_t deadline, struct ic_error *error)
{
    uint64_t begin_us = clock_now_us(), now_us = begin_us;
    int r = 0;

    for (int i = 0; r == 0 && i < TIME_TRIES && took_us > TIME_QUICK_US && now_us - begin_us < TIME_WAIT_US; i++) {
        _cleanup_(buf_deinit) struct buf request = {0};
        uint64_t sent_us = now_us;

        wire_put_time(&request, clock_unix_ns());
        r = session_ask(record, fd, reader, &request, 1, deadline, "setting its clock", error);
        now_us = clock_now_us();
        took_us = now_us - sent_us;
    }
    return r;
}

static void wait_for_end(const struct record *record)
{
    _cleanup_(fd_closep) int pidfd = -1;

    if (process_open(&record->monitor, &pidfd) == 0)
        (void)fd_wait(pidfd, POLLIN, deadline_after_ms(DYING_GRACE_MS));
}

bool session_lifetime_over(const struct record *record)
{
    _cleanup_(freep) char *dir = NULL;

    if (record->max_lifetime_ms == 0 || path_in(&dir, NULL, IC_PATH_STATE, "vms/%s", record->vm_id) < 0)
        return false;
    wait_for_end(record);
    return table_lifetime_over(record, dir);
}

/* Waits a moment for a VM that is going down, then says what is left of it. */
static int fail_lost(const struct record *record, const char *doing, struct ic_error *error)
{
    _cleanup_(freep) char *dir = NULL;
    bool monitor, vsock;
    char line[256] = "";

    if (session_lifetime_over(record))
        return ic_fail(error, IC_ERR_TIMEOUT, "VM '%s': %s: its max_lifetime_ms %u is over", record->vm_id, doing,
                record->max_lifetime_ms);
    wait_for_end(record);
    monitor = record_monitor_alive(record);
    vsock = record_vsock_alive(record);
    if (path_in(&dir, NULL, IC_PATH_STATE, "vms/%s", record->vm_id) == 0)
        (void)tail_line(line, sizeof(line), dir, "console.log");
    if (dir && audit_violation(line, sizeof(line), dir, record))
        return ic_fail(error, IC_ERR_BACKEND, "VM '%s': %s: %s", record->vm_id, doing, line);
    if (monitor && vsock)
        return ic_fail(error, IC_ERR_GUEST, "VM '%s': %s: the agent in the guest ended the connection%s%s",
                record->vm_id, doing, line[0] ? "; last line of its console: " : "", line);
    return ic_fail(error, IC_ERR_BACKEND, "VM '%s': %s: %s%s%s", record->vm_id, doing,
            !monitor ? "the VM has ended (its monitor process is gone)" : "its vsock process has died",
            line[0] ? "; last line of its console: " : "", line);
}

int session_fail(const struct record *record, int r, const char *doing, struct ic_error *error)
{
    switch (r) {
    case -ECONNRESET:
    case -ECONNREFUSED:
    case -EPIPE:
        return fail_lost(record, doing, error);
    case -EREMOTEIO:
        return -IC_ERR_GUEST;
    case -EINTR:
        return ic_fail(error, IC_ERR_CANCELLED, "VM '%s': %s: cancelled by a signal", record->vm_id, doing);
    case -ETIMEDOUT:
        return ic_fail(error, IC_ERR_TIMEOUT, "VM '%s': %s: no answer in time", record->vm_id, doing);
    case -EPROTO:
    case -EBADMSG:
    case -EMSGSIZE:
        return ic_fail(error, IC_ERR_PROTOCOL, "VM '%s': %s: the guest broke the protocol", record->vm_id, doing);
    default:
        return ic_fail_errno(error, r, "VM '%s': %s", record->vm_id, doing);
    }
}

int session_fail_peer(
        const struct record *record, const uint8_t *payload, size_t len, const char *doing, struct ic_error *error)
{
    char text[512];
    struct wire_error e;

    if (wire_get_error(&e, payload, len) < 0)
        return session_fail(record, -EBADMSG, doing, error);
    (void)log_escape(text, sizeof(text), e.message.s, e.message.len);
    return ic_fail(error, e.code == WIRE_E_NOT_FOUND ? IC_ERR_NOT_FOUND : IC_ERR_GUEST, "VM '%s': %s: %s",
            record->vm_id, doing, text);
}
