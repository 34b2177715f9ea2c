/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"
#include "jail/seccomp.h"

#define EXEC_LOOK_MS 20
#define NAME_SIZE    32
#define STAT_MAX     4096u
#define STAT_PARENT  4 /* fields of /proc/PID/stat, proc(5) */
#define STAT_FLAGS   9
#define STAT_UTIME   14
#define STAT_STIME   15
#define STAT_START   22
#define STAT_SIGNAL  31
#define ENDING       0x404u /* PF_EXITING, PF_SIGNALED of the kernel */
#define KILL_WAITS   (1ull << (SIGKILL - 1))
#define ENVIRON_MAX  (128u << 10)
#define NOFILE_WANT  4096u
#define ENDED_MAX    64u

int process_stat_parse(const char *text, struct process_stat *ret)
{
    /* The name is in parentheses and may hold anything, parentheses too: fields are counted from the last one. */
    const char *p = strrchr(text, ')');
    struct process_stat stat = {0};

    if (!p || p[1] != ' ' || p[2] == '\0' || p[3] != ' ')
        return -EBADMSG;
    stat.state = p[2];
    p += 4;
    for (int field = STAT_PARENT; field <= STAT_SIGNAL; field++) {
        char *end;
        unsigned long long value;

        errno = 0;
        value = strtoull(p, &end, 10);
        if (end == p || errno != 0 || (*end != ' ' && *end != '\n' && *end != '\0'))
            return -EBADMSG;
        if (field == STAT_PARENT)
            stat.parent = (pid_t)value;
        else if (field == STAT_FLAGS)
            stat.doomed = value & ENDING;
        else if (field == STAT_UTIME || field == STAT_STIME)
            stat.cpu_ticks += value;
        else if (field == STAT_START)
            stat.start_ticks = value;
        else if (field == STAT_SIGNAL && (value & KILL_WAITS))
            stat.doomed = true;
        p = end;
    }
    *ret = stat;
    return 0;
}

static int read_stat(pid_t pid, struct process_stat *ret)
{
    _cleanup_(freep) char *text = NULL;
    char path[64];
    int r;

    (void)snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    r = fd_read_file(AT_FDCWD, path, STAT_MAX, &text, NULL);
    if (r < 0)
        return r == -ENOENT ? -ESRCH : r;
    return process_stat_parse(text, ret);
}

int process_boot_id(char ret[BOOT_ID_SIZE])
{
    _cleanup_(freep) char *text = NULL;
    size_t len = 0;
    int r = fd_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &text, &len);

    if (r < 0)
        return r;
    if (len < BOOT_ID_SIZE - 1)
        return -EBADMSG;
    memcpy(ret, text, BOOT_ID_SIZE - 1);
    ret[BOOT_ID_SIZE - 1] = '\0';
    return 0;
}

int process_identify(pid_t pid, struct process_id *ret)
{
    struct process_stat stat;
    int r = read_stat(pid, &stat);

    if (r < 0)
        return r;
    *ret = (struct process_id){.pid = pid, .start_ticks = stat.start_ticks};
    return 0;
}

uint64_t process_cpu_ticks(const struct process_id *p)
{
    struct process_stat stat;

    return read_stat(p->pid, &stat) == 0 && stat.start_ticks == p->start_ticks ? stat.cpu_ticks : 0;
}

/* How the last children of ours ended: who asks may come after whoever reaped. */
static struct {
    struct process_id id;
    int code, status;
} ended[ENDED_MAX];
static size_t ended_next;
static pthread_mutex_t ended_lock = PTHREAD_MUTEX_INITIALIZER;

static void reap_zombie(const struct process_id *p)
{
    siginfo_t info = {0};

    if (waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG) < 0 || info.si_pid != p->pid)
        return;
    pthread_mutex_lock(&ended_lock);
    ended[ended_next].id = *p;
    ended[ended_next].code = info.si_code;
    ended[ended_next].status = info.si_status;
    ended_next = (ended_next + 1) % ENDED_MAX;
    pthread_mutex_unlock(&ended_lock);
}

/* 0 alive, -ESRCH dead, another errno when that can't be told. */
static int look_at(const struct process_id *p, bool *ret_doomed)
{
    struct process_stat stat = {0};
    int r = p->pid > 0 ? read_stat(p->pid, &stat) : -ESRCH;

    *ret_doomed = stat.doomed;
    if (r < 0)
        return r;
    if (stat.start_ticks != p->start_ticks)
        return -ESRCH;
    if (stat.state != 'Z' && stat.state != 'X')
        return 0;
    if (stat.parent == getpid())
        reap_zombie(p);
    return -ESRCH;
}

/* What process_spawn() started and nobody has seen end. A VM may end by another program's hand, which takes its record
 * away, and nobody would look at these again. */
static pthread_mutex_t children_lock = PTHREAD_MUTEX_INITIALIZER;
static struct process_id *children;
static size_t children_count;

static void note_child(const struct process_id *p)
{
    struct process_id *grown;

    pthread_mutex_lock(&children_lock);
    grown = realloc(children, (children_count + 1) * sizeof(*grown));
    if (grown) {
        children = grown;
        children[children_count++] = *p;
    }
    pthread_mutex_unlock(&children_lock);
}

/* The lock is not held while they are looked at: a fork of the program meanwhile would find it locked for ever. */
void process_reap_children(void)
{
    struct process_id *list;
    size_t count;

    pthread_mutex_lock(&children_lock);
    list = children;
    count = children_count;
    children = NULL;
    children_count = 0;
    pthread_mutex_unlock(&children_lock);
    for (size_t i = 0; i < count; i++) {
        if (process_alive(&list[i]))
            note_child(&list[i]);
    }
    free(list);
}

bool process_alive(const struct process_id *p)
{
    bool doomed;

    return look_at(p, &doomed) != -ESRCH;
}

bool process_well(const struct process_id *p)
{
    bool doomed;

    return look_at(p, &doomed) != -ESRCH && !doomed;
}

bool process_how_ended(const struct process_id *p, int *ret_code, int *ret_status)
{
    bool found = false;

    if (p->pid <= 0 || process_alive(p))
        return false;
    pthread_mutex_lock(&ended_lock);
    for (size_t i = 0; i < ENDED_MAX && !found; i++) {
        found = ended[i].id.pid == p->pid && ended[i].id.start_ticks == p->start_ticks;
        if (found) {
            *ret_code = ended[i].code;
            *ret_status = ended[i].status;
        }
    }
    pthread_mutex_unlock(&ended_lock);
    return found;
}

int process_open(const struct process_id *p, int *ret_pidfd)
{
    _cleanup_(fd_closep) int fd = -1;
    bool doomed;
    int r;

    if (p->pid <= 0)
        return -ESRCH;
    fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (fd < 0)
        return -errno;
    /* The pidfd pins whatever has the pid now; only then is it worth asking whether that is still ours. */
    r = look_at(p, &doomed);
    if (r < 0)
        return r;
    *ret_pidfd = TAKE_FD(fd);
    return 0;
}

int process_kill(const struct process_id *p, uint64_t deadline)
{
    _cleanup_(fd_closep) int fd = -1;
    int r = process_open(p, &fd);

    if (r == -ESRCH)
        return 0;
    if (r < 0)
        return r;
    if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        return -errno;
    r = fd_wait(fd, POLLIN, deadline);
    if (r < 0)
        return r;
    (void)process_alive(p); /* reaps it if it is ours */
    return 0;
}

/* The mark in the environment of /proc/PID, or NULL. Processes of other users are not readable, which is fine. */
static char *mark_of(int proc_fd, const char *pid)
{
    static const char name[] = PROCESS_MARK_ENV "=";
    _cleanup_(freep) char *text = NULL;
    char path[64];
    size_t len = 0;

    if ((size_t)snprintf(path, sizeof(path), "%s/environ", pid) >= sizeof(path) ||
            fd_read_file(proc_fd, path, ENVIRON_MAX, &text, &len) < 0)
        return NULL;
    for (size_t at = 0; at < len; at += strlen(text + at) + 1) {
        if (strncmp(text + at, name, sizeof(name) - 1) == 0)
            return strdup(text + at + sizeof(name) - 1);
    }
    return NULL;
}

int process_kill_marked(const char *mark, uint64_t deadline)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    int killed = 0, r = 0;

    if (!dir)
        return -errno;
    while (r >= 0 && (entry = readdir(dir))) {
        _cleanup_(freep) char *found = NULL;
        struct process_id id;

        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        /* Identified before its environment is read: process_kill then refuses a successor with the same pid. */
        if (process_identify((pid_t)strtol(entry->d_name, NULL, 10), &id) < 0 || id.pid == getpid())
            continue;
        found = mark_of(dirfd(dir), entry->d_name);
        if (!found || strcmp(found, mark) != 0)
            continue;
        r = process_kill(&id, deadline);
        if (r >= 0)
            killed++;
    }
    closedir(dir);
    return r < 0 ? r : killed;
}

int fd_above_stdio(int *fd)
{
    int moved;

    if (*fd > STDERR_FILENO)
        return 0;
    moved = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (moved < 0)
        return -errno;
    fd_close(*fd);
    *fd = moved;
    return 0;
}

static char *absolute(const char *path)
{
    _cleanup_(freep) char *cwd = NULL;
    char *full = NULL;

    if (path[0] == '/')
        return strdup(path);
    cwd = getcwd(NULL, 0);
    return cwd && asprintf(&full, "%s/%s", cwd, path) >= 0 ? full : NULL;
}

char *process_find_program(const char *name)
{
    const char *path = getenv("PATH");

    if (strchr(name, '/'))
        return access(name, X_OK) == 0 ? absolute(name) : NULL;
    if (!path || !path[0])
        path = "/usr/local/bin:/usr/bin:/bin";
    while (*path) {
        size_t len = strcspn(path, ":");
        char *full = NULL;

        if (len > 0 && path[0] == '/') {
            if (asprintf(&full, "%.*s/%s", (int)len, path, name) < 0)
                return NULL;
            if (access(full, X_OK) == 0)
                return full;
            free(full);
        }
        path += len + (path[len] == ':');
    }
    return NULL;
}

static void child_limits(const struct process_options *o)
{
    struct rlimit limit;

    /* A core would be the guest's memory on the host's disk. 1, not 0: see limit_core() of jail.c. */
    if (getrlimit(RLIMIT_CORE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max = MIN(limit.rlim_max, (rlim_t)1);
        (void)setrlimit(RLIMIT_CORE, &limit);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < NOFILE_WANT) {
        limit.rlim_cur = MIN((rlim_t)NOFILE_WANT, limit.rlim_max);
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (o->max_file_bytes != 0 && getrlimit(RLIMIT_FSIZE, &limit) == 0) {
        limit.rlim_max = MIN((rlim_t)MAX(o->max_file_bytes, o->file_ceiling), limit.rlim_max);
        limit.rlim_cur = MIN((rlim_t)o->max_file_bytes, limit.rlim_max);
        (void)setrlimit(RLIMIT_FSIZE, &limit);
    }
}

static void child_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int signo = 1; signo < NSIG; signo++)
        (void)sigaction(signo, &action, NULL); /* SIGKILL and SIGSTOP refuse, as they should */
    action.sa_handler = SIG_IGN;
    (void)sigaction(SIGXFSZ, &action, NULL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int child_fds(const struct process_options *o, int null_fd)
{
    if (dup2(null_fd, STDIN_FILENO) < 0 || dup2(o->out_fd, STDOUT_FILENO) < 0 || dup2(o->err_fd, STDERR_FILENO) < 0)
        return -errno;
    if (syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */) < 0) {
        struct rlimit limit;
        int end = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536 ? (int)limit.rlim_cur : 65536;

        for (int fd = STDERR_FILENO + 1; fd < end; fd++)
            (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    for (size_t i = 0; i < o->keep_count; i++) {
        if (o->keep_fds[i] >= 0 && fcntl(o->keep_fds[i], F_SETFD, 0) < 0)
            return -errno;
    }
    return 0;
}

/* From the child: once before execve, and again should that fail. */
struct child_status {
    int error, stage; /* stage: of jail.h, or -1 */
    struct jail_report report;
};

struct child {
    const struct process_options *options;
    char *const *envp;
    int null_fd, status_fd;
    int parent_fd; /* hangs up when the parent, who has the other end, is gone; its id can't be seen from the jail */
    int parent_end;
};

/* Last, as every change of ids resets it. */
static int child_ties(const struct child *c)
{
    struct pollfd p = {.fd = c->parent_fd};

    if (!c->options->die_with_parent)
        return 0;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return -errno;
    return poll(&p, 1, 0) > 0 ? -ESRCH : 0;
}

/* The last thing before execve, as it allows no more than QEMU needs. */
static int child_filter(const struct process_options *o)
{
    if (!o->filter)
        return 0;
    seccomp_set_own_pid(o->filter);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, o->filter) < 0)
        return -errno;
    return 0;
}

/* Between clone and execve: system calls only. The parent may have had other threads, so nothing that takes a lock. */
_noreturn_ static void child_main(const struct child *c, struct child_status *status)
{
    const struct process_options *o = c->options;

    (void)close(c->parent_end);
    (void)setsid(); /* also a share of the CPUs of its own, where the kernel groups by session (sched_autogroup) */
    (void)umask(077);
    child_limits(o);
    child_signals();
    status->stage = -1;
    status->error = child_fds(o, c->null_fd);
    if (status->error == 0 && o->jail)
        status->error = jail_enter(o->jail, &status->report, &status->stage);
    if (status->error == 0) {
        status->stage = -1;
        status->error = chdir("/") < 0 ? -errno : child_ties(c);
    }
    if (status->error == 0)
        status->error = child_filter(o);
    if (write(c->status_fd, status, sizeof(*status)) == (ssize_t)sizeof(*status) && status->error == 0) {
        execve(o->path, o->argv, c->envp);
        status->error = -errno;
        (void)!write(c->status_fd, status, sizeof(*status));
    }
    _exit(127);
}

static void read_name(pid_t pid, char ret[NAME_SIZE])
{
    _cleanup_(fd_closep) int fd = -1;
    char path[64];

    memset(ret, 0, NAME_SIZE);
    (void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, ret, NAME_SIZE - 1) < 0)
        ret[0] = '\0';
}

/* Until there is something to read, or the child has ended: -ECONNRESET. */
static int wait_status(int status_fd, int pidfd, int ms)
{
    struct pollfd p[] = {{.fd = status_fd, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
    int n;

    do
        n = poll(p, ARRAY_SIZE(p), ms);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? -errno : -ETIMEDOUT;
    return p[0].revents ? 0 : -ECONNRESET;
}

/*
 * execve closes the other end; but when another thread of this program forked meanwhile, that child has it, too. Then
 * the name tells, which execve changes.
 */
static int read_second(int status_fd, pid_t pid, int pidfd, struct child_status *ret)
{
    char before[NAME_SIZE], now[NAME_SIZE];
    int r;

    read_name(pid, before);
    do {
        r = wait_status(status_fd, pidfd, EXEC_LOOK_MS);
        if (r == -ETIMEDOUT)
            read_name(pid, now);
    } while (r == -ETIMEDOUT && strcmp(before, now) == 0);
    if (r == -ETIMEDOUT)
        return -ECONNRESET;
    if (r == -ECONNRESET)
        return -EIO; /* it ended before it was the program, or right after */
    return r < 0 ? r : fd_read_all(status_fd, ret, sizeof(*ret), DEADLINE_NEVER);
}

static int wait_for_exec(int status_fd, pid_t pid, int pidfd, struct child_status *ret)
{
    struct child_status again;
    siginfo_t info;
    int r = wait_status(status_fd, pidfd, -1);

    if (r == 0)
        r = fd_read_all(status_fd, ret, sizeof(*ret), DEADLINE_NEVER);
    if (r == 0 && ret->error == 0) {
        r = read_second(status_fd, pid, pidfd, &again);
        if (r == -ECONNRESET)
            return 0;
        ret->error = r == 0 ? again.error : r;
    }
    (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR)
        ;
    return r < 0 ? r : ret->error < 0 ? ret->error : -EIO;
}

static pid_t start_child(struct child *c, struct child_status *status, int *ret_pidfd)
{
    static const struct jail none = {.skip = {[JAIL_CGROUP] = ENOTSUP, [JAIL_NAMESPACES] = ENOTSUP}};
    pid_t pid = jail_clone(c->options->jail ?: &none, &status->report, ret_pidfd);

    if (pid == 0)
        child_main(c, status);
    return pid;
}

static int spawn_child(struct child *c, struct process_id *ret, int *ret_pidfd, struct child_status *status)
{
    _cleanup_(fd_closep) int status_r = -1, status_w = -1, parent_r = -1, parent_w = -1, pidfd = -1;
    int pipe_fds[2], r;
    pid_t pid;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -errno;
    status_r = pipe_fds[0];
    status_w = pipe_fds[1];
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -errno;
    parent_r = pipe_fds[0];
    parent_w = pipe_fds[1];
    if ((r = fd_above_stdio(&status_w)) < 0 || (r = fd_above_stdio(&parent_r)) < 0 ||
            (r = fd_above_stdio(&parent_w)) < 0)
        return r;
    c->status_fd = status_w;
    c->parent_fd = parent_r;
    c->parent_end = parent_w;
    pid = start_child(c, status, &pidfd);
    if (pid < 0)
        return (int)pid;
    fd_close(status_w);
    status_w = -1;
    r = wait_for_exec(status_r, pid, pidfd, status);
    if (r < 0)
        return r;
    r = process_identify(pid, ret);
    if (r < 0) {
        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        (void)waitid(P_PIDFD, (id_t)pidfd, &(siginfo_t){0}, WEXITED);
        return r;
    }
    note_child(ret);
    *ret_pidfd = TAKE_FD(pidfd);
    return 0;
}

int process_spawn(const struct process_options *o, struct process_id *ret, int *ret_pidfd)
{
    _cleanup_(fd_closep) int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    _cleanup_(freep) char *mark = NULL, *asan_env = NULL;
    const char *asan = getenv("ASAN_OPTIONS");
    char *envp[] = {(char *)"PATH=/usr/local/bin:/usr/bin:/bin", (char *)"LC_ALL=C", NULL, NULL, NULL};
    struct child child = {.options = o, .envp = envp};
    struct child_status status = {.stage = -1};
    int r;

    if (null_fd < 0)
        return -errno;
    if ((r = fd_above_stdio(&null_fd)) < 0)
        return r;
    if (asprintf(&mark, "%s=%s", PROCESS_MARK_ENV, o->mark) < 0)
        return -ENOMEM;
    envp[2] = mark;
    if (asan && asprintf(&asan_env, "ASAN_OPTIONS=%s", asan) > 0)
        envp[3] = asan_env; /* sanitizer builds are told not to look for leaks this way */
    child.null_fd = null_fd;
    r = spawn_child(&child, ret, ret_pidfd, &status);
    if (o->ret_report)
        *o->ret_report = status.report;
    if (o->ret_failed_stage)
        *o->ret_failed_stage = r < 0 ? status.stage : -1;
    return r;
}

void process_describe_end(int pidfd, const struct process_id *p, char *dst, size_t size, bool *ret_failed)
{
    siginfo_t info = {0};

    dst[0] = '\0';
    *ret_failed = true;
    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT) < 0) {
        if (!p || !process_how_ended(p, &info.si_code, &info.si_status)) /* another thread has reaped it */
            return;
    } else if (info.si_pid == 0) {
        return;
    }
    if (info.si_code == CLD_EXITED) {
        (void)snprintf(dst, size, "with status %d", info.si_status);
        *ret_failed = info.si_status != 0;
    } else {
        (void)snprintf(dst, size, "by signal %d (%s)", info.si_status, sigdescr_np(info.si_status) ?: "unknown");
    }
}

int process_limit_files(const struct process_id *p, uint64_t bytes, uint64_t ceiling)
{
    _cleanup_(fd_closep) int fd = -1;
    struct rlimit limit;
    int r = process_open(p, &fd);

    if (r < 0)
        return r;
    if (prlimit(p->pid, RLIMIT_FSIZE, NULL, &limit) < 0)
        return -errno;
    limit.rlim_max = MIN((rlim_t)MAX(bytes, ceiling), limit.rlim_max);
    limit.rlim_cur = MIN((rlim_t)bytes, limit.rlim_max);
    return prlimit(p->pid, RLIMIT_FSIZE, &limit, NULL) < 0 ? -errno : 0;
}
