/* SPDX-License-Identifier: Apache-2.0 */
#include "intruder.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define FDS_MAX     64
#define PATIENCE    20 /* seconds for one attempt */
#define PLAN_MARK   "\n@intruder's plan\n"
#define PROGRAM_MAX (8u << 20)

const char *own_program;
volatile long *reached;

static char *plan_text;
static const char *role;
static bool was_inherited[FDS_MAX];

const struct attempt *const all_attempts[] = {file_attempts, process_attempts, network_attempts, kernel_attempts, NULL};

const char *plan(const char *key)
{
    static char value[4096];
    size_t len = strlen(key);

    value[0] = '\0';
    for (const char *line = plan_text; line && *line; line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, key, len) == 0 && line[len] == '=')
            snprintf(value, sizeof(value), "%.*s", (int)strcspn(line + len + 1, "\n"), line + len + 1);
    }
    return value;
}

long plan_number(const char *key)
{
    return strtol(plan(key), NULL, 0);
}

int inherited(long inode)
{
    struct stat st;

    for (int fd = 0; fd < FDS_MAX; fd++) {
        if (was_inherited[fd] && fstat(fd, &st) == 0 && (long)st.st_ino == inode)
            return fd;
    }
    return -1;
}

/* The last mark, as the first one is the constant above. */
static void read_plan(const char *path)
{
    static char bytes[PROGRAM_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n, len = 0;

    while (fd >= 0 && (n = read(fd, bytes + len, sizeof(bytes) - 1 - (size_t)len)) > 0)
        len += n;
    if (fd < 0 || len == 0) {
        dprintf(2, "intruder %s: can't read %s: %s\n", role, path, strerror(errno));
        _exit(1);
    }
    close(fd);
    for (char *from = bytes, *found; (found = memmem(from, (size_t)(bytes + len - from), PLAN_MARK, strlen(PLAN_MARK)));
            from = plan_text)
        plan_text = found + strlen(PLAN_MARK);
}

static const char *type_of(mode_t mode)
{
    return S_ISREG(mode)    ? "file"
           : S_ISDIR(mode)  ? "directory"
           : S_ISSOCK(mode) ? "socket"
           : S_ISFIFO(mode) ? "pipe"
           : S_ISCHR(mode)  ? "device"
                            : "other";
}

/* Nothing is written by it: a length that stays, and no bytes. */
static void list_inherited(void)
{
    static const char *const access[] = {[O_RDONLY] = "read", [O_WRONLY] = "write", [O_RDWR] = "both"};
    struct stat st;

    for (int fd = 0; fd < FDS_MAX; fd++) {
        was_inherited[fd] = fstat(fd, &st) == 0;
        if (was_inherited[fd])
            dprintf(2, "intruder %s fd %d %s %s %lu\n", role, fd, type_of(st.st_mode),
                    access[fcntl(fd, F_GETFL) & O_ACCMODE], (unsigned long)st.st_ino);
    }
}

static void report(const char *name, int status)
{
    char count[32] = "";

    if (*reached >= 0)
        snprintf(count, sizeof(count), " %ld", *reached);
    if (WIFSIGNALED(status))
        dprintf(2, "intruder %s try %s: signal %d%s\n", role, name, WTERMSIG(status), count);
    else if (WEXITSTATUS(status) == 255)
        dprintf(2, "intruder %s try %s: not here\n", role, name);
    else
        dprintf(2, "intruder %s try %s: %s%s\n", role, name,
                WEXITSTATUS(status) == 0 ? "done" : strerrorname_np(WEXITSTATUS(status)), count);
}

static void make(const struct attempt *a)
{
    int status = 0;
    pid_t pid;

    *reached = -1;
    pid = fork();
    if (pid == 0) {
        int r;

        alarm(PATIENCE);
        r = a->make();
        _exit(r == NOT_HERE ? 255 : r);
    }
    if (pid < 0)
        dprintf(2, "intruder %s try %s: can't fork: %s\n", role, a->name, strerror(errno));
    else if (waitpid(pid, &status, 0) == pid)
        report(a->name, status);
    while (waitpid(-1, &status, WNOHANG) > 0)
        ; /* whose parents have gone */
}

/* ";NAME;NAME;", or nothing for all. */
static bool is_wanted(const char *name)
{
    const char *only = plan("only");
    char needle[128];

    snprintf(needle, sizeof(needle), ";%s;", name);
    return !only[0] || strstr(only, needle);
}

/* In this process and not a child: where a filter may end it. */
static void make_here(const char *name)
{
    for (size_t i = 0; all_attempts[i]; i++) {
        for (const struct attempt *a = all_attempts[i]; a->name; a++) {
            int r = strcmp(a->name, name) == 0 ? a->make() : NOT_HERE;

            if (r != NOT_HERE)
                dprintf(2, "intruder %s try %s: %s\n", role, name, r == 0 ? "done" : strerrorname_np(r));
        }
    }
}

/* As the monitor of a VM that works so far: somebody to be attacked. */
static void be_victim(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s/v", plan("run_dir"));
    if (strcmp(role, "monitor") == 0 &&
            (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 9) < 0))
        dprintf(2, "intruder %s: no socket %s: %s\n", role, address.sun_path, strerror(errno));
}

static const char *role_of(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--api-sock") == 0)
            return "monitor";
        if (strcmp(argv[i], "--uds-fd") == 0)
            return "vsock";
    }
    return "qemu";
}

/* intruder with-key NAME COMMAND...: as a user who keeps a secret in the kernel for the session. */
static int run_with_key(char **argv)
{
    if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING, keyctl.h */, NULL) < 0 ||
            syscall(SYS_add_key, "user", argv[0], "secret", 6, -3 /* KEY_SPEC_SESSION_KEYRING */) < 0)
        dprintf(2, "intruder: no key: %s\n", strerror(errno));
    execvp(argv[1], argv + 1);
    return 127;
}

int main(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[1], "with-key") == 0)
        return run_with_key(argv + 2);
    role = role_of(argc, argv);
    own_program = argv[0];
    read_plan(argv[0]);
    list_inherited();
    reached = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    /* QEMU's root has neither directory: it stays where the jail has put it. Without a jail that is the host's root,
     * where nothing may be left, and the run directory is where ironclaw-vsock tries the same at this moment. */
    (void)!chdir(plan(strcmp(role, "qemu") == 0 ? "elsewhere" : "run_dir"));
    if (strcmp(plan("act"), "one") == 0 && strcmp(role, "qemu") == 0) {
        char name[128];

        snprintf(name, sizeof(name), "%s", plan("only"));
        make_here(name);
    }
    if (strcmp(plan("act"), "victim") == 0)
        be_victim();
    if (strcmp(plan("act"), "ready") == 0 && strcmp(role, "qemu") != 0)
        be_ready(strcmp(role, "monitor") == 0 ? argv[2] : NULL);
    for (size_t i = 0; strcmp(plan("act"), "attack") == 0 && all_attempts[i]; i++) {
        for (const struct attempt *a = all_attempts[i]; a->name; a++) {
            if (is_wanted(a->name))
                make(a);
        }
    }
    dprintf(2, "intruder %s end\n", role);
    for (;;)
        pause();
}
