/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/backends/qmp.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define QMP_MAX_SKIPPED 1000u /* lines that are not the answer */

enum migration { MIGRATION_NONE, MIGRATION_COMPLETED, MIGRATION_FAILED };

struct qmp {
    int fd;
    uint64_t deadline;
    struct buf in;
    size_t taken;
    enum migration migration; /* as the last event about it says */
};

static void copy_string(const json_t *value, char *text, size_t text_size)
{
    text[0] = '\0';
    if (json_is_string(value))
        (void)log_escape(text, text_size, json_string_value(value), json_string_length(value));
}

static void copy_event(const json_t *root, char *text, size_t text_size)
{
    size_t len;

    copy_string(json_object_get(root, "event"), text, text_size);
    len = strlen(text);
    if (!json_is_string(json_object_get(json_object_get(root, "data"), "status")) || len + 2 >= text_size)
        return;
    text[len++] = ' ';
    copy_string(json_object_get(json_object_get(root, "data"), "status"), text + len, text_size - len);
}

int qmp_parse(const char *line, size_t len, enum qmp_kind *ret_kind, char *text, size_t text_size)
{
    json_t *root, *value;
    int r = 0;

    if (len > QMP_MAX_LINE)
        return -EBADMSG;
    root = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
    if (!root)
        return -EBADMSG;
    text[0] = '\0';
    if (json_object_get(root, "QMP")) {
        *ret_kind = QMP_GREETING;
    } else if ((value = json_object_get(root, "return"))) {
        *ret_kind = QMP_RETURN;
        copy_string(json_object_get(value, "error-desc"), text, text_size);
    } else if (json_object_get(root, "event")) {
        *ret_kind = QMP_EVENT;
        copy_event(root, text, text_size);
    } else if ((value = json_object_get(json_object_get(root, "error"), "desc")) && json_is_string(value)) {
        *ret_kind = QMP_ERROR;
        copy_string(value, text, text_size);
    } else {
        r = -EBADMSG;
    }
    json_decref(root);
    return r;
}

/* One line, as a view that lasts until the next call. */
static int read_line(struct qmp *q, const char **ret, size_t *ret_len)
{
    buf_consume(&q->in, q->taken);
    q->taken = 0;
    for (;;) {
        const uint8_t *end = q->in.len > 0 ? memchr(q->in.data, '\n', q->in.len) : NULL;
        uint8_t *space;
        ssize_t n;
        int r;

        if (end) {
            *ret = (const char *)q->in.data;
            *ret_len = (size_t)(end - q->in.data);
            q->taken = *ret_len + 1;
            return 0;
        }
        space = buf_reserve(&q->in, 4096);
        if (!space)
            return q->in.error ? q->in.error : -EMSGSIZE;
        r = fd_wait(q->fd, POLLIN, q->deadline);
        if (r < 0)
            return r;
        n = read(q->fd, space, 4096);
        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return -errno;
        if (n > 0)
            q->in.len += (size_t)n;
    }
}

static int next(struct qmp *q, enum qmp_kind *ret_kind, char *text, size_t text_size)
{
    enum qmp_kind kind = QMP_EVENT;
    const char *line = NULL;
    size_t len = 0;
    int r = read_line(q, &line, &len);

    if (r == 0)
        r = qmp_parse(line, len, &kind, text, text_size);
    if (r < 0)
        return r;
    if (kind == QMP_EVENT && strcmp(text, "MIGRATION completed") == 0)
        q->migration = MIGRATION_COMPLETED;
    else if (kind == QMP_EVENT && strcmp(text, "MIGRATION failed") == 0)
        q->migration = MIGRATION_FAILED;
    *ret_kind = kind;
    return 0;
}

static int expect(struct qmp *q, enum qmp_kind wanted, char *text, size_t text_size)
{
    for (unsigned i = 0; i < QMP_MAX_SKIPPED; i++) {
        enum qmp_kind kind = QMP_EVENT;
        int r = next(q, &kind, text, text_size);

        if (r < 0)
            return r;
        if (kind == wanted)
            return 0;
        if (kind == QMP_ERROR)
            return -EREMOTEIO;
    }
    return -EBADMSG;
}

void qmp_free(struct qmp *q)
{
    if (!q)
        return;
    fd_close(q->fd);
    buf_deinit(&q->in);
    free(q);
}

int qmp_open(const char *socket_path, uint64_t deadline, struct qmp **ret, struct ic_error *error)
{
    _cleanup_(qmp_freep) struct qmp *q = calloc(1, sizeof(*q));
    char text[256];
    int r;

    if (!q)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    *q = (struct qmp){.fd = -1, .deadline = deadline, .in = {.max = QMP_MAX_LINE}};
    r = unix_connect_nofollow(socket_path, true, &q->fd); /* one that accepts nobody must not hold us */
    if (r < 0)
        return ic_fail_errno(error, r, "QEMU's control socket %s", socket_path);
    r = expect(q, QMP_GREETING, text, sizeof(text));
    if (r < 0)
        return ic_fail_errno(error, r, "QEMU's greeting");
    r = qmp_run(q, "qmp_capabilities", NULL, -1, error);
    if (r < 0)
        return r;
    *ret = q;
    q = NULL;
    return 0;
}

/* A descriptor goes with the first byte of its command. */
static int send_command(struct qmp *q, const char *line, size_t len, int fd)
{
    ssize_t n = 0;

    if (fd >= 0)
        n = unix_send_fds(q->fd, line, len, &fd, 1);
    return n < 0 ? (int)n : fd_write_all(q->fd, line + n, len - (size_t)n, q->deadline);
}

static int run(struct qmp *q, const char *command, const char *arguments, int fd, char *text, size_t text_size)
{
    char line[1024];
    int n = snprintf(line, sizeof(line), "{\"execute\":\"%s\"%s%s}\n", command, arguments ? ",\"arguments\":" : "",
            arguments ?: "");
    int r = n < 0 || (size_t)n >= sizeof(line) ? -EMSGSIZE : send_command(q, line, (size_t)n, fd);

    return r < 0 ? r : expect(q, QMP_RETURN, text, text_size);
}

int qmp_run(struct qmp *q, const char *command, const char *arguments, int fd, struct ic_error *error)
{
    char text[256] = "";
    int r = run(q, command, arguments, fd, text, sizeof(text));

    if (r == -EREMOTEIO)
        return ic_fail(error, IC_ERR_BACKEND, "QEMU refused '%s': %s", command, text);
    return r < 0 ? ic_fail_errno(error, r, "QEMU's answer to '%s'", command) : 0;
}

int qmp_wait_migrated(struct qmp *q, struct ic_error *error)
{
    char text[256] = "";

    for (unsigned i = 0; q->migration == MIGRATION_NONE; i++) {
        enum qmp_kind kind;
        int r = i < QMP_MAX_SKIPPED ? next(q, &kind, text, sizeof(text)) : -EBADMSG;

        if (r < 0)
            return ic_fail_errno(error, r, "the end of QEMU's migration");
    }
    if (q->migration == MIGRATION_COMPLETED)
        return 0;
    if (run(q, "query-migrate", NULL, -1, text, sizeof(text)) < 0 || !text[0])
        (void)snprintf(text, sizeof(text), "it gives no cause");
    return ic_fail(error, IC_ERR_BACKEND, "QEMU's migration failed: %s", text);
}

int qmp_command(const char *socket_path, const char *command, uint64_t deadline, struct ic_error *error)
{
    _cleanup_(qmp_freep) struct qmp *q = NULL;
    int r = qmp_open(socket_path, deadline, &q, error);

    return r < 0 ? r : qmp_run(q, command, NULL, -1, error);
}
