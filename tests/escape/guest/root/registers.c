/* SPDX-License-Identifier: Apache-2.0 */
/* Registers in every width and order, requests that the disk must refuse, and what a balloon could be told. */
#include "root.h"

#include <string.h>
#include <unistd.h>

#define REGISTERS "registers"
#define DISK      "disk"
#define BALLOON   "balloon"

enum {
    BLK_IN = 0,
    BLK_OUT = 1,
    BLK_FLUSH = 4,
    BLK_GET_ID = 8,
    BLK_DISCARD = 11,
    BLK_WRITE_ZEROES = 13,
    BLK_ERASE = 14
};

static uint64_t edge(void)
{
    static const uint64_t edges[] = {0, 1, 2, 4, 15, 64, 0x7f, 0xff, 0xffff, 0x10000, 0x7fffffff, 0x80000000,
            0xffffffff, 0xfffffffffffffff8, UINT64_MAX};

    return random32() % 2 ? edges[random32() % ARRAY_SIZE(edges)] : (uint64_t)random32() << 32 | random32();
}

/* Reads, and sometimes writes, `width` bytes. */
static void touch(volatile uint8_t *at, unsigned width, bool write)
{
    uint64_t v = edge();

    switch (width) {
    case 1:
        v = write ? (*at = (uint8_t)v) : *at;
        break;
    case 2:
        v = write ? (*(volatile uint16_t *)at = (uint16_t)v) : *(volatile uint16_t *)at;
        break;
    case 4:
        v = write ? (*(volatile uint32_t *)at = (uint32_t)v) : *(volatile uint32_t *)at;
        break;
    default:
        v = write ? (*(volatile uint64_t *)at = v) : *(volatile uint64_t *)at;
        break;
    }
}

/* `from`: below it only aligned words; a random status would leave the rest without effect most of the time. */
static void fuzz(struct device *d, unsigned from, unsigned times)
{
    unsigned size = d->window.size - 8;

    for (unsigned i = 0; i < times; i++) {
        unsigned offset = from + random32() % (size - from), width = 1u << random32() % 4;

        touch(d->regs + (random32() % 8 ? offset & ~(width - 1) : offset), width, random32() % 3);
        if (i % 64 == 0)
            device_start(d, edge());
    }
}

static void fuzz_words(struct device *d, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        touch(d->regs + random32() % (R_CONFIG / 4) * 4, 4, random32() % 3);
        if (i % 32 == 0)
            device_start(d, edge());
    }
}

void attack_registers(struct devices *all)
{
    for (unsigned n = 0; n < all->count; n++) {
        struct device *d = &all->list[n];
        static const char *const names[] = {"each width at each place", "words in any order",
                "a queue that is not there", "configuration space", "kicks before the start", "a reset in each state"};

        for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
            if (!try(REGISTERS, "%s: %s", d->name, names[i]))
                continue;
            switch (i) {
            case 0:
                fuzz(d, 0, 20000);
                break;
            case 1:
                fuzz_words(d, 8000);
                break;
            case 2:
                for (unsigned bit = 0; bit < 32; bit++) {
                    set_reg(d, R_QUEUE_SEL, 1u << bit | 8);
                    set_reg(d, R_QUEUE_NUM, 8);
                    set_reg64(d, R_QUEUE_DESC, d->page.gpa);
                    set_reg(d, R_QUEUE_READY, 1);
                    set_reg(d, R_QUEUE_NOTIFY, 1u << bit | 8);
                }
                break;
            case 3:
                fuzz(d, R_CONFIG, 8000);
                break;
            case 4:
                set_reg(d, R_STATUS, 0);
                for (unsigned k = 0; k < 1000; k++)
                    set_reg(d, R_QUEUE_NOTIFY, k % 5);
                break;
            default:
                for (unsigned k = 0; k < 256; k++) {
                    set_reg(d, R_STATUS, k);
                    set_reg(d, R_QUEUE_NOTIFY, k % 3);
                    set_reg(d, R_STATUS, 0);
                }
            }
            if (device_works(d))
                did(BY_SILENCE);
            else
                got("does not work after a reset");
        }
    }
}

/* -- disk */

struct request {
    const char *name;
    uint32_t type;
    uint64_t sector;
    uint32_t bytes;
    const char *if_done; /* what it means that the disk says it did it; NULL: it got through */
};

static const struct request requests[] = {
        {"write", BLK_OUT, 0, 512, NULL},
        {"write at the end", BLK_OUT, UINT64_MAX, 512, NULL},
        {"write of one byte", BLK_OUT, 0, 1, NULL},
        /* A hint, which QEMU says yes to and does nothing about; the test compares the image. */
        {"discard", BLK_DISCARD, 0, 16, BY_SILENCE},
        {"write zeroes", BLK_WRITE_ZEROES, 0, 16, NULL},
        {"secure erase", BLK_ERASE, 0, 16, NULL},
        {"SCSI command", 2, 0, 512, NULL},
        {"unknown type", UINT32_MAX, 0, 512, NULL},
        {"write with the old barrier bit", BLK_OUT | 1u << 31, 0, 512, NULL},
        {"read at sector 2^63", BLK_IN, 1ull << 63, 512, NULL},
        {"read at sector 2^55", BLK_IN, 1ull << 55, 512, NULL},
        {"read at sector 2^64-1", BLK_IN, UINT64_MAX, 512, NULL},
        {"read behind the end", BLK_IN, 1ull << 40, 512, NULL},
        {"read of 511 bytes", BLK_IN, 0, 511, NULL},
        {"flush", BLK_FLUSH, 0, 512, BY_ANSWER},
        {"identity into one byte", BLK_GET_ID, 0, 1, BY_ANSWER},
};

static void ask_disk(struct device *d, const struct request *r)
{
    struct queue *q = &d->queue[0];
    bool writes = r->type == BLK_IN || r->type == BLK_GET_ID;
    uint16_t head;
    uint32_t len;

    if (!try(DISK, "%s", r->name))
        return;
    if (!device_start(d, UINT64_MAX & ~F_EVENT_IDX)) { /* whatever is offered, as DISCARD */
        got("the device does not start again");
        return;
    }
    memset(d->page.at, 0, PAGE);
    memcpy(d->page.at, &r->type, 4);
    memcpy(d->page.at + 8, &r->sector, 8);
    d->page.at[16] = 0xff;
    d->page.at[512] = 2; /* discard and write zeroes: the file system's superblock */
    d->page.at[512 + 8] = 1;
    q->desc[0] = (struct desc){d->page.gpa, 16, D_NEXT, 1};
    q->desc[1] = (struct desc){d->page.gpa + 512, r->bytes, (uint16_t)(D_NEXT | (writes ? D_WRITE : 0)), 2};
    q->desc[2] = (struct desc){d->page.gpa + 16, 1, D_WRITE, 0};
    queue_offer(q, 0);
    kick(d, 0);
    if (!queue_take(d, 0, 5000, &head, &len))
        did(reg(d, R_STATUS) & S_NEEDS_RESET ? BY_RESET : BY_SILENCE);
    else if (d->page.at[16] != 0)
        did(BY_REFUSAL);
    else if (r->if_done)
        did(r->if_done);
    else
        got("the disk says that it did it");
}

void attack_disk(struct devices *all)
{
    struct device *d = devices_find(all, ID_BLOCK);

    if (!d)
        fail("no block device");
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
        ask_disk(d, &requests[i]);
}

/* -- balloon: pages that are not the guest's to give, or twice, or without end */

void attack_balloon(struct devices *all)
{
    static const struct {
        const char *name;
        uint32_t first, step;
    } gifts[] = {{"pages beyond RAM", 0x80000, 1}, {"page 2^32-1", UINT32_MAX, 0},
            {"one page again and again", 0x700, 0}, {"pages of the registers", 0xc0001, 1}};
    struct device *d = devices_find(all, ID_BALLOON);

    for (size_t i = 0; i < ARRAY_SIZE(gifts); i++) {
        if (!d) {
            not_made(BALLOON, gifts[i].name, "this VM has no balloon");
            continue;
        }
        for (unsigned queue = 0; queue < 2; queue++) {
            uint16_t head;
            uint32_t len;

            if (!try(BALLOON, "queue %u: %s", queue, gifts[i].name))
                continue;
            if (!device_start(d, 0)) {
                got("the device does not start again");
                continue;
            }
            for (uint32_t k = 0; k < PAGE / 4; k++)
                ((uint32_t *)d->page.at)[k] = gifts[i].first + k * gifts[i].step;
            d->queue[queue].desc[0] = (struct desc){d->page.gpa, PAGE, 0, 0};
            queue_offer(&d->queue[queue], 0);
            kick(d, queue);
            did(queue_take(d, queue, 1000, &head, &len) ? BY_REFUSAL
                    : reg(d, R_STATUS) & S_NEEDS_RESET  ? BY_RESET
                                                        : BY_SILENCE);
        }
    }
}
