/* SPDX-License-Identifier: Apache-2.0 */
/* Children of a VM that runs. What they begin from lies in the parent's state directory until they have all begun. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "orchestrator/images/progress.h"
#include "orchestrator/paths.h"
#include "orchestrator/snapshots/freeze.h"
#include "orchestrator/snapshots/saving.h"
#include "orchestrator/spawn.h"

struct fork {
    struct table_entry entry; /* of the parent */
    struct record record;
    struct saving saving; /* with what they begin from */
    struct snapshot from;
};

static void fork_deinit(struct fork *f)
{
    snapshot_deinit(&f->from);
    saving_end(&f->saving);
    record_deinit(&f->record);
    table_entry_deinit(&f->entry);
}

static int child_id(
        char id[IC_VM_ID_MAX + 1], const struct ic_fork_options *options, uint32_t index, struct ic_error *error)
{
    int n = options->count > 1 ? snprintf(id, IC_VM_ID_MAX + 1, "%s-%u", options->vm_id, index + 1)
                               : snprintf(id, IC_VM_ID_MAX + 1, "%s", options->vm_id);

    /* Both: of nothing the children would be called "-1" and so on, which no command takes for a name. */
    if (options->vm_id[0] == '-')
        return ic_fail(error, IC_ERR_INVALID, "vm id '%.80s': begins with '-', as options do", options->vm_id);
    if (n > IC_VM_ID_MAX || !path_vm_id_ok(options->vm_id) || !path_vm_id_ok(id))
        return ic_fail(error, IC_ERR_INVALID, "vm id '%.80s': must be 1 to %d of the characters a-z A-Z 0-9 _ -",
                options->vm_id, IC_VM_ID_MAX);
    return 0;
}

static int spawn_child(const struct fork *f, const struct ic_fork_options *options, uint32_t index, ic_vm **ret,
        struct ic_error *error)
{
    char id[IC_VM_ID_MAX + 1], origin[sizeof(f->record.origin)];
    const struct spawn_plan plan = {.from = &f->from, .origin = origin, .restore = true};
    struct ic_vm_config config;
    int r = 0;

    (void)snprintf(origin, sizeof(origin), "fork of %s", f->record.vm_id);
    ic_vm_config_init(&config);
    config.keep = true;
    config.jail = f->record.jail_mode; /* as the parent's processes are confined */
    config.seccomp_level = f->record.seccomp_level;
    if (options->vm_id)
        r = child_id(id, options, index, error);
    if (r == 0 && options->vm_id)
        r = ic_vm_config_set(&config, "vm_id", id, error);
    if (r == 0)
        r = spawn_vm(&config, &plan, ret, error);
    ic_vm_config_deinit(&config);
    return r;
}

/* The parent's lock is held only as long as the parent is concerned. */
static int take(struct fork *f, const char *vm_id, uint64_t *ret_pause_us, struct ic_error *error)
{
    int r = vm_lock(vm_id, deadline_after_ms(VM_LOCK_TIMEOUT_MS), &f->entry, &f->record, error);

    if (r == 0)
        r = saving_begin(&f->entry, &f->record, &f->saving, error);
    if (r == 0)
        r = freeze_and_save(&f->record, &f->saving, ret_pause_us, error);
    if (r == 0)
        r = snapshot_take_into(f->saving.dir, &f->record, &f->from, error);
    if (r < 0)
        return r;
    f->from.store = STORE_SNAPSHOTS;
    (void)snprintf(f->from.name, sizeof(f->from.name), "%s", f->record.vm_id);
    table_entry_deinit(&f->entry);
    f->entry.lock_fd = -1;
    return 0;
}

int ic_vm_fork(ic_vm *vm, const struct ic_fork_options *options, ic_vm **ret_vms, uint64_t *ret_pause_us,
        struct ic_error *error)
{
    _cleanup_(fork_deinit) struct fork f = {.entry.lock_fd = -1, .saving = SAVING_NONE, .from.lock_fd = -1};
    struct progress progress;
    uint32_t count, made = 0;
    char id[IC_VM_ID_MAX + 1];
    uint64_t pause_us = 0;
    int r = 0;

    if (!options || options->size != sizeof(*options))
        return ic_fail(error, IC_ERR_INVALID, "fork options: size must be that of the structure");
    progress = (struct progress){.fn = options->progress, .userdata = options->userdata};
    count = options->count ? options->count : 1;
    if (count > IC_FORK_MAX)
        return ic_fail(error, IC_ERR_INVALID, "fork: %u children; at most %d at a time", count, IC_FORK_MAX);
    for (uint32_t i = 0; r == 0 && options->vm_id && i < count; i++)
        r = child_id(id, options, i, error); /* before the VM is held for nothing */
    if (r == 0)
        r = take(&f, vm->vm_id, &pause_us, error);
    while (r == 0 && made < count) {
        r = spawn_child(&f, options, made, &ret_vms[made], error);
        made += r == 0;
        if (r == 0)
            r = progress_report(&progress, "starting the children", 0, 0, error);
    }
    if (r < 0) {
        while (made > 0) {
            struct ic_error still = {0};
            int destroyed = ic_destroy_vm(ret_vms[--made], &still);

            if (destroyed < 0) { /* it is still there, which matters more */
                r = destroyed;
                if (error)
                    *error = still;
            }
            ic_vm_free(ret_vms[made]);
            ret_vms[made] = NULL;
        }
        return r;
    }
    if (ret_pause_us)
        *ret_pause_us = pause_us;
    return 0;
}
