/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <string.h>

#include "vhost/message.h"

static int decode(uint32_t request, const void *payload, uint32_t size, size_t nfds, struct vu_message *ret)
{
    struct vu_header header = {.request = request, .size = size};

    return vu_message_decode(&header, payload, nfds, ret);
}

static void test_header(void **state)
{
    struct vu_header header;
    uint32_t words[3] = {VU_SET_OWNER, 1, 0};

    assert_int_equal(vu_header_decode((uint8_t *)words, &header), 0);
    assert_int_equal(header.request, VU_SET_OWNER);
    assert_false(header.need_reply);
    words[1] = 1 | 8;
    assert_int_equal(vu_header_decode((uint8_t *)words, &header), 0);
    assert_true(header.need_reply);
    words[1] = 0;
    assert_int_equal(vu_header_decode((uint8_t *)words, &header), -EPROTO);
    words[1] = 2;
    assert_int_equal(vu_header_decode((uint8_t *)words, &header), -EPROTO);
    words[1] = 1 | 4;
    assert_int_equal(vu_header_decode((uint8_t *)words, &header), -EPROTO);
    words[1] = 1;
    words[2] = VU_MAX_PAYLOAD;
    assert_int_equal(vu_header_decode((uint8_t *)words, &header), 0);
    words[2] = VU_MAX_PAYLOAD + 1;
    assert_int_equal(vu_header_decode((uint8_t *)words, &header), -EPROTO);
    words[2] = UINT32_MAX;
    assert_int_equal(vu_header_decode((uint8_t *)words, &header), -EPROTO);
}

/* Every request but the tables has one legal size and number of descriptors. */
static void test_sizes(void **state)
{
    static const struct {
        uint32_t request, size;
        size_t nfds;
    } cases[] = {
            {VU_GET_FEATURES, 0, 0},
            {VU_SET_FEATURES, 8, 0},
            {VU_SET_OWNER, 0, 0},
            {VU_RESET_OWNER, 0, 0},
            {VU_SET_VRING_NUM, 8, 0},
            {VU_SET_VRING_ADDR, 40, 0},
            {VU_SET_VRING_BASE, 8, 0},
            {VU_GET_VRING_BASE, 8, 0},
            {VU_SET_VRING_KICK, 8, 1},
            {VU_SET_VRING_CALL, 8, 1},
            {VU_SET_VRING_ERR, 8, 1},
            {VU_GET_PROTOCOL_FEATURES, 0, 0},
            {VU_SET_PROTOCOL_FEATURES, 8, 0},
            {VU_GET_QUEUE_NUM, 0, 0},
            {VU_SET_VRING_ENABLE, 8, 0},
            {VU_RESET_DEVICE, 0, 0},
    };
    uint8_t zeroes[VU_MAX_PAYLOAD] = {0};
    struct vu_message message;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        for (uint32_t size = 0; size <= 64; size++) {
            for (size_t nfds = 0; nfds <= 2; nfds++) {
                bool good = size == cases[i].size && nfds == cases[i].nfds;

                assert_int_equal(decode(cases[i].request, zeroes, size, nfds, &message), good ? 0 : -EPROTO);
            }
        }
    }
    for (uint32_t request = 0; request < 300; request++) {
        if (strcmp(vu_request_name(request), "unknown request") == 0)
            assert_int_equal(decode(request, zeroes, 0, 0, &message), -EOPNOTSUPP);
    }
    assert_int_equal(decode(UINT32_MAX, zeroes, 0, 0, &message), -EOPNOTSUPP);
}

static void test_memory_table(void **state)
{
    uint64_t payload[1 + 4 * VU_MAX_REGIONS] = {2, 0x1000, 0x2000, 0x3000, 0x4000, 5, 6, 7, 8};
    struct vu_message message;

    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, 8 + 64, 2, &message), 0);
    assert_int_equal(message.memory.count, 2);
    assert_int_equal(message.memory.regions[0].size, 0x2000);
    assert_int_equal(message.memory.regions[1].mmap_offset, 8);
    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, sizeof(payload), 2, &message), 0);
    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, 8 + 63, 2, &message), -EPROTO);
    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, 8 + 32, 2, &message), -EPROTO);
    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, 8 + 64, 1, &message), -EPROTO);
    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, 8 + 64, 3, &message), -EPROTO);
    payload[0] = VU_MAX_REGIONS;
    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, sizeof(payload), 8, &message), 0);
    payload[0] = VU_MAX_REGIONS + 1;
    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, sizeof(payload), 9, &message), -EPROTO);
    payload[0] = 1u << 27; /* times 32 wraps to 0 */
    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, 8, 0, &message), -EPROTO);
    payload[0] = 0;
    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, 8, 0, &message), 0);
    assert_int_equal(decode(VU_SET_MEM_TABLE, payload, 7, 0, &message), -EPROTO);
}

static void test_config(void **state)
{
    uint32_t payload[VU_MAX_PAYLOAD / 4 + 1] = {4, 8, 1, 0x11223344};
    struct vu_message message;

    assert_int_equal(decode(VU_SET_CONFIG, payload, 12 + 8, 0, &message), 0);
    assert_int_equal(message.config.offset, 4);
    assert_int_equal(message.config.size, 8);
    assert_int_equal(message.config.flags, 1);
    assert_int_equal(message.config.bytes[0], 0x44);
    assert_int_equal(decode(VU_GET_CONFIG, payload, 12 + 7, 0, &message), -EPROTO);
    assert_int_equal(decode(VU_GET_CONFIG, payload, 12, 0, &message), -EPROTO);
    assert_int_equal(decode(VU_GET_CONFIG, payload, 11, 0, &message), -EPROTO);
    payload[1] = VU_MAX_CONFIG;
    assert_int_equal(decode(VU_GET_CONFIG, payload, VU_MAX_PAYLOAD, 0, &message), 0);
    payload[1] = VU_MAX_CONFIG + 1;
    assert_int_equal(decode(VU_GET_CONFIG, payload, VU_MAX_PAYLOAD + 1, 0, &message), -EPROTO);
    payload[1] = UINT32_MAX;
    assert_int_equal(decode(VU_GET_CONFIG, payload, 12, 0, &message), -EPROTO);
}

static void test_vring_fds(void **state)
{
    struct vu_message message;
    uint64_t v = 0x101;

    assert_int_equal(decode(VU_SET_VRING_CALL, &v, 8, 0, &message), 0);
    assert_int_equal(message.vring_fd.index, 1);
    assert_false(message.vring_fd.has_fd);
    assert_int_equal(decode(VU_SET_VRING_CALL, &v, 8, 1, &message), -EPROTO);
    v = 1;
    assert_int_equal(decode(VU_SET_VRING_KICK, &v, 8, 1, &message), 0);
    assert_true(message.vring_fd.has_fd);
    v = 0x201;
    assert_int_equal(decode(VU_SET_VRING_KICK, &v, 8, 1, &message), -EPROTO);
    v = 1ull << 63;
    assert_int_equal(decode(VU_SET_VRING_KICK, &v, 8, 1, &message), -EPROTO);
}

static void test_replies(void **state)
{
    uint8_t bytes[VU_MAX_MESSAGE];
    static const uint8_t u64[] = {1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
    static const uint8_t vring[] = {11, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0};
    static const uint8_t config[] = {
            24, 0, 0, 0, 5, 0, 0, 0, 14, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 'h', 'i'};

    assert_int_equal(vu_reply_u64(bytes, VU_GET_FEATURES, 0x1122334455667788), sizeof(u64));
    assert_memory_equal(bytes, u64, sizeof(u64));
    assert_int_equal(vu_reply_vring(bytes, VU_GET_VRING_BASE, 1, 7), sizeof(vring));
    assert_memory_equal(bytes, vring, sizeof(vring));
    assert_int_equal(vu_reply_config(bytes, 4, 9, "hi", 2), sizeof(config));
    assert_memory_equal(bytes, config, sizeof(config));
    assert_int_equal(vu_reply_config(bytes, 4, 9, NULL, 0), VU_HEADER_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_header),
            cmocka_unit_test(test_sizes),
            cmocka_unit_test(test_memory_table),
            cmocka_unit_test(test_config),
            cmocka_unit_test(test_vring_fds),
            cmocka_unit_test(test_replies),
    };

    return cmocka_run_group_tests_name("vhost-user messages", tests, NULL, NULL);
}
