/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <string.h>
#include "monitor/devices/devices.h"
#include "monitor/devices/test-port.h"

#define DATA    0u
#define PORT_B  1u
#define COMMAND 4u
#define STATUS  4u

static struct i8042 *kbd;
static unsigned resets;

static void on_reset(void *userdata)
{
    assert_ptr_equal(userdata, &resets);
    resets++;
}

static int setup(void **state)
{
    raises = 0;
    resets = 0;
    assert_int_equal(i8042_new(&kbd, irq, on_reset, &resets), 0);
    i8042_range(kbd, &range);
    return 0;
}

static int teardown(void **state)
{
    i8042_free(kbd);
    return 0;
}

static bool full(void)
{
    return (in(STATUS)&0x01) != 0;
}

static void assert_answer(uint8_t byte)
{
    assert_true(full());
    assert_int_equal(in(DATA), byte);
}

static void drain(void)
{
    for (unsigned i = 0; full(); i++) {
        assert_true(i < 64); /* bounded */
        in(DATA);
    }
}

static void test_reset(void **state)
{
    assert_int_equal(range.base, 0x60);
    assert_int_equal(range.size, 5);
    out(COMMAND, 0xff);
    out(DATA, 0xfe);
    assert_int_equal(resets, 0);
    drain();
    out(COMMAND, 0xfe);
    assert_int_equal(resets, 1);
    assert_false(full());
    out(COMMAND, 0xd1); /* by the output port: A20 stays, the reset line does not */
    out(DATA, 0xdf);
    assert_int_equal(resets, 1);
    out(COMMAND, 0xd1);
    out(DATA, 0xde);
    assert_int_equal(resets, 2);
}

/* What a driver does to a controller that it does not know yet. */
static void test_probe(void **state)
{
    assert_int_equal(in(STATUS), 0x14);
    assert_int_equal(in(PORT_B), 0x20);
    out(COMMAND, 0xaa);
    assert_answer(0x55);
    assert_false(full());
    out(COMMAND, 0x20);
    assert_answer(0x44);
    out(COMMAND, 0x60);
    out(DATA, 0x45);
    out(COMMAND, 0x20);
    assert_answer(0x45);
    out(COMMAND, 0xad);
    out(COMMAND, 0x20);
    assert_answer(0x55);
    out(COMMAND, 0xae);
    out(COMMAND, 0x20);
    assert_answer(0x45);
    out(COMMAND, 0xab);
    assert_answer(0x00);
    out(COMMAND, 0xd3); /* there is no mouse: its loop gives something else, its test fails */
    out(DATA, 0x5a);
    assert_answer(0xff);
    out(COMMAND, 0xa9);
    assert_answer(0x01);
    out(COMMAND, 0xd4);
    out(DATA, 0xff);
    assert_false(full());
    out(COMMAND, 0xd0);
    assert_answer(0x03);
}

static void test_keyboard(void **state)
{
    out(DATA, 0xff);
    assert_answer(0xfa);
    assert_answer(0xaa);
    out(DATA, 0xf2);
    assert_answer(0xfa);
    assert_answer(0xab);
    assert_answer(0x41);
    out(DATA, 0xee);
    assert_answer(0xee);
    out(DATA, 0xf4);
    assert_answer(0xfa);
    assert_false(raised()); /* nobody enabled it */
}

static void assert_keys(const uint8_t *keys, size_t len)
{
    for (size_t i = 0; i < len; i++)
        assert_answer(keys[i]);
    assert_false(full());
}

static void test_ctrl_alt_del(void **state)
{
    static const uint8_t set1[] = {0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d};
    static const uint8_t set2[] = {0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14};

    i8042_ctrl_alt_del(kbd);
    assert_false(raised());
    assert_keys(set1, sizeof(set1)); /* for a guest that polls */
    out(COMMAND, 0x60);
    out(DATA, 0x45);
    assert_false(raised());
    i8042_ctrl_alt_del(kbd);
    for (size_t i = 0; i < sizeof(set1); i++) {
        assert_true(raised()); /* an edge for each byte */
        assert_false(raised());
        assert_answer(set1[i]);
    }
    assert_false(raised());
    out(COMMAND, 0x60);
    out(DATA, 0x05);
    i8042_ctrl_alt_del(kbd);
    assert_true(raised());
    assert_keys(set2, sizeof(set2));
    out(COMMAND, 0x60);
    out(DATA, 0x44);
    i8042_ctrl_alt_del(kbd);
    raised();
    out(COMMAND, 0x60); /* enabled while they wait */
    out(DATA, 0x45);
    assert_true(raised());
    assert_keys(set1, sizeof(set1));
}

static void test_bounded(void **state)
{
    static const uint8_t first[] = {0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d};

    for (unsigned i = 0; i < 1000; i++)
        i8042_ctrl_alt_del(kbd);
    for (unsigned i = 0; i < 4; i++) {
        for (size_t k = 0; k < sizeof(first); k++)
            assert_answer(first[k]); /* never the half of one */
    }
    assert_false(full());
    for (unsigned i = 0; i < 1000; i++)
        out(DATA, 0xf2);
    drain();
    assert_int_equal(in(DATA), 0);
}

static void test_wide_access(void **state)
{
    uint8_t bytes[4] = {0xee, 1, 2, 3};

    range.write(range.device, 0, bytes, sizeof(bytes));
    range.read(range.device, 1, bytes, sizeof(bytes));
    assert_int_equal(bytes[0], 0x20);
    assert_int_equal(bytes[3], 0x15);
    assert_answer(0xee);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
            cmocka_unit_test_setup_teardown(test_probe, setup, teardown),
            cmocka_unit_test_setup_teardown(test_keyboard, setup, teardown),
            cmocka_unit_test_setup_teardown(test_ctrl_alt_del, setup, teardown),
            cmocka_unit_test_setup_teardown(test_bounded, setup, teardown),
            cmocka_unit_test_setup_teardown(test_wide_access, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
