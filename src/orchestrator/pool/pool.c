/* SPDX-License-Identifier: Apache-2.0 */
/* The pool as its users see it: taking a VM, asking, stopping. */
#include "orchestrator/pool/pool.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/paths.h"

#define PREFIX          ".pool-"
#define LOCK_SUFFIX     ".lock"
#define TAKE_TIMEOUT_MS 200u /* longer than that, and a VM of one's own is the quicker way */
#define ASK_TIMEOUT_MS  5000u
#define STOP_TIMEOUT_MS 60000u /* one that is being made comes to an end first */

static_assert(sizeof(struct pool_request) == 16, "no padding");

int pool_path(const char *name, const char *suffix, char **ret, struct ic_error *error)
{
    return path_in(ret, error, IC_PATH_RUNTIME, PREFIX "%s%s", name, suffix);
}

int pool_name(
        const struct record *record, const struct snapshot *from, char ret[POOL_NAME_LEN + 1], struct ic_error *error)
{
    const uint32_t numbers[] = {(uint32_t)record->jail_mode, (uint32_t)record->seccomp_level, record->max_connections,
            record->max_lifetime_ms, record->max_disk_mib_per_s, record->max_disk_ops_per_s};
    char hex[DIGEST_HEX_LEN + 1];
    struct digest_key key;

    digest_key_init(&key);
    digest_key_add_str(&key, from->object);
    digest_key_add(&key, numbers, sizeof(numbers));
    digest_key_finish(&key, hex);
    (void)snprintf(ret, POOL_NAME_LEN + 1, "%.*s", (int)POOL_NAME_LEN, hex);
    return 0;
}

static bool name_ok(const char *name)
{
    return strlen(name) == POOL_NAME_LEN && strspn(name, "0123456789abcdef") == POOL_NAME_LEN;
}

static int open_socket(const char *name, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_(fd_closep) int fd = -1;
    _cleanup_(freep) char *path = NULL;

    if (pool_path(name, "", &path, NULL) < 0 || strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    /* A keeper that is stopped, with all places taken of those that wait for it, is none. */
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* Descriptors that came are in ret_fds; the caller closes them, whatever the answer says. */
static int ask(const char *name, enum pool_op op, bool tied, uint64_t deadline, struct pool_answer *ret, int ret_fds[2],
        size_t *ret_nfds)
{
    const struct pool_request request = {POOL_MAGIC, POOL_VERSION, op, tied};
    _cleanup_(fd_closep) int fd = -1;
    ssize_t n;
    int r = open_socket(name, &fd);

    *ret_nfds = 0;
    if (r < 0)
        return r;
    if (send(fd, &request, sizeof(request), MSG_NOSIGNAL) != (ssize_t)sizeof(request))
        return -errno;
    r = fd_wait(fd, POLLIN, deadline);
    if (r < 0)
        return r;
    n = unix_recv_fds(fd, ret, sizeof(*ret), ret_fds, 2, ret_nfds);
    if (n != (ssize_t)sizeof(*ret) || ret->magic != POOL_MAGIC || ret->version != POOL_VERSION)
        return n < 0 ? (int)n : -EPROTO;
    ret->vm_id[sizeof(ret->vm_id) - 1] = ret->image[sizeof(ret->image) - 1] = ret->trouble[sizeof(ret->trouble) - 1] =
            '\0';
    return 0;
}

int pool_take(const char *name, bool tied, struct spawn_member *ret)
{
    struct pool_answer answer = {0};
    size_t nfds = 0;
    int fds[2], r = ask(name, POOL_TAKE, tied, deadline_after_ms(TAKE_TIMEOUT_MS), &answer, fds, &nfds);

    if (r == 0 && (!answer.found || nfds != 2 || !path_vm_id_ok(answer.vm_id)))
        r = -EAGAIN;
    if (r < 0) {
        for (size_t i = 0; i < nfds; i++)
            fd_close(fds[i]);
        return r;
    }
    *ret = (struct spawn_member){.lock_fd = fds[0], .ready_fd = fds[1], .monitor_pidfd = -1};
    (void)snprintf(ret->vm_id, sizeof(ret->vm_id), "%.*s", IC_VM_ID_MAX, answer.vm_id);
    return 0;
}

/* ---- all of them ---- */

/* Calls `each` for the name of every pool that left a file in the runtime directory. */
static int for_each(void (*each)(const char *name, void *userdata), void *userdata, struct ic_error *error)
{
    _cleanup_(freep) char *run = NULL;
    struct dirent *item;
    DIR *dir;
    int r = path_of(IC_PATH_RUNTIME, &run, error);

    if (r < 0)
        return r;
    r = path_check_dir(run, error);
    if (r < 0)
        return r == -IC_ERR_NOT_FOUND ? 0 : r;
    dir = opendir(run);
    if (!dir)
        return errno == ENOENT ? 0 : ic_fail_errno(error, -errno, "directory %s", run);
    while ((item = readdir(dir))) {
        char name[POOL_NAME_LEN + 1];
        size_t len = strlen(item->d_name);

        if (strncmp(item->d_name, PREFIX, strlen(PREFIX)) != 0 ||
                len != strlen(PREFIX) + POOL_NAME_LEN + strlen(LOCK_SUFFIX))
            continue;
        (void)snprintf(name, sizeof(name), "%s", item->d_name + strlen(PREFIX));
        if (name_ok(name) && strcmp(item->d_name + len - strlen(LOCK_SUFFIX), LOCK_SUFFIX) == 0)
            each(name, userdata);
    }
    (void)closedir(dir);
    return 0;
}

static void reap_one(const char *name, void *userdata)
{
    _cleanup_(freep) char *lock = NULL, *path = NULL;
    _cleanup_(fd_closep) int fd = -1;

    if (pool_path(name, LOCK_SUFFIX, &lock, NULL) < 0 || pool_path(name, "", &path, NULL) < 0)
        return;
    fd = open(lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return;
    (void)unlink(path);
    (void)unlink(lock);
}

void pool_reap(void)
{
    (void)for_each(reap_one, NULL, NULL);
}

struct list {
    struct ic_pool_info *items;
    size_t count;
    bool failed;
};

static void add_info(const char *name, void *userdata)
{
    struct list *list = userdata;
    struct ic_pool_info *grown, info = {.size = sizeof(info)};
    struct pool_answer answer = {0};
    size_t nfds;
    int fds[2], r = ask(name, POOL_INFO, false, deadline_after_ms(ASK_TIMEOUT_MS), &answer, fds, &nfds);

    for (size_t i = 0; i < nfds; i++)
        fd_close(fds[i]);
    if (r < 0)
        return; /* it ends, or has ended */
    grown = realloc(list->items, (list->count + 1) * sizeof(*grown));
    if (!grown) {
        list->failed = true;
        return;
    }
    (void)snprintf(info.name, sizeof(info.name), "%s", name);
    info.pid = answer.pid;
    info.ready = answer.ready;
    info.wanted = answer.wanted;
    info.vcpu_count = answer.vcpu_count;
    info.memory_mib = answer.memory_mib;
    info.backend = answer.backend <= IC_BACKEND_QEMU ? (enum ic_backend)answer.backend : IC_BACKEND_AUTO;
    info.handed_over = answer.handed_over;
    memcpy(info.image, answer.image, sizeof(info.image));
    memcpy(info.trouble, answer.trouble, sizeof(info.trouble));
    list->items = grown;
    list->items[list->count++] = info;
}

int ic_pool_list(struct ic_pool_info **ret, size_t *ret_count, struct ic_error *error)
{
    struct list list = {.items = calloc(1, sizeof(*list.items))}; /* never NULL for an empty list */
    int r = list.items ? for_each(add_info, &list, error) : -IC_ERR_NO_MEMORY;

    if (r == -IC_ERR_NO_MEMORY || list.failed)
        r = ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    if (r < 0) {
        free(list.items);
        return r;
    }
    *ret = list.items;
    *ret_count = list.count;
    return 0;
}

/* Its lock is free when all of it is gone. */
static int wait_for_end(const char *name, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(STOP_TIMEOUT_MS);
    _cleanup_(freep) char *lock = NULL;
    int r = pool_path(name, LOCK_SUFFIX, &lock, error);

    while (r == 0) {
        _cleanup_(fd_closep) int fd = open(lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (deadline_poll_ms(deadline) == 0)
            return ic_fail(error, IC_ERR_TIMEOUT, "pool %s: did not end within %u s", name, STOP_TIMEOUT_MS / 1000);
        if (poll(NULL, 0, 10) < 0)
            return ic_fail(error, IC_ERR_CANCELLED, "pool %s: cancelled by a signal while it ends", name);
    }
    return r;
}

int ic_pool_stop(const char *name, struct ic_error *error)
{
    struct pool_answer answer = {0};
    size_t nfds = 0;
    int fds[2], r = -ENOENT;

    if (name && name_ok(name))
        r = ask(name, POOL_STOP, false, deadline_after_ms(ASK_TIMEOUT_MS), &answer, fds, &nfds);
    for (size_t i = 0; i < nfds; i++)
        fd_close(fds[i]);
    if (r < 0)
        return ic_fail(error, r == -ETIMEDOUT ? IC_ERR_TIMEOUT : IC_ERR_NOT_FOUND,
                "no pool '%.32s'; 'ironclaw pool ls' lists them", name ? name : "");
    r = wait_for_end(name, error);
    (void)table_reap(NULL); /* what has just ended and the keeper would have seen to next */
    return r;
}
