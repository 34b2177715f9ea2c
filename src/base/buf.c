/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macro.h"

struct rd rd_of(const void *data, size_t len)
{
    return (struct rd){.p = data, .left = len};
}

const uint8_t *rd_bytes(struct rd *r, size_t len)
{
    const uint8_t *p = r->p;

    if (r->failed || len > r->left) {
        r->failed = true;
        return NULL;
    }
    if (len > 0)
        r->p += len;
    r->left -= len;
    return p;
}

static uint64_t read_le(struct rd *r, size_t len)
{
    const uint8_t *p = rd_bytes(r, len);
    uint64_t v = 0;

    for (size_t i = 0; p && i < len; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t rd_u8(struct rd *r)
{
    return (uint8_t)read_le(r, 1);
}

uint16_t rd_le16(struct rd *r)
{
    return (uint16_t)read_le(r, 2);
}

uint32_t rd_le32(struct rd *r)
{
    return (uint32_t)read_le(r, 4);
}

uint64_t rd_le64(struct rd *r)
{
    return read_le(r, 8);
}

const char *rd_str(struct rd *r, size_t max, size_t *ret_len)
{
    uint32_t len = rd_le32(r);
    const uint8_t *p;

    if (len > max)
        r->failed = true;
    p = rd_bytes(r, len);
    if (!p)
        return NULL;
    if (len > 0 && memchr(p, 0, len)) {
        r->failed = true;
        return NULL;
    }
    *ret_len = len;
    return (const char *)p;
}

int rd_finish(const struct rd *r)
{
    return r->failed || r->left > 0 ? -EBADMSG : 0;
}

void buf_deinit(struct buf *b)
{
    free(b->data);
    *b = (struct buf){.max = b->max};
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->error = 0;
}

uint8_t *buf_reserve(struct buf *b, size_t len)
{
    size_t max = b->max ? b->max : BUF_MAX_DEFAULT;
    size_t need, size;
    uint8_t *grown;

    if (b->error)
        return NULL;
    if (add_overflows(b->len, len, &need) || need > max) {
        b->error = -EMSGSIZE;
        return NULL;
    }
    if (need > b->size || !b->data) {
        size = b->size > max / 2 ? max : b->size * 2;
        size = MAX(size, MIN(max, (size_t)64));
        size = MAX(size, need);
        grown = realloc(b->data, size);
        if (!grown) {
            b->error = -ENOMEM;
            return NULL;
        }
        b->data = grown;
        b->size = size;
    }
    return b->data + b->len;
}

void buf_put(struct buf *b, const void *data, size_t len)
{
    uint8_t *p = buf_reserve(b, len);

    if (!p)
        return;
    if (len > 0)
        memcpy(p, data, len);
    b->len += len;
}

static void put_le(struct buf *b, uint64_t v, size_t len)
{
    uint8_t bytes[8];

    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(v >> (8 * i));
    buf_put(b, bytes, len);
}

void buf_put_u8(struct buf *b, uint8_t v)
{
    put_le(b, v, 1);
}

void buf_put_le16(struct buf *b, uint16_t v)
{
    put_le(b, v, 2);
}

void buf_put_le32(struct buf *b, uint32_t v)
{
    put_le(b, v, 4);
}

void buf_put_le64(struct buf *b, uint64_t v)
{
    put_le(b, v, 8);
}

void buf_put_str(struct buf *b, const char *s, size_t len)
{
    if (len > UINT32_MAX) {
        b->error = -EMSGSIZE;
        return;
    }
    buf_put_le32(b, (uint32_t)len);
    buf_put(b, s, len);
}

void buf_patch_le32(struct buf *b, size_t offset, uint32_t v)
{
    if (b->error || offset > b->len || b->len - offset < 4)
        return;
    for (size_t i = 0; i < 4; i++)
        b->data[offset + i] = (uint8_t)(v >> (8 * i));
}

void buf_consume(struct buf *b, size_t len)
{
    len = MIN(len, b->len);
    if (len < b->len)
        memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}
