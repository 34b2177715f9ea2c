/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot create, ls, rm, verify */
#include "cli/commands.h"

#include <stdio.h>

#include "cli/json.h"
#include "cli/snapshots.h"

static const struct snapshots_kind snapshots = {
        .word = "snapshot",
        .named = true,
        .list = ic_snapshot_list,
        .remove = ic_snapshot_remove,
        .verify = ic_snapshot_verify,
};

struct create_args {
    bool quiet, json;
};

static const struct cli_option create_options[] = {
        {'q', "quiet", NULL, "do not say how long the VM was held", CLI_FLAG, offsetof(struct create_args, quiet), 0},
        {0, "json", NULL, "print a JSON object", CLI_FLAG, offsetof(struct create_args, json), 0},
        {0},
};

static int create_main(const struct cli_call *call)
{
    const struct create_args *a = call->args;
    const char *name = call->operands[1];
    struct json j = {.one_line = true};
    struct ic_error error = {0};
    uint64_t pause_us = 0;
    ic_vm *vm = NULL;
    int r = ic_open_vm(call->operands[0], &vm, &error);

    if (r == 0)
        r = ic_vm_snapshot(vm, name, &pause_us, &error);
    ic_vm_free(vm);
    if (r < 0)
        return cli_fail(r, &error);
    if (a->json) {
        json_begin_object(&j);
        json_key(&j, "name");
        json_string(&j, name);
        json_key(&j, "pause_us");
        json_u64(&j, pause_us);
        json_end(&j);
        json_print(&j);
        json_deinit(&j);
        return CLI_OK;
    }
    (void)printf("%s\n", name);
    if (!a->quiet)
        (void)fprintf(stderr, "ironclaw: the VM was held for %.1f ms\n", (double)pause_us / 1000);
    return CLI_OK;
}

static int ls_main(const struct cli_call *call)
{
    return snapshots_ls(call, &snapshots);
}

static int rm_main(const struct cli_call *call)
{
    return snapshots_rm(call, &snapshots);
}

static int verify_main(const struct cli_call *call)
{
    return snapshots_verify(call, &snapshots);
}

const struct cli_command cmd_snapshot_create = {
        .name = "snapshot create",
        .operands = "VM NAME",
        .summary = "Save a running VM, which goes on, under a name",
        .details = "'ironclaw restore NAME' starts from it, also after a restart of the host. Its commands and\n"
                   "connections end in what is restored; what they left behind, files and daemons, is there.",
        .options = create_options,
        .args_size = sizeof(struct create_args),
        .min_operands = 2,
        .max_operands = 2,
        .complete = CLI_COMPLETE_VM,
        .run = create_main,
};

const struct cli_command cmd_snapshot_ls = {
        .name = "snapshot ls",
        .operands = "",
        .summary = "List snapshots",
        .options = snapshots_ls_options,
        .args_size = sizeof(struct snapshots_ls_args),
        .run = ls_main,
};

const struct cli_command cmd_snapshot_rm = {
        .name = "snapshot rm",
        .operands = "NAME...",
        .summary = "Remove snapshots",
        .options = snapshots_rm_options,
        .args_size = sizeof(struct snapshots_rm_args),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_SNAPSHOT,
        .run = rm_main,
};

const struct cli_command cmd_snapshot_verify = {
        .name = "snapshot verify",
        .operands = "[NAME...]",
        .summary = "Compute every digest of snapshots again",
        .details = "Without NAME: all of them.",
        .options = snapshots_verify_options,
        .args_size = sizeof(struct snapshots_verify_args),
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_SNAPSHOT,
        .run = verify_main,
};
