/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <stdio.h>

static const struct cli_option options[] = {{0}};

static int completion_main(const struct cli_call *call)
{
    struct text script = {0};

    if (cli_completion(call->operands[0], &script) < 0)
        return cli_usage("'%s' is not one of bash, zsh, fish", call->operands[0]);
    (void)fwrite(script.data, 1, script.len, stdout);
    text_deinit(&script);
    return CLI_OK;
}

const struct cli_command cmd_completion = {
        .name = "completion",
        .operands = "bash|zsh|fish",
        .summary = "Print a completion script for a shell",
        .details = "bash: source <(ironclaw completion bash)\n"
                   "zsh:  source <(ironclaw completion zsh)   (after compinit)\n"
                   "fish: ironclaw completion fish | source",
        .options = options,
        .min_operands = 1,
        .max_operands = 1,
        .complete = CLI_COMPLETE_SHELL,
        .run = completion_main,
};
