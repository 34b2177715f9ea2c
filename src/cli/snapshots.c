/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/snapshots.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/json.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/table.h"
#include "cli/tty.h"
#include "cli/values.h"

/* ---- ls ---------------------------------------------------------------------------------------------------------- */

const struct cli_option snapshots_ls_options[] = {
        {'q', "quiet", NULL, "names only", CLI_FLAG, offsetof(struct snapshots_ls_args, quiet), 0},
        {0, "json", NULL, "print a JSON array", CLI_FLAG, offsetof(struct snapshots_ls_args, json), 0},
        {0},
};

static void put_json(struct json *j, const struct ic_snapshot_info *info, const struct snapshots_kind *kind)
{
    json_begin_object(j);
    json_key(j, "name");
    json_string(j, info->name);
    if (kind->named) {
        json_key(j, "vm_id");
        json_string(j, info->vm_id);
    }
    json_key(j, "backend");
    json_string(j, ic_backend_name(info->backend));
    json_key(j, "image");
    json_string(j, info->image);
    json_key(j, "image_digest");
    json_string(j, info->image_digest);
    json_key(j, "vcpu_count");
    json_u64(j, info->vcpu_count);
    json_key(j, "memory_mib");
    json_u64(j, info->memory_mib);
    json_key(j, "size_bytes");
    json_u64(j, info->size_bytes);
    json_key(j, "created_unix_ms");
    json_i64(j, info->created_unix_ms);
    json_key(j, "used_unix_ms");
    json_i64(j, info->used_unix_ms);
    json_end(j);
}

static void put_row(struct table *t, const struct ic_snapshot_info *info, const struct snapshots_kind *kind)
{
    char size[32], created[32], used[32], shape[48];
    bool damaged = info->backend == IC_BACKEND_AUTO;

    value_format_bytes(info->size_bytes, size);
    value_format_age(tty_unix_ms(), info->created_unix_ms, created);
    value_format_age(tty_unix_ms(), info->used_unix_ms, used);
    (void)snprintf(shape, sizeof(shape), "%u CPU%s, %u MiB", info->vcpu_count, info->vcpu_count == 1 ? "" : "s",
            info->memory_mib);
    table_row(t, (const char *const[]){info->name, damaged ? "damaged" : info->image,
                         damaged ? NULL : ic_backend_name(info->backend), damaged ? NULL : shape, created,
                         kind->named ? info->vm_id : used, size});
}

int snapshots_ls(const struct cli_call *call, const struct snapshots_kind *kind)
{
    const struct snapshots_ls_args *a = call->args;
    struct ic_snapshot_info *infos = NULL;
    struct ic_error error = {0};
    struct table table;
    struct json j = {0};
    size_t count = 0;
    int r = kind->list(&infos, &count, &error);

    if (r < 0)
        return cli_fail(r, &error);
    table_init(&table, (const char *const[]){"NAME", "IMAGE", "BACKEND", "SHAPE", "CREATED",
                               kind->named ? "VM" : "USED", "SIZE", NULL});
    json_begin_array(&j);
    for (size_t i = 0; i < count; i++) {
        put_json(&j, &infos[i], kind);
        put_row(&table, &infos[i], kind);
        if (a->quiet && !a->json)
            (void)printf("%s\n", infos[i].name);
    }
    json_end(&j);
    if (a->json)
        json_print(&j);
    else if (!a->quiet)
        table_print(&table);
    json_deinit(&j);
    table_deinit(&table);
    free(infos);
    return CLI_OK;
}

/* ---- rm ---------------------------------------------------------------------------------------------------------- */

const struct cli_option snapshots_rm_options[] = {
        {'f', "force", NULL, "no error when it is not there", CLI_FLAG, offsetof(struct snapshots_rm_args, force), 0},
        {0},
};

int snapshots_rm(const struct cli_call *call, const struct snapshots_kind *kind)
{
    const struct snapshots_rm_args *a = call->args;
    int status = CLI_OK;

    for (size_t i = 0; i < call->operand_count; i++) {
        struct ic_error error = {0};
        int r = kind->remove(call->operands[i], &error);

        if (r == -IC_ERR_NOT_FOUND && a->force)
            continue;
        if (r < 0)
            status = cli_fail(r, &error);
        else
            (void)printf("%s\n", call->operands[i]);
    }
    return status;
}

/* ---- verify ------------------------------------------------------------------------------------------------------ */

const struct cli_option snapshots_verify_options[] = {
        {'q', "quiet", NULL, "no progress", CLI_FLAG, offsetof(struct snapshots_verify_args, quiet), 0},
        {0},
};

static int verify_one(const char *name, bool quiet, const struct snapshots_kind *kind)
{
    struct ic_error error = {0};
    struct progress progress;
    int r;

    progress_init(&progress, quiet || !tty_is(2));
    r = kind->verify(name, progress_update, &progress, &error);
    progress_finish(&progress);
    if (r < 0)
        return cli_fail(r, &error);
    if (!quiet)
        (void)printf("%s: every digest is right\n", name);
    return CLI_OK;
}

int snapshots_verify(const struct cli_call *call, const struct snapshots_kind *kind)
{
    const struct snapshots_verify_args *a = call->args;
    struct ic_snapshot_info *infos = NULL;
    struct ic_error error = {0};
    int status = CLI_OK, one, r;
    size_t count = 0;

    signals_init();
    for (size_t i = 0; i < call->operand_count && !signals_pending(); i++) {
        one = verify_one(call->operands[i], a->quiet, kind);
        status = one != CLI_OK ? one : status;
    }
    if (call->operand_count > 0)
        return status;
    r = kind->list(&infos, &count, &error);
    if (r < 0)
        return cli_fail(r, &error);
    for (size_t i = 0; i < count && !signals_pending(); i++) {
        one = verify_one(infos[i].name, a->quiet, kind);
        status = one != CLI_OK ? one : status;
    }
    free(infos);
    return status;
}

/* ---- VMs that were made ------------------------------------------------------------------------------------------ */

void snapshots_print_vms(ic_vm *const *vms, size_t count, const uint64_t *pause_us, bool json)
{
    struct json j = {.one_line = true};

    json_begin_object(&j);
    if (pause_us) {
        json_key(&j, "pause_us");
        json_u64(&j, *pause_us);
    }
    json_key(&j, "vms");
    json_begin_array(&j);
    for (size_t i = 0; i < count; i++) {
        struct ic_vm_info info = {.size = sizeof(info)};
        struct ic_error error;

        if (ic_vm_info(vms[i], &info, &error) < 0)
            continue;
        json_begin_object(&j);
        json_key(&j, "vm_id");
        json_string(&j, info.vm_id);
        json_key(&j, "origin");
        json_string(&j, info.origin);
        json_key(&j, "generation");
        json_string(&j, info.generation);
        json_key(&j, "boot_ms");
        json_u64(&j, info.boot_ms);
        json_end(&j);
        if (!json)
            (void)printf("%s\n", info.vm_id);
    }
    json_end(&j);
    json_end(&j);
    if (json)
        json_print(&j);
    json_deinit(&j);
}
