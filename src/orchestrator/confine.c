/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/confine.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "jail/cgroup.h"
#include "orchestrator/names.h"
#include "orchestrator/paths.h"
#include "wire/wire.h"

#define ORPHAN_TIMEOUT_MS 1000u
#define SUFFIX_SIZE       12u
#define GROUP_NAME_SIZE   (IC_VM_ID_MAX + SUFFIX_SIZE + 1)
#define PROBE_TIMEOUT_MS  5000u
#define PROBE_NAME        "+probe-" /* and a pid; no VM's id has a plus */

/* Memory beside the guest's: the monitor's own, page tables, page cache of the image; the emulator's translated code.
 * Threads: vCPUs and what else a monitor has. */
#define OVERHEAD_MIB          96u
#define OVERHEAD_EMULATED_MIB 512u
#define PIDS_BESIDE_VCPUS     48u
#define CPU_BESIDE_VCPUS      1u /* one processor's worth for the devices' threads */

/* ---- the group ---- */

/* ".xxxxxxxx": groups of VMs that one state directory has. */
static int group_suffix(char ret[SUFFIX_SIZE])
{
    _cleanup_(freep) char *state = NULL;
    uint32_t hash = 2166136261u; /* FNV-1a, 32 bits */
    int r = path_of(IC_PATH_STATE, &state, NULL);

    if (r < 0)
        return r;
    for (const char *p = state; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    (void)snprintf(ret, SUFFIX_SIZE, ".%08x", hash);
    return 0;
}

static int group_name(char ret[GROUP_NAME_SIZE], const struct record *record)
{
    char suffix[SUFFIX_SIZE];
    int r = group_suffix(suffix);

    if (r == 0)
        (void)snprintf(ret, GROUP_NAME_SIZE, "%s%s", record->vm_id, suffix);
    return r;
}

static void make_group(struct confine *c, struct record *record)
{
    bool emulated = record->isolation != IC_ISOLATION_HARDWARE;
    struct cgroup_limits limits = {
            .memory_bytes = ((uint64_t)record->memory_mib + (emulated ? OVERHEAD_EMULATED_MIB : OVERHEAD_MIB)) << 20,
            .pids = c->processes,
            .cpu_percent = (record->vcpu_count + CPU_BESIDE_VCPUS) * 100,
    };
    char name[GROUP_NAME_SIZE], *why = record->jail[JAIL_CGROUP];
    int r;

    if (group_name(name, record) < 0)
        return;
    r = cgroup_make(name, &limits, &record->cgroup, &c->cgroup_fd, why, sizeof(record->jail[0]));
    if (r != 0) /* a group without all limits still ends all at once */
        c->cgroup_error = r < 0 ? -r : ENOTSUP;
}

int confine_end(const struct record *record, uint64_t deadline)
{
    char name[GROUP_NAME_SIZE];
    int r = 0;

    if (record->cgroup)
        r = cgroup_end(record->cgroup, deadline);
    else if (record->state == IC_VM_CREATED && record->jail_mode != IC_JAIL_OFF && group_name(name, record) == 0)
        r = cgroup_end_named(name, deadline); /* who made it may have died before the record had it */
    return r == -ETIMEDOUT ? r : 0;
}

int confine_set_weight(const struct record *record, unsigned weight)
{
    return record->cgroup ? cgroup_set_weight(record->cgroup, weight) : -ENOENT;
}

bool confine_was_oom(const struct record *record)
{
    return record->cgroup && cgroup_was_oom(record->cgroup);
}

static bool is_known(const char *name, void *userdata)
{
    _cleanup_(freep) char *dir = NULL;

    if (strncmp(name, PROBE_NAME, strlen(PROBE_NAME)) == 0)
        return kill((pid_t)strtol(name + strlen(PROBE_NAME), NULL, 10), 0) == 0 || errno != ESRCH;
    /* When it can't be told, it stays. */
    return path_in(&dir, NULL, IC_PATH_STATE, "vms/%.*s", (int)strcspn(name, "."), name) < 0 ||
           access(dir, F_OK) == 0 || errno != ENOENT;
}

void confine_end_orphans(void)
{
    char suffix[SUFFIX_SIZE];

    if (group_suffix(suffix) == 0)
        cgroup_end_orphans(suffix, is_known, NULL, deadline_after_ms(ORPHAN_TIMEOUT_MS));
}

/* ---- the user ---- */

static bool may_mount(void)
{
    _cleanup_(freep) char *text = NULL;
    const char *line;

    if (fd_read_file(AT_FDCWD, "/proc/self/status", 65536, &text, NULL) < 0)
        return false;
    line = strstr(text, "\nCapEff:");
    return line && (strtoull(line + strlen("\nCapEff:"), NULL, 16) >> 21 & 1); /* CAP_SYS_ADMIN, capability.h */
}

/* In a user namespace, as in some containers, root may give only the ids that are mapped into it. */
static bool may_give_ids(void)
{
    _cleanup_(freep) char *text = NULL;
    char *at;

    if (fd_read_file(AT_FDCWD, "/proc/self/uid_map", 65536, &text, NULL) < 0)
        return false;
    for (at = text; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        unsigned long inside = strtoul(at, &at, 10), count;

        (void)strtoul(at, &at, 10); /* outside */
        count = strtoul(at, &at, 10);
        if (inside <= CONFINE_UID_FIRST && count >= CONFINE_UID_FIRST - inside + CONFINE_UID_COUNT)
            return true;
    }
    return false;
}

/* In a chroot it mostly is a directory like any other, and then no root can be put in its place. */
static bool root_is_mount(void)
{
    _cleanup_(freep) char *text = NULL;

    /* The fifth field of a line of /proc/self/mountinfo, the place; the fourth, which may be / as well, is before it.
     */
    if (fd_read_file(AT_FDCWD, "/proc/self/mountinfo", 1u << 20, &text, NULL) < 0)
        return false;
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        const char *at = line;

        for (int i = 0; i < 4 && at; i++)
            at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL;
        if (at && strncmp(at, "/ ", 2) == 0)
            return true;
    }
    return false;
}

/* Why root's VMs can have no id of their own here; NULL: they can. */
static const char *no_ids(void)
{
    if (!root_is_mount())
        return "it keeps root's id: this is a chroot, where no other root can be had, and another id would find no "
               "files";
    if (!may_mount())
        return "it keeps root's id: root lacks CAP_SYS_ADMIN here, and another id would find none of its files";
    return may_give_ids() ? NULL : "it keeps root's id: the user namespace around root here has no ids for VMs";
}

/* What the image store keeps in its private directories may be readable there, so that the VM's user, who gets only
 * that file, can read it. Images of earlier versions are not. Links are followed first: what they lead out of the store
 * to is not ours to open to all. */
static bool readable_by_all(const char *path)
{
    _cleanup_(freep) char *data = NULL, *real_data = NULL, *real = NULL;
    _cleanup_(fd_closep) int fd = -1;
    struct stat st;
    size_t len;

    if (!path || stat(path, &st) < 0 || (st.st_mode & S_IROTH))
        return true; /* none, or whoever opens it will say what is wrong */
    if (path_of(IC_PATH_DATA, &data, NULL) < 0 || !(real_data = realpath(data, NULL)) || !(real = realpath(path, NULL)))
        return false;
    len = strlen(real_data);
    if (strncmp(real, real_data, len) != 0 || real[len] != '/')
        return false;
    fd = open(real, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
           fchmod(fd, (st.st_mode & 0777) | 0444) == 0;
}

/* By descriptor, and only what table_make_run_dir() made: whoever can change a directory above it must not have us give
 * away another one. */
static int give_run_dir(const struct record *record, uid_t uid)
{
    _cleanup_(fd_closep) int fd = open(record->run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    char ready[16];
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (st.st_ino != record->run_dir_inode || st.st_uid != geteuid())
        return -ESTALE;
    (void)snprintf(ready, sizeof(ready), "v_%u", WIRE_READY_PORT);
    if (fchownat(fd, ready, uid, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
        return -errno;
    return fchown(fd, uid, (gid_t)-1) < 0 ? -errno : 0;
}

/* root's VMs get an id of their own; nobody else can give one. */
static int choose_user(struct confine *c, struct record *record, struct ic_error *error)
{
    const char *const files[] = {record->kernel_path, record->initrd_path, record->rootfs_path};
    uint32_t random;
    int r;

    if (geteuid() != 0 || (c->no_ids = no_ids()))
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        if (!readable_by_all(files[i])) {
            (void)snprintf(record->jail[JAIL_USER], sizeof(record->jail[0]), "%.120s is for its owner only; chmod a+r",
                    files[i]);
            return 0;
        }
    }
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return ic_fail_errno(error, -errno, "random numbers");
    c->uid = CONFINE_UID_FIRST + random % CONFINE_UID_COUNT;
    r = give_run_dir(record, c->uid);
    return r < 0 ? ic_fail_errno(error, r, "%s: giving it to the VM's user", record->run_dir) : 0;
}

int confine_give_file(const struct confine *c, int fd, const char *path, struct ic_error *error)
{
    if (c->uid != 0 && fchown(fd, c->uid, (gid_t)-1) < 0)
        return ic_fail_errno(error, -errno, "%s: giving it to the VM's user", path);
    return 0;
}

/* ---- all together ---- */

static int refuse(const struct record *record, enum jail_stage stage, const char *why, struct ic_error *error)
{
    return ic_fail(error, IC_ERR_DENIED,
            "VM '%s': jail strict: the stage %s can't be had on this host: %s; 'ironclaw doctor' shows all; jail auto "
            "starts without it",
            record->vm_id, jail_stage_names[stage], why);
}

int confine_init(struct confine *ret, struct record *record, struct ic_error *error)
{
    struct confine c = {
            .mode = record->jail_mode,
            .processes = record->vcpu_count + PIDS_BESIDE_VCPUS,
            .cgroup_fd = -1,
    };
    int r;

    for (int stage = 0; stage < JAIL_STAGES; stage++)
        (void)snprintf(record->jail[stage], sizeof(record->jail[0]), "%s", c.mode == IC_JAIL_OFF ? "off" : "");
    if (c.mode == IC_JAIL_OFF) {
        *ret = c;
        return 0;
    }
    r = choose_user(&c, record, error);
    if (r < 0)
        return r;
    record->uid = c.uid;
    if (c.mode == IC_JAIL_STRICT && (c.no_ids || record->jail[JAIL_USER][0]))
        return refuse(record, JAIL_USER, c.no_ids ?: record->jail[JAIL_USER], error);
    make_group(&c, record);
    *ret = c;
    if (c.mode == IC_JAIL_STRICT && c.cgroup_error)
        return refuse(record, JAIL_CGROUP, record->jail[JAIL_CGROUP], error);
    return 0;
}

void confine_deinit(struct confine *c)
{
    fd_close(c->cgroup_fd);
    c->cgroup_fd = -1;
}

/* ---- one process ---- */

enum program { PROGRAM_STATIC, PROGRAM_DYNAMIC, PROGRAM_SCRIPT };

/* Scripts need an interpreter, and whatever they then start. */
static enum program kind_of(const char *path)
{
    _cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    Elf64_Ehdr header;
    Elf64_Phdr part;

    if (fd < 0 || pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
            memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_phentsize != sizeof(part))
        return PROGRAM_SCRIPT;
    for (unsigned i = 0; i < header.e_phnum; i++) {
        if (pread(fd, &part, sizeof(part), (off_t)(header.e_phoff + i * sizeof(part))) != (ssize_t)sizeof(part))
            break;
        if (part.p_type == PT_INTERP)
            return PROGRAM_DYNAMIC;
    }
    return PROGRAM_STATIC;
}

/* Dynamic programs, QEMU above all, find libraries, modules and firmware at run time. */
static int add_libraries(struct jail *jail)
{
    static const struct jail_mount places[] = {
            {"/lib", JAIL_EXECUTE, true},
            {"/lib64", JAIL_EXECUTE, true},
            {"/usr/lib", JAIL_EXECUTE, true},
            {"/usr/lib64", JAIL_EXECUTE, true},
            {"/usr/local/lib", JAIL_EXECUTE, true},
            {"/nix/store", JAIL_EXECUTE, true},
            {"/usr/share/qemu", JAIL_READ, true},
            {"/usr/share/seabios", JAIL_READ, true},
            {"/usr/local/share/qemu", JAIL_READ, true},
            {"/etc/ld.so.cache", JAIL_READ, true},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(places); i++)
        r = jail_add_mount(jail, places[i].path, places[i].access, places[i].optional);
    return r;
}

static gid_t kvm_group(uid_t uid)
{
    struct stat st;

    return stat("/dev/kvm", &st) == 0 && (st.st_mode & S_IRGRP) && st.st_gid != 0 ? st.st_gid : (gid_t)uid;
}

int confine_jail(const struct confine *c, struct jail *ret, const char *program, struct ic_error *error)
{
    struct jail jail = {
            .uid = c->uid,
            .gid = c->uid ? kvm_group(c->uid) : 0,
            .processes = c->processes,
            .cgroup_fd = c->cgroup_fd,
            .strict = c->mode == IC_JAIL_STRICT,
            .need_cgroup = c->need_cgroup,
    };
    enum program kind = kind_of(program);
    int r = 0;

    if (c->cgroup_fd < 0)
        jail.skip[JAIL_CGROUP] = c->cgroup_error ?: ENOTSUP;
    if (kind == PROGRAM_SCRIPT) {
        if (c->uid != 0)
            return ic_fail(error, IC_ERR_INVALID,
                    "%s: is no ELF program, so it can't run in an empty root, which root's VMs must; name the program "
                    "itself, or set jail off",
                    program);
        jail.skip[JAIL_ROOT] = ENOEXEC;
    } else {
        r = jail_add_mount(&jail, program, JAIL_EXECUTE, false);
    }
    if (r == 0 && kind == PROGRAM_DYNAMIC)
        r = add_libraries(&jail);
    if (r < 0)
        return ic_fail_errno(error, r, "jail of %s", program);
    *ret = jail;
    return 0;
}

int confine_probe(struct record *record, char *const *argv, struct ic_error *error)
{
    _cleanup_(fd_closep) int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC), pidfd = -1;
    struct process_options options = {
            .size = sizeof(options), .path = argv[0], .argv = argv, .mark = "probe", .die_with_parent = true};
    uint64_t deadline = deadline_after_ms(PROBE_TIMEOUT_MS);
    struct confine c = {.mode = IC_JAIL_AUTO, .cgroup_fd = -1, .processes = record->vcpu_count + PIDS_BESIDE_VCPUS};
    struct process_id id = {0};
    struct jail jail;
    int r = null_fd < 0 ? -errno : fd_above_stdio(&null_fd);

    if (r < 0)
        return ic_fail_errno(error, r, "/dev/null");
    options.out_fd = options.err_fd = null_fd;
    if (geteuid() == 0 && !(c.no_ids = no_ids()))
        c.uid = CONFINE_UID_FIRST;
    (void)snprintf(record->vm_id, sizeof(record->vm_id), PROBE_NAME "%ld", (long)getpid());
    make_group(&c, record);
    r = confine_jail(&c, &jail, argv[0], error);
    if (r == 0)
        r = confine_spawn(&c, &options, &jail, record, &id, &pidfd, error);
    if (r == 0) {
        (void)fd_wait(pidfd, POLLIN, deadline);
        (void)process_kill(&id, deadline);
    }
    (void)confine_end(record, deadline);
    confine_deinit(&c);
    return r;
}

/* ---- starting ---- */

/* For people: what usually is behind it. */
static const char *reason_of(int e)
{
    switch (e) {
    case EPERM:
    case EACCES:
        return "not permitted here: by kernel.unprivileged_userns_clone, AppArmor's rules, or the container around it";
    case EINVAL:
        return "the root directory is no mount point here, as in a chroot";
    case ENOSPC:
    case EUSERS:
        return "no more namespaces: user.max_user_namespaces, or another limit of that kind";
    case ENOSYS:
        return "this kernel can't, as Linux 5.12 can, or the container around it does not let it";
    case ENOEXEC:
        return "its program is a script, which an empty root has no interpreter for";
    default:
        return strerror(e);
    }
}

static void note(struct record *record, const struct confine *c, const struct jail_report *report)
{
    for (int stage = 0; stage < JAIL_STAGES; stage++) {
        int e = report->error[stage];

        if (stage == JAIL_CGROUP && e == 0)
            e = c->cgroup_error;
        if (e != 0 && !record->jail[stage][0])
            (void)snprintf(record->jail[stage], sizeof(record->jail[0]), "%s", reason_of(e));
        /* A user namespace around root's own id is not what the stage promises. */
        if (stage == JAIL_USER && c->no_ids && !record->jail[stage][0])
            (void)snprintf(record->jail[stage], sizeof(record->jail[0]), "%s", c->no_ids);
    }
}

int confine_spawn(const struct confine *c, const struct process_options *wanted, const struct jail *jail,
        struct record *record, struct process_id *ret, int *ret_pidfd, struct ic_error *error)
{
    struct process_options options = *wanted;
    struct jail_report report = {0};
    struct jail without;
    int failed = -1, r;

    options.jail = c->mode == IC_JAIL_OFF ? NULL : jail;
    options.ret_report = &report;
    options.ret_failed_stage = &failed;
    r = process_spawn(&options, ret, ret_pidfd);
    /* Rules of AppArmor for ordinary users let them make the namespaces, and give no privilege in them to map an id
     * with: better none than a process that is nobody. */
    if (r < 0 && failed == JAIL_NAMESPACES && !jail->strict && jail->uid == 0) {
        without = *jail;
        without.skip[JAIL_NAMESPACES] = -r;
        options.jail = &without;
        r = process_spawn(&options, ret, ret_pidfd);
    }
    if (r == 0) {
        if (options.jail)
            note(record, c, &report);
        return 0;
    }
    if (failed >= 0 && jail->strict)
        return refuse(record, (enum jail_stage)failed, reason_of(-r), error);
    if (failed == JAIL_USER && c->uid != 0)
        return ic_fail(error, IC_ERR_DENIED,
                "start of %s: jail: the VM's own user needs the stages namespaces and root: %s; 'ironclaw doctor' "
                "shows "
                "all; jail off does without",
                options.path, reason_of(-r));
    if (options.jail && jail->need_cgroup && report.error[JAIL_CGROUP] && r != -EAGAIN && r != -ENOMEM)
        return ic_fail(error, IC_ERR_DENIED,
                "start of %s: its limit needs its cgroup, into which it can't be put: %s; leave the limit out",
                options.path, reason_of(report.error[JAIL_CGROUP]));
    if (failed >= 0)
        return ic_fail_errno(error, r, "start of %s: jail, stage %s", options.path, jail_stage_names[failed]);
    if (options.jail && jail->strict && (r == -EPERM || r == -ENOSPC || r == -EUSERS))
        return refuse(record, JAIL_NAMESPACES, reason_of(-r), error);
    return ic_fail_errno(error, r, "start of %s", options.path);
}
