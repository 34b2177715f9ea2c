/* SPDX-License-Identifier: Apache-2.0 */
/* ironclaw.1 describes each command, each option, and no option that is not there. */
#include "base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static char *manual;

static int load(void **state)
{
    FILE *f = fopen(MANUAL, "rb");
    size_t size = 1 << 20, len;

    (void)state;
    if (!f)
        return -1;
    manual = text_alloc(size + 1, 1);
    len = fread(manual, 1, size, f);
    manual[len] = '\0';
    (void)fclose(f);
    return len < size ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    free(manual);
    return 0;
}

/* The lines after ".Ss <command>" up to the next section. The caller frees. */
static char *section_of(const struct cli_command *command)
{
    struct text heading = {0};
    const char *start, *end, *other;

    text_printf(&heading, "\n.Ss %s\n", command->name);
    start = strstr(manual, heading.data);
    if (!start)
        fail_msg("the manual has no section \"%s\"", command->name);
    start += heading.len;
    end = strstr(start, "\n.Ss ");
    other = strstr(start, "\n.Sh ");
    if (!end || (other && other < end))
        end = other;
    text_deinit(&heading);
    return text_dup(start, end ? (size_t)(end + 1 - start) : strlen(start));
}

/* How the manual introduces it: ".It Fl q , Fl -quiet" or ".It Fl -name Ar ID". */
static void put_item(struct text *t, const struct cli_option *o)
{
    text_puts(t, ".It ");
    if (o->letter)
        text_printf(t, "Fl %c , ", o->letter);
    text_printf(t, "Fl -%s", o->name);
    if (o->kind == CLI_CHOICE) {
        text_puts(t, " Cm ");
        for (const char *c = o->metavar; *c; c++) {
            if (*c == '|')
                text_puts(t, " | ");
            else
                text_putc(t, *c);
        }
    } else if (o->metavar) {
        text_printf(t, " Ar %s", o->metavar);
    }
    text_putc(t, '\n');
}

static void test_manual_has_every_option(void **state)
{
    (void)state;
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        char *section = section_of(*c);

        for (const struct cli_option *o = (*c)->options; o->name; o++) {
            struct text item = {0};

            put_item(&item, o);
            if (!strstr(section, item.data))
                fail_msg("the manual's section \"%s\" lacks: %s", (*c)->name, item.data);
            text_deinit(&item);
        }
        free(section);
    }
}

static void test_manual_has_no_other_option(void **state)
{
    (void)state;
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        char *section = section_of(*c);
        struct text known = {0};

        for (const struct cli_option *o = (*c)->options; o->name; o++)
            put_item(&known, o);
        for (const char *item = section; (item = strstr(item, ".It Fl ")); item++) {
            char *line = text_dup(item, strcspn(item, "\n") + 1);

            if (!known.data || !strstr(known.data, line))
                fail_msg("the manual's section \"%s\" has what the command has not: %s", (*c)->name, line);
            free(line);
        }
        text_deinit(&known);
        free(section);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_manual_has_every_option),
            cmocka_unit_test(test_manual_has_no_other_option),
    };

    return cmocka_run_group_tests(tests, load, unload);
}
