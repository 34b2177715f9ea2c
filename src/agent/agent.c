/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/copy.h"
#include "agent/exec.h"
#include "agent/session.h"
#include "agent/spawn.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/macro.h"

#define ACCEPT_BATCH    16
#define ACCEPT_PAUSE_MS 100u
#define REAP_BATCH      256
#define HOUSEKEEPING_MS 20u
#define BACKLOG         1024 /* as many as the device has connections: a burst of them waits, and is not refused */

/* ---- sessions ---- */

int agent_find_user(const struct agent *agent, struct user *ret, const struct wire_str *spec)
{
    int r;

    if (!agent->change_user && spec->len == 0) {
        char own[16];
        int n = snprintf(own, sizeof(own), "%u", (unsigned)geteuid());

        return user_lookup(ret, own, (size_t)n);
    }
    r = user_lookup(ret, spec->s, spec->len);
    if (r == 0 && !agent->change_user && ret->uid != geteuid())
        r = -EPERM;
    return r;
}

int agent_add_session(struct agent *agent, int fd, bool ready)
{
    struct session *s;
    int r;

    for (unsigned i = 0; i < AGENT_SESSIONS_MAX; i++) {
        if (agent->sessions[i])
            continue;
        r = session_new(&s, agent, fd, ready);
        if (r < 0)
            return r;
        s->index = i;
        agent->sessions[i] = s;
        if (ready)
            agent->ready = s;
        agent->session_count++;
        return 0;
    }
    fd_close(fd);
    return -EAGAIN;
}

static void refuse(int fd)
{
    _cleanup_(buf_deinit) struct buf b = {0};

    wire_put_error(&b, WIRE_E_LIMIT, 0, "too many sessions");
    (void)send(fd, b.data, b.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    fd_close(fd);
}

static bool is_host(const struct agent *agent, const struct sockaddr_vm *peer)
{
    return agent->options.listen_unix || (peer->svm_family == AF_VSOCK && peer->svm_cid == VMADDR_CID_HOST);
}

/* Linux's accept4() of a vsock, when there is none, waits for the next tick of the clock before it says EAGAIN. */
static bool has_connection(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}

static int on_listener(struct loop_fd *source, uint32_t events)
{
    struct agent *agent = CONTAINER_OF(source, struct agent, listener);

    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct sockaddr_vm peer = {0};
        socklen_t len = sizeof(peer);
        int fd;

        if ((i > 0 || events == 0) && !has_connection(source->fd))
            return 0;
        fd = accept4(source->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
            return 0;
        if (fd < 0) {
            /* Out of descriptors or memory: the connection stays pending, and asking at once would spin. */
            loop_remove(&agent->loop, source);
            loop_arm(&agent->loop, &agent->accept_more, deadline_after_ms(ACCEPT_PAUSE_MS));
            return 0;
        }
        if (!is_host(agent, &peer))
            fd_close(fd);
        else if (agent->session_count >= AGENT_SESSIONS_MAX)
            refuse(fd);
        else
            (void)agent_add_session(agent, fd, false);
    }
    return 0;
}

void agent_accept(struct agent *agent)
{
    if (!agent->accept_more.armed)
        (void)on_listener(&agent->listener, 0);
}

static int on_accept_more(struct loop_timer *timer)
{
    struct agent *agent = CONTAINER_OF(timer, struct agent, accept_more);

    return loop_add(&agent->loop, &agent->listener);
}

/* ---- children ---- */

void agent_keep_spawn(struct agent *agent, struct spawn *spawn)
{
    spawn->next = agent->spawning;
    agent->spawning = spawn;
}

static void drop_spawn(struct agent *agent, pid_t pid)
{
    for (struct spawn **at = &agent->spawning; *at; at = &(*at)->next) {
        struct spawn *spawn = *at;

        if (spawn->pid == pid) {
            *at = spawn->next;
            spawn_free(spawn);
            return;
        }
    }
}

/* Once a process is reaped its number may be used again, so its owner learns of it before anything else happens. */
static void reaped(struct agent *agent, pid_t pid, int status, const struct rusage *usage)
{
    agent->reaped++;
    for (unsigned i = 0; i < AGENT_SESSIONS_MAX; i++) {
        struct session *s = agent->sessions[i];

        if (!s)
            continue;
        if (s->exec && exec_pid(s->exec) == pid) {
            exec_reaped(s->exec, status, usage);
            break;
        }
        if (s->copy_pid == pid) {
            s->copy_pid = 0;
            session_close(s);
            break;
        }
    }
    drop_spawn(agent, pid); /* also what exec_reaped() left of a start that failed */
}

static void after_reaping(struct agent *agent)
{
    for (unsigned i = 0; i < AGENT_SESSIONS_MAX; i++) {
        if (agent->sessions[i] && agent->sessions[i]->exec)
            exec_check_end(agent->sessions[i]->exec);
    }
    cgroups_sweep(&agent->cgroups);
}

/* A bounded number at a time: a fork bomb's orphans must not keep the host's connections waiting. */
static void reap(struct agent *agent)
{
    struct rusage usage;
    int status, n = 0;
    pid_t pid = 0;

    while (n < REAP_BATCH && (pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        reaped(agent, pid, status, &usage);
        n++;
    }
    if (n > 0)
        after_reaping(agent);
    if (n == REAP_BATCH)
        loop_arm(&agent->loop, &agent->reap_more, clock_now_ms());
}

static int on_signal(struct loop_fd *source, uint32_t events)
{
    struct agent *agent = CONTAINER_OF(source, struct agent, signals);
    struct signalfd_siginfo info;

    if (read(source->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return 0;
    if (info.ssi_signo == SIGCHLD)
        reap(agent);
    else
        loop_stop(&agent->loop);
    return 0;
}

static int on_reap_more(struct loop_timer *timer)
{
    reap(CONTAINER_OF(timer, struct agent, reap_more));
    return 0;
}

static int on_housekeeping(struct loop_timer *timer)
{
    struct agent *agent = CONTAINER_OF(timer, struct agent, housekeeping);

    cgroups_prepare(&agent->cgroups);
    return 0;
}

int agent_take_cgroup(struct agent *agent, struct cgroup **ret)
{
    int r = cgroup_take(&agent->cgroups, ret);

    if (r == 0 && *ret && agent->cgroups.free == 0)
        loop_arm(&agent->loop, &agent->housekeeping, deadline_after_ms(HOUSEKEEPING_MS));
    return r;
}

/* ---- start ---- */

static int listen_vsock(int *ret)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = WIRE_AGENT_PORT};
    _cleanup_(fd_closep) int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0)
        return -errno;
    *ret = TAKE_FD(fd);
    return 0;
}

int agent_connect_ready(struct agent *agent, uint64_t patience_ms)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = WIRE_READY_PORT};
    const struct timeval patience = {
            .tv_sec = (time_t)(patience_ms / 1000), .tv_usec = (suseconds_t)(patience_ms % 1000 * 1000)};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

    if (fd < 0)
        return -errno;
    /* The kernel's own is 2 s, which an overloaded host may need to answer. The host's boot timeout is what counts. */
    (void)setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 && errno != EINPROGRESS) {
        r = -errno;
        fd_close(fd);
        return r;
    }
    return agent_add_session(agent, fd, true);
}

static int open_listener(struct agent *agent)
{
    const char *path = agent->options.listen_unix;
    int r = path ? unix_listen(path, BACKLOG, &agent->listener.fd) : listen_vsock(&agent->listener.fd);

    if (r == 0)
        r = fd_set_nonblock(agent->listener.fd, true);
    return r < 0 ? r : loop_add(&agent->loop, &agent->listener);
}

static int open_signals(struct agent *agent)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    agent->signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (agent->signals.fd < 0)
        return -errno;
    /* Blocked, not ignored: a child would inherit an ignored signal, a blocked one is one call to undo. */
    (void)sigaddset(&set, SIGPIPE);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    return loop_add(&agent->loop, &agent->signals);
}

static void open_cgroups(struct agent *agent)
{
    struct sysinfo info;
    int r;

    agent->cgroups.root_fd = agent->cgroups.base_fd = -1;
    if (!agent->options.cgroup_mount)
        return;
    r = sysinfo(&info) < 0 ? -errno
                           : cgroups_init(&agent->cgroups, agent->options.cgroup_mount,
                                     (uint64_t)info.totalram * info.mem_unit, (uint64_t)info.freeram * info.mem_unit);
    if (r < 0)
        log_msg(LOG_WARN, "no control groups (%s): commands are limited and killed by process group only",
                strerror(-r));
}

static int open_devices(struct agent *agent)
{
    agent->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    return agent->null_fd < 0 ? -errno : identity_init(&agent->identity, agent->options.test_no_reseed);
}

int agent_init(struct agent *agent, const struct agent_options *options)
{
    int r;

    memset(agent, 0, sizeof(*agent));
    agent->options = *options;
    agent->change_user = geteuid() == 0;
    agent->null_fd = agent->identity.random_fd = agent->identity.boot_id_fd = -1;
    agent->identity.generation_fd = agent->identity.machine_id_fd = -1;
    freeze_init(agent);
    agent->listener = (struct loop_fd){.fd = -1, .events = EPOLLIN, .ready = on_listener};
    agent->signals = (struct loop_fd){.fd = -1, .events = EPOLLIN, .ready = on_signal};
    agent->reap_more.expired = on_reap_more;
    agent->accept_more.expired = on_accept_more;
    agent->housekeeping.expired = on_housekeeping;
    r = loop_init(&agent->loop);
    if (r < 0)
        return r;
    open_cgroups(agent);
    r = open_signals(agent);
    if (r == 0)
        r = open_devices(agent);
    if (r == 0)
        r = open_listener(agent);
    if (r < 0) {
        agent_deinit(agent);
        return r;
    }
    if (options->listen_unix) {
        (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        return 0;
    }
    if (options->template) {
        identity_prepare(&agent->identity);
        freeze_connect(agent);
        return 0;
    }
    r = agent_connect_ready(agent, AGENT_READY_TIMEOUT_MS);
    if (r < 0)
        log_msg(LOG_WARN, "nobody at the host's ready port: %s", strerror(-r));
    if (r < 0 && options->tied)
        agent_shut_down(agent);
    return 0;
}

void agent_deinit(struct agent *agent)
{
    for (unsigned i = 0; i < AGENT_SESSIONS_MAX; i++)
        session_free(agent->sessions[i]);
    while (agent->spawning) {
        pid_t pid = agent->spawning->pid;

        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        drop_spawn(agent, pid);
    }
    fd_close(agent->listener.fd);
    fd_close(agent->signals.fd);
    fd_close(agent->null_fd);
    identity_deinit(&agent->identity);
    loop_deinit(&agent->loop);
    if (agent->options.listen_unix)
        (void)unlink(agent->options.listen_unix);
}

void agent_shut_down(struct agent *agent)
{
    if (agent->freeze.on)
        cgroups_kill(&agent->cgroups); /* a frozen process takes no other signal */
    agent->power_off = true;
    loop_stop(&agent->loop);
}

void agent_untied(struct agent *agent)
{
    log_msg(LOG_WARN, "the ready connection ended and this VM is tied to it: powering off");
    agent_shut_down(agent);
}

/* Frames of one round leave together: fewer packets, fewer wake-ups of the host. */
static void flush_sessions(struct agent *agent)
{
    for (unsigned i = 0; i < AGENT_SESSIONS_MAX; i++) {
        if (agent->sessions[i] && agent->sessions[i]->dirty)
            session_flush(agent->sessions[i]);
    }
}

int agent_run(struct agent *agent)
{
    int r = 0;

    loop_arm(&agent->loop, &agent->housekeeping, clock_now_ms());
    while (!agent->loop.stop && r >= 0) {
        r = loop_once(&agent->loop, -1);
        flush_sessions(agent);
    }
    return r < 0 ? r : 0;
}
