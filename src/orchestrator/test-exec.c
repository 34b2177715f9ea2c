/* SPDX-License-Identifier: Apache-2.0 */
/* The exec client against an agent played by a thread: what a good one does, and what a hostile one may try. */
#include "orchestrator/test-util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/session.h"
#include "orchestrator/table.h"
#include "orchestrator/vm.h"

struct agent {
    int listen_fd;
    pthread_t thread;
    char seen_env[256], seen_user[64];
    uint32_t seen_timeout;
};

static struct agent agent;
static struct table_entry entry;
static struct record record;
static ic_vm *vm;
static struct ic_error error;

static void send_buf(int fd, struct buf *b)
{
    assert_int_equal(b->error, 0);
    (void)fd_write_all(fd, b->data, b->len, DEADLINE_NEVER);
    buf_reset(b);
}

static void send_exit(int fd, uint32_t kind, uint32_t value)
{
    const struct wire_exit e = {.kind = kind, .value = value, .user_us = 5};
    struct buf b = {0};

    wire_put_exit(&b, &e);
    send_buf(fd, &b);
    buf_deinit(&b);
}

static void echo(int fd, struct wire_reader *reader)
{
    const uint8_t *payload;
    struct wire_frame frame;
    struct buf b = {0};

    while (session_next(fd, reader, DEADLINE_NEVER, &frame, &payload) == 0 && frame.type != WIRE_CLOSE_STDIN) {
        if (frame.type == WIRE_STDIN)
            wire_put_bytes(&b, WIRE_STDOUT, payload, frame.len);
        send_buf(fd, &b);
    }
    send_exit(fd, WIRE_EXIT_CODE, 0);
    buf_deinit(&b);
}

static void play_signals(int fd, struct wire_reader *reader)
{
    const uint8_t *payload;
    struct wire_frame frame;
    uint16_t rows = 0, cols = 0;
    uint8_t signo = 0;

    while (session_next(fd, reader, DEADLINE_NEVER, &frame, &payload) == 0) {
        if (frame.type == WIRE_RESIZE)
            (void)wire_get_resize(&rows, &cols, payload, frame.len);
        if (frame.type != WIRE_SIGNAL)
            continue;
        (void)wire_get_signal(&signo, payload, frame.len);
        send_exit(fd, WIRE_EXIT_SIGNAL, rows == 50 && cols == 132 ? signo : 1);
        return;
    }
}

static void flood(int fd)
{
    static char chunk[60000];
    struct buf b = {0};

    wire_put_bytes(&b, WIRE_STDOUT, chunk, sizeof(chunk));
    for (int i = 0; i < 200; i++) {
        if (fd_write_all(fd, b.data, b.len, DEADLINE_NEVER) < 0)
            break;
    }
    send_exit(fd, WIRE_EXIT_CODE, 0);
    buf_deinit(&b);
}

static void play(int fd, struct wire_reader *reader, const char *what)
{
    struct buf b = {0};

    if (strcmp(what, "missing") == 0)
        wire_put_error(&b, WIRE_E_NOT_FOUND, ENOENT, "no\x1b such");
    else if (strcmp(what, "nouser") == 0)
        wire_put_error(&b, WIRE_E_NO_USER, 0, "no such user");
    else if (strcmp(what, "early") == 0)
        wire_put_bytes(&b, WIRE_STDOUT, "x", 1); /* before STARTED */
    else
        wire_put_started(&b, 7);
    if (strcmp(what, "both") == 0) {
        wire_put_bytes(&b, WIRE_STDOUT, "out", 3);
        wire_put_bytes(&b, WIRE_STDERR, "err", 3);
        wire_put_bytes(&b, WIRE_STDOUT, "", 0);
    }
    if (strcmp(what, "put") == 0)
        wire_put_empty(&b, WIRE_OK); /* legal in another session */
    if (strcmp(what, "huge") == 0)
        buf_put(&b, "\xff\xff\xff\xff\x14", 5);
    send_buf(fd, &b);
    buf_deinit(&b);
    if (strcmp(what, "both") == 0)
        send_exit(fd, WIRE_EXIT_CODE, 7);
    else if (strcmp(what, "echo") == 0)
        echo(fd, reader);
    else if (strcmp(what, "signals") == 0)
        play_signals(fd, reader);
    else if (strcmp(what, "flood") == 0)
        flood(fd);
    else if (strcmp(what, "timeout") == 0)
        send_exit(fd, WIRE_EXIT_TIMEOUT, SIGKILL);
    else if (strcmp(what, "silent") == 0)
        (void)fd_wait(fd, POLLHUP, deadline_after_ms(5000));
}

static void remember(const struct wire_exec *exec)
{
    size_t len = 0;

    agent.seen_env[0] = '\0';
    for (uint32_t i = 0; i < exec->envc; i++)
        len += (size_t)snprintf(
                agent.seen_env + len, sizeof(agent.seen_env) - len, "%.*s,", (int)exec->env[i].len, exec->env[i].s);
    (void)snprintf(agent.seen_user, sizeof(agent.seen_user), "%.*s", (int)exec->user.len, exec->user.s);
    agent.seen_timeout = exec->timeout_ms;
}

static void serve(int fd)
{
    static const char connect_line[] = "CONNECT 1024\n";
    struct wire_reader reader = {0};
    char line[sizeof(connect_line)] = "", what[32];
    const uint8_t *payload;
    struct wire_frame frame;
    struct wire_exec exec;

    if (fd_read_all(fd, line, sizeof(connect_line) - 1, DEADLINE_NEVER) < 0)
        return;
    assert_string_equal(line, connect_line);
    /* In two parts, with the first frame's sender not knowing where the line ends. */
    (void)fd_write_all(fd, "OK 1073741824\n", 14, DEADLINE_NEVER);
    if (session_next(fd, &reader, DEADLINE_NEVER, &frame, &payload) == 0 && frame.type == WIRE_HELLO &&
            session_next(fd, &reader, DEADLINE_NEVER, &frame, &payload) == 0 && frame.type == WIRE_EXEC &&
            wire_get_exec(&exec, payload, frame.len) == 0) {
        remember(&exec);
        (void)snprintf(what, sizeof(what), "%.*s", (int)exec.argv[0].len, exec.argv[0].s);
        wire_exec_deinit(&exec);
        play(fd, &reader, what);
    }
    wire_reader_deinit(&reader);
}

static void *agent_main(void *arg)
{
    for (;;) {
        int fd = accept(agent.listen_fd, NULL, NULL);

        if (fd < 0)
            return NULL;
        serve(fd);
        close(fd);
    }
}

static int setup(void **state)
{
    char path[200];

    if (home_setup(state) < 0)
        return -1;
    record = sample_record("vm");
    record.env = calloc(3, sizeof(*record.env));
    record.env[0] = strdup("PATH=/bin");
    record.env[1] = strdup("A=image");
    record.user = strdup("agent");
    record.timeout_ms = 1234;
    record.monitor = record.vsock = record.creator;
    assert_int_equal(table_claim(&entry, &record, NULL, &error), 0);
    assert_int_equal(table_make_run_dir(&entry, &record, &error), 0);
    assert_int_equal(table_change(&entry, &record, IC_VM_BOOTING, "test", &error), 0);
    assert_int_equal(table_change(&entry, &record, IC_VM_READY, "test", &error), 0);
    (void)snprintf(path, sizeof(path), "%s/v", record.run_dir);
    assert_int_equal(unix_listen(path, 16, &agent.listen_fd), 0);
    assert_int_equal(pthread_create(&agent.thread, NULL, agent_main, NULL), 0);
    return vm_new("vm", &vm, &error);
}

static int teardown(void **state)
{
    (void)shutdown(agent.listen_fd, SHUT_RDWR);
    pthread_join(agent.thread, NULL);
    close(agent.listen_fd);
    ic_vm_free(vm);
    (void)table_remove(&entry, &record, NULL);
    record_deinit(&record);
    return home_teardown(state);
}

static int run(const char *what, int in, int out, int err, struct ic_exec_result *ret)
{
    const char *argv[] = {what, NULL};
    struct ic_exec_options o;

    ic_exec_options_init(&o);
    o.argv = argv;
    o.stdin_fd = in;
    o.stdout_fd = out;
    o.stderr_fd = err;
    memset(&error, 0, sizeof(error));
    return ic_vm_exec(vm, &o, ret, &error);
}

static void keeps_the_streams_apart(void **state)
{
    struct ic_exec_result result;
    char text[16] = "";
    int out[2], err[2];

    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(err), 0);
    assert_int_equal(run("both", -1, out[1], err[1], &result), 0);
    assert_int_equal(result.outcome, IC_EXEC_EXITED);
    assert_int_equal(result.status, 7);
    assert_int_equal(result.user_us, 5);
    assert_int_equal(read(out[0], text, sizeof(text)), 3);
    assert_memory_equal(text, "out", 3);
    assert_int_equal(read(err[0], text, sizeof(text)), 3);
    assert_memory_equal(text, "err", 3);
    for (int i = 0; i < 2; i++) {
        close(out[i]);
        close(err[i]);
    }
    assert_int_equal(run("both", -1, -1, -1, NULL), 0);
    assert_string_equal(agent.seen_env, "PATH=/bin,A=image,");
    assert_string_equal(agent.seen_user, "agent");
    assert_int_equal(agent.seen_timeout, 1234);
}

static void request_wins(void **state)
{
    const char *argv[] = {"both", NULL}, *env[] = {"A=mine", "B=2", NULL};
    struct ic_exec_options o;

    ic_exec_options_init(&o);
    o.argv = argv;
    o.env = env;
    o.user = "0";
    o.no_timeout = true;
    assert_int_equal(ic_vm_exec(vm, &o, NULL, &error), 0);
    assert_string_equal(agent.seen_env, "PATH=/bin,A=mine,B=2,");
    assert_string_equal(agent.seen_user, "0");
    assert_int_equal(agent.seen_timeout, 0);
    env[1] = "novalue";
    assert_int_equal(ic_vm_exec(vm, &o, NULL, &error), -IC_ERR_INVALID);
    env[1] = NULL;
    o.cwd = "relative";
    assert_int_equal(ic_vm_exec(vm, &o, NULL, &error), -IC_ERR_INVALID);
    argv[0] = NULL;
    o.cwd = NULL;
    assert_int_equal(ic_vm_exec(vm, &o, NULL, &error), -IC_ERR_INVALID);
}

/* Both outputs count; what is within the limit comes, and the agent sees the session end. */
static void stops_at_the_output_limit(void **state)
{
    static const struct {
        const char *what;
        uint32_t vms, own;
        bool none;
        int status, bytes[2];
    } cases[] = {
            {"both", 6, 0, false, 7, {3, 3}},
            {"both", 5, 0, false, 125, {3, 2}},
            {"both", 2, 0, false, 125, {2, 0}},
            {"both", 2, 6, false, 7, {3, 3}},
            {"both", 2, 0, true, 7, {3, 3}},
            {"flood", 100, 0, false, 125, {100, 0}},
            {"flood", 0, 60000, false, 125, {60000, 0}},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *argv[] = {cases[i].what, NULL};
        int fds[2] = {memfd_create("out", MFD_CLOEXEC), memfd_create("err", MFD_CLOEXEC)};
        struct ic_exec_result result;
        struct ic_exec_options o;

        ic_exec_options_init(&o);
        o.argv = argv;
        o.stdout_fd = fds[0];
        o.stderr_fd = fds[1];
        o.max_output_bytes = cases[i].own;
        o.no_max_output = cases[i].none;
        record.max_output_bytes = cases[i].vms;
        assert_int_equal(table_write(&entry, &record, &error), 0);
        assert_int_equal(ic_vm_exec(vm, &o, &result, &error), 0);
        assert_int_equal(result.status, cases[i].status);
        assert_int_equal(result.outcome == IC_EXEC_OUTPUT_LIMIT, result.status == 125);
        for (int f = 0; f < 2; f++) {
            assert_int_equal(lseek(fds[f], 0, SEEK_END), cases[i].bytes[f]);
            close(fds[f]);
        }
        if (result.status == 125)
            assert_non_null(strstr(result.message, "(max_output_bytes)"));
    }
    /* Output that nobody wants counts as well. */
    record.max_output_bytes = 5;
    assert_int_equal(table_write(&entry, &record, &error), 0);
    assert_int_equal(run("both", -1, -1, -1, NULL), 0);
    record.max_output_bytes = 0;
    assert_int_equal(table_write(&entry, &record, &error), 0);
}

#define ECHO_BYTES (3u << 20)

static void *feed(void *arg)
{
    int fd = *(int *)arg;
    uint8_t chunk[4099];

    for (size_t sent = 0; sent < ECHO_BYTES;) {
        size_t n = MIN(sizeof(chunk), ECHO_BYTES - sent);

        for (size_t i = 0; i < n; i++)
            chunk[i] = (uint8_t)((sent + i) * 2654435761u >> 13);
        assert_int_equal(fd_write_all(fd, chunk, n, DEADLINE_NEVER), 0);
        sent += n;
    }
    close(fd);
    return NULL;
}

static void *drain(void *arg)
{
    int fd = *(int *)arg;
    static size_t got;
    uint8_t chunk[8192];
    ssize_t n;

    for (got = 0; (n = read(fd, chunk, sizeof(chunk))) > 0; got += (size_t)n) {
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(chunk[i], (uint8_t)((got + (size_t)i) * 2654435761u >> 13));
        if (got % 7 == 0)
            usleep(100); /* a reader that is slow at times */
    }
    return &got;
}

static void carries_bytes_both_ways(void **state)
{
    struct ic_exec_result result;
    pthread_t feeder, drainer;
    int in[2], out[2];
    void *got;

    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pthread_create(&feeder, NULL, feed, &in[1]), 0);
    assert_int_equal(pthread_create(&drainer, NULL, drain, &out[0]), 0);
    assert_int_equal(run("echo", in[0], out[1], -1, &result), 0);
    assert_int_equal(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(fcntl(in[0], F_GETFL) & O_NONBLOCK, 0);
    close(out[1]);
    pthread_join(feeder, NULL);
    pthread_join(drainer, &got);
    assert_int_equal(*(size_t *)got, ECHO_BYTES);
    close(in[0]);
    close(out[0]);
}

static void takes_files_and_closed_input(void **state)
{
    struct ic_exec_result result;
    int null = open("/dev/null", O_RDONLY), file = open("/proc/self/exe", O_RDONLY);
    FILE *out = tmpfile();

    assert_int_equal(run("echo", null, -1, -1, &result), 0);
    assert_int_equal(run("echo", 987, -1, -1, &result), 0); /* not open */
    assert_int_equal(run("echo", file, fileno(out), -1, &result), 0);
    assert_int_equal(lseek(fileno(out), 0, SEEK_END), lseek(file, 0, SEEK_END));
    (void)fclose(out);
    close(null);
    close(file);
}

static void ends_quietly_when_nobody_reads(void **state)
{
    struct ic_exec_result result;
    int out[2];

    for (int i = 0; i < 2; i++) {
        assert_int_equal(i == 0 ? pipe(out) : socketpair(AF_UNIX, SOCK_STREAM, 0, out), 0);
        close(out[0]);
        assert_int_equal(run("flood", -1, out[1], -1, &result), 0);
        assert_int_equal(result.outcome, IC_EXEC_SIGNALED);
        assert_int_equal(result.status, 128 + SIGPIPE);
        close(out[1]);
    }
    out[0] = open("/dev/full", O_WRONLY);
    assert_int_equal(run("flood", -1, out[0], -1, &result), -IC_ERR_NO_SPACE);
    assert_non_null(strstr(error.message, "standard output"));
    close(out[0]);
}

/* The reader is there but does not read, and the VM goes away: its client must go too. */
static void notices_the_end_behind_unread_output(void **state)
{
    struct ic_exec_result result;
    struct process_id monitor = record.monitor;
    int out[2];

    assert_int_equal(pipe(out), 0);
    record.monitor.start_ticks++; /* no such process any more */
    assert_int_equal(table_write(&entry, &record, &error), 0);
    assert_int_equal(run("flood", -1, out[1], -1, &result), -IC_ERR_BACKEND);
    assert_non_null(strstr(error.message, "has ended"));
    record.monitor = monitor;
    assert_int_equal(table_write(&entry, &record, &error), 0);
    close(out[0]);
    close(out[1]);
}

static void *cancel_soon(void *arg)
{
    usleep(20000);
    ic_exec_cancel(arg);
    return NULL;
}

static void takes_signals_and_cancellation(void **state)
{
    const char *argv[] = {"signals", NULL};
    struct ic_exec_result result;
    struct ic_exec_options o;
    pthread_t thread;
    ic_exec *exec;

    ic_exec_options_init(&o);
    o.argv = argv;
    assert_int_equal(ic_vm_exec_start(vm, &o, &exec, &error), 0);
    ic_exec_resize(exec, 50, 132);
    ic_exec_signal(exec, 0); /* nonsense is dropped */
    ic_exec_signal(exec, SIGINT);
    assert_int_equal(ic_exec_wait(exec, &result, &error), 0);
    assert_int_equal(result.outcome, IC_EXEC_SIGNALED);
    assert_int_equal(result.status, 128 + SIGINT);
    assert_int_equal(ic_exec_wait(exec, &result, &error), -IC_ERR_STATE);
    ic_exec_free(exec);

    argv[0] = "silent";
    assert_int_equal(ic_vm_exec_start(vm, &o, &exec, &error), 0);
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, exec), 0);
    assert_int_equal(ic_exec_wait(exec, &result, &error), -IC_ERR_CANCELLED);
    pthread_join(thread, NULL);
    ic_exec_free(exec);
}

static void tells_outcomes_apart(void **state)
{
    struct ic_exec_result result;

    assert_int_equal(run("missing", -1, -1, -1, &result), 0);
    assert_int_equal(result.outcome, IC_EXEC_NOT_FOUND);
    assert_int_equal(result.status, 127);
    assert_string_equal(result.message, "no\\x1b such");
    assert_int_equal(run("timeout", -1, -1, -1, &result), 0);
    assert_int_equal(result.outcome, IC_EXEC_TIMED_OUT);
    assert_int_equal(result.status, 124);
    assert_int_equal(run("nouser", -1, -1, -1, &result), -IC_ERR_GUEST);
    assert_int_equal(run("early", -1, -1, -1, &result), -IC_ERR_PROTOCOL);
    assert_int_equal(run("put", -1, -1, -1, &result), -IC_ERR_PROTOCOL);
    assert_int_equal(run("huge", -1, -1, -1, &result), -IC_ERR_PROTOCOL);
    assert_int_equal(run("hangup", -1, -1, -1, &result), -IC_ERR_GUEST);
    assert_non_null(strstr(error.message, "ended the connection"));
}

static void refuses_vms_that_do_not_run(void **state)
{
    struct ic_exec_result result;

    assert_int_equal(table_change(&entry, &record, IC_VM_PAUSED, "test", &error), 0);
    assert_int_equal(run("both", -1, -1, -1, &result), -IC_ERR_STATE);
    assert_non_null(strstr(error.message, "unpause"));
    assert_int_equal(table_change(&entry, &record, IC_VM_READY, "test", &error), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(keeps_the_streams_apart),
            cmocka_unit_test(request_wins),
            cmocka_unit_test(stops_at_the_output_limit),
            cmocka_unit_test(carries_bytes_both_ways),
            cmocka_unit_test(takes_files_and_closed_input),
            cmocka_unit_test(ends_quietly_when_nobody_reads),
            cmocka_unit_test(notices_the_end_behind_unread_output),
            cmocka_unit_test(takes_signals_and_cancellation),
            cmocka_unit_test(tells_outcomes_apart),
            cmocka_unit_test(refuses_vms_that_do_not_run),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
