/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a VM. The order is what makes a crash at any point harmless:
 *
 *   1 look     configuration, backend, image, lengths of paths: nothing exists yet. The template of such VMs is opened,
 *              and made if need be, which is a VM of its own
 *   2 claim    the name, with the record and its lock (table.h); from here on reap knows
 *   3 listen   the sockets' directory, the ready socket, the logs
 *   4 start    the backend's processes and sockets; then the record gets their pids
 *   5 wait     for the agent's READY on the ready socket, the end of a process, or the boot timeout: one poll(2). What
 *              began from a snapshot then gets an identity of its own, before it can run anything
 *   6 ready    the record says so, and the lock is released
 *
 * A failure before 4 leaves nothing. After it, a `keep` VM keeps its record
 * (failed, with the cause) and logs; any other leaves nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/audit-log.h"
#include "orchestrator/backends/backend.h"
#include "orchestrator/config.h"
#include "orchestrator/confine.h"
#include "orchestrator/images/image.h"
#include "orchestrator/names.h"
#include "orchestrator/parts.h"
#include "orchestrator/paths.h"
#include "orchestrator/session.h"
#include "orchestrator/tail.h"
#include "orchestrator/snapshots/template.h"
#include "orchestrator/spawn.h"
#include "orchestrator/vm.h"

#define BOOT_TIMEOUT_SOFTWARE_MS 120000u
#define BOOT_TIMEOUT_HARDWARE_MS 10000u
#define LOG_LIMIT_BYTES          ((uint64_t)16 << 20)
#define ENTROPY_BYTES            64u
#define LIMIT_POLL_MS            100 /* how long a guest may write its console without a limit */
#define AGENT_IS_OLDER           "the kernel command line has a word that I don't understand: ironclaw."
#define AGENT_IS_FROZEN          "ironclaw-agent: frozen"
#define FROZEN_POLL_MS           20
#define SAVE_BESIDE_BYTES        ((uint64_t)48 << 20) /* of what save() writes, beside guest memory */
#define DYING_GRACE_MS           500u
#define MADE_UP_TRIES            8
#define PATH_ROOM                128u /* sockets' paths; sun_path has 108 */

struct spawn {
    struct spawn_plan plan;
    struct snapshot template_; /* plan.from, when it is one that we opened ourselves */
    struct backend_snapshot origin;
    struct ic_vm_config config;
    struct limits limits;
    struct image image;
    const struct backend *backend;
    struct record record;
    struct table_entry entry;
    struct backend_start start;
    struct confine confine;
    int ready_listen_fd, ready_fd;
    char uds_path[PATH_ROOM];
    char kernel_args[512], cause[512]; /* of the start, for the log */
    uint64_t begin_us, overlay_bytes;
    bool claimed, started, limited;
};

static void spawn_deinit(struct spawn *s)
{
    snapshot_deinit(&s->template_);
    ic_vm_config_deinit(&s->config);
    limits_deinit(&s->limits);
    image_deinit(&s->image);
    record_deinit(&s->record);
    table_entry_deinit(&s->entry);
    confine_deinit(&s->confine);
    fd_close(s->start.rootfs_fd);
    fd_close(s->start.overlay_fd);
    fd_close(s->start.console_fd);
    fd_close(s->start.log_fd);
    fd_close(s->start.alive_fd);
    fd_close(s->start.monitor_audit_fd);
    fd_close(s->start.vsock_audit_fd);
    fd_close(s->start.monitor.pidfd);
    fd_close(s->start.vsock.pidfd);
    fd_close(s->ready_listen_fd);
    fd_close(s->ready_fd);
}

static void spawn_init(struct spawn *s)
{
    *s = (struct spawn){.ready_listen_fd = -1, .ready_fd = -1, .begin_us = clock_now_us()};
    s->entry.lock_fd = s->confine.cgroup_fd = s->template_.lock_fd = -1;
    s->start.rootfs_fd = s->start.overlay_fd = s->start.console_fd = s->start.log_fd = s->start.alive_fd = -1;
    s->start.monitor_audit_fd = s->start.vsock_audit_fd = -1;
    s->start.monitor.pidfd = s->start.vsock.pidfd = -1;
}

static int64_t unix_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- 1 look ---- */

static int copy_text(char **dst, const char *text, struct ic_error *error)
{
    if (!text || !text[0])
        return 0;
    *dst = strdup(text);
    return *dst ? 0 : ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
}

static int copy_env(struct record *record, char *const *image_env, char *const *vm_env, struct ic_error *error)
{
    char *const *const lists[] = {image_env, vm_env};
    size_t count = 0, n = 0;

    for (size_t l = 0; l < ARRAY_SIZE(lists); l++) {
        for (size_t i = 0; lists[l] && lists[l][i]; i++)
            count++;
    }
    if (count > RECORD_MAX_ENV)
        return ic_fail(error, IC_ERR_INVALID, "env: more than %u entries together with the image's", RECORD_MAX_ENV);
    record->env = calloc(count + 1, sizeof(*record->env));
    if (!record->env)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    for (size_t l = 0; l < ARRAY_SIZE(lists); l++) {
        for (size_t i = 0; lists[l] && lists[l][i]; i++) {
            record->env[n] = strdup(lists[l][i]);
            if (!record->env[n++])
                return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
        }
    }
    return 0;
}

/* Loading a module of that size and what it needs would cost every boot. */
static int look_at_overlay(struct spawn *s, struct ic_error *error)
{
    int r = copy_text(&s->record.overlay_path, s->config.overlay.path, error);

    if (r == 0 && strcmp(s->record.kernel_kind, "debian") == 0)
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "overlay.kind ext4: the image's kernel (Debian's) comes without ext4; use an image with the fast "
                "kernel: "
                "'ironclaw image build --kernel fast base:fast', then --image base:fast");
    return r < 0 ? r : part_open_overlay(s->record.overlay_path, &s->start.overlay_fd, &s->overlay_bytes, error);
}

/* The image's parts, and the configuration's own instead of them. Without need of any of its parts there is no image.
 */
static int look_at_parts(struct spawn *s, struct ic_error *error)
{
    const struct ic_vm_config *c = &s->config;
    struct record *record = &s->record;
    int r = 0;

    if (!c->kernel_path || !c->initrd_path || !c->rootfs_path) {
        r = image_open(c->image, &s->image, error);
        if (r < 0)
            return r;
        (void)snprintf(record->image, sizeof(record->image), "%s", c->image);
        (void)snprintf(record->image_digest, sizeof(record->image_digest), "%s", s->image.digest);
        if (!c->kernel_path) {
            (void)snprintf(record->kernel, sizeof(record->kernel), "%s", s->image.kernel_release);
            (void)snprintf(record->kernel_kind, sizeof(record->kernel_kind), "%s", s->image.kernel_kind);
        }
    }
    if ((r = copy_text(&record->kernel_path, c->kernel_path ? c->kernel_path : s->image.kernel_path, error)) < 0 ||
            (r = copy_text(&record->initrd_path, c->initrd_path ? c->initrd_path : s->image.initrd_path, error)) < 0 ||
            (r = copy_text(&record->rootfs_path, c->rootfs_path ? c->rootfs_path : s->image.rootfs_path, error)) < 0 ||
            (r = copy_text(&record->user, c->user ? c->user : s->image.user, error)) < 0 ||
            (r = copy_text(&record->cwd, s->image.cwd, error)) < 0 ||
            (r = copy_env(record, s->image.env, c->env, error)) < 0)
        return r;
    if (!record->kernel_path || !record->rootfs_path)
        return ic_fail(error, IC_ERR_CORRUPT, "image '%s': names no kernel or no root filesystem", c->image);
    r = part_check_kernel(record->kernel_path, error);
    if (r == 0 && record->initrd_path)
        r = part_check_file("initrd", record->initrd_path, error);
    if (r == 0)
        r = part_open_rootfs(record->rootfs_path, &s->start.rootfs_fd, error);
    if (r == 0 && c->overlay.kind == IC_OVERLAY_EXT4)
        r = look_at_overlay(s, error);
    return r;
}

static int look_at_host(struct spawn *s, struct ic_error *error)
{
    struct backend_probe probe;
    int r;

    r = backend_pick(s->config.backend, s->config.require_hardware_isolation, &s->backend, &probe, error);
    if (r < 0)
        return r;
    if (s->config.seccomp_level == IC_SECCOMP_PERMISSIVE && !(s->backend->capabilities & BACKEND_PERMISSIVE))
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "seccomp_level permissive: the backend %s has filters of its own, which always refuse; minimal and "
                "basic are both its own, or take another --backend",
                ic_backend_name(s->backend->id));
    if ((s->config.max_connections > 0 || s->config.max_lifetime_ms > 0) &&
            !(s->backend->capabilities & BACKEND_LIMITS))
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "%s: backend %s has no such limit; leave the key out, or use another backend",
                s->config.max_lifetime_ms > 0 ? "max_lifetime_ms" : "max_connections", ic_backend_name(s->backend->id));
    s->record.backend = s->backend->id;
    s->record.isolation = probe.isolation;
    return 0;
}

static void fill_record(struct spawn *s)
{
    const struct ic_vm_config *c = &s->config;
    struct record *r = &s->record;

    r->state = IC_VM_CREATED;
    r->keep = c->keep;
    r->tied = c->tied_to_caller;
    r->vcpu_count = c->vcpu_count;
    r->memory_mib = c->memory_mib;
    r->timeout_ms = c->timeout_ms;
    r->boot_timeout_ms = c->boot_timeout_ms;
    if (r->boot_timeout_ms == 0)
        r->boot_timeout_ms =
                r->isolation == IC_ISOLATION_HARDWARE ? BOOT_TIMEOUT_HARDWARE_MS : BOOT_TIMEOUT_SOFTWARE_MS;
    r->max_lifetime_ms = c->max_lifetime_ms;
    r->max_output_bytes = c->max_output_bytes;
    r->max_connections = c->max_connections;
    r->overlay_kind = c->overlay.kind;
    r->overlay_size_mib = c->overlay.size_mib ? c->overlay.size_mib : c->memory_mib / 2;
    r->seccomp_level = c->seccomp_level;
    r->jail_mode = c->jail;
    r->guest_seccomp = c->guest_seccomp;
    r->require_hardware_isolation = c->require_hardware_isolation;
    r->created_unix_ms = unix_ms();
}

static int make_up_id(char id[IC_VM_ID_MAX + 1], struct ic_error *error)
{
    uint32_t word;

    if (getrandom(&word, sizeof(word), 0) != (ssize_t)sizeof(word))
        return ic_fail_errno(error, -errno, "random numbers");
    (void)snprintf(id, IC_VM_ID_MAX + 1, "ic-%08x", word);
    return 0;
}

/* Unix sockets' paths are short. Said before anything exists, with what to do. */
static int check_path_length(const char *run_dir, struct ic_error *error)
{
    const size_t size = sizeof(((struct sockaddr_un *)NULL)->sun_path);
    size_t len = strlen(run_dir) + strlen("/v_1025");

    if (len < size)
        return 0;
    return ic_fail(error, IC_ERR_INVALID,
            "socket path %.300s/v_%u: has %zu bytes, which must be fewer than %zu; set IRONCLAW_HOME or "
            "XDG_RUNTIME_DIR "
            "to a shorter directory, or give a shorter name",
            run_dir, WIRE_READY_PORT, len, size);
}

static int set_id(struct spawn *s, struct ic_error *error)
{
    struct record *record = &s->record;
    int r = 0;

    if (s->config.vm_id)
        (void)snprintf(record->vm_id, sizeof(record->vm_id), "%s", s->config.vm_id);
    else
        r = make_up_id(record->vm_id, error);
    if (r < 0)
        return r;
    free(record->run_dir);
    record->run_dir = NULL;
    r = path_in(&record->run_dir, error, IC_PATH_RUNTIME, "%s", record->vm_id);
    return r < 0 ? r : check_path_length(record->run_dir, error);
}

const char *spawn_test_switch(void)
{
    const char *given = secure_getenv("IRONCLAW_TEST_NO_RESEED");

    return given && strcmp(given, "1") == 0 ? "ironclaw.test_no_reseed=1" : NULL;
}

/* What it was when it was saved; what it opens must be there still. */
static int look_at_origin(struct spawn *s, struct ic_error *error)
{
    const struct snapshot *from = s->plan.from;
    struct record *record = &s->record;
    struct backend_probe probe;
    int r = snapshot_copy_record(record, &from->vm, error);

    if (r == 0)
        r = backend_pick(record->backend, record->require_hardware_isolation, &s->backend, &probe, error);
    if (r < 0)
        return r;
    if (probe.isolation != record->isolation)
        return ic_fail(error, IC_ERR_UNSUPPORTED, "%s %s: was taken under %s, and here is %s (%s)",
                snapshot_kind(from->store), from->name, ic_isolation_name(record->isolation),
                ic_isolation_name(probe.isolation), probe.reason);
    r = part_open_rootfs(record->rootfs_path, &s->start.rootfs_fd, error);
    if (r < 0)
        return r;
    record->state = IC_VM_CREATED;
    record->keep = s->config.keep;
    record->tied = s->config.tied_to_caller;
    record->max_lifetime_ms = s->config.max_lifetime_ms;
    record->created_unix_ms = unix_ms();
    return 0;
}

/* VMs that are configured alike begin from one template. Without one, for whatever reason, there is the long way; it
 * then says better what is wrong with the VM, if that was it. */
static int look_for_template(struct spawn *s, struct ic_error *error)
{
    const struct ic_vm_config *c = &s->config;
    struct ic_error why = {0};
    bool built;
    int r;

    if (c->cold_start || s->plan.for_template || s->plan.from ||
            template_none(s->backend, &s->record, c->kernel_path || c->initrd_path || c->rootfs_path))
        return 0;
    r = template_get(c, s->backend, &s->record, false, &s->template_, &built, &why);
    if (r == -IC_ERR_CANCELLED)
        return ic_fail(error, IC_ERR_CANCELLED, "%s", why.message);
    if (r < 0) {
        (void)snprintf(s->cause, sizeof(s->cause), "asked for; there is no template: %.400s", why.message);
        return 0;
    }
    s->plan.from = &s->template_;
    (void)snprintf(s->record.origin, sizeof(s->record.origin), "template %s%s", s->template_.name,
            spawn_test_switch() ? " for tests: not reseeded" : "");
    return 0;
}

static int look(struct spawn *s, const struct ic_vm_config *config, struct ic_error *error)
{
    int r = ic_vm_config_validate(config, error);

    if (r == 0)
        r = config_copy(&s->config, config, error);
    if (r == 0 && s->plan.restore) {
        r = look_at_origin(s, error);
    } else if (r == 0) {
        r = look_at_host(s, error);
        if (r == 0)
            r = look_at_parts(s, error);
        if (r == 0)
            fill_record(s);
    }
    if (r < 0)
        return r;
    if (s->plan.origin)
        (void)snprintf(s->record.origin, sizeof(s->record.origin), "%s", s->plan.origin);
    r = limits_load(&s->limits, error);
    if (r == 0)
        r = limits_check_vm(&s->limits, &s->record, error);
    if (r < 0)
        return r;
    r = process_boot_id(s->record.boot_id);
    if (r == 0)
        r = process_identify(getpid(), &s->record.creator);
    return r < 0 ? ic_fail_errno(error, r, "/proc (is it mounted?)") : look_for_template(s, error);
}

/* ---- 2 claim ---- */

static int claim(struct spawn *s, struct ic_error *error)
{
    int r = -IC_ERR_EXISTS;

    for (int i = 0; i < MADE_UP_TRIES && r == -IC_ERR_EXISTS; i++) {
        r = set_id(s, error);
        if (r == 0)
            r = table_claim(&s->entry, &s->record, &s->limits, error);
        if (s->config.vm_id)
            break;
    }
    s->claimed = r == 0;
    return r;
}

/* ---- 3 listen ---- */

static int open_log(const struct spawn *s, const char *name, int *ret_fd, struct ic_error *error)
{
    char path[4200];
    int r = -ENAMETOOLONG;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", s->entry.dir, name) < sizeof(path)) {
        *ret_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = *ret_fd < 0 ? -errno : fd_above_stdio(ret_fd);
    }
    return r < 0 ? ic_fail_errno(error, r, "log %s", path) : 0;
}

static int open_all(struct spawn *s, struct ic_error *error)
{
    char ready[16];
    int r = table_make_run_dir(&s->entry, &s->record, error);

    if (r < 0)
        return r;
    (void)snprintf(ready, sizeof(ready), "v_%u", WIRE_READY_PORT);
    (void)snprintf(s->uds_path, sizeof(s->uds_path), "%s/" BACKEND_VSOCK, s->record.run_dir);
    s->start.record = &s->record;
    if ((r = backend_listen(&s->start, ready, 1, &s->ready_listen_fd, error)) < 0 ||
            (r = open_log(s, "console.log", &s->start.console_fd, error)) < 0 ||
            (r = open_log(s, "monitor.log", &s->start.log_fd, error)) < 0 ||
            (r = audit_make_rings(s->entry.dir, &s->start.monitor_audit_fd, &s->start.vsock_audit_fd, error)) < 0 ||
            (r = table_hold_alive(&s->entry, &s->start.alive_fd, error)) < 0)
        return r;
    r = fd_above_stdio(&s->start.rootfs_fd);
    if (r == 0 && s->start.overlay_fd >= 0)
        r = fd_above_stdio(&s->start.overlay_fd);
    return r < 0 ? ic_fail_errno(error, r, "rootfs or overlay") : 0;
}

static int fail_boot(const struct spawn *s, enum ic_error_code code, const char *what, struct ic_error *error)
{
    char console[256], monitor[384];

    (void)tail_line(console, sizeof(console), s->entry.dir, "console.log");
    (void)tail_line(monitor, sizeof(monitor), s->entry.dir, "monitor.log");
    if (console[0])
        return ic_fail(error, code, "VM '%s': %s; last line of its console: %s%s", s->record.vm_id, what, console,
                strstr(console, AGENT_IS_OLDER) ? "; its agent is older than this IronClaw: 'ironclaw image build' "
                                                  "makes the image anew"
                                                : "");
    return ic_fail(error, code, "VM '%s': %s; its monitor said: %s", s->record.vm_id, what, monitor);
}

static int fail_violation(const struct spawn *s, const char *what, struct ic_error *error)
{
    return ic_fail(error, IC_ERR_BACKEND, "VM '%s': during the boot %s; see 'ironclaw logs --audit %s'",
            s->record.vm_id, what, s->record.vm_id);
}

/* One of the VM's processes has ended. True when the others do, too, and the limit of its time is why. */
static bool fail_lifetime(const struct spawn *s, struct ic_error *error)
{
    if (!session_lifetime_over(&s->record))
        return false;
    (void)ic_fail(error, IC_ERR_TIMEOUT, "VM '%s': its max_lifetime_ms %u was over before it was ready; give it more",
            s->record.vm_id, s->record.max_lifetime_ms);
    return true;
}

/* A monitor that failed said why on its own log; one that ended well did so because its guest ended, and the guest's
 * console has the cause. */
static int fail_ended(const struct spawn *s, struct ic_error *error)
{
    char how[64], what[128], said[384];
    bool failed;

    process_describe_end(s->start.monitor.pidfd, how, sizeof(how), &failed);
    (void)snprintf(what, sizeof(what), "its monitor process ended during the boot%s%s", failed && how[0] ? " " : "",
            failed ? how : "");
    if (failed && audit_violation(said, sizeof(said), s->entry.dir, &s->record))
        return fail_violation(s, said, error);
    if (failed && confine_was_oom(&s->record))
        return ic_fail(error, IC_ERR_BACKEND, "VM '%s': " CONFINE_OOM, s->record.vm_id);
    if (failed && tail_monitor(said, sizeof(said), s->entry.dir)[0])
        return ic_fail(error, IC_ERR_BACKEND, "VM '%s': %s; it said: %s", s->record.vm_id, what, said);
    return fail_boot(s, IC_ERR_BACKEND, what, error);
}

static int fail_vsock_ended(const struct spawn *s, struct ic_error *error)
{
    /* It ends with its front-end, and sees that go a moment before we do. */
    bool both = fd_wait(s->start.monitor.pidfd, POLLIN, deadline_after_ms(DYING_GRACE_MS)) == 0;
    char what[256];

    if (audit_violation(what, sizeof(what), s->entry.dir, &s->record))
        return fail_violation(s, what, error);
    if (both)
        return fail_ended(s, error);
    return fail_boot(s, IC_ERR_BACKEND, "its vsock process ended during the boot", error);
}

/* ---- 4 start ---- */

static int start(struct spawn *s, struct ic_error *error)
{
    const char *test_word = s->plan.for_template ? spawn_test_switch() : NULL;
    struct record *record = &s->record;
    int n, r = confine_init(&s->confine, record, error);

    if (r == 0)
        r = table_change(&s->entry, record, IC_VM_BOOTING, s->cause[0] ? s->cause : "asked for", error);
    if (r < 0)
        return r;
    n = snprintf(s->kernel_args, sizeof(s->kernel_args),
            "ironclaw.root=/dev/vda ironclaw.rootfstype=erofs ironclaw.overlay=%s ironclaw.overlay_mib=%u "
            "ironclaw.seccomp=%s ironclaw.hostname=%s%s%s%s",
            overlay_words[record->overlay_kind], record->overlay_size_mib, seccomp_words[record->guest_seccomp],
            s->plan.for_template ? "template" : record->vm_id,
            s->plan.for_template ? " ironclaw.template=1"
            : record->tied       ? " ironclaw.tied=1"
                                 : "",
            test_word ? " " : "", test_word ? test_word : "");
    if (n < 0 || (size_t)n >= sizeof(s->kernel_args))
        return ic_fail(error, IC_ERR_INVALID, "kernel command line: too long");
    s->start.mark = s->entry.dir;
    s->start.confine = &s->confine;
    s->start.kernel_args = s->kernel_args;
    s->start.uds_path = s->uds_path;
    s->start.die_with_parent = record->tied;
    s->start.max_file_bytes = MAX(LOG_LIMIT_BYTES, s->overlay_bytes);
    s->start.for_template = s->plan.for_template;
    if (s->plan.for_template || (s->backend->capabilities & BACKEND_SNAPSHOT))
        s->start.file_ceiling = spawn_file_ceiling(record);
    if (s->plan.from) {
        s->origin = (struct backend_snapshot){
                .state_path = s->plan.from->path[SNAPSHOT_STATE], .memory_path = s->plan.from->path[SNAPSHOT_MEMORY]};
        s->start.snapshot = &s->origin;
    }
    s->started = true;
    r = s->backend->start(s->backend, &s->start, error);
    record->monitor = s->start.monitor.id;
    record->vsock = s->start.vsock.id;
    if (r < 0 && s->start.monitor.pidfd >= 0 && fd_wait(s->start.monitor.pidfd, POLLIN, 0) == 0)
        r = fail_ended(s, error);
    if (r == 0)
        r = table_write(&s->entry, record, error);
    /* The children have their own; ours would hide that they are gone. */
    fd_close(s->start.alive_fd);
    s->start.alive_fd = -1;
    return r;
}

/* ---- 5 wait ---- */

/* The agent's READY on its connection. A guest is hostile from the first byte: one frame, bounded. */
static int read_ready(struct spawn *s, struct wire_reader *reader, bool *ret_ready, struct ic_error *error)
{
    enum wire_state state = WIRE_ST_READY;
    const uint8_t *payload;
    struct wire_frame frame;
    struct wire_ready ready = {0};
    size_t room;
    uint8_t *space = wire_reader_space(reader, &room);
    ssize_t n = space ? recv(s->ready_fd, space, room, MSG_DONTWAIT) : -1;
    int r;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return fail_boot(s, IC_ERR_GUEST, "the agent hung up before it was ready", error);
    wire_reader_filled(reader, (size_t)n);
    r = wire_reader_next(reader, &frame, &payload);
    if (r == 0)
        return 0;
    if (r > 0 && frame.type == WIRE_ERROR)
        return session_fail_peer(&s->record, payload, frame.len, "boot", error);
    if (r > 0)
        r = wire_step(&state, WIRE_SESSION_CONTROL, WIRE_FROM_AGENT, frame.type, false);
    if (r == 0)
        r = wire_get_ready(&ready, payload, frame.len);
    if (r < 0)
        return fail_boot(s, IC_ERR_PROTOCOL, "the agent's ready message is malformed", error);
    if (ready.version < WIRE_VERSION_MIN)
        return ic_fail(error, IC_ERR_PROTOCOL,
                "VM '%s': its agent speaks protocol version %u, this library %u to %u; build the image again",
                s->record.vm_id, ready.version, WIRE_VERSION_MIN, WIRE_VERSION);
    if (!s->record.kernel[0])
        (void)log_escape(s->record.kernel, sizeof(s->record.kernel), ready.kernel_release.s, ready.kernel_release.len);
    *ret_ready = true;
    return 0;
}

static int accept_ready(struct spawn *s)
{
    s->ready_fd = accept4(s->ready_listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (s->ready_fd < 0)
        return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED ? 0 : -errno;
    fd_close(s->ready_listen_fd);
    s->ready_listen_fd = -1;
    return 0;
}

/* QEMU's guest memory is a file to the limit of its files, so that begins at its size. From the guest's first word on
 * it is allocated, and what is written are logs, and the overlay's file. Who may not lower a limit of another user's
 * process (CAP_SYS_RESOURCE, which some containers' root has not) leaves it where it began. */
static void limit_logs(struct spawn *s, bool guest_runs)
{
    struct stat st;

    if (s->limited || (!guest_runs && (fstat(s->start.console_fd, &st) < 0 || st.st_size == 0)))
        return;
    (void)process_limit_files(&s->record.monitor, MAX(LOG_LIMIT_BYTES, s->overlay_bytes));
    (void)process_limit_files(&s->record.vsock, LOG_LIMIT_BYTES);
    s->limited = true;
}

/* A guest without a vsock, of which a template is made, has no other way to say it. It has run nothing of anybody. */
static bool frozen_on_console(const struct spawn *s)
{
    char line[256];

    return strstr(tail_line(line, sizeof(line), s->entry.dir, "console.log"), AGENT_IS_FROZEN) != NULL;
}

static int wait_once(
        struct spawn *s, struct wire_reader *reader, uint64_t deadline, bool *ret_ready, struct ic_error *error)
{
    struct pollfd p[] = {
            {.fd = s->ready_fd >= 0 ? s->ready_fd : s->ready_listen_fd, .events = POLLIN},
            {.fd = s->start.monitor.pidfd, .events = POLLIN},
            {.fd = s->start.vsock.pidfd, .events = POLLIN},
    };
    int ms = deadline_poll_ms(deadline), most = s->plan.for_template ? FROZEN_POLL_MS : s->limited ? -1 : LIMIT_POLL_MS;
    const struct progress progress = {.fn = s->config.progress, .userdata = s->config.progress_userdata};
    int n, r;

    n = poll(p, ARRAY_SIZE(p), most < 0 || (ms >= 0 && ms < most) ? ms : most);
    limit_logs(s, false);
    if (s->plan.for_template && n == 0) {
        *ret_ready = frozen_on_console(s);
        r = progress_report(&progress, TEMPLATE_STEP, 0, 0, error);
        if (r < 0 || *ret_ready)
            return r;
    }
    if (n < 0 && errno == EINTR)
        return ic_fail(error, IC_ERR_CANCELLED, "VM '%s': cancelled by a signal while it booted", s->record.vm_id);
    if (n < 0)
        return ic_fail_errno(error, -errno, "poll");
    if (n == 0 && deadline_poll_ms(deadline) != 0)
        return 0;
    if (n == 0) {
        char what[96];
        (void)snprintf(what, sizeof(what), "was not ready after %u ms (boot_timeout_ms)", s->record.boot_timeout_ms);
        return fail_boot(s, IC_ERR_TIMEOUT, what, error);
    }
    if (p[0].revents && s->ready_fd < 0) {
        r = accept_ready(s);
        return r < 0 ? ic_fail_errno(error, r, "ready socket") : 0;
    }
    if (p[0].revents)
        return read_ready(s, reader, ret_ready, error);
    if (fail_lifetime(s, error))
        return -IC_ERR_TIMEOUT;
    return p[1].revents ? fail_ended(s, error) : fail_vsock_ended(s, error);
}

/* What came back from a snapshot is frozen until it is somebody of its own: randomness, clock, names. */
static int give_identity(struct spawn *s, struct wire_reader *reader, uint64_t deadline, struct ic_error *error)
{
    static const char doing[] = "identity of a clone";
    struct record *record = &s->record;
    _cleanup_(buf_deinit) struct buf b = {0};
    uint8_t entropy[ENTROPY_BYTES];
    struct wire_clone clone = {
            .flags = record->tied ? WIRE_CLONE_TIED : 0,
            .hostname = {record->vm_id, strlen(record->vm_id)},
            .entropy = {(const char *)entropy, sizeof(entropy)},
    };
    enum wire_state state = WIRE_ST_CONTROL;
    const uint8_t *payload;
    struct wire_frame frame;
    struct timespec now;
    int r;

    if (getrandom(entropy, sizeof(entropy), 0) != (ssize_t)sizeof(entropy) ||
            getrandom(clone.generation, sizeof(clone.generation), 0) != (ssize_t)sizeof(clone.generation))
        return ic_fail_errno(error, -errno, "random numbers");
    for (size_t i = 0; i < sizeof(clone.generation); i++)
        (void)snprintf(record->generation + 2 * i, 3, "%02x", clone.generation[i]);
    clock_gettime(CLOCK_REALTIME, &now);
    clone.time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    wire_put_clone(&b, &clone);
    r = b.error ? b.error : fd_write_all(s->ready_fd, b.data, b.len, deadline);
    if (r == 0)
        r = session_next(s->ready_fd, reader, deadline, &frame, &payload);
    explicit_bzero(entropy, sizeof(entropy));
    if (r < 0)
        return session_fail(record, r, doing, error);
    if (frame.type == WIRE_ERROR)
        return session_fail_peer(record, payload, frame.len, doing, error);
    r = wire_step(&state, WIRE_SESSION_CONTROL, WIRE_FROM_AGENT, frame.type, false);
    return r < 0 || frame.type != WIRE_OK ? session_fail(record, -EPROTO, doing, error) : 0;
}

static int wait_ready(struct spawn *s, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(s->record.boot_timeout_ms);
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    bool ready = false;
    int r = 0;

    while (r == 0 && !ready)
        r = wait_once(s, &reader, deadline, &ready, error);
    return r == 0 && s->plan.from ? give_identity(s, &reader, deadline, error) : r;
}

/* ---- 6 ready ---- */

/* The host's time and some of its entropy. The answers are not waited for. */
static void greet(const struct spawn *s)
{
    _cleanup_(buf_deinit) struct buf b = {0};
    uint8_t entropy[ENTROPY_BYTES];
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    wire_put_time(&b, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    if (getrandom(entropy, sizeof(entropy), GRND_NONBLOCK) == (ssize_t)sizeof(entropy))
        wire_put_bytes(&b, WIRE_ENTROPY, entropy, sizeof(entropy));
    if (!b.error)
        (void)!send(s->ready_fd, b.data, b.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int become_ready(struct spawn *s, ic_vm **ret_vm, struct ic_error *error)
{
    struct record *record = &s->record;
    char path[PATH_ROOM];
    ic_vm *vm = NULL;
    int r;

    if (!s->plan.from && !s->plan.for_template)
        greet(s);
    limit_logs(s, true);
    (void)snprintf(path, sizeof(path), "%s/v_%u", record->run_dir, WIRE_READY_PORT);
    (void)unlink(path); /* nobody is to connect there again */
    record->ready_unix_ms = unix_ms();
    record->boot_ms = (clock_now_us() - s->begin_us) / 1000;
    r = vm_new(record->vm_id, &vm, error);
    if (r == 0)
        r = table_change(&s->entry, record, IC_VM_READY, "the agent said so", error);
    if (r < 0) {
        free(vm);
        return r;
    }
    if (record->tied)
        vm->ready_fd = TAKE_FD(s->ready_fd);
    *ret_vm = vm;
    return 0;
}

/* *error has the cause already; what cleaning up has to say goes into the log only. */
static void tear_down(struct spawn *s, const struct ic_error *cause)
{
    int r;

    fd_close(s->start.alive_fd); /* ours would be waited for */
    s->start.alive_fd = -1;
    r = table_end_processes(&s->entry, &s->record, NULL);

    if (r == 0 && s->started && s->record.keep) {
        r = table_remove_run_dir(&s->entry, s->record.run_dir, s->record.run_dir_inode, NULL);
        if (r == 0)
            (void)table_change(&s->entry, &s->record, IC_VM_FAILED, cause->message, NULL);
    } else if (r == 0) {
        (void)table_remove(&s->entry, &s->record, NULL);
    }
}

uint64_t spawn_file_ceiling(const struct record *record)
{
    return ((uint64_t)record->memory_mib << 20) + SAVE_BESIDE_BYTES;
}

void spawn_lift_limits(const struct record *record)
{
    (void)process_limit_files(&record->monitor, spawn_file_ceiling(record));
}

void spawn_restore_limits(const struct record *record)
{
    (void)process_limit_files(&record->monitor, LOG_LIMIT_BYTES);
}

int spawn_vm(const struct ic_vm_config *config, const struct spawn_plan *plan, ic_vm **ret_vm, struct ic_error *error)
{
    _cleanup_(spawn_deinit) struct spawn s;
    struct ic_error cause = {0};
    int r;

    spawn_init(&s);
    if (plan)
        s.plan = *plan;
    (void)table_reap(NULL); /* a leftover that can't be removed does not keep a new VM from starting */
    r = look(&s, config, &cause);
    if (r == 0)
        r = claim(&s, &cause);
    if (r == 0)
        r = open_all(&s, &cause);
    if (r == 0)
        r = start(&s, &cause);
    if (r == 0)
        r = wait_ready(&s, &cause);
    if (r == 0)
        r = become_ready(&s, ret_vm, &cause);
    if (r < 0 && s.claimed)
        tear_down(&s, &cause);
    if (r < 0 && error)
        *error = cause;
    return r;
}

int ic_spawn_vm_with_config(const struct ic_vm_config *config, ic_vm **ret_vm, struct ic_error *error)
{
    return spawn_vm(config, NULL, ret_vm, error);
}

int ic_template_build(
        const struct ic_vm_config *config, bool force, char *ret_name, bool *ret_built, struct ic_error *error)
{
    _cleanup_(spawn_deinit) struct spawn s;
    const char *none;
    bool built;
    int r;

    spawn_init(&s);
    s.plan.for_template = true;
    r = look(&s, config, error);
    if (r < 0)
        return r;
    none = template_none(s.backend, &s.record, config->kernel_path || config->initrd_path || config->rootfs_path);
    if (none)
        return ic_fail(error, IC_ERR_UNSUPPORTED, "no template of such a VM (backend %s): %s",
                ic_backend_name(s.backend->id), none);
    r = template_get(&s.config, s.backend, &s.record, force, &s.template_, &built, error);
    if (r < 0)
        return r;
    if (ret_name)
        (void)snprintf(ret_name, 65, "%s", s.template_.name);
    if (ret_built)
        *ret_built = built;
    return 0;
}

int ic_spawn_vm(const char *task_id, ic_vm **ret_vm, struct ic_error *error)
{
    struct ic_vm_config config;
    int r;

    ic_vm_config_init(&config);
    r = task_id ? ic_vm_config_set(&config, "vm_id", task_id, error) : 0;
    if (r == 0)
        r = ic_spawn_vm_with_config(&config, ret_vm, error);
    ic_vm_config_deinit(&config);
    return r;
}
