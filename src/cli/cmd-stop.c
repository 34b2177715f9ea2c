/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"
#include "cli/vms.h"

#define DEFAULT_TIMEOUT_MS 10000

struct stop_args {
    struct cli_number timeout;
};

static const struct cli_option options[] = {
        {'t', "timeout", "TIME", "wait at most that long for the guest (10s)", CLI_DURATION,
                offsetof(struct stop_args, timeout), 0},
        {0},
};

static int stop(ic_vm *vm, const void *args, struct ic_error *error)
{
    const struct stop_args *a = args;

    return ic_vm_stop(vm, a->timeout.given ? a->timeout.value : DEFAULT_TIMEOUT_MS, error);
}

static int stop_main(const struct cli_call *call)
{
    return vms_each(call, stop);
}

const struct cli_command cmd_stop = {
        .name = "stop",
        .operands = "VM...",
        .summary = "Ask guests to power off, then end them",
        .details = "The record and the logs of a kept VM stay until 'ironclaw rm'.",
        .options = options,
        .args_size = sizeof(struct stop_args),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_VM,
        .run = stop_main,
};
