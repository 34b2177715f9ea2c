/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process finds in the jail, looked at from inside: each case runs in a real one, as root with an id of its own
 * and, when we are root, as an ordinary user besides.
 */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "jail/cgroup.h"
#include "jail/jail.h"

#define OWN_ID       0x70001234u
#define NOBODY       65534u
#define FAILED_ENTER 99
#define PROCESSES    4u
/* Inside there is no cmocka: what is wrong is said on standard error and ends the process. */
#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            dprintf(2, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, strerror(errno));                            \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)
#define EXPECT_FAILS(call, error) EXPECT((errno = 0, (call) < 0) && errno == (error))

struct place {
    char dir[64], readable[96], writable[96], secret[96];
};

/* In a child, as the caller is not to change. */
static bool can(bool with_root)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0)
        _exit(unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
                                (!with_root || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
                        ? 0
                        : 1);
    return waitpid(pid, &status, 0) == pid && status == 0;
}

static bool can_have_namespaces(void)
{
    return can(false);
}

static bool can_jail(void)
{
    return can(true); /* not in a chroot */
}

static void make_place(struct place *p)
{
    static const char text[] = "text";

    (void)snprintf(p->dir, sizeof(p->dir), "/tmp/test-jail-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    assert_int_equal(chmod(p->dir, 0755), 0);
    (void)snprintf(p->readable, sizeof(p->readable), "%s/readable", p->dir);
    (void)snprintf(p->writable, sizeof(p->writable), "%s/writable", p->dir);
    (void)snprintf(p->secret, sizeof(p->secret), "%s/secret", p->dir);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, p->readable, text, 4, 0666), 0);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, p->secret, text, 4, 0644), 0);
    assert_int_equal(chmod(p->readable, 0666), 0);
    assert_int_equal(mkdir(p->writable, 0777), 0);
    assert_int_equal(chmod(p->writable, 0777), 0);
}

static void remove_place(const struct place *p)
{
    char path[128];

    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "%s/new%u", p->writable, i == 0 ? OWN_ID : geteuid() ?: NOBODY);
        (void)unlink(path);
    }
    (void)unlink(p->readable);
    (void)unlink(p->secret);
    assert_int_equal(rmdir(p->writable), 0);
    assert_int_equal(rmdir(p->dir), 0);
}

/* Runs `inside` in the jail, started by `uid`; what it exits with. */
static int run_in(struct jail *jail, uid_t uid, void (*inside)(const struct place *), const struct place *place,
        struct jail_report *ret)
{
    int status = 0, fds[2], pidfd = -1, failed;
    struct jail_report report = {0};
    pid_t starter, pid;

    assert_int_equal(pipe(fds), 0);
    starter = fork(); /* so that it may give up root */
    assert_true(starter >= 0);
    if (starter == 0) {
        if (uid != geteuid() && (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0))
            _exit(FAILED_ENTER);
        (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
        pid = jail_clone(jail, &report, &pidfd);
        if (pid == 0) {
            int r = jail_enter(jail, &report, &failed);

            (void)!write(fds[1], &report, sizeof(report));
            if (r < 0)
                _exit(FAILED_ENTER);
            inside(place);
            _exit(0);
        }
        if (pid < 0) {
            (void)!write(fds[1], &report, sizeof(report));
            _exit(FAILED_ENTER);
        }
        _exit(waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 98);
    }
    (void)close(fds[1]);
    if (read(fds[0], &report, sizeof(report)) == (ssize_t)sizeof(report) && ret)
        *ret = report;
    (void)close(fds[0]);
    assert_int_equal(waitpid(starter, &status, 0), starter);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 97;
}

static void in_both(void (*inside)(const struct place *))
{
    struct place place;
    const uid_t starters[] = {geteuid(), NOBODY};

    if (!can_jail())
        skip();
    make_place(&place);
    for (size_t i = 0; i < (geteuid() == 0 ? 2u : 1u); i++) {
        struct jail jail = {.skip = {[JAIL_CGROUP] = ENOTSUP}, .processes = PROCESSES};
        struct jail_report report = {0};

        if (starters[i] == 0)
            jail.uid = jail.gid = OWN_ID;
        assert_int_equal(jail_add_mount(&jail, place.readable, JAIL_READ, false), 0);
        assert_int_equal(jail_add_mount(&jail, place.writable, JAIL_WRITE, false), 0);
        assert_int_equal(jail_add_mount(&jail, "/dev/null", JAIL_DEVICE, false), 0);
        assert_int_equal(jail_add_mount(&jail, "/nonexistent", JAIL_READ, true), 0);
        assert_int_equal(run_in(&jail, starters[i], inside, &place, &report), 0);
        for (int stage = JAIL_NAMESPACES; stage < JAIL_STAGES; stage++)
            assert_int_equal(report.error[stage], 0);
    }
    remove_place(&place);
}

/* ---- the cases, inside ---- */

static void files(const struct place *place)
{
    char path[128];

    EXPECT(open(place->readable, O_RDONLY) >= 0);
    EXPECT_FAILS(open(place->readable, O_WRONLY), EROFS);
    (void)snprintf(path, sizeof(path), "%s/new%u", place->writable, (unsigned)getuid());
    EXPECT(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0777) >= 0);
    EXPECT_FAILS(execl(path, path, NULL), EACCES); /* noexec */
    EXPECT_FAILS(mknod(path, S_IFCHR | 0666, 0), EEXIST);
    EXPECT(open("/dev/null", O_RDWR) >= 0);
    EXPECT_FAILS(open(place->secret, O_RDONLY), ENOENT);
    EXPECT_FAILS(open("/etc/passwd", O_RDONLY), ENOENT);
    EXPECT_FAILS(open("/proc/self/mem", O_RDWR), ENOENT);
    EXPECT_FAILS(open("/sys", O_RDONLY), ENOENT);
    EXPECT_FAILS(open("/../../../etc/passwd", O_RDONLY), ENOENT);
    EXPECT_FAILS(open("/file", O_WRONLY | O_CREAT, 0600), EROFS);
    EXPECT_FAILS(mkdir("/directory", 0700), EROFS);
    EXPECT_FAILS(execl("/bin/sh", "sh", "-c", "true", NULL), ENOENT);
}

static void test_files(void **state)
{
    in_both(files);
}

static void privileges(const struct place *place)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];

    EXPECT(syscall(SYS_capget, &header, caps) == 0);
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        EXPECT(caps[i].effective == 0 && caps[i].permitted == 0 && caps[i].inheritable == 0);
    for (unsigned long cap = 0; cap <= CAP_LAST_CAP; cap++)
        EXPECT(prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 0);
    EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    EXPECT(getuid() == geteuid() && getuid() != 0);
    EXPECT(getuid() == OWN_ID || getuid() == NOBODY);
    EXPECT_FAILS(setuid(0), EINVAL); /* not mapped */
    EXPECT_FAILS(setuid(1), EINVAL);
    EXPECT_FAILS(setgid(0), EINVAL);
    EXPECT_FAILS(mount("none", "/", "tmpfs", 0, NULL), EPERM);
    EXPECT_FAILS(umount2("/dev/null", MNT_DETACH), EPERM);
    EXPECT_FAILS(chroot("/"), EPERM);
    EXPECT_FAILS(unshare(CLONE_NEWNS), EPERM);
    EXPECT_FAILS(unshare(CLONE_NEWUSER), ENOSPC);
    EXPECT_FAILS(sethostname("x", 1), EPERM);
    EXPECT_FAILS((int)syscall(SYS_swapoff, "/dev/null"), EPERM);
    if (getuid() == OWN_ID)
        EXPECT(getgroups(0, NULL) == 0);
}

static void test_privileges(void **state)
{
    in_both(privileges);
}

static void neighbours(const struct place *place)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0ironclaw-test-jail"};
    struct utsname name;
    struct ifreq request = {.ifr_name = "lo"};
    int fd;

    EXPECT(getpid() == 1);
    EXPECT_FAILS(kill(2, 0), ESRCH);
    EXPECT_FAILS((int)ptrace(PTRACE_ATTACH, 2, 0, 0), ESRCH);
    EXPECT_FAILS(kill(-1, 0), ESRCH); /* nobody but us */
    EXPECT(uname(&name) == 0 && strcmp(name.nodename, "ironclaw") == 0);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0);
    EXPECT(ioctl(fd, 0x8913 /* SIOCGIFFLAGS */, &request) == 0 && !(request.ifr_flags & IFF_UP));
    EXPECT(if_nametoindex("eth0") == 0);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_FAILS(connect(fd, (struct sockaddr *)&address, sizeof(sa_family_t) + 19), ECONNREFUSED);
}

/* The name in the abstract space is there, outside. */
static void test_neighbours(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0ironclaw-test-jail"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t) + 19), 0);
    assert_int_equal(listen(fd, 1), 0);
    in_both(neighbours);
    (void)close(fd);
}

static bool may_dump; /* was looked at before the jail */

static void limits(const struct place *place)
{
    struct rlimit limit;

    /* 1: no dump to a program either; 0 only where the test itself was started with that. */
    EXPECT(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max == (may_dump ? 1 : 0) &&
            limit.rlim_cur == limit.rlim_max);
    EXPECT(getrlimit(RLIMIT_MSGQUEUE, &limit) == 0 && limit.rlim_max == 0);
    limit.rlim_cur = limit.rlim_max = 2;
    EXPECT_FAILS(setrlimit(RLIMIT_CORE, &limit), EPERM);
    for (unsigned i = 1; i < PROCESSES; i++) {
        pid_t pid = fork();

        EXPECT(pid >= 0);
        if (pid == 0)
            _exit(pause());
    }
    EXPECT_FAILS(fork(), EAGAIN); /* the others die with process 1 of their namespace */
}

static void test_limits(void **state)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_CORE, &limit), 0);
    may_dump = limit.rlim_max > 0;
    in_both(limits);
}

#define KEY "ironclaw-test-jail"

static void keys(const struct place *place)
{
    EXPECT_FAILS((int)syscall(SYS_request_key, "user", KEY, NULL, 0), ENOKEY);
}

/* The caller's session has it. */
static void test_keys(void **state)
{
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 ||
            syscall(SYS_add_key, "user", KEY, "secret", 6, KEY_SPEC_SESSION_KEYRING) < 0)
        skip();
    assert_true(syscall(SYS_request_key, "user", KEY, NULL, 0) > 0);
    in_both(keys);
}

/* ---- what can't be had ---- */

static void nothing(const struct place *place)
{
}

static void strict_refuses(void **state)
{
    struct jail jail = {.skip = {[JAIL_CGROUP] = ENOTSUP}, .strict = true};
    struct jail_report report = {0};

    assert_int_equal(run_in(&jail, geteuid(), nothing, NULL, &report), FAILED_ENTER);
    assert_int_equal(report.error[JAIL_CGROUP], ENOTSUP);
    jail = (struct jail){.skip = {[JAIL_CGROUP] = ENOTSUP}, .need_cgroup = true};
    assert_int_equal(run_in(&jail, geteuid(), nothing, NULL, &report), FAILED_ENTER);
    assert_int_equal(report.error[JAIL_CGROUP], ENOTSUP);
    jail = (struct jail){.skip = {[JAIL_LIMITS] = ENOTSUP}, .strict = true};
    assert_int_equal(run_in(&jail, geteuid(), nothing, NULL, &report), FAILED_ENTER);
}

/* Without a mount namespace nothing may be mounted or unmounted: the host would lose it. */
static void goes_on_without(void **state)
{
    struct jail jail = {.skip = {[JAIL_CGROUP] = ENOTSUP, [JAIL_NAMESPACES] = EPERM}};
    struct jail_report report = {0};

    assert_int_equal(run_in(&jail, geteuid(), nothing, NULL, &report), 0);
    assert_int_equal(report.error[JAIL_NAMESPACES], EPERM);
    assert_int_equal(report.error[JAIL_ROOT], EPERM);
    assert_int_equal(report.error[JAIL_CAPABILITIES], 0);
    assert_int_equal(report.error[JAIL_LIMITS], 0);
    assert_int_equal(access("/etc/passwd", F_OK), 0);
}

/* A path that is not there is a mistake of the caller's, strict or not. */
static void missing_path_fails(void **state)
{
    struct jail jail = {.skip = {[JAIL_CGROUP] = ENOTSUP}};
    struct jail_report report = {0};

    if (!can_jail())
        skip();
    assert_int_equal(jail_add_mount(&jail, "/nonexistent", JAIL_READ, false), 0);
    assert_int_equal(run_in(&jail, geteuid(), nothing, NULL, &report), FAILED_ENTER);
    assert_int_equal(report.error[JAIL_ROOT], ENOENT);
}

static void sees_the_file(const struct place *place)
{
    EXPECT(open(place->readable, O_RDONLY) >= 0);
    EXPECT_FAILS(open(place->readable, O_WRONLY), EROFS);
}

/* As a kernel below /usr/lib, which a dynamic program has anyway. */
static void mounts_below_mounts(void **state)
{
    struct jail jail = {.skip = {[JAIL_CGROUP] = ENOTSUP}};
    struct jail_report report = {0};
    struct place place;

    if (!can_jail())
        skip();
    make_place(&place);
    assert_int_equal(jail_add_mount(&jail, place.dir, JAIL_READ, false), 0);
    assert_int_equal(jail_add_mount(&jail, place.readable, JAIL_READ, false), 0);
    assert_int_equal(run_in(&jail, geteuid(), sees_the_file, &place, &report), 0);
    assert_int_equal(report.error[JAIL_ROOT], 0);
    remove_place(&place);
}

/* As Docker's own filter does where it gives no CAP_SYS_ADMIN. */
static void refuse_clone3(void)
{
    struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

    EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void does_without_clone3(void **state)
{
    bool spaces = can_have_namespaces();
    int status, dir_fd = open("/", O_RDONLY | O_DIRECTORY);
    pid_t starter = fork();

    assert_true(dir_fd >= 0);
    if (starter == 0) {
        struct jail jail = {.cgroup_fd = dir_fd};
        struct jail_report report;
        int pidfd = -1;
        siginfo_t info;
        pid_t pid;

        refuse_clone3();
        pid = jail_clone(&jail, &report, &pidfd);
        if (pid == 0)
            _exit(7);
        EXPECT(pid > 0 && pidfd >= 0);
        EXPECT(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) == 0 && info.si_status == 7);
        EXPECT(report.error[JAIL_CGROUP] == ENOSYS);
        EXPECT((report.error[JAIL_NAMESPACES] == 0) == spaces);
        _exit(0);
    }
    assert_int_equal(waitpid(starter, &status, 0), starter);
    assert_int_equal(status, 0);
    (void)close(dir_fd);
}

static void counts_mounts(void **state)
{
    struct jail jail = {0};

    for (unsigned i = 0; i < JAIL_MOUNTS_MAX; i++)
        assert_int_equal(jail_add_mount(&jail, "/x", JAIL_READ, false), 0);
    assert_int_equal(jail_add_mount(&jail, "/x", JAIL_READ, false), -E2BIG);
}

/* ---- groups ---- */

static bool nobody_known(const char *name, void *userdata)
{
    return false;
}

/* A process that is born into the group dies with it; what nobody knows goes. */
static void group_ends(void **state)
{
    const struct cgroup_limits wanted = {.memory_bytes = 64 << 20, .pids = 16, .cpu_percent = 100};
    struct jail jail = {.skip = {[JAIL_NAMESPACES] = ENOTSUP}};
    struct jail_report report = {0};
    _cleanup_(freep) char *path = NULL;
    char why[512];
    int pidfd, r = cgroup_make("unit.test-jail", &wanted, &path, &jail.cgroup_fd, why, sizeof(why));
    siginfo_t info;
    pid_t pid;

    if (r < 0) {
        print_message("no group to be had: %s\n", why);
        assert_true(why[0] != '\0');
        skip();
    }
    pid = jail_clone(&jail, &report, &pidfd);
    if (pid == 0) {
        (void)pause();
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(report.error[JAIL_CGROUP], 0);
    assert_false(cgroup_was_oom(path));
    cgroup_end_orphans(".test-jail", nobody_known, NULL, UINT64_MAX);
    assert_int_equal(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED), 0);
    assert_int_equal(info.si_status, SIGKILL);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(cgroup_end(path, 0), 0);
    (void)close(pidfd);
    (void)close(jail.cgroup_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_files),
            cmocka_unit_test(test_privileges),
            cmocka_unit_test(test_neighbours),
            cmocka_unit_test(test_limits),
            cmocka_unit_test(test_keys),
            cmocka_unit_test(strict_refuses),
            cmocka_unit_test(goes_on_without),
            cmocka_unit_test(missing_path_fails),
            cmocka_unit_test(mounts_below_mounts),
            cmocka_unit_test(does_without_clone3),
            cmocka_unit_test(counts_mounts),
            cmocka_unit_test(group_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
