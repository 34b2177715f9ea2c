/* SPDX-License-Identifier: Apache-2.0 */
#include "root.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int console = -1;
static char trying[200];
static unsigned long tried, skipped;

/* One write, so that no other writer gets into the line. */
static void say(const char *verb, const char *text, const char *separator, const char *rest)
{
    char line[512];
    int n = snprintf(line, sizeof(line), "\n@ %s %s%s%s\n", verb, text, separator, rest);

    if (write(console, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1) < 0)
        _exit(1);
}

bool try(const char *group, const char *what, ...)
{
    int n = snprintf(trying, sizeof(trying), "%s: ", group);
    va_list ap;

    va_start(ap, what);
    vsnprintf(trying + n, sizeof(trying) - (size_t)n, what, ap);
    va_end(ap);
    if (tried++ < skipped)
        return false;
    say("try", trying, "", "");
    return true;
}

void did(const char *how)
{
    say("did", trying, " = ", how);
}

void got(const char *detail, ...)
{
    char text[200];
    va_list ap;

    va_start(ap, detail);
    vsnprintf(text, sizeof(text), detail, ap);
    va_end(ap);
    say("GOT", trying, " = ", text);
}

void not_made(const char *group, const char *what, const char *reason)
{
    snprintf(trying, sizeof(trying), "%s: %s", group, what);
    if (tried++ < skipped)
        return;
    say("not", trying, " = ", reason);
}

_Noreturn void fail(const char *text, ...)
{
    char line[300];
    va_list ap;

    va_start(ap, text);
    vsnprintf(line, sizeof(line), text, ap);
    va_end(ap);
    say("fail", line, "", "");
    _exit(1);
}

uint32_t random32(void)
{
    static uint32_t state = 0x1337beef;

    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fail("%s does not take %s", path, text);
    close(fd);
}

/* Out of reach of the agent, whose end of the session and of the vsock must not end this. */
static void detach(void)
{
    char pid[24];

    if (fork() != 0)
        _exit(0);
    setsid();
    if (fork() != 0)
        _exit(0);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    put("/sys/fs/cgroup/cgroup.procs", pid);
    put("/proc/self/oom_score_adj", "-1000");
    for (int fd = 0; fd < 3; fd++)
        dup2(console, fd);
    if (chdir("/") < 0 || mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
        fail("mlockall");
}

static void attack_devices(const char *name, struct devices *all)
{
    static const struct {
        const char *name;
        void (*attack)(struct devices *);
    } attacks[] = {
            {"queues", attack_queues},
            {"registers", attack_registers},
            {"disk", attack_disk},
            {"balloon", attack_balloon},
            {"vsock", attack_vsock},
    };

    for (size_t i = 0; i < ARRAY_SIZE(attacks); i++) {
        if (strcmp(name, attacks[i].name) == 0) {
            attacks[i].attack(all);
            return;
        }
    }
    fail("no attack '%s'", name);
}

static void open_devices(struct devices *all)
{
    struct window windows[ARRAY_SIZE(all->list)];
    unsigned n = take_devices(windows, ARRAY_SIZE(windows));

    for (unsigned i = 0; i < n; i++)
        all->count += device_open(&all->list[all->count], &windows[i]);
    if (all->count < 3)
        fail("%u virtio devices of %u windows", all->count, n);
}

/* It must not look as if the guest had been stopped. */
static void on_fault(int signo)
{
    fail("signal %d at: %s", signo, trying);
}

/* root SKIPPED ATTACK... */
int main(int argc, char **argv)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTERM, SIGHUP};
    static struct devices all;

    console = open("/dev/ttyS0", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    if (console < 0)
        return 1;
    put("/proc/sys/kernel/printk", "1"); /* the console is ours */
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
        signal(faults[i], on_fault);
    skipped = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    detach();
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "ports") == 0) {
            attack_ports();
        } else if (strcmp(argv[i], "serial") == 0) {
            attack_serial();
        } else if (!attack_reset(argv[i]) && !attack_kernel(argv[i])) {
            if (all.count == 0)
                open_devices(&all);
            attack_devices(argv[i], &all);
        }
    }
    say("end", "", "", "");
    return 0;
}
