/* SPDX-License-Identifier: Apache-2.0 */
#include "base/loop.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/macro.h"

int loop_init(struct loop *loop)
{
    *loop = (struct loop){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    return loop->epoll_fd < 0 ? -errno : 0;
}

void loop_deinit(struct loop *loop)
{
    if (loop->epoll_fd >= 0)
        (void)close(loop->epoll_fd);
    loop->epoll_fd = -1;
}

int loop_add(struct loop *loop, struct loop_fd *source)
{
    struct epoll_event event = {.events = source->events, .data.ptr = source};

    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0)
        return -errno;
    source->added = true;
    return 0;
}

int loop_modify(struct loop *loop, struct loop_fd *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (source->events == events)
        return 0;
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
        return -errno;
    source->events = events;
    return 0;
}

void loop_remove(struct loop *loop, struct loop_fd *source)
{
    if (!source->added)
        return;
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    source->added = false;
    for (int i = 0; i < loop->batch_len; i++) {
        if (loop->batch[i].data.ptr == source)
            loop->batch[i].data.ptr = NULL;
    }
}

void loop_disarm(struct loop *loop, struct loop_timer *timer)
{
    if (!timer->armed)
        return;
    if (timer->prev)
        timer->prev->next = timer->next;
    else
        loop->timers = timer->next;
    if (timer->next)
        timer->next->prev = timer->prev;
    timer->prev = timer->next = NULL;
    timer->armed = false;
}

void loop_arm(struct loop *loop, struct loop_timer *timer, uint64_t deadline)
{
    struct loop_timer *before = NULL, *after;

    loop_disarm(loop, timer);
    after = loop->timers;
    while (after && after->deadline <= deadline) {
        before = after;
        after = after->next;
    }
    timer->deadline = deadline;
    timer->prev = before;
    timer->next = after;
    if (before)
        before->next = timer;
    else
        loop->timers = timer;
    if (after)
        after->prev = timer;
    timer->armed = true;
}

static int expire_timers(struct loop *loop)
{
    uint64_t now = clock_now_ms();

    while (loop->timers && loop->timers->deadline <= now) {
        struct loop_timer *timer = loop->timers;
        int r;

        loop_disarm(loop, timer);
        r = timer->expired(timer);
        if (r < 0)
            return r;
    }
    return 0;
}

int loop_once(struct loop *loop, int timeout_ms)
{
    int wait = timeout_ms, n, r = 0;

    if (loop->timers) {
        int until = deadline_poll_ms(loop->timers->deadline);

        if (until >= 0 && (wait < 0 || until < wait))
            wait = until;
    }
    n = epoll_wait(loop->epoll_fd, loop->batch, LOOP_BATCH, wait);
    if (n < 0 && errno != EINTR)
        return -errno;
    loop->batch_len = MAX(n, 0);
    for (int i = 0; i < loop->batch_len && r >= 0; i++) {
        struct loop_fd *source = loop->batch[i].data.ptr;

        if (source)
            r = source->ready(source, loop->batch[i].events);
    }
    loop->batch_len = 0;
    return r < 0 ? r : expire_timers(loop);
}

int loop_run(struct loop *loop)
{
    int r = 0;

    loop->stop = false;
    while (!loop->stop && r >= 0)
        r = loop_once(loop, -1);
    return r < 0 ? r : 0;
}

void loop_stop(struct loop *loop)
{
    loop->stop = true;
}
