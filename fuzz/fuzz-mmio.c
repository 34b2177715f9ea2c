/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All virtio devices behind their registers under a hostile driver: two disks,
 * entropy, balloon, vsock. The input is a script: register accesses of every
 * width, writes into guest memory, ready made descriptors and vsock packets,
 * kicks, resets, and what the host does meanwhile, its programs at the vsock's
 * unix sockets included. Guest memory is one heap block per device, so that
 * ASan sees its ends. The serial console and the keyboard controller have
 * fuzz-ports.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

#include "fuzz.h"
#include "input.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/test-driver.h"
#include "vsock/vsock.h"

#define DISK        0x8000u
#define CLEARED     0x20000u /* of guest memory, for each input: all that a script writes */
#define MAX_OPS     400
#define READ_ONLY   0
#define CID         3u
#define HOSTS       4u      /* programs of the host at the vsock, at once */
#define CONNECTIONS 6u      /* of the vsock: hosts and guest meet the limit */
#define PORT        1u      /* of the host, where a program listens */
#define TX          1u      /* the vsock's queue for the guest's packets */
#define RX_HEADER   0x8000u /* a packet may answer the one that was received here */
#define TX_HEADER   0x9000u

enum { RNG = 2, BALLOON, VSOCK, DEVICES };
enum op { OP_READ, OP_WRITE, OP_MEMORY, OP_KICK, OP_SERVE, OP_START, OP_DESC, OP_OFFER, OP_HOST, OP_PACKET, OP_COUNT_ };

static struct {
    struct driver drivers[DEVICES];
    struct block *blocks[2];
    struct rng *rng;
    struct balloon *balloon;
    struct vsock_dev *vsock;
    struct loop loop;
    int disks[2];
    char dir[32], uds[48]; /* the vsock's sockets */
    int listener, hosts[HOSTS];
} m;

static uint32_t dword(struct input *in)
{
    uint32_t low = word(in);

    return low | (uint32_t)word(in) << 16;
}

static struct block *new_block(unsigned i)
{
    char path[32], id[] = "d";
    struct drive_config config = {
            .drive_id = id, .path_on_host = path, .is_read_only = i == READ_ONLY, .writeback = i != READ_ONLY};
    struct block *block = NULL;

    m.disks[i] = memfd_create("disk", MFD_CLOEXEC);
    FUZZ_CHECK(m.disks[i] >= 0 && ftruncate(m.disks[i], DISK) == 0);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", m.disks[i]);
    FUZZ_CHECK(block_new(&block, &config, NULL) == 0);
    return block;
}

static void connect_driver(unsigned i, struct virtio_device *dev, struct loop *loop)
{
    uint8_t *ram = aligned_alloc(4096, DRIVER_RAM);

    FUZZ_CHECK(ram && driver_init(&m.drivers[i], dev, ram, loop) == 0);
}

static void remove_files(void)
{
    char path[64];

    vsock_dev_free(m.vsock);
    (void)snprintf(path, sizeof(path), "%s_%u", m.uds, PORT);
    (void)unlink(path);
    (void)rmdir(m.dir);
}

static void build_vsock(void)
{
    struct vsock_config config = {.uds_path = m.uds, .guest_cid = CID};
    char path[64];

    (void)snprintf(m.dir, sizeof(m.dir), "/tmp/fuzz-mmio-XXXXXX");
    FUZZ_CHECK(mkdtemp(m.dir));
    (void)snprintf(m.uds, sizeof(m.uds), "%s/v", m.dir);
    (void)snprintf(path, sizeof(path), "%s_%u", m.uds, PORT);
    FUZZ_CHECK(unix_listen(path, 64, &m.listener) == 0 && fd_set_nonblock(m.listener, true) == 0);
    FUZZ_CHECK(vsock_dev_new(&m.vsock, &config, CONNECTIONS, &m.loop, NULL) == 0);
    connect_driver(VSOCK, vsock_dev_device(m.vsock), &m.loop);
    vsock_dev_connect(m.vsock, &m.drivers[VSOCK].mmio);
    for (unsigned i = 0; i < HOSTS; i++)
        m.hosts[i] = -1;
    (void)atexit(remove_files);
}

static void build(void)
{
    struct balloon_config config = {.present = true, .deflate_on_oom = true, .stats_polling_interval_s = 1};

    log_init("fuzz", LOG_ERROR, STDERR_FILENO);
    FUZZ_CHECK(loop_init(&m.loop) == 0);
    for (unsigned i = 0; i < 2; i++) {
        m.blocks[i] = new_block(i);
        connect_driver(i, block_device(m.blocks[i]), block_loop(m.blocks[i]));
    }
    FUZZ_CHECK(rng_new(&m.rng, &m.loop, NULL) == 0);
    connect_driver(RNG, rng_device(m.rng), &m.loop);
    rng_connect(m.rng, &m.drivers[RNG].mmio);
    FUZZ_CHECK(balloon_new(&m.balloon, &config, &m.drivers[BALLOON].mem, &m.loop, NULL) == 0);
    connect_driver(BALLOON, balloon_device(m.balloon), &m.loop);
    balloon_connect(m.balloon, &m.drivers[BALLOON].mmio);
    build_vsock();
}

static void start(struct driver *d, uint8_t flags)
{
    uint64_t features = driver_offered(d);

    if (flags & 1)
        features &= ~(1ull << VIRTIO_F_EVENT_IDX);
    if (flags & 2)
        features &= ~(1ull << VIRTIO_F_INDIRECT_DESC);
    if (flags & 4)
        features &= DRIVER_FEATURES;
    if ((flags & 0xf0) == 0xf0)
        features ^= 1ull << (flags & 63);
    driver_start(d, features);
}

/* One program of the host does one thing at the vsock. */
static void host_program(struct input *in)
{
    static uint8_t bytes[VSOCK_MAX_PKT_PAYLOAD];
    uint8_t what = byte(in);
    int *fd = &m.hosts[what % HOSTS];
    uint32_t len;

    switch (what / HOSTS % 8) {
    case 0: /* a program calls the guest */
        if (*fd < 0)
            (void)unix_connect(m.uds, true, fd);
        break;
    case 1: /* the listener takes the guest's call */
        if (*fd < 0)
            *fd = accept4(m.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        break;
    case 2:
        len = (uint32_t)snprintf((char *)bytes, sizeof(bytes), "CONNECT %u\n", byte(in));
        (void)send(*fd, bytes, len, MSG_NOSIGNAL);
        break;
    case 3:
        (void)send(*fd, bytes, word(in), MSG_NOSIGNAL);
        break;
    case 4:
        (void)recv(*fd, bytes, word(in) + 1u, MSG_DONTWAIT);
        break;
    case 5:
        (void)shutdown(*fd, byte(in) % 3);
        break;
    case 6:
        fd_close(*fd);
        *fd = -1;
        break;
    case 7:
        vsock_dev_transport_reset(m.vsock);
        break;
    }
}

/* Of the guest's choice, or an answer to what it received. */
static void packet(struct input *in)
{
    struct driver *d = &m.drivers[VSOCK];
    struct test_ring *ring = &d->rings[TX];
    struct vsock_hdr hdr, seen;
    uint8_t flags = byte(in), ports = byte(in);
    uint32_t len = word(in);

    if (ring->size == 0)
        return;
    vsock_hdr_decode(&seen, d->ram + RX_HEADER);
    hdr = (struct vsock_hdr){.src_cid = CID,
            .dst_cid = VSOCK_HOST_CID,
            .src_port = flags & 0x10 ? seen.dst_port : ports & 7u,
            .dst_port = flags & 0x10 ? seen.src_port : ports >> 3 & 7u,
            .type = VSOCK_TYPE_STREAM,
            .op = (flags & 15) % 9,
            .flags = ports >> 6,
            .buf_alloc = word(in) * 8u,
            .fwd_cnt = flags & 0x20 ? word(in) : 0};
    hdr.len = hdr.op == VSOCK_OP_RW || (flags & 0x40) ? len : 0;
    vsock_hdr_encode(d->ram + TX_HEADER, &hdr);
    ring_desc(ring, 0, TX_HEADER, VSOCK_HDR_SIZE, hdr.len > 0 ? RING_NEXT : 0, 1);
    ring_desc(ring, 1, TX_HEADER + VSOCK_HDR_SIZE, hdr.len, 0, 0);
    ring_offer(ring, 0);
    driver_kick(d, TX);
    driver_serve(d, 1);
}

static void host(unsigned i, struct input *in)
{
    struct driver *d = &m.drivers[i];
    struct balloon_stats stats;
    uint8_t what;

    if (i == VSOCK) {
        host_program(in);
        return;
    }
    what = byte(in);
    switch (what % 5) {
    case 0:
        virtio_mmio_run(&d->mmio);
        break;
    case 1:
        virtio_mmio_lock(&d->mmio);
        virtio_mmio_unlock(&d->mmio, true);
        break;
    case 2:
        balloon_set_target(m.balloon, what);
        break;
    case 3:
        balloon_stats(m.balloon, &stats);
        break;
    case 4: /* somebody cuts the disk under the guest, and mends it */
        FUZZ_CHECK(ftruncate(m.disks[READ_ONLY], what * 64) == 0);
        driver_serve(d, 1);
        FUZZ_CHECK(ftruncate(m.disks[READ_ONLY], DISK) == 0);
        break;
    }
}

static void step(unsigned i, struct input *in)
{
    struct driver *d = &m.drivers[i];
    enum op op = byte(in) % OP_COUNT_;
    struct test_ring *ring = &d->rings[0];
    uint32_t reg, len, at, addr;
    uint8_t data[8] = {0};

    if (op == OP_DESC || op == OP_OFFER) {
        ring = &d->rings[byte(in) % VIRTIO_MAX_QUEUES];
        if (ring->size == 0)
            return;
    }
    switch (op) {
    case OP_READ:
    case OP_WRITE:
        len = 1u << (byte(in) % 4);
        reg = word(in) & (d->range.size - 1) & ~(len - 1);
        if (op == OP_WRITE) {
            for (uint32_t k = 0; k < MIN(len, 4u); k++)
                data[k] = byte(in);
            d->range.write(d->range.device, reg, data, len);
        } else {
            d->range.read(d->range.device, reg, data, len);
        }
        break;
    case OP_MEMORY:
        at = word(in);
        len = byte(in) % 32;
        for (uint32_t k = 0; k < len; k++)
            d->ram[at + k] = byte(in);
        break;
    case OP_KICK:
        driver_kick(d, byte(in));
        break;
    case OP_SERVE:
        driver_serve(d, 1 + byte(in) % 3);
        break;
    case OP_START:
        start(d, byte(in));
        break;
    case OP_DESC:
        reg = byte(in) % DRIVER_RING_SIZE;
        addr = dword(in);
        len = dword(in);
        at = byte(in); /* flags and the next one */
        ring_desc(ring, (uint16_t)reg, addr, len, at & 7, (uint16_t)(at >> 3));
        break;
    case OP_OFFER:
        ring_offer(ring, byte(in));
        break;
    case OP_HOST:
        host(i, in);
        break;
    case OP_PACKET:
        packet(in);
        break;
    case OP_COUNT_:
        break;
    }
}

static void check(struct driver *d)
{
    uint32_t status = driver_read(d, REG_STATUS);
    const struct virtio_device *dev = d->mmio.dev;

    FUZZ_CHECK(status <= 0xff && (status & 0x30) == 0);
    FUZZ_CHECK(dev->live == ((status & 0xc4) == 4));
    FUZZ_CHECK(driver_read(d, REG_INTERRUPT_STATUS) <= 3);
    for (unsigned q = 0; q < VIRTIO_MAX_QUEUES; q++)
        FUZZ_CHECK(!dev->queues[q].started || dev->live);
    FUZZ_CHECK(!dev->live || !(dev->driver_features & ~(dev->features | DRIVER_FEATURES)));
}

static void reset(void)
{
    for (unsigned i = 0; i < DEVICES; i++) {
        driver_write(&m.drivers[i], REG_STATUS, 0);
        memset(m.drivers[i].ram, 0, CLEARED);
        memset(m.drivers[i].rings, 0, sizeof(m.drivers[i].rings));
    }
}

/* Host programs close, the driver is reset: nothing of the vsock may stay. */
static void end_connections(void)
{
    struct vsock_stats stats;
    int fd;

    for (unsigned i = 0; i < HOSTS; i++) {
        fd_close(m.hosts[i]);
        m.hosts[i] = -1;
    }
    driver_write(&m.drivers[VSOCK], REG_STATUS, 0);
    driver_serve(&m.drivers[VSOCK], 8);
    while ((fd = accept4(m.listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        fd_close(fd);
    vsock_dev_get_stats(m.vsock, &stats);
    FUZZ_CHECK(stats.connections == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.p = data, .left = size};
    static uint8_t disk[DISK];

    if (!m.blocks[0])
        build();
    reset();
    for (unsigned op = 0; op < MAX_OPS && in.left > 0; op++) {
        unsigned i = byte(&in) % DEVICES;

        step(i, &in);
        check(&m.drivers[i]);
    }
    end_connections();
    FUZZ_CHECK(pread(m.disks[READ_ONLY], disk, sizeof(disk), 0) == DISK);
    for (size_t i = 0; i < sizeof(disk); i++)
        FUZZ_CHECK(disk[i] == 0);
    FUZZ_CHECK(lseek(m.disks[1], 0, SEEK_END) == DISK);
    return 0;
}
