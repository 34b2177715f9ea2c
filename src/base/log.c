/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

static const char *log_program = "ironclaw";
static enum log_level log_max = LOG_WARN; /* with log_fd changed while other threads log: relaxed atomics */
static int log_fd = STDERR_FILENO;

void log_init(const char *program, enum log_level max_level, int fd)
{
    __atomic_store_n(&log_program, program, __ATOMIC_RELAXED);
    __atomic_store_n(&log_max, max_level, __ATOMIC_RELAXED);
    __atomic_store_n(&log_fd, fd, __ATOMIC_RELAXED);
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[LOG_LINE_MAX];
    int saved = errno, n, m;
    va_list ap;

    if (level > __atomic_load_n(&log_max, __ATOMIC_RELAXED))
        return;
    n = snprintf(line, sizeof(line), "%s: %s: ", __atomic_load_n(&log_program, __ATOMIC_RELAXED), names[level]);
    if (n < 0 || (size_t)n >= sizeof(line) - 1)
        return;
    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
    va_end(ap);
    if (m < 0)
        return;
    n = MIN(n + m, (int)sizeof(line) - 2);
    line[n++] = '\n';
    /* One write, so that lines of several processes do not mix. A log that can't be written is not an error. */
    if (write(__atomic_load_n(&log_fd, __ATOMIC_RELAXED), line, (size_t)n) < 0)
        errno = saved;
    errno = saved;
}

const char *log_escape(char *dst, size_t size, const void *src, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *p = src;
    size_t o = 0;

    if (size == 0)
        return dst;
    for (size_t i = 0; i < len; i++) {
        bool plain = p[i] >= 0x20 && p[i] < 0x7f && p[i] != '\\';

        if (o + (plain ? 1 : 4) >= size)
            break;
        if (plain) {
            dst[o++] = (char)p[i];
        } else {
            dst[o++] = '\\';
            dst[o++] = 'x';
            dst[o++] = hex[p[i] >> 4];
            dst[o++] = hex[p[i] & 15];
        }
    }
    dst[o] = '\0';
    return dst;
}

bool log_allowed(struct log_limit *limit)
{
    unsigned long second = (unsigned long)(clock_now_ms() / 1000);

    if (limit->second != second) {
        limit->second = second;
        limit->count = 0;
    }
    if (limit->count >= limit->burst) {
        limit->dropped++;
        return false;
    }
    limit->count++;
    return true;
}
