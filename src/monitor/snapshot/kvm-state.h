/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What KVM knows of a VM, between its ioctls and the parts "vm" and "vcpu".
 * Structures are KVM's own (Linux UAPI, x86-64), which never change.
 *
 *   vm       u64 clock (ns of kvmclock)
 *   vcpu     the structures of fixed_parts (kvm-state.c) in its order; u32 tsc_khz; u32 n and n kvm_cpuid_entry2;
 *            u32 n and n kvm_msr_entry; u32 bytes and as many of kvm_xsave
 *
 * Saving is for vCPUs that are parked. A restored one has never run.
 */
#pragma once

#include "monitor/kvm.h"
#include "monitor/snapshot/machine.h"

#define SNAPSHOT_MAX_XSAVE ((size_t)64 << 10)

/* The registers that a snapshot has, in this KVM. */
int snapshot_list_msrs(const struct kvm *kvm, struct snapshot_msrs *ret, struct vm_error *error);

int snapshot_save_vm(const struct kvm *kvm, struct buf *buf, struct vm_error *error);
/* `cpuid` is what it was given: some KVMs answer with what they made of it. */
int snapshot_save_vcpu(const struct kvm *kvm, int vcpu_fd, const struct kvm_cpuid2 *cpuid,
        const struct snapshot_msrs *msrs, struct buf *buf, struct vm_error *error);

int snapshot_restore_vm(const struct snapshot *snapshot, const struct kvm *kvm, struct vm_error *error);
/* `here` is what a new guest's vCPU of this number would see; it must have all that the saved one saw, which the caller
 * gets, to be freed. */
int snapshot_restore_vcpu(const struct snapshot *snapshot, const struct kvm *kvm, int vcpu_fd, uint32_t index,
        const struct kvm_cpuid2 *here, struct kvm_cpuid2 **ret_cpuid, struct vm_error *error);
