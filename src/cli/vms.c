/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/vms.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/json.h"

bool vms_is_alive(enum ic_vm_state state)
{
    return state != IC_VM_FAILED && state != IC_VM_GONE;
}

int vms_each(const struct cli_call *call, int (*action)(ic_vm *vm, const void *args, struct ic_error *error))
{
    int status = CLI_OK;

    for (size_t i = 0; i < call->operand_count; i++) {
        struct ic_error error = {0};
        ic_vm *vm = NULL;
        int r = ic_open_vm(call->operands[i], &vm, &error);

        if (r >= 0)
            r = action(vm, call->args, &error);
        ic_vm_free(vm);
        if (r < 0)
            status = cli_fail(r, &error);
        else
            (void)printf("%s\n", call->operands[i]);
    }
    return status;
}

int vms_print_json(
        const struct cli_call *call, int (*get)(const char *name, const void *args, char **ret, struct ic_error *error))
{
    struct json j = {0};
    int status = CLI_OK;

    json_begin_array(&j);
    for (size_t i = 0; i < call->operand_count; i++) {
        struct ic_error error = {0};
        char *document = NULL;
        int r = get(call->operands[i], call->args, &document, &error);

        if (r < 0) {
            status = cli_fail(r, &error);
            continue;
        }
        json_raw(&j, document);
        free(document);
    }
    json_end(&j);
    json_print(&j);
    return status;
}
