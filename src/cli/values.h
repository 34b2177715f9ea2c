/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values that people type (durations, memory sizes, counts, NAME=value) and
 * values shown to people. Parsers accept the whole string or nothing and
 * return 0 or -EINVAL (not such a value) or -ERANGE (too large).
 */
#pragma once

#include "cli/text.h"

int value_parse_u64(const char *s, uint64_t max, uint64_t *ret);
/* "10s", "500ms", "2m", "1h", "1.5s"; a bare number is seconds; "0" is none. At most UINT32_MAX milliseconds. */
int value_parse_duration_ms(const char *s, uint32_t *ret_ms);
/* "256" (MiB), "512m", "1g", also "512M", "512MiB", "1.5g"; "k" and "b" only when they make whole MiB. */
int value_parse_memory_mib(const char *s, uint32_t *ret_mib);

/* "500" (bytes), "64k", "10m", "1.5g"; at most UINT32_MAX. "0" is none. */
int value_parse_bytes(const char *s, uint32_t *ret_bytes);

/* "12.3 MiB" */
void value_format_bytes(uint64_t bytes, char ret[32]);
/* "3 minutes ago" style of age; `now` and `then` in Unix ms; then == 0 gives "". */
void value_format_age(int64_t now_ms, int64_t then_ms, char ret[32]);
/* "850 ms", "12.3 s", "4 min 10 s", "3 h 2 min" */
void value_format_duration(uint64_t ms, char ret[32]);
