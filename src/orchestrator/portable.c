/* SPDX-License-Identifier: Apache-2.0 */
/* libironclaw on systems that are not Linux: the interface is whole, and says what to do instead. */
#include <ironclaw/ironclaw.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int unsupported(struct ic_error *error)
{
    if (error) {
        error->code = IC_ERR_UNSUPPORTED;
        (void)snprintf(error->message, sizeof(error->message), "%s",
                "IronClaw runs VMs on Linux only; run it on a Linux host, in WSL 2 or in a Linux virtual machine");
    }
    return -IC_ERR_UNSUPPORTED;
}

void ic_vm_config_init(struct ic_vm_config *config)
{
    memset(config, 0, sizeof(*config));
    config->size = sizeof(*config);
    config->vcpu_count = 1;
    config->memory_mib = 256;
}

/* Nothing can have been set. */
void ic_vm_config_deinit(struct ic_vm_config *config)
{
    if (config)
        memset(config, 0, sizeof(*config));
}

void ic_exec_options_init(struct ic_exec_options *options)
{
    memset(options, 0, sizeof(*options));
    options->size = sizeof(*options);
    options->stdin_fd = options->stdout_fd = options->stderr_fd = -1;
}

void ic_vm_free(ic_vm *vm)
{
    (void)vm;
}

void ic_exec_resize(ic_exec *exec, uint16_t rows, uint16_t cols)
{
    (void)exec;
    (void)rows;
    (void)cols;
}

void ic_exec_signal(ic_exec *exec, int signo)
{
    (void)exec;
    (void)signo;
}

void ic_exec_cancel(ic_exec *exec)
{
    (void)exec;
}

void ic_exec_free(ic_exec *exec)
{
    (void)exec;
}

/* Every function below has the same body; the compiler checks each signature against the header. */
#define UNSUPPORTED(name, ...)                                                                                         \
    int name(__VA_ARGS__, struct ic_error *error)                                                                      \
    {                                                                                                                  \
        return unsupported(error);                                                                                     \
    }

UNSUPPORTED(ic_vm_config_set, struct ic_vm_config *config, const char *key, const char *value)
UNSUPPORTED(ic_vm_config_load_json, struct ic_vm_config *config, const char *json, size_t len, const char *name)
UNSUPPORTED(ic_vm_config_load_file, struct ic_vm_config *config, const char *path)
UNSUPPORTED(ic_vm_config_validate, const struct ic_vm_config *config)
UNSUPPORTED(ic_spawn_vm, const char *task_id, ic_vm **ret_vm)
UNSUPPORTED(ic_spawn_vm_with_config, const struct ic_vm_config *config, ic_vm **ret_vm)
UNSUPPORTED(ic_open_vm, const char *vm_id, ic_vm **ret_vm)
UNSUPPORTED(ic_destroy_vm, ic_vm *vm)
UNSUPPORTED(ic_vm_stop, ic_vm *vm, uint32_t timeout_ms)
UNSUPPORTED(ic_vm_kill, ic_vm *vm)
UNSUPPORTED(ic_vm_pause, ic_vm *vm)
UNSUPPORTED(ic_vm_resume, ic_vm *vm)
UNSUPPORTED(ic_vm_snapshot, ic_vm *vm, const char *name, uint64_t *ret_pause_us)
UNSUPPORTED(ic_restore_vm, const char *name, const struct ic_restore_options *options, ic_vm **ret_vm)
UNSUPPORTED(ic_vm_fork, ic_vm *vm, const struct ic_fork_options *options, ic_vm **ret_vms, uint64_t *ret_pause_us)
UNSUPPORTED(ic_template_list, struct ic_snapshot_info **ret, size_t *ret_count)
UNSUPPORTED(ic_template_build, const struct ic_vm_config *config, bool force, char *ret_name, bool *ret_built)
UNSUPPORTED(ic_template_remove, const char *name)
UNSUPPORTED(ic_template_verify, const char *name, ic_progress_fn progress, void *userdata)
UNSUPPORTED(ic_template_prune, uint32_t max_age_days, uint32_t max_total_mib, size_t *ret_removed)
UNSUPPORTED(ic_pool_run, const struct ic_vm_config *config, const struct ic_pool_options *options)
UNSUPPORTED(ic_pool_list, struct ic_pool_info **ret, size_t *ret_count)
UNSUPPORTED(ic_pool_stop, const char *name)
UNSUPPORTED(ic_snapshot_list, struct ic_snapshot_info **ret, size_t *ret_count)
UNSUPPORTED(ic_snapshot_remove, const char *name)
UNSUPPORTED(ic_snapshot_verify, const char *name, ic_progress_fn progress, void *userdata)
UNSUPPORTED(ic_vm_info, ic_vm *vm, struct ic_vm_info *ret)
UNSUPPORTED(ic_list_vms, struct ic_vm_info **ret, size_t *ret_count)
UNSUPPORTED(ic_vm_inspect_json, ic_vm *vm, char **ret)
UNSUPPORTED(ic_vm_open_log, ic_vm *vm, enum ic_log log, int *ret_fd)
UNSUPPORTED(ic_audit_read, const char *vm_id, struct ic_audit_entry **ret, size_t *ret_count, uint64_t *ret_dropped)
UNSUPPORTED(ic_vm_stats, ic_vm *vm, struct ic_vm_stats *ret)
UNSUPPORTED(ic_vm_exec_start, ic_vm *vm, const struct ic_exec_options *options, ic_exec **ret)
UNSUPPORTED(ic_exec_wait, ic_exec *exec, struct ic_exec_result *ret)
UNSUPPORTED(ic_vm_exec, ic_vm *vm, const struct ic_exec_options *options, struct ic_exec_result *ret)
UNSUPPORTED(ic_vm_copy_in, ic_vm *vm, const char *host_path, const char *guest_path,
        const struct ic_copy_options *options, struct ic_copy_result *ret)
UNSUPPORTED(ic_vm_copy_out, ic_vm *vm, const char *guest_path, const char *host_path,
        const struct ic_copy_options *options, struct ic_copy_result *ret)
UNSUPPORTED(ic_image_list, struct ic_image_info **ret, size_t *ret_count)
UNSUPPORTED(ic_image_build, const struct ic_image_build_options *options, bool *ret_built)
UNSUPPORTED(ic_image_import, const char *path, const struct ic_image_import_options *options)
UNSUPPORTED(ic_image_inspect_json, const char *name, char **ret)
UNSUPPORTED(ic_image_remove, const char *name, bool force)
UNSUPPORTED(ic_image_verify, const char *name, ic_progress_fn progress, void *userdata)
UNSUPPORTED(ic_kernel_list, struct ic_kernel_info **ret, size_t *ret_count)
UNSUPPORTED(ic_kernel_build, bool force, ic_progress_fn progress, void *userdata)
UNSUPPORTED(ic_probe_host, struct ic_host_report *ret)
UNSUPPORTED(ic_path_of, enum ic_path which, char **ret)
