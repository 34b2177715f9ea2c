/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/memory.h"

#include <errno.h>
#include <string.h>

#include "base/test.h"
#include "monitor/layout.h"

static int init(struct memory *memory, uint32_t mib, struct vm_error *error)
{
    const struct machine_config config = {.vcpu_count = 1, .mem_size_mib = mib};

    return memory_init(memory, &config, error);
}

static void test_small(void **state)
{
    struct memory memory;
    struct vm_error error;
    uint8_t byte = 7, back = 0;

    assert_int_equal(init(&memory, 1, &error), 0);
    assert_int_equal(memory.gmem.count, 1);
    assert_int_equal(gmem_write(&memory.gmem, (struct gpa){(1u << 20) - 1}, &byte, 1), 0);
    assert_int_equal(gmem_read(&memory.gmem, (struct gpa){(1u << 20) - 1}, &back, 1), 0);
    assert_int_equal(back, 7);
    assert_int_equal(gmem_write(&memory.gmem, (struct gpa){1u << 20}, &byte, 1), -EFAULT);
    memory_deinit(&memory);
    memory_deinit(&memory);
}

static void test_gap(void **state)
{
    struct memory memory;
    struct vm_error error;
    uint8_t byte = 9;

    if (init(&memory, 4096, &error) < 0)
        skip(); /* a host with less memory */
    assert_int_equal(memory.gmem.count, 2);
    assert_int_equal(gmem_write(&memory.gmem, (struct gpa){LAYOUT_GAP_START - 1}, &byte, 1), 0);
    assert_int_equal(gmem_write(&memory.gmem, (struct gpa){LAYOUT_GAP_START}, &byte, 1), -EFAULT);
    assert_int_equal(gmem_write(&memory.gmem, (struct gpa){LAYOUT_GAP_END - 1}, &byte, 1), -EFAULT);
    assert_int_equal(gmem_write(&memory.gmem, (struct gpa){LAYOUT_GAP_END}, &byte, 1), 0);
    assert_int_equal(gmem_write(&memory.gmem, (struct gpa){LAYOUT_GAP_END + (1ull << 30) - 1}, &byte, 1), 0);
    assert_int_equal(gmem_write(&memory.gmem, (struct gpa){LAYOUT_GAP_END + (1ull << 30)}, &byte, 1), -EFAULT);
    memory_deinit(&memory);
}

static void test_refused(void **state)
{
    struct memory memory;
    struct vm_error error;

    assert_int_equal(init(&memory, 0, &error), -EINVAL);
    assert_int_equal(init(&memory, UINT32_MAX, &error), -ENOMEM);
    assert_non_null(strstr(error.text, "4294967295"));
    assert_non_null(strstr(error.text, "this host has"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_small),
            cmocka_unit_test(test_gap),
            cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
