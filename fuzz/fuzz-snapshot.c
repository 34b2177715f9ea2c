/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state file of a snapshot and everything that is loaded from it without
 * KVM: the table of parts, host and configuration, and the state of every
 * device, into fresh ones on fake memory, which are then driven a little, as
 * a guest that goes on would.
 *
 * The first byte says what the rest is: a file as it is, or, as no fuzzer
 * finds checksums, pieces (u8 part, u8 index, u16 length, bytes) of which a
 * file with right ones is made.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

#include "fuzz.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/ioapic.h"
#include "monitor/devices/test-driver.h"
#include "monitor/layout.h"
#include "monitor/snapshot/machine.h"

#define DISK       0x8000u
#define SCRIPT_MAX 4096u /* bytes of guest memory that an input may fill, from DRIVER_RINGS on */
#define PART_RAM   0xffu /* a piece that is no part: guest memory */

enum { DISK_RO, DISK_RW, RNG, BALLOON, DEVICES };

static struct {
    struct loop loop;
    int disk;
    uint8_t *ram;
    struct vm_error error;
} m;

static void set_up(void)
{
    static bool done;

    if (done)
        return;
    done = true;
    log_init("fuzz", LOG_ERROR, open("/dev/null", O_WRONLY | O_CLOEXEC));
    m.disk = memfd_create("disk", MFD_CLOEXEC);
    m.ram = aligned_alloc(4096, DRIVER_RAM);
    FUZZ_CHECK(m.ram && m.disk >= 0 && ftruncate(m.disk, DISK) == 0);
}

static struct block *new_block(bool read_only)
{
    char path[32], id[] = "d";
    struct drive_config config = {
            .drive_id = id, .path_on_host = path, .is_read_only = read_only, .writeback = !read_only};
    struct block *block = NULL;

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", m.disk);
    FUZZ_CHECK(block_new(&block, &config, NULL) == 0);
    return block;
}

/* What a device does with what it was given, and then with a driver that knows nothing of it. */
static void drive(struct driver *d)
{
    virtio_mmio_go_on(&d->mmio);
    driver_serve(d, 4);
    for (uint64_t reg = 0; reg < 0x100; reg += 4)
        (void)driver_read(d, reg);
    for (unsigned i = 0; i < d->mmio.dev->queue_count; i++)
        driver_kick(d, i);
    driver_serve(d, 4);
    driver_start(d, DRIVER_FEATURES);
    driver_serve(d, 4);
}

static void load_virtio(const struct snapshot *snapshot, uint32_t index, struct virtio_device *dev, struct loop *loop)
{
    struct driver d = {.ram = m.ram, .loop = loop};
    struct rd rd;
    int r;

    FUZZ_CHECK(gmem_add(&d.mem, (struct gpa){0}, DRIVER_RAM, m.ram) == 0);
    FUZZ_CHECK(virtio_mmio_init(&d.mmio, dev, &d.mem, driver_irq(&d), loop) == 0);
    d.range = virtio_mmio_range(&d.mmio, 0);
    if (snapshot_part(snapshot, SNAPSHOT_VIRTIO, index, &rd, &m.error) == 0) {
        r = virtio_mmio_load(&d.mmio, &rd, &m.error);
        r = snapshot_part_end(snapshot, SNAPSHOT_VIRTIO, index, &rd, r, &m.error);
        FUZZ_CHECK(r <= 0);
        if (r == 0)
            drive(&d);
    }
    virtio_mmio_deinit(&d.mmio);
}

static void load_devices(const struct snapshot *snapshot)
{
    struct balloon_config config = {.present = true, .stats_polling_interval_s = 1000};
    struct block *ro = new_block(true), *rw = new_block(false);
    struct gmem mem = {0};
    struct balloon *balloon = NULL;
    struct rng *rng = NULL;

    FUZZ_CHECK(gmem_add(&mem, (struct gpa){0}, DRIVER_RAM, m.ram) == 0);
    FUZZ_CHECK(loop_init(&m.loop) == 0);
    FUZZ_CHECK(balloon_new(&balloon, &config, &mem, &m.loop, NULL) == 0 && rng_new(&rng, &m.loop, NULL) == 0);
    load_virtio(snapshot, DISK_RO, block_device(ro), block_loop(ro));
    load_virtio(snapshot, DISK_RW, block_device(rw), block_loop(rw));
    load_virtio(snapshot, RNG, rng_device(rng), &m.loop);
    load_virtio(snapshot, BALLOON, balloon_device(balloon), &m.loop);
    block_free(ro);
    block_free(rw);
    balloon_free(balloon);
    rng_free(rng);
    loop_deinit(&m.loop);
}

/* Every register, read and written with all it has. */
static void use_ports(const struct bus_range *range)
{
    uint8_t byte;

    for (uint64_t port = 0; port < range->size; port++) {
        range->read(range->device, port, &byte, 1);
        byte = 0xa5;
        range->write(range->device, port, &byte, 1);
        range->read(range->device, port, &byte, 1);
    }
}

static void ignore_reset(void *userdata)
{
}

static void check_message(void *userdata, uint32_t address, uint32_t data)
{
    FUZZ_CHECK((address & ~0xff004u) == LAYOUT_APIC && data <= 0x7ff);
}

static void load_ports(const struct snapshot *snapshot)
{
    struct ioapic ioapic;
    struct serial_options options = {.size = sizeof(options), .loop = &m.loop, .input_fd = -1, .output_fd = -1};
    struct serial *serial = NULL;
    struct i8042 *kbd = NULL;
    struct bus_range range;
    struct rd rd;

    ioapic_init(&ioapic, check_message, NULL);
    options.irq = ioapic_line(&ioapic, LAYOUT_SERIAL_IRQ);
    if (snapshot_part(snapshot, SNAPSHOT_IOAPIC, 0, &rd, &m.error) == 0 && ioapic_load(&ioapic, &rd, &m.error) == 0) {
        range = ioapic_range(&ioapic);
        use_ports(&range);
    }
    FUZZ_CHECK(loop_init(&m.loop) == 0 && serial_new(&serial, &options, NULL) == 0);
    FUZZ_CHECK(i8042_new(&kbd, ioapic_line(&ioapic, LAYOUT_I8042_IRQ), ignore_reset, NULL) == 0);
    if (snapshot_part(snapshot, SNAPSHOT_SERIAL, 0, &rd, &m.error) == 0 && serial_load(serial, &rd, &m.error) == 0) {
        serial_range(serial, &range);
        use_ports(&range);
    }
    if (snapshot_part(snapshot, SNAPSHOT_KEYBOARD, 0, &rd, &m.error) == 0 && i8042_load(kbd, &rd, &m.error) == 0) {
        i8042_range(kbd, &range);
        use_ports(&range);
    }
    serial_free(serial);
    i8042_free(kbd);
    loop_deinit(&m.loop);
}

static void load(const void *bytes, size_t len)
{
    struct vm_config config = {0};
    struct snapshot_host host;
    struct snapshot snapshot;

    if (snapshot_open(&snapshot, bytes, len, "input", &m.error) < 0)
        return;
    if (snapshot_get_host(&snapshot, &host, &m.error) == 0)
        (void)snapshot_check_host(&host, &host, "input", &m.error);
    if (snapshot_get_config(&snapshot, &config, &m.error) == 0) {
        struct buf buf = {0};

        FUZZ_CHECK(config.machine.vcpu_count > 0 && config.machine.vcpu_count <= VM_MAX_VCPUS);
        FUZZ_CHECK(config.drive_count <= VM_MAX_DRIVES);
        snapshot_put_config(&buf, &config);
        FUZZ_CHECK(buf.error == 0);
        buf_deinit(&buf);
    }
    vm_config_deinit(&config);
    load_devices(&snapshot);
    load_ports(&snapshot);
}

static void load_pieces(struct rd *rd)
{
    struct snapshot_writer writer = {0};
    struct buf file = {0};

    while (rd->left > 0 && writer.count < SNAPSHOT_MAX_PARTS) {
        uint8_t part = rd_u8(rd), index = rd_u8(rd);
        size_t len = MIN((size_t)rd_le16(rd), rd->left);
        const uint8_t *bytes = rd_bytes(rd, len);

        if (!bytes)
            break;
        if (part == PART_RAM)
            memcpy(m.ram + DRIVER_RINGS, bytes, MIN(len, (size_t)SCRIPT_MAX));
        else
            buf_put(snapshot_begin(&writer, part, index), bytes, len);
    }
    if (snapshot_finish(&writer, (const uint8_t[SNAPSHOT_ID_BYTES]){1}, &file) == 0 && writer.count > 0)
        load(file.data, file.len);
    snapshot_writer_deinit(&writer);
    buf_deinit(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rd rd = rd_of(data, size);

    set_up();
    memset(m.ram, 0, DRIVER_RAM);
    if (rd_u8(&rd) == 0)
        load(rd.p, rd.left);
    else
        load_pieces(&rd);
    return 0;
}
