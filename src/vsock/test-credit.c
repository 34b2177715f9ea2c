/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include "vsock/credit.h"

#define ALLOC (256u << 10)

static void window_to_the_guest(void **state)
{
    struct credit c = {0};

    assert_int_equal(credit_room(&c), 0);
    credit_heard(&c, 1000, 0);
    assert_int_equal(credit_room(&c), 1000);
    credit_sent(&c, 600);
    assert_int_equal(credit_room(&c), 400);
    credit_heard(&c, 1000, 500);
    assert_int_equal(credit_room(&c), 900);
    credit_sent(&c, 900);
    assert_int_equal(credit_room(&c), 0);
    credit_heard(&c, 100, 500); /* the guest shrank its buffer below what is in flight */
    assert_int_equal(credit_room(&c), 0);
}

static void window_from_the_guest(void **state)
{
    struct credit c = {0};

    assert_true(credit_receive(&c, ALLOC, ALLOC));
    assert_false(credit_receive(&c, 1, ALLOC));
    assert_false(credit_receive(&c, UINT32_MAX, ALLOC));
    assert_int_equal(c.received, ALLOC);
    credit_forward(&c, 10);
    assert_false(credit_receive(&c, 11, ALLOC));
    assert_true(credit_receive(&c, 10, ALLOC));
    assert_true(credit_receive(&c, 0, ALLOC));
}

static void updates_are_worth_half_a_buffer(void **state)
{
    struct credit c = {0};

    assert_true(credit_receive(&c, ALLOC, ALLOC));
    credit_forward(&c, ALLOC / 2 - 1);
    assert_false(credit_update_due(&c, ALLOC));
    credit_forward(&c, 1);
    assert_true(credit_update_due(&c, ALLOC));
    assert_int_equal(credit_tell(&c), ALLOC / 2);
    assert_false(credit_update_due(&c, ALLOC));
}

static void counters_wrap(void **state)
{
    struct credit c = {.sent = UINT32_MAX - 99,
            .guest_fwd = UINT32_MAX - 99,
            .received = UINT32_MAX,
            .forwarded = UINT32_MAX,
            .told = UINT32_MAX};

    credit_heard(&c, 1000, UINT32_MAX - 99);
    credit_sent(&c, 300);
    assert_int_equal(c.sent, 200);
    assert_int_equal(credit_room(&c), 700);
    credit_heard(&c, 1000, 200);
    assert_int_equal(credit_room(&c), 1000);

    assert_true(credit_receive(&c, ALLOC, ALLOC));
    assert_false(credit_receive(&c, 1, ALLOC));
    credit_forward(&c, ALLOC);
    assert_true(credit_update_due(&c, ALLOC));
    assert_int_equal(credit_tell(&c), ALLOC - 1);
}

static void lies_only_stall_the_liar(void **state)
{
    struct credit c = {.sent = 1000};

    credit_heard(&c, ALLOC, 1001); /* more than we sent */
    assert_int_equal(credit_room(&c), 0);
    credit_heard(&c, ALLOC, UINT32_MAX);
    assert_int_equal(credit_room(&c), ALLOC - 1001);
    credit_heard(&c, UINT32_MAX, 1001);
    assert_int_equal(credit_room(&c), 0);
    credit_heard(&c, UINT32_MAX, 1000);
    assert_int_equal(credit_room(&c), UINT32_MAX);
    credit_heard(&c, 0, 1000);
    assert_int_equal(credit_room(&c), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(window_to_the_guest),
            cmocka_unit_test(window_from_the_guest),
            cmocka_unit_test(updates_are_worth_half_a_buffer),
            cmocka_unit_test(counters_wrap),
            cmocka_unit_test(lies_only_stall_the_liar),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
