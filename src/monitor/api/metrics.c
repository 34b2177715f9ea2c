/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/api/metrics.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"

#define COUNTER(section, name)                                                                                         \
    {                                                                                                                  \
#section, #name, offsetof(struct metrics, section.name)                                                        \
    }

static const struct {
    const char *section, *name;
    size_t at;
} counters[] = {
        /* one section after another */
        COUNTER(api_server, process_startup_time_us),
        COUNTER(api_server, process_startup_time_cpu_us),
        COUNTER(vcpu, exit_io_in),
        COUNTER(vcpu, exit_io_out),
        COUNTER(vcpu, exit_mmio_read),
        COUNTER(vcpu, exit_mmio_write),
        COUNTER(vcpu, failures),
        COUNTER(block, read_count),
        COUNTER(block, read_bytes),
        COUNTER(block, write_count),
        COUNTER(block, write_bytes),
        COUNTER(block, flush_count),
        COUNTER(block, failures),
        COUNTER(vsock, rx_bytes_count),
        COUNTER(vsock, tx_bytes_count),
        COUNTER(vsock, connections),
};
static_assert(ARRAY_SIZE(counters) == sizeof(struct metrics) / sizeof(uint64_t), "a counter is not in the table");

int metrics_open(const char *path, int *ret_fd, struct vm_error *error)
{
    /* O_RDWR: a pipe can be opened before its reader. */
    _cleanup_(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return vm_fail(error, -errno, "metrics file %.300s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode))
        return vm_fail(error, -EINVAL, "metrics file %.300s: neither a file nor a named pipe", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int metrics_write(const struct metrics *metrics, int fd, struct vm_error *error)
{
    char line[2048]; /* less than PIPE_BUF: whole or not at all */
    struct timespec now;
    size_t n;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    n = (size_t)snprintf(
            line, sizeof(line), "{\"utc_timestamp_ms\":%" PRId64, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    for (size_t i = 0; i < ARRAY_SIZE(counters) && n < sizeof(line); i++) {
        const char *before = i > 0 ? counters[i - 1].section : "";
        const uint64_t *counter = (const uint64_t *)(const void *)((const char *)metrics + counters[i].at);
        uint64_t value = __atomic_load_n(counter, __ATOMIC_RELAXED);

        if (strcmp(before, counters[i].section) == 0)
            n += (size_t)snprintf(line + n, sizeof(line) - n, ",\"%s\":%" PRIu64, counters[i].name, value);
        else
            n += (size_t)snprintf(line + n, sizeof(line) - n, "%s,\"%s\":{\"%s\":%" PRIu64, i > 0 ? "}" : "",
                    counters[i].section, counters[i].name, value);
    }
    if (n < sizeof(line))
        n += (size_t)snprintf(line + n, sizeof(line) - n, "}}\n");
    if (n >= sizeof(line) || write(fd, line, n) != (ssize_t)n)
        return vm_fail(
                error, -EIO, "the metrics were not written: %s", n < sizeof(line) ? strerror(errno) : "too long");
    return 0;
}
