/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/api/http.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

void http_init(struct http_parser *p)
{
    memset(p, 0, sizeof(*p));
}

void http_reset(struct http_parser *p)
{
    free(p->body);
    http_init(p);
}

static enum http_event _printf_(2, 3) bad(struct http_parser *p, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(p->fault, sizeof(p->fault), fmt, args);
    va_end(args);
    return HTTP_BAD;
}

/* RFC 9110 §5.6.2 */
static bool is_token(const char *s, size_t len)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";

    for (size_t i = 0; i < len; i++) {
        char c = s[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr(marks, c))))
            return false;
    }
    return len > 0;
}

/* "http://host/path" is what a client writes that believes to talk to a proxy; RFC 9112 §3.2.2 wants it understood. */
static const char *origin_form(const char *target)
{
    const char *slash;

    if (strncasecmp(target, "http://", 7) != 0)
        return target;
    slash = strchr(target + 7, '/');
    return slash ? slash : "/";
}

static enum http_event request_line(struct http_parser *p)
{
    char *method = p->line, *target = strchr(method, ' '), *version;
    const char *path;

    if (!target)
        return bad(p, "Invalid request line.");
    *target++ = '\0';
    version = strchr(target, ' ');
    if (!version)
        return bad(p, "Invalid request line.");
    *version++ = '\0';
    if (!is_token(method, strlen(method)) || strlen(method) >= sizeof(p->method))
        return bad(p, "Invalid HTTP Method: Unsupported HTTP method.");
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
        return bad(p, "Invalid HTTP Version: Unsupported HTTP version.");
    path = origin_form(target);
    if (*path != '/')
        return bad(p, "Invalid URI: the target must begin with '/'.");
    for (const char *c = path; *c; c++) {
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f)
            return bad(p, "Invalid URI: only printable ASCII may be in it.");
    }
    memcpy(p->method, method, strlen(method) + 1);
    memcpy(p->path, path + 1, strlen(path));
    p->http10 = version[7] == '0';
    p->keep_alive = !p->http10;
    p->state = HTTP_IN_HEADERS;
    return HTTP_MORE;
}

static enum http_event content_length(struct http_parser *p, const char *value)
{
    size_t digits = strspn(value, "0123456789");
    unsigned long n;

    if (p->has_length)
        return bad(p, "Invalid header: more than one Content-Length.");
    if (digits == 0 || value[digits])
        return bad(p, "Invalid header: Content-Length is not a number.");
    n = digits > 9 ? 999999999 : strtoul(value, NULL, 10);
    if (n > API_MAX_BODY)
        return bad(p, "Request payload with size %.20s is larger than the limit of %u allowed by server.", value,
                API_MAX_BODY);
    p->has_length = true;
    p->body_size = n;
    return HTTP_MORE;
}

/* Is `token` one of the comma-separated words of `list`? */
static bool has_word(const char *list, const char *token)
{
    size_t len = strlen(token);

    while (*list) {
        size_t n;

        list += strspn(list, " \t,");
        n = strcspn(list, " \t,");
        if (n == len && strncasecmp(list, token, len) == 0)
            return true;
        list += n;
    }
    return false;
}

static enum http_event header_line(struct http_parser *p)
{
    char *name = p->line, *value = strchr(name, ':'), *end;

    if (++p->header_count > HTTP_MAX_HEADERS)
        return bad(p, "Invalid request: more than %u header lines.", HTTP_MAX_HEADERS);
    /* A name with a space is also how a folded line looks. */
    if (!value || !is_token(name, (size_t)(value - name)))
        return bad(p, "Invalid header.");
    *value++ = '\0';
    value += strspn(value, " \t");
    end = value + strlen(value);
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        *--end = '\0';

    if (strcasecmp(name, "Content-Length") == 0)
        return content_length(p, value);
    if (strcasecmp(name, "Transfer-Encoding") == 0)
        return bad(p, "Transfer-Encoding is not supported: send a Content-Length.");
    if (strcasecmp(name, "Expect") == 0)
        p->expect = strcasecmp(value, "100-continue") == 0;
    if (strcasecmp(name, "Connection") == 0) {
        if (has_word(value, "close"))
            p->keep_alive = false;
        else if (p->http10 && has_word(value, "keep-alive"))
            p->keep_alive = true;
    }
    return HTTP_MORE;
}

static enum http_event headers_end(struct http_parser *p)
{
    p->state = HTTP_DONE;
    if (p->body_size == 0)
        return HTTP_REQUEST;
    p->body = malloc(p->body_size + 1);
    if (!p->body)
        return bad(p, "No memory for the request's body.");
    p->state = HTTP_IN_BODY;
    return p->expect && !p->http10 ? HTTP_CONTINUE : HTTP_MORE;
}

/* One line is in p->line, without its CR LF. */
static enum http_event line_end(struct http_parser *p)
{
    size_t len = p->line_len;

    p->line_len = 0;
    p->line[len] = '\0';
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)p->line[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return bad(p, "Invalid request: a control character outside of the body.");
    }
    if (p->state == HTTP_IN_HEADERS)
        return len > 0 ? header_line(p) : headers_end(p);
    /* RFC 9112 §2.2: an empty line before a request is overlooked. */
    return len > 0 ? request_line(p) : HTTP_MORE;
}

static enum http_event line_byte(struct http_parser *p, char c)
{
    if (c == '\n') {
        if (p->line_len == 0 || p->line[p->line_len - 1] != '\r')
            return bad(p, "Invalid request: a line feed without its carriage return.");
        p->line_len--;
        return line_end(p);
    }
    /* The line feed has to fit as well. */
    if (p->line_len >= sizeof(p->line) - 1)
        return bad(p, "Invalid request: a line is longer than %u bytes.", API_MAX_LINE);
    p->line[p->line_len++] = c;
    return HTTP_MORE;
}

enum http_event http_feed(struct http_parser *p, const char *data, size_t len, size_t *ret_used)
{
    enum http_event event = HTTP_MORE;
    size_t used = 0;

    while (event == HTTP_MORE && used < len) {
        size_t n;

        if (p->state != HTTP_IN_BODY) {
            event = line_byte(p, data[used++]);
            continue;
        }
        n = MIN(len - used, p->body_size - p->body_len);
        memcpy(p->body + p->body_len, data + used, n);
        p->body_len += n;
        used += n;
        if (p->body_len == p->body_size) {
            p->body[p->body_len] = '\0';
            p->state = HTTP_DONE;
            event = HTTP_REQUEST;
        }
    }
    *ret_used = used;
    return event;
}

/*
 * Firecracker's headers, and its status line without a reason phrase. 100 and 204 have no body and, by RFC 9110 §8.6,
 * no Content-Length.
 */
size_t http_format(char *out, size_t size, int status, const char *body, bool keep_alive)
{
    bool has_body = body && status != 100 && status != 204;
    char type[80] = "";
    int n;

    if (has_body)
        (void)snprintf(type, sizeof(type), "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    n = snprintf(out, size, "HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: %s\r\n%s\r\n%s", status,
            keep_alive ? "keep-alive" : "close", type, has_body ? body : "");
    return n > 0 && (size_t)n < size ? (size_t)n : 0;
}
