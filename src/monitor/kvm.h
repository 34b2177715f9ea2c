/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /dev/kvm and one VM in it: memory slots, local APICs, eventfds for kicks,
 * interrupts. What KVM refuses comes back with a message that says what to do.
 * Linux Documentation/virt/kvm/api.rst.
 */
#pragma once

#include <linux/kvm.h>
#include <pthread.h>

#include "monitor/memory.h"

#define KVM_MAX_CPUID 256u /* entries */

struct kvm {
    int fd, vm_fd;
    size_t run_size;          /* bytes of a vCPU's shared page */
    struct kvm_cpuid2 *cpuid; /* what this host supports, unfiltered; room for KVM_MAX_CPUID */
};

/* True when the processor shows vmx or svm. Without them a KVM may be there and interpret (design: PVM). */
bool kvm_has_hardware(void);

/* Opens KVM and makes the VM, whose vCPUs will have KVM's local APICs; devices/ioapic.h is ours. */
int kvm_init(struct kvm *kvm, struct vm_error *error);
void kvm_deinit(struct kvm *kvm);

/*
 * The same on a thread of its own, begun before anybody asks for a VM. In
 * KVM_CREATE_VM Linux 6.1 makes a kernel thread, moves it into the caller's
 * control groups and waits for a grace period of RCU thereby: some 10 ms in
 * which nothing is done. 6.12 does not, nor does a cgroup2 that is mounted
 * with favordynmods. The thread ends with that, and has seen no input.
 */
struct kvm_early {
    pthread_t thread;
    bool begun; /* and not finished */
    int r;
    struct kvm kvm;
    struct vm_error error;
};
void kvm_begin(struct kvm_early *early);
/* What it came to, once: from then on, or when there was no thread to be had, this is kvm_init(). */
int kvm_finish(struct kvm_early *early, struct kvm *ret, struct vm_error *error);

int kvm_add_memory(struct kvm *kvm, const struct memory *memory, bool track_dirty, struct vm_error *error);
/*
 * Every page that was written since the last call (or since the memory was
 * made): by the guest, by KVM for it, and by the monitor. The marks move into
 * *ret, which the caller frees; afterwards all is clean. The guest and the
 * devices stand still. Who then fails to use them gives them back with
 * memory_put_dirty(), or the next diff lacks their pages.
 */
int kvm_take_dirty(const struct kvm *kvm, struct memory *memory, struct dirty_pages *ret, struct vm_error *error);
/* A write of `value` (4 bytes) at `address` signals fd and does not leave the kernel. */
int kvm_add_ioeventfd(struct kvm *kvm, int fd, uint64_t address, uint32_t value, struct vm_error *error);
/* To the local APICs that a write of `data` to `address` means; for ioapic_init(), so `kvm` is a struct kvm. On any
 * thread: it is in the APIC when this comes back. */
void kvm_send_msi(void *kvm, uint32_t address, uint32_t data);
