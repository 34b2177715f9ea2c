/* SPDX-License-Identifier: Apache-2.0 */
/* What code in QEMU could still do by our filter alone, before its own: jail/test-attempts.h, and what is its own. */
#include "jail/test-attempts.h"
#include "orchestrator/backends/qemu-seccomp.h"

enum { FAILED_WITH = 100 }; /* + errno */

/* The wait status of a child that has the filter and makes the call. */
static int try(enum seccomp_level level, bool kvm, const struct attempt *a)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct sock_fprog filter;

        if (qemu_filter(level, kvm, &filter) < 0)
            _exit(99);
        seccomp_set_own_pid(&filter);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, 2 /* filter */, &filter) < 0)
            _exit(98);
        if (syscall(a->nr, a->args[0], a->args[1], a->args[2], a->args[3], a->args[4], a->args[5]) < 0)
            _exit(FAILED_WITH + errno);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static bool killed(int status)
{
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

static void check(enum seccomp_level level, bool kvm, unsigned whose, const struct attempt *a)
{
    bool allowed = a->allowed & whose;
    int status;

    if (allowed && a->nr == SYS_execve)
        return; /* the test's own program would run */
    status = try(level, kvm, a);
    if (allowed ? !WIFEXITED(status) || WEXITSTATUS(status) == 98 || WEXITSTATUS(status) == 99 : !killed(status))
        fail_msg("%s by %s at level %d: status %#x, should be %s", a->name, kvm ? "KVM" : "TCG", (int)level, status,
                allowed ? "allowed" : "killed");
}

static void test_attempts(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
        check(SECCOMP_MINIMAL, false, TCG, &attempts[i]);
        check(SECCOMP_MINIMAL, true, KVM, &attempts[i]);
        check(SECCOMP_BASIC, false, QEM, &attempts[i]);
        check(SECCOMP_BASIC, true, QEM, &attempts[i]);
    }
}

static void assert_killed(const char *name, bool kvm, long nr, long a, long b, long c)
{
    const struct attempt attempt = {.name = name, .nr = nr, .args = {a, b, c}};
    int status = try(SECCOMP_MINIMAL, kvm, &attempt);

    if (!killed(status))
        fail_msg("%s: status %#x, should be killed", name, status);
}

static void test_own(void **state)
{
    const long both = PROT_READ | PROT_WRITE | PROT_EXEC;
    const struct attempt clone3 = {.nr = SYS_clone3, .args = {AT(buffer), 64}};
    const struct attempt io_uring = {.nr = SYS_io_uring_setup, .args = {8, AT(buffer)}};
    const struct attempt writable = {.nr = SYS_mmap, .args = {0, 4096, both, MAP_PRIVATE | MAP_ANONYMOUS, -1}};
    const struct attempt inet = {.nr = SYS_socket, .args = {AF_INET, SOCK_STREAM}};

    /* Those with a fallback. */
    assert_int_equal(WEXITSTATUS(try(SECCOMP_MINIMAL, false, &clone3)), FAILED_WITH + ENOSYS);
    assert_int_equal(WEXITSTATUS(try(SECCOMP_MINIMAL, true, &io_uring)), FAILED_WITH + ENOSYS);
    /* Writable code is the translator's alone. */
    assert_int_equal(try(SECCOMP_MINIMAL, false, &writable), 0);
    assert_true(killed(try(SECCOMP_MINIMAL, true, &writable)));
    assert_killed("make memory code", true, SYS_mprotect, AT(buffer), 4096, both);
    assert_killed("a process", false, SYS_clone, CLONE_VM | CLONE_FS | SIGCHLD, 0, 0);
    assert_killed("a socket pair's end in another process", false, SYS_sendmmsg, -1, AT(buffer), 1);
    assert_killed("ioctl on a terminal", true, SYS_ioctl, 0, TIOCSTI, AT(buffer));
    assert_killed("ioctl of KVM under TCG", false, SYS_ioctl, -1, KVM_CREATE_VM, 0);
    assert_killed("signals for somebody's input", false, SYS_fcntl, 0, F_SETOWN, 1);
    assert_killed("make a file", false, SYS_creat, AT("/tmp/ironclaw-test"), 0600, 0);
    assert_killed("connect", false, SYS_connect, -1, AT(buffer), 16);
    /* permissive refuses nothing. */
    assert_in_range(WEXITSTATUS(try(SECCOMP_PERMISSIVE, false, &inet)), 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_attempts),
            cmocka_unit_test(test_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
