/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend against the real ironclaw-vmm (argument 1) under both of its names, with a guest of a few instructions,
 * which every KVM can run. Without /dev/kvm it is skipped.
 */
#include "orchestrator/test-util.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/audit-log.h"
#include "orchestrator/backends/fcapi.h"
#include "orchestrator/tail.h"

#define SKIPPED   77 /* Meson's exit status for it */
#define LOAD_AT   0x1000000u
#define WAIT_MS   20000u
#define DISK_SIZE 65536

static struct ic_error error;

/* Says `!` on the serial port; then waits for ever, or resets the machine by the keyboard controller. */
static const uint8_t says_and_waits[] = {
        0x66, 0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
        0xb0, '!', 0xee,        /* mov al, '!'; out dx, al */
        0xf3, 0x90, 0xeb, 0xfc, /* pause; jmp to it */
};
static const uint8_t says_and_resets[] = {
        0x66,
        0xba,
        0xf8,
        0x03,
        0xb0,
        '!',
        0xee, /* as above */
        0xb0,
        0xfe,
        0xe6,
        0x64, /* mov al, 0xfe; out 0x64, al */
        0xf3,
        0x90,
        0xeb,
        0xfc,
};

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED __has_feature(address_sanitizer)
#else
#define SANITIZED 0
#endif

struct world {
    char dir[64];
    struct record record;
    struct backend_start start;
    struct confine confine;
    char uds[128];
};

static char *in(const struct world *w, const char *name)
{
    char *path;

    assert_true(asprintf(&path, "%s/%s", w->dir, name) > 0);
    return path;
}

static void write_kernel(const char *path, const uint8_t *code, size_t len)
{
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr segment;
        uint8_t code[64];
    } file = {
            .header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                    .e_type = ET_EXEC,
                    .e_machine = EM_X86_64,
                    .e_version = EV_CURRENT,
                    .e_entry = LOAD_AT + offsetof(__typeof__(file), code),
                    .e_phoff = offsetof(__typeof__(file), segment),
                    .e_ehsize = sizeof(Elf64_Ehdr),
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 1},
            .segment = {.p_type = PT_LOAD,
                    .p_flags = PF_R | PF_X,
                    .p_vaddr = LOAD_AT,
                    .p_paddr = LOAD_AT,
                    .p_filesz = sizeof(file),
                    .p_memsz = sizeof(file)},
    };

    memcpy(file.code, code, len);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, &file, sizeof(file), 0644), 0);
}

static int open_log(const struct world *w, const char *name)
{
    _cleanup_(freep) char *path = in(w, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    assert_true(fd > STDERR_FILENO);
    return fd;
}

static void world_init(struct world *w, const uint8_t *code, size_t len)
{
    static const char disk[DISK_SIZE];
    struct stat st;

    *w = (struct world){.dir = "/tmp/ironclaw-test-XXXXXX"};
    assert_non_null(mkdtemp(w->dir));
    w->record = (struct record){.vm_id = "li_ve", .vcpu_count = 1, .memory_mib = 64, .run_dir = strdup(w->dir)};
    w->record.kernel_path = in(w, "kernel");
    w->record.rootfs_path = in(w, "disk");
    write_kernel(w->record.kernel_path, code, len);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, w->record.rootfs_path, disk, sizeof(disk), 0444), 0);
    (void)snprintf(w->uds, sizeof(w->uds), "%s/" BACKEND_VSOCK, w->dir);
    w->start = (struct backend_start){.record = &w->record,
            .mark = w->dir,
            .kernel_args = "",
            .rootfs_fd = -1,
            .overlay_fd = -1,
            .uds_path = w->uds,
            .die_with_parent = true,
            .monitor.pidfd = -1,
            .vsock.pidfd = -1};
    assert_int_equal(stat(w->dir, &st), 0);
    w->record.run_dir_inode = st.st_ino;
    assert_int_equal(confine_init(&w->confine, &w->record, &error), 0);
    w->start.confine = &w->confine;
    w->start.console_fd = open_log(w, "console.log");
    w->start.log_fd = open_log(w, "monitor.log");
    w->start.alive_fd = open_log(w, "alive");
    assert_int_equal(audit_make_rings(w->dir, &w->start.monitor_audit_fd, &w->start.vsock_audit_fd, NULL), 0);
    error = (struct ic_error){0};
}

static void world_deinit(struct world *w)
{
    assert_int_equal(process_kill(&w->start.monitor.id, deadline_after_ms(5000)), 0);
    fd_close(w->start.monitor.pidfd);
    fd_close(w->start.console_fd);
    fd_close(w->start.log_fd);
    fd_close(w->start.alive_fd);
    fd_close(w->start.monitor_audit_fd);
    fd_close(w->start.vsock_audit_fd);
    assert_int_equal(confine_end(&w->record, deadline_after_ms(5000)), 0);
    confine_deinit(&w->confine);
    record_deinit(&w->record);
    assert_int_equal(path_remove_tree(w->dir, NULL), 0);
}

static void expect_console(const struct world *w)
{
    char line[64];

    for (int i = 0; i < 500 && !tail_line(line, sizeof(line), w->dir, "console.log")[0]; i++)
        usleep(10000);
    assert_string_equal(line, "!");
}

static void expect_message(const char *part)
{
    if (!strstr(error.message, part))
        fail_msg("no '%s' in: %s", part, error.message);
}

static void starts_pauses_resumes(const struct backend *backend)
{
    struct world w;
    struct stat st;

    world_init(&w, says_and_waits, sizeof(says_and_waits));
    if (backend->start(backend, &w.start, &error) < 0)
        fail_msg("%s", error.message);
    expect_console(&w);
    assert_true(stat(w.uds, &st) == 0 && S_ISSOCK(st.st_mode)); /* the vsock is the monitor's own */
    assert_int_equal(w.start.vsock.pidfd, -1);
    assert_int_equal(backend->pause(backend, w.dir, &error), 0);
    assert_int_equal(backend->resume(backend, w.dir, &error), 0);
    assert_true(process_alive(&w.start.monitor.id));
    assert_int_equal(process_kill(&w.start.monitor.id, deadline_after_ms(5000)), 0);
    assert_int_equal(backend->pause(backend, w.dir, &error), -IC_ERR_IO);
    expect_message("API socket");
    world_deinit(&w);
}

static void drives_ours(void **state)
{
    starts_pauses_resumes(&backend_ironclaw);
}

static void drives_another_by_the_same_code(void **state)
{
    starts_pauses_resumes(&backend_firecracker);
}

static void sees_the_guest_end(void **state)
{
    char how[64];
    struct world w;
    bool failed = true;

    if (SANITIZED)
        skip(); /* without /proc, in the jail, it can't look for leaks, says so last, and ends with an error */
    world_init(&w, says_and_resets, sizeof(says_and_resets));
    /* The guest may be gone before the answer to InstanceStart came. */
    (void)backend_ironclaw.start(&backend_ironclaw, &w.start, &error);
    assert_int_equal(fd_wait(w.start.monitor.pidfd, POLLIN, deadline_after_ms(WAIT_MS)), 0);
    expect_console(&w);
    process_describe_end(w.start.monitor.pidfd, NULL, how, sizeof(how), &failed);
    assert_string_equal(how, "with status 0");
    assert_false(failed);
    world_deinit(&w);
}

static void passes_refusals_on(void **state)
{
    struct world w;

    world_init(&w, says_and_waits, sizeof(says_and_waits));
    assert_int_equal(truncate(w.record.kernel_path, 100), 0);
    assert_int_equal(backend_ironclaw.start(&backend_ironclaw, &w.start, &error), -IC_ERR_BACKEND);
    expect_message("ironclaw-vmm refused PUT /");
    expect_message(w.record.kernel_path);
    world_deinit(&w);

    world_init(&w, says_and_waits, sizeof(says_and_waits));
    w.record.vcpu_count = 1000;
    assert_int_equal(backend_ironclaw.start(&backend_ironclaw, &w.start, &error), -IC_ERR_BACKEND);
    expect_message("refused PUT /machine-config");
    world_deinit(&w);
}

/* Its API socket can't be made: it ends by itself, and says why on its log. */
static void sees_a_monitor_end(void **state)
{
    char how[64], line[256];
    bool failed = false;
    struct world w;
    int fd;

    if (SANITIZED)
        skip(); /* without /proc, in the jail, it can't look for leaks, says so last, and ends with an error */
    world_init(&w, says_and_waits, sizeof(says_and_waits));
    _cleanup_(freep) char *in_the_way = in(&w, BACKEND_API);
    fd = open(in_the_way, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    close(fd);
    assert_true(backend_ironclaw.start(&backend_ironclaw, &w.start, &error) < 0);
    assert_int_equal(fd_wait(w.start.monitor.pidfd, POLLIN, deadline_after_ms(WAIT_MS)), 0);
    process_describe_end(w.start.monitor.pidfd, NULL, how, sizeof(how), &failed);
    assert_true(failed);
    assert_string_equal(how, "with status 1");
    assert_non_null(strstr(tail_monitor(line, sizeof(line), w.dir), "in use"));
    world_deinit(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(drives_ours),
            cmocka_unit_test(drives_another_by_the_same_code),
            cmocka_unit_test(sees_the_guest_end),
            cmocka_unit_test(passes_refusals_on),
            cmocka_unit_test(sees_a_monitor_end),
    };
    char *vmm = argc > 1 ? argv[1] : NULL, *slash;

    if (access("/dev/kvm", R_OK | W_OK) < 0) {
        (void)fprintf(stderr, "skipped: /dev/kvm can't be opened: %s\n", strerror(errno));
        return SKIPPED;
    }
    if (!vmm || !(slash = strrchr(vmm, '/')) || setenv("IRONCLAW_FIRECRACKER", vmm, 1) < 0)
        return 2;
    *slash = '\0';
    if (setenv("IRONCLAW_LIBEXEC", vmm, 1) < 0)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
