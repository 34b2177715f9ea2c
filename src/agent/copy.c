/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/spawn.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "transfer/transfer.h"

#define CONNECTION_FD 3

/* The host closes once it has the last frame; until then what it still sends is dropped, so that nothing is reset. */
static void linger(int fd)
{
    uint64_t deadline = deadline_after_ms(SESSION_LINGER_MS);
    char discard[4096];
    ssize_t n = 1;

    (void)shutdown(fd, SHUT_WR);
    while (n > 0 && deadline_poll_ms(deadline) > 0 && fd_wait(fd, POLLIN, deadline) == 0) {
        n = recv(fd, discard, sizeof(discard), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            n = 1; /* any other error stays, and poll(2) says at once that it is there */
    }
}

static _noreturn_ void refuse(int fd, enum wire_error_code code, int os_errno, const char *what)
{
    _cleanup_(buf_deinit) struct buf b = {0};
    char message[WIRE_MAX_MESSAGE];

    (void)snprintf(message, sizeof(message), "%s: %s", what, strerror(os_errno));
    wire_put_error(&b, code, (uint32_t)os_errno, message);
    (void)fd_write_all(fd, b.data, b.len, deadline_after_ms(SESSION_LINGER_MS));
    linger(fd);
    _exit(1);
}

static int transfer(int fd, struct wire_reader *reader, enum wire_type type, const struct wire_copy *copy)
{
    struct transfer_result result;
    char path[WIRE_MAX_PATH + 1], name[WIRE_MAX_NAME + 1];

    (void)snprintf(path, sizeof(path), "%.*s", (int)copy->path.len, copy->path.s);
    (void)snprintf(name, sizeof(name), "%.*s", (int)copy->name.len, copy->name.len > 0 ? copy->name.s : "");
    if (type == WIRE_GET) {
        struct transfer_send_options options = {
                .size = sizeof(options), .path = path, .follow = copy->flags & WIRE_COPY_FOLLOW};

        return transfer_send(fd, reader, &options, &result);
    }
    struct transfer_receive_options options = {
            .size = sizeof(options),
            .common.put = true,
            .dest = path,
            .name = name,
            .keep_owner = copy->flags & WIRE_COPY_KEEP_OWNER,
            .mode_mask = 07777,
    };
    return transfer_receive(fd, reader, &options, &result);
}

static _noreturn_ void child_main(
        struct session *s, enum wire_type type, const struct wire_copy *copy, const struct user *user)
{
    sigset_t none;
    int r;

    /* The child must not hold the other sessions' connections, or their hosts would never see them closed. */
    if (dup2(s->conn.fd, CONNECTION_FD) < 0 || close_range(CONNECTION_FD + 1, UINT_MAX, 0) < 0)
        _exit(1);
    (void)fd_set_nonblock(CONNECTION_FD, false);
    (void)sigemptyset(&none);
    (void)sigaddset(&none, SIGPIPE);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid();
    log_init("ironclaw-agent", LOG_ERROR, STDERR_FILENO); /* the log's descriptor is gone */
    r = s->agent->change_user ? spawn_become(user) : 0;
    if (r < 0)
        refuse(CONNECTION_FD, WIRE_E_NO_USER, -r, "can't become the user");
    if (chdir("/") < 0)
        refuse(CONNECTION_FD, WIRE_E_IO, errno, "/");
    r = transfer(CONNECTION_FD, &s->reader, type, copy);
    linger(CONNECTION_FD);
    _exit(r == 0 ? 0 : 1);
}

void copy_start(struct session *s, enum wire_type type, const uint8_t *payload, size_t len)
{
    struct agent *agent = s->agent;
    struct wire_copy copy;
    struct user user;
    pid_t pid;
    int r = wire_get_copy(&copy, payload, len);

    if (r < 0 || copy.path.len > WIRE_MAX_PATH || copy.name.len > WIRE_MAX_NAME) {
        session_fail(s, WIRE_E_PROTOCOL, EBADMSG, "malformed request to copy");
        return;
    }
    if (copy.path.len == 0 || copy.path.s[0] != '/') {
        session_fail(s, WIRE_E_INVALID, EINVAL, "'%.*s' is not an absolute path", (int)copy.path.len, copy.path.s);
        return;
    }
    r = agent_find_user(agent, &user, &copy.user);
    if (r < 0) {
        session_fail(s, WIRE_E_NO_USER, -r, "no user '%.*s' in the guest", (int)copy.user.len, copy.user.s);
        return;
    }
    r = agent_take_cgroup(agent, &s->copy_cgroup);
    pid = r < 0 ? r : spawn_fork(s->copy_cgroup ? s->copy_cgroup->dir_fd : -1);
    if (pid == 0)
        child_main(s, type, &copy, &user);
    if (pid < 0) {
        session_fail(s, WIRE_E_LIMIT, -pid, "can't start a process: %s", strerror(-pid));
        return;
    }
    s->copy_pid = pid;
    loop_remove(&agent->loop, &s->conn);
    fd_close(s->conn.fd);
    s->conn.fd = -1;
}

void copy_ended(struct session *s)
{
    if (s->copy_pid > 0)
        (void)kill(s->copy_pid, SIGKILL);
    s->copy_pid = 0;
    cgroup_release(&s->agent->cgroups, s->copy_cgroup);
    s->copy_cgroup = NULL;
}
