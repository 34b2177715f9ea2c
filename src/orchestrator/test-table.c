/* SPDX-License-Identifier: Apache-2.0 */
/* The table of VMs, and what reap does with everything that a killed process can leave. The VM's processes are sleeps.
 */
#include "orchestrator/test-vm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/table.h"

static struct ic_error error;

static void claims_once(void **state)
{
    struct record record = sample_record("one");
    struct table_entry entry, other;

    assert_int_equal(table_claim(&entry, &record, NULL, &error), 0);
    assert_int_equal(table_claim(&other, &record, NULL, &error), -IC_ERR_EXISTS);
    assert_non_null(strstr(error.message, "'one'"));
    assert_int_equal(table_lock(&other, "one", 0, &error), -IC_ERR_TIMEOUT);
    assert_int_equal(table_change(&entry, &record, IC_VM_PAUSED, "test", &error), -IC_ERR_STATE);
    assert_int_equal(record.state, IC_VM_CREATED);
    assert_int_equal(table_reap(&error), 0); /* locked: its creator lives */
    assert_true(in_home(*state, "state/vms/one/record.json"));
    assert_int_equal(table_remove(&entry, &record, &error), 0);
    assert_int_equal(table_lock(&other, "one", 0, &error), -IC_ERR_NOT_FOUND);
    assert_int_equal(table_lock(&other, "../x", 0, &error), -IC_ERR_INVALID);
    record_deinit(&record);
}

static void leaves_healthy_vms_alone(void **state)
{
    struct table_entry entry;
    struct record record;

    make_vm("healthy", IC_VM_READY, false, &entry, &record);
    table_entry_deinit(&entry);
    assert_int_equal(table_reap(&error), 0);
    assert_true(process_alive(&record.monitor));
    assert_true(in_home(*state, "state/vms/healthy/record.json"));
    assert_true(in_home(*state, "run/healthy/state"));
    /* One of the two dies: the other follows, and nothing is left. */
    assert_int_equal(process_kill(&record.vsock, DEADLINE_NEVER), 0);
    assert_int_equal(table_reap(&error), 0);
    assert_false(process_alive(&record.monitor));
    assert_false(in_home(*state, "state/vms/healthy"));
    assert_false(in_home(*state, "run/healthy"));
    record_deinit(&record);
}

/* Short of descriptors nothing can be read, which says nothing about the VM. */
static void knows_ignorance_from_death(void **state)
{
    struct table_entry entry;
    struct record record;
    struct rlimit old, none;

    make_vm("unseen", IC_VM_READY, false, &entry, &record);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_true(process_alive(&record.monitor));
    assert_true(table_healthy(&record));
    assert_true(table_anyone_alive(entry.dir));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(table_end_processes(&entry, &record, &error), 0);
    assert_false(table_healthy(&record));
    assert_int_equal(table_remove(&entry, &record, &error), 0);
    record_deinit(&record);
}

/* A monitor that has the vsock itself is the VM's only process. */
static void needs_no_vsock_process(void **state)
{
    struct table_entry entry;
    struct record record, after;

    make_vm("single", IC_VM_READY, false, &entry, &record);
    assert_int_equal(process_kill(&record.vsock, DEADLINE_NEVER), 0);
    assert_false(table_healthy(&record));
    record.vsock = (struct process_id){0};
    assert_true(table_healthy(&record));
    assert_int_equal(table_write(&entry, &record, &error), 0);
    table_entry_deinit(&entry);
    assert_int_equal(table_reap(&error), 0);
    assert_int_equal(table_read(&after, "single", &error), 0);
    assert_true(process_alive(&after.monitor));
    record_deinit(&after);
    assert_int_equal(process_kill(&record.monitor, DEADLINE_NEVER), 0);
    assert_int_equal(table_reap(&error), 0);
    assert_false(in_home(*state, "state/vms/single"));
    record_deinit(&record);
}

/* Killed with its caller, but not dead yet: it goes all the same. */
static void ends_what_was_tied_to_a_dead_caller(void **state)
{
    struct table_entry entry;
    struct record record;

    make_vm("tied", IC_VM_BOOTING, false, &entry, &record);
    record.tied = true;
    record.creator = start_sleep("no VM", -1);
    assert_int_equal(table_change(&entry, &record, IC_VM_READY, "test", &error), 0);
    table_entry_deinit(&entry);
    assert_int_equal(table_reap(&error), 0);
    assert_true(in_home(*state, "state/vms/tied/record.json"));
    assert_int_equal(process_kill(&record.creator, DEADLINE_NEVER), 0);
    assert_true(process_alive(&record.monitor));
    assert_int_equal(table_reap(&error), 0);
    assert_false(in_home(*state, "state/vms/tied"));
    assert_false(in_home(*state, "run/tied"));
    assert_false(process_alive(&record.monitor));
    record_deinit(&record);
}

static void keeps_the_record_of_a_kept_vm(void **state)
{
    struct table_entry entry;
    struct record record, after;

    make_vm("kept", IC_VM_READY, true, &entry, &record);
    table_entry_deinit(&entry);
    assert_int_equal(process_kill(&record.monitor, DEADLINE_NEVER), 0);
    assert_int_equal(table_reap(&error), 0);
    assert_int_equal(table_read(&after, "kept", &error), 0);
    assert_int_equal(after.state, IC_VM_FAILED);
    assert_non_null(strstr(after.failure, "monitor process ended"));
    assert_int_equal(after.monitor.pid, 0);
    assert_false(process_alive(&record.vsock));
    assert_false(in_home(*state, "run/kept"));
    record_deinit(&after);
    assert_int_equal(table_reap(&error), 0);
    assert_true(in_home(*state, "state/vms/kept/record.json"));
    assert_int_equal(table_lock(&entry, "kept", 0, &error), 0);
    assert_int_equal(table_remove(&entry, &record, &error), 0);
    record_deinit(&record);
}

static void knows_a_power_off_from_a_crash(void **state)
{
    static const char line[] = "[    9.1] reboot: Restarting system\r\n";
    struct table_entry entry;
    struct record record, after;
    char path[512];

    make_vm("off", IC_VM_READY, true, &entry, &record);
    (void)snprintf(path, sizeof(path), "%s/console.log", entry.dir);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, line, sizeof(line) - 1, 0600), 0);
    table_entry_deinit(&entry);
    assert_int_equal(process_kill(&record.monitor, DEADLINE_NEVER), 0);
    assert_int_equal(table_reap(&error), 0);
    assert_int_equal(table_read(&after, "off", &error), 0);
    assert_int_equal(after.state, IC_VM_GONE);
    record_deinit(&after);
    assert_int_equal(table_lock(&entry, "off", 0, &error), 0);
    assert_int_equal(table_remove(&entry, &record, &error), 0);
    record_deinit(&record);
}

/* The creator died after it started the processes and before it wrote their pids. */
static void finds_unrecorded_processes(void **state)
{
    struct table_entry entry;
    struct record record;
    struct process_id a, b;

    make_vm("lost", IC_VM_BOOTING, false, &entry, &record); /* the record on disk has no pids yet */
    a = record.monitor;
    b = record.vsock;
    table_entry_deinit(&entry);
    assert_int_equal(table_reap(&error), 0);
    assert_false(process_alive(&a));
    assert_false(process_alive(&b));
    assert_false(in_home(*state, "state/vms/lost"));
    assert_false(in_home(*state, "run/lost"));
    record_deinit(&record);
}

static void finds_orphans_without_a_record(void **state)
{
    struct table_entry entry;
    struct record record;
    char path[512];

    /* between mkdir and the lock; between the lock and the record; a damaged record */
    (void)snprintf(path, sizeof(path), "%s/state/vms/bare", (char *)*state);
    assert_int_equal(mkdir(path, 0700), 0);
    make_vm("damaged", IC_VM_READY, false, &entry, &record);
    (void)snprintf(path, sizeof(path), "%s/record.json", entry.dir);
    assert_int_equal(truncate(path, 40), 0);
    table_entry_deinit(&entry);
    /* between mkdir and the link of a socket directory; one whose record is gone */
    (void)snprintf(path, sizeof(path), "%s/run/half", (char *)*state);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/run/gone", (char *)*state);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/run/gone/state", (char *)*state);
    assert_int_equal(symlink("/nonexistent/ironclaw/vms/gone", path), 0);

    assert_int_equal(table_reap(&error), 0);
    assert_false(in_home(*state, "state/vms/bare"));
    assert_false(in_home(*state, "state/vms/damaged"));
    assert_false(process_alive(&record.monitor));
    assert_false(in_home(*state, "run/half"));
    assert_false(in_home(*state, "run/gone"));
    assert_false(in_home(*state, "run/damaged"));
    record_deinit(&record);
}

/* The user deleted the state directory below a running VM. */
static void finds_processes_whose_record_was_deleted(void **state)
{
    struct table_entry entry;
    struct record record;

    make_vm("deleted", IC_VM_READY, false, &entry, &record);
    assert_int_equal(path_remove_tree(entry.dir, &error), 0);
    table_entry_deinit(&entry);
    assert_int_equal(table_reap(&error), 0);
    assert_false(process_alive(&record.monitor));
    assert_false(process_alive(&record.vsock));
    assert_false(in_home(*state, "run/deleted"));
    record_deinit(&record);
}

static void trusts_no_pid_of_another_boot(void **state)
{
    struct table_entry entry;
    struct record record;
    struct process_id bystander = start_sleep("another", -1);

    make_vm("old", IC_VM_READY, false, &entry, &record);
    assert_int_equal(process_kill(&record.monitor, DEADLINE_NEVER), 0);
    assert_int_equal(process_kill(&record.vsock, DEADLINE_NEVER), 0);
    record.monitor = record.vsock = bystander;
    memset(record.boot_id, '0', sizeof(record.boot_id) - 1);
    assert_int_equal(table_write(&entry, &record, &error), 0);
    table_entry_deinit(&entry);
    assert_int_equal(table_reap(&error), 0);
    assert_false(in_home(*state, "state/vms/old"));
    assert_true(process_alive(&bystander));
    assert_int_equal(process_kill(&bystander, DEADLINE_NEVER), 0);
    record_deinit(&record);
}

/* The disk is full: records can't be written, but a VM can be ended, and others can be seen and removed. */
static void ends_vms_on_a_full_disk(void **state)
{
    struct rlimit old, none;
    struct table_entry entry, other;
    struct record record, crashed;
    struct ic_vm_info *infos = NULL;
    size_t count = 0;
    ic_vm *vm = NULL;

    make_vm("crashed", IC_VM_READY, true, &other, &crashed);
    table_entry_deinit(&other);
    make_vm("full", IC_VM_READY, true, &entry, &record);
    table_entry_deinit(&entry);
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    assert_int_equal(process_kill(&crashed.monitor, DEADLINE_NEVER), 0);

    assert_true(table_reap(&error) < 0); /* "crashed" keeps its record, which can't be written */
    assert_int_equal(ic_list_vms(&infos, &count, &error), 0);
    assert_int_equal(count, 2);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(infos[i].state, strcmp(infos[i].vm_id, "full") == 0 ? IC_VM_READY : IC_VM_FAILED);
    free(infos);
    assert_int_equal(ic_open_vm("full", &vm, &error), 0);
    assert_true(ic_vm_kill(vm, &error) < 0); /* the record can't say so */
    assert_false(process_alive(&record.monitor));
    assert_false(process_alive(&record.vsock));
    assert_int_equal(ic_destroy_vm(vm, &error), 0);
    ic_vm_free(vm);
    assert_int_equal(ic_open_vm("crashed", &vm, &error), 0);
    assert_int_equal(ic_destroy_vm(vm, &error), 0);
    ic_vm_free(vm);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_false(in_home(*state, "state/vms/full"));
    assert_false(in_home(*state, "state/vms/crashed"));
    record_deinit(&record);
    record_deinit(&crashed);
}

/* The creator is slow: it has the lock, and its processes are in the record only later. */
static void ends_a_vm_that_is_being_made(void **state)
{
    struct table_entry entry;
    struct record record;
    ic_vm *vm = NULL;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        make_vm("making", IC_VM_BOOTING, false, &entry, &record);
        usleep(400000);
        if (table_write(&entry, &record, NULL) < 0)
            _exit(1);
        while (process_alive(&record.monitor))
            usleep(1000);
        _exit(table_end_processes(&entry, &record, NULL) < 0 || table_remove(&entry, &record, NULL) < 0);
    }
    usleep(200000);
    assert_int_equal(ic_open_vm("making", &vm, &error), 0);
    assert_int_equal(ic_destroy_vm(vm, &error), 0);
    ic_vm_free(vm);
    assert_false(in_home(*state, "state/vms/making"));
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* A record that could not be read again would make its VM one that nobody can end. */
static void refuses_records_too_large_to_read(void **state)
{
    struct record record = sample_record("large");
    struct table_entry entry;
    size_t len = 4096;

    record.env = calloc(301, sizeof(*record.env));
    for (size_t i = 0; i < 300; i++) {
        record.env[i] = malloc(len + 1);
        memset(record.env[i], 'x', len);
        record.env[i][1] = '=';
        record.env[i][len] = '\0';
    }
    assert_int_equal(table_claim(&entry, &record, NULL, &error), -IC_ERR_INVALID);
    assert_non_null(strstr(error.message, "KiB"));
    assert_false(in_home(*state, "state/vms/large"));
    /* Bytes that JSON can't hold must not just be left out. */
    record.env[0][0] = (char)0xff;
    free(record.env[1]);
    record.env[1] = NULL;
    assert_int_equal(table_claim(&entry, &record, NULL, &error), -IC_ERR_INVALID);
    assert_non_null(strstr(error.message, "UTF-8"));
    for (size_t i = 2; i < 300; i++)
        free(record.env[i]);
    record_deinit(&record);
}

/* A VM that a newer version started is that one's business. */
static void leaves_vms_of_other_versions_alone(void **state)
{
    _cleanup_(freep) char *text = NULL;
    struct table_entry entry;
    struct record record, after;
    char path[512], *version;
    size_t len;

    make_vm("newer", IC_VM_READY, false, &entry, &record);
    (void)snprintf(path, sizeof(path), "%s/record.json", entry.dir);
    assert_int_equal(table_write(&entry, &record, &error), 0);
    assert_int_equal(fd_read_file(AT_FDCWD, path, RECORD_MAX_BYTES, &text, &len), 0);
    version = strstr(text, "\"version\": 4");
    assert_non_null(version);
    version[strlen("\"version\": ")] = '9';
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, text, len, 0600), 0);
    table_entry_deinit(&entry);
    assert_int_equal(table_read(&after, "newer", &error), -IC_ERR_UNSUPPORTED);
    assert_int_equal(table_reap(&error), 0);
    assert_true(process_alive(&record.monitor));
    assert_true(in_home(*state, "run/newer/state"));
    assert_int_equal(table_lock(&entry, "newer", 0, &error), 0);
    assert_int_equal(table_end_processes(&entry, &record, &error), 0);
    assert_int_equal(table_remove(&entry, &record, &error), 0);
    record_deinit(&record);
}

/* In place of the C library's: the process dies before its nth removal. */
static unsigned removals_left = UINT_MAX;

static void count_removal(void)
{
    if (removals_left-- == 0)
        (void)raise(SIGKILL);
}

int unlinkat(int fd, const char *name, int flag)
{
    count_removal();
    return (int)syscall(SYS_unlinkat, fd, name, flag);
}

int unlink(const char *name)
{
    return unlinkat(AT_FDCWD, name, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

/* A remover that is killed at any step leaves what the next reap removes. */
static void survives_removers_killed_anywhere(void **state)
{
    bool killed = true;

    for (unsigned n = 0; killed; n++) {
        struct table_entry entry;
        struct record record;
        char path[512];
        int log, status;
        pid_t pid;

        make_vm("removed", IC_VM_READY, false, &entry, &record);
        (void)snprintf(path, sizeof(path), "%s/console.log", entry.dir);
        log = open(path, O_WRONLY | O_CREAT, 0600);
        assert_true(log >= 0);
        fd_close(log);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            removals_left = n;
            (void)table_end_processes(&entry, &record, NULL);
            (void)table_remove(&entry, &record, NULL);
            _exit(0);
        }
        fd_close(entry.lock_fd); /* the child has it */
        entry.lock_fd = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        killed = WIFSIGNALED(status);
        assert_true(killed ? n < 100 : n > 8); /* a file of each directory, at least, and both of these */
        assert_int_equal(table_reap(&error), 0);
        assert_false(in_home(*state, "state/vms/removed"));
        assert_false(in_home(*state, "run/removed"));
        (void)process_alive(&record.monitor);
        (void)process_alive(&record.vsock);
        table_entry_deinit(&entry);
        record_deinit(&record);
    }
}

/* What lies in the runtime directory and was not made by us stays: a home directory may be named as IRONCLAW_HOME. */
static void leaves_foreign_directories_alone(void **state)
{
    char path[512];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/run/foreign", (char *)*state);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/run/foreign/file", (char *)*state);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    fd_close(fd);
    (void)snprintf(path, sizeof(path), "%s/run/linked", (char *)*state);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/run/linked/state", (char *)*state);
    assert_int_equal(symlink("/nonexistent/elsewhere", path), 0);
    /* A removal of ours that was killed in the middle: the link is gone, a socket is left. */
    (void)snprintf(path, sizeof(path), "%s/run/partly", (char *)*state);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/run/partly/v_1025", (char *)*state);
    assert_int_equal(unix_listen(path, 1, &fd), 0);
    fd_close(fd);
    (void)snprintf(path, sizeof(path), "%s/run/partly/a", (char *)*state);
    assert_int_equal(unix_listen(path, 1, &fd), 0);
    fd_close(fd);

    assert_int_equal(table_reap(&error), 0);
    assert_true(in_home(*state, "run/foreign/file"));
    (void)snprintf(path, sizeof(path), "%s/run/linked/state", (char *)*state);
    assert_int_equal(unlink(path), 0); /* fails if it was removed */
    assert_false(in_home(*state, "run/partly"));
}

/* Another user's tree, as root sees it with that user's HOME, or in /tmp: nothing in it is believed or touched. */
static void refuses_directories_of_others(void **state)
{
    struct ic_vm_info *infos;
    size_t count;
    char path[512];

    if (geteuid() != 0) {
        print_message("skipped: only root can give a directory away\n");
        skip();
    }
    (void)snprintf(path, sizeof(path), "%s/run/half", (char *)*state);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/run", (char *)*state);
    assert_int_equal(chown(path, 65534, 65534), 0);
    assert_int_equal(table_reap(&error), -IC_ERR_DENIED);
    assert_non_null(strstr(error.message, path));
    assert_true(in_home(*state, "run/half"));
    assert_int_equal(chown(path, 0, 0), 0);

    (void)snprintf(path, sizeof(path), "%s/state/vms/bare", (char *)*state);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/state/vms", (char *)*state);
    assert_int_equal(chown(path, 65534, 65534), 0);
    assert_int_equal(table_reap(&error), -IC_ERR_DENIED);
    assert_int_equal(ic_list_vms(&infos, &count, &error), -IC_ERR_DENIED);
    assert_true(in_home(*state, "state/vms/bare"));
    assert_int_equal(chown(path, 0, 0), 0);
    assert_int_equal(table_reap(&error), 0);
    assert_false(in_home(*state, "state/vms/bare"));
    assert_false(in_home(*state, "run/half"));
}

/* A link that somebody else put in the directory's place, to a directory that is ours. */
static void refuses_links_of_others(void **state)
{
    char target[512], link[512];

    if (geteuid() != 0) {
        print_message("skipped: only root can give a link away\n");
        skip();
    }
    (void)snprintf(target, sizeof(target), "%s/target", (char *)*state);
    (void)snprintf(link, sizeof(link), "%s/link", (char *)*state);
    assert_int_equal(mkdir(target, 0700), 0);
    assert_int_equal(symlink(target, link), 0);
    assert_int_equal(path_make_dir(link, &error), 0);
    assert_int_equal(lchown(link, 65534, 65534), 0);
    assert_int_equal(path_make_dir(link, &error), -IC_ERR_DENIED);
}

/* Creators killed at any moment: whatever they had reached, one reap cleans it. */
/* A monitor that was taken over may write in its socket directory: it goes all the same, and nothing else does. */
static void removes_a_run_directory_that_lies(void **state)
{
    struct table_entry entry;
    struct record record;
    char path[512], other[512];

    make_vm("liar", IC_VM_READY, false, &entry, &record);
    assert_int_equal(table_write(&entry, &record, &error), 0);
    (void)snprintf(path, sizeof(path), "%s/state", record.run_dir);
    (void)snprintf(other, sizeof(other), "%s-other", entry.dir);
    assert_int_equal(mkdir(other, 0700), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(other, path), 0);
    (void)snprintf(path, sizeof(path), "%s/directory", record.run_dir);
    assert_int_equal(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/directory/link", record.run_dir);
    assert_int_equal(symlink(other, path), 0);
    assert_int_equal(table_settle(&entry, &record, &error), 0);
    assert_int_equal(access(record.run_dir, F_OK), -1);
    assert_int_equal(rmdir(other), 0);
    record_deinit(&record);
}

/* Nor can it have reap take the directory of a VM that lives, whose sockets others use. */
static void keeps_the_run_directory_of_a_living_liar(void **state)
{
    char path[512], link[512];
    struct table_entry entry;
    struct record record;

    make_vm("alive", IC_VM_READY, false, &entry, &record);
    assert_int_equal(table_write(&entry, &record, &error), 0);
    (void)snprintf(link, sizeof(link), "%s/state", record.run_dir);
    (void)snprintf(path, sizeof(path), "%s/nowhere/vms/alive", (const char *)*state);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(table_reap(&error), 0);
    assert_true(in_home(*state, "run/alive"));
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(table_reap(&error), 0);
    assert_true(in_home(*state, "run/alive"));
    assert_int_equal(table_settle(&entry, &record, &error), 0);
    assert_false(in_home(*state, "run/alive"));
    record_deinit(&record);
}

static void survives_creators_killed_at_random(void **state)
{
    char path[512];

    for (unsigned i = 0; i < 40; i++) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            struct table_entry entry;
            struct record record;

            for (;;) {
                make_vm("random", IC_VM_BOOTING, false, &entry, &record);
                (void)table_end_processes(&entry, &record, NULL);
                (void)table_remove(&entry, &record, NULL);
            }
        }
        usleep(500 + i * 137);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        assert_int_equal(table_reap(&error), 0);
        assert_false(in_home(*state, "state/vms/random"));
        assert_false(in_home(*state, "run/random"));
        (void)snprintf(path, sizeof(path), "%s/state/vms/random", (char *)*state);
        assert_int_equal(process_kill_marked(path, deadline_after_ms(1000)), 0);
    }
}

/* In a namespace of its own. 2: only root can. */
static int try_to_remove_a_mount(const char *dir)
{
    char mount_point[512], file[600];

    (void)snprintf(mount_point, sizeof(mount_point), "%s/m", dir);
    (void)snprintf(file, sizeof(file), "%s/f", mount_point);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("t", mount_point, "tmpfs", 0, NULL) < 0)
        return 2;
    if (fd_write_file_atomic(AT_FDCWD, file, "x", 1, 0600) < 0)
        return 1;
    return path_remove_tree(dir, NULL) < 0 && access(file, F_OK) == 0 ? 0 : 1;
}

static void removal_stops_at_mounts(void **state)
{
    char dir[256], sub[300];
    int status;
    pid_t pid;

    (void)snprintf(dir, sizeof(dir), "%s/tree", (const char *)*state);
    (void)snprintf(sub, sizeof(sub), "%s/m", dir);
    assert_true(mkdir(dir, 0700) == 0 && mkdir(sub, 0700) == 0);
    pid = fork();
    if (pid == 0)
        _exit(try_to_remove_a_mount(dir));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(path_remove_tree(dir, &error), 0);
    if (WEXITSTATUS(status) == 2)
        skip();
    assert_int_equal(status, 0);
}

/* Deeper than a path can name, and closed to its owner, as a monitor may leave its run directory. */
static void removes_what_is_hard_to(void **state)
{
    static const char name[] = "a-directory-in-a-directory-in-a-directory-in-a-directory";
    char dir[256], precious[300];
    int fd;

    (void)snprintf(precious, sizeof(precious), "%s/precious", (const char *)*state);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, precious, "x", 1, 0600), 0);
    (void)snprintf(dir, sizeof(dir), "%s/tree", (const char *)*state);
    assert_int_equal(mkdir(dir, 0700), 0);
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int depth = 0; depth < 200; depth++) {
        int next;

        assert_true(fd >= 0);
        assert_int_equal(symlinkat(precious, fd, "link"), 0);
        assert_int_equal(mkdirat(fd, "lifted-0", 0), 0);
        assert_int_equal(mkdirat(fd, name, 0700), 0);
        next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(fchmod(fd, depth % 2 ? 0500 : 0), 0);
        (void)close(fd);
        fd = next;
    }
    assert_int_equal(fchmod(fd, 0), 0);
    (void)close(fd);
    assert_int_equal(path_remove_tree(dir, &error), 0);
    assert_int_equal(access(dir, F_OK), -1);
    assert_int_equal(access(precious, F_OK), 0);
    assert_int_equal(unlink(precious), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(claims_once),
            cmocka_unit_test(leaves_healthy_vms_alone),
            cmocka_unit_test(knows_ignorance_from_death),
            cmocka_unit_test(needs_no_vsock_process),
            cmocka_unit_test(ends_what_was_tied_to_a_dead_caller),
            cmocka_unit_test(keeps_the_record_of_a_kept_vm),
            cmocka_unit_test(knows_a_power_off_from_a_crash),
            cmocka_unit_test(finds_unrecorded_processes),
            cmocka_unit_test(finds_orphans_without_a_record),
            cmocka_unit_test(finds_processes_whose_record_was_deleted),
            cmocka_unit_test(trusts_no_pid_of_another_boot),
            cmocka_unit_test(ends_vms_on_a_full_disk),
            cmocka_unit_test(ends_a_vm_that_is_being_made),
            cmocka_unit_test(refuses_records_too_large_to_read),
            cmocka_unit_test(leaves_vms_of_other_versions_alone),
            cmocka_unit_test(removes_what_is_hard_to),
            cmocka_unit_test(survives_removers_killed_anywhere),
            cmocka_unit_test(leaves_foreign_directories_alone),
            cmocka_unit_test(refuses_directories_of_others),
            cmocka_unit_test(refuses_links_of_others),
            cmocka_unit_test(removes_a_run_directory_that_lies),
            cmocka_unit_test(keeps_the_run_directory_of_a_living_liar),
            cmocka_unit_test(survives_creators_killed_at_random),
            cmocka_unit_test(removal_stops_at_mounts),
    };

    return cmocka_run_group_tests(tests, home_setup, home_teardown);
}
