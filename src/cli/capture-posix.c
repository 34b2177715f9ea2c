/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define READ_SIZE (64u << 10)

struct capture {
    pthread_t thread;
    int read_fd, write_fd;
    size_t max;
    struct text kept;
    bool truncated;
};

static void *reader(void *userdata)
{
    struct capture *c = userdata;
    char *chunk = text_alloc(READ_SIZE, 1);

    for (;;) {
        ssize_t n = read(c->read_fd, chunk, READ_SIZE);
        size_t room = c->max - c->kept.len;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        if ((size_t)n > room)
            c->truncated = true;
        text_put(&c->kept, chunk, (size_t)n > room ? room : (size_t)n);
    }
    free(chunk);
    return NULL;
}

static int start_thread(struct capture *c)
{
    sigset_t all, old;
    int r;

    /* Signals are the main thread's business: its waits must be the ones that they interrupt. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&c->thread, NULL, reader, c);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -r;
}

int capture_start(struct capture **ret, size_t max, int *ret_write_fd)
{
    struct capture *c = text_alloc(1, sizeof(*c));
    int fds[2], r;

    if (pipe(fds) < 0) {
        r = -errno;
        free(c);
        return r;
    }
    (void)fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    (void)fcntl(fds[1], F_SETFD, FD_CLOEXEC);
    *c = (struct capture){.read_fd = fds[0], .write_fd = fds[1], .max = max};
    r = start_thread(c);
    if (r < 0) {
        (void)close(fds[0]);
        (void)close(fds[1]);
        free(c);
        return r;
    }
    *ret = c;
    *ret_write_fd = fds[1];
    return 0;
}

void capture_finish(struct capture *c, char **ret_data, size_t *ret_len, bool *ret_truncated)
{
    (void)close(c->write_fd);
    (void)pthread_join(c->thread, NULL);
    (void)close(c->read_fd);
    *ret_data = c->kept.data;
    *ret_len = c->kept.len;
    *ret_truncated = c->truncated;
    free(c);
}
