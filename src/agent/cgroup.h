/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups: what keeps the commands from starving the agent, and what
 * lets a command be killed as a whole.
 *
 *     /                 the agent and the kernel's own memory, without limits
 *     /ironclaw         memory.max and pids.max for all commands together
 *     /ironclaw/cmd-N   one command (or file transfer) and all its descendants
 *
 * A command is born inside its group (CLONE_INTO_CGROUP), so nothing that it
 * forks can be outside, and cgroup.kill reaches also what left its session
 * and process group. Making a group costs more than a fork, so one is made
 * ahead of time and empty ones are used again. A group whose command left
 * processes behind is `lingering` until the last of them is gone.
 *
 * Without control groups (base_fd < 0) every call is a harmless no-op or
 * says -ENOENT, and callers use the process group instead.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CGROUP_MAX   512u /* groups at a time, lingering ones included */
#define CGROUP_KEEP  8u   /* empty groups kept for use again */
#define CGROUP_MOUNT "/sys/fs/cgroup"

struct cgroup {
    int dir_fd;
    unsigned number;
    uint64_t oom_kills; /* memory.events' count when the command began */
    enum { CGROUP_UNUSED, CGROUP_FREE, CGROUP_TAKEN, CGROUP_LINGERING } state;
};

struct cgroups {
    int root_fd; /* CGROUP_MOUNT, or -1 */
    int base_fd; /* CGROUP_MOUNT/ironclaw, or -1 */
    unsigned last_number, free, lingering;
    struct cgroup table[CGROUP_MAX];
};

/* Makes the limits for a machine with so much RAM and so much of it free now. On failure the object is as without
 * control groups, and the errno is returned. */
int cgroups_init(struct cgroups *groups, const char *mount, uint64_t ram_bytes, uint64_t free_bytes);

/*
 * memory.max and pids.max for all commands. Pure. The kernel's own memory is
 * not in the group, so the limit also stays below what is free after boot:
 * then the group's own limit ends a hog, not the whole machine's shortage.
 */
uint64_t cgroups_memory_max(uint64_t ram_bytes, uint64_t free_bytes);
uint64_t cgroups_pids_max(uint64_t ram_bytes);

/* Makes an empty group ready when there is none. */
void cgroups_prepare(struct cgroups *groups);
/* 0 and the group (NULL without control groups); -EAGAIN when CGROUP_MAX groups are in use; or what mkdir said. */
int cgroup_take(struct cgroups *groups, struct cgroup **ret);
/* The command ended; its group is used again once it is empty. Accepts NULL. */
void cgroup_release(struct cgroups *groups, struct cgroup *group);
/* Some process ended: looks whether lingering groups are empty now. */
void cgroups_sweep(struct cgroups *groups);

int cgroup_kill(struct cgroup *group);
/* A signal to every process in it, as they are at this moment. */
int cgroup_signal(struct cgroup *group, int signo);
/* 1, 0, or -ENOENT without control groups. */
int cgroup_populated(const struct cgroup *group);
/* True when the kernel killed something in it for memory since cgroup_take(). */
bool cgroup_had_oom(struct cgroup *group);
/*
 * Stops every process of the machine but the caller and kernel threads, also
 * those that a command with root's rights has put outside its group. Waits for
 * it, at most until the deadline. -ENOTSUP without control groups; -ETIMEDOUT
 * when something can't be stopped. After a failure nothing is stopped.
 */
int cgroups_freeze(struct cgroups *groups, uint64_t deadline);
int cgroups_thaw(struct cgroups *groups);
/* KILL to all that cgroups_freeze() stops; frozen processes die too. */
void cgroups_kill(struct cgroups *groups);

/* Of all commands since boot. */
uint64_t cgroups_oom_kills(const struct cgroups *groups);
