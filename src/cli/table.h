/* SPDX-License-Identifier: Apache-2.0 */
/* Tables for people: a header line and columns as wide as they need, three spaces apart. Cells are escaped. */
#pragma once

#include "cli/text.h"

#define TABLE_COLUMNS_MAX 12

struct table {
    size_t columns, rows;
    char **cells; /* rows * columns, the header first */
};

/* `header` is a NULL-terminated list of at most TABLE_COLUMNS_MAX names. */
void table_init(struct table *t, const char *const *header);
void table_deinit(struct table *t);
/* One row, as many cells as the header has; NULL stands for "-". */
void table_row(struct table *t, const char *const *cells);
void table_format(const struct table *t, struct text *ret);
void table_print(const struct table *t); /* on stdout */
