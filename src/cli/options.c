/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/values.h"

struct parser {
    const struct cli_command *command;
    unsigned char *args;
    char **operands;
    size_t operand_count;
    char **argv;
    int argc, next;
    struct text *message;
    bool help;
};

static int complain(struct parser *p, const char *fmt, ...) CLI_PRINTF(2, 3);
static int complain(struct parser *p, const char *fmt, ...)
{
    char line[512];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    text_put_escaped(p->message, line, strlen(line), TEXT_ONE_LINE);
    return -EINVAL;
}

static const struct cli_option *by_letter(const struct cli_command *command, char letter)
{
    for (const struct cli_option *o = command->options; o->name; o++) {
        if (o->letter == letter)
            return o;
    }
    return NULL;
}

static const struct cli_option *by_name(const struct cli_command *command, const char *name, size_t len)
{
    for (const struct cli_option *o = command->options; o->name; o++) {
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
            return o;
    }
    return NULL;
}

static int unknown_option(struct parser *p, const char *word, const char *name, size_t len)
{
    char typed[64];
    const char *best = NULL;
    size_t distance, best_distance = SIZE_MAX;

    (void)snprintf(typed, sizeof(typed), "%.*s", (int)(len < sizeof(typed) ? len : sizeof(typed)), name);
    for (const struct cli_option *o = p->command->options; o->name; o++) {
        if (text_is_close(typed, o->name, &distance) && distance < best_distance) {
            best = o->name;
            best_distance = distance;
        }
    }
    if (best)
        return complain(p, "unknown option '%s'; did you mean '--%s'?", word, best);
    return complain(p, "unknown option '%s'; see 'ironclaw %s --help'", word, p->command->name);
}

static bool is_choice(const char *choices, const char *value)
{
    size_t len = strlen(value);

    for (const char *c = choices; *c;) {
        size_t n = strcspn(c, "|");

        if (n == len && memcmp(c, value, n) == 0)
            return true;
        c += n + (c[n] == '|');
    }
    return false;
}

static int store_number(struct parser *p, const struct cli_option *o, const char *value)
{
    struct cli_number *number = (void *)(p->args + o->offset);
    const char *expected = "a number", *most = NULL;
    uint64_t count = 0;
    uint32_t v = 0;
    int r;

    if (o->kind == CLI_DURATION) {
        r = value_parse_duration_ms(value, &v);
        expected = "a time such as 500ms, 10s or 2m";
        most = "49 days";
    } else if (o->kind == CLI_MEMORY) {
        r = value_parse_memory_mib(value, &v);
        expected = "a size such as 256 (MiB), 512m or 1g";
    } else if (o->kind == CLI_BYTES) {
        r = value_parse_bytes(value, &v);
        expected = "a size such as 500 (bytes), 64k or 10m";
        most = "4095m";
    } else {
        r = value_parse_u64(value, UINT32_MAX, &count);
        v = (uint32_t)count;
    }
    if (r == -ERANGE)
        return complain(p, "--%s: '%s' is too large%s%s", o->name, value, most ? "; at most " : "", most ? most : "");
    if (r < 0)
        return complain(p, "--%s: '%s' is not %s", o->name, value, expected);
    *number = (struct cli_number){.given = true, .value = v};
    return 0;
}

static int store(struct parser *p, const struct cli_option *o, const char *value)
{
    void *field = p->args + o->offset;
    struct cli_list *list = field;

    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)field = true;
        return 0;
    case CLI_CHOICE:
        if (!is_choice(o->metavar, value))
            return complain(p, "--%s: '%s' is not one of %s", o->name, value, o->metavar);
        *(const char **)field = value;
        return 0;
    case CLI_STRING:
        *(const char **)field = value;
        return 0;
    case CLI_LIST:
        list->items = text_realloc(list->items, list->count + 1, sizeof(*list->items));
        list->items[list->count++] = value;
        return 0;
    case CLI_COUNT:
    case CLI_DURATION:
    case CLI_MEMORY:
    case CLI_BYTES:
        return store_number(p, o, value);
    }
    return -EINVAL;
}

static int parse_long(struct parser *p, char *word)
{
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const struct cli_option *o = by_name(p->command, name, len);

    if (!o && len == 4 && memcmp(name, "help", 4) == 0 && !equals) {
        p->help = true;
        return 0;
    }
    if (!o)
        return unknown_option(p, word, name, len);
    if (o->kind == CLI_FLAG)
        return equals ? complain(p, "option '--%s' takes no value", o->name) : store(p, o, NULL);
    if (equals)
        return store(p, o, equals + 1);
    if (p->next >= p->argc)
        return complain(p, "option '--%s' needs a value: %s", o->name, o->metavar);
    return store(p, o, p->argv[p->next++]);
}

/* "-it", "-e K=V", "-eK=V" */
static int parse_letters(struct parser *p, char *word)
{
    for (const char *c = word + 1; *c; c++) {
        const struct cli_option *o = by_letter(p->command, *c);
        int r;

        if (!o && *c == 'h') {
            p->help = true;
            return 0;
        }
        if (!o && c == word + 1 && word[2])
            return unknown_option(p, word, word + 1, strlen(word + 1)); /* perhaps "-memory" was meant as "--memory" */
        if (!o)
            return complain(p, "unknown option '-%c'; see 'ironclaw %s --help'", *c, p->command->name);
        if (o->kind == CLI_FLAG) {
            r = store(p, o, NULL);
            if (r < 0)
                return r;
            continue;
        }
        if (c[1])
            return store(p, o, c + 1);
        if (p->next >= p->argc)
            return complain(p, "option '-%c' needs a value: %s", o->letter, o->metavar);
        return store(p, o, p->argv[p->next++]);
    }
    return 0;
}

static int check_operands(struct parser *p)
{
    const struct cli_command *c = p->command;

    if (p->operand_count < c->min_operands)
        return complain(p, "missing operand; usage: ironclaw %s [OPTION...] %s", c->name, c->operands);
    if (p->operand_count > c->max_operands && c->max_operands == 0)
        return complain(p, "unexpected operand '%s'; %s takes none", p->operands[0], c->name);
    if (p->operand_count > c->max_operands)
        return complain(p, "unexpected operand '%s'; usage: ironclaw %s [OPTION...] %s", p->operands[c->max_operands],
                c->name, c->operands);
    return 0;
}

static int parse_words(struct parser *p)
{
    bool only_operands = false;
    int r = 0;

    while (p->next < p->argc && r == 0 && !p->help) {
        char *word = p->argv[p->next++];

        /* After the first operand of a command that stops, one "--" may part the VM from its command. */
        if (p->command->stops && p->operand_count == 1 && !only_operands && p->command->min_operands == 2) {
            if (strcmp(word, "--") != 0)
                p->operands[p->operand_count++] = word;
            only_operands = true;
        } else if (!only_operands && strcmp(word, "--") == 0) {
            only_operands = true;
        } else if (!only_operands && strncmp(word, "--", 2) == 0) {
            r = parse_long(p, word);
        } else if (!only_operands && word[0] == '-' && word[1]) {
            r = parse_letters(p, word);
        } else {
            p->operands[p->operand_count++] = word;
            if (p->command->stops && p->command->min_operands < 2)
                only_operands = true;
        }
    }
    return r;
}

static void free_lists(const struct cli_command *command, unsigned char *args)
{
    for (const struct cli_option *o = command->options; args && o->name; o++) {
        if (o->kind == CLI_LIST)
            free(((struct cli_list *)(void *)(args + o->offset))->items);
    }
    free(args);
}

int cli_parse(const struct cli_command *command, int argc, char **argv, struct cli_call *ret, struct text *message)
{
    struct parser p = {.command = command, .argc = argc, .argv = argv, .message = message};
    int r;

    p.args = text_alloc(1, command->args_size ? command->args_size : 1);
    p.operands = text_alloc((size_t)argc + 1, sizeof(*p.operands));
    r = parse_words(&p);
    if (r == 0 && !p.help)
        r = check_operands(&p);
    if (r < 0 || p.help) {
        free_lists(command, p.args);
        free(p.operands);
        return r < 0 ? CLI_PARSE_USAGE : CLI_PARSE_HELP;
    }
    *ret = (struct cli_call){
            .command = command, .args = p.args, .operands = p.operands, .operand_count = p.operand_count};
    return CLI_PARSE_OK;
}

void cli_call_deinit(struct cli_call *call)
{
    free_lists(call->command, (unsigned char *)call->args);
    free(call->operands);
    *call = (struct cli_call){0};
}

/* ---- verbs ------------------------------------------------------------------------------------------------------- */

bool cli_is_group(const char *word, size_t len)
{
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        if (strncmp((*c)->name, word, len) == 0 && (*c)->name[len] == ' ')
            return true;
    }
    return false;
}

/* The closest verb, or the closest subcommand of `group` ("" for the first word). */
static const char *closest(const char *group, const char *typed)
{
    size_t skip = *group ? strlen(group) + 1 : 0, distance, best_distance = SIZE_MAX;
    static char first[32];
    const char *best = NULL;

    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        const char *name = (*c)->name;
        char word[32];

        if (skip && (strncmp(name, group, skip - 1) != 0 || name[skip - 1] != ' '))
            continue;
        (void)snprintf(word, sizeof(word), "%.*s", (int)strcspn(name + skip, " "), name + skip);
        if (text_is_close(typed, word, &distance) && distance < best_distance) {
            (void)snprintf(first, sizeof(first), "%s", word);
            best = first;
            best_distance = distance;
        }
    }
    return best;
}

static void unknown_verb(const char *group, const char *typed, struct text *message)
{
    const char *best = closest(group, typed), *space = *group ? " " : "";

    text_puts(message, "unknown command '");
    text_put_escaped(message, typed, strlen(typed), TEXT_ONE_LINE);
    if (best)
        text_printf(message, "'; did you mean 'ironclaw %s%s%s'?", group, space, best);
    else
        text_printf(message, "'; see 'ironclaw help%s%s'", space, group);
}

const struct cli_command *cli_find(int argc, char **argv, int *ret_used, struct text *message)
{
    bool group = cli_is_group(argv[0], strlen(argv[0]));
    char name[64];

    if (group && argc < 2) {
        text_printf(message, "'ironclaw %s' needs a subcommand; see 'ironclaw help %s'", argv[0], argv[0]);
        return NULL;
    }
    (void)snprintf(name, sizeof(name), group ? "%s %s" : "%s", argv[0], group ? argv[1] : "");
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        if (strcmp((*c)->name, name) == 0) {
            *ret_used = group ? 2 : 1;
            return *c;
        }
    }
    unknown_verb(group ? argv[0] : "", group ? argv[1] : argv[0], message);
    return NULL;
}
