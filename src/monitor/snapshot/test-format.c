/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "monitor/snapshot/format.h"

#define PATH "/somewhere/state"

static const uint8_t id[SNAPSHOT_ID_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static struct vm_error error;

/* Three parts: of 5 bytes, of none, and of 16. */
static void make(struct buf *ret)
{
    _cleanup_(snapshot_writer_deinit) struct snapshot_writer writer = {0};

    buf_put(snapshot_begin(&writer, SNAPSHOT_HOST, 0), "hello", 5);
    (void)snapshot_begin(&writer, SNAPSHOT_VCPU, 3);
    buf_put_le64(snapshot_begin(&writer, SNAPSHOT_VIRTIO, 1), 0x1122334455667788ull);
    buf_put_le64(&writer.body, 99);
    *ret = (struct buf){0};
    assert_int_equal(snapshot_finish(&writer, id, ret), 0);
}

static void refused(const void *bytes, size_t len, int code, const char *text)
{
    struct snapshot snapshot;
    int r = snapshot_open(&snapshot, bytes, len, PATH, &error);

    if (r != code || !strstr(error.text, text) || !strstr(error.text, PATH))
        fail_msg("%d and not %d, '%s' and not '%s'", r, code, error.text, text);
}

static void test_parts(void **state)
{
    _cleanup_(buf_deinit) struct buf file;
    struct snapshot snapshot;
    struct rd rd;

    make(&file);
    assert_int_equal(file.len, 64 + 3 * 32 + 8 + 0 + 16);
    assert_int_equal(snapshot_open(&snapshot, file.data, file.len, PATH, &error), 0);
    assert_memory_equal(snapshot.id, id, sizeof(id));
    assert_int_equal(snapshot.version, SNAPSHOT_VERSION);

    assert_int_equal(snapshot_part(&snapshot, SNAPSHOT_HOST, 0, &rd, &error), 0);
    assert_memory_equal(rd_bytes(&rd, 5), "hello", 5);
    assert_int_equal(snapshot_part_end(&snapshot, SNAPSHOT_HOST, 0, &rd, 0, &error), 0);
    assert_int_equal(snapshot_part(&snapshot, SNAPSHOT_VCPU, 3, &rd, &error), 0);
    assert_int_equal(snapshot_part_end(&snapshot, SNAPSHOT_VCPU, 3, &rd, 0, &error), 0);
    assert_int_equal(snapshot_part(&snapshot, SNAPSHOT_VIRTIO, 1, &rd, &error), 0);
    assert_int_equal(rd_le64(&rd), 0x1122334455667788ull);
    assert_int_equal(snapshot_part_end(&snapshot, SNAPSHOT_VIRTIO, 1, &rd, 0, &error), -EBADMSG); /* not all */
    assert_non_null(strstr(error.text, "part virtio 1 has another length"));
    assert_int_equal(rd_le64(&rd), 99);
    assert_int_equal(snapshot_part_end(&snapshot, SNAPSHOT_VIRTIO, 1, &rd, 0, &error), 0);
    (void)rd_u8(&rd); /* too much */
    assert_int_equal(snapshot_part_end(&snapshot, SNAPSHOT_VIRTIO, 1, &rd, -EBADMSG, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "another length"));

    assert_int_equal(snapshot_part(&snapshot, SNAPSHOT_VCPU, 0, &rd, &error), -ENOENT);
    assert_non_null(strstr(error.text, PATH ": part vcpu 0 is missing"));
    (void)vm_fail(&error, -EINVAL, "because");
    assert_int_equal(snapshot_part(&snapshot, SNAPSHOT_VIRTIO, 1, &rd, NULL), 0);
    assert_int_equal(snapshot_part_end(&snapshot, SNAPSHOT_VIRTIO, 1, &rd, -EINVAL, &error), -EINVAL);
    assert_non_null(strstr(error.text, "part virtio 1: because"));
}

/* Wherever it is cut. */
static void test_truncated(void **state)
{
    _cleanup_(buf_deinit) struct buf file;

    make(&file);
    for (size_t len = 0; len < file.len; len++)
        refused(file.data, len, -EBADMSG, len < 64 ? "not a state file" : "bytes and not the");
    buf_put_u8(&file, 0);
    refused(file.data, file.len, -EBADMSG, "bytes and not the");
}

/* Any one bit, wherever it is. */
static void test_flipped(void **state)
{
    _cleanup_(buf_deinit) struct buf file;
    struct snapshot snapshot;

    make(&file);
    for (size_t bit = 0; bit < file.len * 8; bit++) {
        file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (snapshot_open(&snapshot, file.data, file.len, PATH, &error) == 0)
            fail_msg("bit %zu of byte %zu made no difference", bit % 8, bit / 8);
        file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    file.data[64 + 3 * 32] ^= 4;
    refused(file.data, file.len, -EBADMSG, "part host 0 is damaged");
    file.data[64 + 3 * 32] ^= 4;
    file.data[file.len - 1] ^= 4;
    refused(file.data, file.len, -EBADMSG, "part virtio 1 is damaged");
    file.data[file.len - 1] ^= 4;
    file.data[64] ^= 4;
    refused(file.data, file.len, -EBADMSG, "header or table is damaged");
}

static void put32(struct buf *file, size_t at, uint32_t value)
{
    memcpy(file->data + at, &value, sizeof(value));
}

static void put64(struct buf *file, size_t at, uint64_t value)
{
    memcpy(file->data + at, &value, sizeof(value));
}

/* With a checksum that fits. */
static void seal(struct buf *file)
{
    put32(file, 44, 0);
    put32(file, 44, crc32c(0, file->data, 64 + 3 * 32));
}

static void test_versions(void **state)
{
    _cleanup_(buf_deinit) struct buf file;
    struct snapshot snapshot;

    make(&file);
    put32(&file, 12, SNAPSHOT_VERSION + 1);
    refused(file.data, file.len, -ENOTSUP, "made by a newer monitor");
    put32(&file, 12, 1);
    put32(&file, 8, SNAPSHOT_OLDEST - 1);
    refused(file.data, file.len, -ENOTSUP, "made by an older monitor");
    put32(&file, 8, SNAPSHOT_VERSION + 5); /* a newer one that says that we can read it, */
    put32(&file, 64 + 32, 1000);           /* and has a part that we don't know */
    seal(&file);
    assert_int_equal(snapshot_open(&snapshot, file.data, file.len, PATH, &error), 0);
    put32(&file, 0, 0);
    refused(file.data, file.len, -EBADMSG, "not a state file");
}

/* Tables that point anywhere, with checksums that fit. */
static void test_tables(void **state)
{
    static const uint64_t places[] = {0, 1, 64, 159, 161, 168, 176, 1000, UINT64_MAX, UINT64_MAX - 7, 1ull << 63};
    _cleanup_(buf_deinit) struct buf file;

    make(&file);
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        put64(&file, 64 + 8, places[i]);
        seal(&file);
        refused(file.data, file.len, -EBADMSG, "not where it should be");
    }
    put64(&file, 64 + 8, 160);
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        put64(&file, 64 + 16, places[i]);
        seal(&file);
        refused(file.data, file.len, -EBADMSG, "part");
    }
    put64(&file, 64 + 16, 5);
    for (uint32_t parts = 0; parts < 3; parts++) {
        put32(&file, 40, parts);
        put32(&file, 44, 0);
        put32(&file, 44, crc32c(0, file.data, 64 + (size_t)parts * 32));
        refused(file.data, file.len, -EBADMSG, parts == 0 ? "a table of 0 parts" : "part");
    }
    put32(&file, 40, SNAPSHOT_MAX_PARTS + 1);
    refused(file.data, file.len, -EBADMSG, "a table of 129 parts");
    put32(&file, 40, UINT32_MAX);
    refused(file.data, file.len, -EBADMSG, "a table of");
}

static void test_limits(void **state)
{
    _cleanup_(snapshot_writer_deinit) struct snapshot_writer many = {0}, large = {0};
    _cleanup_(buf_deinit) struct buf file = {0};
    static uint8_t zeroes[1 << 20];

    for (uint32_t i = 0; i < SNAPSHOT_MAX_PARTS + 3; i++)
        buf_put_u8(snapshot_begin(&many, SNAPSHOT_VCPU, i), 1);
    assert_int_equal(snapshot_finish(&many, id, &file), -EMSGSIZE);
    (void)snapshot_begin(&large, SNAPSHOT_VM, 0);
    for (unsigned i = 0; i < 17; i++)
        buf_put(&large.body, zeroes, sizeof(zeroes));
    assert_int_equal(snapshot_finish(&large, id, &file), -EMSGSIZE);
    assert_int_equal(file.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_parts),
            cmocka_unit_test(test_truncated),
            cmocka_unit_test(test_flipped),
            cmocka_unit_test(test_versions),
            cmocka_unit_test(test_tables),
            cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
