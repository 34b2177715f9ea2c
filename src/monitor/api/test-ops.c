/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/api/test-ops.h"

#include <errno.h>
#include <stdio.h>

static int count(struct fake_vm *vm, unsigned *counter, struct vm_error *error)
{
    if (vm->fail)
        return vm_fail(error, -EIO, "as told");
    (*counter)++;
    return 0;
}

static int fake_start(void *userdata, const struct vm_config *config, struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    return count(vm, &vm->starts, error);
}

static int fake_pause(void *userdata, struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    return count(vm, &vm->pauses, error);
}

static int fake_resume(void *userdata, struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    return count(vm, &vm->resumes, error);
}

static int fake_create(void *userdata, const struct vm_config *config, const struct snapshot_create_config *request,
        struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    (void)snprintf(vm->path, sizeof(vm->path), "%s %s %s", request->diff ? "Diff" : "Full", request->snapshot_path,
            request->mem_file_path);
    return count(vm, &vm->creates, error);
}

static int fake_load(
        void *userdata, const struct snapshot_load_config *request, struct vm_config *config, struct vm_error *error)
{
    struct fake_vm *vm = userdata;
    int r = count(vm, &vm->loads, error);

    (void)snprintf(vm->path, sizeof(vm->path), "%s %s %s %s %s%s%s", request->snapshot_path,
            request->backend == MEMORY_BACKEND_UFFD ? "Uffd" : "File", request->backend_path,
            request->uds_path ? request->uds_path : "-", request->prefetch_path ? request->prefetch_path : "-",
            request->track_dirty_pages ? " tracked" : "", request->resume ? " resumed" : "");
    if (r == 0)
        config->machine.vcpu_count = 7;
    return r;
}

static int fake_ctrl_alt_del(void *userdata, struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    return count(vm, &vm->ctrl_alt_dels, error);
}

static int fake_update_drive(void *userdata, const char *id, const char *path, struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    (void)snprintf(vm->path, sizeof(vm->path), "%s=%s", id, path);
    return count(vm, &vm->drive_updates, error);
}

static int fake_target(void *userdata, uint32_t mib, struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    vm->stats.target_mib = mib;
    vm->stats.target_pages = mib * 256;
    return count(vm, &vm->targets, error);
}

static int fake_interval(void *userdata, uint32_t seconds, struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    return count(vm, &vm->intervals, error);
}

static int fake_stats(void *userdata, struct balloon_stats *ret, struct vm_error *error)
{
    struct fake_vm *vm = userdata;
    unsigned unused = 0;

    *ret = vm->stats;
    return count(vm, &unused, error);
}

static int fake_logger(void *userdata, const struct api_request *request, struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    vm->level = request->logger.level;
    return count(vm, &vm->loggers, error);
}

static int fake_metrics(void *userdata, const char *path, struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    (void)snprintf(vm->path, sizeof(vm->path), "%s", path);
    return count(vm, &vm->metrics, error);
}

static int fake_flush(void *userdata, struct vm_error *error)
{
    struct fake_vm *vm = userdata;

    return count(vm, &vm->flushes, error);
}

const struct controller_ops fake_ops = {
        .start = fake_start,
        .pause = fake_pause,
        .resume = fake_resume,
        .create_snapshot = fake_create,
        .load_snapshot = fake_load,
        .ctrl_alt_del = fake_ctrl_alt_del,
        .update_drive = fake_update_drive,
        .balloon_target = fake_target,
        .balloon_interval = fake_interval,
        .balloon_stats = fake_stats,
        .set_logger = fake_logger,
        .set_metrics = fake_metrics,
        .flush_metrics = fake_flush,
};
