/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of a block device as a driver may make them: headers with any
 * fields, chains of any shape over the data part of guest memory and past its
 * ends, several at once. What must hold: each request is answered or the
 * device asks for a reset, the read-only disk stays as it is, no disk grows.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "input.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/test-driver.h"

#define DISK     0x8000u
#define HEADERS  0x8000u /* 64 bytes for each chain */
#define DATA     0x20000u
#define MAX_REQS 64

static const uint32_t types[] = {0, 0, 1, 1, 4, 8, 11, 13, 2, 0xffffffff};

static struct machine {
    struct driver driver;
    struct block *block;
    int disk;
} machines[2]; /* read-only, writable */

static uint64_t number(struct input *in, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)byte(in) << (8 * i);
    return value;
}

static void build(struct machine *m, bool read_only)
{
    char path[32], id[] = "disk-with-a-name-of-more-than-20-bytes";
    struct drive_config config = {
            .drive_id = id, .path_on_host = path, .is_read_only = read_only, .writeback = !read_only};
    uint8_t *ram = aligned_alloc(4096, DRIVER_RAM);

    log_init("fuzz", LOG_ERROR, STDERR_FILENO);
    m->disk = memfd_create("disk", MFD_CLOEXEC);
    FUZZ_CHECK(ram && m->disk >= 0 && ftruncate(m->disk, DISK) == 0);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", m->disk);
    FUZZ_CHECK(block_new(&m->block, &config, NULL) == 0);
    FUZZ_CHECK(driver_init(&m->driver, block_device(m->block), ram, block_loop(m->block)) == 0);
}

/* Chain number `head`: a header with what the input says, then up to five more descriptors. */
static void make_chain(struct machine *m, uint16_t head, struct input *in)
{
    struct test_ring *ring = &m->driver.rings[0];
    uint8_t shape = byte(in), *header = m->driver.ram + HEADERS + 64u * head;
    uint32_t words[2] = {types[byte(in) % ARRAY_SIZE(types)], 0};
    uint64_t sector = (shape & 1) ? number(in, 8) : byte(in);
    uint16_t slot = (uint16_t)(head * 4);
    unsigned count = (shape >> 1) % 6;

    memcpy(header, words, 8);
    memcpy(header + 8, &sector, 8);
    if (shape & 0x10) /* a segment to discard right behind the header */
        for (unsigned i = 16; i < 32; i++)
            header[i] = byte(in);
    ring_desc(ring, slot, HEADERS + 64u * head,
            (shape & 0x20)   ? byte(in)
            : (shape & 0x10) ? 32
                             : 16,
            count ? RING_NEXT : 0, (slot + 1) % DRIVER_RING_SIZE);
    for (unsigned i = 0; i < count; i++) {
        uint8_t flags = byte(in);
        uint64_t addr = (flags & 0x10) ? number(in, 8) : DATA + number(in, 2) * 8;
        uint32_t len = (flags & 0x20) ? (uint32_t)number(in, 4) : (flags & 0x40) ? byte(in) : byte(in) * 512u;

        if (addr <
                DATA) /* else the device would be told to write into the rings, and the check below could not count */
            addr += DATA;
        slot = (slot + 1) % DRIVER_RING_SIZE;
        ring_desc(ring, slot, addr, len, (flags & 6) | (i + 1 < count ? RING_NEXT : 0), (slot + 1) % DRIVER_RING_SIZE);
    }
}

static void restart(struct machine *m, uint8_t flags)
{
    uint64_t features = driver_offered(&m->driver);

    driver_start(&m->driver, (flags & 4) ? features & DRIVER_FEATURES : features);
    driver_serve(&m->driver, 1);
}

static void check(struct machine *m, unsigned offered)
{
    struct test_ring *ring = &m->driver.rings[0];
    uint32_t head, written;
    unsigned used = 0;

    while (ring_take_used(ring, &head, &written)) {
        FUZZ_CHECK(head < DRIVER_RING_SIZE && written >= 1);
        used++;
    }
    FUZZ_CHECK(used <= offered);
    FUZZ_CHECK(used == offered || (driver_read(&m->driver, REG_STATUS) & DRIVER_STATUS_RESET));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.p = data, .left = size};
    uint8_t flags = byte(&in);
    bool read_only = flags & 1;
    struct machine *m = &machines[read_only];
    static uint8_t disk[DISK];

    if (!m->block)
        build(m, read_only);
    restart(m, flags);
    for (unsigned i = 0; i < MAX_REQS && in.left > 0; i++) {
        uint16_t batch = (uint16_t)(1 + byte(&in) % 4);

        for (uint16_t k = 0; k < batch; k++)
            make_chain(m, k, &in);
        for (uint16_t k = 0; k < batch; k++)
            ring_offer(&m->driver.rings[0], (uint16_t)(k * 4));
        driver_kick(&m->driver, 0);
        driver_serve(&m->driver, 6);
        check(m, batch);
        if (driver_read(&m->driver, REG_STATUS) & DRIVER_STATUS_RESET)
            restart(m, flags);
    }
    FUZZ_CHECK(lseek(m->disk, 0, SEEK_END) == DISK);
    if (read_only) {
        FUZZ_CHECK(pread(m->disk, disk, sizeof(disk), 0) == DISK);
        for (size_t i = 0; i < sizeof(disk); i++)
            FUZZ_CHECK(disk[i] == 0);
    }
    return 0;
}
