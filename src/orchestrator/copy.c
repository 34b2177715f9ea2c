/* SPDX-License-Identifier: Apache-2.0 */
/* Files and trees into and out of a VM. The walking and building is src/transfer's, the same code as in the guest. */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/paths.h"
#include "orchestrator/session.h"
#include "orchestrator/vm.h"
#include "transfer/transfer.h"

/* A guest does not get to make programs that run on the host with the rights of whoever copied them. */
#define HOST_MODE_MASK 01777u

#define UNCHECKED_BYTES   ((uint64_t)64 << 20) /* small copies may have the last of the disk */
#define UNCHECKED_ENTRIES 65536u
#define CHECK_BYTES       ((uint64_t)4 << 20)
#define CHECK_ENTRIES     1024u

struct copy {
    const char *guest_path, *host_path, *doing;
    struct ic_copy_options options;
    struct record record;
    struct wire_reader reader;
    int fd;
    /* What comes out of a guest may have no end; the host's disk has. */
    const char *into_host; /* directory of its file system, NULL: not looked at */
    uint64_t check_at_bytes, check_at_entries;
    struct ic_error room;
    bool room_fails;
};

static int on_progress(void *userdata, uint64_t bytes, uint64_t entries)
{
    struct copy *copy = userdata;

    if (copy->room_fails)
        return 1;
    if (copy->into_host && (bytes >= copy->check_at_bytes || entries >= copy->check_at_entries)) {
        copy->check_at_bytes = bytes + CHECK_BYTES;
        copy->check_at_entries = entries + CHECK_ENTRIES;
        copy->room_fails = path_check_room(copy->into_host, &copy->room) < 0;
        if (copy->room_fails)
            return 1;
    }
    return copy->options.progress ? copy->options.progress(copy->options.userdata, copy->doing, bytes, 0) : 0;
}

static void copy_deinit(struct copy *copy)
{
    session_close(copy->fd);
    wire_reader_deinit(&copy->reader);
    record_deinit(&copy->record);
}

static int copy_open(struct copy *copy, ic_vm *vm, enum wire_session kind, struct ic_error *error)
{
    _cleanup_(buf_deinit) struct buf request = {0};
    const char *user = copy->options.user ? copy->options.user : "0";
    struct wire_copy wire = {
            .flags = (copy->options.keep_owner && kind == WIRE_SESSION_PUT ? WIRE_COPY_KEEP_OWNER : 0u) |
                     (copy->options.follow && kind == WIRE_SESSION_GET ? WIRE_COPY_FOLLOW : 0u),
            .path = {.s = copy->guest_path, .len = strlen(copy->guest_path)},
            .user = {.s = user, .len = strlen(user)},
            .name = kind == WIRE_SESSION_PUT ? transfer_base_name(copy->host_path) : (struct wire_str){.s = ""},
    };
    int r;

    if (copy->guest_path[0] != '/' || wire.path.len > WIRE_MAX_PATH)
        return ic_fail(error, IC_ERR_INVALID, "guest path '%.200s': must be absolute, at most %u bytes",
                copy->guest_path, WIRE_MAX_PATH);
    if (wire.user.len > WIRE_MAX_NAME || wire.name.len > WIRE_MAX_NAME)
        return ic_fail(error, IC_ERR_INVALID, "copy: a user or file name is longer than %u bytes", WIRE_MAX_NAME);
    r = table_read(&copy->record, vm->vm_id, error);
    if (r < 0)
        return r;
    wire_put_copy(&request, kind == WIRE_SESSION_PUT ? WIRE_PUT : WIRE_GET, &wire);
    return session_open(&copy->record, kind, &request, deadline_after_ms(SESSION_CONNECT_TIMEOUT_MS), &copy->fd, error);
}

/* The message may have the errno's text already. */
static int fail_saying(const struct copy *copy, int r, const char *message, struct ic_error *error)
{
    const char *why = strerror(-r);
    size_t len = strlen(message), tail = strlen(why) + 2;

    if (len > tail && strcmp(message + len - tail + 2, why) == 0 && memcmp(message + len - tail, ": ", 2) == 0)
        len -= tail;
    return ic_fail_errno(error, r, "%s: %.*s", copy->doing, (int)len, message);
}

static int copy_result(
        struct copy *copy, int r, const struct transfer_result *t, struct ic_copy_result *ret, struct ic_error *error)
{
    if (r == TRANSFER_PEER_ERROR)
        return ic_fail(error,
                t->peer_code == WIRE_E_NOT_FOUND  ? IC_ERR_NOT_FOUND
                : t->peer_code == WIRE_E_NO_SPACE ? IC_ERR_NO_SPACE
                                                  : IC_ERR_GUEST,
                "VM '%s': %s: in the guest: %s", copy->record.vm_id, copy->doing, t->message);
    if (r == -ECANCELED && copy->room_fails)
        return ic_fail(
                error, copy->room.code, "VM '%s': %s: %.500s", copy->record.vm_id, copy->doing, copy->room.message);
    if (r == -ECANCELED || r == -EINTR)
        return ic_fail(error, IC_ERR_CANCELLED, "VM '%s': %s: cancelled", copy->record.vm_id, copy->doing);
    if (r == -ECONNRESET || r == -EPIPE || r == -EPROTO || r == -EBADMSG || r == -EMSGSIZE || r == -ETIMEDOUT)
        return session_fail(&copy->record, r, copy->doing, error);
    if (r < 0 && t->message[0])
        return fail_saying(copy, r, t->message, error);
    if (r < 0)
        return ic_fail_errno(error, r, "%s of %s", copy->doing, copy->host_path);
    if (!ret)
        return 0;
    *ret = (struct ic_copy_result){
            .size = sizeof(*ret), .entries = t->entries, .bytes = t->bytes, .skipped = t->skipped};
    if (t->skipped > 0)
        (void)snprintf(ret->first_skipped, sizeof(ret->first_skipped), "%.511s", t->message);
    return 0;
}

static int copy_check(ic_vm *vm, const char *host_path, const char *guest_path, const struct ic_copy_options *options,
        const struct ic_copy_result *ret, struct ic_error *error)
{
    if (!host_path || !host_path[0] || !guest_path || !guest_path[0])
        return ic_fail(error, IC_ERR_INVALID, "copy: a path is empty");
    if (options && options->size != 0 && options->size != sizeof(*options))
        return ic_fail(error, IC_ERR_INVALID, "copy options: size %zu is not this library's %zu", options->size,
                sizeof(*options));
    if (ret && ret->size != sizeof(*ret))
        return ic_fail(error, IC_ERR_INVALID, "copy result: size must be that of the structure");
    return 0;
}

static struct transfer_common common_options(struct copy *copy, bool put)
{
    return (struct transfer_common){
            .put = put,
            .deadline = DEADLINE_NEVER,
            .interruptible = true,
            .progress = on_progress,
            .userdata = copy,
    };
}

int ic_vm_copy_in(ic_vm *vm, const char *host_path, const char *guest_path, const struct ic_copy_options *options,
        struct ic_copy_result *ret, struct ic_error *error)
{
    _cleanup_(copy_deinit) struct copy copy = {
            .guest_path = guest_path, .host_path = host_path, .doing = "copy into the guest", .fd = -1};
    struct transfer_send_options send;
    struct transfer_result result = {0};
    int r = copy_check(vm, host_path, guest_path, options, ret, error);

    if (r < 0)
        return r;
    if (options)
        copy.options = *options;
    r = copy_open(&copy, vm, WIRE_SESSION_PUT, error);
    if (r < 0)
        return r;
    send = (struct transfer_send_options){.size = sizeof(send),
            .common = common_options(&copy, true),
            .path = host_path,
            .follow = copy.options.follow};
    r = transfer_send(copy.fd, &copy.reader, &send, &result);
    return copy_result(&copy, r, &result, ret, error);
}

/* A directory that is there, on the file system that gets the copy. */
static void destination_dir(char ret[WIRE_MAX_PATH], const char *host_path)
{
    struct stat st;

    (void)snprintf(ret, WIRE_MAX_PATH, "%s", host_path); /* a longer one fails when it is opened */
    if (stat(ret, &st) < 0 || !S_ISDIR(st.st_mode)) {
        const char *parent = dirname(ret);

        memmove(ret, parent, strlen(parent) + 1);
    }
}

int ic_vm_copy_out(ic_vm *vm, const char *guest_path, const char *host_path, const struct ic_copy_options *options,
        struct ic_copy_result *ret, struct ic_error *error)
{
    _cleanup_(copy_deinit) struct copy copy = {
            .guest_path = guest_path, .host_path = host_path, .doing = "copy out of the guest", .fd = -1};
    struct transfer_receive_options receive;
    struct transfer_result result = {0};
    char name[WIRE_MAX_PATH + 1], parent[WIRE_MAX_PATH];
    struct wire_str base;
    int r = copy_check(vm, host_path, guest_path, options, ret, error);

    if (r < 0)
        return r;
    if (options)
        copy.options = *options;
    base = transfer_base_name(guest_path);
    if (base.len >= sizeof(name))
        return ic_fail(error, IC_ERR_INVALID, "guest path: longer than %u bytes", WIRE_MAX_PATH);
    memcpy(name, base.s, base.len);
    name[base.len] = '\0';
    r = copy_open(&copy, vm, WIRE_SESSION_GET, error);
    if (r < 0)
        return r;
    destination_dir(parent, host_path);
    copy.into_host = parent;
    copy.check_at_bytes = UNCHECKED_BYTES;
    copy.check_at_entries = UNCHECKED_ENTRIES;
    receive = (struct transfer_receive_options){
            .size = sizeof(receive),
            .common = common_options(&copy, false),
            .dest = host_path,
            .name = name,
            .mode_mask = HOST_MODE_MASK,
    };
    r = transfer_receive(copy.fd, &copy.reader, &receive, &result);
    return copy_result(&copy, r, &result, ret, error);
}
