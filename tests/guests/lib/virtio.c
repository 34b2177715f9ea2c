/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio.h"

void set_reg64(const struct device *d, unsigned offset, uint64_t v)
{
    set_reg(d, offset, (uint32_t)v);
    set_reg(d, offset + 4, (uint32_t)(v >> 32));
}

unsigned devices_all(struct device *ret, unsigned max)
{
    unsigned count = 0;

    for (unsigned slot = 0; slot < VIRTIO_SLOTS && count < max; slot++) {
        uint64_t base = VIRTIO_BASE + slot * VIRTIO_STEP;

        if (mmio_read32(base) != VIRTIO_MAGIC)
            continue;
        ret[count] = (struct device){.base = base, .slot = slot, .id = mmio_read32(base + R_DEVICE_ID)};
        CHECK_EQ(mmio_read32(base + R_VERSION), 2);
        count += ret[count].id != 0;
    }
    return count;
}

bool device_try(struct device *ret, uint32_t id, unsigned nth)
{
    struct device all[VIRTIO_SLOTS];
    unsigned count = devices_all(all, VIRTIO_SLOTS);

    for (unsigned i = 0; i < count; i++) {
        if (all[i].id == id && nth-- == 0) {
            *ret = all[i];
            return true;
        }
    }
    return false;
}

struct device device_find(uint32_t id, unsigned nth)
{
    struct device d;

    if (!device_try(&d, id, nth))
        FAIL("there is no device %u of kind %u", (uint64_t)nth, (uint64_t)id);
    return d;
}

bool device_reset(struct device *d)
{
    set_reg(d, R_STATUS, 0);
    return WAIT_UNTIL(reg(d, R_STATUS) == 0, 5);
}

void device_begin(struct device *d, uint64_t features)
{
    CHECK(device_reset(d));
    set_reg(d, R_STATUS, S_ACKNOWLEDGE);
    set_reg(d, R_STATUS, S_ACKNOWLEDGE | S_DRIVER);
    set_reg(d, R_DEVICE_FEATURES_SEL, 0);
    d->offered = reg(d, R_DEVICE_FEATURES);
    set_reg(d, R_DEVICE_FEATURES_SEL, 1);
    d->offered |= (uint64_t)reg(d, R_DEVICE_FEATURES) << 32;
    d->features = features | F_VERSION_1;
    set_reg(d, R_DRIVER_FEATURES_SEL, 0);
    set_reg(d, R_DRIVER_FEATURES, (uint32_t)d->features);
    set_reg(d, R_DRIVER_FEATURES_SEL, 1);
    set_reg(d, R_DRIVER_FEATURES, (uint32_t)(d->features >> 32));
    set_reg(d, R_STATUS, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
    CHECK_EQ(reg(d, R_STATUS), S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
}

static size_t avail_bytes(uint16_t size)
{
    return 6 + 2u * size;
}

static size_t used_bytes(uint16_t size)
{
    return 6 + 8u * size;
}

void queue_memory(struct device *d, unsigned index, uint16_t size)
{
    struct queue *q = &d->queues[index];

    *q = (struct queue){.device = d, .index = index, .size = size};
    q->desc = allocate(sizeof(struct desc) * size, 16);
    q->avail = allocate(avail_bytes(size), 4096); /* pages of their own: a case may put one at the end of RAM */
    q->used = allocate(used_bytes(size), 4096);
}

void queue_clear(struct queue *q)
{
    memset((void *)q->desc, 0, sizeof(struct desc) * q->size);
    memset((void *)q->avail, 0, avail_bytes(q->size));
    memset((void *)q->used, 0, used_bytes(q->size));
    q->avail_idx = q->used_seen = q->next_desc = 0;
}

void queue_tell(const struct queue *q)
{
    set_reg(q->device, R_QUEUE_SEL, q->index);
    set_reg(q->device, R_QUEUE_NUM, q->size);
    set_reg64(q->device, R_QUEUE_DESC, (uint64_t)q->desc);
    set_reg64(q->device, R_QUEUE_DRIVER, (uint64_t)q->avail);
    set_reg64(q->device, R_QUEUE_DEVICE, (uint64_t)q->used);
    set_reg(q->device, R_QUEUE_READY, 1);
}

void device_go(struct device *d)
{
    set_reg(d, R_STATUS, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK);
}

void device_set_up(struct device *d, uint64_t features, unsigned count, uint16_t size)
{
    device_begin(d, features);
    for (unsigned i = 0; i < count; i++) {
        if (d->queues[i].size == size)
            queue_clear(&d->queues[i]);
        else
            queue_memory(d, i, size);
        d->queues[i].device = d;
        queue_tell(&d->queues[i]);
    }
    device_go(d);
}

void device_start(struct device *d, uint64_t features, unsigned count, uint16_t size)
{
    device_set_up(d, features, count, size);
    CHECK_EQ(reg(d, R_STATUS), S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK);
}

uint16_t queue_chain(struct queue *q, const struct buffer *buffers, unsigned count)
{
    uint16_t head = q->next_desc;

    for (unsigned i = 0; i < count; i++) {
        uint16_t at = q->next_desc;

        q->next_desc = (uint16_t)((at + 1) % q->size);
        q->desc[at].addr = (uint64_t)buffers[i].at;
        q->desc[at].len = buffers[i].len;
        q->desc[at].flags = (uint16_t)((buffers[i].write ? D_WRITE : 0) | (i + 1 < count ? D_NEXT : 0));
        q->desc[at].next = q->next_desc;
    }
    return head;
}

void queue_offer(struct queue *q, uint16_t head)
{
    q->avail[2 + q->avail_idx % q->size] = head;
    q->avail_idx++;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    q->avail[1] = q->avail_idx;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void queue_kick(struct queue *q)
{
    set_reg(q->device, R_QUEUE_NOTIFY, q->index);
}

bool queue_used(const struct queue *q)
{
    return q->used[1] != q->used_seen;
}

bool queue_take(struct queue *q, unsigned seconds, uint16_t *ret_head, uint32_t *ret_len)
{
    const volatile uint16_t *element;

    if (!WAIT_UNTIL(queue_used(q), seconds))
        return false;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    element = q->used + 2 + 4u * (q->used_seen % q->size);
    *ret_head = element[0];
    *ret_len = (uint32_t)(element[2] | (uint32_t)element[3] << 16);
    q->used_seen++;
    return true;
}

uint32_t queue_do(struct queue *q, const struct buffer *buffers, unsigned count)
{
    uint16_t head = queue_chain(q, buffers, count), back = 0;
    uint32_t len = 0;

    queue_offer(q, head);
    queue_kick(q);
    if (!queue_take(q, 20, &back, &len))
        FAIL("queue %u of device %u does not answer; its status is 0x%x", (uint64_t)q->index, (uint64_t)q->device->id,
                (uint64_t)reg(q->device, R_STATUS));
    CHECK_EQ(back, head);
    return len;
}
