/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/audit-log.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/fd.h"
#include "orchestrator/test-util.h"

#define LONG_AGO 1000

static char vm_dir[512];

static void make_dir(const char *home, const char *vm_id)
{
    (void)snprintf(vm_dir, sizeof(vm_dir), "%s/state/vms/%s", home, vm_id);
    assert_int_equal(path_make_dir(vm_dir, NULL), 0);
}

/* What the filtered processes get. */
static void make_rings(struct audit_ring *ret_monitor, struct audit_ring *ret_vsock)
{
    int monitor = -1, vsock = -1;

    assert_int_equal(audit_make_rings(vm_dir, &monitor, &vsock, NULL), 0);
    assert_in_range(monitor, 3, 1000);
    assert_in_range(vsock, 3, 1000);
    assert_int_equal(audit_ring_map(monitor, ret_monitor), 0);
    assert_int_equal(audit_ring_map(vsock, ret_vsock), 0);
    fd_close(monitor);
    fd_close(vsock);
}

static size_t listed(const char *vm_id, struct ic_audit_entry **ret, uint64_t dropped)
{
    uint64_t got;
    size_t count;

    assert_int_equal(ic_audit_read(vm_id, ret, &count, &got, NULL), 0);
    assert_true(got == dropped);
    return count;
}

static void test_limits(void **state)
{
    struct ic_audit_entry *list = NULL;

    assert_int_equal(listed(NULL, &list, 0), 0);
    free(list);
    audit_note(NULL, AUDIT_REFUSED, "max_vms %d: there are %d", 3, 3);
    audit_note("one", AUDIT_ENDED, "max_lifetime_ms 5");
    assert_int_equal(listed(NULL, &list, 0), 2);
    assert_string_equal(list[0].text, "max_vms 3: there are 3");
    assert_int_equal(list[0].action, IC_AUDIT_REFUSED);
    assert_int_equal(list[0].call, -1);
    assert_string_equal(list[0].call_name, "");
    free(list);
    assert_int_equal(listed("one", &list, 0), 1);
    assert_int_equal(list[0].action, IC_AUDIT_ENDED);
    free(list);
    assert_int_equal(ic_audit_read("../x", &list, &(size_t){0}, &(uint64_t){0}, NULL), -IC_ERR_INVALID);
}

/* Of a process's ring nothing is believed that could concern others. */
static void test_take_over(void **state)
{
    struct record record = sample_record("vm");
    struct audit_entry e = {.action = AUDIT_KILLED,
            .call = SYS_openat,
            .args = {1, 2, 3, 4, 5, 6},
            .time_unix_ms = INT64_MAX,
            .count = 1,
            .pid = 1,
            .vm_id = "another",
            .process = "kernel",
            .thread = "fc_vcpu 0",
            .text = "a limit"};
    struct audit_entry limit = {.action = AUDIT_ENDED, .count = 1};
    struct ic_audit_entry *list = NULL;
    struct audit_ring monitor, vsock;
    char what[256];

    make_dir(*state, "vm");
    record.backend = IC_BACKEND_IRONCLAW;
    record.created_unix_ms = LONG_AGO;
    make_rings(&monitor, &vsock);
    assert_false(audit_violation(what, sizeof(what), vm_dir, &record));
    assert_int_equal(audit_ring_add(&monitor, &limit), 0);
    assert_int_equal(audit_ring_add(&monitor, &e), 1);
    e.action = AUDIT_ALLOWED;
    e.time_unix_ms = LONG_AGO + 5;
    e.count = 9;
    assert_int_equal(audit_ring_add(&vsock, &e), 0);
    assert_true(audit_violation(what, sizeof(what), vm_dir, &record));
    assert_string_equal(what, "its monitor was ended by seccomp: thread fc_vcpu 0 called openat");

    audit_take_over(vm_dir, "vm", &record);
    audit_take_over(vm_dir, "vm", &record); /* there is nothing left to take */
    assert_int_equal(listed("another", &list, 0), 0);
    free(list);
    assert_int_equal(listed("vm", &list, 0), 2);
    assert_string_equal(list[0].process, "ironclaw-vsock");
    assert_int_equal(list[0].time_unix_ms, LONG_AGO + 5);
    assert_int_equal(list[0].count, 9);
    assert_int_equal(list[0].action, IC_AUDIT_ALLOWED);
    assert_string_equal(list[1].process, "ironclaw-vmm");
    assert_string_equal(list[1].call_name, "openat");
    assert_int_equal(list[1].args[5], 6);
    assert_int_equal(list[1].pid, 0);
    assert_string_equal(list[1].text, "");
    assert_true(list[1].time_unix_ms > LONG_AGO && list[1].time_unix_ms < INT64_MAX);
    free(list);
    record_deinit(&record);
}

/* However much a process writes, it pushes out no more than its ring holds. */
static void test_flood(void **state)
{
    struct record record = sample_record("flood");
    struct audit_entry e = {.action = AUDIT_ALLOWED, .call = 1, .count = 1};
    struct ic_audit_entry *list = NULL;
    struct audit_ring monitor, vsock;

    make_dir(*state, "flood");
    make_rings(&monitor, &vsock);
    for (unsigned i = 0; i < 20000; i++)
        (void)audit_ring_add(&monitor, &e);
    audit_take_over(vm_dir, "flood", &record);
    assert_int_equal(listed("flood", &list, 0), AUDIT_PROCESS_ENTRIES + 1);
    assert_int_equal(list[AUDIT_PROCESS_ENTRIES].action, IC_AUDIT_LOST);
    assert_int_equal(list[AUDIT_PROCESS_ENTRIES].count, 20000 - AUDIT_PROCESS_ENTRIES);
    free(list);
    record_deinit(&record);
}

static void end_like(struct record *record, int status, int signo)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_DUMPABLE, 0);
        (void)signal(SIGSYS, SIG_DFL); /* cmocka has a handler */
        if (signo)
            (void)raise(signo);
        _exit(status);
    }
    assert_int_equal(process_identify(pid, &record->monitor), 0);
    while (process_alive(&record->monitor)) /* reaps it: who asks how it ended comes later */
        (void)usleep(1000);
}

/* A filter that only the kernel knows of, as QEMU's: the child's status tells. */
static void test_by_signal(void **state)
{
    struct record record = sample_record("qemu");
    struct ic_audit_entry *list = NULL;
    struct audit_ring monitor, vsock;
    char what[256];

    make_dir(*state, "qemu");
    make_rings(&monitor, &vsock);
    end_like(&record, 1, 0);
    assert_false(audit_violation(what, sizeof(what), vm_dir, &record));
    end_like(&record, 0, SIGKILL);
    assert_false(audit_violation(what, sizeof(what), vm_dir, &record));
    end_like(&record, 148, 0);
    assert_true(audit_violation(what, sizeof(what), vm_dir, &record));
    end_like(&record, 0, SIGSYS);
    assert_true(audit_violation(what, sizeof(what), vm_dir, &record));
    assert_string_equal(what, "its monitor was ended by seccomp (SIGSYS)");
    audit_take_over(vm_dir, "qemu", &record);
    assert_int_equal(listed("qemu", &list, 0), 1);
    assert_string_equal(list[0].process, "qemu");
    assert_int_equal(list[0].pid, record.monitor.pid);
    assert_int_equal(list[0].call, -1);
    free(list);
    record_deinit(&record);
}

static void test_damaged(void **state)
{
    char path[600];
    struct ic_audit_entry *list = NULL;
    struct ic_error error;

    make_dir(*state, "any");
    (void)snprintf(path, sizeof(path), "%s/state/audit.ring", (const char *)*state);
    assert_int_equal(fd_write_file_atomic(-100, path, "nonsense", 8, 0600), 0);
    assert_int_equal(ic_audit_read(NULL, &list, &(size_t){0}, &(uint64_t){0}, &error), -IC_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "audit.ring: is no audit ring"));
    audit_note("x", AUDIT_ENDED, "text");
    assert_int_equal(listed("x", &list, 0), 1);
    free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(test_limits, home_setup, home_teardown),
            cmocka_unit_test_setup_teardown(test_take_over, home_setup, home_teardown),
            cmocka_unit_test_setup_teardown(test_flood, home_setup, home_teardown),
            cmocka_unit_test_setup_teardown(test_by_signal, home_setup, home_teardown),
            cmocka_unit_test_setup_teardown(test_damaged, home_setup, home_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
