/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What code in each of our filtered threads could still do: one table for all
 * of them, of calls as an attacker would make them. Filters are tried with it
 * by themselves (test-attempts.h) and in the threads of the real programs
 * (test-hostile.c).
 */
#pragma once

#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>

/* ironclaw-vmm's, in the order of vmm_profiles, ironclaw-vsock's one, and QEMU's, in the order of qemu_profiles. */
#define VMM 1u
#define API 2u
#define CPU 4u
#define BLK 8u
#define FLT 16u /* page faults */
#define VSK 32u
#define TCG 64u
#define KVM 128u
#define QEM (TCG | KVM)
#define ALL 255u

static const char host_file[] = "/etc/passwd";
static _Alignas(4096) char buffer[4096]; /* a page */

#define AT(p) ((long)(uintptr_t)(p))

static const struct attempt {
    const char *name;
    unsigned allowed; /* to these threads; what then comes of it is all the same */
    long nr, args[6];
} attempts[] = {
        {"open a file", VMM | QEM, SYS_openat, {AT_FDCWD, AT(host_file), O_RDONLY}},
        {"open a file, the old call", 0, SYS_open, {AT(host_file), O_RDONLY}},
        {"open a file, the new call", 0, SYS_openat2, {AT_FDCWD, AT(host_file), AT(buffer), 24}},
        {"make a file", 0, SYS_openat, {AT_FDCWD, AT("/tmp/ironclaw-test"), O_WRONLY | O_CREAT, 0600}},
        {"make a new file", VMM, SYS_openat, {AT_FDCWD, AT("/ironclaw-nowhere/x"), O_WRONLY | O_CREAT | O_EXCL, 0600}},
        {"make a new file, or cut it", 0, SYS_openat,
                {AT_FDCWD, AT("/ironclaw-nowhere/x"), O_WRONLY | O_CREAT | O_EXCL | O_TRUNC, 0600}},
        {"make a nameless file", 0, SYS_openat, {AT_FDCWD, AT("/tmp"), O_WRONLY | O_TMPFILE, 0600}},
        {"cut a file", 0, SYS_openat, {AT_FDCWD, AT("/tmp/ironclaw-test"), O_WRONLY | O_TRUNC}},
        {"make a memfd", QEM, SYS_memfd_create, {AT("x"), 0}},
        {"rename", VMM, SYS_rename, {AT("/tmp/ironclaw-a"), AT("/tmp/ironclaw-b")}},
        {"chmod", 0, SYS_chmod, {AT("/tmp/ironclaw-a"), 0777}},
        {"mkdir", 0, SYS_mkdir, {AT("/tmp/ironclaw-a"), 0700}},
        {"remove a file", VMM | VSK | QEM, SYS_unlink, {AT("/tmp/ironclaw-test")}},
        {"list a directory", QEM, SYS_getdents64, {0, AT(buffer), sizeof(buffer)}},
        {"socket AF_UNIX", VMM | VSK, SYS_socket, {AF_UNIX, SOCK_STREAM, 0}},
        {"socket AF_INET", 0, SYS_socket, {AF_INET, SOCK_STREAM, 0}},
        {"socket AF_INET6", 0, SYS_socket, {AF_INET6, SOCK_DGRAM, 0}},
        {"socket AF_NETLINK", 0, SYS_socket, {AF_NETLINK, SOCK_RAW, 0}},
        {"socket AF_PACKET", 0, SYS_socket, {AF_PACKET, SOCK_RAW, 0}},
        {"socket AF_VSOCK", 0, SYS_socket, {AF_VSOCK, SOCK_STREAM, 0}},
        {"socketpair", 0, SYS_socketpair, {AF_UNIX, SOCK_STREAM, 0, AT(buffer)}},
        {"connect", VMM | VSK, SYS_connect, {-1, AT(buffer), 16}},
        {"bind", 0, SYS_bind, {-1, AT(buffer), 16}},
        {"listen", QEM, SYS_listen, {-1, 1}},
        {"receive descriptors", VSK | QEM, SYS_recvmsg, {-1, AT(buffer), 0}},
        {"another process's descriptor", 0, SYS_pidfd_getfd, {-1, 0, 0}},
        {"fork", 0, SYS_fork, {0}},
        {"vfork", 0, SYS_clone, {CLONE_VFORK | CLONE_VM | SIGCHLD}},
        {"clone", 0, SYS_clone, {SIGCHLD}},
        {"clone3", QEM, SYS_clone3, {AT(buffer), 64}},
        {"execve", QEM, SYS_execve, {AT("/bin/true"), 0, 0}},
        {"execveat", 0, SYS_execveat, {AT_FDCWD, AT("/bin/true"), 0, 0, 0}},
        {"ptrace", 0, SYS_ptrace, {PTRACE_TRACEME, 0, 0, 0}},
        {"read another process", 0, SYS_process_vm_readv, {1, AT(buffer), 1, AT(buffer), 1, 0}},
        {"write another process", 0, SYS_process_vm_writev, {1, AT(buffer), 1, AT(buffer), 1, 0}},
        {"kill", 0, SYS_kill, {-1, 0}},
        {"tkill", 0, SYS_tkill, {1, 0}},
        {"tgkill another process", 0, SYS_tgkill, {1, 1, 0}},
        {"pidfd_send_signal", 0, SYS_pidfd_send_signal, {-1, 0, 0, 0}},
        {"pidfd_send_signal SIGKILL", 0, SYS_pidfd_send_signal, {-1, SIGKILL, 0, 0}},
        {"a pidfd to send it to", 0, SYS_pidfd_open, {1, 0}},
        {"change a signal's handler", QEM, SYS_rt_sigaction, {SIGSYS, 0, 0, 8}},
        {"mmap memory", VMM | API | VSK | QEM, SYS_mmap,
                {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
        {"mmap code", QEM, SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
        {"mprotect code", TCG, SYS_mprotect, {AT(buffer), 4096, PROT_READ | PROT_EXEC}},
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
        {"another filter", QEM, SYS_seccomp, {0, 0, 0}},
        {"io_uring_setup", QEM, SYS_io_uring_setup, {8, AT(buffer)}},
        {"bpf", 0, SYS_bpf, {0, AT(buffer), 0}},
        {"perf_event_open", 0, SYS_perf_event_open, {AT(buffer), 0, -1, -1, 0}},
        {"userfaultfd", 0, SYS_userfaultfd, {0}},
        {"keyctl", 0, SYS_keyctl, {0, 0, 0}},
        {"init_module", 0, SYS_init_module, {AT(buffer), 0, AT("")}},
        {"kexec_load", 0, SYS_kexec_load, {0, 0, 0, 0}},
        {"shmget", 0, SYS_shmget, {1, 4096, 0}},
        {"setrlimit", QEM, SYS_prlimit64, {0, 7, 0, AT(buffer)}},
        {"ioctl KVM_RUN", CPU | KVM, SYS_ioctl, {-1, KVM_RUN, 0}},
        {"ioctl KVM_GET_REGS", VMM | CPU | KVM, SYS_ioctl, {-1, (int)KVM_GET_REGS, 0}},
        {"ioctl KVM_SET_USER_MEMORY_REGION", KVM, SYS_ioctl, {-1, KVM_SET_USER_MEMORY_REGION, 0}},
        {"ioctl KVM_CREATE_VM", KVM, SYS_ioctl, {-1, KVM_CREATE_VM, 0}},
        {"ioctl KVM_GET_MSRS", VMM | KVM, SYS_ioctl, {-1, (int)KVM_GET_MSRS, 0}},
        {"ioctl KVM_SET_MSRS", KVM, SYS_ioctl, {-1, KVM_SET_MSRS, 0}},
        {"ioctl KVM_SET_REGS", KVM, SYS_ioctl, {-1, KVM_SET_REGS, 0}},
        {"ioctl TIOCSTI: type for the user", 0, SYS_ioctl, {-1, TIOCSTI, 0}},
        {"ioctl TCSETS", VMM, SYS_ioctl, {-1, TCSETS, 0}},
        {"ioctl TIOCSCTTY", 0, SYS_ioctl, {-1, TIOCSCTTY, 0}},
        {"write", ALL, SYS_write, {-1, AT(buffer), 1}},
        {"preadv", BLK | QEM, SYS_preadv, {-1, AT(buffer), 0, 0}},
        {"read", VMM | BLK | VSK | QEM, SYS_read, {-1, AT(buffer), 1}},
        {"madvise: give memory back", ALL, SYS_madvise, {AT(buffer), 0, MADV_DONTNEED}},
        {"madvise MADV_REMOVE", 0, SYS_madvise, {AT(buffer), 0, MADV_REMOVE}},
        {"madvise MADV_HWPOISON", 0, SYS_madvise, {AT(buffer), 0, 100}},
};
