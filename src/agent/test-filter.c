/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filters of commands in three ways: the programs say of every call what
 * the tables say; a list of what an attacker would try, and of what programs
 * need, says what the tables have to say; and the kernel takes the programs.
 */
#include "agent/filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/macro.h"
#include "base/test.h"

#define X32_BIT 0x40000000

static const enum seccomp_level levels[] = {SECCOMP_BASIC, SECCOMP_MINIMAL}; /* in the order of filter_profiles */

/* A filter's answer, by a machine for as many of BPF's instructions as filters have. */
static uint32_t evaluate(const struct sock_fprog *program, const struct seccomp_data *data)
{
    uint32_t a = 0;

    for (size_t at = 0; at < program->len; at++) {
        const struct sock_filter *in = &program->filter[at];
        bool yes;

        switch (in->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            assert_true(in->k + sizeof(a) <= sizeof(*data));
            memcpy(&a, (const char *)data + in->k, sizeof(a));
            continue;
        case BPF_ALU | BPF_AND | BPF_K:
            a &= in->k;
            continue;
        case BPF_RET | BPF_K:
            return in->k;
        case BPF_JMP | BPF_JA:
            at += in->k;
            continue;
        case BPF_JMP | BPF_JEQ | BPF_K:
            yes = a == in->k;
            break;
        case BPF_JMP | BPF_JGT | BPF_K:
            yes = a > in->k;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            yes = a >= in->k;
            break;
        default:
            fail_msg("instruction %zu: %#x", at, in->code);
            return 0;
        }
        at += yes ? in->jt : in->jf;
    }
    fail_msg("the program has no end");
    return 0;
}

/* What the table says, without any compiler. */
static uint32_t look_up(const struct seccomp_profile *profile, const struct seccomp_data *data)
{
    if (data->nr > profile->last_call)
        return SECCOMP_RET_ERRNO | ENOSYS;
    for (size_t i = 0; i < profile->count; i++) {
        const struct seccomp_rule *rule = &profile->rules[i];

        if (rule->nr == data->nr && (rule->arg < 0 || ((uint32_t)data->args[rule->arg] & rule->mask) == rule->value))
            return rule->error ? SECCOMP_RET_ERRNO | (uint32_t)rule->error : SECCOMP_RET_ALLOW;
    }
    return profile->otherwise;
}

static void test_the_programs_are_the_tables(void **state)
{
    struct sock_fprog program;

    for (size_t i = 0; i < FILTER_PROFILES; i++) {
        assert_int_equal(filter_load(levels[i], &program), 0);
        for (int nr = 0; nr < 700; nr++) {
            for (int bit = -1; bit < 33; bit++) {
                uint64_t arg = bit < 0 ? 0 : bit < 32 ? UINT64_C(1) << bit : 0x7f00000000000000 | (uint64_t)(nr & 63);
                struct seccomp_data data = {
                        .nr = nr, .arch = AUDIT_ARCH_X86_64, .args = {arg, arg, arg, arg, arg, arg}};

                if (evaluate(&program, &data) != look_up(filter_profiles[i], &data))
                    fail_msg("%s: call %d with %#llx: %#x", filter_profiles[i]->name, nr, (unsigned long long)arg,
                            evaluate(&program, &data));
            }
        }
        free(program.filter);
    }
}

static void test_architectures(void **state)
{
    const struct seccomp_data i386 = {.nr = 20, .arch = AUDIT_ARCH_I386};
    const struct seccomp_data x32 = {.nr = X32_BIT + SYS_getpid, .arch = AUDIT_ARCH_X86_64};
    struct sock_fprog program;

    for (size_t i = 0; i < FILTER_PROFILES; i++) {
        assert_int_equal(filter_load(levels[i], &program), 0);
        assert_int_equal(evaluate(&program, &i386), SECCOMP_RET_KILL_PROCESS);
        assert_int_equal(evaluate(&program, &x32), SECCOMP_RET_KILL_PROCESS);
        free(program.filter);
    }
}

#define BASIC   1u
#define MINIMAL 2u
#define BOTH    3u

static const struct attempt {
    const char *name;
    unsigned allowed; /* at these levels */
    int nr, error;    /* what it fails with where it is not allowed, 0: EPERM */
    uint64_t args[3];
} attempts[] = {
        {"socket AF_VSOCK", 0, SYS_socket, EAFNOSUPPORT, {AF_VSOCK, SOCK_STREAM}},
        {"socket AF_VSOCK, dirty", 0, SYS_socket, EAFNOSUPPORT, {0x100000000 | AF_VSOCK, SOCK_STREAM}},
        {"socket AF_ALG", 0, SYS_socket, EAFNOSUPPORT, {AF_ALG, SOCK_SEQPACKET}},
        {"socket AF_XDP", 0, SYS_socket, EAFNOSUPPORT, {AF_XDP, SOCK_RAW}},
        {"socket AF_TIPC", 0, SYS_socket, EAFNOSUPPORT, {AF_TIPC, SOCK_STREAM}},
        {"socket AF_RDS", 0, SYS_socket, EAFNOSUPPORT, {AF_RDS, SOCK_SEQPACKET}},
        {"socket AF_UNIX", BOTH, SYS_socket, 0, {AF_UNIX, SOCK_STREAM}},
        {"socket AF_INET", BOTH, SYS_socket, 0, {AF_INET, SOCK_STREAM}},
        {"socket AF_INET6", BASIC, SYS_socket, 0, {AF_INET6, SOCK_STREAM}},
        {"socket AF_NETLINK", BASIC, SYS_socket, 0, {AF_NETLINK, SOCK_RAW}},
        {"fork", BOTH, SYS_clone, 0, {SIGCHLD}},
        {"posix_spawn", BOTH, SYS_clone, 0, {CLONE_VM | CLONE_VFORK | SIGCHLD}},
        {"a thread", BOTH, SYS_clone, 0,
                {CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                        CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID}},
        {"clone NEWUSER", 0, SYS_clone, 0, {CLONE_NEWUSER | SIGCHLD}},
        {"clone NEWNS", 0, SYS_clone, 0, {CLONE_NEWNS | SIGCHLD}},
        {"clone NEWNET", 0, SYS_clone, 0, {CLONE_NEWNET | SIGCHLD}},
        {"clone NEWPID", 0, SYS_clone, 0, {CLONE_NEWPID | SIGCHLD}},
        {"clone NEWIPC", 0, SYS_clone, 0, {CLONE_NEWIPC | SIGCHLD}},
        {"clone NEWUTS", 0, SYS_clone, 0, {CLONE_NEWUTS | SIGCHLD}},
        {"clone NEWCGROUP", 0, SYS_clone, 0, {CLONE_NEWCGROUP | SIGCHLD}},
        {"clone3", 0, SYS_clone3, ENOSYS, {0}},
        {"unshare", 0, SYS_unshare, 0, {CLONE_NEWUSER}},
        {"setns", 0, SYS_setns, 0, {0}},
        {"mount", 0, SYS_mount, 0, {0}},
        {"umount", 0, SYS_umount2, 0, {0}},
        {"pivot_root", 0, SYS_pivot_root, 0, {0}},
        {"open_by_handle_at", 0, SYS_open_by_handle_at, 0, {0}},
        {"init_module", 0, SYS_init_module, 0, {0}},
        {"finit_module", 0, SYS_finit_module, 0, {0}},
        {"kexec_load", 0, SYS_kexec_load, 0, {0}},
        {"kexec_file_load", 0, SYS_kexec_file_load, 0, {0}},
        {"bpf", 0, SYS_bpf, 0, {0}},
        {"perf_event_open", 0, SYS_perf_event_open, 0, {0}},
        {"userfaultfd", 0, SYS_userfaultfd, 0, {0}},
        {"io_uring_setup", 0, SYS_io_uring_setup, ENOSYS, {0}},
        {"pidfd_getfd", 0, SYS_pidfd_getfd, 0, {0}},
        {"iopl", 0, SYS_iopl, 0, {3}},
        {"ioperm", 0, SYS_ioperm, 0, {0x70, 1, 1}},
        {"settimeofday", 0, SYS_settimeofday, 0, {0}},
        {"clock_settime", 0, SYS_clock_settime, 0, {0}},
        {"swapon", 0, SYS_swapon, 0, {0}},
        {"reboot", 0, SYS_reboot, 0, {0}},
        {"acct", 0, SYS_acct, 0, {0}},
        {"quotactl", 0, SYS_quotactl, 0, {0}},
        {"a call of tomorrow", 0, 463, ENOSYS, {0}},
        {"ptrace", BASIC, SYS_ptrace, 0, {0}},
        {"process_vm_readv", BASIC, SYS_process_vm_readv, 0, {0}},
        {"setresuid", BASIC, SYS_setresuid, 0, {0}},
        {"chroot", BASIC, SYS_chroot, 0, {0}},
        {"shmget", BASIC, SYS_shmget, 0, {0}},
        {"personality", BASIC, SYS_personality, 0, {0x0040000}},
        {"sched_setscheduler", BASIC, SYS_sched_setscheduler, 0, {0}},
        {"mkfifo", BOTH, SYS_mknodat, 0, {0, 0, S_IFIFO | 0600}},
        {"a device", BASIC, SYS_mknodat, 0, {0, 0, S_IFBLK | 0600}},
        {"read", BOTH, SYS_read, 0, {0}},
        {"execve", BOTH, SYS_execve, 0, {0}},
        {"faccessat: the agent's child, before its program", BOTH, SYS_faccessat, 0, {0}},
        {"exit_group", BOTH, SYS_exit_group, 0, {0}},
        {"statx", BOTH, SYS_statx, 0, {0}},
        {"rseq", BOTH, SYS_rseq, 0, {0}},
        {"another filter", BOTH, SYS_seccomp, 0, {0}},
};

/* `nr` is one of the answers, and has the error wherever it is not allowed. */
static void test_attempts(void **state)
{
    struct sock_fprog program;

    for (size_t i = 0; i < FILTER_PROFILES; i++) {
        assert_int_equal(filter_load(levels[i], &program), 0);
        for (size_t j = 0; j < ARRAY_SIZE(attempts); j++) {
            const struct attempt *a = &attempts[j];
            struct seccomp_data data = {
                    .nr = a->nr, .arch = AUDIT_ARCH_X86_64, .args = {a->args[0], a->args[1], a->args[2]}};
            uint32_t answer = evaluate(&program, &data);
            bool right = a->allowed & (1u << i) ? answer == SECCOMP_RET_ALLOW
                                                : (answer & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO;

            /* minimal's list has one error for all that is not in it. */
            if (right && !(a->allowed & (1u << i)) && levels[i] == SECCOMP_BASIC)
                right = (answer & SECCOMP_RET_DATA) == (uint32_t)(a->error ? a->error : EPERM);
            if (!right)
                fail_msg("%s, %s: answer %#x", filter_profiles[i]->name, a->name, answer);
        }
        free(program.filter);
    }
}

static void test_permissive(void **state)
{
    struct sock_fprog program;

    assert_int_equal(filter_load(SECCOMP_PERMISSIVE, &program), 0);
    for (size_t j = 0; j < ARRAY_SIZE(attempts); j++) {
        struct seccomp_data data = {.nr = attempts[j].nr,
                .arch = AUDIT_ARCH_X86_64,
                .args = {attempts[j].args[0], attempts[j].args[1], attempts[j].args[2]}};

        assert_int_equal(evaluate(&program, &data), attempts[j].allowed & BASIC ? SECCOMP_RET_ALLOW : SECCOMP_RET_LOG);
    }
    for (size_t i = 0; i < program.len; i++) {
        if (program.filter[i].code == (BPF_RET | BPF_K))
            assert_true(program.filter[i].k == SECCOMP_RET_ALLOW || program.filter[i].k == SECCOMP_RET_LOG);
    }
    free(program.filter);
}

/* In a child that has the filter: the errno of AF_VSOCK's socket, and of one that is allowed. */
static void test_the_kernel_takes_them(void **state)
{
    for (size_t i = 0; i < FILTER_PROFILES; i++) {
        struct sock_fprog program;
        int status = 0;
        pid_t pid;

        assert_int_equal(filter_load(levels[i], &program), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            bool good = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;

            good = good && syscall(SYS_kexec_load, 0, 0, 0, 0) < 0 && errno == EPERM;
            good = good && syscall(SYS_io_uring_setup, 0, 0) < 0 && errno == ENOSYS;
            good = good && syscall(1000) < 0 && errno == ENOSYS;
            _exit(good && socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        free(program.filter);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_the_programs_are_the_tables),
            cmocka_unit_test(test_architectures),
            cmocka_unit_test(test_attempts),
            cmocka_unit_test(test_permissive),
            cmocka_unit_test(test_the_kernel_takes_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
