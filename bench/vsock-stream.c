/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Throughput and round trips of one vsock stream.
 *
 *   vsock-stream serve PORT            in the guest; ends when a client asks
 *   vsock-stream send SOCKET PORT MIB  host to guest, prints seconds
 *   vsock-stream receive SOCKET PORT MIB
 *   vsock-stream ping SOCKET PORT N    64-byte round trips, prints N lines of microseconds
 *   vsock-stream quit SOCKET PORT
 *   vsock-stream here N                the same round trips between two processes of this machine, for scale
 *
 * SOCKET is the VM's unix socket: CONNECT <port>, then one request {u8 kind, u64 count}, both sides of one machine.
 * A sent stream is answered by one byte, so that the time includes the guest's reading of the last byte.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct request {
    uint64_t kind, count;
};
enum { KIND_SEND = 1, KIND_RECEIVE, KIND_PING, KIND_QUIT };

#define CHUNK     (256u << 10)
#define PING_SIZE 64u

static char chunk[CHUNK];

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void write_all(int fd, const void *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, (const char *)data + done, len - done);

        if (n < 0 && errno != EINTR)
            err(1, "write");
        done += n > 0 ? (size_t)n : 0;
    }
}

/* False at end of file. */
static int read_all(int fd, void *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, (char *)data + done, len - done);

        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            err(1, "read");
        done += n > 0 ? (size_t)n : 0;
    }
    return 1;
}

static void source(int fd, uint64_t bytes)
{
    for (; bytes > 0; bytes -= bytes < CHUNK ? bytes : CHUNK)
        write_all(fd, chunk, bytes < CHUNK ? bytes : CHUNK);
}

static void sink(int fd, uint64_t bytes)
{
    while (bytes > 0) {
        ssize_t n = read(fd, chunk, bytes < CHUNK ? bytes : CHUNK);

        if (n <= 0)
            err(1, "read");
        bytes -= (uint64_t)n;
    }
}

static void serve(unsigned port)
{
    struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    int listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (listener < 0 || bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 8) < 0)
        err(1, "vsock port %u", port);
    puts("listening");
    fflush(stdout);
    for (;;) {
        struct request request;
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            err(1, "accept");
        if (read_all(fd, &request, sizeof(request))) {
            if (request.kind == KIND_QUIT)
                return;
            if (request.kind == KIND_SEND) {
                sink(fd, request.count);
                write_all(fd, "", 1);
            } else if (request.kind == KIND_RECEIVE) {
                source(fd, request.count);
            } else {
                while (read_all(fd, chunk, PING_SIZE))
                    write_all(fd, chunk, PING_SIZE);
            }
        }
        close(fd);
    }
}

static int dial(const char *path, const char *port)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char line[64] = "";
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || strlen(path) >= sizeof(addr.sun_path))
        errx(1, "%s: no socket path", path);
    strcpy(addr.sun_path, path);
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        err(1, "%s", path);
    dprintf(fd, "CONNECT %s\n", port);
    for (size_t n = 0; n < sizeof(line) - 1; n++) {
        if (read(fd, line + n, 1) != 1)
            errx(1, "port %s: refused", port);
        if (line[n] == '\n')
            break;
    }
    if (strncmp(line, "OK ", 3) != 0)
        errx(1, "port %s: '%s'", port, line);
    return fd;
}

static void ping(int fd, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t started = now_ns();

        write_all(fd, chunk, PING_SIZE);
        if (!read_all(fd, chunk, PING_SIZE))
            errx(1, "closed");
        printf("%.1f\n", (double)(now_ns() - started) / 1e3);
    }
}

static void client(const char *verb, int fd, uint64_t count)
{
    struct request request = {.count = count};
    char byte;
    uint64_t started;

    if (strcmp(verb, "ping") == 0) {
        request.kind = KIND_PING;
        write_all(fd, &request, sizeof(request));
        ping(fd, count);
        return;
    }
    request.kind = strcmp(verb, "send") == 0 ? KIND_SEND : strcmp(verb, "receive") == 0 ? KIND_RECEIVE : KIND_QUIT;
    request.count = count << 20;
    started = now_ns();
    write_all(fd, &request, sizeof(request));
    if (request.kind == KIND_SEND) {
        source(fd, request.count);
        if (!read_all(fd, &byte, 1))
            errx(1, "closed");
    } else if (request.kind == KIND_RECEIVE) {
        sink(fd, request.count);
    }
    printf("%.6f\n", (double)(now_ns() - started) / 1e9);
}

static void here(uint64_t count)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        err(1, "socketpair");
    switch (fork()) {
    case -1:
        err(1, "fork");
    case 0:
        close(fds[0]);
        while (read_all(fds[1], chunk, PING_SIZE))
            write_all(fds[1], chunk, PING_SIZE);
        _exit(0);
    }
    close(fds[1]);
    ping(fds[0], count);
    close(fds[0]);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        serve((unsigned)atoi(argv[2]));
    else if (argc == 3 && strcmp(argv[1], "here") == 0)
        here(strtoull(argv[2], NULL, 10));
    else if (argc >= 4)
        client(argv[1], dial(argv[2], argv[3]), argc > 4 ? strtoull(argv[4], NULL, 10) : 0);
    else
        errx(2, "usage: vsock-stream serve PORT | here N | send|receive|ping|quit SOCKET PORT [COUNT]");
    return 0;
}
