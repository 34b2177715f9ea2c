/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion scripts, made from the tables of commands.
 *
 * VMs, images and what else has a name are asked of `ironclaw ps -aq`, `ironclaw image ls -q` and their like at
 * the moment of completion. Nothing of the tables needs quoting beyond what
 * the three quote functions do, and a test runs the scripts through the shells
 * that are there.
 */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

#define ASK_VMS       "ironclaw ps -a -q 2>/dev/null"
#define ASK_IMAGES    "ironclaw image ls -q 2>/dev/null"
#define ASK_TEMPLATES "ironclaw template ls -q 2>/dev/null"
#define ASK_SNAPSHOTS "ironclaw snapshot ls -q 2>/dev/null"
#define ASK_POOLS     "ironclaw pool ls -q 2>/dev/null"

static void put_words(struct text *t, const char *choices)
{
    for (const char *c = choices; *c; c++)
        text_putc(t, *c == '|' ? ' ' : *c);
}

/* The first words ("run", "image") or the second ones of a group, with their summaries through `put`. */
static void each_word(struct text *t, const char *group,
        void (*put)(struct text *t, const char *word, size_t len, const char *summary))
{
    size_t skip = *group ? strlen(group) + 1 : 0;
    const char *last = "";

    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        const char *word = (*c)->name + skip;
        size_t len;

        if (skip && (strncmp((*c)->name, group, skip - 1) != 0 || (*c)->name[skip - 1] != ' '))
            continue;
        len = strcspn(word, " ");
        if (len == strcspn(last, " ") && strncmp(word, last, len) == 0)
            continue;
        last = word;
        put(t, word, len, word[len] ? "commands of their own" : (*c)->summary);
    }
}

static void put_word(struct text *t, const char *word, size_t len, const char *summary)
{
    (void)summary;
    text_put(t, word, len);
    text_putc(t, ' ');
}

/* The names of the groups: "image", "kernel". */
static void each_group(struct text *t, void (*put)(struct text *t, const char *group))
{
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        size_t len = strcspn((*c)->name, " ");
        char *group;

        if (!(*c)->name[len] || (c != cli_commands && strncmp(c[-1]->name, (*c)->name, len + 1) == 0))
            continue;
        group = text_dup((*c)->name, len);
        put(t, group);
        free(group);
    }
}

/* ---- bash -------------------------------------------------------------------------------------------------------- */

static void bash_help_group(struct text *t, const char *group)
{
    text_printf(t, "            %s) COMPREPLY=($(compgen -W '", group);
    each_word(t, group, put_word);
    text_puts(t, "' -- \"$cur\"));;\n");
}

static void bash_group(struct text *t, const char *group)
{
    text_printf(t,
            "    %s)\n        if (( COMP_CWORD == 2 )); then\n"
            "            COMPREPLY=($(compgen -W '",
            group);
    each_word(t, group, put_word);
    text_puts(t, "--help' -- \"$cur\"))\n            return\n        fi\n"
                 "        verb=\"$verb ${COMP_WORDS[2]}\"; (( first++ ));;\n");
}

static void bash_action(struct text *t, enum cli_complete complete)
{
    switch (complete) {
    case CLI_COMPLETE_FILE:
        text_puts(t, "COMPREPLY=($(compgen -f -- \"$cur\"))");
        return;
    case CLI_COMPLETE_DIRECTORY:
        text_puts(t, "COMPREPLY=($(compgen -d -- \"$cur\"))");
        return;
    case CLI_COMPLETE_VM:
        text_puts(t, "COMPREPLY=($(compgen -W \"$(" ASK_VMS ")\" -- \"$cur\"))");
        return;
    case CLI_COMPLETE_VM_FILE:
        text_puts(t, "COMPREPLY=($(compgen -W \"$(" ASK_VMS " | sed s/\\$/:/)\" -- \"$cur\") "
                     "$(compgen -f -- \"$cur\")); compopt -o nospace 2>/dev/null");
        return;
    case CLI_COMPLETE_VM_IMAGE:
        text_puts(t, "COMPREPLY=($(compgen -W \"$(" ASK_VMS "; " ASK_IMAGES ")\" -- \"$cur\"))");
        return;
    case CLI_COMPLETE_VM_COMMAND:
        text_puts(t, "if (( operands == 0 )); then COMPREPLY=($(compgen -W \"$(" ASK_VMS ")\" -- \"$cur\")); "
                     "else COMPREPLY=($(compgen -c -- \"$cur\")); fi");
        return;
    case CLI_COMPLETE_IMAGE:
        text_puts(t, "COMPREPLY=($(compgen -W \"$(" ASK_IMAGES ")\" -- \"$cur\"))");
        return;
    case CLI_COMPLETE_TEMPLATE:
        text_puts(t, "COMPREPLY=($(compgen -W \"$(" ASK_TEMPLATES ")\" -- \"$cur\"))");
        return;
    case CLI_COMPLETE_SNAPSHOT:
        text_puts(t, "COMPREPLY=($(compgen -W \"$(" ASK_SNAPSHOTS ")\" -- \"$cur\"))");
        return;
    case CLI_COMPLETE_POOL:
        text_puts(t, "COMPREPLY=($(compgen -W \"$(" ASK_POOLS ")\" -- \"$cur\"))");
        return;
    case CLI_COMPLETE_COMMAND:
        text_puts(t, "COMPREPLY=($(compgen -c -- \"$cur\"))");
        return;
    case CLI_COMPLETE_SHELL:
        text_puts(t, "COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$cur\"))");
        return;
    case CLI_COMPLETE_VERB:
        text_puts(t, "if (( operands == 0 )); then COMPREPLY=($(compgen -W \"$verbs\" -- \"$cur\")); return; fi\n"
                     "            case ${COMP_WORDS[2]} in\n");
        each_group(t, bash_help_group);
        text_puts(t, "            esac");
        return;
    case CLI_COMPLETE_NONE:
        break;
    }
    text_puts(t, ":");
}

static void bash_option_value(struct text *t, const struct cli_option *o)
{
    text_printf(t, "            --%s", o->name);
    if (o->letter)
        text_printf(t, "|-%c", o->letter);
    text_puts(t, ") ");
    if (o->kind == CLI_CHOICE) {
        text_puts(t, "COMPREPLY=($(compgen -W '");
        put_words(t, o->metavar);
        text_puts(t, "' -- \"$cur\"))");
    } else {
        bash_action(t, o->complete);
    }
    text_puts(t, "; return;;\n");
}

/* How many operands there are before the word that is completed: what is neither an option nor the value of one. */
static void bash_count(struct text *t, const struct cli_command *c)
{
    bool values = false;

    text_puts(t,
            "        for (( i = first; i < COMP_CWORD; i++ )); do\n            case ${COMP_WORDS[i]} in\n            ");
    for (const struct cli_option *o = c->options; o->name; o++) {
        if (!o->metavar)
            continue;
        text_printf(t, "%s--%s", values ? "|" : "", o->name);
        if (o->letter)
            text_printf(t, "|-%c", o->letter);
        values = true;
    }
    if (values)
        text_puts(t, ") [[ ${COMP_WORDS[i+1]} == = ]] || (( i++ )); _ironclaw_pieces;;\n            ");
    text_puts(t, "--) ;;\n            -?*) _ironclaw_pieces;;\n"
                 "            *) _ironclaw_pieces; (( i < COMP_CWORD )) && (( operands++ ));;\n"
                 "            esac\n        done\n");
}

static void bash_command(struct text *t, const struct cli_command *c)
{
    bool values = false;

    text_printf(t, "    '%s')\n", c->name);
    for (const struct cli_option *o = c->options; o->name; o++)
        values = values || o->metavar;
    bash_count(t, c);
    if (c->stops) /* what follows is the guest's */
        text_printf(t, "        if (( operands > %d )); then\n            return\n        fi\n",
                c->complete == CLI_COMPLETE_VM_COMMAND ? 1 : 0);
    if (values) {
        text_puts(t, "        case \"$prev\" in\n");
        for (const struct cli_option *o = c->options; o->name; o++) {
            if (o->metavar)
                bash_option_value(t, o);
        }
        text_puts(t, "        esac\n");
    }
    text_puts(t, "        if [[ $cur == -* ]]; then\n            COMPREPLY=($(compgen -W '--help");
    for (const struct cli_option *o = c->options; o->name; o++)
        text_printf(t, " --%s", o->name);
    text_puts(t, "' -- \"$cur\"))\n");
    if (c->max_operands == 0)
        text_puts(t, "        fi;;\n");
    else {
        if (c->max_operands < SIZE_MAX)
            text_printf(t, "        elif (( operands < %zu )); then\n            ", c->max_operands);
        else
            text_puts(t, "        else\n            ");
        bash_action(t, c->complete);
        text_puts(t, "\n        fi;;\n");
    }
}

static void bash(struct text *t)
{
    /* Bash cuts words at "=" and ":", so that "--image=x" and "VM:/path" are three. */
    text_puts(t, "# bash completion for ironclaw\n"
                 "_ironclaw_pieces() {\n"
                 "    while (( i < COMP_CWORD )) && [[ ${COMP_WORDS[i+1]} == [:=]* ]]; do\n"
                 "        (( i++ ))\n"
                 "        [[ ${COMP_WORDS[i]} == *[:=] ]] && (( i++ ))\n"
                 "    done\n"
                 "}\n"
                 "_ironclaw() {\n"
                 "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}\n"
                 "    local i first=2 operands=0\n"
                 "    local verbs='");
    each_word(t, "", put_word);
    text_puts(t, "'\n    COMPREPLY=()\n"
                 "    if [[ $cur == = ]]; then\n        cur=\n"
                 "    elif [[ $prev == = ]]; then\n        prev=${COMP_WORDS[COMP_CWORD-2]}\n    fi\n"
                 "    if (( COMP_CWORD == 1 )); then\n"
                 "        COMPREPLY=($(compgen -W \"$verbs --help --version\" -- \"$cur\"))\n        return\n    fi\n"
                 "    case $verb in\n");
    each_group(t, bash_group);
    text_puts(t, "    esac\n    case $verb in\n");
    for (const struct cli_command *const *c = cli_commands; *c; c++)
        bash_command(t, *c);
    text_puts(t, "    esac\n}\ncomplete -o filenames -F _ironclaw ironclaw\n");
}

/* ---- zsh --------------------------------------------------------------------------------------------------------- */

/* For inside '...' and an _arguments specification. */
static void zsh_quote(struct text *t, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\'')
            text_puts(t, "'\\''");
        else if (strchr("[]:\\", s[i]))
            text_printf(t, "\\%c", s[i]);
        else
            text_putc(t, s[i]);
    }
}

static const char *zsh_action(enum cli_complete complete)
{
    switch (complete) {
    case CLI_COMPLETE_FILE:
        return "_files";
    case CLI_COMPLETE_DIRECTORY:
        return "_files -/";
    case CLI_COMPLETE_VM:
        return "_ironclaw_vms";
    case CLI_COMPLETE_VM_FILE:
        return "_ironclaw_vm_files";
    case CLI_COMPLETE_VM_IMAGE:
        return "_ironclaw_vms_and_images";
    case CLI_COMPLETE_IMAGE:
        return "_ironclaw_images";
    case CLI_COMPLETE_TEMPLATE:
        return "_ironclaw_templates";
    case CLI_COMPLETE_SNAPSHOT:
        return "_ironclaw_snapshots";
    case CLI_COMPLETE_POOL:
        return "_ironclaw_pools";
    case CLI_COMPLETE_COMMAND:
    case CLI_COMPLETE_VM_COMMAND:
        return "_command_names -e";
    case CLI_COMPLETE_SHELL:
        return "(bash zsh fish)";
    case CLI_COMPLETE_VERB:
        return "_ironclaw_verbs";
    case CLI_COMPLETE_NONE:
        break;
    }
    return " ";
}

static void zsh_spec(struct text *t, const struct cli_option *o, const char *dashed)
{
    text_printf(t, " \\\n            '%s%s[", o->kind == CLI_LIST ? "*" : "", dashed);
    zsh_quote(t, o->help, strlen(o->help));
    text_puts(t, "]");
    if (o->metavar) {
        text_puts(t, ":");
        zsh_quote(t, o->metavar, strlen(o->metavar));
        text_puts(t, ":");
        if (o->kind == CLI_CHOICE) {
            text_puts(t, "(");
            put_words(t, o->metavar);
            text_puts(t, ")");
        } else {
            text_puts(t, zsh_action(o->complete));
        }
    }
    text_puts(t, "'");
}

static void zsh_option(struct text *t, const struct cli_option *o)
{
    struct text dashed = {0};

    text_printf(&dashed, "--%s", o->name);
    zsh_spec(t, o, dashed.data);
    text_deinit(&dashed);
    if (!o->letter)
        return;
    text_printf(&dashed, "-%c", o->letter);
    zsh_spec(t, o, dashed.data);
    text_deinit(&dashed);
}

static void zsh_word(struct text *t, const char *word, size_t len, const char *summary)
{
    text_puts(t, " '");
    zsh_quote(t, word, len);
    text_puts(t, ":");
    zsh_quote(t, summary, strlen(summary));
    text_puts(t, "'");
}

static void zsh_command(struct text *t, const struct cli_command *c)
{
    text_printf(t, "    '%s')\n        _arguments -s%s '--help[show this help]'", c->name, c->stops ? " -A '-*'" : "");
    for (const struct cli_option *o = c->options; o->name; o++)
        zsh_option(t, o);
    if (c->complete == CLI_COMPLETE_VM_COMMAND)
        text_puts(t, " \\\n            '1:VM:_ironclaw_vms'");
    if (c->complete == CLI_COMPLETE_VERB)
        text_puts(t, " \\\n            '1:command:_ironclaw_verbs' '2:command:_ironclaw_group_verbs'");
    else if (c->max_operands > 2)
        text_printf(t, " \\\n            '*:operand:%s'", zsh_action(c->complete));
    for (size_t i = 0; c->complete != CLI_COMPLETE_VERB && c->max_operands <= 2 && i < c->max_operands; i++)
        text_printf(t, " \\\n            '%zu:operand:%s'", i + 1, zsh_action(c->complete));
    text_puts(t, ";;\n");
}

static void zsh_help_group(struct text *t, const char *group)
{
    text_printf(t, "    %s) words_of=(", group);
    each_word(t, group, zsh_word);
    text_puts(t, ");;\n");
}

static void zsh_group(struct text *t, const char *group)
{
    text_printf(t, "    %s)\n        if (( CURRENT == 3 )); then\n            words_of=(", group);
    each_word(t, group, zsh_word);
    text_puts(t, ")\n            _describe -t commands command words_of\n            return\n        fi\n"
                 "        verb=\"$verb $words[3]\"\n        shift words\n        (( CURRENT-- ));;\n");
}

static void zsh(struct text *t)
{
    text_puts(t, "#compdef ironclaw\n# zsh completion for ironclaw\n"
                 "_ironclaw_vms() { local -a ids; ids=(${(f)\"$(" ASK_VMS ")\"}); compadd -a ids; }\n"
                 "_ironclaw_images() { local -a names; names=(${(f)\"$(" ASK_IMAGES ")\"}); compadd -a names; }\n"
                 "_ironclaw_vms_and_images() { _ironclaw_vms; _ironclaw_images; }\n"
                 "_ironclaw_templates() { local -a names; names=(${(f)\"$(" ASK_TEMPLATES ")\"}); compadd -a names; }\n"
                 "_ironclaw_snapshots() { local -a names; names=(${(f)\"$(" ASK_SNAPSHOTS ")\"}); compadd -a names; }\n"
                 "_ironclaw_pools() { local -a names; names=(${(f)\"$(" ASK_POOLS ")\"}); compadd -a names; }\n"
                 "_ironclaw_vm_files() { local -a ids; ids=(${(f)\"$(" ASK_VMS ")\"}); "
                 "compadd -S : -a ids; _files; }\n"
                 "_ironclaw_verbs() {\n    local -a words_of\n    words_of=(");
    each_word(t, "", zsh_word);
    text_puts(t, ")\n    _describe -t commands command words_of\n}\n"
                 "_ironclaw_group_verbs() {\n    local -a words_of\n    case $words[2] in\n");
    each_group(t, zsh_help_group);
    text_puts(t, "    *) return;;\n    esac\n    _describe -t commands command words_of\n}\n"
                 "_ironclaw() {\n    local verb=$words[2]\n    local -a words_of\n"
                 "    if (( CURRENT == 2 )); then\n        _ironclaw_verbs\n        return\n    fi\n"
                 "    case $verb in\n");
    each_group(t, zsh_group);
    text_puts(t, "    esac\n    shift words\n    (( CURRENT-- ))\n    case $verb in\n");
    for (const struct cli_command *const *c = cli_commands; *c; c++)
        zsh_command(t, *c);
    text_puts(t, "    esac\n}\n"
                 "if [[ $funcstack[1] == _ironclaw ]]; then\n    _ironclaw \"$@\"\nelse\n"
                 "    compdef _ironclaw ironclaw\nfi\n");
}

/* ---- fish -------------------------------------------------------------------------------------------------------- */

static void fish_quote(struct text *t, const char *s, size_t len)
{
    text_putc(t, '\'');
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\'' || s[i] == '\\')
            text_putc(t, '\\');
        text_putc(t, s[i]);
    }
    text_putc(t, '\'');
}

static void fish_action(struct text *t, enum cli_complete complete)
{
    switch (complete) {
    case CLI_COMPLETE_FILE:
        text_puts(t, " -F");
        return;
    case CLI_COMPLETE_DIRECTORY:
        text_puts(t, " -f -a '(__fish_complete_directories)'");
        return;
    case CLI_COMPLETE_VM:
        text_puts(t, " -f -a '(" ASK_VMS ")'");
        return;
    case CLI_COMPLETE_VM_FILE:
        text_puts(t, " -F -a '(" ASK_VMS " | string replace -r \\'$\\' :)'");
        return;
    case CLI_COMPLETE_VM_IMAGE:
        text_puts(t, " -f -a '(" ASK_VMS "; " ASK_IMAGES ")'");
        return;
    case CLI_COMPLETE_VM_COMMAND:
        break; /* fish_vm_command() */
    case CLI_COMPLETE_IMAGE:
        text_puts(t, " -f -a '(" ASK_IMAGES ")'");
        break;
    case CLI_COMPLETE_TEMPLATE:
        text_puts(t, " -f -a '(" ASK_TEMPLATES ")'");
        break;
    case CLI_COMPLETE_SNAPSHOT:
        text_puts(t, " -f -a '(" ASK_SNAPSHOTS ")'");
        break;
    case CLI_COMPLETE_POOL:
        text_puts(t, " -f -a '(" ASK_POOLS ")'");
        return;
    case CLI_COMPLETE_COMMAND:
        text_puts(t, " -f -a '(__fish_complete_command)'");
        return;
    case CLI_COMPLETE_SHELL:
        text_puts(t, " -f -a 'bash zsh fish'");
        return;
    case CLI_COMPLETE_VERB:
        text_puts(t, " -f -a '");
        each_word(t, "", put_word);
        text_puts(t, "'");
        return;
    case CLI_COMPLETE_NONE:
        break;
    }
    text_puts(t, " -f");
}

static void fish_prefix(struct text *t, const struct cli_command *c)
{
    text_puts(t, "complete -c ironclaw -n '__ironclaw_is ");
    text_puts(t, c->name);
    text_puts(t, "'");
}

static void fish_vm_command(struct text *t, const struct cli_command *c)
{
    static const char *const parts[][2] = {
            {"; and __ironclaw_no_operand", "' -f -a '(" ASK_VMS ")'\n"},
            {"; and not __ironclaw_no_operand", "' -f -a '(__fish_complete_command)'\n"},
    };

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        text_printf(t, "complete -c ironclaw -n '__ironclaw_is %s%s", c->name, parts[i][0]);
        for (const struct cli_option *o = c->options; o->name; o++) {
            if (o->metavar && o->letter)
                text_printf(t, " -%c", o->letter);
            if (o->metavar)
                text_printf(t, " --%s", o->name);
        }
        text_puts(t, parts[i][1]);
    }
}

static void fish_option(struct text *t, const struct cli_command *c, const struct cli_option *o)
{
    fish_prefix(t, c);
    if (o->letter)
        text_printf(t, " -s %c", o->letter);
    text_printf(t, " -l %s -d ", o->name);
    fish_quote(t, o->help, strlen(o->help));
    if (o->kind == CLI_CHOICE) {
        text_puts(t, " -x -a '");
        put_words(t, o->metavar);
        text_puts(t, "'");
    } else if (o->metavar) {
        text_puts(t, " -r");
        fish_action(t, o->complete);
    }
    text_putc(t, '\n');
}

static void fish_word(struct text *t, const char *word, size_t len, const char *summary)
{
    text_puts(t, " -f -a ");
    fish_quote(t, word, len);
    text_puts(t, " -d ");
    fish_quote(t, summary, strlen(summary));
    text_putc(t, '\n');
}

static void fish_first(struct text *t, const char *word, size_t len, const char *summary)
{
    text_puts(t, "complete -c ironclaw -n '__ironclaw_words 1'");
    fish_word(t, word, len, summary);
}

static void fish(struct text *t)
{
    text_puts(t, "# fish completion for ironclaw\n"
                 "function __ironclaw_words\n"
                 "    test (count (commandline -opc)) -eq $argv[1]\nend\n"
                 "function __ironclaw_is\n"
                 "    set -l words (commandline -opc)\n"
                 "    set -e words[1]\n"
                 "    set -l n (count $argv)\n"
                 "    test (count $words) -ge $n; or return 1\n"
                 "    test \"$words[1..$n]\" = \"$argv\"\nend\n"
                 "function __ironclaw_group\n"
                 "    set -l words (commandline -opc)\n"
                 "    test (count $words) -eq 2; and test $words[2] = $argv[1]\nend\n"
                 "function __ironclaw_no_operand\n" /* $argv: the options that take a value */
                 "    set -l words (commandline -opc)\n"
                 "    set -e words[1..2]\n"
                 "    set -l value 0\n"
                 "    for word in $words\n"
                 "        if test $value = 1\n            set value 0\n"
                 "        else if contains -- $word $argv\n            set value 1\n"
                 "        else if not string match -q -- '-?*' $word\n            return 1\n"
                 "        end\n    end\nend\n"
                 "function __ironclaw_help_of\n"
                 "    set -l words (commandline -opc)\n"
                 "    test (count $words) -eq 3; and test $words[2] = help; and test $words[3] = $argv[1]\nend\n"
                 "complete -c ironclaw -f\n");
    each_word(t, "", fish_first);
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        const char *space = strchr((*c)->name, ' ');

        if (space) {
            text_printf(t, "complete -c ironclaw -n '__ironclaw_group %.*s'", (int)(space - (*c)->name), (*c)->name);
            fish_word(t, space + 1, strlen(space + 1), (*c)->summary);
            text_printf(t, "complete -c ironclaw -n '__ironclaw_help_of %.*s'", (int)(space - (*c)->name), (*c)->name);
            fish_word(t, space + 1, strlen(space + 1), (*c)->summary);
        }
        if ((*c)->complete == CLI_COMPLETE_VM_COMMAND) {
            fish_vm_command(t, *c);
        } else {
            if ((*c)->complete == CLI_COMPLETE_VERB)
                text_printf(t, "complete -c ironclaw -n '__ironclaw_is %s; and __ironclaw_words 2'", (*c)->name);
            else
                fish_prefix(t, *c);
            fish_action(t, (*c)->complete);
            text_putc(t, '\n');
        }
        fish_prefix(t, *c);
        text_puts(t, " -s h -l help -d 'show this help'\n");
        for (const struct cli_option *o = (*c)->options; o->name; o++)
            fish_option(t, *c, o);
    }
}

int cli_completion(const char *shell, struct text *ret)
{
    if (strcmp(shell, "bash") == 0)
        bash(ret);
    else if (strcmp(shell, "zsh") == 0)
        zsh(ret);
    else if (strcmp(shell, "fish") == 0)
        fish(ret);
    else
        return -1;
    return 0;
}
