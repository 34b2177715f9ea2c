/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <string.h>

#include "virtio/gmem.h"

#define AT(x) ((struct gpa){(x)})

static uint8_t low[0x1000], high[0x2000];

/* Two adjacent regions, [0x1000,0x2000) and [0x2000,0x4000), whose host memory is not adjacent. */
static struct gmem two_regions(void)
{
    struct gmem mem = {0};

    assert_int_equal(gmem_add(&mem, AT(0x1000), sizeof(low), low), 0);
    assert_int_equal(gmem_add(&mem, AT(0x2000), sizeof(high), high), 0);
    return mem;
}

static void test_add_refuses(void **state)
{
    struct gmem mem = two_regions();

    assert_int_equal(gmem_add(&mem, AT(0x5000), 0, low), -EINVAL);
    assert_int_equal(gmem_add(&mem, AT(0x5000), 1, NULL), -EINVAL);
    assert_int_equal(gmem_add(&mem, AT(UINT64_MAX), 2, low), -EINVAL);
    assert_int_equal(gmem_add(&mem, AT(0x5000), UINT64_MAX, low), -EINVAL);
    assert_int_equal(gmem_add(&mem, AT(0x1fff), 1, low), -EEXIST);
    assert_int_equal(gmem_add(&mem, AT(0), 0x1001, low), -EEXIST);
    assert_int_equal(gmem_add(&mem, AT(0), 0x10000, low), -EEXIST);
    assert_int_equal(gmem_add(&mem, AT(0x3fff), 0x10, low), -EEXIST);
    assert_int_equal(gmem_add(&mem, AT(0), 0x1000, low), 0);
    assert_int_equal(gmem_add(&mem, AT(UINT64_MAX), 1, low), 0);
    assert_non_null(gmem_slice(&mem, AT(UINT64_MAX), 1));
    assert_null(gmem_slice(&mem, AT(UINT64_MAX), 2));
}

static void test_table_is_bounded(void **state)
{
    struct gmem mem = {0};

    for (uint64_t i = 0; i < GMEM_MAX_REGIONS; i++)
        assert_int_equal(gmem_add(&mem, AT(i * 0x1000), 0x1000, low), 0);
    assert_int_equal(gmem_add(&mem, AT(0x100000), 0x1000, low), -ENOSPC);
    assert_int_equal(gmem_remove(&mem, AT(0x3001)), -ENOENT);
    assert_int_equal(gmem_remove(&mem, AT(0x3000)), 0);
    assert_null(gmem_slice(&mem, AT(0x3000), 1));
    assert_non_null(gmem_slice(&mem, AT(0x4000), 0x1000));
    assert_int_equal(gmem_add(&mem, AT(0x100000), 0x1000, low), 0);
}

static void test_slice_edges(void **state)
{
    struct gmem mem = two_regions();

    assert_ptr_equal(gmem_slice(&mem, AT(0x1000), 0x1000), low);
    assert_ptr_equal(gmem_slice(&mem, AT(0x1fff), 1), low + 0xfff);
    assert_ptr_equal(gmem_slice(&mem, AT(0x2000), 1), high);
    assert_null(gmem_slice(&mem, AT(0xfff), 1));
    assert_null(gmem_slice(&mem, AT(0xfff), 2));
    assert_null(gmem_slice(&mem, AT(0x1fff), 2));
    assert_null(gmem_slice(&mem, AT(0x1000), 0x1001));
    assert_null(gmem_slice(&mem, AT(0x1000), 0));
    assert_null(gmem_slice(&mem, AT(0x1000), UINT64_MAX));
    assert_null(gmem_slice(&mem, AT(0x1001), UINT64_MAX - 0x1000));
    assert_null(gmem_slice(&mem, AT(0x4000), 1));
    assert_null(gmem_slice(&mem, AT(UINT64_MAX), 1));
}

static void test_iovec_crosses_regions(void **state)
{
    struct gmem mem = two_regions();
    struct iovec iov[2];

    assert_int_equal(gmem_iovec(&mem, AT(0x1ffe), 4, iov, 2), 2);
    assert_ptr_equal(iov[0].iov_base, low + 0xffe);
    assert_int_equal(iov[0].iov_len, 2);
    assert_ptr_equal(iov[1].iov_base, high);
    assert_int_equal(iov[1].iov_len, 2);
    assert_int_equal(gmem_iovec(&mem, AT(0x1ffe), 4, iov, 1), -EMSGSIZE);
    assert_int_equal(gmem_iovec(&mem, AT(0x1000), 0x3000, iov, 2), 2);
    assert_int_equal(gmem_iovec(&mem, AT(0x1000), 0x3001, iov, 2), -EFAULT);
    assert_int_equal(gmem_iovec(&mem, AT(0x1000), UINT64_MAX, iov, 2), -EFAULT);
    assert_int_equal(gmem_iovec(&mem, AT(0x9000), 0, iov, 2), 0);
}

static void test_iovec_does_not_wrap(void **state)
{
    struct gmem mem = {0};
    struct iovec iov[4];

    assert_int_equal(gmem_add(&mem, AT(0), sizeof(low), low), 0);
    assert_int_equal(gmem_add(&mem, AT(UINT64_MAX - 0xfff), 0x1000, high), 0);
    assert_int_equal(gmem_iovec(&mem, AT(UINT64_MAX - 0xf), 0x10, iov, 4), 1);
    assert_int_equal(gmem_iovec(&mem, AT(UINT64_MAX - 0xf), 0x11, iov, 4), -EFAULT);
}

static void test_read_write(void **state)
{
    struct gmem mem = two_regions();
    uint8_t got[8] = {0};

    assert_int_equal(gmem_write(&mem, AT(0x1ffc), "abcdefgh", 8), 0);
    assert_memory_equal(low + 0xffc, "abcd", 4);
    assert_memory_equal(high, "efgh", 4);
    assert_int_equal(gmem_read(&mem, AT(0x1ffc), got, 8), 0);
    assert_memory_equal(got, "abcdefgh", 8);

    memset(got, 'x', sizeof(got));
    memset(high + 0x1ffc, 'y', 4);
    assert_int_equal(gmem_read(&mem, AT(0x3ffc), got, 8), -EFAULT);
    assert_memory_equal(got, "xxxxxxxx", 8);
    assert_int_equal(gmem_write(&mem, AT(0x3ffc), got, 8), -EFAULT);
    assert_memory_equal(high + 0x1ffc, "yyyy", 4);
}

static void test_writes_are_marked(void **state)
{
    struct gmem mem = {0};
    struct dirty_pages dirty;
    static uint8_t ram[4 * 4096] __attribute__((aligned(4096)));

    assert_int_equal(gmem_add(&mem, AT(0x10000), 2 * 4096, ram), 0);
    assert_int_equal(gmem_add(&mem, AT(0x12000), 2 * 4096, ram + 2 * 4096), 0);
    assert_int_equal(gmem_write(&mem, AT(0x10000), "a", 1), 0); /* nobody wants to know */
    assert_int_equal(dirty_pages_init(&dirty, ram, sizeof(ram)), 0);
    mem.dirty = &dirty;
    assert_int_equal(gmem_write(&mem, AT(0x11fff), "ab", 2), 0);
    assert_int_equal(dirty.words[0], 1 << 1 | 1 << 2);
    assert_int_equal(gmem_write(&mem, AT(0x13fff), "ab", 2), -EFAULT);
    assert_int_equal(gmem_read(&mem, AT(0x13000), &(uint8_t){0}, 1), 0);
    assert_int_equal(dirty.words[0], 1 << 1 | 1 << 2);
    gmem_wrote(&mem, gmem_slice(&mem, AT(0x13000), 1), 1);
    assert_int_equal(dirty.words[0], 1 << 1 | 1 << 2 | 1 << 3);
    dirty_pages_deinit(&dirty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_add_refuses),
            cmocka_unit_test(test_table_is_bounded),
            cmocka_unit_test(test_slice_edges),
            cmocka_unit_test(test_iovec_crosses_regions),
            cmocka_unit_test(test_iovec_does_not_wrap),
            cmocka_unit_test(test_read_write),
            cmocka_unit_test(test_writes_are_marked),
    };

    return cmocka_run_group_tests_name("gmem", tests, NULL, NULL);
}
