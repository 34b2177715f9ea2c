/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for a VM's agent: READY on the ready socket, the end of a process,
 * or the boot timeout, in one poll(2); and what is said when it fails. What
 * began from a snapshot is frozen until it got an identity of its own.
 */
#include "orchestrator/spawn-private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/audit-log.h"
#include "orchestrator/paths.h"
#include "orchestrator/session.h"
#include "orchestrator/snapshots/template.h"
#include "orchestrator/tail.h"

#define LIMIT_POLL_MS  100                    /* how long a guest may write its console without a limit */
#define NO_MEMORY      "deadlocked on memory" /* the kernel's panic */
#define AGENT_IS_OLDER "the kernel command line has a word that I don't understand: ironclaw."
#define FROZEN_LOG_MAX (1u << 20) /* of a boot that goes well */
#define FROZEN_POLL_MS 20
#define DYING_GRACE_MS 500u

/* ---- failing ---- */

static int fail_boot(const struct spawn *s, enum ic_error_code code, const char *what, struct ic_error *error)
{
    char console[256], monitor[384];

    (void)tail_line(console, sizeof(console), s->entry.dir, "console.log");
    (void)tail_line(monitor, sizeof(monitor), s->entry.dir, "monitor.log");
    if (console[0])
        return ic_fail(error, code, "VM '%s': %s; last line of its console: %s%s", s->record.vm_id, what, console,
                strstr(console, AGENT_IS_OLDER) ? "; its agent is older than this IronClaw: 'ironclaw image build' "
                                                  "makes the image anew"
                : strstr(console, NO_MEMORY)    ? "; give it more with memory_mib (--memory)"
                                                : "");
    return ic_fail(error, code, "VM '%s': %s; its monitor said: %s", s->record.vm_id, what, monitor);
}

static int fail_violation(const struct spawn *s, const char *what, struct ic_error *error)
{
    return ic_fail(error, IC_ERR_BACKEND, "VM '%s': during the boot %s; see 'ironclaw logs --audit %s'",
            s->record.vm_id, what, s->record.vm_id);
}

/* One of the VM's processes has ended. True when the others do, too, and the limit of its time is why. */
bool spawn_fail_lifetime(const struct spawn *s, struct ic_error *error)
{
    /* One of two processes may have said so and ended, and the other not yet have noticed. */
    if (s->record.max_lifetime_ms == 0 || (!tail_lifetime_over(s->entry.dir) && !session_lifetime_over(&s->record)))
        return false;
    (void)ic_fail(error, IC_ERR_TIMEOUT, "VM '%s': its max_lifetime_ms %u was over before it was ready; give it more",
            s->record.vm_id, s->record.max_lifetime_ms);
    return true;
}

/* A monitor that failed said why on its own log; one that ended well did so because its guest ended, and the guest's
 * console has the cause. */
int spawn_fail_ended(const struct spawn *s, struct ic_error *error)
{
    char how[64], what[128], said[384];
    bool failed;

    if (spawn_fail_lifetime(s, error))
        return -IC_ERR_TIMEOUT;
    process_describe_end(s->start.monitor.pidfd, &s->start.monitor.id, how, sizeof(how), &failed);
    (void)snprintf(what, sizeof(what), "its monitor process ended during the boot%s%s", failed && how[0] ? " " : "",
            failed ? how : "");
    if (failed && audit_violation(said, sizeof(said), s->entry.dir, &s->record))
        return fail_violation(s, said, error);
    if (failed && confine_was_oom(&s->record))
        return ic_fail(error, IC_ERR_BACKEND, "VM '%s': " CONFINE_OOM, s->record.vm_id);
    if (failed && tail_monitor(said, sizeof(said), s->entry.dir)[0])
        return ic_fail(error, IC_ERR_BACKEND, "VM '%s': %s; it said: %s", s->record.vm_id, what, said);
    return fail_boot(s, IC_ERR_BACKEND, what, error);
}

static int fail_vsock_ended(const struct spawn *s, struct ic_error *error)
{
    /* It ends with its front-end, and sees that go a moment before we do. */
    bool both = fd_wait(s->start.monitor.pidfd, POLLIN, deadline_after_ms(DYING_GRACE_MS)) == 0;
    char what[256];

    if (spawn_fail_lifetime(s, error))
        return -IC_ERR_TIMEOUT;
    if (audit_violation(what, sizeof(what), s->entry.dir, &s->record))
        return fail_violation(s, what, error);
    if (both)
        return spawn_fail_ended(s, error);
    return fail_boot(s, IC_ERR_BACKEND, "its vsock process ended during the boot", error);
}

/* ---- waiting ---- */

/* A frozen agent gives up a connection that isn't answered at once, as it may be one of the machine that was copied,
 * and makes another. */
static void hang_up(struct spawn *s, struct wire_reader *reader)
{
    session_close(s->ready_fd);
    s->ready_fd = -1;
    wire_reader_deinit(reader);
    *reader = (struct wire_reader){0};
}

/* The agent's READY on its connection. A guest is hostile from the first byte: one frame, bounded. */
static int read_ready(struct spawn *s, struct wire_reader *reader, bool *ret_ready, struct ic_error *error)
{
    enum wire_state state = WIRE_ST_READY;
    const uint8_t *payload;
    struct wire_frame frame;
    struct wire_ready ready = {0};
    size_t room;
    uint8_t *space = wire_reader_space(reader, &room);
    ssize_t n = space ? recv(s->ready_fd, space, room, MSG_DONTWAIT) : -1;
    int r;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0 && s->plan.from) {
        hang_up(s, reader);
        return 0;
    }
    if (n <= 0)
        return fail_boot(s, IC_ERR_GUEST, "the agent hung up before it was ready", error);
    wire_reader_filled(reader, (size_t)n);
    r = wire_reader_next(reader, &frame, &payload);
    if (r == 0)
        return 0;
    if (r > 0 && frame.type == WIRE_ERROR)
        return session_fail_peer(&s->record, payload, frame.len, "boot", error);
    if (r > 0)
        r = wire_step(&state, WIRE_SESSION_CONTROL, WIRE_FROM_AGENT, frame.type, false);
    if (r == 0)
        r = wire_get_ready(&ready, payload, frame.len);
    if (r < 0)
        return fail_boot(s, IC_ERR_PROTOCOL, "the agent's ready message is malformed", error);
    if (ready.version < WIRE_VERSION_MIN)
        return ic_fail(error, IC_ERR_PROTOCOL,
                "VM '%s': its agent speaks protocol version %u, this library %u to %u; build the image again",
                s->record.vm_id, ready.version, WIRE_VERSION_MIN, WIRE_VERSION);
    if (!s->record.kernel[0])
        (void)log_escape(s->record.kernel, sizeof(s->record.kernel), ready.kernel_release.s, ready.kernel_release.len);
    *ret_ready = true;
    return 0;
}

static int accept_ready(struct spawn *s)
{
    s->ready_fd = accept4(s->ready_listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (s->ready_fd < 0)
        return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED ? 0 : -errno;
    if (!s->plan.from) {
        fd_close(s->ready_listen_fd);
        s->ready_listen_fd = -1;
    }
    return 0;
}

/* QEMU's guest memory is a file to the limit of its files, so that begins at its size. From the guest's first word on
 * it is allocated, and what is written are logs, and the overlay's file. Who may not lower a limit of another user's
 * process (CAP_SYS_RESOURCE, which some containers' root has not) leaves it where it began. */
void spawn_limit_logs(struct spawn *s, bool guest_runs)
{
    struct stat st;

    if (s->limited || (!guest_runs && (fstat(s->start.console_fd, &st) < 0 || st.st_size == 0)))
        return;
    (void)process_limit_files(&s->record.monitor, MAX(SPAWN_LOG_LIMIT_BYTES, s->overlay_bytes), s->start.file_ceiling);
    (void)process_limit_files(&s->record.vsock, SPAWN_LOG_LIMIT_BYTES, 0);
    s->limited = true;
}

/* A guest without a vsock, of which a template is made, has no other way to say it. It has run nothing of anybody. */
static bool frozen_on_console(const struct spawn *s)
{
    _cleanup_(freep) char *path = NULL, *text = NULL;
    size_t len;

    return path_in(&path, NULL, IC_PATH_STATE, "vms/%s/console.log", s->record.vm_id) == 0 &&
           fd_read_file(AT_FDCWD, path, FROZEN_LOG_MAX, &text, &len) == 0 && strstr(text, BACKEND_FROZEN) != NULL;
}

static int wait_once(
        struct spawn *s, struct wire_reader *reader, uint64_t deadline, bool *ret_ready, struct ic_error *error)
{
    struct pollfd p[] = {
            {.fd = s->ready_fd >= 0 ? s->ready_fd : s->ready_listen_fd, .events = POLLIN},
            {.fd = s->start.monitor.pidfd, .events = POLLIN},
            {.fd = s->start.vsock.pidfd, .events = POLLIN},
    };
    int ms = deadline_poll_ms(deadline), most = s->plan.for_template ? FROZEN_POLL_MS : s->limited ? -1 : LIMIT_POLL_MS;
    const struct progress progress = {.fn = s->config.progress, .userdata = s->config.progress_userdata};
    int n, r, failed;

    n = poll(p, ARRAY_SIZE(p), most < 0 || (ms >= 0 && ms < most) ? ms : most);
    failed = n < 0 ? errno : 0;
    spawn_limit_logs(s, false);
    if (s->plan.for_template && n == 0) {
        *ret_ready = frozen_on_console(s);
        r = progress_report(&progress, TEMPLATE_STEP, 0, 0, error);
        if (r < 0 || *ret_ready)
            return r;
    }
    if (failed == EINTR)
        return ic_fail(error, IC_ERR_CANCELLED, "VM '%s': cancelled by a signal while it booted", s->record.vm_id);
    if (failed)
        return ic_fail_errno(error, -failed, "poll");
    if (deadline_poll_ms(deadline) == 0) { /* also when somebody keeps us busy */
        char what[96];

        (void)snprintf(what, sizeof(what), "was not ready after %u ms (boot_timeout_ms)", s->record.boot_timeout_ms);
        return fail_boot(s, IC_ERR_TIMEOUT, what, error);
    }
    if (n == 0)
        return 0;
    if (p[0].revents && s->ready_fd < 0) {
        r = accept_ready(s);
        return r < 0 ? ic_fail_errno(error, r, "ready socket") : 0;
    }
    if (p[0].revents)
        return read_ready(s, reader, ret_ready, error);
    return p[1].revents ? spawn_fail_ended(s, error) : fail_vsock_ended(s, error);
}

/* What came back from a snapshot is frozen until it is somebody of its own: randomness, clock, names. */
int spawn_give_identity(struct spawn *s, struct wire_reader *reader, uint64_t deadline, struct ic_error *error)
{
    static const char doing[] = "identity of a clone";
    struct record *record = &s->record;
    _cleanup_(buf_deinit) struct buf request = {0};
    uint8_t entropy[SPAWN_ENTROPY_BYTES];
    struct wire_clone clone = {
            .flags = record->tied ? WIRE_CLONE_TIED : 0,
            .hostname = {record->vm_id, strlen(record->vm_id)},
            .entropy = {(const char *)entropy, sizeof(entropy)},
    };
    uint64_t began_us = clock_now_us();
    int r;

    if (getrandom(entropy, sizeof(entropy), 0) != (ssize_t)sizeof(entropy) ||
            getrandom(clone.generation, sizeof(clone.generation), 0) != (ssize_t)sizeof(clone.generation))
        return ic_fail_errno(error, -errno, "random numbers");
    for (size_t i = 0; i < sizeof(clone.generation); i++)
        (void)snprintf(record->generation + 2 * i, 3, "%02x", clone.generation[i]);
    clone.time_ns = clock_unix_ns();
    wire_put_clone(&request, &clone);
    r = session_ask(record, s->ready_fd, reader, &request, 1, deadline, doing, error);
    explicit_bzero(entropy, sizeof(entropy));
    if (request.data)
        explicit_bzero(request.data, request.size);
    if (r == 0)
        r = session_tell_time(record, s->ready_fd, reader, clock_now_us() - began_us, deadline, error);
    return r < 0 ? session_fail(record, r, doing, error) : 0;
}

int spawn_wait_ready(struct spawn *s, struct wire_reader *reader, uint64_t deadline, struct ic_error *error)
{
    bool ready = false;
    int r = 0;

    while (r == 0 && !ready)
        r = wait_once(s, reader, deadline, &ready, error);
    return r;
}
