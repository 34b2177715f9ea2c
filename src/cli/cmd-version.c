/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <stdio.h>
#include <string.h>

#include "cli/json.h"

struct version_args {
    bool json;
};

static const struct cli_option options[] = {
        {0, "json", NULL, "print a JSON object", CLI_FLAG, offsetof(struct version_args, json), 0},
        {0},
};

static int version_main(const struct cli_call *call)
{
    const struct version_args *a = call->args;
    const char *library = ic_version();
    struct json j = {0};

    if (a->json) {
        json_begin_object(&j);
        json_key(&j, "version");
        json_string(&j, IRONCLAW_VERSION);
        json_key(&j, "library");
        json_string(&j, library);
        json_end(&j);
        json_print(&j);
    } else {
        (void)printf("ironclaw %s\n", IRONCLAW_VERSION);
        if (strcmp(library, IRONCLAW_VERSION) != 0)
            (void)printf("libironclaw %s\n", library);
    }
    return CLI_OK;
}

const struct cli_command cmd_version = {
        .name = "version",
        .operands = "",
        .summary = "Print the version",
        .options = options,
        .args_size = sizeof(struct version_args),
        .run = version_main,
};
