/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/snapshots/freeze.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/backends/backend.h"
#include "orchestrator/session.h"
#include "orchestrator/spawn.h"

#define ANSWER_TIMEOUT_MS 20000u

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

static int wait_ok(struct hold *hold, const char *doing, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(ANSWER_TIMEOUT_MS);
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
    return r < 0 ? r : wait_ok(hold, "freezing its commands", error);
}

static int thaw(struct hold *hold, struct ic_error *error)
{
    _cleanup_(buf_deinit) struct buf request = {0};
    int r;

    wire_put_empty(&request, WIRE_THAW);
    r = request.error ? request.error
                      : fd_write_all(hold->fd, request.data, request.len, deadline_after_ms(ANSWER_TIMEOUT_MS));
    return r < 0 ? session_fail(hold->record, r, "thawing its commands", error)
                 : wait_ok(hold, "thawing its commands", error);
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

int freeze_and_save(const struct record *record, uint64_t *ret_pause_us, struct ic_error *error)
{
    const struct backend *backend = backend_get(record->backend);
    _cleanup_(hold_deinit) struct hold hold = {.record = record, .fd = -1};
    uint64_t begin = clock_now_us();
    int r = check(record, backend, error), after;

    if (r == 0)
        r = freeze(&hold, error);
    if (r < 0)
        return r;
    spawn_lift_limits(record);
    r = backend->save(backend, record, error);
    spawn_restore_limits(record);
    after = backend->resume(backend, record->run_dir, r == 0 ? error : NULL);
    if (after == 0)
        after = thaw(&hold, r == 0 ? error : NULL);
    *ret_pause_us = clock_now_us() - begin;
    return r < 0 ? r : after;
}

int freeze_undo(const struct record *record, struct ic_error *error)
{
    const struct backend *backend = backend_get(record->backend);
    _cleanup_(hold_deinit) struct hold hold = {.record = record, .fd = -1};
    _cleanup_(buf_deinit) struct buf request = {0};
    int r;

    if (!backend)
        return 0;
    (void)backend->resume(
            backend, record->run_dir, NULL); /* refused when it runs; if it doesn't, nobody answers below */
    spawn_restore_limits(record);
    wire_put_empty(&request, WIRE_THAW);
    r = session_open(record, WIRE_SESSION_CONTROL, &request, deadline_after_ms(ANSWER_TIMEOUT_MS), &hold.fd, error);
    return r < 0 ? r : wait_ok(&hold, "thawing its commands", error);
}
