/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters, and the file that gets one line of JSON with all of them at each
 * flush. Names and sections are Firecracker's where it has the same counter.
 *
 * The members are changed and read by several threads, with metrics_add()
 * only; a line is not a snapshot of one moment, but each number is whole.
 */
#pragma once

#include "monitor/vm-config.h"

struct metrics {
    struct {
        uint64_t process_startup_time_us, process_startup_time_cpu_us;
    } api_server;
    struct {
        uint64_t exit_io_in, exit_io_out, exit_mmio_read, exit_mmio_write, failures;
    } vcpu;
    struct {
        uint64_t read_count, read_bytes, write_count, write_bytes, flush_count, failures;
    } block;
    struct {
        uint64_t rx_bytes_count, tx_bytes_count, connections; /* rx: to the guest */
    } vsock;
};

static inline void metrics_add(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* A file (made with mode 0600, appended to) or a named pipe; nothing of it ever blocks. */
int metrics_open(const char *path, int *ret_fd, struct vm_error *error);
/* -EIO: the disk is full, or a pipe that nobody empties; the line is lost. */
int metrics_write(const struct metrics *metrics, int fd, struct vm_error *error);
