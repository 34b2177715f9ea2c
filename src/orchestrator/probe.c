/* SPDX-License-Identifier: Apache-2.0 */
/* What this host has for running VMs, with what to do about what it lacks. For `ironclaw doctor`. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/backends/fcapi.h"
#include "orchestrator/config.h"
#include "orchestrator/images/image.h"
#include "orchestrator/paths.h"
#include "orchestrator/process.h"

#define NSSWITCH_MAX       65536
#define NAMES_MAX          4096 /* of an entry of passwd(5) */
#define SUBIDS_MAX         (1 << 20)
#define SUBIDS_NEEDED      65536
#define MEMORY_WANTED_MIB  512u
#define DISK_WANTED_MIB    2048u
#define VERSION_TIMEOUT_MS 5000u
#define KVM_TRIES          3
#define KVM_PAUSE_MS       50
#define KVM_SLOW_US        5000u

static struct ic_check *check(struct ic_host_report *report, const char *name, enum ic_check_status status,
        const char *remedy, const char *fmt, ...) _printf_(5, 6);
static struct ic_check *check(struct ic_host_report *report, const char *name, enum ic_check_status status,
        const char *remedy, const char *fmt, ...)
{
    struct ic_check *c;
    va_list ap;

    if (report->check_count == ARRAY_SIZE(report->checks))
        return NULL;
    c = &report->checks[report->check_count++];
    *c = (struct ic_check){.status = status};
    (void)snprintf(c->name, sizeof(c->name), "%s", name);
    (void)snprintf(c->remedy, sizeof(c->remedy), "%s", status == IC_CHECK_OK ? "" : remedy);
    va_start(ap, fmt);
    (void)vsnprintf(c->detail, sizeof(c->detail), fmt, ap);
    va_end(ap);
    return c;
}

/* Linux 6.1 and its like wait there for a grace period of RCU, as they move a thread of KVM's into the caller's control
 * groups. One that has just been waited for serves the next caller, too, hence the pauses. */
static void check_kvm_speed(struct ic_host_report *report)
{
    _cleanup_(fd_closep) int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < KVM_TRIES; i++) {
        uint64_t begin = clock_now_us();
        _cleanup_(fd_closep) int vm_fd = fd < 0 ? -1 : ioctl(fd, KVM_CREATE_VM, 0);

        if (vm_fd < 0)
            return;
        best = MIN(best, clock_now_us() - begin);
        (void)poll(NULL, 0, KVM_PAUSE_MS);
    }
    check(report, "kvm speed", best > KVM_SLOW_US ? IC_CHECK_WARNING : IC_CHECK_OK,
            "each start waits so long for this host's kernel; Linux 6.12 does not, and others no more after 'mount -o "
            "remount,favordynmods /sys/fs/cgroup'",
            "KVM makes a VM in %.1f ms", (double)best / 1000);
}

static void check_kvm(struct ic_host_report *report)
{
    char reason[192];

    if (backend_kvm_usable(reason, sizeof(reason))) {
        check(report, "kvm", IC_CHECK_OK, "", "%s", reason);
        check_kvm_speed(report);
        return;
    }
    check(report, "kvm", IC_CHECK_WARNING,
            "VMs run under software emulation; for hardware isolation use a machine (or nested virtualization) "
            "whose processor shows vmx or svm, and be in the group kvm",
            "%s", reason);
}

/* First line of what `program --version` prints. */
static int program_version(const char *program, char *dst, size_t size)
{
    _cleanup_(fd_closep) int out_r = -1, out_w = -1, pidfd = -1;
    char *argv[] = {(char *)program, (char *)"--version", NULL};
    uint64_t deadline = deadline_after_ms(VERSION_TIMEOUT_MS);
    struct process_options options;
    struct process_id id;
    char text[256];
    int fds[2], r;
    ssize_t n = 0;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    out_r = fds[0];
    out_w = fds[1];
    options = (struct process_options){
            .size = sizeof(options), .path = program, .argv = argv, .mark = "probe", .die_with_parent = true};
    if ((r = fd_above_stdio(&out_w)) < 0)
        return r;
    options.out_fd = options.err_fd = out_w;
    r = process_spawn(&options, &id, &pidfd);
    if (r < 0)
        return r;
    r = fd_wait(out_r, POLLIN, deadline);
    if (r == 0)
        n = read(out_r, text, sizeof(text) - 1);
    if (fd_wait(pidfd, POLLIN, deadline_after_ms(1000)) < 0)
        (void)process_kill(&id, deadline);
    (void)process_alive(&id);
    if (n <= 0)
        return r < 0 ? r : -EIO;
    text[n] = '\0';
    (void)log_escape(dst, size, text, strcspn(text, "\n"));
    return 0;
}

static void check_qemu(struct ic_host_report *report)
{
    const char *given = getenv("IRONCLAW_QEMU");
    const char *name = given && given[0] ? given : "qemu-system-x86_64";
    _cleanup_(freep) char *path = process_find_program(name);
    struct backend_probe probe;
    char version[128];

    if (!path)
        check(report, "qemu", IC_CHECK_FAILED, "install the package qemu-system-x86", "no %s in PATH", name);
    else if (program_version(path, version, sizeof(version)) < 0)
        check(report, "qemu", IC_CHECK_FAILED, "install the package qemu-system-x86 again",
                "%s does not tell its version", path);
    else
        check(report, "qemu", IC_CHECK_OK, "", "%s: %s", path, version);

    if (!path)
        return; /* the backend's reason would be this again */
    backend_qemu.probe(&backend_qemu, &probe);
    check(report, "ironclaw-vsock", probe.usable ? IC_CHECK_OK : IC_CHECK_FAILED, "install IronClaw (make install)",
            "%s", probe.usable ? "is installed" : probe.reason);
}

static void check_monitors(struct ic_host_report *report)
{
    static const struct {
        const struct backend *backend;
        const struct fcapi *kind;
        bool asked_for; /* only somebody who wants it misses it */
    } monitors[] = {
            {&backend_ironclaw, &fcapi_ironclaw, false},
            {&backend_firecracker, &fcapi_firecracker, true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(monitors); i++) {
        const struct fcapi *kind = monitors[i].kind;
        _cleanup_(freep) char *path = fcapi_path(kind);
        struct backend_probe probe;
        char version[128];

        monitors[i].backend->probe(monitors[i].backend, &probe);
        if (!path && monitors[i].asked_for)
            check(report, kind->program, IC_CHECK_OK, "", "is not installed; only --backend %s needs it",
                    ic_backend_name(monitors[i].backend->id));
        else if (!path)
            check(report, kind->program, IC_CHECK_WARNING, kind->get, "%s", probe.reason);
        else if (program_version(path, version, sizeof(version)) < 0)
            check(report, kind->program, IC_CHECK_WARNING, kind->get, "%s does not tell its version", path);
        else
            check(report, kind->program, IC_CHECK_OK, "", "%s%s: %s%s", path,
                    probe.usable ? "" : " (can't be used without hardware virtualization)", version,
                    monitors[i].asked_for ? "; in our jail, not by its jailer" : "");
    }
}

static void check_image(struct ic_host_report *report)
{
    struct image image = {0};
    struct ic_error error;

    if (image_open("base", &image, &error) == 0)
        check(report, "image base", IC_CHECK_OK, "", "%.12s, kernel %s (%s)", image.digest, image.kernel_release,
                image.kernel_kind);
    else
        check(report, "image base", IC_CHECK_WARNING, "run 'ironclaw image build'", "%s", error.message);
    image_deinit(&image);
}

static void check_runtime(struct ic_host_report *report)
{
    const size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
    _cleanup_(freep) char *path = NULL;
    struct ic_error error;
    /* The longest name, as made up: "ic-" and 8 digits. */
    static const char below[] = "/ic-00000000/v_1025";

    if (path_of(IC_PATH_RUNTIME, &path, &error) < 0 || path_make_dir(path, &error) < 0)
        check(report, "runtime directory", IC_CHECK_FAILED, "set XDG_RUNTIME_DIR or IRONCLAW_HOME", "%s",
                error.message);
    else if (strlen(path) + strlen(below) > max)
        check(report, "runtime directory", IC_CHECK_FAILED,
                "set IRONCLAW_HOME or XDG_RUNTIME_DIR to a shorter directory",
                "%.120s is too long for a unix socket below it (%zu bytes at most)", path, max);
    else
        check(report, "runtime directory", IC_CHECK_OK, "", "%s", path);
}

static uint64_t available_mib(void)
{
    _cleanup_(freep) char *text = NULL;
    const char *line;

    if (fd_read_file(AT_FDCWD, "/proc/meminfo", 65536, &text, NULL) < 0)
        return 0;
    line = strstr(text, "MemAvailable:");
    return line ? strtoull(line + strlen("MemAvailable:"), NULL, 10) >> 10 : 0;
}

static void check_room(struct ic_host_report *report)
{
    _cleanup_(freep) char *data = NULL;
    uint64_t memory = available_mib(), disk;
    struct ic_error error;
    struct statvfs vfs;

    check(report, "memory", memory >= MEMORY_WANTED_MIB ? IC_CHECK_OK : IC_CHECK_WARNING,
            "end other programs, or give VMs less with --memory", "%llu MiB available", (unsigned long long)memory);
    if (path_of(IC_PATH_DATA, &data, &error) < 0 || path_make_dir(data, &error) < 0) {
        check(report, "disk", IC_CHECK_FAILED, "set IRONCLAW_HOME to a directory of yours", "%s", error.message);
    } else if (statvfs(data, &vfs) < 0) {
        check(report, "disk", IC_CHECK_WARNING, "", "%s: %s", data, strerror(errno));
    } else {
        disk = (uint64_t)vfs.f_bavail * vfs.f_frsize >> 20;
        check(report, "disk", disk >= DISK_WANTED_MIB ? IC_CHECK_OK : IC_CHECK_WARNING,
                "make room; an image and its build need about 2 GiB", "%llu MiB free in %.160s",
                (unsigned long long)disk, data);
    }
}

static void check_tools(struct ic_host_report *report)
{
    static const struct {
        const char *name, *package;
    } tools[] = {{"mmdebstrap", "mmdebstrap"}, {"mkfs.erofs", "erofs-utils"}};

    for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
        _cleanup_(freep) char *path = process_find_program(tools[i].name);
        char sbin[64], remedy[128];

        if (!path && (size_t)snprintf(sbin, sizeof(sbin), "/usr/sbin/%s", tools[i].name) < sizeof(sbin))
            path = process_find_program(sbin);
        (void)snprintf(remedy, sizeof(remedy), "to build images install the package %s", tools[i].package);
        check(report, tools[i].name, path ? IC_CHECK_OK : IC_CHECK_WARNING, remedy, "%s",
                path ? path : "is not installed");
    }
}

/* subuid(5): name or uid, first, count. Other sources (subid in nsswitch.conf) are asked by those who use them. */
static bool has_subordinate_ids(const char *path)
{
    _cleanup_(freep) char *text = NULL, *nsswitch = NULL;
    char number[16], names[NAMES_MAX], *save = NULL;
    struct passwd entry, *user = NULL;
    const char *name;

    if (fd_read_file(AT_FDCWD, "/etc/nsswitch.conf", NSSWITCH_MAX, &nsswitch, NULL) == 0 &&
            strstr(nsswitch, "\nsubid:"))
        return true;
    if (fd_read_file(AT_FDCWD, path, SUBIDS_MAX, &text, NULL) < 0)
        return false;
    (void)snprintf(number, sizeof(number), "%u", (unsigned)getuid());
    name = getpwuid_r(getuid(), &entry, names, sizeof(names), &user) == 0 && user ? user->pw_name : number;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        size_t len = strcspn(line, ":");
        const char *count = strrchr(line, ':');

        if (((len == strlen(name) && strncmp(line, name, len) == 0) ||
                    (len == strlen(number) && strncmp(line, number, len) == 0)) &&
                count && strtol(count + 1, NULL, 10) >= SUBIDS_NEEDED)
            return true;
    }
    return false;
}

static void check_userns(struct ic_host_report *report)
{
    _cleanup_(freep) char *max = NULL, *clone = NULL;
    bool off;

    if (getuid() == 0) {
        check(report, "user namespaces", IC_CHECK_OK, "", "not needed by root");
        return;
    }
    off = fd_read_file(AT_FDCWD, "/proc/sys/user/max_user_namespaces", 64, &max, NULL) < 0 ||
          strtol(max, NULL, 10) == 0 ||
          (fd_read_file(AT_FDCWD, "/proc/sys/kernel/unprivileged_userns_clone", 64, &clone, NULL) == 0 &&
                  clone[0] == '0');
    if (!off && (!has_subordinate_ids("/etc/subuid") || !has_subordinate_ids("/etc/subgid"))) {
        check(report, "user namespaces", IC_CHECK_WARNING,
                "to build or import images as this user: usermod --add-subuids 100000-165535 --add-subgids "
                "100000-165535 USER, as root, with a range that nobody else has",
                "this user has no subordinate ids in /etc/subuid and /etc/subgid");
        return;
    }
    check(report, "user namespaces", off ? IC_CHECK_WARNING : IC_CHECK_OK,
            "to build images as this user: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000",
            "%s", off ? "are switched off" : "are available");
}

/* By trying it, with a program of ours. */
static void check_jail(struct ic_host_report *report)
{
    _cleanup_(freep) char *program = backend_libexec("ironclaw-vsock");
    char *argv[] = {program, (char *)"--version", NULL}, missing[160] = "";
    struct record record = {.vcpu_count = 1, .memory_mib = 64};
    struct ic_error error;
    size_t len = 0;

    if (!program)
        return; /* said already */
    if (confine_probe(&record, argv, &error) < 0) {
        check(report, "jail", IC_CHECK_FAILED, "--jail off does without; see ironclaw-jail(7)", "%s", error.message);
    } else {
        for (int i = 0; i < JAIL_STAGES && len < sizeof(missing); i++) {
            if (record.jail[i][0])
                len += (size_t)snprintf(missing + len, sizeof(missing) - len, "%s%s: %s", len ? "; " : "",
                        jail_stage_names[i], record.jail[i]);
        }
        check(report, "jail", len ? IC_CHECK_WARNING : IC_CHECK_OK, "see ironclaw-jail(7)", "%s%s",
                len ? "not complete; " : "all stages: cgroup, namespaces, root, user, capabilities, limits", missing);
    }
    record_deinit(&record);
}

int ic_probe_host(struct ic_host_report *ret, struct ic_error *error)
{
    struct ic_host_report report = {.size = sizeof(report)};
    const struct backend *backend;
    struct backend_probe probe;
    struct ic_error why;

    check_kvm(&report);
    check_monitors(&report);
    check_qemu(&report);
    check_image(&report);
    check_runtime(&report);
    check_room(&report);
    check_tools(&report);
    check_userns(&report);
    check_jail(&report);
    if (backend_pick(IC_BACKEND_AUTO, false, &backend, &probe, &why) == 0) {
        report.backend = backend->id;
        report.isolation = probe.isolation;
        (void)snprintf(report.reason, sizeof(report.reason), "%s", probe.reason);
    } else {
        report.backend = IC_BACKEND_AUTO;
        (void)snprintf(report.reason, sizeof(report.reason), "%.255s", why.message);
    }
    *ret = report;
    return 0;
}

int ic_path_of(enum ic_path which, char **ret, struct ic_error *error)
{
    if ((unsigned)which > IC_PATH_CONFIG)
        return ic_fail(error, IC_ERR_INVALID, "place %d: there is none with this number", (int)which);
    return path_of(which, ret, error);
}
