/* SPDX-License-Identifier: Apache-2.0 */
/* A session and its front-end in one process: what is refused, what survives, what is closed. */
#include "base/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "vhost/session.h"
#include "vhost/test-frontend.h"

struct fixture {
    struct loop loop;
    struct vu_session session;
    struct frontend fe;
};

static const uint8_t config[8] = {3, 0, 0, 0, 0, 0, 0, 0};

static void pump(void *userdata)
{
    struct fixture *f = userdata;

    for (int i = 0; i < 4; i++)
        assert_int_equal(loop_once(&f->loop, 0), 0);
}

static size_t open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void setup(struct fixture *f)
{
    const struct vu_offer offer = {
            .size = sizeof(offer),
            .features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_INDIRECT_DESC | 1ull << VIRTIO_F_EVENT_IDX,
            .config = config,
            .config_size = sizeof(config),
    };
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(loop_init(&f->loop), 0);
    assert_int_equal(vu_session_init(&f->session, &f->loop, pair[0], &offer), 0);
    fe_init(&f->fe, pair[1]);
    f->fe.pump = pump;
    f->fe.userdata = f;
}

static void teardown(struct fixture *f)
{
    fe_deinit(&f->fe);
    vu_session_deinit(&f->session);
    vu_session_deinit(&f->session);
    loop_deinit(&f->loop);
}

static void running(struct fixture *f)
{
    setup(f);
    fe_handshake(&f->fe);
    fe_fresh_driver(&f->fe);
    fe_start(&f->fe, 0, 0);
    assert_non_null(vu_ring_queue(&f->session, 0));
    assert_non_null(vu_ring_queue(&f->session, 1));
}

static void test_starts_and_stops(void **state)
{
    static struct fixture f;
    static struct vq_chain chain;
    size_t before = open_fds();

    running(&f);
    assert_false(f.session.driver_reset);
    assert_int_equal(vq_pop(vu_ring_queue(&f.session, 0), &chain), VQ_CHAIN);
    assert_int_equal(chain.writable_bytes, FE_RX_BUFFER);
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_ENABLE, 0, 0), 0);
    assert_null(vu_ring_queue(&f.session, 0));
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_ENABLE, 0, 1), 0);
    assert_non_null(vu_ring_queue(&f.session, 0));
    assert_int_equal(fe_get_base(&f.fe, 0), 1);
    assert_int_equal(fe_get_base(&f.fe, 0), 1);
    assert_null(vu_ring_queue(&f.session, 0));
    teardown(&f);
    assert_int_equal(open_fds(), before);
}

static void test_pause_keeps_the_driver_and_reboot_does_not(void **state)
{
    static struct fixture f;
    static struct vq_chain chain;

    running(&f);
    assert_int_equal(vq_pop(vu_ring_queue(&f.session, 0), &chain), VQ_CHAIN);
    assert_int_equal(fe_get_base(&f.fe, 0), 1);
    assert_int_equal(fe_get_base(&f.fe, 1), 0);
    fe_start(&f.fe, 1, 0);
    assert_false(f.session.driver_reset);
    assert_int_equal(vq_pop(vu_ring_queue(&f.session, 0), &chain), VQ_CHAIN);
    assert_int_equal(chain.head, 1);

    assert_int_equal(fe_get_base(&f.fe, 0), 2);
    assert_int_equal(fe_get_base(&f.fe, 1), 0);
    fe_fresh_driver(&f.fe);
    fe_start(&f.fe, 0, 0);
    assert_true(f.session.driver_reset);
    f.session.driver_reset = false;
    assert_int_equal(fe_order(&f.fe, VU_RESET_DEVICE, NULL, 0, NULL, 0), 0);
    assert_true(f.session.driver_reset);
    assert_null(vu_ring_queue(&f.session, 0));
    teardown(&f);
}

static void test_without_protocol_features_rings_are_enabled(void **state)
{
    static struct fixture f;

    setup(&f);
    fe_handshake(&f.fe);
    assert_int_equal(fe_order_u64(&f.fe, VU_SET_FEATURES, 1ull << VIRTIO_F_VERSION_1), 0);
    fe_fresh_driver(&f.fe);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_NUM, i, FE_RING_SIZE), 0);
        assert_int_equal(fe_set_addr(&f.fe, i), 0);
        assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, i, f.fe.kick[i]), 0);
        assert_non_null(vu_ring_queue(&f.session, i));
    }
    teardown(&f);
}

static void test_config(void **state)
{
    static struct fixture f;
    uint32_t payload[5] = {0, 8, 0};

    setup(&f);
    fe_handshake(&f.fe);
    fe_send(&f.fe, VU_GET_CONFIG, FE_PLAIN, payload, 20, NULL, 0);
    assert_true(fe_recv(&f.fe, VU_GET_CONFIG, payload, 20));
    assert_memory_equal(&payload[3], config, 8);
    payload[0] = 4;
    fe_send(&f.fe, VU_GET_CONFIG, FE_PLAIN, payload, 20, NULL, 0);
    assert_true(fe_recv(&f.fe, VU_GET_CONFIG, payload, 0));
    payload[0] = UINT32_MAX;
    fe_send(&f.fe, VU_GET_CONFIG, FE_PLAIN, payload, 20, NULL, 0);
    assert_true(fe_recv(&f.fe, VU_GET_CONFIG, payload, 0));
    assert_int_equal(fe_order(&f.fe, VU_SET_CONFIG, payload, 20, NULL, 0), 1);
    teardown(&f);
}

static void test_orders_that_are_refused(void **state)
{
    static struct fixture f;
    uint64_t addr[5] = {0};

    setup(&f);
    fe_handshake(&f.fe);
    fe_fresh_driver(&f.fe);
    assert_int_equal(fe_order_u64(&f.fe, VU_SET_FEATURES, UINT64_MAX), 1);
    assert_int_equal(fe_order_u64(&f.fe, VU_SET_FEATURES, f.fe.features | 1ull << 26), 1); /* LOG_ALL */
    assert_int_equal(fe_order_u64(&f.fe, VU_SET_PROTOCOL_FEATURES, UINT64_MAX), 1);
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_NUM, 2, 128), 1);
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_NUM, 0, 0), 1);
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_NUM, 0, 65536), 1);
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_BASE, 0, 65536), 1);
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_ENABLE, 0, 2), 1);
    assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, 0, -1), 1);
    assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, 7, f.fe.kick[0]), 1);
    assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, 0, f.fe.kick[0]), 1); /* no addresses yet */
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_NUM, 0, FE_RING_SIZE), 0);
    assert_int_equal(fe_order(&f.fe, VU_SET_VRING_ADDR, addr, sizeof(addr), NULL, 0), 0);
    addr[0] = 1ull << 32; /* logging */
    assert_int_equal(fe_order(&f.fe, VU_SET_VRING_ADDR, addr, sizeof(addr), NULL, 0), 1);
    assert_int_equal(fe_order(&f.fe, 200, NULL, 0, NULL, 0), 1);
    /* A file that epoll can't watch is no kick. */
    assert_int_equal(fe_set_addr(&f.fe, 0), 0);
    assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, 0, f.fe.memfd), 1);
    assert_false(f.session.rings[0].queue.started);
    assert_false(f.session.ended);
    assert_int_equal(f.session.nfds, 0);
    teardown(&f);
}

/* Nonsense of the guest that a front-end passes on: the session goes on, and a driver that begins anew is served. */
static void test_rings_that_the_guest_put_wrong(void **state)
{
    static struct fixture f;
    uint64_t nowhere[5] = {0}, across[5] = {0};

    setup(&f);
    fe_handshake(&f.fe);
    fe_fresh_driver(&f.fe);
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_NUM, 0, FE_RING_SIZE), 0);
    assert_int_equal(fe_order(&f.fe, VU_SET_VRING_ADDR, nowhere, sizeof(nowhere), NULL, 0), 0);
    assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, 0, f.fe.kick[0]), 0);
    assert_false(f.session.rings[0].queue.started);
    across[1] = across[2] = across[3] = f.session.mappings[0].user_addr + f.session.mappings[0].size - 16;
    assert_int_equal(fe_order(&f.fe, VU_SET_VRING_ADDR, across, sizeof(across), NULL, 0), 0);
    assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, 0, f.fe.kick[0]), 0);
    assert_false(f.session.rings[0].queue.started);
    assert_int_equal(fe_set_addr(&f.fe, 0), 0);
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_NUM, 0, 100), 0);
    assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, 0, f.fe.kick[0]), 0);
    assert_false(f.session.rings[0].queue.started);
    assert_null(vu_ring_queue(&f.session, 0));
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_NUM, 0, FE_RING_SIZE), 0);
    assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, 0, f.fe.kick[0]), 0);
    assert_true(f.session.rings[0].queue.started);
    assert_false(f.session.ended);
    teardown(&f);
}

static void test_a_running_ring_is_left_alone(void **state)
{
    static struct fixture f;

    running(&f);
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_NUM, 0, 64), 1);
    assert_int_equal(fe_order_vring(&f.fe, VU_SET_VRING_BASE, 0, 7), 1);
    assert_int_equal(fe_set_addr(&f.fe, 0), 1);
    assert_int_equal(fe_order_u64(&f.fe, VU_SET_FEATURES, 0), 1);
    assert_int_equal(fe_order_u64(&f.fe, VU_SET_FEATURES, f.fe.features), 0);
    assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, 0, f.fe.kick[1]), 0);
    assert_non_null(vu_ring_queue(&f.session, 0));
    teardown(&f);
}

static void test_memory_tables_that_are_refused(void **state)
{
    static struct fixture f;
    struct vu_region regions[2];
    int fds[2];
    int null_fd = open("/dev/zero", O_RDWR | O_CLOEXEC);

    running(&f);
    fds[0] = fds[1] = f.fe.memfd;
#define REFUSED(count, change)                                                                                         \
    do {                                                                                                               \
        regions[0] = regions[1] = fe_region();                                                                         \
        regions[1].gpa += FE_RAM_SIZE;                                                                                 \
        change;                                                                                                        \
        assert_int_equal(fe_set_memory(&f.fe, regions, fds, count), 1);                                                \
    } while (0)
    REFUSED(1, regions[0].size = 0);
    REFUSED(1, regions[0].size = FE_RAM_SIZE + 4096);
    REFUSED(1, regions[0].size = UINT64_MAX);
    REFUSED(1, regions[0].mmap_offset = 4096);
    REFUSED(1, regions[0].mmap_offset = UINT64_MAX - 4095);
    REFUSED(1, (regions[0].mmap_offset = 100, regions[0].size = 4096));
    REFUSED(1, regions[0].gpa = UINT64_MAX - 4095);
    REFUSED(1, regions[0].user_addr = UINT64_MAX - 4095);
    REFUSED(2, regions[1].gpa = FE_GPA_BASE + 4096);
    fds[0] = null_fd;
    REFUSED(1, (void)0);
    fds[0] = f.fe.sock;
    REFUSED(1, (void)0);
    /* The old table and its rings are as they were. */
    assert_int_equal(f.session.mapping_count, 1);
    assert_non_null(vu_ring_queue(&f.session, 0));
    fds[0] = f.fe.memfd;
    regions[0] = fe_region();
    assert_int_equal(ftruncate(f.fe.memfd, FE_RAM_SIZE - 4096), 0);
    assert_int_equal(fe_set_memory(&f.fe, regions, fds, 1), 1);
    assert_int_equal(ftruncate(f.fe.memfd, FE_RAM_SIZE), 0);
    fd_close(null_fd);
    teardown(&f);
}

static void test_memory_changes_under_running_rings(void **state)
{
    static struct fixture f;
    static struct vq_chain chain;
    struct vu_region regions[2] = {fe_region(), fe_region()};
    int fds[2];

    running(&f);
    fds[0] = fds[1] = f.fe.memfd;
    assert_int_equal(vq_pop(vu_ring_queue(&f.session, 0), &chain), VQ_CHAIN);
    regions[0].size = regions[1].size = FE_RAM_SIZE / 2;
    regions[1].gpa += FE_RAM_SIZE / 2;
    regions[1].user_addr += FE_RAM_SIZE / 2;
    regions[1].mmap_offset += FE_RAM_SIZE / 2;
    assert_int_equal(fe_set_memory(&f.fe, regions, fds, 2), 0);
    assert_int_equal(vq_pop(vu_ring_queue(&f.session, 0), &chain), VQ_CHAIN);
    assert_int_equal(chain.head, 1);
    /* Without the region that holds the rings they stop, and know where. */
    assert_int_equal(fe_set_memory(&f.fe, &regions[1], fds, 1), 1);
    assert_null(vu_ring_queue(&f.session, 0));
    assert_null(vu_ring_queue(&f.session, 1));
    assert_int_equal(fe_get_base(&f.fe, 0), 2);
    assert_int_equal(fe_set_memory(&f.fe, NULL, NULL, 0), 0);
    assert_int_equal(f.session.mapping_count, 0);
    teardown(&f);
}

/* What can't be answered ends the session, with all its descriptors closed. */
static void test_bad_messages_end_the_session(void **state)
{
    static const struct {
        uint32_t request, flags, size;
        size_t nfds;
    } cases[] = {
            {VU_SET_OWNER, 0, 0, 0},
            {VU_SET_OWNER, FE_REPLY, 0, 0},
            {VU_SET_OWNER, FE_PLAIN, 1, 0},
            {VU_SET_OWNER, FE_PLAIN, 0, 1},
            {VU_SET_FEATURES, FE_PLAIN, 4, 0},
            {VU_SET_CONFIG, FE_PLAIN, VU_MAX_PAYLOAD + 1, 0},
            {VU_SET_MEM_TABLE, FE_PLAIN, 8, 1},
            {VU_SET_MEM_TABLE, FE_NEED_REPLY, 8, 8},
            {VU_SET_MEM_TABLE, FE_PLAIN, 8, 9},
            {VU_SET_VRING_KICK, FE_PLAIN, 8, 0},
            {VU_SET_VRING_KICK, FE_PLAIN, 8, 2},
            {VU_GET_VRING_BASE, FE_PLAIN, 4, 0},
            {99, FE_PLAIN, 0, 0},
            {UINT32_MAX, FE_PLAIN, 0, 0},
    };
    uint8_t zeroes[1024] = {0};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        static struct fixture f;
        size_t before = open_fds();
        int fds[16];

        setup(&f);
        for (size_t j = 0; j < ARRAY_SIZE(fds); j++)
            fds[j] = f.fe.kick[0];
        fe_send(&f.fe, cases[i].request, cases[i].flags, zeroes, cases[i].size, fds, cases[i].nfds);
        assert_true(f.session.ended);
        assert_true(f.session.error < 0);
        teardown(&f);
        assert_int_equal(open_fds(), before);
    }
}

static void test_pieces_and_ends(void **state)
{
    static struct fixture f;
    static const uint8_t get[12] = {VU_GET_FEATURES, 0, 0, 0, 1};
    uint64_t answer;

    setup(&f);
    for (size_t i = 0; i < sizeof(get); i++) {
        assert_int_equal(unix_send_fds(f.fe.sock, get + i, 1, NULL, 0), 1);
        pump(&f);
    }
    assert_true(fe_recv(&f.fe, VU_GET_FEATURES, &answer, sizeof(answer)));
    assert_int_equal(unix_send_fds(f.fe.sock, get, 5, &f.fe.kick[0], 1), 5);
    pump(&f);
    assert_false(f.session.ended);
    assert_int_equal(shutdown(f.fe.sock, SHUT_RDWR), 0);
    pump(&f);
    assert_true(f.session.ended);
    assert_int_equal(f.session.error, 0);
    teardown(&f);
}

static void test_a_front_end_that_does_not_listen(void **state)
{
    static struct fixture f;
    static const uint8_t get[12] = {VU_GET_FEATURES, 0, 0, 0, 1};

    setup(&f);
    for (int i = 0; i < 100000 && !f.session.ended; i++) {
        if (send(f.fe.sock, get, sizeof(get), MSG_NOSIGNAL) < 0)
            break;
        pump(&f);
    }
    assert_true(f.session.ended);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_starts_and_stops),
            cmocka_unit_test(test_pause_keeps_the_driver_and_reboot_does_not),
            cmocka_unit_test(test_without_protocol_features_rings_are_enabled),
            cmocka_unit_test(test_config),
            cmocka_unit_test(test_orders_that_are_refused),
            cmocka_unit_test(test_rings_that_the_guest_put_wrong),
            cmocka_unit_test(test_a_running_ring_is_left_alone),
            cmocka_unit_test(test_memory_tables_that_are_refused),
            cmocka_unit_test(test_memory_changes_under_running_rings),
            cmocka_unit_test(test_bad_messages_end_the_session),
            cmocka_unit_test(test_pieces_and_ends),
            cmocka_unit_test(test_a_front_end_that_does_not_listen),
    };

    log_init("test", LOG_ERROR, 2);
    return cmocka_run_group_tests_name("vhost-user session", tests, NULL, NULL);
}
