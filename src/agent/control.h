/* SPDX-License-Identifier: Apache-2.0 */
/* Control sessions: ready, time, entropy, statistics, shutdown, ping. */
#pragma once

#include "agent/session.h"

void control_send_ready(struct session *session);
/* OK. */
void control_answer(struct session *session);
/* One request, answered at once. 0, or a negative errno for a malformed one. */
int control_frame(struct session *session, enum wire_type type, const uint8_t *payload, size_t len);
