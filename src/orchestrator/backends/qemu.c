/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's microvm machine with our vsock process beside it.
 *
 * Every file and socket reaches QEMU as an inherited descriptor: QEMU parses
 * none of our paths (a comma in one would start a new option), the root image
 * is read-only because the descriptor is, and nothing has to be found twice.
 * Only the kernel and the initramfs are named by path.
 *
 * What the guest gets: serial console, read-only virtio-blk, virtio-rng,
 * vhost-user vsock; a template has an empty PCI port in place of the vsock
 * (qemu-args.h), and is saved and loaded by qemu-snapshot.c. -nodefaults and
 * the machine see to it that there is no other device, a network card least
 * of all.
 */
#include "orchestrator/backends/backend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/backends/qemu-args.h"
#include "orchestrator/backends/qemu-seccomp.h"
#include "orchestrator/backends/qemu-snapshot.h"
#include "orchestrator/backends/qmp.h"
#include "orchestrator/names.h"
#include "orchestrator/process.h"

static_assert(
        (int)IC_SECCOMP_MINIMAL == SECCOMP_MINIMAL && (int)IC_SECCOMP_PERMISSIVE == SECCOMP_PERMISSIVE, "one scale");

#define QMP_TIMEOUT_MS 10000u
#define VSOCK_BACKLOG  128

static const char *qemu_name(void)
{
    const char *given = getenv("IRONCLAW_QEMU");

    return given && given[0] ? given : "qemu-system-x86_64";
}

static char *qemu_path(void)
{
    return process_find_program(qemu_name());
}

static char *vsock_path(void)
{
    return backend_libexec("ironclaw-vsock");
}

static void qemu_probe(const struct backend *backend, struct backend_probe *ret)
{
    _cleanup_(freep) char *qemu = qemu_path(), *vsock = vsock_path();
    struct backend_probe probe = {0};
    char kvm[128];

    if (!qemu) {
        (void)snprintf(probe.reason, sizeof(probe.reason),
                "no QEMU installed: %.128s is not there; install the package qemu-system-x86", qemu_name());
    } else if (!vsock) {
        (void)snprintf(probe.reason, sizeof(probe.reason),
                "ironclaw-vsock is not in %.128s; install IronClaw, or set IRONCLAW_LIBEXEC to where it was built",
                backend_libexec_dir());
    } else {
        probe.usable = true;
        probe.isolation =
                backend_kvm_usable(kvm, sizeof(kvm)) ? IC_ISOLATION_HARDWARE : IC_ISOLATION_SOFTWARE_EMULATION;
        (void)snprintf(probe.reason, sizeof(probe.reason), "%s", kvm);
    }
    *ret = probe;
}

static int spawn(struct backend_child *ret, struct qemu_args *a, const struct backend_start *start,
        const struct jail *jail, struct sock_fprog *filter, const int *keep, size_t keep_count, struct ic_error *error)
{
    struct process_options options = {
            .size = sizeof(options),
            .path = a->v[0],
            .argv = a->v,
            .mark = start->mark,
            .out_fd = start->log_fd,
            .err_fd = start->log_fd,
            .keep_fds = keep,
            .keep_count = keep_count,
            .max_file_bytes = start->max_file_bytes,
            .die_with_parent = start->die_with_parent,
            .filter = filter,
    };

    if (filter) /* QEMU, whose guest memory is a file to this limit */
        options.max_file_bytes = MAX(options.max_file_bytes, (uint64_t)start->record->memory_mib << 20);
    if (a->failed)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    return confine_spawn(start->confine, &options, jail, start->record, &ret->id, &ret->pidfd, error);
}

/* QEMU's files and sockets are inherited, but for these. */
static int qemu_jail(struct jail *ret, const char *qemu, const struct backend_start *start, struct ic_error *error)
{
    const struct record *record = start->record;
    int r = confine_jail(start->confine, ret, qemu, error);

    if (r == 0 && (jail_add_mount(ret, record->kernel_path, JAIL_READ, false) < 0 ||
                          (record->initrd_path && jail_add_mount(ret, record->initrd_path, JAIL_READ, false) < 0) ||
                          jail_add_mount(ret, "/dev/urandom", JAIL_DEVICE, false) < 0 ||
                          (record->isolation == IC_ISOLATION_HARDWARE &&
                                  jail_add_mount(ret, "/dev/kvm", JAIL_DEVICE, false) < 0)))
        r = ic_fail(error, IC_ERR_INVALID, "jail of %s: too many mounts", qemu);
    return r;
}

/* Its front-end and its listener are inherited; what the guest connects to is in the run directory. */
static int vsock_jail(struct jail *ret, const char *vsock, const struct backend_start *start, struct ic_error *error)
{
    int r = confine_jail(start->confine, ret, vsock, error);

    if (r == 0 && jail_add_mount(ret, start->record->run_dir, JAIL_WRITE, false) < 0)
        r = ic_fail(error, IC_ERR_INVALID, "jail of %s: too many mounts", vsock);
    return r;
}

/*
 * QEMU can't be told when to end, and ironclaw-vsock, which can, sees no other process from its jail. So QEMU has the
 * one end of a pipe and ironclaw-vsock the other, and when that is closed, by whatever end of ironclaw-vsock, the
 * kernel sends SIGTERM to QEMU (fcntl(2), F_SETSIG; a jail's first process gets no signal that it does not handle, but
 * QEMU handles this one). The power to do that is all that ironclaw-vsock has over QEMU.
 */
static int tie_to_pipe(pid_t qemu, int read_fd)
{
    if (fcntl(read_fd, F_SETSIG, SIGTERM) < 0 || fcntl(read_fd, F_SETOWN, qemu) < 0 ||
            fcntl(read_fd, F_SETFL, O_ASYNC | O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

static int open_pipe(int *ret_read_fd, int *ret_write_fd)
{
    int fds[2], r;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    *ret_read_fd = fds[0];
    *ret_write_fd = fds[1];
    r = fd_above_stdio(ret_read_fd);
    return r < 0 ? r : fd_above_stdio(ret_write_fd);
}

struct sockets {
    int uds_fd, qmp_fd, for_qemu, for_vsock, end_r, end_w;
};

static void sockets_deinit(struct sockets *s)
{
    fd_close(s->uds_fd);
    fd_close(s->qmp_fd);
    fd_close(s->for_qemu);
    fd_close(s->for_vsock);
    fd_close(s->end_r);
    fd_close(s->end_w);
}

static int open_pair(struct sockets *s, struct ic_error *error)
{
    int pair[2], r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return ic_fail_errno(error, -errno, "socket pair");
    s->for_qemu = pair[0];
    s->for_vsock = pair[1];
    if ((r = fd_above_stdio(&s->for_qemu)) < 0 || (r = fd_above_stdio(&s->for_vsock)) < 0)
        return ic_fail_errno(error, r, "socket pair");
    return 0;
}

/* A template has no vsock device, and so nothing that would tell it that its time is over; it lives for a moment. */
static int open_sockets(struct sockets *s, const struct backend_start *start, struct ic_error *error)
{
    int r = backend_listen(start, BACKEND_QMP, 1, &s->qmp_fd, error);

    if (r < 0 || start->for_template)
        return r;
    r = backend_listen(start, BACKEND_VSOCK, VSOCK_BACKLOG, &s->uds_fd, error);
    if (r == 0)
        r = open_pair(s, error);
    if (r < 0 || start->record->max_lifetime_ms == 0)
        return r;
    r = open_pipe(&s->end_r, &s->end_w);
    return r < 0 ? ic_fail_errno(error, r, "pipe") : 0;
}

static int start_qemu(struct backend_start *start, const char *qemu, const struct sockets *s, struct ic_error *error)
{
    _cleanup_(qemu_args_deinit) struct qemu_args argv = {0};
    struct sock_fprog filter;
    struct jail jail;
    int r;

    qemu_args_build(&argv, qemu, start, s->for_qemu, s->qmp_fd);
    r = qemu_jail(&jail, qemu, start, error);
    if (r < 0)
        return r;
    if (qemu_filter((enum seccomp_level)start->record->seccomp_level, start->record->isolation == IC_ISOLATION_HARDWARE,
                &filter) < 0)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    r = spawn(&start->monitor, &argv, start, &jail, &filter,
            (const int[]){s->for_qemu, start->rootfs_fd, start->console_fd, s->qmp_fd, start->alive_fd,
                    start->overlay_fd, s->end_r},
            7, error);
    free(filter.filter);
    if (r == 0 && s->end_r >= 0 && (r = tie_to_pipe(start->monitor.id.pid, s->end_r)) < 0)
        return ic_fail_errno(error, r, "signal from a pipe to %s", qemu);
    return r;
}

static int start_vsock(struct backend_start *start, const char *vsock, const struct sockets *s, struct ic_error *error)
{
    _cleanup_(qemu_args_deinit) struct qemu_args argv = {0};
    struct jail jail;
    int r;

    qemu_vsock_args_build(&argv, vsock, start, s->uds_fd, s->for_vsock, s->end_w);
    r = vsock_jail(&jail, vsock, start, error);
    if (r < 0)
        return r;
    return spawn(&start->vsock, &argv, start, &jail, NULL,
            (const int[]){s->for_vsock, s->uds_fd, start->alive_fd, start->vsock_audit_fd, s->end_w}, 5, error);
}

static const char *qemu_no_template(const struct backend *backend, const struct record *record)
{
    if (strcmp(record->kernel_kind, "debian") == 0)
        return NULL;
    return "QEMU can be plugged a vsock device over PCI only, and of the kernels only Debian's is known to have that";
}

static int qemu_start(const struct backend *backend, struct backend_start *start, struct ic_error *error)
{
    _cleanup_(sockets_deinit) struct sockets s = {-1, -1, -1, -1, -1, -1};
    _cleanup_(freep) char *qemu = qemu_path(), *vsock = vsock_path();
    const char *no_template = start->for_template || start->snapshot ? qemu_no_template(backend, start->record) : NULL;
    _cleanup_(fd_closep) int state_fd = -1;
    int r;

    if (!qemu || !vsock)
        return ic_fail(error, IC_ERR_BACKEND, "backend qemu: QEMU or ironclaw-vsock went away");
    if (no_template)
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "backend qemu: there are no templates with the kernel '%s': %s; start the VM cold (--cold)",
                start->record->kernel_kind[0] ? start->record->kernel_kind : start->record->kernel_path, no_template);
    r = open_sockets(&s, start, error);
    /* QEMU first: it has the longer way to go before the two meet. */
    if (r == 0)
        r = start_qemu(start, qemu, &s, error);
    if (r == 0 && !start->for_template)
        r = start_vsock(start, vsock, &s, error);
    if (r < 0 || !start->snapshot)
        return r;
    r = qemu_open_state(start->snapshot->state_path, start->record, &state_fd, error);
    if (r < 0)
        return r;
    sockets_deinit(&s); /* so that we see the other ends go */
    s = (struct sockets){-1, -1, -1, -1, -1, -1};
    return qemu_load(start, state_fd, error);
}

static int control(const char *run_dir, const char *command, struct ic_error *error)
{
    char path[4200];
    int r = qemu_qmp_path(path, sizeof(path), run_dir, error);

    return r < 0 ? r : qmp_command(path, command, deadline_after_ms(QMP_TIMEOUT_MS), error);
}

static int qemu_pause(const struct backend *backend, const char *run_dir, struct ic_error *error)
{
    return control(run_dir, "stop", error);
}

static int qemu_resume(const struct backend *backend, const char *run_dir, struct ic_error *error)
{
    return qemu_go_on(run_dir, error);
}

/* Those alone have the port. */
static const char *qemu_no_snapshot(const struct backend *backend, const struct record *record)
{
    return record->origin[0]
                   ? NULL
                   : "its vsock can't be unplugged, since it was booted cold (--cold, or a kernel or image of "
                     "which there is no template)";
}

static int qemu_save_vm(const struct backend *backend, const struct record *record, struct ic_error *error)
{
    return qemu_save(record, error);
}

static char *qemu_program(const struct backend *backend)
{
    return qemu_path();
}

const struct backend backend_qemu = {
        .id = IC_BACKEND_QEMU,
        .capabilities = BACKEND_PAUSE | BACKEND_PERMISSIVE | BACKEND_LIMITS | BACKEND_TEMPLATE | BACKEND_SNAPSHOT |
                        BACKEND_UNPLUG,
        .probe = qemu_probe,
        .start = qemu_start,
        .pause = qemu_pause,
        .resume = qemu_resume,
        .program = qemu_program,
        .save = qemu_save_vm,
        .no_template = qemu_no_template,
        .no_snapshot = qemu_no_snapshot,
};
