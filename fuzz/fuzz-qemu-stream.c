/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's migration stream, whose empty pages are taken out: whatever comes in
 * pieces comes out as from one piece, never more than came in plus a name for
 * each page, and what came out is a stream from which nothing is taken out.
 */
#include <string.h>

#include "fuzz.h"
#include "orchestrator/backends/qemu-stream.h"

static int filter(const uint8_t *data, size_t size, size_t step, struct buf *out, struct qemu_stream *s)
{
    int r = 0;

    qemu_stream_init(s);
    while (r == 0 && size > 0) {
        size_t n = size < step ? size : step;

        r = qemu_stream_push(s, data, n, out);
        data += n;
        size -= n;
    }
    if (r == 0)
        r = qemu_stream_finish(s);
    qemu_stream_deinit(s);
    return r;
}

static bool same(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf once = {0}, pieces = {0}, again = {0};
    struct qemu_stream s, t;
    int r = filter(data, size, size, &once, &s);

    FUZZ_CHECK(once.len <= size + s.pages * 256);
    FUZZ_CHECK(s.dropped <= s.pages);
    FUZZ_CHECK(filter(data, size, 13, &pieces, &t) == r);
    if (r == 0) {
        FUZZ_CHECK(same(&pieces, &once));
        FUZZ_CHECK(filter(once.data, once.len, once.len, &again, &t) == 0);
        FUZZ_CHECK(t.dropped == 0 && same(&again, &once));
    }
    buf_deinit(&once);
    buf_deinit(&pieces);
    buf_deinit(&again);
    return 0;
}
