/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/cpuid-filter.h"

#include <stdlib.h>

#include "base/test.h"

#define ENTRIES 8u

static struct kvm_cpuid2 *make(const struct kvm_cpuid_entry2 *entries, uint32_t count)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + ENTRIES * sizeof(*entries));

    assert_non_null(cpuid);
    cpuid->nent = count;
    for (uint32_t i = 0; i < count; i++)
        cpuid->entries[i] = entries[i];
    return cpuid;
}

static void test_no_nested_virtualization(void **state)
{
    const struct kvm_cpuid_entry2 in[] = {
            {.function = 1, .ecx = ~0u, .edx = ~0u, .ebx = ~0u},
            {.function = 0x80000001u, .ecx = ~0u},
            {.function = 0x8000000au, .eax = 1, .ebx = 2, .ecx = 3, .edx = 4},
            {.function = 0x12, .eax = ~0u},
            {.function = 0xa, .eax = ~0u},
    };
    struct kvm_cpuid2 *cpuid = make(in, 5);

    cpuid_filter(cpuid, 0, 1);
    assert_false(cpuid->entries[0].ecx & (1u << 5));
    assert_true(cpuid->entries[0].ecx & (1u << 31));
    assert_true(cpuid->entries[0].ecx & (1u << 24));
    assert_false(cpuid->entries[0].edx & (1u << 28));
    assert_int_equal(cpuid->entries[0].ebx >> 16, 1);
    assert_false(cpuid->entries[1].ecx & (1u << 2));
    for (int i = 2; i < 5; i++)
        assert_int_equal(
                cpuid->entries[i].eax | cpuid->entries[i].ebx | cpuid->entries[i].ecx | cpuid->entries[i].edx, 0);
    free(cpuid);
}

static void test_topology(void **state)
{
    const struct kvm_cpuid_entry2 in[] = {
            {.function = 1, .ebx = 0x12345678u},
            {.function = 0xb, .index = 0},
            {.function = 0xb, .index = 1},
            {.function = 0xb, .index = 2, .eax = 7},
            {.function = 4, .index = 0, .eax = 0xfc1fc121u},
            {.function = 4, .index = 3, .eax = 0xfc1fc163u},
            {.function = 0x80000008u, .ecx = 0xffffu},
            {.function = 0x8000001eu, .eax = 99},
    };
    struct kvm_cpuid2 *cpuid = make(in, 8);

    cpuid_filter(cpuid, 2, 3);
    assert_int_equal(cpuid->entries[0].ebx, 0x02045678);
    assert_true(cpuid->entries[0].edx & (1u << 28));
    assert_int_equal(cpuid->entries[1].ebx, 1);
    assert_int_equal(cpuid->entries[1].edx, 2);
    assert_int_equal(cpuid->entries[1].ecx, 0x100);
    assert_int_equal(cpuid->entries[2].eax, 2);
    assert_int_equal(cpuid->entries[2].ebx, 3);
    assert_int_equal(cpuid->entries[2].ecx, 0x201);
    assert_int_equal(cpuid->entries[3].eax, 0);
    assert_int_equal(cpuid->entries[3].ecx, 2);
    assert_int_equal((cpuid->entries[4].eax >> 14) & 0xfff, 0);
    assert_int_equal(cpuid->entries[4].eax >> 26, 3);
    assert_int_equal((cpuid->entries[5].eax >> 14) & 0xfff, 2);
    assert_int_equal(cpuid->entries[6].ecx & 0xff, 2);
    assert_int_equal(cpuid->entries[7].eax, 2);
    free(cpuid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_no_nested_virtualization),
            cmocka_unit_test(test_topology),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
