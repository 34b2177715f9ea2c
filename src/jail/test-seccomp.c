/* SPDX-License-Identifier: Apache-2.0 */
/* The compiler of profiles: each case is a child that enters one and then makes a call. */
#include "jail/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/macro.h"
#include "base/test.h"
#include "jail/audit.h"
#include "jail/start.h"
#include "jail/test-rules.h"

enum { DONE = 7, FAILED = 8 }; /* how a child ends: the call came back without or with an error */

static char said[512]; /* by the last child, in its log */

/* Returns the child's wait status. */
static int try_at(enum seccomp_level level, const struct seccomp_profile *profile, long nr, long a, long b, long c)
{
    int out[2], status = 0;
    ssize_t n;
    pid_t pid;

    assert_int_equal(pipe(out), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        log_init("test", LOG_INFO, out[1]);
        (void)prctl(PR_SET_NAME, "a thread");
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || seccomp_prepare(level, &test_compiled) != 0)
            _exit(99);
        seccomp_enter(profile);
        _exit(syscall(nr, a, b, c) < 0 ? FAILED : DONE);
    }
    (void)close(out[1]);
    n = read(out[0], said, sizeof(said) - 1);
    said[n > 0 ? n : 0] = '\0';
    (void)close(out[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void assert_allowed(long nr, long a, long b, long c)
{
    int status = try_at(SECCOMP_MINIMAL, &test_small, nr, a, b, c);

    assert_true(WIFEXITED(status));
    assert_in_range(WEXITSTATUS(status), DONE, FAILED);
}

static void assert_refused(int status)
{
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), SECCOMP_EXIT_STATUS);
}

static void test_calls(void **state)
{
    assert_allowed(SYS_write, 2, 0, 0);
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, SYS_getppid, 0, 0, 0));
    assert_refused(try_at(SECCOMP_MINIMAL, &test_other, SYS_lseek, 0, 0, 2));
    assert_int_equal(WEXITSTATUS(try_at(SECCOMP_MINIMAL, &test_other, SYS_getppid, 0, 0, 0)), DONE);
}

static void test_arguments(void **state)
{
    assert_allowed(SYS_lseek, -1, 0, 2);
    assert_allowed(SYS_lseek, -1, 0, 3);
    assert_allowed(SYS_lseek, -1, 0, 0x7000000000000002);
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, SYS_lseek, 0, 0, 0));
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, SYS_lseek, 0, 0, 6));
    assert_allowed(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    assert_allowed(SYS_socket, AF_NETLINK, SOCK_RAW, 0);
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, SYS_socket, AF_INET, SOCK_STREAM, 0));
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, SYS_socket, -1, SOCK_STREAM, 0));
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, SYS_tgkill, getpid(), getpid(), 0));
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, SYS_tgkill, SECCOMP_OWN_PID, SECCOMP_OWN_PID, 0));
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, SYS_tgkill, -1, -1, 0));
}

/* The call of the right number by another way into the kernel. */
static void test_architectures(void **state)
{
    int status = try_at(SECCOMP_MINIMAL, &test_small, 0x40000000 + SYS_write, 2, 0, 0);

    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSYS);
}

static void test_the_line(void **state)
{
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, SYS_execve, 0x123, 0, 0x42));
    assert_non_null(strstr(said, "test: error: seccomp: the thread a thread may not call execve (59), "
                                 "arguments 0x123 0 0x42;"));
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, 1999, 0, 0, 0));
    assert_non_null(strstr(said, "unknown (1999)"));
}

static void test_levels(void **state)
{
    assert_int_equal(WEXITSTATUS(try_at(SECCOMP_BASIC, &test_small, SYS_getppid, 0, 0, 0)), DONE);
    assert_int_equal(WEXITSTATUS(try_at(SECCOMP_BASIC, &test_other, SYS_lseek, -1, 0, 2)), FAILED);
    assert_refused(try_at(SECCOMP_BASIC, &test_other, SYS_lseek, -1, 0, 0));
    assert_refused(try_at(SECCOMP_BASIC, &test_other, SYS_socket, AF_INET, SOCK_STREAM, 0));
    assert_refused(try_at(SECCOMP_BASIC, &test_small, SYS_execve, 0, 0, 0));
    assert_int_equal(WEXITSTATUS(try_at(SECCOMP_PERMISSIVE, &test_small, SYS_getppid, 0, 0, 0)), DONE);
}

/* ---- the audit ring ---- */

static char ring_path[64];

static int ring_setup(void **state)
{
    char dir[] = "/tmp/ironclaw-seccomp-XXXXXX";

    assert_non_null(mkdtemp(dir));
    (void)snprintf(ring_path, sizeof(ring_path), "%s/ring", dir);
    return 0;
}

static int ring_teardown(void **state)
{
    (void)unlink(ring_path);
    *strrchr(ring_path, '/') = '\0';
    return rmdir(ring_path);
}

static void *some_calls(void *profile)
{
    (void)prctl(PR_SET_NAME, profile == &test_small ? "small" : "other");
    seccomp_enter(profile);
    for (int i = 0; i < 5; i++)
        (void)syscall(SYS_getppid, 1, 2, 3, 4, 5, 6);
    (void)syscall(SYS_lseek, -1, 0, 0); /* what the list looks at makes two calls of them */
    (void)syscall(SYS_lseek, -1, 0, 8);
    (void)syscall(SYS_lseek, -1, 0, 8);
    return NULL;
}

/* In a process with a ring: two threads, one after the other. */
static _noreturn_ void ring_child(enum seccomp_level level, int ring_fd)
{
    const struct seccomp_profile *const profiles[] = {&test_small, &test_other};
    pthread_t thread;
    char text[16];

    log_init("test", LOG_ERROR, -1);
    (void)snprintf(text, sizeof(text), "%d", ring_fd);
    if (seccomp_audit_to(text) != 0 || fcntl(ring_fd, F_GETFD) != -1)
        _exit(98);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || seccomp_prepare(level, &test_compiled) != 0)
        _exit(99);
    for (size_t i = 0; i < ARRAY_SIZE(profiles); i++) {
        if (pthread_create(&thread, NULL, some_calls, (void *)profiles[i]) != 0)
            _exit(97);
        (void)pthread_join(thread, NULL);
    }
    _exit(DONE);
}

static int run_with_ring(enum seccomp_level level, struct audit_log *ret)
{
    int fd = -1, status;
    pid_t pid;

    assert_int_equal(audit_ring_create(ring_path, &fd), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        ring_child(level, fd);
    (void)close(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(audit_read(ring_path, AUDIT_PROCESS_ENTRIES, ret), 0);
    return WEXITSTATUS(status);
}

static void test_ring_of_a_refusal(void **state)
{
    struct audit_log log;

    assert_int_equal(run_with_ring(SECCOMP_MINIMAL, &log), SECCOMP_EXIT_STATUS);
    assert_int_equal(log.count, 1);
    assert_int_equal(log.entries[0].action, AUDIT_KILLED);
    assert_int_equal(log.entries[0].call, SYS_getppid);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(log.entries[0].args[i], i + 1);
    assert_string_equal(log.entries[0].thread, "small");
    assert_true(log.entries[0].time_unix_ms > 1000000000000);
    audit_log_deinit(&log);
}

static const struct audit_entry *find(const struct audit_log *log, const char *thread, int call, uint64_t arg2)
{
    for (size_t i = 0; i < log->count; i++) {
        const struct audit_entry *e = &log->entries[i];

        if (strcmp(e->thread, thread) == 0 && e->call == call && e->args[2] == arg2)
            return e;
    }
    fail_msg("no entry of %s, call %d", thread, call);
    return NULL;
}

/* Nothing is refused; each call once, with how often; by the thread that made it. */
static void test_ring_of_permissive(void **state)
{
    struct audit_log log;

    assert_int_equal(run_with_ring(SECCOMP_PERMISSIVE, &log), DONE);
    assert_int_equal(find(&log, "small", SYS_getppid, 3)->count, 5);
    assert_int_equal(find(&log, "small", SYS_getppid, 3)->action, AUDIT_ALLOWED);
    assert_int_equal(find(&log, "small", SYS_getppid, 3)->args[5], 6);
    assert_int_equal(find(&log, "small", SYS_lseek, 0)->count, 1);
    assert_int_equal(find(&log, "small", SYS_lseek, 8)->count, 2);
    assert_int_equal(find(&log, "other", SYS_lseek, 0)->count, 3); /* its list has no lseek, so no difference */
    for (size_t i = 0; i < log.count; i++) {
        assert_true(strcmp(log.entries[i].thread, "other") != 0 || log.entries[i].call != SYS_getppid);
        assert_int_not_equal(log.entries[i].call, SYS_write); /* in both lists */
    }
    audit_log_deinit(&log);
}

static void test_ring_option(void **state)
{
    static const char *const wrong[] = {"", "0", "2", "-1", "3x", "700", "99999999999999999999"};
    char text[16];
    int fd;

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(seccomp_audit_to(wrong[i]), -EINVAL);
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    (void)snprintf(text, sizeof(text), "%d", fd);
    assert_int_equal(seccomp_audit_to(text), -EINVAL);
    (void)close(fd);
}

/* As the API's and the drives' threads do. */
static void test_blocked_signals(void **state)
{
    sigset_t all, before;

    (void)sigfillset(&all);
    assert_int_equal(sigprocmask(SIG_SETMASK, &all, &before), 0);
    assert_refused(try_at(SECCOMP_MINIMAL, &test_small, SYS_getppid, 0, 0, 0));
    assert_non_null(strstr(said, "getppid"));
    assert_int_equal(sigprocmask(SIG_SETMASK, &before, NULL), 0);
}

/* A thread never runs without the filter that it asked for. */
static void test_not_prepared(void **state)
{
    static const struct seccomp_profile third = {.name = "third"};
    int status = try_at(SECCOMP_MINIMAL, &third, SYS_getppid, 0, 0, 0);

    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_FAILURE);
    assert_non_null(strstr(said, "filter third of thread a thread: was not prepared"));
}

/* The compiler knows no process; the id that counts is that of the process which loads. */
static void test_own_pid(void **state)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        pid_t own = getpid();

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || seccomp_prepare(SECCOMP_MINIMAL, &test_compiled) != 0)
            _exit(99);
        seccomp_enter(&test_small);
        _exit(syscall(SYS_tgkill, own, own, 0) == 0 ? DONE : FAILED);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), DONE);
}

static void test_report(void **state)
{
    char text[2048] = "";
    FILE *to = fmemopen(text, sizeof(text), "w");

    assert_int_equal(seccomp_calls(&test_small), 5);
    assert_non_null(to);
    seccomp_report(to, test_profiles, ARRAY_SIZE(test_profiles));
    assert_int_equal(fclose(to), 0);
    assert_non_null(strstr(text, "small: 5 system calls\n"));
    assert_non_null(strstr(text, "other: 4 system calls\n"));
    assert_non_null(strstr(text, "argument 2 & 0x6: 0x2"));
    assert_non_null(strstr(text, "argument 0: own pid"));
    assert_non_null(strstr(text, "only here\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_calls),
            cmocka_unit_test(test_arguments),
            cmocka_unit_test(test_architectures),
            cmocka_unit_test(test_the_line),
            cmocka_unit_test(test_levels),
            cmocka_unit_test_setup_teardown(test_ring_of_a_refusal, ring_setup, ring_teardown),
            cmocka_unit_test_setup_teardown(test_ring_of_permissive, ring_setup, ring_teardown),
            cmocka_unit_test(test_ring_option),
            cmocka_unit_test(test_blocked_signals),
            cmocka_unit_test(test_not_prepared),
            cmocka_unit_test(test_own_pid),
            cmocka_unit_test(test_report),
    };

    if (seccomp_prepare(SECCOMP_MINIMAL, &test_compiled) == SECCOMP_SANITIZED) {
        puts("no filters in a build with a sanitizer");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
