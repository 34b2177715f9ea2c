/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One monotonic clock for every deadline, and the time of day. Deadlines are
 * absolute CLOCK_MONOTONIC milliseconds; DEADLINE_NEVER never passes.
 */
#pragma once

#include <stdint.h>

#define DEADLINE_NEVER UINT64_MAX

uint64_t clock_now_ms(void);
uint64_t clock_now_us(void);
/* The time of day, since 1970, which may be set; for no deadline. */
uint64_t clock_unix_ns(void);

/* timeout_ms == 0 means no limit. */
uint64_t deadline_after_ms(uint64_t timeout_ms);

/* Milliseconds left for poll(2): -1 for never, 0 once passed. */
int deadline_poll_ms(uint64_t deadline);
