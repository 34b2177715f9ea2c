/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands: one session each. ic_exec_wait() is a pump between the caller's
 * three descriptors and the session:
 *
 *   stdin  --read when the frames waiting to be sent are few-->  STDIN frames
 *   STDOUT, STDERR frames  --one at a time, until written-->     stdout, stderr
 *
 * While a frame is not yet written nothing more is read from the session, so a
 * slow reader holds up the command through vsock's credit, and memory is
 * bounded by one frame each way. Resizes, signals and cancellation come
 * through a pipe, because they may come from signal handlers.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/audit-log.h"
#include "orchestrator/exec.h"
#include "orchestrator/session.h"
#include "orchestrator/sink.h"
#include "orchestrator/vm.h"

#define SIGNAL_MAX            64 /* as the protocol has it */
#define KILL_GRACE_MS         2000u
#define BACKSTOP_MS           10000u /* beyond a command's timeout and grace, when the guest does not keep them itself */
#define STARTED_MS            120000u /* a guest that thrashes is slow, one that never answers is broken */
#define STARTED_BACKSTOP_MS   30000u  /* the same, for a command with a timeout: beyond that and its grace */
#define STDIN_CHUNK           (64u << 10)
#define STUCK_MS              1000u
#define MAX_SENDING           (128u << 10) /* frames not yet sent, beyond which stdin is left alone */
#define STATUS_TIMED_OUT      124
#define STATUS_OUTPUT_LIMIT   125
#define STATUS_NOT_EXECUTABLE 126
#define STATUS_NOT_FOUND      127

enum wake_kind { WAKE_RESIZE, WAKE_SIGNAL, WAKE_CANCEL };

struct wake {
    uint16_t kind, a, b;
};

struct ic_exec {
    struct record record;
    struct wire_reader reader;
    struct buf sending;
    size_t sent; /* of `sending` */
    enum wire_state state;
    int sock, wake_r, wake_w;
    int stdin_fd;
    struct sink sinks[2]; /* stdout, stderr */
    struct sink *writing; /* where the frame at hand goes, NULL: none */
    const uint8_t *data;
    size_t data_left;
    uint64_t deadline;
    uint32_t timeout_ms;
    uint64_t output_left; /* until max_output_bytes */
    uint32_t max_output;  /* 0: none */
    bool over_output;     /* what is written now is the last */
    pid_t owner;          /* a fork of it that frees its copy does not end the command */
    atomic_bool cancelled;
    bool waited;
};

void ic_exec_options_init(struct ic_exec_options *options)
{
    *options = (struct ic_exec_options){.size = sizeof(*options), .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
}

/* ---- request ---- */

struct env_list {
    struct wire_str *v;
    uint32_t count;
};

static struct wire_str str_of(const char *s)
{
    return (struct wire_str){.s = s ? s : "", .len = s ? strlen(s) : 0};
}

/* A later entry replaces an earlier one of the same name. */
static int env_add(struct env_list *list, const char *entry, struct ic_error *error)
{
    size_t name = strcspn(entry, "=");

    if (entry[name] != '=' || name == 0)
        return ic_fail(error, IC_ERR_INVALID, "env '%.100s': must be NAME=value", entry);
    for (uint32_t i = 0; i < list->count; i++) {
        if (strncmp(list->v[i].s, entry, name + 1) == 0) {
            list->v[i] = str_of(entry);
            return 0;
        }
    }
    if (list->count == WIRE_MAX_ARGS)
        return ic_fail(error, IC_ERR_INVALID, "env: more than %u entries", WIRE_MAX_ARGS);
    list->v[list->count++] = str_of(entry);
    return 0;
}

static int merge_env(
        struct env_list *list, const struct record *record, const char *const *extra, struct ic_error *error)
{
    int r = 0;

    for (size_t i = 0; r == 0 && record->env && record->env[i]; i++)
        r = env_add(list, record->env[i], error);
    for (size_t i = 0; r == 0 && extra && extra[i]; i++)
        r = env_add(list, extra[i], error);
    return r;
}

static int count_argv(const char *const *argv, struct wire_str *ret, uint32_t *ret_count, struct ic_error *error)
{
    uint32_t n = 0;

    if (!argv || !argv[0])
        return ic_fail(error, IC_ERR_INVALID, "command: is empty");
    for (; argv[n]; n++) {
        if (n == WIRE_MAX_ARGS)
            return ic_fail(error, IC_ERR_INVALID, "command: more than %u arguments", WIRE_MAX_ARGS);
        ret[n] = str_of(argv[n]);
    }
    *ret_count = n;
    return 0;
}

static int encode_request(
        struct buf *ret, const struct ic_exec *exec, const struct ic_exec_options *o, struct ic_error *error)
{
    _cleanup_(freep) struct wire_str *argv = calloc(WIRE_MAX_ARGS, sizeof(*argv));
    _cleanup_(freep) struct wire_str *env = calloc(WIRE_MAX_ARGS, sizeof(*env));
    struct env_list list = {.v = env};
    struct wire_exec wire = {
            .flags = (o->tty ? WIRE_EXEC_TTY : 0u) | (o->stdin_fd >= 0 ? WIRE_EXEC_STDIN : 0u),
            .timeout_ms = exec->timeout_ms,
            .kill_grace_ms = KILL_GRACE_MS,
            .rows = o->rows,
            .cols = o->cols,
            .user = str_of(o->user ? o->user : exec->record.user),
            .cwd = str_of(o->cwd ? o->cwd : exec->record.cwd),
            .argv = argv,
            .env = env,
    };
    int r;

    if (!argv || !env)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    if (o->cwd && o->cwd[0] != '/')
        return ic_fail(error, IC_ERR_INVALID, "working directory '%.200s': must be absolute", o->cwd);
    if (wire.user.len > WIRE_MAX_NAME || wire.cwd.len > WIRE_MAX_PATH)
        return ic_fail(error, IC_ERR_INVALID, "user or working directory: too long");
    r = count_argv(o->argv, argv, &wire.argc, error);
    if (r == 0)
        r = merge_env(&list, &exec->record, o->env, error);
    if (r < 0)
        return r;
    wire.envc = list.count;
    wire_put_exec(ret, &wire);
    if (ret->error == -EMSGSIZE || ret->len > WIRE_MAX_CONTROL)
        return ic_fail(
                error, IC_ERR_INVALID, "command: arguments and environment exceed %u KiB", WIRE_MAX_CONTROL >> 10);
    return ret->error ? ic_fail_errno(error, ret->error, "command") : 0;
}

static int exec_new(ic_exec **ret, const char *vm_id, const struct ic_exec_options *o, struct ic_error *error)
{
    ic_exec *exec = calloc(1, sizeof(*exec));
    int fds[2] = {-1, -1}, r;

    if (!exec)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    exec->sock = exec->wake_r = exec->wake_w = -1;
    exec->owner = getpid();
    r = table_read(&exec->record, vm_id, error);
    if (r == 0 && pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        r = ic_fail_errno(error, -errno, "pipe");
    if (r < 0) {
        ic_exec_free(exec);
        return r;
    }
    exec->wake_r = fds[0];
    exec->wake_w = fds[1];
    exec->stdin_fd = o->stdin_fd;
    exec->sinks[0] = sink_of(o->stdout_fd);
    exec->sinks[1] = sink_of(o->stderr_fd);
    exec->timeout_ms = o->no_timeout ? 0 : o->timeout_ms ? o->timeout_ms : exec->record.timeout_ms;
    exec->max_output = o->no_max_output ? 0 : o->max_output_bytes ? o->max_output_bytes : exec->record.max_output_bytes;
    exec->output_left = exec->max_output;
    exec->state = WIRE_ST_EXEC_START;
    *ret = exec;
    return 0;
}

static uint64_t start_limit_ms(uint32_t timeout_ms)
{
    uint64_t limit = (uint64_t)timeout_ms + KILL_GRACE_MS + STARTED_BACKSTOP_MS;

    return timeout_ms == 0 ? STARTED_MS : MIN(limit, (uint64_t)STARTED_MS);
}

static int start(const char *vm_id, bool before_ready, const struct ic_exec_options *options, ic_exec **ret,
        struct ic_error *error)
{
    _cleanup_(buf_deinit) struct buf request = {0};
    ic_exec *exec = NULL;
    int r;

    if (!options || options->size != sizeof(*options))
        return ic_fail(error, IC_ERR_INVALID, "exec options: use ic_exec_options_init");
    r = exec_new(&exec, vm_id, options, error);
    if (r < 0)
        return r;
    if (before_ready && exec->record.state == IC_VM_BOOTING)
        exec->record.state = IC_VM_READY;
    r = encode_request(&request, exec, options, error);
    if (r == 0)
        r = session_open(&exec->record, WIRE_SESSION_EXEC, &request, deadline_after_ms(SESSION_CONNECT_TIMEOUT_MS),
                &exec->sock, error);
    if (r == 0 && (r = fd_set_nonblock(exec->sock, true)) < 0)
        r = ic_fail_errno(error, r, "session");
    if (r < 0) {
        ic_exec_free(exec);
        return r;
    }
    exec->deadline = deadline_after_ms(start_limit_ms(exec->timeout_ms));
    *ret = exec;
    return 0;
}

int ic_vm_exec_start(ic_vm *vm, const struct ic_exec_options *options, ic_exec **ret, struct ic_error *error)
{
    return start(vm->vm_id, false, options, ret, error);
}

int exec_start_before_ready(
        const char *vm_id, const struct ic_exec_options *options, ic_exec **ret, struct ic_error *error)
{
    return start(vm_id, true, options, ret, error);
}

/* ---- from signal handlers ---- */

static void wake(ic_exec *exec, uint16_t kind, uint16_t a, uint16_t b)
{
    const struct wake w = {.kind = kind, .a = a, .b = b};
    int saved = errno;

    /* Less than PIPE_BUF: whole or not at all. A full pipe means that hundreds are waiting; one more adds nothing. */
    (void)!write(exec->wake_w, &w, sizeof(w));
    errno = saved;
}

void ic_exec_resize(ic_exec *exec, uint16_t rows, uint16_t cols)
{
    wake(exec, WAKE_RESIZE, rows, cols);
}

void ic_exec_signal(ic_exec *exec, int signo)
{
    if (signo > 0 && signo <= SIGNAL_MAX)
        wake(exec, WAKE_SIGNAL, (uint16_t)signo, 0);
}

void ic_exec_cancel(ic_exec *exec)
{
    atomic_store(&exec->cancelled, true); /* the pipe may be full of other wishes */
    wake(exec, WAKE_CANCEL, 0, 0);
}

/* ---- pump ---- */

enum { PUMP_MORE = 0, PUMP_DONE = 1 };

static void take_wakes(ic_exec *exec)
{
    struct wake w;

    while (read(exec->wake_r, &w, sizeof(w)) == (ssize_t)sizeof(w)) {
        if (w.kind == WAKE_RESIZE)
            wire_put_resize(&exec->sending, w.a, w.b);
        else if (w.kind == WAKE_SIGNAL)
            wire_put_signal(&exec->sending, (uint8_t)w.a);
    }
}

static void close_stdin(ic_exec *exec)
{
    exec->stdin_fd = -1;
    wire_put_empty(&exec->sending, WIRE_CLOSE_STDIN);
}

static void take_stdin(ic_exec *exec)
{
    uint8_t chunk[STDIN_CHUNK];
    ssize_t n = read(exec->stdin_fd, chunk, sizeof(chunk));

    if (n > 0)
        wire_put_bytes(&exec->sending, WIRE_STDIN, chunk, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        close_stdin(exec); /* a terminal that hung up (EIO) has ended too */
}

static int send_some(ic_exec *exec)
{
    ssize_t n = send(
            exec->sock, exec->sending.data + exec->sent, exec->sending.len - exec->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    exec->sent += (size_t)n;
    if (exec->sent == exec->sending.len) {
        buf_reset(&exec->sending);
        exec->sent = 0;
    } else if (exec->sent >= MAX_SENDING / 2) {
        buf_consume(&exec->sending, exec->sent);
        exec->sent = 0;
    }
    return 0;
}

static int receive_some(ic_exec *exec)
{
    size_t room;
    uint8_t *space = wire_reader_space(&exec->reader, &room);
    ssize_t n;

    if (!space)
        return -ENOMEM;
    n = recv(exec->sock, space, room, MSG_DONTWAIT);
    if (n == 0)
        return -ECONNRESET;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    wire_reader_filled(&exec->reader, (size_t)n);
    return 0;
}

static int ended(struct ic_exec_result *ret, enum ic_exec_outcome outcome, int signo, int status)
{
    ret->outcome = outcome;
    ret->signal = signo;
    ret->status = status;
    return PUMP_DONE;
}

static int take_exit(struct ic_exec_result *ret, const uint8_t *payload, size_t len)
{
    struct wire_exit e;
    int value, r = wire_get_exit(&e, payload, len);

    if (r < 0)
        return r;
    ret->user_us = e.user_us;
    ret->system_us = e.system_us;
    ret->max_rss_kib = e.max_rss_kib;
    value = (int)(e.value & 0xff);
    switch (e.kind) {
    case WIRE_EXIT_CODE:
        ret->exit_code = value;
        return ended(ret, IC_EXEC_EXITED, 0, value);
    case WIRE_EXIT_SIGNAL:
        return ended(ret, IC_EXEC_SIGNALED, value & 0x7f, 128 + (value & 0x7f));
    case WIRE_EXIT_TIMEOUT:
        return ended(ret, IC_EXEC_TIMED_OUT, value & 0x7f, STATUS_TIMED_OUT);
    case WIRE_EXIT_OOM:
        return ended(ret, IC_EXEC_OUT_OF_MEMORY, value & 0x7f, 128 + (value & 0x7f));
    }
    return -EBADMSG;
}

/* Only these two errors are about the command; the others are about the request or the VM. */
static int take_error(
        ic_exec *exec, const uint8_t *payload, size_t len, struct ic_exec_result *ret, struct ic_error *error)
{
    struct wire_error e = {0};

    if (wire_get_error(&e, payload, len) == 0 && (e.code == WIRE_E_NOT_FOUND || e.code == WIRE_E_NOT_EXECUTABLE)) {
        (void)log_escape(ret->message, sizeof(ret->message), e.message.s, e.message.len);
        return e.code == WIRE_E_NOT_FOUND ? ended(ret, IC_EXEC_NOT_FOUND, 0, STATUS_NOT_FOUND)
                                          : ended(ret, IC_EXEC_NOT_EXECUTABLE, 0, STATUS_NOT_EXECUTABLE);
    }
    if (e.code == WIRE_E_NO_CWD)
        return session_fail_peer(
                &exec->record, payload, len, "the command's working directory (choose one with --workdir)", error);
    return session_fail_peer(&exec->record, payload, len, "command", error);
}

/* What is within the limit is passed on; then the session's end is the command's. */
static void take_output(ic_exec *exec, struct sink *sink, const uint8_t *payload, size_t len)
{
    exec->writing = sink;
    exec->data = payload;
    exec->data_left = len;
    if (exec->max_output == 0)
        return;
    exec->over_output = len > exec->output_left;
    exec->data_left = MIN(len, (size_t)exec->output_left);
    exec->output_left -= exec->data_left;
}

static int end_over_output(const ic_exec *exec, struct ic_exec_result *ret)
{
    audit_note(exec->record.vm_id, AUDIT_ENDED, "max_output_bytes %u: a command wrote more", exec->max_output);
    (void)snprintf(ret->message, sizeof(ret->message), "wrote more than its limit of %u bytes (max_output_bytes)",
            exec->max_output);
    return ended(ret, IC_EXEC_OUTPUT_LIMIT, SIGKILL, STATUS_OUTPUT_LIMIT);
}

/* A VM whose time is over takes its commands with it. */
static int fail_lost(const ic_exec *exec, int r, const char *doing, struct ic_exec_result *ret, struct ic_error *error)
{
    if ((r != -ECONNRESET && r != -EPIPE) || !session_lifetime_over(&exec->record))
        return session_fail(&exec->record, r, doing, error);
    if (exec->record.tied) /* of others it is noted when their records are put right */
        audit_note(exec->record.vm_id, AUDIT_ENDED, "max_lifetime_ms %u: is over", exec->record.max_lifetime_ms);
    (void)snprintf(ret->message, sizeof(ret->message), "ended with VM '%s', whose max_lifetime_ms %u is over",
            exec->record.vm_id, exec->record.max_lifetime_ms);
    return ended(ret, IC_EXEC_TIMED_OUT, SIGKILL, STATUS_TIMED_OUT);
}

static int take_frame(ic_exec *exec, const struct wire_frame *frame, const uint8_t *payload, struct ic_exec_result *ret,
        struct ic_error *error)
{
    uint32_t pid;
    int r = wire_step(&exec->state, WIRE_SESSION_EXEC, WIRE_FROM_AGENT, frame->type, false);

    if (r == 0) {
        switch (frame->type) {
        case WIRE_STARTED:
            exec->deadline = exec->timeout_ms == 0
                                     ? DEADLINE_NEVER
                                     : deadline_after_ms((uint64_t)exec->timeout_ms + KILL_GRACE_MS + BACKSTOP_MS);
            r = wire_get_started(&pid, payload, frame->len);
            break;
        case WIRE_STDOUT:
        case WIRE_STDERR:
            take_output(exec, &exec->sinks[frame->type == WIRE_STDERR], payload, frame->len);
            return PUMP_MORE;
        case WIRE_EXIT:
            r = take_exit(ret, payload, frame->len);
            break;
        case WIRE_ERROR:
            return take_error(exec, payload, frame->len, ret, error);
        default:
            r = -EPROTO;
        }
    }
    return r < 0 ? session_fail(&exec->record, r, "command", error) : r;
}

/* Whole frames, up to one that has to be written first. */
static int take_frames(ic_exec *exec, struct ic_exec_result *ret, struct ic_error *error)
{
    while (exec->data_left == 0 || exec->writing->kind == SINK_NONE) {
        const uint8_t *payload;
        struct wire_frame frame;
        int r;

        exec->data_left = 0;
        if (exec->over_output)
            return end_over_output(exec, ret);
        r = wire_reader_next(&exec->reader, &frame, &payload);
        if (r < 0)
            return session_fail(&exec->record, r, "command", error);
        if (r == 0)
            return PUMP_MORE;
        r = take_frame(exec, &frame, payload, ret, error);
        if (r != PUMP_MORE)
            return r;
    }
    return PUMP_MORE;
}

static int write_some(ic_exec *exec, struct ic_exec_result *ret, struct ic_error *error)
{
    ssize_t n = sink_write(exec->writing, exec->data, exec->data_left);

    if (n == -EPIPE)
        return ended(ret, IC_EXEC_SIGNALED, SIGPIPE, 128 + SIGPIPE); /* as for any writer whose reader went away */
    if (n < 0)
        return ic_fail_errno(error, (int)n, "writing the command's %s",
                exec->writing == &exec->sinks[0] ? "standard output" : "standard error");
    exec->data += n;
    exec->data_left -= (size_t)n;
    return PUMP_MORE;
}

static int overdue(ic_exec *exec, struct ic_exec_result *ret, struct ic_error *error)
{
    if (exec->state != WIRE_ST_EXEC_START)
        return ended(ret, IC_EXEC_TIMED_OUT, SIGKILL, STATUS_TIMED_OUT);
    return ic_fail(error, IC_ERR_TIMEOUT,
            "VM '%s': the agent did not start the command in %u s; end the VM with "
            "'ironclaw kill %s'",
            exec->record.vm_id, STARTED_MS / 1000, exec->record.vm_id);
}

static int pump_once(ic_exec *exec, struct ic_exec_result *ret, struct ic_error *error)
{
    bool stdin_wanted = exec->stdin_fd >= 0 && exec->sending.len - exec->sent < MAX_SENDING;
    bool to_send = exec->sending.len > exec->sent;
    /* What is not wanted is left out (-1): poll(2) reports a hang-up even when asked for nothing, again and again. */
    struct pollfd p[] = {
            {.fd = exec->wake_r, .events = POLLIN},
            {.fd = exec->data_left == 0 || to_send ? exec->sock : -1,
                    .events = (short)((exec->data_left == 0 ? POLLIN : 0) | (to_send ? POLLOUT : 0))},
            {.fd = stdin_wanted ? exec->stdin_fd : -1, .events = POLLIN},
            {.fd = exec->data_left > 0 ? exec->writing->fd : -1, .events = POLLOUT},
    };
    /* While nobody reads the output the session is not read either: then the VM's end has to be looked for. */
    uint64_t wake_up = exec->data_left > 0 ? MIN(exec->deadline, deadline_after_ms(STUCK_MS)) : exec->deadline;
    int n = poll(p, ARRAY_SIZE(p), deadline_poll_ms(wake_up)), r = 0;

    if (n < 0)
        return errno == EINTR ? PUMP_MORE : ic_fail_errno(error, -errno, "poll");
    if (deadline_poll_ms(exec->deadline) == 0)
        return overdue(exec, ret, error);
    if (n == 0 && !process_alive(&exec->record.monitor))
        return fail_lost(exec, -ECONNRESET, "output that nobody reads", ret, error);
    if (p[0].revents)
        take_wakes(exec);
    if (atomic_load(&exec->cancelled))
        return ic_fail(error, IC_ERR_CANCELLED, "VM '%s': the command was cancelled", exec->record.vm_id);
    if (p[3].revents)
        return write_some(exec, ret, error);
    if (p[2].revents & POLLNVAL)
        close_stdin(exec);
    else if (p[2].revents)
        take_stdin(exec);
    if (exec->sending.error)
        return ic_fail_errno(error, exec->sending.error, "standard input");
    /* Reading comes first: when the agent hung up, its last frames still count. */
    if (p[1].revents & (POLLIN | POLLHUP | POLLERR) && exec->data_left == 0)
        r = receive_some(exec);
    else if (p[1].revents & POLLERR)
        r = -ECONNRESET;
    if (r == 0 && exec->sending.len > exec->sent) {
        int s = send_some(exec);
        if (s < 0 && s != -EPIPE && s != -ECONNRESET)
            r = s;
        if (s == -EPIPE || s == -ECONNRESET) { /* what it said before it left is still to be read */
            buf_reset(&exec->sending);
            exec->sent = 0;
            exec->stdin_fd = -1;
        }
    }
    return r < 0 ? fail_lost(exec, r, "command", ret, error) : PUMP_MORE;
}

/* Writing to a pipe without a reader must be an error here and not the end of the caller. */
static void block_sigpipe(sigset_t *ret_old, bool *ret_pending)
{
    sigset_t pipe_set, pending;

    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    sigemptyset(&pending);
    (void)sigpending(&pending);
    *ret_pending = sigismember(&pending, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &pipe_set, ret_old);
}

static void unblock_sigpipe(const sigset_t *old, bool was_pending)
{
    const struct timespec zero = {0};
    sigset_t pipe_set;

    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    while (!was_pending && sigtimedwait(&pipe_set, NULL, &zero) < 0 && errno == EINTR)
        ;
    (void)pthread_sigmask(SIG_SETMASK, old, NULL);
}

static void end_session(const ic_exec *exec)
{
    if (exec->owner == getpid())
        session_close(exec->sock);
    else
        fd_close(exec->sock);
}

int ic_exec_wait(ic_exec *exec, struct ic_exec_result *ret, struct ic_error *error)
{
    struct ic_exec_result result = {.size = sizeof(result)};
    bool pending;
    sigset_t old;
    int r;

    if (exec->waited)
        return ic_fail(error, IC_ERR_STATE, "command: was waited for already");
    exec->waited = true;
    block_sigpipe(&old, &pending);
    do {
        r = take_frames(exec, &result, error);
        if (r == PUMP_MORE)
            r = pump_once(exec, &result, error);
    } while (r == PUMP_MORE);
    unblock_sigpipe(&old, pending);
    /* The agent ends a command whose session is gone. */
    end_session(exec);
    exec->sock = -1;
    if (r < 0)
        return r;
    if (ret)
        *ret = result;
    return 0;
}

void ic_exec_free(ic_exec *exec)
{
    if (!exec)
        return;
    end_session(exec);
    fd_close(exec->wake_r);
    fd_close(exec->wake_w);
    wire_reader_deinit(&exec->reader);
    buf_deinit(&exec->sending);
    record_deinit(&exec->record);
    free(exec);
}

int ic_vm_exec(ic_vm *vm, const struct ic_exec_options *options, struct ic_exec_result *ret, struct ic_error *error)
{
    ic_exec *exec = NULL;
    int r = ic_vm_exec_start(vm, options, &exec, error);

    if (r < 0)
        return r;
    r = ic_exec_wait(exec, ret, error);
    ic_exec_free(exec);
    return r;
}
