/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of a guest that means harm: it speaks the agent's protocol as far as
 * /mode says and breaks it there. Linked with the tree's wire layer, so that
 * all but the wanted lie is well-formed; a lie that the encoders refuse is
 * patched into the finished frame.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wire/wire.h"

static char mode[64];

static bool is(const char *name)
{
    return strcmp(mode, name) == 0;
}

static void load_modules(void)
{
    FILE *order = fopen("/modules/order", "re");
    char name[256], path[300];

    while (order && fgets(name, sizeof(name), order)) {
        name[strcspn(name, "\n")] = '\0';
        snprintf(path, sizeof(path), "/modules/%s", name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        if (fd >= 0)
            syscall(SYS_finit_module, fd, "", 0);
        close(fd);
    }
}

static void send_all(int fd, const void *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = send(fd, (const char *)data + done, len - done, MSG_NOSIGNAL);

        if (n < 0 && errno != EINTR)
            return;
        done += n > 0 ? (size_t)n : 0;
    }
}

static void flush(int fd, struct buf *b)
{
    send_all(fd, b->data, b->len);
    buf_reset(b);
}

static void send_noise(int fd, size_t len)
{
    char noise[4096];
    int urandom = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

    for (; len > 0; len -= len < sizeof(noise) ? len : sizeof(noise)) {
        if (read(urandom, noise, sizeof(noise)) < 0)
            break;
        send_all(fd, noise, len < sizeof(noise) ? len : sizeof(noise));
    }
    close(urandom);
}

static void patch(struct buf *b, const char *from, const char *to)
{
    char *p = memmem(b->data, b->len, from, strlen(from));

    if (p)
        memcpy(p, to, strlen(to));
}

static void put_entry(struct buf *b, enum wire_entry_kind kind, const char *path, const char *target, uint64_t size)
{
    struct wire_entry entry = {.kind = kind,
            .mode = kind == WIRE_ENTRY_DIR ? 0755 : 06755,
            .size = size,
            .path = {path, strlen(path)},
            .target = {target, strlen(target)}};

    wire_put_entry(b, &entry);
}

static void put_file(struct buf *b, const char *path, const char *text)
{
    put_entry(b, WIRE_ENTRY_FILE, path, "", strlen(text));
    wire_put_bytes(b, WIRE_DATA, text, strlen(text));
}

static void serve_get(int fd)
{
    struct buf b = {0};

    put_entry(&b, WIRE_ENTRY_DIR, "", "", 0);
    if (is("get-dotdot")) {
        put_file(&b, "AA/BB/AA/evil", "evil");
        patch(&b, "AA", "..");
        patch(&b, "BB", "..");
        patch(&b, "AA", "..");
    } else if (is("get-absolute")) {
        put_file(&b, "Atmp/ironclaw-evil", "evil");
        patch(&b, "Atmp", "/tmp");
    } else if (is("get-through-link")) {
        put_entry(&b, WIRE_ENTRY_SYMLINK, "link", "..", 0);
        put_file(&b, "link/evil", "evil");
    } else if (is("get-link-then-file")) {
        put_entry(&b, WIRE_ENTRY_SYMLINK, "link", "../evil", 0);
        put_file(&b, "link", "evil");
    } else if (is("get-too-long")) {
        put_entry(&b, WIRE_ENTRY_FILE, "file", "", 4);
        for (int i = 0; i < 100; i++)
            wire_put_bytes(&b, WIRE_DATA, mode, sizeof(mode));
    } else if (is("get-noise")) {
        flush(fd, &b);
        send_noise(fd, 1u << 20);
    }
    wire_put_empty(&b, WIRE_DONE);
    flush(fd, &b);
    buf_deinit(&b);
}

static void serve_exec(int fd)
{
    struct buf b = {0};

    if (is("exec-noise")) {
        send_noise(fd, 1u << 20);
    } else if (is("exec-huge-frame")) {
        send_all(fd, "\xff\xff\xff\xff\x14", 5);
        send_noise(fd, 64u << 20);
    } else if (is("exec-message")) {
        wire_put_error(&b, WIRE_E_NOT_FOUND, 2, "\x1b]0;owned\x07\x1b[2J\nironclaw: all is well");
    } else if (is("exec-exit-twice")) {
        struct wire_exit e = {.kind = WIRE_EXIT_SIGNAL, .value = 9};

        wire_put_started(&b, 0xFFFFFFFF);
        wire_put_exit(&b, &e);
        wire_put_exit(&b, &e);
    } else if (is("exec-exit-big")) {
        struct wire_exit e = {.kind = WIRE_EXIT_CODE, .value = 77};

        wire_put_started(&b, 2);
        wire_put_exit(&b, &e);
        patch(&b, "\x4d", "\xff\xff\xff");
    }
    if (is("exec-stuck"))
        wire_put_started(&b, 2);
    flush(fd, &b);
    buf_deinit(&b);
    if (is("exec-silent") || is("exec-stuck"))
        pause();
}

/* Answers everything on a control session as the host hopes, until it ends. */
static void serve_control(int fd, struct wire_reader *reader)
{
    struct buf b = {0};

    for (;;) {
        struct wire_frame frame;
        const uint8_t *payload;
        size_t room;
        int r = wire_reader_next(reader, &frame, &payload);

        if (r < 0)
            return;
        if (r > 0) {
            if (is("control-noise"))
                send_noise(fd, 100000);
            if (frame.type != WIRE_HELLO)
                wire_put_empty(&b, WIRE_OK);
            flush(fd, &b);
            continue;
        }
        uint8_t *space = wire_reader_space(reader, &room);
        ssize_t n = space ? read(fd, space, room) : 0;

        if (n <= 0)
            return;
        wire_reader_filled(reader, (size_t)n);
    }
}

static void serve_session(int fd)
{
    struct wire_reader reader = {0};

    for (;;) {
        struct wire_frame frame;
        const uint8_t *payload;
        size_t room;
        int r = wire_reader_next(&reader, &frame, &payload);

        if (r < 0)
            return;
        if (r > 0 && frame.type == WIRE_EXEC) {
            serve_exec(fd);
            return;
        }
        if (r > 0 && frame.type == WIRE_GET) {
            serve_get(fd);
            return;
        }
        if (r > 0)
            continue;
        uint8_t *space = wire_reader_space(&reader, &room);
        ssize_t n = space ? read(fd, space, room) : 0;

        if (n <= 0)
            return;
        wire_reader_filled(&reader, (size_t)n);
    }
}

/* Before READY is sent, or the host may come too early. */
static int open_listener(void)
{
    struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = WIRE_AGENT_PORT};
    int listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 16) < 0)
        return -1;
    return listener;
}

static void serve(int listener)
{
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd >= 0 && fork() == 0) {
            serve_session(fd);
            shutdown(fd, SHUT_WR);
            sleep(1);
            _exit(0);
        }
        close(fd);
    }
}

static void ready(void)
{
    struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = WIRE_READY_PORT};
    struct wire_ready frame = {.version = WIRE_VERSION,
            .boot_us = UINT64_MAX,
            .agent_version = {"\x1b[31mred", 8},
            .kernel_release = {"6.1\n\x1b[2Jforged", 14}};
    struct wire_reader reader = {0};
    struct buf b = {0};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (is("ready-silent"))
        return;
    for (int i = 0; i < 100 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0; i++)
        usleep(50000);
    if (is("ready-noise")) {
        send_noise(fd, 1u << 20);
        return;
    }
    if (is("ready-huge-frame")) {
        send_all(fd, "\xff\xff\xff\x7f\x30", 5);
        send_noise(fd, 64u << 20);
        return;
    }
    if (is("ready-endless")) {
        for (;;)
            send_noise(fd, 1u << 20);
    }
    wire_put_ready(&b, &frame);
    flush(fd, &b);
    serve_control(fd, &reader);
}

int main(void)
{
    int fd, listener;

    mkdir("/proc", 0755);
    mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    fd = open("/mode", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, mode, sizeof(mode) - 1) <= 0 || is("panic"))
        return 1; /* the kernel panics when PID 1 ends */
    load_modules();
    if (is("power-off"))
        reboot(RB_POWER_OFF);
    listener = open_listener();
    if (listener >= 0 && fork() == 0) {
        serve(listener);
        _exit(0);
    }
    ready();
    for (;;)
        pause();
}
