/* SPDX-License-Identifier: Apache-2.0 */
/* The vsock device from the guest's registers and queues to real unix sockets. */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/test-driver.h"
#include "vsock/vsock.h"

#define CID        42u
#define RX         0u
#define TX         1u
#define EVENT      2u
#define RX_BUFFER  4096u
#define RX_DATA    DRIVER_DATA
#define EVENT_DATA 0x30000u
#define TX_DATA    0x40000u
#define TX_PAYLOAD 0x41000u
#define PAYLOAD    65536u

static struct driver guest;
static uint8_t ram[DRIVER_RAM] __attribute__((aligned(4096)));
static struct loop loop;
static struct vsock_dev *dev;
static char dir[] = "/tmp/test-vsock-dev-XXXXXX";
static char uds[64];
static struct vsock_config config;
static uint8_t payload[PAYLOAD];

/* The guest's half of the one connection that a test has. */
static uint32_t guest_port, host_port, received;

static void post_rx(uint16_t i)
{
    ring_desc(&guest.rings[RX], i, RX_DATA + i * RX_BUFFER, RX_BUFFER, RING_WRITE, 0);
    ring_offer(&guest.rings[RX], i);
}

static void start(void)
{
    driver_start(&guest, DRIVER_FEATURES);
    for (uint16_t i = 0; i < DRIVER_RING_SIZE; i++)
        post_rx(i);
    ring_desc(&guest.rings[EVENT], 0, EVENT_DATA, 8, RING_WRITE, 0);
    ring_offer(&guest.rings[EVENT], 0);
    driver_kick(&guest, RX);
    driver_kick(&guest, EVENT);
    received = 0;
}

static int setup_stopped(void **state)
{
    struct vm_error error = {{0}};

    config = (struct vsock_config){.uds_path = uds, .guest_cid = CID};
    assert_int_equal(loop_init(&loop), 0);
    if (vsock_dev_new(&dev, &config, 0, &loop, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(driver_init(&guest, vsock_dev_device(dev), ram, &loop), 0);
    vsock_dev_connect(dev, &guest.mmio);
    return 0;
}

static int setup(void **state)
{
    (void)setup_stopped(state);
    start();
    driver_serve(&guest, 4);
    return 0;
}

static int teardown(void **state)
{
    virtio_mmio_deinit(&guest.mmio);
    vsock_dev_free(dev);
    dev = NULL;
    loop_deinit(&loop);
    assert_int_equal(access(uds, F_OK), -1);
    return 0;
}

/* Waits up to two seconds for a packet of the host. */
static bool receive(struct vsock_hdr *hdr, uint8_t *data)
{
    uint64_t end = deadline_after_ms(2000);
    uint32_t head, len;

    while (!ring_take_used(&guest.rings[RX], &head, &len)) {
        if (clock_now_ms() > end)
            return false;
        assert_int_equal(loop_once(&loop, 1), 0);
    }
    assert_in_range(len, VSOCK_HDR_SIZE, RX_BUFFER);
    vsock_hdr_decode(hdr, ram + RX_DATA + head * RX_BUFFER);
    assert_int_equal(hdr->len, len - VSOCK_HDR_SIZE);
    assert_int_equal(hdr->src_cid, VSOCK_HOST_CID);
    assert_int_equal(hdr->dst_cid, CID);
    memcpy(data, ram + RX_DATA + head * RX_BUFFER + VSOCK_HDR_SIZE, hdr->len);
    received += hdr->len;
    post_rx((uint16_t)head);
    driver_kick(&guest, RX);
    return true;
}

static void expect(enum vsock_op op, struct vsock_hdr *hdr)
{
    static uint8_t data[RX_BUFFER];

    *hdr = (struct vsock_hdr){0};
    if (!receive(hdr, data))
        fail_msg("no packet, expected op %d", op);
    assert_int_equal(hdr->op, op);
}

static void send_packet(enum vsock_op op, const void *data, uint32_t len)
{
    struct vsock_hdr hdr = {.src_cid = CID,
            .dst_cid = VSOCK_HOST_CID,
            .src_port = guest_port,
            .dst_port = host_port,
            .len = len,
            .type = VSOCK_TYPE_STREAM,
            .op = (uint16_t)op,
            .buf_alloc = 1u << 20,
            .fwd_cnt = received};
    struct test_ring *tx = &guest.rings[TX];
    uint32_t head = 0, written = UINT32_MAX;

    vsock_hdr_encode(ram + TX_DATA, &hdr);
    if (len > 0)
        memcpy(ram + TX_PAYLOAD, data, len);
    ring_desc(tx, 0, TX_DATA, VSOCK_HDR_SIZE, len > 0 ? RING_NEXT : 0, 1);
    ring_desc(tx, 1, TX_PAYLOAD, len, 0, 0);
    ring_offer(tx, 0);
    driver_kick(&guest, TX);
    driver_serve(&guest, 2);
    assert_true(ring_take_used(tx, &head, &written));
    assert_int_equal(written, 0);
}

static int dial(void)
{
    int fd;

    assert_int_equal(unix_connect(uds, false, &fd), 0);
    assert_int_equal(write(fd, "CONNECT 1234\n", 13), 13);
    return fd;
}

static void expect_text(int fd, const char *text)
{
    char got[64];
    size_t len = strlen(text);

    driver_serve(&guest, 4);
    assert_int_equal(recv(fd, got, len, MSG_DONTWAIT), len);
    assert_memory_equal(got, text, len);
}

static void expect_closed(int fd)
{
    char c;

    for (uint64_t end = deadline_after_ms(1000); clock_now_ms() < end;) {
        assert_int_equal(loop_once(&loop, 1), 0);
        if (recv(fd, &c, 1, MSG_DONTWAIT) == 0)
            return;
        assert_int_equal(errno, EAGAIN);
    }
    fail_msg("the connection stays open");
}

static int connect_to_guest(void)
{
    struct vsock_hdr hdr;
    char ok[32];
    int fd = dial();

    expect(VSOCK_OP_REQUEST, &hdr);
    assert_int_equal(hdr.dst_port, 1234);
    guest_port = 1234;
    host_port = hdr.src_port;
    send_packet(VSOCK_OP_RESPONSE, NULL, 0);
    (void)snprintf(ok, sizeof(ok), "OK %u\n", host_port);
    expect_text(fd, ok);
    return fd;
}

static void read_exactly(int fd, uint8_t *to, size_t len)
{
    uint64_t end = deadline_after_ms(5000);

    while (len > 0 && clock_now_ms() < end) {
        ssize_t n = recv(fd, to, len, MSG_DONTWAIT);

        assert_int_equal(loop_once(&loop, 1), 0);
        to += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(len, 0);
}

static void test_registers(void **state)
{
    assert_int_equal(driver_read(&guest, REG_DEVICE_ID), 19);
    assert_int_equal(driver_read(&guest, REG_CONFIG), CID);
    assert_int_equal(driver_read(&guest, REG_CONFIG + 4), 0);
    driver_write(&guest, REG_QUEUE_SEL, 2);
    assert_true(driver_read(&guest, REG_QUEUE_NUM_MAX) >= 128);
    driver_write(&guest, REG_QUEUE_SEL, 3);
    assert_int_equal(driver_read(&guest, REG_QUEUE_NUM_MAX), 0);
    assert_int_equal(driver_read(&guest, REG_STATUS), DRIVER_STATUS_OK);
}

static void test_echo(void **state)
{
    static uint8_t got[PAYLOAD];
    struct vsock_hdr hdr;
    size_t len = 0;
    int fd = connect_to_guest();

    for (size_t i = 0; i < PAYLOAD; i++)
        payload[i] = (uint8_t)(i * 7 + i / 256);
    assert_int_equal(write(fd, payload, PAYLOAD), PAYLOAD);
    (void)driver_interrupts(&guest);
    ring_set_used_event(&guest.rings[RX], ring_used_idx(&guest.rings[RX]));
    while (len < PAYLOAD && receive(&hdr, got + len)) { /* never more than is left: an expected op and length */
        assert_int_equal(hdr.op, VSOCK_OP_RW);
        len += hdr.len;
        assert_true(len <= PAYLOAD);
    }
    assert_int_equal(len, PAYLOAD);
    assert_memory_equal(got, payload, PAYLOAD);
    assert_true(driver_interrupts(&guest) > 0);

    send_packet(VSOCK_OP_RW, got, PAYLOAD); /* one packet */
    memset(got, 0, sizeof(got));
    read_exactly(fd, got, PAYLOAD);
    assert_memory_equal(got, payload, PAYLOAD);
    fd_close(fd);
    do
        expect(VSOCK_OP_SHUTDOWN, &hdr);
    while (hdr.flags != 3);
}

static void test_refused_by_guest(void **state)
{
    struct vsock_hdr hdr;
    int fd = dial();

    expect(VSOCK_OP_REQUEST, &hdr);
    guest_port = hdr.dst_port;
    host_port = hdr.src_port;
    send_packet(VSOCK_OP_RST, NULL, 0);
    expect_closed(fd);
    fd_close(fd);
}

static void test_guest_to_host(void **state)
{
    struct vsock_hdr hdr;
    char path[80];
    int listener, fd;

    guest_port = 700;
    host_port = 5000;
    send_packet(VSOCK_OP_REQUEST, NULL, 0);
    expect(VSOCK_OP_RST, &hdr); /* nobody listens */
    (void)snprintf(path, sizeof(path), "%s_5000", uds);
    assert_int_equal(unix_listen(path, 1, &listener), 0);
    send_packet(VSOCK_OP_REQUEST, NULL, 0);
    expect(VSOCK_OP_RESPONSE, &hdr);
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    send_packet(VSOCK_OP_RW, "hello", 5);
    expect_text(fd, "hello");
    fd_close(fd);
    fd_close(listener);
    (void)unlink(path);
}

/* Reset while connected: the host learns of it without a driver coming back, and the listener stays. */
static void test_reset(void **state)
{
    int fd = connect_to_guest();

    driver_write(&guest, REG_STATUS, 0);
    expect_closed(fd);
    fd_close(fd);
    start();
    fd = connect_to_guest();
    driver_write(&guest, REG_STATUS, 0); /* and with one coming back at once */
    start();
    expect_closed(fd);
    fd_close(fd);
    fd_close(connect_to_guest());
}

/* A driver resets its device before it uses it for the first time. */
static void test_host_before_guest(void **state)
{
    struct vsock_hdr hdr;
    int fd = dial();
    char c;

    driver_serve(&guest, 10);
    driver_write(&guest, REG_STATUS, 0);
    driver_serve(&guest, 10);
    start();
    expect(VSOCK_OP_REQUEST, &hdr);
    assert_int_equal(recv(fd, &c, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    fd_close(fd);
}

static void test_broken_queue(void **state)
{
    int fd = connect_to_guest();

    ring_set_avail_idx(&guest.rings[TX], (uint16_t)(guest.rings[TX].avail_idx + 1000));
    driver_kick(&guest, TX);
    driver_serve(&guest, 4);
    assert_true(driver_read(&guest, REG_STATUS) & DRIVER_STATUS_RESET);
    expect_closed(fd);
    fd_close(fd);
    start();
    fd_close(connect_to_guest());
}

static void test_transport_reset(void **state)
{
    int fd = connect_to_guest();
    uint32_t head = 0, len = 0;

    memset(ram + EVENT_DATA, 0xff, 8);
    driver_serve(&guest, 4);
    assert_false(ring_take_used(&guest.rings[EVENT], &head, &len));
    vsock_dev_transport_reset(dev);
    assert_true(ring_take_used(&guest.rings[EVENT], &head, &len));
    assert_int_equal(len, 4);
    assert_memory_equal(ram + EVENT_DATA, "\0\0\0\0\xff", 5);
    expect_closed(fd);
    fd_close(fd);
    fd_close(connect_to_guest());
}

/* A vCPU that resets all the time, beside hosts that come and go. */
static void *restless(void *arg)
{
    for (int i = 0; i < 3000; i++)
        start();
    __atomic_store_n((bool *)arg, true, __ATOMIC_RELEASE);
    return NULL;
}

static void test_reset_beside_hosts(void **state)
{
    pthread_t thread;
    bool done = false;

    assert_int_equal(pthread_create(&thread, NULL, restless, &done), 0);
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
        int fd = dial();

        for (int i = 0; i < 5; i++)
            assert_int_equal(loop_once(&loop, 0), 0);
        fd_close(fd);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    start();
    driver_serve(&guest, 20);
    assert_int_equal(driver_read(&guest, REG_STATUS), DRIVER_STATUS_OK);
}

static void expect_error(const char *path, uint32_t cid, int code, const char *text)
{
    struct vsock_config bad = {.uds_path = (char *)path, .guest_cid = cid};
    struct vm_error error = {{0}};
    struct vsock_dev *none = NULL;

    assert_int_equal(vsock_dev_new(&none, &bad, 0, &loop, &error), code);
    assert_null(none);
    if (!strstr(error.text, text))
        fail_msg("'%s' is not in '%s'", text, error.text);
}

static void test_errors(void **state)
{
    char path[200];
    struct stat st;
    int fd;

    assert_int_equal(stat(uds, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    expect_error(uds, CID, -EADDRINUSE, "address in use; remove the file");
    assert_int_equal(access(uds, F_OK), 0); /* still the other's */
    (void)snprintf(path, sizeof(path), "%s/stale", dir);
    assert_int_equal(unix_listen(path, 1, &fd), 0);
    fd_close(fd);
    expect_error(path, CID, -EADDRINUSE, path);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(path, sizeof(path), "%s/none/v", dir);
    expect_error(path, CID, -ENOENT, path);
    memset(path, 'x', 108);
    path[108] = '\0';
    expect_error(path, CID, -ENAMETOOLONG, "108 bytes");
    expect_error(uds, 2, -EINVAL, "guest_cid 2 is reserved");
}

/* What somebody put in the socket's place is not ours to remove. */
static void test_unlinks_its_own(void **state)
{
    int fd;

    assert_int_equal(unlink(uds), 0);
    fd = open(uds, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    fd_close(fd);
    virtio_mmio_deinit(&guest.mmio);
    vsock_dev_free(dev);
    assert_int_equal(access(uds, F_OK), 0);
    assert_int_equal(unlink(uds), 0);
    assert_int_equal(vsock_dev_new(&dev, &config, 0, &loop, NULL), 0); /* for teardown */
    assert_int_equal(driver_init(&guest, vsock_dev_device(dev), ram, &loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
            cmocka_unit_test_setup_teardown(test_echo, setup, teardown),
            cmocka_unit_test_setup_teardown(test_refused_by_guest, setup, teardown),
            cmocka_unit_test_setup_teardown(test_guest_to_host, setup, teardown),
            cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
            cmocka_unit_test_setup_teardown(test_host_before_guest, setup_stopped, teardown),
            cmocka_unit_test_setup_teardown(test_broken_queue, setup, teardown),
            cmocka_unit_test_setup_teardown(test_transport_reset, setup, teardown),
            cmocka_unit_test_setup_teardown(test_reset_beside_hosts, setup, teardown),
            cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
            cmocka_unit_test_setup_teardown(test_unlinks_its_own, setup, teardown),
    };
    int r;

    log_init("test-vsock", LOG_ERROR, STDERR_FILENO);
    if (!mkdtemp(dir))
        return 1;
    (void)snprintf(uds, sizeof(uds), "%s/v.sock", dir);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    (void)rmdir(dir);
    return r;
}
