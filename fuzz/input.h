/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzzer's input as a source of numbers; zeros when it is used up. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct input {
    const uint8_t *p;
    size_t left;
};

static inline uint8_t byte(struct input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->p++;
}

static inline uint16_t word(struct input *in)
{
    uint16_t low = byte(in);

    return (uint16_t)(low | byte(in) << 8);
}
