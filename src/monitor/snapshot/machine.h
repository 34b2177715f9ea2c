/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two parts of the state file: what the snapshot was made on, and what the VM
 * is made of. Pure.
 *
 *   host     u8 vendor[12], u32 signature (CPUID 1, eax), str monitor's version
 *   config   u32 vcpu_count, u32 mem_size_mib, u32 flags (CONFIG_*), opt
 *            kernel_image_path, opt initrd_path, opt boot_args; u32 drives, for each str id, str path, u32 flags
 *            (DRIVE_*); opt uds_path, u32 guest_cid; u32 amount_mib, u32 stats_polling_interval_s
 *
 * str: u32 length, bytes; opt: u8 1 and a str, or u8 0. Where the serial
 * port's output goes is no part of a snapshot: whoever loads it says so.
 */
#pragma once

#include <linux/kvm.h>

#include "monitor/snapshot/format.h"

struct snapshot_host {
    char vendor[12];
    uint32_t signature;
    char monitor[32]; /* version; NUL-terminated */
};

void snapshot_host_here(struct snapshot_host *ret);
void snapshot_put_host(struct buf *buf, const struct snapshot_host *host);
int snapshot_get_host(const struct snapshot *snapshot, struct snapshot_host *ret, struct vm_error *error);
/* -ENOTSUP: a processor of another vendor, family or model. */
int snapshot_check_host(const struct snapshot_host *made_on, const struct snapshot_host *here, const char *path,
        struct vm_error *error);
/* -ENOTSUP: the guest saw a feature that a guest would not see here. */
int snapshot_check_cpuid(const struct kvm_cpuid2 *guest, const struct kvm_cpuid2 *here, struct vm_error *error);

/* MSRs: indices, in an order in which they can be set. */
#define SNAPSHOT_MAX_MSRS 1024u
struct snapshot_msrs {
    uint32_t count, index[SNAPSHOT_MAX_MSRS];
};
/* Those that no snapshot has, although KVM lists them. */
bool snapshot_leaves_out_msr(uint32_t msr);
/* -EBADMSG: one that is left out; -ENOTSUP: one with a value that is not `known` here. Without a value, such a one is
 * removed from the entries. */
int snapshot_check_msrs(
        struct kvm_msr_entry *entries, uint32_t *count, const struct snapshot_msrs *known, struct vm_error *error);

/* -EINVAL: not the machine that the request expects. */
int snapshot_check_expected(const struct machine_config *machine, const struct snapshot_load_config *request,
        const char *path, struct vm_error *error);
/* -ENOTSUP: a VM that can't be saved. */
int snapshot_check_config(const struct vm_config *config, struct vm_error *error);
void snapshot_put_config(struct buf *buf, const struct vm_config *config);
/* Into an empty configuration: whatever it gets has to be released, also on failure. Checked as the API checks it. */
int snapshot_get_config(const struct snapshot *snapshot, struct vm_config *config, struct vm_error *error);
