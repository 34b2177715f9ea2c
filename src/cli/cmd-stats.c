/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/json.h"
#include "cli/table.h"
#include "cli/values.h"

struct stats_args {
    bool json;
};

static const struct cli_option options[] = {
        {0, "json", NULL, "print a JSON array", CLI_FLAG, offsetof(struct stats_args, json), 0},
        {0},
};

struct output {
    struct table table;
    struct json json;
};

static void put_json(struct json *j, const char *id, const struct ic_vm_stats *s)
{
    const struct {
        const char *key;
        uint64_t value;
    } members[] = {
            {"uptime_ms", s->uptime_ms},
            {"mem_total_kib", s->mem_total_kib},
            {"mem_available_kib", s->mem_available_kib},
            {"overlay_size_kib", s->overlay_size_kib},
            {"overlay_used_kib", s->overlay_used_kib},
            {"oom_kills", s->oom_kills},
            {"processes", s->processes},
            {"sessions", s->sessions},
    };

    json_begin_object(j);
    json_key(j, "vm_id");
    json_string(j, id);
    for (size_t i = 0; i < COUNT_OF(members); i++) {
        json_key(j, members[i].key);
        json_u64(j, members[i].value);
    }
    json_end(j);
}

/* The numbers are the guest's own word: they may be nonsense, never dangerous. */
static void put_row(struct table *t, const char *id, const struct ic_vm_stats *s)
{
    uint64_t used_kib = s->mem_total_kib > s->mem_available_kib ? s->mem_total_kib - s->mem_available_kib : 0;
    char uptime[32], used[32], total[32], disk_used[32], disk_size[32], processes[16], sessions[16], kills[24];
    char memory[72], disk[72];

    value_format_duration(s->uptime_ms, uptime);
    value_format_bytes(used_kib * 1024, used);
    value_format_bytes(s->mem_total_kib * 1024, total);
    value_format_bytes(s->overlay_used_kib * 1024, disk_used);
    value_format_bytes(s->overlay_size_kib * 1024, disk_size);
    (void)snprintf(memory, sizeof(memory), "%s / %s", used, total);
    (void)snprintf(disk, sizeof(disk), "%s / %s", disk_used, disk_size);
    (void)snprintf(processes, sizeof(processes), "%" PRIu32, s->processes);
    (void)snprintf(sessions, sizeof(sessions), "%" PRIu32, s->sessions);
    (void)snprintf(kills, sizeof(kills), "%" PRIu64, s->oom_kills);
    table_row(t, (const char *const[]){id, uptime, memory, disk, processes, sessions, kills});
}

static int add(struct output *out, const char *name)
{
    struct ic_vm_stats stats = {.size = sizeof(stats)};
    struct ic_vm_info info = {.size = sizeof(info)};
    struct ic_error error = {0};
    ic_vm *vm = NULL;
    int r;

    r = ic_open_vm(name, &vm, &error);
    if (r >= 0)
        r = ic_vm_info(vm, &info, &error);
    if (r >= 0)
        r = ic_vm_stats(vm, &stats, &error);
    ic_vm_free(vm);
    if (r < 0)
        return cli_fail(r, &error);
    put_json(&out->json, info.vm_id, &stats);
    put_row(&out->table, info.vm_id, &stats);
    return CLI_OK;
}

static int add_all(struct output *out)
{
    struct ic_vm_info *vms = NULL;
    struct ic_error error = {0};
    int r, status = CLI_OK, one;
    size_t count = 0;

    r = ic_list_vms(&vms, &count, &error);
    if (r < 0)
        return cli_fail(r, &error);
    for (size_t i = 0; i < count; i++) {
        if (vms[i].state != IC_VM_READY)
            continue;
        one = add(out, vms[i].vm_id);
        status = one != CLI_OK ? one : status;
    }
    free(vms);
    return status;
}

static int stats_main(const struct cli_call *call)
{
    const struct stats_args *a = call->args;
    struct output out = {0};
    int status = CLI_OK, one;

    table_init(&out.table,
            (const char *const[]){"VM ID", "UPTIME", "MEMORY", "DISK", "PROCESSES", "SESSIONS", "OOM KILLS", NULL});
    json_begin_array(&out.json);
    if (call->operand_count == 0)
        status = add_all(&out);
    for (size_t i = 0; i < call->operand_count; i++) {
        one = add(&out, call->operands[i]);
        status = one != CLI_OK ? one : status;
    }
    json_end(&out.json);
    if (a->json)
        json_print(&out.json);
    else
        table_print(&out.table);
    json_deinit(&out.json);
    table_deinit(&out.table);
    return status;
}

const struct cli_command cmd_stats = {
        .name = "stats",
        .operands = "[VM...]",
        .summary = "Show what guests use",
        .details = "The numbers come from the guest. Without VM: every VM that is ready.",
        .options = options,
        .args_size = sizeof(struct stats_args),
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_VM,
        .run = stats_main,
};
