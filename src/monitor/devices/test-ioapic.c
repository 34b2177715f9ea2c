/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/devices/ioapic.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/test.h"

#define SELECT 0x00u
#define WINDOW 0x10u
#define PART   (8u + IOAPIC_PINS * 8u) /* bytes in a snapshot */

static struct ioapic ioapic;
static struct bus_range range;
static struct {
    unsigned count;
    uint32_t address, data;
} sent;

static void send(void *userdata, uint32_t address, uint32_t data)
{
    assert_ptr_equal(userdata, &sent);
    sent.count++;
    sent.address = address;
    sent.data = data;
}

static int setup(void **state)
{
    memset(&sent, 0, sizeof(sent));
    ioapic_init(&ioapic, send, &sent);
    range = ioapic_range(&ioapic);
    return 0;
}

static uint32_t read_reg(uint32_t reg)
{
    uint32_t value;

    range.write(range.device, SELECT, (const uint8_t *)&reg, 4);
    range.read(range.device, WINDOW, (uint8_t *)&value, 4);
    return value;
}

static void write_reg(uint32_t reg, uint32_t value)
{
    range.write(range.device, SELECT, (const uint8_t *)&reg, 4);
    range.write(range.device, WINDOW, (const uint8_t *)&value, 4);
}

static void raise(uint32_t pin)
{
    struct irq_line line = ioapic_line(&ioapic, pin);

    irq_raise(&line);
}

static void test_is_masked_at_first(void **state)
{
    assert_int_equal(range.base, 0xfec00000);
    assert_int_equal(range.size, 0x1000);
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        assert_int_equal(read_reg(0x10 + 2 * pin), 0x10000);
        assert_int_equal(read_reg(0x11 + 2 * pin), 0);
        raise(pin);
    }
    assert_int_equal(sent.count, 0);
}

static void test_registers(void **state)
{
    assert_int_equal(read_reg(1), 0x00170011); /* 24 pins */
    write_reg(1, 0);
    assert_int_equal(read_reg(1), 0x00170011);
    write_reg(0, ~0u);
    assert_int_equal(read_reg(0), 0x0f000000);
    assert_int_equal(read_reg(2), 0x0f000000); /* arbitration follows */
    for (uint32_t reg = 3; reg < 0x10; reg++)
        assert_int_equal(read_reg(reg), 0);
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        write_reg(0x10 + 2 * pin, ~0u);
        write_reg(0x11 + 2 * pin, ~0u);
        assert_int_equal(read_reg(0x10 + 2 * pin), 0x1afff); /* all but what only hardware sets */
        assert_int_equal(read_reg(0x11 + 2 * pin), 0xff000000);
    }
    for (uint32_t reg = 0x10 + 2 * IOAPIC_PINS; reg < 0x100; reg++) {
        write_reg(reg, ~0u);
        assert_int_equal(read_reg(reg), 0);
    }
}

static void test_sends_what_the_pin_says(void **state)
{
    write_reg(0x11 + 2 * 5, 3u << 24);
    write_reg(0x10 + 2 * 5, 0x35);
    raise(5);
    assert_int_equal(sent.count, 1);
    assert_int_equal(sent.address, 0xfee03000);
    assert_int_equal(sent.data, 0x35);
    write_reg(0x11 + 2 * 5, 0xffu << 24);
    write_reg(0x10 + 2 * 5, 0xe941); /* logical, lowest priority; level and active low, which change nothing */
    raise(5);
    raise(5);
    assert_int_equal(sent.count, 3); /* an edge for each */
    assert_int_equal(sent.address, 0xfeeff004);
    assert_int_equal(sent.data, 0x141);
    assert_int_equal(read_reg(0x10 + 2 * 5), 0xa941); /* no remote IRR that anybody would have to end */
    raise(6);                                         /* another pin is as it was */
    assert_int_equal(sent.count, 3);
    write_reg(0x10 + 2 * 5, 0x1e941);
    raise(5);
    assert_int_equal(sent.count, 3);
}

static void test_takes_only_whole_registers(void **state)
{
    static const uint8_t ones[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint8_t data[8];

    write_reg(0x12, 0x31);
    for (uint64_t offset = 0; offset + 8 <= range.size; offset++) {
        for (uint32_t len = 1; len <= 8; len *= 2) {
            if (len == 4 && (offset == SELECT || offset == WINDOW))
                continue;
            range.write(range.device, offset, ones, len);
            memset(data, 0xff, sizeof(data));
            range.read(range.device, offset, data, len);
            for (uint32_t i = 4; i < len; i++)
                assert_int_equal(data[i], 0);
        }
    }
    range.read(range.device, SELECT, data, 4);
    assert_memory_equal(data, ((const uint8_t[]){0x12, 0, 0, 0}), 4);
    range.read(range.device, WINDOW, data, 1);
    assert_int_equal(data[0], 0x31);
    assert_int_equal(read_reg(0x12), 0x31);
}

static int load(const uint8_t *bytes, size_t len, struct vm_error *error)
{
    struct rd rd = rd_of(bytes, len);
    int r = ioapic_load(&ioapic, &rd, error);

    return r == 0 ? rd_finish(&rd) : r;
}

static void test_state(void **state)
{
    struct buf saved = {0};
    struct vm_error error;

    write_reg(0, 5u << 24);
    write_reg(0x11 + 2 * 23, 1u << 24);
    write_reg(0x10 + 2 * 23, 0x4a);
    ioapic_save(&ioapic, &saved);
    assert_int_equal(saved.len, PART);
    setup(NULL);
    for (size_t len = 0; len < saved.len; len++)
        assert_int_equal(load(saved.data, len, &error), -EBADMSG);
    assert_int_equal(load(saved.data, saved.len, &error), 0);
    raise(23);
    assert_int_equal(sent.count, 1);
    assert_int_equal(sent.address, 0xfee01000);
    assert_int_equal(sent.data, 0x4a);
    raise(22);
    assert_int_equal(sent.count, 1);
    assert_int_equal(read_reg(0), 5u << 24);

    /* Bits that no guest can set, in each register; and what is refused changes nothing. */
    for (size_t at = 0; at < saved.len; at++) {
        static const uint8_t wrong_low[4] = {0, 0x50, 0xfe, 0xff}, wrong_id[4] = {0xff, 0xff, 0xff, 0xf0};
        uint8_t wrong = at < 4             ? (at == 0 ? 0 : 0xff)
                        : at < 8           ? wrong_id[at % 4]
                        : (at - 8) % 8 < 4 ? wrong_low[at % 4]
                                           : (at % 4 == 3 ? 0 : 0xff);
        uint8_t before = saved.data[at];

        for (uint32_t bit = 1; bit < 0x100; bit <<= 1) {
            saved.data[at] = (uint8_t)(before | bit);
            assert_int_equal(load(saved.data, saved.len, &error), wrong & bit ? -EBADMSG : 0);
        }
        saved.data[at] = before;
    }
    assert_int_equal(load(saved.data, saved.len, &error), 0);
    saved.data[8 + 1] = 0x10;
    saved.data[8 + 8 * 23] = 0x4b;
    assert_int_equal(load(saved.data, saved.len, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "I/O APIC"));
    raise(23);
    assert_int_equal(sent.data, 0x4a);
    buf_deinit(&saved);
}

/* The driver moves the pin while a message is on its way to where it was. */
static void send_and_move(void *userdata, uint32_t address, uint32_t data)
{
    send(userdata, address, data);
    if (sent.count == 1) {
        write_reg(0x11 + 2 * 9, 2u << 24);
        write_reg(0x10 + 2 * 9, 0x52);
    }
}

static void test_moved_while_it_is_raised(void **state)
{
    ioapic_init(&ioapic, send_and_move, &sent);
    range = ioapic_range(&ioapic);
    write_reg(0x11 + 2 * 9, 1u << 24);
    write_reg(0x10 + 2 * 9, 0x51);
    raise(9);
    assert_int_equal(sent.count, 2);
    assert_int_equal(sent.address, 0xfee02000);
    assert_int_equal(sent.data, 0x52);
}

#define THREADS 4
#define ROUNDS  20000

static void count_send(void *userdata, uint32_t address, uint32_t data)
{
    uint32_t vector = data & 0xff;

    /* Halves of two changes may meet, halves of a register not. */
    if ((address != 0xfee01000 && address != 0xfee02000) || (vector != 0x41 && vector != 0x42) || data > 0xff)
        abort();
    (void)__atomic_fetch_add((unsigned *)userdata, 1, __ATOMIC_RELAXED);
}

static void *keep_raising(void *arg)
{
    struct irq_line line = ioapic_line(&ioapic, 7);

    for (unsigned i = 0; i < ROUNDS; i++)
        irq_raise(&line);
    return NULL;
}

static void test_raised_while_it_changes(void **state)
{
    pthread_t threads[THREADS];
    unsigned count = 0;

    ioapic_init(&ioapic, count_send, &count);
    range = ioapic_range(&ioapic);
    write_reg(0x11 + 2 * 7, 1u << 24);
    write_reg(0x10 + 2 * 7, 0x41);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, keep_raising, NULL), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        write_reg(0x11 + 2 * 7, (1 + i % 2) << 24);
        write_reg(0x10 + 2 * 7, 0x41 + i % 2);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_in_range(count, THREADS * ROUNDS, 2 * THREADS * ROUNDS); /* none is lost */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup(test_is_masked_at_first, setup),
            cmocka_unit_test_setup(test_registers, setup),
            cmocka_unit_test_setup(test_sends_what_the_pin_says, setup),
            cmocka_unit_test_setup(test_takes_only_whole_registers, setup),
            cmocka_unit_test_setup(test_state, setup),
            cmocka_unit_test_setup(test_moved_while_it_is_raised, setup),
            cmocka_unit_test_setup(test_raised_while_it_changes, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
