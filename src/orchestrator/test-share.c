/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/share.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/test.h"

#define WAIT_MS 20000u

static void test_a_fair_share_is_much(void **state)
{
    assert_int_equal(share_threshold(2, 2000, 8), 250);
    assert_int_equal(share_threshold(1, 1000, 3), 333);
    assert_int_equal(share_threshold(2, 2000, 2), 500);
    assert_int_equal(share_threshold(64, 64000, 3), 500); /* no more than half a processor, whatever would be fair */
    assert_int_equal(share_threshold(1, 1000, 0), 500);
    assert_int_equal(share_threshold(2, 2000, 4096), 40); /* nor less than can be measured */
    assert_int_equal(share_threshold(1, 1000000, 3), 333);
    /* What all of them got, where the rest of the machine is somebody else's. */
    assert_int_equal(share_threshold(2, 300, 1), 300);
    assert_int_equal(share_threshold(2, 600, 2), 300);
    assert_int_equal(share_threshold(2, 20, 1), 250); /* hardly anything is not much, though all of it */
}

/* ---- on a real process, which uses all it can ---- */

static struct process_id busy;
static char home[] = "/tmp/test-share-XXXXXX";

static int start_busy(void **state)
{
    pid_t pid;
    char state_dir[64];

    if (!mkdtemp(home) || setenv("IRONCLAW_HOME", home, 1) < 0)
        return -1;
    (void)snprintf(state_dir, sizeof(state_dir), "%s/state", home);
    if (mkdir(state_dir, 0700) < 0)
        return -1;
    pid = fork();
    if (pid == 0) {
        (void)setsid();
        for (;;)
            ;
    }
    return pid > 0 ? process_identify(pid, &busy) : -1;
}

static int end_busy(void **state)
{
    char command[64];

    (void)kill(busy.pid, SIGKILL);
    (void)waitpid(busy.pid, NULL, 0);
    (void)snprintf(command, sizeof(command), "rm -rf %s", home);
    return system(command);
}

/* The number in "/autogroup-7 nice 10"; -100: this kernel has no such thing. */
static int nice_of_busy(void)
{
    _cleanup_(freep) char *text = NULL;
    char path[64];
    const char *nice;

    (void)snprintf(path, sizeof(path), "/proc/%ld/autogroup", (long)busy.pid);
    if (fd_read_file(AT_FDCWD, path, 256, &text, NULL) < 0)
        return -100;
    nice = strstr(text, "nice ");
    return nice ? (int)strtol(nice + 5, NULL, 10) : -100;
}

static char *file_path(void)
{
    static char path[64];

    (void)snprintf(path, sizeof(path), "%s/state/share", home);
    return path;
}

/* What the file says of "vm". */
static void take_line(int *ret_late, unsigned *ret_usual)
{
    _cleanup_(freep) char *text = NULL;
    const char *line;

    assert_int_equal(fd_read_file(AT_FDCWD, file_path(), 4096, &text, NULL), 0);
    line = strstr(text, "\nvm ");
    assert_non_null(line);
    /* NOLINTNEXTLINE(cert-err34-c) */
    assert_int_equal(sscanf(line, "\nvm %*s %*s %d %u", ret_late, ret_usual), 2);
    assert_true(*ret_late == 0 || *ret_late == 1);
}

static bool says_late(void)
{
    unsigned usual;
    int late;

    take_line(&late, &usual);
    return late;
}

static unsigned usual(void)
{
    unsigned usual;
    int late;

    take_line(&late, &usual);
    return usual;
}

static void use_ticks(uint64_t ticks)
{
    uint64_t until = process_cpu_ticks(&busy) + ticks;

    for (unsigned waited = 0; process_cpu_ticks(&busy) < until; waited += 10) {
        assert_true(waited < WAIT_MS);
        (void)usleep(10000);
    }
}

static void look_at(uint64_t now_ms, unsigned processors)
{
    struct share share;

    share_begin(&share, processors, now_ms);
    share_look_at(&share, "vm", &busy, 1, now_ms);
    share_end(&share);
}

static void assert_nice(int nice)
{
    if (nice_of_busy() != -100)
        assert_int_equal(nice_of_busy(), nice);
}

static void test_looks(void **state)
{
    long hz = sysconf(_SC_CLK_TCK);

    assert_true(hz > 0);
    look_at(1000, 0);
    assert_int_equal(access(file_path(), F_OK), -1); /* time to spare: nobody looks */

    look_at(1000, 1);
    assert_false(says_late());
    use_ticks((uint64_t)hz * 11 / 10);
    look_at(2999, 1); /* too soon */
    assert_false(says_late());
    assert_nice(0);
    look_at(3000, 1); /* of which it used more than half */
    assert_true(says_late());
    assert_nice(7);

    assert_int_equal(kill(busy.pid, SIGSTOP), 0);
    (void)usleep(150000); /* the kernel takes one change in 100 ms of who is not root */
    look_at(3000000, 1);
    assert_false(says_late());
    assert_nice(0);
}

static void leave(const char *text)
{
    int fd = open(file_path(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    fd_close(fd);
}

static void leave_line(uint64_t ticks, int late, unsigned usual)
{
    char text[128];

    (void)snprintf(text, sizeof(text), "1 5000\nother 5000 5 0 100\nvm 5000 %llu %d %u\n", (unsigned long long)ticks,
            late, usual);
    leave(text);
}

/* Of a boot of the host that had lasted longer, of processes that had used more, of nobody. */
static void test_begins_anew(void **state)
{
    static const char *const odd[] = {"1 99999999\nvm 99999999 0 1 9\n", "1 1000\nvm 1000 99999999 1 9\n", "1 5\n", "",
            "1 5\nvm 5 1", "nonsense\n\n\n vm x\n", "2 1 1 1 1 vm\nvm"};

    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        leave(odd[i]);
        look_at(4000000, 1);
        assert_false(says_late());
        assert_int_equal(usual(), 0);
    }
}

/* A third of a processor is much when the machine's others leave no more, and one VM had it all. */
static void test_others_have_the_machine(void **state)
{
    uint64_t ticks = process_cpu_ticks(&busy), hz = (uint64_t)sysconf(_SC_CLK_TCK);

    leave_line(ticks - hz * 66 / 100, 0, 30);
    look_at(7000, 2);
    assert_true(says_late());
    leave_line(ticks - hz * 40 / 100, 0, 30); /* a fifth is not */
    look_at(7000, 2);
    assert_false(says_late());
}

/* Others that share make less much. */
static void test_counts_all_that_share(void **state)
{
    uint64_t ticks = process_cpu_ticks(&busy), hz = (uint64_t)sysconf(_SC_CLK_TCK);

    for (unsigned others = 1; others <= 2; others++) {
        struct share share;

        leave_line(ticks - hz * 80 / 100, 0, 30); /* at 5000 */
        share_begin(&share, 1, 7000);
        share_look_at(&share, "vm", &busy, 1, 7000);
        for (unsigned i = 0; i < others; i++)
            share_look_at(&share, "other", &busy, 1, 7000);
        share_end(&share);
        assert_int_equal(says_late(), others == 2); /* 40 % of a processor for two, for three */
    }
}

/* It stops at once; who looks in the next seconds still takes it for what it was. */
static void test_stays_late_for_a_while(void **state)
{
    uint64_t now_ms = 5000, ticks = process_cpu_ticks(&busy), hz = (uint64_t)sysconf(_SC_CLK_TCK);

    assert_true(ticks > hz); /* it stands still */
    leave_line(ticks - hz, 0, 5);
    look_at(now_ms += 2000, 1); /* half of a processor */
    assert_true(says_late());
    assert_in_range(usual(), 490, 510);
    while (says_late())
        look_at(now_ms += 2000, 1);
    assert_in_range(now_ms - 7000, 8000, 16000); /* half of what is late */
    assert_in_range(usual(), 90, 125);

    leave_line(ticks - hz, 0, 5);
    look_at(now_ms = 7000, 1);
    assert_true(says_late());
    look_at(now_ms + 3600000, 1); /* or at once, when nobody looked for long */
    assert_false(says_late());
    assert_in_range(usual(), 0, 10);
}

/* One at a time; who comes second has nothing to do. */
static void test_looks_alone(void **state)
{
    struct share first, second;

    leave("");
    share_begin(&first, 1, 6000);
    share_begin(&second, 1, 6000);
    assert_int_equal(first.processors, 1);
    assert_int_equal(second.processors, 0);
    share_look_at(&second, "vm", &busy, 1, 6000);
    share_end(&second);
    share_look_at(&first, "vm", &busy, 1, 6000);
    share_end(&first);
    (void)says_late(); /* the line is there */
    share_begin(&second, 1, 7999);
    assert_int_equal(second.processors, 0); /* too soon */
    share_end(&second);
}

/* When its file can't be had, nothing is done, and nothing but that is wrong. */
static void test_without_its_file(void **state)
{
    char aside[80];

    (void)snprintf(aside, sizeof(aside), "%s/aside", home);
    assert_int_equal(unlink(file_path()), 0);
    assert_int_equal(symlink(aside, file_path()), 0);
    look_at(7000, 1);
    assert_int_equal(access(aside, F_OK), -1); /* no link is followed */
    assert_int_equal(unlink(file_path()), 0);
    assert_int_equal(mkdir(file_path(), 0700), 0);
    look_at(7000, 1);
    assert_int_equal(rmdir(file_path()), 0);
}

static void test_is_contended_when_many_want_to_run(void **state)
{
    struct share share = {.fd = -1};
    unsigned waited = 0;

    assert_int_equal(kill(busy.pid, SIGCONT), 0);
    do {
        cpu_set_t one;

        /* With one processor for us there are two that want it; each look takes its time. */
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
        leave("");
        share_end(&share);
        share_begin_here(&share);
        assert_true(waited++ < 2000);
    } while (share.processors == 0);
    assert_int_equal(share.processors, 1);
    assert_true(share_is_contended() || share.now_ms > 0);
    share_end(&share);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_a_fair_share_is_much),
            cmocka_unit_test(test_looks),
            cmocka_unit_test(test_begins_anew),
            cmocka_unit_test(test_stays_late_for_a_while),
            cmocka_unit_test(test_others_have_the_machine),
            cmocka_unit_test(test_counts_all_that_share),
            cmocka_unit_test(test_looks_alone),
            cmocka_unit_test(test_without_its_file),
            cmocka_unit_test(test_is_contended_when_many_want_to_run),
    };

    return cmocka_run_group_tests(tests, start_busy, end_busy);
}
