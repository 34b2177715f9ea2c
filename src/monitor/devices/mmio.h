/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-mmio version 2 (virtio 1.2 §4.2.2): the register file of one device
 * in one page, behind a lock. Knows nothing of KVM: the owner connects kicks[]
 * to ioeventfds and says where the interrupt line leads; a test writes and
 * counts itself.
 *
 * vCPU threads access registers; the device's loop thread serves kicks.
 * InterruptStatus and InterruptACK are atomics outside of the lock, so that a
 * guest's interrupt handler never waits for a disk.
 *
 * The driver's rules are checked here once for all devices: features before
 * FEATURES_OK, queues only between FEATURES_OK and DRIVER_OK, nothing but
 * reset after FAILED. A driver that breaks them is logged once and its device
 * gets DEVICE_NEEDS_RESET.
 */
#pragma once

#include <pthread.h>

#include "base/loop.h"
#include "base/log.h"
#include "monitor/bus.h"
#include "monitor/devices/irq.h"
#include "monitor/devices/virtio-device.h"

struct virtio_mmio;

struct virtio_mmio_kick {
    struct loop_fd source; /* the eventfd */
    struct virtio_mmio *mmio;
    unsigned index;
};

struct virtio_mmio {
    struct virtio_device *dev;
    const struct gmem *mem;
    struct loop *loop; /* of the thread that serves this device */
    pthread_mutex_t lock;
    struct irq_line irq;
    struct virtio_mmio_kick kicks[VIRTIO_MAX_QUEUES];
    uint32_t interrupt_status; /* atomic */
    bool run_all;              /* the next kick, which may be our own, is for all queues */
    uint32_t config_generation;
    uint32_t status, device_features_sel, driver_features_sel, queue_sel;
    struct virtio_mmio_queue {
        bool ready;
        uint16_t size;
        uint64_t desc, avail, used;
    } queues[VIRTIO_MAX_QUEUES];
    struct log_limit log_limit;
    uint32_t log_lines; /* so far */
};

/* Makes the eventfds and adds the kicks to `loop`. The device, memory and loop outlive it. */
int virtio_mmio_init(struct virtio_mmio *mmio, struct virtio_device *dev, const struct gmem *mem, struct irq_line irq,
        struct loop *loop);
void virtio_mmio_deinit(struct virtio_mmio *mmio);
/* For bus_add(): a range of LAYOUT_VIRTIO_STEP bytes at `base`. */
struct bus_range virtio_mmio_range(struct virtio_mmio *mmio, uint64_t base);
#define VIRTIO_MMIO_QUEUE_NOTIFY 0x050u /* the ioeventfd's offset; 4 bytes, data = queue index */

/* Work that comes from elsewhere than a kick (a host socket, a timer): takes the lock, runs the device if it is live,
 * and sees to it that it runs again while it has more. On the loop's thread. */
void virtio_mmio_run(struct virtio_mmio *mmio);
/* Around a change of the device's own state from the VMM thread (config space, target, backing file). */
void virtio_mmio_lock(struct virtio_mmio *mmio);
void virtio_mmio_unlock(struct virtio_mmio *mmio, bool config_changed); /* true: raises a configuration interrupt */

/*
 * The part "virtio" of a snapshot (snapshot/format.h), and the device's own
 * state behind it:
 *
 *   u32 device id, status, interrupt status, config generation, selectors of device features, driver features, queue;
 *   u64 driver features; u32 queues, and for each u32 ready, size, next_avail, zero, u64 desc, avail, used
 *
 * Both with the lock held, so that no request is being served. A device that was loaded does nothing before
 * virtio_mmio_go_on(): what its files are can still change until then.
 */
void virtio_mmio_save(struct virtio_mmio *mmio, struct buf *buf);
/* Into a transport that was never used. -EBADMSG: no driver could have made that; -ENOTSUP: it has features that the
 * device does not offer here. */
int virtio_mmio_load(struct virtio_mmio *mmio, struct rd *rd, struct vm_error *error);
/* When the guest goes on: kicks that were on their way are made up for. */
void virtio_mmio_go_on(struct virtio_mmio *mmio);
