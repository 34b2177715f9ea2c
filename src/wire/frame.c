/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame itself: five bytes of header and one table of payload limits.
 *
 * The limits are as tight as each message allows, because they bound what a
 * hostile peer can make the other side buffer before a decoder sees a byte.
 */
#include "wire/frame.h"

#include <errno.h>

#include "base/macro.h"

#define STR(max) (4u + (max)) /* le32 length + bytes */

static const struct {
    bool exists;
    uint32_t max;
} limits[] = {
        [WIRE_HELLO] = {true, 9},
        [WIRE_ERROR] = {true, 8 + STR(WIRE_MAX_MESSAGE)},
        [WIRE_OK] = {true, 0},
        [WIRE_EXEC] = {true, WIRE_MAX_CONTROL},
        [WIRE_STARTED] = {true, 4},
        [WIRE_STDIN] = {true, WIRE_MAX_STREAM},
        [WIRE_CLOSE_STDIN] = {true, 0},
        [WIRE_STDOUT] = {true, WIRE_MAX_STREAM},
        [WIRE_STDERR] = {true, WIRE_MAX_STREAM},
        [WIRE_RESIZE] = {true, 4},
        [WIRE_SIGNAL] = {true, 1},
        [WIRE_EXIT] = {true, 29},
        [WIRE_PUT] = {true, 4 + STR(WIRE_MAX_PATH) + 2 * STR(WIRE_MAX_NAME)},
        [WIRE_GET] = {true, 4 + STR(WIRE_MAX_PATH) + 2 * STR(WIRE_MAX_NAME)},
        [WIRE_ENTRY] = {true, 29 + 2 * STR(WIRE_MAX_PATH)},
        [WIRE_DATA] = {true, WIRE_MAX_STREAM},
        [WIRE_HOLE] = {true, 8},
        [WIRE_DONE] = {true, 4 + STR(WIRE_MAX_MESSAGE)},
        [WIRE_READY] = {true, 18 + 2 * STR(WIRE_MAX_NAME)},
        [WIRE_TIME] = {true, 8},
        [WIRE_ENTROPY] = {true, WIRE_ENTROPY_MAX},
        [WIRE_STATS_REQ] = {true, 0},
        [WIRE_STATS] = {true, 72},
        [WIRE_SHUTDOWN] = {true, 0},
        [WIRE_PING] = {true, 0},
        [WIRE_FREEZE] = {true, 0},
        [WIRE_THAW] = {true, 0},
        [WIRE_CLONE] = {true, 28 + STR(WIRE_MAX_HOSTNAME) + STR(WIRE_ENTROPY_MAX)},
        [WIRE_UNPLUG] = {true, 0},
};

bool frame_limit(unsigned type, uint32_t *ret_max)
{
    if (type >= ARRAY_SIZE(limits) || !limits[type].exists)
        return false;
    *ret_max = limits[type].max;
    return true;
}

int wire_header_decode(struct wire_frame *ret, const uint8_t bytes[WIRE_HEADER_SIZE])
{
    struct rd r = rd_of(bytes, WIRE_HEADER_SIZE);
    uint32_t len = rd_le32(&r), max;
    uint8_t type = rd_u8(&r);

    if (!frame_limit(type, &max))
        return -EBADMSG;
    if (len > max)
        return -EMSGSIZE;
    *ret = (struct wire_frame){.type = (enum wire_type)type, .len = len};
    return 0;
}

size_t frame_begin(struct buf *b, enum wire_type type)
{
    size_t start = b->len;

    buf_put_le32(b, 0);
    buf_put_u8(b, (uint8_t)type);
    return start;
}

void frame_end(struct buf *b, size_t start)
{
    size_t len;
    uint32_t max;

    if (!b->error) {
        len = b->len - start - WIRE_HEADER_SIZE;
        if (!frame_limit(b->data[start + 4], &max))
            b->error = -EINVAL;
        else if (len > max)
            b->error = -EMSGSIZE;
        else
            buf_patch_le32(b, start, (uint32_t)len);
    }
    if (b->error)
        b->len = start;
}

void wire_put_bytes(struct buf *b, enum wire_type type, const void *data, size_t len)
{
    size_t start = frame_begin(b, type);

    buf_put(b, data, len);
    frame_end(b, start);
}

void wire_put_empty(struct buf *b, enum wire_type type)
{
    wire_put_bytes(b, type, NULL, 0);
}
