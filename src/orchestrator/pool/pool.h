/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools: VMs that were started from their template beforehand and wait, frozen
 * and paused, to be handed over. No daemon of the system's: a pool is one
 * process of the user's (keeper.c), which can be killed at any time; who finds
 * none starts a VM of its own.
 *
 *   run/.pool-<key>        socket (SOCK_SEQPACKET) of the keeper
 *   run/.pool-<key>.lock   held (flock) as long as the keeper lives
 *
 * The key is a digest of all that the VMs' processes were started with; what
 * only concerns their commands is given at the hand-over. Before it waits each
 * VM runs a warm-up, with an identity of its own, and is frozen again; who
 * takes it gives it another.
 *
 * Until it is handed over a VM's record says "booting", and the keeper holds
 * its lock: should the keeper die, the next command cleans up. What is handed
 * over is that lock, as a descriptor, and the connection to the guest's agent.
 */
#pragma once

#include "orchestrator/snapshots/snapshot.h"
#include "orchestrator/spawn.h"

#define POOL_MAGIC    0x6c6f6f70u /* "pool" */
#define POOL_VERSION  1u
#define POOL_NAME_LEN 16u      /* hex digits of the key */
#define POOL_MAX      64u      /* VMs of one pool */
#define POOL_ORIGIN   "pool, " /* of the record, before "template ..." */

enum pool_op { POOL_TAKE = 1, POOL_INFO, POOL_STOP };

/* One message each way. The socket is the user's own, and the peer's uid is checked. */
struct pool_request {
    uint32_t magic, version, op;
    uint32_t tied; /* TAKE: the VM is to end with the process that asks */
};

struct pool_answer {
    uint32_t magic, version;
    uint32_t found; /* TAKE: a VM came with it: its lock and its agent's connection, in this order */
    uint32_t ready, wanted;
    uint32_t vcpu_count, memory_mib, backend;
    int32_t pid;
    char vm_id[IC_VM_ID_MAX + 4]; /* NUL-terminated */
    char image[128];
    char trouble[256]; /* why it can't make more, or "" */
    uint64_t handed_over;
};

/* Where the pool of such VMs would be. */
int pool_name(
        const struct record *record, const struct snapshot *from, char ret[POOL_NAME_LEN + 1], struct ic_error *error);
int pool_path(const char *name, const char *suffix, char **ret, struct ic_error *error);

/* A VM of the pool, if there is one: 0, or -errno without more ado. */
int pool_take(const char *name, bool tied, struct spawn_member *ret);

/* Removes what killed keepers left. */
void pool_reap(void);
