/* SPDX-License-Identifier: Apache-2.0 */
/* Small text helpers of the image code: formatted paths and lists of strings. Allocation failure is an ic_error. */
#pragma once

#include "orchestrator/error.h"

/* printf into fresh memory; the caller frees *ret. */
int text_format(char **ret, struct ic_error *error, const char *fmt, ...) _printf_(3, 4);

/* A growing NULL-terminated list that owns its strings. */
struct strlist {
    char **items;
    size_t count;
};
void strlist_deinit(struct strlist *list);
int strlist_add(struct strlist *list, const char *item, struct ic_error *error);
bool strlist_has(const struct strlist *list, const char *item);
/* "a,b,c"; the caller frees *ret. */
int strlist_join(const struct strlist *list, char separator, char **ret, struct ic_error *error);

/* A recipe's list file: one item a line, '#' starts a comment, blank lines are skipped. Items are made of
 * letters, digits and any of "+-._:=/" or a star; anything else is refused with the file's name and line. */
int strlist_parse(const char *text, const char *path, struct strlist *ret, struct ic_error *error);

void strv_free(char **v);
DEFINE_CLEANUP(char **, strv_free)
