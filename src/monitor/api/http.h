/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of HTTP/1.0 and 1.1 (RFC 9112) that an API on a unix socket needs,
 * as an incremental parser that does no I/O: bytes go in as they come, whole
 * requests come out one at a time, so that pipelined ones wait in the caller's
 * buffer until their turn.
 *
 * Framing is by Content-Length only: a second Content-Length, any transfer
 * coding, folded lines, bare line feeds and control characters are refused,
 * as then two readers could disagree about where a request ends.
 *
 * Limits are api.h's: lines with their CR LF, and the body. The body's memory
 * is there from the end of the headers until http_reset().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "monitor/api/api.h"

#define HTTP_MAX_METHOD  16u
#define HTTP_MAX_HEADERS 100u
#define HTTP_MAX_HEAD    256u /* bytes of a response before its body */

enum http_event {
    HTTP_MORE,     /* all bytes are used, the request goes on */
    HTTP_CONTINUE, /* the client waits for "100 Continue" before it sends its body; then feed the rest */
    HTTP_REQUEST,  /* complete: answer it, then http_reset() */
    HTTP_BAD,      /* `fault` says why; answer and close: what follows can't be told from garbage */
};

struct http_parser {
    enum { HTTP_IN_REQUEST_LINE, HTTP_IN_HEADERS, HTTP_IN_BODY, HTTP_DONE } state;
    char line[API_MAX_LINE];
    size_t line_len;
    unsigned header_count;
    bool has_length, expect;

    /* The request; final at HTTP_REQUEST. */
    char method[HTTP_MAX_METHOD];
    char path[API_MAX_LINE]; /* without the leading '/' */
    bool keep_alive;
    bool http10;
    char *body; /* NUL-terminated for convenience; NULL: none */
    size_t body_len, body_size;

    char fault[128];
};

void http_init(struct http_parser *p);
void http_reset(struct http_parser *p); /* ready for the next request; frees the body */

enum http_event http_feed(struct http_parser *p, const char *data, size_t len, size_t *ret_used);

/* Writes a whole response and a NUL; returns its length, less than HTTP_MAX_HEAD + the body's, or 0: no room. */
size_t http_format(char *out, size_t size, int status, const char *body, bool keep_alive);
