/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/backends/qemu-stream.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"

#define STREAM_MAGIC   0x5145564du /* "QEVM" */
#define STREAM_VERSION 3u
#define CONFIG_MAX     4096u
#define RAM_MAX        ((uint64_t)1 << 46)
#define INPUT_MAX      ((size_t)64 << 10)

enum { SECTION_START = 0x01, SECTION_PART = 0x02, SECTION_END = 0x03, CONFIGURATION = 0x07, FOOTER = 0x7e };
enum { PAGE_ZERO = 0x02, BLOCKS_SIZE = 0x04, PAGE_DATA = 0x08, END_OF_PART = 0x10, PAGE_CONTINUE = 0x20 };

enum { AT_HEADER, AT_SECTION, AT_BLOCKS_SIZE, AT_BLOCK, AT_BLOCKS_END, AT_PAGE, AT_FOOTER, AT_DEVICES };

/* The input that is there, of which one item is taken; short: there is less than the item has. */
struct view {
    const uint8_t *data;
    size_t len, at;
    bool is_short;
};

static const uint8_t *take(struct view *v, size_t n)
{
    const uint8_t *p = v->data + v->at;

    if (v->is_short || v->len - v->at < n) {
        v->is_short = true;
        return NULL;
    }
    v->at += n;
    return p;
}

static uint64_t number(const uint8_t *p, size_t n)
{
    uint64_t value = 0;

    for (size_t i = 0; p && i < n; i++)
        value = value << 8 | p[i];
    return value;
}

/* Of 1 + n bytes. */
static const uint8_t *take_name(struct view *v)
{
    const uint8_t *len = take(v, 1);

    return len && take(v, *len) ? len : NULL;
}

static bool is_name(const uint8_t *name, const char *text)
{
    return name[0] == strlen(text) && memcmp(name + 1, text, name[0]) == 0;
}

void qemu_stream_init(struct qemu_stream *s)
{
    *s = (struct qemu_stream){.state = AT_HEADER, .in = {.max = INPUT_MAX}};
}

void qemu_stream_deinit(struct qemu_stream *s)
{
    buf_deinit(&s->in);
}

static int at_header(struct qemu_stream *s, struct view *v)
{
    uint64_t magic = number(take(v, 4), 4), version = number(take(v, 4), 4);

    if (v->is_short)
        return 0;
    s->state = AT_SECTION;
    return magic == STREAM_MAGIC && version == STREAM_VERSION ? 0 : -EBADMSG;
}

static int at_section_start(struct qemu_stream *s, struct view *v)
{
    const uint8_t *id = take(v, 4), *name = take_name(v), *rest = take(v, 8);

    if (!id || !name || !rest)
        return 0;
    if (!is_name(name, "ram") || s->started)
        return -EBADMSG;
    s->started = true;
    memcpy(s->section, id, sizeof(s->section));
    s->state = AT_BLOCKS_SIZE;
    return 0;
}

static int at_section(struct qemu_stream *s, struct view *v)
{
    const uint8_t *type = take(v, 1), *id;
    uint64_t len;

    if (!type)
        return 0;
    switch (*type) {
    case CONFIGURATION:
        len = number(take(v, 4), 4);
        if (len > CONFIG_MAX)
            return -EBADMSG;
        (void)take(v, len);
        return 0;
    case SECTION_START:
        return at_section_start(s, v);
    case SECTION_PART:
    case SECTION_END:
        id = take(v, 4);
        if (!id)
            return 0;
        s->last = *type == SECTION_END;
        s->state = AT_PAGE;
        return s->started && memcmp(id, s->section, sizeof(s->section)) == 0 ? 0 : -EBADMSG;
    default:
        return -EBADMSG;
    }
}

static int at_blocks_size(struct qemu_stream *s, struct view *v)
{
    uint64_t size = number(take(v, 8), 8);

    if (v->is_short)
        return 0;
    s->blocks_left = size & ~(uint64_t)(QEMU_STREAM_PAGE - 1);
    s->state = AT_BLOCK;
    return size % QEMU_STREAM_PAGE == BLOCKS_SIZE && size < RAM_MAX && s->blocks_left > 0 ? 0 : -EBADMSG;
}

static int at_block(struct qemu_stream *s, struct view *v)
{
    const uint8_t *name = take_name(v);
    uint64_t size = number(take(v, 8), 8);

    if (!name || v->is_short)
        return 0;
    if (size == 0 || size > s->blocks_left)
        return -EBADMSG;
    s->blocks_left -= size;
    if (s->blocks_left == 0)
        s->state = AT_BLOCKS_END;
    return 0;
}

static int at_blocks_end(struct qemu_stream *s, struct view *v)
{
    uint64_t end = number(take(v, 8), 8);

    if (v->is_short)
        return 0;
    s->state = AT_FOOTER;
    return end == END_OF_PART ? 0 : -EBADMSG;
}

static void put_be64(struct buf *out, uint64_t value)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (56 - 8 * i));
    buf_put(out, bytes, sizeof(bytes));
}

/* As the loader sees only the pages that stay, each says anew whose it is where that has changed. */
static void put_page(struct qemu_stream *s, uint64_t where, const uint8_t *contents, size_t len, struct buf *out)
{
    size_t name_len = 1u + s->in_block[0];
    bool same = memcmp(s->to_block, s->in_block, name_len) == 0;

    where &= ~(uint64_t)PAGE_CONTINUE;
    put_be64(out, same ? where | PAGE_CONTINUE : where);
    if (!same) {
        buf_put(out, s->in_block, name_len);
        memcpy(s->to_block, s->in_block, name_len);
    }
    buf_put(out, contents, len);
}

static int at_page(struct qemu_stream *s, struct view *v, struct buf *out)
{
    uint64_t where = number(take(v, 8), 8);
    unsigned flags = where % QEMU_STREAM_PAGE, kind = flags & ~(unsigned)PAGE_CONTINUE;
    const uint8_t *name = NULL, *contents;
    size_t len = kind == PAGE_ZERO ? 1 : QEMU_STREAM_PAGE;

    if (v->is_short)
        return 0;
    if (flags == END_OF_PART) {
        put_be64(out, where);
        s->state = AT_FOOTER;
        return 0;
    }
    if (kind != PAGE_ZERO && kind != PAGE_DATA)
        return -EBADMSG;
    if (!(flags & PAGE_CONTINUE))
        name = take_name(v);
    contents = take(v, len);
    if (!contents)
        return 0;
    if (name)
        memcpy(s->in_block, name, 1u + name[0]);
    if (!s->in_block[0] || (kind == PAGE_ZERO && *contents != 0))
        return -EBADMSG;
    s->pages++;
    if (kind == PAGE_ZERO && is_name(s->in_block, QEMU_STREAM_BLOCK))
        s->dropped++;
    else
        put_page(s, where, contents, len, out);
    return 0;
}

static int at_footer(struct qemu_stream *s, struct view *v)
{
    const uint8_t *mark = take(v, 1), *id = take(v, 4);

    if (!mark || !id)
        return 0;
    s->state = s->last ? AT_DEVICES : AT_SECTION;
    return *mark == FOOTER && memcmp(id, s->section, sizeof(s->section)) == 0 ? 0 : -EBADMSG;
}

/* One item: *ret_used of the input, 0 when it is not all there. */
static int take_item(struct qemu_stream *s, const uint8_t *data, size_t len, struct buf *out, size_t *ret_used)
{
    struct view v = {.data = data, .len = len};
    int state = s->state, r = 0;

    switch (state) {
    case AT_HEADER:
        r = at_header(s, &v);
        break;
    case AT_SECTION:
        r = at_section(s, &v);
        break;
    case AT_BLOCKS_SIZE:
        r = at_blocks_size(s, &v);
        break;
    case AT_BLOCK:
        r = at_block(s, &v);
        break;
    case AT_BLOCKS_END:
        r = at_blocks_end(s, &v);
        break;
    case AT_PAGE:
        r = at_page(s, &v, out);
        break;
    case AT_FOOTER:
        r = at_footer(s, &v);
        break;
    default:
        v.at = len;
        break;
    }
    *ret_used = v.is_short ? 0 : v.at;
    if (r == 0 && !v.is_short && state != AT_PAGE)
        buf_put(out, data, v.at);
    return r;
}

static int take_items(struct qemu_stream *s, const uint8_t *data, size_t len, struct buf *out, size_t *ret_used)
{
    size_t used = 0, n = 0;
    int r = 0;

    while (r == 0 && used < len) {
        r = take_item(s, data + used, len - used, out, &n);
        if (n == 0)
            break;
        used += n;
    }
    *ret_used = used;
    return r < 0 ? r : out->error ? -ENOMEM : 0;
}

int qemu_stream_push(struct qemu_stream *s, const void *data, size_t len, struct buf *out)
{
    const uint8_t *from = data;
    int r = 0;

    /* In pieces, so that what waits for its rest is never more than an item and a piece. */
    while (r == 0 && len > 0) {
        size_t n = MIN(len, INPUT_MAX / 2), used = 0;

        buf_put(&s->in, from, n);
        if (s->in.error)
            return s->in.error == -ENOMEM ? -ENOMEM : -EBADMSG;
        r = take_items(s, s->in.data, s->in.len, out, &used);
        buf_consume(&s->in, used);
        from += n;
        len -= n;
    }
    return r;
}

int qemu_stream_finish(const struct qemu_stream *s)
{
    return s->state == AT_DEVICES && s->in.len == 0 ? 0 : -EBADMSG;
}
