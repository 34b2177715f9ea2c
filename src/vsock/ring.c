/* SPDX-License-Identifier: Apache-2.0 */
#include "vsock/ring.h"

#include <assert.h>
#include <string.h>

#include "base/macro.h"

static void put_bytes(struct ring *r, const uint8_t *bytes, uint32_t len)
{
    uint32_t end = (uint32_t)(((uint64_t)r->start + r->len) % r->size);
    uint32_t first = MIN(len, r->size - end);

    memcpy(r->data + end, bytes, first);
    memcpy(r->data, bytes + first, len - first);
    r->len += len;
}

void ring_put(struct ring *r, const struct iovec *pieces, size_t count, size_t skip, uint32_t len)
{
    assert(len <= r->size - r->len);
    if (len > 0)
        r->touched = true;
    for (size_t i = 0; i < count && len > 0; i++) {
        size_t there = pieces[i].iov_len;
        uint32_t n;

        if (skip >= there) {
            skip -= there;
            continue;
        }
        n = (uint32_t)MIN(there - skip, (size_t)len);
        put_bytes(r, (const uint8_t *)pieces[i].iov_base + skip, n);
        skip = 0;
        len -= n;
    }
    assert(len == 0);
}

size_t ring_peek(const struct ring *r, struct iovec ret_pieces[2])
{
    uint32_t first = MIN(r->len, r->size - r->start);

    if (r->len == 0)
        return 0;
    ret_pieces[0] = (struct iovec){r->data + r->start, first};
    ret_pieces[1] = (struct iovec){r->data, r->len - first};
    return r->len > first ? 2 : 1;
}

void ring_drop(struct ring *r, uint32_t len)
{
    assert(len <= r->len);
    r->len -= len;
    r->start = r->len > 0 ? (uint32_t)(((uint64_t)r->start + len) % r->size) : 0;
}
