/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"
#include "cli/vms.h"

static const struct cli_option options[] = {{0}};

static int unpause_one(ic_vm *vm, const void *args, struct ic_error *error)
{
    (void)args;
    return ic_vm_resume(vm, error);
}

static int unpause_one_main(const struct cli_call *call)
{
    return vms_each(call, unpause_one);
}

const struct cli_command cmd_unpause = {
        .name = "unpause",
        .operands = "VM...",
        .summary = "Let paused VMs go on",
        .options = options,
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_VM,
        .run = unpause_one_main,
};
