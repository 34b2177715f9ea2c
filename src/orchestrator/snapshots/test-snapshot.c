/* SPDX-License-Identifier: Apache-2.0 */
/* The store of snapshots: what is taken over from a monitor, what is refused when it is opened. */
#include "orchestrator/test-util.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "orchestrator/snapshots/prune.h"
#include "orchestrator/snapshots/saving.h"
#include "orchestrator/snapshots/snapshot.h"

#define PAGE   4096u
#define ROOTFS "/dev/null" /* one that is there; it is only looked whether it is */

static struct ic_error error;

/* A run directory with what a monitor would have saved: `state`, and `memory` with a hole in it. */
static struct record saved_vm(const char *vm_id)
{
    struct record vm = sample_record(vm_id);
    char path[512], page[PAGE];
    int fd;

    vm.memory_mib = 64;
    vm.kernel_path = strdup("/k/vmlinux");
    vm.rootfs_path = strdup(ROOTFS);
    (void)snprintf(vm.image, sizeof(vm.image), "base");
    assert_int_equal(path_make_dir(vm.run_dir, &error), 0);
    (void)snprintf(path, sizeof(path), "%s/s", vm.run_dir);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, "processors and devices", 22, 0600), 0);
    (void)snprintf(path, sizeof(path), "%s/m", vm.run_dir);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    memset(page, 'x', sizeof(page));
    assert_int_equal(pwrite(fd, page, sizeof(page), 0), sizeof(page));
    assert_int_equal(pwrite(fd, page, sizeof(page), 40 * PAGE), sizeof(page));
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    fd_close(fd);
    return vm;
}

static void take(const char *object, const char *name)
{
    struct record vm = saved_vm("vm-1");

    assert_int_equal(snapshot_take(STORE_SNAPSHOTS, object, name, &vm, &error), 0);
    record_deinit(&vm);
}

static void part_path(char ret[600], const char *home, const char *object, const char *part)
{
    (void)snprintf(ret, 600, "%s/data/snapshots/%s/%s", home, object, part);
}

static void takes_and_opens(void **state)
{
    struct snapshot s;
    struct stat st;

    take("0001", "before");
    assert_false(in_home(*state, "run/vm-1/s")); /* moved, not copied */
    assert_false(in_home(*state, "run/vm-1/m"));
    assert_int_equal(snapshot_open(STORE_SNAPSHOTS, "before", NULL, &s, &error), 0);
    assert_string_equal(s.vm.vm_id, "vm-1");
    assert_string_equal(s.vm.rootfs_path, ROOTFS);
    assert_true(s.has[SNAPSHOT_STATE] && s.has[SNAPSHOT_MEMORY]);
    assert_int_equal(s.sum[SNAPSHOT_STATE].size, 22);
    assert_int_equal(s.sum[SNAPSHOT_MEMORY].size, 1 << 20);
    assert_int_equal(stat(s.path[SNAPSHOT_MEMORY], &st), 0);
    assert_int_equal(st.st_mode & 0777, 0444);
    assert_true((uint64_t)st.st_blocks * 512 < 64 * PAGE); /* the hole stayed one */
    snapshot_deinit(&s);
}

/* By way of the manifest, over as many generations as there are. */
static void carries_that_it_was_not_reseeded(void **state)
{
    static const char noted[] = "template 0123 " SNAPSHOT_NOT_RESEEDED;
    char origin[sizeof(((struct record *)0)->origin)] = "snapshot noted";

    for (unsigned i = 0; i < 2; i++) {
        struct record vm = saved_vm("vm-1");
        struct snapshot s;
        const char *name = i == 0 ? "noted" : "again";

        (void)snprintf(vm.origin, sizeof(vm.origin), "%s", i == 0 ? noted : origin);
        assert_int_equal(snapshot_take(STORE_SNAPSHOTS, name, name, &vm, &error), 0);
        assert_int_equal(snapshot_open(STORE_SNAPSHOTS, name, NULL, &s, &error), 0);
        (void)snprintf(origin, sizeof(origin), "snapshot %s", name);
        for (unsigned j = 0; j < 2; j++) { /* once is enough */
            snapshot_carry_note(&s, origin, sizeof(origin));
            assert_int_equal(strlen(origin), strlen("snapshot noted for tests: not reseeded"));
        }
        assert_non_null(strstr(origin, " for tests: not reseeded"));
        s.vm.origin[0] = '\0';
        (void)snprintf(origin, sizeof(origin), "snapshot %s", name);
        snapshot_carry_note(&s, origin, sizeof(origin));
        assert_null(strstr(origin, "tests"));
        (void)snprintf(origin, sizeof(origin), "snapshot %s " SNAPSHOT_NOT_RESEEDED, name);
        snapshot_deinit(&s);
        record_deinit(&vm);
        assert_int_equal(ic_snapshot_remove(name, &error), 0);
    }
}

/* Where the holes are is no part of the content; one byte elsewhere is. */
static void digests_content(void **state)
{
    struct file_sum sparse, full, other;
    char a[512], b[512], page[PAGE] = {0};
    int fd;

    (void)snprintf(a, sizeof(a), "%s/a", (const char *)*state);
    (void)snprintf(b, sizeof(b), "%s/b", (const char *)*state);
    fd = open(a, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, "data", 4, 9 * PAGE), 4);
    assert_int_equal(ftruncate(fd, 20 * PAGE + 5), 0);
    fd_close(fd);
    fd = open(b, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
    assert_int_equal(write(fd, page, 5), 5);
    assert_int_equal(pwrite(fd, "data", 4, 9 * PAGE), 4);
    assert_int_equal(file_sum(a, NULL, "a", &sparse, &error), 0);
    assert_int_equal(file_sum(b, NULL, "b", &full, &error), 0);
    assert_string_equal(sparse.sha256, full.sha256);
    assert_int_equal(pwrite(fd, "d", 1, 20 * PAGE + 4), 1);
    assert_int_equal(file_sum(b, NULL, "b", &other, &error), 0);
    assert_string_not_equal(other.sha256, full.sha256);
    assert_int_equal(ftruncate(fd, 20 * PAGE + 4), 0);
    assert_int_equal(file_sum(b, NULL, "b", &other, &error), 0);
    assert_string_not_equal(other.sha256, full.sha256);
    fd_close(fd);
    assert_int_equal(unlink(a) | unlink(b), 0);
}

/* The monitor may be in its guest's hands by then. */
static void takes_only_bounded_files(void **state)
{
    struct record vm = saved_vm("vm-2");
    char state_path[512];

    (void)snprintf(state_path, sizeof(state_path), "%s/s", vm.run_dir);
    assert_int_equal(unlink(state_path), 0);
    assert_int_equal(snapshot_take(STORE_SNAPSHOTS, "0002", "none", &vm, &error), -IC_ERR_NOT_FOUND);
    assert_int_equal(symlink("/etc/passwd", state_path), 0);
    assert_true(snapshot_take(STORE_SNAPSHOTS, "0002", "link", &vm, &error) < 0);
    assert_int_equal(mkfifo(state_path, 0600), 0); /* the link was removed, as it is the VM's */
    assert_int_equal(snapshot_take(STORE_SNAPSHOTS, "0002", "fifo", &vm, &error), -IC_ERR_CORRUPT);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, state_path, "x", 1, 0600), 0);
    assert_int_equal(truncate(state_path, (off_t)1 << 40), 0);
    assert_int_equal(snapshot_take(STORE_SNAPSHOTS, "0002", "huge", &vm, &error), -IC_ERR_CORRUPT);
    assert_false(in_home(*state, "data/snapshots/0002"));
    record_deinit(&vm);
}

static void refused(const char *name, const char *word)
{
    struct snapshot s;

    assert_int_equal(snapshot_open(STORE_SNAPSHOTS, name, NULL, &s, &error), -IC_ERR_CORRUPT);
    if (!strstr(error.message, word))
        fail_msg("no '%s' in: %s", word, error.message);
}

static void refuses_what_changed(void **state)
{
    static const char *const parts[] = {"state", "memory"};
    struct snapshot s;
    char path[600];

    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
        char name[8], object[8];
        int fd;

        (void)snprintf(name, sizeof(name), "flip%u", i);
        (void)snprintf(object, sizeof(object), "100%u", i);
        take(object, name);
        part_path(path, *state, object, parts[i]);
        assert_int_equal(chmod(path, 0600), 0);
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(pwrite(fd, "y", 1, 7), 1);
        fd_close(fd);
        refused(name, "is damaged");
        refused(name, parts[i]);
        assert_int_equal(snapshot_verify(STORE_SNAPSHOTS, name, NULL, &error), -IC_ERR_CORRUPT);
        assert_int_equal(truncate(path, 5), 0);
        refused(name, "has 5 bytes");
        assert_int_equal(unlink(path), 0);
        refused(name, "No such file");
    }
    take("2000", "whole");
    part_path(path, *state, "2000", "manifest.json");
    assert_int_equal(truncate(path, 10), 0);
    refused("whole", "manifest");
    assert_int_equal(snapshot_open(STORE_SNAPSHOTS, "nope", NULL, &s, &error), -IC_ERR_NOT_FOUND);
    assert_int_equal(snapshot_open(STORE_SNAPSHOTS, "../x", NULL, &s, &error), -IC_ERR_INVALID);
}

/* A file that only looks changed is read again, and then is fine; after that it is not read any more. */
static void notes_what_it_read(void **state)
{
    const struct timespec long_ago[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    struct snapshot s;
    char path[600];
    struct stat before, after;

    take("3000", "seen");
    part_path(path, *state, "3000", "memory");
    assert_int_equal(utimensat(AT_FDCWD, path, long_ago, 0), 0);
    part_path(path, *state, ".seen-3000", "");
    path[strlen(path) - 1] = '\0';
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(snapshot_open(STORE_SNAPSHOTS, "seen", NULL, &s, &error), 0);
    snapshot_deinit(&s);
    assert_int_equal(stat(path, &after), 0);
    assert_true(before.st_ino != after.st_ino); /* written anew */
    assert_int_equal(snapshot_open(STORE_SNAPSHOTS, "seen", NULL, &s, &error), 0);
    snapshot_deinit(&s);
    assert_int_equal(stat(path, &before), 0);
    assert_true(before.st_ino == after.st_ino);
}

static void lists_and_removes(void **state)
{
    struct ic_snapshot_info *infos = NULL;
    size_t count = 0;
    char path[600];

    take("4000", "one");
    take("4001", "two");
    part_path(path, *state, "4001", "manifest.json");
    assert_int_equal(truncate(path, 3), 0);
    assert_int_equal(ic_snapshot_list(&infos, &count, &error), 0);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(infos[i].name, "one") == 0) {
            assert_string_equal(infos[i].vm_id, "vm-1");
            assert_string_equal(infos[i].image, "base");
            assert_true(infos[i].size_bytes >= 2 * PAGE && infos[i].created_unix_ms > 0);
        } else if (strcmp(infos[i].name, "two") == 0) {
            assert_int_equal(infos[i].backend, IC_BACKEND_AUTO); /* damaged, and can still be removed */
        }
    }
    free(infos);
    assert_int_equal(ic_snapshot_remove("one", &error), 0);
    assert_int_equal(ic_snapshot_remove("two", &error), 0);
    assert_int_equal(ic_snapshot_remove("two", &error), -IC_ERR_NOT_FOUND);
    assert_false(in_home(*state, "data/snapshots/4000"));
    assert_false(in_home(*state, "data/snapshots/.seen-4000"));
}

static void prunes(void **state)
{
    struct record vm = saved_vm("vm-3");
    struct ic_snapshot_info *infos = NULL;
    size_t count = 0, removed = 9;

    for (unsigned i = 0; i < 3; i++) {
        char name[8];

        record_deinit(&vm);
        vm = saved_vm("vm-3");
        (void)snprintf(name, sizeof(name), "t%u", i);
        assert_int_equal(snapshot_take(STORE_TEMPLATES, name, name, &vm, &error), 0);
    }
    assert_int_equal(ic_template_prune(1, 0, &removed, &error), 0);
    assert_int_equal(removed, 0);
    assert_int_equal(template_prune(0, 0, "t1", &removed, &error), 0); /* all, but for one */
    assert_int_equal(removed, 2);
    assert_int_equal(ic_template_list(&infos, &count, &error), 0);
    assert_int_equal(count, 1);
    assert_string_equal(infos[0].name, "t1");
    free(infos);
    record_deinit(&vm);
    vm = saved_vm("vm-3");
    memset(vm.image_digest, 'a', 64); /* of an image that is not there */
    assert_int_equal(snapshot_take(STORE_TEMPLATES, "t4", "t4", &vm, &error), 0);
    assert_int_equal(ic_template_prune(UINT32_MAX, UINT32_MAX, &removed, &error), 0);
    assert_int_equal(removed, 1);
    record_deinit(&vm);
}

static void reads_its_settings(void **state)
{
    uint32_t age = 1, total = 2;
    json_t *object = json_loads("{\"max_age_days\": 7}", 0, NULL);

    assert_int_equal(prune_parse(object, &age, &total, &error), 0);
    assert_int_equal(age, 7);
    assert_int_equal(total, 2);
    json_decref(object);
    object = json_loads("{\"max_total_mib\": 0}", 0, NULL);
    assert_int_equal(prune_parse(object, &age, &total, &error), -IC_ERR_INVALID);
    json_decref(object);
    object = json_loads("{\"days\": 1}", 0, NULL);
    assert_int_equal(prune_parse(object, &age, &total, &error), -IC_ERR_INVALID);
    assert_non_null(strstr(error.message, "max_age_days"));
    json_decref(object);
}

static void refuses_manifests(void **state)
{
    struct snapshot s = {.lock_fd = -1, .created_unix_ms = 5}, parsed;
    char *text;

    s.vm = sample_record("vm-4");
    s.has[SNAPSHOT_STATE] = true;
    s.sum[SNAPSHOT_STATE].size = 1;
    memset(s.sum[SNAPSHOT_STATE].sha256, '0', DIGEST_HEX_LEN);
    text = snapshot_format(&s);
    assert_non_null(text);
    assert_int_equal(snapshot_parse(text, strlen(text), "m", &parsed, &error), 0);
    assert_false(parsed.has[SNAPSHOT_MEMORY]);
    snapshot_deinit(&parsed);
    for (size_t i = 0; i < strlen(text); i++) { /* cut anywhere */
        if (snapshot_parse(text, i, "m", &parsed, &error) == 0)
            fail_msg("taken when cut at %zu", i);
    }
    free(text);
    snapshot_deinit(&s);
}

/* A VM that was paused by its user can't be thawed yet; of one that ends only the files have to go. */
static void reaps_what_savers_left(void **state)
{
    struct table_entry entry = {.lock_fd = -1};
    struct record vm = saved_vm("vm-3");
    struct saving alive = SAVING_NONE, dead = SAVING_NONE;

    assert_int_equal(table_claim(&entry, &vm, NULL, &error), 0);
    assert_int_equal(saving_begin(&entry, &vm, &alive, &error), 0);
    assert_int_equal(saving_begin(&entry, &vm, &dead, &error), 0);
    assert_string_not_equal(alive.dir, dead.dir);
    assert_int_equal(saving_reap("vm-3", &error), 0);
    assert_int_equal(access(dead.dir, F_OK), 0);
    fd_close(dead.lock_fd);
    dead.lock_fd = -1;
    assert_int_equal(saving_reap("vm-3", &error), 0); /* the VM's lock is held: somebody is at it */
    assert_int_equal(access(dead.dir, F_OK), 0);
    vm.state = IC_VM_PAUSED;
    assert_int_equal(table_write(&entry, &vm, &error), 0);
    table_entry_deinit(&entry);
    assert_int_equal(saving_reap("vm-3", &error), 0);
    assert_int_equal(access(dead.dir, F_OK), 0);
    assert_true(in_home(*state, "run/vm-3/s"));
    vm.state = IC_VM_STOPPING;
    assert_int_equal(table_lock(&entry, "vm-3", 0, &error), 0);
    assert_int_equal(table_write(&entry, &vm, &error), 0);
    table_entry_deinit(&entry);
    assert_int_equal(saving_reap("vm-3", &error), 0);
    assert_true(access(dead.dir, F_OK) < 0);
    assert_false(in_home(*state, "run/vm-3/s") || in_home(*state, "run/vm-3/m"));
    assert_int_equal(access(alive.dir, F_OK), 0);
    saving_end(&alive);
    assert_null(alive.dir);
    free(dead.dir);
    free(dead.run_dir);
    assert_int_equal(saving_reap("vm-3", &error), 0);
    record_deinit(&vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(takes_and_opens),
            cmocka_unit_test(carries_that_it_was_not_reseeded),
            cmocka_unit_test(digests_content),
            cmocka_unit_test(takes_only_bounded_files),
            cmocka_unit_test(refuses_what_changed),
            cmocka_unit_test(notes_what_it_read),
            cmocka_unit_test(lists_and_removes),
            cmocka_unit_test(reaps_what_savers_left),
            cmocka_unit_test(prunes),
            cmocka_unit_test(reads_its_settings),
            cmocka_unit_test(refuses_manifests),
    };

    return cmocka_run_group_tests(tests, home_setup, home_teardown);
}
