/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <string.h>

#include "wire/wire.h"

static void feed(struct wire_reader *r, const void *data, size_t len)
{
    size_t room;
    uint8_t *p = wire_reader_space(r, &room);

    assert_non_null(p);
    assert_true(len <= room);
    memcpy(p, data, len);
    wire_reader_filled(r, len);
}

static void frames_survive_any_split(void **state)
{
    _cleanup_(buf_deinit) struct buf b = {0};
    const uint8_t *payload;
    struct wire_frame f;

    (void)state;
    wire_put_bytes(&b, WIRE_STDOUT, "hello", 5);
    wire_put_empty(&b, WIRE_OK);
    wire_put_started(&b, 7);
    for (size_t step = 1; step <= b.len; step++) {
        _cleanup_(wire_reader_deinit) struct wire_reader r = {0};
        unsigned got = 0;

        for (size_t off = 0; off < b.len; off += step) {
            feed(&r, b.data + off, MIN(step, b.len - off));
            while (wire_reader_next(&r, &f, &payload) == 1) {
                static const enum wire_type want[] = {WIRE_STDOUT, WIRE_OK, WIRE_STARTED};

                assert_int_equal(f.type, want[got]);
                if (got == 0)
                    assert_memory_equal(payload, "hello", 5);
                got++;
            }
        }
        assert_int_equal(got, 3);
        assert_false(wire_reader_pending(&r));
    }
}

static void bad_header_is_refused_before_its_payload(void **state)
{
    _cleanup_(wire_reader_deinit) struct wire_reader r = {0};
    const uint8_t header[] = {0xff, 0xff, 0xff, 0x7f, WIRE_STDOUT};
    const uint8_t *payload;
    struct wire_frame f;

    (void)state;
    feed(&r, header, sizeof(header));
    assert_int_equal(wire_reader_next(&r, &f, &payload), -EMSGSIZE);
    assert_true(wire_reader_pending(&r));
}

static void largest_frame_fits_and_the_cap_holds(void **state)
{
    static uint8_t chunk[WIRE_READ_ROOM];
    _cleanup_(wire_reader_deinit) struct wire_reader r = {0};
    const uint8_t header[] = {0, 0, 16, 0, WIRE_EXEC};
    size_t left = WIRE_MAX_CONTROL, room;
    const uint8_t *payload;
    struct wire_frame f;

    (void)state;
    feed(&r, header, sizeof(header));
    while (left > 0) {
        size_t n = MIN(left, sizeof(chunk));

        assert_int_equal(wire_reader_next(&r, &f, &payload), 0);
        feed(&r, chunk, n);
        left -= n;
    }
    feed(&r, header, sizeof(header));
    assert_int_equal(wire_reader_next(&r, &f, &payload), 1);
    assert_int_equal(f.len, WIRE_MAX_CONTROL);
    assert_int_equal(wire_reader_next(&r, &f, &payload), 0);

    /* Never taking a frame out ends in a refusal, not in growth. */
    for (;;) {
        uint8_t *p = wire_reader_space(&r, &room);

        if (!p)
            break;
        memset(p, 0, room);
        wire_reader_filled(&r, room);
    }
    assert_true(r.in.size <= WIRE_HEADER_SIZE + WIRE_MAX_CONTROL + WIRE_READ_ROOM);
}

/* A secret that came in two pieces, behind a frame and before the half of another. */
static void wiped_frames_leave_nothing(void **state)
{
    _cleanup_(wire_reader_deinit) struct wire_reader r = {0};
    _cleanup_(buf_deinit) struct buf b = {0};
    const char secret[] = "0123456789abcdef0123456789abcdef", before[100] = "before";
    const uint8_t *payload;
    struct wire_frame f;

    (void)state;
    wire_reader_wipe(&r); /* an empty one has none */
    wire_put_bytes(&b, WIRE_STDIN, before, sizeof(before));
    wire_put_bytes(&b, WIRE_ENTROPY, secret, sizeof(secret));
    feed(&r, b.data, b.len - 8);
    assert_int_equal(wire_reader_next(&r, &f, &payload), 1);
    assert_int_equal(wire_reader_next(&r, &f, &payload), 0);
    feed(&r, b.data + b.len - 8, 8);
    feed(&r, b.data, 9);
    assert_int_equal(wire_reader_next(&r, &f, &payload), 1);
    assert_memory_equal(payload, secret, sizeof(secret));
    assert_non_null(memmem(r.in.data + r.in.len, r.in.size - r.in.len, secret, 8)); /* where it was before it moved */
    wire_reader_wipe(&r);
    assert_null(memmem(r.in.data, r.in.size, secret, 8));
    feed(&r, b.data + 9, WIRE_HEADER_SIZE + sizeof(before) - 9); /* what had come of the next one is there still */
    assert_int_equal(wire_reader_next(&r, &f, &payload), 1);
    assert_memory_equal(payload, before, sizeof(before));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(frames_survive_any_split),
            cmocka_unit_test(bad_header_is_refused_before_its_payload),
            cmocka_unit_test(largest_frame_fits_and_the_cap_holds),
            cmocka_unit_test(wiped_frames_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
