/* SPDX-License-Identifier: Apache-2.0 */
/* Removing trees that somebody else writes in meanwhile, as a process that was taken over may do. */
#include "orchestrator/test-util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"

#define ROUNDS_MS 1500u
#define FILES     64u

static struct ic_error error;

static void make_files(const char *dir)
{
    char file[300];

    assert_true(mkdir(dir, 0700) == 0 || errno == EEXIST);
    for (unsigned i = 0; i < FILES; i++) {
        (void)snprintf(file, sizeof(file), "%s/%u", dir, i);
        assert_int_equal(fd_write_file_atomic(AT_FDCWD, file, "x", 1, 0600), 0);
    }
}

static unsigned count_files(const char *dir)
{
    char file[300];
    unsigned n = 0;

    for (unsigned i = 0; i < FILES; i++) {
        (void)snprintf(file, sizeof(file), "%s/%u", dir, i);
        n += access(file, F_OK) == 0;
    }
    return n;
}

static _noreturn_ void swap_for_ever(const char *a, const char *b)
{
    for (;;)
        (void)renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

/* A directory and a link to another one change places, as fast as they can, for as long as they are there. */
static void follows_no_link_that_is_put_in_its_way(void **state)
{
    uint64_t end = deadline_after_ms(ROUNDS_MS);
    char dir[256], a[300], b[300], c[300], precious[256];
    unsigned rounds = 0;
    struct stat st;
    pid_t pid;

    (void)snprintf(dir, sizeof(dir), "%s/tree", (const char *)*state);
    (void)snprintf(a, sizeof(a), "%s/a", dir);
    (void)snprintf(b, sizeof(b), "%s/b", dir);
    (void)snprintf(c, sizeof(c), "%s/c", dir);
    (void)snprintf(precious, sizeof(precious), "%s/precious", (const char *)*state);
    make_files(precious);
    assert_int_equal(chmod(precious, 0750), 0);
    pid = fork();
    if (pid == 0)
        swap_for_ever(a, b);
    for (; deadline_poll_ms(end) != 0 && count_files(precious) == FILES; rounds++) {
        assert_int_equal(mkdir(dir, 0700), 0);
        make_files(c);
        assert_true(symlink(precious, rounds % 2 ? a : b) == 0 && rename(c, rounds % 2 ? b : a) == 0);
        /* A swap may end it; when nothing is left to change places, it succeeds. */
        for (unsigned tries = 0; path_remove_tree(dir, &error) < 0; tries++)
            assert_true(tries < 1000);
    }
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(count_files(precious), FILES);
    assert_true(stat(precious, &st) == 0 && (st.st_mode & 07777) == 0750);
    assert_true(rounds > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(follows_no_link_that_is_put_in_its_way),
    };

    return cmocka_run_group_tests(tests, home_setup, home_teardown);
}
