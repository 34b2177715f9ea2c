/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "monitor/api/metrics.h"
#include "monitor/api/test-ops.h"

#define WAIT_MS 5000
#define OK_HEAD "HTTP/1.1 200 \r\n"

static char dir[] = "/tmp/test-api-XXXXXX";
static char path[64];
static struct fake_vm vm;
static struct controller controller;
static struct api_server *server;

static void handle(void *userdata, struct api_request *request, struct api_response *response)
{
    controller_handle(userdata, request, response);
}

static int setup(void **state)
{
    int fd;

    controller_init(&controller, "test", &fake_ops, &vm);
    if (unix_listen(path, 32, &fd) < 0 || api_server_new(&server, fd, handle, &controller) < 0)
        return -1;
    return api_server_start(server);
}

static int teardown(void **state)
{
    api_server_free(server);
    controller_deinit(&controller);
    return unlink(path);
}

static int dial(void)
{
    int fd;

    assert_int_equal(unix_connect(path, false, &fd), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(fd_write_all(fd, text, strlen(text), deadline_after_ms(WAIT_MS)), 0);
}

/* One response, head and body, into buf. */
static void hear(int fd, char *buf, size_t size)
{
    uint64_t deadline = deadline_after_ms(WAIT_MS);
    const char *length;
    size_t n = 0;

    do {
        assert_true(n < size - 1);
        assert_int_equal(fd_read_all(fd, buf + n, 1, deadline), 0);
        buf[++n] = '\0';
    } while (n < 4 || strcmp(buf + n - 4, "\r\n\r\n") != 0);
    length = strstr(buf, "Content-Length: ");
    if (length) {
        size_t body = strtoul(length + strlen("Content-Length: "), NULL, 10);

        assert_true(n + body < size);
        assert_int_equal(fd_read_all(fd, buf + n, body, deadline), 0);
        buf[n + body] = '\0';
    }
}

static void expect(int fd, const char *start, const char *part)
{
    char buf[20000];

    hear(fd, buf, sizeof(buf));
    if (strncmp(buf, start, strlen(start)) != 0 || !strstr(buf, part))
        fail_msg("'%s' ... '%s' is not in '%s'", start, part, buf);
}

static void expect_end(int fd)
{
    char c;

    assert_int_equal(fd_read_all(fd, &c, 1, deadline_after_ms(WAIT_MS)), -ECONNRESET);
}

static void test_keep_alive(void **state)
{
    int fd = dial();

    for (int i = 0; i < 3; i++) {
        say(fd, "GET / HTTP/1.1\r\n\r\n");
        expect(fd, OK_HEAD "Server: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n",
                "\"state\":\"Not started\"");
    }
    say(fd, "PUT /entropy HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
    expect(fd, "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n", "");
    say(fd, "GET / HTTP/1.0\r\n\r\n");
    expect(fd, OK_HEAD, "Connection: close");
    expect_end(fd);
    fd_close(fd);
}

static void test_pipelined(void **state)
{
    int fd = dial();

    say(fd, "PUT /entropy HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET /version HTTP/1.1\r\n\r\n"
            "PUT /actions HTTP/1.1\r\nContent-Length: 3\r\n\r\n{x}GET /vm/config HTTP/1.1\r\n\r\n");
    expect(fd, "HTTP/1.1 204 ", "");
    expect(fd, OK_HEAD, "firecracker_version");
    expect(fd, "HTTP/1.1 400 ", "fault_message");
    expect(fd, OK_HEAD, "\"entropy\":{");
    fd_close(fd);
}

static void test_expect(void **state)
{
    int fd = dial();

    say(fd, "PUT /entropy HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    expect(fd, "HTTP/1.1 100 \r\n", "");
    say(fd, "{}");
    expect(fd, "HTTP/1.1 204 ", "");
    fd_close(fd);
}

static void test_half_sent(void **state)
{
    int slow = dial(), fd = dial();

    say(slow, "PUT /entropy HTTP/1.1\r\nContent-Le");
    say(fd, "GET / HTTP/1.1\r\n\r\n");
    expect(fd, OK_HEAD, "");
    say(slow, "ngth: 2\r\n\r\n{");
    say(fd, "GET / HTTP/1.1\r\n\r\n");
    expect(fd, OK_HEAD, "");
    say(slow, "}");
    expect(slow, "HTTP/1.1 204 ", "");
    /* What is half sent when its client goes is forgotten. */
    say(slow, "PUT /entropy HTTP/1.1\r\nContent-Length: 2\r\n\r\n{");
    fd_close(slow);
    say(fd, "GET / HTTP/1.1\r\n\r\n");
    expect(fd, OK_HEAD, "");
    fd_close(fd);
}

/* The other half of the connection still gets its answer. */
static void test_half_closed(void **state)
{
    int fd = dial();

    say(fd, "GET / HTTP/1.1\r\n\r\n");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    expect(fd, OK_HEAD, "");
    expect_end(fd);
    fd_close(fd);
}

/* A client that never reads fills its own buffers and nobody else's. */
static void test_stalled(void **state)
{
    static const char request[] = "GET /vm/config HTTP/1.1\r\n\r\n";
    int stalled = dial(), fd = dial();
    size_t sent = 0;

    assert_int_equal(fd_set_nonblock(stalled, true), 0);
    for (int idle = 0; idle < 5;) {
        ssize_t n = send(stalled, request + sent % (sizeof(request) - 1),
                sizeof(request) - 1 - sent % (sizeof(request) - 1), MSG_NOSIGNAL);

        if (n > 0) {
            sent += (size_t)n;
            idle = 0;
        } else {
            assert_int_equal(errno, EAGAIN);
            idle++;
            (void)usleep(20000);
        }
        assert_true(sent < 64u << 20);
    }
    say(fd, "GET / HTTP/1.1\r\n\r\n");
    expect(fd, OK_HEAD, "");
    /* Once it reads it gets every answer. */
    for (size_t i = 0; i < sent / (sizeof(request) - 1); i++)
        expect(stalled, OK_HEAD, "machine-config");
    fd_close(stalled);
    fd_close(fd);
}

static void test_bad_request(void **state)
{
    static const char junk[4096];
    int fd = dial();

    say(fd, "GET / HTTP/1.1\r\n\r\nGET / HTTP/3\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    expect(fd, OK_HEAD, "");
    expect(fd, "HTTP/1.1 400 ", "{\"fault_message\":\"Invalid HTTP Version: Unsupported HTTP version.\"}");
    expect_end(fd);
    fd_close(fd);

    fd = dial();
    say(fd, "HEAD / HTTP/1.1\r\n\r\n");
    expect(fd, "HTTP/1.1 400 ", "Connection: close");
    expect_end(fd);
    fd_close(fd);

    /* All of a body that is too long can be sent before the answer is read, and it is there. */
    fd = dial();
    say(fd, "PUT /entropy HTTP/1.1\r\nContent-Length: 102400\r\n\r\n");
    for (int i = 0; i < 25; i++)
        assert_int_equal(fd_write_all(fd, junk, sizeof(junk), deadline_after_ms(WAIT_MS)), 0);
    expect(fd, "HTTP/1.1 400 ", "Request payload with size 102400 is larger than the limit of 51200 allowed");
    expect_end(fd);
    fd_close(fd);
}

static void test_connection_limit(void **state)
{
    int fds[API_MAX_CONNECTIONS], late;

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = dial();
        say(fds[i], "GET / HTTP/1.1\r\n\r\n");
        expect(fds[i], OK_HEAD, "");
    }
    for (int i = 0; i < 3; i++) {
        late = dial();
        say(late, "GET / HTTP/1.1\r\n\r\n");
        expect(late, "HTTP/1.1 503 ", "Too many open connections");
        expect_end(late);
        fd_close(late);
        (void)usleep(20000);
    }
    say(fds[0], "GET / HTTP/1.1\r\n\r\n");
    expect(fds[0], OK_HEAD, "");
    /* Two that are too late at once: the second finds no place even for the answer. */
    late = dial();
    expect(late, "HTTP/1.1 503 ", "");
    fd_close(dial());
    fd_close(late);
    fd_close(fds[5]);
    (void)usleep(20000);
    fds[5] = dial();
    say(fds[5], "GET / HTTP/1.1\r\n\r\n");
    expect(fds[5], OK_HEAD, "");
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        fd_close(fds[i]);
}

/* The thread ends with requests half sent and answers not read: teardown. */
static void test_end(void **state)
{
    int fd = dial();

    say(fd, "PUT /entropy HTTP/1.1\r\nContent-Length: 2\r\n\r\n{");
    (void)fd; /* stays open */
}

static void test_metrics(void **state)
{
    struct metrics metrics = {.api_server.process_startup_time_us = 7, .vsock.connections = UINT64_MAX};
    _cleanup_(freep) char *text = NULL;
    struct vm_error error;
    char file[96];
    struct stat st;
    int fd;

    (void)snprintf(file, sizeof(file), "%s/metrics", dir);
    assert_int_equal(metrics_open(file, &fd, &error), 0);
    assert_int_equal(metrics_write(&metrics, fd, &error), 0);
    metrics_add(&metrics.block.read_count, 3);
    assert_int_equal(metrics_write(&metrics, fd, &error), 0);
    fd_close(fd);
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(fd_read_file(AT_FDCWD, file, 8192, &text, NULL), 0);
    assert_memory_equal(text, "{\"utc_timestamp_ms\":", 20);
    assert_non_null(strstr(text, ",\"api_server\":{\"process_startup_time_us\":7,"));
    assert_non_null(strstr(text, "},\"block\":{\"read_count\":0,"));
    assert_non_null(strstr(text, "\"connections\":18446744073709551615}}\n{\"utc_timestamp_ms\":"));
    assert_non_null(strstr(text, "},\"block\":{\"read_count\":3,"));
    (void)unlink(file);

    /* A pipe that nobody reads costs lines, not time. */
    assert_int_equal(mkfifo(file, 0600), 0);
    assert_int_equal(metrics_open(file, &fd, &error), 0);
    for (int i = 0, r = 0; r == 0; i++) {
        r = metrics_write(&metrics, fd, &error);
        assert_true(i < 10000 && (r == 0 || r == -EIO));
    }
    fd_close(fd);
    (void)unlink(file);
    assert_int_equal(metrics_open("/dev/null", &fd, &error), -EINVAL);
    assert_int_equal(metrics_open("/nowhere/m", &fd, &error), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
            TEST(test_keep_alive),
            TEST(test_pipelined),
            TEST(test_expect),
            TEST(test_half_sent),
            TEST(test_half_closed),
            TEST(test_stalled),
            TEST(test_bad_request),
            TEST(test_connection_limit),
            TEST(test_end),
            cmocka_unit_test(test_metrics),
    };
    int failed;

    if (!mkdtemp(dir))
        return 1;
    (void)snprintf(path, sizeof(path), "%s/api", dir);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)rmdir(dir);
    return failed;
}
