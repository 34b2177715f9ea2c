/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"
#include "cli/vms.h"

static const struct cli_option options[] = {{0}};

static int kill_one(ic_vm *vm, const void *args, struct ic_error *error)
{
    (void)args;
    return ic_vm_kill(vm, error);
}

static int kill_one_main(const struct cli_call *call)
{
    return vms_each(call, kill_one);
}

const struct cli_command cmd_kill = {
        .name = "kill",
        .operands = "VM...",
        .summary = "End VMs at once",
        .options = options,
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_VM,
        .run = kill_one_main,
};
