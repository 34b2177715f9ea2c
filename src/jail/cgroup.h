/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM's group of cgroup v2: the limits of all its processes together, and
 * one write that kills them all.
 *
 * Groups stand below one base directory of the user's: IRONCLAW_CGROUP when
 * it is set (a directory of cgroup2 that this user may make groups in); for
 * root `ironclaw` at the top of the hierarchy; else `ironclaw` beside the
 * caller's own group, if that place was delegated to this user, as systemd
 * does for what runs in user@UID.service (systemd-run --user --scope).
 * The base is made when it is needed and removed with its last group.
 *
 * Source: Documentation/admin-guide/cgroup-v2.rst of the kernel.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroup_limits {
    uint64_t memory_bytes;      /* swap: none */
    uint32_t pids, cpu_percent; /* 100: one processor */
};

/*
 * Makes the group `name` and opens its directory. 0; a positive number of limits that could not be set, because the
 * controller is not to be had there (`why` names them); or -errno with `why` saying what to do. *ret_path: allocated.
 */
int cgroup_make(
        const char *name, const struct cgroup_limits *limits, char **ret_path, int *ret_fd, char *why, size_t why_size);

/* Kills what is in the group and removes it. 0 also when it is gone already; -ETIMEDOUT past the deadline (clock.h). */
int cgroup_end(const char *path, uint64_t deadline);

/* The same for the group that cgroup_make() would make by this name. */
int cgroup_end_named(const char *name, uint64_t deadline);

/* Its weight among its siblings for processor time, 1 to 10,000, of 100 at first. -ENOENT: no group, or no such
 * control.
 */
int cgroup_set_weight(const char *path, unsigned weight);

/* At most so many bytes and operations a second from each of these disks, and as many to it; 0: no limit. The devices
 * are whole disks, not partitions. 0, or -errno with `why`: -ENOTSUP where the io controller is not to be had. */
int cgroup_limit_io(const char *path, const dev_t *disks, size_t count, uint64_t bytes_per_s, uint32_t ops_per_s,
        char *why, size_t why_size);

/* Did the kernel kill in it for lack of memory? */
bool cgroup_was_oom(const char *path);

/* Ends every group below the base whose name ends in `suffix` and of which `known` says no. */
void cgroup_end_orphans(
        const char *suffix, bool (*known)(const char *name, void *userdata), void *userdata, uint64_t deadline);
