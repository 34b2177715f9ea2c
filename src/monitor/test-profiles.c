/* SPDX-License-Identifier: Apache-2.0 */
/* What code in each thread of the monitor could still do: jail/test-attempts.h. */
#include "jail/test-attempts.h"
#include "monitor/vmm.h"

static void test_minimal(void **state)
{
    attempt_all(SECCOMP_MINIMAL, &vmm_compiled, vmm_profiles, VMM_PROFILES, VMM);
}

static void test_basic(void **state)
{
    attempt_all(SECCOMP_BASIC, &vmm_compiled, vmm_profiles, VMM_PROFILES, VMM);
}

/* Firecracker's numbers are the most that we allow ourselves. */
static void test_counts(void **state)
{
    assert_in_range(seccomp_calls(vmm_profiles[0]), 1, 50);
    assert_in_range(seccomp_calls(vmm_profiles[1]), 1, 31);
    assert_in_range(seccomp_calls(vmm_profiles[2]), 1, 27);
    assert_in_range(seccomp_calls(vmm_profiles[3]), 1, 27);
    assert_in_range(seccomp_calls(vmm_profiles[4]), 1, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_minimal),
            cmocka_unit_test(test_basic),
            cmocka_unit_test(test_counts),
    };

    if (seccomp_prepare(SECCOMP_MINIMAL, &vmm_compiled) == SECCOMP_SANITIZED) {
        puts("no filters in a build with a sanitizer");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
