/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/images/guard.h"
#include "orchestrator/images/text.h"

#define TICK_MS       100
#define END_WAIT_MS   10000
#define TAIL_BYTES    4096
#define SUMMARY_BYTES 600 /* of it in a message */

/* The end of what a tool wrote on stderr. */
struct tail {
    char data[TAIL_BYTES + 1];
    size_t len;
};

struct running {
    const struct subprocess *process;
    pid_t pid;    /* the guard's */
    int out, err; /* read ends; -1 once closed */
    char line[1024];
    size_t line_len;
    struct tail tail;
};

int subprocess_find(const char *program, const char *package, char **ret, struct ic_error *error)
{
    const char *path = getenv("PATH");
    _cleanup_(freep) char *dirs = NULL;
    char *save = NULL;
    int r;

    if (strchr(program, '/')) {
        r = text_format(ret, error, "%s", program);
        return r;
    }
    r = text_format(&dirs, error, "%s:/usr/sbin:/sbin:/usr/bin:/bin", path ? path : "");
    if (r < 0)
        return r;
    for (char *dir = strtok_r(dirs, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
        _cleanup_(freep) char *candidate = NULL;

        r = text_format(&candidate, error, "%s/%s", dir, program);
        if (r < 0)
            return r;
        if (dir[0] == '/' && access(candidate, X_OK) == 0) {
            *ret = TAKE_PTR(candidate);
            return 0;
        }
    }
    return ic_fail(error, IC_ERR_NOT_FOUND, "%s is not installed; run 'apt-get install %s'", program,
            package ? package : program);
}

/* The caller's environment with LC_ALL=C and the given variables in place of its own. Free the array only. */
static int make_env(const char *const *extra, const char ***ret, struct ic_error *error)
{
    size_t own = 0, more = 0, n = 0;
    const char **env;

    while (environ && environ[own])
        own++;
    while (extra && extra[more])
        more++;
    env = calloc(own + more + 2, sizeof(*env));
    if (!env)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    env[n++] = "LC_ALL=C";
    for (size_t i = 0; i < more; i++)
        env[n++] = extra[i];
    for (size_t i = 0; i < own; i++) {
        size_t name = strcspn(environ[i], "=") + 1;
        bool replaced = false;

        for (size_t j = 0; j < more + 1 && !replaced; j++)
            replaced = strncmp(environ[i], env[j], name) == 0;
        if (!replaced)
            env[n++] = environ[i];
    }
    *ret = env;
    return 0;
}

static void tail_add(struct tail *tail, const char *data, size_t len)
{
    size_t drop;

    if (len > TAIL_BYTES) {
        data += len - TAIL_BYTES;
        len = TAIL_BYTES;
    }
    drop = tail->len + len > TAIL_BYTES ? tail->len + len - TAIL_BYTES : 0;
    memmove(tail->data, tail->data + drop, tail->len - drop);
    tail->len -= drop;
    memcpy(tail->data + tail->len, data, len);
    tail->len += len;
    tail->data[tail->len] = '\0';
}

/* The start of the first line that says what went wrong, or else of the last few lines. */
static const char *tail_start(const struct tail *tail)
{
    static const char *const marks[] = {"error:", "E: ", "fatal:"};
    const char *start = tail->data + (tail->len > SUMMARY_BYTES ? tail->len - SUMMARY_BYTES : 0);
    const char *newline = strchr(start, '\n');

    if (start > tail->data && newline && newline[1])
        start = newline + 1;
    for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
        const char *found = strstr(tail->data, marks[i]);

        while (found && found > tail->data && found[-1] != '\n')
            found--;
        if (found && found < start)
            start = found;
    }
    return start;
}

/* Lines that fit a message, joined by "; ". */
static const char *tail_summary(const struct tail *tail, char *out, size_t size)
{
    size_t n = 0;

    for (const char *p = tail_start(tail); *p && n + 3 < size && n < SUMMARY_BYTES; p++) {
        if (*p != '\n' && *p != '\r') {
            out[n++] = *p;
        } else if (n > 0 && p[1] && p[1] != '\n' && p[1] != '\r') {
            out[n++] = ';';
            out[n++] = ' ';
        }
    }
    out[n] = '\0';
    return out;
}

static int take_lines(struct running *run, const char *data, size_t len, struct ic_error *error)
{
    for (size_t i = 0; i < len; i++) {
        int r;

        if (data[i] != '\n') {
            if (run->line_len + 1 < sizeof(run->line))
                run->line[run->line_len++] = data[i];
            continue;
        }
        run->line[run->line_len] = '\0';
        run->line_len = 0;
        r = run->process->line(run->process->userdata, run->line, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int take_output(struct running *run, int *fd, struct ic_error *error)
{
    const struct subprocess *process = run->process;
    char data[16384];
    ssize_t n = read(*fd, data, sizeof(data));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n <= 0) {
        fd_close(*fd);
        *fd = -1;
        return 0;
    }
    if (fd == &run->err) {
        tail_add(&run->tail, data, (size_t)n);
        if (process->line && process->line_from_stderr)
            return take_lines(run, data, (size_t)n, error);
    } else if (process->output) {
        buf_put(process->output, data, (size_t)n);
        if (process->output->error)
            return ic_fail(error, IC_ERR_IO, "%s: more output than expected", process->argv[0]);
    } else if (process->line && !process->line_from_stderr) {
        return take_lines(run, data, (size_t)n, error);
    }
    return 0;
}

/* Ends when the guard is gone, which is after everything that the tool started. */
static int follow(struct running *run, int *ret_wstatus, struct ic_error *error)
{
    bool gone = false;

    for (;;) {
        struct pollfd fds[2] = {{.fd = run->out, .events = POLLIN}, {.fd = run->err, .events = POLLIN}};
        int n, r = 0;

        n = poll(fds, 2, gone ? 0 : TICK_MS);
        if (n > 0 && fds[0].revents)
            r = take_output(run, &run->out, error);
        if (r == 0 && n > 0 && fds[1].revents)
            r = take_output(run, &run->err, error);
        if (r == 0 && run->process->tick)
            r = run->process->tick(run->process->userdata, error);
        if (r != 0)
            return r;
        if (gone && n <= 0)
            return 0;
        if (!gone) {
            pid_t pid =
                    waitpid(run->pid, ret_wstatus, (run->out < 0 && run->err < 0 && !run->process->tick) ? 0 : WNOHANG);

            if (pid < 0 && errno != EINTR)
                return ic_fail_errno(error, -errno, "%s: wait", run->process->argv[0]);
            gone = pid == run->pid;
            if (!gone && run->out < 0 && run->err < 0)
                (void)poll(NULL, 0, TICK_MS / 5);
        }
    }
}

/* Asks the guard to end the tool, which takes at most its own TERM_WAIT_MS and a little. */
static void end_tool(pid_t guard)
{
    uint64_t deadline = deadline_after_ms(END_WAIT_MS);
    bool gone = false;

    (void)kill(guard, SIGTERM);
    while (!gone && clock_now_ms() < deadline) {
        pid_t r = waitpid(guard, NULL, WNOHANG);

        gone = r == guard || (r < 0 && errno == ECHILD);
        if (!gone)
            (void)poll(NULL, 0, 20);
    }
    if (!gone) {
        (void)kill(guard, SIGKILL);
        (void)waitpid(guard, NULL, 0);
    }
}

static int judge(struct running *run, int wstatus, struct ic_error *error)
{
    const char *name = run->process->argv[0];
    char text[640];

    if (WIFEXITED(wstatus) && run->process->ret_status) {
        *run->process->ret_status = WEXITSTATUS(wstatus);
        return 0;
    }
    if (WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == 0)
        return 0;
    (void)tail_summary(&run->tail, text, sizeof(text));
    if (strstr(run->tail.data, "No space left on device") || strstr(run->tail.data, "not have enough free space"))
        return ic_fail(error, IC_ERR_NO_SPACE, "%s: the disk is full: %s", name, text);
    if (WIFSIGNALED(wstatus))
        return ic_fail(error, IC_ERR_IO, "%s: ended by signal %d: %s", name, WTERMSIG(wstatus), text);
    return ic_fail(error, IC_ERR_IO, "%s: failed with status %d: %s", name, WEXITSTATUS(wstatus),
            text[0] ? text : "no message");
}

static int start(struct running *run, const char *path, const char **env, struct ic_error *error)
{
    const struct subprocess *process = run->process;
    int out[2] = {-1, -1}, err[2] = {-1, -1}, report[2] = {-1, -1}, failure = 0;
    bool want_out = process->stdout_fd == 0 && (process->output || (process->line && !process->line_from_stderr));
    pid_t parent = getpid();
    ssize_t n;

    struct guard_tool tool = {
            .path = path,
            .argv = (char *const *)process->argv,
            .env = (char *const *)env,
            .cwd = process->cwd,
            .stdin_fd = process->stdin_fd > 0 ? process->stdin_fd : -1,
    };

    if ((want_out && pipe2(out, O_CLOEXEC) < 0) || pipe2(err, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0) {
        failure = errno;
    } else {
        tool.stdout_fd = process->stdout_fd > 0 ? process->stdout_fd : out[1];
        tool.stderr_fd = err[1];
        tool.report_fd = report[1];
        run->pid = _Fork();
        if (run->pid == 0)
            guard_main(&tool, parent);
        failure = run->pid < 0 ? errno : 0;
    }
    fd_close(out[1]);
    fd_close(err[1]);
    fd_close(report[1]);
    run->out = out[0];
    run->err = err[0];
    if (failure == 0) {
        do
            n = read(report[0], &failure, sizeof(failure));
        while (n < 0 && errno == EINTR);
        if (n == (ssize_t)sizeof(failure))
            (void)waitpid(run->pid, NULL, 0);
        else
            failure = 0;
    }
    fd_close(report[0]);
    return failure ? ic_fail_errno(error, -failure, "%s: can't be started", path) : 0;
}

int subprocess_run(const struct subprocess *process, struct ic_error *error)
{
    struct running run = {.process = process, .pid = -1, .out = -1, .err = -1};
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) const char **env = NULL;
    int r, wstatus = 0;

    r = subprocess_find(process->argv[0], process->package, &path, error);
    if (r == 0)
        r = make_env(process->env, &env, error);
    if (r != 0)
        return r;
    r = start(&run, path, env, error);
    if (r == 0) {
        r = follow(&run, &wstatus, error);
        if (r < 0)
            end_tool(run.pid);
    }
    fd_close(run.out);
    fd_close(run.err);
    if (r < 0)
        return r;
    if (process->output) {
        buf_put_u8(process->output, 0);
        if (process->output->error)
            return ic_fail(error, IC_ERR_IO, "%s: more output than expected", process->argv[0]);
        process->output->len--;
    }
    return judge(&run, wstatus, error);
}
