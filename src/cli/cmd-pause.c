/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"
#include "cli/vms.h"

static const struct cli_option options[] = {{0}};

static int pause_one(ic_vm *vm, const void *args, struct ic_error *error)
{
    (void)args;
    return ic_vm_pause(vm, error);
}

static int pause_one_main(const struct cli_call *call)
{
    return vms_each(call, pause_one);
}

const struct cli_command cmd_pause = {
        .name = "pause",
        .operands = "VM...",
        .summary = "Halt VMs where they are",
        .options = options,
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_VM,
        .run = pause_one_main,
};
