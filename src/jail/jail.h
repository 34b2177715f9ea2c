/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jail: what a process of a VM is left with, the monitor's as well as
 * those beside it. Whoever takes such a process over from inside the guest
 * finds nothing in it but what the process itself must have.
 *
 *   stage         by      contract: what holds afterwards
 *   cgroup        parent  the process is born into a cgroup of its VM, with limits of memory, swap, CPU time and
 *                         processes (cgroup.h), and can be killed with it
 *   namespaces    parent  it is born into its own mount, pid, net, ipc, uts and cgroup namespaces: no process but
 *                         itself, no network device that is up, no System V object, no name of the host. Without
 *                         privilege also its own user namespace, which the others then belong to
 *   root          child   its root is a read-only tmpfs that holds the paths of `mounts` and nothing else, each with as
 *                         few rights as it needs; the host's tree is unmounted, not just hidden
 *   user          child   it maps no id but its own in a user namespace of its own. Started by root it has an id of its
 *                         own besides, and no groups; otherwise it keeps the caller's, groups included (/dev/kvm is
 *                         had by one), as nobody may drop groups there. It has a session keyring of its own, as
 *                         the caller's may hold secrets, and can make no user namespace, in which it would have every
 *                         privilege again (the latter only where /proc/sys can be written, which is not so in some
 *                         containers; filters refuse it too)
 *   capabilities  child   none in any set, none to be had again: the bounding set is empty, securebits are locked,
 *                         no_new_privs is set
 *   limits        child   no core dump, no locked memory for queues, no real-time priority; so many processes and
 *                         threads, also where the cgroup has no such limit
 *
 * The stages are in this order, as each takes away what the one before
 * needed. The two of the parent are flags of clone3(2), so there is no moment
 * at which the process is outside. The child's run between that and execve(2)
 * in a copy of a process that may have had threads: system calls and nothing
 * that takes a lock or allocates.
 *
 * Not every host permits every stage. One that can't be had is reported with
 * its errno and the rest is done all the same; a strict jail fails instead. A
 * stage is never half done: what begins and cannot be ended fails the start.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define JAIL_MOUNTS_MAX 32u

enum jail_stage {
    JAIL_CGROUP,
    JAIL_NAMESPACES,
    JAIL_ROOT,
    JAIL_USER,
    JAIL_CAPABILITIES,
    JAIL_LIMITS,
    JAIL_STAGES,
};
extern const char *const jail_stage_names[JAIL_STAGES];

enum jail_access {
    JAIL_READ,
    JAIL_WRITE,
    JAIL_EXECUTE, /* read, and map or run as code */
    JAIL_DEVICE,  /* read and write, as a device */
};

/* A file or directory, at the same path inside as outside. What a directory has mounted below itself comes with it. */
struct jail_mount {
    const char *path; /* absolute; links in it are followed when it is looked up outside */
    enum jail_access access;
    bool optional; /* may be missing */
};

/* Everything borrowed. Zeroed it is a jail with every stage, an empty root and the caller's ids. */
struct jail {
    struct jail_mount mounts[JAIL_MOUNTS_MAX];
    size_t mount_count;
    uid_t uid; /* of its own, if started by root (0: it stays root's). The start then needs the root stage:
                * an id that may look at nothing finds nothing outside */
    gid_t gid;
    unsigned processes;    /* with threads, at most; 0: as many as the caller may have. Counted for the jail alone since
                            * Linux 5.14 */
    int cgroup_fd;         /* the group's directory; not looked at when its stage is skipped */
    int skip[JAIL_STAGES]; /* an errno: known already not to be had, or not wanted */
    bool strict;
    bool need_cgroup; /* no start without that stage, though others may be missing */
};

/* Per stage: 0 done, else the errno of why not. */
struct jail_report {
    int error[JAIL_STAGES];
    uid_t caller_uid; /* jail_clone() notes them: in a new user namespace they can't be asked for */
    gid_t caller_gid;
};

/* Adds a mount. -E2BIG. */
int jail_add_mount(struct jail *jail, const char *path, enum jail_access access, bool optional);

/*
 * As fork(2): the pid in the parent, 0 in the child, or a negative errno. The child is in its cgroup and its namespaces
 * then, as far as *ret says. In a strict jail -errno with *ret set when one of the two can't be had, and with
 * need_cgroup when that one can't.
 */
pid_t jail_clone(const struct jail *jail, struct jail_report *ret, int *ret_pidfd);

/*
 * In the child: the other stages, in order. A negative errno ends the start: of a stage that is half done, or in a
 * strict jail of any; *ret_failed is then its number. `report` goes on with what jail_clone() filled in.
 */
int jail_enter(const struct jail *jail, struct jail_report *report, int *ret_failed);
