/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a VM, for vm.c, which makes and drives it, and vm-snapshot.c, which saves and restores it. */
#pragma once

#include "monitor/boot/boot.h"
#include "monitor/bus.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/ioapic.h"
#include "monitor/devices/mmio.h"
#include "monitor/layout.h"
#include "monitor/memory.h"
#include "monitor/vcpu.h"
#include "monitor/vm.h"

struct vm_drive {
    char *id;
    struct block *block;
    struct virtio_mmio *mmio;
};

struct vm {
    struct loop *loop;
    struct memory memory;
    struct kvm kvm;
    struct bus pio, mmio;
    struct vcpus vcpus;
    bool started;
    bool restored;                          /* and what was on its way when it was saved has not been made up for */
    uint8_t snapshot_id[SNAPSHOT_ID_BYTES]; /* of the last one that was loaded or made; zeroes: none */
    uint8_t saving_id[SNAPSHOT_ID_BYTES];   /* of the one that is being made */
    struct dirty_pages saving;              /* what changed before it, when that is known */

    struct virtio_mmio virtio[LAYOUT_MAX_VIRTIO];
    struct boot_device announced[LAYOUT_MAX_VIRTIO];
    size_t virtio_count;
    struct vm_drive drives[VM_MAX_DRIVES];
    size_t drive_count;
    struct vsock_dev *vsock;
    struct rng *rng;
    struct balloon *balloon;
    struct serial *serial;
    struct i8042 *kbd;
    struct ioapic ioapic;
    struct irq_line event_irq; /* of the Generic Event Device */

    uint64_t start_us, start_cpu_us; /* of the process, for the boot timer */
    bool boot_timed;                 /* atomic: the guest wrote to it */

    /* How it ended: the first vCPU to report wins, the VMM thread is told by the eventfd. */
    pthread_mutex_t end_lock;
    struct vm_end end;
    bool ended;
    struct loop_fd end_event;
    void (*on_end)(void *userdata, const struct vm_end *end);
    void *userdata;
};

/* The parts of `from` that belong to devices and to KVM, once all of them are there; the vCPUs have theirs from
 * vcpus_init(). Tells the guest that its vsock connections are gone. */
int vm_restore(struct vm *vm, const struct snapshot *from, struct vm_error *error);
/* At the first start of a restored VM. */
void vm_go_on(struct vm *vm);
