/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that becomes ready, as far as its host can see, and then turns on who
 * talks to it: by what lies in the run directory, which the host looks into.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "intruder.h"
#include "wire/wire.h"

#define DEPTH     600 /* of directories with names of LONG bytes: beyond PATH_MAX */
#define LONG      "a-long-name-of-a-directory-in-a-directory-in-a-directory"
#define CLOSED    8
#define BODY_WORD "Content-Length: "

static int unix_socket(const char *path, bool listens)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", path);
    r = listens ? bind(fd, (struct sockaddr *)&address, sizeof(address))
                : connect(fd, (struct sockaddr *)&address, sizeof(address));
    if (r < 0 || (listens && listen(fd, 8) < 0))
        dprintf(2, "intruder: socket %s: %s\n", path, strerror(errno));
    return fd;
}

/* Says yes to each request. */
static void answer(int fd)
{
    static const char yes[] = "HTTP/1.1 204 \r\n\r\n";
    char text[8192];
    size_t len = 0;
    ssize_t n;

    while ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0) {
        const char *end, *body;

        len += (size_t)n;
        text[len] = '\0';
        while ((end = strstr(text, "\r\n\r\n")) != NULL) {
            size_t all = (size_t)(end + 4 - text);

            body = strstr(text, BODY_WORD);
            all += body && body < end ? strtoul(body + strlen(BODY_WORD), NULL, 10) : 0;
            if (all > len)
                break;
            if (write(fd, yes, sizeof(yes) - 1) < 0)
                return;
            memmove(text, text + all, len - all + 1);
            len -= all;
        }
    }
}

static void serve_api(const char *path)
{
    int listener = unix_socket(path, true);

    if (fork() != 0)
        return;
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            _exit(1);
        answer(fd);
        close(fd);
    }
}

/* Returns once the host has greeted the guest. */
static void become_ready(void)
{
    const struct wire_ready ready = {
            .version = WIRE_VERSION,
            .agent_version = {"0", 1},
            .kernel_release = {"6.1.0", 5},
    };
    struct buf b = {0};
    char name[32], greeting[64];
    int fd;

    snprintf(name, sizeof(name), "v_%u", WIRE_READY_PORT);
    fd = unix_socket(name, false);
    wire_put_ready(&b, &ready);
    if (write(fd, b.data, b.len) != (ssize_t)b.len || read(fd, greeting, sizeof(greeting)) <= 0)
        dprintf(2, "intruder: not ready: %s\n", strerror(errno));
}

/* ---- what it then does ---- */

/* Each socket that the host connects to leads to somebody else's. */
static void replace_sockets(void)
{
    static const char *const names[] = {"v", "a", "q"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        unlink(names[i]);
        if (symlink(plan("unix"), names[i]) < 0)
            dprintf(2, "intruder: %s: %s\n", names[i], strerror(errno));
    }
}

/* Of the run directory it is said by a link whose it is. */
static void claim_another(void)
{
    unlink("state");
    if (symlink(plan("other_state"), "state") < 0)
        dprintf(2, "intruder: state: %s\n", strerror(errno));
}

/* What is hard to remove: directories deeper than a path can name, closed ones, links to what is not to go. */
static void dig(void)
{
    int at = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (symlink(plan("precious"), "link") < 0 || mkfifo("fifo", 0) < 0 || mkdir("-rf", 0700) < 0)
        dprintf(2, "intruder: links: %s\n", strerror(errno));
    for (int i = 0; i < DEPTH; i++) {
        int next = mkdirat(at, LONG, 0700) < 0 ? -1 : openat(at, LONG, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (next < 0 || symlinkat(plan("precious"), next, "link") < 0)
            dprintf(2, "intruder: depth %d: %s\n", i, strerror(errno));
        close(at);
        at = next;
    }
    close(at);
}

static void close_directories(void)
{
    char path[CLOSED * 8] = "closed";

    for (int i = 0; i < CLOSED && mkdir(path, 0700) == 0; i++)
        strcat(path, "/closed");
    while (strrchr(path, '/')) {
        *strrchr(path, '/') = '\0';
        if (chmod(path, strlen(path) % 2 ? 0 : 0500) < 0)
            dprintf(2, "intruder: %s: %s\n", path, strerror(errno));
    }
}

static void make_mess(void)
{
    claim_another();
    dig();
    close_directories();
}

/* The lock by which the host sees that somebody lives: of a file that can be read, and is not the image. */
static void unlock(void)
{
    struct stat st;
    int unlocked = 0;

    for (int fd = 3; fd < 64; fd++) {
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY &&
                (long)st.st_ino != plan_number("image_inode"))
            unlocked += flock(fd, LOCK_UN) == 0;
    }
    unlink("v"); /* nobody waits for an agent */
    if (unlocked != 1)
        dprintf(2, "intruder: unlocked %d files\n", unlocked);
}

/* Answers everybody at its own socket with what no agent says, without end. */
static void babble(void)
{
    static char noise[65536];
    int listener;

    memset(noise, 0xff, sizeof(noise));
    signal(SIGPIPE, SIG_IGN);
    unlink("v");
    listener = unix_socket("v", true);
    if (fork() != 0)
        return;
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        while (fd >= 0 && write(fd, noise, sizeof(noise)) > 0)
            ;
        close(fd);
    }
}

void be_ready(const char *api_path)
{
    const char *evil;

    if (api_path)
        serve_api(api_path);
    become_ready();
    evil = plan("evil");
    if (strcmp(evil, "sockets") == 0)
        replace_sockets();
    else if (strcmp(evil, "directory") == 0)
        make_mess();
    else if (strcmp(evil, "unlock") == 0)
        unlock();
    else if (strcmp(evil, "babble") == 0)
        babble();
    else
        dprintf(2, "intruder: no such evil: %s\n", evil);
}
