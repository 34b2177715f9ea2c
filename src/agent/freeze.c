/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/freeze.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/boot.h"
#include "agent/control.h"
#include "agent/plug.h"
#include "agent/session.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/macro.h"

#define READ_AHEAD_MAX  ((size_t)24 << 20)
#define KEEP_FREE_BYTES ((uint64_t)8 << 20) /* so that the kernel need not look for more */

/* ---- what copies find in memory ---- */

static void read_file(int dir_fd, const char *path, size_t *left)
{
    _cleanup_(fd_closep) int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    static char piece[65536];
    ssize_t n = 1;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    while (n > 0 && *left > 0) {
        n = read(fd, piece, MIN(sizeof(piece), *left));
        *left -= n > 0 ? (size_t)n : 0;
    }
}

static void read_directory(const char *path, size_t *left)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        read_file(dirfd(dir), entry->d_name, left);
    if (dir)
        (void)closedir(dir);
}

/* What Python reads when it starts, wherever this version of it lies. */
static void read_python(size_t *left)
{
    static const char *const below[] = {"__pycache__", "encodings/__pycache__", "collections/__pycache__"};
    DIR *lib = opendir("/usr/lib");
    struct dirent *entry;
    char path[300];

    read_file(AT_FDCWD, "/usr/bin/python3", left);
    while (lib && (entry = readdir(lib))) {
        for (size_t i = 0; strncmp(entry->d_name, "python3.", 8) == 0 && i < ARRAY_SIZE(below); i++) {
            (void)snprintf(path, sizeof(path), "/usr/lib/%.200s/%s", entry->d_name, below[i]);
            read_directory(path, left);
        }
    }
    if (lib)
        (void)closedir(lib);
}

/*
 * What the first command of nearly every copy needs: read, never run, as the image may be anybody's. In an emulated
 * machine, whose copies begin without any translated code, it is less the reading that counts than that the code of the
 * disk and its file system need not run. `shared`: the copies share this memory, so that much of it costs none of them
 * anything.
 */
static void read_ahead(bool shared)
{
    static const char *const paths[] = {"/etc/passwd", "/etc/group", "/lib64/ld-linux-x86-64.so.2",
            "/lib/x86_64-linux-gnu/libc.so.6", "/bin/sh", "/bin/true"};
    static const char *const more[] = {"/bin/bash", "/bin/cat", "/bin/ls", "/lib/x86_64-linux-gnu/libtinfo.so.6",
            "/lib/x86_64-linux-gnu/libm.so.6", "/lib/x86_64-linux-gnu/libz.so.1", "/lib/x86_64-linux-gnu/libexpat.so.1",
            "/lib/x86_64-linux-gnu/libselinux.so.1", "/etc/ld.so.cache", "/etc/nsswitch.conf"};
    size_t left = READ_AHEAD_MAX;

    for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
        read_file(AT_FDCWD, paths[i], &left);
    for (size_t i = 0; shared && i < ARRAY_SIZE(more); i++)
        read_file(AT_FDCWD, more[i], &left);
    if (shared)
        read_python(&left);
}

/*
 * Each page that is not zero is copied for each copy of this machine, also a
 * free one that the boot used. To get all free pages and give them back is
 * what clears them. A child does it: commands begin in the agent's memory, so
 * the most that this ever had would be counted as theirs.
 */
static void clear_free_memory(void)
{
    struct sysinfo info;
    uint64_t bytes;
    pid_t pid;

    if (sysinfo(&info) < 0)
        return;
    bytes = (uint64_t)info.freeram * info.mem_unit;
    if (bytes <= KEEP_FREE_BYTES)
        return;
    pid = fork();
    if (pid == 0) {
        (void)mmap(NULL, bytes - KEEP_FREE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
                -1, 0);
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

/* ---- the ready connection ---- */

/* What connect(2) says when no device carries the connection; a host that refuses it says something else. */
static bool no_device(int error)
{
    return error == -ENODEV || error == -EADDRNOTAVAIL || error == -ENETUNREACH || error == -EHOSTUNREACH;
}

static void look_for_device(struct freeze *f)
{
    static const char line[] = "ironclaw-agent: frozen, waiting for a vsock device\n";
    int r;

    if (!f->looking) {
        /* The kernel tells about every port each time it looks: that would cost a clone its exits, and bury the line
         * below. */
        (void)klogctl(BOOT_CONSOLE_LEVEL, NULL, BOOT_CONSOLE_WARNINGS);
        r = plug_power_on();
        if (r < 0)
            log_msg(LOG_WARN, "power of the ports: %s", strerror(-r));
        /* On the console itself: who makes the template reads it there. */
        if (f->template && write(STDERR_FILENO, line, sizeof(line) - 1) < 0)
            log_msg(LOG_WARN, "no console: %s", strerror(errno));
        f->looking = true;
    }
    r = plug_look();
    if (r < 0 && r != -ENOENT)
        log_msg(LOG_WARN, "looking for devices: %s", strerror(-r));
}

static void retry_after(struct agent *agent, uint64_t ms)
{
    loop_arm(&agent->loop, &agent->freeze.retry, deadline_after_ms(ms));
}

void freeze_connect(struct agent *agent)
{
    struct freeze *f = &agent->freeze;
    int r;

    if (!f->on || agent->ready || f->by || agent->options.listen_unix)
        return;
    f->tried_at = clock_now_ms();
    r = agent_connect_ready(agent, f->patience_ms);
    if (no_device(r)) {
        look_for_device(f);
        f->patience_ms = FREEZE_PATIENCE_MIN_MS;
        r = agent_connect_ready(agent, f->patience_ms);
    }
    if (r < 0)
        retry_after(agent, no_device(r) ? FREEZE_NO_DEVICE_MS : FREEZE_RETRY_MAX_MS);
}

static int on_retry(struct loop_timer *timer)
{
    freeze_connect(CONTAINER_OF(timer, struct agent, freeze.retry));
    return 0;
}

/* Sessions whose connections carry something of somebody's, or may yet; `all`: also those whose last frames have
 * perhaps not been read. */
static unsigned count_busy(struct agent *agent, bool all)
{
    unsigned n = 0;

    agent_accept(agent);

    for (unsigned i = 0; i < AGENT_SESSIONS_MAX; i++) {
        const struct session *s = agent->sessions[i];

        if (s && !s->ready && (s->ending ? all : s->state == WIRE_ST_START || s->kind != WIRE_SESSION_CONTROL))
            n++;
    }
    return n;
}

/* Once nobody loses anything by it: who has had the last frame closes, or is left after SESSION_LINGER_MS. */
static void let_go_if_due(struct agent *agent)
{
    struct freeze *f = &agent->freeze;
    int r;

    if (!f->unplug || f->by || count_busy(agent, true) > 0)
        return;
    f->unplug = false;
    r = plug_let_go();
    if (r < 0)
        log_msg(LOG_WARN, "letting go of the vsock device: %s", strerror(-r));
}

void freeze_session_gone(struct agent *agent, const struct session *session)
{
    struct freeze *f = &agent->freeze;

    if (session == f->by) {
        f->by = NULL;
        loop_arm(&agent->loop, &f->waiting, deadline_after_ms(FREEZE_ABANDONED_MS));
    }
    let_go_if_due(agent);
    if (!f->on || agent->ready || f->by || f->retry.armed)
        return;
    if (session->ready && session->connecting) {
        f->retry_ms = MIN(2 * f->retry_ms, (uint64_t)FREEZE_RETRY_MAX_MS);
        f->patience_ms = clock_now_ms() - f->tried_at < f->patience_ms
                                 ? FREEZE_PATIENCE_MIN_MS
                                 : MIN(2 * f->patience_ms, (uint64_t)FREEZE_PATIENCE_MAX_MS);
    } else {
        f->retry_ms = FREEZE_RETRY_MIN_MS;
        f->patience_ms = FREEZE_PATIENCE_MIN_MS;
    }
    retry_after(agent, f->retry_ms);
}

/* ---- the states ---- */

static void begin(struct agent *agent)
{
    agent->freeze.on = true;
    agent->freeze.retry_ms = FREEZE_RETRY_MIN_MS;
    agent->freeze.patience_ms = FREEZE_PATIENCE_MIN_MS;
}

/* A machine that is plugged its device later is one whose copies have their memory each for itself. */
static bool has_device(void)
{
    _cleanup_(fd_closep) int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
    unsigned cid = VMADDR_CID_ANY;

    return fd >= 0 && ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) == 0 && cid != VMADDR_CID_ANY;
}

static void refuse(struct session *s)
{
    session_fail(s, WIRE_E_LIMIT, EBUSY, "%s",
            s->agent->freeze.template ? "this guest is a template: it runs nothing before it is cloned"
                                      : "the guest is frozen, to be saved; try again when that is done");
}

static unsigned count_waiting(const struct agent *agent)
{
    unsigned n = 0;

    for (unsigned i = 0; i < AGENT_SESSIONS_MAX; i++)
        n += agent->sessions[i] && agent->sessions[i]->waiting;
    return n;
}

bool freeze_holds(struct session *s)
{
    const struct freeze *f = &s->agent->freeze;

    if (!f->on || s->state != WIRE_ST_REQUEST || s->kind == WIRE_SESSION_CONTROL)
        return false;
    if (s->waiting)
        return true;
    if (f->template || f->unplug || (!f->by && !f->waiting.armed) || count_waiting(s->agent) >= FREEZE_WAITING_MAX ||
            s->agent->session_count > AGENT_SESSIONS_MAX - FREEZE_SPARE)
        refuse(s);
    else
        s->waiting = true;
    return true;
}

static void close_waiting(struct agent *agent)
{
    for (unsigned i = 0; i < AGENT_SESSIONS_MAX; i++) {
        if (agent->sessions[i] && agent->sessions[i]->waiting)
            session_close(agent->sessions[i]);
    }
}

static int on_waiting(struct loop_timer *timer)
{
    struct agent *agent = CONTAINER_OF(timer, struct agent, freeze.waiting);

    for (unsigned i = 0; i < AGENT_SESSIONS_MAX; i++) {
        struct session *s = agent->sessions[i];

        if (!s || !s->waiting)
            continue;
        s->waiting = false;
        if (agent->freeze.on)
            refuse(s);
        else
            session_resume(s);
    }
    return 0;
}

void freeze_init(struct agent *agent)
{
    agent->freeze = (struct freeze){.template = agent->options.template};
    agent->freeze.retry.expired = on_retry;
    agent->freeze.waiting.expired = on_waiting;
    if (agent->freeze.template) {
        if (!agent->options.listen_unix) { /* in a guest: the memory is all ours */
            read_ahead(has_device());
            clear_free_memory();
        }
        begin(agent);
        agent->freeze.patience_ms = AGENT_READY_TIMEOUT_MS; /* of a boot, of which nobody makes a copy yet */
    }
}

static void freeze(struct session *s)
{
    struct agent *agent = s->agent;
    int r = 0;

    if (!agent->freeze.on) {
        r = cgroups_freeze(&agent->cgroups, deadline_after_ms(FREEZE_WAIT_MS));
        if (r == 0) {
            begin(agent);
            agent->freeze.by = s;
            loop_disarm(&agent->loop, &agent->freeze.waiting);
        }
    }
    if (r == -ENOTSUP)
        session_fail(s, WIRE_E_IO, ENOTSUP, "can't freeze: this guest has no control groups");
    else if (r < 0)
        session_fail(s, WIRE_E_IO, -r, "can't stop the commands: %s", strerror(-r));
    else
        control_answer(s);
}

static void unplug(struct session *s)
{
    struct freeze *f = &s->agent->freeze;
    unsigned busy = count_busy(s->agent, false);

    if (f->by != s)
        session_fail(s, WIRE_E_INVALID, EPERM, "can't unplug: this session has not frozen the guest");
    else if (busy > 0)
        session_fail(s, WIRE_E_LIMIT, EBUSY,
                "commands or copies are in progress (%u), whose connections would end; try again when they have", busy);
    else if (plug_is_there() < 0)
        session_fail(s, WIRE_E_IO, ENODEV, "can't unplug: the vsock device is not behind a PCI port");
    else {
        f->unplug = true;
        control_answer(s);
    }
}

/* Commands whose host is gone end before they could run once more, as they do after any hang-up. */
static void end_lost_sessions(struct agent *agent, const struct session *but)
{
    for (unsigned i = 0; i < AGENT_SESSIONS_MAX; i++) {
        struct session *s = agent->sessions[i];
        struct pollfd p;

        if (!s || s == but || s->ready || !s->exec)
            continue;
        p = (struct pollfd){.fd = s->conn.fd, .events = POLLRDHUP};
        if (poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLHUP | POLLRDHUP)))
            session_close(s);
    }
}

static int serve_again(struct session *s)
{
    struct agent *agent = s->agent;
    struct freeze *f = &agent->freeze;
    int r;

    end_lost_sessions(agent, s);
    r = cgroups_thaw(&agent->cgroups);
    if (r < 0)
        return r;
    if (agent->ready && agent->ready->connecting)
        session_close(agent->ready); /* still frozen: it means nothing yet */
    loop_disarm(&agent->loop, &f->retry);
    if (f->looking)
        (void)klogctl(BOOT_CONSOLE_LEVEL, NULL, BOOT_CONSOLE_ALL);
    f->on = f->template = f->looking = f->unplug = false;
    f->by = NULL;
    return 0;
}

static void thaw(struct session *s)
{
    struct agent *agent = s->agent;
    int r;

    if (agent->freeze.template) {
        session_fail(s, WIRE_E_INVALID, EPERM, "can't thaw: this guest is a template, which only goes on as a clone");
        return;
    }
    r = agent->freeze.on ? serve_again(s) : 0;
    if (r < 0) {
        session_fail(s, WIRE_E_IO, -r, "can't thaw the commands: %s", strerror(-r));
        return;
    }
    control_answer(s);
    loop_arm(&agent->loop, &agent->freeze.waiting, clock_now_ms()); /* the answer goes first */
    if (agent->options.tied && !agent->ready && !agent->options.listen_unix)
        agent_untied(agent); /* the connection ended while that meant nothing */
}

static void become_clone(struct session *s, const struct wire_clone *clone)
{
    struct agent *agent = s->agent;
    bool tied = clone->flags & WIRE_CLONE_TIED;
    const char *what = "thawing the commands";
    int r;

    if (!agent->freeze.on) {
        session_fail(s, WIRE_E_INVALID, EINVAL, "can't become a clone: this guest is not frozen");
        return;
    }
    if (tied && (!agent->ready || agent->ready->connecting)) {
        session_fail(s, WIRE_E_INVALID, ENOTCONN, "can't be tied: this guest has no ready connection");
        return;
    }
    r = identity_renew(&agent->identity, clone, &what);
    if (r == 0)
        r = serve_again(s);
    if (r < 0) {
        session_fail(s, WIRE_E_IO, -r, "can't become a clone: %s: %s", what, strerror(-r));
        return;
    }
    close_waiting(agent);
    agent->has_time = true;
    agent->options.tied = tied;
    control_answer(s);
}

int freeze_frame(struct session *s, enum wire_type type, const uint8_t *payload, size_t len)
{
    struct wire_clone clone;
    int r;

    if (s->version < (type == WIRE_UNPLUG ? WIRE_UNPLUG_SINCE : WIRE_FREEZE_SINCE))
        return -EPROTO;
    if (type == WIRE_FREEZE) {
        freeze(s);
    } else if (type == WIRE_UNPLUG) {
        unplug(s);
    } else if (type == WIRE_THAW) {
        thaw(s);
    } else {
        r = wire_get_clone(&clone, payload, len);
        if (r < 0)
            return r;
        become_clone(s, &clone);
    }
    return 0;
}
