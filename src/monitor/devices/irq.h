/* SPDX-License-Identifier: Apache-2.0 */
/* A device's interrupt line, at the end that the device has in its hands: it can raise an edge, and learns nothing. */
#pragma once

#include <stdint.h>

struct irq_line {
    /* On any thread, with any lock of the device held; does not wait. */
    void (*raise)(void *userdata, uint32_t pin);
    void *userdata;
    uint32_t pin;
};

static inline void irq_raise(const struct irq_line *line)
{
    line->raise(line->userdata, line->pin);
}
