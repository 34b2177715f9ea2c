/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtqueue under a hostile driver. The input is a script: writes into guest
 * memory, rings included, mixed with the device's calls. Guest memory is two
 * heap blocks, so that a view that is off by one is seen by ASan.
 */
#include <string.h>

#include "base/macro.h"
#include "fuzz.h"
#include "input.h"
#include "virtio/virtqueue.h"

#define HALF    0x2000u
#define BASE    0x1000u /* guest address of the first byte */
#define DESC    0x0u    /* the rings, relative to BASE */
#define AVAIL   0x1000u
#define USED    0x1800u
#define MAX_OPS 512

enum op {
    OP_WRITE,
    OP_POP,
    OP_PUSH,
    OP_UNPOP,
    OP_KICKS_OFF,
    OP_KICKS_ON,
    OP_SIGNAL,
    OP_TAKE,
    OP_SPLIT,
    OP_RESTART,
    OP_COUNT_,
};

struct machine {
    uint8_t *halves[2];
    struct gmem mem;
    struct virtqueue vq;
    struct vq_config config;
    bool has_chain, popped_last;
    unsigned outstanding;
};

static struct vq_chain chain;

static bool inside(const struct machine *m, const struct iovec *iov)
{
    for (size_t i = 0; i < 2; i++) {
        const uint8_t *from = iov->iov_base;

        if (from >= m->halves[i] && from < m->halves[i] + HALF && iov->iov_len <= (size_t)(m->halves[i] + HALF - from))
            return true;
    }
    return false;
}

static void check_views(const struct machine *m, struct iovec *iov, size_t count, uint32_t bytes, bool write)
{
    volatile uint8_t sink = 0;
    uint64_t total = 0;

    for (size_t i = 0; i < count; i++) {
        const uint8_t *view = iov[i].iov_base;

        FUZZ_CHECK(iov[i].iov_len > 0 && inside(m, &iov[i]));
        sink = (uint8_t)(sink + view[0] + view[iov[i].iov_len - 1]);
        if (write)
            ((uint8_t *)iov[i].iov_base)[iov[i].iov_len - 1] = 0x5a;
        total += iov[i].iov_len;
    }
    FUZZ_CHECK(total == bytes);
}

static void pop(struct machine *m)
{
    int r = vq_pop(&m->vq, &chain);

    FUZZ_CHECK(r == VQ_EMPTY || r == VQ_CHAIN || r == VQ_BROKEN);
    FUZZ_CHECK((r == VQ_BROKEN) == (m->vq.fault != VQ_FAULT_NONE));
    m->has_chain = m->popped_last = r == VQ_CHAIN;
    if (!m->has_chain)
        return;
    FUZZ_CHECK(chain.head < m->config.size);
    FUZZ_CHECK(chain.readable_count + chain.writable_count <= VQ_MAX_CHAIN);
    check_views(m, chain.readable, chain.readable_count, chain.readable_bytes, false);
    check_views(m, chain.writable, chain.writable_count, chain.writable_bytes, true);
}

static void start(struct machine *m, uint16_t next_avail)
{
    m->config.next_avail = next_avail;
    m->has_chain = m->popped_last = false;
    if (vq_start(&m->vq, &m->mem, &m->config) < 0)
        FUZZ_CHECK(!m->vq.started);
}

static void write_memory(struct machine *m, struct input *in)
{
    uint16_t at = word(in);
    uint8_t len = byte(in) % 32;

    for (uint8_t i = 0; i < len; i++) {
        size_t to = (size_t)(at + i) % (2 * HALF);

        m->halves[to / HALF][to % HALF] = byte(in);
    }
}

static void step(struct machine *m, enum op op, struct input *in)
{
    uint8_t bytes[256];
    struct iovec head[64];
    uint32_t n;

    switch (op) {
    case OP_WRITE:
        write_memory(m, in);
        break;
    case OP_POP:
        pop(m);
        break;
    case OP_PUSH:
        if (m->has_chain)
            vq_push(&m->vq, chain.head, word(in));
        m->has_chain = m->popped_last = false;
        break;
    case OP_UNPOP:
        if (m->popped_last)
            vq_unpop(&m->vq);
        m->has_chain = m->popped_last = false;
        break;
    case OP_KICKS_OFF:
        vq_disable_kicks(&m->vq);
        break;
    case OP_KICKS_ON:
        (void)vq_enable_kicks(&m->vq);
        break;
    case OP_SIGNAL:
        (void)vq_should_signal(&m->vq);
        break;
    case OP_TAKE:
        n = byte(in);
        if (m->has_chain && vq_chain_take(&chain, bytes, n))
            check_views(m, chain.readable, chain.readable_count, chain.readable_bytes, false);
        break;
    case OP_SPLIT:
        n = byte(in) % ARRAY_SIZE(head);
        if (!m->has_chain || vq_chain_split(&chain, n, head, ARRAY_SIZE(head)) == 0)
            break;
        memset(bytes, 0xa5, n);
        vq_scatter(head, bytes, n);
        check_views(m, chain.writable, chain.writable_count, chain.writable_bytes, true);
        break;
    case OP_RESTART:
        start(m, word(in));
        break;
    case OP_COUNT_:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.p = data, .left = size};
    struct machine m = {0};
    uint8_t flags = byte(&in);

    for (size_t i = 0; i < 2; i++) {
        m.halves[i] = aligned_alloc(4096, HALF);
        if (!m.halves[i])
            abort();
        memset(m.halves[i], 0, HALF);
        if (gmem_add(&m.mem, (struct gpa){BASE + i * HALF}, HALF, m.halves[i]) < 0)
            abort();
    }
    m.config = (struct vq_config){.size = (uint16_t)(1u << (flags & 7)),
            .desc = {BASE + DESC},
            .avail = {BASE + AVAIL},
            .used = {BASE + USED},
            .indirect = flags & 8,
            .event_idx = flags & 16};
    if (flags & 32) /* rings anywhere: most of these don't start */
        m.config.used.v = word(&in);
    start(&m, (flags & 64) ? word(&in) : 0);
    for (int i = 0; i < MAX_OPS && in.left > 0; i++)
        step(&m, byte(&in) % OP_COUNT_, &in);
    vq_stop(&m.vq);
    for (size_t i = 0; i < 2; i++)
        free(m.halves[i]);
    return 0;
}
