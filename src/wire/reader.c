/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes in, frames out. Frames are returned in place and their bytes are
 * dropped only when room for the next read is made, so that a buffer full of
 * small frames is moved once and not once per frame.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/macro.h"
#include "wire/wire.h"

#define READER_MAX (WIRE_HEADER_SIZE + WIRE_MAX_CONTROL + WIRE_READ_ROOM)

uint8_t *wire_reader_space(struct wire_reader *r, size_t *ret_room)
{
    size_t room;
    uint8_t *p;

    buf_consume(&r->in, r->taken);
    r->taken = 0;
    r->in.max = READER_MAX;
    room = MIN(READER_MAX - r->in.len, (size_t)WIRE_READ_ROOM);
    if (room == 0)
        return NULL;
    p = buf_reserve(&r->in, room);
    if (!p)
        return NULL;
    *ret_room = room;
    return p;
}

void wire_reader_filled(struct wire_reader *r, size_t n)
{
    assert(n <= r->in.size - r->in.len);
    r->in.len += n;
}

int wire_reader_next(struct wire_reader *r, struct wire_frame *ret, const uint8_t **ret_payload)
{
    size_t left = r->in.len - r->taken;
    const uint8_t *p;
    struct wire_frame frame;
    int e;

    if (left < WIRE_HEADER_SIZE)
        return 0;
    p = r->in.data + r->taken;
    e = wire_header_decode(&frame, p);
    if (e < 0)
        return e;
    if (left - WIRE_HEADER_SIZE < frame.len)
        return 0;
    r->taken += WIRE_HEADER_SIZE + frame.len;
    *ret = frame;
    *ret_payload = p + WIRE_HEADER_SIZE;
    return 1;
}

void wire_reader_wipe(struct wire_reader *r)
{
    if (!r->in.data)
        return;
    explicit_bzero(r->in.data, r->taken);
    /* Frames that were moved to the front were here. */
    explicit_bzero(r->in.data + r->in.len, r->in.size - r->in.len);
}

bool wire_reader_pending(const struct wire_reader *r)
{
    return r->in.len > r->taken;
}

void wire_reader_deinit(struct wire_reader *r)
{
    buf_deinit(&r->in);
    r->taken = 0;
}
