/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile archives: what import_clean_tar writes must hold no name that leads out, no device and no fifo. */
#include "orchestrator/images/import.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/test.h"

static char from[64], to[64];

static int make_names(void **state)
{
    int fd;

    (void)snprintf(from, sizeof(from), "/tmp/test-import-XXXXXX");
    (void)snprintf(to, sizeof(to), "/tmp/test-import-XXXXXX");
    fd = mkstemp(from);
    if (fd >= 0)
        (void)close(fd);
    fd = mkstemp(to);
    if (fd >= 0)
        (void)close(fd);
    return fd >= 0 ? 0 : -1;
}

static int remove_names(void **state)
{
    (void)unlink(from);
    (void)unlink(to);
    return 0;
}

struct item {
    const char *name;
    mode_t type;
    const char *target; /* of a symlink; of a hard link when hard */
    bool hard;
};

static void write_tar(const struct item *items, size_t count)
{
    struct archive *a = archive_write_new();

    assert_int_equal(archive_write_set_format_pax_restricted(a), ARCHIVE_OK);
    assert_int_equal(archive_write_add_filter_gzip(a), ARCHIVE_OK);
    assert_int_equal(archive_write_open_filename(a, from), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        struct archive_entry *entry = archive_entry_new();

        archive_entry_set_pathname(entry, items[i].name);
        archive_entry_set_filetype(entry, items[i].type);
        archive_entry_set_perm(entry, 04755);
        archive_entry_set_uid(entry, 1000);
        if (items[i].type == AE_IFREG && !items[i].target)
            archive_entry_set_size(entry, 3);
        if (items[i].target && items[i].hard)
            archive_entry_set_hardlink(entry, items[i].target);
        else if (items[i].target)
            archive_entry_set_symlink(entry, items[i].target);
        assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
        if (items[i].type == AE_IFREG && !items[i].target)
            assert_int_equal(archive_write_data(a, "abc", 3), 3);
        archive_entry_free(entry);
    }
    assert_int_equal(archive_write_free(a), ARCHIVE_OK);
}

/* "name name ..." of what the clean tar holds. */
static void list_clean(char *ret, size_t size)
{
    struct archive *a = archive_read_new();
    struct archive_entry *entry;
    size_t n = 0;

    ret[0] = '\0';
    (void)archive_read_support_format_tar(a);
    assert_int_equal(archive_read_open_filename(a, to, 10240), ARCHIVE_OK);
    while (archive_read_next_header(a, &entry) == ARCHIVE_OK)
        n += (size_t)snprintf(ret + n, size - n, "%s%s", n > 0 ? " " : "", archive_entry_pathname(entry));
    (void)archive_read_free(a);
}

static void names_are_cleaned_and_devices_left_out(void **state)
{
    static const struct item items[] = {
            {"./", AE_IFDIR, NULL, false},
            {"/etc//passwd", AE_IFREG, NULL, false},
            {"./usr/./bin/", AE_IFDIR, NULL, false},
            {"dev/mem", AE_IFCHR, NULL, false},
            {"dev/sda", AE_IFBLK, NULL, false},
            {"run/fifo", AE_IFIFO, NULL, false},
            {"bin", AE_IFLNK, "/../../usr/bin", false},
            {"etc/shadow", AE_IFREG, "/etc/passwd", true},
            {"a..b/..c", AE_IFREG, NULL, false},
    };
    char names[512];

    write_tar(items, ARRAY_SIZE(items));
    assert_int_equal(import_clean_tar(from, to, NULL, NULL), 0);
    list_clean(names, sizeof(names));
    assert_string_equal(names, "./ ./etc/passwd ./usr/bin/ ./bin ./etc/shadow ./a..b/..c");
}

static void names_that_lead_out_are_refused(void **state)
{
    static const struct item items[] = {
            {"../etc/passwd", AE_IFREG, NULL, false},
            {"usr/../../etc/passwd", AE_IFREG, NULL, false},
            {"usr/..", AE_IFDIR, NULL, false},
            {"x", AE_IFREG, "../../etc/passwd", true},
    };
    struct ic_error error;

    for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
        write_tar(&items[i], 1);
        assert_int_equal(import_clean_tar(from, to, NULL, &error), -IC_ERR_INVALID);
        assert_non_null(strstr(error.message, "leads out of the root"));
    }
}

static void what_is_no_tar_is_refused(void **state)
{
    struct ic_error error;
    FILE *file;

    write_tar(NULL, 0);
    assert_int_equal(import_clean_tar(from, to, NULL, &error), -IC_ERR_INVALID);
    file = fopen(from, "w");
    assert_non_null(file);
    for (int i = 0; i < 2000; i++)
        (void)fputs("not a tar ", file);
    (void)fclose(file);
    assert_true(import_clean_tar(from, to, NULL, &error) < 0);
    assert_int_equal(truncate(from, 0), 0);
    assert_true(import_clean_tar(from, to, NULL, &error) < 0);
}

/* A few kilobytes that unpack to 64 MiB, on a disk that has 8. */
static void bombs_leave_room_on_the_disk(void **state)
{
    static char zero[1 << 20];
    char dir[] = "/tmp/test-import-dir-XXXXXX", path[64];
    struct archive *a = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    struct ic_error error;
    struct statvfs vfs;
    int r;

    assert_int_equal(archive_write_set_format_pax_restricted(a), ARCHIVE_OK);
    assert_int_equal(archive_write_add_filter_gzip(a), ARCHIVE_OK);
    assert_int_equal(archive_write_open_filename(a, from), ARCHIVE_OK);
    archive_entry_set_pathname(entry, "usr/bomb");
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_size(entry, 64 << 20);
    assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
    for (int i = 0; i < 64; i++)
        assert_int_equal(archive_write_data(a, zero, sizeof(zero)), sizeof(zero));
    archive_entry_free(entry);
    assert_int_equal(archive_write_free(a), ARCHIVE_OK);

    assert_non_null(mkdtemp(dir));
    if (mount("tmpfs", dir, "tmpfs", 0, "size=8m") < 0) {
        (void)rmdir(dir);
        print_message("skipped: mounting a small tmpfs needs root\n");
        skip();
    }
    (void)snprintf(path, sizeof(path), "%s/clean", dir);
    r = import_clean_tar(from, path, NULL, &error);
    assert_int_equal(statvfs(dir, &vfs), 0);
    (void)umount2(dir, MNT_DETACH);
    (void)rmdir(dir);
    assert_int_equal(r, -IC_ERR_NO_SPACE);
    assert_true(vfs.f_bavail >= vfs.f_blocks / 25);
}

static void paths_are_normalised(void **state)
{
    char out[16];

    assert_true(import_path_ok("./", out, sizeof(out)));
    assert_string_equal(out, "");
    assert_true(import_path_ok("//a/./b//", out, sizeof(out)));
    assert_string_equal(out, "a/b");
    assert_false(import_path_ok("a/../b", out, sizeof(out)));
    assert_false(import_path_ok("..", out, sizeof(out)));
    assert_true(import_path_ok("...", out, sizeof(out)));
    assert_false(import_path_ok("0123456789abcdef", out, sizeof(out)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(names_are_cleaned_and_devices_left_out),
            cmocka_unit_test(names_that_lead_out_are_refused),
            cmocka_unit_test(what_is_no_tar_is_refused),
            cmocka_unit_test(bombs_leave_room_on_the_disk),
            cmocka_unit_test(paths_are_normalised),
    };
    return cmocka_run_group_tests(tests, make_names, remove_names);
}
