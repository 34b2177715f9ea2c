/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macro.h"
#include "jail/root.h"

#define HOSTNAME        "ironclaw"
#define NAMESPACE_FLAGS (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

const char *const jail_stage_names[JAIL_STAGES] = {
        [JAIL_CGROUP] = "cgroup",
        [JAIL_NAMESPACES] = "namespaces",
        [JAIL_ROOT] = "root",
        [JAIL_USER] = "user",
        [JAIL_CAPABILITIES] = "capabilities",
        [JAIL_LIMITS] = "limits",
};

int jail_add_mount(struct jail *jail, const char *path, enum jail_access access, bool optional)
{
    if (jail->mount_count == JAIL_MOUNTS_MAX)
        return -E2BIG;
    jail->mounts[jail->mount_count++] = (struct jail_mount){.path = path, .access = access, .optional = optional};
    return 0;
}

/* ---- the parent's stages ---- */

static long clone_with(const struct jail *jail, bool group, bool spaces, int *ret_pidfd)
{
    int pidfd = -1;
    struct clone_args args = {
            .flags = CLONE_PIDFD,
            .pidfd = (uintptr_t)&pidfd,
            .exit_signal = SIGCHLD,
    };
    long pid;

    if (group) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)jail->cgroup_fd;
    }
    if (spaces)
        args.flags |= (uint64_t)NAMESPACE_FLAGS | (geteuid() == 0 ? 0 : CLONE_NEWUSER);
    pid = syscall(SYS_clone3, &args, sizeof(args));
    /* Filters of containers know no clone3, as they can't look at its flags. Without a group the older call does; its
     * arguments are x86-64's. */
    if (pid < 0 && errno == ENOSYS && !group)
        pid = syscall(SYS_clone, args.flags | SIGCHLD, NULL, &pidfd, NULL, 0);
    if (pid < 0)
        return -errno;
    if (pid > 0)
        *ret_pidfd = pidfd;
    return pid;
}

/* Which of the two a refusal means is not said, so they are left out in turns; the errno is that of the whole. That
 * there are too many processes, in the group or above it, or too little memory is no refusal of a stage: a start that
 * went on without the group would get around just that limit. */
pid_t jail_clone(const struct jail *jail, struct jail_report *ret, int *ret_pidfd)
{
    const bool group = jail->skip[JAIL_CGROUP] == 0, spaces = jail->skip[JAIL_NAMESPACES] == 0;
    const struct {
        bool group, spaces;
    } tries[] = {{group, spaces}, {group, false}, {false, spaces}, {false, false}};
    const size_t allowed = jail->strict ? 1 : jail->need_cgroup ? 2 : ARRAY_SIZE(tries);
    long pid = -EPERM, first = 0;

    *ret = (struct jail_report){.caller_uid = geteuid(), .caller_gid = getegid()};
    memcpy(ret->error, jail->skip, sizeof(ret->error));
    if ((jail->strict && !spaces) || ((jail->strict || jail->need_cgroup) && !group))
        return -EPERM;
    for (size_t i = 0; i < allowed; i++) {
        pid = clone_with(jail, tries[i].group, tries[i].spaces, ret_pidfd);
        if (pid < 0 && first == 0)
            first = pid;
        if (group && (pid < 0 || !tries[i].group))
            ret->error[JAIL_CGROUP] = (int)-first;
        if (spaces && (pid < 0 || !tries[i].spaces))
            ret->error[JAIL_NAMESPACES] = (int)-first;
        if (pid >= 0 && tries[i].group)
            ret->error[JAIL_CGROUP] = 0;
        if (pid >= 0 && tries[i].spaces)
            ret->error[JAIL_NAMESPACES] = 0;
        if (pid >= 0 || pid == -EAGAIN || pid == -ENOMEM)
            break;
    }
    return (pid_t)pid;
}

/* ---- the child's ---- */

static int write_at(int dir_fd, const char *path, const char *text, size_t len)
{
    int fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC), r = 0;

    if (fd < 0)
        return -errno;
    if (write(fd, text, len) != (ssize_t)len)
        r = errno ? -errno : -EIO;
    (void)close(fd);
    return r;
}

static size_t put_number(char *dst, unsigned value)
{
    char digits[10];
    size_t n = 0, len = 0;

    do
        digits[n++] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    while (n > 0)
        dst[len++] = digits[--n];
    return len;
}

/* "ID ID 1\n", made by hand: snprintf(3) may take locks. */
static int map_own(int proc_fd, const char *path, unsigned outside, unsigned inside)
{
    char line[32];
    size_t len = put_number(line, inside);

    line[len++] = ' ';
    len += put_number(line + len, outside);
    line[len++] = ' ';
    line[len++] = '1';
    line[len++] = '\n';
    return write_at(proc_fd, path, line, len);
}

/* In a new user namespace: the ids that we have outside are all there are, under their own numbers. */
static int map_ids(int proc_fd, uid_t uid, gid_t gid)
{
    static const char deny[] = "deny";
    int r = write_at(proc_fd, "self/setgroups", deny, sizeof(deny) - 1);

    if (r == 0)
        r = map_own(proc_fd, "self/uid_map", uid, uid);
    return r < 0 ? r : map_own(proc_fd, "self/gid_map", gid, gid);
}

static int drop_bounding(void)
{
    for (unsigned long cap = 0; cap < 64; cap++) {
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return errno == EINVAL ? 0 : -errno; /* past the last */
    }
    return 0;
}

/* Nothing of root's is left after it: to stop half way would be neither. */
static int become(const struct jail *jail)
{
    int r = drop_bounding();

    if (r < 0)
        return r;
    /* By number, as the C library's would have its other threads do the same. */
    if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, jail->gid, jail->gid, jail->gid) < 0 ||
            syscall(SYS_setresuid, jail->uid, jail->uid, jail->uid) < 0)
        return -errno;
    /* The change made /proc/self root's; the maps are written there. Ends with execve. */
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? -errno : 0;
}

static int drop_capabilities(void)
{
    static const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                      SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                      SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
    struct __user_cap_data_struct now[_LINUX_CAPABILITY_U32S_3] = {0};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_capget, &header, now) < 0)
        return -errno;
    /* Who has no capability can't change these, and with no_new_privs has no way to any either. */
    if (now[0].permitted & (1u << CAP_SETPCAP)) {
        int r = drop_bounding();

        if (r < 0)
            return r;
        if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) < 0)
            return -errno;
    }
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

/*
 * Of a core dump that goes to a program, as systemd's and Ubuntu's do, the kernel regards no limit but 1, which means
 * none of them; and to a file it writes none below a page. (fs/coredump.c; "1" is also what its own helpers have.) Who
 * was started with 0 can't have 1 again.
 */
static int limit_core(void)
{
    struct rlimit core;

    if (getrlimit(RLIMIT_CORE, &core) < 0)
        return -errno;
    core.rlim_cur = core.rlim_max = MIN(core.rlim_max, (rlim_t)1);
    return setrlimit(RLIMIT_CORE, &core) < 0 ? -errno : 0;
}

static int lower_limits(const struct jail *jail)
{
    static const int zero[] = {RLIMIT_MSGQUEUE, RLIMIT_RTPRIO};
    const struct rlimit none = {0};
    struct rlimit processes;
    int r = limit_core();

    if (r < 0)
        return r;
    if (jail->processes != 0) {
        if (getrlimit(RLIMIT_NPROC, &processes) < 0)
            return -errno;
        processes.rlim_max = MIN(processes.rlim_max, (rlim_t)jail->processes);
        processes.rlim_cur = processes.rlim_max;
        if (setrlimit(RLIMIT_NPROC, &processes) < 0)
            return -errno;
    }

    for (size_t i = 0; i < ARRAY_SIZE(zero); i++) {
        if (setrlimit(zero[i], &none) < 0)
            return -errno;
    }
    return 0;
}

/*
 * What the new user namespace still lets through. Whoever makes one more has every privilege in it, and with that the
 * kernel's mounts, network stacks and so on to try; zero is the limit for those below this one. Keys that the caller's
 * session has would be ours to read, whoever we are. A kernel or a container without keys has none.
 */
static int close_user(int proc_fd)
{
    (void)write_at(proc_fd, "sys/user/max_user_namespaces", "0", 1);
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS && errno != EPERM)
        return -errno;
    return 0;
}

/* Its own user namespace was there first where it had to be; else it is made now, and owns none of the others. */
static int enter_user(const struct jail *jail, const struct jail_report *report, int proc_fd, bool *ret_half)
{
    int r;

    if (report->caller_uid != 0)
        return report->error[JAIL_NAMESPACES] ? -report->error[JAIL_NAMESPACES] : close_user(proc_fd);
    if (jail->uid != 0) {
        *ret_half = true;
        r = report->error[JAIL_ROOT] ? -report->error[JAIL_ROOT] : become(jail);
        if (r < 0)
            return r;
        *ret_half = false;
    }
    if (unshare(CLONE_NEWUSER) < 0)
        return -errno;
    *ret_half = true; /* without a map it would be nobody */
    r = map_ids(proc_fd, jail->uid, jail->gid);
    if (r < 0)
        return r;
    *ret_half = false;
    return close_user(proc_fd);
}

/* What is new about the namespaces, while there is a /proc. */
static int settle_namespaces(const struct jail_report *report, int proc_fd)
{
    if (report->caller_uid != 0) {
        int r = map_ids(proc_fd, report->caller_uid, report->caller_gid);

        if (r < 0)
            return r;
    }
    return sethostname(HOSTNAME, sizeof(HOSTNAME) - 1) < 0 ? -errno : 0;
}

static int run_stage(
        const struct jail *jail, const struct jail_report *report, enum jail_stage stage, int proc_fd, bool *ret_half)
{
    switch (stage) {
    case JAIL_NAMESPACES:
        *ret_half = true;
        return settle_namespaces(report, proc_fd);
    case JAIL_ROOT:
        /* Without a mount namespace of ours the host would lose its tree. */
        return report->error[JAIL_NAMESPACES] ? -report->error[JAIL_NAMESPACES] : root_enter(jail, ret_half);
    case JAIL_USER:
        return enter_user(jail, report, proc_fd, ret_half);
    case JAIL_CAPABILITIES:
        return drop_capabilities();
    case JAIL_LIMITS:
        return lower_limits(jail);
    default:
        return 0;
    }
}

int jail_enter(const struct jail *jail, struct jail_report *report, int *ret_failed)
{
    int proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

    *ret_failed = JAIL_NAMESPACES;
    if (proc_fd < 0)
        return -errno;
    for (int stage = JAIL_NAMESPACES; stage < JAIL_STAGES && r == 0; stage++) {
        bool half = false;

        *ret_failed = stage;
        if (report->error[stage] == 0)
            report->error[stage] = -run_stage(jail, report, (enum jail_stage)stage, proc_fd, &half);
        if (report->error[stage] != 0 && (half || jail->strict))
            r = -report->error[stage];
    }
    (void)close(proc_fd);
    return r;
}
