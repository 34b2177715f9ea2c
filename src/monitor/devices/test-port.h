/* SPDX-License-Identifier: Apache-2.0 */
/* A device behind I/O ports, as a vCPU sees it: its registers and its interrupt line. Tests only. */
#pragma once

#include "base/test.h"
#include "monitor/bus.h"
#include "monitor/devices/irq.h"

static struct bus_range range;
static unsigned raises;

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

static void count_raise(void *userdata, uint32_t pin)
{
    raises++;
}

static const struct irq_line irq = {.raise = count_raise};

/* Since the last time. */
static bool raised(void)
{
    bool any = raises > 0;

    raises = 0;
    return any;
}
