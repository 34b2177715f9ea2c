/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection from the host: receives frames, keeps the protocol's state,
 * and holds what is to be sent until the host takes it.
 *
 * Nothing here waits. What is sent goes into `out` and leaves at the end of
 * the loop's round (session_flush); its length is what exec.h's back-pressure
 * looks at. While a command does not take its stdin, frames stay in the
 * reader and the socket is not read, so the host's own credit stops it.
 *
 * After the last frame the session only flushes, shuts its direction down and
 * discards what still arrives until the host closes, so that the host always
 * gets that last frame.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/agent.h"
#include "base/buf.h"
#include "base/macro.h"
#include "wire/wire.h"

#define SESSION_OUT_HIGH  (256u << 10) /* bytes unsent: no more output is read from the command */
#define SESSION_OUT_LOW   (128u << 10) /* ... until no more than this is left */
#define SESSION_GREET_MS  10000u       /* HELLO and the request must have come */
#define SESSION_LINGER_MS 5000u        /* for the host to close after the last frame */

struct exec;

struct session {
    struct agent *agent;
    unsigned index; /* in agent->sessions */
    struct loop_fd conn;
    struct loop_timer timer; /* greeting, later lingering */
    struct wire_reader reader;
    struct buf out;
    size_t out_at; /* bytes of out already sent */
    enum wire_state state;
    enum wire_session kind;
    uint16_t version;       /* that both sides speak */
    bool ready, connecting; /* the connection that the agent made */
    bool ending, lingering; /* last frame queued; sent and shut down */
    bool dirty;             /* has something to flush */
    bool waiting;           /* for the guest to be thawed; its request is not read before */
    struct exec *exec;
    pid_t copy_pid; /* a child serves the connection; conn is closed here */
    struct cgroup *copy_cgroup;
};

/* Use agent_add_session(). */
int session_new(struct session **ret, struct agent *agent, int fd, bool ready);
/* Ends everything of the session, also its command. Accepts NULL. */
void session_free(struct session *session);

size_t session_unsent(const struct session *session);
/* For the frames that the agent sends: keeps the state; a frame that is not legal now is our own bug. */
void session_step(struct session *session, enum wire_type type);
/* Something was put into out. */
void session_touch(struct session *session);
/* Queued frames are the last ones. */
void session_end(struct session *session);
/* ERROR with a formatted message, then the end. */
void session_fail(struct session *session, enum wire_error_code code, int os_errno, const char *fmt, ...)
        _printf_(4, 5);
/* Sends what can be sent. May free the session. */
void session_flush(struct session *session);
/* Takes frames that have been received, when a command can take input again, or the session has waited. */
void session_resume(struct session *session);
/* Like session_free, from inside its callbacks: removes it from the agent's table too. */
void session_close(struct session *session);
