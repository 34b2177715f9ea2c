/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/macro.h"

void fd_close(int fd)
{
    int saved = errno;

    if (fd >= 0)
        (void)close(fd);
    errno = saved;
}

void fd_unlock(int fd)
{
    int saved = errno;

    if (fd >= 0)
        (void)flock(fd, LOCK_UN);
    errno = saved;
    fd_close(fd);
}

static int set_flag(int fd, int get, int set, int flag, bool on)
{
    int flags = fcntl(fd, get);

    if (flags < 0)
        return -errno;
    flags = on ? flags | flag : flags & ~flag;
    return fcntl(fd, set, flags) < 0 ? -errno : 0;
}

int fd_set_nonblock(int fd, bool on)
{
    return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int fd_set_cloexec(int fd, bool on)
{
    return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

int fd_wait(int fd, short events, uint64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int n = poll(&p, 1, deadline_poll_ms(deadline));

        if (n > 0)
            return 0;
        if (n == 0 && deadline_poll_ms(deadline) == 0)
            return -ETIMEDOUT;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

static ssize_t write_some(int fd, const void *data, size_t len)
{
    ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

    if (n < 0 && errno == ENOTSOCK)
        n = write(fd, data, len);
    return n < 0 ? -errno : n;
}

int fd_write_all(int fd, const void *data, size_t len, uint64_t deadline)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = write_some(fd, p, len);

        if (n >= 0) {
            p += n;
            len -= (size_t)n;
        } else if (n == -EAGAIN) {
            int r = fd_wait(fd, POLLOUT, deadline);
            if (r < 0)
                return r;
        } else if (n != -EINTR) {
            return (int)n;
        }
    }
    return 0;
}

int fd_read_all(int fd, void *data, size_t len, uint64_t deadline)
{
    uint8_t *p = data;

    while (len > 0) {
        ssize_t n;

        if (deadline != DEADLINE_NEVER) {
            int r = fd_wait(fd, POLLIN, deadline);
            if (r < 0)
                return r;
        }
        n = read(fd, p, len);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n == 0) {
            return -ECONNRESET;
        } else if (errno == EAGAIN) {
            int r = fd_wait(fd, POLLIN, deadline);
            if (r < 0)
                return r;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

void fd_signal(int event_fd)
{
    static const uint64_t one = 1;

    if (write(event_fd, &one, sizeof(one)) < 0)
        return;
}

int fd_read_file(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len)
{
    _cleanup_(fd_closep) int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    _cleanup_(freep) char *buf = NULL;
    size_t len = 0, size = 4096;

    if (fd < 0)
        return -errno;
    for (;;) {
        char *grown;
        ssize_t n;

        if (size > max)
            size = max + 1; /* one more than allowed, to see that there is more */
        grown = realloc(buf, size + 1);
        if (!grown)
            return -ENOMEM;
        buf = grown;
        n = read(fd, buf + len, size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        len += (size_t)n;
        if (len > max)
            return -EFBIG;
        if (n == 0)
            break;
        if (len == size)
            size *= 2;
    }
    buf[len] = '\0';
    *ret = TAKE_PTR(buf);
    if (ret_len)
        *ret_len = len;
    return 0;
}

int fd_write_file_atomic(int dirfd, const char *path, const void *data, size_t len, mode_t mode)
{
    char tmp[4096];
    _cleanup_(fd_closep) int fd = -1;
    int r;

    if ((size_t)snprintf(tmp, sizeof(tmp), "%s.tmp.%ld", path, (long)getpid()) >= sizeof(tmp))
        return -ENAMETOOLONG;
    fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return -errno;
    r = fd_write_all(fd, data, len, DEADLINE_NEVER);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (r == 0 && renameat(dirfd, tmp, dirfd, path) < 0)
        r = -errno;
    if (r < 0)
        (void)unlinkat(dirfd, tmp, 0);
    return r;
}

static int unix_address(const char *path, struct sockaddr_un *ret)
{
    size_t len = strlen(path);

    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (len == 0)
        return -EINVAL;
    if (len >= sizeof(ret->sun_path))
        return -ENAMETOOLONG;
    memcpy(ret->sun_path, path, len + 1);
    return 0;
}

int unix_listen(const char *path, int backlog, int *ret_fd)
{
    _cleanup_(fd_closep) int fd = -1;
    struct sockaddr_un addr;
    int r = unix_address(path, &addr);

    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* Before bind, the mode of the socket's inode is the mode that the path gets: never open wider than 0600. */
    if (fchmod(fd, 0600) < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return -errno;
    if (chmod(path, 0600) < 0 || listen(fd, backlog) < 0) {
        r = -errno;
        (void)unlink(path);
        return r;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int unix_connect(const char *path, bool nonblock, int *ret_fd)
{
    _cleanup_(fd_closep) int fd = -1;
    struct sockaddr_un addr;
    int r = unix_address(path, &addr);

    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0)
        return -errno;
    while (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int unix_connect_nofollow(const char *path, bool nonblock, int *ret_fd)
{
    _cleanup_(fd_closep) int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    char by_fd[40];
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISSOCK(st.st_mode))
        return S_ISLNK(st.st_mode) ? -ELOOP : -ENOTSOCK;
    (void)snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
    return unix_connect(by_fd, nonblock, ret_fd);
}

ssize_t unix_send_fds(int sock, const void *data, size_t len, const int *fds, size_t nfds)
{
    union {
        char buf[CMSG_SPACE(sizeof(int) * FD_PASS_MAX)];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (nfds > FD_PASS_MAX)
        return -EINVAL;
    if (nfds > 0) {
        struct cmsghdr *c;

        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
    }
    do
        n = sendmsg(sock, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t unix_recv_fds(int sock, void *data, size_t len, int *fds, size_t max_fds, size_t *ret_nfds)
{
    union {
        char buf[CMSG_SPACE(sizeof(int) * FD_PASS_MAX)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = data, .iov_len = len};
    struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
    bool too_many = false;
    size_t kept = 0;
    ssize_t n;

    do
        n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        size_t count;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (kept < max_fds) {
                fds[kept++] = fd;
            } else {
                fd_close(fd);
                too_many = true;
            }
        }
    }
    if (too_many || (msg.msg_flags & MSG_CTRUNC)) {
        while (kept > 0)
            fd_close(fds[--kept]);
        return -EPROTO;
    }
    *ret_nfds = kept;
    return n;
}
