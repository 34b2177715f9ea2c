/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in for a VM's record, and when it does not. */
#include "orchestrator/test-vm.h"

#include <sys/stat.h>

#include "orchestrator/vitals.h"

static struct ic_error error;

static bool good(const char *dir)
{
    struct process_id own[VITALS_OWN];
    size_t count;

    return vitals_good(dir, own, &count);
}

static char *vitals_path(void *const *state, const char *vm_id)
{
    char *path;

    assert_true(asprintf(&path, "%s/state/vms/%s/" VITALS_NAME, (const char *)*state, vm_id) > 0);
    return path;
}

/* Spoiled where nobody can see it: as many bytes, in the same file, of the same time. */
static void spoil_record(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    struct timespec times[2];
    struct stat st;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(pwrite(fd, "not JSON", 8, 0), 8);
    times[0] = st.st_atim;
    times[1] = st.st_mtim;
    assert_int_equal(futimens(fd, times), 0);
    fd_close(fd);
}

/* A VM whose processes live is not asked for its record; whatever is odd has it read. */
static void believes_vitals_of_this_record_only(void **state)
{
    char *link = vitals_path(state, "vital"), *record_path, text[256];
    struct table_entry entry;
    struct process_id holder, own[VITALS_OWN];
    struct record record;
    size_t own_count;
    ssize_t n;

    make_vm("vital", IC_VM_READY, false, &entry, &record);
    assert_true(asprintf(&record_path, "%s/record.json", entry.dir) > 0);
    assert_true(vitals_good(entry.dir, own, &own_count));
    assert_int_equal(own_count, 2);
    assert_memory_equal(&own[0], &record.monitor, sizeof(own[0]));
    assert_memory_equal(&own[1], &record.vsock, sizeof(own[1]));
    n = readlink(link, text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';

    /* Another record, the same words: it was restarted, or somebody's write did not get to the end. */
    assert_int_equal(table_write(&entry, &record, &error), 0);
    assert_true(good(entry.dir));
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink(text, link), 0);
    assert_false(good(entry.dir));
    for (size_t i = 0; i < 5; i++) {
        static const char *const odd[] = {"", "9", " 0:0", " 99999999999:5", "+"};
        char words[400];

        assert_int_equal(table_write(&entry, &record, &error), 0);
        n = readlink(link, text, sizeof(text) - 1);
        text[n] = '\0';
        assert_int_equal(unlink(link), 0);
        if (i == 0)
            *strstr(text, record.boot_id) = 'x';
        (void)snprintf(words, sizeof(words), "%s%s", text, odd[i]);
        assert_int_equal(symlink(words, link), 0);
        assert_false(good(entry.dir));
    }
    /* A state of which somebody else must be asked, or a limit, has none. */
    record.max_lifetime_ms = 1000000;
    assert_int_equal(table_write(&entry, &record, &error), 0);
    assert_true(access(link, F_OK) < 0 && readlink(link, text, sizeof(text)) < 0);
    record.max_lifetime_ms = 0;
    assert_int_equal(table_write(&entry, &record, &error), 0);

    /* One that waits is its keeper's business, as long as both live. */
    record.state = IC_VM_BOOTING;
    assert_int_equal(table_write(&entry, &record, &error), 0);
    assert_false(good(entry.dir));
    holder = start_sleep(NULL, -1);
    vitals_put(entry.dir, &record, &holder);
    assert_true(vitals_good(entry.dir, own, &own_count));
    assert_int_equal(own_count, 2); /* the holder is none of its own */
    assert_memory_equal(&own[1], &record.vsock, sizeof(own[1]));
    assert_int_equal(process_kill(&holder, DEADLINE_NEVER), 0);
    assert_false(good(entry.dir));
    record.state = IC_VM_READY;
    assert_int_equal(table_write(&entry, &record, &error), 0);

    spoil_record(record_path);
    table_entry_deinit(&entry);
    assert_int_equal(table_reap(&error), 0);
    assert_true(process_alive(&record.monitor));
    assert_int_equal(process_kill(&record.vsock, DEADLINE_NEVER), 0);
    assert_int_equal(table_reap(&error), 0);
    assert_false(process_alive(&record.monitor));
    assert_false(in_home(*state, "state/vms/vital"));
    record_deinit(&record);
    free(record_path);
    free(link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(believes_vitals_of_this_record_only),
    };

    return cmocka_run_group_tests(tests, home_setup, home_teardown);
}
