/* SPDX-License-Identifier: Apache-2.0 */
/* What code in ironclaw-vsock could still do: jail/test-attempts.h, and what is its own. */
#include "jail/test-attempts.h"
#include "vhost/server.h"

static void refuse(const char *name, long nr, long a, long b, long c)
{
    const struct attempt attempt = {.name = name, .nr = nr, .args = {a, b, c}};
    int status = attempt_child(SECCOMP_MINIMAL, &vsock_compiled, vsock_profiles[0], &attempt);

    if (status != SECCOMP_EXIT_STATUS)
        fail_msg("%s: status %d, should be refused", name, status);
}

static void test_common(void **state)
{
    attempt_all(SECCOMP_MINIMAL, &vsock_compiled, vsock_profiles, VSOCK_PROFILES, VSK);
    attempt_all(SECCOMP_BASIC, &vsock_compiled, vsock_profiles, VSOCK_PROFILES, VSK); /* there is only one thread */
}

static void test_own(void **state)
{
    const struct attempt seals = {.name = "F_GET_SEALS", .nr = SYS_fcntl, .args = {-1, F_GET_SEALS, 0}};

    assert_int_equal(attempt_child(SECCOMP_MINIMAL, &vsock_compiled, vsock_profiles[0], &seals), 0);
    refuse("a descriptor that survives an execve", SYS_fcntl, 0, F_SETFD, 0);
    refuse("signals for somebody's input", SYS_fcntl, 0, F_SETOWN, 1);
    refuse("seal the guest's memory", SYS_fcntl, -1, F_ADD_SEALS, F_SEAL_WRITE);
    refuse("mmap the guest's memory as code", SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    refuse("ioctl", SYS_ioctl, 0, TCGETS, 0);
    refuse("socket options", SYS_setsockopt, 0, SOL_SOCKET, SO_PASSCRED);
    refuse("a thread", SYS_clone, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, 0, 0);
    refuse("wait on a lock", SYS_futex, AT(buffer), 0, 0);
}

static void test_count(void **state)
{
    assert_in_range(seccomp_calls(vsock_profiles[0]), 1, 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_common),
            cmocka_unit_test(test_own),
            cmocka_unit_test(test_count),
    };

    if (seccomp_prepare(SECCOMP_MINIMAL, &vsock_compiled) == SECCOMP_SANITIZED) {
        puts("no filters in a build with a sanitizer");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
