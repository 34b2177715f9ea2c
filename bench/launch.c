/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts a monitor and says what it took until its guest gave a sign.
 *
 *   launch MARKER RAM_MIB SECONDS PROGRAM [ARGUMENT...]
 *
 * MARKER is a text on the program's standard output; or, if it begins with '/', a unix socket to listen on, where
 * somebody must connect; or "+PATH": PATH must be a unix socket that accepts. One line:
 *
 *   microseconds from before exec to the sign
 *   microseconds of CPU time of the process, all its threads, guest included (its CPU-time clock)
 *   KiB resident at the sign in all mappings smaller than the guest's RAM (smaps; the RAM is one mapping of RAM_MIB)
 *   VM exits (KVM's debugfs, of the VM that the process made), -1 if unknown
 *
 * The program is killed then. Status 1 if the sign does not come within SECONDS; its output goes to stderr.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_us(clockid_t clock)
{
    struct timespec t;

    if (clock_gettime(clock, &t) < 0)
        err(1, "clock");
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static long resident_besides(pid_t pid, long ram_kib)
{
    char path[64], line[512];
    long total = 0, size = 0, value;
    FILE *smaps;

    (void)snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
    smaps = fopen(path, "re");
    if (!smaps)
        return -1;
    while (fgets(line, sizeof(line), smaps)) {
        if (sscanf(line, "Size: %ld kB", &value) == 1)
            size = value;
        if (sscanf(line, "Rss: %ld kB", &value) == 1 && size < ram_kib)
            total += value;
    }
    (void)fclose(smaps);
    return total;
}

/* KVM names a VM's directory by the thread that made it. */
static bool made_by(pid_t pid, const char *name)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d", pid, atoi(name));
    return atoi(name) > 0 && access(path, F_OK) == 0;
}

static long exits_of(pid_t pid)
{
    DIR *dir = opendir("/sys/kernel/debug/kvm");
    struct dirent *entry;
    long exits = -1;

    while (dir && (entry = readdir(dir))) {
        char path[512];
        FILE *file;

        if (!made_by(pid, entry->d_name))
            continue;
        (void)snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%s/exits", entry->d_name);
        file = fopen(path, "re");
        if (file && fscanf(file, "%ld", &exits) != 1)
            exits = -1;
        if (file)
            (void)fclose(file);
    }
    if (dir)
        (void)closedir(dir);
    return exits;
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        errx(1, "%s: too long for a socket", path);
    strcpy(address.sun_path, path);
    return address;
}

/* Copies output to `seen` until the marker is in it. */
static bool read_until(int fd, const char *marker, int64_t end_us, char *seen, size_t size)
{
    size_t used = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = end_us - now_us(CLOCK_MONOTONIC);
        ssize_t n;

        if (left <= 0 || poll(&p, 1, (int)(left / 1000 + 1)) <= 0)
            return false;
        n = read(fd, seen + used, size - 1 - used);
        if (n <= 0)
            return false;
        used += (size_t)n;
        seen[used] = '\0';
        if (memmem(seen, used, marker, strlen(marker)))
            return true;
        if (used > size / 2) { /* keep the end: the marker may have begun */
            memmove(seen, seen + used - 256, 256);
            used = 256;
        }
    }
}

static bool wait_accepts(const char *path, int64_t end_us)
{
    struct sockaddr_un address = address_of(path);

    while (now_us(CLOCK_MONOTONIC) < end_us) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int r = connect(fd, (struct sockaddr *)&address, sizeof(address));

        close(fd);
        if (r == 0)
            return true;
        (void)usleep(200);
    }
    return false;
}

static bool wait_connection(int listener, int64_t end_us)
{
    struct pollfd p = {.fd = listener, .events = POLLIN};
    int64_t left = end_us - now_us(CLOCK_MONOTONIC);

    return left > 0 && poll(&p, 1, (int)(left / 1000)) > 0;
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0)
        err(1, "%s", path);
    return fd;
}

static pid_t start(char **argv, int out)
{
    pid_t pid = fork();

    if (pid < 0)
        err(1, "fork");
    if (pid == 0) {
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0)
            _exit(126);
        execvp(argv[0], argv);
        err(127, "%s", argv[0]);
    }
    return pid;
}

int main(int argc, char **argv)
{
    static char seen[1 << 16];
    int out[2], listener = -1;
    int64_t started, took, cpu, end;
    long resident, exits;
    const char *marker;
    clockid_t clock;
    pid_t pid;
    bool ok;

    if (argc < 5)
        errx(2, "usage: launch MARKER RAM_MIB SECONDS PROGRAM [ARGUMENT...]");
    marker = argv[1];
    if (pipe2(out, O_CLOEXEC) < 0)
        err(1, "pipe");
    if (marker[0] == '/')
        listener = listen_at(marker);
    started = now_us(CLOCK_MONOTONIC);
    end = started + atoll(argv[3]) * 1000000;
    pid = start(argv + 4, out[1]);
    close(out[1]);
    if (listener >= 0)
        ok = wait_connection(listener, end);
    else if (marker[0] == '+')
        ok = wait_accepts(marker + 1, end);
    else
        ok = read_until(out[0], marker, end, seen, sizeof(seen));
    took = now_us(CLOCK_MONOTONIC) - started;
    cpu = clock_getcpuclockid(pid, &clock) == 0 ? now_us(clock) : -1;
    exits = exits_of(pid);
    resident = resident_besides(pid, atol(argv[2]) * 1024);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    if (listener >= 0)
        (void)unlink(marker);
    if (!ok)
        errx(1, "no sign within %s s; the end of the output: %s", argv[3], seen);
    printf("%lld %lld %ld %ld\n", (long long)took, (long long)cpu, resident, exits);
    return 0;
}
