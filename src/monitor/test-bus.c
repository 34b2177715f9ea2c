/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/bus.h"

#include <errno.h>
#include <string.h>

#include "base/test.h"

struct seen {
    uint64_t offset;
    uint32_t len;
    unsigned reads, writes;
};

static void on_read(void *device, uint64_t offset, uint8_t *data, uint32_t len)
{
    struct seen *seen = device;

    *seen = (struct seen){offset, len, seen->reads + 1, seen->writes};
    memset(data, 0x5a, len);
}

static void on_write(void *device, uint64_t offset, const uint8_t *data, uint32_t len)
{
    struct seen *seen = device;

    *seen = (struct seen){offset, len, seen->reads, seen->writes + 1};
}

static struct bus_range range_of(uint64_t base, uint64_t size, struct seen *seen)
{
    return (struct bus_range){base, size, on_read, on_write, seen};
}

static void test_add(void **state)
{
    struct bus bus = {0};
    struct seen seen = {0};
    struct bus_range a = range_of(0x1000, 0x1000, &seen), bad;

    assert_int_equal(bus_add(&bus, &a), 0);
    assert_int_equal(bus_add(&bus, &a), -EEXIST);
    bad = range_of(0x1fff, 1, &seen);
    assert_int_equal(bus_add(&bus, &bad), -EEXIST);
    bad = range_of(0x800, 0x801, &seen);
    assert_int_equal(bus_add(&bus, &bad), -EEXIST);
    bad = range_of(UINT64_MAX, 2, &seen);
    assert_int_equal(bus_add(&bus, &bad), -EINVAL);
    bad = range_of(0x5000, 0, &seen);
    assert_int_equal(bus_add(&bus, &bad), -EINVAL);
    bad = range_of(0x2000, 1, &seen);
    assert_int_equal(bus_add(&bus, &bad), 0);
    while (bus.count < BUS_MAX_RANGES) {
        bad = range_of(0x10000 * bus.count, 1, &seen);
        assert_int_equal(bus_add(&bus, &bad), 0);
    }
    bad = range_of(0x100, 1, &seen);
    assert_int_equal(bus_add(&bus, &bad), -ENOSPC);
}

static void test_access(void **state)
{
    struct bus bus = {0};
    struct seen seen = {0};
    struct bus_range range = range_of(0x3f8, 8, &seen);
    uint8_t data[8] = {0};

    assert_int_equal(bus_add(&bus, &range), 0);
    bus_read(&bus, 0x3f9, data, 2);
    assert_int_equal(seen.reads, 1);
    assert_int_equal(seen.offset, 1);
    assert_int_equal(seen.len, 2);
    assert_int_equal(data[1], 0x5a);
    assert_int_equal(data[2], 0);
    bus_write(&bus, 0x3ff, data, 1);
    assert_int_equal(seen.writes, 1);
    assert_int_equal(seen.offset, 7);

    /* across the end, before, behind: nobody */
    bus_read(&bus, 0x3ff, data, 2);
    assert_int_equal(data[0], 0xff);
    assert_int_equal(data[1], 0xff);
    bus_read(&bus, 0x3f7, data, 1);
    bus_read(&bus, 0x400, data, 8);
    bus_write(&bus, 0x3ff, data, 4);
    bus_write(&bus, UINT64_MAX, data, 8);
    assert_int_equal(seen.reads, 1);
    assert_int_equal(seen.writes, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_add),
            cmocka_unit_test(test_access),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
