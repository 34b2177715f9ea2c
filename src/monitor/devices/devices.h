/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices of a VM. Each _new opens what it needs and fails with a message
 * that names it; each _free accepts NULL. The `struct virtio_device *` of one
 * goes to virtio_mmio_init().
 */
#pragma once

#include "base/loop.h"
#include "jail/seccomp.h"
#include "monitor/vm.h"
#include "monitor/devices/irq.h"
#include "monitor/devices/virtio-device.h"

struct virtio_mmio;

/* Block (virtio 1.2 §5.2). Serves its kicks on a thread of its own, "fc_blk ID": a disk that waits stops nobody else.
 */
struct block;
/*
 * Opens the file: O_RDONLY when read-only, which also sets VIRTIO_BLK_F_RO and refuses writes with IOERR; there is no
 * way to a writable descriptor from a read-only device. -EISDIR, -EINVAL: neither a regular file nor a block device.
 */
int block_new(struct block **ret, const struct drive_config *config, struct vm_error *error);
void block_free(struct block *block); /* after virtio_mmio_deinit() and block_stop() */
struct virtio_device *block_device(struct block *block);
struct loop *block_loop(struct block *block);
int block_start(struct block *block); /* its thread; returns when that has its filter */
extern const struct seccomp_profile block_seccomp;
void block_stop(struct block *block); /* ends and joins the thread */
struct block_stats {
    uint64_t reads, read_bytes, writes, write_bytes, flushes, failures;
};
void block_get_stats(const struct block *block, struct block_stats *ret); /* on any thread */
/* Another file under the same rules; under virtio_mmio_lock(), then config_changed. */
int block_replace(struct block *block, const char *path, struct vm_error *error);

/* Vsock: src/vsock behind virtio queues, on the VMM thread's loop. Listens on uds_path (mode 0600), unlinks it at the
 * end. */
struct vsock_dev;
int vsock_dev_new(struct vsock_dev **ret, const struct vsock_config *config, uint32_t max_connections,
        struct loop *loop, struct vm_error *error);
void vsock_dev_free(struct vsock_dev *dev);
struct virtio_device *vsock_dev_device(struct vsock_dev *dev);
/* After virtio_mmio_init(): host sockets call virtio_mmio_run(). */
struct vsock_stats;
void vsock_dev_get_stats(const struct vsock_dev *dev, struct vsock_stats *ret); /* on the loop's thread */
void vsock_dev_connect(struct vsock_dev *dev, struct virtio_mmio *mmio);
/* After a snapshot was loaded, on the loop's thread: ends every connection and tells the driver so (virtio 1.2
 * §5.10.6.7). The listener survives. A VM that a snapshot was made of keeps its own. */
void vsock_dev_transport_reset(struct vsock_dev *dev);

/* Entropy (virtio 1.2 §5.4): getrandom(2), at most RNG_BYTES_PER_SECOND. */
#define RNG_BYTES_PER_SECOND (1u << 20)
struct rng;
int rng_new(struct rng **ret, struct loop *loop, struct vm_error *error);
void rng_free(struct rng *rng);
struct virtio_device *rng_device(struct rng *rng);
void rng_connect(struct rng *rng, struct virtio_mmio *mmio);

/* Balloon (virtio 1.2 §5.5): inflated pages go back to the host by MADV_DONTNEED, which guest memory, being
 * private and anonymous, gives up at once. */
struct balloon;
int balloon_new(struct balloon **ret, const struct balloon_config *config, const struct gmem *mem, struct loop *loop,
        struct vm_error *error);
void balloon_free(struct balloon *balloon);
struct virtio_device *balloon_device(struct balloon *balloon);
void balloon_connect(struct balloon *balloon, struct virtio_mmio *mmio);
/* These three lock the device themselves. */
void balloon_set_target(struct balloon *balloon, uint32_t mib);
void balloon_set_interval(struct balloon *balloon, uint32_t seconds);
void balloon_stats(struct balloon *balloon, struct balloon_stats *ret);

/* 16550 UART. Output is never waited for: bounded buffer, then dropped and counted; see serial-output.h. */
struct serial;
struct serial_options {
    size_t size;
    struct loop *loop;       /* the VMM thread's */
    int input_fd;            /* borrowed, -1: none; only a tty or pipe is read */
    int output_fd;           /* borrowed when output_path is NULL */
    const char *output_path; /* a regular file is capped and rotated: SERIAL_LOG_MAX bytes, the older half is dropped */
    struct irq_line irq;
};
#define SERIAL_LOG_MAX (4u << 20)
int serial_new(struct serial **ret, const struct serial_options *options, struct vm_error *error);
void serial_free(struct serial *serial); /* writes out what it has, without waiting */
struct bus_range;
void serial_range(struct serial *serial, struct bus_range *ret);
/* Snapshots: u8 divisor[2], ier, lcr, mcr, scr, fifo, thre_pending, received, their bytes[16]. Loads into one that was
 * never used; -EBADMSG. What it wrote is its output's, and no part of it. */
void serial_save(struct serial *serial, struct buf *buf);
int serial_load(struct serial *serial, struct rd *rd, struct vm_error *error);

/* Keyboard controller: reset by command 0xFE, Ctrl-Alt-Del. on_reset is called on a vCPU thread, on each such command.
 */
struct i8042;
int i8042_new(struct i8042 **ret, struct irq_line irq, void (*on_reset)(void *userdata), void *userdata);
void i8042_free(struct i8042 *kbd);
void i8042_range(struct i8042 *kbd, struct bus_range *ret);
void i8042_ctrl_alt_del(struct i8042 *kbd); /* on any thread; lost when the guest left the last ones unread */
/* As serial_save() and so on: u8 command byte, last command, waiting, their bytes[32]. */
void i8042_save(struct i8042 *kbd, struct buf *buf);
int i8042_load(struct i8042 *kbd, struct rd *rd, struct vm_error *error);
