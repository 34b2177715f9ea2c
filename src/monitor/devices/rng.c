/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng: getrandom(2) straight into the guest's buffers, from a bucket
 * that fills at RNG_BYTES_PER_SECOND. While it is empty no chain is taken;
 * the driver simply waits. A chain may be filled in part (virtio 1.2 §5.4.6).
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/macro.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/mmio.h"

#define QUEUE_SIZE   64u
#define BATCH        16u    /* chains, */
#define CHAIN_MAX    16384u /* and bytes of each */
#define BUCKET_BYTES (RNG_BYTES_PER_SECOND / 8)
#define BYTES_PER_MS (RNG_BYTES_PER_SECOND / 1000)
#define REFILL_MS    20u

struct rng {
    struct virtio_device dev;
    struct virtio_mmio *mmio;
    struct loop *loop;
    struct loop_timer refill;
    uint64_t filled_at; /* ms */
    uint32_t tokens;    /* bytes */
    struct vq_chain chain;
};

static void refill(struct rng *rng)
{
    uint64_t now = clock_now_ms(), passed = MIN(now - rng->filled_at, (uint64_t)1000);

    rng->tokens = (uint32_t)MIN(rng->tokens + passed * BYTES_PER_MS, (uint64_t)BUCKET_BYTES);
    rng->filled_at = now;
}

/* At most `max` bytes; what it could fill. */
static uint32_t fill(const struct vq_chain *chain, uint32_t max)
{
    uint32_t done = 0;

    for (size_t i = 0; i < chain->writable_count && done < max; i++) {
        size_t want = MIN(chain->writable[i].iov_len, (size_t)(max - done));
        ssize_t n = getrandom(chain->writable[i].iov_base, want, 0);

        done += n > 0 ? (uint32_t)n : 0;
        if (n < (ssize_t)want)
            break; /* a signal */
    }
    return done;
}

static bool rng_run(struct virtio_device *dev, unsigned index)
{
    struct rng *rng = CONTAINER_OF(dev, struct rng, dev);
    bool more = true;

    refill(rng);
    for (unsigned n = 0; n < BATCH && more; n++) {
        uint32_t filled;

        more = rng->tokens > 0 && virtio_next(dev, 0, &rng->chain) == VQ_CHAIN;
        if (!more)
            break;
        filled = fill(&rng->chain, MIN(rng->tokens, CHAIN_MAX));
        rng->tokens -= filled;
        vq_push(&dev->queues[0], rng->chain.head, filled);
    }
    if (rng->tokens == 0 && !rng->refill.armed)
        loop_arm(rng->loop, &rng->refill, deadline_after_ms(REFILL_MS));
    virtio_signal_used(dev, 0);
    return !virtio_check_fault(dev, 0) && more;
}

static const struct virtio_device_ops rng_ops = {.run = rng_run};

static int refill_due(struct loop_timer *timer)
{
    virtio_mmio_run(CONTAINER_OF(timer, struct rng, refill)->mmio);
    return 0;
}

int rng_new(struct rng **ret, struct loop *loop, struct vm_error *error)
{
    struct rng *rng = calloc(1, sizeof(*rng));

    if (!rng)
        return vm_fail(error, -ENOMEM, "entropy device: no memory");
    rng->loop = loop;
    rng->refill.expired = refill_due;
    rng->tokens = BUCKET_BYTES;
    rng->filled_at = clock_now_ms();
    rng->dev = (struct virtio_device){
            .ops = &rng_ops, .name = "rng", .id = VIRTIO_ID_RNG, .queue_count = 1, .queue_size_max = QUEUE_SIZE};
    *ret = rng;
    return 0;
}

void rng_free(struct rng *rng)
{
    if (!rng)
        return;
    loop_disarm(rng->loop, &rng->refill);
    free(rng);
}

struct virtio_device *rng_device(struct rng *rng)
{
    return &rng->dev;
}

void rng_connect(struct rng *rng, struct virtio_mmio *mmio)
{
    rng->mmio = mmio;
}
