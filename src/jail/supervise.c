/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/supervise.h"

#include <errno.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macro.h"
#include "jail/syscalls.h"

#define THREADS_MAX   80u /* 32 vCPUs, drives, and some */
#define NOTIF_MAX     512u
#define ANNOUNCED     INT_MIN
#define ENTER_WAIT_NS 100000

#ifndef SECCOMP_USER_NOTIF_FLAG_CONTINUE /* Linux 5.5 */
#define SECCOMP_USER_NOTIF_FLAG_CONTINUE 1u
#endif

struct audit_ring seccomp_ring;

struct watched {
    int listener; /* 0: not used yet; ANNOUNCED; the descriptor; or a negative errno. Atomic */
    const struct seccomp_profile *profile;
    char name[16];
};

static struct watched threads[THREADS_MAX];
static unsigned thread_count; /* atomic */
static int wake_fd = -1, epoll_fd = -1;

/* What was noted, by its slot in the ring. The supervisor's alone. */
static struct {
    const struct watched *thread;
    uint64_t key;
    struct audit_entry entry;
} seen[AUDIT_PROCESS_ENTRIES];
static uint32_t next_unseen;

/* Calls whose lists look at an argument differ by it: each ioctl counts as a call of its own. */
static uint64_t key_of(const struct watched *thread, const struct seccomp_data *data)
{
    for (size_t i = 0; i < thread->profile->count; i++) {
        const struct seccomp_rule *rule = &thread->profile->rules[i];

        if (rule->nr == data->nr && rule->arg >= 0)
            return data->args[rule->arg] & UINT32_MAX;
    }
    return 0;
}

static void note(const struct watched *thread, const struct seccomp_data *data)
{
    uint64_t key = key_of(thread, data);
    struct audit_entry e = {.action = AUDIT_ALLOWED, .call = data->nr, .count = 1, .pid = (uint32_t)getpid()};
    uint32_t slot;

    for (uint32_t i = 0; i < ARRAY_SIZE(seen); i++) {
        if (seen[i].thread == thread && seen[i].entry.call == data->nr && seen[i].key == key) {
            seen[i].entry.count++;
            audit_ring_update(&seccomp_ring, i, &seen[i].entry);
            return;
        }
    }
    memcpy(e.args, data->args, sizeof(e.args));
    memcpy(e.thread, thread->name, sizeof(e.thread));
    e.time_unix_ms = audit_now();
    slot = audit_ring_add(&seccomp_ring, &e);
    if (!seccomp_ring.map)
        slot = next_unseen++ % ARRAY_SIZE(seen);
    seen[slot].thread = thread;
    seen[slot].key = key;
    seen[slot].entry = e;
    log_msg(LOG_WARN, "seccomp: the thread %s called %s (%d), arguments %#llx %#llx %#llx; minimal refuses that",
            thread->name, syscall_name(data->nr), data->nr, (unsigned long long)data->args[0],
            (unsigned long long)data->args[1], (unsigned long long)data->args[2]);
}

/* One call. A thread that ended meanwhile is no error. */
static void answer(const struct watched *thread, int listener)
{
    union {
        struct seccomp_notif notif;
        uint8_t room[NOTIF_MAX];
    } in = {0};
    union {
        struct seccomp_notif_resp resp;
        uint8_t room[NOTIF_MAX];
    } out = {0};

    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &in) < 0)
        return;
    note(thread, &in.notif.data);
    out.resp.id = in.notif.id;
    out.resp.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &out);
}

/* Until the thread has its filter, or failed to get one: microseconds. */
static void watch(struct watched *thread)
{
    const struct timespec step = {.tv_nsec = ENTER_WAIT_NS};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = thread};
    int fd;

    while ((fd = __atomic_load_n(&thread->listener, __ATOMIC_ACQUIRE)) == 0 || fd == ANNOUNCED)
        (void)nanosleep(&step, NULL);
    if (fd > 0)
        (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void *supervise(void *unused)
{
    unsigned watched = 0;

    (void)pthread_setname_np(pthread_self(), "fc_audit");
    for (;;) {
        struct epoll_event event;
        struct watched *thread;
        uint64_t count;

        if (epoll_wait(epoll_fd, &event, 1, -1) != 1)
            continue;
        thread = event.data.ptr;
        if (!thread) {
            (void)!read(wake_fd, &count, sizeof(count));
            while (watched < __atomic_load_n(&thread_count, __ATOMIC_ACQUIRE))
                watch(&threads[watched++]);
        } else if (event.events & EPOLLIN) {
            answer(thread, thread->listener);
        } else { /* the thread has ended */
            fd_close(thread->listener);
        }
    }
    return NULL;
}

static int start_thread(void)
{
    sigset_t all, before;
    pthread_t thread;
    int r;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    r = -pthread_create(&thread, NULL, supervise, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0)
        (void)pthread_detach(thread);
    return r;
}

int supervise_start(void)
{
    const uint32_t action = SECCOMP_RET_USER_NOTIF;
    struct epoll_event event = {.events = EPOLLIN};
    struct seccomp_notif_sizes sizes;

    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0 ||
            syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0 || sizes.seccomp_notif > NOTIF_MAX ||
            sizes.seccomp_notif_resp > NOTIF_MAX)
        return -EOPNOTSUPP;
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (wake_fd < 0 || epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &event) < 0)
        return -errno;
    return start_thread();
}

int supervise_enter(const struct sock_fprog *program, const struct seccomp_profile *profile, const char *thread_name)
{
    unsigned n = __atomic_load_n(&thread_count, __ATOMIC_RELAXED);
    struct watched *thread;
    int fd;

    do {
        if (n >= THREADS_MAX)
            return -EAGAIN;
    } while (!__atomic_compare_exchange_n(&thread_count, &n, n + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    thread = &threads[n];
    thread->profile = profile;
    (void)strncpy(thread->name, thread_name, sizeof(thread->name) - 1);
    __atomic_store_n(&thread->listener, ANNOUNCED, __ATOMIC_RELEASE);
    fd_signal(wake_fd);
    fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, program);
    if (fd < 0)
        fd = -errno;
    __atomic_store_n(&thread->listener, fd, __ATOMIC_RELEASE);
    return fd < 0 ? fd : 0;
}
