/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM into a snapshot and back. Where each part comes from, and when:
 *
 *   saving      vCPUs are parked, so KVM's state stands still; the devices of the loop's thread wait, as we are that
 *               thread; drives are kept from serving by their locks until the memory is written, too.
 *   restoring   vCPUs with their local APICs, devices in the order in which they are attached, the I/O APIC; then the
 *               guest is told what is new. Nothing is served before vm_go_on().
 *
 * An interrupt that was raised is in a local APIC by then, and saved with it.
 * Kicks that waited in eventfds are lost, and all queues looked through for it.
 */
#include <errno.h>
#include <string.h>

#include "monitor/snapshot/kvm-state.h"
#include "monitor/snapshot/machine.h"
#include "monitor/snapshot/memory-file.h"
#include "monitor/vm-private.h"

/* ---- saving ---- */

static int save_kvm(struct vm *vm, struct snapshot_writer *writer, struct vm_error *error)
{
    struct snapshot_msrs msrs;
    int r = snapshot_list_msrs(&vm->kvm, &msrs, error);

    if (r == 0)
        r = snapshot_save_vm(&vm->kvm, snapshot_begin(writer, SNAPSHOT_VM, 0), error);
    for (uint32_t i = 0; r == 0 && i < vm->vcpus.count; i++)
        r = snapshot_save_vcpu(&vm->kvm, vm->vcpus.table[i].fd, vm->vcpus.table[i].cpuid, &msrs,
                snapshot_begin(writer, SNAPSHOT_VCPU, i), error);
    return r;
}

static void save_devices(struct vm *vm, struct snapshot_writer *writer)
{
    for (size_t i = 0; i < vm->virtio_count; i++)
        virtio_mmio_save(&vm->virtio[i], snapshot_begin(writer, SNAPSHOT_VIRTIO, (uint32_t)i));
    serial_save(vm->serial, snapshot_begin(writer, SNAPSHOT_SERIAL, 0));
    i8042_save(vm->kbd, snapshot_begin(writer, SNAPSHOT_KEYBOARD, 0));
    ioapic_save(&vm->ioapic, snapshot_begin(writer, SNAPSHOT_IOAPIC, 0));
}

static int save_state(struct vm *vm, const struct vm_save_options *options, struct buf *ret, struct vm_error *error)
{
    _cleanup_(snapshot_writer_deinit) struct snapshot_writer writer = {0};
    struct snapshot_host host;
    int r;

    snapshot_host_here(&host);
    snapshot_put_host(snapshot_begin(&writer, SNAPSHOT_HOST, 0), &host);
    snapshot_put_config(snapshot_begin(&writer, SNAPSHOT_CONFIG, 0), options->config);
    r = save_kvm(vm, &writer, error);
    if (r < 0)
        return r;
    save_devices(vm, &writer);
    r = snapshot_finish(&writer, options->id, ret);
    return r < 0 ? vm_fail(error, r, "the state of the VM: %s", strerror(-r)) : 0;
}

/* The marks are taken for a full file, too: what changes from here on is what changed since this snapshot. */
static int save_memory(struct vm *vm, const struct vm_save_options *options, struct vm_error *error)
{
    struct memory_file_info info = {.ram_bytes = vm->memory.bytes, .diff = options->diff};

    memcpy(info.id, options->id, sizeof(info.id));
    if (options->diff)
        memcpy(info.base, vm->snapshot_id, sizeof(info.base));
    if (options->diff || vm->memory.gmem.dirty) {
        int r = kvm_take_dirty(&vm->kvm, &vm->memory, &vm->saving, error);

        if (r < 0)
            return r;
    }
    return memory_file_write(options->memory_fd, &vm->memory, options->diff ? &vm->saving : NULL, &info, error);
}
static_assert(SNAPSHOT_ID_BYTES == MEMORY_FILE_ID, "both files have the same");

int vm_save(struct vm *vm, const struct vm_save_options *options, struct buf *ret, struct vm_error *error)
{
    int r;

    for (size_t i = 0; i < vm->virtio_count; i++)
        virtio_mmio_lock(&vm->virtio[i]);
    memcpy(vm->saving_id, options->id, sizeof(vm->saving_id));
    r = save_state(vm, options, ret, error);
    if (r == 0)
        r = save_memory(vm, options, error);
    for (size_t i = 0; i < vm->virtio_count; i++)
        virtio_mmio_unlock(&vm->virtio[i], false);
    return r;
}

void vm_saved(struct vm *vm, bool kept)
{
    if (kept)
        memcpy(vm->snapshot_id, vm->saving_id, sizeof(vm->snapshot_id));
    else if (vm->saving.words)
        memory_put_dirty(&vm->memory, &vm->saving);
    dirty_pages_deinit(&vm->saving);
    vm->saving = (struct dirty_pages){0};
}

/* ---- restoring ---- */

static int restore_virtio(struct vm *vm, const struct snapshot *from, uint32_t index, struct vm_error *error)
{
    struct virtio_mmio *mmio = &vm->virtio[index];
    struct rd rd;
    int r = snapshot_part(from, SNAPSHOT_VIRTIO, index, &rd, error);

    if (r < 0)
        return r;
    virtio_mmio_lock(mmio);
    r = virtio_mmio_load(mmio, &rd, error);
    virtio_mmio_unlock(mmio, false);
    return snapshot_part_end(from, SNAPSHOT_VIRTIO, index, &rd, r, error);
}

static int restore_serial(struct vm *vm, const struct snapshot *from, struct vm_error *error)
{
    struct rd rd;
    int r = snapshot_part(from, SNAPSHOT_SERIAL, 0, &rd, error);

    if (r < 0)
        return r;
    r = serial_load(vm->serial, &rd, error);
    return snapshot_part_end(from, SNAPSHOT_SERIAL, 0, &rd, r, error);
}

static int restore_keyboard(struct vm *vm, const struct snapshot *from, struct vm_error *error)
{
    struct rd rd;
    int r = snapshot_part(from, SNAPSHOT_KEYBOARD, 0, &rd, error);

    if (r < 0)
        return r;
    r = i8042_load(vm->kbd, &rd, error);
    return snapshot_part_end(from, SNAPSHOT_KEYBOARD, 0, &rd, r, error);
}

static int restore_ioapic(struct vm *vm, const struct snapshot *from, struct vm_error *error)
{
    struct rd rd;
    int r = snapshot_part(from, SNAPSHOT_IOAPIC, 0, &rd, error);

    if (r < 0)
        return r;
    r = ioapic_load(&vm->ioapic, &rd, error);
    return snapshot_part_end(from, SNAPSHOT_IOAPIC, 0, &rd, r, error);
}

int vm_restore(struct vm *vm, const struct snapshot *from, struct vm_error *error)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < vm->virtio_count; i++)
        r = restore_virtio(vm, from, i, error);
    if (r == 0)
        r = restore_serial(vm, from, error);
    if (r == 0)
        r = restore_keyboard(vm, from, error);
    if (r == 0)
        r = restore_ioapic(vm, from, error);
    if (r == 0)
        r = snapshot_restore_vm(from, &vm->kvm, error);
    if (r < 0)
        return r;
    memcpy(vm->snapshot_id, from->id, sizeof(vm->snapshot_id));
    vm->restored = vm->started = true;
    /* Now, as the first thing that the guest is told: a host that connects from here on stays connected. */
    if (vm->vsock)
        vsock_dev_transport_reset(vm->vsock);
    return vm_set_generation(vm, error);
}

void vm_go_on(struct vm *vm)
{
    for (size_t i = 0; i < vm->virtio_count; i++)
        virtio_mmio_go_on(&vm->virtio[i]);
}
