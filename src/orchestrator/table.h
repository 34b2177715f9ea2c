/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of VMs: one directory per VM, shared by every process of this
 * user, with no daemon.
 *
 *   state/vms               lock, on the directory: held while a name is claimed, and while orphans are looked at
 *   state/vms/<id>/lock     lock: held by whoever changes this VM; by the creator from the claim until it is ready
 *   state/vms/<id>/alive    lock, shared: inherited by the VM's processes, so it is free exactly when none lives
 *   state/vms/<id>/record.json   replaced atomically; readers need no lock
 *   state/vms/<id>/saving-XXXXXX   lock: held by whoever saves it, or starts from what was saved (snapshots/saving.h)
 *   run, run/<id>/state     lock as of state/vms, for the sockets' directories; the link says whose one is
 *
 * mkdir of the directory is the claim of the name. The record is written
 * before the first process is started (with the intent, without pids), so a
 * crash at any point leaves either a directory without a record (which
 * nobody can be making without the lock of state/vms), or a record whose lock is free.
 * Removal goes the other way: processes, sockets, record.
 *
 * Locks are flock(2): the kernel releases them when their holder dies.
 */
#pragma once

#include "orchestrator/user-limits.h"
#include "orchestrator/record.h"

struct table_entry {
    char vm_id[IC_VM_ID_MAX + 1];
    char *dir; /* absolute */
    int lock_fd;
};

void table_entry_deinit(struct table_entry *entry); /* unlocks */

/* Claims record->vm_id, takes its lock, writes the record. -IC_ERR_EXISTS when the name is taken; -IC_ERR_LIMIT when
 * the VMs that live leave no room for one more (`limits` may be NULL): nobody else can make one meanwhile. */
int table_claim(
        struct table_entry *ret, const struct record *record, const struct limits *limits, struct ic_error *error);

/* Takes the lock of an existing VM, waiting until the deadline. -IC_ERR_NOT_FOUND, -IC_ERR_TIMEOUT (busy; a deadline
 * of 0 does not wait). */
int table_lock(struct table_entry *ret, const char *vm_id, uint64_t deadline, struct ic_error *error);

/* Without a lock. -IC_ERR_NOT_FOUND, -IC_ERR_CORRUPT, -IC_ERR_UNSUPPORTED (of another version). */
int table_read(struct record *ret, const char *vm_id, struct ic_error *error);

int table_write(const struct table_entry *entry, const struct record *record, struct ic_error *error);

/* Checks the transition, writes a line into monitor.log and the record. record->state is as before on failure. */
int table_change(const struct table_entry *entry, struct record *record, enum ic_vm_state to, const char *cause,
        struct ic_error *error);

/* The sockets' directory of a VM that the caller claimed; noted in the record, which is to be written soon. `inode` of
 * the record: with 0 a link that the VM's monitor could change has to say that it is ours. */
int table_make_run_dir(const struct table_entry *entry, struct record *record, struct ic_error *error);
int table_remove_run_dir(const struct table_entry *entry, const char *run_dir, uint64_t inode, struct ic_error *error);

/* A descriptor for the VM's processes to inherit: while one of them has it, table_anyone_alive(). */
int table_hold_alive(const struct table_entry *entry, int *ret_fd, struct ic_error *error);
bool table_anyone_alive(const char *dir);

/* Kills every process of the VM, recorded or not, and waits until none is left. What their filters refused goes into
 * the audit ring. */
int table_end_processes(const struct table_entry *entry, const struct record *record, struct ic_error *error);

/* Removes the sockets and the record; the processes must be gone. Unlocks. */
int table_remove(struct table_entry *entry, const struct record *record, struct ic_error *error);

/* Ids of all directories, sorted by name; free the list with table_free_ids. */
int table_ids(char ***ret, size_t *ret_count, struct ic_error *error);
void table_free_ids(char **ids, size_t count);

/* reap.c: ends and removes what crashed processes left, of every VM. Costs some microseconds per healthy VM. */
int table_reap(struct ic_error *error);

/* reap.c: one VM that is not healthy; the caller holds its lock. For a `keep` VM the record stays, else it is removed
 * (and the entry unlocked). */
int table_settle(struct table_entry *entry, struct record *record, struct ic_error *error);

/* True when the VM has ended, or should long have, because its max_lifetime_ms is over. */
bool table_lifetime_over(const struct record *record, const char *dir);

/* True when the record says that processes should live and they do. */
bool table_healthy(const struct record *record);
