/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"

#define POLYNOMIAL 0x82f63b78u /* reversed */

/* Four bits at a time: 64 bytes of table, made by the compiler's own arithmetic, and fast enough for kilobytes. */
#define BIT(c)    (((c) >> 1) ^ (((c)&1u) ? POLYNOMIAL : 0u))
#define NIBBLE(n) BIT(BIT(BIT(BIT((uint32_t)(n)))))

static const uint32_t table[16] = {NIBBLE(0), NIBBLE(1), NIBBLE(2), NIBBLE(3), NIBBLE(4), NIBBLE(5), NIBBLE(6),
        NIBBLE(7), NIBBLE(8), NIBBLE(9), NIBBLE(10), NIBBLE(11), NIBBLE(12), NIBBLE(13), NIBBLE(14), NIBBLE(15)};

uint32_t crc32c(uint32_t before, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint32_t crc = ~before;

    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        crc = (crc >> 4) ^ table[crc & 15];
        crc = (crc >> 4) ^ table[crc & 15];
    }
    return ~crc;
}
