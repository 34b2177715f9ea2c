/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One session with the agent: a connection to the VM's unix socket, the
 * CONNECT line of the hybrid convention, then frames (docs/protocol.md).
 */
#pragma once

#include "orchestrator/record.h"
#include "wire/wire.h"

#define SESSION_CONNECT_TIMEOUT_MS 10000u

/* As fd_wait, but a signal handler's interruption is -EINTR. */
int session_wait(int fd, short events, uint64_t deadline);

/* Connects and sends HELLO with `request` (whole frames, may be empty) behind it, in one write. */
int session_open(const struct record *record, enum wire_session kind, const struct buf *request, uint64_t deadline,
        int *ret_fd, struct ic_error *error);

/* The next frame: 0, or a negative errno (-ETIMEDOUT, -EINTR, -ECONNRESET, -EBADMSG, -EMSGSIZE). */
int session_next(
        int fd, struct wire_reader *reader, uint64_t deadline, struct wire_frame *ret, const uint8_t **ret_payload);

/* The error for `r`, a negative errno of session_next and the like; -ECONNRESET is explained by what became of the VM.
 */
int session_fail(const struct record *record, int r, const char *doing, struct ic_error *error);

/* After a connection was lost: waits a moment for a VM that is going down, and tells whether its max_lifetime_ms was
 * the reason. */
bool session_lifetime_over(const struct record *record);

/* The error for an ERROR frame of the agent. */
int session_fail_peer(
        const struct record *record, const uint8_t *payload, size_t len, const char *doing, struct ic_error *error);

/* 0 when commands can be run in this state. */
int session_check_state(const struct record *record, struct ic_error *error);
