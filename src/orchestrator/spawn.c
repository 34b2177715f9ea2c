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
#include "orchestrator/spawn-private.h"

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
#include "orchestrator/audit-log.h"
#include "orchestrator/names.h"
#include "orchestrator/config.h"
#include "orchestrator/disk-limit.h"
#include "orchestrator/exec.h"
#include "orchestrator/paths.h"
#include "orchestrator/pool/pool.h"
#include "orchestrator/snapshots/freeze.h"
#include "orchestrator/snapshots/template.h"
#include "orchestrator/vitals.h"

#define SAVE_BESIDE_BYTES ((uint64_t)48 << 20) /* of what save() writes, beside guest memory */
#define MADE_UP_TRIES     8

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
    s->phase_us = s->begin_us;
    s->entry.lock_fd = s->confine.cgroup_fd = s->template_.lock_fd = -1;
    s->start.rootfs_fd = s->start.overlay_fd = s->start.console_fd = s->start.log_fd = s->start.alive_fd = -1;
    s->start.monitor_audit_fd = s->start.vsock_audit_fd = -1;
    s->start.monitor.pidfd = s->start.vsock.pidfd = -1;
}

int64_t spawn_unix_ms(void)
{
    return (int64_t)(clock_unix_ns() / 1000000);
}

void spawn_phase(struct spawn *s, enum record_phase phase)
{
    uint64_t now = clock_now_us();

    s->record.phase_us[phase] = now - s->phase_us;
    s->phase_us = now;
}

/* ---- 2 claim ---- */

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

/* ---- 4 start ---- */

static int start(struct spawn *s, struct ic_error *error)
{
    const char *test_word = s->plan.for_template ? spawn_test_switch() : NULL;
    struct record *record = &s->record;
    int n, r = confine_init(&s->confine, record, error);

    if (s->plan.from)
        snapshot_carry_note(s->plan.from, record->origin, sizeof(record->origin));
    s->confine.need_cgroup = disk_limit_wanted(record);
    if (r == 0)
        r = disk_limit_set(record, error);
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
    s->start.max_file_bytes = MAX(SPAWN_LOG_LIMIT_BYTES, s->overlay_bytes);
    s->start.for_template = s->plan.for_template;
    if (s->backend->capabilities & BACKEND_WRITES_STATE)
        s->start.file_ceiling = spawn_file_ceiling(record);
    if (s->plan.from) {
        s->origin = (struct backend_snapshot){.state_path = s->plan.from->path[SNAPSHOT_STATE],
                .memory_path = s->plan.from->path[SNAPSHOT_MEMORY],
                .touched_path = s->plan.from->touched_path};
        s->start.snapshot = &s->origin;
    }
    s->started = true;
    spawn_phase(s, PHASE_CLAIM);
    r = s->backend->start(s->backend, &s->start, error);
    if (s->start.spawned_us > s->phase_us) {
        record->phase_us[PHASE_SPAWN] = s->start.spawned_us - s->phase_us;
        s->phase_us = s->start.spawned_us;
    }
    spawn_phase(s, PHASE_LOAD);
    record->monitor = s->start.monitor.id;
    record->vsock = s->start.vsock.id;
    if (r < 0 && s->start.monitor.pidfd >= 0 && spawn_fail_lifetime(s, error))
        r = -IC_ERR_TIMEOUT;
    else if (r < 0 && s->start.monitor.pidfd >= 0 && fd_wait(s->start.monitor.pidfd, POLLIN, 0) == 0)
        r = spawn_fail_ended(s, error);
    if (r == 0)
        r = table_write(&s->entry, record, error);
    /* The children have their own; ours would hide that they are gone. */
    fd_close(s->start.alive_fd);
    s->start.alive_fd = -1;
    return r;
}

/* ---- 5 wait ---- */

static int wait_and_identify(struct spawn *s, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(s->record.boot_timeout_ms);
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    int r = spawn_wait_ready(s, &reader, deadline, error);

    spawn_phase(s, PHASE_READY);
    if (r == 0 && s->plan.from) {
        r = spawn_give_identity(s, &reader, deadline, error);
        spawn_phase(s, PHASE_IDENTITY);
    }
    return r;
}

/* ---- 6 ready ---- */

/* The host's time and some of its entropy. The answers are not waited for. */
static void greet(const struct spawn *s)
{
    _cleanup_(buf_deinit) struct buf b = {0};
    uint8_t entropy[SPAWN_ENTROPY_BYTES];

    wire_put_time(&b, clock_unix_ns());
    if (getrandom(entropy, sizeof(entropy), GRND_NONBLOCK) == (ssize_t)sizeof(entropy))
        wire_put_bytes(&b, WIRE_ENTROPY, entropy, sizeof(entropy));
    if (!b.error)
        (void)!send(s->ready_fd, b.data, b.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int become_ready(struct spawn *s, ic_vm **ret_vm, struct ic_error *error)
{
    struct record *record = &s->record;
    char path[SPAWN_PATH_ROOM];
    ic_vm *vm = NULL;
    int r;

    if (!s->plan.from && !s->plan.for_template)
        greet(s);
    spawn_limit_logs(s, true);
    (void)snprintf(path, sizeof(path), "%s/v_%u", record->run_dir, WIRE_READY_PORT);
    (void)unlink(path); /* nobody is to connect there again */
    record->ready_unix_ms = spawn_unix_ms();
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

/* *error has the cause already; what cleaning up has to say goes into the log only. Of a start that was cancelled
 * nobody wants to know why it did not become a VM. */
static void tear_down(struct spawn *s, const struct ic_error *cause)
{
    int r;

    fd_close(s->start.alive_fd); /* ours would be waited for */
    s->start.alive_fd = -1;
    r = table_end_processes(&s->entry, &s->record, NULL);

    if (r == 0 && s->started && s->record.keep && cause->code != IC_ERR_CANCELLED) {
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
    uint64_t ceiling = spawn_file_ceiling(record);

    (void)process_limit_files(&record->monitor, ceiling, ceiling);
    (void)disk_limit_lift(record, NULL);
}

/* A log that its guest or monitor filled in the meantime is cut to what it may have. */
static void cut_log(const struct record *record, const char *name)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(fd_closep) int fd = -1;
    struct stat st;

    if (path_in(&path, NULL, IC_PATH_STATE, "vms/%s/%s", record->vm_id, name) < 0)
        return;
    fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size > SPAWN_LOG_LIMIT_BYTES)
        (void)!ftruncate(fd, (off_t)SPAWN_LOG_LIMIT_BYTES);
}

void spawn_restore_limits(const struct record *record)
{
    (void)disk_limit_set(record, NULL);
    (void)process_limit_files(&record->monitor, SPAWN_LOG_LIMIT_BYTES, spawn_file_ceiling(record));
    cut_log(record, "console.log");
    cut_log(record, "monitor.log");
}

/* ---- VMs that wait ---- */

void spawn_member_close(struct spawn_member *member)
{
    fd_close(member->lock_fd);
    fd_close(member->ready_fd);
    fd_close(member->monitor_pidfd);
    member->lock_fd = member->ready_fd = member->monitor_pidfd = -1;
}

int spawn_member_offer(const struct spawn_member *member)
{
    _cleanup_(freep) char *dir = NULL;
    int r = path_in(&dir, NULL, IC_PATH_STATE, "vms/%s", member->vm_id);

    if (r == 0)
        vitals_drop(dir);
    return r;
}

static int member_entry(struct spawn_member *member, struct table_entry *ret, struct ic_error *error)
{
    struct table_entry entry = {.lock_fd = -1};
    int r = path_in(&entry.dir, error, IC_PATH_STATE, "vms/%s", member->vm_id);

    if (r < 0)
        return r;
    memcpy(entry.vm_id, member->vm_id, sizeof(entry.vm_id));
    entry.lock_fd = TAKE_FD(member->lock_fd);
    *ret = entry;
    return 0;
}

void spawn_member_drop(struct spawn_member *member)
{
    _cleanup_(entry_deinitp) struct table_entry entry = {.lock_fd = -1};
    _cleanup_(record_deinitp) struct record record = {0};

    (void)spawn_member_offer(member); /* what can't be ended now is the reaper's */
    if (table_read(&record, member->vm_id, NULL) == 0 && member_entry(member, &entry, NULL) == 0 &&
            table_end_processes(&entry, &record, NULL) == 0)
        (void)table_remove(&entry, &record, NULL);
    spawn_member_close(member);
}

int spawn_member_plan(const struct ic_vm_config *config, struct ic_vm_config *ret_config, struct snapshot *ret_from,
        struct record *ret_like, struct ic_error *error)
{
    _cleanup_(spawn_deinit) struct spawn s;
    struct ic_vm_config cold;
    int r;

    spawn_init(&s);
    if (config->max_lifetime_ms > 0)
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "pool: max_lifetime_ms %u: begins with the start of a VM, which would use it up while it waits; leave "
                "it "
                "out",
                config->max_lifetime_ms);
    r = spawn_look(&s, config, error);
    if (r < 0)
        return r;
    if (!s.plan.from)
        return ic_fail(error, IC_ERR_UNSUPPORTED, "pool: such VMs have no template to start from: %s",
                config->cold_start ? "cold_start is set"
                : s.cause[0]       ? s.cause
                                   : template_none(s.backend, &s.record, true));
    r = config_copy(&cold, config, error);
    if (r < 0)
        return r;
    cold.progress = NULL;
    cold.keep = cold.tied_to_caller = false;
    config_forget_commands(&cold); /* they are the taker's, and must not be what a warm-up leaves behind */
    cold.cold_start = true;        /* it has the template already */
    *ret_config = cold;
    *ret_from = s.template_;
    s.template_ = (struct snapshot){.lock_fd = -1};
    *ret_like = s.record;
    s.record = (struct record){0};
    return 0;
}

/* Whether it ran at all, and how it ended, does not matter when it need not succeed. */
static int run_warm_up(const struct spawn *s, const struct spawn_warm_up *warm, struct ic_error *error)
{
    struct ic_exec_result result = {.size = sizeof(result)};
    struct ic_exec_options options;
    ic_exec *exec = NULL;
    int r;

    ic_exec_options_init(&options);
    options.argv = warm->argv;
    options.timeout_ms = s->record.boot_timeout_ms;
    options.no_max_output = true; /* nobody reads it */
    r = exec_start_before_ready(s->record.vm_id, &options, &exec, error);
    if (r < 0)
        return r;
    warm->running(warm->userdata, exec);
    r = ic_exec_wait(exec, &result, error);
    warm->running(warm->userdata, NULL);
    ic_exec_free(exec);
    if (!warm->must_succeed && (r == -IC_ERR_GUEST || r == -IC_ERR_NOT_FOUND))
        return 0;
    if (r < 0 || result.status == 0 || !warm->must_succeed)
        return r;
    if (result.outcome == IC_EXEC_TIMED_OUT)
        return ic_fail(error, IC_ERR_TIMEOUT,
                "warm-up: '%s' took longer than boot_timeout_ms %u; give it more, or name a shorter command",
                warm->argv[0], s->record.boot_timeout_ms);
    return ic_fail(error, IC_ERR_GUEST,
            "warm-up: '%s' ended with status %d%s%s; try it with 'ironclaw run', or name another command",
            warm->argv[0], result.status, result.message[0] ? ": " : "", result.message);
}

/* From frozen to frozen. Meanwhile it ends with us, as nobody else knows what it does. */
static int warm_up(struct spawn *s, struct spawn_warm_up *warm, struct wire_reader *reader, struct ic_error *error)
{
    int r;

    s->record.tied = true; /* here only, as is the state below */
    r = spawn_give_identity(s, reader, deadline_after_ms(s->record.boot_timeout_ms), error);
    s->record.tied = false;
    if (r == 0)
        r = run_warm_up(s, warm, error);
    if (r == 0) {
        s->record.state = IC_VM_READY;
        r = freeze_until_cloned(&s->record, error);
        s->record.state = IC_VM_BOOTING;
    }
    warm->failed = r < 0;
    return r;
}

/* The memory of one image must not meet the disk of another. */
static int check_same_image(const struct spawn *s, const struct snapshot *from, struct ic_error *error)
{
    if (strcmp(s->record.image_digest, from->vm.image_digest) == 0)
        return 0;
    return ic_fail(error, IC_ERR_STATE,
            "image %s was built or imported anew since this pool was started; 'ironclaw pool stop' ends it, and 'pool "
            "start' starts one of the new image",
            s->record.image);
}

int spawn_member_new(const struct ic_vm_config *config, const struct snapshot *from, struct spawn_warm_up *warm,
        struct spawn_member *ret, struct ic_error *error)
{
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    _cleanup_(spawn_deinit) struct spawn s;
    char origin[sizeof(s.record.origin)];
    struct ic_error cause = {0};
    int r;

    spawn_init(&s);
    (void)snprintf(origin, sizeof(origin), POOL_ORIGIN "template %s", from->name);
    s.plan = (struct spawn_plan){.from = from, .origin = origin};
    r = spawn_look(&s, config, &cause);
    if (r == 0)
        r = check_same_image(&s, from, &cause);
    if (r == 0)
        r = claim(&s, &cause);
    if (r == 0)
        r = open_all(&s, &cause);
    if (r == 0)
        r = start(&s, &cause);
    if (r == 0)
        r = spawn_wait_ready(&s, &reader, deadline_after_ms(s.record.boot_timeout_ms), &cause);
    if (r == 0)
        spawn_limit_logs(&s, true);
    if (r == 0 && warm)
        r = warm_up(&s, warm, &reader, &cause);
    if (r == 0)
        r = s.backend->pause(s.backend, s.record.run_dir, &cause);
    if (r < 0) {
        if (s.claimed)
            tear_down(&s, &cause);
        if (error)
            *error = cause;
        return r;
    }
    vitals_put(s.entry.dir, &s.record, &s.record.creator);
    *ret = (struct spawn_member){.monitor = s.record.monitor,
            .vsock = s.record.vsock,
            .lock_fd = TAKE_FD(s.entry.lock_fd),
            .ready_fd = TAKE_FD(s.ready_fd),
            .monitor_pidfd = TAKE_FD(s.start.monitor.pidfd)};
    memcpy(ret->vm_id, s.record.vm_id, sizeof(ret->vm_id));
    return 0;
}

#define MOVE(to, from, member)                                                                                         \
    do {                                                                                                               \
        (to)->member = (from)->member;                                                                                 \
        (from)->member = NULL;                                                                                         \
    } while (0)

/* What the VM has become with its start, into the record of what it is to be. */
static int take_run_over(struct spawn *s, struct spawn_member *member, struct ic_error *error)
{
    _cleanup_(record_deinitp) struct record run = {0};
    struct record *record = &s->record;
    int r = table_read(&run, member->vm_id, error);

    if (r == 0)
        r = member_entry(member, &s->entry, error);
    if (r < 0)
        return r;
    s->claimed = s->started = true;
    s->limited = true; /* by the pool, which left room to save it; a limit that is too low can't be raised again */
    memcpy(record->vm_id, run.vm_id, sizeof(record->vm_id));
    MOVE(record, &run, run_dir);
    MOVE(record, &run, cgroup);
    record->run_dir_inode = run.run_dir_inode;
    record->uid = run.uid;
    memcpy(record->jail, run.jail, sizeof(record->jail));
    record->monitor = run.monitor;
    record->vsock = run.vsock;
    record->state = run.state;
    s->ready_fd = TAKE_FD(member->ready_fd);
    r = process_open(&record->monitor, &s->start.monitor.pidfd);
    if (r == 0 && record->vsock.pid > 0)
        r = process_open(&record->vsock, &s->start.vsock.pidfd);
    if (r < 0)
        return ic_fail_errno(error, r, "VM '%s' of a pool", record->vm_id);
    return table_write(&s->entry, record, error);
}

/* A VM that waits, if there is one of this kind. 0, or a negative number: then there is none, and *s is used up if
 * it was claimed. */
static int adopt(struct spawn *s, ic_vm **ret_vm, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(s->record.boot_timeout_ms);
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    struct spawn_member member;
    char name[POOL_NAME_LEN + 1];
    int r;

    if (s->config.vm_id || s->plan.from != &s->template_ || s->plan.no_pool)
        return -IC_ERR_NOT_FOUND;
    r = pool_name(&s->record, s->plan.from, name, error);
    if (r < 0 || pool_take(name, s->record.tied, &member) < 0)
        return -IC_ERR_NOT_FOUND;
    r = take_run_over(s, &member, error);
    spawn_phase(s, PHASE_CLAIM);
    if (r == 0)
        r = s->backend->resume(s->backend, s->record.run_dir, error);
    spawn_phase(s, PHASE_LOAD);
    if (r == 0)
        r = spawn_give_identity(s, &reader, deadline, error);
    spawn_phase(s, PHASE_IDENTITY);
    if (r == 0)
        r = become_ready(s, ret_vm, error);
    spawn_member_close(&member);
    return r;
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
    r = spawn_look(&s, config, &cause);
    spawn_phase(&s, PHASE_LOOK);
    if (r == 0 && adopt(&s, ret_vm, &cause) == 0)
        return 0;
    if (r == 0 && s.claimed) { /* the one that waited had something wrong with it: it goes, and we do it ourselves */
        struct spawn_plan again = plan ? *plan : (struct spawn_plan){0};

        s.record.keep = false;
        tear_down(&s, &cause);
        if (cause.code == IC_ERR_CANCELLED) {
            if (error)
                *error = cause;
            return -IC_ERR_CANCELLED;
        }
        again.no_pool = true;
        return spawn_vm(config, &again, ret_vm, error);
    }
    if (r == 0)
        r = claim(&s, &cause);
    if (r == 0)
        r = open_all(&s, &cause);
    if (r == 0)
        r = start(&s, &cause);
    if (r == 0)
        r = wait_and_identify(&s, &cause);
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
    r = spawn_look(&s, config, error);
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
