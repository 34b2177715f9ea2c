/* SPDX-License-Identifier: Apache-2.0 */
/* A driver for the block device, one request at a time (virtio 1.2 §5.2). */
#pragma once

#include "lib/virtio.h"

enum { BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4, BLK_GET_ID = 8, BLK_DISCARD = 11, BLK_WRITE_ZEROES = 13 };
#define BLK_F_RO           (1ull << 5)
#define BLK_F_FLUSH        (1ull << 9)
#define BLK_F_DISCARD      (1ull << 13)
#define BLK_F_WRITE_ZEROES (1ull << 14)

struct blk_request {
    uint32_t type, reserved;
    uint64_t sector;
};

struct disk {
    struct device d;
    struct queue *q;
    uint64_t sectors;
    struct blk_request *request;
    volatile uint8_t *status;
};

static inline uint64_t disk_sectors(const struct device *d)
{
    return reg(d, R_CONFIG) | (uint64_t)reg(d, R_CONFIG + 4) << 32;
}

/* The nth drive, with its driver started. */
static inline struct disk *disk_open(unsigned nth, uint64_t features)
{
    struct disk *disk = allocate(sizeof(*disk), 16);

    disk->d = device_find(ID_BLOCK, nth);
    device_start(&disk->d, features, 1, 128);
    disk->q = &disk->d.queues[0];
    disk->sectors = disk_sectors(&disk->d);
    disk->request = allocate(sizeof(*disk->request), 16);
    disk->status = allocate(1, 1);
    return disk;
}

/* 0, or the device's status: 1 IOERR, 2 UNSUPP. */
static inline uint8_t disk_do(struct disk *disk, uint32_t type, uint64_t sector, void *data, uint32_t len)
{
    struct buffer b[3];
    unsigned n = 0;

    *disk->request = (struct blk_request){.type = type, .sector = sector};
    *disk->status = 0xff;
    b[n++] = (struct buffer){disk->request, 16, false};
    if (len)
        b[n++] = (struct buffer){data, len, type != BLK_OUT};
    b[n++] = (struct buffer){disk->status, 1, true};
    queue_do(disk->q, b, n);
    return *disk->status;
}

static inline uint8_t disk_discard(struct disk *disk, uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
    struct {
        uint64_t sector;
        uint32_t count, flags;
    } segment = {sector, count, flags};
    struct buffer b[] = {{disk->request, 16, false}, {&segment, sizeof(segment), false}, {disk->status, 1, true}};

    *disk->request = (struct blk_request){.type = type};
    *disk->status = 0xff;
    queue_do(disk->q, b, 3);
    return *disk->status;
}
