/* SPDX-License-Identifier: Apache-2.0 */
/* Making a VM, from a boot or from a snapshot: what ic_spawn_vm_with_config() and its kin share. */
#pragma once

#include "orchestrator/snapshots/snapshot.h"
#include "orchestrator/vm.h"

struct spawn_plan {
    /* Boot with a frozen agent, for save(); "ready" is then when it is frozen. */
    bool for_template;
    /* Start from this in place of a boot. */
    const struct snapshot *from;
    const char *origin; /* of the record */
    /* What the VM is comes from `from` as well; of the configuration count vm_id, keep, tied_to_caller and
     * max_lifetime_ms. Else the configuration must be one that `from` was made for. */
    bool restore;
    uint32_t max_disk_mib_per_s, max_disk_ops_per_s; /* of a restore; 0: as `from` says; UINT32_MAX: none */
    bool no_pool;                                    /* do not look for a VM that waits in a pool */
};

/* config as for ic_spawn_vm_with_config(), which, if `plan` is NULL, this is. */
int spawn_vm(const struct ic_vm_config *config, const struct spawn_plan *plan, ic_vm **ret_vm, struct ic_error *error);

/* A VM that waits in a pool (pool/pool.h): frozen, paused, nobody's. Who has its lock has it. */
struct spawn_member {
    char vm_id[IC_VM_ID_MAX + 1];
    struct process_id monitor, vsock;
    int lock_fd, ready_fd, monitor_pidfd;
};

/* What VMs of this configuration begin from, and are; the template is made if need be. The caller releases all three.
 */
int spawn_member_plan(const struct ic_vm_config *config, struct ic_vm_config *ret_config, struct snapshot *ret_from,
        struct record *ret_like, struct ic_error *error);
/* What it runs before it waits, as the image says and with an identity that nobody else has; the one who takes it gives
 * it another. */
struct spawn_warm_up {
    const char *const *argv;
    bool must_succeed;
    bool failed;                                    /* set: it is why there is no VM */
    void (*running)(void *userdata, ic_exec *exec); /* while it runs: may be cancelled; then NULL */
    void *userdata;
};
/* warm NULL: nothing. */
int spawn_member_new(const struct ic_vm_config *config, const struct snapshot *from, struct spawn_warm_up *warm,
        struct spawn_member *ret, struct ic_error *error);
/* From now on its fate is no longer this process's: whoever has the lock has it. */
int spawn_member_offer(const struct spawn_member *member);
void spawn_member_close(struct spawn_member *member); /* the descriptors: it is somebody else's now, or the reaper's */
void spawn_member_drop(struct spawn_member *member);  /* ends and removes it */

/* Most bytes that save() may write into one file. */
uint64_t spawn_file_ceiling(const struct record *record);
/* Around save(): lets the VM's processes write so much, and as fast as they can, and takes that back. */
void spawn_lift_limits(const struct record *record);
void spawn_restore_limits(const struct record *record);

/* IRONCLAW_TEST_NO_RESEED=1 makes templates, of a key of their own, whose clones share their random numbers, and say so
 * on their console and as their origin: only so can a test show that it would notice. NULL: not set. */
const char *spawn_test_switch(void);
