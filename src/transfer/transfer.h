/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and trees over a put or get session: the same code on both sides. The
 * host calls transfer_send() for a put and transfer_receive() for a get, the
 * agent the other one in each case, in a process that already has the uid
 * whose rights shall count.
 *
 * Both are called once HELLO and PUT or GET have passed, and speak the rest of
 * the session: entries and data, DONE, and the closing OK or ERROR. They block,
 * within the deadline; the socket may be blocking or not. They never close it.
 *
 * The sender of a get is a guest and hostile: nothing that it sends can reach
 * outside the destination (tree.h), and what it sends is bounded by options.
 * After a failure what was copied before stays, as with cp; a file that was
 * not complete is removed, a file that it would have replaced is untouched.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/wire.h"

#define TRANSFER_MAX_DEPTH 256u /* directories inside each other, below the copied one */

enum {
    /* The other side answered ERROR: peer_code, peer_errno and message are set. */
    TRANSFER_PEER_ERROR = 1,
};

/* Filled in on every return. */
struct transfer_result {
    uint64_t bytes;   /* of regular files, holes included */
    uint64_t entries; /* files, directories and symlinks */
    /* What the sender left out: sockets, devices, what it may not read, what vanished or shrank meanwhile. */
    uint32_t skipped;
    enum wire_error_code peer_code;
    uint32_t peer_errno;
    /* "path: reason" of the failure, or of the first skipped entry after a success; printable ASCII. */
    char message[WIRE_MAX_MESSAGE + 1];
};

/* What both directions share. All zero is a get without limits. */
struct transfer_common {
    bool put;                            /* host to guest */
    uint64_t deadline;                   /* clock.h; 0 as well as DEADLINE_NEVER: none */
    const volatile sig_atomic_t *cancel; /* not 0: give up with -ECANCELED; looked at every 100 ms at least */
    bool interruptible;                  /* a signal handler that interrupts a wait ends it: -EINTR */
    /* Now and then; not 0 gives up with -ECANCELED. */
    int (*progress)(void *userdata, uint64_t bytes, uint64_t entries);
    void *userdata;
};

struct transfer_send_options {
    size_t size; /* sizeof(struct transfer_send_options) */
    struct transfer_common common;
    const char *path;
    bool follow; /* a symlink that is the path itself */
    /* For each entry that is left out; the text is printable. */
    void (*skipped)(void *userdata, const char *message);
};

struct transfer_receive_options {
    size_t size; /* sizeof(struct transfer_receive_options) */
    struct transfer_common common;
    /*
     * `dest` is an existing directory: the copy is dest/name, or with an empty
     * name goes into dest itself. Else the copy gets the name dest, whose parent
     * must exist; a dest that ends in '/' takes a directory only. An existing
     * file or symlink is replaced (not written through), an existing directory
     * is merged into and keeps its own mode, a file never replaces a directory.
     */
    const char *dest;
    const char *name;     /* transfer_base_name() of the source; NULL is empty */
    uint32_t mode_mask;   /* bits of modes that are kept; 0 means 0777 */
    bool keep_owner;      /* apply uid and gid of the entries */
    uint64_t max_bytes;   /* 0: no limit; holes count */
    uint64_t max_entries; /* 0: no limit */
};

/*
 * 0, TRANSFER_PEER_ERROR, or a negative errno: of the file system with its path in the message, or
 * -ECANCELED, -EINTR, -ETIMEDOUT, -ECONNRESET (the other side went away), -EPROTO, -EBADMSG, -EMSGSIZE (it broke the
 * protocol), -EFBIG (max_bytes), -E2BIG (max_entries).
 * `reader` holds what was already received on the session.
 */
int transfer_send(
        int sock, struct wire_reader *reader, const struct transfer_send_options *options, struct transfer_result *ret);
int transfer_receive(int sock, struct wire_reader *reader, const struct transfer_receive_options *options,
        struct transfer_result *ret);

/*
 * The name that a copy of `path` gets below an existing directory: its last part. Empty for a path that ends in "." or
 * ".." and for "/": the contents are copied. A view into path.
 */
struct wire_str transfer_base_name(const char *path);
