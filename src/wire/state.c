/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which frame is legal when: one table, read by both sides and by the tests.
 *
 * A row says that `sender` may send `type` in `state`, and where that leads.
 * ERROR is not in the table: the agent may send it at any time before the end,
 * and it ends the session. ENTRY leads to the _FILE state only if it opens a
 * regular file, so DATA behind a directory or a symlink is refused here.
 */
#include <errno.h>

#include "base/macro.h"
#include "wire/wire.h"

#define HOST  WIRE_FROM_HOST
#define AGENT WIRE_FROM_AGENT

struct transition {
    enum wire_state state;
    enum wire_sender sender;
    enum wire_type type;
    enum wire_state next;
    enum wire_session session; /* 0: any */
};

static const struct transition transitions[] = {
        {WIRE_ST_START, HOST, WIRE_HELLO, WIRE_ST_REQUEST, 0},

        {WIRE_ST_REQUEST, HOST, WIRE_EXEC, WIRE_ST_EXEC_START, WIRE_SESSION_EXEC},
        {WIRE_ST_REQUEST, HOST, WIRE_PUT, WIRE_ST_PUT, WIRE_SESSION_PUT},
        {WIRE_ST_REQUEST, HOST, WIRE_GET, WIRE_ST_GET, WIRE_SESSION_GET},
        {WIRE_ST_REQUEST, HOST, WIRE_TIME, WIRE_ST_CONTROL, WIRE_SESSION_CONTROL},
        {WIRE_ST_REQUEST, HOST, WIRE_ENTROPY, WIRE_ST_CONTROL, WIRE_SESSION_CONTROL},
        {WIRE_ST_REQUEST, HOST, WIRE_STATS_REQ, WIRE_ST_CONTROL, WIRE_SESSION_CONTROL},
        {WIRE_ST_REQUEST, HOST, WIRE_SHUTDOWN, WIRE_ST_CONTROL, WIRE_SESSION_CONTROL},
        {WIRE_ST_REQUEST, HOST, WIRE_PING, WIRE_ST_CONTROL, WIRE_SESSION_CONTROL},
        {WIRE_ST_REQUEST, HOST, WIRE_FREEZE, WIRE_ST_CONTROL, WIRE_SESSION_CONTROL},
        {WIRE_ST_REQUEST, HOST, WIRE_THAW, WIRE_ST_CONTROL, WIRE_SESSION_CONTROL},
        {WIRE_ST_REQUEST, HOST, WIRE_CLONE, WIRE_ST_CONTROL, WIRE_SESSION_CONTROL},

        {WIRE_ST_EXEC_START, AGENT, WIRE_STARTED, WIRE_ST_RUNNING, 0},
        {WIRE_ST_EXEC_START, HOST, WIRE_STDIN, WIRE_ST_EXEC_START, 0},
        {WIRE_ST_EXEC_START, HOST, WIRE_CLOSE_STDIN, WIRE_ST_EXEC_START, 0},
        {WIRE_ST_EXEC_START, HOST, WIRE_RESIZE, WIRE_ST_EXEC_START, 0},
        {WIRE_ST_EXEC_START, HOST, WIRE_SIGNAL, WIRE_ST_EXEC_START, 0},

        {WIRE_ST_RUNNING, AGENT, WIRE_STDOUT, WIRE_ST_RUNNING, 0},
        {WIRE_ST_RUNNING, AGENT, WIRE_STDERR, WIRE_ST_RUNNING, 0},
        {WIRE_ST_RUNNING, AGENT, WIRE_EXIT, WIRE_ST_ENDED, 0},
        {WIRE_ST_RUNNING, HOST, WIRE_STDIN, WIRE_ST_RUNNING, 0},
        {WIRE_ST_RUNNING, HOST, WIRE_CLOSE_STDIN, WIRE_ST_RUNNING, 0},
        {WIRE_ST_RUNNING, HOST, WIRE_RESIZE, WIRE_ST_RUNNING, 0},
        {WIRE_ST_RUNNING, HOST, WIRE_SIGNAL, WIRE_ST_RUNNING, 0},

        {WIRE_ST_PUT, HOST, WIRE_ENTRY, WIRE_ST_PUT, 0},
        {WIRE_ST_PUT, HOST, WIRE_DONE, WIRE_ST_PUT_DONE, 0},
        {WIRE_ST_PUT_FILE, HOST, WIRE_ENTRY, WIRE_ST_PUT, 0},
        {WIRE_ST_PUT_FILE, HOST, WIRE_DATA, WIRE_ST_PUT_FILE, 0},
        {WIRE_ST_PUT_FILE, HOST, WIRE_HOLE, WIRE_ST_PUT_FILE, 0},
        {WIRE_ST_PUT_FILE, HOST, WIRE_DONE, WIRE_ST_PUT_DONE, 0},
        {WIRE_ST_PUT_DONE, AGENT, WIRE_OK, WIRE_ST_ENDED, 0},

        {WIRE_ST_GET, AGENT, WIRE_ENTRY, WIRE_ST_GET, 0},
        {WIRE_ST_GET, AGENT, WIRE_DONE, WIRE_ST_ENDED, 0},
        {WIRE_ST_GET_FILE, AGENT, WIRE_ENTRY, WIRE_ST_GET, 0},
        {WIRE_ST_GET_FILE, AGENT, WIRE_DATA, WIRE_ST_GET_FILE, 0},
        {WIRE_ST_GET_FILE, AGENT, WIRE_HOLE, WIRE_ST_GET_FILE, 0},
        {WIRE_ST_GET_FILE, AGENT, WIRE_DONE, WIRE_ST_ENDED, 0},

        {WIRE_ST_READY, AGENT, WIRE_READY, WIRE_ST_CONTROL, 0},

        {WIRE_ST_CONTROL, HOST, WIRE_TIME, WIRE_ST_CONTROL, 0},
        {WIRE_ST_CONTROL, HOST, WIRE_ENTROPY, WIRE_ST_CONTROL, 0},
        {WIRE_ST_CONTROL, HOST, WIRE_STATS_REQ, WIRE_ST_CONTROL, 0},
        {WIRE_ST_CONTROL, HOST, WIRE_SHUTDOWN, WIRE_ST_CONTROL, 0},
        {WIRE_ST_CONTROL, HOST, WIRE_PING, WIRE_ST_CONTROL, 0},
        {WIRE_ST_CONTROL, HOST, WIRE_FREEZE, WIRE_ST_CONTROL, 0},
        {WIRE_ST_CONTROL, HOST, WIRE_THAW, WIRE_ST_CONTROL, 0},
        {WIRE_ST_CONTROL, HOST, WIRE_UNPLUG, WIRE_ST_CONTROL, 0},
        {WIRE_ST_CONTROL, HOST, WIRE_CLONE, WIRE_ST_CONTROL, 0},
        {WIRE_ST_CONTROL, AGENT, WIRE_OK, WIRE_ST_CONTROL, 0},
        {WIRE_ST_CONTROL, AGENT, WIRE_STATS, WIRE_ST_CONTROL, 0},
};

int wire_step(enum wire_state *state, enum wire_session session, enum wire_sender sender, enum wire_type type,
        bool regular_file)
{
    if (type == WIRE_ERROR && sender == WIRE_FROM_AGENT && *state != WIRE_ST_ENDED) {
        *state = WIRE_ST_ENDED;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(transitions); i++) {
        const struct transition *t = &transitions[i];

        if (t->state != *state || t->sender != sender || t->type != type)
            continue;
        if (t->session != 0 && t->session != session)
            return -EPROTO;
        *state = t->next;
        if (type == WIRE_ENTRY && regular_file)
            *state = t->next == WIRE_ST_PUT ? WIRE_ST_PUT_FILE : WIRE_ST_GET_FILE;
        return 0;
    }
    return -EPROTO;
}
