/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <stdio.h>
#include <string.h>

#include "cli/vms.h"

struct inspect_args {
    const char *type;
};

static const struct cli_option options[] = {
        {0, "type", "vm|image", "only look among these", CLI_CHOICE, offsetof(struct inspect_args, type), 0},
        {0},
};

static int inspect_vm(const char *name, char **ret, struct ic_error *error)
{
    ic_vm *vm = NULL;
    int r;

    r = ic_open_vm(name, &vm, error);
    if (r >= 0)
        r = ic_vm_inspect_json(vm, ret, error);
    ic_vm_free(vm);
    return r;
}

/* A VM of that name, else an image of it. */
static int inspect(const char *name, const void *args, char **ret, struct ic_error *error)
{
    const struct inspect_args *a = args;
    struct ic_error image_error = {0};
    int r = -IC_ERR_NOT_FOUND, r_image;

    if (!a->type || strcmp(a->type, "vm") == 0)
        r = inspect_vm(name, ret, error);
    /* "base:2" is no VM id, so INVALID only says that it is no VM either. */
    if (r >= 0 || (r != -IC_ERR_NOT_FOUND && r != -IC_ERR_INVALID) || (a->type && strcmp(a->type, "vm") == 0))
        return r;
    r_image = ic_image_inspect_json(name, ret, &image_error);
    if (r_image >= 0 || a->type || (r_image != -IC_ERR_NOT_FOUND && r_image != -IC_ERR_INVALID)) {
        *error = image_error;
        return r_image;
    }
    if (r == -IC_ERR_NOT_FOUND)
        (void)snprintf(error->message, sizeof(error->message),
                "no VM and no image '%.128s'; 'ironclaw ps -a' and 'ironclaw image ls' list them", name);
    return r;
}

static int inspect_main(const struct cli_call *call)
{
    return vms_print_json(call, inspect);
}

const struct cli_command cmd_inspect = {
        .name = "inspect",
        .operands = "VM|IMAGE...",
        .summary = "Show all that is known of VMs and images, as JSON",
        .options = options,
        .args_size = sizeof(struct inspect_args),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_VM_IMAGE,
        .run = inspect_main,
};
