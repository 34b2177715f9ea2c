/* SPDX-License-Identifier: Apache-2.0 */
/* What root gives away when a VM gets an id of its own: only what is its own, whatever lies in its place. */
#include "orchestrator/test-util.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/confine.h"
#include "orchestrator/table.h"

static struct ic_error error;
static bool no_ids; /* root of a container that has none to give, or in a chroot: the first test finds out */

static struct stat stat_of(const char *path)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    return st;
}

/* A claimed VM with its run directory, and a kernel for its owner only in the image store. */
static void make(const char *home, struct table_entry *entry, struct record *record)
{
    char path[300];

    *record = sample_record("given");
    record->jail_mode = IC_JAIL_AUTO;
    assert_int_equal(table_claim(entry, record, NULL, &error), 0);
    assert_int_equal(table_make_run_dir(entry, record, &error), 0);
    (void)snprintf(path, sizeof(path), "%s/data", home);
    assert_int_equal(path_make_dir(path, &error), 0);
    assert_true(asprintf(&record->kernel_path, "%s/data/kernel", home) > 0);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, record->kernel_path, "x", 1, 0600), 0);
}

static void end(struct table_entry *entry, struct record *record)
{
    assert_int_equal(table_remove(entry, record, &error), 0);
    record_deinit(record);
}

static int init(struct confine *ret, struct table_entry *entry, struct record *record)
{
    int r = confine_init(ret, record, &error);

    confine_deinit(ret);
    assert_int_equal(confine_end(record, deadline_after_ms(5000)), 0);
    no_ids = r == 0 && ret->uid == 0 && !record->jail[JAIL_USER][0];
    if (no_ids) {
        end(entry, record);
        skip();
    }
    return r;
}

static void gives_its_own(void **state)
{
    struct confine confine = {0};
    struct table_entry entry;
    struct record record;
    int r;

    make(*state, &entry, &record);
    r = init(&confine, &entry, &record);
    assert_int_equal(r, 0);
    assert_true(confine.uid >= CONFINE_UID_FIRST && record.uid == confine.uid);
    assert_int_equal(stat_of(record.run_dir).st_uid, confine.uid);
    assert_int_equal(stat_of(record.kernel_path).st_mode & 07777, 0644);
    assert_int_equal(stat_of(record.kernel_path).st_uid, geteuid());
    end(&entry, &record);
}

/* Who can write above the run directory puts another one of root's in its place, or a link to it. */
static void gives_no_other_directory(void **state)
{
    char aside[300], other[300];

    if (no_ids)
        skip();
    (void)snprintf(aside, sizeof(aside), "%s/aside", (const char *)*state);
    (void)snprintf(other, sizeof(other), "%s/other", (const char *)*state);
    for (unsigned link = 0; link < 2; link++) {
        struct confine confine = {0};
        struct table_entry entry;
        struct record record;

        make(*state, &entry, &record);
        assert_int_equal(rename(record.run_dir, aside), 0);
        assert_int_equal(mkdir(link ? other : record.run_dir, 0700), 0);
        assert_int_equal(link ? symlink(other, record.run_dir) : 0, 0);
        assert_true(init(&confine, &entry, &record) < 0);
        assert_int_equal(stat_of(link ? other : record.run_dir).st_uid, geteuid());
        assert_int_equal(link ? unlink(record.run_dir) : rmdir(record.run_dir), 0);
        assert_int_equal(rename(aside, record.run_dir), 0);
        assert_int_equal(link ? rmdir(other) : 0, 0);
        end(&entry, &record);
    }
}

static void opens_nothing_outside_the_store(void **state)
{
    struct confine confine = {0};
    struct table_entry entry;
    struct record record;
    char secret[300];

    if (no_ids)
        skip();
    make(*state, &entry, &record);
    (void)snprintf(secret, sizeof(secret), "%s/secret", (const char *)*state);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, secret, "x", 1, 0600), 0);
    assert_int_equal(unlink(record.kernel_path), 0);
    assert_int_equal(symlink(secret, record.kernel_path), 0);
    assert_int_equal(init(&confine, &entry, &record), 0);
    assert_int_equal(stat_of(secret).st_mode & 07777, 0600);
    assert_int_equal(confine.uid, 0);
    assert_non_null(strstr(record.jail[JAIL_USER], "for its owner only"));
    free(record.kernel_path);
    assert_true(asprintf(&record.kernel_path, "%s/data/../secret", (const char *)*state) > 0);
    free(record.cgroup); /* ended */
    record.cgroup = NULL;
    assert_int_equal(init(&confine, &entry, &record), 0);
    assert_int_equal(stat_of(secret).st_mode & 07777, 0600);
    assert_int_equal(unlink(secret), 0);
    end(&entry, &record);
}

/* Killed between making the group and writing so: also a record that is kept must not keep the group. */
static void ends_a_group_that_the_record_lacks(void **state)
{
    _cleanup_(freep) char *group = NULL;
    struct confine confine = {0};
    struct table_entry entry;
    struct record record;
    int r;

    make(*state, &entry, &record);
    record.keep = true;
    assert_int_equal(table_write(&entry, &record, &error), 0);
    r = confine_init(&confine, &record, &error);
    assert_int_equal(r, 0);
    confine_deinit(&confine);
    group = TAKE_PTR(record.cgroup);
    if (group)
        assert_int_equal(access(group, F_OK), 0);
    assert_int_equal(table_settle(&entry, &record, &error), 0);
    assert_int_equal(record.state, IC_VM_FAILED);
    if (group)
        assert_int_equal(access(group, F_OK), -1);
    end(&entry, &record);
    if (!group)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(gives_its_own),
            cmocka_unit_test(gives_no_other_directory),
            cmocka_unit_test(opens_nothing_outside_the_store),
            cmocka_unit_test(ends_a_group_that_the_record_lacks),
    };

    if (geteuid() != 0) {
        (void)fprintf(stderr, "skipped: only root gives files away\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, home_setup, home_teardown);
}
