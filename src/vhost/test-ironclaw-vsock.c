/* SPDX-License-Identifier: Apache-2.0 */
/* The real program (its path is the only argument) with a front-end and a tiny guest driver. */
#include "base/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "vhost/test-frontend.h"
#include "vsock/vsock.h"

#define GUEST_CID  5u
#define WAIT_MS    5000
#define QUIET_MS   100
#define SERVICE    1234u
#define GUEST_PORT 777u

static const char *program;

struct fixture {
    char dir[64], uds[96], sock[96];
    pid_t pid;
    int stderr_fd;
    struct frontend fe;
    bool has_fe;
};

/* argv ends with NULL. `keep` is inherited as it is. */
static void spawn(struct fixture *f, const char *const *argv, int keep)
{
    int err[2];

    assert_int_equal(pipe2(err, O_CLOEXEC), 0);
    f->pid = fork();
    assert_true(f->pid >= 0);
    if (f->pid == 0) {
        if (keep >= 0)
            (void)fd_set_cloexec(keep, false);
        (void)dup2(err[1], 2);
        (void)execv(program, (char *const *)argv);
        _exit(99);
    }
    fd_close(err[1]);
    f->stderr_fd = err[0];
}

static void setup_dir(struct fixture *f)
{
    *f = (struct fixture){.stderr_fd = -1, .fe = {.sock = -1}};
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/ironclaw-vsock-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->uds, sizeof(f->uds), "%s/v.sock", f->dir);
    (void)snprintf(f->sock, sizeof(f->sock), "%s/fe.sock", f->dir);
}

static int wait_exit(struct fixture *f)
{
    uint64_t deadline = deadline_after_ms(WAIT_MS);
    int status;

    while (waitpid(f->pid, &status, WNOHANG) == 0) {
        if (deadline_poll_ms(deadline) == 0) {
            (void)kill(f->pid, SIGKILL);
            (void)waitpid(f->pid, &status, 0);
            fail_msg("ironclaw-vsock did not end");
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    f->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The program has ended: what it said, and nothing of it is left. */
static void finish(struct fixture *f, const char *said)
{
    char text[4096] = {0};
    ssize_t n = read(f->stderr_fd, text, sizeof(text) - 1);

    assert_int_equal(f->pid, 0);
    if (said)
        assert_non_null(strstr(text, said));
    else
        assert_int_equal(n, 0);
    fd_close(f->stderr_fd);
    if (f->has_fe)
        fe_deinit(&f->fe);
    assert_int_equal(access(f->uds, F_OK), -1);
    assert_int_equal(access(f->sock, F_OK), -1);
    assert_int_equal(rmdir(f->dir), 0);
}

static void start_pair(struct fixture *f)
{
    char fd_text[16];
    int pair[2];
    const char *argv[] = {program, "--guest-cid", "5", "--uds-path", f->uds, "--fd", fd_text, NULL};

    setup_dir(f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    (void)snprintf(fd_text, sizeof(fd_text), "%d", pair[0]);
    spawn(f, argv, pair[0]);
    fd_close(pair[0]);
    fe_init(&f->fe, pair[1]);
    f->has_fe = true;
    fe_handshake(&f->fe);
    fe_fresh_driver(&f->fe);
    fe_start(&f->fe, 0, 0);
}

static void start_listening(struct fixture *f, const char *linger_ms)
{
    const char *argv[] = {
            program, "--guest-cid=5", "--uds-path", f->uds, "--socket", f->sock, "--linger-ms", linger_ms, NULL};

    setup_dir(f);
    spawn(f, argv, -1);
}

static int connect_soon(const char *path)
{
    uint64_t deadline = deadline_after_ms(WAIT_MS);
    int fd, r;

    while ((r = unix_connect(path, false, &fd)) < 0) {
        assert_true(r == -ENOENT || r == -ECONNREFUSED);
        assert_true(deadline_poll_ms(deadline) > 0);
        (void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return fd;
}

static void attach(struct fixture *f)
{
    fe_init(&f->fe, connect_soon(f->sock));
    f->has_fe = true;
    fe_handshake(&f->fe);
    fe_fresh_driver(&f->fe);
    fe_start(&f->fe, 0, 0);
}

static void send_packet(struct fixture *f, struct vsock_hdr hdr, const char *payload)
{
    uint8_t bytes[VSOCK_HDR_SIZE];

    hdr.src_cid = GUEST_CID;
    hdr.dst_cid = VSOCK_HOST_CID;
    hdr.type = VSOCK_TYPE_STREAM;
    hdr.buf_alloc = 1u << 18;
    hdr.len = (uint32_t)strlen(payload);
    vsock_hdr_encode(bytes, &hdr);
    fe_transmit(&f->fe, bytes, payload, hdr.len);
}

/* The next packet for the guest; those that only speak of credit are passed over. */
static struct vsock_hdr get_packet(struct fixture *f, char *ret_payload, int timeout_ms)
{
    static uint8_t packet[FE_RX_BUFFER];
    struct vsock_hdr hdr = {0};
    uint32_t len;

    do {
        len = fe_receive(&f->fe, packet, timeout_ms);
        if (len == 0)
            return (struct vsock_hdr){0};
        assert_true(len >= VSOCK_HDR_SIZE);
        vsock_hdr_decode(&hdr, packet);
        assert_int_equal(hdr.len, len - VSOCK_HDR_SIZE);
        assert_int_equal(hdr.dst_cid, GUEST_CID);
    } while (hdr.op == VSOCK_OP_CREDIT_UPDATE || hdr.op == VSOCK_OP_CREDIT_REQUEST);
    if (ret_payload) {
        memcpy(ret_payload, packet + VSOCK_HDR_SIZE, hdr.len);
        ret_payload[hdr.len] = '\0';
    }
    return hdr;
}

static void expect_text(int fd, const char *text)
{
    char got[256] = {0};

    assert_int_equal(fd_read_all(fd, got, strlen(text), deadline_after_ms(WAIT_MS)), 0);
    assert_string_equal(got, text);
}

/* A host program connects, both sides speak. Returns its socket; the guest's view is in *ret_hdr for answers. */
static int host_connects(struct fixture *f, struct vsock_hdr *ret_hdr)
{
    int fd = connect_soon(f->uds);
    char text[FE_RX_BUFFER + 1];
    struct vsock_hdr hdr;

    assert_int_equal(fd_write_all(fd, "CONNECT 777\n", 12, deadline_after_ms(WAIT_MS)), 0);
    hdr = get_packet(f, text, WAIT_MS);
    assert_int_equal(hdr.op, VSOCK_OP_REQUEST);
    assert_int_equal(hdr.dst_port, GUEST_PORT);
    *ret_hdr = (struct vsock_hdr){.src_port = GUEST_PORT, .dst_port = hdr.src_port, .op = VSOCK_OP_RESPONSE};
    send_packet(f, *ret_hdr, "");
    (void)snprintf(text, sizeof(text), "OK %u\n", hdr.src_port);
    expect_text(fd, text);
    ret_hdr->op = VSOCK_OP_RW;
    send_packet(f, *ret_hdr, "from the guest");
    expect_text(fd, "from the guest");
    assert_int_equal(fd_write_all(fd, "from the host", 13, deadline_after_ms(WAIT_MS)), 0);
    hdr = get_packet(f, text, WAIT_MS);
    assert_int_equal(hdr.op, VSOCK_OP_RW);
    assert_string_equal(text, "from the host");
    return fd;
}

static int guest_connects(struct fixture *f)
{
    char path[128], text[FE_RX_BUFFER + 1];
    struct vsock_hdr hdr = {.src_port = 50000, .dst_port = SERVICE, .op = VSOCK_OP_REQUEST};
    int listener, fd;

    (void)snprintf(path, sizeof(path), "%s_%u", f->uds, SERVICE);
    assert_int_equal(unix_listen(path, 1, &listener), 0);
    send_packet(f, hdr, "");
    assert_int_equal(get_packet(f, NULL, WAIT_MS).op, VSOCK_OP_RESPONSE);
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    fd_close(listener);
    assert_int_equal(unlink(path), 0);
    hdr.op = VSOCK_OP_RW;
    send_packet(f, hdr, "request");
    expect_text(fd, "request");
    assert_int_equal(fd_write_all(fd, "answer", 6, deadline_after_ms(WAIT_MS)), 0);
    assert_int_equal(get_packet(f, text, WAIT_MS).op, VSOCK_OP_RW);
    assert_string_equal(text, "answer");
    return fd;
}

/* -1 when the system does not let us look: the program is not dumpable, so only root may. */
static int count_fds(pid_t pid)
{
    char path[64];
    DIR *dir;
    int count = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    if (!dir)
        return -1;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void leave(struct fixture *f)
{
    fe_deinit(&f->fe);
    f->has_fe = false;
}

static void test_config_is_the_cid(void **state)
{
    struct fixture f;
    uint32_t payload[5] = {0, 8, 0};

    start_pair(&f);
    fe_send(&f.fe, VU_GET_CONFIG, FE_PLAIN, payload, 20, NULL, 0);
    assert_true(fe_recv(&f.fe, VU_GET_CONFIG, payload, 20));
    assert_int_equal(payload[3], GUEST_CID);
    assert_int_equal(payload[4], 0);
    leave(&f);
    assert_int_equal(wait_exit(&f), 0);
    finish(&f, NULL);
}

static void test_connections_both_ways(void **state)
{
    struct fixture f;
    struct vsock_hdr hdr;
    struct stat st;
    int host, guest;

    start_pair(&f);
    assert_int_equal(stat(f.uds, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    host = host_connects(&f, &hdr);
    guest = guest_connects(&f);
    fd_close(host);
    hdr = get_packet(&f, NULL, WAIT_MS);
    assert_true(hdr.op == VSOCK_OP_SHUTDOWN || hdr.op == VSOCK_OP_RST);
    /* The VM goes: the other host program sees its connection end. */
    leave(&f);
    assert_int_equal(wait_exit(&f), 0);
    assert_true(read(guest, &(char){0}, 1) <= 0);
    fd_close(guest);
    finish(&f, NULL);
}

static void test_many_packets(void **state)
{
    struct fixture f;
    struct vsock_hdr hdr;
    char text[FE_RX_BUFFER + 1];
    int host;

    start_pair(&f);
    host = host_connects(&f, &hdr);
    /* Past the rings' ends and past 65,535. */
    for (unsigned i = 0; i < 70000; i++) {
        char want[16];

        (void)snprintf(want, sizeof(want), "%u\n", i);
        send_packet(&f, hdr, want);
        expect_text(host, want);
        if (i % 16 != 0)
            continue;
        assert_int_equal(fd_write_all(host, want, strlen(want), deadline_after_ms(WAIT_MS)), 0);
        hdr.fwd_cnt += (uint32_t)strlen(want);
        assert_int_equal(get_packet(&f, text, WAIT_MS).op, VSOCK_OP_RW);
        assert_string_equal(text, want);
    }
    fd_close(host);
    leave(&f);
    assert_int_equal(wait_exit(&f), 0);
    finish(&f, NULL);
}

static void test_reconnect(void **state)
{
    struct fixture f;
    struct vsock_hdr hdr;
    int host, before = -1;

    start_listening(&f, "60000");
    for (int i = 0; i < 3; i++) {
        attach(&f);
        host = host_connects(&f, &hdr);
        leave(&f);
        assert_true(read(host, &(char){0}, 1) <= 0); /* every connection ends with its front-end */
        fd_close(host);
        attach(&f); /* which also waits until the session is gone */
        if (i == 0)
            before = count_fds(f.pid);
        assert_int_equal(count_fds(f.pid), before);
        leave(&f);
    }
    if (before < 0)
        print_message("cannot look into /proc/PID/fd: leak check not done\n");
    attach(&f); /* a broken session is over, the next one is welcome */
    fe_send(&f.fe, VU_SET_OWNER, 0, NULL, 0, NULL, 0);
    assert_int_equal(read(f.fe.sock, &(char){0}, 1), 0);
    leave(&f);
    attach(&f);
    assert_int_equal(kill(f.pid, SIGTERM), 0);
    assert_int_equal(wait_exit(&f), 0);
    finish(&f, "broke the protocol");
}

static void test_linger_ends(void **state)
{
    struct fixture f;

    start_listening(&f, "50");
    attach(&f);
    leave(&f);
    assert_int_equal(wait_exit(&f), 0);
    finish(&f, NULL);
}

static void test_no_descriptor_leaks(void **state)
{
    struct fixture f;
    struct vsock_hdr hdr;
    int before, after;

    start_pair(&f);
    before = count_fds(f.pid);
    for (int i = 0; i < 50; i++) {
        int fd = host_connects(&f, &hdr);

        hdr.op = VSOCK_OP_RST;
        send_packet(&f, hdr, "");
        assert_true(read(fd, &(char){0}, 1) <= 0);
        fd_close(fd);
        for (uint32_t ring = 0; ring < 2; ring++) {
            assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_CALL, ring, f.fe.call[ring]), 0);
            assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, ring, f.fe.kick[ring]), 0);
            assert_int_equal(fe_order_fd(&f.fe, VU_SET_VRING_KICK, ring, -1), 1);
        }
        assert_int_equal(fe_order_u64(&f.fe, VU_SET_FEATURES, UINT64_MAX), 1);
    }
    after = count_fds(f.pid);
    if (before < 0)
        print_message("cannot look into /proc/PID/fd: leak check not done\n");
    assert_int_equal(after, before);
    leave(&f);
    assert_int_equal(wait_exit(&f), 0);
    finish(&f, "refused");
}

static void test_broken_ring_rests_until_reset(void **state)
{
    struct fixture f;
    struct vsock_hdr hdr;
    struct test_ring *tx;

    start_pair(&f);
    fd_close(host_connects(&f, &hdr));
    tx = &f.fe.rings[1];
    ring_set_avail_idx(tx, (uint16_t)(tx->avail_idx + 5000));
    assert_int_equal(write(f.fe.kick[1], &(uint64_t){1}, 8), 8);
    while (get_packet(&f, NULL, QUIET_MS).op != 0)
        ;
    /* The protocol still works, and a driver that starts afresh is served. */
    (void)fe_get_base(&f.fe, 0);
    (void)fe_get_base(&f.fe, 1);
    fe_fresh_driver(&f.fe);
    fe_start(&f.fe, 0, 0);
    fd_close(host_connects(&f, &hdr));
    leave(&f);
    assert_int_equal(wait_exit(&f), 0);
    finish(&f, "guest broke its tx queue: available index jumped");
}

static void test_bad_message_ends_the_process(void **state)
{
    struct fixture f;

    start_pair(&f);
    fe_send(&f.fe, 12345, FE_PLAIN, NULL, 0, NULL, 0);
    assert_int_equal(wait_exit(&f), 3);
    finish(&f, "broke the protocol");
}

static void test_signals_end_it(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT};

    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        struct fixture f;

        start_pair(&f);
        assert_int_equal(kill(f.pid, signals[i]), 0);
        assert_int_equal(wait_exit(&f), 0);
        finish(&f, NULL);
    }
}

/* A driver that leaves at each level; what is missing ends the process with 148. */
static void test_levels(void **state)
{
    static const char *const options[][2] = {
            {"--seccomp-level", "basic"}, {"--seccomp-level", "permissive"}, {"--log-level", "info"}, {"--no-seccomp"}};

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        struct fixture f;
        struct vsock_hdr hdr;
        const char *argv[] = {
                program, "--guest-cid=5", "--uds-path", f.uds, "--socket", f.sock, options[i][0], options[i][1], NULL};

        setup_dir(&f);
        spawn(&f, argv, -1);
        attach(&f);
        fd_close(host_connects(&f, &hdr));
        leave(&f);
        assert_int_equal(wait_exit(&f), 0);
        if (strcmp(options[i][0], "--no-seccomp") == 0)
            finish(&f, "no seccomp filters");
        else
            finish(&f, i == 2 ? "front-end left" : i == 1 ? "" : NULL);
    }
}

/* It ends by itself, and only then --hold-fd is closed. */
static void test_lifetime(void **state)
{
    struct fixture f;
    char fd_text[16], byte;
    int pair[2];

    assert_int_equal(pipe2(pair, O_CLOEXEC | O_NONBLOCK), 0);
    (void)snprintf(fd_text, sizeof(fd_text), "%d", pair[1]);
    setup_dir(&f);
    spawn(&f,
            (const char *[]){program, "--guest-cid=5", "--uds-path", f.uds, "--socket", f.sock, "--max-lifetime-ms=200",
                    "--hold-fd", fd_text, NULL},
            pair[1]);
    fd_close(pair[1]);
    fd_close(connect_soon(f.uds)); /* it has closed what it is not to hold */
    assert_int_equal(read(pair[0], &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(wait_exit(&f), 124);
    assert_int_equal(read(pair[0], &byte, 1), 0);
    fd_close(pair[0]);
    finish(&f, "the lifetime of 200 ms is over (--max-lifetime-ms)");
}

static void usage_error(const char *said, const char *const *argv)
{
    struct fixture f;

    setup_dir(&f);
    spawn(&f, argv, -1);
    assert_int_equal(wait_exit(&f), 2);
    finish(&f, said);
}

static void test_usage(void **state)
{
#define USAGE(said, ...) usage_error(said, (const char *[]){program, __VA_ARGS__, NULL})
    USAGE("--guest-cid is missing", "--uds-path", "/tmp/x", "--socket", "/tmp/y");
    USAGE("--guest-cid 2", "--guest-cid", "2");
    USAGE("--guest-cid 4294967295", "--guest-cid", "4294967295");
    USAGE("--guest-cid -1", "--guest-cid", "-1");
    USAGE("--guest-cid 3x", "--guest-cid", "3x");
    USAGE("--uds-path is missing", "--guest-cid", "3", "--socket", "/tmp/y");
    USAGE("exactly one", "--guest-cid", "3", "--uds-path", "/tmp/x");
    USAGE("--fd 700", "--fd", "700");
    USAGE("--fd 1", "--fd", "1");
    USAGE("--log-level loud", "--log-level", "loud");
    USAGE("--seccomp-level none", "--seccomp-level", "none");
    USAGE("--max-connections 0", "--max-connections", "0");
    USAGE("--max-connections 1024", "--max-connections", "1024");
    USAGE("--max-lifetime-ms 4294967296", "--max-lifetime-ms", "4294967296");
    USAGE("--hold-fd 700", "--hold-fd", "700");
    USAGE("--hold-fd 2", "--hold-fd", "2");
    USAGE("--audit-fd 1:", "--audit-fd", "1");
    USAGE("--audit-fd 700:", "--audit-fd", "700");
    USAGE("unexpected argument", "--guest-cid", "3", "word");
    USAGE("unrecognized option", "--nonsense");
}

static void test_paths_that_fail(void **state)
{
    struct fixture f;
    int fd;

    start_listening(&f, "0");
    fd = connect_soon(f.sock);
    fd_close(fd);
    assert_int_equal(wait_exit(&f), 0);
    finish(&f, NULL);

    setup_dir(&f);
    spawn(&f, (const char *[]){program, "--guest-cid=3", "--uds-path=/nonexistent/v", "--socket", f.sock, NULL}, -1);
    assert_int_equal(wait_exit(&f), 1);
    finish(&f, "cannot listen at /nonexistent/v: No such file");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_config_is_the_cid),
            cmocka_unit_test(test_connections_both_ways),
            cmocka_unit_test(test_many_packets),
            cmocka_unit_test(test_reconnect),
            cmocka_unit_test(test_linger_ends),
            cmocka_unit_test(test_no_descriptor_leaks),
            cmocka_unit_test(test_broken_ring_rests_until_reset),
            cmocka_unit_test(test_bad_message_ends_the_process),
            cmocka_unit_test(test_signals_end_it),
            cmocka_unit_test(test_levels),
            cmocka_unit_test(test_lifetime),
            cmocka_unit_test(test_usage),
            cmocka_unit_test(test_paths_that_fail),
    };

    if (argc != 2)
        return 2;
    program = argv[1];
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("ironclaw-vsock", tests, NULL, NULL);
}
