/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings that no driver would make, on each queue of each device: chains, rings and sizes, as tables. After each the
 * device has to be reset and to work.
 */
#include "root.h"

#include <string.h>
#include <unistd.h>

#define GROUP   "rings"
#define WAIT_MS 25u

/* Where an address counts from. */
enum base { ABSOLUTE, BUFFER, TABLE, DESC, AVAIL, USED, REGISTERS, RAM_END };

struct address {
    enum base base;
    int64_t offset;
};

struct link {
    struct address at;
    uint32_t len;
    uint16_t flags, next;
};

/* Descriptors and what the available ring says: `jump` chains, each with this head. */
struct spoil {
    const char *name;
    struct link desc[3], table[3];
    uint16_t head;
    int jump;
};

#define CHAIN_TO(to) .desc = {{{BUFFER, 0}, 512, D_NEXT, to}}
#define BUFFER_AT(base, offset, len)                                                                                   \
    .desc = {{{BUFFER, 0}, 16, D_NEXT, 1}, {{base, offset}, len, D_NEXT | D_WRITE, 2}, {{BUFFER, 512}, 1, D_WRITE, 0}}
#define READ_AT(base, offset, len) .desc = {{{base, offset}, len, 0, 0}}
#define INDIRECT_AT(base, offset, len, more)                                                                           \
    .desc = {{{base, offset}, len, D_INDIRECT | (more), 1}, {{BUFFER, 0}, 16, 0, 0}}

static const struct spoil spoils[] = {
        {"a descriptor that is its own next", CHAIN_TO(0)},
        {"a loop of two", .desc = {{{BUFFER, 0}, 512, D_NEXT | D_WRITE, 1}, {{BUFFER, 0}, 512, D_NEXT | D_WRITE, 0}}},
        {"next outside of the table", CHAIN_TO(QUEUE_SIZE)},
        {"next far outside", CHAIN_TO(0xffff)},
        {"head outside of the table", CHAIN_TO(1), .head = QUEUE_SIZE},
        {"head far outside", CHAIN_TO(1), .head = 0xffff},
        {"index ahead by more than the ring", CHAIN_TO(1), .jump = QUEUE_SIZE + 1},
        {"index ahead by half of all", CHAIN_TO(1), .jump = 0x8000},
        {"index backwards", CHAIN_TO(1), .jump = -1},
        {"one chain offered as often as the ring is long", READ_AT(BUFFER, 0, 16), .jump = QUEUE_SIZE},
        {"readable after writable", .desc = {{{BUFFER, 0}, 512, D_NEXT | D_WRITE, 1}, {{BUFFER, 0}, 512, 0, 0}}},
        {"unknown flags", .desc = {{{BUFFER, 0}, 512, 0xfff8, 0}}},
        {"no bytes", .desc = {{{BUFFER, 0}, 0, D_NEXT, 1}, {{BUFFER, 0}, 0, D_WRITE, 0}}},
        {"writes beyond RAM", BUFFER_AT(RAM_END, 1 << 20, 512)},
        {"writes across the end of RAM", BUFFER_AT(RAM_END, -256, 512)},
        {"writes up to 2^64", BUFFER_AT(ABSOLUTE, -512, 512)},
        {"writes over 2^64", BUFFER_AT(ABSOLUTE, -16, 512)},
        {"writes 2^32-1 bytes", BUFFER_AT(BUFFER, 0, UINT32_MAX)},
        {"writes 2^31 bytes at 0", BUFFER_AT(ABSOLUTE, 0, 1u << 31)},
        {"writes into the ROM", BUFFER_AT(ABSOLUTE, 0xfffffe00, 512)},
        {"writes into its own registers", BUFFER_AT(REGISTERS, 0, 512)},
        {"writes into the interrupt controller", BUFFER_AT(ABSOLUTE, 0xfec00000, 512)},
        {"writes into its own rings", .desc = {{{BUFFER, 0}, 16, D_NEXT, 1}, {{DESC, 0}, 512, D_NEXT | D_WRITE, 2},
                                              {{USED, 0}, 64, D_WRITE, 0}}},
        {"reads beyond RAM", READ_AT(RAM_END, 1 << 20, 64)},
        {"reads across the end of RAM", READ_AT(RAM_END, -32, 64)},
        {"reads over 2^64", READ_AT(ABSOLUTE, -16, 64)},
        {"reads 2^32-1 bytes", READ_AT(BUFFER, 0, UINT32_MAX)},
        {"reads its own registers", READ_AT(REGISTERS, 0, 64)},
        {"bytes that add up to 2^32 and more",
                .desc = {{{ABSOLUTE, 0}, 0x7fffffff, D_NEXT | D_WRITE, 1},
                        {{ABSOLUTE, 0}, 0x7fffffff, D_NEXT | D_WRITE, 2}, {{ABSOLUTE, 0}, 0x7fffffff, D_WRITE, 0}}},
        {"indirect table beyond RAM", INDIRECT_AT(RAM_END, 4096, 64, 0)},
        {"indirect table across the end of RAM", INDIRECT_AT(RAM_END, -16, 64, 0)},
        {"indirect table over 2^64", INDIRECT_AT(ABSOLUTE, -16, 64, 0)},
        {"indirect table in its registers", INDIRECT_AT(REGISTERS, 0, 64, 0)},
        {"indirect table in the rings", INDIRECT_AT(DESC, 0, 1024, 0)},
        {"indirect table in the used ring", INDIRECT_AT(USED, 0, 64, 0)},
        {"indirect table of 17 bytes", INDIRECT_AT(TABLE, 0, 17, 0)},
        {"indirect table of no bytes", INDIRECT_AT(TABLE, 0, 0, 0)},
        {"indirect table of 2^32-16 bytes", INDIRECT_AT(TABLE, 0, 0xfffffff0, 0)},
        {"indirect table at an odd address", INDIRECT_AT(TABLE, 7, 64, 0), .table = {{{BUFFER, 0}, 16, 0, 0}}},
        {"indirect and next", INDIRECT_AT(TABLE, 0, 16, D_NEXT), .table = {{{BUFFER, 0}, 16, 0, 0}}},
        {"indirect in an indirect table", INDIRECT_AT(TABLE, 0, 32, 0), .table = {{{TABLE, 0}, 32, D_INDIRECT, 0}}},
        {"indirect table with a loop", INDIRECT_AT(TABLE, 0, 32, 0),
                .table = {{{BUFFER, 0}, 16, D_NEXT, 1}, {{BUFFER, 0}, 16, D_NEXT, 0}}},
        {"indirect table whose next is outside", INDIRECT_AT(TABLE, 0, 32, 0), .table = {{{BUFFER, 0}, 16, D_NEXT, 2}}},
};

/* A queue that is told to be here. */
struct place {
    const char *name;
    struct address desc, avail, used;
    uint32_t size; /* 0: the right one */
};

#define RIGHT                                                                                                          \
    {DESC, 0}, {AVAIL, 0},                                                                                             \
    {                                                                                                                  \
        USED, 0                                                                                                        \
    }

static const struct place places[] = {
        {"rings beyond RAM", {RAM_END, 4096}, {RAM_END, 8192}, {RAM_END, 12288}, 0},
        {"rings across the end of RAM", {RAM_END, -16}, {AVAIL, 0}, {USED, 0}, 0},
        {"available ring across the end of RAM", {DESC, 0}, {RAM_END, -4}, {USED, 0}, 0},
        {"used ring across the end of RAM", {DESC, 0}, {AVAIL, 0}, {RAM_END, -4}, 0},
        {"rings at 2^64-16", {ABSOLUTE, -16}, {ABSOLUTE, -16}, {ABSOLUTE, -16}, 0},
        {"rings at odd addresses", {DESC, 1}, {AVAIL, 1}, {USED, 1}, 0},
        {"rings in its registers", {REGISTERS, 0}, {REGISTERS, 256}, {REGISTERS, 0}, 0},
        {"used ring in the interrupt controller", {DESC, 0}, {AVAIL, 0}, {ABSOLUTE, 0xfec00000}, 0},
        {"all rings in one place", {DESC, 0}, {DESC, 0}, {DESC, 0}, 0},
        {"used ring in the ROM", {DESC, 0}, {AVAIL, 0}, {ABSOLUTE, 0xfffff000}, 0},
        {"size 3", RIGHT, 3},
        {"size 2^16-1", RIGHT, 0xffff},
        {"size 2^31", RIGHT, 1u << 31},
        {"size 2^32-1", RIGHT, UINT32_MAX},
};

static uint64_t resolve(const struct device *d, const struct queue *q, struct address a)
{
    const uint64_t bases[] = {
            [ABSOLUTE] = 0,
            [BUFFER] = d->page.gpa,
            [TABLE] = d->table.gpa,
            [DESC] = q->desc_gpa,
            [AVAIL] = q->avail_gpa,
            [USED] = q->used_gpa,
            [REGISTERS] = d->window.at,
            [RAM_END] = ram_end(),
    };

    return bases[a.base] + (uint64_t)a.offset;
}

static struct desc link_to_desc(const struct device *d, const struct queue *q, const struct link *l)
{
    return (struct desc){resolve(d, q, l->at), l->len, l->flags, l->next};
}

/* The vsock device looks into its first queue only when it has an answer, to a packet in the second. */
static void have_it_served(struct device *d, unsigned index)
{
    static const uint32_t request[11] = {3, 0, 2, 0, 9, 9, 0, 1u | 1u << 16, 0, 4096, 0};
    struct queue *tx = &d->queue[1];

    kick(d, index);
    if (d->id != ID_VSOCK || index != 0)
        return;
    memcpy(d->page.at + 1024, request, sizeof(request));
    tx->desc[0] = (struct desc){d->page.gpa + 1024, sizeof(request), 0, 0};
    queue_offer(tx, 0);
    kick(d, 1);
}

static const char *outcome(struct device *d, unsigned index)
{
    uint16_t head;
    uint32_t len;
    bool answered = queue_take(d, index, WAIT_MS, &head, &len);

    if (reg(d, R_STATUS) & S_NEEDS_RESET)
        return BY_RESET;
    if (!answered)
        return BY_SILENCE;
    /* A block request that was answered without an I/O error would have read the disk to where it was told. */
    return len > 1 ? BY_ANSWER : BY_REFUSAL;
}

static void spoil_chain(struct device *d, unsigned index, const struct spoil *s, uint64_t features)
{
    struct queue *q = &d->queue[index];

    if (!device_start(d, features)) {
        got("the device does not start again");
        return;
    }
    memset(d->page.at, 0, PAGE);
    for (unsigned i = 0; i < ARRAY_SIZE(s->desc); i++) {
        q->desc[i] = link_to_desc(d, q, &s->desc[i]);
        ((struct desc *)d->table.at)[i] = link_to_desc(d, q, &s->table[i]);
    }
    for (unsigned i = 0; i < q->size; i++)
        q->avail[2 + i] = s->head;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    q->avail[1] = (uint16_t)(q->avail[1] + (s->jump ? s->jump : 1));
    have_it_served(d, index);
    did(outcome(d, index));
}

/* Version 1 has one address for all rings, in pages of a size that the driver names. */
static void tell_version_1(struct device *d, const struct queue *q, const struct place *p)
{
    uint64_t at = resolve(d, q, p->desc);

    set_reg(d, R_QUEUE_ALIGN, p->used.base == USED ? QUEUE_USED : 1u << 31);
    set_reg(d, R_PAGE_SIZE, at < 1ull << 32 ? 1 : 1u << 31);
    set_reg(d, R_QUEUE_PFN, (uint32_t)(at < 1ull << 32 ? at : at >> 31));
}

static void tell_version_2(struct device *d, const struct queue *q, const struct place *p)
{
    set_reg64(d, R_QUEUE_DESC, resolve(d, q, p->desc));
    set_reg64(d, R_QUEUE_DRIVER, resolve(d, q, p->avail));
    set_reg64(d, R_QUEUE_DEVICE, resolve(d, q, p->used));
    set_reg(d, R_QUEUE_READY, 1);
}

static void spoil_place(struct device *d, unsigned index, const struct place *p)
{
    struct queue *q = &d->queue[index];

    if (!device_begin(d, 0)) {
        got("the device does not start again");
        return;
    }
    for (unsigned i = 0; i < d->queue_count; i++)
        queue_tell(d, i);
    q->desc[0] = (struct desc){d->page.gpa, 16, D_WRITE, 0};
    q->avail[1] = 1;
    set_reg(d, R_QUEUE_SEL, index);
    set_reg(d, R_QUEUE_READY, 0);
    if (p->size)
        set_reg(d, R_QUEUE_NUM, p->size);
    (d->version_1 ? tell_version_1 : tell_version_2)(d, q, p);
    set_reg(d, R_STATUS, 15);
    have_it_served(d, index);
    did(outcome(d, index));
}

/* Descriptors that change while the device looks at them. */
static void flip(struct device *d, unsigned index)
{
    struct queue *q = &d->queue[index];
    uint64_t end = now_us() + 300000;

    if (!try(GROUP, "%s queue %u: descriptors that change all the time", d->name, index))
        return;
    while (now_us() < end) {
        if (!device_start(d, F_INDIRECT | F_EVENT_IDX)) {
            got("the device does not start again");
            return;
        }
        for (unsigned i = 0; i < q->size; i++)
            queue_offer(q, (uint16_t)(i % 4));
        kick(d, index);
        for (unsigned i = 0; i < 2000; i++) {
            volatile struct desc *to = &q->desc[random32() % 4];

            to->len = random32() % 3 ? 64 : UINT32_MAX;
            to->addr = random32() % 3 ? d->page.gpa : ram_end() - 32;
            to->flags = (uint16_t)(random32() % 8);
            to->next = (uint16_t)(random32() % 5);
            q->avail[1] = (uint16_t)(q->avail[1] + random32() % 2);
        }
    }
    did(outcome(d, index));
}

void attack_queues(struct devices *all)
{
    for (unsigned n = 0; n < all->count; n++) {
        struct device *d = &all->list[n];

        for (unsigned i = 0; i < d->queue_count; i++) {
            for (size_t s = 0; s < ARRAY_SIZE(spoils); s++) {
                if (try(GROUP, "%s queue %u: %s", d->name, i, spoils[s].name))
                    spoil_chain(d, i, &spoils[s], s % 2 ? F_INDIRECT | F_EVENT_IDX : 0);
            }
            for (size_t s = 0; s < ARRAY_SIZE(places); s++) {
                if (try(GROUP, "%s queue %u: %s", d->name, i, places[s].name))
                    spoil_place(d, i, &places[s]);
            }
            flip(d, i);
        }
        if (!try(GROUP, "%s: out of work for good", d->name))
            continue;
        if (device_works(d))
            did(BY_RESET);
        else
            got("does not work after a reset");
    }
}
