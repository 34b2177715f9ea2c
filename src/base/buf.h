/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes: a growable buffer with a hard cap for writing, and a bounds-checked
 * cursor for reading foreign input.
 *
 * The reader is sticky: the first read past the end sets `failed`, yields
 * zeroes from then on, and the parser checks once at its end with
 * rd_finish(). So a parser is straight-line code and still can't overrun.
 * All integers are little-endian.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rd {
    const uint8_t *p;
    size_t left;
    bool failed;
};

struct rd rd_of(const void *data, size_t len);
uint8_t rd_u8(struct rd *r);
uint16_t rd_le16(struct rd *r);
uint32_t rd_le32(struct rd *r);
uint64_t rd_le64(struct rd *r);
/* A view into the input of exactly len bytes, or NULL (and failed). */
const uint8_t *rd_bytes(struct rd *r, size_t len);
/* A string stored as le32 length + bytes, at most max bytes; embedded NUL fails. View, not NUL-terminated. */
const char *rd_str(struct rd *r, size_t max, size_t *ret_len);
/* 0 when nothing failed and every byte was consumed, else -EBADMSG. */
int rd_finish(const struct rd *r);

struct buf {
    uint8_t *data;
    size_t len, size;
    size_t max; /* hard cap in bytes; 0 means BUF_MAX_DEFAULT */
    int error;  /* sticky: -ENOMEM or -EMSGSIZE; later writes do nothing */
};

#define BUF_MAX_DEFAULT ((size_t)16 << 20)

void buf_deinit(struct buf *b); /* for _cleanup_ */
void buf_reset(struct buf *b);  /* empties, keeps the memory, clears error */
void buf_put(struct buf *b, const void *data, size_t len);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_le16(struct buf *b, uint16_t v);
void buf_put_le32(struct buf *b, uint32_t v);
void buf_put_le64(struct buf *b, uint64_t v);
void buf_put_str(struct buf *b, const char *s, size_t len); /* le32 length + bytes */
/* Overwrites 4 bytes already written at offset. */
void buf_patch_le32(struct buf *b, size_t offset, uint32_t v);
/* Room for len more bytes at data+len, or NULL; the caller then adds to b->len what it used. */
uint8_t *buf_reserve(struct buf *b, size_t len);
/* Drops the first len bytes. */
void buf_consume(struct buf *b, size_t len);
