/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void table_init(struct table *t, const char *const *header)
{
    *t = (struct table){0};
    while (header[t->columns])
        t->columns++;
    assert(t->columns > 0 && t->columns <= TABLE_COLUMNS_MAX);
    table_row(t, header);
}

void table_deinit(struct table *t)
{
    for (size_t i = 0; i < t->rows * t->columns; i++)
        free(t->cells[i]);
    free(t->cells);
    *t = (struct table){0};
}

void table_row(struct table *t, const char *const *cells)
{
    t->cells = text_realloc(t->cells, (t->rows + 1) * t->columns, sizeof(*t->cells));
    for (size_t c = 0; c < t->columns; c++) {
        struct text cell = {0};

        text_puts(&cell, "");
        if (cells[c] && cells[c][0])
            text_put_escaped(&cell, cells[c], strlen(cells[c]), TEXT_ONE_LINE);
        else
            text_puts(&cell, "-");
        t->cells[t->rows * t->columns + c] = cell.data;
    }
    t->rows++;
}

void table_format(const struct table *t, struct text *ret)
{
    size_t widths[TABLE_COLUMNS_MAX] = {0};

    for (size_t i = 0; i < t->rows * t->columns; i++) {
        size_t len = strlen(t->cells[i]);

        if (len > widths[i % t->columns])
            widths[i % t->columns] = len;
    }
    for (size_t i = 0; i < t->rows * t->columns; i++) {
        size_t column = i % t->columns;

        text_puts(ret, t->cells[i]);
        if (column + 1 == t->columns) {
            text_putc(ret, '\n');
            continue;
        }
        for (size_t pad = strlen(t->cells[i]); pad < widths[column] + 3; pad++)
            text_putc(ret, ' ');
    }
}

void table_print(const struct table *t)
{
    struct text out = {0};

    table_format(t, &out);
    (void)fwrite(text_str(&out), 1, out.len, stdout);
    text_deinit(&out);
}
