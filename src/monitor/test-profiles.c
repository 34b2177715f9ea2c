/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What code in each thread of the monitor could still do. Each case is a child
 * that has one thread's filter and makes the call as an attacker would: the
 * process must end with the status of a refused call, whatever the arguments.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "base/test.h"
#include "monitor/vmm.h"

#define VMM 1u
#define API 2u
#define CPU 4u
#define BLK 8u /* in the order of vmm_profiles */
#define ALL 15u

static const char host_file[] = "/etc/passwd";
static _Alignas(4096) char buffer[4096]; /* a page */

#define AT(p) ((long)(uintptr_t)(p))

static const struct attempt {
    const char *name;
    unsigned allowed; /* to these threads; what then comes of it is all the same */
    long nr, args[6];
} attempts[] = {
        {"open a file", VMM, SYS_openat, {AT_FDCWD, AT(host_file), O_RDONLY}},
        {"open a file, the old call", 0, SYS_open, {AT(host_file), O_RDONLY}},
        {"open a file, the new call", 0, SYS_openat2, {AT_FDCWD, AT(host_file), AT(buffer), 24}},
        {"make a file", 0, SYS_openat, {AT_FDCWD, AT("/tmp/ironclaw-test"), O_WRONLY | O_CREAT, 0600}},
        {"make a nameless file", 0, SYS_openat, {AT_FDCWD, AT("/tmp"), O_WRONLY | O_TMPFILE, 0600}},
        {"cut a file", 0, SYS_openat, {AT_FDCWD, AT("/tmp/ironclaw-test"), O_WRONLY | O_TRUNC}},
        {"make a memfd", 0, SYS_memfd_create, {AT("x"), 0}},
        {"rename", 0, SYS_rename, {AT("/tmp/ironclaw-a"), AT("/tmp/ironclaw-b")}},
        {"chmod", 0, SYS_chmod, {AT("/tmp/ironclaw-a"), 0777}},
        {"mkdir", 0, SYS_mkdir, {AT("/tmp/ironclaw-a"), 0700}},
        {"remove a file", VMM, SYS_unlink, {AT("/tmp/ironclaw-test")}},
        {"list a directory", 0, SYS_getdents64, {0, AT(buffer), sizeof(buffer)}},
        {"socket AF_UNIX", VMM, SYS_socket, {AF_UNIX, SOCK_STREAM, 0}},
        {"socket AF_INET", 0, SYS_socket, {AF_INET, SOCK_STREAM, 0}},
        {"socket AF_INET6", 0, SYS_socket, {AF_INET6, SOCK_DGRAM, 0}},
        {"socket AF_NETLINK", 0, SYS_socket, {AF_NETLINK, SOCK_RAW, 0}},
        {"socket AF_PACKET", 0, SYS_socket, {AF_PACKET, SOCK_RAW, 0}},
        {"socket AF_VSOCK", 0, SYS_socket, {AF_VSOCK, SOCK_STREAM, 0}},
        {"socketpair", 0, SYS_socketpair, {AF_UNIX, SOCK_STREAM, 0, AT(buffer)}},
        {"connect", VMM, SYS_connect, {-1, AT(buffer), 16}},
        {"bind", 0, SYS_bind, {-1, AT(buffer), 16}},
        {"listen", 0, SYS_listen, {-1, 1}},
        {"receive descriptors", 0, SYS_recvmsg, {-1, AT(buffer), 0}},
        {"another process's descriptor", 0, SYS_pidfd_getfd, {-1, 0, 0}},
        {"fork", 0, SYS_fork, {0}},
        {"vfork", 0, SYS_clone, {CLONE_VFORK | CLONE_VM | SIGCHLD}},
        {"clone", 0, SYS_clone, {SIGCHLD}},
        {"clone3", 0, SYS_clone3, {AT(buffer), 64}},
        {"execve", 0, SYS_execve, {AT("/bin/true"), 0, 0}},
        {"execveat", 0, SYS_execveat, {AT_FDCWD, AT("/bin/true"), 0, 0, 0}},
        {"ptrace", 0, SYS_ptrace, {PTRACE_TRACEME, 0, 0, 0}},
        {"read another process", 0, SYS_process_vm_readv, {1, AT(buffer), 1, AT(buffer), 1, 0}},
        {"write another process", 0, SYS_process_vm_writev, {1, AT(buffer), 1, AT(buffer), 1, 0}},
        {"kill", 0, SYS_kill, {-1, 0}},
        {"tkill", 0, SYS_tkill, {1, 0}},
        {"tgkill another process", 0, SYS_tgkill, {1, 1, 0}},
        {"pidfd_send_signal", 0, SYS_pidfd_send_signal, {-1, 0, 0, 0}},
        {"change a signal's handler", 0, SYS_rt_sigaction, {SIGSYS, 0, 0, 8}},
        {"mmap memory", VMM | API, SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
        {"mmap code", 0, SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
        {"mprotect code", 0, SYS_mprotect, {AT(buffer), 4096, PROT_READ | PROT_EXEC}},
        {"pkey_mprotect code", 0, SYS_pkey_mprotect, {AT(buffer), 4096, PROT_READ | PROT_EXEC, -1}},
        {"personality: all reading is executing", 0, SYS_personality, {0x0400000}},
        {"mount", 0, SYS_mount, {AT("none"), AT("/tmp"), AT("tmpfs"), 0, 0}},
        {"umount", 0, SYS_umount2, {AT("/ironclaw-nowhere"), 0}},
        {"pivot_root", 0, SYS_pivot_root, {AT("."), AT(".")}},
        {"chroot", 0, SYS_chroot, {AT("/ironclaw-nowhere")}},
        {"setns", 0, SYS_setns, {-1, 0}},
        {"unshare", 0, SYS_unshare, {CLONE_NEWUSER}},
        {"setuid", 0, SYS_setuid, {0}},
        {"capset", 0, SYS_capset, {AT(buffer), 0}},
        {"prctl", 0, SYS_prctl, {PR_SET_DUMPABLE, 1}},
        {"another filter", 0, SYS_seccomp, {0, 0, 0}},
        {"io_uring_setup", 0, SYS_io_uring_setup, {8, AT(buffer)}},
        {"bpf", 0, SYS_bpf, {0, AT(buffer), 0}},
        {"perf_event_open", 0, SYS_perf_event_open, {AT(buffer), 0, -1, -1, 0}},
        {"userfaultfd", 0, SYS_userfaultfd, {0}},
        {"keyctl", 0, SYS_keyctl, {0, 0, 0}},
        {"init_module", 0, SYS_init_module, {AT(buffer), 0, AT("")}},
        {"kexec_load", 0, SYS_kexec_load, {0, 0, 0, 0}},
        {"shmget", 0, SYS_shmget, {1, 4096, 0}},
        {"setrlimit", 0, SYS_prlimit64, {0, 7, 0, AT(buffer)}},
        {"ioctl KVM_RUN", CPU, SYS_ioctl, {-1, KVM_RUN, 0}},
        {"ioctl KVM_GET_REGS", CPU, SYS_ioctl, {-1, (int)KVM_GET_REGS, 0}},
        {"ioctl KVM_SET_USER_MEMORY_REGION", 0, SYS_ioctl, {-1, KVM_SET_USER_MEMORY_REGION, 0}},
        {"ioctl KVM_CREATE_VM", 0, SYS_ioctl, {-1, KVM_CREATE_VM, 0}},
        {"ioctl KVM_SET_REGS", 0, SYS_ioctl, {-1, KVM_SET_REGS, 0}},
        {"ioctl TIOCSTI: type for the user", 0, SYS_ioctl, {-1, TIOCSTI, 0}},
        {"ioctl TCSETS", VMM, SYS_ioctl, {-1, TCSETS, 0}},
        {"ioctl TIOCSCTTY", 0, SYS_ioctl, {-1, TIOCSCTTY, 0}},
        {"write", ALL, SYS_write, {-1, AT(buffer), 1}},
        {"preadv", BLK, SYS_preadv, {-1, AT(buffer), 0, 0}},
        {"read", VMM | BLK, SYS_read, {-1, AT(buffer), 1}},
        {"madvise: give memory back", ALL, SYS_madvise, {AT(buffer), 0, MADV_DONTNEED}},
        {"madvise MADV_REMOVE", 0, SYS_madvise, {AT(buffer), 0, MADV_REMOVE}},
        {"madvise MADV_HWPOISON", 0, SYS_madvise, {AT(buffer), 0, 100}},
};

static int child(enum seccomp_level level, const struct seccomp_profile *profile, const struct attempt *a)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        log_init("test", LOG_ERROR, -1);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || seccomp_prepare(level, vmm_profiles, VMM_PROFILES) != 0)
            _exit(99);
        seccomp_enter(profile);
        (void)syscall(a->nr, a->args[0], a->args[1], a->args[2], a->args[3], a->args[4], a->args[5]);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void check(enum seccomp_level level, const struct attempt *a)
{
    for (unsigned i = 0; i < VMM_PROFILES; i++) {
        bool allowed = level == SECCOMP_BASIC ? a->allowed != 0 : a->allowed & (1u << i);
        int status = child(level, vmm_profiles[i], a);

        if (status != (allowed ? 0 : SECCOMP_EXIT_STATUS))
            fail_msg("%s by %s: status %d, should be %s", a->name, vmm_profiles[i]->name, status,
                    allowed ? "allowed" : "refused");
    }
}

static void test_minimal(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(attempts); i++)
        check(SECCOMP_MINIMAL, &attempts[i]);
}

static void test_basic(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(attempts); i++)
        check(SECCOMP_BASIC, &attempts[i]);
}

/* Firecracker's numbers are the most that we allow ourselves. */
static void test_counts(void **state)
{
    assert_in_range(seccomp_calls(vmm_profiles[0]), 1, 50);
    assert_in_range(seccomp_calls(vmm_profiles[1]), 1, 31);
    assert_in_range(seccomp_calls(vmm_profiles[2]), 1, 27);
    assert_in_range(seccomp_calls(vmm_profiles[3]), 1, 27);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_minimal),
            cmocka_unit_test(test_basic),
            cmocka_unit_test(test_counts),
    };

    if (seccomp_prepare(SECCOMP_MINIMAL, NULL, 0) == SECCOMP_SANITIZED) {
        puts("no filters in a build with a sanitizer");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
