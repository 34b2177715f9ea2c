/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"

static void integers_round_trip(void **state)
{
    _cleanup_(buf_deinit) struct buf b = {0};
    const char *s;
    size_t len;
    struct rd r;

    (void)state;
    buf_put_u8(&b, 0xab);
    buf_put_le16(&b, 0x1234);
    buf_put_le32(&b, 0xdeadbeef);
    buf_put_le64(&b, 0x0123456789abcdef);
    buf_put_str(&b, "hello", 5);
    assert_int_equal(b.error, 0);
    assert_int_equal(b.data[1], 0x34);

    r = rd_of(b.data, b.len);
    assert_int_equal(rd_u8(&r), 0xab);
    assert_int_equal(rd_le16(&r), 0x1234);
    assert_true(rd_le32(&r) == 0xdeadbeef);
    assert_true(rd_le64(&r) == 0x0123456789abcdef);
    s = rd_str(&r, 5, &len);
    assert_non_null(s);
    assert_memory_equal(s, "hello", 5);
    assert_int_equal(rd_finish(&r), 0);
}

static void reader_is_sticky_past_the_end(void **state)
{
    uint8_t three[3] = {1, 2, 3};
    struct rd r = rd_of(three, sizeof(three));

    (void)state;
    assert_int_equal(rd_le32(&r), 0);
    assert_true(r.failed);
    assert_int_equal(rd_u8(&r), 0); /* though bytes are left */
    assert_int_equal(rd_finish(&r), -EBADMSG);
}

static void leftover_bytes_are_an_error(void **state)
{
    uint8_t two[2] = {1, 2};
    struct rd r = rd_of(two, sizeof(two));

    (void)state;
    assert_int_equal(rd_u8(&r), 1);
    assert_int_equal(rd_finish(&r), -EBADMSG);
}

static void strings_refuse_nul_and_excess(void **state)
{
    static const uint8_t with_nul[] = {3, 0, 0, 0, 'a', 0, 'b'};
    static const uint8_t too_long[] = {4, 0, 0, 0, 'a', 'b', 'c', 'd'};
    static const uint8_t lying[] = {0xff, 0xff, 0xff, 0xff, 'a'};
    struct rd r = rd_of(with_nul, sizeof(with_nul));
    size_t len = 99;

    (void)state;
    assert_null(rd_str(&r, 10, &len));
    assert_true(r.failed);
    r = rd_of(too_long, sizeof(too_long));
    assert_null(rd_str(&r, 3, &len));
    r = rd_of(lying, sizeof(lying));
    assert_null(rd_str(&r, SIZE_MAX, &len));
    assert_int_equal(len, 99); /* untouched on failure */
}

static void writer_respects_its_cap(void **state)
{
    _cleanup_(buf_deinit) struct buf b = {.max = 8};

    (void)state;
    buf_put_le64(&b, 1);
    assert_int_equal(b.error, 0);
    buf_put_u8(&b, 1);
    assert_int_equal(b.error, -EMSGSIZE);
    assert_int_equal(b.len, 8);
    buf_reset(&b);
    buf_put_u8(&b, 7);
    assert_int_equal(b.error, 0);
    assert_int_equal(b.len, 1);
}

static void consume_keeps_the_rest(void **state)
{
    _cleanup_(buf_deinit) struct buf b = {0};

    (void)state;
    buf_put(&b, "abcdef", 6);
    buf_consume(&b, 4);
    assert_int_equal(b.len, 2);
    assert_memory_equal(b.data, "ef", 2);
    buf_consume(&b, 100);
    assert_int_equal(b.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(integers_round_trip),
            cmocka_unit_test(reader_is_sticky_past_the_end),
            cmocka_unit_test(leftover_bytes_are_an_error),
            cmocka_unit_test(strings_refuse_nul_and_excess),
            cmocka_unit_test(writer_respects_its_cap),
            cmocka_unit_test(consume_keeps_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
