/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's commands, end to end over a unix socket: the real program with real children. */
#include "agent/test-client.h"

#include <fcntl.h>
#include <sys/stat.h>

static int run(struct client *c, const struct run *run)
{
    client_exec(c, run);
    return client_wait(c);
}

static void a_command_gives_its_output_and_its_code(void **state)
{
    struct client c;

    assert_int_equal(run(&c, &(struct run){.argv = {"sh", "-c", "echo out; echo err >&2; exit 7"}}), WIRE_EXIT);
    assert_string_equal(client_stdout(&c), "out\n");
    assert_int_equal(c.stderr_bytes.len, 4);
    assert_int_equal(c.exit.kind, WIRE_EXIT_CODE);
    assert_int_equal(c.exit.value, 7);
    assert_int_equal(client_step(&c), 0);
    client_close(&c);
}

static void a_signal_ends_it_as_a_signal(void **state)
{
    struct client c;

    assert_int_equal(run(&c, &(struct run){.argv = {"sh", "-c", "kill -USR1 $$"}}), WIRE_EXIT);
    assert_int_equal(c.exit.kind, WIRE_EXIT_SIGNAL);
    assert_int_equal(c.exit.value, SIGUSR1);
    client_close(&c);
}

static void expect_error(const struct run *request, int code)
{
    struct client c;

    assert_int_equal(run(&c, request), WIRE_ERROR);
    assert_int_equal(c.error.code, code);
    assert_true(strlen(c.message) > 0);
    assert_int_equal(client_step(&c), 0);
    client_close(&c);
}

static void what_can_not_start_says_why(void **state)
{
    expect_error(&(struct run){.argv = {"no-such-program"}}, WIRE_E_NOT_FOUND);
    expect_error(&(struct run){.argv = {"/no/such/program"}}, WIRE_E_NOT_FOUND);
    expect_error(&(struct run){.argv = {"/etc/passwd"}}, WIRE_E_NOT_EXECUTABLE);
    expect_error(&(struct run){.argv = {"/etc"}}, WIRE_E_NOT_EXECUTABLE);
    expect_error(&(struct run){.argv = {"true"}, .cwd = "/no/such/dir"}, WIRE_E_NO_CWD);
    expect_error(&(struct run){.argv = {"true"}, .user = "no-such-user"}, WIRE_E_NO_USER);
}

static void environment_and_directory_are_the_request_s(void **state)
{
    struct client c;

    assert_int_equal(run(&c, &(struct run){.argv = {"sh", "-c", "echo $A $B $LANG; pwd; umask"},
                                     .env = {"A=1", "B=x y", "A=2"},
                                     .cwd = "/usr"}),
            WIRE_EXIT);
    assert_non_null(strstr(client_stdout(&c), "2 x y C.UTF-8\n/usr\n"));
    client_close(&c);
}

static void without_rights_to_gain_and_without_signals_blocked(void **state)
{
    const char *ignored;
    struct client c;

    assert_int_equal(run(&c, &(struct run){.argv = {"grep", "-E", "^(SigBlk|SigIgn|NoNewPrivs|CapEff|CapPrm|CapAmb):",
                                                   "/proc/self/status"}}),
            WIRE_EXIT);
    assert_non_null(strstr(client_stdout(&c), "SigBlk:\t0000000000000000\n"));
    ignored = strstr(client_stdout(&c), "SigIgn:\t");
    assert_non_null(ignored);
    /* Without 32 and 33: the C library's own, which posix_spawn leaves ignored in what it starts, as make does us. */
    assert_int_equal(strtoull(ignored + strlen("SigIgn:\t"), NULL, 16) & ~0x180000000ull, 0);
    if (geteuid() == 0) {
        assert_non_null(strstr(client_stdout(&c), "NoNewPrivs:\t1\n"));
        assert_non_null(strstr(client_stdout(&c), "CapPrm:\t0000000000000000\n"));
        assert_non_null(strstr(client_stdout(&c), "CapEff:\t0000000000000000\n"));
        assert_non_null(strstr(client_stdout(&c), "CapAmb:\t0000000000000000\n"));
    }
    client_close(&c);
}

static void it_has_the_filter_that_was_asked_for(void **state)
{
    struct client c;

    assert_int_equal(run(&c, &(struct run){.argv = {"grep", "^Seccomp:", "/proc/self/status"}}), WIRE_EXIT);
    /* This test may have one of its own, which hides that there is none of the agent's. */
    if (agent_level || strstr(client_stdout(&c), "0"))
        assert_string_equal(client_stdout(&c), agent_level ? "Seccomp:\t2\n" : "Seccomp:\t0\n");
    client_close(&c);
    assert_int_equal(run(&c, &(struct run){.argv = {"unshare", "-U", "true"}}), WIRE_EXIT);
    if (agent_level)
        assert_int_equal(c.exit.value, 1);
    client_close(&c);
}

static void no_descriptor_leaks_into_a_command(void **state)
{
    struct client c;

    assert_int_equal(run(&c, &(struct run){.argv = {"sh", "-c", "echo /proc/self/fd/*"}}), WIRE_EXIT);
    /* 0, 1, 2 and at most the shell's own for the listing */
    assert_null(strstr(client_stdout(&c), "/4"));
    client_close(&c);
}

static void stdin_reaches_it_and_ends(void **state)
{
    struct client c;

    client_exec(&c, &(struct run){.argv = {"cat"}, .flags = WIRE_EXEC_STDIN});
    wire_put_bytes(&c.out, WIRE_STDIN, "hello", 5);
    wire_put_empty(&c.out, WIRE_CLOSE_STDIN);
    client_send(&c);
    assert_int_equal(client_wait(&c), WIRE_EXIT);
    assert_string_equal(client_stdout(&c), "hello");
    client_close(&c);
    assert_int_equal(run(&c, &(struct run){.argv = {"cat"}}), WIRE_EXIT); /* /dev/null */
    assert_int_equal(c.stdout_bytes.len, 0);
    client_close(&c);
}

static void sixteen_mebibytes_go_through_cat(void **state)
{
    enum { FRAMES = 256 };
    _cleanup_(freep) uint8_t *block = malloc(WIRE_MAX_STREAM);
    struct client c;
    pid_t writer;
    int status;

    client_exec(&c, &(struct run){.argv = {"cat"}, .flags = WIRE_EXEC_STDIN});
    writer = fork();
    if (writer == 0) {
        for (uint32_t i = 0; i < FRAMES; i++) {
            for (size_t j = 0; j < WIRE_MAX_STREAM; j++)
                block[j] = (uint8_t)(i * 31 + j * 7 + (j >> 8));
            wire_put_bytes(&c.out, WIRE_STDIN, block, WIRE_MAX_STREAM);
            if (fd_write_all(c.fd, c.out.data, c.out.len, DEADLINE_NEVER) < 0)
                _exit(1);
            buf_reset(&c.out);
        }
        wire_put_empty(&c.out, WIRE_CLOSE_STDIN);
        _exit(fd_write_all(c.fd, c.out.data, c.out.len, DEADLINE_NEVER) < 0);
    }
    assert_int_equal(client_wait(&c), WIRE_EXIT);
    assert_int_equal(waitpid(writer, &status, 0), writer);
    assert_int_equal(status, 0);
    assert_int_equal(c.stdout_bytes.len, (size_t)FRAMES * WIRE_MAX_STREAM);
    for (size_t k = 0; k < c.stdout_bytes.len; k++) {
        size_t i = k / WIRE_MAX_STREAM, j = k % WIRE_MAX_STREAM;

        if (c.stdout_bytes.data[k] != (uint8_t)(i * 31 + j * 7 + (j >> 8)))
            fail_msg("byte %zu differs", k);
    }
    client_close(&c);
}

static void a_full_stdin_blocks_only_its_session(void **state)
{
    _cleanup_(freep) uint8_t *block = calloc(1, WIRE_MAX_STREAM);
    struct client c, other;
    size_t sent = 0;

    client_exec(&c, &(struct run){.argv = {"sleep", "100"}, .flags = WIRE_EXEC_STDIN});
    assert_int_equal(client_step(&c), WIRE_STARTED);
    assert_int_equal(fd_set_nonblock(c.fd, true), 0);
    while (fd_wait(c.fd, POLLOUT, deadline_after_ms(300)) == 0) {
        ssize_t n;

        wire_put_bytes(&c.out, WIRE_STDIN, block, WIRE_MAX_STREAM);
        n = send(c.fd, c.out.data, c.out.len, MSG_NOSIGNAL);
        if (n > 0) {
            sent += (size_t)n;
            buf_consume(&c.out, (size_t)n);
        }
        assert_true(sent < 16 << 20);
    }
    assert_true(sent > 256 << 10);
    assert_int_equal(run(&other, &(struct run){.argv = {"true"}}), WIRE_EXIT);
    client_close(&other);
    client_close(&c);
}

static void an_unread_output_blocks_only_its_session(void **state)
{
    struct client c, other;

    client_exec(&c, &(struct run){.argv = {"head", "-c", "8000000", "/dev/zero"}});
    (void)usleep(300000);
    assert_int_equal(run(&other, &(struct run){.argv = {"true"}}), WIRE_EXIT);
    client_close(&other);
    assert_int_equal(client_wait(&c), WIRE_EXIT);
    assert_int_equal(c.stdout_bytes.len, 8000000);
    client_close(&c);
}

static void output_at_the_exit_is_not_lost_on_a_slow_host(void **state)
{
    struct client c;

    /* More than the session holds, less than session and pipe together: it exits at once and its output waits. */
    client_exec(&c, &(struct run){.argv = {"sh", "-c", "head -c 300000 /dev/zero; sleep 30 & exit 3"}});
    (void)usleep(500000);
    assert_int_equal(client_wait(&c), WIRE_EXIT);
    assert_int_equal(c.stdout_bytes.len, 300000);
    assert_int_equal(c.exit.value, 3);
    client_close(&c);
}

static void a_background_process_does_not_hold_the_exit(void **state)
{
    struct client c;
    uint64_t start = clock_now_ms();

    assert_int_equal(run(&c, &(struct run){.argv = {"sh", "-c", "sleep 5 & echo hi"}}), WIRE_EXIT);
    assert_true(clock_now_ms() - start < 3000);
    assert_string_equal(client_stdout(&c), "hi\n");
    client_close(&c);
}

static void a_timeout_is_term_then_kill(void **state)
{
    struct client c;
    uint64_t start = clock_now_ms();

    assert_int_equal(run(&c, &(struct run){.argv = {"sleep", "100"}, .timeout_ms = 100}), WIRE_EXIT);
    assert_int_equal(c.exit.kind, WIRE_EXIT_TIMEOUT);
    assert_int_equal(c.exit.value, SIGTERM);
    client_close(&c);
    assert_int_equal(run(&c, &(struct run){.argv = {"sh", "-c", "trap '' TERM; sleep 100; sleep 100"},
                                     .timeout_ms = 100,
                                     .kill_grace_ms = 200}),
            WIRE_EXIT);
    assert_int_equal(c.exit.kind, WIRE_EXIT_TIMEOUT);
    assert_int_equal(c.exit.value, SIGKILL);
    client_close(&c);
    assert_true(clock_now_ms() - start < 10000);
}

static bool gone_within(pid_t pid, uint64_t ms)
{
    uint64_t deadline = deadline_after_ms(ms);

    while (deadline_poll_ms(deadline) > 0) {
        if (kill(pid, 0) < 0 && errno == ESRCH)
            return true;
        (void)usleep(5000);
    }
    return false;
}

static void a_lost_connection_kills_the_command(void **state)
{
    struct client c;
    pid_t child;

    client_exec(&c, &(struct run){.argv = {"sh", "-c", "sleep 100 & echo $!; wait"}});
    client_wait_output(&c, "\n");
    child = (pid_t)strtol(client_stdout(&c), NULL, 10);
    assert_true(child > 1 && c.pid > 1);
    client_close(&c);
    assert_true(gone_within((pid_t)c.pid, 5000));
    assert_true(gone_within(child, 5000));
}

static void a_signal_reaches_the_whole_group(void **state)
{
    struct client c;

    client_exec(&c, &(struct run){.argv = {"sh", "-c", "trap 'echo got; exit 5' INT; echo up; sleep 100 & wait"}});
    client_wait_output(&c, "up\n");
    wire_put_signal(&c.out, SIGINT);
    client_send(&c);
    assert_int_equal(client_wait(&c), WIRE_EXIT);
    assert_int_equal(c.exit.value, 5);
    assert_non_null(strstr(client_stdout(&c), "got"));
    client_close(&c);
}

static void a_terminal_has_its_size_and_its_keys(void **state)
{
    struct client c;

    client_exec(&c, &(struct run){.argv = {"sh", "-c", "stty size; tty; read x; stty size; exec cat"},
                            .flags = WIRE_EXEC_TTY | WIRE_EXEC_STDIN,
                            .rows = 33,
                            .cols = 77});
    client_wait_output(&c, "33 77\r\n/dev/pts/");
    wire_put_resize(&c.out, 20, 50);
    wire_put_bytes(&c.out, WIRE_STDIN, "\n", 1);
    client_send(&c);
    client_wait_output(&c, "20 50\r\n");
    wire_put_bytes(&c.out, WIRE_STDIN, "here\n", 5); /* cat's copy behind the echo: the shell is out of the way */
    client_send(&c);
    client_wait_output(&c, "here\r\nhere\r\n");
    wire_put_bytes(&c.out, WIRE_STDIN, "\003", 1);
    client_send(&c);
    assert_int_equal(client_wait(&c), WIRE_EXIT);
    assert_int_equal(c.exit.kind, WIRE_EXIT_SIGNAL);
    assert_int_equal(c.exit.value, SIGINT);
    client_close(&c);
}

static void closing_a_terminal_s_stdin_is_end_of_file(void **state)
{
    struct client c;

    client_exec(&c, &(struct run){.argv = {"cat"}, .flags = WIRE_EXEC_TTY | WIRE_EXEC_STDIN, .rows = 24, .cols = 80});
    wire_put_bytes(&c.out, WIRE_STDIN, "line\n", 5);
    wire_put_empty(&c.out, WIRE_CLOSE_STDIN);
    client_send(&c);
    assert_int_equal(client_wait(&c), WIRE_EXIT);
    assert_int_equal(c.exit.value, 0);
    assert_non_null(strstr(client_stdout(&c), "line\r\nline\r\n"));
    client_close(&c);
}

static void twenty_at_once_keep_apart(void **state)
{
    struct client c[20];
    char text[32];

    for (int i = 0; i < 20; i++) {
        (void)snprintf(text, sizeof(text), "N=%d", i);
        client_exec(&c[i], &(struct run){.argv = {"sh", "-c", "sleep 0.1; echo $N"}, .env = {text}});
    }
    for (int i = 0; i < 20; i++) {
        assert_int_equal(client_wait(&c[i]), WIRE_EXIT);
        (void)snprintf(text, sizeof(text), "%d\n", i);
        assert_string_equal(client_stdout(&c[i]), text);
        client_close(&c[i]);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_command_gives_its_output_and_its_code),
            cmocka_unit_test(a_signal_ends_it_as_a_signal),
            cmocka_unit_test(what_can_not_start_says_why),
            cmocka_unit_test(environment_and_directory_are_the_request_s),
            cmocka_unit_test(without_rights_to_gain_and_without_signals_blocked),
            cmocka_unit_test(it_has_the_filter_that_was_asked_for),
            cmocka_unit_test(no_descriptor_leaks_into_a_command),
            cmocka_unit_test(stdin_reaches_it_and_ends),
            cmocka_unit_test(sixteen_mebibytes_go_through_cat),
            cmocka_unit_test(a_full_stdin_blocks_only_its_session),
            cmocka_unit_test(an_unread_output_blocks_only_its_session),
            cmocka_unit_test(output_at_the_exit_is_not_lost_on_a_slow_host),
            cmocka_unit_test(a_background_process_does_not_hold_the_exit),
            cmocka_unit_test(a_timeout_is_term_then_kill),
            cmocka_unit_test(a_lost_connection_kills_the_command),
            cmocka_unit_test(a_signal_reaches_the_whole_group),
            cmocka_unit_test(a_terminal_has_its_size_and_its_keys),
            cmocka_unit_test(closing_a_terminal_s_stdin_is_end_of_file),
            cmocka_unit_test(twenty_at_once_keep_apart),
    };

    if (argc < 2)
        return 2;
    agent_program = argv[1];
    agent_level = argv[2];
    return cmocka_run_group_tests(tests, start_agent, stop_agent);
}
