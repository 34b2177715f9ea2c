/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/devices/mmio.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macro.h"
#include "monitor/layout.h"

/* Registers, virtio 1.2 §4.2.2. */
#define MAGIC_VALUE         0x000u
#define VERSION             0x004u
#define DEVICE_ID           0x008u
#define VENDOR_ID           0x00cu
#define DEVICE_FEATURES     0x010u
#define DEVICE_FEATURES_SEL 0x014u
#define DRIVER_FEATURES     0x020u
#define DRIVER_FEATURES_SEL 0x024u
#define QUEUE_SEL           0x030u
#define QUEUE_NUM_MAX       0x034u
#define QUEUE_NUM           0x038u
#define QUEUE_READY         0x044u
#define QUEUE_NOTIFY        VIRTIO_MMIO_QUEUE_NOTIFY
#define INTERRUPT_STATUS    0x060u
#define INTERRUPT_ACK       0x064u
#define STATUS              0x070u
#define QUEUE_DESC          0x080u /* these three: low half, then high half */
#define QUEUE_DRIVER        0x090u
#define QUEUE_DEVICE        0x0a0u
#define SHM_SEL             0x0acu
#define SHM_LEN_LOW         0x0b0u
#define SHM_BASE_HIGH       0x0bcu
#define CONFIG_GENERATION   0x0fcu
#define CONFIG              0x100u

#define MAGIC  0x74726976u /* "virt" */
#define VENDOR 0x43724649u /* "IFrC": free for anybody to choose */

/* Device status, virtio 1.2 §2.1. */
#define S_ACKNOWLEDGE 1u
#define S_DRIVER      2u
#define S_DRIVER_OK   4u
#define S_FEATURES_OK 8u
#define S_NEEDS_RESET 0x40u
#define S_FAILED      0x80u
#define S_DRIVER_SETS (S_ACKNOWLEDGE | S_DRIVER | S_DRIVER_OK | S_FEATURES_OK) /* and FAILED */

#define INTERRUPT_USED   1u
#define INTERRUPT_CONFIG 2u

#define LOG_BURST 4u   /* lines per second that a driver can cause, */
#define LOG_LINES 200u /* and in the life of the VM */

#define BIT(n)             (1ull << (n))
#define TRANSPORT_FEATURES (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_INDIRECT_DESC) | BIT(VIRTIO_F_EVENT_IDX))

static uint64_t offered(const struct virtio_mmio *mmio)
{
    return mmio->dev->features | TRANSPORT_FEATURES;
}

static void raise_interrupt(struct virtio_mmio *mmio, uint32_t bit)
{
    (void)__atomic_fetch_or(&mmio->interrupt_status, bit, __ATOMIC_SEQ_CST);
    irq_raise(&mmio->irq);
}

static void interrupt(struct virtio_device *dev, bool config_changed)
{
    raise_interrupt(dev->transport, config_changed ? INTERRUPT_CONFIG : INTERRUPT_USED);
}

/* From here on nothing runs and nothing is written to the guest. */
static void quiesce(struct virtio_mmio *mmio)
{
    mmio->dev->live = false;
    for (unsigned i = 0; i < mmio->dev->queue_count; i++)
        vq_stop(&mmio->dev->queues[i]);
}

static bool may_log(struct virtio_mmio *mmio)
{
    if (mmio->log_lines == LOG_LINES || !log_allowed(&mmio->log_limit))
        return false;
    if (++mmio->log_lines == LOG_LINES)
        log_msg(LOG_WARN, "%s: its driver caused %u messages; this is the last one:", mmio->dev->name, LOG_LINES);
    return true;
}

static void fail(struct virtio_device *dev, const char *why)
{
    struct virtio_mmio *mmio = dev->transport;
    bool was_live = dev->live;

    if (mmio->status & (S_NEEDS_RESET | S_FAILED))
        return;
    quiesce(mmio);
    mmio->status |= S_NEEDS_RESET;
    if (may_log(mmio))
        log_msg(LOG_WARN, "%s: %s; stopped until the driver resets it", dev->name, why);
    if (was_live)
        raise_interrupt(mmio, INTERRUPT_CONFIG);
}

static void note(struct virtio_mmio *mmio, const char *what, uint64_t offset, uint64_t value)
{
    if (may_log(mmio))
        log_msg(LOG_WARN, "%s: %s at register 0x%llx (0x%llx): ignored", mmio->dev->name, what,
                (unsigned long long)offset, (unsigned long long)value);
}

static void reset(struct virtio_mmio *mmio)
{
    struct virtio_device *dev = mmio->dev;

    quiesce(mmio);
    memset(dev->queues, 0, sizeof(dev->queues));
    memset(mmio->queues, 0, sizeof(mmio->queues));
    for (unsigned i = 0; i < dev->queue_count; i++)
        mmio->queues[i].size = dev->queue_size_max;
    mmio->status = mmio->device_features_sel = mmio->driver_features_sel = mmio->queue_sel = 0;
    dev->driver_features = 0;
    mmio->run_all = false;
    __atomic_store_n(&mmio->interrupt_status, 0, __ATOMIC_SEQ_CST);
    if (dev->ops->reset)
        dev->ops->reset(dev);
}

/* next_avail: where each goes on; NULL: all at the beginning. */
static int start_queues(struct virtio_mmio *mmio, const uint16_t *next_avail)
{
    struct virtio_device *dev = mmio->dev;
    int r = 0;

    for (unsigned i = 0; r == 0 && i < dev->queue_count; i++) {
        const struct virtio_mmio_queue *q = &mmio->queues[i];
        struct vq_config config = {.size = q->size,
                .desc = {q->desc},
                .avail = {q->avail},
                .used = {q->used},
                .next_avail = next_avail ? next_avail[i] : 0,
                .indirect = dev->driver_features & BIT(VIRTIO_F_INDIRECT_DESC),
                .event_idx = dev->driver_features & BIT(VIRTIO_F_EVENT_IDX)};

        if (q->ready)
            r = vq_start(&dev->queues[i], mmio->mem, &config);
    }
    return r;
}

static void activate(struct virtio_mmio *mmio)
{
    struct virtio_device *dev = mmio->dev;

    if (start_queues(mmio, NULL) < 0) {
        fail(dev, "a ring is not in guest memory");
        return;
    }
    dev->live = true;
    if (dev->ops->activate)
        dev->ops->activate(dev);
    /* Chains that were offered before DRIVER_OK, whose kicks were lost. */
    mmio->run_all = true;
    fd_signal(mmio->kicks[0].source.fd);
}

/* A step is legal when all steps before it were taken (virtio 1.2 §3.1.1). */
static bool in_order(uint32_t status)
{
    return (!(status & S_DRIVER) || (status & S_ACKNOWLEDGE)) && (!(status & S_FEATURES_OK) || (status & S_DRIVER)) &&
           (!(status & S_DRIVER_OK) || (status & S_FEATURES_OK));
}

static bool acceptable(const struct virtio_mmio *mmio)
{
    uint64_t features = mmio->dev->driver_features;

    return !(features & ~offered(mmio)) && (features & BIT(VIRTIO_F_VERSION_1));
}

static void write_status(struct virtio_mmio *mmio, uint32_t value)
{
    struct virtio_device *dev = mmio->dev;
    uint32_t old = mmio->status;
    bool legal;

    if (value == 0) {
        reset(mmio);
        return;
    }
    if (value & S_FAILED) {
        quiesce(mmio);
        mmio->status |= S_FAILED;
        return;
    }
    if (old & (S_FAILED | S_NEEDS_RESET))
        return;
    legal = !(value & ~S_DRIVER_SETS) && !(old & ~value) && in_order(value);
    if (legal && (value & ~old & S_FEATURES_OK) && !acceptable(mmio)) {
        note(mmio, "refused features", STATUS, dev->driver_features);
        value &= ~S_FEATURES_OK; /* the driver reads this back */
        legal = in_order(value);
    }
    if (!legal) {
        char why[64];

        (void)snprintf(why, sizeof(why), "driver wrote status 0x%x after 0x%x", value, old);
        fail(dev, why);
        return;
    }
    mmio->status = value;
    if (value & ~old & S_DRIVER_OK)
        activate(mmio);
}

static void write_half(uint64_t *whole, bool high, uint32_t value)
{
    *whole = high ? (*whole & 0xffffffffull) | (uint64_t)value << 32 : (*whole & ~0xffffffffull) | value;
}

static void write_driver_features(struct virtio_mmio *mmio, uint32_t value)
{
    if (mmio->status & (S_FAILED | S_NEEDS_RESET))
        return;
    if (mmio->status & S_FEATURES_OK)
        fail(mmio->dev, "driver changed features after FEATURES_OK");
    else if (mmio->driver_features_sel < 2)
        write_half(&mmio->dev->driver_features, mmio->driver_features_sel, value);
    else if (value != 0)
        fail(mmio->dev, "driver set features past bit 63");
}

static void write_ready(struct virtio_mmio *mmio, struct virtio_mmio_queue *q, uint32_t value)
{
    /* Stopping is legal in every state: drivers do it when they are removed, also after the reset. */
    if (value == 0) {
        vq_stop(&mmio->dev->queues[mmio->queue_sel]);
        q->ready = false;
    } else if ((mmio->status & (S_FEATURES_OK | S_DRIVER_OK)) != S_FEATURES_OK) {
        fail(mmio->dev, "driver started a queue outside of FEATURES_OK to DRIVER_OK");
    } else {
        q->ready = true;
    }
}

static void write_queue(struct virtio_mmio *mmio, uint64_t reg, uint32_t value)
{
    struct virtio_mmio_queue *q = mmio->queue_sel < mmio->dev->queue_count ? &mmio->queues[mmio->queue_sel] : NULL;
    uint64_t *address = NULL;

    if (q && (reg & ~4ull) == QUEUE_DESC)
        address = &q->desc;
    else if (q && (reg & ~4ull) == QUEUE_DRIVER)
        address = &q->avail;
    else if (q && (reg & ~4ull) == QUEUE_DEVICE)
        address = &q->used;
    if (!address && (!q || (reg != QUEUE_NUM && reg != QUEUE_READY)))
        note(mmio, "write", reg, value);
    else if (mmio->status & (S_FAILED | S_NEEDS_RESET))
        return;
    else if (reg == QUEUE_READY)
        write_ready(mmio, q, value);
    else if (q->ready || (mmio->status & (S_FEATURES_OK | S_DRIVER_OK)) != S_FEATURES_OK)
        fail(mmio->dev, "driver set up a queue that runs, or outside of FEATURES_OK to DRIVER_OK");
    else if (address)
        write_half(address, reg & 4, value);
    else if (value == 0 || value > mmio->dev->queue_size_max || (value & (value - 1)))
        fail(mmio->dev, "queue size is not a power of two up to QueueNumMax");
    else
        q->size = (uint16_t)value;
}

static void write_register(struct virtio_mmio *mmio, uint64_t reg, uint32_t value)
{
    switch (reg) {
    case STATUS:
        write_status(mmio, value);
        break;
    case DEVICE_FEATURES_SEL:
        mmio->device_features_sel = value;
        break;
    case DRIVER_FEATURES_SEL:
        mmio->driver_features_sel = value;
        break;
    case QUEUE_SEL:
        mmio->queue_sel = value;
        break;
    case SHM_SEL: /* every region reads as absent */
        break;
    case DRIVER_FEATURES:
        write_driver_features(mmio, value);
        break;
    default:
        write_queue(mmio, reg, value);
    }
}

static void write_config(struct virtio_mmio *mmio, uint64_t offset, const uint8_t *data, uint32_t len)
{
    const struct virtio_device *dev = mmio->dev;

    if (!dev->ops->write_config || offset >= dev->config_size || len > dev->config_size - offset)
        note(mmio, "write of config space", CONFIG + offset, len);
    else if ((mmio->status & S_DRIVER) && !(mmio->status & (S_FAILED | S_NEEDS_RESET)))
        dev->ops->write_config(mmio->dev, (uint32_t)offset, data, len);
}

static void mmio_write(void *device, uint64_t offset, const uint8_t *data, uint32_t len)
{
    struct virtio_mmio *mmio = device;
    uint32_t value = 0;

    if (len == 4)
        memcpy(&value, data, sizeof(value));
    if (offset == INTERRUPT_ACK && len == 4) {
        (void)__atomic_fetch_and(&mmio->interrupt_status, ~value, __ATOMIC_SEQ_CST);
        return;
    }
    if (offset == QUEUE_NOTIFY && len == 4 && value < mmio->dev->queue_count) {
        fd_signal(mmio->kicks[value].source.fd);
        return;
    }
    virtio_mmio_lock(mmio);
    if (offset >= CONFIG)
        write_config(mmio, offset - CONFIG, data, len);
    else if (len == 4)
        write_register(mmio, offset, value);
    else
        note(mmio, "write of a wrong size", offset, len);
    virtio_mmio_unlock(mmio, false);
}

static uint32_t read_register(struct virtio_mmio *mmio, uint64_t reg)
{
    const struct virtio_device *dev = mmio->dev;

    switch (reg) {
    case MAGIC_VALUE:
        return MAGIC;
    case VERSION:
        return 2;
    case DEVICE_ID:
        return dev->id;
    case VENDOR_ID:
        return VENDOR;
    case DEVICE_FEATURES:
        return mmio->device_features_sel < 2 ? (uint32_t)(offered(mmio) >> (32 * mmio->device_features_sel)) : 0;
    case QUEUE_NUM_MAX:
        return mmio->queue_sel < dev->queue_count ? dev->queue_size_max : 0;
    case QUEUE_READY:
        return mmio->queue_sel < dev->queue_count && mmio->queues[mmio->queue_sel].ready;
    case STATUS:
        return mmio->status;
    case CONFIG_GENERATION:
        return mmio->config_generation;
    default:
        break;
    }
    if (reg >= SHM_LEN_LOW && reg <= SHM_BASE_HIGH && reg % 4 == 0)
        return UINT32_MAX; /* §4.2.2.1: a length of -1 is no region */
    note(mmio, "read", reg, 4);
    return 0;
}

static void mmio_read(void *device, uint64_t offset, uint8_t *data, uint32_t len)
{
    struct virtio_mmio *mmio = device;
    const struct virtio_device *dev = mmio->dev;
    uint32_t value;

    memset(data, 0, len);
    if (offset == INTERRUPT_STATUS && len == 4) {
        value = __atomic_load_n(&mmio->interrupt_status, __ATOMIC_SEQ_CST);
        memcpy(data, &value, sizeof(value));
        return;
    }
    virtio_mmio_lock(mmio);
    if (offset >= CONFIG) {
        offset -= CONFIG;
        if (offset < dev->config_size && len <= dev->config_size - offset)
            memcpy(data, dev->config + offset, len);
        else
            note(mmio, "read of config space", CONFIG + offset, len);
    } else if (len == 4) {
        value = read_register(mmio, offset);
        memcpy(data, &value, sizeof(value));
    } else {
        note(mmio, "read of a wrong size", offset, len);
    }
    virtio_mmio_unlock(mmio, false);
}

/* Once, and by way of the loop if there is more: other sources get their turn in between. With the lock. */
static void serve(struct virtio_mmio *mmio, unsigned index)
{
    struct virtio_device *dev = mmio->dev;

    if (!dev->live || !dev->ops->run(dev, index) || !dev->live)
        return;
    mmio->run_all = mmio->run_all || index == VIRTIO_ALL_QUEUES;
    fd_signal(mmio->kicks[index == VIRTIO_ALL_QUEUES ? 0 : index].source.fd);
}

static int kicked(struct loop_fd *source, uint32_t events)
{
    struct virtio_mmio_kick *kick = CONTAINER_OF(source, struct virtio_mmio_kick, source);
    struct virtio_mmio *mmio = kick->mmio;
    unsigned index = kick->index;
    uint64_t count;

    if (read(source->fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    virtio_mmio_lock(mmio);
    if (mmio->run_all)
        index = VIRTIO_ALL_QUEUES;
    mmio->run_all = false;
    serve(mmio, index);
    virtio_mmio_unlock(mmio, false);
    return 0;
}

int virtio_mmio_init(struct virtio_mmio *mmio, struct virtio_device *dev, const struct gmem *mem, struct irq_line irq,
        struct loop *loop)
{
    int r;

    *mmio = (struct virtio_mmio){.dev = dev,
            .mem = mem,
            .loop = loop,
            .lock = PTHREAD_MUTEX_INITIALIZER,
            .irq = irq,
            .log_limit.burst = LOG_BURST};
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
        mmio->kicks[i] = (struct virtio_mmio_kick){
                .source = {.fd = -1, .events = EPOLLIN, .ready = kicked}, .mmio = mmio, .index = i};
    dev->transport = mmio;
    dev->interrupt = interrupt;
    dev->fail = fail;
    reset(mmio);
    for (unsigned i = 0; i < dev->queue_count; i++) {
        struct loop_fd *source = &mmio->kicks[i].source;

        source->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (source->fd < 0 || loop_add(loop, source) < 0)
            goto failed;
    }
    return 0;
failed:
    r = -errno;
    virtio_mmio_deinit(mmio);
    return r;
}

void virtio_mmio_deinit(struct virtio_mmio *mmio)
{
    if (!mmio->dev)
        return;
    quiesce(mmio);
    for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
        loop_remove(mmio->loop, &mmio->kicks[i].source);
        fd_close(mmio->kicks[i].source.fd);
    }
    (void)pthread_mutex_destroy(&mmio->lock);
    *mmio = (struct virtio_mmio){0};
}

struct bus_range virtio_mmio_range(struct virtio_mmio *mmio, uint64_t base)
{
    return (struct bus_range){
            .base = base, .size = LAYOUT_VIRTIO_STEP, .read = mmio_read, .write = mmio_write, .device = mmio};
}

void virtio_mmio_run(struct virtio_mmio *mmio)
{
    virtio_mmio_lock(mmio);
    serve(mmio, VIRTIO_ALL_QUEUES);
    virtio_mmio_unlock(mmio, false);
}

void virtio_mmio_lock(struct virtio_mmio *mmio)
{
    (void)pthread_mutex_lock(&mmio->lock);
}

void virtio_mmio_unlock(struct virtio_mmio *mmio, bool config_changed)
{
    if (config_changed) {
        mmio->config_generation++;
        if (mmio->dev->live)
            raise_interrupt(mmio, INTERRUPT_CONFIG);
    }
    (void)pthread_mutex_unlock(&mmio->lock);
}

/* ---- snapshots ---- */

void virtio_mmio_save(struct virtio_mmio *mmio, struct buf *buf)
{
    const struct virtio_device *dev = mmio->dev;

    buf_put_le32(buf, dev->id);
    buf_put_le32(buf, mmio->status);
    buf_put_le32(buf, __atomic_load_n(&mmio->interrupt_status, __ATOMIC_SEQ_CST));
    buf_put_le32(buf, mmio->config_generation);
    buf_put_le32(buf, mmio->device_features_sel);
    buf_put_le32(buf, mmio->driver_features_sel);
    buf_put_le32(buf, mmio->queue_sel);
    buf_put_le64(buf, dev->driver_features);
    buf_put_le32(buf, dev->queue_count);
    for (unsigned i = 0; i < dev->queue_count; i++) {
        const struct virtio_mmio_queue *q = &mmio->queues[i];

        buf_put_le32(buf, q->ready);
        buf_put_le32(buf, q->size);
        buf_put_le32(buf, dev->queues[i].next_avail);
        buf_put_le32(buf, 0);
        buf_put_le64(buf, q->desc);
        buf_put_le64(buf, q->avail);
        buf_put_le64(buf, q->used);
    }
    if (dev->ops->save)
        dev->ops->save(mmio->dev, buf);
}

static int load_queues(struct virtio_mmio *mmio, struct rd *rd, uint16_t *ret_next_avail, struct vm_error *error)
{
    const struct virtio_device *dev = mmio->dev;
    uint32_t count = rd_le32(rd);

    if (!rd->failed && count != dev->queue_count)
        return vm_fail(error, -EBADMSG, "%s: %u queues, %u are possible", dev->name, count, dev->queue_count);
    for (unsigned i = 0; i < dev->queue_count; i++) {
        struct virtio_mmio_queue *q = &mmio->queues[i];
        uint32_t ready = rd_le32(rd), size = rd_le32(rd), next = rd_le32(rd), zero = rd_le32(rd);

        q->desc = rd_le64(rd);
        q->avail = rd_le64(rd);
        q->used = rd_le64(rd);
        if (rd->failed)
            return -EBADMSG;
        if (ready > 1 || size == 0 || size > dev->queue_size_max || (size & (size - 1)) || next > UINT16_MAX || zero)
            return vm_fail(error, -EBADMSG, "%s: queue %u is impossible (ready %u, size %u, next %u)", dev->name, i,
                    ready, size, next);
        q->ready = ready;
        q->size = (uint16_t)size;
        ret_next_avail[i] = (uint16_t)next;
    }
    return 0;
}

static int check_loaded(const struct virtio_mmio *mmio, struct vm_error *error)
{
    const struct virtio_device *dev = mmio->dev;
    uint64_t missing = dev->driver_features & ~offered(mmio);

    if ((mmio->status & ~(S_DRIVER_SETS | S_NEEDS_RESET | S_FAILED)) || !in_order(mmio->status) ||
            (mmio->interrupt_status & ~(INTERRUPT_USED | INTERRUPT_CONFIG)))
        return vm_fail(error, -EBADMSG, "%s: status 0x%x with interrupts 0x%x is impossible", dev->name, mmio->status,
                mmio->interrupt_status);
    if (!(mmio->status & S_FEATURES_OK) || acceptable(mmio))
        return 0;
    return vm_fail(error, -ENOTSUP,
            "%s: its driver uses features (0x%llx) that the device does not have here; are its files on the same kind "
            "of file system?",
            dev->name, (unsigned long long)missing);
}

int virtio_mmio_load(struct virtio_mmio *mmio, struct rd *rd, struct vm_error *error)
{
    struct virtio_device *dev = mmio->dev;
    uint16_t next_avail[VIRTIO_MAX_QUEUES];
    uint32_t id = rd_le32(rd);
    int r;

    if (!rd->failed && id != dev->id)
        return vm_fail(error, -EBADMSG, "%s: the state is of a device of kind %u, not %u", dev->name, id, dev->id);
    mmio->status = rd_le32(rd);
    mmio->interrupt_status = rd_le32(rd);
    mmio->config_generation = rd_le32(rd);
    mmio->device_features_sel = rd_le32(rd);
    mmio->driver_features_sel = rd_le32(rd);
    mmio->queue_sel = rd_le32(rd);
    dev->driver_features = rd_le64(rd);
    r = load_queues(mmio, rd, next_avail, error);
    if (r == 0)
        r = check_loaded(mmio, error);
    if (r == 0 && (mmio->status & (S_DRIVER_OK | S_NEEDS_RESET | S_FAILED)) == S_DRIVER_OK) {
        if (start_queues(mmio, next_avail) < 0)
            r = vm_fail(error, -EBADMSG, "%s: a ring is not in guest memory", dev->name);
        dev->live = r == 0;
    }
    if (r == 0 && dev->ops->load)
        r = dev->ops->load(dev, rd, error);
    if (r < 0)
        quiesce(mmio);
    return r;
}

void virtio_mmio_go_on(struct virtio_mmio *mmio)
{
    virtio_mmio_lock(mmio);
    if (mmio->dev->live) {
        mmio->run_all = true;
        fd_signal(mmio->kicks[0].source.fd);
    }
    virtio_mmio_unlock(mmio, false);
}
