/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line's skeleton.
 *
 * Each verb is one const struct cli_command: its name, operands, a table of
 * options and a function. Everything that must agree is made from these
 * tables: parsing, --help, the completion scripts; and test-docs compares the
 * manual with them. The CLI knows libironclaw only by its public header.
 *
 * Exit status: the command's own, 128+signal, and enum cli_exit.
 */
#pragma once

#include <ironclaw/ironclaw.h>

#include "cli/text.h"

enum cli_exit {
    CLI_OK = 0,
    CLI_USAGE = 2,     /* wrong options or configuration */
    CLI_TIMEOUT = 124, /* the command took longer than --timeout */
    CLI_FAILED = 125,  /* IronClaw itself failed */
    CLI_NOT_EXECUTABLE = 126,
    CLI_NOT_FOUND = 127,
};

/* What an option takes; in brackets the type of its field in the command's struct of arguments. */
enum cli_kind {
    CLI_FLAG,     /* nothing (bool) */
    CLI_STRING,   /* anything (const char *) */
    CLI_CHOICE,   /* one of the words of metavar, separated by '|' (const char *) */
    CLI_LIST,     /* anything, may be repeated (struct cli_list) */
    CLI_COUNT,    /* a decimal number (struct cli_number) */
    CLI_DURATION, /* 10s, 500ms, 2m (struct cli_number, ms) */
    CLI_MEMORY,   /* 256, 512m, 1g (struct cli_number, MiB) */
    CLI_BYTES,    /* 500, 64k, 10m (struct cli_number, bytes) */
};

struct cli_list {
    const char **items;
    size_t count;
};

struct cli_number {
    bool given;
    uint32_t value;
};

/* What completion offers for an option's value or a command's operands. */
enum cli_complete {
    CLI_COMPLETE_NONE,
    CLI_COMPLETE_FILE,
    CLI_COMPLETE_DIRECTORY,
    CLI_COMPLETE_VM,
    CLI_COMPLETE_VM_FILE,    /* a file, or VM:/path */
    CLI_COMPLETE_VM_IMAGE,   /* a VM or an image */
    CLI_COMPLETE_VM_COMMAND, /* first a VM, then a program */
    CLI_COMPLETE_IMAGE,
    CLI_COMPLETE_TEMPLATE,
    CLI_COMPLETE_SNAPSHOT,
    CLI_COMPLETE_POOL,
    CLI_COMPLETE_COMMAND, /* a program of the host: the nearest guess for one of the guest */
    CLI_COMPLETE_SHELL,   /* bash, zsh, fish */
    CLI_COMPLETE_VERB,    /* and behind the name of a group one of its own */
};

/* In the order in which tables are written. NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct cli_option {
    char letter;         /* '\0': none */
    const char *name;    /* without the dashes; NULL ends the table */
    const char *metavar; /* NULL for flags */
    const char *help;    /* one line, without full stop */
    enum cli_kind kind;
    size_t offset; /* of the field in the arguments */
    enum cli_complete complete;
};

struct cli_call {
    const struct cli_command *command;
    const void *args; /* the struct that command->options fill */
    char **argv;      /* as it was given, from the verb on; NULL-terminated */
    char **operands;  /* NULL-terminated */
    size_t operand_count;
};

struct cli_command {
    const char *name;     /* "run", "image ls" */
    const char *operands; /* "VM [--] COMMAND [ARG...]", or "" */
    const char *summary;
    const char *details; /* more lines for --help, or NULL */
    const struct cli_option *options;
    size_t args_size;
    size_t min_operands, max_operands;
    bool stops; /* options end at the first operand: what follows belongs to the guest's command */
    enum cli_complete complete;
    int (*run)(const struct cli_call *call); /* returns the exit status */
};

extern const struct cli_command *const cli_commands[]; /* NULL-terminated, in the order of `ironclaw help` */

/* ---- options.c --------------------------------------------------------------------------------------------------- */

enum { CLI_PARSE_OK = 0, CLI_PARSE_HELP = 1, CLI_PARSE_USAGE = 2 };
/*
 * Parses what follows the verb. CLI_PARSE_HELP when --help was met. After CLI_PARSE_USAGE *message says why, in one
 * line. On CLI_PARSE_OK release with cli_call_deinit(); the strings are argv's.
 */
int cli_parse(const struct cli_command *command, int argc, char **argv, struct cli_call *ret, struct text *message);
void cli_call_deinit(struct cli_call *call);

/* The command named by argv[0] (and argv[1] for "image ls"); *ret_used is how many words. NULL and *message if none. */
const struct cli_command *cli_find(int argc, char **argv, int *ret_used, struct text *message);
bool cli_is_group(const char *word, size_t len); /* "image", "kernel" */

/* ---- help.c ------------------------------------------------------------------------------------------------------ */

void cli_help_overview(struct text *ret);
void cli_help_group(const char *group, struct text *ret);
void cli_help_command(const struct cli_command *command, struct text *ret);

/* ---- completion.c ------------------------------------------------------------------------------------------------ */

int cli_completion(const char *shell, struct text *ret); /* -1: no such shell */

/* ---- report.c ---------------------------------------------------------------------------------------------------- */

void cli_set_verb(const char *verb); /* for the prefix of messages */
void cli_error(const char *fmt, ...) CLI_PRINTF(1, 2);
int cli_usage(const char *fmt, ...) CLI_PRINTF(1, 2); /* the same, and returns CLI_USAGE */
/* Reports a failed libironclaw call; 128+n after signal n cancelled it, else CLI_FAILED. */
int cli_fail(int r, const struct ic_error *error);
int cli_exit_of(int r);
