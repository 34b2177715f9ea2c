/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/test-driver.h"

#define SECTORS 64u
#define HEADER  DRIVER_DATA
#define STATUS  (DRIVER_DATA + 0x100)
#define DATA    (DRIVER_DATA + 0x1000)

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK, IOERR, UNSUPP, UNTOUCHED = 0xaa };

static uint8_t ram[DRIVER_RAM] __attribute__((aligned(4096)));
static char dir[] = "/tmp/test-block-XXXXXX", drive_id[] = "scratch", path[64];
static struct driver driver;
static struct block *block;

static void fill_file(const char *name, unsigned sectors)
{
    FILE *f = fopen(name, "we");

    assert_non_null(f);
    for (unsigned i = 0; i < sectors * 512; i++)
        assert_int_not_equal(fputc((int)(i / 512 + i) & 0xff, f), EOF);
    assert_int_equal(fclose(f), 0);
}

static struct drive_config drive(char *file, bool read_only)
{
    return (struct drive_config){
            .drive_id = drive_id, .path_on_host = file, .is_read_only = read_only, .writeback = !read_only};
}

static int begin(bool read_only)
{
    struct drive_config config = drive(path, read_only);
    struct vm_error error;

    log_init("test", LOG_ERROR, STDERR_FILENO);
    fill_file(path, SECTORS);
    if (block_new(&block, &config, &error) < 0 || driver_init(&driver, block_device(block), ram, block_loop(block)) < 0)
        return 1;
    driver_start(&driver, driver_offered(&driver));
    driver_serve(&driver, 2);
    return 0;
}

static int setup_ro(void **state)
{
    return begin(true);
}

static int setup_rw(void **state)
{
    return begin(false);
}

static int teardown(void **state)
{
    block_stop(block);
    virtio_mmio_deinit(&driver.mmio);
    block_free(block);
    block = NULL;
    return 0;
}

/* Offers header, data and status; the data descriptor is left out when len is 0. */
static void offer(uint32_t type, uint64_t sector, uint64_t at, uint32_t len, bool device_writes)
{
    struct test_ring *ring = &driver.rings[0];
    uint32_t words[2] = {type, 0};

    memcpy(ram + HEADER, words, 8);
    memcpy(ram + HEADER + 8, &sector, 8);
    ram[STATUS] = UNTOUCHED;
    ring_desc(ring, 0, HEADER, 16, RING_NEXT, len ? 1 : 2);
    ring_desc(ring, 1, at, len, RING_NEXT | (device_writes ? RING_WRITE : 0), 2);
    ring_desc(ring, 2, STATUS, 1, RING_WRITE, 0);
    ring_offer(ring, 0);
    driver_kick(&driver, 0);
}

static unsigned request(uint32_t type, uint64_t sector, uint32_t len, bool device_writes)
{
    uint32_t head, written = 0;

    offer(type, sector, DATA, len, device_writes);
    driver_serve(&driver, 2);
    if (!ring_take_used(&driver.rings[0], &head, &written))
        return UNTOUCHED;
    assert_int_equal(head, 0);
    assert_int_equal(written, ram[STATUS] == OK && device_writes ? (type == GET_ID ? 20 : len) + 1 : 1);
    return ram[STATUS];
}

static unsigned discard(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    memcpy(ram + DATA, &sector, 8);
    memcpy(ram + DATA + 8, &sectors, 4);
    memcpy(ram + DATA + 12, &flags, 4);
    return request(type, 0, 16, false);
}

static uint8_t expected(unsigned at)
{
    return (uint8_t)(at / 512 + at);
}

static bool needs_reset(void)
{
    return driver_read(&driver, REG_STATUS) & DRIVER_STATUS_RESET;
}

static void test_config(void **state)
{
    assert_int_equal(driver_read(&driver, REG_DEVICE_ID), 2);
    assert_int_equal(driver_read(&driver, REG_CONFIG), SECTORS);
    assert_int_equal(driver_read(&driver, REG_CONFIG + 4), 0);
    assert_int_equal(driver_read(&driver, REG_CONFIG + 8), 65536);
    assert_int_equal(driver_read(&driver, REG_CONFIG + 12), 254);
    assert_int_equal(driver_read(&driver, REG_CONFIG + 20), 512);
    assert_true(driver_offered(&driver) & 1u << 5);
    assert_false(driver_offered(&driver) & (1u << 9 | 1u << 13 | 1u << 14));
}

static void test_read(void **state)
{
    assert_int_equal(request(IN, 3, 1024, true), OK);
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(ram[DATA + i], expected(3 * 512 + i));
    assert_int_equal(request(IN, SECTORS - 1, 512, true), OK);
    assert_int_equal(request(IN, 0, SECTORS * 512, true), OK);
    assert_int_equal(request(IN, SECTORS, 0, true), OK);
    assert_true(driver_interrupts(&driver) > 0);
    assert_int_equal(request(GET_ID, 0, 20, true), OK);
    assert_memory_equal(ram + DATA, "scratch\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    assert_int_equal(request(GET_ID, 0, 64, true), OK);
    assert_int_equal(request(GET_ID, 0, 19, true), IOERR);
    assert_int_equal(request(77, 0, 512, true), UNSUPP);
}

/* Data in uneven views, the last of which also has the status; the header split in two. */
static void test_views(void **state)
{
    struct test_ring *ring = &driver.rings[0];
    uint32_t words[4] = {IN, 0, 1, 0}, head, written;

    memcpy(ram + HEADER, words, 16);
    ring_desc(ring, 4, HEADER, 7, RING_NEXT, 1);
    ring_desc(ring, 1, HEADER + 7, 9, RING_NEXT, 2);
    ring_desc(ring, 2, DATA, 500, RING_NEXT | RING_WRITE, 3);
    ring_desc(ring, 3, DATA + 500, 525, RING_WRITE, 0);
    ram[DATA + 1024] = UNTOUCHED;
    ring_offer(ring, 4);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(ring_take_used(ring, &head, &written));
    assert_int_equal(head, 4);
    assert_int_equal(written, 1025);
    assert_int_equal(ram[DATA + 1024], OK);
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(ram[DATA + i], expected(512 + i));
}

static void test_bounds(void **state)
{
    static const uint64_t sectors[] = {SECTORS, SECTORS + 1, UINT64_MAX, UINT64_MAX / 512, UINT64_MAX / 512 + 1,
            1ull << 55, 1ull << 63, (1ull << 55) - 1, INT64_MAX};

    for (size_t i = 0; i < ARRAY_SIZE(sectors); i++) {
        assert_int_equal(request(IN, sectors[i], 512, true), IOERR);
        assert_int_equal(request(OUT, sectors[i], 512, false), IOERR);
        if (driver_offered(&driver) & 1u << 13)
            assert_int_equal(discard(DISCARD, sectors[i], 1, 0), IOERR);
    }
    assert_int_equal(request(IN, SECTORS - 1, 1024, true), IOERR);
    assert_int_equal(request(IN, 0, SECTORS * 512 + 512, true), IOERR);
    for (uint32_t len = 1; len < 512; len += 51) {
        assert_int_equal(request(IN, 0, len, true), IOERR);
        assert_int_equal(request(OUT, 0, 512 + len, false), IOERR);
    }
}

static void test_read_only(void **state)
{
    char before[SECTORS * 512], after[sizeof(before)], link[PATH_MAX], name[64];
    unsigned seen = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, before, sizeof(before), 0), sizeof(before));
    memset(ram + DATA, 0x55, 4096);
    assert_int_equal(request(OUT, 0, 512, false), IOERR);
    assert_int_equal(discard(DISCARD, 0, 8, 0), IOERR);
    assert_int_equal(discard(WRITE_ZEROES, 0, 8, 0), IOERR);
    assert_int_equal(request(FLUSH, 0, 0, false), UNSUPP);
    /* a driver that pretends not to know F_RO */
    driver_start(&driver, DRIVER_FEATURES);
    assert_int_equal(request(OUT, 0, 512, false), IOERR);
    assert_int_equal(pread(fd, after, sizeof(after), 0), sizeof(after));
    assert_memory_equal(before, after, sizeof(after));
    (void)close(fd);
    for (fd = 0; fd < 64; fd++) {
        ssize_t n;

        (void)snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
        n = readlink(name, link, sizeof(link) - 1);
        if (n < 0)
            continue;
        link[n] = '\0';
        if (strcmp(link, path) == 0) {
            seen++;
            assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
        }
    }
    assert_int_equal(seen, 1);
}

static void test_write(void **state)
{
    uint8_t data[1024];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_true(driver_offered(&driver) & 1u << 9);
    assert_false(driver_offered(&driver) & 1u << 5);
    memset(ram + DATA, 0x55, 1024);
    assert_int_equal(request(OUT, 5, 1024, false), OK);
    assert_int_equal(pread(fd, data, 1024, 5 * 512), 1024);
    assert_memory_equal(data, ram + DATA, 1024);
    assert_int_equal(request(FLUSH, 0, 0, false), OK);
    assert_int_equal(request(OUT, SECTORS, 512, false), IOERR);
    assert_int_equal(lseek(fd, 0, SEEK_END), SECTORS * 512);
    (void)close(fd);
}

static void test_discard(void **state)
{
    uint8_t data[4096], zero[4096] = {0};
    unsigned r;
    int fd;

    if (!(driver_offered(&driver) & 1u << 13)) {
        print_message("%s: its file system cannot punch holes\n", path);
        skip();
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(discard(DISCARD, 8, 8, 0), OK);
    assert_int_equal(pread(fd, data, 4096, 4096), 4096);
    assert_memory_equal(data, zero, 4096);
    assert_int_equal(pread(fd, data, 1, 4095), 1);
    assert_int_equal(data[0], expected(4095));
    assert_int_equal(discard(WRITE_ZEROES, 16, 8, 1), OK);
    assert_int_equal(pread(fd, data, 4096, 8192), 4096);
    assert_memory_equal(data, zero, 4096);
    r = discard(WRITE_ZEROES, 24, 8, 0);
    assert_true(r == OK || r == UNSUPP); /* tmpfs has no such operation */
    assert_int_equal(discard(DISCARD, 0, 0, 0), OK);
    assert_int_equal(discard(DISCARD, 0, 8, 1), UNSUPP);
    assert_int_equal(discard(WRITE_ZEROES, 0, 8, 2), UNSUPP);
    assert_int_equal(discard(DISCARD, 0, SECTORS + 1, 0), IOERR);
    assert_int_equal(discard(DISCARD, 1, UINT32_MAX, 0), IOERR);
    assert_int_equal(request(DISCARD, 0, 15, false), IOERR);
    assert_int_equal(request(DISCARD, 0, 32, false), IOERR);
    assert_int_equal(lseek(fd, 0, SEEK_END), SECTORS * 512);
    (void)close(fd);
}

static void test_file_shrank(void **state)
{
    assert_int_equal(truncate(path, 1000), 0);
    assert_int_equal(request(IN, 0, 512, true), OK);
    assert_int_equal(request(IN, 0, 2048, true), IOERR);
    assert_int_equal(request(IN, 4, 512, true), IOERR);
}

static void test_hostile_chains(void **state)
{
    struct test_ring *ring = &driver.rings[0];
    uint32_t head, written = 0;

    /* header too short: answered */
    ram[STATUS] = UNTOUCHED;
    ring_desc(ring, 0, HEADER, 15, RING_NEXT, 1);
    ring_desc(ring, 1, STATUS, 1, RING_WRITE, 0);
    ring_offer(ring, 0);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(ring_take_used(ring, &head, &written));
    assert_int_equal(ram[STATUS], IOERR);
    /* only a status, no header */
    ring_offer(ring, 1);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(ring_take_used(ring, &head, &written));
    assert_int_equal(ram[STATUS], IOERR);
    /* nowhere to answer */
    ring_desc(ring, 2, HEADER, 16, 0, 0);
    ring_offer(ring, 2);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(needs_reset());

    driver_start(&driver, DRIVER_FEATURES);
    offer(IN, 0, DRIVER_RAM - 256, 512, true);
    driver_serve(&driver, 2);
    assert_true(needs_reset());

    driver_start(&driver, DRIVER_FEATURES);
    ring = &driver.rings[0];
    ring_desc(ring, 0, HEADER, 16, RING_NEXT, 1);
    ring_desc(ring, 1, DATA, 512, RING_NEXT | RING_WRITE, 0);
    ring_offer(ring, 0);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(needs_reset());
    assert_int_equal(ring_used_idx(ring), 0);
    driver_start(&driver, DRIVER_FEATURES);
    assert_int_equal(request(IN, 0, 512, true), OK);
}

/* Many views of the same memory: gigabytes to move for one request. */
static void test_request_size_is_bounded(void **state)
{
    struct test_ring *ring = &driver.rings[0];
    uint32_t words[4] = {IN}, head, written;

    memcpy(ram + HEADER, words, 16);
    ring_desc(ring, 0, HEADER, 16, RING_NEXT, 1);
    ring_desc(ring, 1, DRIVER_DATA + 0x40000, 400 * 16, RING_INDIRECT, 0);
    for (unsigned i = 0; i < 400; i++)
        put_desc(ram + DRIVER_DATA + 0x40000 + 16 * i, DRIVER_DATA + 0x20000, 0x10000,
                RING_WRITE | (i < 399 ? RING_NEXT : 0), (uint16_t)(i + 1));
    ring_offer(ring, 0);
    driver_kick(&driver, 0);
    driver_serve(&driver, 2);
    assert_true(ring_take_used(ring, &head, &written));
    assert_int_equal(written, 1);
    assert_int_equal(ram[DRIVER_DATA + 0x20000 + 0xffff], IOERR);
}

static void test_replace(void **state)
{
    char other[80];
    struct vm_error error;

    (void)snprintf(other, sizeof(other), "%s/other", dir);
    fill_file(other, 8);
    driver_interrupts(&driver);
    virtio_mmio_lock(&driver.mmio);
    assert_int_equal(block_replace(block, "/nowhere/x", &error), -ENOENT);
    assert_non_null(strstr(error.text, "/nowhere/x"));
    assert_int_equal(block_replace(block, dir, &error), -EISDIR);
    assert_int_equal(block_replace(block, other, &error), 0);
    virtio_mmio_unlock(&driver.mmio, true);
    assert_int_equal(driver_interrupts(&driver), 1);
    assert_int_equal(driver_read(&driver, REG_CONFIG), 8);
    assert_int_equal(request(IN, 7, 512, true), OK);
    assert_int_equal(request(IN, 8, 512, true), IOERR);
    assert_int_equal(request(OUT, 0, 512, false), IOERR);
    assert_int_equal(unlink(other), 0);
}

static void test_refused_files(void **state)
{
    char fifo[80], missing[80], null[] = "/dev/null";
    struct drive_config config = drive(dir, true);
    struct block *none = NULL;
    struct vm_error error;

    assert_int_equal(block_new(&none, &config, &error), -EISDIR);
    config = drive(dir, false);
    assert_int_equal(block_new(&none, &config, &error), -EISDIR);
    (void)snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    config = drive(fifo, true);
    assert_int_equal(block_new(&none, &config, &error), -EINVAL);
    assert_int_equal(unlink(fifo), 0);
    config = drive(null, true);
    assert_int_equal(block_new(&none, &config, &error), -EINVAL);
    (void)snprintf(missing, sizeof(missing), "%s/missing", dir);
    config = drive(missing, false);
    assert_int_equal(block_new(&none, &config, &error), -ENOENT);
    assert_non_null(strstr(error.text, "scratch"));
    assert_non_null(strstr(error.text, missing));
    assert_null(none);
    block_free(none);
}

/* With its own thread: requests, and resets in the middle of them. */
static void test_thread(void **state)
{
    assert_int_equal(block_start(block), 0);
    for (unsigned i = 0; i < 200; i++) {
        struct test_ring *ring = &driver.rings[0];
        uint64_t until = clock_now_ms() + 10000;
        uint32_t head, written = 0;

        offer(IN, i % SECTORS, DATA, 512, true);
        if (i % 5 == 4) {
            driver_write(&driver, REG_STATUS, 0);
            driver_start(&driver, DRIVER_FEATURES);
            continue;
        }
        while (!ring_take_used(ring, &head, &written))
            assert_true(clock_now_ms() < until);
        assert_int_equal(ram[STATUS], OK);
        assert_int_equal(ram[DATA], expected(i % SECTORS * 512));
        driver_write(&driver, REG_INTERRUPT_ACK, driver_read(&driver, REG_INTERRUPT_STATUS));
    }
    block_stop(block);
    block_stop(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(test_config, setup_ro, teardown),
            cmocka_unit_test_setup_teardown(test_read, setup_ro, teardown),
            cmocka_unit_test_setup_teardown(test_views, setup_ro, teardown),
            cmocka_unit_test_setup_teardown(test_bounds, setup_rw, teardown),
            cmocka_unit_test_setup_teardown(test_read_only, setup_ro, teardown),
            cmocka_unit_test_setup_teardown(test_write, setup_rw, teardown),
            cmocka_unit_test_setup_teardown(test_discard, setup_rw, teardown),
            cmocka_unit_test_setup_teardown(test_file_shrank, setup_ro, teardown),
            cmocka_unit_test_setup_teardown(test_hostile_chains, setup_ro, teardown),
            cmocka_unit_test_setup_teardown(test_request_size_is_bounded, setup_ro, teardown),
            cmocka_unit_test_setup_teardown(test_replace, setup_ro, teardown),
            cmocka_unit_test(test_refused_files),
            cmocka_unit_test_setup_teardown(test_thread, setup_ro, teardown),
    };
    int r;

    if (!mkdtemp(dir))
        return 1;
    (void)snprintf(path, sizeof(path), "%s/disk", dir);
    r = cmocka_run_group_tests_name("block", tests, NULL, NULL);
    (void)unlink(path);
    (void)rmdir(dir);
    return r;
}
