/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macro.h"
#include "base/test.h"
#include "jail/syscalls.h"

#define RING_SIZE(n) (AUDIT_HEADER_SIZE + (size_t)(n)*AUDIT_ENTRY_SIZE)

static char dir[64], path[96];

static int setup(void **state)
{
    (void)snprintf(dir, sizeof(dir), "/tmp/ironclaw-audit-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/ring", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)unlink(path);
    return rmdir(dir);
}

static struct audit_entry entry_of(uint64_t number)
{
    struct audit_entry e = {
            .time_unix_ms = 1000 + (int64_t)number, .action = AUDIT_KILLED, .call = 59, .args = {number}, .count = 1};

    (void)snprintf(e.vm_id, sizeof(e.vm_id), "vm-%u", (unsigned)number);
    (void)snprintf(e.thread, sizeof(e.thread), "fc_vcpu 0");
    return e;
}

static void test_entry(void **state)
{
    struct audit_entry e = {.time_unix_ms = -5,
                               .action = AUDIT_LOST,
                               .call = AUDIT_NO_CALL,
                               .args = {1, 2, 3, 4, 5, UINT64_MAX},
                               .count = UINT64_MAX,
                               .pid = 7},
                       got;
    uint8_t bytes[AUDIT_ENTRY_SIZE];

    memset(e.vm_id, 'v', sizeof(e.vm_id) - 1);
    memset(e.process, 'p', sizeof(e.process) - 1);
    memset(e.thread, 't', sizeof(e.thread) - 1);
    memset(e.text, 'x', sizeof(e.text) - 1);
    audit_encode(&e, bytes);
    assert_int_equal(bytes[8], AUDIT_LOST); /* little endian, at its place */
    assert_int_equal(audit_decode(bytes, &got), 0);
    assert_memory_equal(&got.args, &e.args, sizeof(e.args));
    assert_int_equal(got.time_unix_ms, -5);
    assert_int_equal(got.call, AUDIT_NO_CALL);
    assert_true(got.count == UINT64_MAX && got.pid == 7);
    assert_string_equal(got.vm_id, e.vm_id);
    assert_string_equal(got.process, e.process);
    assert_string_equal(got.thread, e.thread);
    assert_string_equal(got.text, e.text);
}

static void test_hostile_entry(void **state)
{
    struct audit_entry e = entry_of(1), got;
    uint8_t bytes[AUDIT_ENTRY_SIZE];

    audit_encode(&e, bytes);
    memset(bytes + 76, 0x1b, AUDIT_ENTRY_SIZE - 76); /* texts that never end and drive a terminal */
    assert_int_equal(audit_decode(bytes, &got), 0);
    assert_int_equal(strlen(got.vm_id), AUDIT_VM_ID_MAX);
    assert_int_equal(strspn(got.vm_id, "?"), AUDIT_VM_ID_MAX);
    assert_int_equal(strlen(got.text), sizeof(got.text) - 1);
    bytes[8] = AUDIT_ACTIONS;
    assert_int_equal(audit_decode(bytes, &got), -EBADMSG);
    memset(bytes, 0, sizeof(bytes)); /* a slot that was claimed and not written */
    assert_int_equal(audit_decode(bytes, &got), -EBADMSG);
}

/* The oldest go, are counted, and the file does not grow. */
static void test_append(void **state)
{
    struct audit_log log = {0};
    struct audit_entry three[3] = {entry_of(0), entry_of(1), {.action = AUDIT_REFUSED, .call = AUDIT_NO_CALL}};
    struct audit_entry *many = calloc(AUDIT_ENTRIES, sizeof(*many));
    struct stat st;

    assert_int_equal(audit_read(path, AUDIT_ENTRIES, &log), -ENOENT);
    assert_int_equal(audit_append(path, three, 3), 0);
    assert_int_equal(audit_read(path, AUDIT_ENTRIES, &log), 0);
    assert_int_equal(log.count, 3);
    assert_true(log.dropped == 0);
    assert_string_equal(log.entries[1].vm_id, "vm-1");
    assert_int_equal(log.entries[2].count, 1); /* filled in, as the time */
    assert_true(log.entries[2].time_unix_ms > 1000000000000);
    audit_log_deinit(&log);

    assert_non_null(many);
    for (size_t i = 0; i < AUDIT_ENTRIES; i++)
        many[i] = entry_of(100 + i);
    assert_int_equal(audit_append(path, many, AUDIT_ENTRIES), 0);
    assert_int_equal(audit_append(path, three, 2), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, RING_SIZE(AUDIT_ENTRIES));
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(audit_read(path, AUDIT_ENTRIES, &log), 0);
    assert_int_equal(log.count, AUDIT_ENTRIES);
    assert_true(log.dropped == 5);
    assert_string_equal(log.entries[0].vm_id, "vm-102");
    assert_string_equal(log.entries[AUDIT_ENTRIES - 1].vm_id, "vm-1");
    audit_log_deinit(&log);
    free(many);
}

/* Two writers at once lose nothing. */
static void test_two_writers(void **state)
{
    struct audit_log log = {0};
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    for (unsigned i = 0; i < 100; i++) {
        struct audit_entry e = entry_of(i);

        if (audit_append(path, &e, 1) != 0)
            _exit(1);
    }
    if (pid == 0)
        _exit(0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(audit_read(path, AUDIT_ENTRIES, &log), 0);
    assert_int_equal(log.count, 200);
    audit_log_deinit(&log);
}

static void write_bytes(const void *data, size_t len, off_t at)
{
    _cleanup_(fd_closep) int fd = open(path, O_WRONLY | O_CREAT, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, len, at), len);
}

static void test_damaged(void **state)
{
    struct audit_entry e = entry_of(1);
    struct audit_log log = {0};

    write_bytes("not a ring at all", 17, 0);
    assert_int_equal(audit_read(path, AUDIT_ENTRIES, &log), -EBADMSG);
    assert_int_equal(audit_append(path, &e, 1), 0); /* started anew */
    assert_int_equal(audit_read(path, AUDIT_ENTRIES, &log), 0);
    assert_int_equal(log.count, 1);
    audit_log_deinit(&log);

    /* A total that lies: what is not in the file counts as dropped. */
    write_bytes((uint8_t[]){0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 8, 24);
    assert_int_equal(audit_read(path, AUDIT_ENTRIES, &log), 0);
    assert_in_range(log.count, 0, 1);
    assert_true(log.dropped >= UINT64_MAX - 1);
    audit_log_deinit(&log);

    /* Of a later version: neither read nor touched. */
    write_bytes((uint8_t[]){2, 0, 0, 0, 2, 0, 0, 0}, 8, 8);
    assert_int_equal(audit_read(path, AUDIT_ENTRIES, &log), -EPROTONOSUPPORT);
    assert_int_equal(audit_append(path, &e, 1), -EPROTONOSUPPORT);
    /* Another capacity is another kind of ring. */
    write_bytes((uint8_t[]){1, 0, 0, 0, 1, 0, 0, 0, 63, 0, 0, 0}, 12, 8);
    assert_int_equal(audit_read(path, AUDIT_ENTRIES, &log), -EBADMSG);
}

static void test_no_links(void **state)
{
    struct audit_entry e = entry_of(1);
    struct audit_log log;

    assert_int_equal(symlink("/dev/null", path), 0);
    assert_int_equal(audit_append(path, &e, 1), -ELOOP);
    assert_int_equal(audit_read(path, AUDIT_ENTRIES, &log), -ELOOP);
}

static void *add_ten(void *ring)
{
    for (unsigned i = 0; i < 10; i++) {
        struct audit_entry e = entry_of(i);

        audit_ring_add(ring, &e);
    }
    return NULL;
}

static void test_process_ring(void **state)
{
    _cleanup_(fd_closep) int fd = -1;
    struct audit_ring ring = {0}, none = {0};
    struct audit_entry e = entry_of(9);
    struct audit_log log = {0};
    pthread_t threads[4];
    struct stat st;

    assert_int_equal(audit_ring_create(path, &fd), 0);
    assert_int_equal(audit_ring_create(path, &fd), -EEXIST);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, RING_SIZE(AUDIT_PROCESS_ENTRIES));
    assert_true(st.st_blocks * 512 >= st.st_size); /* a full disk can't reach the mapping any more */
    assert_int_equal(audit_ring_map(fd, &ring), 0);
    assert_int_equal(audit_ring_add(&none, &e), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_ten, &ring), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(audit_ring_add(&ring, &e), 40);
    e.count = 3;
    audit_ring_update(&ring, 40, &e);
    assert_int_equal(audit_read(path, AUDIT_PROCESS_ENTRIES, &log), 0);
    assert_int_equal(log.count, 41);
    assert_int_equal(log.entries[40].count, 3);
    audit_log_deinit(&log);
    for (unsigned i = 0; i < AUDIT_PROCESS_ENTRIES; i++)
        audit_ring_add(&ring, &e);
    assert_int_equal(audit_read(path, AUDIT_PROCESS_ENTRIES, &log), 0);
    assert_int_equal(log.count, AUDIT_PROCESS_ENTRIES);
    assert_true(log.dropped == 41);
    audit_log_deinit(&log);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, RING_SIZE(AUDIT_PROCESS_ENTRIES));
    /* Of another size, it is not mapped: beyond its end would be SIGBUS. */
    assert_int_equal(ftruncate(fd, AUDIT_HEADER_SIZE), 0);
    assert_int_equal(audit_ring_map(fd, &none), -EBADMSG);
}

static void test_names(void **state)
{
    assert_string_equal(syscall_name(59), "execve"); /* x86-64 */
    assert_string_equal(syscall_name(-1), "unknown");
    assert_string_equal(syscall_name(100000), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_entry),
            cmocka_unit_test(test_hostile_entry),
            cmocka_unit_test_setup_teardown(test_append, setup, teardown),
            cmocka_unit_test_setup_teardown(test_two_writers, setup, teardown),
            cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
            cmocka_unit_test_setup_teardown(test_no_links, setup, teardown),
            cmocka_unit_test_setup_teardown(test_process_ring, setup, teardown),
            cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
