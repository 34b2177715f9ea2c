/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: start state, session kind, size of the pieces that "arrive", then
 * bytes as from a socket. Besides memory safety it checks that the encoding is
 * canonical: whatever a decoder accepts, the encoder writes again byte by byte.
 */
#include <string.h>

#include "base/macro.h"
#include "fuzz.h"
#include "wire/wire.h"

/* Decodes, and encodes into b what was decoded. Returns the decoder's result; the frames without a layout are copied.
 */
static int decode_small(const struct wire_frame *f, const uint8_t *p, struct buf *b)
{
    uint16_t rows, cols;
    uint32_t u32;
    uint64_t u64;
    uint8_t u8;
    int r;

    switch (f->type) {
    case WIRE_STARTED:
        if ((r = wire_get_started(&u32, p, f->len)) == 0)
            wire_put_started(b, u32);
        return r;
    case WIRE_RESIZE:
        if ((r = wire_get_resize(&rows, &cols, p, f->len)) == 0)
            wire_put_resize(b, rows, cols);
        return r;
    case WIRE_SIGNAL:
        if ((r = wire_get_signal(&u8, p, f->len)) == 0)
            wire_put_signal(b, u8);
        return r;
    case WIRE_HOLE:
        if ((r = wire_get_hole(&u64, p, f->len)) == 0)
            wire_put_hole(b, u64);
        return r;
    case WIRE_TIME:
        if ((r = wire_get_time(&u64, p, f->len)) == 0)
            wire_put_time(b, u64);
        return r;
    default:
        wire_put_bytes(b, f->type, p, f->len);
        return 0;
    }
}

/* Texts of ERROR and DONE are C strings for their encoders. */
static const char *text(char buf[WIRE_MAX_MESSAGE + 1], struct wire_str s)
{
    memcpy(buf, s.s, s.len);
    buf[s.len] = '\0';
    return buf;
}

static int decode(const struct wire_frame *f, const uint8_t *p, struct buf *b)
{
    char message[WIRE_MAX_MESSAGE + 1];
    union {
        struct wire_hello hello;
        struct wire_error error;
        struct wire_exec exec;
        struct wire_exit exit;
        struct wire_copy copy;
        struct wire_entry entry;
        struct wire_done done;
        struct wire_ready ready;
        struct wire_stats stats;
        struct wire_clone clone;
    } m;
    int r;

    switch (f->type) {
    case WIRE_HELLO:
        r = wire_get_hello(&m.hello, p, f->len);
        if (r == 0 && m.hello.version == WIRE_VERSION && m.hello.version_min == WIRE_VERSION_MIN)
            wire_put_hello(b, m.hello.session);
        else if (r == 0)
            wire_put_bytes(b, f->type, p, f->len); /* another version's, which we can't write */
        return r;
    case WIRE_ERROR:
        if ((r = wire_get_error(&m.error, p, f->len)) == 0)
            wire_put_error(b, m.error.code, m.error.os_errno, text(message, m.error.message));
        return r;
    case WIRE_EXEC:
        if ((r = wire_get_exec(&m.exec, p, f->len)) == 0) {
            wire_put_exec(b, &m.exec);
            wire_exec_deinit(&m.exec);
        }
        return r;
    case WIRE_EXIT:
        if ((r = wire_get_exit(&m.exit, p, f->len)) == 0)
            wire_put_exit(b, &m.exit);
        return r;
    case WIRE_PUT:
    case WIRE_GET:
        if ((r = wire_get_copy(&m.copy, p, f->len)) == 0)
            wire_put_copy(b, f->type, &m.copy);
        return r;
    case WIRE_ENTRY:
        if ((r = wire_get_entry(&m.entry, p, f->len)) == 0)
            wire_put_entry(b, &m.entry);
        return r;
    case WIRE_DONE:
        if ((r = wire_get_done(&m.done, p, f->len)) == 0)
            wire_put_done(b, m.done.skipped, text(message, m.done.message));
        return r;
    case WIRE_READY:
        if ((r = wire_get_ready(&m.ready, p, f->len)) == 0)
            wire_put_ready(b, &m.ready);
        return r;
    case WIRE_STATS:
        if ((r = wire_get_stats(&m.stats, p, f->len)) == 0)
            wire_put_stats(b, &m.stats);
        return r;
    case WIRE_CLONE:
        if ((r = wire_get_clone(&m.clone, p, f->len)) == 0)
            wire_put_clone(b, &m.clone);
        return r;
    default:
        return decode_small(f, p, b);
    }
}

static void check_frame(const struct wire_frame *f, const uint8_t *payload)
{
    _cleanup_(buf_deinit) struct buf again = {0};

    FUZZ_CHECK(f->len <= WIRE_MAX_CONTROL);
    if (decode(f, payload, &again) < 0)
        return;
    FUZZ_CHECK(again.error == 0);
    FUZZ_CHECK(again.len == WIRE_HEADER_SIZE + (size_t)f->len);
    FUZZ_CHECK(again.data[4] == f->type);
    FUZZ_CHECK(f->len == 0 || memcmp(again.data + WIRE_HEADER_SIZE, payload, f->len) == 0);
}

static void check_step(enum wire_state *state, enum wire_session session, const struct wire_frame *f)
{
    enum wire_state host = *state, agent = *state;
    int by_host = wire_step(&host, session, WIRE_FROM_HOST, f->type, f->len & 1);
    int by_agent = wire_step(&agent, session, WIRE_FROM_AGENT, f->type, f->len & 1);

    FUZZ_CHECK(by_host == 0 || host == *state);
    FUZZ_CHECK(by_agent == 0 || agent == *state);
    FUZZ_CHECK(host <= WIRE_ST_ENDED && agent <= WIRE_ST_ENDED);
    if (by_host == 0)
        *state = host;
    else if (by_agent == 0)
        *state = agent;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    enum wire_session session;
    enum wire_state state;
    const uint8_t *payload;
    struct wire_frame f;
    size_t piece;

    if (size < 3)
        return 0;
    state = (enum wire_state)(data[0] % (WIRE_ST_ENDED + 1));
    session = (enum wire_session)(data[1] % (WIRE_SESSION_CONTROL + 1));
    piece = data[2] ? data[2] : size;
    (void)wire_path_ok((const char *)data, size);
    for (size_t off = 3; off < size;) {
        size_t room = 0, n;
        uint8_t *space = wire_reader_space(&reader, &room);
        int r;

        FUZZ_CHECK(space && room > 0);
        n = MIN(piece, size - off);
        n = MIN(n, room);
        memcpy(space, data + off, n);
        wire_reader_filled(&reader, n);
        off += n;
        while ((r = wire_reader_next(&reader, &f, &payload)) == 1) {
            check_step(&state, session, &f);
            check_frame(&f, payload);
        }
        if (r < 0)
            break;
    }
    return 0;
}
