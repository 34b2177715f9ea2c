/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <stdio.h>

#include "cli/vms.h"

struct rm_args {
    bool force;
};

static const struct cli_option options[] = {
        {'f', "force", NULL, "also when it runs; no error when it is not there", CLI_FLAG,
                offsetof(struct rm_args, force), 0},
        {0},
};

static int remove_one(const char *name, bool force, struct ic_error *error)
{
    struct ic_vm_info info = {.size = sizeof(info)};
    ic_vm *vm = NULL;
    int r;

    r = ic_open_vm(name, &vm, error);
    if (r < 0)
        return r;
    if (!force) {
        r = ic_vm_info(vm, &info, error);
        if (r >= 0 && vms_is_alive(info.state)) {
            error->code = IC_ERR_STATE;
            (void)snprintf(error->message, sizeof(error->message),
                    "VM %s is %s; stop it first, or use 'ironclaw rm -f %s'", info.vm_id, ic_vm_state_name(info.state),
                    info.vm_id);
            r = -IC_ERR_STATE;
        }
    }
    if (r >= 0)
        r = ic_destroy_vm(vm, error);
    ic_vm_free(vm);
    return r;
}

static int rm_main(const struct cli_call *call)
{
    const struct rm_args *a = call->args;
    int status = CLI_OK;

    for (size_t i = 0; i < call->operand_count; i++) {
        struct ic_error error = {0};
        int r = remove_one(call->operands[i], a->force, &error);

        if (r == -IC_ERR_NOT_FOUND && a->force)
            continue;
        if (r < 0)
            status = cli_fail(r, &error);
        else
            (void)printf("%s\n", call->operands[i]);
    }
    return status;
}

const struct cli_command cmd_rm = {
        .name = "rm",
        .operands = "VM...",
        .summary = "Remove VMs and all they left",
        .options = options,
        .args_size = sizeof(struct rm_args),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_VM,
        .run = rm_main,
};
