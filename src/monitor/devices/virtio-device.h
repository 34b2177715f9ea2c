/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device as its transport sees it, and the other way round. A device
 * embeds `struct virtio_device`, fills the first part, and gets its queues
 * and the driver's features from the transport (mmio.h), so that it can be
 * tested on fake memory without one.
 *
 * Locking: the transport holds the device's lock around every operation
 * below, so that they never run at once, whichever threads they come from:
 * kicks on the thread that owns the device's loop, register writes on vCPU
 * threads. A device keeps no state outside of that lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "monitor/vm-config.h"
#include "virtio/virtqueue.h"

#define VIRTIO_MAX_QUEUES 5u

/* Device IDs, virtio 1.2 §5. */
enum {
    VIRTIO_ID_BLOCK = 2,
    VIRTIO_ID_RNG = 4,
    VIRTIO_ID_BALLOON = 5,
    VIRTIO_ID_VSOCK = 19,
};

struct virtio_device;

struct virtio_device_ops {
    /* The driver kicked queue `index` (or the device's own events may have made work: index VIRTIO_ALL_QUEUES). Only
     * while the device is live. Does a bounded amount of work; true: call again without waiting for a kick. */
    bool (*run)(struct virtio_device *dev, unsigned index);
    /* DRIVER_OK: features are final, queues are started. Optional. */
    void (*activate)(struct virtio_device *dev);
    /* Back to the state before any driver. Queues are already stopped. Optional. */
    void (*reset)(struct virtio_device *dev);
    /* The driver wrote config space; a whole access inside of it. Optional: else writes are ignored. */
    void (*write_config)(struct virtio_device *dev, uint32_t offset, const uint8_t *data, uint32_t len);
    /* Snapshots: the device's own state, besides the transport's. Optional, both or none. load() gets a device that was
     * never used, with the transport's state already there, and what is in the file is anybody's: -EBADMSG, with a
     * message unless it was too short. */
    void (*save)(struct virtio_device *dev, struct buf *buf);
    int (*load)(struct virtio_device *dev, struct rd *rd, struct vm_error *error);
};
#define VIRTIO_ALL_QUEUES 0xffffu

struct virtio_device {
    /* The device says: */
    const struct virtio_device_ops *ops;
    const char *name; /* for the log: "block root" */
    uint32_t id;
    uint64_t features; /* besides VERSION_1, INDIRECT_DESC and EVENT_IDX, which the transport adds */
    unsigned queue_count;
    uint16_t queue_size_max; /* power of two, at most VQ_MAX_SIZE */
    const uint8_t *config;   /* config space, read by the transport under the lock */
    uint32_t config_size;

    /* The transport says: */
    struct virtqueue queues[VIRTIO_MAX_QUEUES]; /* started: vq.started */
    uint64_t driver_features;
    bool live; /* DRIVER_OK and neither reset nor failed */
    void *transport;
    void (*interrupt)(struct virtio_device *dev, bool config_changed);
    void (*fail)(struct virtio_device *dev, const char *why); /* DEVICE_NEEDS_RESET; logged once until the next reset */
};

/* The next chain, as vq_pop() says; when there is none, kicks are on again. */
int virtio_next(struct virtio_device *dev, unsigned index, struct vq_chain *ret);
/* After a batch: interrupts the driver if it wants that for any of the queue's pushed chains. */
void virtio_signal_used(struct virtio_device *dev, unsigned index);
/* True, after marking the device, when the queue is broken. */
bool virtio_check_fault(struct virtio_device *dev, unsigned index);
