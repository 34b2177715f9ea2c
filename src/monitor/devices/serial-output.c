/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/devices/serial-output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "monitor/devices/devices.h"

#define COALESCE_MS    5u                      /* how long a byte waits for others; nobody reads faster */
#define BURST_BYTES    4096u                   /* that many don't wait */
#define TURN_BYTES     (2 * SERIAL_RING_BYTES) /* then the loop's other sources get their turn */
#define DUPLICATE_MAX  256u  /* one write to a descriptor that may block: what has room for any has room for these */
#define RETRY_SPACE_MS 1000u /* the file system is full */
#define COPY_BYTES     16384u

static_assert(SERIAL_RING_BYTES < SERIAL_LOG_MAX / 2, "a write fits behind the half that is kept");

/* Locked; there is room. */
static void append(struct serial_output *out, uint8_t byte)
{
    out->ring[(out->first + out->len) % SERIAL_RING_BYTES] = byte;
    out->len++;
}

void serial_output_put(struct serial_output *out, uint8_t byte)
{
    bool tell = false;

    pthread_mutex_lock(&out->lock);
    if (!out->closed && (out->dropped > 0 || out->len == SERIAL_RING_BYTES)) {
        tell = out->dropped++ == 0; /* for the log */
        out->dropped_total++;
    } else if (!out->closed) {
        append(out, byte);
        tell = !out->waiting && (out->len == 1 || out->len == BURST_BYTES);
    }
    pthread_mutex_unlock(&out->lock);
    if (tell)
        fd_signal(out->wake.fd);
}

/* After n bytes were written. The marker comes before the bytes that are taken again, so it is in the right place. */
static void consume(struct serial_output *out, size_t n)
{
    char marker[48];
    int len;

    pthread_mutex_lock(&out->lock);
    out->len -= n;
    out->first = out->len == 0 ? 0 : (out->first + n) % SERIAL_RING_BYTES; /* a guest that says little touches little */
    if (out->dropped > 0 && out->len <= SERIAL_RING_BYTES / 2) {
        len = snprintf(marker, sizeof(marker), "\r\n[%llu bytes dropped]\r\n", (unsigned long long)out->dropped);
        for (int i = 0; i < len; i++)
            append(out, (uint8_t)marker[i]);
        out->dropped = 0;
    }
    pthread_mutex_unlock(&out->lock);
}

/* Views of what is in the ring; vCPU threads only add behind them. */
static size_t peek(struct serial_output *out, size_t max, struct iovec iov[2])
{
    size_t len, head;

    pthread_mutex_lock(&out->lock);
    len = MIN(out->len, max);
    head = MIN(len, SERIAL_RING_BYTES - out->first);
    iov[0] = (struct iovec){out->ring + out->first, head};
    iov[1] = (struct iovec){out->ring, len - head};
    pthread_mutex_unlock(&out->lock);
    return len;
}

static void set_waiting(struct serial_output *out, bool waiting)
{
    pthread_mutex_lock(&out->lock);
    out->waiting = waiting;
    pthread_mutex_unlock(&out->lock);
}

/* Each line stands for twice as many bytes as the one before: a guest can't fill the log by it. */
static void report_dropped(struct serial_output *out)
{
    uint64_t total;

    pthread_mutex_lock(&out->lock);
    total = out->dropped_total;
    pthread_mutex_unlock(&out->lock);
    if (total < out->report_at)
        return;
    out->report_at = total * 2;
    log_msg(LOG_WARN, "serial console: the output does not keep up with the guest, bytes are dropped (%llu so far)",
            (unsigned long long)total);
}

/* The output failed for good; the guest goes on without one. */
static void give_up(struct serial_output *out, int error)
{
    log_msg(LOG_WARN, "serial console: cannot write the output: %s; it ends here", strerror(error));
    pthread_mutex_lock(&out->lock);
    out->closed = true;
    out->len = 0;
    out->dropped = 0;
    pthread_mutex_unlock(&out->lock);
}

/* Keeps the newer half of the file, or nothing where it can't be read. */
static int rotate(struct serial_output *out, off_t size)
{
    uint8_t bytes[COPY_BYTES];
    off_t keep = MIN(size, (off_t)SERIAL_LOG_MAX) / 2, done = 0;

    while (out->rotate_fd >= 0 && done < keep) {
        ssize_t n = pread(out->rotate_fd, bytes, (size_t)MIN(keep - done, (off_t)sizeof(bytes)), size - keep + done);

        if (n <= 0 || pwrite(out->rotate_fd, bytes, (size_t)n, done) != n)
            break;
        done += n;
    }
    /* A redirection without O_APPEND has an offset, which would leave a hole. */
    return ftruncate(out->fd, done) < 0 || lseek(out->fd, 0, SEEK_END) < 0 ? -errno : 0;
}

/* A write of at most what is there now. Returns bytes, or a negative errno. */
static ssize_t write_once(struct serial_output *out)
{
    struct iovec iov[2];
    size_t len = peek(out, out->nonblocking || out->is_file ? SERIAL_RING_BYTES : DUPLICATE_MAX, iov);
    struct stat st;
    ssize_t n = 0;

    if (len == 0)
        return 0;
    if (out->is_file && fstat(out->fd, &st) == 0 && st.st_size + (off_t)len > (off_t)SERIAL_LOG_MAX)
        n = rotate(out, st.st_size);
    if (n < 0)
        return n;
    if (!out->is_file && !out->nonblocking && poll(&(struct pollfd){.fd = out->fd, .events = POLLOUT}, 1, 0) <= 0)
        return -EAGAIN;
    n = writev(out->fd, iov, iov[1].iov_len > 0 ? 2 : 1);
    return n < 0 ? -errno : n;
}

/* Until the ring is empty or the host takes no more. Whatever is left then has an event or a timer coming. */
static int flush(struct serial_output *out)
{
    size_t total = 0;
    ssize_t n;

    loop_remove(out->loop, &out->room);
    loop_disarm(out->loop, &out->delay);
    set_waiting(out, false);
    do {
        n = write_once(out);
        if (n > 0)
            consume(out, (size_t)n);
        total += n > 0 ? (size_t)n : 0;
    } while ((n > 0 && total < TURN_BYTES) || n == -EINTR);
    report_dropped(out);
    if (n == 0)
        return 0;
    set_waiting(out, true);
    if (n > 0)
        loop_arm(out->loop, &out->delay, deadline_after_ms(1));
    else if (n == -ENOSPC || n == -EDQUOT)
        loop_arm(out->loop, &out->delay, deadline_after_ms(RETRY_SPACE_MS));
    else if (n != -EAGAIN || loop_add(out->loop, &out->room) < 0)
        give_up(out, (int)-n);
    return 0;
}

static int room_ready(struct loop_fd *source, uint32_t events)
{
    return flush(CONTAINER_OF(source, struct serial_output, room));
}

static int delay_over(struct loop_timer *timer)
{
    return flush(CONTAINER_OF(timer, struct serial_output, delay));
}

/* Edge-triggered, so that nobody has to read the counter. */
static int woken(struct loop_fd *source, uint32_t events)
{
    struct serial_output *out = CONTAINER_OF(source, struct serial_output, wake);
    size_t len;
    bool waiting;

    report_dropped(out);
    pthread_mutex_lock(&out->lock);
    len = out->len;
    waiting = out->waiting;
    pthread_mutex_unlock(&out->lock);
    if (waiting || len == 0)
        return 0;
    if (len >= BURST_BYTES)
        return flush(out);
    if (!out->delay.armed)
        loop_arm(out->loop, &out->delay, deadline_after_ms(COALESCE_MS));
    return 0;
}

int serial_own_fd(int fd, int flags, bool *ret_nonblocking)
{
    char path[32];
    int own;

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    own = open(path, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    *ret_nonblocking = own >= 0;
    if (own < 0)
        own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return own < 0 ? -errno : own;
}

static int open_path(struct serial_output *out, const char *path, struct vm_error *error)
{
    out->nonblocking = true;
    out->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600);
    if (out->fd >= 0)
        return 0;
    if (errno == ENXIO)
        return vm_fail(error, -ENXIO, "serial output %s: a pipe that nobody reads; start its reader first", path);
    return vm_fail(error, -errno, "serial output %s: cannot open it for writing: %s", path, strerror(errno));
}

/* A file's description is shared on purpose: its offset is what keeps it and a log in the same file apart. */
static int open_fd(struct serial_output *out, int fd, struct vm_error *error)
{
    struct stat st;

    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        out->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    else
        out->fd = serial_own_fd(fd, O_WRONLY, &out->nonblocking);
    return out->fd < 0 ? vm_fail(error, -errno, "serial output: descriptor %d: %s", fd, strerror(errno)) : 0;
}

static int open_target(struct serial_output *out, int fd, const char *path, struct vm_error *error)
{
    bool own;
    struct stat st;
    int r = path ? open_path(out, path, error) : open_fd(out, fd, error);

    if (r < 0)
        return r;
    out->room = (struct loop_fd){.fd = out->fd, .events = EPOLLOUT, .ready = room_ready};
    out->is_file = fstat(out->fd, &st) == 0 && S_ISREG(st.st_mode);
    if (!out->is_file)
        return 0;
    out->rotate_fd = serial_own_fd(out->fd, O_RDWR, &own);
    if (!own) {
        fd_close(out->rotate_fd);
        out->rotate_fd = -1;
    }
    return 0;
}

int serial_output_open(struct serial_output *out, struct loop *loop, int fd, const char *path, struct vm_error *error)
{
    int r;

    pthread_mutex_init(&out->lock, NULL);
    out->loop = loop;
    out->fd = out->rotate_fd = out->wake.fd = -1;
    out->delay.expired = delay_over;
    out->report_at = 1;
    out->closed = !path && fd < 0;
    if (out->closed)
        return 0;
    r = open_target(out, fd, path, error);
    if (r < 0)
        return r;
    out->wake =
            (struct loop_fd){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = EPOLLIN | EPOLLET, .ready = woken};
    r = out->wake.fd < 0 ? -errno : loop_add(loop, &out->wake);
    return r < 0 ? vm_fail(error, r, "serial console: cannot set up its events: %s", strerror(-r)) : 0;
}

void serial_output_close(struct serial_output *out)
{
    if (!out->closed)
        flush(out);
    loop_remove(out->loop, &out->room);
    loop_remove(out->loop, &out->wake);
    loop_disarm(out->loop, &out->delay);
    fd_close(out->fd);
    fd_close(out->rotate_fd);
    fd_close(out->wake.fd);
    pthread_mutex_destroy(&out->lock);
}
