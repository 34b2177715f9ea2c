/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include "orchestrator/state.h"

/* The whole table, written down a second time the other way round. */
static void allows_what_the_design_says(void **state)
{
    static const char *const allowed[] = {
            /* to:          crea boot redy paus stop fail gone */
            [IC_VM_CREATED] = ".x..xx.",
            [IC_VM_BOOTING] = "..x.xx.",
            [IC_VM_READY] = "...xxxx",
            [IC_VM_PAUSED] = "..x.xxx",
            [IC_VM_STOPPING] = ".....xx",
            [IC_VM_FAILED] = ".......",
            [IC_VM_GONE] = ".......",
    };

    for (unsigned from = 0; from < ARRAY_SIZE(allowed); from++) {
        for (unsigned to = 0; to < ARRAY_SIZE(allowed); to++)
            assert_int_equal(state_allowed(from, to), allowed[from][to] == 'x');
    }
    assert_false(state_allowed(99, IC_VM_READY));
    assert_false(state_allowed(IC_VM_READY, 99));
}

static void names_every_value(void **state)
{
    assert_string_equal(ic_vm_state_name(IC_VM_CREATED), "created");
    assert_string_equal(ic_vm_state_name(IC_VM_GONE), "gone");
    assert_string_equal(ic_vm_state_name(99), "unknown");
    assert_string_equal(ic_backend_name(IC_BACKEND_QEMU), "qemu");
    assert_string_equal(ic_isolation_name(IC_ISOLATION_SOFTWARE_EMULATION), "software emulation");
    assert_string_equal(ic_error_name(IC_ERR_DENIED), "IC_ERR_DENIED");
    assert_string_equal(ic_error_name(IC_ERR_LIMIT), "IC_ERR_LIMIT");
    assert_string_equal(ic_error_name(0), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(allows_what_the_design_says),
            cmocka_unit_test(names_every_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
