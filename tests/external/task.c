/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of somebody else: it knows the installed header, library and
 * pkg-config file, and nothing of this tree. It spawns a VM, runs a command
 * in it, looks at it and destroys it.
 */
#include <ironclaw/ironclaw.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(int r, const char *what, const struct ic_error *error)
{
    if (r >= 0)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, ic_error_name(error->code), error->message);
    exit(1);
}

static void run_python(ic_vm *vm)
{
    static const char *const argv[] = {"python3", "-c", "import sys; print(6 * 7); sys.exit(5)", NULL};
    struct ic_exec_options options;
    struct ic_exec_result result = {.size = sizeof(result)};
    struct ic_error error = {0};
    char output[64] = "";
    int out[2];

    if (pipe(out) < 0)
        exit(1);
    ic_exec_options_init(&options);
    options.argv = argv;
    options.stdout_fd = out[1];
    must(ic_vm_exec(vm, &options, &result, &error), "ic_vm_exec", &error);
    close(out[1]);
    if (read(out[0], output, sizeof(output) - 1) < 0)
        exit(1);
    close(out[0]);
    if (result.outcome != IC_EXEC_EXITED || result.exit_code != 5 || strcmp(output, "42\n") != 0) {
        fprintf(stderr, "outcome %d, exit code %d, output '%s'\n", (int)result.outcome, result.exit_code, output);
        exit(1);
    }
}

int main(void)
{
    struct ic_vm_config config;
    struct ic_vm_info info = {.size = sizeof(info)}, *all = NULL;
    struct ic_error error = {0};
    size_t count = 0;
    ic_vm *vm = NULL;

    ic_vm_config_init(&config);
    must(ic_vm_config_set(&config, "vm_id", "outside", &error), "set vm_id", &error);
    must(ic_vm_config_set(&config, "memory_mib", "192", &error), "set memory_mib", &error);
    if (ic_vm_config_set(&config, "enable_networking", "true", &error) >= 0 &&
            ic_vm_config_validate(&config, &error) >= 0) {
        fprintf(stderr, "enable_networking was accepted\n");
        return 1;
    }
    must(ic_vm_config_set(&config, "enable_networking", "false", &error), "set enable_networking", &error);
    must(ic_spawn_vm_with_config(&config, &vm, &error), "ic_spawn_vm_with_config", &error);
    run_python(vm);
    must(ic_vm_info(vm, &info, &error), "ic_vm_info", &error);
    printf("%s %s %s %s\n", info.vm_id, ic_vm_state_name(info.state), ic_backend_name(info.backend),
            ic_isolation_name(info.isolation));
    must(ic_destroy_vm(vm, &error), "ic_destroy_vm", &error);
    ic_vm_free(vm);
    vm = NULL;
    ic_vm_config_deinit(&config);

    must(ic_spawn_vm("task-1", &vm, &error), "ic_spawn_vm", &error);
    must(ic_destroy_vm(vm, &error), "ic_destroy_vm", &error);
    must(ic_destroy_vm(vm, &error), "ic_destroy_vm again", &error);
    ic_vm_free(vm);
    must(ic_list_vms(&all, &count, &error), "ic_list_vms", &error);
    free(all);
    printf("left %zu\n", count);
    return count == 0 ? 0 : 1;
}
