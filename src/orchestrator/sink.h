/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing to a descriptor of the caller that may be blocking, without being
 * blocked and without touching its flags (they belong to the open file, which
 * others share: a shell's terminal would stay non-blocking).
 *
 * Sockets have MSG_DONTWAIT. For the rest RWF_NOWAIT is tried; where it is not
 * known, a pipe or terminal that poll(2) calls writable takes at least
 * PIPE_BUF bytes without blocking, so that is what it is given. Regular files
 * do not block in that sense.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

enum sink_kind { SINK_NONE, SINK_SOCKET, SINK_NOWAIT, SINK_SMALL, SINK_FILE };

struct sink {
    int fd;
    enum sink_kind kind;
};

struct sink sink_of(int fd); /* -1: everything is dropped */

/* Call when poll(2) says POLLOUT. Bytes taken, 0 if none now, or a negative errno. The caller blocks SIGPIPE. */
ssize_t sink_write(struct sink *sink, const void *data, size_t len);
