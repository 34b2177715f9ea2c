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
 * vhost-user vsock. -nodefaults and the machine see to it that there is no
 * other device, a network card least of all.
 */
#include "orchestrator/backends/backend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/backends/qemu-seccomp.h"
#include "orchestrator/backends/qmp.h"
#include "orchestrator/backends/tsc.h"
#include "orchestrator/names.h"
#include "orchestrator/process.h"

static_assert(
        (int)IC_SECCOMP_MINIMAL == SECCOMP_MINIMAL && (int)IC_SECCOMP_PERMISSIVE == SECCOMP_PERMISSIVE, "one scale");

#define QMP_TIMEOUT_MS 10000u
#define ARGS_MAX       64u
#define VSOCK_BACKLOG  128

struct args {
    char *v[ARGS_MAX + 1];
    size_t count;
    bool failed;
};

static void args_deinit(struct args *a)
{
    for (size_t i = 0; i < a->count; i++)
        free(a->v[i]);
}

static void add(struct args *a, const char *fmt, ...) _printf_(2, 3);
static void add(struct args *a, const char *fmt, ...)
{
    va_list ap;

    if (a->failed || a->count == ARGS_MAX) {
        a->failed = true;
        return;
    }
    va_start(ap, fmt);
    a->failed = vasprintf(&a->v[a->count], fmt, ap) < 0;
    va_end(ap);
    if (!a->failed)
        a->v[++a->count] = NULL;
}

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

/*
 * The clock rate (see tsc.h), and what spares an emulated guest work that makes no sense there. Above all norandmaps:
 * QEMU 7.2 finds translated code by its virtual address, so with programs at random addresses each start of one
 * translates its loader and libraries anew, which made fork and exec of /bin/true five times as long.
 */
static void add_kernel_args(struct args *a, const struct backend_start *start)
{
    const struct record *record = start->record;
    bool emulated = record->isolation != IC_ISOLATION_HARDWARE;
    uint32_t khz = emulated ? tsc_khz() : 0;
    char clock[128] = "", lpj[48] = "";
    /* The kernel's HZ: delay loops per tick spare each processor its calibration. Unknown for a foreign kernel. */
    unsigned hz = strcmp(record->kernel_kind, "debian") == 0 ? 250 : strcmp(record->kernel_kind, "fast") == 0 ? 100 : 0;

    if (khz > 0) {
        if (hz > 0)
            (void)snprintf(lpj, sizeof(lpj), " lpj=%llu", (unsigned long long)khz * 1000 / hz);
        (void)snprintf(clock, sizeof(clock), "tsc_early_khz=%u tsc=reliable%s ", khz, lpj);
    }
    add(a, "-append");
    add(a,
            "%s%sconsole=ttyS0 loglevel=4 panic=-1 reboot=t pci=off random.trust_cpu=on cryptomgr.notests "
            "mitigations=%s %s",
            clock, emulated ? "no_timer_check nokaslr norandmaps " : "", emulated ? "off" : "auto", start->kernel_args);
}

static void add_machine(struct args *a, const struct backend_start *start)
{
    const struct record *record = start->record;
    bool hardware = record->isolation == IC_ISOLATION_HARDWARE;
    /* Our fast kernel takes its devices from the command line; any other may have to find them by ACPI. */
    bool acpi = strcmp(record->kernel_kind, "fast") != 0;

    add(a, "-M");
    add(a, "microvm,acpi=%s,rtc=on,x-option-roms=off,dump-guest-core=off,memory-backend=ram", acpi ? "on" : "off");
    add(a, "-bios");
    add(a, "qboot.rom");
    add(a, "-accel");
    if (hardware)
        add(a, "kvm");
    else
        add(a, "tcg,thread=%s,tb-size=256", record->vcpu_count > 1 ? "multi" : "single");
    /* With erms the guest's kernel copies by rep movsb, which the translator does byte by byte: three times the CPU
     * time per megabyte of a stream. Without, it copies by words in a loop. */
    add(a, "-cpu");
    add(a, "%s", hardware ? "host" : "max,la57=off,erms=off,fsrm=off");
    add(a, "-smp");
    add(a, "%u", record->vcpu_count);
    add(a, "-m");
    add(a, "%uM", record->memory_mib);
    add(a, "-object");
    add(a, "memory-backend-memfd,id=ram,size=%uM,share=on", record->memory_mib);
}

static void add_devices(struct args *a, const struct backend_start *start, int vhost_fd, int qmp_fd)
{
    static const char *const devices[] = {
            "virtio-blk-device,drive=root",
            /* Without max-bytes one request makes QEMU allocate and fill as much as it asks for: up to 4 GiB. */
            "virtio-rng-device,rng=rng,max-bytes=65536,period=1000",
            /* These two QEMU offers on its own, and a guest that takes them has it ask ironclaw-vsock for them. */
            "vhost-user-vsock-device,chardev=vsock,notify_on_empty=off,any_layout=off",
    };

    add(a, "-add-fd");
    add(a, "fd=%d,set=1", start->rootfs_fd);
    add(a, "-add-fd");
    add(a, "fd=%d,set=2", start->console_fd);
    add(a, "-blockdev");
    add(a, "driver=file,node-name=root,filename=/dev/fdset/1,read-only=on,auto-read-only=off,locking=off");
    if (start->overlay_fd >= 0) {
        add(a, "-add-fd");
        add(a, "fd=%d,set=3", start->overlay_fd);
        add(a, "-blockdev");
        add(a, "driver=file,node-name=overlay,filename=/dev/fdset/3,read-only=off,auto-read-only=off,locking=off");
    }
    add(a, "-object");
    add(a, "rng-random,id=rng,filename=/dev/urandom");
    add(a, "-chardev");
    add(a, "socket,id=vsock,fd=%d", vhost_fd);
    add(a, "-chardev");
    add(a, "file,id=console,path=/dev/fdset/2,append=on");
    add(a, "-serial");
    add(a, "chardev:console");
    add(a, "-chardev");
    add(a, "socket,id=qmp,fd=%d,server=on,wait=off", qmp_fd);
    add(a, "-mon");
    add(a, "chardev=qmp,mode=control");
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        add(a, "-device");
        add(a, "%s", devices[i]);
        if (i == 0 && start->overlay_fd >= 0) {
            add(a, "-device");
            add(a, "virtio-blk-device,drive=overlay");
        }
    }
}

static void qemu_args(struct args *a, const char *qemu, const struct backend_start *start, int vhost_fd, int qmp_fd)
{
    static const char *const fixed[] = {
            "-nodefaults",
            "-no-user-config",
            "-nographic",
            "-no-reboot",
            /* Version 2 tells a driver that broke the rules (DEVICE_NEEDS_RESET); version 1 just falls silent. */
            "-global",
            "virtio-mmio.force-legacy=off",
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    };

    add(a, "%s", qemu);
    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
        add(a, "%s", fixed[i]);
    add_machine(a, start);
    add_devices(a, start, vhost_fd, qmp_fd);
    add(a, "-kernel");
    add(a, "%s", start->record->kernel_path);
    if (start->record->initrd_path) {
        add(a, "-initrd");
        add(a, "%s", start->record->initrd_path);
    }
    add_kernel_args(a, start);
}

static int spawn(struct backend_child *ret, struct args *a, const struct backend_start *start, const struct jail *jail,
        struct sock_fprog *filter, const int *keep, size_t keep_count, struct ic_error *error)
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

static void vsock_args(
        struct args *a, const char *vsock, const struct backend_start *start, int uds_fd, int vhost_fd, int held_fd)
{
    const struct record *record = start->record;

    add(a, "%s", vsock);
    add(a, "--guest-cid");
    add(a, "%u", BACKEND_GUEST_CID);
    add(a, "--uds-path");
    add(a, "%s", start->uds_path);
    add(a, "--uds-fd");
    add(a, "%d", uds_fd);
    add(a, "--fd");
    add(a, "%d", vhost_fd);
    add(a, "--log-level");
    add(a, "warning");
    add(a, "--seccomp-level");
    add(a, "%s", seccomp_words[record->seccomp_level]);
    add(a, "--audit-fd");
    add(a, "%d", start->vsock_audit_fd);
    if (record->max_connections > 0) {
        add(a, "--max-connections");
        add(a, "%u", record->max_connections);
    }
    if (record->max_lifetime_ms > 0) {
        add(a, "--max-lifetime-ms");
        add(a, "%u", record->max_lifetime_ms);
        add(a, "--hold-fd");
        add(a, "%d", held_fd);
    }
}

static int qemu_start(const struct backend *backend, struct backend_start *start, struct ic_error *error)
{
    _cleanup_(fd_closep) int for_qemu = -1, for_vsock = -1, uds_fd = -1, qmp_fd = -1, end_r = -1, end_w = -1;
    const bool mortal = start->record->max_lifetime_ms > 0;
    _cleanup_(args_deinit) struct args qemu_argv = {0}, vsock_argv = {0};
    _cleanup_(freep) char *qemu = qemu_path(), *vsock = vsock_path();
    struct sock_fprog filter;
    struct jail jail;
    int pair[2], r;

    if (!qemu || !vsock)
        return ic_fail(error, IC_ERR_BACKEND, "backend qemu: QEMU or ironclaw-vsock went away");
    if ((r = backend_listen(start, BACKEND_VSOCK, VSOCK_BACKLOG, &uds_fd, error)) < 0 ||
            (r = backend_listen(start, BACKEND_QMP, 1, &qmp_fd, error)) < 0)
        return r;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return ic_fail_errno(error, -errno, "socket pair");
    for_qemu = pair[0];
    for_vsock = pair[1];
    if ((r = fd_above_stdio(&for_qemu)) < 0 || (r = fd_above_stdio(&for_vsock)) < 0)
        return ic_fail_errno(error, r, "socket pair");
    if (mortal && (r = open_pipe(&end_r, &end_w)) < 0)
        return ic_fail_errno(error, r, "pipe");

    /* QEMU first: it has the longer way to go before the two meet. */
    qemu_args(&qemu_argv, qemu, start, for_qemu, qmp_fd);
    r = qemu_jail(&jail, qemu, start, error);
    if (r < 0)
        return r;
    if (qemu_filter((enum seccomp_level)start->record->seccomp_level, start->record->isolation == IC_ISOLATION_HARDWARE,
                &filter) < 0)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    r = spawn(&start->monitor, &qemu_argv, start, &jail, &filter,
            (const int[]){
                    for_qemu, start->rootfs_fd, start->console_fd, qmp_fd, start->alive_fd, start->overlay_fd, end_r},
            7, error);
    free(filter.filter);
    if (r < 0)
        return r;
    if (mortal && (r = tie_to_pipe(start->monitor.id.pid, end_r)) < 0)
        return ic_fail_errno(error, r, "signal from a pipe to %s", qemu);
    vsock_args(&vsock_argv, vsock, start, uds_fd, for_vsock, end_w);
    r = vsock_jail(&jail, vsock, start, error);
    if (r < 0)
        return r;
    return spawn(&start->vsock, &vsock_argv, start, &jail, NULL,
            (const int[]){for_vsock, uds_fd, start->alive_fd, start->vsock_audit_fd, end_w}, 5, error);
}

static int control(const char *run_dir, const char *command, struct ic_error *error)
{
    char path[4200];

    if ((size_t)snprintf(path, sizeof(path), "%s/" BACKEND_QMP, run_dir) >= sizeof(path))
        return ic_fail(error, IC_ERR_INVALID, "%s: path too long", run_dir);
    return qmp_command(path, command, deadline_after_ms(QMP_TIMEOUT_MS), error);
}

static int qemu_pause(const struct backend *backend, const char *run_dir, struct ic_error *error)
{
    return control(run_dir, "stop", error);
}

static int qemu_resume(const struct backend *backend, const char *run_dir, struct ic_error *error)
{
    return control(run_dir, "cont", error);
}

const struct backend backend_qemu = {
        .id = IC_BACKEND_QEMU,
        .capabilities = BACKEND_PAUSE | BACKEND_PERMISSIVE | BACKEND_LIMITS,
        .probe = qemu_probe,
        .start = qemu_start,
        .pause = qemu_pause,
        .resume = qemu_resume,
};
