/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File transfers: a child with the user's rights speaks the rest of a put or
 * get session on the connection, with blocking calls (transfer/transfer.h).
 * The agent closes its end of the connection and only waits for the child.
 */
#pragma once

#include "agent/session.h"

/* Answers a PUT or GET frame. */
void copy_start(struct session *session, enum wire_type type, const uint8_t *payload, size_t len);
/* The child was reaped, or must end now. Does nothing when there is none. */
void copy_ended(struct session *session);
