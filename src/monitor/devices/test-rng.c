/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <stdlib.h>

#include "base/clock.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/test-driver.h"

static uint8_t ram[DRIVER_RAM] __attribute__((aligned(4096)));
static struct driver driver;
static struct loop loop;
static struct rng *rng;

static int setup(void **state)
{
    struct vm_error error;

    log_init("test", LOG_ERROR, STDERR_FILENO);
    if (loop_init(&loop) < 0 || rng_new(&rng, &loop, &error) < 0 ||
            driver_init(&driver, rng_device(rng), ram, &loop) < 0)
        return 1;
    rng_connect(rng, &driver.mmio);
    driver_start(&driver, DRIVER_FEATURES);
    driver_serve(&driver, 2);
    return 0;
}

static int teardown(void **state)
{
    virtio_mmio_deinit(&driver.mmio);
    rng_free(rng);
    loop_deinit(&loop);
    return 0;
}

static unsigned nonzero(uint32_t at, uint32_t len)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < len; i++)
        n += ram[at + i] != 0;
    return n;
}

static void test_fills(void **state)
{
    struct test_ring *ring = &driver.rings[0];
    uint32_t head, written = 0;

    assert_int_equal(driver_read(&driver, REG_DEVICE_ID), 4);
    ring_desc(ring, 0, DRIVER_DATA, 100, RING_WRITE | RING_NEXT, 1);
    ring_desc(ring, 1, DRIVER_DATA + 0x1000, 300, RING_WRITE, 0);
    ring_offer(ring, 0);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(ring_take_used(ring, &head, &written));
    assert_int_equal(written, 400);
    assert_true(nonzero(DRIVER_DATA, 100) > 50);
    assert_true(nonzero(DRIVER_DATA + 0x1000, 300) > 200);
    assert_int_equal(nonzero(DRIVER_DATA + 100, 0xf9c), 0);
    assert_int_equal(nonzero(DRIVER_DATA + 0x1000 + 300, 100), 0);
    assert_int_equal(driver_interrupts(&driver), 1);
}

static void test_odd_chains(void **state)
{
    struct test_ring *ring = &driver.rings[0];
    uint32_t head, written = 0;

    ring_desc(ring, 0, DRIVER_DATA, 100, 0, 0); /* nothing to fill */
    ring_offer(ring, 0);
    ring_desc(ring, 1, DRIVER_DATA + 0x10000, 0x80000, RING_WRITE, 0); /* too much for one turn */
    ring_offer(ring, 1);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(ring_take_used(ring, &head, &written));
    assert_int_equal(written, 0);
    assert_true(ring_take_used(ring, &head, &written));
    assert_in_range(written, 1, 0x20000);
    assert_int_equal(nonzero(DRIVER_DATA + 0x10000 + written, 0x1000), 0);
    ring_desc(ring, 2, DRIVER_RAM - 10, 11, RING_WRITE, 0);
    ring_offer(ring, 2);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(driver_read(&driver, REG_STATUS) & DRIVER_STATUS_RESET);
}

/* Asks without end: gets the bucket, then no more than the rate, and goes on by itself when there is more. */
static void test_rate(void **state)
{
    struct test_ring *ring = &driver.rings[0];
    uint64_t from = clock_now_ms(), got = 0, passed;
    unsigned empty_turns = 0;
    uint32_t head, written = 0;

    ring_desc(ring, 0, DRIVER_DATA, 0x4000, RING_WRITE, 0);
    for (unsigned i = 0; i < 8; i++)
        ring_offer(ring, 0);
    driver_kick(&driver, 0);
    while (got < RNG_BYTES_PER_SECOND / 8 * 3) {
        bool any = false;

        assert_true(clock_now_ms() - from < 20000);
        assert_int_equal(loop_once(&loop, 1000), 0);
        while (ring_take_used(ring, &head, &written)) {
            got += written;
            any = true;
            ring_offer(ring, 0);
        }
        empty_turns += !any;
        if (any)
            driver_kick(&driver, 0);
    }
    passed = clock_now_ms() - from + 2;
    assert_true(got <= RNG_BYTES_PER_SECOND / 8 + passed * RNG_BYTES_PER_SECOND / 1000);
    assert_true(empty_turns > 0); /* it waited */
    /* a reset while it waits */
    driver_write(&driver, REG_STATUS, 0);
    driver_serve(&driver, 2);
    assert_int_equal(loop_once(&loop, 100), 0);
    assert_false(ring_take_used(ring, &head, &written));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(test_fills, setup, teardown),
            cmocka_unit_test_setup_teardown(test_odd_chains, setup, teardown),
            cmocka_unit_test_setup_teardown(test_rate, setup, teardown),
    };

    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
