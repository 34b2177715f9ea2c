/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/snapshot/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) /* Linux 6.1 */
#endif

#define EXIT_STATUS   1 /* of the process, when the handler has gone */
#define MAPPING_MAX   192u
#define HUGE_PAGE_2M  (2u << 20)
#define SMALL_PAGE_4K 4096u

struct uffd {
    int fd;      /* stays open: were the handler's the last one, missing pages would become zeros with its end */
    int handler; /* the connection */
    pthread_t thread;
    sem_t confined;
    bool watching;
    bool ending; /* atomic: we close the connection, not the handler */
    char path[VM_ERROR_MAX / 2];
};

/* ---- the thread that waits for the end of the handler ---- */

static const struct seccomp_rule calls[] = {
        SECCOMP_ALLOW(recvfrom, "the handler's end"),
        SECCOMP_ALLOW(write, "the log"),
        SECCOMP_ALLOW(clock_gettime, "bounds of the log; no vDSO without a stable TSC"),
        SECCOMP_ALLOW(futex, "semaphore: it is confined"),
        SECCOMP_ALLOW(rt_sigprocmask, "end of the thread"),
        SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTNEED, "end of the thread: its stack"),
        SECCOMP_ALLOW(exit, "end of the thread"),
        SECCOMP_ALLOW(exit_group, "the handler is gone; after a call that is not in this list"),
};
const struct seccomp_profile uffd_seccomp = {"uffd", calls, ARRAY_SIZE(calls)};

static void *watch(void *arg)
{
    struct uffd *uffd = arg;
    uint8_t byte;
    ssize_t n;

    (void)pthread_setname_np(pthread_self(), "fc_uffd");
    seccomp_enter(&uffd_seccomp);
    (void)sem_post(&uffd->confined);
    do
        n = recv(uffd->handler, &byte, sizeof(byte), 0); /* what it says is of no interest */
    while (n > 0 || (n < 0 && errno == EINTR));
    if (__atomic_load_n(&uffd->ending, __ATOMIC_ACQUIRE))
        return NULL;
    log_msg(LOG_ERROR, "page-fault handler %s: it has ended, and with it memory that the VM still misses; the VM ends",
            uffd->path);
    _exit(EXIT_STATUS); /* others may wait for a page in the kernel, and hold locks meanwhile */
}

/* Signals are the VMM thread's. */
static int start_watching(struct uffd *uffd)
{
    sigset_t all, before;
    int r;

    (void)sem_init(&uffd->confined, 0, 0);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&uffd->thread, NULL, watch, uffd);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    uffd->watching = r == 0;
    while (uffd->watching && sem_wait(&uffd->confined) < 0)
        ; /* a signal */
    return -r;
}

void uffd_free(struct uffd *uffd)
{
    if (!uffd)
        return;
    __atomic_store_n(&uffd->ending, true, __ATOMIC_RELEASE);
    if (uffd->watching) {
        (void)shutdown(uffd->handler, SHUT_RDWR);
        (void)pthread_join(uffd->thread, NULL);
    }
    fd_close(uffd->handler);
    fd_close(uffd->fd);
    free(uffd);
}
DEFINE_CLEANUP(struct uffd *, uffd_free)

/* ---- the userfaultfd ---- */

/* Not UFFD_USER_MODE_ONLY: most faults are KVM's, which has them in the kernel. */
static int open_uffd(struct vm_error *error)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), code = errno;
    _cleanup_(fd_closep) int device = -1;

    if (fd < 0 && code == EPERM) {
        device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
        if (device >= 0)
            fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    }
    if (fd >= 0)
        return fd;
    if (code == EPERM)
        return vm_fail(error, -EPERM,
                "userfaultfd: not permitted; set vm.unprivileged_userfaultfd=1 (sysctl), or give this user "
                "/dev/userfaultfd (Linux 6.1), or load the memory with a File backend");
    return vm_fail(error, -code, "userfaultfd: %s%s", strerror(code),
            code == ENOSYS ? "; this kernel has none, load the memory with a File backend" : "");
}

static int watch_faults(struct uffd *uffd, const struct memory *memory, struct vm_error *error)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
    struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};

    uffd->fd = open_uffd(error);
    if (uffd->fd < 0)
        return uffd->fd;
    if (ioctl(uffd->fd, UFFDIO_API, &api) < 0)
        return vm_fail(
                error, -errno, "userfaultfd: %s; a newer kernel tells of pages that are given back", strerror(errno));
    for (size_t i = 0; i < memory->gmem.count; i++) {
        range.range.start = (uint64_t)(uintptr_t)memory->gmem.regions[i].host;
        range.range.len = memory->gmem.regions[i].size;
        if (ioctl(uffd->fd, UFFDIO_REGISTER, &range) < 0)
            return vm_fail(error, -errno, "userfaultfd: %llu bytes of guest memory: %s",
                    (unsigned long long)range.range.len, strerror(errno));
    }
    return 0;
}

/* ---- the handler ---- */

/* The JSON array of mappings. page_size_kib is in bytes too, for handlers of an older Firecracker. */
static size_t describe(char *to, size_t size, const struct memory *memory, enum huge_pages pages)
{
    unsigned page = pages == HUGE_PAGES_2M ? HUGE_PAGE_2M : SMALL_PAGE_4K;
    size_t len = 0;

    for (size_t i = 0; i < memory->gmem.count; i++) {
        const struct gmem_region *region = &memory->gmem.regions[i];

        len += (size_t)snprintf(to + len, size - len,
                "%c{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu,\"page_size\":%u,\"page_size_kib\":%u}",
                i == 0 ? '[' : ',', (unsigned long long)(uintptr_t)region->host, (unsigned long long)region->size,
                (unsigned long long)(region->host - memory->host), page, page);
    }
    len += (size_t)snprintf(to + len, size - len, "]");
    assert(len < size);
    return len;
}

static int tell_handler(struct uffd *uffd, const struct memory *memory, enum huge_pages pages, struct vm_error *error)
{
    char text[GMEM_MAX_REGIONS * MAPPING_MAX];
    size_t len = describe(text, sizeof(text), memory, pages);
    ssize_t n;
    int r = unix_connect(uffd->path, true, &uffd->handler);

    if (r == 0)
        r = fd_set_nonblock(uffd->handler, false);
    if (r < 0)
        return vm_fail(error, r,
                "page-fault handler %s: %s; start it before the snapshot is loaded, and name its socket", uffd->path,
                strerror(-r));
    n = unix_send_fds(uffd->handler, text, len, &uffd->fd, 1);
    if (n < 0 || (size_t)n != len)
        return vm_fail(error, n < 0 ? (int)n : -EIO, "page-fault handler %s: it does not take the memory: %s",
                uffd->path, n < 0 ? strerror((int)-n) : "only a part");
    return 0;
}

int memory_load_uffd(
        struct memory *ret, const struct machine_config *config, const char *socket_path, struct vm_error *error)
{
    _cleanup_(uffd_freep) struct uffd *uffd = calloc(1, sizeof(*uffd));
    int r;

    *ret = (struct memory){0};
    if (!uffd)
        return vm_fail(error, -ENOMEM, "out of memory");
    uffd->fd = uffd->handler = -1;
    if ((size_t)snprintf(uffd->path, sizeof(uffd->path), "%s", socket_path) >= sizeof(uffd->path))
        return vm_fail(error, -ENAMETOOLONG, "page-fault handler: a socket's path has at most 107 bytes");
    r = memory_init(ret, config, error);
    if (r < 0)
        return r;
    /* A huge page would be taken and given back at each fault: the handler fills small ones. */
    (void)madvise(ret->host, ret->bytes, MADV_NOHUGEPAGE);
    r = watch_faults(uffd, ret, error);
    if (r == 0)
        r = tell_handler(uffd, ret, config->huge_pages, error);
    if (r == 0) {
        r = start_watching(uffd);
        if (r < 0)
            (void)vm_fail(error, r, "page-fault handler %s: no thread to watch it: %s", uffd->path, strerror(-r));
    }
    if (r < 0)
        memory_deinit(ret);
    else
        ret->uffd = TAKE_PTR(uffd);
    return r;
}
