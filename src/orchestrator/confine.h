/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jails of a VM's processes (jail/jail.h): one confinement per VM with
 * what they share - cgroup, user id, mode - and from it a jail for each.
 */
#pragma once

#include "jail/jail.h"
#include "orchestrator/error.h"
#include "orchestrator/record.h"

/* Ids of VMs that root starts, one at random for each VM: what systemd's "Users, Groups, UIDs and GIDs on systemd
 * systems" lists as unused. */
#define CONFINE_UID_FIRST 0x70000000u
#define CONFINE_UID_COUNT 0x10000000u

struct confine {
    enum ic_jail mode;
    uid_t uid;          /* 0: the caller's */
    const char *no_ids; /* why not, of root's VMs; NULL: they can have one, or it is not root who starts */
    unsigned processes; /* at most, of all and so of each */
    int cgroup_fd;
    int cgroup_error; /* errno; with the reason in record->jail */
    bool need_cgroup; /* set by the caller: no process starts outside it, whatever the mode */
};

/*
 * Makes what the VM's jails share, for the record's jail mode, and notes it in the record: its user id and the cgroup.
 * The run directory is there, and is given to that user. -IC_ERR_DENIED: strict, and a stage can't be had.
 */
int confine_init(struct confine *ret, struct record *record, struct ic_error *error);
void confine_deinit(struct confine *confine);

/* A file that a jailed process will open by its path, with write access. */
int confine_give_file(const struct confine *confine, int fd, const char *path, struct ic_error *error);

/* What is left of it goes to `jail`: stages, ids, and `program` with what a dynamic program loads. The strings are
 * borrowed. The caller adds its mounts. */
int confine_jail(const struct confine *confine, struct jail *ret, const char *program, struct ic_error *error);

/* Starts wanted->path in its jail (NULL in mode off), and notes in the record which stages it is without. */
int confine_spawn(const struct confine *confine, const struct process_options *wanted, const struct jail *jail,
        struct record *record, struct process_id *ret, int *ret_pidfd, struct ic_error *error);

/* What a VM's jail would have here: starts `argv` (ends by itself) in one of mode auto, with record->jail to show for
 * it. Its group is none that a VM can have. */
int confine_probe(struct record *record, char *const *argv, struct ic_error *error);

/* The weight of the VM's group among those of others for processor time. -ENOENT: it has none (jail/cgroup.h). */
int confine_set_weight(const struct record *record, unsigned weight);

/* Did the kernel end processes of the VM because its group's memory limit was reached? */
bool confine_was_oom(const struct record *record);
#define CONFINE_OOM "the kernel ended it: its processes used more memory than its cgroup allows (memory.max)"

/* Ends the VM's group, if it has one. 0, or -ETIMEDOUT when what is in it does not die. A group that can't be removed
 * (cgroupfs was unmounted, or is read-only now) is left to confine_end_orphans(). */
int confine_end(const struct record *record, uint64_t deadline);

/* Ends groups of VMs that this user's state directory does not know. */
void confine_end_orphans(void);
