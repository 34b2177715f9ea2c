/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frozen: nothing but the agent runs, so that the machine can be copied.
 *
 * A copy is the same machine once more, with the same random numbers to come
 * and the same work half done. So no process of a command may run between the
 * moment of the copy and the moment when the copy has been made a machine of
 * its own (identity.h). The agent stops the commands' control groups and
 * starts none; what was started already (a child on its way to its program,
 * one that copies files) is in these groups as well. Output and input of
 * commands stay in their pipes. Sessions other than control wait: THAW takes
 * their requests, CLONE ends them, as a copy was asked for nothing, and who
 * waits for a host that is gone is refused.
 *
 *     serving ---- FREEZE ----> frozen ---- THAW: the same machine ----> serving
 *     template at boot -------> frozen ---- CLONE: another machine ----> serving
 *
 * A copy notices nothing except that its connections are gone. So the agent
 * connects to the host's ready port for as long as it is frozen and has no
 * ready connection, and whoever made the copy listens there. The session that
 * sent FREEZE holds that back while it lasts: its host is still the one that
 * is talked to. Nor does the end of the ready connection mean anything before
 * THAW or CLONE.
 *
 * The vsock device may be missing at first: a machine is plugged one when it
 * has been copied. The bus is then looked through again and again, since no
 * interrupt tells a machine that was stopped what it missed. (With QEMU
 * `pci=hpiosize=0` saves each look a dozen lines on the console.) And where a
 * machine that has one can't be copied, UNPLUG before that lets go of it
 * (plug.h) as soon as its session ends, and THAW comes by the next one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "wire/wire.h"

#define FREEZE_WAIT_MS         5000u
#define FREEZE_RETRY_MIN_MS    2u
#define FREEZE_RETRY_MAX_MS    20u
#define FREEZE_NO_DEVICE_MS    5u    /* between two attempts without a device */
#define FREEZE_PATIENCE_MIN_MS 250u  /* for an attempt: the answer to one that was under way may be lost in the copy */
#define FREEZE_PATIENCE_MAX_MS 4000u /* ... but a busy host gets more time with each that nobody answered */
#define FREEZE_WAITING_MAX     128u  /* sessions */
#define FREEZE_SPARE           16u   /* sessions beside all that wait, for the one that brings THAW */
#define FREEZE_ABANDONED_MS    5000u /* after the session of FREEZE has ended, nobody waits for longer */

struct agent;
struct session;

struct freeze {
    bool on;
    bool template; /* booted to be copied: only CLONE ends it */
    bool looking;  /* for a device */
    bool unplug;   /* when `by` has ended, and others have read their last frames */
    struct session *by;
    struct loop_timer retry;
    struct loop_timer waiting; /* sessions that wait: frozen, they are refused then, else served */
    uint64_t retry_ms, patience_ms, tried_at;
};

/* A template begins frozen. */
void freeze_init(struct agent *agent);
/* Connects as described above if it is to be done now. */
void freeze_connect(struct agent *agent);
/* FREEZE, UNPLUG, THAW and CLONE. 0, or a negative errno for a malformed one. */
int freeze_frame(struct session *session, enum wire_type type, const uint8_t *payload, size_t len);
/* Whether the session's request must not be taken now: then it waits, or was answered ERROR by a guest that does not go
 * on, or not with this connection. */
bool freeze_holds(struct session *session);
/* This session has left the agent's table. */
void freeze_session_gone(struct agent *agent, const struct session *session);
