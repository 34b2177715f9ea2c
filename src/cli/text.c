/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TYPED_MAX 32 /* longest word that is compared for a suggestion */

void text_oom(void)
{
    (void)fputs("ironclaw: out of memory\n", stderr);
    exit(125);
}

void *text_alloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);

    if (!p)
        text_oom();
    return p;
}

void *text_realloc(void *p, size_t count, size_t size)
{
    size_t bytes;
    void *grown;

    if (__builtin_mul_overflow(count, size, &bytes))
        text_oom();
    grown = realloc(p, bytes ? bytes : 1);
    if (!grown)
        text_oom();
    return grown;
}

char *text_dup(const char *s, size_t len)
{
    char *copy = text_alloc(len + 1, 1);

    memcpy(copy, s, len);
    return copy;
}

void text_deinit(struct text *t)
{
    free(t->data);
    *t = (struct text){0};
}

static void grow(struct text *t, size_t more)
{
    size_t need, size = t->size ? t->size : 64;

    if (__builtin_add_overflow(t->len, more, &need) || __builtin_add_overflow(need, 1, &need))
        text_oom();
    if (need <= t->size)
        return;
    while (size < need) {
        if (__builtin_mul_overflow(size, 2, &size))
            text_oom();
    }
    t->data = text_realloc(t->data, size, 1);
    t->size = size;
}

void text_put(struct text *t, const void *data, size_t len)
{
    grow(t, len);
    if (len)
        memcpy(t->data + t->len, data, len);
    t->len += len;
    t->data[t->len] = '\0';
}

void text_puts(struct text *t, const char *s)
{
    text_put(t, s, strlen(s));
}

void text_putc(struct text *t, char c)
{
    text_put(t, &c, 1);
}

void text_printf(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int len;

    va_start(ap, fmt);
    len = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (len < 0)
        text_oom();
    grow(t, (size_t)len);
    va_start(ap, fmt);
    (void)vsnprintf(t->data + t->len, (size_t)len + 1, fmt, ap);
    va_end(ap);
    t->len += (size_t)len;
}

const char *text_str(const struct text *t)
{
    return t->data ? t->data : "";
}

size_t text_utf8(const char *s, size_t len)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char low = 0x80, high = 0xbf;
    size_t need;

    if (len == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        need = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        need = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        need = 4;
    else
        return 0;
    /* The second byte's range excludes overlong forms, surrogates, and what is above U+10FFFF. */
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    if (len < need || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < need; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf)
            return 0;
    }
    return need;
}

bool text_is_utf8(const char *s, size_t len)
{
    for (size_t i = 0, n; i < len; i += n) {
        n = text_utf8(s + i, len - i);
        if (n == 0)
            return false;
    }
    return true;
}

void text_put_escaped(struct text *t, const char *src, size_t len, enum text_escape mode)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)src[i];

        if (c >= 0x20 && c < 0x7f)
            text_putc(t, (char)c);
        else if (mode == TEXT_MANY_LINES && (c == '\n' || c == '\t'))
            text_putc(t, (char)c);
        else if (mode == TEXT_MANY_LINES && c == '\r' && i + 1 < len && src[i + 1] == '\n')
            continue;
        else
            text_printf(t, "\\x%02x", c);
    }
}

void text_put_base64(struct text *t, const void *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i < 3 ? len - i : 3;
        uint32_t v = (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0u);
        char out[4] = {
                digits[v >> 18], digits[v >> 12 & 63], n > 1 ? digits[v >> 6 & 63] : '=', n > 2 ? digits[v & 63] : '='};

        text_put(t, out, sizeof(out));
    }
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;

    return ab < c ? ab : c;
}

bool text_is_close(const char *typed, const char *known, size_t *ret_distance)
{
    size_t n = strlen(typed), m = strlen(known), distance;
    size_t d[TYPED_MAX + 1][TYPED_MAX + 1];

    if (n == 0 || n > TYPED_MAX || m > TYPED_MAX)
        return false;
    for (size_t i = 0; i <= n; i++)
        d[i][0] = i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            size_t cost = typed[i - 1] == known[j - 1] ? 0 : 1;

            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + cost);
            if (i > 1 && j > 1 && typed[i - 1] == known[j - 2] && typed[i - 2] == known[j - 1] &&
                    d[i - 2][j - 2] + 1 < d[i][j])
                d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    distance = d[n][m];
    /* An unfinished word ("imag") counts as close too. */
    if (distance > 1 + m / 4 && !(n >= 3 && strncmp(typed, known, n) == 0))
        return false;
    *ret_distance = distance;
    return true;
}
