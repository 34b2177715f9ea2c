/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <string.h>

#include "vsock/vsock.h"

static const uint8_t wire[VSOCK_HDR_SIZE] = {
        3, 0, 0, 0, 0, 0, 0, 1, /* src_cid */
        2, 0, 0, 0, 0, 0, 0, 0, /* dst_cid */
        0x78, 0x56, 0x34, 0x12, /* src_port */
        0xff, 0xff, 0xff, 0xff, /* dst_port */
        0, 0, 1, 0,             /* len */
        1, 0, 5, 0,             /* type, op */
        3, 0, 0, 0,             /* flags */
        0, 0, 4, 0,             /* buf_alloc */
        0xfe, 0xff, 0xff, 0xff, /* fwd_cnt */
};

static void decodes_each_field(void **state)
{
    struct vsock_hdr h;

    vsock_hdr_decode(&h, wire);
    assert_true(h.src_cid == 0x0100000000000003u);
    assert_true(h.dst_cid == 2);
    assert_int_equal(h.src_port, 0x12345678);
    assert_int_equal(h.dst_port, UINT32_MAX);
    assert_int_equal(h.len, 65536);
    assert_int_equal(h.type, VSOCK_TYPE_STREAM);
    assert_int_equal(h.op, VSOCK_OP_RW);
    assert_int_equal(h.flags, 3);
    assert_int_equal(h.buf_alloc, VSOCK_BUF_ALLOC);
    assert_int_equal(h.fwd_cnt, UINT32_MAX - 1);
}

static void encodes_what_it_decoded(void **state)
{
    uint8_t bytes[VSOCK_HDR_SIZE] = {0};
    struct vsock_hdr h;

    vsock_hdr_decode(&h, wire);
    vsock_hdr_encode(bytes, &h);
    assert_memory_equal(bytes, wire, sizeof(wire));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(decodes_each_field),
            cmocka_unit_test(encodes_what_it_decoded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
