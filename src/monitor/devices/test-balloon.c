/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "monitor/devices/devices.h"
#include "monitor/devices/test-driver.h"

#define LIST  DRIVER_DATA
#define PAGES (DRIVER_RAM / 4096)

static uint8_t *ram;
static struct driver driver;
static struct loop loop;
static struct balloon *balloon;

static int begin(uint32_t interval, bool on_oom)
{
    struct balloon_config config = {.present = true, .deflate_on_oom = on_oom, .stats_polling_interval_s = interval};
    struct vm_error error;

    log_init("test", LOG_ERROR, STDERR_FILENO);
    ram = mmap(NULL, DRIVER_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ram == MAP_FAILED || loop_init(&loop) < 0)
        return 1;
    if (balloon_new(&balloon, &config, &driver.mem, &loop, &error) < 0 ||
            driver_init(&driver, balloon_device(balloon), ram, &loop) < 0)
        return 1;
    balloon_connect(balloon, &driver.mmio);
    driver_start(&driver, driver_offered(&driver));
    driver_serve(&driver, 2);
    return 0;
}

static int setup(void **state)
{
    return begin(0, true);
}

static int setup_stats(void **state)
{
    return begin(1, false);
}

static int teardown(void **state)
{
    virtio_mmio_deinit(&driver.mmio);
    balloon_free(balloon);
    loop_deinit(&loop);
    (void)munmap(ram, DRIVER_RAM);
    return 0;
}

static bool needs_reset(void)
{
    return driver_read(&driver, REG_STATUS) & DRIVER_STATUS_RESET;
}

/* Offers a list of pages in two views; true when the device gave it back. */
static bool send_list(unsigned queue, const uint32_t *pfns, uint32_t count)
{
    struct test_ring *ring = &driver.rings[queue];
    uint32_t head, written, half = count * 4 / 2;

    memcpy(ram + LIST, pfns, (size_t)count * 4);
    ring_desc(ring, 0, LIST, half, RING_NEXT, 1);
    ring_desc(ring, 1, LIST + half, count * 4 - half, 0, 0);
    ring_offer(ring, 0);
    driver_kick(&driver, queue);
    driver_serve(&driver, 3);
    return ring_take_used(ring, &head, &written) && head == 0 && written == 0;
}

/* Upwards, downwards, alone, twice: exactly these pages are gone. */
static void test_inflate(void **state)
{
    static const uint32_t list[] = {40, 41, 42, 60, 59, 58, 57, 100, 41, 80, 82, 81, 0x80, PAGES - 1, 40};
    bool in_list[PAGES] = {false};

    for (size_t i = 0; i < ARRAY_SIZE(list); i++)
        in_list[list[i]] = true;
    for (unsigned i = 32; i < PAGES; i++)
        memset(ram + i * 4096ul, 0x77, 4096);
    assert_true(send_list(0, list, ARRAY_SIZE(list)));
    assert_int_equal(driver_interrupts(&driver), 1);
    for (unsigned i = 32; i < PAGES; i++) {
        assert_int_equal(ram[i * 4096ul], in_list[i] ? 0 : 0x77);
        assert_int_equal(ram[i * 4096ul + 4095], in_list[i] ? 0 : 0x77);
    }
    assert_true(send_list(1, list, ARRAY_SIZE(list)));
    assert_false(needs_reset());
}

/* A page that is gone reads as zeros, so it has changed: a snapshot of what changed must have it. */
static void test_inflate_marks(void **state)
{
    static const uint32_t list[] = {70, 40, 71, 90};
    struct dirty_pages dirty;

    assert_int_equal(dirty_pages_init(&dirty, ram, DRIVER_RAM), 0);
    driver.mem.dirty = &dirty;
    assert_true(send_list(0, list, ARRAY_SIZE(list)));
    driver.mem.dirty = NULL;
    for (unsigned i = 32; i < PAGES; i++)
        assert_int_equal(dirty_pages_has(&dirty, i), i == 40 || i == 70 || i == 71 || i == 90);
    dirty_pages_deinit(&dirty);
}

static void test_inflate_refusals(void **state)
{
    static const uint32_t bad[] = {PAGES, UINT32_MAX, 1u << 20, 0x80000000};
    static uint32_t list[4200];
    struct test_ring *ring;
    uint32_t head, written = 0;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        list[0] = 40;
        list[1] = bad[i];
        assert_false(send_list(0, list, 2));
        assert_true(needs_reset());
        driver_start(&driver, DRIVER_FEATURES);
        assert_true(send_list(1, list, 2)); /* deflating looks at nothing */
        assert_false(needs_reset());
    }
    for (size_t i = 0; i < ARRAY_SIZE(list); i++)
        list[i] = 100;
    assert_true(send_list(0, list, 4096));
    assert_false(send_list(0, list, 4097));
    assert_true(needs_reset());
    driver_start(&driver, DRIVER_FEATURES);
    ring = &driver.rings[0];
    ring_desc(ring, 0, LIST, 7, 0, 0);
    ring_offer(ring, 0);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(needs_reset());
    /* nothing, and only a writable part */
    driver_start(&driver, DRIVER_FEATURES);
    ring_desc(ring, 0, LIST, 8, RING_WRITE, 0);
    ring = &driver.rings[0];
    ring_desc(ring, 0, LIST, 8, RING_WRITE, 0);
    ring_offer(ring, 0);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(ring_take_used(ring, &head, &written));
    assert_false(needs_reset());
}

static void test_config(void **state)
{
    struct balloon_stats stats;
    uint8_t junk[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    assert_int_equal(driver_offered(&driver) & 7, 4); /* DEFLATE_ON_OOM alone */
    driver_write(&driver, REG_QUEUE_SEL, 2);
    assert_int_equal(driver_read(&driver, REG_QUEUE_NUM_MAX), 0);
    balloon_set_target(balloon, 0);
    driver_interrupts(&driver);
    driver_write(&driver, REG_INTERRUPT_ACK, 3);
    balloon_set_target(balloon, 1);
    assert_int_equal(driver_interrupts(&driver), 1);
    assert_int_equal(driver_read(&driver, REG_INTERRUPT_STATUS), 2);
    assert_int_equal(driver_read(&driver, REG_CONFIG), 256);
    balloon_set_target(balloon, UINT32_MAX); /* more than the guest has */
    assert_int_equal(driver_read(&driver, REG_CONFIG), PAGES);
    driver_write(&driver, REG_CONFIG + 4, 512);
    driver_write(&driver, REG_CONFIG, 7); /* not the driver's */
    for (uint32_t at = 0; at < 16; at++) {
        driver.range.write(&driver.mmio, REG_CONFIG + at, junk, 8);
        driver.range.write(&driver.mmio, REG_CONFIG + at, junk, 1);
    }
    balloon_stats(balloon, &stats);
    assert_int_equal(stats.target_pages, PAGES);
    assert_int_equal(stats.target_mib, PAGES / 256);
    assert_int_equal(stats.actual_pages, 512);
    assert_int_equal(stats.actual_mib, 2);
    assert_int_equal(stats.present, 0);
    balloon_set_interval(balloon, 1); /* was never offered */
    driver_serve(&driver, 2);
    driver_write(&driver, REG_STATUS, 0);
    balloon_stats(balloon, &stats);
    assert_int_equal(stats.actual_pages, 0);
    assert_int_equal(stats.target_pages, PAGES);
}

static void put_stat(uint32_t at, uint16_t tag, uint64_t value)
{
    memcpy(ram + at, &tag, 2);
    memcpy(ram + at + 2, &value, 8);
}

static void test_stats(void **state)
{
    struct test_ring *ring = &driver.rings[2];
    struct balloon_stats stats;
    uint32_t head, written = 0;

    assert_int_equal(driver_offered(&driver) & 7, 2);
    put_stat(LIST, 4, 1000);
    put_stat(LIST + 10, 5, 2000);
    put_stat(LIST + 20, 99, 1); /* newer than we know */
    put_stat(LIST + 30, 0, 7);
    ring_desc(ring, 0, LIST, 45, 0, 0); /* and a part of one more */
    ring_offer(ring, 0);
    driver_kick(&driver, 2);
    driver_serve(&driver, 2);
    assert_int_equal(ring_used_idx(ring), 0); /* kept */
    balloon_stats(balloon, &stats);
    assert_int_equal(stats.present, 1u << 4 | 1u << 5 | 1u << 0);
    assert_int_equal(stats.value[4], 1000);
    assert_int_equal(stats.value[5], 2000);
    assert_int_equal(stats.value[0], 7);

    for (int i = 0; i < 5 && ring_used_idx(ring) == 0; i++)
        assert_int_equal(loop_once(&loop, 1500), 0);
    assert_true(ring_take_used(ring, &head, &written));
    assert_int_equal(written, 0);
    assert_true(driver_interrupts(&driver) > 0);
    put_stat(LIST, 4, 3000);
    ring_desc(ring, 0, LIST, 10, 0, 0);
    ring_offer(ring, 0);
    driver_kick(&driver, 2);
    driver_serve(&driver, 2);
    balloon_stats(balloon, &stats);
    assert_int_equal(stats.present, 1u << 4);
    assert_int_equal(stats.value[4], 3000);

    /* a driver that leaves many buffers gets all but one back */
    for (unsigned i = 0; i < 10; i++)
        ring_offer(ring, 0);
    driver_kick(&driver, 2);
    driver_serve(&driver, 3);
    assert_int_equal(ring_used_idx(ring), 11);

    /* the kept one is forgotten by a reset, and by stopping the queue */
    driver_start(&driver, DRIVER_FEATURES | 2);
    balloon_set_interval(balloon, 0);
    balloon_set_interval(balloon, 1);
    ring = &driver.rings[2];
    assert_int_equal(loop_once(&loop, 1100), 0);
    assert_int_equal(loop_once(&loop, 1100), 0);
    assert_int_equal(ring_used_idx(ring), 0);
    ring_desc(ring, 0, LIST, 10, 0, 0);
    ring_offer(ring, 0);
    driver_kick(&driver, 2);
    driver_write(&driver, REG_QUEUE_SEL, 2);
    driver_serve(&driver, 2);
    driver_write(&driver, REG_QUEUE_READY, 0);
    assert_int_equal(loop_once(&loop, 1100), 0);
    assert_int_equal(loop_once(&loop, 1100), 0);
    assert_int_equal(ring_used_idx(ring), 0);
    assert_false(needs_reset());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(test_inflate, setup, teardown),
            cmocka_unit_test_setup_teardown(test_inflate_marks, setup, teardown),
            cmocka_unit_test_setup_teardown(test_inflate_refusals, setup, teardown),
            cmocka_unit_test_setup_teardown(test_config, setup, teardown),
            cmocka_unit_test_setup_teardown(test_stats, setup_stats, teardown),
    };

    return cmocka_run_group_tests_name("balloon", tests, NULL, NULL);
}
