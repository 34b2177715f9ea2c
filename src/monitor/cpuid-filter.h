/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest's CPUID says: what KVM supports on this host, minus what a
 * throwaway VM has no use for, plus the topology of its own vCPUs.
 *
 *   taken away   vmx, svm (no VM in the VM), SGX, MONITOR/MWAIT, perf counters, RDT, thermal, the debug store
 *   added        hypervisor bit, TSC deadline timer (KVM's local APIC has it), x2APIC when KVM has it
 *   rewritten    APIC ids and counts: every vCPU is a core of one package, one thread each
 *
 * Intel SDM volume 2 CPUID; AMD APM volume 3 appendix E; KVM's leaves:
 * Linux Documentation/virt/kvm/x86/cpuid.rst.
 */
#pragma once

#include <linux/kvm.h>
#include <stdint.h>

/* In place, for vCPU `index` of `count`. Entries are only changed or emptied, never added. */
void cpuid_filter(struct kvm_cpuid2 *cpuid, uint32_t index, uint32_t count);
