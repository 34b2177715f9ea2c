/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <stdio.h>
#include <string.h>

static const struct cli_option options[] = {{0}};

static int help_main(const struct cli_call *call)
{
    const struct cli_command *command;
    struct text out = {0};
    int used, status = CLI_OK;

    if (call->operand_count == 0) {
        cli_help_overview(&out);
    } else if (call->operand_count == 1 && cli_is_group(call->operands[0], strlen(call->operands[0]))) {
        cli_help_group(call->operands[0], &out);
    } else {
        command = cli_find((int)call->operand_count, call->operands, &used, &out);
        if (!command) {
            status = cli_usage("%s", text_str(&out));
            text_deinit(&out);
            return status;
        }
        cli_help_command(command, &out);
    }
    (void)fputs(text_str(&out), stdout);
    text_deinit(&out);
    return status;
}

const struct cli_command cmd_help = {
        .name = "help",
        .operands = "[COMMAND]",
        .summary = "Explain a command",
        .options = options,
        .max_operands = 2,
        .complete = CLI_COMPLETE_VERB,
        .run = help_main,
};
