/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growable text of the CLI, and what makes foreign bytes printable.
 *
 * Running out of memory ends the program with status 125 (text_oom): there is
 * nothing sensible left to print, and a VM that `run` started is tied to the
 * process and goes with it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define CLI_PRINTF(fmt, arg) __attribute__((format(gnu_printf, fmt, arg)))
#else
#define CLI_PRINTF(fmt, arg) __attribute__((format(printf, fmt, arg)))
#endif
#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

struct text {
    char *data; /* NUL-terminated once something was put; NULL before */
    size_t len, size;
};

void text_deinit(struct text *t); /* also for __attribute__((cleanup)) */
void text_put(struct text *t, const void *data, size_t len);
void text_puts(struct text *t, const char *s);
void text_putc(struct text *t, char c);
void text_printf(struct text *t, const char *fmt, ...) CLI_PRINTF(2, 3);
const char *text_str(const struct text *t); /* never NULL */

__attribute__((noreturn)) void text_oom(void);
void *text_alloc(size_t count, size_t size); /* zeroed; never NULL */
void *text_realloc(void *p, size_t count, size_t size);
char *text_dup(const char *s, size_t len);

/*
 * Length in bytes of the UTF-8 sequence at s (RFC 3629: no overlong forms, no
 * surrogates, at most U+10FFFF), or 0 when there is none.
 */
size_t text_utf8(const char *s, size_t len);
bool text_is_utf8(const char *s, size_t len);

enum text_escape {
    TEXT_ONE_LINE,   /* newlines and tabs are escaped too: table cells, error lines */
    TEXT_MANY_LINES, /* newlines and tabs stay, "\r\n" becomes "\n": logs */
};
/* Appends src with every byte that is not printable ASCII as \xNN, so that a guest can't drive the terminal. */
void text_put_escaped(struct text *t, const char *src, size_t len, enum text_escape mode);
void text_put_base64(struct text *t, const void *data, size_t len);

/* Edit distance (insertions, deletions, replacements, swaps of neighbours) is small enough to be a typing mistake. */
bool text_is_close(const char *typed, const char *known, size_t *ret_distance);
