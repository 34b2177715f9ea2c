/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/devices/test-driver.h"

/* A device that counts what its transport does to it, and echoes chains of queue 0. */
struct probe {
    struct virtio_device dev;
    uint8_t config[12];
    unsigned runs[2], all_runs, activated, resets, config_writes;
    bool busy; /* run says that there is more */
};

static uint8_t ram[DRIVER_RAM] __attribute__((aligned(4096)));
static struct probe probe;
static struct driver driver;
static struct loop loop;

static bool probe_run(struct virtio_device *dev, unsigned index)
{
    static struct vq_chain chain;

    if (index == VIRTIO_ALL_QUEUES)
        probe.all_runs++;
    else
        probe.runs[index]++;
    while (vq_pop(&dev->queues[0], &chain) == VQ_CHAIN)
        vq_push(&dev->queues[0], chain.head, 0);
    virtio_signal_used(dev, 0);
    return !virtio_check_fault(dev, 0) && probe.busy;
}

static void probe_activate(struct virtio_device *dev)
{
    assert_true(dev->live);
    probe.activated++;
}

static void probe_reset(struct virtio_device *dev)
{
    assert_false(dev->live || dev->queues[0].started || dev->queues[1].started);
    probe.resets++;
}

static void probe_write_config(struct virtio_device *dev, uint32_t offset, const uint8_t *data, uint32_t len)
{
    probe.config_writes++;
    memcpy(probe.config + offset, data, len);
}

static const struct virtio_device_ops probe_ops = {
        .run = probe_run, .activate = probe_activate, .reset = probe_reset, .write_config = probe_write_config};

static int setup(void **state)
{
    log_init("test", LOG_ERROR, STDERR_FILENO);
    probe = (struct probe){.dev = {.ops = &probe_ops,
                                   .name = "probe",
                                   .id = 42,
                                   .features = 1u << 5 | 1ull << 40,
                                   .queue_count = 2,
                                   .queue_size_max = 64,
                                   .config = probe.config,
                                   .config_size = sizeof(probe.config)},
            .config = "0123456789a"};
    return loop_init(&loop) < 0 || driver_init(&driver, &probe.dev, ram, &loop) < 0;
}

static int teardown(void **state)
{
    virtio_mmio_deinit(&driver.mmio);
    loop_deinit(&loop);
    return 0;
}

static void serve(void)
{
    driver_serve(&driver, 8);
}

static void start(void)
{
    driver_start(&driver, DRIVER_FEATURES);
    assert_int_equal(driver_read(&driver, REG_STATUS), DRIVER_STATUS_OK);
    serve();
}

static void expect_needs_reset(void)
{
    assert_true(driver_read(&driver, REG_STATUS) & DRIVER_STATUS_RESET);
    assert_false(probe.dev.live);
    assert_false(probe.dev.queues[0].started);
}

static void offer_and_kick(void)
{
    ring_desc(&driver.rings[0], 0, DRIVER_DATA, 16, 0, 0);
    ring_offer(&driver.rings[0], 0);
    driver_kick(&driver, 0);
    serve();
}

static void test_identity(void **state)
{
    assert_int_equal(driver_read(&driver, REG_MAGIC), 0x74726976);
    assert_int_equal(driver_read(&driver, REG_VERSION), 2);
    assert_int_equal(driver_read(&driver, REG_DEVICE_ID), 42);
    assert_int_equal(driver_offered(&driver), DRIVER_FEATURES | 1u << 5 | 1ull << 40);
    driver_write(&driver, REG_DEVICE_FEATURES_SEL, 2);
    assert_int_equal(driver_read(&driver, REG_DEVICE_FEATURES), 0);
    for (uint32_t reg = REG_SHM_LEN; reg < REG_SHM_LEN + 16; reg += 4)
        assert_int_equal(driver_read(&driver, reg), UINT32_MAX);
    driver_write(&driver, REG_QUEUE_SEL, 1);
    assert_int_equal(driver_read(&driver, REG_QUEUE_NUM_MAX), 64);
    driver_write(&driver, REG_QUEUE_SEL, 2);
    assert_int_equal(driver_read(&driver, REG_QUEUE_NUM_MAX), 0);
    driver_write(&driver, REG_QUEUE_SEL, UINT32_MAX);
    assert_int_equal(driver_read(&driver, REG_QUEUE_NUM_MAX), 0);
    assert_int_equal(driver_read(&driver, REG_QUEUE_READY), 0);
    assert_int_equal(driver_read(&driver, 0x200), 0);
    assert_int_equal(driver_read(&driver, 0x0c0), 0); /* QueueReset is not offered */
}

static void test_life(void **state)
{
    start();
    assert_int_equal(probe.activated, 1);
    assert_int_equal(probe.all_runs, 1); /* what was offered before DRIVER_OK is not lost */
    assert_int_equal(probe.dev.driver_features, DRIVER_FEATURES);
    offer_and_kick();
    assert_int_equal(probe.runs[0], 1);
    assert_int_equal(ring_used_idx(&driver.rings[0]), 1);
    assert_int_equal(driver_interrupts(&driver), 1);
    assert_int_equal(driver_read(&driver, REG_INTERRUPT_STATUS), 1);
    driver_write(&driver, REG_INTERRUPT_ACK, 2);
    assert_int_equal(driver_read(&driver, REG_INTERRUPT_STATUS), 1);
    driver_write(&driver, REG_INTERRUPT_ACK, 1);
    assert_int_equal(driver_read(&driver, REG_INTERRUPT_STATUS), 0);

    offer_and_kick();
    driver_write(&driver, REG_STATUS, 0);
    assert_int_equal(driver_read(&driver, REG_STATUS), 0);
    assert_int_equal(driver_read(&driver, REG_INTERRUPT_STATUS), 0);
    driver_kick(&driver, 0);
    serve();
    assert_int_equal(probe.runs[0], 2);
    start();
    offer_and_kick();
    assert_int_equal(probe.runs[0], 3);
    assert_int_equal(probe.activated, 2);
}

static void test_features(void **state)
{
    driver_accept(&driver, DRIVER_FEATURES | 1u << 5 | 1ull << 40);
    assert_int_equal(driver_read(&driver, REG_STATUS), 11);
    driver_write(&driver, REG_STATUS, 0);
    driver_accept(&driver, DRIVER_FEATURES | 1u << 6);
    assert_int_equal(driver_read(&driver, REG_STATUS), 3);
    driver_write(&driver, REG_STATUS, 0);
    driver_accept(&driver, 1ull << VIRTIO_F_EVENT_IDX);
    assert_int_equal(driver_read(&driver, REG_STATUS), 3);
    driver_write(&driver, REG_STATUS, 7); /* DRIVER_OK all the same */
    expect_needs_reset();
    driver_write(&driver, REG_STATUS, 0);
    driver_accept(&driver, DRIVER_FEATURES);
    driver_write(&driver, REG_DRIVER_FEATURES, 1);
    expect_needs_reset();
    assert_int_equal(probe.dev.driver_features, DRIVER_FEATURES);
    driver_write(&driver, REG_STATUS, 0);
    driver_write(&driver, REG_DRIVER_FEATURES_SEL, 2);
    driver_write(&driver, REG_DRIVER_FEATURES, 0);
    assert_int_equal(driver_read(&driver, REG_STATUS), 0);
    driver_write(&driver, REG_DRIVER_FEATURES, 1);
    expect_needs_reset();
}

/* From each legal status, each value that is no legal next one. */
static void test_status_order(void **state)
{
    static const uint32_t steps[] = {0, 1, 3, 11, 15};

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        for (uint32_t value = 1; value < 0x200; value++) {
            bool keeps = (steps[i] & ~value) == 0, next = false;

            driver_write(&driver, REG_STATUS, 0);
            if (steps[i] == 15)
                driver_start(&driver, DRIVER_FEATURES);
            else if (steps[i] == 11)
                driver_accept(&driver, DRIVER_FEATURES);
            else
                driver_write(&driver, REG_STATUS, steps[i]);
            assert_int_equal(driver_read(&driver, REG_STATUS), steps[i]);
            for (size_t j = 0; j < ARRAY_SIZE(steps); j++)
                next = next || (keeps && steps[j] == value);
            driver_write(&driver, REG_STATUS, value);
            if (value & 0x80) {
                assert_int_equal(driver_read(&driver, REG_STATUS), steps[i] | 0x80);
                driver_write(&driver, REG_STATUS, 15);
                assert_int_equal(driver_read(&driver, REG_STATUS), steps[i] | 0x80);
                assert_false(probe.dev.live);
            } else if (next && value == 11 && steps[i] < 11) { /* features without VERSION_1 */
                assert_int_equal(driver_read(&driver, REG_STATUS), 3);
            } else if (next && (value < 15 || steps[i] >= 11)) {
                assert_int_equal(driver_read(&driver, REG_STATUS), value);
            } else {
                expect_needs_reset();
            }
        }
    }
}

static void test_queue_rules(void **state)
{
    /* before FEATURES_OK */
    driver_write(&driver, REG_QUEUE_NUM, 8);
    expect_needs_reset();
    /* bad sizes */
    for (size_t i = 0; i < 4; i++) {
        driver_write(&driver, REG_STATUS, 0);
        driver_accept(&driver, DRIVER_FEATURES);
        driver_write(&driver, REG_QUEUE_NUM, ((const uint32_t[]){0, 3, 128, 0x10001})[i]);
        expect_needs_reset();
    }
    /* while ready */
    driver_write(&driver, REG_STATUS, 0);
    driver_accept(&driver, DRIVER_FEATURES);
    driver_write(&driver, REG_QUEUE_READY, 1);
    assert_int_equal(driver_read(&driver, REG_QUEUE_READY), 1);
    driver_write(&driver, REG_QUEUE_DESC, 0x1000);
    expect_needs_reset();
    /* while live */
    start();
    driver_write(&driver, REG_QUEUE_SEL, 1);
    driver_write(&driver, REG_QUEUE_READY, 0);
    assert_int_equal(driver_read(&driver, REG_QUEUE_READY), 0);
    assert_false(probe.dev.queues[1].started);
    offer_and_kick();
    assert_int_equal(ring_used_idx(&driver.rings[0]), 1); /* the other one goes on */
    driver_interrupts(&driver);
    driver_set_ring(&driver, 1);
    expect_needs_reset();
    assert_int_equal(driver_interrupts(&driver), 1);
    assert_int_equal(driver_read(&driver, REG_INTERRUPT_STATUS) & 2, 2);
    /* a queue that is not there */
    start();
    driver_write(&driver, REG_QUEUE_SEL, 2);
    driver_write(&driver, REG_QUEUE_READY, 1);
    driver_write(&driver, REG_QUEUE_SEL, UINT32_MAX);
    driver_write(&driver, REG_QUEUE_DESC, 1);
    driver_kick(&driver, 2);
    driver_kick(&driver, UINT32_MAX);
    serve();
    assert_int_equal(driver_read(&driver, REG_STATUS), DRIVER_STATUS_OK);
}

static void test_rings_outside_of_memory(void **state)
{
    static const uint64_t bad[] = {DRIVER_RAM, DRIVER_RAM - 16, 0xfffffffffffffff0ull, 1ull << 63, 0x1001};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        driver_write(&driver, REG_STATUS, 0);
        driver_accept(&driver, DRIVER_FEATURES);
        driver.rings[0] = ring_at(ram, DRIVER_RINGS, DRIVER_RING_SIZE);
        driver.rings[0].used = bad[i];
        driver_set_ring(&driver, 0);
        driver_write(&driver, REG_STATUS, DRIVER_STATUS_OK);
        expect_needs_reset();
        assert_int_equal(driver_interrupts(&driver), 0); /* it never was live */
    }
    start();
    offer_and_kick();
    assert_int_equal(ring_used_idx(&driver.rings[0]), 1);
}

static void test_broken_queue(void **state)
{
    start();
    ring_set_avail_idx(&driver.rings[0], 1000);
    driver_kick(&driver, 0);
    serve();
    expect_needs_reset();
    assert_int_equal(driver_interrupts(&driver), 1);
    driver_kick(&driver, 0);
    driver_write(&driver, REG_QUEUE_READY, 1);
    driver_write(&driver, REG_STATUS, DRIVER_STATUS_OK | DRIVER_STATUS_RESET);
    serve();
    expect_needs_reset();
    assert_int_equal(driver_interrupts(&driver), 0);
    start();
    offer_and_kick();
    assert_int_equal(ring_used_idx(&driver.rings[0]), 1);
}

static void test_config_space(void **state)
{
    uint8_t data[8];

    for (uint32_t len = 1; len <= 8; len *= 2) {
        for (uint32_t at = 0; at < 0x100; at++) {
            uint8_t expected[8] = {0};

            if (at + len <= sizeof(probe.config))
                memcpy(expected, probe.config + at, len);
            memset(data, 0xee, sizeof(data));
            driver.range.read(&driver.mmio, REG_CONFIG + at, data, len);
            assert_memory_equal(data, expected, len);
        }
    }
    memset(data, 'x', sizeof(data));
    driver.range.write(&driver.mmio, REG_CONFIG, data, 4); /* before DRIVER */
    assert_int_equal(probe.config_writes, 0);
    start();
    driver.range.write(&driver.mmio, REG_CONFIG + 4, data, 8);
    assert_memory_equal(probe.config, "0123xxxxxxxx", 12);
    driver.range.write(&driver.mmio, REG_CONFIG + 5, data, 8);
    driver.range.write(&driver.mmio, REG_CONFIG + 12, data, 1);
    driver.range.write(&driver.mmio, REG_CONFIG + 0xeff, data, 1);
    assert_int_equal(probe.config_writes, 1);

    driver_interrupts(&driver);
    virtio_mmio_lock(&driver.mmio);
    virtio_mmio_unlock(&driver.mmio, true);
    assert_int_equal(driver_read(&driver, REG_CONFIG_GENERATION), 1);
    assert_int_equal(driver_read(&driver, REG_INTERRUPT_STATUS), 2);
    assert_int_equal(driver_interrupts(&driver), 1);
    driver_write(&driver, REG_STATUS, 0);
    virtio_mmio_lock(&driver.mmio);
    virtio_mmio_unlock(&driver.mmio, true);
    assert_int_equal(driver_interrupts(&driver), 0); /* nobody listens */
    assert_int_equal(driver_read(&driver, REG_CONFIG_GENERATION), 2);
}

/* A device that always has more keeps nobody else from the loop. */
static unsigned ticks;

/* A driver that never stops breaking the rules does not fill a disk with it. */
static void test_log_is_bounded(void **state)
{
    char text[65536];
    unsigned lines = 0;
    ssize_t n;
    int fds[2];

    start();
    assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
    log_init("test", LOG_WARN, fds[1]);
    driver.mmio.log_limit.burst = UINT32_MAX;
    for (unsigned i = 0; i < 1000; i++)
        (void)driver_read(&driver, 0x00c + 1);
    log_init("test", LOG_ERROR, STDERR_FILENO);
    n = read(fds[0], text, sizeof(text));
    assert_true(n > 0 && memmem(text, (size_t)n, "this is the last one", 20));
    for (ssize_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    assert_in_range(lines, 2, 300);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static int tick(struct loop_fd *source, uint32_t events)
{
    ticks++;
    return 0;
}

static void test_fairness(void **state)
{
    int fds[2];
    struct loop_fd other = {.events = EPOLLIN, .ready = tick};

    start();
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    other.fd = fds[0];
    assert_int_equal(loop_add(&loop, &other), 0);
    probe.busy = true;
    probe.all_runs = ticks = 0;
    driver_kick(&driver, 1);
    driver_serve(&driver, 10);
    assert_int_equal(probe.runs[1], 10);
    virtio_mmio_run(&driver.mmio);
    assert_int_equal(probe.all_runs, 1);
    driver_serve(&driver, 10);
    assert_true(probe.all_runs > 5);
    assert_int_equal(ticks, 20);
    probe.busy = false;
    driver_serve(&driver, 3);
    probe.all_runs = probe.runs[0] = probe.runs[1] = 0;
    driver_serve(&driver, 3);
    assert_int_equal(probe.all_runs + probe.runs[0] + probe.runs[1], 0);
    loop_remove(&loop, &other);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* Every register, every width, in every state: nothing but the documented effect, and always a way back. */
static void test_every_register_in_every_state(void **state)
{
    static const uint32_t values[] = {0, 1, 2, 7, 0x80, 0xffff, 0x80000000, UINT32_MAX};
    uint8_t data[8];

    for (unsigned s = 0; s < 7; s++) {
        for (uint32_t reg = 0; reg < REG_CONFIG + 16; reg++) {
            for (size_t v = 0; v < ARRAY_SIZE(values) * 4; v++) {
                uint32_t len = 1u << (v % 4);

                driver_write(&driver, REG_STATUS, 0);
                if (s == 1)
                    driver_write(&driver, REG_STATUS, 1);
                if (s == 2)
                    driver_write(&driver, REG_STATUS, 3);
                if (s == 3)
                    driver_accept(&driver, DRIVER_FEATURES);
                if (s >= 4)
                    driver_start(&driver, DRIVER_FEATURES);
                if (s == 5)
                    driver_write(&driver, REG_STATUS, 0x80);
                if (s == 6)
                    (probe.dev.fail)(&probe.dev, "test");
                memset(data, 0, sizeof(data));
                memcpy(data, &values[v / 4], 4);
                driver.range.write(&driver.mmio, reg, data, len);
                driver.range.read(&driver.mmio, reg, data, len);
                driver_kick(&driver, 0);
                (void)loop_once(&loop, 0);
            }
        }
    }
    memcpy(probe.config, "0123456789a", 12);
    start();
    offer_and_kick();
    assert_int_equal(ring_used_idx(&driver.rings[0]), 1);
}

/* vCPUs reset, configure and acknowledge while the device's thread serves kicks. */
static void *serve_thread(void *arg)
{
    return (void *)(intptr_t)loop_run(&loop);
}

static int stop_loop(struct loop_fd *source, uint32_t events)
{
    loop_stop(&loop);
    return 0;
}

static void test_reset_while_serving(void **state)
{
    struct loop_fd stop = {.events = EPOLLIN, .ready = stop_loop};
    pthread_t thread;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    stop.fd = fds[0];
    assert_int_equal(loop_add(&loop, &stop), 0);
    probe.busy = true;
    assert_int_equal(pthread_create(&thread, NULL, serve_thread, NULL), 0);
    for (unsigned i = 0; i < 300; i++) {
        driver_start(&driver, DRIVER_FEATURES);
        assert_int_equal(driver_read(&driver, REG_STATUS), DRIVER_STATUS_OK);
        ring_desc(&driver.rings[0], 0, DRIVER_DATA, 16, 0, 0);
        for (unsigned k = 0; k < 4; k++) {
            ring_offer(&driver.rings[0], 0);
            driver_kick(&driver, k & 1);
            driver_write(&driver, REG_INTERRUPT_ACK, driver_read(&driver, REG_INTERRUPT_STATUS));
        }
        if (i % 3 == 0)
            driver_write(&driver, REG_QUEUE_READY, 0);
        if (i % 7 == 0)
            driver_write(&driver, REG_STATUS, 0x80);
        driver_write(&driver, REG_STATUS, 0);
        assert_int_equal(driver_read(&driver, REG_STATUS), 0);
    }
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    loop_remove(&loop, &stop);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
            cmocka_unit_test_setup_teardown(test_life, setup, teardown),
            cmocka_unit_test_setup_teardown(test_features, setup, teardown),
            cmocka_unit_test_setup_teardown(test_status_order, setup, teardown),
            cmocka_unit_test_setup_teardown(test_queue_rules, setup, teardown),
            cmocka_unit_test_setup_teardown(test_rings_outside_of_memory, setup, teardown),
            cmocka_unit_test_setup_teardown(test_broken_queue, setup, teardown),
            cmocka_unit_test_setup_teardown(test_config_space, setup, teardown),
            cmocka_unit_test_setup_teardown(test_log_is_bounded, setup, teardown),
            cmocka_unit_test_setup_teardown(test_fairness, setup, teardown),
            cmocka_unit_test_setup_teardown(test_every_register_in_every_state, setup, teardown),
            cmocka_unit_test_setup_teardown(test_reset_while_serving, setup, teardown),
    };

    return cmocka_run_group_tests_name("mmio", tests, NULL, NULL);
}
