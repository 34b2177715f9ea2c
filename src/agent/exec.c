/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "agent/spawn.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define TTY_EOF 0x04 /* ^D, the VEOF of a new terminal */

struct output {
    struct loop_fd source;
    struct exec *exec;
    enum wire_type type;
    bool open;
    bool parked; /* out of the loop until the session has room */
    bool grown;
    uint64_t read_us; /* when it was last read */
    struct loop_timer collect;
    size_t owed; /* bytes that were in the pipe when the main process ended and are still to be sent */
};

struct exec {
    struct session *session;
    struct spawn *spawn; /* until the start is reported */
    struct cgroup *cgroup;
    pid_t pid; /* also its process group */
    struct loop_fd report;
    struct output output[2];
    struct loop_fd input; /* fd -1 when closed; in the loop only while `pending` has bytes */
    struct buf pending;
    size_t pending_at;
    bool close_input, input_grown;
    bool tty;
    bool started, reaped, timed_out, killed, drained;
    uint32_t kill_grace_ms;
    struct loop_timer timeout, drain;
    struct wire_exit exit;
};

static struct loop *loop_of(struct exec *e)
{
    return &e->session->agent->loop;
}

static void close_source(struct exec *e, struct loop_fd *source)
{
    if (source->fd < 0)
        return;
    loop_remove(loop_of(e), source);
    fd_close(source->fd);
    source->fd = -1;
}

static void close_output(struct output *o)
{
    close_source(o->exec, &o->source);
    loop_disarm(loop_of(o->exec), &o->collect);
    o->open = o->parked = false;
    o->owed = 0;
}

static void close_input(struct exec *e)
{
    close_source(e, &e->input);
    buf_deinit(&e->pending);
    e->pending_at = 0;
}

pid_t exec_pid(const struct exec *e)
{
    return e->reaped ? 0 : e->pid;
}

/* ---- everything of the command at once ---- */

static void signal_all(struct exec *e, int signo)
{
    int r = signo == SIGKILL ? cgroup_kill(e->cgroup) : cgroup_signal(e->cgroup, signo);

    /* A group's number may belong to others once its leader is reaped and the rest is gone. */
    if (r < 0 && (!e->reaped || signo == SIGKILL) && e->pid > 1)
        (void)kill(-e->pid, signo);
}

static bool is_alive(const struct exec *e)
{
    int r = cgroup_populated(e->cgroup);

    return r >= 0 ? r > 0 : kill(-e->pid, 0) == 0;
}

void exec_free(struct exec *e)
{
    if (!e)
        return;
    if (e->pid > 0 && (!e->reaped || (e->timed_out && !e->killed)))
        signal_all(e, SIGKILL);
    close_source(e, &e->report);
    for (size_t i = 0; i < ARRAY_SIZE(e->output); i++)
        close_output(&e->output[i]);
    close_input(e);
    loop_disarm(loop_of(e), &e->timeout);
    loop_disarm(loop_of(e), &e->drain);
    cgroup_release(&e->session->agent->cgroups, e->cgroup);
    if (e->spawn && e->pid > 0)
        agent_keep_spawn(e->session->agent, e->spawn); /* the child may still be using it */
    else
        spawn_free(e->spawn);
    e->session->exec = NULL;
    free(e);
}

static void fail(struct exec *e, enum wire_error_code code, int os_errno, const char *what)
{
    struct session *s = e->session;

    if (os_errno)
        session_fail(s, code, os_errno, "%s: %s", what, strerror(os_errno));
    else
        session_fail(s, code, 0, "%s", what);
    exec_free(e);
}

/* ---- the end ---- */

static void finish(struct exec *e)
{
    struct session *s = e->session;

    session_step(s, WIRE_EXIT);
    wire_put_exit(&s->out, &e->exit);
    session_end(s);
    exec_free(e);
}

void exec_check_end(struct exec *e)
{
    if (!e->reaped || !e->started)
        return;
    if (e->timed_out && !e->killed && is_alive(e))
        return;
    for (size_t i = 0; i < ARRAY_SIZE(e->output); i++) {
        struct output *o = &e->output[i];

        if (o->open && (o->owed > 0 || !e->drained))
            return;
    }
    finish(e);
}

static int on_drained(struct loop_timer *timer)
{
    struct exec *e = CONTAINER_OF(timer, struct exec, drain);

    e->drained = true;
    exec_check_end(e);
    return 0;
}

static int on_timeout(struct loop_timer *timer)
{
    struct exec *e = CONTAINER_OF(timer, struct exec, timeout);

    if (e->timed_out) {
        e->killed = true;
        signal_all(e, SIGKILL);
        exec_check_end(e);
    } else {
        e->timed_out = true;
        loop_arm(loop_of(e), timer, deadline_after_ms(e->kill_grace_ms));
        signal_all(e, SIGTERM);
        signal_all(e, SIGCONT); /* a stopped process gets its TERM only then */
    }
    return 0;
}

static void set_exit(struct exec *e, int status, const struct rusage *usage)
{
    bool signaled = WIFSIGNALED(status);

    e->exit = (struct wire_exit){
            .kind = signaled ? WIRE_EXIT_SIGNAL : WIRE_EXIT_CODE,
            .value = signaled ? (uint32_t)WTERMSIG(status) : (uint32_t)WEXITSTATUS(status),
            .user_us = (uint64_t)usage->ru_utime.tv_sec * 1000000 + (uint64_t)usage->ru_utime.tv_usec,
            .system_us = (uint64_t)usage->ru_stime.tv_sec * 1000000 + (uint64_t)usage->ru_stime.tv_usec,
            .max_rss_kib = (uint64_t)usage->ru_maxrss,
    };
    if (e->timed_out) {
        e->exit.kind = WIRE_EXIT_TIMEOUT;
        e->exit.value = signaled ? (uint32_t)WTERMSIG(status) : SIGTERM;
    } else if (signaled && WTERMSIG(status) == SIGKILL && cgroup_had_oom(e->cgroup)) {
        e->exit.kind = WIRE_EXIT_OOM;
    }
}

/* ---- output ---- */

static void grow_pipe(struct output *o)
{
    if (!o->grown)
        (void)fcntl(o->source.fd, F_SETPIPE_SZ, (int)EXEC_PIPE_SIZE);
    o->grown = true;
}

/* One frame. Bytes read; 0: nothing there now; -1: the end. */
static ssize_t read_frame(struct output *o)
{
    struct session *s = o->exec->session;
    size_t start = s->out.len;
    uint8_t *space;
    ssize_t n;

    buf_put_le32(&s->out, 0);
    buf_put_u8(&s->out, (uint8_t)o->type);
    space = buf_reserve(&s->out, WIRE_MAX_STREAM);
    if (!space)
        return 0; /* sticky; the flush ends the session */
    n = read(o->source.fd, space, WIRE_MAX_STREAM);
    if (n <= 0) {
        s->out.len = start;
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1; /* a terminal ends with EIO */
    }
    buf_patch_le32(&s->out, start, (uint32_t)n);
    s->out.len += (size_t)n;
    o->owed -= MIN(o->owed, (size_t)n);
    if (n == (ssize_t)WIRE_MAX_STREAM)
        grow_pipe(o);
    return n;
}

/* Out of the loop: asking for no events is not enough, since a closed pipe is reported anyway, again and again. */
static void park(struct output *o)
{
    loop_remove(loop_of(o->exec), &o->source);
    o->parked = true;
}

static void collect_later(struct output *o)
{
    grow_pipe(o);
    loop_remove(loop_of(o->exec), &o->source);
    loop_arm(loop_of(o->exec), &o->collect, deadline_after_ms(EXEC_COALESCE_MS));
}

static void watch_output(struct output *o)
{
    if (o->source.added || loop_add(loop_of(o->exec), &o->source) == 0)
        o->parked = false;
}

static void pump_output(struct output *o)
{
    struct session *s = o->exec->session;
    uint64_t now = clock_now_us(), since = now - o->read_us;
    size_t total = 0;
    ssize_t n = 0;

    o->read_us = now;
    loop_disarm(loop_of(o->exec), &o->collect);
    while (session_unsent(s) < SESSION_OUT_HIGH && (n = read_frame(o)) > 0) {
        total += (size_t)n;
        if (n < (ssize_t)WIRE_MAX_STREAM && !o->exec->reaped)
            break; /* that was all, most likely; asking again is worth a call only when the end is near */
    }
    session_touch(s);
    if (n < 0)
        close_output(o);
    else if (session_unsent(s) >= SESSION_OUT_HIGH)
        park(o);
    else if (total > 0 && total < EXEC_LITTLE && since < EXEC_OFTEN_US && !o->exec->reaped)
        collect_later(o);
    else
        watch_output(o);
}

static int on_output(struct loop_fd *source, uint32_t events)
{
    struct output *o = CONTAINER_OF(source, struct output, source);

    pump_output(o);
    exec_check_end(o->exec);
    return 0;
}

static int on_collect(struct loop_timer *timer)
{
    struct output *o = CONTAINER_OF(timer, struct output, collect);

    pump_output(o);
    exec_check_end(o->exec);
    return 0;
}

void exec_resume_output(struct exec *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(e->output); i++) {
        struct output *o = &e->output[i];

        if (o->open && o->parked)
            watch_output(o);
    }
}

/* ---- the start ---- */

static enum wire_error_code code_of_exec(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
        return WIRE_E_NOT_FOUND;
    case EACCES:
    case EPERM:
    case ENOEXEC:
    case EISDIR:
    case EINVAL:
    case ELIBBAD:
    case ETXTBSY:
        return WIRE_E_NOT_EXECUTABLE;
    case E2BIG:
    case ENOMEM:
    case EAGAIN:
        return WIRE_E_LIMIT;
    default:
        return WIRE_E_IO;
    }
}

static void fail_start(struct exec *e, const struct spawn_error *report)
{
    switch ((enum spawn_stage)report->stage) {
    case SPAWN_CWD:
        fail(e, WIRE_E_NO_CWD, report->error, e->spawn->command.cwd);
        break;
    case SPAWN_USER:
        fail(e, WIRE_E_NO_USER, report->error, "can't become the user");
        break;
    case SPAWN_EXEC:
        fail(e, code_of_exec(report->error), report->error, e->spawn->command.argv[0]);
        break;
    default:
        fail(e, WIRE_E_IO, report->error, "can't set up the command");
        break;
    }
}

static void started(struct exec *e)
{
    struct session *s = e->session;

    e->started = true;
    close_source(e, &e->report);
    spawn_free(e->spawn);
    e->spawn = NULL;
    session_step(s, WIRE_STARTED);
    wire_put_started(&s->out, (uint32_t)e->pid);
    session_touch(s);
    for (size_t i = 0; i < ARRAY_SIZE(e->output); i++) {
        struct output *o = &e->output[i];

        if (o->open && loop_add(loop_of(e), &o->source) < 0)
            close_output(o);
    }
}

/* False when the start failed; e is then gone. */
static bool take_report(struct exec *e)
{
    struct spawn_error report;
    ssize_t n = read(e->report.fd, &report, sizeof(report));

    if (n == (ssize_t)sizeof(report)) {
        e->reaped = true; /* it only exits now; whoever reaps it need not tell us */
        fail_start(e, &report);
        return false;
    }
    if (n == 0)
        started(e);
    return true;
}

static int on_report(struct loop_fd *source, uint32_t events)
{
    (void)take_report(CONTAINER_OF(source, struct exec, report));
    return 0;
}

void exec_reaped(struct exec *e, int status, const struct rusage *usage)
{
    if (!e->started && !take_report(e))
        return;
    e->reaped = true;
    set_exit(e, status, usage);
    if (!e->timed_out)
        loop_disarm(loop_of(e), &e->timeout);
    for (size_t i = 0; i < ARRAY_SIZE(e->output); i++) {
        struct output *o = &e->output[i];
        int left = 0;

        if (o->open && ioctl(o->source.fd, FIONREAD, &left) == 0 && left > 0)
            o->owed = (size_t)left;
        if (o->open && !o->parked)
            pump_output(o);
    }
    loop_arm(loop_of(e), &e->drain, deadline_after_ms(EXEC_DRAIN_MS));
    exec_check_end(e);
}

/* ---- input ---- */

static void grow_input(struct exec *e)
{
    if (!e->input_grown && !e->tty)
        (void)fcntl(e->input.fd, F_SETPIPE_SZ, (int)EXEC_PIPE_SIZE);
    e->input_grown = true;
}

/* Bytes written, 0 when it is full, -1 when nobody will ever read it. */
static ssize_t write_input(struct exec *e, const uint8_t *data, size_t len)
{
    ssize_t n = write(e->input.fd, data, len);

    if (n < (ssize_t)len && !e->input_grown) {
        grow_input(e);
        if (n < 0 && errno == EAGAIN)
            n = write(e->input.fd, data, len);
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return n < 0 ? -1 : n;
}

static size_t unwritten(const struct exec *e)
{
    return e->pending.len - e->pending_at;
}

bool exec_is_full(const struct exec *e)
{
    return unwritten(e) >= EXEC_STDIN_MAX;
}

static int on_input_ready(struct loop_fd *source, uint32_t events)
{
    struct exec *e = CONTAINER_OF(source, struct exec, input);
    struct session *s = e->session;
    bool was_full = exec_is_full(e);
    ssize_t n = write_input(e, e->pending.data + e->pending_at, unwritten(e));

    if (n < 0) {
        close_input(e);
    } else {
        e->pending_at += (size_t)n;
        if (unwritten(e) == 0) {
            buf_reset(&e->pending);
            e->pending_at = 0;
            loop_remove(loop_of(e), source);
            if (e->close_input)
                close_input(e);
        }
    }
    if (was_full)
        session_resume(s);
    return 0;
}

static void put_input(struct exec *e, const uint8_t *data, size_t len)
{
    ssize_t n = 0;

    if (e->input.fd < 0 || e->close_input || len == 0)
        return; /* the command closed its stdin, or never had one */
    if (unwritten(e) == 0) {
        n = write_input(e, data, len);
        if (n < 0) {
            close_input(e);
            return;
        }
    }
    if ((size_t)n == len)
        return;
    if (e->pending_at > 0) {
        buf_consume(&e->pending, e->pending_at);
        e->pending_at = 0;
    }
    buf_put(&e->pending, data + n, len - (size_t)n);
    if (e->pending.error < 0 || (!e->input.added && loop_add(loop_of(e), &e->input) < 0))
        close_input(e);
}

static void end_input(struct exec *e)
{
    static const uint8_t eof = TTY_EOF;

    if (e->tty) {
        put_input(e, &eof, 1);
        return;
    }
    e->close_input = true;
    if (unwritten(e) == 0)
        close_input(e);
}

/* On a terminal the keys' signals belong to whatever runs in its foreground. */
static void send_signal(struct exec *e, int signo)
{
    pid_t group = e->pid;

    if (e->reaped)
        return;
    if (e->tty && e->output[0].open && (signo == SIGINT || signo == SIGQUIT || signo == SIGTSTP)) {
        int foreground = tcgetpgrp(e->output[0].source.fd);

        if (foreground > 1)
            group = foreground;
    }
    (void)kill(-group, signo);
}

int exec_frame(struct exec *e, enum wire_type type, const uint8_t *payload, size_t len)
{
    uint16_t rows, cols;
    uint8_t signo;
    int r;

    switch (type) {
    case WIRE_STDIN:
        put_input(e, payload, len);
        return 0;
    case WIRE_CLOSE_STDIN:
        end_input(e);
        return 0;
    case WIRE_RESIZE:
        r = wire_get_resize(&rows, &cols, payload, len);
        if (r == 0 && e->tty && e->output[0].open) {
            struct winsize size = {.ws_row = rows, .ws_col = cols};

            (void)ioctl(e->output[0].source.fd, TIOCSWINSZ, &size);
        }
        return r;
    default:
        r = wire_get_signal(&signo, payload, len);
        if (r < 0 || signo == 0 || signo > SIGRTMAX)
            return -EBADMSG;
        send_signal(e, signo);
        return 0;
    }
}

/* ---- making it ---- */

static int set_output(struct exec *e, size_t i, enum wire_type type, int fd)
{
    e->output[i].type = type;
    e->output[i].source.fd = fd;
    e->output[i].open = true;
    return fd_set_nonblock(fd, true);
}

static int open_pipes(struct exec *e, bool with_stdin, int child[3])
{
    int fds[2], r;

    for (size_t i = 0; i < 2; i++) {
        if (pipe2(fds, O_CLOEXEC) < 0)
            return -errno;
        child[i + 1] = fds[1];
        r = set_output(e, i, i == 0 ? WIRE_STDOUT : WIRE_STDERR, fds[0]);
        if (r < 0)
            return r;
    }
    if (!with_stdin) {
        child[0] = fcntl(e->session->agent->null_fd, F_DUPFD_CLOEXEC, 3);
        return child[0] < 0 ? -errno : 0;
    }
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    child[0] = fds[0];
    e->input.fd = fds[1];
    return fd_set_nonblock(fds[1], true);
}

static int open_tty(struct exec *e, const struct wire_exec *request, const struct user *user, int child[3])
{
    struct winsize size = {.ws_row = request->rows, .ws_col = request->cols};
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), unlock = 0, r;

    if (master < 0)
        return -errno;
    r = set_output(e, 0, WIRE_STDOUT, master);
    if (r < 0)
        return r;
    if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
        return -errno;
    child[0] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    /* A second descriptor for writing: epoll takes each descriptor once. */
    e->input.fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
    if (child[0] < 0 || e->input.fd < 0 || ioctl(master, TIOCSWINSZ, &size) < 0)
        return -errno;
    if (e->session->agent->change_user && fchown(child[0], user->uid, (gid_t)-1) < 0)
        return -errno;
    e->tty = true;
    return 0;
}

static int spawn_it(struct exec *e, const struct user *user, const int child[3])
{
    struct spawn *spawn = e->spawn;
    int r;

    spawn->user = *user;
    spawn->change_user = e->session->agent->change_user;
    spawn->filter = e->session->agent->options.filter.len > 0 ? &e->session->agent->options.filter : NULL;
    spawn->tty = e->tty;
    spawn->in = child[0];
    spawn->out = e->tty ? child[0] : child[1];
    spawn->err = e->tty ? child[0] : child[2];
    spawn->cgroup_fd = e->cgroup ? e->cgroup->dir_fd : -1;
    r = spawn_program(spawn, &e->report.fd);
    if (r < 0)
        return r;
    e->pid = spawn->pid;
    return loop_add(loop_of(e), &e->report);
}

static int exec_new(struct exec **ret, struct session *session)
{
    struct exec *e = calloc(1, sizeof(*e));

    if (!e)
        return -ENOMEM;
    e->spawn = spawn_new();
    if (!e->spawn) {
        free(e);
        return -ENOMEM;
    }
    e->session = session;
    e->report = (struct loop_fd){.fd = -1, .events = EPOLLIN, .ready = on_report};
    e->input = (struct loop_fd){.fd = -1, .events = EPOLLOUT, .ready = on_input_ready};
    for (size_t i = 0; i < ARRAY_SIZE(e->output); i++) {
        e->output[i].exec = e;
        e->output[i].source = (struct loop_fd){.fd = -1, .events = EPOLLIN, .ready = on_output};
        e->output[i].collect.expired = on_collect;
    }
    e->pending.max = 2 * EXEC_STDIN_MAX;
    e->timeout.expired = on_timeout;
    e->drain.expired = on_drained;
    session->exec = e;
    *ret = e;
    return 0;
}

static void make(struct session *s, const struct wire_exec *request, const struct user *user)
{
    int child[3] = {-1, -1, -1}, r;
    struct exec *e;

    if (exec_new(&e, s) < 0) {
        session_fail(s, WIRE_E_LIMIT, ENOMEM, "out of memory");
        return;
    }
    r = command_build(&e->spawn->command, request, user);
    if (r < 0) {
        fail(e, r == -EINVAL ? WIRE_E_INVALID : WIRE_E_LIMIT, -r, "arguments, environment or directory");
        return;
    }
    r = agent_take_cgroup(s->agent, &e->cgroup);
    if (r == 0 && (request->flags & WIRE_EXEC_TTY))
        r = open_tty(e, request, user, child);
    else if (r == 0)
        r = open_pipes(e, request->flags & WIRE_EXEC_STDIN, child);
    if (r == 0)
        r = spawn_it(e, user, child);
    for (size_t i = 0; i < ARRAY_SIZE(child); i++)
        fd_close(child[i]);
    if (r < 0) {
        fail(e, r == -EIO ? WIRE_E_IO : WIRE_E_LIMIT, -r, "can't start a process");
        return;
    }
    e->kill_grace_ms = request->kill_grace_ms ? request->kill_grace_ms : EXEC_KILL_GRACE_MS;
    if (request->timeout_ms)
        loop_arm(loop_of(e), &e->timeout, deadline_after_ms(request->timeout_ms));
}

void exec_start(struct session *s, const uint8_t *payload, size_t len)
{
    struct wire_exec request;
    struct user user;
    int r = wire_get_exec(&request, payload, len);

    if (r < 0) {
        session_fail(s, WIRE_E_PROTOCOL, -r, "malformed EXEC");
        return;
    }
    r = agent_find_user(s->agent, &user, &request.user);
    if (r < 0)
        session_fail(s, WIRE_E_NO_USER, -r, "no user '%.*s' in the guest", (int)request.user.len, request.user.s);
    else
        make(s, &request, &user);
    wire_exec_deinit(&request);
}
