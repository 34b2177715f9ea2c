/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <string.h>

#define HELP_COLUMN 36 /* where the explanations of options start */

static void pad(struct text *t, size_t from, size_t column)
{
    size_t used = t->len - from;

    if (used + 1 > column) {
        text_putc(t, '\n');
        used = 0;
    }
    for (; used < column; used++)
        text_putc(t, ' ');
}

static void put_option(struct text *t, char letter, const char *name, const char *metavar, const char *help)
{
    size_t from = t->len;

    if (letter)
        text_printf(t, "  -%c, --%s", letter, name);
    else
        text_printf(t, "      --%s", name);
    if (metavar)
        text_printf(t, " %s", metavar);
    pad(t, from, HELP_COLUMN);
    text_puts(t, help);
    text_putc(t, '\n');
}

void cli_help_command(const struct cli_command *command, struct text *ret)
{
    bool has_help_letter = true;

    text_printf(ret, "Usage: ironclaw %s [OPTION...]%s%s\n\n%s.\n", command->name, *command->operands ? " " : "",
            command->operands, command->summary);
    if (command->details)
        text_printf(ret, "\n%s\n", command->details);
    text_puts(ret, "\nOptions:\n");
    for (const struct cli_option *o = command->options; o->name; o++) {
        put_option(ret, o->letter, o->name, o->metavar, o->help);
        if (o->letter == 'h')
            has_help_letter = false;
    }
    put_option(ret, has_help_letter ? 'h' : '\0', "help", NULL, "show this help");
}

static void put_command(struct text *t, const struct cli_command *c)
{
    size_t from = t->len;

    text_printf(t, "  %s", c->name);
    pad(t, from, 18);
    text_printf(t, "%s\n", c->summary);
}

void cli_help_group(const char *group, struct text *ret)
{
    size_t len = strlen(group);

    text_printf(ret, "Usage: ironclaw %s COMMAND [OPTION...]\n\nCommands:\n", group);
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        if (strncmp((*c)->name, group, len) == 0 && (*c)->name[len] == ' ')
            put_command(ret, *c);
    }
    text_printf(ret, "\n'ironclaw %s COMMAND --help' explains one.\n", group);
}

void cli_help_overview(struct text *ret)
{
    text_puts(ret, "Usage: ironclaw COMMAND [OPTION...]\n\n"
                   "Runs code that nobody trusts in a throwaway Linux microVM.\n\n"
                   "  ironclaw run -- python3 -c 'print(6*7)'\n"
                   "  ironclaw run -it -- bash\n\nCommands:\n");
    for (const struct cli_command *const *c = cli_commands; *c; c++)
        put_command(ret, *c);
    text_puts(ret, "\n'ironclaw COMMAND --help' explains one; 'man ironclaw' explains all.\n"
                   "Exit status: the command's own; 128+signal; 124 timeout; 125 IronClaw failed;\n"
                   "126 the command can't be executed; 127 it was not found; 2 wrong usage.\n");
}
