/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/backends/qmp.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define QMP_MAX_SKIPPED 1000u /* lines that are not the answer */

struct qmp {
    int fd;
    uint64_t deadline;
    struct buf in;
    size_t taken;
};

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
    } else if (json_object_get(root, "return")) {
        *ret_kind = QMP_RETURN;
    } else if (json_object_get(root, "event")) {
        *ret_kind = QMP_EVENT;
    } else if ((value = json_object_get(json_object_get(root, "error"), "desc")) && json_is_string(value)) {
        *ret_kind = QMP_ERROR;
        (void)log_escape(text, text_size, json_string_value(value), json_string_length(value));
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

static int expect(struct qmp *q, enum qmp_kind wanted, char *text, size_t text_size)
{
    for (unsigned i = 0; i < QMP_MAX_SKIPPED; i++) {
        enum qmp_kind kind = QMP_EVENT;
        const char *line = NULL;
        size_t len = 0;
        int r = read_line(q, &line, &len);

        if (r == 0)
            r = qmp_parse(line, len, &kind, text, text_size);
        if (r < 0)
            return r;
        if (kind == wanted)
            return 0;
        if (kind == QMP_ERROR)
            return -EREMOTEIO;
    }
    return -EBADMSG;
}

int qmp_command(const char *socket_path, const char *command, uint64_t deadline, struct ic_error *error)
{
    struct qmp q = {.fd = -1, .deadline = deadline, .in = {.max = QMP_MAX_LINE}};
    char text[256] = "", line[128];
    int r = unix_connect_nofollow(socket_path, true, &q.fd); /* one that accepts nobody must not hold us */

    if (r < 0)
        return ic_fail_errno(error, r, "QEMU's control socket %s", socket_path);
    r = expect(&q, QMP_GREETING, text, sizeof(text));
    if (r == 0) {
        int n = snprintf(line, sizeof(line), "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"%s\"}\n", command);
        r = fd_write_all(q.fd, line, (size_t)n, deadline);
    }
    for (int i = 0; i < 2 && r == 0; i++)
        r = expect(&q, QMP_RETURN, text, sizeof(text));
    fd_close(q.fd);
    buf_deinit(&q.in);
    if (r == -EREMOTEIO)
        return ic_fail(error, IC_ERR_BACKEND, "QEMU refused '%s': %s", command, text);
    return r < 0 ? ic_fail_errno(error, r, "QEMU's answer to '%s'", command) : 0;
}
