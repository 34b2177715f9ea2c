/* SPDX-License-Identifier: Apache-2.0 */
/* Found with strace of QEMU 7.2: both kernels, TCG and KVM, 1 to 4 vCPUs, commands, pause, copies, overlay, every end.
 */
#include "orchestrator/backends/qemu-seccomp.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "base/macro.h"

#define IOCTL_TYPE 0xff00u /* asm-generic/ioctl.h */
#define KVM_TYPE   ((uint32_t)KVMIO << 8)

/* O_TMPFILE without O_DIRECTORY, which is part of it. */
#define MAKES_FILE (O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY))

/* While the guest runs; the most frequent first. There is no socket(2): QEMU inherits all of its sockets. */
#define RUN_RULES                                                                                                      \
    SECCOMP_ALLOW(futex, "locks between the main loop, vCPUs and workers"), SECCOMP_ALLOW(ppoll, "the main loop"),     \
            SECCOMP_ALLOW(epoll_wait, "the same, with many descriptors"), SECCOMP_ALLOW(epoll_ctl, "the same"),        \
            SECCOMP_ALLOW(write, "eventfds: the main loop is woken; console, log"),                                    \
            SECCOMP_ALLOW(read, "eventfds, signalfd; kernel and initramfs; entropy"),                                  \
            SECCOMP_ALLOW(preadv, "block: reads"), SECCOMP_ALLOW(pread64, "block: probes; the dynamic linker"),        \
            SECCOMP_ALLOW(pwritev, "block: writes of an overlay"), SECCOMP_ALLOW(pwrite64, "the same"),                \
            SECCOMP_ALLOW(fdatasync, "block: flushes of an overlay"), SECCOMP_ALLOW(writev, "QMP"),                    \
            SECCOMP_ALLOW(readv, "the state of a snapshot"), SECCOMP_ALLOW(recvmsg, "QMP, vhost-user"),                \
            SECCOMP_ALLOW(sendmsg, "QMP, vhost-user, with the guest's memory and eventfds as descriptors"),            \
            SECCOMP_ALLOW(accept4, "QMP: whoever pauses or ends the VM"), SECCOMP_ALLOW(shutdown, "QMP"),              \
            SECCOMP_ALLOW(poll, "QMP, vhost-user: waits for an answer"), SECCOMP_ALLOW(clock_nanosleep, "RCU"),        \
            SECCOMP_ALLOW(clock_gettime, "timers; no vDSO without a stable TSC"),                                      \
            SECCOMP_ALLOW(gettimeofday, "the same"), SECCOMP_ALLOW(eventfd2, "interrupts and kicks of devices"),       \
            SECCOMP_ALLOW(close, "files; connections"), SECCOMP_ALLOW(lseek, "block: size"),                           \
            SECCOMP_ALLOW(newfstatat, "files"), SECCOMP_ALLOW(fstat, "the same"),                                      \
            SECCOMP_ALLOW_IF(fcntl, 1, SECCOMP_ANY_BIT, F_GETFL, "non-blocking sockets"),                              \
            SECCOMP_ALLOW_IF(fcntl, 1, SECCOMP_ANY_BIT, F_SETFL, "the same"),                                          \
            SECCOMP_ALLOW_IF(fcntl, 1, SECCOMP_ANY_BIT, F_GETFD, "descriptors that don't survive an execve"),          \
            SECCOMP_ALLOW_IF(fcntl, 1, SECCOMP_ANY_BIT, F_SETFD, "the same"),                                          \
            SECCOMP_ALLOW_IF(fcntl, 1, SECCOMP_ANY_BIT, F_DUPFD_CLOEXEC, "copies of inherited descriptors"),           \
            SECCOMP_ALLOW(rt_sigprocmask, "around threads and signals"), SECCOMP_ALLOW(rt_sigreturn, "signals"),       \
            SECCOMP_ALLOW(restart_syscall, "a call that a signal, or a stop, interrupted"),                            \
            SECCOMP_ALLOW_IF(tgkill, 0, SECCOMP_ANY_BIT, SECCOMP_OWN_PID, "vCPUs out of KVM_RUN; abort()"),            \
            SECCOMP_ALLOW(getpid, "the same"), SECCOMP_ALLOW(gettid, "the same"), SECCOMP_ALLOW(sched_yield, "locks"), \
            SECCOMP_ALLOW_IF(clone, 0, CLONE_THREAD, CLONE_THREAD, "workers of the block layer, vCPUs"),               \
            SECCOMP_REFUSE(clone3, ENOSYS, "its flags can't be seen; glibc then uses clone"),                          \
            SECCOMP_ALLOW(set_robust_list, "new threads"), SECCOMP_ALLOW(rseq, "new threads"),                         \
            SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTNEED, "stacks of threads that ended"),              \
            SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_FREE, "free"),                                          \
            SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_HUGEPAGE, "the guest's memory"),                        \
            SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_NOHUGEPAGE, "the guest's memory"),                      \
            SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTDUMP, "the guest's memory"),                        \
            SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTFORK, "the guest's memory"),                        \
            SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_MERGEABLE, "the guest's memory"),                       \
            SECCOMP_ALLOW(brk, "malloc"), SECCOMP_ALLOW(mremap, "realloc"), SECCOMP_ALLOW(munmap, "free"),             \
            SECCOMP_ALLOW_IF(mmap, 2, PROT_EXEC, 0, "malloc, stacks of threads, the guest's memory"),                  \
            SECCOMP_ALLOW_IF(mmap, 2, SECCOMP_ANY_BIT, PROT_READ | PROT_EXEC, "the dynamic linker"),                   \
            SECCOMP_ALLOW_IF(mprotect, 2, PROT_EXEC, 0, "malloc, stacks of threads, the dynamic linker"),              \
            SECCOMP_ALLOW_IF(openat, 2, MAKES_FILE, 0, "libraries, kernel, initramfs: what is there already"),         \
            SECCOMP_ALLOW(unlink, "the end: QMP's socket"), SECCOMP_ALLOW(exit, "threads"),                            \
            SECCOMP_ALLOW(exit_group, "the end")

/* Until then. */
#define START_RULES                                                                                                    \
    SECCOMP_ALLOW(execve, "QEMU itself; its own filter takes it away"),                                                \
            SECCOMP_ALLOW(arch_prctl, "thread-local storage"), SECCOMP_ALLOW(set_tid_address, "the first thread"),     \
            SECCOMP_ALLOW(prlimit64, "limits are asked for"), SECCOMP_ALLOW(getrandom, "hash tables, malloc"),         \
            SECCOMP_ALLOW(access, "the dynamic linker; its own data files"), SECCOMP_ALLOW(readlink, "the same"),      \
            SECCOMP_ALLOW(statfs, "libselinux; page size of the guest's memory"), SECCOMP_ALLOW(fstatfs, "the same"),  \
            SECCOMP_ALLOW(getdents64, "libnuma: nodes; libndctl: devices"), SECCOMP_ALLOW(fchdir, "the latter"),       \
            SECCOMP_ALLOW(sched_getaffinity, "libnuma: processors"), SECCOMP_ALLOW(get_mempolicy, "libnuma"),          \
            SECCOMP_ALLOW(set_mempolicy, "libnuma tries what there is"), SECCOMP_ALLOW(sysinfo, "size of memory"),     \
            SECCOMP_ALLOW(uname, "KVM's clock"), SECCOMP_ALLOW(getuid, "libraries"),                                   \
            SECCOMP_ALLOW(geteuid, "the same"), SECCOMP_ALLOW(getgid, "the same"), SECCOMP_ALLOW(getegid, "the same"), \
            SECCOMP_ALLOW(rt_sigaction, "handlers"), SECCOMP_ALLOW(sigaltstack, "the same"),                           \
            SECCOMP_ALLOW(epoll_create1, "the main loop"), SECCOMP_ALLOW(signalfd4, "signals in the main loop"),       \
            SECCOMP_ALLOW(memfd_create, "the guest's memory, and what kinds there are"),                               \
            SECCOMP_ALLOW(ftruncate, "the guest's memory"),                                                            \
            SECCOMP_ALLOW_IF(fcntl, 1, SECCOMP_ANY_BIT, F_ADD_SEALS, "the guest's memory can't shrink"),               \
            SECCOMP_ALLOW(listen, "QMP, on an inherited socket"), SECCOMP_ALLOW(getsockname, "inherited sockets"),     \
            SECCOMP_ALLOW(getpeername, "the same"), SECCOMP_ALLOW(getsockopt, "the same"),                             \
            SECCOMP_ALLOW(setsockopt, "QMP: SO_ZEROCOPY is tried"), SECCOMP_ALLOW(seccomp, "its own filter"),          \
            SECCOMP_ALLOW_IF(prctl, 0, SECCOMP_ANY_BIT, PR_SET_NO_NEW_PRIVS, "its own filter"),                        \
            SECCOMP_ALLOW_IF(prctl, 0, SECCOMP_ANY_BIT, PR_SET_TIMERSLACK, "precise timers"),                          \
            SECCOMP_ALLOW_IF(prctl, 0, SECCOMP_ANY_BIT, PR_MCE_KILL, "broken memory is the guest's to know"),          \
            SECCOMP_ALLOW_IF(prctl, 0, SECCOMP_ANY_BIT, PR_SET_NAME, "names of threads"),                              \
            SECCOMP_ALLOW_IF(ioctl, 1, SECCOMP_ANY_BIT, TCGETS, "whether an output is a terminal"),                    \
            SECCOMP_REFUSE(io_uring_setup, ENOSYS, "a wide surface that it does without, by ppoll and epoll")

/* The translator's code: one mapping that is made writable and executable, and its pages read-only while they hold code
 * that the guest might change. */
#define TCG_RULES                                                                                                      \
    SECCOMP_ALLOW_IF(mmap, 2, PROT_EXEC, PROT_EXEC, "TCG: translated code"),                                           \
            SECCOMP_ALLOW_IF(mprotect, 2, PROT_EXEC, PROT_EXEC, "TCG: translated code")

/* By kind, as the list of what KVM's three kinds of descriptors take is QEMU's business, and changes with it. */
#define KVM_RULES SECCOMP_ALLOW_IF(ioctl, 1, IOCTL_TYPE, KVM_TYPE, "KVM, on the descriptors of /dev/kvm")

static const struct seccomp_rule tcg_rules[] = {RUN_RULES, START_RULES, TCG_RULES};
static const struct seccomp_rule kvm_rules[] = {KVM_RULES, RUN_RULES, START_RULES};
static const struct seccomp_rule any_rules[] = {KVM_RULES, RUN_RULES, START_RULES, TCG_RULES};

static const struct seccomp_profile tcg = {"qemu-tcg", tcg_rules, ARRAY_SIZE(tcg_rules), .otherwise = SECCOMP_RET_TRAP};
static const struct seccomp_profile kvm = {"qemu-kvm", kvm_rules, ARRAY_SIZE(kvm_rules), .otherwise = SECCOMP_RET_TRAP};
static const struct seccomp_profile any = {"qemu", any_rules, ARRAY_SIZE(any_rules), .otherwise = SECCOMP_RET_TRAP};
const struct seccomp_profile *const qemu_profiles[QEMU_PROFILES] = {&tcg, &kvm, &any};
