/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One session with the agent: a connection to the VM's unix socket, the
 * CONNECT line of the hybrid convention, then frames (docs/protocol.md).
 */
#pragma once

#include "orchestrator/record.h"
#include "wire/wire.h"

#define SESSION_CONNECT_TIMEOUT_MS 10000u
#define SESSION_HELD               "held" /* beside the record, and locked: the VM is being saved, and answers nobody */

/* Ends a session, also where a fork of the program that we are in has the descriptor, too. -1: nothing. */
void session_close(int fd);

/* As fd_wait, but a signal handler's interruption is -EINTR. */
int session_wait(int fd, short events, uint64_t deadline);

/* Connects and sends HELLO with `request` (whole frames, may be empty) behind it, in one write; waits for a VM that is
 * held for a moment. */
int session_open(const struct record *record, enum wire_session kind, const struct buf *request, uint64_t deadline,
        int *ret_fd, struct ic_error *error);

/* The same of a VM that may not answer yet: nobody waits for its end to say more of it. 0, or a negative errno. */
int session_connect(
        const struct record *record, enum wire_session kind, const struct buf *request, uint64_t deadline, int *ret_fd);

/* The next frame: 0, or a negative errno (-ETIMEDOUT, -EINTR, -ECONNRESET, -EBADMSG, -EMSGSIZE). */
int session_next(
        int fd, struct wire_reader *reader, uint64_t deadline, struct wire_frame *ret, const uint8_t **ret_payload);

/* In a control session: sends requests and takes an OK for each of them. 0, or a negative errno; -EREMOTEIO: the agent
 * refused, and *error has its words. */
int session_ask(const struct record *record, int fd, struct wire_reader *reader, const struct buf *requests,
        unsigned count, uint64_t deadline, const char *doing, struct ic_error *error);

/* The same with the host's time, until a message was quick; none is sent if the one before, which took took_us, was.
 * UINT64_MAX: there was none. */
int session_tell_time(const struct record *record, int fd, struct wire_reader *reader, uint64_t took_us,
        uint64_t deadline, struct ic_error *error);

/* The error for `r`, a negative errno of session_next, session_ask and the like; -ECONNRESET is explained by what
 * became of the VM. */
int session_fail(const struct record *record, int r, const char *doing, struct ic_error *error);

/* After a connection was lost: waits a moment for a VM that is going down, and tells whether its max_lifetime_ms was
 * the reason. */
bool session_lifetime_over(const struct record *record);

/* The error for an ERROR frame of the agent. */
int session_fail_peer(
        const struct record *record, const uint8_t *payload, size_t len, const char *doing, struct ic_error *error);

/* 0 when commands can be run in this state. */
int session_check_state(const struct record *record, struct ic_error *error);
