/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/backends/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "orchestrator/process.h"

#define PATH_ROOM   128u        /* sun_path has 108 */
#define CPUINFO_MAX (16u << 20) /* 512 processors have 1 MiB of it */

static const struct backend *const backends[] = {&backend_ironclaw, &backend_qemu, &backend_firecracker};

/* In order; Firecracker only when it is asked for. */
static const struct backend *const automatic[] = {&backend_ironclaw, &backend_qemu};

const struct backend *backend_get(enum ic_backend id)
{
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        if (backends[i]->id == id)
            return backends[i];
    }
    return NULL;
}

static int pick_auto(const struct backend **ret, struct backend_probe *ret_probe, struct ic_error *error)
{
    struct backend_probe probe = {0};

    for (size_t i = 0; i < ARRAY_SIZE(automatic); i++) {
        automatic[i]->probe(automatic[i], &probe);
        if (!probe.usable)
            continue;
        *ret = automatic[i];
        *ret_probe = probe;
        return 0;
    }
    return ic_fail(error, IC_ERR_BACKEND, "no backend can run a VM here; %s: %s", "qemu", probe.reason);
}

int backend_pick(enum ic_backend wanted, bool require_hardware, const struct backend **ret,
        struct backend_probe *ret_probe, struct ic_error *error)
{
    const struct backend *backend = backend_get(wanted);
    struct backend_probe probe = {0};
    int r;

    if (wanted == IC_BACKEND_AUTO) {
        r = pick_auto(&backend, &probe, error);
        if (r < 0)
            return r;
    } else if (!backend) {
        return ic_fail(error, IC_ERR_INVALID, "backend %d: there is none with this number", (int)wanted);
    } else {
        backend->probe(backend, &probe);
        if (!probe.usable)
            return ic_fail(error, IC_ERR_BACKEND, "backend %s: %s", ic_backend_name(wanted), probe.reason);
    }
    if (require_hardware && probe.isolation != IC_ISOLATION_HARDWARE)
        return ic_fail(error, IC_ERR_DENIED,
                "require_hardware_isolation: backend %s would isolate by %s only (%s); use a host with hardware "
                "virtualization, or don't require it",
                ic_backend_name(backend->id), ic_isolation_name(probe.isolation), probe.reason);
    *ret = backend;
    *ret_probe = probe;
    return 0;
}

int backend_listen(
        const struct backend_start *start, const char *name, int backlog, int *ret_fd, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = -1;
    char path[PATH_ROOM];
    int r = -ENAMETOOLONG;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", start->record->run_dir, name) < sizeof(path))
        r = unix_listen(path, backlog, &fd);
    if (r == 0)
        r = fd_above_stdio(&fd);
    if (r < 0)
        return ic_fail_errno(error, r, "socket %s", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

const char *backend_libexec_dir(void)
{
    const char *given = getenv("IRONCLAW_LIBEXEC");

    return given && given[0] ? given : IRONCLAW_LIBEXECDIR;
}

char *backend_libexec(const char *program)
{
    _cleanup_(freep) char *path = NULL;

    if (asprintf(&path, "%s/%s", backend_libexec_dir(), program) < 0)
        path = NULL;
    return path ? process_find_program(path) : NULL;
}

static bool cpu_has_virtualization(void)
{
    _cleanup_(freep) char *text = NULL;
    char *flags;

    if (fd_read_file(AT_FDCWD, "/proc/cpuinfo", CPUINFO_MAX, &text, NULL) < 0)
        return false;
    flags = strstr(text, "\nflags");
    if (!flags)
        return false;
    flags[1 + strcspn(flags + 1, "\n")] = '\0';
    return strstr(flags, " vmx") || strstr(flags, " svm");
}

bool backend_kvm_usable(char *reason, size_t size)
{
    _cleanup_(fd_closep) int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int error = errno;

    if (fd < 0 && error == ENOENT)
        (void)snprintf(reason, size, "there is no /dev/kvm");
    else if (fd < 0)
        (void)snprintf(reason, size, "/dev/kvm can't be opened: %s", strerror(error));
    else if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        (void)snprintf(reason, size, "/dev/kvm has another interface version");
    else if (!cpu_has_virtualization())
        (void)snprintf(reason, size, "/dev/kvm is there, but the processor shows neither vmx nor svm");
    else
        return (void)snprintf(reason, size, "/dev/kvm works with hardware virtualization"), true;
    return false;
}
