/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend against the real QEMU, with the image "base": a template, its clones, what a damaged snapshot
 * is told. Without QEMU, the image (with Debian's kernel) or our programs it is skipped. IRONCLAW_TEST_CLONES=n makes
 * so many clones and prints what each took, in milliseconds; IRONCLAW_TEST_VCPUS=n: of so many vCPUs.
 */
#include "orchestrator/test-util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/audit-log.h"
#include "orchestrator/backends/backend.h"
#include "orchestrator/images/image.h"
#include "orchestrator/session.h"
#include "orchestrator/tail.h"

#define SKIPPED  77 /* Meson's exit status for it */
#define WAIT_MS  120000u
#define LOG_ROOM ((size_t)1 << 20)

static struct ic_error error;
static struct image image;
static enum ic_isolation isolation;
static char template_dir[64], state_path[128];

struct world {
    char dir[64], uds[128];
    struct record record;
    struct backend_start start;
    struct backend_snapshot snapshot;
    struct confine confine;
    int ready_listen_fd, ready_fd;
};

static void expect_ok(int r)
{
    if (r < 0)
        fail_msg("%s", error.message);
}

static void expect_message(int r, int wanted, const char *part)
{
    if (r != wanted || !strstr(error.message, part))
        fail_msg("%d, and no '%s' in: %s", r, part, error.message);
}

static unsigned number_of(const char *variable, unsigned otherwise)
{
    const char *value = getenv(variable);

    return value ? (unsigned)strtoul(value, NULL, 10) : otherwise;
}

static int open_log(const struct world *w, const char *name)
{
    char path[128];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(fd > STDERR_FILENO);
    return fd;
}

static void world_init(struct world *w)
{
    char ready[16];
    struct stat st;

    *w = (struct world){.dir = "/tmp/ironclaw-test-XXXXXX", .ready_fd = -1};
    assert_non_null(mkdtemp(w->dir));
    w->record = (struct record){.vm_id = "li_ve",
            .state = IC_VM_READY,
            .backend = IC_BACKEND_QEMU,
            .isolation = isolation,
            .vcpu_count = number_of("IRONCLAW_TEST_VCPUS", 1),
            .memory_mib = 256,
            .run_dir = strdup(w->dir),
            .kernel_path = strdup(image.kernel_path),
            .initrd_path = strdup(image.initrd_path),
            .rootfs_path = strdup(image.rootfs_path)};
    (void)snprintf(w->record.kernel_kind, sizeof(w->record.kernel_kind), "%s", image.kernel_kind);
    (void)snprintf(w->uds, sizeof(w->uds), "%s/" BACKEND_VSOCK, w->dir);
    w->start = (struct backend_start){.record = &w->record,
            .mark = w->dir,
            .kernel_args = "ironclaw.root=/dev/vda ironclaw.rootfstype=erofs ironclaw.overlay=tmpfs "
                           "ironclaw.overlay_mib=64 ironclaw.hostname=template ironclaw.template=1",
            .max_file_bytes = (uint64_t)16 << 20,
            .overlay_fd = -1,
            .uds_path = w->uds,
            .die_with_parent = true,
            .monitor.pidfd = -1,
            .vsock.pidfd = -1};
    assert_int_equal(stat(w->dir, &st), 0);
    w->record.run_dir_inode = st.st_ino;
    (void)snprintf(ready, sizeof(ready), "v_%u", WIRE_READY_PORT);
    expect_ok(backend_listen(&w->start, ready, 1, &w->ready_listen_fd, &error));
    expect_ok(confine_init(&w->confine, &w->record, &error));
    w->start.confine = &w->confine;
    w->start.rootfs_fd = open(image.rootfs_path, O_RDONLY | O_CLOEXEC);
    w->start.console_fd = open_log(w, "console.log");
    w->start.log_fd = open_log(w, "monitor.log");
    w->start.alive_fd = open_log(w, "alive");
    assert_int_equal(audit_make_rings(w->dir, &w->start.monitor_audit_fd, &w->start.vsock_audit_fd, NULL), 0);
    error = (struct ic_error){0};
}

static void end_child(struct backend_child *child)
{
    if (child->id.pid > 0)
        assert_int_equal(process_kill(&child->id, deadline_after_ms(WAIT_MS)), 0);
    fd_close(child->pidfd);
}

static void world_deinit(struct world *w)
{
    end_child(&w->start.monitor);
    end_child(&w->start.vsock);
    fd_close(w->start.rootfs_fd);
    fd_close(w->start.console_fd);
    fd_close(w->start.log_fd);
    fd_close(w->start.alive_fd);
    fd_close(w->start.monitor_audit_fd);
    fd_close(w->start.vsock_audit_fd);
    fd_close(w->ready_listen_fd);
    fd_close(w->ready_fd);
    assert_int_equal(confine_end(&w->record, deadline_after_ms(WAIT_MS)), 0);
    confine_deinit(&w->confine);
    record_deinit(&w->record);
    assert_int_equal(path_remove_tree(w->dir, NULL), 0);
}

static void expect_console(const struct world *w, const char *text)
{
    uint64_t deadline = deadline_after_ms(WAIT_MS);
    char path[128], line[256];

    (void)snprintf(path, sizeof(path), "%s/console.log", w->dir);
    for (;;) {
        _cleanup_(freep) char *all = NULL;
        size_t len;

        if (fd_read_file(AT_FDCWD, path, LOG_ROOM, &all, &len) == 0 && strstr(all, text))
            return;
        if (fd_wait(w->start.monitor.pidfd, POLLIN, 0) == 0) {
            char how[64];
            bool failed;

            process_describe_end(w->start.monitor.pidfd, NULL, how, sizeof(how), &failed);
            fail_msg("QEMU ended %s: %s", how, tail_monitor(line, sizeof(line), w->dir));
        }
        if (deadline_poll_ms(deadline) == 0)
            fail_msg("no '%s' on the console; its last line: %s", text,
                    tail_line(line, sizeof(line), w->dir, "console.log"));
        usleep(10000);
    }
}

/* ---- what a host says to a clone ---- */

static void expect_frame(int fd, struct wire_reader *reader, enum wire_type type)
{
    struct wire_frame frame;
    const uint8_t *payload;
    int r = session_next(fd, reader, deadline_after_ms(WAIT_MS), &frame, &payload);

    if (r < 0)
        fail_msg("session: %s", strerror(-r));
    if (frame.type == WIRE_ERROR)
        fail_msg("the agent: %.*s", (int)frame.len, (const char *)payload);
    assert_int_equal(frame.type, type);
}

static void accept_clone(struct world *w)
{
    struct wire_clone clone = {.hostname = {"cloned", 6}};
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    _cleanup_(buf_deinit) struct buf b = {0};
    uint8_t entropy[64];
    struct timespec now;
    char line[256];

    if (fd_wait(w->ready_listen_fd, POLLIN, deadline_after_ms(WAIT_MS)) < 0)
        fail_msg("the clone's agent does not connect; its console: %s",
                tail_line(line, sizeof(line), w->dir, "console.log"));
    w->ready_fd = accept4(w->ready_listen_fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(w->ready_fd >= 0);
    expect_frame(w->ready_fd, &reader, WIRE_READY);
    assert_int_equal(getrandom(entropy, sizeof(entropy), 0), sizeof(entropy));
    memcpy(clone.generation, entropy, sizeof(clone.generation));
    clone.entropy = (struct wire_str){(const char *)entropy, sizeof(entropy)};
    clock_gettime(CLOCK_REALTIME, &now);
    clone.time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    wire_put_clone(&b, &clone);
    assert_int_equal(fd_write_all(w->ready_fd, b.data, b.len, DEADLINE_NEVER), 0);
    expect_frame(w->ready_fd, &reader, WIRE_OK);
}

/* Its exit code; what it writes is put into `said`. */
static unsigned run(const struct world *w, const char *command, char *said, size_t size)
{
    struct wire_str argv[] = {{"sh", 2}, {"-c", 2}, {command, (uint32_t)strlen(command)}};
    struct wire_exec exec = {.argc = 3, .argv = argv};
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    _cleanup_(buf_deinit) struct buf request = {0};
    _cleanup_(fd_closep) int fd = -1;
    struct wire_frame frame;
    const uint8_t *payload;
    struct wire_exit end;
    size_t len = 0;

    wire_put_exec(&request, &exec);
    expect_ok(session_open(&w->record, WIRE_SESSION_EXEC, &request, deadline_after_ms(WAIT_MS), &fd, &error));
    for (;;) {
        assert_int_equal(session_next(fd, &reader, deadline_after_ms(WAIT_MS), &frame, &payload), 0);
        if (frame.type == WIRE_EXIT)
            break;
        if (frame.type == WIRE_ERROR)
            fail_msg("the agent: %.*s", (int)frame.len, (const char *)payload);
        if (frame.type == WIRE_STDOUT) {
            size_t n = MIN((size_t)frame.len, size - 1 - len);

            memcpy(said + len, payload, n);
            len += n;
        }
    }
    said[len] = '\0';
    assert_int_equal(wire_get_exit(&end, payload, frame.len), 0);
    assert_int_equal(end.kind, WIRE_EXIT_CODE);
    return end.value;
}

/* ---- tests ---- */

/* What each step took: time, and QEMU's own time of the processor, which says more on a machine that does other work.
 */
struct steps {
    uint64_t began_us, began_cpu_ms;
    char text[256];
};

static uint64_t cpu_ms(const struct world *w)
{
    _cleanup_(freep) char *text = NULL;
    uint64_t ticks = 0;
    char path[64], *word;
    size_t len;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)w->start.monitor.id.pid);
    if (w->start.monitor.id.pid == 0 || fd_read_file(AT_FDCWD, path, 4096, &text, &len) < 0)
        return 0;
    word = strrchr(text, ')'); /* the second word; the 14th and 15th are user and system time */
    for (int i = 3; word && i <= 15; i++) {
        word = strchr(word + 1, ' ');
        if (word && i >= 14)
            ticks += strtoull(word, NULL, 10);
    }
    return ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

static void step(struct steps *s, const struct world *w, const char *what)
{
    uint64_t now_us = clock_now_us(), now_cpu_ms = cpu_ms(w);
    size_t len = strlen(s->text);

    if (what)
        (void)snprintf(s->text + len, sizeof(s->text) - len, " %s %llu (%llu)", what,
                (unsigned long long)(now_us - s->began_us) / 1000, (unsigned long long)(now_cpu_ms - s->began_cpu_ms));
    s->began_us = clock_now_us();
    s->began_cpu_ms = now_cpu_ms;
}

static int make_template(void **state)
{
    struct world w;
    struct steps steps = {0};
    char path[128], text[64];
    struct stat st;

    world_init(&w);
    w.start.for_template = true;
    step(&steps, &w, NULL);
    expect_ok(backend_qemu.start(&backend_qemu, &w.start, &error));
    assert_int_equal(w.start.vsock.pidfd, -1);
    expect_console(&w, BACKEND_FROZEN);
    step(&steps, &w, "booted");
    print_message("template:%s\n", steps.text);
    (void)process_limit_files(&w.start.monitor.id, 1u << 20, 0); /* it writes no file itself; not all may set that */
    expect_ok(backend_qemu.save(&backend_qemu, &w.record, &error));
    (void)snprintf(path, sizeof(path), "%s/" BACKEND_STATE, w.dir);
    assert_int_equal(stat(path, &st), 0);
    (void)snprintf(text, sizeof(text), "%.1f MiB", (double)st.st_size / (1 << 20));
    print_message("template: %s\n", text);
    assert_true(st.st_size > 1 << 20 && st.st_size < 200 << 20);
    /* It can go on, and be saved again. */
    expect_ok(backend_qemu.resume(&backend_qemu, w.dir, &error));
    expect_ok(backend_qemu.save(&backend_qemu, &w.record, &error));
    memcpy(template_dir, "/tmp/ironclaw-test-XXXXXX", 26);
    assert_non_null(mkdtemp(template_dir));
    (void)snprintf(state_path, sizeof(state_path), "%s/" BACKEND_STATE, template_dir);
    assert_int_equal(rename(path, state_path), 0);
    world_deinit(&w);
    return 0;
}

static int remove_template(void **state)
{
    return path_remove_tree(template_dir, NULL);
}

static void start_clone(struct world *w, const char *from)
{
    world_init(w);
    w->snapshot.state_path = from;
    w->start.snapshot = &w->snapshot;
}

static void clones_run_commands(void **state)
{
    unsigned count = number_of("IRONCLAW_TEST_CLONES", 2);
    char said[2][256] = {0}, more[256];

    for (unsigned i = 0; i < count; i++) {
        struct steps steps = {0};
        struct world w;

        start_clone(&w, state_path);
        step(&steps, &w, NULL);
        expect_ok(backend_qemu.start(&backend_qemu, &w.start, &error));
        step(&steps, &w, "loaded");
        accept_clone(&w);
        step(&steps, &w, "handshake");
        assert_int_equal(run(&w, "true", more, sizeof(more)), 0);
        step(&steps, &w, "true");
        assert_int_equal(run(&w, "python3 -c 'print(6*7)'", more, sizeof(more)), 0);
        assert_string_equal(more, "42\n");
        step(&steps, &w, "python3");
        assert_int_equal(run(&w, "python3 -c 'print(6*7)'", more, sizeof(more)), 0);
        step(&steps, &w, "again");
        assert_int_equal(run(&w,
                                 "hostname; head -c 16 /dev/urandom | od -An -tx1; echo x >file; dd if=/dev/zero bs=1M "
                                 "count=20 2>/dev/null | sha256sum",
                                 said[i % 2], sizeof(said[0])),
                0);
        assert_true(strncmp(said[i % 2], "cloned\n", 7) == 0);
        assert_string_not_equal(said[0], said[1]);
        print_message("clone:%s\n", steps.text);
        /* The vsock process ends with its front-end. */
        assert_int_equal(process_kill(&w.start.monitor.id, deadline_after_ms(WAIT_MS)), 0);
        assert_int_equal(fd_wait(w.start.vsock.pidfd, POLLIN, deadline_after_ms(WAIT_MS)), 0);
        world_deinit(&w);
    }
}

/* A copy of the state with `len` bytes, of which the one at `flip` (if it is one) differs. */
static void copy_state(const char *to, size_t flip, size_t len)
{
    _cleanup_(freep) char *all = NULL;
    size_t size;

    assert_int_equal(fd_read_file(AT_FDCWD, state_path, (size_t)1 << 30, &all, &size), 0);
    if (flip < size)
        all[flip] ^= 4;
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, to, all, MIN(len, size), 0600), 0);
}

static void expect_refused(const char *path, int wanted, const char *part)
{
    struct world w;

    start_clone(&w, path);
    expect_message(backend_qemu.start(&backend_qemu, &w.start, &error), wanted, part);
    world_deinit(&w);
}

static void refuses_damage(void **state)
{
    char bad[160];
    struct stat st;
    struct world w;

    assert_int_equal(stat(state_path, &st), 0);
    (void)snprintf(bad, sizeof(bad), "%s/bad", template_dir);
    copy_state(bad, 3, SIZE_MAX);
    expect_refused(bad, -IC_ERR_CORRUPT, "no snapshot of the backend qemu");
    copy_state(bad, 17, SIZE_MAX);
    expect_refused(bad, -IC_ERR_CORRUPT, "its header is damaged");
    copy_state(bad, (size_t)st.st_size / 2, SIZE_MAX);
    expect_refused(bad, -IC_ERR_CORRUPT, "checksum");
    copy_state(bad, (size_t)st.st_size - 1, SIZE_MAX);
    expect_refused(bad, -IC_ERR_CORRUPT, "checksum");
    copy_state(bad, SIZE_MAX, (size_t)st.st_size - 1);
    expect_refused(bad, -IC_ERR_CORRUPT, "bytes behind its header");
    copy_state(bad, SIZE_MAX, 63);
    expect_refused(bad, -IC_ERR_CORRUPT, "too short");
    expect_refused("/nonexistent/s", -IC_ERR_NOT_FOUND, "/nonexistent/s");

    start_clone(&w, state_path);
    w.record.memory_mib = 128;
    expect_message(backend_qemu.start(&backend_qemu, &w.start, &error), -IC_ERR_INVALID, "256 MiB");
    world_deinit(&w);
}

/* One more disk: QEMU finds state of devices that this machine has elsewhere. */
static void passes_on_why_qemu_refuses(void **state)
{
    struct world w;
    char path[160];

    start_clone(&w, state_path);
    (void)snprintf(path, sizeof(path), "%s/disk", w.dir);
    w.start.overlay_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(w.start.overlay_fd > STDERR_FILENO && ftruncate(w.start.overlay_fd, 1 << 20) == 0);
    expect_message(backend_qemu.start(&backend_qemu, &w.start, &error), -IC_ERR_BACKEND, "; QEMU said: ");
    expect_message(-IC_ERR_BACKEND, -IC_ERR_BACKEND, "load of migration failed");
    close(w.start.overlay_fd);
    world_deinit(&w);
}

static void refuses_kernels_without_pci(void **state)
{
    struct world w;

    start_clone(&w, state_path);
    (void)snprintf(w.record.kernel_kind, sizeof(w.record.kernel_kind), "fast");
    expect_message(backend_qemu.start(&backend_qemu, &w.start, &error), -IC_ERR_UNSUPPORTED, "fast");
    assert_non_null(backend_qemu.no_template(&backend_qemu, &w.record));
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(clones_run_commands),
            cmocka_unit_test(refuses_damage),
            cmocka_unit_test(passes_on_why_qemu_refuses),
            cmocka_unit_test(refuses_kernels_without_pci),
    };
    char home[] = "/tmp/ironclaw-test-XXXXXX";
    struct backend_probe probe;
    int r;

    backend_qemu.probe(&backend_qemu, &probe);
    if (!probe.usable || image_open("base", &image, &error) < 0 || strcmp(image.kernel_kind, "debian") != 0) {
        print_message("skipped: %s %s\n", probe.reason, error.message);
        return SKIPPED;
    }
    /* An ironclaw beside us ends groups of the VMs that its state directory does not know. */
    if (!mkdtemp(home) || setenv("IRONCLAW_HOME", home, 1) < 0)
        return 1;
    isolation = probe.isolation;
    print_message("isolation: %s\n", ic_isolation_name(isolation));
    r = cmocka_run_group_tests(tests, make_template, remove_template);
    (void)path_remove_tree(home, NULL);
    return r;
}
