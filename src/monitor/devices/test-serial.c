/* SPDX-License-Identifier: Apache-2.0 */
/* The UART as drivers probe it, and its output against hosts that do not read, stop reading, or run out of file. */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/serial-output.h"
#include "monitor/devices/test-port.h"

#define FLOOD_BYTES ((uint64_t)100 << 20)
#define FLOOD_MS    15000u /* under a sanitizer it stops there */

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define FCR IIR

static struct loop loop;
static struct serial *serial;
static char dir[] = "/tmp/test-serial-XXXXXX";
static char path[64];

static int setup(void **state)
{
    assert_int_equal(loop_init(&loop), 0);
    raises = 0;
    (void)unlink(path);
    return 0;
}

static int teardown(void **state)
{
    serial_free(serial);
    serial = NULL;
    loop_deinit(&loop);
    return 0;
}

static int open_serial(int input, int output, const char *output_path, struct vm_error *error)
{
    struct serial_options options = {.size = sizeof(options),
            .loop = &loop,
            .input_fd = input,
            .output_fd = output,
            .output_path = output_path,
            .irq = irq};
    int r = serial_new(&serial, &options, error);

    if (r == 0)
        serial_range(serial, &range);
    return r;
}

static void turn(unsigned ms)
{
    uint64_t end = deadline_after_ms(ms);

    while (clock_now_ms() < end)
        assert_int_equal(loop_once(&loop, 1), 0);
}

/* What a driver does before it believes in a 16550A. */
static void test_probe(void **state)
{
    unsigned n = 0;

    assert_int_equal(range.base, 0x3f8);
    assert_int_equal(range.size, 8);
    out(IER, 0);
    assert_int_equal(in(IER), 0);
    out(IER, 0xff);
    assert_int_equal(in(IER), 0x0f);
    out(IER, 0);
    out(SCR, 0xa5);
    assert_int_equal(in(SCR), 0xa5);

    out(MCR, 0x1a); /* loop, OUT2, RTS: DCD and CTS */
    assert_int_equal(in(MSR)&0xf0, 0x90);
    out(MCR, 0x15); /* loop, OUT1, DTR: RI and DSR */
    assert_int_equal(in(MSR), 0x60);
    out(MCR, 0);
    assert_int_equal(in(MSR)&0xf0, 0xb0);

    out(LCR, 0xbf);
    out(FCR, 0);
    out(LCR, 0);
    assert_int_equal(in(IIR), 0x01);
    out(FCR, 0x01);
    assert_int_equal(in(IIR) >> 6, 3);
    out(FCR, 0x21); /* a 16750's 64 bytes are not there */
    assert_int_equal(in(IIR) >> 5, 6);

    out(LCR, 0x83);
    out(DATA, 0x01);
    out(IER, 0x02);
    assert_int_equal(in(DATA), 0x01);
    assert_int_equal(in(IER), 0x02);
    out(LCR, 0x03);
    assert_int_equal(in(LCR), 0x03);
    assert_int_equal(in(IER), 0x00);

    out(FCR, 0x07); /* how deep is the FIFO */
    out(MCR, 0x10);
    for (unsigned i = 0; i < 256; i++)
        out(DATA, (uint8_t)i);
    assert_int_equal(in(LSR), 0x61);
    while (n < 256 && in(LSR)&1)
        assert_int_equal(in(DATA), n++);
    assert_int_equal(n, 16);
    assert_int_equal(in(DATA), 0);
    out(DATA, 1);
    out(FCR, 0x03);
    assert_int_equal(in(LSR), 0x60);
    out(FCR, 0);
    out(DATA, 1);
    out(DATA, 2);
    assert_int_equal(in(DATA), 1); /* one byte deep without FIFO */
    assert_int_equal(in(LSR), 0x60);
    out(MCR, 0);
}

static void test_wide_access(void **state)
{
    static const uint8_t four[4] = {0x00, 0x05, 0x01, 0x13};
    uint8_t got[8];

    range.write(range.device, 0, four, sizeof(four));
    range.read(range.device, 0, got, sizeof(got));
    assert_int_equal(got[1], 0x05);
    assert_int_equal(got[2], 0xc1);
    assert_int_equal(got[3], 0x13);
    assert_int_equal(got[5], 0x60);
}

static void test_interrupts(void **state)
{
    assert_false(raised());
    out(DATA, 'x');
    assert_false(raised()); /* not enabled */
    out(IER, 0x02);
    assert_true(raised());
    assert_int_equal(in(IIR), 0x02);
    assert_int_equal(in(IIR), 0x01); /* reading it was the acknowledgement */
    out(IER, 0);
    out(IER, 0x02); /* enabled again while empty: it comes again */
    assert_true(raised());
    out(IER, 0x02);
    assert_false(raised());
    assert_int_equal(in(IIR), 0x02);
    out(DATA, 'a'); /* one edge for a burst */
    assert_true(raised());
    out(DATA, 'b');
    assert_false(raised());
    assert_int_equal(in(IIR), 0x02);
    out(DATA, 'c');
    assert_true(raised());

    out(MCR, 0x10);
    assert_int_equal(in(IIR), 0x02);
    out(IER, 0x0d);
    assert_false(raised());
    out(DATA, 1);
    assert_true(raised());
    assert_int_equal(in(IIR), 0x04);
    in(DATA);
    assert_int_equal(in(IIR), 0x01);
}

/* The n-th byte that the guest sends: neither digits nor brackets, so that markers stand out. */
static uint8_t nth(uint64_t n)
{
    return (uint8_t)('a' + n % 26);
}

/* Follows the guest's bytes through an output with markers. */
struct follow {
    uint64_t at; /* of the guest's bytes, dropped ones included */
    unsigned markers;
    char marker[64];
    size_t marker_len;
};

static void follow(struct follow *f, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char *end;

        if (f->marker_len == 0 && bytes[i] != '\r') {
            assert_int_equal(bytes[i], nth(f->at));
            f->at++;
            continue;
        }
        assert_true(f->marker_len < sizeof(f->marker) - 1);
        f->marker[f->marker_len++] = (char)bytes[i];
        f->marker[f->marker_len] = '\0';
        if (bytes[i] != '\n' || f->marker_len < 3)
            continue;
        assert_memory_equal(f->marker, "\r\n[", 3);
        f->at += strtoull(f->marker + 3, &end, 10);
        assert_string_equal(end, " bytes dropped]\r\n");
        f->markers++;
        f->marker_len = 0;
    }
}

struct guest {
    uint64_t bytes;
    bool done;
};

static void *guest_thread(void *arg)
{
    struct guest *guest = arg;
    uint64_t i = 0, end = deadline_after_ms(FLOOD_MS);

    for (; i < guest->bytes && (i % 4096 != 0 || clock_now_ms() < end); i++) {
        if (i % 64 == 0)
            assert_int_equal(in(LSR) >> 5, 3);
        out(DATA, nth(i));
    }
    guest->bytes = i;
    __atomic_store_n(&guest->done, true, __ATOMIC_RELEASE);
    return NULL;
}

static void test_flood_of_a_blocked_pipe(void **state)
{
    struct guest guest = {.bytes = FLOOD_BYTES};
    struct follow f = {0};
    static uint8_t bytes[65536];
    pthread_t thread;
    int fds[2], flags;
    uint64_t start = clock_now_ms();

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    flags = fcntl(fds[1], F_GETFL);
    assert_int_equal(open_serial(-1, fds[1], NULL, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, guest_thread, &guest), 0);
    while (!__atomic_load_n(&guest.done, __ATOMIC_ACQUIRE))
        assert_int_equal(loop_once(&loop, 10), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(clock_now_ms() - start < 60000);
    assert_int_equal(fcntl(fds[1], F_GETFL), flags); /* it may be somebody's terminal */

    assert_int_equal(fd_set_nonblock(fds[0], true), 0);
    for (uint64_t end = deadline_after_ms(10000); f.at < guest.bytes && clock_now_ms() < end;) {
        ssize_t n = read(fds[0], bytes, sizeof(bytes));

        if (n > 0)
            follow(&f, bytes, (size_t)n);
        assert_int_equal(loop_once(&loop, 1), 0);
    }
    assert_int_equal(f.at, guest.bytes);
    assert_in_range(f.markers, 1, 4); /* more than one when drops began before the pipe was full */
    fd_close(fds[0]);
    fd_close(fds[1]);
}

/* Everything arrives or is accounted for, while reader and guest race. */
static void test_slow_reader(void **state)
{
    struct guest guest = {.bytes = 3 << 20};
    struct follow f = {0};
    static uint8_t bytes[65536];
    pthread_t thread;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(open_serial(-1, fds[1], NULL, NULL), 0);
    assert_int_equal(fd_set_nonblock(fds[0], true), 0);
    assert_int_equal(pthread_create(&thread, NULL, guest_thread, &guest), 0);
    for (uint64_t end = deadline_after_ms(30000); f.at < (3 << 20) && clock_now_ms() < end;) {
        ssize_t n = read(fds[0], bytes, 3000);

        if (n > 0)
            follow(&f, bytes, (size_t)n);
        assert_int_equal(loop_once(&loop, 1), 0);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(f.at, guest.bytes);
    fd_close(fds[0]);
    fd_close(fds[1]);
}

static void test_reader_leaves(void **state)
{
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(open_serial(-1, fds[1], NULL, NULL), 0);
    fd_close(fds[0]);
    for (unsigned i = 0; i < 200000; i++) {
        out(DATA, 'x');
        if (i % 1000 == 0)
            assert_int_equal(loop_once(&loop, 0), 0);
    }
    turn(20);
    assert_int_equal(in(LSR), 0x60);
    fd_close(fds[1]);
}

static void send_text(const char *text)
{
    for (; *text; text++)
        out(DATA, (uint8_t)*text);
}

static size_t file_content(char **ret)
{
    size_t len;

    assert_int_equal(fd_read_file(AT_FDCWD, path, 64 << 20, ret, &len), 0);
    return len;
}

static void assert_file(const char *text)
{
    _cleanup_(freep) char *content = NULL;

    file_content(&content);
    assert_string_equal(content, text);
}

static void test_lines_are_prompt(void **state)
{
    struct stat st;

    assert_int_equal(open_serial(-1, -1, path, NULL), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    send_text("first\n");
    assert_int_equal(loop_once(&loop, 0), 0);
    assert_file(""); /* waits for more */
    turn(50);
    assert_file("first\n");
    send_text("second\n");
    turn(50);
    assert_file("first\nsecond\n");
    for (unsigned i = 0; i < 5000; i++)
        out(DATA, '.');
    assert_int_equal(loop_once(&loop, 100), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 13 + 5000); /* a burst does not wait */
}

static void test_nothing_is_lost_at_the_end(void **state)
{
    assert_int_equal(open_serial(-1, -1, path, NULL), 0);
    send_text("reboot: Power down\n");
    serial_free(serial);
    serial = NULL;
    assert_file("reboot: Power down\n");
    assert_int_equal(open_serial(-1, -1, path, NULL), 0); /* and the next one adds to it */
    send_text("again\n");
    serial_free(serial);
    serial = NULL;
    assert_file("reboot: Power down\nagain\n");
}

static void check_rotation(uint64_t total)
{
    off_t last = 0;
    unsigned cuts = 0;
    _cleanup_(freep) char *content = NULL;
    size_t len;

    for (uint64_t i = 0; i < total; i++) {
        struct stat st;

        out(DATA, nth(i));
        if (i % 32768 != 0)
            continue;
        assert_int_equal(loop_once(&loop, 10), 0);
        assert_int_equal(stat(path, &st), 0);
        assert_true(st.st_size <= (off_t)SERIAL_LOG_MAX);
        cuts += st.st_size < last;
        last = st.st_size;
    }
    serial_free(serial);
    serial = NULL;
    assert_true(cuts >= 2);
    len = file_content(&content);
    assert_true(len <= SERIAL_LOG_MAX && len >= SERIAL_LOG_MAX / 2 - 1);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(content[i], nth(total - len + i));
}

static void test_rotation(void **state)
{
    assert_int_equal(open_serial(-1, -1, path, NULL), 0);
    check_rotation(9 << 20);
}

/* As a shell's "> log" gives it: an offset of its own, write-only. */
static void test_rotation_of_a_redirection(void **state)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(open_serial(-1, fd, NULL, NULL), 0);
    check_rotation(9 << 20);
    fd_close(fd);
}

static void test_file_that_is_too_large_already(void **state)
{
    struct stat st;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 50 << 20), 0);
    assert_int_equal(pwrite(fd, "end", 3, (50 << 20) - 3), 3);
    fd_close(fd);
    assert_int_equal(open_serial(-1, -1, path, NULL), 0);
    out(DATA, '!');
    turn(20);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, SERIAL_LOG_MAX / 2 + 1);
    {
        _cleanup_(freep) char *content = NULL;
        size_t len = file_content(&content);

        assert_memory_equal(content + len - 4, "end!", 4);
    }
}

/* Bytes come in as the guest takes them, and wait in the pipe as long as it does not. */
static void test_input(void **state)
{
    int fds[2];
    char text[40], c;

    for (unsigned i = 0; i < sizeof(text); i++)
        text[i] = (char)nth(i);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(open_serial(fds[0], -1, NULL, NULL), 0);
    out(FCR, 0x01);
    out(IER, 0x01);
    assert_int_equal(write(fds[1], text, sizeof(text)), sizeof(text));
    for (unsigned i = 0; i < sizeof(text); i++) {
        if (i % 16 == 0) {
            assert_int_equal(in(LSR)&1, 0);
            turn(10);
            assert_true(raised());
        }
        assert_false(raised());
        assert_int_equal(in(IIR), 0xc4);
        assert_int_equal(in(LSR), 0x61);
        assert_int_equal(in(DATA), text[i]);
    }
    turn(5);
    assert_int_equal(in(IIR), 0xc1);
    out(MCR, 0x10); /* in loopback the line is cut */
    assert_int_equal(write(fds[1], "z", 1), 1);
    turn(10);
    assert_int_equal(in(LSR)&1, 0);
    out(MCR, 0);
    turn(10);
    assert_int_equal(in(DATA), 'z');
    fd_close(fds[1]); /* the end of it wakes us once */
    turn(5);
    assert_int_equal(fd_set_nonblock(fds[0], true), 0);
    assert_int_equal(read(fds[0], &c, 1), 0);
    fd_close(fds[0]);
}

static void test_no_input_from_a_file(void **state)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_int_equal(write(fd, "abc", 3), 3);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(open_serial(fd, -1, NULL, NULL), 0);
    turn(10);
    assert_int_equal(in(LSR), 0x60);
    fd_close(fd);
}

/* A terminal that its user stopped looking at: neither its flags change nor does anything block. */
static void test_terminal(void **state)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave, flags;
    char got[16];

    if (master < 0)
        skip();
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(slave >= 0);
    flags = fcntl(slave, F_GETFL);
    assert_int_equal(open_serial(slave, slave, NULL, NULL), 0);
    send_text("hello");
    turn(20);
    assert_int_equal(read(master, got, sizeof(got)), 5);
    assert_memory_equal(got, "hello", 5);
    assert_int_equal(write(master, "in\n", 3), 3);
    out(FCR, 1);
    turn(20);
    assert_int_equal(in(DATA), 'i');
    for (unsigned i = 0; i < 200000; i++)
        out(DATA, 'x');
    turn(20);
    assert_int_equal(fcntl(slave, F_GETFL), flags);
    fd_close(slave);
    fd_close(master);
}

/* Sockets can't be opened anew: the duplicate is written to only where there is room. */
static void test_duplicate_does_not_block(void **state)
{
    struct guest guest = {.bytes = 1 << 20};
    struct follow f = {0};
    static uint8_t bytes[4096];
    int fds[2], flags;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    flags = fcntl(fds[1], F_GETFL);
    assert_int_equal(open_serial(-1, fds[1], NULL, NULL), 0);
    guest_thread(&guest);
    turn(20);
    for (uint64_t end = deadline_after_ms(10000); f.at < guest.bytes && clock_now_ms() < end;) {
        ssize_t n = recv(fds[0], bytes, sizeof(bytes), MSG_DONTWAIT);

        if (n > 0)
            follow(&f, bytes, (size_t)n);
        assert_int_equal(loop_once(&loop, 1), 0);
    }
    assert_int_equal(f.at, guest.bytes);
    assert_int_equal(fcntl(fds[1], F_GETFL), flags);
    fd_close(fds[0]);
    fd_close(fds[1]);
}

static void test_errors(void **state)
{
    struct vm_error error;

    assert_int_equal(open_serial(-1, -1, dir, &error), -EISDIR);
    assert_non_null(strstr(error.text, dir));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(open_serial(-1, -1, path, &error), -ENXIO);
    assert_non_null(strstr(error.text, "start its reader first"));
    assert_int_equal(open_serial(-1, 999, NULL, &error), -EBADF);
    assert_non_null(strstr(error.text, "999"));
    assert_int_equal(open_serial(-1, -1, NULL, &error), 0); /* no output at all is fine */
    send_text("into the void");
    turn(5);
}

static int setup_null(void **state)
{
    setup(state);
    return open_serial(-1, -1, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(test_probe, setup_null, teardown),
            cmocka_unit_test_setup_teardown(test_wide_access, setup_null, teardown),
            cmocka_unit_test_setup_teardown(test_interrupts, setup_null, teardown),
            cmocka_unit_test_setup_teardown(test_flood_of_a_blocked_pipe, setup, teardown),
            cmocka_unit_test_setup_teardown(test_slow_reader, setup, teardown),
            cmocka_unit_test_setup_teardown(test_reader_leaves, setup, teardown),
            cmocka_unit_test_setup_teardown(test_lines_are_prompt, setup, teardown),
            cmocka_unit_test_setup_teardown(test_nothing_is_lost_at_the_end, setup, teardown),
            cmocka_unit_test_setup_teardown(test_rotation, setup, teardown),
            cmocka_unit_test_setup_teardown(test_rotation_of_a_redirection, setup, teardown),
            cmocka_unit_test_setup_teardown(test_file_that_is_too_large_already, setup, teardown),
            cmocka_unit_test_setup_teardown(test_input, setup, teardown),
            cmocka_unit_test_setup_teardown(test_no_input_from_a_file, setup, teardown),
            cmocka_unit_test_setup_teardown(test_terminal, setup, teardown),
            cmocka_unit_test_setup_teardown(test_duplicate_does_not_block, setup, teardown),
            cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
    };
    int r;

    (void)signal(SIGPIPE, SIG_IGN);
    log_init("test-serial", LOG_ERROR, STDERR_FILENO);
    if (!mkdtemp(dir))
        return 1;
    (void)snprintf(path, sizeof(path), "%s/log", dir);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    (void)rmdir(dir);
    return r;
}
