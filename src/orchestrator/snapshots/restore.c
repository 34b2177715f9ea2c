/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots with a name: taking one of a VM that runs, and starting from it, as often as wanted. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/images/progress.h"
#include "orchestrator/paths.h"
#include "orchestrator/snapshots/freeze.h"
#include "orchestrator/snapshots/saving.h"
#include "orchestrator/spawn.h"

/* Names are somebody's; what they name has one of its own. */
static int make_object(char ret[33], struct ic_error *error)
{
    uint8_t bytes[16];

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return ic_fail_errno(error, -errno, "random numbers");
    for (unsigned i = 0; i < sizeof(bytes); i++)
        (void)snprintf(ret + 2 * (size_t)i, 3, "%02x", bytes[i]);
    return 0;
}

static int check_name(const char *name, struct ic_error *error)
{
    _cleanup_(freep) char *object = NULL;
    int r;

    if (!name || !path_image_name_ok(name))
        return ic_fail(error, IC_ERR_INVALID,
                "snapshot name '%.80s': must be 1 to 64 of the characters a-z 0-9 . _ -, and begin with a letter or "
                "digit",
                name ? name : "");
    r = store_resolve(STORE_SNAPSHOTS, name, &object, error);
    if (r == 0)
        return ic_fail(error, IC_ERR_EXISTS, "snapshot '%s' is there already; 'ironclaw snapshot rm %s' removes it",
                name, name);
    return r == -IC_ERR_NOT_FOUND ? 0 : r;
}

int ic_vm_snapshot(ic_vm *vm, const char *name, uint64_t *ret_pause_us, struct ic_error *error)
{
    _cleanup_(entry_deinitp) struct table_entry entry = {.lock_fd = -1};
    _cleanup_(record_deinitp) struct record record = {0};
    _cleanup_(saving_end) struct saving saving = SAVING_NONE;
    _cleanup_(fd_unlockp) int build_fd = -1;
    uint64_t pause_us = 0;
    char object[33];
    int r = make_object(object, error);

    if (r == 0)
        r = check_name(name, error);
    if (r == 0)
        r = vm_lock(vm->vm_id, deadline_after_ms(VM_LOCK_TIMEOUT_MS), &entry, &record, error);
    if (r == 0)
        r = saving_begin(&entry, &record, &saving, error);
    if (r == 0)
        r = freeze_and_save(&record, &saving, &pause_us, error);
    if (r == 0) /* now, as the VM may have taken its time; somebody may have taken the name meanwhile */
        r = store_lock_build(STORE_SNAPSHOTS, NULL, &build_fd, error);
    if (r == 0)
        r = check_name(name, error);
    if (r == 0)
        r = snapshot_take(STORE_SNAPSHOTS, object, name, &record, error);
    if (r == 0 && ret_pause_us)
        *ret_pause_us = pause_us;
    return r;
}

int ic_restore_vm(const char *name, const struct ic_restore_options *options, ic_vm **ret_vm, struct ic_error *error)
{
    struct progress progress = {0};
    struct spawn_plan plan = {.restore = true};
    struct snapshot from;
    struct ic_vm_config config;
    ic_vm *vm = NULL;
    char origin[128];
    int r;

    if (options && options->size != sizeof(*options))
        return ic_fail(error, IC_ERR_INVALID, "restore options: size must be that of the structure");
    if (options)
        progress = (struct progress){.fn = options->progress, .userdata = options->userdata};
    r = snapshot_open(STORE_SNAPSHOTS, name, &progress, &from, error);
    if (r < 0)
        return r;
    (void)snprintf(origin, sizeof(origin), "snapshot %s", from.name);
    plan.from = &from;
    plan.origin = origin;
    ic_vm_config_init(&config);
    if (options) {
        config.keep = options->keep;
        config.tied_to_caller = options->tied_to_caller;
        config.max_lifetime_ms = options->max_lifetime_ms;
        plan.max_disk_mib_per_s = options->max_disk_mib_per_s;
        plan.max_disk_ops_per_s = options->max_disk_ops_per_s;
        if (options->vm_id)
            r = ic_vm_config_set(&config, "vm_id", options->vm_id, error);
    }
    if (r == 0)
        r = spawn_vm(&config, &plan, &vm, error);
    if (r == 0) {
        r = progress_report(&progress, "starting the VM", 0, 0, error);
        if (r < 0) {
            struct ic_error still = {0};
            int destroyed = ic_destroy_vm(vm, &still);

            if (destroyed < 0) { /* it is still there, which matters more */
                r = destroyed;
                if (error)
                    *error = still;
            }
            ic_vm_free(vm);
        }
    }
    if (r == 0)
        *ret_vm = vm;
    ic_vm_config_deinit(&config);
    snapshot_deinit(&from);
    return r;
}
