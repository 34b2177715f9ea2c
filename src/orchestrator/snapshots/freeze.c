/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/snapshots/freeze.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/backends/backend.h"
#include "orchestrator/session.h"
#include "orchestrator/spawn.h"

#define ANSWER_TIMEOUT_MS 20000u
#define UNDO_TIMEOUT_MS   3000u /* every command of the user may wait for it */
#define ENTROPY_BYTES     64u

/* A control session: the one that FREEZE came on must be there for THAW, as a frozen agent takes no other. */
struct hold {
    const struct record *record;
    struct wire_reader reader;
    int fd;
};

static void hold_deinit(struct hold *hold)
{
    wire_reader_deinit(&hold->reader);
    fd_close(hold->fd);
}

static int wait_ok(struct hold *hold, uint64_t deadline, const char *doing, struct ic_error *error)
{
    const uint8_t *payload;
    struct wire_frame frame;
    int r = session_next(hold->fd, &hold->reader, deadline, &frame, &payload);

    if (r < 0)
        return session_fail(hold->record, r, doing, error);
    if (frame.type == WIRE_ERROR)
        return session_fail_peer(hold->record, payload, frame.len, doing, error);
    return frame.type == WIRE_OK ? 0 : session_fail(hold->record, -EPROTO, doing, error);
}

static int freeze(struct hold *hold, struct ic_error *error)
{
    _cleanup_(buf_deinit) struct buf request = {0};
    int r;

    wire_put_empty(&request, WIRE_FREEZE);
    r = session_open(
            hold->record, WIRE_SESSION_CONTROL, &request, deadline_after_ms(ANSWER_TIMEOUT_MS), &hold->fd, error);
    return r < 0 ? r : wait_ok(hold, deadline_after_ms(ANSWER_TIMEOUT_MS), "freezing its commands", error);
}

int freeze_until_cloned(const struct record *record, struct ic_error *error)
{
    _cleanup_(hold_deinit) struct hold hold = {.record = record, .fd = -1};

    return freeze(&hold, error);
}

/* The one that goes on gets fresh randomness, too: who has the copy knows what it would have drawn. */
static void put_thaw(struct buf *request)
{
    uint8_t entropy[ENTROPY_BYTES];

    if (getrandom(entropy, sizeof(entropy), 0) == (ssize_t)sizeof(entropy))
        wire_put_bytes(request, WIRE_ENTROPY, entropy, sizeof(entropy));
    else
        request->error = -EIO;
    explicit_bzero(entropy, sizeof(entropy));
    wire_put_empty(request, WIRE_THAW);
}

static void wipe(struct buf *request)
{
    if (request->data)
        explicit_bzero(request->data, request->len);
    buf_deinit(request);
}

static int thaw(struct hold *hold, struct ic_error *error)
{
    static const char doing[] = "thawing its commands";
    _cleanup_(wipe) struct buf request = {0};
    int r;

    put_thaw(&request);
    r = request.error ? request.error
                      : fd_write_all(hold->fd, request.data, request.len, deadline_after_ms(ANSWER_TIMEOUT_MS));
    if (r < 0)
        return session_fail(hold->record, r, doing, error);
    r = wait_ok(hold, deadline_after_ms(ANSWER_TIMEOUT_MS), doing, error);
    return r < 0 ? r : wait_ok(hold, deadline_after_ms(ANSWER_TIMEOUT_MS), doing, error);
}

static int check(const struct record *record, const struct backend *backend, struct ic_error *error)
{
    int r = session_check_state(record, error);

    if (r < 0)
        return r;
    if (!backend || !(backend->capabilities & BACKEND_SNAPSHOT))
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "VM '%s': backend %s can't save a VM that runs; copy what you need out with 'ironclaw cp'",
                record->vm_id, ic_backend_name(record->backend));
    if (record->overlay_kind != IC_OVERLAY_TMPFS)
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "VM '%s': has a disk (overlay.kind ext4), which would change under what was saved; copy the disk's "
                "file "
                "while the VM is stopped",
                record->vm_id);
    return 0;
}

/* From FREEZE on the VM counts as held, until it has answered a THAW: who ends before that leaves it to the reaper. */
int freeze_and_save(const struct record *record, struct saving *saving, uint64_t *ret_pause_us, struct ic_error *error)
{
    const struct backend *backend = backend_get(record->backend);
    _cleanup_(hold_deinit) struct hold hold = {.record = record, .fd = -1};
    uint64_t begin = clock_now_us();
    int r = check(record, backend, error), after;

    if (r < 0)
        return r;
    saving->held = true;
    r = freeze(&hold, error);
    if (r == 0) {
        spawn_lift_limits(record);
        r = backend->save(backend, record, error);
        spawn_restore_limits(record);
    }
    after = hold.fd >= 0 ? backend->resume(backend, record->run_dir, r == 0 ? error : NULL) : -IC_ERR_IO;
    if (after == 0)
        after = thaw(&hold, r == 0 ? error : NULL);
    if (after < 0) /* on a session of its own, as this one is broken, or late by an answer */
        after = freeze_undo(record, NULL);
    saving->held = after < 0;
    *ret_pause_us = clock_now_us() - begin;
    return r < 0 ? r : after;
}

int freeze_undo(const struct record *record, struct ic_error *error)
{
    const struct backend *backend = backend_get(record->backend);
    _cleanup_(hold_deinit) struct hold hold = {.record = record, .fd = -1};
    _cleanup_(wipe) struct buf request = {0};
    uint64_t deadline;
    int r;

    if (!backend)
        return 0;
    /* Refused when it runs; if it doesn't, nobody answers below. */
    (void)backend->resume(backend, record->run_dir, NULL);
    spawn_restore_limits(record);
    deadline = deadline_after_ms(UNDO_TIMEOUT_MS);
    put_thaw(&request);
    r = session_open(record, WIRE_SESSION_CONTROL, &request, deadline, &hold.fd, error);
    if (r == 0)
        r = wait_ok(&hold, deadline, "thawing its commands", error);
    return r < 0 ? r : wait_ok(&hold, deadline, "thawing its commands", error);
}
