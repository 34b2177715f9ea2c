/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each message's layout, written twice side by side: the encoder and the
 * decoder of one message are neighbours and list its fields in the same order.
 *
 * A decoder accepts exactly what docs/protocol.md allows: every value outside
 * its range, unknown flag, or trailing byte is -EBADMSG. So code behind it
 * needs no second check. Encoders refuse the same strings with -EINVAL, so
 * that a mistake of ours shows at its source.
 */
#include <errno.h>
#include <string.h>

#include "base/macro.h"
#include "wire/frame.h"

#define NAME_PART_MAX 255u /* bytes of one path component, Linux NAME_MAX */
#define SIGNAL_MAX    64u

struct wire_str wire_str_of(const char *s)
{
    return (struct wire_str){.s = s ? s : "", .len = s ? strlen(s) : 0};
}

static void put_str(struct buf *b, struct wire_str s, size_t max)
{
    if (s.len > max && !b->error)
        b->error = -EMSGSIZE;
    buf_put_str(b, s.s, s.len);
}

static struct wire_str get_str(struct rd *r, size_t max)
{
    struct wire_str s = {.s = ""};
    const char *p = rd_str(r, max, &s.len);

    if (p)
        s.s = p;
    return s;
}

static void invalid_unless(struct buf *b, bool ok)
{
    if (!ok && !b->error)
        b->error = -EINVAL;
}

bool wire_path_ok(const char *path, size_t len)
{
    size_t part = 0; /* start of the current component */

    if (len == 0)
        return true;
    if (len >= WIRE_MAX_PATH || memchr(path, 0, len))
        return false;
    for (size_t i = 0; i <= len; i++) {
        size_t n = i - part;

        if (i < len && path[i] != '/')
            continue;
        if (n == 0 || n > NAME_PART_MAX || (n == 1 && path[part] == '.') ||
                (n == 2 && path[part] == '.' && path[part + 1] == '.'))
            return false;
        part = i + 1;
    }
    return true;
}

static bool absolute(struct wire_str s)
{
    return s.len > 0 && s.s[0] == '/';
}

bool wire_version_ok(const struct wire_hello *hello)
{
    return hello->version >= WIRE_VERSION_MIN && hello->version_min <= WIRE_VERSION;
}

void wire_put_hello(struct buf *b, enum wire_session session)
{
    size_t start = frame_begin(b, WIRE_HELLO);

    buf_put_le32(b, WIRE_MAGIC);
    buf_put_le16(b, WIRE_VERSION);
    buf_put_le16(b, WIRE_VERSION_MIN);
    buf_put_u8(b, (uint8_t)session);
    frame_end(b, start);
}

int wire_get_hello(struct wire_hello *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    uint32_t magic = rd_le32(&r);
    struct wire_hello hello = {.version = rd_le16(&r)};
    uint8_t session;

    hello.version_min = rd_le16(&r);
    session = rd_u8(&r);
    if (rd_finish(&r) < 0 || magic != WIRE_MAGIC || hello.version_min > hello.version || session < WIRE_SESSION_EXEC ||
            session > WIRE_SESSION_CONTROL)
        return -EBADMSG;
    hello.session = (enum wire_session)session;
    *ret = hello;
    return 0;
}

enum wire_error_code wire_error_of_errno(int os_errno)
{
    switch (os_errno) {
    case ENOENT:
        return WIRE_E_NOT_FOUND;
    case ENOSPC:
    case EDQUOT:
        return WIRE_E_NO_SPACE;
    case EPROTO:
    case EBADMSG:
    case EMSGSIZE:
        return WIRE_E_PROTOCOL;
    case EMFILE:
    case ENFILE:
    case EAGAIN:
    case ENOMEM:
    case E2BIG:
        return WIRE_E_LIMIT;
    case EINVAL:
    case ENAMETOOLONG:
        return WIRE_E_INVALID;
    default:
        return WIRE_E_IO;
    }
}

/* Texts made from foreign names may be long: cut, never refuse, or the peer would not learn what went wrong. */
static struct wire_str message_of(const char *message)
{
    struct wire_str s = wire_str_of(message);

    s.len = MIN(s.len, (size_t)WIRE_MAX_MESSAGE);
    return s;
}

void wire_put_error(struct buf *b, enum wire_error_code code, uint32_t os_errno, const char *message)
{
    size_t start = frame_begin(b, WIRE_ERROR);

    buf_put_le32(b, (uint32_t)code);
    buf_put_le32(b, os_errno);
    put_str(b, message_of(message), WIRE_MAX_MESSAGE);
    frame_end(b, start);
}

int wire_get_error(struct wire_error *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    uint32_t code = rd_le32(&r);
    struct wire_error e = {.os_errno = rd_le32(&r)};

    e.message = get_str(&r, WIRE_MAX_MESSAGE);
    if (rd_finish(&r) < 0 || code < WIRE_E_PROTOCOL || code > WIRE_E_INVALID || e.os_errno > 4095)
        return -EBADMSG;
    e.code = (enum wire_error_code)code;
    *ret = e;
    return 0;
}

static bool env_ok(struct wire_str s)
{
    const char *eq = s.len > 0 ? memchr(s.s, '=', s.len) : NULL;

    return eq && eq != s.s;
}

void wire_put_exec(struct buf *b, const struct wire_exec *exec)
{
    size_t start = frame_begin(b, WIRE_EXEC);

    buf_put_le32(b, exec->flags);
    buf_put_le32(b, exec->timeout_ms);
    buf_put_le32(b, exec->kill_grace_ms);
    buf_put_le16(b, exec->rows);
    buf_put_le16(b, exec->cols);
    put_str(b, exec->user, WIRE_MAX_NAME);
    put_str(b, exec->cwd, WIRE_MAX_PATH - 1);
    invalid_unless(b, exec->cwd.len == 0 || absolute(exec->cwd));
    buf_put_le32(b, exec->argc);
    buf_put_le32(b, exec->envc);
    invalid_unless(b, exec->argc > 0);
    if ((exec->argc > WIRE_MAX_ARGS || exec->envc > WIRE_MAX_ARGS) && !b->error)
        b->error = -EMSGSIZE;
    for (uint32_t i = 0; i < exec->argc && !b->error; i++)
        put_str(b, exec->argv[i], WIRE_MAX_CONTROL);
    for (uint32_t i = 0; i < exec->envc && !b->error; i++) {
        invalid_unless(b, env_ok(exec->env[i]));
        put_str(b, exec->env[i], WIRE_MAX_CONTROL);
    }
    frame_end(b, start);
}

int wire_get_exec(struct wire_exec *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    _cleanup_(freep) struct wire_str *list = NULL;
    struct wire_exec e = {.flags = rd_le32(&r)};
    size_t count;

    e.timeout_ms = rd_le32(&r);
    e.kill_grace_ms = rd_le32(&r);
    e.rows = rd_le16(&r);
    e.cols = rd_le16(&r);
    e.user = get_str(&r, WIRE_MAX_NAME);
    e.cwd = get_str(&r, WIRE_MAX_PATH - 1);
    e.argc = rd_le32(&r);
    e.envc = rd_le32(&r);
    if (r.failed || (e.flags & ~(uint32_t)(WIRE_EXEC_TTY | WIRE_EXEC_STDIN)) || (e.cwd.len > 0 && !absolute(e.cwd)) ||
            e.argc == 0 || e.argc > WIRE_MAX_ARGS || e.envc > WIRE_MAX_ARGS)
        return -EBADMSG;
    count = (size_t)e.argc + e.envc;
    if (count > r.left / 4) /* each string has at least its length, so the allocation is bounded by the frame */
        return -EBADMSG;
    list = calloc(count, sizeof(*list));
    if (!list)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        list[i] = get_str(&r, WIRE_MAX_CONTROL);
        if (i >= e.argc && !env_ok(list[i]))
            return -EBADMSG;
    }
    if (rd_finish(&r) < 0)
        return -EBADMSG;
    e.argv = TAKE_PTR(list);
    e.env = e.argv + e.argc;
    *ret = e;
    return 0;
}

void wire_exec_deinit(struct wire_exec *exec)
{
    free(exec->argv);
    exec->argv = exec->env = NULL;
    exec->argc = exec->envc = 0;
}

void wire_put_started(struct buf *b, uint32_t pid)
{
    size_t start = frame_begin(b, WIRE_STARTED);

    buf_put_le32(b, pid);
    frame_end(b, start);
}

int wire_get_started(uint32_t *ret_pid, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    uint32_t pid = rd_le32(&r);

    if (rd_finish(&r) < 0 || pid == 0 || pid > INT32_MAX)
        return -EBADMSG;
    *ret_pid = pid;
    return 0;
}

void wire_put_resize(struct buf *b, uint16_t rows, uint16_t cols)
{
    size_t start = frame_begin(b, WIRE_RESIZE);

    buf_put_le16(b, rows);
    buf_put_le16(b, cols);
    frame_end(b, start);
}

int wire_get_resize(uint16_t *ret_rows, uint16_t *ret_cols, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    uint16_t rows = rd_le16(&r), cols = rd_le16(&r);

    if (rd_finish(&r) < 0)
        return -EBADMSG;
    *ret_rows = rows;
    *ret_cols = cols;
    return 0;
}

void wire_put_signal(struct buf *b, uint8_t signo)
{
    size_t start = frame_begin(b, WIRE_SIGNAL);

    invalid_unless(b, signo >= 1 && signo <= SIGNAL_MAX);
    buf_put_u8(b, signo);
    frame_end(b, start);
}

int wire_get_signal(uint8_t *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    uint8_t signo = rd_u8(&r);

    if (rd_finish(&r) < 0 || signo < 1 || signo > SIGNAL_MAX)
        return -EBADMSG;
    *ret = signo;
    return 0;
}

static bool exit_ok(uint8_t kind, uint32_t value)
{
    if (kind == WIRE_EXIT_CODE)
        return value <= 255;
    return kind <= WIRE_EXIT_OOM && value >= 1 && value <= SIGNAL_MAX;
}

void wire_put_exit(struct buf *b, const struct wire_exit *e)
{
    size_t start = frame_begin(b, WIRE_EXIT);

    invalid_unless(b, exit_ok((uint8_t)e->kind, e->value));
    buf_put_u8(b, (uint8_t)e->kind);
    buf_put_le32(b, e->value);
    buf_put_le64(b, e->user_us);
    buf_put_le64(b, e->system_us);
    buf_put_le64(b, e->max_rss_kib);
    frame_end(b, start);
}

int wire_get_exit(struct wire_exit *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    uint8_t kind = rd_u8(&r);
    struct wire_exit e = {.value = rd_le32(&r)};

    e.user_us = rd_le64(&r);
    e.system_us = rd_le64(&r);
    e.max_rss_kib = rd_le64(&r);
    if (rd_finish(&r) < 0 || !exit_ok(kind, e.value))
        return -EBADMSG;
    e.kind = (enum wire_exit_kind)kind;
    *ret = e;
    return 0;
}

static bool copy_ok(const struct wire_copy *c)
{
    return (c->flags & ~(uint32_t)(WIRE_COPY_KEEP_OWNER | WIRE_COPY_FOLLOW)) == 0 && absolute(c->path) &&
           wire_path_ok(c->name.s, c->name.len) && (c->name.len == 0 || !memchr(c->name.s, '/', c->name.len));
}

void wire_put_copy(struct buf *b, enum wire_type put_or_get, const struct wire_copy *copy)
{
    size_t start = frame_begin(b, put_or_get);

    invalid_unless(b, copy_ok(copy));
    buf_put_le32(b, copy->flags);
    put_str(b, copy->path, WIRE_MAX_PATH - 1);
    put_str(b, copy->user, WIRE_MAX_NAME);
    put_str(b, copy->name, WIRE_MAX_NAME);
    frame_end(b, start);
}

int wire_get_copy(struct wire_copy *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    struct wire_copy c = {.flags = rd_le32(&r)};

    c.path = get_str(&r, WIRE_MAX_PATH - 1);
    c.user = get_str(&r, WIRE_MAX_NAME);
    c.name = get_str(&r, WIRE_MAX_NAME);
    if (rd_finish(&r) < 0 || !copy_ok(&c))
        return -EBADMSG;
    *ret = c;
    return 0;
}

static bool entry_ok(uint8_t kind, const struct wire_entry *e)
{
    if (kind < WIRE_ENTRY_FILE || kind > WIRE_ENTRY_SYMLINK || e->mode > 07777)
        return false;
    if (kind == WIRE_ENTRY_FILE ? e->size > INT64_MAX : e->size != 0)
        return false;
    if ((kind == WIRE_ENTRY_SYMLINK) != (e->target.len > 0))
        return false;
    return wire_path_ok(e->path.s, e->path.len);
}

void wire_put_entry(struct buf *b, const struct wire_entry *entry)
{
    size_t start = frame_begin(b, WIRE_ENTRY);

    invalid_unless(b, entry_ok((uint8_t)entry->kind, entry));
    buf_put_u8(b, (uint8_t)entry->kind);
    buf_put_le32(b, entry->mode);
    buf_put_le32(b, entry->uid);
    buf_put_le32(b, entry->gid);
    buf_put_le64(b, entry->mtime_ns);
    buf_put_le64(b, entry->size);
    put_str(b, entry->path, WIRE_MAX_PATH - 1);
    put_str(b, entry->target, WIRE_MAX_PATH - 1);
    frame_end(b, start);
}

int wire_get_entry(struct wire_entry *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    uint8_t kind = rd_u8(&r);
    struct wire_entry e = {.mode = rd_le32(&r)};

    e.uid = rd_le32(&r);
    e.gid = rd_le32(&r);
    e.mtime_ns = rd_le64(&r);
    e.size = rd_le64(&r);
    e.path = get_str(&r, WIRE_MAX_PATH - 1);
    e.target = get_str(&r, WIRE_MAX_PATH - 1);
    if (rd_finish(&r) < 0 || !entry_ok(kind, &e))
        return -EBADMSG;
    e.kind = (enum wire_entry_kind)kind;
    *ret = e;
    return 0;
}

void wire_put_hole(struct buf *b, uint64_t len)
{
    size_t start = frame_begin(b, WIRE_HOLE);

    invalid_unless(b, len > 0 && len <= INT64_MAX);
    buf_put_le64(b, len);
    frame_end(b, start);
}

int wire_get_hole(uint64_t *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    uint64_t v = rd_le64(&r);

    if (rd_finish(&r) < 0 || v == 0 || v > INT64_MAX)
        return -EBADMSG;
    *ret = v;
    return 0;
}

void wire_put_done(struct buf *b, uint32_t skipped, const char *message)
{
    size_t start = frame_begin(b, WIRE_DONE);

    buf_put_le32(b, skipped);
    put_str(b, message_of(message), WIRE_MAX_MESSAGE);
    frame_end(b, start);
}

int wire_get_done(struct wire_done *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    struct wire_done d = {.skipped = rd_le32(&r)};

    d.message = get_str(&r, WIRE_MAX_MESSAGE);
    if (rd_finish(&r) < 0)
        return -EBADMSG;
    *ret = d;
    return 0;
}

void wire_put_ready(struct buf *b, const struct wire_ready *ready)
{
    size_t start = frame_begin(b, WIRE_READY);

    buf_put_le16(b, ready->version);
    buf_put_le64(b, ready->boot_us);
    buf_put_le64(b, ready->init_us);
    put_str(b, ready->agent_version, WIRE_MAX_NAME);
    put_str(b, ready->kernel_release, WIRE_MAX_NAME);
    frame_end(b, start);
}

int wire_get_ready(struct wire_ready *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    struct wire_ready ready = {.version = rd_le16(&r)};

    ready.boot_us = rd_le64(&r);
    ready.init_us = rd_le64(&r);
    ready.agent_version = get_str(&r, WIRE_MAX_NAME);
    ready.kernel_release = get_str(&r, WIRE_MAX_NAME);
    if (rd_finish(&r) < 0)
        return -EBADMSG;
    *ret = ready;
    return 0;
}

void wire_put_time(struct buf *b, uint64_t epoch_ns)
{
    size_t start = frame_begin(b, WIRE_TIME);

    buf_put_le64(b, epoch_ns);
    frame_end(b, start);
}

int wire_get_time(uint64_t *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    uint64_t v = rd_le64(&r);

    if (rd_finish(&r) < 0)
        return -EBADMSG;
    *ret = v;
    return 0;
}

void wire_put_stats(struct buf *b, const struct wire_stats *stats)
{
    size_t start = frame_begin(b, WIRE_STATS);

    buf_put_le64(b, stats->uptime_ms);
    buf_put_le64(b, stats->mem_total_kib);
    buf_put_le64(b, stats->mem_available_kib);
    buf_put_le64(b, stats->overlay_size_kib);
    buf_put_le64(b, stats->overlay_used_kib);
    buf_put_le32(b, stats->processes);
    buf_put_le32(b, stats->sessions);
    buf_put_le64(b, stats->cpu_busy_ms);
    buf_put_le64(b, stats->reaped);
    buf_put_le64(b, stats->oom_kills);
    frame_end(b, start);
}

int wire_get_stats(struct wire_stats *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    struct wire_stats s = {.uptime_ms = rd_le64(&r)};

    s.mem_total_kib = rd_le64(&r);
    s.mem_available_kib = rd_le64(&r);
    s.overlay_size_kib = rd_le64(&r);
    s.overlay_used_kib = rd_le64(&r);
    s.processes = rd_le32(&r);
    s.sessions = rd_le32(&r);
    s.cpu_busy_ms = rd_le64(&r);
    s.reaped = rd_le64(&r);
    s.oom_kills = rd_le64(&r);
    if (rd_finish(&r) < 0)
        return -EBADMSG;
    *ret = s;
    return 0;
}

static bool hostname_ok(struct wire_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.s[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                    c == '.'))
            return false;
    }
    return s.len <= WIRE_MAX_HOSTNAME;
}

static bool clone_ok(const struct wire_clone *c)
{
    return (c->flags & ~(uint32_t)WIRE_CLONE_TIED) == 0 && hostname_ok(c->hostname) &&
           c->entropy.len >= WIRE_ENTROPY_MIN && c->entropy.len <= WIRE_ENTROPY_MAX;
}

void wire_put_clone(struct buf *b, const struct wire_clone *clone)
{
    size_t start = frame_begin(b, WIRE_CLONE);

    invalid_unless(b, clone_ok(clone));
    buf_put(b, clone->generation, sizeof(clone->generation));
    buf_put_le64(b, clone->time_ns);
    buf_put_le32(b, clone->flags);
    put_str(b, clone->hostname, WIRE_MAX_HOSTNAME);
    put_str(b, clone->entropy, WIRE_ENTROPY_MAX);
    frame_end(b, start);
}

int wire_get_clone(struct wire_clone *ret, const void *payload, size_t len)
{
    struct rd r = rd_of(payload, len);
    const uint8_t *generation = rd_bytes(&r, sizeof(ret->generation)), *entropy;
    struct wire_clone c = {.time_ns = rd_le64(&r)};

    c.flags = rd_le32(&r);
    c.hostname = get_str(&r, WIRE_MAX_HOSTNAME);
    /* Not a text: any byte may be in it. */
    c.entropy.len = rd_le32(&r);
    entropy = rd_bytes(&r, c.entropy.len);
    c.entropy.s = (const char *)entropy;
    if (rd_finish(&r) < 0 || !clone_ok(&c))
        return -EBADMSG;
    memcpy(c.generation, generation, sizeof(c.generation));
    *ret = c;
    return 0;
}
