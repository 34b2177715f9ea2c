/* SPDX-License-Identifier: Apache-2.0 */
#include "root.h"

#include <string.h>
#include <unistd.h>

#define MAGIC 0x74726976u

enum { S_ACKNOWLEDGE = 1, S_DRIVER = 2, S_DRIVER_OK = 4, S_FEATURES_OK = 8 };

uint32_t reg(const struct device *d, unsigned offset)
{
    return *(volatile uint32_t *)(d->regs + offset);
}

void set_reg(struct device *d, unsigned offset, uint32_t v)
{
    *(volatile uint32_t *)(d->regs + offset) = v;
}

void set_reg64(struct device *d, unsigned offset, uint64_t v)
{
    set_reg(d, offset, (uint32_t)v);
    set_reg(d, offset + 4, (uint32_t)(v >> 32));
}

static const struct {
    uint32_t id;
    unsigned queues;
    const char *name;
} kinds[] = {{ID_BLOCK, 1, "block"}, {ID_RNG, 1, "rng"}, {ID_BALLOON, 2, "balloon"}, {ID_VSOCK, 3, "vsock"}};

bool device_open(struct device *ret, const struct window *window)
{
    struct device d = {.regs = map_registers(window->at), .window = *window};

    if (!d.regs)
        fail("/dev/mem does not map %llx", (unsigned long long)window->at);
    if (reg(&d, R_MAGIC) != MAGIC || (reg(&d, R_VERSION) != 1 && reg(&d, R_VERSION) != 2))
        fail("no virtio-mmio at %llx", (unsigned long long)window->at);
    d.version_1 = reg(&d, R_VERSION) == 1;
    d.id = reg(&d, R_DEVICE_ID);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (kinds[i].id == d.id) {
            d.name = kinds[i].name;
            d.queue_count = kinds[i].queues;
        }
    }
    if (!d.name)
        return false;
    d.page = page_new();
    d.table = page_new();
    for (unsigned i = 0; i < d.queue_count; i++)
        d.queue[i].page = page_new();
    *ret = d;
    return true;
}

struct device *devices_find(struct devices *all, uint32_t id)
{
    for (unsigned i = 0; i < all->count; i++) {
        if (all->list[i].id == id)
            return &all->list[i];
    }
    return NULL;
}

bool device_begin(struct device *d, uint64_t features)
{
    uint64_t offered;

    set_reg(d, R_STATUS, 0);
    for (uint64_t end = now_us() + 2000000; reg(d, R_STATUS) != 0;) {
        if (now_us() > end)
            return false;
        usleep(100);
    }
    set_reg(d, R_STATUS, S_ACKNOWLEDGE | S_DRIVER);
    if (d->version_1)
        set_reg(d, R_PAGE_SIZE, PAGE);
    set_reg(d, R_DEVICE_FEATURES_SEL, 0);
    offered = reg(d, R_DEVICE_FEATURES);
    features &= offered;
    set_reg(d, R_DRIVER_FEATURES_SEL, 0);
    set_reg(d, R_DRIVER_FEATURES, (uint32_t)features);
    set_reg(d, R_DRIVER_FEATURES_SEL, 1);
    set_reg(d, R_DRIVER_FEATURES, 1); /* VERSION_1 */
    set_reg(d, R_STATUS, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
    return reg(d, R_STATUS) & S_FEATURES_OK;
}

void queue_tell(struct device *d, unsigned index)
{
    struct queue *q = &d->queue[index];
    uint32_t max, avail;

    memset(q->page.at, 0, PAGE);
    q->used_seen = 0;
    set_reg(d, R_QUEUE_SEL, index);
    max = reg(d, R_QUEUE_NUM_MAX);
    q->size = (uint16_t)(max < QUEUE_SIZE ? max : QUEUE_SIZE);
    avail = q->size * (uint32_t)sizeof(struct desc);
    q->desc_gpa = q->page.gpa;
    q->avail_gpa = q->page.gpa + avail;
    q->used_gpa = q->page.gpa + QUEUE_USED;
    q->desc = (volatile struct desc *)q->page.at;
    q->avail = (volatile uint16_t *)(q->page.at + avail);
    q->used = (volatile uint16_t *)(q->page.at + QUEUE_USED);
    set_reg(d, R_QUEUE_NUM, q->size);
    if (d->version_1) {
        set_reg(d, R_QUEUE_ALIGN, QUEUE_USED); /* where the used ring begins, behind the others */
        set_reg(d, R_QUEUE_PFN, (uint32_t)(q->page.gpa / PAGE));
        return;
    }
    set_reg64(d, R_QUEUE_DESC, q->desc_gpa);
    set_reg64(d, R_QUEUE_DRIVER, q->avail_gpa);
    set_reg64(d, R_QUEUE_DEVICE, q->used_gpa);
    set_reg(d, R_QUEUE_READY, 1);
}

bool device_start(struct device *d, uint64_t features)
{
    if (!device_begin(d, features))
        return false;
    for (unsigned i = 0; i < d->queue_count; i++)
        queue_tell(d, i);
    set_reg(d, R_STATUS, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK);
    return true;
}

void queue_offer(struct queue *q, uint16_t head)
{
    q->avail[2 + q->avail[1] % q->size] = head;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    q->avail[1]++;
}

void kick(struct device *d, unsigned index)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    set_reg(d, R_QUEUE_NOTIFY, index);
}

bool queue_take(struct device *d, unsigned index, unsigned ms, uint16_t *ret_head, uint32_t *ret_len)
{
    struct queue *q = &d->queue[index];

    for (uint64_t end = now_us() + ms * 1000ull; q->used[1] == q->used_seen;) {
        if (now_us() > end || reg(d, R_STATUS) & S_NEEDS_RESET)
            return false;
        usleep(100);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    volatile uint32_t *entry = (volatile uint32_t *)(q->used + 2) + (size_t)(q->used_seen++ % q->size) * 2;
    *ret_head = (uint16_t)entry[0];
    *ret_len = entry[1];
    return true;
}

/* Block: the first sector. Rng: 16 bytes. Balloon: it takes a page. Vsock: a port where nobody listens is refused. */
bool device_works(struct device *d)
{
    static const uint32_t in[4] = {0};
    static const uint32_t request[11] = {3, 0, 2, 0, 77, 1, 0, 1u | 1u << 16, 0, 4096, 0};
    struct queue *q = &d->queue[0];
    uint64_t page = d->page.gpa;
    uint16_t head;
    uint32_t len;

    if (!device_start(d, 0))
        return false;
    switch (d->id) {
    case ID_BLOCK:
        memcpy(d->page.at, in, sizeof(in));
        d->page.at[16] = 0xff;
        q->desc[0] = (struct desc){page, 16, D_NEXT, 1};
        q->desc[1] = (struct desc){page + 512, 512, D_NEXT | D_WRITE, 2};
        q->desc[2] = (struct desc){page + 16, 1, D_WRITE, 0};
        queue_offer(q, 0);
        kick(d, 0);
        return queue_take(d, 0, 5000, &head, &len) && d->page.at[16] == 0;
    case ID_VSOCK:
        memcpy(d->page.at, request, sizeof(request));
        q->desc[0] = (struct desc){page + 512, 3584, D_WRITE, 0};
        queue_offer(q, 0);
        kick(d, 0);
        d->queue[1].desc[0] = (struct desc){page, sizeof(request), 0, 0};
        queue_offer(&d->queue[1], 0);
        kick(d, 1);
        return queue_take(d, 0, 5000, &head, &len) && len >= 44 && d->page.at[512 + 30] == 3;
    default:
        q->desc[0] = (struct desc){page, 16, d->id == ID_RNG ? D_WRITE : 0, 0};
        queue_offer(q, 0);
        kick(d, 0);
        return queue_take(d, 0, 5000, &head, &len);
    }
}
