/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/devices/virtio-device.h"

int virtio_next(struct virtio_device *dev, unsigned index, struct vq_chain *ret)
{
    struct virtqueue *vq = &dev->queues[index];
    int r;

    vq_disable_kicks(vq);
    do
        r = vq_pop(vq, ret);
    while (r == VQ_EMPTY && vq_enable_kicks(vq));
    return r;
}

void virtio_signal_used(struct virtio_device *dev, unsigned index)
{
    if (dev->live && vq_should_signal(&dev->queues[index]))
        dev->interrupt(dev, false);
}

bool virtio_check_fault(struct virtio_device *dev, unsigned index)
{
    const struct virtqueue *vq = &dev->queues[index];

    if (vq->fault == VQ_FAULT_NONE)
        return false;
    dev->fail(dev, vq_fault_text(vq->fault));
    return true;
}
