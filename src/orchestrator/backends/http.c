/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/backends/http.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/macro.h"

#define READ_BYTES 4096u

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* "HTTP/1.1 204 No Content": 1.0 or 1.1, three digits, any reason. */
static int parse_status(const char *line, size_t len, struct http_response *r)
{
    static const char version[] = "HTTP/1.";
    const size_t at = sizeof(version); /* of the blank behind the minor version */

    if (len < at + 4 || memcmp(line, version, at - 1) != 0 || (line[at - 1] != '0' && line[at - 1] != '1') ||
            line[at] != ' ' || (len > at + 4 && line[at + 4] != ' '))
        return -EBADMSG;
    for (size_t i = at + 1; i < at + 4; i++) {
        if (line[i] < '0' || line[i] > '9')
            return -EBADMSG;
        r->status = r->status * 10 + (line[i] - '0');
    }
    r->closing = line[at - 1] == '0';
    return r->status >= 200 && r->status <= 599 ? 0 : -EBADMSG; /* we ask for no 100 and for no upgrade */
}

static int parse_length(const char *value, size_t len, size_t *ret)
{
    size_t n = 0;

    if (len == 0 || len > 10)
        return len == 0 ? -EBADMSG : -EMSGSIZE;
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9')
            return -EBADMSG;
        n = n * 10 + (size_t)(value[i] - '0');
    }
    if (n > HTTP_MAX_BODY)
        return -EMSGSIZE;
    *ret = n;
    return 0;
}

static bool is_name(const char *name, size_t len, const char *wanted)
{
    return len == strlen(wanted) && strncasecmp(name, wanted, len) == 0;
}

static int parse_field(const char *line, size_t len, struct http_response *r, bool *has_length)
{
    const char *colon = memchr(line, ':', len), *value, *end = line + len;
    size_t name_len = colon ? (size_t)(colon - line) : 0;

    if (name_len == 0 || is_blank(line[0]) || is_blank(colon[-1]))
        return -EBADMSG;
    value = colon + 1;
    while (value < end && is_blank(*value))
        value++;
    while (end > value && is_blank(end[-1]))
        end--;
    if (is_name(line, name_len, "Transfer-Encoding"))
        return -EBADMSG;
    if (is_name(line, name_len, "Connection") && is_name(value, (size_t)(end - value), "close"))
        r->closing = true;
    if (!is_name(line, name_len, "Content-Length"))
        return 0;
    if (*has_length)
        return -EBADMSG;
    *has_length = true;
    return parse_length(value, (size_t)(end - value), &r->body_len);
}

int http_parse(const void *data, size_t len, struct http_response *ret)
{
    const char *text = data, *end = len > 0 ? memmem(text, MIN(len, (size_t)HTTP_MAX_HEAD), "\r\n\r\n", 4) : NULL;
    struct http_response response = {0};
    bool first = true, has_length = false;
    size_t head;

    if (!end)
        return len >= HTTP_MAX_HEAD ? -EMSGSIZE : 0;
    head = (size_t)(end - text) + 4;
    if (memchr(text, '\0', head))
        return -EBADMSG;
    for (const char *line = text; line < end + 2; first = false) {
        const char *stop = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        size_t line_len = (size_t)(stop - line);
        int r;

        if (memchr(line, '\n', line_len) || memchr(line, '\r', line_len))
            return -EBADMSG;
        r = first ? parse_status(line, line_len, &response) : parse_field(line, line_len, &response, &has_length);
        if (r < 0)
            return r;
        line = stop + 2;
    }
    if (response.status == 204 || response.status == 304)
        response.body_len = 0; /* RFC 9110 §8.6: what the length says is of another answer */
    if (response.body_len > len - head)
        return 0;
    response.body = text + head;
    response.size = head + response.body_len;
    *ret = response;
    return 1;
}

void http_init(struct http *h, int fd, uint64_t deadline)
{
    *h = (struct http){.fd = fd, .deadline = deadline, .in = {.max = HTTP_MAX_HEAD + HTTP_MAX_BODY + READ_BYTES}};
}

void http_deinit(struct http *h)
{
    fd_close(h->fd);
    buf_deinit(&h->in);
    *h = (struct http){.fd = -1};
}

/* Not fd_wait(): a signal must get through, since it may be what cancels the caller. */
static int wait_readable(const struct http *h)
{
    struct pollfd p = {.fd = h->fd, .events = POLLIN};
    int n = poll(&p, 1, deadline_poll_ms(h->deadline));

    return n > 0 ? 0 : n < 0 ? -errno : -ETIMEDOUT;
}

static int read_more(struct http *h)
{
    uint8_t *space = buf_reserve(&h->in, READ_BYTES);
    ssize_t n;
    int r;

    if (!space)
        return h->in.error;
    r = wait_readable(h);
    if (r < 0)
        return r;
    n = read(h->fd, space, READ_BYTES);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    h->in.len += (size_t)n;
    return n == 0 ? -ECONNRESET : 0;
}

int http_request(struct http *h, const char *method, const char *path, const char *body, struct http_response *ret)
{
    _cleanup_(freep) char *text = NULL;
    int n, r;

    buf_consume(&h->in, h->taken);
    h->taken = 0;
    if (h->in.len > 0)
        return -EBADMSG; /* an answer that nobody asked for */
    if (body)
        n = asprintf(&text,
                "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
                "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                method, path, strlen(body), body);
    else
        n = asprintf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n", method, path);
    if (n < 0) {
        text = NULL;
        return -ENOMEM;
    }
    r = fd_write_all(h->fd, text, (size_t)n, h->deadline);
    if (r < 0)
        return r;
    while ((r = http_parse(h->in.data, h->in.len, ret)) == 0) {
        r = read_more(h);
        if (r < 0)
            return r;
    }
    if (r < 0)
        return r;
    h->taken = ret->size;
    return 0;
}
