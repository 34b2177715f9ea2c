/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/json.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void json_deinit(struct json *j)
{
    text_deinit(&j->text);
}

static void new_line(struct json *j)
{
    if (j->one_line)
        return;
    text_putc(&j->text, '\n');
    for (unsigned i = 0; i < j->depth; i++)
        text_puts(&j->text, "  ");
}

/* Comma, newline and indentation that the next key or array element needs. */
static void separate(struct json *j)
{
    if (j->depth == 0)
        return;
    if (j->level[j->depth - 1].used)
        text_puts(&j->text, j->one_line ? ", " : ",");
    j->level[j->depth - 1].used = true;
    new_line(j);
}

static void before_value(struct json *j)
{
    bool in_object = j->depth > 0 && j->level[j->depth - 1].object;

    assert(in_object == j->key_pending);
    if (!in_object)
        separate(j);
    j->key_pending = false;
}

static void begin(struct json *j, bool object)
{
    assert(j->depth < JSON_DEPTH_MAX);
    before_value(j);
    text_putc(&j->text, object ? '{' : '[');
    j->level[j->depth].object = object;
    j->level[j->depth].used = false;
    j->depth++;
}

void json_begin_object(struct json *j)
{
    begin(j, true);
}

void json_begin_array(struct json *j)
{
    begin(j, false);
}

void json_end(struct json *j)
{
    bool object, used;

    assert(j->depth > 0 && !j->key_pending);
    j->depth--;
    object = j->level[j->depth].object;
    used = j->level[j->depth].used;
    if (used)
        new_line(j);
    text_putc(&j->text, object ? '}' : ']');
}

static void put_string(struct text *t, const char *s, size_t len)
{
    text_putc(t, '"');
    for (size_t i = 0, n; i < len; i += n) {
        unsigned char c = (unsigned char)s[i];

        n = text_utf8(s + i, len - i);
        if (n == 0) {
            text_puts(t, "\xef\xbf\xbd");
            n = 1;
        } else if (c == '"' || c == '\\') {
            text_printf(t, "\\%c", c);
        } else if (c == '\n') {
            text_puts(t, "\\n");
        } else if (c == '\t') {
            text_puts(t, "\\t");
        } else if (c < 0x20 || c == 0x7f) {
            text_printf(t, "\\u%04x", c);
        } else {
            text_put(t, s + i, n);
        }
    }
    text_putc(t, '"');
}

void json_key(struct json *j, const char *key)
{
    assert(j->depth > 0 && j->level[j->depth - 1].object && !j->key_pending);
    separate(j);
    put_string(&j->text, key, strlen(key));
    text_puts(&j->text, ": ");
    j->key_pending = true;
}

void json_bytes(struct json *j, const char *s, size_t len)
{
    before_value(j);
    put_string(&j->text, s, len);
}

void json_string(struct json *j, const char *s)
{
    if (s)
        json_bytes(j, s, strlen(s));
    else
        json_null(j);
}

void json_i64(struct json *j, int64_t v)
{
    before_value(j);
    text_printf(&j->text, "%" PRId64, v);
}

void json_u64(struct json *j, uint64_t v)
{
    before_value(j);
    text_printf(&j->text, "%" PRIu64, v);
}

void json_bool(struct json *j, bool v)
{
    before_value(j);
    text_puts(&j->text, v ? "true" : "false");
}

void json_null(struct json *j)
{
    before_value(j);
    text_puts(&j->text, "null");
}

void json_raw(struct json *j, const char *document)
{
    size_t len = strlen(document);

    before_value(j);
    while (len > 0 && document[len - 1] == '\n')
        len--;
    text_put(&j->text, document, len);
}

void json_print(struct json *j)
{
    assert(j->depth == 0 && !j->key_pending);
    (void)fwrite(text_str(&j->text), 1, j->text.len, stdout);
    (void)fputc('\n', stdout);
    json_deinit(j);
}
