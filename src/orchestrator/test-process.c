/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/test-util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/process.h"

static struct process_options options(char *const *argv, int out_fd)
{
    return (struct process_options){.size = sizeof(struct process_options),
            .path = argv[0],
            .argv = argv,
            .mark = "test",
            .out_fd = out_fd,
            .err_fd = out_fd};
}

#define STAT(flags, signals)                                                                                           \
    "17 (a) b) S 3 17 17 0 -1 " flags " 1 2 3 4 5 6 7 8 20 0 1 0 987654321 22 33 4 5 6 7 8 9 " signals " 1 2\n"

static void parses_stat(void **state)
{
    static const char good[] = STAT("4194560", "0");
    static const char *const doomed[] = {STAT("4194564", "0"), STAT("4195328", "0"), STAT("4194560", "256")};
    struct process_stat stat;
    char text[sizeof(good)];

    assert_int_equal(process_stat_parse(good, &stat), 0);
    assert_int_equal(stat.start_ticks, 987654321);
    assert_int_equal(stat.state, 'S');
    assert_int_equal(stat.parent, 3);
    assert_int_equal(stat.cpu_ticks, 5 + 6);
    assert_false(stat.doomed);
    for (size_t i = 0; i < ARRAY_SIZE(doomed); i++) { /* exiting, killed, to be killed */
        assert_int_equal(process_stat_parse(doomed[i], &stat), 0);
        assert_true(stat.doomed);
    }
    for (size_t n = 0; n <= strlen(good) - strlen(" 0 1 2\n"); n++) { /* without its last field */
        (void)snprintf(text, sizeof(text), "%.*s", (int)n, good);
        assert_int_equal(process_stat_parse(text, &stat), -EBADMSG);
    }
    assert_int_equal(process_stat_parse("17 (a) S 3 17 x", &stat), -EBADMSG);
}

/* Who kills a VM and runs the next command at once has it clean up. */
static void is_not_well_from_the_kill_on(void **state)
{
    struct process_id id;
    pid_t pid = fork();

    if (pid == 0) {
        for (;;) /* as a vCPU: the kill reaches it when it is next interrupted */
            ;
    }
    assert_int_equal(process_identify(pid, &id), 0);
    assert_true(process_well(&id));
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_false(process_well(&id));
    assert_int_equal(process_kill(&id, DEADLINE_NEVER), 0);
    assert_false(process_well(&id));
}

static void knows_a_process_from_its_successor(void **state)
{
    struct process_id self, other;

    assert_int_equal(process_identify(getpid(), &self), 0);
    assert_true(process_alive(&self));
    other = self;
    other.start_ticks++; /* the same pid, another process */
    assert_false(process_alive(&other));
    assert_int_equal(process_kill(&other, DEADLINE_NEVER), 0);
    other.pid = 0;
    assert_false(process_alive(&other));
    other.pid = INT32_MAX;
    assert_int_equal(process_kill(&other, DEADLINE_NEVER), 0);
}

/* What the child finds: no descriptor beyond its own, cwd, umask, signals, limits, session. */
static void child_is_clean(void **state)
{
    static const char script[] = "ls /proc/self/fd | tr '\\n' ' '; pwd; umask; ulimit -c; "
                                 "grep -c 'SigIgn:.*1000000$' /proc/self/status; "
                                 "grep SigBlk: /proc/self/status | tr -d '[:alpha:]:\\t0'; "
                                 "[ \"$IRONCLAW_VM\" = test ] && echo marked; echo ${HOME:-no home}";
    char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};
    int fds[2], stray = open("/dev/null", O_RDONLY), pidfd;
    struct process_options o;
    struct process_id id;
    char text[512];
    sigset_t block;
    size_t len = 0;
    ssize_t n;

    sigfillset(&block);
    (void)sigprocmask(SIG_BLOCK, &block, NULL);
    assert_int_equal(pipe(fds), 0);
    o = options(argv, fds[1]);
    assert_int_equal(process_spawn(&o, &id, &pidfd), 0);
    sigemptyset(&block);
    (void)sigprocmask(SIG_SETMASK, &block, NULL);
    close(fds[1]);
    while ((n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    assert_string_equal(text, "0 1 2 3 /\n0077\n0\n1\n\nmarked\nno home\n"); /* 3 is ls's own */
    assert_int_equal(fd_wait(pidfd, POLLIN, deadline_after_ms(5000)), 0);
    assert_false(process_alive(&id)); /* reaps it */
    assert_int_equal(waitpid(id.pid, NULL, WNOHANG), -1);
    close(pidfd);
    close(fds[0]);
    close(stray);
}

static void reports_failed_execs(void **state)
{
    char *argv[] = {(char *)"/nonexistent/program", NULL}, *plain[] = {(char *)"/etc/passwd", NULL};
    int null = open("/dev/null", O_WRONLY), pidfd = -7;
    struct process_options o = options(argv, null);
    struct process_id id;

    assert_int_equal(process_spawn(&o, &id, &pidfd), -ENOENT);
    o = options(plain, null);
    assert_int_equal(process_spawn(&o, &id, &pidfd), -EACCES);
    assert_int_equal(pidfd, -7);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    close(null);
}

static void dies_with_its_parent(void **state)
{
    char *argv[] = {(char *)"/bin/sleep", (char *)"60", NULL};
    struct process_id id = {0};
    int fds[2], pidfd;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    if (pid == 0) {
        struct process_options o = options(argv, fds[1]);

        o.die_with_parent = true;
        if (process_spawn(&o, &id, &pidfd) == 0)
            (void)!write(fds[1], &id, sizeof(id));
        _exit(0);
    }
    assert_int_equal(read(fds[0], &id, sizeof(id)), sizeof(id));
    waitpid(pid, NULL, 0);
    for (int i = 0; i < 500 && process_alive(&id); i++)
        usleep(10000);
    assert_false(process_alive(&id));
    close(fds[0]);
    close(fds[1]);
}

/* A log that reaches the limit is cut off; its writer lives on. */
static void limits_files(void **state)
{
    static const char script[] = "while [ ! -e stop ] && sleep 0.01; do [ -e /proc/self ] && "
                                 "head -c 4096 /dev/zero; done 2>/dev/null";
    char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};
    FILE *out = tmpfile();
    struct process_options o = options(argv, fileno(out));
    struct process_id id;
    int pidfd;

    assert_int_equal(process_spawn(&o, &id, &pidfd), 0);
    assert_int_equal(process_limit_files(&id, 16384, 0), 0);
    for (int i = 0; i < 300 && lseek(fileno(out), 0, SEEK_END) < 16384; i++)
        usleep(10000);
    usleep(100000);
    assert_int_equal(lseek(fileno(out), 0, SEEK_END), 16384);
    assert_true(process_alive(&id));
    assert_int_equal(process_kill(&id, deadline_after_ms(5000)), 0);
    close(pidfd);
    (void)fclose(out);
}

static void how(const char *script, char text[64], bool *ret_failed)
{
    char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};
    int null = open("/dev/null", O_WRONLY), pidfd;
    struct process_options o = options(argv, null);
    struct process_id id;

    assert_int_equal(process_spawn(&o, &id, &pidfd), 0);
    process_describe_end(pidfd, NULL, text, 64, ret_failed);
    assert_string_equal(text, ""); /* each script sleeps first */
    (void)fd_wait(pidfd, POLLIN, deadline_after_ms(5000));
    process_describe_end(pidfd, NULL, text, 64, ret_failed);
    assert_false(process_alive(&id)); /* still there to be reaped */
    close(pidfd);
    close(null);
}

static void describes_ends(void **state)
{
    bool failed = false;
    char text[64];

    how("sleep 0.2; exit 3", text, &failed);
    assert_string_equal(text, "with status 3");
    assert_true(failed);
    how("sleep 0.2", text, &failed);
    assert_string_equal(text, "with status 0");
    assert_false(failed);
    how("sleep 0.2; kill -9 $$", text, &failed);
    assert_string_equal(text, "by signal 9 (Killed)");
    assert_true(failed);
}

static void finds_programs(void **state)
{
    char *path = process_find_program("sh");

    assert_non_null(path);
    assert_int_equal(path[0], '/');
    free(path);
    assert_null(process_find_program("no-such-program-anywhere"));
    assert_null(process_find_program("/etc/passwd"));
    assert_int_equal(chdir("/bin"), 0);
    path = process_find_program("./sh"); /* children have another working directory */
    assert_non_null(path);
    assert_int_equal(path[0], '/');
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(parses_stat),
            cmocka_unit_test(is_not_well_from_the_kill_on),
            cmocka_unit_test(knows_a_process_from_its_successor),
            cmocka_unit_test(child_is_clean),
            cmocka_unit_test(reports_failed_execs),
            cmocka_unit_test(dies_with_its_parent),
            cmocka_unit_test(limits_files),
            cmocka_unit_test(describes_ends),
            cmocka_unit_test(finds_programs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
