/* SPDX-License-Identifier: Apache-2.0 */
/* Privileges, namespaces, and parts of the kernel that such a process has no use for. */
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/perf_event.h>
#include <linux/reboot.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/io.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "intruder.h"

#define MIB (1u << 20)

static int exec_shell(void)
{
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)"exit 0", NULL};

    return TRY(execv("/bin/sh", argv));
}

static int map_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
                   ? errno
                   : 0;
}

static int mount_tmpfs(void)
{
    return TRY(mount("none", plan("run_dir"), "tmpfs", 0, NULL));
}

static int mount_bind(void)
{
    return TRY(mount("/", plan("run_dir"), NULL, MS_BIND, NULL));
}

static int remount(void)
{
    return TRY(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
}

static int unmount(void)
{
    return TRY(umount2(plan("run_dir"), MNT_DETACH));
}

static int clone_mount(void)
{
    return TRY(syscall(SYS_open_tree, AT_FDCWD, "/", 1u /* OPEN_TREE_CLONE */));
}

static int open_file_system(void)
{
    return TRY(syscall(SYS_fsopen, "proc", 0));
}

static int pivot(void)
{
    return TRY(syscall(SYS_pivot_root, ".", "."));
}

static int change_root(void)
{
    return TRY(chroot("."));
}

static int new_user_namespace(void)
{
    return TRY(unshare(CLONE_NEWUSER));
}

static int new_mount_namespace(void)
{
    return TRY(unshare(CLONE_NEWNS));
}

static int new_net_namespace(void)
{
    return TRY(unshare(CLONE_NEWNET));
}

/* Its own process is the only one that it can name. */
static int join_namespace(void)
{
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    return fd < 0 ? errno : TRY(setns(fd, CLONE_NEWNS | CLONE_NEWNET));
}

static int join_other(void)
{
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)plan_number("other_pid"), 0);

    return fd < 0 ? errno : TRY(setns(fd, CLONE_NEWNET));
}

static int become_root(void)
{
    return TRY(setuid(0));
}

static int become_group_root(void)
{
    return TRY(setgid(0));
}

static int take_groups(void)
{
    gid_t group = 0;

    return TRY(setgroups(1, &group));
}

static int take_capability(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3] = {
            {.effective = 1u << CAP_SYS_ADMIN, .permitted = 1u << CAP_SYS_ADMIN}};

    return TRY(syscall(SYS_capset, &header, caps));
}

static int allow_privileges(void)
{
    return TRY(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

static int raise_limit(int which)
{
    struct rlimit limit;

    if (getrlimit(which, &limit) < 0 || limit.rlim_max == RLIM_INFINITY)
        return NOT_HERE;
    limit.rlim_max++;
    return TRY(setrlimit(which, &limit));
}

static int raise_core(void)
{
    return raise_limit(RLIMIT_CORE);
}

static int raise_files(void)
{
    return raise_limit(RLIMIT_NOFILE);
}

static int raise_priority(void)
{
    return TRY(setpriority(PRIO_PROCESS, 0, -5));
}

static int real_time(void)
{
    struct sched_param param = {.sched_priority = 1};

    return TRY(sched_setscheduler(0, SCHED_FIFO, &param));
}

/* 0: a core was made. */
static int dump_core(void)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
        abort();
    }
    return waitpid(pid, &status, 0) == pid && WCOREDUMP(status) ? 0 : EPERM;
}

static int io_ports(void)
{
    return TRY(ioperm(0x64, 1, 1));
}

static int io_level(void)
{
    return TRY(iopl(3));
}

static int kernel_log(void)
{
    char line[64];

    return TRY(klogctl(3, line, sizeof(line)));
}

static int set_clock(void)
{
    struct timeval now;

    gettimeofday(&now, NULL);
    return TRY(settimeofday(&now, NULL));
}

static int set_host_name(void)
{
    return TRY(sethostname("x", 1));
}

/* Not one of the commands: should it have the right, it is told EINVAL. */
static int restart(void)
{
    return TRY(syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, 0x12345678, NULL));
}

static int load_module(void)
{
    return TRY(syscall(SYS_init_module, "x", 1, ""));
}

static int load_kernel(void)
{
    return TRY(syscall(SYS_kexec_load, 0, 0, NULL, 0));
}

static int swap_file(void)
{
    return TRY(swapoff("/ironclaw-nowhere"));
}

static int load_bpf(void)
{
    struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr attr = {
            .prog_type = BPF_PROG_TYPE_KPROBE,
            .insns = (uintptr_t)code,
            .insn_cnt = 2,
            .license = (uintptr_t) "GPL",
    };

    return TRY(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr)));
}

/* All that runs on a processor, whoever's it is. */
static int watch_processor(void)
{
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_CPU_CLOCK};

    return TRY(syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0));
}

static int kernel_faults(void)
{
    return TRY(syscall(SYS_userfaultfd, O_CLOEXEC));
}

static int lock_memory(void)
{
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};

    return TRY(setrlimit(RLIMIT_MEMLOCK, &limit));
}

static int io_uring(void)
{
    static char params[120];

    return TRY(syscall(SYS_io_uring_setup, 4, params));
}

/* Up to the VM's limit and beyond. */
static int take_memory(void)
{
    long mib = plan_number("memory_mib");
    char *p;

    if (mib == 0)
        return NOT_HERE;
    for (*reached = 0; *reached < mib; ++*reached) {
        p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return errno;
        memset(p, 1, MIB);
    }
    return 0;
}

/* As far as a disk may go: nothing is written. */
static int grow_log(void)
{
    struct stat st;

    if (fstat(STDERR_FILENO, &st) < 0)
        return errno;
    signal(SIGXFSZ, SIG_IGN);
    if (ftruncate(STDERR_FILENO, (off_t)1 << 40) < 0)
        return errno;
    return ftruncate(STDERR_FILENO, st.st_size) < 0 ? errno : 0;
}

const struct attempt kernel_attempts[] = {
        {"run a shell", exec_shell},
        {"map memory as code", map_code},
        {"mount a file system", mount_tmpfs},
        {"bind a directory", mount_bind},
        {"make the root writable", remount},
        {"unmount", unmount},
        {"clone a mount", clone_mount},
        {"open a file system", open_file_system},
        {"pivot_root", pivot},
        {"chroot", change_root},
        {"make a user namespace", new_user_namespace},
        {"make a mount namespace", new_mount_namespace},
        {"make a net namespace", new_net_namespace},
        {"join a namespace again", join_namespace},
        {"join another VM's namespace", join_other},
        {"become root", become_root},
        {"become root's group", become_group_root},
        {"take groups", take_groups},
        {"take a capability", take_capability},
        {"allow new privileges", allow_privileges},
        {"allow core dumps", raise_core},
        {"dump core", dump_core},
        {"raise the limit of files", raise_files},
        {"raise the limit of locked memory", lock_memory},
        {"raise its priority", raise_priority},
        {"run in real time", real_time},
        {"use I/O ports", io_ports},
        {"raise its I/O level", io_level},
        {"read the kernel's log", kernel_log},
        {"set the clock", set_clock},
        {"set the host's name", set_host_name},
        {"restart the host", restart},
        {"load a module", load_module},
        {"load a kernel", load_kernel},
        {"turn swap off", swap_file},
        {"load a BPF program", load_bpf},
        {"watch a processor", watch_processor},
        {"catch the kernel's page faults", kernel_faults},
        {"set up an io_uring", io_uring},
        {"grow a log without end", grow_log},
        {"take memory without end", take_memory},
        {NULL, NULL},
};
