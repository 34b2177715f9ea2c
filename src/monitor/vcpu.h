/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vCPUs of a VM, each with its thread ("fc_vcpu N", the name that tools
 * look for). A thread runs the guest, hands port and MMIO accesses to the
 * buses, and reports an end; it does nothing else.
 *
 * The owner says what they do: HOLD (parked, none is in the guest), RUN, QUIT.
 * A change of mind reaches a vCPU inside KVM_RUN by immediate_exit and a
 * signal, both under the lock that a vCPU takes before it goes back in, so no
 * request is lost and none is sent twice.
 */
#pragma once

#include <pthread.h>

#include "jail/seccomp.h"
#include "monitor/boot/boot.h"
#include "monitor/bus.h"
#include "monitor/kvm.h"
#include "monitor/snapshot/format.h"
#include "monitor/vm.h"

enum vcpu_wish { VCPU_HOLD, VCPU_RUN, VCPU_QUIT };

struct vcpus;

struct vcpu {
    struct vcpus *all;
    uint32_t index;
    int fd;
    struct kvm_run *run;
    struct kvm_cpuid2 *cpuid; /* what its guest sees; owned */
    pthread_t thread;
    bool has_thread, ended;
    /* Written by its thread, read by any (relaxed atomics): exits to this process. */
    uint64_t io_in, io_out, mmio_read, mmio_write;
};

struct vcpus {
    struct vcpu table[VM_MAX_VCPUS];
    uint32_t count;
    size_t run_size;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum vcpu_wish wish;
    uint32_t busy; /* threads that are not parked */
    const struct bus *pio, *mmio;
    void (*on_end)(void *userdata, const struct vm_end *end); /* on a vCPU's thread */
    void *userdata;
};

struct vcpus_options {
    struct kvm *kvm;
    struct gmem *mem;
    uint32_t count;
    const struct boot_entry *entry; /* where vCPU 0 starts; the others wait for the guest's INIT and SIPI */
    const struct snapshot *from;    /* instead: all go on where they were; NULL: no */
    const struct bus *pio, *mmio;
    void (*on_end)(void *userdata, const struct vm_end *end);
    void *userdata;
};

/* Makes the vCPUs with their state and their threads, parked. */
int vcpus_init(struct vcpus *vcpus, const struct vcpus_options *options, struct vm_error *error);
extern const struct seccomp_profile vcpu_seccomp;

void vcpus_run(struct vcpus *vcpus);
void vcpus_hold(struct vcpus *vcpus);   /* returns when no vCPU is in the guest or in a device */
void vcpus_deinit(struct vcpus *vcpus); /* ends the threads; right also after a failed init */

/* The first state of a vCPU: registers, CPUID, MSRs, local APIC (vcpu-state.c), from the entry or the snapshot. */
int vcpu_set_state(struct vcpu *vcpu, const struct vcpus_options *options, struct vm_error *error);
