/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of the test host: makes this machine's root its own, runs one command
 * there and ends the machine.
 *
 * QEMU gives it two 9p shares. "root" is this machine's file tree, read-only;
 * a tmpfs over it takes what is written. "job" is a directory of the run
 * program, with lists of NUL-terminated strings:
 *
 *   argv, env, cwd   the command
 *   empty            directories that are empty for it
 *   keep             paths below those that it needs all the same
 *   out, err         its output, appended
 *   status           its exit status (128 + signal), written here at the end
 *   alive            touched every few seconds, if it is there
 */
#include <err.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROOT_OPTIONS "trans=virtio,version=9p2000.L,msize=512000,cache=loose"
#define JOB_OPTIONS  "trans=virtio,version=9p2000.L,msize=65536,cache=none"
#define EXIT_PORT    0xf4 /* isa-debug-exit */
#define MAX_STRINGS  4096
#define ALIVE_S      5u

static void attach(const char *source, const char *target, const char *type, unsigned long flags, const char *options)
{
    (void)mkdir(target, 0755); /* in the tree it is there already */
    if (mount(source, target, type, flags, options) < 0)
        err(1, "mount %s on %s", type, target);
}

/* The strings of a job's list; NULL at the end. */
static char **read_list(const char *path)
{
    static char *none[1];
    char **list = calloc(MAX_STRINGS + 1, sizeof(*list)), *text;
    size_t count = 0;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        err(1, "%s", path);
    text = calloc(1, (size_t)st.st_size + 1);
    if (!list || !text || read(fd, text, (size_t)st.st_size) != st.st_size)
        err(1, "%s", path);
    for (char *p = text; p < text + st.st_size; p += strlen(p) + 1) {
        if (count == MAX_STRINGS)
            errx(1, "%s: more than %d strings", path, MAX_STRINGS);
        list[count++] = p;
    }
    close(fd);
    return count ? list : none;
}

static void make_path(const char *path)
{
    char part[4096];

    for (const char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
        (void)snprintf(part, sizeof(part), "%.*s", (int)(p - path), path);
        (void)mkdir(part, 0755);
    }
    (void)mkdir(path, 0755);
}

/* This machine's tree with a tmpfs above it, as /. */
static void enter_root(void)
{
    attach("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    attach("root", "/lower", "9p", MS_RDONLY, ROOT_OPTIONS);
    attach("job", "/job", "9p", 0, JOB_OPTIONS);
    attach("tmpfs", "/upper", "tmpfs", 0, "mode=755,size=75%");
    (void)mkdir("/upper/files", 0755);
    (void)mkdir("/upper/work", 0755);
    attach("overlay", "/new", "overlay", 0,
            "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work,index=off,metacopy=off,redirect_dir=off");
    (void)mkdir("/new/.bench-host", 0755);
    if (mount("/job", "/new/.bench-host", NULL, MS_MOVE, NULL) < 0 ||
            mount("/dev", "/new/dev", NULL, MS_MOVE, NULL) < 0 || chdir("/new") < 0 ||
            mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
        err(1, "the new root");
}

static void mount_rest(void)
{
    attach("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    attach("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    attach("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    attach("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
    attach("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666");
    attach("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    (void)symlink("/proc/self/fd", "/dev/fd"); /* devtmpfs has the devices alone */
    (void)symlink("/proc/self/fd/0", "/dev/stdin");
    (void)symlink("/proc/self/fd/1", "/dev/stdout");
    (void)symlink("/proc/self/fd/2", "/dev/stderr");
    (void)chmod("/dev/kvm", 0666);
}

/* Empty directories; what the command needs of the machine's own in them stays visible. */
static void empty_directories(void)
{
    char **keep = read_list("/.bench-host/keep"), **empty = read_list("/.bench-host/empty");
    int fds[64];
    size_t count = 0;

    for (; keep[count] && count < 64; count++)
        fds[count] = open(keep[count], O_PATH | O_CLOEXEC);
    for (size_t i = 0; empty[i]; i++) {
        make_path(empty[i]);
        attach("tmpfs", empty[i], "tmpfs", MS_NOSUID | MS_NODEV, strcmp(empty[i], "/tmp") ? "mode=755" : "mode=1777");
    }
    for (size_t i = 0; i < count; i++) {
        char from[64];

        if (fds[i] < 0)
            continue;
        (void)snprintf(from, sizeof(from), "/proc/self/fd/%d", fds[i]);
        make_path(keep[i]);
        if (mount(from, keep[i], NULL, MS_BIND, NULL) < 0)
            err(1, "bind %s", keep[i]);
        close(fds[i]);
    }
}

static void bring_up_loopback(void)
{
    struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
        warn("lo");
    close(fd);
}

static void run_command(void)
{
    char **argv = read_list("/.bench-host/argv"), **env = read_list("/.bench-host/env");
    char **cwd = read_list("/.bench-host/cwd");
    const struct rlimit files = {4096, 65536};
    int in = open("/dev/null", O_RDONLY);
    int out = open("/.bench-host/out", O_WRONLY | O_APPEND);
    int error = open("/.bench-host/err", O_WRONLY | O_APPEND);

    if (in < 0 || out < 0 || error < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(error, 2) < 0)
        err(1, "standard streams");
    for (int fd = 3; fd < 32; fd++)
        close(fd);
    (void)setrlimit(RLIMIT_NOFILE, &files);
    (void)setsid();
    umask(022);
    if (!cwd[0] || chdir(cwd[0]) < 0)
        err(127, "%s", cwd[0] ? cwd[0] : "no directory");
    environ = env;
    if (!argv[0])
        errx(127, "no command");
    execvp(argv[0], argv);
    err(127, "%s", argv[0]);
}

/* While that goes on, what takes long is the command, and not this machine that stands still. */
static void stay_alive(void)
{
    while (utimensat(AT_FDCWD, "/.bench-host/alive", NULL, 0) == 0)
        (void)sleep(ALIVE_S);
    _exit(0);
}

/* Reaps everything that became ours until the command itself ends. */
static int wait_for(pid_t command)
{
    for (;;) {
        int status;
        pid_t pid = wait(&status);

        if (pid == command && WIFEXITED(status))
            return WEXITSTATUS(status);
        if (pid == command && WIFSIGNALED(status))
            return 128 + WTERMSIG(status);
        if (pid < 0)
            return 1;
    }
}

int main(void)
{
    char text[16];
    pid_t pid;
    int fd, n, status;

    enter_root();
    mount_rest();
    empty_directories();
    bring_up_loopback();
    (void)sethostname("bench-host", 10);
    pid = fork();
    if (pid < 0)
        err(1, "fork");
    if (pid == 0)
        run_command();
    if (fork() == 0)
        stay_alive();
    status = wait_for(pid);
    n = snprintf(text, sizeof(text), "%d\n", status);
    fd = open("/.bench-host/status", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, (size_t)n) != n || close(fd) < 0)
        err(1, "status");
    if (ioperm(EXIT_PORT, 4, 1) == 0)
        outb(0, EXIT_PORT);
    reboot(RB_AUTOBOOT);
    return 1;
}
