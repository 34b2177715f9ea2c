/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>

#include "cli/signals.h"
#include "cli/tty.h"
#include "cli/values.h"

#define SHOW_AFTER_MS    300
#define REDRAW_MS        100
#define LINE_MS          500
#define STILL_THERE_MS   10000
#define BAR_WIDTH        20
#define PERCENT_OF(d, t) ((unsigned)((double)(d)*100.0 / (double)(t)))

void progress_init(struct progress *p, bool quiet)
{
    *p = (struct progress){.quiet = quiet, .terminal = tty_is(2), .start_ms = tty_now_ms()};
}

void progress_format(struct text *ret, const char *what, uint64_t done, uint64_t total, unsigned ticks, size_t width)
{
    static const char spinner[] = "|/-\\";
    struct text name = {0};
    char a[32], b[32];
    size_t from;

    text_put_escaped(&name, what, strlen(what), TEXT_ONE_LINE);
    if (done > total && total)
        done = total;
    from = ret->len;
    if (total) {
        unsigned percent = PERCENT_OF(done, total), filled = percent * BAR_WIDTH / 100;

        value_format_bytes(done, a);
        value_format_bytes(total, b);
        text_puts(ret, "[");
        for (unsigned i = 0; i < BAR_WIDTH; i++)
            text_putc(ret, i < filled ? '#' : '.');
        text_printf(ret, "] %3u%%  %s of %s  ", percent, a, b);
    } else if (done) {
        value_format_bytes(done, a);
        text_printf(ret, "%c %s  ", spinner[ticks % 4], a);
    } else {
        text_printf(ret, "%c ", spinner[ticks % 4]);
    }
    text_puts(ret, text_str(&name));
    text_deinit(&name);
    if (ret->len - from > width) {
        ret->len = from + width;
        ret->data[ret->len] = '\0';
    }
}

static void draw(struct progress *p, const char *what, uint64_t done, uint64_t total, uint64_t now)
{
    struct text line = {0};
    uint16_t rows, cols;

    if (now - p->start_ms < SHOW_AFTER_MS || (p->drawn && now - p->last_ms < REDRAW_MS))
        return;
    tty_size(2, &rows, &cols);
    text_puts(&line, "\r\x1b[K");
    progress_format(&line, what, done, total, p->ticks++, cols > 1 ? cols - 1u : 1u);
    (void)fputs(line.data, stderr);
    (void)fflush(stderr);
    text_deinit(&line);
    p->drawn = true;
    p->last_ms = now;
}

static void print_step(struct progress *p, const char *what, uint64_t done, uint64_t total, uint64_t now)
{
    struct text name = {0};
    bool is_new = strncmp(p->what, what, sizeof(p->what) - 1) != 0;

    if (p->last_ms && now - p->last_ms < (is_new ? LINE_MS : STILL_THERE_MS))
        return;
    text_put_escaped(&name, what, strlen(what), TEXT_ONE_LINE);
    if (is_new || !total)
        (void)fprintf(stderr, "ironclaw: %s\n", text_str(&name));
    else
        (void)fprintf(stderr, "ironclaw: %s: %u%%\n", text_str(&name), PERCENT_OF(done, total));
    text_deinit(&name);
    (void)snprintf(p->what, sizeof(p->what), "%s", what);
    p->last_ms = now;
}

int progress_update(void *progress, const char *what, uint64_t done, uint64_t total)
{
    struct progress *p = progress;
    uint64_t now = tty_now_ms();

    if (signals_pending())
        return 1;
    if (p->quiet)
        return 0;
    if (p->terminal)
        draw(p, what ? what : "", done, total, now);
    else
        print_step(p, what ? what : "", done, total, now);
    return 0;
}

void progress_finish(struct progress *p)
{
    if (p->drawn)
        (void)fputs("\r\x1b[K", stderr);
    p->drawn = false;
}
