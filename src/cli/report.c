/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/signals.h"
#include "cli/tty.h"

static const char *current_verb;

void cli_set_verb(const char *verb)
{
    current_verb = verb;
}

static void report(const char *fmt, va_list ap) CLI_PRINTF(1, 0);
static void report(const char *fmt, va_list ap)
{
    char raw[1280];
    struct text line = {0};

    (void)vsnprintf(raw, sizeof(raw), fmt, ap);
    text_puts(&line, "ironclaw: ");
    if (current_verb)
        text_printf(&line, "%s: ", current_verb);
    /* Messages are UTF-8 of ours, but may quote a guest: only its control bytes are dangerous on a terminal. */
    for (size_t i = 0, n, len = strlen(raw); i < len; i += n) {
        n = text_utf8(raw + i, len - i);
        if (n > 2 || (n == 2 && (unsigned char)raw[i] > 0xc2))
            text_put(&line, raw + i, n);
        else
            text_put_escaped(&line, raw + i, n ? n : 1, TEXT_ONE_LINE);
        n = n ? n : 1;
    }
    text_putc(&line, '\n');
    tty_restore();
    (void)fflush(stdout);
    (void)fputs(line.data, stderr);
    text_deinit(&line);
}

void cli_error(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report(fmt, ap);
    va_end(ap);
}

int cli_usage(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report(fmt, ap);
    va_end(ap);
    return CLI_USAGE;
}

int cli_exit_of(int r)
{
    int signo = signals_pending();

    if (r >= 0)
        return CLI_OK;
    if (r == -IC_ERR_CANCELLED && signo)
        return 128 + signo;
    return CLI_FAILED;
}

int cli_fail(int r, const struct ic_error *error)
{
    /* Who pressed Ctrl-C knows why it ended. */
    if (r != -IC_ERR_CANCELLED || !signals_pending())
        cli_error("%s", error->message[0] ? error->message : ic_error_name((enum ic_error_code) - r));
    return cli_exit_of(r);
}
