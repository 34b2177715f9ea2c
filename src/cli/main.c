/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/tty.h"

static int print(struct text *t)
{
    (void)fputs(text_str(t), stdout);
    text_deinit(t);
    return CLI_OK;
}

/* What was printed must have arrived; a reader that went away (head, a pager) is no failure to speak of. */
static int close_stdout(int status)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    if (errno == EPIPE)
        return status;
    cli_error("standard output: %s", errno ? strerror(errno) : "write error");
    return status == CLI_OK ? CLI_FAILED : status;
}

static int run_command(int argc, char **argv)
{
    const struct cli_command *command;
    struct text message = {0};
    struct cli_call call;
    int used, r, status;

    command = cli_find(argc, argv, &used, &message);
    if (command) {
        cli_set_verb(command->name);
        r = cli_parse(command, argc - used, argv + used, &call, &message);
        if (r == CLI_PARSE_OK) {
            call.argv = argv;
            status = command->run(&call);
            cli_call_deinit(&call);
            return status;
        }
        if (r == CLI_PARSE_HELP) {
            cli_help_command(command, &message);
            return print(&message);
        }
    }
    (void)cli_usage("%s", text_str(&message));
    text_deinit(&message);
    return CLI_USAGE;
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int dispatch(int argc, char **argv)
{
    struct text out = {0};

    if (argc == 0 || is_help(argv[0])) {
        cli_help_overview(&out);
        (void)fputs(text_str(&out), argc == 0 ? stderr : stdout);
        text_deinit(&out);
        return argc == 0 ? CLI_USAGE : CLI_OK;
    }
    if (strcmp(argv[0], "--version") == 0)
        return run_command(1, (char *[]){(char *)"version", NULL});
    if (argv[0][0] == '-')
        return cli_usage("options come after the command; see 'ironclaw help'");
    if (argc > 1 && is_help(argv[1]) && cli_is_group(argv[0], strlen(argv[0]))) {
        cli_help_group(argv[0], &out);
        return print(&out);
    }
    return run_command(argc, argv);
}

int main(int argc, char **argv)
{
    tty_init();
    return close_stdout(dispatch(argc > 0 ? argc - 1 : 0, argv + 1));
}
