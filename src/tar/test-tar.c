/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile archives: what ironclaw-tar writes must hold no name that leads out, no device and no fifo. */
#include "tar/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"
#include "tar/confine.h"

static const char *program; /* ironclaw-tar */
static char from[64], to[64];
static char said[4096]; /* what it said last */

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

static int child(const char *what, const char *to_path, int said_fd)
{
    const int in = open(from, O_RDONLY | O_CLOEXEC);
    const int out = open(to_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    /* What a caller may have, and its libraries would do more calls for. */
    (void)setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 1);
    (void)setenv("GCONV_PATH", "/nowhere", 1);
    (void)setenv("LANG", "C.UTF-8", 1);
    if (in >= 0 && out >= 0 && dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
            dup2(said_fd, STDERR_FILENO) >= 0)
        (void)execl(program, program, what, NULL);
    return 99;
}

/* Its exit status, 128 and more for a signal. */
static int run_to(const char *what, const char *to_path)
{
    int fds[2], status;
    size_t len = 0;
    ssize_t n;
    pid_t pid;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(child(what, to_path, fds[1]));
    (void)close(fds[1]);
    while ((n = read(fds[0], said + len, sizeof(said) - 1 - len)) > 0)
        len += (size_t)n;
    said[len] = '\0';
    (void)close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void clean(void)
{
    int status = run_to("clean", to);

    if (status != 0)
        fail_msg("status %d: %s", status, said);
}

static void assert_refused(const char *why)
{
    assert_int_equal(run_to("clean", to), 1);
    assert_non_null(strstr(said, "error "));
    if (!strstr(said, why))
        fail_msg("'%s' is not in: %s", why, said);
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
    clean();
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
    for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
        write_tar(&items[i], 1);
        assert_refused("error invalid ");
        assert_non_null(strstr(said, "leads out of the root"));
    }
}

static void what_is_no_tar_is_refused(void **state)
{
    FILE *file;

    write_tar(NULL, 0);
    assert_refused("error invalid no files in it");
    file = fopen(from, "w");
    assert_non_null(file);
    for (int i = 0; i < 2000; i++)
        (void)fputs("not a tar ", file);
    (void)fclose(file);
    assert_refused("error invalid not a tar");
    assert_int_equal(truncate(from, 0), 0);
    assert_refused("error ");
}

/* A few kilobytes that unpack to 64 MiB, on a disk that has 8. */
static void bombs_leave_room_on_the_disk(void **state)
{
    static char zero[1 << 20];
    char dir[] = "/tmp/test-import-dir-XXXXXX", path[64];
    struct archive *a = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
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
    r = run_to("clean", path);
    assert_int_equal(statvfs(dir, &vfs), 0);
    (void)umount2(dir, MNT_DETACH);
    (void)rmdir(dir);
    assert_int_equal(r, 1);
    assert_non_null(strstr(said, "error no-space "));
    assert_true(vfs.f_bavail >= vfs.f_blocks / 25);
}

/* Of which the names may be anything, and files may be compressed as they like. */
static void any_names_and_filters(void **state)
{
    static const char *const names[] = {
            "\xff\xfe/\x80", "caf\xc3\xa9", "new\nline", "tab\tand space", "\xe6\x97\xa5/\xe6\x9c\xac"};
    static int (*const filters[])(struct archive *) = {archive_write_add_filter_none, archive_write_add_filter_gzip,
            archive_write_add_filter_bzip2, archive_write_add_filter_xz, archive_write_add_filter_zstd};

    for (size_t f = 0; f < ARRAY_SIZE(filters); f++) {
        struct archive *a = archive_write_new(), *b = archive_read_new();
        struct archive_entry *entry = archive_entry_new();

        assert_int_equal(archive_write_set_format_pax(a), ARCHIVE_OK);
        (void)archive_write_set_options(a, "hdrcharset=BINARY");
        assert_int_equal(filters[f](a), ARCHIVE_OK);
        assert_int_equal(archive_write_open_filename(a, from), ARCHIVE_OK);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
            archive_entry_clear(entry);
            archive_entry_set_pathname(entry, names[i]);
            archive_entry_set_filetype(entry, AE_IFREG);
            archive_entry_set_uname(entry, "somebody");
            archive_entry_set_size(entry, 3);
            assert_true(archive_write_header(a, entry) >= ARCHIVE_WARN);
            assert_int_equal(archive_write_data(a, "abc", 3), 3);
        }
        archive_entry_free(entry);
        assert_int_equal(archive_write_free(a), ARCHIVE_OK);
        clean();
        (void)archive_read_support_format_tar(b);
        (void)archive_read_set_options(b, "hdrcharset=BINARY");
        assert_int_equal(archive_read_open_filename(b, to, 10240), ARCHIVE_OK);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
            assert_true(archive_read_next_header(b, &entry) >= ARCHIVE_WARN);
            assert_memory_equal(archive_entry_pathname(entry), "./", 2);
            assert_string_equal(archive_entry_pathname(entry) + 2, names[i]);
        }
        assert_int_equal(archive_read_next_header(b, &entry), ARCHIVE_EOF);
        (void)archive_read_free(b);
    }
}

static void kinds_are_told_apart(void **state)
{
    static const struct item root[] = {{"./", AE_IFDIR, NULL, false}, {"./etc/passwd", AE_IFREG, NULL, false},
            {"oci-layout", AE_IFREG, NULL, false}};
    static const struct item oci[] = {{"blobs/", AE_IFDIR, NULL, false}, {"oci-layout", AE_IFREG, NULL, false}};
    static const struct item docker[] = {
            {"0123/layer.tar", AE_IFREG, NULL, false}, {"manifest.json", AE_IFREG, NULL, false}};
    static const struct {
        const struct item *items;
        size_t count;
        const char *said;
    } kinds[] = {{root, ARRAY_SIZE(root), "kind tar\n"}, {oci, ARRAY_SIZE(oci), "kind oci\n"},
            {docker, ARRAY_SIZE(docker), "kind docker\n"}};

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        write_tar(kinds[i].items, kinds[i].count);
        assert_int_equal(run_to("detect", to), 0);
        assert_string_equal(said, kinds[i].said);
    }
}

static void what_it_says_is_one_line(void **state)
{
    static const struct item items[] = {{"../a\nerror no-space b", AE_IFREG, NULL, false}};

    write_tar(items, ARRAY_SIZE(items));
    assert_refused("'../a?error no-space b' leads out");
    assert_null(strstr(said, "\nerror no-space"));
}

/* ---- what it can't do, whoever has taken it over ---- */

static void open_a_file(void)
{
    _exit(open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0 && errno == ENOENT ? 77 : 0);
}

static void connect_to_something(void)
{
    (void)socket(AF_UNIX, SOCK_STREAM, 0);
}

static void run_a_program(void)
{
    (void)execl("/bin/true", "true", NULL);
}

static void make_a_process(void)
{
    (void)fork();
}

static void make_code(void)
{
    (void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void end_somebody(void)
{
    (void)kill(1, 0);
}

static void remove_a_file(void)
{
    (void)unlink("/nowhere");
}

static void use_a_descriptor_that_was_left_open(void)
{
    char byte;

    _exit(read(7, &byte, 1) < 0 && errno == EBADF ? 77 : 0);
}

static void it_can_do_nothing_else(void **state)
{
    static const struct {
        void (*attempt)(void);
        int status;
    } attempts[] = {{open_a_file, 77}, {connect_to_something, SECCOMP_EXIT_STATUS},
            {run_a_program, SECCOMP_EXIT_STATUS}, {make_a_process, SECCOMP_EXIT_STATUS},
            {make_code, SECCOMP_EXIT_STATUS}, {end_somebody, SECCOMP_EXIT_STATUS}, {remove_a_file, SECCOMP_EXIT_STATUS},
            {use_a_descriptor_that_was_left_open, 77}};

#ifdef IC_SANITIZING
    print_message("skipped: there is no filter beside a sanitizer\n");
    skip();
#endif
    for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            (void)dup2(STDERR_FILENO, 7);
            if (tar_confine() == 0)
                attempts[i].attempt();
            _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), attempts[i].status);
    }
}

static void paths_are_normalised(void **state)
{
    char out[16];

    assert_true(tar_path_ok("./", out, sizeof(out)));
    assert_string_equal(out, "");
    assert_true(tar_path_ok("//a/./b//", out, sizeof(out)));
    assert_string_equal(out, "a/b");
    assert_false(tar_path_ok("a/../b", out, sizeof(out)));
    assert_false(tar_path_ok("..", out, sizeof(out)));
    assert_true(tar_path_ok("...", out, sizeof(out)));
    assert_false(tar_path_ok("0123456789abcdef", out, sizeof(out)));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(names_are_cleaned_and_devices_left_out),
            cmocka_unit_test(names_that_lead_out_are_refused),
            cmocka_unit_test(what_is_no_tar_is_refused),
            cmocka_unit_test(bombs_leave_room_on_the_disk),
            cmocka_unit_test(any_names_and_filters),
            cmocka_unit_test(kinds_are_told_apart),
            cmocka_unit_test(what_it_says_is_one_line),
            cmocka_unit_test(it_can_do_nothing_else),
            cmocka_unit_test(paths_are_normalised),
    };

    if (argc != 2)
        return 2;
    program = argv[1];
    return cmocka_run_group_tests(tests, make_names, remove_names);
}
