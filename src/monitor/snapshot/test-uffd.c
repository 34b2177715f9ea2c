/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/snapshot/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/test.h"
#include "monitor/snapshot/test-handler.h"

#define MIB  (1u << 20)
#define PAGE 4096u
#define RAM  (4 * MIB)

static const struct machine_config machine = {.vcpu_count = 1, .mem_size_mib = RAM / MIB};
static uint8_t file[RAM];
static uint8_t removed[RAM / PAGE];
static char dir[] = "/tmp/ironclaw-uffd-XXXXXX", path[64];
static int listen_fd = -1;
static struct handler handler;

static int setup(void **state)
{
    log_init("test", LOG_ERROR, STDERR_FILENO);
    if (!mkdtemp(dir))
        return -1;
    (void)snprintf(path, sizeof(path), "%s/uffd", dir);
    for (size_t i = 0; i < RAM; i++)
        file[i] = (uint8_t)(i / PAGE + i);
    return unix_listen(path, 8, &listen_fd);
}

static int teardown(void **state)
{
    fd_close(listen_fd);
    (void)unlink(path);
    return rmdir(dir);
}

/* Not to everybody: a test that can't have one is skipped. */
static bool permitted(void)
{
    struct memory memory;
    struct vm_error error;
    int r = memory_load_uffd(&memory, &machine, "/nowhere/at/all", &error);

    assert_int_not_equal(r, 0);
    assert_null(memory.host);
    return r != -EPERM && r != -ENOSYS;
}

static void *serve(void *arg)
{
    int r = handler_accept(&handler, listen_fd);

    if (r == 0)
        r = handler_serve(&handler);
    fd_close(handler.uffd);
    fd_close(handler.socket);
    return (void *)(intptr_t)r;
}

/* The handler is a thread of the test: what it serves is `file`. */
static void load(struct memory *memory, pthread_t *ret_thread)
{
    struct vm_error error = {{0}};

    memset(removed, 0, sizeof(removed));
    handler = (struct handler){.stop_fd = -1, .file = file, .file_bytes = RAM, .removed = removed};
    assert_int_equal(pthread_create(ret_thread, NULL, serve, NULL), 0);
    if (memory_load_uffd(memory, &machine, path, &error) < 0)
        fail_msg("%s", error.text);
}

static void assert_handler_ends(pthread_t thread)
{
    void *result;

    assert_int_equal(pthread_join(thread, &result), 0);
    assert_int_equal((intptr_t)result, 0);
}

static void pages_come_when_they_are_touched(void **state)
{
    struct memory memory;
    pthread_t thread;
    uint8_t bytes[2] = {0};

    if (!permitted())
        skip(); /* no userfaultfd for us: vm.unprivileged_userfaultfd */
    load(&memory, &thread);
    assert_int_equal(memory.gmem.count, 1);
    assert_int_equal((uintptr_t)memory.host % (2 * MIB), 0);
    assert_int_equal(memory.host[5 * PAGE + 7], file[5 * PAGE + 7]);
    assert_int_equal(gmem_read(&memory.gmem, (struct gpa){RAM / 2 - 1}, bytes, 2), 0);
    assert_memory_equal(bytes, file + RAM / 2 - 1, 2);
    assert_int_equal(gmem_write(&memory.gmem, (struct gpa){9 * PAGE}, "mine", 4), 0);
    assert_memory_equal(memory.host + 9 * PAGE + 4, file + 9 * PAGE + 4, PAGE - 4);
    assert_int_equal(memory.host[9 * PAGE], 'm');
    memory_deinit(&memory);
    assert_handler_ends(thread);
    assert_int_equal(handler.count, 1);
    assert_int_equal(handler.regions[0].size, RAM);
    assert_int_equal(handler.regions[0].offset, 0);
    assert_int_equal(handler.regions[0].page_size, PAGE);
    assert_int_equal(handler.faults, 4);
}

/* A system call that touches a missing page has its fault in the kernel, as KVM has. */
static void the_kernel_faults_too(void **state)
{
    struct memory memory;
    pthread_t thread;
    uint8_t bytes[PAGE];
    int fds[2];

    if (!permitted())
        skip(); /* no userfaultfd for us: vm.unprivileged_userfaultfd */
    load(&memory, &thread);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], memory.host + 100 * PAGE, PAGE), PAGE);
    assert_int_equal(read(fds[0], bytes, PAGE), PAGE);
    assert_memory_equal(bytes, file + 100 * PAGE, PAGE);
    memory_deinit(&memory);
    assert_handler_ends(thread);
    fd_close(fds[0]);
    fd_close(fds[1]);
}

/* As the balloon does it: the handler is told, and the page is not what the file had. */
static void given_back(void **state)
{
    struct memory memory;
    pthread_t thread;

    if (!permitted())
        skip(); /* no userfaultfd for us: vm.unprivileged_userfaultfd */
    load(&memory, &thread);
    assert_int_equal(memory.host[20 * PAGE + 1], file[20 * PAGE + 1]);
    assert_int_equal(madvise(memory.host + 20 * PAGE, 2 * PAGE, MADV_DONTNEED), 0);
    assert_int_equal(memory.host[20 * PAGE + 1], 0);
    assert_int_equal(memory.host[21 * PAGE + 1], 0);
    assert_int_equal(memory.host[22 * PAGE + 1], file[22 * PAGE + 1]);
    memory_deinit(&memory);
    assert_handler_ends(thread);
    assert_int_equal(handler.removals, 1);
}

/* Two regions, as of a VM with more than 3 GiB, in the handler's terms. */
static void regions_are_told(void **state)
{
    struct machine_config big = {.vcpu_count = 1, .mem_size_mib = 3072 + 64};
    struct memory memory;
    struct vm_error error = {{0}};
    char text[1024] = {0};
    size_t fds;
    int uffd = -1, sock, r;

    if (!permitted())
        skip();                                        /* no userfaultfd for us: vm.unprivileged_userfaultfd */
    r = memory_load_uffd(&memory, &big, path, &error); /* connects and sends: nobody need answer */
    if (r == -ENOMEM)
        skip(); /* a host with less memory */
    assert_int_equal(r, 0);
    sock = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(sock >= 0);
    assert_true(unix_recv_fds(sock, text, sizeof(text) - 1, &uffd, 1, &fds) > 0);
    assert_int_equal(fds, 1);
    handler.file_bytes = memory.bytes;
    assert_int_equal(handler_parse(&handler, text, strlen(text)), 0);
    assert_int_equal(handler.count, 2);
    assert_int_equal(handler.regions[0].start, (uintptr_t)memory.host);
    assert_int_equal(handler.regions[0].size, 3ull << 30);
    assert_int_equal(handler.regions[1].start, (uintptr_t)memory.host + (3ull << 30));
    assert_int_equal(handler.regions[1].size, 64 * MIB);
    assert_int_equal(handler.regions[1].offset, 3ull << 30);
    memory_deinit(&memory);
    fd_close(uffd);
    fd_close(sock);
}

/* The monitor waits for a page, and its handler dies: the process ends and says so, also when all its threads wait. */
static void handler_dies(void **state)
{
    char text[512] = {0};
    int fds[2], status, sock, uffd = -1;
    size_t count;
    pid_t pid;

    if (!permitted())
        skip(); /* no userfaultfd for us: vm.unprivileged_userfaultfd */
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct memory memory;
        struct vm_error error;

        log_init("test", LOG_ERROR, fds[1]);
        if (memory_load_uffd(&memory, &machine, path, &error) < 0)
            _exit(90);
        (void)*(volatile uint8_t *)memory.host;
        _exit(91);
    }
    fd_close(fds[1]);
    sock = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(unix_recv_fds(sock, text, sizeof(text), &uffd, 1, &count) > 0);
    assert_int_equal(fd_wait(uffd, POLLIN, deadline_after_ms(20000)), 0); /* it waits */
    fd_close(uffd);
    fd_close(sock);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    memset(text, 0, sizeof(text));
    assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
    assert_non_null(strstr(text, "page-fault handler"));
    assert_non_null(strstr(text, path));
    assert_non_null(strstr(text, "it has ended"));
    fd_close(fds[0]);
}

static void no_handler(void **state)
{
    struct memory memory;
    struct vm_error error = {{0}};
    char other[128];

    if (!permitted())
        skip(); /* no userfaultfd for us: vm.unprivileged_userfaultfd */
    (void)snprintf(other, sizeof(other), "%s-not", path);
    assert_int_equal(memory_load_uffd(&memory, &machine, other, &error), -ENOENT);
    assert_non_null(strstr(error.text, other));
    assert_non_null(strstr(error.text, "start it before"));
    assert_null(memory.host);
    memset(other, 'x', sizeof(other) - 1);
    other[sizeof(other) - 1] = '\0';
    assert_int_equal(memory_load_uffd(&memory, &machine, other, &error), -ENAMETOOLONG);
}

/* Without the right to the kernel's faults: the message says how to get it. */
static void not_permitted(void **state)
{
    char text[VM_ERROR_MAX] = {0};
    int fds[2], status;
    pid_t pid;

    if (geteuid() != 0)
        skip(); /* this user's rights are what the other tests ran with */
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct memory memory;
        struct vm_error error = {{0}};
        int r;

        if (setresuid(65534, 65534, 65534) < 0)
            _exit(90);
        r = memory_load_uffd(&memory, &machine, path, &error);
        (void)!write(fds[1], error.text, strlen(error.text));
        _exit(r == -EPERM ? 1 : 2);
    }
    fd_close(fds[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)!read(fds[0], text, sizeof(text) - 1);
    fd_close(fds[0]);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 2)
        skip(); /* everybody may have one here */
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(text, "vm.unprivileged_userfaultfd=1"));
    assert_non_null(strstr(text, "File backend"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(pages_come_when_they_are_touched),
            cmocka_unit_test(the_kernel_faults_too),
            cmocka_unit_test(given_back),
            cmocka_unit_test(regions_are_told),
            cmocka_unit_test(handler_dies),
            cmocka_unit_test(no_handler),
            cmocka_unit_test(not_permitted),
    };

    return cmocka_run_group_tests_name("uffd", tests, setup, teardown);
}
