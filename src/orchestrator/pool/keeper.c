/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper of a pool. Two threads: this one answers (a hand-over is one
 * message, and never waits for a VM to be made), the other makes VMs as long
 * as there are fewer than wanted.
 *
 * What was handed over is nobody's business here, with two exceptions: ended
 * monitors are our children and have to be waited for; and a VM that is tied
 * to the process that took it ends with it, which nobody else would notice
 * until the next command.
 */
#include "orchestrator/pool/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/paths.h"
#include "orchestrator/share.h"
#include "orchestrator/snapshots/template.h"
#include "orchestrator/table.h"

#define BACKLOG         64
#define REQUEST_WAIT_MS 100u /* a peer that connects says at once what it wants */
#define LOCK_WAIT_MS    200u
#define RETRY_FIRST_MS  200u
#define RETRY_MAX_MS    30000u
#define FIRST_TRIES     3u /* in a row, before there were ever as many as wanted */
/* After a hand-over the VM's first command comes before the next VM: so long, and longer while processors are short. */
#define QUIET_MS      500u
#define QUIET_MAX_MS  5000u
#define QUIET_LOOK_MS 100u
#define WATCHED_MAX   512u
#define POLL_FIXED    3u

/* A process whose end means something: a monitor to wait for, or one that took a tied VM. */
struct watched {
    int pidfd;
    struct process_id child; /* 0: not ours */
};

struct keeper {
    struct ic_vm_config config;
    struct snapshot from;
    struct record like;           /* what its VMs are, for messages */
    struct spawn_warm_up warm_up; /* argv NULL: none */
    uint32_t wanted;
    char name[POOL_NAME_LEN + 1];
    char *path, *lock_path;
    int listen_fd, lock_fd;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    int event_fd; /* the maker has news */
    struct spawn_member ready[POOL_MAX];
    uint32_t ready_count;
    uint64_t handed_over_ms; /* the last time */
    ic_exec *warming;        /* the command of a warm-up that runs */
    bool stop, told;
    struct ic_error fatal; /* why it stopped by itself; code 0: it did not */
    bool reap;             /* something has ended: the maker looks, as that may take a while */
    char trouble[256];

    struct watched watched[WATCHED_MAX];
    size_t watched_count;
    uint64_t handed_over;
};

/* ---- making VMs ---- */

/* Until something changes, or the time is over. With the lock. */
static void wait_some(struct keeper *k, uint32_t ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_cond_timedwait(&k->changed, &k->lock, &until);
}

static void warming(void *userdata, ic_exec *exec)
{
    struct keeper *k = userdata;

    pthread_mutex_lock(&k->lock);
    k->warming = exec;
    if (exec && k->stop)
        ic_exec_cancel(exec);
    pthread_mutex_unlock(&k->lock);
}

static bool is_quiet_time(const struct keeper *k)
{
    uint64_t since_ms = clock_now_ms() - k->handed_over_ms;

    return since_ms < QUIET_MS || (since_ms < QUIET_MAX_MS && share_is_contended());
}

/* Who starts it waits to be told that all are there; later nobody does, and what is in the way may go. With the lock.
 */
static bool is_hopeless(const struct keeper *k, const struct ic_error *error, uint32_t failures)
{
    return !k->told && (error->code == IC_ERR_LIMIT || failures >= FIRST_TRIES);
}

static void *make_vms(void *arg)
{
    struct keeper *k = arg;
    uint32_t retry_ms = RETRY_FIRST_MS, failures = 0;

    pthread_mutex_lock(&k->lock);
    while (!k->stop) {
        struct spawn_member member;
        struct ic_error error = {0};
        int r;

        if (k->reap) {
            k->reap = false;
            pthread_mutex_unlock(&k->lock);
            (void)table_reap(NULL);
            pthread_mutex_lock(&k->lock);
            continue;
        }
        if (k->ready_count >= k->wanted) {
            (void)pthread_cond_wait(&k->changed, &k->lock);
            continue;
        }
        if (k->ready_count > 0 && is_quiet_time(k)) {
            wait_some(k, QUIET_LOOK_MS);
            continue;
        }
        pthread_mutex_unlock(&k->lock);
        k->warm_up.failed = false;
        r = spawn_member_new(&k->config, &k->from, k->warm_up.argv ? &k->warm_up : NULL, &member, &error);
        pthread_mutex_lock(&k->lock);
        if (r < 0 && k->warm_up.failed && !k->told && !k->stop) {
            if (k->warm_up.must_succeed) { /* it never will */
                k->fatal = error;
                k->stop = true;
            } else {
                k->warm_up.argv = NULL; /* this image is not one for it */
            }
            fd_signal(k->event_fd);
            continue;
        }
        if (r == 0 && k->ready_count == POOL_MAX) { /* one that was not taken after all has come back meanwhile */
            spawn_member_drop(&member);
        } else if (r == 0) {
            k->ready[k->ready_count++] = member;
            k->trouble[0] = '\0';
            retry_ms = RETRY_FIRST_MS;
            failures = 0;
        } else if (!k->stop && is_hopeless(k, &error, ++failures)) {
            k->fatal = error;
            k->stop = true;
        } else if (!k->stop) {
            (void)log_escape(k->trouble, sizeof(k->trouble), error.message, strlen(error.message));
            wait_some(k, retry_ms);
            retry_ms = MIN(2 * retry_ms, RETRY_MAX_MS);
        }
        fd_signal(k->event_fd);
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

/* ---- processes to watch ---- */

/* More than there is room for: ended ones are then seen by the next command only. Takes the descriptor over. */
static void watch(struct keeper *k, int pidfd, const struct process_id *child)
{
    if (pidfd < 0 || k->watched_count == WATCHED_MAX) {
        fd_close(pidfd);
        return;
    }
    k->watched[k->watched_count++] = (struct watched){.pidfd = pidfd, .child = child ? *child : (struct process_id){0}};
}

static void want_reap(struct keeper *k)
{
    pthread_mutex_lock(&k->lock);
    k->reap = true;
    (void)pthread_cond_signal(&k->changed);
    pthread_mutex_unlock(&k->lock);
}

static void ended(struct keeper *k, size_t i)
{
    struct watched w = k->watched[i];

    k->watched[i] = k->watched[--k->watched_count];
    fd_close(w.pidfd);
    if (w.child.pid > 0)
        (void)process_alive(&w.child); /* waits for it */
    want_reap(k);
}

/* ---- answering ---- */

/* One that has died meanwhile is of no use; closing its lock leaves it to the reaper. */
static bool next_member(struct keeper *k, struct spawn_member *ret)
{
    while (k->ready_count > 0) {
        struct spawn_member member = k->ready[0];

        memmove(k->ready, k->ready + 1, --k->ready_count * sizeof(*k->ready));
        if (process_alive(&member.monitor)) {
            *ret = member;
            return true;
        }
        spawn_member_close(&member);
    }
    return false;
}

/* Who asked is gone; its place was not filled meanwhile, or there is one more. */
static void put_back(struct keeper *k, struct spawn_member *member)
{
    pthread_mutex_lock(&k->lock);
    if (k->ready_count < POOL_MAX)
        k->ready[k->ready_count++] = *member;
    else
        spawn_member_close(member);
    pthread_mutex_unlock(&k->lock);
}

static void hand_over(struct keeper *k, int fd, bool tied, const struct ucred *peer, struct pool_answer *answer)
{
    struct spawn_member member;
    int fds[2];
    bool found;

    if (fd_wait(fd, POLLRDHUP, clock_now_ms()) == 0)
        return; /* it did not wait for us */
    pthread_mutex_lock(&k->lock);
    found = next_member(k, &member);
    k->handed_over_ms = clock_now_ms();
    (void)pthread_cond_signal(&k->changed);
    pthread_mutex_unlock(&k->lock);
    if (!found) {
        (void)send(fd, answer, sizeof(*answer), MSG_NOSIGNAL | MSG_DONTWAIT);
        return;
    }
    if (spawn_member_offer(&member) < 0) {
        put_back(k, &member);
        return;
    }
    answer->found = 1;
    (void)snprintf(answer->vm_id, sizeof(answer->vm_id), "%s", member.vm_id);
    fds[0] = member.lock_fd;
    fds[1] = member.ready_fd;
    if (unix_send_fds(fd, answer, sizeof(*answer), fds, 2) != (ssize_t)sizeof(*answer)) {
        put_back(k, &member);
        return;
    }
    k->handed_over++;
    watch(k, TAKE_FD(member.monitor_pidfd), &member.monitor);
    if (member.vsock.pid > 0)
        watch(k, (int)syscall(SYS_pidfd_open, member.vsock.pid, 0), &member.vsock);
    if (tied)
        watch(k, (int)syscall(SYS_pidfd_open, peer->pid, 0), NULL);
    spawn_member_close(&member);
}

static void answer_one(struct keeper *k, int fd)
{
    struct pool_answer answer = {.magic = POOL_MAGIC, .version = POOL_VERSION, .wanted = k->wanted, .pid = getpid()};
    struct pool_request request;
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.uid != geteuid() ||
            fd_wait(fd, POLLIN, deadline_after_ms(REQUEST_WAIT_MS)) < 0 ||
            recv(fd, &request, sizeof(request), MSG_DONTWAIT) != (ssize_t)sizeof(request) ||
            request.magic != POOL_MAGIC || request.version != POOL_VERSION)
        return;
    answer.vcpu_count = k->like.vcpu_count;
    answer.memory_mib = k->like.memory_mib;
    answer.backend = k->like.backend;
    answer.handed_over = k->handed_over;
    memcpy(answer.image, k->like.image, sizeof(answer.image));
    pthread_mutex_lock(&k->lock);
    answer.ready = k->ready_count;
    memcpy(answer.trouble, k->trouble, sizeof(answer.trouble));
    k->stop = k->stop || request.op == POOL_STOP;
    pthread_mutex_unlock(&k->lock);
    if (request.op == POOL_TAKE)
        hand_over(k, fd, request.tied != 0, &peer, &answer);
    else
        (void)send(fd, &answer, sizeof(answer), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void accept_all(struct keeper *k)
{
    for (int i = 0; i < BACKLOG; i++) {
        _cleanup_(fd_closep) int fd = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            return;
        answer_one(k, fd);
    }
}

/* Those that wait and have died make room for others. */
static void drop_dead(struct keeper *k)
{
    pthread_mutex_lock(&k->lock);
    for (uint32_t i = 0; i < k->ready_count;) {
        if (process_alive(&k->ready[i].monitor)) {
            i++;
            continue;
        }
        spawn_member_close(&k->ready[i]);
        memmove(&k->ready[i], &k->ready[i + 1], (--k->ready_count - i) * sizeof(*k->ready));
        k->reap = true;
    }
    (void)pthread_cond_signal(&k->changed);
    pthread_mutex_unlock(&k->lock);
}

/* ---- the run ---- */

static void tell_ready(struct keeper *k, const struct ic_pool_options *options)
{
    uint32_t ready;

    pthread_mutex_lock(&k->lock);
    ready = k->ready_count;
    if (k->told || ready < k->wanted) {
        pthread_mutex_unlock(&k->lock);
        return;
    }
    k->told = true;
    pthread_mutex_unlock(&k->lock);
    if (options->ready)
        options->ready(options->userdata, k->name);
}

static void stop(struct keeper *k)
{
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    if (k->warming)
        ic_exec_cancel(k->warming);
    (void)pthread_cond_signal(&k->changed);
    pthread_mutex_unlock(&k->lock);
}

static bool stopped(struct keeper *k)
{
    bool stopped;

    pthread_mutex_lock(&k->lock);
    stopped = k->stop;
    pthread_mutex_unlock(&k->lock);
    return stopped;
}

static int turn(struct keeper *k, const struct ic_pool_options *options, struct ic_error *error)
{
    struct pollfd p[POLL_FIXED + POOL_MAX + WATCHED_MAX] = {
            {.fd = k->listen_fd, .events = POLLIN},
            {.fd = k->event_fd, .events = POLLIN},
            {.fd = options->stop_fd > 0 ? options->stop_fd : -1, .events = POLLIN},
    };
    size_t waiting, watched = k->watched_count;
    uint64_t count;
    int n;

    pthread_mutex_lock(&k->lock);
    waiting = k->ready_count;
    for (size_t i = 0; i < waiting; i++)
        p[POLL_FIXED + i] = (struct pollfd){.fd = k->ready[i].monitor_pidfd, .events = POLLIN};
    pthread_mutex_unlock(&k->lock);
    for (size_t i = 0; i < watched; i++)
        p[POLL_FIXED + waiting + i] = (struct pollfd){.fd = k->watched[i].pidfd, .events = POLLIN};
    n = poll(p, POLL_FIXED + waiting + watched, -1);
    if (n < 0 && errno != EINTR)
        return ic_fail_errno(error, -errno, "poll");
    if (n < 0 || p[2].revents) {
        stop(k); /* a signal, or the caller's wish */
        return 0;
    }
    for (size_t i = watched; i-- > 0;) {
        if (p[POLL_FIXED + waiting + i].revents)
            ended(k, i);
    }
    for (size_t i = 0; i < waiting; i++) {
        if (p[POLL_FIXED + i].revents) {
            drop_dead(k);
            break;
        }
    }
    if (p[1].revents && read(k->event_fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
        tell_ready(k, options);
    if (p[0].revents)
        accept_all(k);
    return 0;
}

/* Who cleans up may hold the lock for a moment, and then removes the file that we have opened. */
static int lock_name(struct keeper *k, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(LOCK_WAIT_MS);

    do {
        struct stat mine, there;

        fd_close(k->lock_fd);
        k->lock_fd = open(k->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (k->lock_fd < 0)
            return ic_fail_errno(error, -errno, "%s", k->lock_path);
        if (flock(k->lock_fd, LOCK_EX | LOCK_NB) == 0 && fstat(k->lock_fd, &mine) == 0 &&
                stat(k->lock_path, &there) == 0 && mine.st_ino == there.st_ino)
            return 0;
        (void)poll(NULL, 0, 5);
    } while (deadline_poll_ms(deadline) != 0);
    return ic_fail(error, IC_ERR_EXISTS, "pool %s: of such VMs there is one already; 'ironclaw pool stop %s' ends it",
            k->name, k->name);
}

static int listen_at(struct keeper *k, struct ic_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_(freep) char *run = NULL;
    int r = path_of(IC_PATH_RUNTIME, &run, error);

    if (r == 0)
        r = path_make_dir(run, error);
    if (r == 0)
        r = pool_path(k->name, "", &k->path, error);
    if (r == 0)
        r = pool_path(k->name, ".lock", &k->lock_path, error);
    if (r < 0)
        return r;
    if (strlen(k->path) >= sizeof(address.sun_path))
        return ic_fail(error, IC_ERR_INVALID,
                "socket path %s: longer than %zu bytes; set IRONCLAW_HOME or "
                "XDG_RUNTIME_DIR to a shorter directory",
                k->path, sizeof(address.sun_path) - 1);
    r = lock_name(k, error);
    if (r < 0)
        return r;
    memcpy(address.sun_path, k->path, strlen(k->path) + 1);
    (void)unlink(k->path); /* of one that was killed */
    k->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (k->listen_fd < 0 || bind(k->listen_fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
            chmod(k->path, 0600) < 0 || listen(k->listen_fd, BACKLOG) < 0)
        return ic_fail_errno(error, -errno, "socket %s", k->path);
    return 0;
}

static void keeper_deinit(struct keeper *k)
{
    for (uint32_t i = 0; i < k->ready_count; i++)
        spawn_member_drop(&k->ready[i]);
    while (k->watched_count > 0)
        fd_close(k->watched[--k->watched_count].pidfd);
    if (k->listen_fd >= 0)
        (void)unlink(k->path);
    if (k->listen_fd >= 0 && k->lock_path)
        (void)unlink(k->lock_path);
    fd_close(k->listen_fd);
    fd_close(k->event_fd);
    fd_close(k->lock_fd);
    free(k->path);
    free(k->lock_path);
    snapshot_deinit(&k->from);
    record_deinit(&k->like);
    ic_vm_config_deinit(&k->config);
    (void)pthread_cond_destroy(&k->changed);
    (void)pthread_mutex_destroy(&k->lock);
    free(k);
}

static struct spawn_warm_up warm_up_of(struct keeper *k, const char *const *wanted)
{
    static const char *const any[] = {"true", NULL};
    const char *const *argv = wanted ? wanted : any;

    return (struct spawn_warm_up){
            .argv = argv[0] ? argv : NULL, .must_succeed = wanted != NULL, .running = warming, .userdata = k};
}

static int keeper_new(struct keeper **ret, const struct ic_vm_config *config, const struct ic_pool_options *options,
        struct ic_error *error)
{
    struct keeper *k = calloc(1, sizeof(*k));
    pthread_condattr_t attr;
    int r;

    if (!k)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    k->listen_fd = k->lock_fd = k->event_fd = k->from.lock_fd = -1;
    k->wanted = options->count;
    k->warm_up = warm_up_of(k, options->warm_up);
    (void)pthread_mutex_init(&k->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&k->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    k->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = k->event_fd < 0 ? ic_fail_errno(error, -errno, "eventfd") : 0;
    if (r == 0)
        r = spawn_member_plan(config, &k->config, &k->from, &k->like, error);
    if (r == 0)
        r = pool_name(&k->like, &k->from, k->name, error);
    if (r == 0)
        r = listen_at(k, error);
    if (r < 0)
        keeper_deinit(k);
    else
        *ret = k;
    return r;
}

int ic_pool_run(const struct ic_vm_config *config, const struct ic_pool_options *options, struct ic_error *error)
{
    sigset_t all, before;
    struct keeper *k;
    pthread_t maker;
    int r;

    if (!options || options->size != sizeof(*options))
        return ic_fail(error, IC_ERR_INVALID, "pool options: size must be that of the structure");
    if (options->count < 1 || options->count > POOL_MAX)
        return ic_fail(error, IC_ERR_INVALID, "pool: %u VMs; must be 1 to %u", options->count, POOL_MAX);
    r = keeper_new(&k, config, options, error);
    if (r < 0)
        return r;
    /* Signals are for this thread: the other one must not take them, nor be cancelled by them in the middle. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&maker, NULL, make_vms, k);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0) {
        keeper_deinit(k);
        return ic_fail_errno(error, -r, "thread of the pool");
    }
    while (r == 0 && !stopped(k))
        r = turn(k, options, error);
    stop(k);
    (void)pthread_join(maker, NULL);
    if (r == 0 && k->fatal.code != 0) {
        r = -(int)k->fatal.code;
        if (error)
            *error = k->fatal;
    }
    keeper_deinit(k);
    return r;
}
