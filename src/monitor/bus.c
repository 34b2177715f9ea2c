/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/bus.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"

int bus_add(struct bus *bus, const struct bus_range *range)
{
    uint64_t end;

    if (range->size == 0 || add_overflows(range->base, range->size, &end))
        return -EINVAL;
    for (size_t i = 0; i < bus->count; i++) {
        const struct bus_range *other = &bus->ranges[i];

        if (range->base < other->base + other->size && other->base < end)
            return -EEXIST;
    }
    if (bus->count == BUS_MAX_RANGES)
        return -ENOSPC;
    bus->ranges[bus->count++] = *range;
    return 0;
}

static const struct bus_range *find(const struct bus *bus, uint64_t at, uint32_t len)
{
    for (size_t i = 0; i < bus->count; i++) {
        const struct bus_range *range = &bus->ranges[i];

        if (at >= range->base && at - range->base < range->size)
            return len <= range->size - (at - range->base) ? range : NULL;
    }
    return NULL;
}

void bus_read(const struct bus *bus, uint64_t at, uint8_t *data, uint32_t len)
{
    const struct bus_range *range = find(bus, at, len);

    memset(data, 0xff, len);
    if (range && range->read)
        range->read(range->device, at - range->base, data, len);
}

void bus_write(const struct bus *bus, uint64_t at, const uint8_t *data, uint32_t len)
{
    const struct bus_range *range = find(bus, at, len);

    if (range && range->write)
        range->write(range->device, at - range->base, data, len);
}
