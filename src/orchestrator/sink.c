/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/sink.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/macro.h"

struct sink sink_of(int fd)
{
    struct stat st;

    if (fd < 0)
        return (struct sink){.fd = -1, .kind = SINK_NONE};
    if (fstat(fd, &st) < 0)
        return (struct sink){.fd = fd, .kind = SINK_SMALL}; /* the first write reports what is wrong */
    return (struct sink){.fd = fd,
            .kind = S_ISSOCK(st.st_mode)   ? SINK_SOCKET
                    : S_ISREG(st.st_mode)  ? SINK_FILE
                    : S_ISFIFO(st.st_mode) ? SINK_NOWAIT
                                           : SINK_SMALL};
}

static ssize_t write_kind(struct sink *sink, const void *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};

    switch (sink->kind) {
    case SINK_NONE:
        return (ssize_t)len;
    case SINK_SOCKET:
        return send(sink->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    case SINK_NOWAIT:
        return pwritev2(sink->fd, &iov, 1, -1, RWF_NOWAIT);
    case SINK_SMALL:
        return write(sink->fd, data, MIN(len, (size_t)PIPE_BUF));
    case SINK_FILE:
        break;
    }
    return write(sink->fd, data, len);
}

ssize_t sink_write(struct sink *sink, const void *data, size_t len)
{
    ssize_t n = write_kind(sink, data, len);

    if (n < 0 && sink->kind == SINK_NOWAIT && errno != EPIPE && errno != EINTR && errno != EBADF) {
        /* Not known here, or it claims to be full though poll(2) said otherwise. */
        if (errno != EAGAIN)
            sink->kind = SINK_SMALL;
        n = write(sink->fd, data, MIN(len, (size_t)PIPE_BUF));
    }
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    return n;
}
