/* SPDX-License-Identifier: Apache-2.0 */
/* A device behind I/O ports, as a vCPU sees it: its registers and its interrupt line. Tests only. */
#pragma once

#include <unistd.h>

#include "base/test.h"
#include "monitor/bus.h"

static struct bus_range range;
static int irq; /* eventfd, non-blocking */

static uint8_t in(unsigned reg)
{
    uint8_t v;

    range.read(range.device, reg, &v, 1);
    return v;
}

static void out(unsigned reg, uint8_t v)
{
    range.write(range.device, reg, &v, 1);
}

/* Since the last time. */
static bool raised(void)
{
    uint64_t n;

    return read(irq, &n, sizeof(n)) == sizeof(n);
}
