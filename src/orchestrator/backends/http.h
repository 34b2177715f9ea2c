/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of an HTTP/1.1 client as a monitor's API needs: requests with a JSON
 * body, one after another on one connection over a unix socket, answers with a
 * Content-Length or without a body (RFC 9112). The monitor is attacked by its
 * guest, so its answers are bounded and parsed like any foreign input; what is
 * legal HTTP but no monitor sends (chunks, folded lines, bodies that end with
 * the connection) is refused.
 *
 * libcurl would do too; its start alone takes longer than the whole
 * conversation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define HTTP_MAX_HEAD (8u << 10)
#define HTTP_MAX_BODY (64u << 10)

struct http_response {
    int status;       /* 200..599 */
    const char *body; /* a view; not NUL-terminated */
    size_t body_len;
    size_t size;  /* of head and body */
    bool closing; /* the peer said that it closes the connection */
};

/* The first response in the bytes that came so far. 1: whole; 0: there is more of it to come; -EBADMSG; -EMSGSIZE when
 * its head or body is over the limit. Pure. *ret is only changed by a 1. */
int http_parse(const void *data, size_t len, struct http_response *ret);

struct http {
    int fd; /* connected, non-blocking; owned */
    uint64_t deadline;
    struct buf in;
    size_t taken; /* of `in`, by the last response */
};

void http_init(struct http *h, int fd, uint64_t deadline);
void http_deinit(struct http *h);

/* One request and its answer; the body's view lasts until the next call. body NULL: none. 0, -EINTR (a signal: the
 * caller is being cancelled), -ETIMEDOUT, -ECONNRESET, or as http_parse. After a failure the connection is of no use.
 */
int http_request(struct http *h, const char *method, const char *path, const char *body, struct http_response *ret);
