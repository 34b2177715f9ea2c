/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <stdio.h>

#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/snapshots.h"
#include "cli/tty.h"

struct fork_args {
    bool quiet, json;
    struct cli_number count;
    const char *name;
};

static const struct cli_option options[] = {
        {'n', "count", "N", "how many children, 1 to 64 (1)", CLI_COUNT, offsetof(struct fork_args, count), 0},
        {0, "name", "ID", "name the child; of several, the beginning: ID-1, ID-2", CLI_STRING,
                offsetof(struct fork_args, name), 0},
        {'q', "quiet", NULL, "do not say how long the VM was held", CLI_FLAG, offsetof(struct fork_args, quiet), 0},
        {0, "json", NULL, "print a JSON object", CLI_FLAG, offsetof(struct fork_args, json), 0},
        {0},
};

static int fork_main(const struct cli_call *call)
{
    const struct fork_args *a = call->args;
    struct progress progress;
    const struct ic_fork_options fork = {.size = sizeof(fork),
            .count = a->count.given ? a->count.value : 1,
            .vm_id = a->name,
            .progress = progress_update,
            .userdata = &progress};
    struct ic_error error = {0};
    ic_vm *vm = NULL, *children[IC_FORK_MAX] = {0};
    uint64_t pause_us = 0;
    int r;

    if (fork.count < 1 || fork.count > IC_FORK_MAX)
        return cli_usage("-n %u: must be 1 to %d", fork.count, IC_FORK_MAX);
    signals_init();
    progress_init(&progress, a->quiet || a->json || !tty_is(2));
    r = ic_open_vm(call->operands[0], &vm, &error);
    if (r == 0)
        r = ic_vm_fork(vm, &fork, children, &pause_us, &error);
    progress_finish(&progress);
    ic_vm_free(vm);
    if (r < 0)
        return cli_fail(r, &error);
    snapshots_print_vms(children, fork.count, &pause_us, a->json);
    if (!a->quiet && !a->json)
        (void)fprintf(stderr, "ironclaw: the VM was held for %.1f ms\n", (double)pause_us / 1000);
    for (uint32_t i = 0; i < fork.count; i++)
        ic_vm_free(children[i]);
    return CLI_OK;
}

const struct cli_command cmd_fork = {
        .name = "fork",
        .operands = "VM",
        .summary = "Start copies of a running VM, which goes on",
        .details = "Each child has a name, ids, clock and randomness of its own, and stays until 'rm'. Commands that\n"
                   "run in the VM go on there and end in the children; files and daemons are in both.",
        .options = options,
        .args_size = sizeof(struct fork_args),
        .min_operands = 1,
        .max_operands = 1,
        .complete = CLI_COMPLETE_VM,
        .run = fork_main,
};
