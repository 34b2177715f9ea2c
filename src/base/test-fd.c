/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"

static char dir[] = "/tmp/ironclaw-test-fd.XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir); /* fails when a test left a file behind */
}

static void a_path_of_108_bytes_is_refused(void **state)
{
    char path[109];
    int fd = -7;

    (void)state;
    memset(path, 'x', 108);
    path[108] = '\0';
    assert_int_equal(unix_listen(path, 1, &fd), -ENAMETOOLONG);
    assert_int_equal(unix_connect(path, false, &fd), -ENAMETOOLONG);
    assert_int_equal(fd, -7);
}

/* Whoever may write in the directory can't have us connect elsewhere. */
static void follows_no_link_to_a_socket(void **state)
{
    char path[64], link[64];
    int listener, fd = -1;

    (void)snprintf(path, sizeof(path), "%s/socket", dir);
    (void)snprintf(link, sizeof(link), "%s/link", dir);
    assert_int_equal(unix_listen(path, 4, &listener), 0);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(unix_connect_nofollow(path, true, &fd), 0);
    fd_close(fd);
    assert_int_equal(unix_connect_nofollow(link, true, &fd), -ELOOP);
    assert_int_equal(unix_connect_nofollow(dir, true, &fd), -ENOTSOCK);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(unix_connect_nofollow(link, true, &fd), -ENOENT);
    fd_close(listener);
    assert_int_equal(unlink(path), 0);
}

static void listening_sockets_are_private(void **state)
{
    _cleanup_(fd_closep) int fd = -1;
    char path[100];
    struct stat st;

    (void)state;
    snprintf(path, sizeof(path), "%s/s", dir);
    assert_int_equal(unix_listen(path, 1, &fd), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    unlink(path);
}

static void descriptors_travel_and_excess_is_closed(void **state)
{
    int pair[2], sent[3] = {0, 1, 2}, got[2];
    size_t n = 99;
    char byte;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(unix_send_fds(pair[0], "x", 1, sent, 2), 1);
    assert_int_equal(unix_recv_fds(pair[1], &byte, 1, got, 2, &n), 1);
    assert_int_equal(n, 2);
    assert_true(fcntl(got[0], F_GETFD) & FD_CLOEXEC);
    close(got[0]);
    close(got[1]);
    n = 99;
    assert_int_equal(unix_send_fds(pair[0], "x", 1, sent, 3), 1);
    assert_int_equal(unix_recv_fds(pair[1], &byte, 1, got, 2, &n), -EPROTO);
    assert_int_equal(n, 99);
    assert_int_equal(fcntl(got[0], F_GETFD), -1); /* nothing leaked */
    close(pair[0]);
    close(pair[1]);
}

static void reads_end_at_deadline_and_at_end_of_file(void **state)
{
    int pair[2];
    char bytes[4];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(fd_read_all(pair[0], bytes, 4, deadline_after_ms(5)), -ETIMEDOUT);
    assert_int_equal(write(pair[1], "ab", 2), 2);
    close(pair[1]);
    assert_int_equal(fd_read_all(pair[0], bytes, 4, deadline_after_ms(1000)), -ECONNRESET);
    assert_int_equal(fd_write_all(pair[0], "x", 1, DEADLINE_NEVER), -EPIPE);
    close(pair[0]);
}

static void files_are_replaced_whole_and_read_with_a_cap(void **state)
{
    char path[100];
    char *text = NULL;
    size_t len;

    (void)state;
    snprintf(path, sizeof(path), "%s/f", dir);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, "one", 3, 0600), 0);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, "three", 5, 0600), 0);
    assert_int_equal(fd_read_file(AT_FDCWD, path, 5, &text, &len), 0);
    assert_int_equal(len, 5);
    assert_string_equal(text, "three");
    free(text);
    text = NULL;
    assert_int_equal(fd_read_file(AT_FDCWD, path, 4, &text, &len), -EFBIG);
    assert_null(text);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_path_of_108_bytes_is_refused),
            cmocka_unit_test(follows_no_link_to_a_socket),
            cmocka_unit_test(listening_sockets_are_private),
            cmocka_unit_test(descriptors_travel_and_excess_is_closed),
            cmocka_unit_test(reads_end_at_deadline_and_at_end_of_file),
            cmocka_unit_test(files_are_replaced_whole_and_read_with_a_cap),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
