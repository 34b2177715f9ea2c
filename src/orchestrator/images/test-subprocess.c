/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/subprocess.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/test.h"

static int run(const char *script, struct buf *output, struct ic_error *error)
{
    const char *const argv[] = {"sh", "-c", script, NULL};

    return subprocess_run(&(struct subprocess){.argv = argv, .package = "dash", .output = output}, error);
}

static void output_and_status_are_kept(void **state)
{
    const char *const argv[] = {"sh", "-c", "exit 7", NULL};
    struct buf output = {.max = 100};
    struct ic_error error;
    int status = 0;

    assert_int_equal(run("echo hello; echo noise >&2", &output, &error), 0);
    assert_string_equal((char *)output.data, "hello\n");
    assert_int_equal(subprocess_run(&(struct subprocess){.argv = argv, .ret_status = &status}, &error), 0);
    assert_int_equal(status, 7);
    buf_reset(&output);
    assert_int_equal(run("head -c 200 /dev/zero", &output, &error), -IC_ERR_IO);
    buf_deinit(&output);
}

static void failures_say_why(void **state)
{
    const char *const missing[] = {"no-such-program", NULL};
    struct ic_error error;

    assert_int_equal(run("echo first >&2; echo 'E: it broke' >&2; exit 3", NULL, &error), -IC_ERR_IO);
    assert_string_equal(error.message, "sh: failed with status 3: first; E: it broke");
    assert_int_equal(run("kill -9 $$", NULL, &error), -IC_ERR_IO);
    assert_non_null(strstr(error.message, "signal 9"));
    assert_int_equal(run("echo 'x: No space left on device' >&2; exit 1", NULL, &error), -IC_ERR_NO_SPACE);
    assert_int_equal(subprocess_run(&(struct subprocess){.argv = missing, .package = "some-package"}, &error),
            -IC_ERR_NOT_FOUND);
    assert_string_equal(error.message, "no-such-program is not installed; run 'apt-get install some-package'");
    /* Much more on stderr than a pipe holds must not block it. */
    assert_int_equal(run("head -c 1000000 /dev/zero >&2; exit 1", NULL, &error), -IC_ERR_IO);
}

static int cancel(void *userdata, struct ic_error *error)
{
    unsigned *ticks = userdata;

    return ++*ticks >= 3 ? ic_fail(error, IC_ERR_CANCELLED, "cancelled") : 0;
}

/* Polls until the process is gone or a second is over. A zombie counts: who adopted it may never reap. */
static bool gone(pid_t pid)
{
    char path[64], state = 'Z';

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    for (unsigned i = 0; i < 100; i++) {
        FILE *file = fopen(path, "r");

        if (!file || fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
            state = 'Z';
        if (file)
            (void)fclose(file);
        if (state == 'Z' || state == 'X')
            return true;
        usleep(10000);
    }
    return false;
}

/* A tool with a child in its group and one in a session of its own; their ids go to the file at path. */
static void make_script(char *script, size_t size, const char *path)
{
    (void)snprintf(script, size,
            "sleep 60 & a=$!; setsid sleep 60 & echo $a >%s.new; echo $! >>%s.new; mv %s.new %s; wait", path, path,
            path, path);
}

static bool all_gone(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[32];
    unsigned count = 0;
    bool ok = true;

    assert_non_null(file);
    while (fgets(line, sizeof(line), file)) {
        ok = gone((pid_t)strtol(line, NULL, 10)) && ok;
        count++;
    }
    (void)fclose(file);
    return ok && count == 2;
}

static void cancelling_ends_all_that_was_started(void **state)
{
    char path[] = "/tmp/test-subprocess-XXXXXX", script[512];
    int fd = mkstemp(path);
    unsigned ticks = 0;
    struct ic_error error;
    uint64_t start = clock_now_ms();

    assert_true(fd >= 0);
    (void)close(fd);
    make_script(script, sizeof(script), path);
    const char *const argv[] = {"sh", "-c", script, NULL};
    assert_int_equal(subprocess_run(&(struct subprocess){.argv = argv, .tick = cancel, .userdata = &ticks}, &error),
            -IC_ERR_CANCELLED);
    assert_true(clock_now_ms() - start < 20000);
    assert_true(all_gone(path));
    (void)unlink(path);
}

static void a_killed_caller_leaves_nothing_running(void **state)
{
    char path[] = "/tmp/test-subprocess-XXXXXX", script[512];
    int fd = mkstemp(path);
    struct stat st = {0};
    pid_t caller;

    assert_true(fd >= 0);
    (void)close(fd);
    make_script(script, sizeof(script), path);
    const char *const argv[] = {"sh", "-c", script, NULL};
    caller = fork();
    if (caller == 0) {
        (void)subprocess_run(&(struct subprocess){.argv = argv}, NULL);
        _exit(0);
    }
    assert_true(caller > 0);
    for (unsigned i = 0; i < 500 && st.st_size == 0; i++) {
        usleep(10000);
        assert_int_equal(stat(path, &st), 0);
    }
    assert_int_equal(kill(caller, SIGKILL), 0);
    assert_int_equal(waitpid(caller, NULL, 0), caller);
    assert_true(all_gone(path));
    (void)unlink(path);
}

static void what_a_tool_leaves_is_ended_with_it(void **state)
{
    struct buf output = {.max = 100};
    uint64_t start = clock_now_ms();

    assert_int_equal(run("setsid sleep 60 >/dev/null 2>&1 & echo $!", &output, NULL), 0);
    assert_true(gone((pid_t)strtol((const char *)output.data, NULL, 10)));
    assert_true(clock_now_ms() - start < 20000);
    buf_deinit(&output);
}

static int count_line(void *userdata, const char *line, struct ic_error *error)
{
    char *seen = userdata;

    (void)snprintf(seen + strlen(seen), 100 - strlen(seen), "[%s]", line);
    return 0;
}

static void lines_arrive_from_either_stream(void **state)
{
    const char *const argv[] = {"sh", "-c", "echo one; echo two >&2; echo three", NULL};
    char seen[100] = "";
    struct ic_error error;

    assert_int_equal(
            subprocess_run(&(struct subprocess){.argv = argv, .line = count_line, .userdata = seen}, &error), 0);
    assert_string_equal(seen, "[one][three]");
    seen[0] = '\0';
    assert_int_equal(
            subprocess_run(
                    &(struct subprocess){.argv = argv, .line = count_line, .line_from_stderr = true, .userdata = seen},
                    &error),
            0);
    assert_string_equal(seen, "[two]");
}

static void environment_and_stdin_are_controlled(void **state)
{
    const char *const argv[] = {"sh", "-c", "cat; echo \"$LC_ALL $EXTRA $HOME\"; pwd", NULL};
    const char *const env[] = {"EXTRA=x", "HOME=/nowhere", NULL};
    struct buf output = {.max = 100};

    assert_int_equal(
            subprocess_run(&(struct subprocess){.argv = argv, .env = env, .cwd = "/", .output = &output}, NULL), 0);
    assert_string_equal((char *)output.data, "C x /nowhere\n/\n");
    buf_deinit(&output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(output_and_status_are_kept),
            cmocka_unit_test(failures_say_why),
            cmocka_unit_test(cancelling_ends_all_that_was_started),
            cmocka_unit_test(a_killed_caller_leaves_nothing_running),
            cmocka_unit_test(what_a_tool_leaves_is_ended_with_it),
            cmocka_unit_test(lines_arrive_from_either_stream),
            cmocka_unit_test(environment_and_stdin_are_controlled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
