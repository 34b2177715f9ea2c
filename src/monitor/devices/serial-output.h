/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the guest's bytes to a file, pipe or terminal of the host, without
 * either being able to hurt the other.
 *
 * A vCPU thread only stores its byte in a ring, and wakes the loop thread when
 * the ring was empty or has a burst together. The loop thread waits a moment
 * for more and writes, never on a vCPU thread and never blocking. When the
 * host does not take the bytes and the ring is full, further ones are dropped
 * and counted until half of the ring is free; a line in the output says how
 * many were lost at that place.
 *
 * A regular file is kept at SERIAL_LOG_MAX bytes or less: before it would
 * grow beyond, its newer half is copied over its beginning, and the rest cut
 * off. Who reads the end of it finds the same end throughout; who follows it
 * sees it get shorter, as with any truncation.
 *
 * The program ignores SIGPIPE.
 */
#pragma once

#include <pthread.h>

#include "base/loop.h"
#include "monitor/vm-config.h"

#ifndef SERIAL_RING_BYTES /* fuzzing has a smaller one: it is full sooner */
#define SERIAL_RING_BYTES (64u << 10)
#endif

struct serial_output {
    pthread_mutex_t lock; /* for the first part */
    size_t first, len;
    uint64_t dropped;       /* since the last marker */
    uint64_t dropped_total; /* ever */
    bool waiting;           /* the host takes nothing now: nobody needs to be woken */
    bool closed;            /* there is no output, or none any more */
    uint8_t ring[SERIAL_RING_BYTES];

    /* The loop thread's. */
    struct loop *loop;
    struct loop_fd wake, room;
    struct loop_timer delay;
    int fd, rotate_fd;         /* rotate_fd: the same file for reading and writing anywhere, -1: none */
    bool is_file, nonblocking; /* nonblocking: fd is our own description, and says EAGAIN */
    uint64_t report_at;        /* dropped_total of the next line in the log */
};

/* `fd` (borrowed, -1: none) when path is NULL. Messages name the path. */
int serial_output_open(struct serial_output *out, struct loop *loop, int fd, const char *path, struct vm_error *error);
/* Writes out what it can without waiting. */
void serial_output_close(struct serial_output *out);
/* On any thread. */
void serial_output_put(struct serial_output *out, uint8_t byte);

/*
 * A descriptor of our own for what `fd` is. O_NONBLOCK belongs to the open
 * description, which a terminal shares with the user's shell, so it is opened
 * anew where that is possible; *ret_nonblocking is false where it is not (a
 * socket, another user's terminal, no /proc), and the descriptor a duplicate.
 */
int serial_own_fd(int fd, int flags, bool *ret_nonblocking);
