/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File descriptors and unix sockets. Every function returns 0 (or a count)
 * or a negative errno. Every descriptor made here is close-on-exec.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#define FD_PASS_MAX 16 /* descriptors in one message, both directions */

/* _cleanup_(fd_closep) int fd = -1; keeps errno. */
void fd_close(int fd);
static inline void fd_closep(int *fd)
{
    fd_close(*fd);
}

/* The same of a descriptor with a flock on it, which ends also where a fork of the program has the descriptor, too. */
void fd_unlock(int fd);
static inline void fd_unlockp(int *fd)
{
    fd_unlock(*fd);
}

int fd_set_nonblock(int fd, bool on);
int fd_set_cloexec(int fd, bool on);

/* Blocks until all is written, also on a non-blocking fd. -ETIMEDOUT past the deadline (clock.h). Never raises SIGPIPE
 * on sockets; on pipes the caller ignores SIGPIPE. */
int fd_write_all(int fd, const void *data, size_t len, uint64_t deadline);

/* Blocks until exactly len bytes are read. -ECONNRESET when the peer ends before that. */
int fd_read_all(int fd, void *data, size_t len, uint64_t deadline);

/* Waits until fd has one of `events` (POLLIN...). -ETIMEDOUT past the deadline. */
int fd_wait(int fd, short events, uint64_t deadline);

/* Adds one to a non-blocking eventfd; when it is full it already says what we want to say. */
void fd_signal(int event_fd);

/* Reads a whole file of at most max bytes, NUL-terminated for convenience. The caller frees *ret. -EFBIG if larger. */
int fd_read_file(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len);

/* Replaces `path` so that a reader sees the old or the new content, never a part: temporary file, fsync, rename. */
int fd_write_file_atomic(int dirfd, const char *path, const void *data, size_t len, mode_t mode);

/* Stream sockets. -ENAMETOOLONG when the path does not fit sun_path (108 bytes). Listening sockets get mode 0600. */
int unix_listen(const char *path, int backlog, int *ret_fd);
int unix_connect(const char *path, bool nonblock, int *ret_fd); /* -EINPROGRESS/-EAGAIN never leave an fd behind */
/* The same to a socket in a directory that somebody else may write: -ELOOP when a link is in its place, -ENOTSOCK when
 * another file is. Of any length; needs /proc. */
int unix_connect_nofollow(const char *path, bool nonblock, int *ret_fd);

/* One sendmsg/recvmsg with descriptors. recv: *ret_nfds <= max_fds; all others are closed; -EPROTO if truncated. */
ssize_t unix_send_fds(int sock, const void *data, size_t len, const int *fds, size_t nfds);
ssize_t unix_recv_fds(int sock, void *data, size_t len, int *fds, size_t max_fds, size_t *ret_nfds);
