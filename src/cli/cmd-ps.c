/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/json.h"
#include "cli/table.h"
#include "cli/tty.h"
#include "cli/values.h"
#include "cli/vms.h"

struct ps_args {
    bool all, quiet, json, no_trunc;
};

#define FIELD(f) offsetof(struct ps_args, f)

static const struct cli_option options[] = {
        {'a', "all", NULL, "also VMs that have ended", CLI_FLAG, FIELD(all), 0},
        {'q', "quiet", NULL, "ids only", CLI_FLAG, FIELD(quiet), 0},
        {0, "no-trunc", NULL, "don't shorten; show image digests", CLI_FLAG, FIELD(no_trunc), 0},
        {0, "json", NULL, "print a JSON array", CLI_FLAG, FIELD(json), 0},
        {0},
};

static void put_json(struct json *j, const struct ic_vm_info *vm)
{
    json_begin_object(j);
    json_key(j, "vm_id");
    json_string(j, vm->vm_id);
    json_key(j, "state");
    json_string(j, ic_vm_state_name(vm->state));
    json_key(j, "backend");
    json_string(j, ic_backend_name(vm->backend));
    json_key(j, "isolation");
    json_string(j, ic_isolation_name(vm->isolation));
    json_key(j, "kept");
    json_bool(j, vm->keep);
    json_key(j, "image");
    json_string(j, vm->image);
    json_key(j, "image_digest");
    json_string(j, vm->image_digest);
    json_key(j, "kernel");
    json_string(j, vm->kernel);
    json_key(j, "vcpu_count");
    json_u64(j, vm->vcpu_count);
    json_key(j, "memory_mib");
    json_u64(j, vm->memory_mib);
    json_key(j, "created_unix_ms");
    json_i64(j, vm->created_unix_ms);
    json_key(j, "ready_unix_ms");
    json_i64(j, vm->ready_unix_ms);
    json_key(j, "origin");
    json_string(j, vm->origin);
    json_key(j, "boot_ms");
    json_u64(j, vm->boot_ms);
    json_key(j, "monitor_pid");
    json_i64(j, vm->monitor_pid);
    json_key(j, "vsock_pid");
    json_i64(j, vm->vsock_pid);
    json_key(j, "jail_missing");
    json_string(j, vm->jail_missing[0] ? vm->jail_missing : NULL);
    json_key(j, "failure");
    json_string(j, vm->failure[0] ? vm->failure : NULL);
    json_end(j);
}

static void put_row(struct table *t, const struct ps_args *a, const struct ic_vm_info *vm)
{
    struct text status = {0}, image = {0};
    char memory[32], cpus[16], age[32];

    /* Its start is not over before somebody takes it. */
    if (vm->state == IC_VM_BOOTING && strncmp(vm->origin, "pool", 4) == 0)
        text_puts(&status, "in a pool");
    else
        text_puts(&status, ic_vm_state_name(vm->state));
    if (vm->failure[0])
        text_printf(&status, a->no_trunc ? ": %s" : ": %.32s", vm->failure);
    if (!a->no_trunc && strlen(vm->failure) > 32)
        text_puts(&status, "...");
    text_printf(&image, a->no_trunc ? "%s" : "%.40s", vm->image);
    if (a->no_trunc && vm->image_digest[0])
        text_printf(&image, "@sha256:%s", vm->image_digest);
    value_format_bytes((uint64_t)vm->memory_mib << 20, memory);
    (void)snprintf(cpus, sizeof(cpus), "%u", (unsigned)vm->vcpu_count);
    value_format_age(tty_unix_ms(), vm->created_unix_ms, age);
    table_row(t, (const char *const[]){vm->vm_id, text_str(&image), age, text_str(&status),
                         ic_backend_name(vm->backend), ic_isolation_name(vm->isolation), cpus, memory});
    text_deinit(&status);
    text_deinit(&image);
}

static void print(const struct ps_args *a, const struct ic_vm_info *vms, size_t count)
{
    struct table table;
    struct json j = {0};

    table_init(&table, (const char *const[]){
                               "VM ID", "IMAGE", "CREATED", "STATE", "BACKEND", "ISOLATION", "CPUS", "MEMORY", NULL});
    json_begin_array(&j);
    for (size_t i = 0; i < count; i++) {
        if (!a->all && !vms_is_alive(vms[i].state))
            continue;
        if (a->json)
            put_json(&j, &vms[i]);
        else if (a->quiet)
            (void)printf("%s\n", vms[i].vm_id);
        else
            put_row(&table, a, &vms[i]);
    }
    json_end(&j);
    if (a->json)
        json_print(&j);
    else if (!a->quiet)
        table_print(&table);
    json_deinit(&j);
    table_deinit(&table);
}

static int ps_main(const struct cli_call *call)
{
    struct ic_vm_info *vms = NULL;
    struct ic_error error = {0};
    size_t count = 0;
    int r;

    r = ic_list_vms(&vms, &count, &error);
    if (r < 0)
        return cli_fail(r, &error);
    print(call->args, vms, count);
    free(vms);
    return CLI_OK;
}

const struct cli_command cmd_ps = {
        .name = "ps",
        .operands = "",
        .summary = "List VMs",
        .options = options,
        .args_size = sizeof(struct ps_args),
        .run = ps_main,
};
