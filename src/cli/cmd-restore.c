/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/snapshots.h"
#include "cli/tty.h"

struct restore_args {
    bool json;
    const char *name;
    struct cli_number max_lifetime, max_disk, max_disk_ops;
};

static const struct cli_option options[] = {
        {0, "name", "ID", "name the VM", CLI_STRING, offsetof(struct restore_args, name), 0},
        {0, "max-lifetime", "TIME", "end the VM after so long, whatever it does", CLI_DURATION,
                offsetof(struct restore_args, max_lifetime), 0},
        {0, "max-disk", "N", "MiB/s from, and to, each of the host's disks; 0: no limit", CLI_COUNT,
                offsetof(struct restore_args, max_disk), 0},
        {0, "max-disk-ops", "N", "the same in reads, and in writes, a second", CLI_COUNT,
                offsetof(struct restore_args, max_disk_ops), 0},
        {0, "json", NULL, "print a JSON object", CLI_FLAG, offsetof(struct restore_args, json), 0},
        {0},
};

static uint32_t limit_of(const struct cli_number *number)
{
    if (!number->given)
        return 0;
    return number->value > 0 ? number->value : UINT32_MAX;
}

static int restore_main(const struct cli_call *call)
{
    const struct restore_args *a = call->args;
    struct progress progress;
    const struct ic_restore_options restore = {.size = sizeof(restore),
            .vm_id = a->name,
            .keep = true,
            .max_lifetime_ms = a->max_lifetime.given ? a->max_lifetime.value : 0,
            .max_disk_mib_per_s = limit_of(&a->max_disk),
            .max_disk_ops_per_s = limit_of(&a->max_disk_ops),
            .progress = progress_update,
            .userdata = &progress};
    struct ic_error error = {0};
    ic_vm *vm = NULL;
    int r;

    signals_init();
    progress_init(&progress, a->json || !tty_is(2));
    r = ic_restore_vm(call->operands[0], &restore, &vm, &error);
    progress_finish(&progress);
    if (r < 0)
        return cli_fail(r, &error);
    snapshots_print_vms(&vm, 1, NULL, a->json);
    ic_vm_free(vm);
    return CLI_OK;
}

const struct cli_command cmd_restore = {
        .name = "restore",
        .operands = "NAME",
        .summary = "Start a VM from a snapshot; it stays until 'rm'",
        .details = "As often as wanted: each has a name, ids, clock and randomness of its own.",
        .options = options,
        .args_size = sizeof(struct restore_args),
        .min_operands = 1,
        .max_operands = 1,
        .complete = CLI_COMPLETE_SNAPSHOT,
        .run = restore_main,
};
