/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/snapshot/prefetch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/fd.h"
#include "base/test.h"

#define MIB  (1u << 20)
#define PAGE 4096u
#define RAM  (4 * MIB)

static const uint8_t id[MEMORY_FILE_ID] = "0123456789abcde";
static const struct prefetch_run runs[] = {{700, 5, false}, {0, 1, true}, {1000, 24, false}, {300, 2, true}};

static struct buf make(void)
{
    struct buf buf = {0};

    assert_int_equal(prefetch_make(&buf, id, RAM, runs, ARRAY_SIZE(runs)), 0);
    assert_int_equal(buf.len, PREFETCH_HEADER + ARRAY_SIZE(runs) * PREFETCH_RUN);
    return buf;
}

/* After a change that is not meant to be found by the checksum. */
static void sum(uint8_t *data, size_t len)
{
    uint32_t crc = crc32c(crc32c(0, data, 44), data + PREFETCH_HEADER, len - PREFETCH_HEADER);

    memcpy(data + 44, &crc, sizeof(crc));
}

static void round_trip(void **state)
{
    _cleanup_(buf_deinit) struct buf buf = make();
    struct prefetch prefetch;
    struct prefetch_run run;

    assert_int_equal(prefetch_parse(&prefetch, buf.data, buf.len), 0);
    assert_memory_equal(prefetch.id, id, sizeof(id));
    assert_int_equal(prefetch.ram_bytes, RAM);
    assert_int_equal(prefetch.run_count, ARRAY_SIZE(runs));
    for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
        assert_true(prefetch_next(&prefetch, &run));
        assert_int_equal(run.first, runs[i].first);
        assert_int_equal(run.count, runs[i].count);
        assert_int_equal(run.write, runs[i].write);
    }
    assert_false(prefetch_next(&prefetch, &run));
    assert_int_equal(prefetch_make(&buf, id, RAM, NULL, 0), 0); /* of nothing */
    assert_int_equal(prefetch_parse(&prefetch, buf.data, buf.len), 0);
    assert_false(prefetch_next(&prefetch, &run));
}

static void damaged(void **state)
{
    _cleanup_(buf_deinit) struct buf buf = make();
    struct prefetch prefetch;
    uint32_t version = 2;

    for (size_t len = 0; len < buf.len; len++)
        assert_int_equal(prefetch_parse(&prefetch, buf.data, len), -EBADMSG);
    for (size_t bit = 0; bit < 8 * buf.len; bit++) {
        buf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(prefetch_parse(&prefetch, buf.data, buf.len), -EBADMSG);
        buf.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    buf_put_u8(&buf, 0);
    sum(buf.data, buf.len);
    assert_int_equal(prefetch_parse(&prefetch, buf.data, buf.len), -EBADMSG);
    buf.len--;
    memcpy(buf.data + 8, &version, 4); /* a later writer that thinks of us */
    sum(buf.data, buf.len);
    assert_int_equal(prefetch_parse(&prefetch, buf.data, buf.len), 0);
    memcpy(buf.data + 12, &version, 4);
    sum(buf.data, buf.len);
    assert_int_equal(prefetch_parse(&prefetch, buf.data, buf.len), -EPROTONOSUPPORT);
}

/* What a file whose checksum fits may still ask for. */
static void hostile(void **state)
{
    static const struct {
        uint32_t run[4];
        int result;
    } cases[] = {
            {{0, 1024, 5, 0}, -EBADMSG},              /* an empty run */
            {{0, 1024, 5, 1}, -EBADMSG},              /* more pages than there are, together */
            {{0, 1023, 0, 1}, 0},                     /* a page twice */
            {{1024, 1, 0, 1}, -EBADMSG},              /* behind the end */
            {{1023, 2, 0, 1}, -EBADMSG},              /* across it */
            {{UINT32_MAX, 1, 0, 1}, -EBADMSG},        /* far behind */
            {{1, 0x7fffffff, 0, 1}, -EBADMSG},        /* wraps */
            {{1, 0x80000000, 0, 1}, -EBADMSG},        /* empty, to be written */
            {{0, 0x80000000 | 1024, 0, 1}, -EBADMSG}, /* all, and one more */
            {{512, 0x80000000 | 512, 0, 512}, 0},
    };
    struct prefetch prefetch;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(buf_deinit) struct buf buf = {0};

        assert_int_equal(prefetch_make(&buf, id, RAM, runs, 2), 0);
        memcpy(buf.data + PREFETCH_HEADER, cases[i].run, sizeof(cases[i].run));
        sum(buf.data, buf.len);
        assert_int_equal(prefetch_parse(&prefetch, buf.data, buf.len), cases[i].result);
    }
}

static void not_made(void **state)
{
    _cleanup_(buf_deinit) struct buf buf = {0};
    static const struct prefetch_run bad[] = {{0, 1u << 31, false}, {1024, 1, false}, {5, 0, false}};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(prefetch_make(&buf, id, RAM, &bad[i], 1), -EINVAL);
    assert_int_equal(prefetch_make(&buf, id, RAM, runs, PREFETCH_MAX_RUNS + 1), -EINVAL);
}

/* ---- memory ---- */

struct clone {
    struct memory memory;
    int memory_fd, set_fd;
};

static int temporary(void)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

static void load(struct clone *clone, const void *set, size_t len)
{
    struct machine_config config = {.vcpu_count = 1, .mem_size_mib = RAM / MIB};
    struct memory_file_info info = {.ram_bytes = RAM};
    struct memory first;
    struct vm_error error;

    memcpy(info.id, id, sizeof(id));
    clone->memory_fd = temporary();
    clone->set_fd = temporary();
    assert_int_equal(memory_init(&first, &config, &error), 0);
    memset(first.host, 'm', RAM);
    assert_int_equal(memory_file_write(clone->memory_fd, &first, NULL, &info, &error), 0);
    memory_deinit(&first);
    assert_int_equal(memory_load_file(&clone->memory, &config, clone->memory_fd, "m", id, &error), 0);
    assert_int_equal(write(clone->set_fd, set, len), (ssize_t)len);
}

static void unload(struct clone *clone)
{
    memory_deinit(&clone->memory);
    fd_close(clone->memory_fd);
    fd_close(clone->set_fd);
}

/* Bits 63 (present) and 61 (of a file) of /proc/self/pagemap. */
static uint64_t entry(const struct clone *clone, size_t page)
{
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t bits = 0;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &bits, 8, (off_t)(((uintptr_t)clone->memory.host / PAGE + page) * 8)), 8);
    fd_close(fd);
    return bits;
}

static void pages_are_there(void **state)
{
    _cleanup_(buf_deinit) struct buf buf = make();
    struct vm_error error = {{0}};
    struct clone clone;
    uint64_t pages = 0;

    load(&clone, buf.data, buf.len);
    assert_int_equal(entry(&clone, 700) >> 63, 0);
    if (memory_prefetch(&clone.memory, clone.set_fd, "set", id, &pages, &error) < 0)
        fail_msg("%s", error.text);
    if (pages == 0) {
        unload(&clone);
        skip(); /* a kernel before 5.14 */
    }
    assert_int_equal(pages, 32);
    for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
        for (uint32_t page = runs[i].first; page < runs[i].first + runs[i].count; page++) {
            assert_int_equal(entry(&clone, page) >> 63, 1);
            assert_int_equal(entry(&clone, page) >> 61 & 1, !runs[i].write); /* one's own is no file's any more */
        }
    }
    assert_int_equal(entry(&clone, 500) >> 63, 0);
    assert_int_equal(clone.memory.host[300 * PAGE + 5], 'm');
    unload(&clone);
}

static void assert_refused(const void *set, size_t len, const uint8_t *wanted, int code, const char *says)
{
    struct vm_error error = {{0}};
    struct clone clone;
    uint64_t pages = 77;

    load(&clone, set, len);
    assert_int_equal(memory_prefetch(&clone.memory, clone.set_fd, "dir/set", wanted, &pages, &error), code);
    assert_non_null(strstr(error.text, says));
    assert_non_null(strstr(error.text, "dir/set"));
    assert_int_equal(pages, 77);
    assert_int_equal(entry(&clone, 0) >> 63, 0);
    unload(&clone);
}

static void refused(void **state)
{
    _cleanup_(buf_deinit) struct buf buf = make(), other = {0};
    _cleanup_(freep) uint8_t *large = calloc(1, MIB);
    uint8_t another[MEMORY_FILE_ID] = {1};

    assert_refused(buf.data, buf.len, another, -ESTALE, "of another snapshot");
    assert_int_equal(prefetch_make(&other, id, RAM + MIB, runs, 1), 0);
    assert_refused(other.data, other.len, id, -ESTALE, "of another snapshot");
    assert_refused("", 0, id, -EBADMSG, "damaged, or none");
    assert_refused(large, MIB, id, -EBADMSG, "damaged, or none");
    assert_refused(buf.data, buf.len - 1, id, -EBADMSG, "damaged, or none");
}

/* ---- measuring ---- */

/* A monitor that has loaded the file, read one page and written three. */
static pid_t another(const char *path)
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct machine_config config = {.vcpu_count = 1, .mem_size_mib = RAM / MIB};
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        struct vm_error error;
        struct memory memory;

        if (memory_load_file(&memory, &config, fd, path, id, &error) < 0)
            _exit(1);
        (void)*(volatile uint8_t *)(memory.host + 700 * PAGE);
        memset(memory.host + 300 * PAGE, 'w', 3 * PAGE);
        (void)!write(ready[1], "x", 1);
        for (;;)
            (void)pause();
    }
    fd_close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    fd_close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void measured(void **state)
{
    char dir[] = "/tmp/ironclaw-prefetch-XXXXXX", memory[64], set[64];
    _cleanup_(freep) char *data = NULL;
    struct prefetch prefetch;
    struct prefetch_run run;
    struct vm_error error = {{0}};
    bool read_700 = false;
    uint32_t written = 0;
    size_t len;
    pid_t pid;
    struct clone clone;
    int fd;

    load(&clone, "", 0);
    assert_non_null(mkdtemp(dir));
    (void)snprintf(memory, sizeof(memory), "%s/m", dir);
    (void)snprintf(set, sizeof(set), "%s/s", dir);
    fd = open(memory, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (off_t in = 0; in < RAM + PAGE;)
        assert_true(sendfile(fd, clone.memory_fd, &in, RAM + PAGE) > 0);
    pid = another(memory);
    if (prefetch_measure(pid, memory, set, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(fd_read_file(AT_FDCWD, set, MIB, &data, &len), 0);
    assert_int_equal(prefetch_parse(&prefetch, data, len), 0);
    assert_memory_equal(prefetch.id, id, sizeof(id));
    while (prefetch_next(&prefetch, &run)) {
        read_700 = read_700 || (!run.write && run.first <= 700 && 700 - run.first < run.count);
        written += run.write ? run.count : 0;
        assert_true(!run.write || (run.first == 300 && run.count == 3));
    }
    assert_true(read_700);
    assert_int_equal(written, 3);
    end(pid);

    pid = another(memory);
    assert_int_equal(prefetch_measure(getpid(), memory, set, &error), -ESRCH);
    assert_non_null(strstr(error.text, "has not mapped it"));
    end(pid);
    assert_int_equal(prefetch_measure(pid, memory, set, &error), -ENOENT);
    assert_int_equal(truncate(memory, RAM), 0);
    assert_int_equal(prefetch_measure(getpid(), memory, set, &error), -EBADMSG);
    fd_close(fd);
    unload(&clone);
    (void)unlink(memory);
    (void)unlink(set);
    (void)rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(round_trip),
            cmocka_unit_test(damaged),
            cmocka_unit_test(hostile),
            cmocka_unit_test(not_made),
            cmocka_unit_test(pages_are_there),
            cmocka_unit_test(refused),
            cmocka_unit_test(measured),
    };

    return cmocka_run_group_tests_name("prefetch", tests, NULL, NULL);
}
