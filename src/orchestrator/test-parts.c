/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels, root filesystems and log tails: whole, of another kind, cut short, hostile. */
#include "orchestrator/test-util.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "orchestrator/parts.h"
#include "orchestrator/tail.h"

static struct ic_error error;
static uint8_t bytes[16384];

static const char *write_file(const char *home, const char *name, size_t len)
{
    static char path[512];

    (void)snprintf(path, sizeof(path), "%s/%s", home, name);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, bytes, len, 0600), 0);
    return path;
}

static int check_rootfs(const char *home, size_t len)
{
    int fd = -1, r = part_open_rootfs(write_file(home, "rootfs", len), &fd, &error);

    if (r == 0) {
        assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
        close(fd);
    }
    return r;
}

static void knows_root_filesystems(void **state)
{
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(check_rootfs(*state, 100), -IC_ERR_CORRUPT);
    assert_int_equal(check_rootfs(*state, 4096), -IC_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "magic 0x00000000"));
    memcpy(bytes + 1024, "\xe2\xe1\xf5\xe0", 4);
    bytes[1024 + 12] = 12;
    bytes[1024 + 36] = 4; /* blocks of 4 KiB */
    assert_int_equal(check_rootfs(*state, 16384), 0);
    assert_int_equal(check_rootfs(*state, 16383), -IC_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "cut short (16383 bytes)"));
    bytes[1024 + 12] = 255;
    assert_int_equal(check_rootfs(*state, 16384), -IC_ERR_CORRUPT);
    assert_int_equal(part_open_rootfs("/nonexistent", &(int){0}, &error), -IC_ERR_NOT_FOUND);
    assert_int_equal(part_open_rootfs("/dev/null", &(int){0}, &error), -IC_ERR_INVALID);
    assert_int_equal(part_open_rootfs("/", &(int){0}, &error), -IC_ERR_INVALID);
}

static int check_kernel(const char *home, size_t len)
{
    return part_check_kernel(write_file(home, "kernel", len), &error);
}

static void knows_kernels(void **state)
{
    Elf64_Ehdr header = {.e_machine = EM_X86_64, .e_phoff = 64, .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1};
    Elf64_Phdr segment = {.p_type = PT_LOAD, .p_offset = 4096, .p_filesz = 8192};

    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(check_kernel(*state, 16), -IC_ERR_CORRUPT);
    assert_int_equal(check_kernel(*state, 4096), -IC_ERR_INVALID);
    memcpy(bytes + 0x202, "HdrS", 4);
    assert_int_equal(check_kernel(*state, 4096), 0);
    memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + 64, &segment, sizeof(segment));
    assert_int_equal(check_kernel(*state, 12288), 0);
    assert_int_equal(check_kernel(*state, 12287), -IC_ERR_CORRUPT);
    segment.p_filesz = UINT64_MAX - 10;
    memcpy(bytes + 64, &segment, sizeof(segment));
    assert_int_equal(check_kernel(*state, 12288), -IC_ERR_CORRUPT);
    header.e_phoff = UINT64_MAX - 3;
    memcpy(bytes, &header, sizeof(header));
    assert_int_equal(check_kernel(*state, 12288), -IC_ERR_CORRUPT);
    header.e_phnum = 0xffff;
    memcpy(bytes, &header, sizeof(header));
    assert_int_equal(check_kernel(*state, 12288), -IC_ERR_INVALID);
    header.e_machine = EM_AARCH64;
    memcpy(bytes, &header, sizeof(header));
    assert_int_equal(check_kernel(*state, 12288), -IC_ERR_INVALID);
}

static int open_overlay(const char *home, size_t size)
{
    uint64_t found = 0;
    int fd = -1, other = -1, r;
    const char *path = write_file(home, "overlay.img", size);

    r = part_open_overlay(path, &fd, &found, &error);
    if (r == 0) {
        assert_int_equal(found, size);
        assert_int_equal(part_open_overlay(path, &other, &found, &error), -IC_ERR_STATE); /* one VM has it */
        assert_int_equal(pwrite(fd, "", 1, 0), 1);
        close(fd);
    } else {
        assert_int_equal(fd, -1);
        assert_non_null(strstr(error.message, "overlay.img"));
    }
    return r;
}

static void knows_overlays(void **state)
{
    const uint32_t blocks = 12, log = 0; /* of 1 KiB */

    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(open_overlay(*state, 12288), -IC_ERR_CORRUPT);
    assert_int_equal(open_overlay(*state, 100), -IC_ERR_CORRUPT);
    memcpy(bytes + 1024 + 56, "\x53\xef", 2);
    memcpy(bytes + 1024 + 4, &blocks, 4);
    memcpy(bytes + 1024 + 24, &log, 4);
    assert_int_equal(open_overlay(*state, 12288), 0);
    assert_int_equal(open_overlay(*state, 12288), 0); /* its lock went with the descriptor */
    assert_int_equal(open_overlay(*state, 12287), -IC_ERR_CORRUPT);
    bytes[1024 + 24] = 200;
    assert_int_equal(open_overlay(*state, 12288), -IC_ERR_CORRUPT);
    assert_int_equal(part_open_overlay("/nonexistent", &(int){-1}, &(uint64_t){0}, NULL), -IC_ERR_NOT_FOUND);
}

static void tail_is(const char *home, const char *log, const char *wanted)
{
    char line[128];

    memcpy(bytes, log, strlen(log));
    (void)write_file(home, "console.log", strlen(log));
    assert_string_equal(tail_line(line, sizeof(line), home, "console.log"), wanted);
}

static void monitor_said(const char *home, const char *log, const char *wanted)
{
    char line[128];

    memcpy(bytes, log, strlen(log));
    (void)write_file(home, "monitor.log", strlen(log));
    assert_string_equal(tail_monitor(line, sizeof(line), home), wanted);
}

static void shows_tails(void **state)
{
    char line[64];

    monitor_said(*state, "ironclaw-vmm: error: no\n2026-01-01T00:00:00.000Z ironclaw[7]: v: ready -> failed: x\n",
            "ironclaw-vmm: error: no");
    monitor_said(*state, "2026-01-01T00:00:00.000Z ironclaw[7]: v: created -> booting: asked for\n", "");

    tail_is(*state, "one\ntwo\r\n\n  \n", "two");
    tail_is(*state, "", "");
    tail_is(*state, "a\x1b[2Jb", "a\\x1b[2Jb");
    tail_is(*state, "x\n[1] Kernel panic - not syncing: y\nCPU: 0\n", "[1] Kernel panic - not syncing: y");
    tail_is(*state, "agent: no\n[    1.2] reboot: Restarting system\n", "agent: no");
    tail_is(*state, "[    1.2] reboot: Power down\n", "[    1.2] reboot: Power down");
    assert_string_equal(tail_line(line, sizeof(line), *state, "missing.log"), "");
    memset(bytes, 'z', sizeof(bytes)); /* one line, longer than the tail */
    (void)write_file(*state, "console.log", sizeof(bytes));
    assert_int_equal(strlen(tail_line(line, sizeof(line), *state, "console.log")), sizeof(line) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(knows_root_filesystems),
            cmocka_unit_test(knows_kernels),
            cmocka_unit_test(knows_overlays),
            cmocka_unit_test(shows_tails),
    };

    return cmocka_run_group_tests(tests, home_setup, home_teardown);
}
