/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/backends/fcapi.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/backends/http.h"
#include "orchestrator/images/subprocess.h"
#include "orchestrator/names.h"
#include "orchestrator/process.h"

#define CALL_TIMEOUT_MS 10000u
#define SAVE_TIMEOUT_MS 120000u /* all of guest memory, to a disk that may be slow */
#define CONNECT_POLL_NS 200000  /* the socket is usually there after a millisecond or two */
#define DYING_GRACE_MS  1000u   /* the connection ends a little before the process does */
#define PATH_ROOM       128u

const struct fcapi fcapi_ironclaw = {
        .program = "ironclaw-vmm",
        .ours = true,
        .get = "install IronClaw, or set IRONCLAW_LIBEXEC to where it was built",
        .reboot = "t",
};
const struct fcapi fcapi_firecracker = {
        .program = "firecracker",
        .env = "IRONCLAW_FIRECRACKER",
        .plain_id = true,
        .get = "install Firecracker, set IRONCLAW_FIRECRACKER to its path, or use another backend",
        .reboot = "k",
};

static const char *named_program(const struct fcapi *kind)
{
    const char *given = kind->env ? getenv(kind->env) : NULL;

    return given && given[0] ? given : kind->program;
}

char *fcapi_path(const struct fcapi *kind)
{
    return kind->ours ? backend_libexec(kind->program) : process_find_program(named_program(kind));
}

static void fcapi_probe(const struct backend *backend, struct backend_probe *ret)
{
    const struct fcapi *kind = backend->data;
    _cleanup_(freep) char *path = fcapi_path(kind);
    struct backend_probe probe = {.isolation = IC_ISOLATION_HARDWARE};
    char kvm[128];

    if (!path && kind->ours)
        (void)snprintf(probe.reason, sizeof(probe.reason), "%s is not in %.100s; %s", kind->program,
                backend_libexec_dir(), kind->get);
    else if (!path)
        (void)snprintf(probe.reason, sizeof(probe.reason), "%.100s is not there; %s", named_program(kind), kind->get);
    else if (!backend_kvm_usable(kvm, sizeof(kvm)))
        (void)snprintf(probe.reason, sizeof(probe.reason),
                "%s; use a host with hardware virtualization, or --backend qemu", kvm);
    else {
        probe.usable = true;
        (void)snprintf(probe.reason, sizeof(probe.reason), "%s", kvm);
    }
    *ret = probe;
}

/* ---- what to say ---- */

static json_t *boot_source(const struct fcapi *kind, const struct backend_start *start)
{
    const struct record *record = start->record;
    json_t *body = NULL;
    char *args;

    if (asprintf(&args, "console=ttyS0 loglevel=4 panic=-1 reboot=%s pci=off random.trust_cpu=on cryptomgr.notests %s",
                kind->reboot, start->kernel_args) < 0)
        return NULL;
    body = json_pack("{s:s, s:s}", "kernel_image_path", record->kernel_path, "boot_args", args);
    if (body && record->initrd_path && json_object_set_new(body, "initrd_path", json_string(record->initrd_path)) < 0) {
        json_decref(body);
        body = NULL;
    }
    free(args);
    return body;
}

/* Takes the reference to `body`. */
static void add_call(struct fcapi_call *calls, int *count, const char *path, json_t *body)
{
    if (*count >= 0 && body)
        calls[*count].body = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    if (*count < 0)
        return;
    calls[*count].path = path;
    if (calls[*count].body)
        (*count)++;
    else
        *count = -EILSEQ; /* or no memory, which jansson does not tell apart */
}

/* One call has it all: what the VM is comes from the snapshot, but for where its vsock is reached. */
static void plan_load(const struct fcapi *kind, const struct backend_start *start, struct fcapi_call *calls, int *n)
{
    const struct backend_snapshot *from = start->snapshot;
    const struct record *record = start->record;
    json_t *body = json_pack("{s:s, s:{s:s, s:s}, s:b, s:{s:s}}", "snapshot_path", from->state_path, "mem_backend",
            "backend_type", "File", "backend_path", from->memory_path, "resume_vm", 1, "vsock_override", "uds_path",
            start->uds_path);

    if (body && kind->ours) {
        /* Limits were checked for what the record says, and a state file may come from a monitor that was taken over.
         */
        int r = json_object_set_new(body, "expect",
                json_pack("{s:I, s:I}", "vcpu_count", (json_int_t)record->vcpu_count, "mem_size_mib",
                        (json_int_t)record->memory_mib));

        if (r == 0 && from->touched_path)
            r = json_object_set_new(body, "prefetch_path", json_string(from->touched_path));
        if (r < 0) {
            json_decref(body);
            body = NULL;
        }
    }
    add_call(calls, n, "/snapshot/load", body);
}

static void plan_boot(
        const struct fcapi *kind, const struct backend_start *start, struct fcapi_call *calls, int *ret_count)
{
    const struct record *record = start->record;
    int n = 0;

    add_call(calls, &n, "/machine-config",
            json_pack("{s:I, s:I}", "vcpu_count", (json_int_t)record->vcpu_count, "mem_size_mib",
                    (json_int_t)record->memory_mib));
    add_call(calls, &n, "/boot-source", boot_source(kind, start));
    add_call(calls, &n, "/drives/root",
            json_pack("{s:s, s:s, s:b, s:b}", "drive_id", "root", "path_on_host", record->rootfs_path, "is_root_device",
                    1, "is_read_only", 1));
    if (record->overlay_path)
        add_call(calls, &n, "/drives/overlay",
                json_pack("{s:s, s:s, s:b, s:b, s:s}", "drive_id", "overlay", "path_on_host", record->overlay_path,
                        "is_root_device", 0, "is_read_only", 0, "cache_type", "Writeback"));
    add_call(calls, &n, "/vsock",
            json_pack("{s:I, s:s}", "guest_cid", (json_int_t)BACKEND_GUEST_CID, "uds_path", start->uds_path));
    add_call(calls, &n, "/entropy", json_object());
    add_call(calls, &n, "/actions", json_pack("{s:s}", "action_type", "InstanceStart"));
    *ret_count = n;
}

int fcapi_plan(
        const struct fcapi *kind, const struct backend_start *start, struct fcapi_call ret[static FCAPI_CALLS_MAX])
{
    struct fcapi_call calls[FCAPI_CALLS_MAX] = {0};
    int n = 0;

    if (start->snapshot)
        plan_load(kind, start, calls, &n);
    else
        plan_boot(kind, start, calls, &n);
    if (n < 0)
        fcapi_free_calls(calls);
    else
        memcpy(ret, calls, sizeof(calls));
    return n;
}

void fcapi_free_calls(struct fcapi_call calls[static FCAPI_CALLS_MAX])
{
    for (size_t i = 0; i < FCAPI_CALLS_MAX; i++)
        free(calls[i].body);
}

const char *fcapi_fault(char *dst, size_t size, int status, const char *body, size_t len)
{
    json_t *root = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *fault = json_object_get(root, "fault_message");

    if (json_is_string(fault))
        (void)log_escape(dst, size, json_string_value(fault), json_string_length(fault));
    else
        (void)snprintf(dst, size, "status %d without a reason", status);
    json_decref(root);
    return dst;
}

/* ---- saying it ---- */

static int call(const struct fcapi *kind, struct http *http, const char *method, const char *path, const char *body,
        struct ic_error *error)
{
    struct http_response response;
    char fault[640];
    int r = http_request(http, method, path, body, &response);

    if (r == -EINTR)
        return ic_fail(error, IC_ERR_CANCELLED, "%s: cancelled by a signal during %s %s", kind->program, method, path);
    if (r < 0)
        return ic_fail_errno(error, r, "%s: answer to %s %s", kind->program, method, path);
    if (response.status < 300)
        return 0;
    return ic_fail(error, IC_ERR_BACKEND, "%s refused %s %s: %s", kind->program, method, path,
            fcapi_fault(fault, sizeof(fault), response.status, response.body, response.body_len));
}

static int api_path(char path[PATH_ROOM], const char *run_dir, struct ic_error *error)
{
    if ((size_t)snprintf(path, PATH_ROOM, "%s/" BACKEND_API, run_dir) < PATH_ROOM)
        return 0;
    return ic_fail(error, IC_ERR_INVALID, "%s: path too long for a socket", run_dir);
}

/* The monitor makes the socket itself. -ECHILD: it ended before that. */
static int connect_api(const char *path, int monitor_pidfd, uint64_t deadline, int *ret_fd)
{
    const struct timespec step = {.tv_nsec = CONNECT_POLL_NS};

    for (;;) {
        struct pollfd p = {.fd = monitor_pidfd, .events = POLLIN};
        int r = unix_connect_nofollow(path, true, ret_fd), n;

        if (r != -ENOENT && r != -ECONNREFUSED && r != -EAGAIN && r != -EINPROGRESS)
            return r;
        n = ppoll(&p, 1, &step, NULL);
        if (n != 0)
            return n > 0 ? -ECHILD : -errno;
        if (deadline_poll_ms(deadline) == 0)
            return -ETIMEDOUT;
    }
}

static int configure(const struct fcapi *kind, const struct backend_start *start, struct ic_error *error)
{
    /* The start reads kernel and initramfs, from a disk that may be slow: the user's own limit is the one. */
    uint64_t deadline = deadline_after_ms(start->record->boot_timeout_ms);
    struct fcapi_call calls[FCAPI_CALLS_MAX] = {0};
    _cleanup_(http_deinit) struct http http = {.fd = -1};
    char path[PATH_ROOM];
    int count, fd, r = api_path(path, start->record->run_dir, error);

    if (r < 0)
        return r;
    count = fcapi_plan(kind, start, calls);
    if (count < 0)
        return ic_fail(error, IC_ERR_INVALID, "%s: a path is not UTF-8, or out of memory", kind->program);
    r = connect_api(path, start->monitor.pidfd, deadline, &fd);
    if (r == -EINTR)
        r = ic_fail(error, IC_ERR_CANCELLED, "%s: cancelled by a signal while it started", kind->program);
    else if (r < 0)
        r = ic_fail_errno(error, r, "%s: its API socket %s", kind->program, path);
    else
        http_init(&http, fd, deadline);
    for (int i = 0; i < count && r == 0; i++)
        r = call(kind, &http, "PUT", calls[i].path, calls[i].body, error);
    fcapi_free_calls(calls);
    return r;
}

struct monitor_args {
    char *v[20];
    size_t count;
    char path[PATH_ROOM], id[IC_VM_ID_MAX + 1], audit_fd[16], lifetime[16], connections[16];
};

static void add_option(struct monitor_args *a, const char *name, const char *value)
{
    a->v[a->count++] = (char *)name;
    a->v[a->count++] = (char *)value;
}

static void monitor_args(
        struct monitor_args *a, const struct fcapi *kind, char *program, const struct backend_start *start)
{
    const struct record *record = start->record;

    a->v[a->count++] = program;
    add_option(a, "--api-sock", a->path);
    (void)snprintf(a->id, sizeof(a->id), "%s", record->vm_id);
    for (char *p = a->id; kind->plain_id && *p; p++) {
        if (*p == '_')
            *p = '-';
    }
    add_option(a, "--id", a->id);
    add_option(a, "--level", "Warning");
    if (!kind->ours)
        return;
    (void)snprintf(a->audit_fd, sizeof(a->audit_fd), "%d", start->monitor_audit_fd);
    add_option(a, "--seccomp-level", seccomp_words[record->seccomp_level]);
    add_option(a, "--audit-fd", a->audit_fd);
    if (record->max_lifetime_ms > 0) {
        (void)snprintf(a->lifetime, sizeof(a->lifetime), "%u", record->max_lifetime_ms);
        add_option(a, "--max-lifetime-ms", a->lifetime);
    }
    if (record->max_connections > 0) {
        (void)snprintf(a->connections, sizeof(a->connections), "%u", record->max_connections);
        add_option(a, "--vsock-max-connections", a->connections);
    }
}

/* What it opens by path. */
static int make_jail(const struct fcapi *kind, const struct backend_start *start, const char *program, struct jail *ret,
        struct ic_error *error)
{
    const struct backend_snapshot *from = start->snapshot;
    const struct record *record = start->record;
    const struct {
        const char *path;
        enum jail_access access;
    } mounts[] = {
            {record->run_dir, JAIL_WRITE}, {"/dev/kvm", JAIL_DEVICE}, {from ? NULL : record->kernel_path, JAIL_READ},
            {from ? NULL : record->initrd_path, JAIL_READ}, {record->rootfs_path, JAIL_READ},
            {start->overlay_fd >= 0 ? record->overlay_path : NULL, JAIL_WRITE},
            {from ? from->state_path : NULL, JAIL_READ}, {from ? from->memory_path : NULL, JAIL_READ},
            {from && kind->ours ? from->touched_path : NULL, JAIL_READ},
            {kind->ours ? NULL : "/dev/urandom", JAIL_DEVICE}, /* as its own jailer gives it */
    };
    int r = confine_jail(start->confine, ret, program, error);

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(mounts); i++) {
        if (mounts[i].path && jail_add_mount(ret, mounts[i].path, mounts[i].access, false) < 0)
            r = ic_fail(error, IC_ERR_INVALID, "jail of %s: too many mounts", program);
    }
    if (r == 0 && start->overlay_fd >= 0)
        r = confine_give_file(start->confine, start->overlay_fd, record->overlay_path, error);
    return r;
}

static int fcapi_start(const struct backend *backend, struct backend_start *start, struct ic_error *error)
{
    const struct fcapi *kind = backend->data;
    _cleanup_(freep) char *program = fcapi_path(kind);
    struct monitor_args args = {.count = 0};
    const int keep[] = {start->alive_fd, kind->ours ? start->monitor_audit_fd : -1, start->overlay_fd};
    struct process_options options = {
            .size = sizeof(options),
            .path = program,
            .argv = args.v,
            .mark = start->mark,
            .out_fd = start->console_fd,
            .err_fd = start->log_fd,
            .keep_fds = keep,
            .keep_count = start->overlay_fd >= 0 ? 3 : 2,
            .max_file_bytes = start->max_file_bytes,
            .file_ceiling = start->file_ceiling,
            .die_with_parent = start->die_with_parent,
    };
    struct jail jail;
    int r;

    if (!program)
        return ic_fail(
                error, IC_ERR_BACKEND, "backend %s: %s went away", ic_backend_name(backend->id), named_program(kind));
    r = api_path(args.path, start->record->run_dir, error);
    if (r < 0)
        return r;
    monitor_args(&args, kind, program, start);
    r = make_jail(kind, start, program, &jail, error);
    if (r == 0)
        r = confine_spawn(
                start->confine, &options, &jail, start->record, &start->monitor.id, &start->monitor.pidfd, error);
    if (r < 0)
        return r;
    start->spawned_us = clock_now_us();
    r = configure(kind, start, error);
    if (r == -IC_ERR_IO) /* hung up, most probably because it is about to end: the caller then says how */
        (void)fd_wait(start->monitor.pidfd, POLLIN, deadline_after_ms(DYING_GRACE_MS));
    return r;
}

static int call_running(const struct fcapi *kind, const char *run_dir, const char *method, const char *what,
        const char *body, uint32_t timeout_ms, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(timeout_ms);
    _cleanup_(http_deinit) struct http http = {.fd = -1};
    char path[PATH_ROOM];
    int fd, r = api_path(path, run_dir, error);

    if (r < 0)
        return r;
    r = unix_connect_nofollow(path, true, &fd);
    if (r < 0)
        return ic_fail_errno(error, r, "%s: its API socket %s", kind->program, path);
    http_init(&http, fd, deadline);
    return call(kind, &http, method, what, body, error);
}

static int set_state(const struct fcapi *kind, const char *run_dir, const char *body, struct ic_error *error)
{
    return call_running(kind, run_dir, "PATCH", "/vm", body, CALL_TIMEOUT_MS, error);
}

static int fcapi_pause(const struct backend *backend, const char *run_dir, struct ic_error *error)
{
    return set_state(backend->data, run_dir, "{\"state\":\"Paused\"}", error);
}

static int fcapi_resume(const struct backend *backend, const char *run_dir, struct ic_error *error)
{
    return set_state(backend->data, run_dir, "{\"state\":\"Resumed\"}", error);
}

static char *fcapi_program(const struct backend *backend)
{
    return fcapi_path(backend->data);
}

/* The paths are the host's; a jailed monitor finds them at the same place. */
static int fcapi_save(const struct backend *backend, const struct record *record, struct ic_error *error)
{
    const struct fcapi *kind = backend->data;
    char state[PATH_ROOM], memory[PATH_ROOM], *body;
    json_t *root;
    int r = fcapi_pause(backend, record->run_dir, error);

    if (r < 0)
        return r;
    if ((size_t)snprintf(state, sizeof(state), "%s/" BACKEND_STATE, record->run_dir) >= sizeof(state) ||
            (size_t)snprintf(memory, sizeof(memory), "%s/" BACKEND_MEMORY, record->run_dir) >= sizeof(memory))
        return ic_fail(error, IC_ERR_INVALID, "%s: path too long", record->run_dir);
    root = json_pack("{s:s, s:s, s:s}", "snapshot_type", "Full", "snapshot_path", state, "mem_file_path", memory);
    body = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (!body)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    r = call_running(kind, record->run_dir, "PUT", "/snapshot/create", body, SAVE_TIMEOUT_MS, error);
    free(body);
    return r;
}

/* Outside of the jail, where there is a /proc to look at. */
static int fcapi_touched(const struct backend *backend, const struct record *record, const char *memory_path,
        const char *to, struct ic_error *error)
{
    _cleanup_(freep) char *program = fcapi_path(backend->data);
    char pid[16];
    const char *const argv[] = {program, "--working-set", pid, memory_path, to, NULL};

    if (!program)
        return ic_fail(error, IC_ERR_BACKEND, "backend %s: its program went away", ic_backend_name(backend->id));
    (void)snprintf(pid, sizeof(pid), "%d", (int)record->monitor.pid);
    return subprocess_run(&(struct subprocess){.argv = argv, .package = "ironclaw"}, error);
}

const struct backend backend_ironclaw = {
        .id = IC_BACKEND_IRONCLAW,
        .capabilities = BACKEND_PAUSE | BACKEND_PERMISSIVE | BACKEND_LIMITS | BACKEND_SNAPSHOT | BACKEND_TEMPLATE |
                        BACKEND_WRITES_STATE | BACKEND_TOUCHED,
        .touched = fcapi_touched,
        .data = &fcapi_ironclaw,
        .probe = fcapi_probe,
        .start = fcapi_start,
        .pause = fcapi_pause,
        .resume = fcapi_resume,
        .program = fcapi_program,
        .save = fcapi_save,
};
const struct backend backend_firecracker = {
        .id = IC_BACKEND_FIRECRACKER,
        .capabilities = BACKEND_PAUSE | BACKEND_SNAPSHOT | BACKEND_TEMPLATE | BACKEND_WRITES_STATE,
        .data = &fcapi_firecracker,
        .probe = fcapi_probe,
        .start = fcapi_start,
        .pause = fcapi_pause,
        .resume = fcapi_resume,
        .program = fcapi_program,
        .save = fcapi_save,
};
