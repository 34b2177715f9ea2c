/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/values.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FRACTION_DIGITS_MAX 6

struct unit {
    const char *name;
    uint64_t factor;
};

int value_parse_u64(const char *s, uint64_t max, uint64_t *ret)
{
    uint64_t v = 0;

    if (!*s)
        return -EINVAL;
    for (; *s; s++) {
        if (*s < '0' || *s > '9')
            return -EINVAL;
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return -ERANGE;
    }
    if (v > max)
        return -ERANGE;
    *ret = v;
    return 0;
}

static const struct unit *find_unit(const struct unit *units, const char *name)
{
    for (; units->name; units++) {
        const char *a = units->name, *b = name;

        while (*a && (*a == *b || *a == (*b | 0x20)))
            a++, b++;
        if (!*a && !*b)
            return units;
    }
    return NULL;
}

/* number[.fraction][unit] in the smallest unit; the unit without a name is units' entry "". */
static int parse_scaled(const char *s, const struct unit *units, uint64_t *ret)
{
    char digits[24];
    size_t n = strspn(s, "0123456789");
    uint64_t whole, fraction = 0, scale = 1, result, part;
    const struct unit *unit;
    int r;

    if (n == 0)
        return -EINVAL;
    if (n >= sizeof(digits))
        return -ERANGE;
    memcpy(digits, s, n);
    digits[n] = '\0';
    r = value_parse_u64(digits, UINT64_MAX, &whole);
    if (r < 0)
        return r;
    s += n;
    if (*s == '.') {
        s++;
        for (n = 0; *s >= '0' && *s <= '9'; s++, n++) {
            if (n >= FRACTION_DIGITS_MAX)
                return -EINVAL;
            fraction = fraction * 10 + (uint64_t)(*s - '0');
            scale *= 10;
        }
        if (n == 0)
            return -EINVAL;
    }
    unit = find_unit(units, s);
    if (!unit)
        return -EINVAL;
    if (__builtin_mul_overflow(whole, unit->factor, &result) || __builtin_mul_overflow(fraction, unit->factor, &part) ||
            __builtin_add_overflow(result, part / scale, &result))
        return -ERANGE;
    *ret = result;
    return 0;
}

int value_parse_duration_ms(const char *s, uint32_t *ret_ms)
{
    static const struct unit units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"min", 60000},
            {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
    uint64_t ms;
    int r = parse_scaled(s, units, &ms);

    if (r < 0)
        return r;
    if (ms > UINT32_MAX)
        return -ERANGE;
    /* Zero means "none": a positive time that rounds to it must not turn the limit off. */
    if (ms == 0 && strpbrk(s, "123456789"))
        return -EINVAL;
    *ret_ms = (uint32_t)ms;
    return 0;
}

/* Of sizes; the unit without a name comes before. */
#define SIZE_UNITS                                                                                                     \
    {"b", 1}, {"k", 1 << 10}, {"kb", 1 << 10}, {"kib", 1 << 10}, {"m", 1 << 20}, {"mb", 1 << 20}, {"mib", 1 << 20},    \
            {"g", 1 << 30}, {"gb", 1 << 30}, {"gib", 1 << 30},                                                         \
    {                                                                                                                  \
        NULL, 0                                                                                                        \
    }

int value_parse_bytes(const char *s, uint32_t *ret_bytes)
{
    static const struct unit units[] = {{"", 1}, SIZE_UNITS};
    uint64_t bytes;
    int r = parse_scaled(s, units, &bytes);

    if (r < 0)
        return r;
    if (bytes > UINT32_MAX)
        return -ERANGE;
    if (bytes == 0 && strpbrk(s, "123456789")) /* as of durations */
        return -EINVAL;
    *ret_bytes = (uint32_t)bytes;
    return 0;
}

int value_parse_memory_mib(const char *s, uint32_t *ret_mib)
{
    static const struct unit units[] = {{"", 1 << 20}, SIZE_UNITS};
    uint64_t bytes;
    int r = parse_scaled(s, units, &bytes);

    if (r < 0)
        return r;
    if (bytes % (1 << 20))
        return -EINVAL;
    if (bytes >> 20 > UINT32_MAX)
        return -ERANGE;
    *ret_mib = (uint32_t)(bytes >> 20);
    return 0;
}

void value_format_bytes(uint64_t bytes, char ret[32])
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t i = 0;

    while (v >= 1024 && i + 1 < COUNT_OF(names)) {
        v /= 1024;
        i++;
    }
    if (i == 0)
        (void)snprintf(ret, 32, "%" PRIu64 " B", bytes);
    else
        (void)snprintf(ret, 32, v < 100 ? "%.1f %s" : "%.0f %s", v, names[i]);
}

void value_format_age(int64_t now_ms, int64_t then_ms, char ret[32])
{
    int64_t s = (now_ms - then_ms) / 1000;

    if (then_ms <= 0)
        ret[0] = '\0';
    else if (s < 2)
        (void)snprintf(ret, 32, "now");
    else if (s < 120)
        (void)snprintf(ret, 32, "%" PRId64 " seconds ago", s);
    else if (s < 2 * 3600)
        (void)snprintf(ret, 32, "%" PRId64 " minutes ago", s / 60);
    else if (s < 2 * 86400)
        (void)snprintf(ret, 32, "%" PRId64 " hours ago", s / 3600);
    else
        (void)snprintf(ret, 32, "%" PRId64 " days ago", s / 86400);
}

void value_format_duration(uint64_t ms, char ret[32])
{
    uint64_t s = ms / 1000;

    if (ms < 1000)
        (void)snprintf(ret, 32, "%" PRIu64 " ms", ms);
    else if (s < 60)
        (void)snprintf(ret, 32, "%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
    else if (s < 3600)
        (void)snprintf(ret, 32, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else
        (void)snprintf(ret, 32, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s % 3600 / 60);
}
