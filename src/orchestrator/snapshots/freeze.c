/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/snapshots/freeze.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/backends/backend.h"
#include "orchestrator/session.h"
#include "orchestrator/spawn.h"

#define ANSWER_TIMEOUT_MS 20000u
#define UNDO_TIMEOUT_MS   3000u  /* every command of the user may wait for it */
#define UNDO_UNPLUG_MS    10000u /* the same where the guest has to find a device first */
#define UNPLUG_WAIT_MS    1000u  /* for commands in progress to end */
#define UNPLUG_AGAIN_US   50000u
#define UNPLUG_TRIES      5u     /* or so many: where everything is slow, ending is, too */
#define UNPLUG_MOST_MS    10000u /* but no longer: the guest may be the one that is slow */
#define NEW_DEVICE_US     5000u  /* between two looks whether the guest has taken it */
#define THAW_TRY_MS       1500u  /* what was sent by way of a device that went is never answered */
#define ENTROPY_BYTES     64u
#define THAW_REQUESTS     3u

static const char thawing[] = "thawing its commands";

/* A control session: the one that FREEZE came on must be there for THAW, as a frozen agent takes no other. */
struct hold {
    const struct record *record;
    struct wire_reader reader;
    int fd;
};

static void hold_deinit(struct hold *hold)
{
    wire_reader_deinit(&hold->reader);
    session_close(hold->fd);
}

static int ask(struct hold *hold, enum wire_type type, const char *doing, struct ic_error *error)
{
    _cleanup_(buf_deinit) struct buf request = {0};
    int r;

    wire_put_empty(&request, type);
    r = session_ask(
            hold->record, hold->fd, &hold->reader, &request, 1, deadline_after_ms(ANSWER_TIMEOUT_MS), doing, error);
    return r < 0 ? session_fail(hold->record, r, doing, error) : 0;
}

static int freeze(struct hold *hold, struct ic_error *error)
{
    static const char doing[] = "freezing its commands";
    _cleanup_(buf_deinit) struct buf none = {0};
    int r = session_connect(hold->record, WIRE_SESSION_CONTROL, &none, deadline_after_ms(ANSWER_TIMEOUT_MS), &hold->fd);

    return r < 0 ? session_fail(hold->record, r, doing, error) : ask(hold, WIRE_FREEZE, doing, error);
}

int freeze_until_cloned(const struct record *record, struct ic_error *error)
{
    _cleanup_(hold_deinit) struct hold hold = {.record = record, .fd = -1};
    int r = session_check_state(record, error);

    return r < 0 ? r : freeze(&hold, error);
}

static void wipe(struct buf *request)
{
    if (request->data)
        explicit_bzero(request->data, request->len);
    buf_deinit(request);
}

/* The one that goes on gets fresh randomness, too: who has the copy knows what it would have drawn. And the time, as
 * its clock may have stood. In one piece: what is not answered in time is carried out all the same. */
static int put_thaw(struct buf *requests)
{
    uint8_t entropy[ENTROPY_BYTES];

    if (getrandom(entropy, sizeof(entropy), 0) != (ssize_t)sizeof(entropy))
        return -EIO;
    wire_put_time(requests, clock_unix_ns());
    wire_put_bytes(requests, WIRE_ENTROPY, entropy, sizeof(entropy));
    explicit_bzero(entropy, sizeof(entropy));
    wire_put_empty(requests, WIRE_THAW);
    return 0;
}

/* Sends them (put_thaw(); NULL: they have been). 0, or a negative errno as session_ask(). */
static int thaw(struct hold *hold, const struct buf *requests, uint64_t deadline, struct ic_error *error)
{
    static const struct buf sent;
    uint64_t begin = clock_now_us();
    int r = session_ask(hold->record, hold->fd, &hold->reader, requests ? requests : &sent, THAW_REQUESTS, deadline,
            thawing, error);

    if (r == 0 && requests)
        begin = clock_now_us() - begin;
    if (r == 0) /* better, if it can be had */
        (void)session_tell_time(hold->record, hold->fd, &hold->reader, requests ? begin : UINT64_MAX, deadline, NULL);
    return r;
}

/* The session of FREEZE is the last that the agent waits for. */
static int unplug(struct hold *hold, struct ic_error *error)
{
    int r = ask(hold, WIRE_UNPLUG, "letting go of its vsock device", error);

    session_close(hold->fd); /* a refusal has ended it, too */
    hold->fd = -1;
    return r;
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
    if (backend->no_snapshot && backend->no_snapshot(backend, record))
        return ic_fail(error, IC_ERR_UNSUPPORTED, "VM '%s': backend %s can't save it: %s", record->vm_id,
                ic_backend_name(record->backend), backend->no_snapshot(backend, record));
    if (record->tied && backend->capabilities & BACKEND_UNPLUG)
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "VM '%s': ends with its connection to the one who started it, and backend %s has to end its "
                "connections to save it; start it with --keep",
                record->vm_id, ic_backend_name(record->backend));
    if (record->overlay_kind != IC_OVERLAY_TMPFS)
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "VM '%s': has a disk (overlay.kind ext4), which would change under what was saved; copy the disk's "
                "file "
                "while the VM is stopped",
                record->vm_id);
    return 0;
}

static int thaw_here(struct hold *hold)
{
    _cleanup_(wipe) struct buf requests = {0};
    int r = put_thaw(&requests);

    return r < 0 ? r : thaw(hold, &requests, deadline_after_ms(ANSWER_TIMEOUT_MS), NULL);
}

static int thaw_anew(const struct record *record, uint64_t deadline, struct ic_error *error)
{
    _cleanup_(hold_deinit) struct hold hold = {.record = record, .fd = -1};
    _cleanup_(wipe) struct buf requests = {0};
    int r = put_thaw(&requests);

    if (r == 0)
        r = session_connect(record, WIRE_SESSION_CONTROL, &requests, deadline, &hold.fd);
    return r < 0 ? r : thaw(&hold, NULL, deadline, error);
}

/* By a session of its own, for which a device that was plugged anew has to be found by the guest first. */
static int go_on(const struct record *record, uint64_t deadline, struct ic_error *error)
{
    const struct backend *backend = backend_get(record->backend);
    struct ic_error cause;
    bool again;
    int r, resumed;

    if (!backend)
        return 0;
    again = backend->capabilities & BACKEND_UNPLUG;
    for (;;) {
        /* Refused when it runs; if it doesn't, nobody answers below. */
        resumed = backend->resume(backend, record->run_dir, &cause);
        spawn_restore_limits(record);
        r = thaw_anew(record, again ? MIN(deadline, deadline_after_ms(THAW_TRY_MS)) : deadline, error);
        if (r == 0)
            return 0;
        if (!again || r == -EINTR || deadline_poll_ms(deadline) == 0 || !record_monitor_alive(record))
            break;
        (void)usleep(NEW_DEVICE_US);
    }
    if (again && resumed < 0 && record_monitor_alive(record)) {
        if (error)
            *error = cause;
        return resumed;
    }
    return session_fail(record, r, thawing, error);
}

/* *ret_left: the VM has not answered a THAW, and is left to the reaper. */
static int try_to_save(const struct record *record, const struct backend *backend, uint64_t *ret_pause_us,
        bool *ret_refused, bool *ret_left, struct ic_error *error)
{
    _cleanup_(hold_deinit) struct hold hold = {.record = record, .fd = -1};
    uint64_t begin = clock_now_us();
    int r, after;

    r = freeze(&hold, error);
    if (r == 0 && backend->capabilities & BACKEND_UNPLUG) {
        r = unplug(&hold, error);
        *ret_refused = r == -IC_ERR_GUEST;
    }
    if (r == 0) {
        spawn_lift_limits(record);
        r = backend->save(backend, record, error);
        spawn_restore_limits(record);
    }
    after = hold.fd >= 0 ? backend->resume(backend, record->run_dir, r == 0 ? error : NULL) : -IC_ERR_IO;
    if (after == 0)
        after = thaw_here(&hold);
    if (after < 0) /* on a session of its own, as this one is broken, or late by an answer */
        after = go_on(record, deadline_after_ms(ANSWER_TIMEOUT_MS), r == 0 ? error : NULL);
    *ret_left = after < 0;
    *ret_pause_us = clock_now_us() - begin;
    return r < 0 ? r : after;
}

/* Who wants to begin something waits meanwhile, so that what is in progress gets less: short commands end while it is
 * tried again. */
int freeze_and_save(const struct record *record, struct saving *saving, uint64_t *ret_pause_us, struct ic_error *error)
{
    const struct backend *backend = backend_get(record->backend);
    uint64_t enough = deadline_after_ms(UNPLUG_WAIT_MS), most = deadline_after_ms(UNPLUG_MOST_MS);
    unsigned tries = 0;
    bool refused, left;
    int r = check(record, backend, error);

    if (r == 0)
        r = saving_hold(saving, error);
    if (r < 0)
        return r;
    for (;;) {
        refused = left = false;
        r = try_to_save(record, backend, ret_pause_us, &refused, &left, error);
        if (!refused || left || (++tries > 1 && deadline_poll_ms(most) == 0) ||
                (tries >= UNPLUG_TRIES && deadline_poll_ms(enough) == 0))
            break;
        /* They stood still during the try, and get as long to go on. */
        (void)usleep((useconds_t)MIN(MAX(*ret_pause_us, UNPLUG_AGAIN_US), 10 * UNPLUG_AGAIN_US));
    }
    if (!left)
        saving_release(saving);
    return r;
}

int freeze_undo(const struct record *record, struct ic_error *error)
{
    const struct backend *backend = backend_get(record->backend);
    bool unplugs = backend && backend->capabilities & BACKEND_UNPLUG;

    return go_on(record, deadline_after_ms(unplugs ? UNDO_UNPLUG_MS : UNDO_TIMEOUT_MS), error);
}
