/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line per event, to one descriptor (stderr unless told). Programs log;
 * libironclaw does not: it reports through struct ic_error.
 *
 * Text from a guest must go through log_escape() first, so that a guest can
 * neither forge lines nor drive the reader's terminal.
 */
#pragma once

#include <stddef.h>

#include "base/macro.h"

enum log_level {
    LOG_ERROR,
    LOG_WARN,
    LOG_INFO,
    LOG_DEBUG,
};

#define LOG_LINE_MAX 1024 /* bytes; longer lines are cut */

void log_init(const char *program, enum log_level max_level, int fd);
void log_msg(enum log_level level, const char *fmt, ...) _printf_(2, 3);

/* Copies src with control and non-ASCII bytes as \xNN; always NUL-terminates; cuts at size. Returns dst. */
const char *log_escape(char *dst, size_t size, const void *src, size_t len);

/* At most `burst` events per second for one source; true when this one may be logged. */
struct log_limit {
    unsigned long second;
    unsigned count, burst, dropped;
};
bool log_allowed(struct log_limit *limit);
