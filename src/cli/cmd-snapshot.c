/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

static const struct cli_option options[] = {{0}};

static int snapshot_main(const struct cli_call *call)
{
    struct ic_error error = {0};
    ic_vm *vm = NULL;
    int r;

    r = ic_open_vm(call->operands[0], &vm, &error);
    if (r >= 0)
        r = ic_vm_snapshot(vm, call->operands[1], &error);
    ic_vm_free(vm);
    return r < 0 ? cli_fail(r, &error) : CLI_OK;
}

const struct cli_command cmd_snapshot = {
        .name = "snapshot",
        .operands = "VM DIRECTORY",
        .summary = "Save a VM's memory and state to a directory",
        .details = "No backend of this version can do it; the command says so.",
        .options = options,
        .min_operands = 2,
        .max_operands = 2,
        .complete = CLI_COMPLETE_VM,
        .run = snapshot_main,
};
