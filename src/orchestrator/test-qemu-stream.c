/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"
#include "orchestrator/backends/qemu-stream.h"

enum { ZERO = 0x02, DATA = 0x08, END = 0x10, CONTINUE = 0x20 };

static void put_be(struct buf *b, uint64_t value, unsigned bytes)
{
    while (bytes-- > 0)
        buf_put_u8(b, (uint8_t)(value >> 8 * bytes));
}

static void put_name(struct buf *b, const char *name)
{
    buf_put_u8(b, (uint8_t)strlen(name));
    buf_put(b, name, strlen(name));
}

static void put_footer(struct buf *b)
{
    buf_put_u8(b, 0x7e);
    put_be(b, 2, 4);
}

static void put_header(struct buf *b)
{
    put_be(b, 0x5145564d00000003, 8);
    buf_put_u8(b, 0x07);
    put_be(b, 7, 4);
    buf_put(b, "microvm", 7);
}

static void put_start(struct buf *b)
{
    buf_put_u8(b, 0x01);
    put_be(b, 2, 4);
    put_name(b, "ram");
    put_be(b, 0, 4);
    put_be(b, 4, 4);
    put_be(b, 0x6000 | 4, 8);
    put_name(b, "ram");
    put_be(b, 0x4000, 8);
    put_name(b, "bios");
    put_be(b, 0x2000, 8);
    put_be(b, END, 8);
    put_footer(b);
}

static void put_part(struct buf *b, uint8_t type)
{
    buf_put_u8(b, type);
    put_be(b, 2, 4);
}

/* name: NULL for the one before. */
static void put_page(struct buf *b, uint64_t offset, const char *name, uint8_t fill)
{
    uint8_t page[QEMU_STREAM_PAGE];

    put_be(b, offset | (fill ? DATA : ZERO) | (name ? 0 : CONTINUE), 8);
    if (name)
        put_name(b, name);
    memset(page, fill, sizeof(page));
    buf_put(b, page, fill ? sizeof(page) : 1);
}

static void put_end(struct buf *b)
{
    put_be(b, END, 8);
    put_footer(b);
}

/* The stream with `step` bytes at a time, of which the first `len` come. */
static int filter_part(const struct buf *in, size_t len, size_t step, struct buf *out)
{
    struct qemu_stream s;
    int r = 0;

    qemu_stream_init(&s);
    for (size_t at = 0; r == 0 && at < len; at += step)
        r = qemu_stream_push(&s, in->data + at, MIN(step, len - at), out);
    if (r == 0)
        r = qemu_stream_finish(&s);
    qemu_stream_deinit(&s);
    return r;
}

static int filter(const struct buf *in, struct buf *out)
{
    return filter_part(in, in->len, in->len, out);
}

static void make(struct buf *in, struct buf *wanted)
{
    put_header(in);
    put_start(in);
    put_part(in, 0x02);
    put_page(in, 0, "ram", 0);
    put_page(in, 0x1000, NULL, 1);
    put_page(in, 0x2000, NULL, 0);
    put_page(in, 0x3000, NULL, 2);
    put_page(in, 0, "bios", 0);
    put_page(in, 0x1000, NULL, 3);
    put_end(in);
    put_part(in, 0x03);
    put_page(in, 0x1000, NULL, 4);
    put_page(in, 0, "ram", 0);
    put_page(in, 0, "bios", 5);
    put_end(in);
    buf_put(in, "\x04whatever devices have to say", 29);

    put_header(wanted);
    put_start(wanted);
    put_part(wanted, 0x02);
    put_page(wanted, 0x1000, "ram", 1); /* now the first, so it has to say whose it is */
    put_page(wanted, 0x3000, NULL, 2);
    put_page(wanted, 0, "bios", 0); /* has contents in a new machine: stays */
    put_page(wanted, 0x1000, NULL, 3);
    put_end(wanted);
    put_part(wanted, 0x03);
    put_page(wanted, 0x1000, NULL, 4);
    put_page(wanted, 0, NULL, 5); /* still that of the last one that stayed */
    put_end(wanted);
    buf_put(wanted, "\x04whatever devices have to say", 29);
}

static void drops_empty_pages(void **state)
{
    static const size_t steps[] = {1, 7, 4096, 100000};
    _cleanup_(buf_deinit) struct buf in = {0}, wanted = {0};

    make(&in, &wanted);
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        _cleanup_(buf_deinit) struct buf out = {0};

        assert_int_equal(filter_part(&in, in.len, steps[i], &out), 0);
        assert_int_equal(out.len, wanted.len);
        assert_memory_equal(out.data, wanted.data, out.len);
    }
}

static void knows_a_whole_stream(void **state)
{
    _cleanup_(buf_deinit) struct buf in = {0}, wanted = {0};
    size_t devices = 29;

    make(&in, &wanted);
    for (size_t len = 0; len < in.len - devices; len += 1 + len / 50) {
        _cleanup_(buf_deinit) struct buf out = {0};

        assert_int_equal(filter_part(&in, len, 4096, &out), -EBADMSG);
    }
}

static void refuses_what_it_does_not_know(void **state)
{
    enum { MAGIC, VERSION, SECTION, FIRST, BLOCKS, NAMELESS, FLAGS, ID, NOT_ZERO, FOOTER, AGAIN, HUGE_CONFIG, CASES };

    for (int bad = 0; bad < CASES; bad++) {
        _cleanup_(buf_deinit) struct buf in = {0}, out = {0};

        put_header(&in);
        if (bad == MAGIC)
            in.data[0] = 'q';
        if (bad == VERSION)
            in.data[7] = 4;
        if (bad == HUGE_CONFIG)
            in.data[9] = 1;
        if (bad == SECTION)
            buf_put(&in, "\x04\0\0\0\x01", 5);
        if (bad == FIRST)
            put_part(&in, 0x02);
        put_start(&in);
        if (bad == BLOCKS)
            in.data[20 + 17 + 6] ^= 0x10; /* their sizes are not the sum */
        if (bad == AGAIN)
            put_start(&in);
        put_part(&in, 0x03);
        if (bad == ID)
            in.data[in.len - 1] = 3;
        put_page(&in, 0, bad == NAMELESS ? NULL : "ram", bad == NOT_ZERO ? 0 : 1);
        if (bad == NOT_ZERO)
            in.data[in.len - 1] = 1;
        if (bad == FLAGS)
            put_be(&in, 0x1000 | 0x40 | CONTINUE, 8); /* XBZRLE */
        put_end(&in);
        if (bad == FOOTER)
            in.data[in.len - 5] = 0x7f;
        if (filter(&in, &out) != -EBADMSG)
            fail_msg("case %d is taken", bad);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(drops_empty_pages),
            cmocka_unit_test(knows_a_whole_stream),
            cmocka_unit_test(refuses_what_it_does_not_know),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
