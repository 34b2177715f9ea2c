/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A strict JSON writer (RFC 8259) onto a struct text: two spaces of indent, or
 * all on one line.
 *
 * Whatever bytes a string holds, the output is valid UTF-8 JSON: bytes that
 * are not UTF-8 become U+FFFD, control characters become \u00NN. Nesting is
 * kept by the writer, so commas and brackets can't go wrong; a misuse (a value
 * in an object without a key) is a bug of ours and asserts.
 */
#pragma once

#include "cli/text.h"

#define JSON_DEPTH_MAX 16

struct json {
    struct text text;
    unsigned depth;
    struct {
        bool object, used;
    } level[JSON_DEPTH_MAX];
    bool key_pending;
    bool one_line; /* set before the first value; then json_raw() must not be given a document of several lines */
};

void json_deinit(struct json *j);
void json_begin_object(struct json *j);
void json_begin_array(struct json *j);
void json_end(struct json *j); /* the innermost object or array */
void json_key(struct json *j, const char *key);
void json_string(struct json *j, const char *s); /* NULL writes null */
void json_bytes(struct json *j, const char *s, size_t len);
void json_i64(struct json *j, int64_t v);
void json_u64(struct json *j, uint64_t v);
void json_bool(struct json *j, bool v);
void json_null(struct json *j);
void json_raw(struct json *j, const char *document); /* a whole JSON value made by libironclaw */

/* Writes it and a newline to stdout and empties the writer. */
void json_print(struct json *j);
