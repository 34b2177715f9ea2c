/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a guest's port or MMIO access to the device that claims the range.
 *
 * Ranges are added before the first vCPU runs and never change afterwards, so
 * that vCPU threads look them up without a lock; a device locks itself. An
 * access is 1, 2, 4 or 8 bytes and lies whole inside its range, else it is
 * treated as if nothing were there: reads give all ones, writes are lost.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define BUS_MAX_RANGES 32u

struct bus_range {
    uint64_t base, size;
    /* Called on a vCPU thread. `offset` + `len` lie inside the range; data is in guest byte order. */
    void (*read)(void *device, uint64_t offset, uint8_t *data, uint32_t len);
    void (*write)(void *device, uint64_t offset, const uint8_t *data, uint32_t len);
    void *device;
};

struct bus {
    struct bus_range ranges[BUS_MAX_RANGES];
    size_t count;
};

/* -EINVAL: empty or wraps; -EEXIST: overlaps; -ENOSPC. */
int bus_add(struct bus *bus, const struct bus_range *range);
void bus_read(const struct bus *bus, uint64_t at, uint8_t *data, uint32_t len);
void bus_write(const struct bus *bus, uint64_t at, const uint8_t *data, uint32_t len);
