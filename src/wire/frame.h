/* SPDX-License-Identifier: Apache-2.0 */
/* Inside src/wire only: how encoders open and close a frame, and each type's payload limits. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "wire/wire.h"

/* False for a type that does not exist. */
bool frame_limit(unsigned type, uint32_t *ret_max);

/* Writes the header and returns where the frame begins, for frame_end(). */
size_t frame_begin(struct buf *b, enum wire_type type);
/* Fills in the length. A frame over its limit, or any earlier error, is taken back and leaves the buf's error set. */
void frame_end(struct buf *b, size_t start);
