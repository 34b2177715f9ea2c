/* SPDX-License-Identifier: Apache-2.0 */
/* Devices out of one monitor and into another: what must survive, and what must not be believed. */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/test-driver.h"
#include "monitor/devices/test-port.h"

#define SECTORS    64u
#define HEAD_BYTES 40u /* of a virtio part before its queues, */
#define QUEUE_SIZE 40u /* and of each of them */

enum { ID, STATUS_AT = 4, INTERRUPT_AT = 8, FEATURES_AT = 28, QUEUES_AT = 36 };

static uint8_t ram[DRIVER_RAM] __attribute__((aligned(4096)));
static struct loop loops[2];
static struct vm_error error;
static char dir[] = "/tmp/test-state-XXXXXX", disk[64];

/* The same device twice: `from` is used by a driver, `to` takes over. */
struct pair {
    struct virtio_device *dev[2];
    struct driver from, to;
};

static struct pair pair;
static struct buf saved;

static int setup(void **state)
{
    log_init("test", LOG_ERROR, STDERR_FILENO);
    pair = (struct pair){0};
    saved = (struct buf){0};
    return loop_init(&loops[0]) < 0 || loop_init(&loops[1]) < 0;
}

static int teardown(void **state)
{
    buf_deinit(&saved);
    loop_deinit(&loops[0]);
    loop_deinit(&loops[1]);
    return 0;
}

/* A second transport on the same memory. */
static void attach(struct driver *d, struct virtio_device *dev, struct loop *loop)
{
    *d = (struct driver){.ram = ram, .loop = loop};
    assert_int_equal(gmem_add(&d->mem, (struct gpa){0}, DRIVER_RAM, ram), 0);
    assert_int_equal(virtio_mmio_init(&d->mmio, dev, &d->mem, driver_irq(d), loop), 0);
    d->range = virtio_mmio_range(&d->mmio, 0);
}

static void begin(struct virtio_device *from, struct virtio_device *to, struct loop *from_loop, struct loop *to_loop)
{
    pair.dev[0] = from;
    pair.dev[1] = to;
    assert_int_equal(driver_init(&pair.from, from, ram, from_loop), 0);
    attach(&pair.to, to, to_loop);
}

static void end(void)
{
    virtio_mmio_deinit(&pair.from.mmio);
    virtio_mmio_deinit(&pair.to.mmio);
}

static void save(void)
{
    buf_reset(&saved);
    virtio_mmio_lock(&pair.from.mmio);
    virtio_mmio_save(&pair.from.mmio, &saved);
    virtio_mmio_unlock(&pair.from.mmio, false);
    assert_int_equal(saved.error, 0);
}

static int load_bytes(const void *bytes, size_t len)
{
    struct rd rd = rd_of(bytes, len);
    int r = virtio_mmio_load(&pair.to.mmio, &rd, &error);

    return r == 0 ? rd_finish(&rd) : r;
}

static int load(void)
{
    return load_bytes(saved.data, saved.len);
}

/* The other one takes over where the driver knows nothing of it. */
static void take_over(void)
{
    save();
    if (load() != 0)
        fail_msg("%s", error.text);
    memcpy(pair.to.rings, pair.from.rings, sizeof(pair.to.rings));
}

/* ---- the transport, with a device that returns what it gets ---- */

struct probe {
    struct virtio_device dev;
    unsigned runs;
};

static bool probe_run(struct virtio_device *dev, unsigned index)
{
    static struct vq_chain chain;

    CONTAINER_OF(dev, struct probe, dev)->runs++;
    for (unsigned i = 0; i < dev->queue_count && dev->live; i++) {
        while (virtio_next(dev, i, &chain) == VQ_CHAIN)
            vq_push(&dev->queues[i], chain.head, 0);
        virtio_signal_used(dev, i);
        (void)virtio_check_fault(dev, i);
    }
    return false;
}

static const struct virtio_device_ops probe_ops = {.run = probe_run};
static struct probe probes[2];

static void begin_probes(void)
{
    for (unsigned i = 0; i < 2; i++)
        probes[i] = (struct probe){.dev = {.ops = &probe_ops,
                                           .name = "probe",
                                           .id = 42,
                                           .features = 1u << 5,
                                           .queue_count = 2,
                                           .queue_size_max = 64}};
    begin(&probes[0].dev, &probes[1].dev, &loops[0], &loops[1]);
    driver_start(&pair.from, driver_offered(&pair.from));
    driver_serve(&pair.from, 3);
}

static void offer(struct driver *d, unsigned queue, uint16_t head)
{
    ring_desc(&d->rings[queue], head, DRIVER_DATA, 16, RING_WRITE, 0);
    ring_offer(&d->rings[queue], head);
}

static void test_goes_on(void **state)
{
    uint32_t head, len;

    begin_probes();
    for (uint16_t i = 0; i < 5; i++)
        offer(&pair.from, 1, i);
    driver_kick(&pair.from, 1);
    driver_serve(&pair.from, 3);
    for (uint16_t i = 0; i < 5; i++)
        assert_true(ring_take_used(&pair.from.rings[1], &head, &len));
    driver_write(&pair.from, REG_QUEUE_SEL, 1);
    offer(&pair.from, 1, 7); /* and its kick is lost with the eventfd */
    take_over();
    assert_int_equal(driver_read(&pair.to, REG_STATUS), DRIVER_STATUS_OK);
    assert_int_equal(driver_read(&pair.to, REG_INTERRUPT_STATUS), 1);
    assert_int_equal(pair.to.mmio.queue_sel, 1);
    assert_int_equal(driver_read(&pair.to, REG_QUEUE_READY), 1);
    driver_serve(&pair.to, 3);
    assert_int_equal(probes[1].runs, 0); /* nothing before it goes on */
    assert_int_equal(driver_interrupts(&pair.to), 0);
    virtio_mmio_go_on(&pair.to.mmio);
    assert_int_equal(driver_interrupts(&pair.to), 0); /* the one of before is in the local APIC */
    driver_serve(&pair.to, 3);
    assert_true(ring_take_used(&pair.to.rings[1], &head, &len));
    assert_int_equal(head, 7);
    assert_false(ring_take_used(&pair.to.rings[1], &head, &len)); /* and none of the five again */
    driver_write(&pair.to, REG_INTERRUPT_ACK, 1);
    offer(&pair.to, 0, 3);
    driver_kick(&pair.to, 0);
    driver_serve(&pair.to, 3);
    assert_true(ring_take_used(&pair.to.rings[0], &head, &len));
    assert_int_equal(head, 3);
    end();
}

/* In the middle of being set up, failed, reset: whatever a driver may have left. */
static void test_every_state(void **state)
{
    static const uint32_t steps[] = {0, 1, 3, 11, 15};

    begin_probes();
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        driver_write(&pair.from, REG_STATUS, 0);
        for (size_t j = 1; j <= i; j++) {
            driver_write(&pair.from, REG_STATUS, steps[j]);
            if (steps[j] != 3)
                continue;
            driver_write(&pair.from, REG_DRIVER_FEATURES_SEL, 1);
            driver_write(&pair.from, REG_DRIVER_FEATURES, 1);
        }
        take_over();
        assert_int_equal(driver_read(&pair.to, REG_STATUS), steps[i]);
        assert_int_equal(pair.dev[1]->live, steps[i] == 15);
        driver_write(&pair.to, REG_STATUS, 0);
    }
    driver_write(&pair.from, REG_STATUS, 0x80);
    take_over();
    assert_int_equal(driver_read(&pair.to, REG_STATUS) & 0x80, 0x80);
    assert_false(pair.dev[1]->live);
    driver_write(&pair.to, REG_STATUS, 0);
    driver_start(&pair.from, DRIVER_FEATURES);
    ring_set_avail_idx(&pair.from.rings[0], 1000);
    driver_kick(&pair.from, 0);
    driver_serve(&pair.from, 3);
    take_over();
    assert_int_equal(driver_read(&pair.to, REG_STATUS) & DRIVER_STATUS_RESET, DRIVER_STATUS_RESET);
    assert_false(pair.dev[1]->live);
    end();
}

static void refused(const char *text)
{
    int r = load();

    if (r >= 0 || !strstr(error.text, text))
        fail_msg("%d, '%s' and not '%s'", r, error.text, text);
    assert_false(pair.dev[1]->live);
    driver_write(&pair.to, REG_STATUS, 0);
    save();
}

static void put32(size_t at, uint32_t value)
{
    memcpy(saved.data + at, &value, sizeof(value));
}

static void put64(size_t at, uint64_t value)
{
    memcpy(saved.data + at, &value, sizeof(value));
}

static void test_impossible(void **state)
{
    static const uint64_t places[] = {DRIVER_RAM, DRIVER_RAM - 16, UINT64_MAX - 15, 1ull << 63, 0x1001};

    begin_probes();
    save();
    assert_int_equal(saved.len, HEAD_BYTES + 2 * QUEUE_SIZE);
    put32(ID, 43);
    refused("kind 43");
    put32(STATUS_AT, 0x100 | DRIVER_STATUS_OK);
    refused("impossible");
    put32(STATUS_AT, 4); /* DRIVER_OK without the rest */
    refused("impossible");
    put32(INTERRUPT_AT, 4);
    refused("impossible");
    put64(FEATURES_AT, 1ull << 32 | 1u << 6); /* one that is not offered here */
    refused("features (0x40)");
    put64(FEATURES_AT, 1u << 5); /* without VERSION_1 */
    refused("features");
    put32(QUEUES_AT, 3);
    refused("3 queues");
    put32(HEAD_BYTES, 2);
    refused("queue 0 is impossible");
    for (uint32_t size = 0; size < 200; size++) {
        if (size == 0 || size > 64 || (size & (size - 1))) {
            put32(HEAD_BYTES + QUEUE_SIZE + 4, size);
            refused("queue 1 is impossible");
        }
    }
    put32(HEAD_BYTES + 8, 65536);
    refused("queue 0 is impossible");
    put32(HEAD_BYTES + 12, 1);
    refused("queue 0 is impossible");
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        for (size_t field = 16; field < QUEUE_SIZE; field += 8) {
            put64(HEAD_BYTES + field, places[i]);
            refused("ring is not in guest memory");
        }
    }
    end();
}

/* Whatever bytes there are: an error and a dead device, or one that lives on. */
static void test_any_bytes(void **state)
{
    static const uint8_t values[] = {0, 1, 2, 0x0f, 0x40, 0x7f, 0x80, 0xff};

    begin_probes();
    save();
    for (size_t len = 0; len < saved.len; len++) {
        assert_int_equal(load_bytes(saved.data, len), -EBADMSG);
        assert_false(pair.dev[1]->live);
        driver_write(&pair.to, REG_STATUS, 0);
    }
    for (size_t at = 0; at < saved.len; at++) {
        for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
            uint8_t before = saved.data[at];

            saved.data[at] = values[i];
            if (load() < 0)
                assert_false(pair.dev[1]->live);
            saved.data[at] = before;
            virtio_mmio_go_on(&pair.to.mmio);
            driver_serve(&pair.to, 3);
            driver_write(&pair.to, REG_STATUS, 0);
        }
    }
    end();
}

/* ---- each device's own ---- */

static struct block *new_block(const char *name, unsigned sectors, bool read_only)
{
    char id[] = "root", path[80];
    struct drive_config config = {.drive_id = id, .path_on_host = path, .is_read_only = read_only};
    struct block *block = NULL;
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && ftruncate(fd, (off_t)sectors * 512) == 0);
    fd_close(fd);
    assert_int_equal(block_new(&block, &config, &error), 0);
    return block;
}

static void test_block(void **state)
{
    struct block *a = new_block("a", SECTORS, false), *b = new_block("b", SECTORS + 1, false),
                 *c = new_block("c", SECTORS, true), *d = new_block("d", SECTORS, false);

    begin(block_device(a), block_device(b), block_loop(a), block_loop(b));
    driver_start(&pair.from, driver_offered(&pair.from));
    save();
    refused("drive root: its file has 65 sectors, and had 64");
    virtio_mmio_deinit(&pair.to.mmio);
    pair.dev[1] = block_device(c);
    attach(&pair.to, block_device(c), block_loop(c));
    if (driver_offered(&pair.from) & ~driver_offered(&pair.to)) /* it may discard, and the other is read-only */
        refused("does not have here");
    virtio_mmio_deinit(&pair.to.mmio);
    pair.dev[1] = block_device(d);
    attach(&pair.to, block_device(d), block_loop(d));
    take_over();
    assert_true(pair.dev[1]->live);
    assert_int_equal(load_bytes(saved.data, saved.len - 1), -EBADMSG);
    end();
    block_free(a);
    block_free(b);
    block_free(c);
    block_free(d);
}

static void test_balloon(void **state)
{
    struct balloon_config config = {.present = true, .stats_polling_interval_s = 1000};
    struct balloon *a = NULL, *b = NULL;
    struct balloon_stats stats;
    uint32_t head, len;

    assert_int_equal(balloon_new(&a, &config, &pair.from.mem, &loops[0], &error), 0);
    assert_int_equal(balloon_new(&b, &config, &pair.to.mem, &loops[1], &error), 0);
    begin(balloon_device(a), balloon_device(b), &loops[0], &loops[1]);
    balloon_connect(a, &pair.from.mmio);
    balloon_connect(b, &pair.to.mmio);
    driver_start(&pair.from, driver_offered(&pair.from));
    driver_write(&pair.from, REG_CONFIG + 4, 77);
    balloon_set_target(a, 1);
    memcpy(ram + DRIVER_DATA, "\4\0\x39\5\0\0\0\0\0\0", 10); /* free memory: 1337 */
    ring_desc(&pair.from.rings[2], 6, DRIVER_DATA, 10, 0, 0);
    ring_offer(&pair.from.rings[2], 6);
    driver_kick(&pair.from, 2);
    driver_serve(&pair.from, 4);
    take_over();
    balloon_stats(b, &stats);
    assert_int_equal(stats.target_mib, 1);
    assert_int_equal(stats.actual_pages, 77);
    assert_int_equal(stats.present, 1u << 4);
    assert_int_equal(stats.value[4], 1337);
    driver_serve(&pair.to, 3);
    assert_false(ring_take_used(&pair.to.rings[2], &head, &len)); /* the buffer of statistics is still ours */
    ring_desc(&pair.to.rings[2], 7, DRIVER_DATA, 10, 0, 0);
    ring_offer(&pair.to.rings[2], 7);
    virtio_mmio_go_on(&pair.to.mmio);
    driver_serve(&pair.to, 3);
    assert_true(ring_take_used(&pair.to.rings[2], &head, &len)); /* until there is another */
    assert_int_equal(head, 6);
    driver_write(&pair.to, REG_STATUS, 0);

    save();
    put32(HEAD_BYTES + 3 * QUEUE_SIZE, DRIVER_RAM / 4096 + 1);
    refused("a target of");
    put32(HEAD_BYTES + 3 * QUEUE_SIZE + 8, 2);
    refused("a buffer");
    put32(HEAD_BYTES + 3 * QUEUE_SIZE + 12, DRIVER_RING_SIZE);
    refused("a buffer (16) that no queue has");
    put32(HEAD_BYTES + 2 * QUEUE_SIZE, 0); /* the queue of statistics doesn't run */
    refused("a buffer");
    end();
    balloon_free(a);
    balloon_free(b);
}

static struct serial *new_serial(void)
{
    struct serial_options options = {
            .size = sizeof(options), .loop = &loops[0], .input_fd = -1, .output_fd = -1, .irq = irq};
    struct serial *serial = NULL;

    assert_int_equal(serial_new(&serial, &options, &error), 0);
    return serial;
}

static int load_serial(struct serial *serial, const void *bytes, size_t len)
{
    struct rd rd = rd_of(bytes, len);
    int r = serial_load(serial, &rd, &error);

    return r == 0 ? rd_finish(&rd) : r;
}

static void test_serial(void **state)
{
    struct serial *a = new_serial(), *b = new_serial();

    serial_range(a, &range);
    out(3, 0x80);
    out(0, 0x12);
    out(1, 0x34);
    out(3, 0x03);
    out(2, 0x01); /* FIFO */
    out(4, 0x1b); /* loopback: */
    out(0, 'x');  /* this comes back */
    out(0, 'y');
    out(7, 0x5a);
    out(1, 0x01);
    serial_save(a, &saved);
    assert_int_equal(saved.len, 9 + 16);
    for (size_t len = 0; len < saved.len; len++)
        assert_int_equal(load_serial(b, saved.data, len), -EBADMSG);
    assert_int_equal(load_serial(b, saved.data, saved.len), 0);
    raises = 0;
    serial_range(b, &range);
    assert_int_equal(in(7), 0x5a);
    assert_int_equal(in(4), 0x1b);
    assert_int_equal(in(1), 0x01);
    assert_int_equal(in(0), 'x');
    assert_int_equal(in(0), 'y');
    assert_int_equal(in(5) & 1, 0);
    out(3, 0x80);
    assert_int_equal(in(0), 0x12);
    assert_int_equal(in(1), 0x34);
    assert_false(raised()); /* that was all before it was saved */

    for (size_t at = 0; at < saved.len; at++) { /* what can't be is refused, and the rest can't hurt */
        uint8_t before = saved.data[at];

        saved.data[at] = 0xff;
        assert_int_equal(load_serial(b, saved.data, saved.len) < 0, at == 2 || at == 4 || (at >= 6 && at <= 8));
        saved.data[at] = before;
    }
    serial_free(a);
    serial_free(b);
}

static int load_keyboard(struct i8042 *kbd, size_t len)
{
    struct rd rd = rd_of(saved.data, len);
    int r = i8042_load(kbd, &rd, &error);

    return r == 0 ? rd_finish(&rd) : r;
}

static void no_reset(void *userdata)
{
    fail();
}

static void test_keyboard(void **state)
{
    struct i8042 *a = NULL, *b = NULL;

    assert_int_equal(i8042_new(&a, irq, no_reset, NULL), 0);
    assert_int_equal(i8042_new(&b, irq, no_reset, NULL), 0);
    i8042_range(a, &range);
    out(4, 0x60);
    out(0, 0x45);
    out(0, 0xee); /* echo: */
    i8042_ctrl_alt_del(a);
    assert_int_equal(in(0), 0xee); /* so that the queue's first byte is not at its beginning */
    out(4, 0x60);                  /* a command that waits for its byte */
    i8042_save(a, &saved);
    assert_int_equal(saved.len, 3 + 32);
    for (size_t len = 0; len < saved.len; len++)
        assert_int_equal(load_keyboard(b, len), -EBADMSG);
    assert_int_equal(load_keyboard(b, saved.len), 0);
    raises = 0;
    i8042_range(b, &range);
    assert_int_equal(in(0), 0x1d);
    assert_true(raised()); /* for the next one */
    assert_int_equal(in(0), 0x38);
    out(0, 0x44); /* taken for the command byte, without interrupts */
    (void)raised();
    assert_int_equal(in(0), 0xe0);
    assert_false(raised());
    saved.data[2] = 33;
    assert_int_equal(load_keyboard(b, saved.len), -EBADMSG);
    i8042_free(a);
    i8042_free(b);
}

static int make_dir(void **state)
{
    if (!mkdtemp(dir))
        return 1;
    (void)snprintf(disk, sizeof(disk), "rm -rf %s", dir);
    return 0;
}

static int remove_dir(void **state)
{
    return system(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(test_goes_on, setup, teardown),
            cmocka_unit_test_setup_teardown(test_every_state, setup, teardown),
            cmocka_unit_test_setup_teardown(test_impossible, setup, teardown),
            cmocka_unit_test_setup_teardown(test_any_bytes, setup, teardown),
            cmocka_unit_test_setup_teardown(test_block, setup, teardown),
            cmocka_unit_test_setup_teardown(test_balloon, setup, teardown),
            cmocka_unit_test_setup_teardown(test_serial, setup, teardown),
            cmocka_unit_test_setup_teardown(test_keyboard, setup, teardown),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
