/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/snapshot/memory-file.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/test.h"

#define MIB  (1u << 20)
#define PAGE 4096u
#define RAM  (4 * MIB)

static const struct machine_config machine = {.vcpu_count = 1, .mem_size_mib = RAM / MIB};
static const struct machine_config tracked = {.vcpu_count = 1, .mem_size_mib = RAM / MIB, .track_dirty_pages = true};
static const struct memory_file_info full = {.id = "0123456789abcde", .ram_bytes = RAM};
static const struct memory_file_info changes = {
        .id = "fedcba987654321", .ram_bytes = RAM, .diff = true, .base = "0123456789abcde"};

static int temporary(void)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

static struct memory *guest(const struct machine_config *config)
{
    static struct memory memory;
    struct vm_error error;

    assert_int_equal(memory_init(&memory, config, &error), 0);
    return &memory;
}

static off_t size_of(int fd, blkcnt_t *ret_blocks)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    if (ret_blocks)
        *ret_blocks = st.st_blocks;
    return st.st_size;
}

/* A file of a guest that used the first page, pages 300 to 899 and the last one. */
static int made(void)
{
    struct memory *memory = guest(&machine);
    struct vm_error error;
    int fd = temporary();

    memset(memory->host, 'a', 1);
    for (uint32_t i = 300; i < 900; i++)
        memset(memory->host + (size_t)i * PAGE + i, (int)i | 1, 3);
    memory->host[RAM - 1] = 'z';
    assert_int_equal(memory_file_write(fd, memory, NULL, &full, &error), 0);
    memory_deinit(memory);
    return fd;
}

static void assert_refused(int fd, const uint8_t *id, const struct machine_config *config, int code, const char *says)
{
    struct memory memory;
    struct vm_error error = {{0}};

    assert_int_equal(memory_load_file(&memory, config, fd, "dir/m", id, &error), code);
    if (!strstr(error.text, says) || !strstr(error.text, "dir/m"))
        fail_msg("'%s' not in: %s", says, error.text);
    assert_null(memory.host);
    fd_close(fd);
}

static void round_trip(void **state)
{
    struct memory memory;
    struct vm_error error;
    blkcnt_t blocks;
    int fd = made();
    uint8_t byte = 0;

    assert_int_equal(size_of(fd, &blocks), RAM + PAGE);
    assert_in_range(blocks, 603 * 8, 700 * 8); /* the rest are holes */
    assert_int_equal(memory_load_file(&memory, &machine, fd, "m", full.id, &error), 0);
    assert_int_equal((uintptr_t)memory.host % (2 * MIB), 0);
    assert_int_equal(memory.gmem.count, 1);
    assert_int_equal(gmem_read(&memory.gmem, (struct gpa){RAM - 1}, &byte, 1), 0);
    assert_int_equal(byte, 'z');
    assert_int_equal(memory.host[0], 'a');
    for (uint32_t i = 0; i < 1023; i++)
        assert_int_equal(memory.host[(size_t)i * PAGE + i], i >= 300 && i < 900 ? (uint8_t)(i | 1) : i == 0 ? 'a' : 0);
    memory_deinit(&memory);
    fd_close(fd);
}

/* What one clone writes neither the file nor another clone sees; the trailer is no memory. */
static void private(void **state)
{
    struct memory one, two;
    struct vm_error error;
    int fd = made();
    uint8_t byte = 0;

    assert_int_equal(memory_load_file(&one, &machine, fd, "m", full.id, &error), 0);
    assert_int_equal(memory_load_file(&two, &machine, fd, "m", full.id, &error), 0);
    memset(one.host, 'x', RAM);
    assert_int_equal(two.host[0], 'a');
    assert_int_equal(two.host[RAM - 1], 'z');
    assert_int_equal(pread(fd, &byte, 1, 0), 1);
    assert_int_equal(byte, 'a');
    assert_int_equal(gmem_read(&two.gmem, (struct gpa){RAM}, &byte, 1), -EFAULT);
    memory_deinit(&one);
    memory_deinit(&two);
    fd_close(fd);
}

/* A file is written from any mapping, also from one of a file; what was in it before is gone. */
static void clone_of_a_clone(void **state)
{
    struct memory memory;
    struct vm_error error;
    int first = made(), second = temporary();

    assert_int_equal(ftruncate(second, 2 * RAM), 0);
    assert_int_equal(pwrite(second, "old", 3, PAGE), 3);
    assert_int_equal(memory_load_file(&memory, &machine, first, "m", full.id, &error), 0);
    memory.host[RAM / 2] = 'q';
    assert_int_equal(memory_file_write(second, &memory, NULL, &full, &error), 0);
    memory_deinit(&memory);
    assert_int_equal(size_of(second, NULL), RAM + PAGE);
    assert_int_equal(memory_load_file(&memory, &machine, second, "m", full.id, &error), 0);
    assert_int_equal(memory.host[RAM / 2], 'q');
    assert_int_equal(memory.host[PAGE], 0);
    assert_int_equal(memory.host[0], 'a');
    memory_deinit(&memory);
    fd_close(first);
    fd_close(second);
}

/* KiB of the mapping that are the process's own. */
static unsigned long own_kib(const void *host)
{
    _cleanup_(freep) char *text = NULL;
    const char *line;
    char start[32];
    size_t len;

    assert_int_equal(fd_read_file(AT_FDCWD, "/proc/self/smaps", 16 * MIB, &text, &len), 0);
    (void)snprintf(start, sizeof(start), "\n%lx-", (unsigned long)(uintptr_t)host);
    line = strstr(text, start);
    assert_non_null(line);
    line = strstr(line, "\nAnonymous:");
    assert_non_null(line);
    return strtoul(line + strlen("\nAnonymous:"), NULL, 10);
}

/* Some kernels give a page of its own to who reads one that nobody wrote; others map the one that is all zeros. */
static bool reading_takes_memory(const volatile uint8_t *host)
{
    return host[0] == 0 && own_kib((const void *)host) != 0;
}

static void writing_uses_no_memory(void **state)
{
    struct memory *memory = guest(&machine);
    struct vm_error error;
    int fd;

    (void)madvise(memory->host, RAM, MADV_NOHUGEPAGE);
    if (reading_takes_memory(memory->host)) {
        memory_deinit(memory);
        print_message("this kernel maps no page of zeros\n");
        skip();
    }
    fd = temporary();
    memory->host[5 * PAGE] = 1;
    assert_int_equal(memory_file_write(fd, memory, NULL, &full, &error), 0);
    assert_int_equal(own_kib(memory->host), PAGE / 1024);
    memory_deinit(memory);
    fd_close(fd);
}

static void truncated(void **state)
{
    static const off_t lengths[] = {0, 1, PAGE, RAM - 1, RAM, RAM + 1, RAM + PAGE - 1};

    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        int fd = made();

        assert_int_equal(ftruncate(fd, lengths[i]), 0);
        assert_refused(fd, full.id, &machine, -EBADMSG, "truncated");
    }
}

static void of_another_snapshot(void **state)
{
    assert_refused(made(), changes.id, &machine, -ESTALE, "3031323334");
}

static void of_another_size(void **state)
{
    struct machine_config other = machine;
    int fd = made();

    other.mem_size_mib = 3;
    assert_refused(fd, full.id, &other, -EBADMSG, "no valid trailer at byte 3145728");
    other.mem_size_mib = 5;
    assert_refused(made(), full.id, &other, -EBADMSG, "truncated");
    fd = made();
    assert_int_equal(ftruncate(fd, RAM + 2 * PAGE), 0);
    assert_refused(fd, full.id, &machine, -EBADMSG, "4202496 bytes, its trailer says 4198400");
}

/* Whatever bit it is, also one that nobody reads. */
static void flipped_bits(void **state)
{
    static const uint32_t more[] = {100, 2048, 4091};

    for (uint32_t bit = 0; bit < 80 * 8 + ARRAY_SIZE(more) + 32; bit++) {
        uint32_t at = bit < 640 ? bit / 8 : bit < 640 + ARRAY_SIZE(more) ? more[bit - 640] : 4092 + (bit - 643) / 8;
        int fd = made();
        uint8_t byte;

        assert_int_equal(pread(fd, &byte, 1, RAM + at), 1);
        byte ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(pwrite(fd, &byte, 1, RAM + at), 1);
        assert_refused(fd, full.id, &machine, -EBADMSG, "no valid trailer");
    }
}

static void no_file(void **state)
{
    struct machine_config huge = machine;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    fd_close(fds[1]);
    assert_refused(fds[0], full.id, &machine, -EINVAL, "no regular file");
    huge.huge_pages = HUGE_PAGES_2M;
    {
        struct memory memory;
        struct vm_error error = {{0}};
        int fd = made();

        assert_int_equal(memory_load_file(&memory, &huge, fd, "m", full.id, &error), -ENOTSUP);
        assert_non_null(strstr(error.text, "Uffd"));
        fd_close(fd);
    }
}

/* As full a disk as a test can have without being root: no file may be longer than 2 MiB. */
static void full_disk(void **state)
{
    struct memory *memory = guest(&machine);
    struct rlimit before, small;
    struct vm_error error = {{0}};
    int fd = temporary();

    memset(memory->host, 1, RAM);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){2 * MIB, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(memory_file_write(fd, memory, NULL, &full, &error), -EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_non_null(strstr(error.text, "make room"));
    memory_deinit(memory);
    assert_refused(fd, full.id, &machine, -EBADMSG, "truncated");
}

/* ---- diffs ---- */

/* The guest of made() went on: it changed page 300, cleared page 301 and used page 1000. */
static int made_diff(struct memory *memory, struct vm_error *error)
{
    int fd = temporary();

    assert_ptr_equal(memory->gmem.dirty, &memory->written);
    assert_int_equal(gmem_write(&memory->gmem, (struct gpa){300 * PAGE}, "changed", 7), 0);
    memset(memory->host + (size_t)301 * PAGE, 0, PAGE);
    gmem_wrote(&memory->gmem, memory->host + (size_t)301 * PAGE, PAGE);
    assert_int_equal(gmem_write(&memory->gmem, (struct gpa){1000 * PAGE + 5}, "new", 3), 0);
    assert_int_equal(dirty_pages_total(&memory->written), 3);
    assert_int_equal(memory_file_write(fd, memory, &memory->written, &changes, error), 0);
    return fd;
}

static void merge(void **state)
{
    struct memory memory, merged;
    struct vm_error error;
    int base = made(), diff;
    blkcnt_t blocks;

    assert_int_equal(memory_load_file(&memory, &tracked, base, "m", full.id, &error), 0);
    assert_int_equal(dirty_pages_total(&memory.written), 0);
    diff = made_diff(&memory, &error);
    assert_int_equal(size_of(diff, &blocks), RAM + 2 * PAGE);
    assert_in_range(blocks, 5 * 8, 16 * 8);
    assert_int_equal(memory_file_merge(base, "b", diff, "d", &error), 0);
    assert_int_equal(memory_load_file(&merged, &machine, base, "m", changes.id, &error), 0);
    assert_memory_equal(merged.host, memory.host, RAM);
    assert_memory_equal(merged.host + (size_t)300 * PAGE, "changed", 7);
    assert_int_equal(merged.host[301 * PAGE + 301], 0);
    memory_deinit(&memory);
    memory_deinit(&merged);
    fd_close(base);
    /* By itself it is no memory. */
    assert_refused(diff, changes.id, &machine, -EINVAL, "merge it");
}

/* A word of the bitmap in which all are set, some that follow each other, the first and the last page. */
static void merge_runs(void **state)
{
    struct memory memory, merged;
    struct vm_error error;
    int base = made(), diff = temporary();

    assert_int_equal(memory_load_file(&memory, &tracked, base, "m", full.id, &error), 0);
    memset(memory.host, 'b', RAM); /* only what is marked counts */
    dirty_pages_add(&memory.written, memory.host, 1);
    dirty_pages_add(&memory.written, memory.host + 60 * PAGE, 3 * PAGE);
    dirty_pages_add(&memory.written, memory.host + 128 * PAGE, 64 * PAGE);
    dirty_pages_add(&memory.written, memory.host + 255 * PAGE, 66 * PAGE);
    dirty_pages_add(&memory.written, memory.host + RAM - 1, 1);
    assert_int_equal(memory_file_write(diff, &memory, &memory.written, &changes, &error), 0);
    assert_int_equal(memory_file_merge(base, "b", diff, "d", &error), 0);
    assert_int_equal(memory_load_file(&merged, &machine, base, "m", changes.id, &error), 0);
    for (size_t i = 0; i < RAM / PAGE; i++)
        assert_int_equal(merged.host[i * PAGE + PAGE - 1] == 'b', dirty_pages_has(&memory.written, i));
    memory_deinit(&memory);
    memory_deinit(&merged);
    fd_close(base);
    fd_close(diff);
}

static void assert_no_merge(int base, int diff, int code, const char *says)
{
    struct vm_error error = {{0}};

    assert_int_equal(memory_file_merge(base, "b", diff, "d", &error), code);
    if (!strstr(error.text, says))
        fail_msg("'%s' not in: %s", says, error.text);
}

static void no_merge(void **state)
{
    struct memory memory, same;
    struct vm_error error;
    int base = made(), diff, other = temporary();
    struct memory_file_info info = full;
    uint8_t byte;

    assert_int_equal(memory_load_file(&memory, &tracked, base, "m", full.id, &error), 0);
    diff = made_diff(&memory, &error);
    assert_no_merge(diff, base, -EBADMSG, "no valid trailer"); /* in the wrong order */
    assert_no_merge(base, base, -EINVAL, "one with changes");
    info.id[0]++;
    assert_int_equal(memory_file_write(other, &memory, NULL, &info, &error), 0);
    assert_no_merge(other, diff, -ESTALE, "of snapshot 3131323334");
    /* One bit of the bitmap: the base stays as it was. */
    assert_int_equal(pread(diff, &byte, 1, RAM + PAGE + 100), 1);
    byte ^= 4;
    assert_int_equal(pwrite(diff, &byte, 1, RAM + PAGE + 100), 1);
    assert_no_merge(base, diff, -EBADMSG, "bitmap is damaged");
    assert_int_equal(memory_load_file(&same, &machine, base, "m", full.id, &error), 0);
    memory_deinit(&same);
    assert_int_equal(ftruncate(diff, RAM + PAGE), 0);
    assert_no_merge(base, diff, -EBADMSG, "its trailer says");
    memory_deinit(&memory);
    fd_close(base);
    fd_close(diff);
    fd_close(other);
}

/* ---- a disk that is full, in a mount namespace of the test's own; these two come last ---- */

/* A file on a disk of so many pages, or -1: we may not mount. */
static int on_small_disk(uint32_t pages)
{
    char dir[] = "/tmp/ironclaw-memory-file-XXXXXX", options[32], path[64];
    int fd = -1;

    assert_non_null(mkdtemp(dir));
    (void)snprintf(options, sizeof(options), "size=%u", pages * PAGE);
    (void)snprintf(path, sizeof(path), "%s/m", dir);
    if (unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)) == 0 &&
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && mount("none", dir, "tmpfs", 0, options) == 0) {
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(umount2(dir, MNT_DETACH), 0); /* it is gone with the file */
    }
    (void)rmdir(dir);
    return fd;
}

static void no_space(void **state)
{
    struct memory *memory = guest(&machine);
    struct vm_error error = {{0}};
    int fd = on_small_disk(600);

    if (fd < 0) {
        memory_deinit(memory);
        skip(); /* no mounts here */
    }
    memset(memory->host, 1, RAM);
    assert_int_equal(memory_file_write(fd, memory, NULL, &full, &error), -ENOSPC);
    assert_non_null(strstr(error.text, "No space left on device after 2 MiB; make room (up to 5 MiB)"));
    memory_deinit(memory);
    assert_refused(fd, full.id, &machine, -EBADMSG, "no valid trailer");
}

/* Torn in the middle: the base is no longer anybody's memory. */
static void torn_merge(void **state)
{
    struct memory memory;
    struct vm_error error;
    int first = made(), base = on_small_disk(603), diff;

    if (base < 0) {
        fd_close(first);
        skip(); /* no mounts here */
    }
    assert_int_equal(memory_load_file(&memory, &tracked, first, "m", full.id, &error), 0);
    assert_int_equal(memory_file_write(base, &memory, NULL, &full, &error), 0);
    diff = made_diff(&memory, &error);
    memory_deinit(&memory);
    assert_no_merge(base, diff, -ENOSPC, "merging d into b: No space left on device");
    fd_close(first);
    fd_close(diff);
    assert_refused(base, full.id, &machine, -EBADMSG, "no valid trailer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(round_trip),
            cmocka_unit_test(private),
            cmocka_unit_test(clone_of_a_clone),
            cmocka_unit_test(writing_uses_no_memory),
            cmocka_unit_test(truncated),
            cmocka_unit_test(of_another_snapshot),
            cmocka_unit_test(of_another_size),
            cmocka_unit_test(flipped_bits),
            cmocka_unit_test(no_file),
            cmocka_unit_test(full_disk),
            cmocka_unit_test(merge),
            cmocka_unit_test(merge_runs),
            cmocka_unit_test(no_merge),
            cmocka_unit_test(no_space),
            cmocka_unit_test(torn_merge),
    };

    return cmocka_run_group_tests_name("memory-file", tests, NULL, NULL);
}
