/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs share that take VMs as operands. */
#pragma once

#include "cli/cli.h"

/*
 * Opens each operand of the call, does `action`, and prints the operand as Docker does. One that fails is reported and
 * the others are still done; the exit status is then that of the last failure.
 */
int vms_each(const struct cli_call *call, int (*action)(ic_vm *vm, const void *args, struct ic_error *error));

/* Runs or will run: CREATED to STOPPING. */
bool vms_is_alive(enum ic_vm_state state);

/* Prints a list of JSON documents, made by `get` for each operand, as one array. Failures as for vms_each. */
int vms_print_json(const struct cli_call *call,
        int (*get)(const char *name, const void *args, char **ret, struct ic_error *error));
