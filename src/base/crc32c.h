/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C (Castagnoli, RFC 3720 §B.4), for files of ours that may be torn or
 * have rotted. It finds accidents; who writes such a file on purpose makes
 * the sum fit, so what it covers is checked all the same.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The sum over more bytes: start with 0 and hand back what came before. */
uint32_t crc32c(uint32_t before, const void *data, size_t len);
