/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int text_format(char **ret, struct ic_error *error, const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    *ret = s;
    return 0;
}

void strv_free(char **v)
{
    for (size_t i = 0; v && v[i]; i++)
        free(v[i]);
    free(v);
}

void strlist_deinit(struct strlist *list)
{
    strv_free(list->items);
    *list = (struct strlist){0};
}

int strlist_add(struct strlist *list, const char *item, struct ic_error *error)
{
    char **grown = reallocarray(list->items, list->count + 2, sizeof(*grown));

    if (!grown)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    list->items = grown;
    grown[list->count] = strdup(item);
    if (!grown[list->count])
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    grown[++list->count] = NULL;
    return 0;
}

bool strlist_has(const struct strlist *list, const char *item)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i], item) == 0)
            return true;
    }
    return false;
}

int strlist_join(const struct strlist *list, char separator, char **ret, struct ic_error *error)
{
    size_t len = 1;
    char *s, *p;

    for (size_t i = 0; i < list->count; i++)
        len += strlen(list->items[i]) + 1;
    s = p = malloc(len);
    if (!s)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < list->count; i++) {
        if (i > 0)
            *p++ = separator;
        p = stpcpy(p, list->items[i]);
    }
    *p = '\0';
    *ret = s;
    return 0;
}

int strlist_parse(const char *text, const char *path, struct strlist *ret, struct ic_error *error)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+._:=/*-";
    unsigned line_number = 0;

    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n"), skip = strspn(line, " \t"), n;
        char item[256];

        line_number++;
        if (skip < len && line[skip] != '#') {
            n = strspn(line + skip, allowed);
            if (n == 0 || n >= sizeof(item) || skip + n + strspn(line + skip + n, " \t\r") != len)
                return ic_fail(error, IC_ERR_INVALID, "%s:%u: not one plain word", path, line_number);
            memcpy(item, line + skip, n);
            item[n] = '\0';
            int r = strlist_add(ret, item, error);
            if (r < 0)
                return r;
        }
        line += len + (line[len] == '\n');
    }
    return 0;
}
