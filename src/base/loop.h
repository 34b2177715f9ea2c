/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A single-threaded epoll loop: descriptors and one-shot timers.
 *
 * Sources are embedded in their owner and stay owned by it; the loop never
 * allocates after loop_init and never closes a descriptor. A source may be
 * removed, also from inside any callback: events already fetched for it are
 * dropped. Callbacks return 0, or a negative errno, which stops the loop and
 * is what loop_run() returns.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#define LOOP_BATCH 64

struct loop_fd {
    int fd;
    uint32_t events; /* EPOLLIN ...; 0 keeps the source but asks for nothing except errors */
    int (*ready)(struct loop_fd *source, uint32_t events);
    bool added;
};

struct loop_timer {
    uint64_t deadline; /* clock.h */
    int (*expired)(struct loop_timer *timer);
    struct loop_timer *prev, *next;
    bool armed;
};

struct loop {
    int epoll_fd;
    bool stop;
    struct loop_timer *timers; /* sorted by deadline */
    struct epoll_event batch[LOOP_BATCH];
    int batch_len;
};

int loop_init(struct loop *loop);
void loop_deinit(struct loop *loop);

int loop_add(struct loop *loop, struct loop_fd *source);
int loop_modify(struct loop *loop, struct loop_fd *source, uint32_t events);
void loop_remove(struct loop *loop, struct loop_fd *source); /* before its fd is closed */

void loop_arm(struct loop *loop, struct loop_timer *timer, uint64_t deadline); /* re-arms when armed */
void loop_disarm(struct loop *loop, struct loop_timer *timer);

/* Waits at most timeout_ms (-1: no limit) and serves one batch. */
int loop_once(struct loop *loop, int timeout_ms);
/* Until loop_stop() or a callback's error. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
