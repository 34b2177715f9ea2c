/* SPDX-License-Identifier: Apache-2.0 */
/* A small blocking host for the tests: starts the real agent on a unix socket and speaks the protocol to it. */
#pragma once

#include "base/test.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "wire/wire.h"

#define CLIENT_WAIT_MS 20000u

struct client {
    int fd;
    struct wire_reader reader;
    struct buf out, stdout_bytes, stderr_bytes;
    struct wire_exit exit;
    struct wire_error error;
    char message[WIRE_MAX_MESSAGE + 1];
    uint32_t pid;
};

static char agent_dir[32];
static char agent_socket[64];
static const char *agent_program, *agent_level; /* of seccomp; NULL: none */
static bool agent_frozen;                       /* began as a template does */
static pid_t agent_pid;

_unused_ static int start_agent(void **state)
{
    const char *argv[8] = {agent_program, "--listen-unix", agent_socket};
    size_t argc = 3;
    int fd;

    if (agent_level) {
        argv[argc++] = "--seccomp";
        argv[argc++] = agent_level;
    }
    if (agent_frozen)
        argv[argc++] = "--frozen";
    (void)snprintf(agent_dir, sizeof(agent_dir), "/tmp/ironclaw-test-agent.XXXXXX");
    if (!mkdtemp(agent_dir))
        return -1;
    (void)snprintf(agent_socket, sizeof(agent_socket), "%s/agent", agent_dir);
    agent_pid = fork();
    if (agent_pid == 0) {
        (void)execv(agent_program, (char *const *)argv);
        _exit(127);
    }
    for (int i = 0; i < 500; i++) {
        if (unix_connect(agent_socket, false, &fd) == 0) {
            fd_close(fd);
            return 0;
        }
        (void)usleep(10000);
    }
    return -1;
}

_unused_ static int stop_agent(void **state)
{
    int status;

    (void)kill(agent_pid, SIGTERM);
    if (waitpid(agent_pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return -1;           /* also when a sanitizer complained at the agent's end */
    return rmdir(agent_dir); /* fails when the agent left its socket behind */
}

static void client_send(struct client *c)
{
    assert_int_equal(c->out.error, 0);
    assert_int_equal(fd_write_all(c->fd, c->out.data, c->out.len, deadline_after_ms(CLIENT_WAIT_MS)), 0);
    buf_reset(&c->out);
}

/* 1 and a frame, 0 at the end of the connection. */
static int client_next(struct client *c, struct wire_frame *frame, const uint8_t **payload)
{
    for (;;) {
        int r = wire_reader_next(&c->reader, frame, payload);
        size_t room;
        uint8_t *space;
        ssize_t n;

        assert_true(r >= 0);
        if (r > 0)
            return 1;
        assert_int_equal(fd_wait(c->fd, POLLIN, deadline_after_ms(CLIENT_WAIT_MS)), 0);
        space = wire_reader_space(&c->reader, &room);
        assert_non_null(space);
        n = read(c->fd, space, room);
        if (n <= 0)
            return 0;
        wire_reader_filled(&c->reader, (size_t)n);
    }
}

static void client_open(struct client *c, enum wire_session kind)
{
    *c = (struct client){.fd = -1, .out.max = 64 << 20, .stdout_bytes.max = 256 << 20};
    assert_int_equal(unix_connect(agent_socket, false, &c->fd), 0);
    wire_put_hello(&c->out, kind);
}

static void client_close(struct client *c)
{
    fd_close(c->fd);
    c->fd = -1;
    wire_reader_deinit(&c->reader);
    buf_deinit(&c->out);
    buf_deinit(&c->stdout_bytes);
    buf_deinit(&c->stderr_bytes);
}

struct run {
    const char *argv[8];
    const char *env[4];
    const char *cwd, *user;
    uint32_t flags, timeout_ms, kill_grace_ms;
    uint16_t rows, cols;
};

_unused_ static void client_exec(struct client *c, const struct run *run)
{
    struct wire_str argv[8], env[4];
    struct wire_exec exec = {
            .flags = run->flags,
            .timeout_ms = run->timeout_ms,
            .kill_grace_ms = run->kill_grace_ms,
            .rows = run->rows,
            .cols = run->cols,
            .cwd = wire_str_of(run->cwd),
            .user = wire_str_of(run->user),
            .argv = argv,
            .env = env,
    };

    for (; exec.argc < 8 && run->argv[exec.argc]; exec.argc++)
        argv[exec.argc] = wire_str_of(run->argv[exec.argc]);
    for (; exec.envc < 4 && run->env[exec.envc]; exec.envc++)
        env[exec.envc] = wire_str_of(run->env[exec.envc]);
    client_open(c, WIRE_SESSION_EXEC);
    wire_put_exec(&c->out, &exec);
    client_send(c);
}

/* One frame: its type; 0 at the end of the connection. */
_unused_ static int client_step(struct client *c)
{
    struct wire_frame frame;
    const uint8_t *payload;

    if (client_next(c, &frame, &payload) == 0)
        return 0;
    switch (frame.type) {
    case WIRE_STARTED:
        assert_int_equal(wire_get_started(&c->pid, payload, frame.len), 0);
        break;
    case WIRE_STDOUT:
        buf_put(&c->stdout_bytes, payload, frame.len);
        break;
    case WIRE_STDERR:
        buf_put(&c->stderr_bytes, payload, frame.len);
        break;
    case WIRE_EXIT:
        assert_int_equal(wire_get_exit(&c->exit, payload, frame.len), 0);
        break;
    case WIRE_ERROR:
        assert_int_equal(wire_get_error(&c->error, payload, frame.len), 0);
        (void)snprintf(c->message, sizeof(c->message), "%.*s", (int)c->error.message.len, c->error.message.s);
        break;
    default:
        break;
    }
    return (int)frame.type;
}

/* Until EXIT or ERROR, whose type it returns. */
_unused_ static int client_wait(struct client *c)
{
    int type;

    while ((type = client_step(c)) != WIRE_EXIT && type != WIRE_ERROR)
        assert_int_not_equal(type, 0);
    return type;
}

_unused_ static void client_wait_output(struct client *c, const char *text)
{
    while (c->stdout_bytes.len == 0 || !memmem(c->stdout_bytes.data, c->stdout_bytes.len, text, strlen(text)))
        assert_int_equal(client_step(c) == 0, 0);
}

_unused_ static const char *client_stdout(struct client *c)
{
    buf_put_u8(&c->stdout_bytes, 0);
    c->stdout_bytes.len--;
    return (const char *)c->stdout_bytes.data;
}
