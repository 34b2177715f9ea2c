/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receiving side: frames of a hostile sender in, calls on a tree out.
 *
 * The state table (wire_step) has refused data outside a file before this code
 * sees it, and the decoders malformed paths. What is left to check here is the
 * arithmetic: a file gets exactly the bytes that its ENTRY promised, and all of
 * it stays within the caller's limits.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "transfer/stream.h"
#include "transfer/tree.h"

struct receiver {
    struct stream stream;
    const struct transfer_receive_options *options;
    struct tree tree;
    bool in_file;
    uint64_t size, offset;    /* of the file being received */
    char path[WIRE_MAX_PATH]; /* of the current entry */
    size_t path_len;
    char target[WIRE_MAX_PATH];
};

static int fail(struct receiver *r, int error, const char *reason)
{
    char buf[2 * WIRE_MAX_PATH + 1];

    (void)snprintf(buf, sizeof(buf), "%s%s%s", r->tree.shown, r->path_len > 0 ? "/" : "", r->path);
    return stream_fail(&r->stream, error, buf, reason);
}

static int fail_tree(struct receiver *r, int error)
{
    return error < 0 ? fail(r, error, tree_why(error)) : error;
}

static int end_file(struct receiver *r)
{
    if (!r->in_file)
        return 0;
    if (r->offset != r->size)
        return fail(r, -EPROTO, "the sender broke the protocol: less data than the file's size");
    r->in_file = false;
    return fail_tree(r, tree_file_end(&r->tree, r->size));
}

/* Room for `len` more bytes in the file and in the caller's limit. */
static int account(struct receiver *r, uint64_t len)
{
    struct transfer_result *res = r->stream.result;
    const uint64_t max = r->options->max_bytes;

    if (len > r->size - r->offset)
        return fail(r, -EPROTO, "the sender broke the protocol: more data than the file's size");
    if (max > 0 && len > max - MIN(max, res->bytes))
        return fail(r, -EFBIG, "more bytes than the limit of this copy");
    res->bytes += len;
    return 0;
}

static int take_entry(struct receiver *r, const uint8_t *payload, size_t len)
{
    const enum wire_sender peer = r->options->common.put ? WIRE_FROM_HOST : WIRE_FROM_AGENT;
    struct transfer_result *res = r->stream.result;
    struct wire_entry e;
    struct tree_attrs attrs;
    int e_r = wire_get_entry(&e, payload, len);

    if (e_r < 0)
        return stream_fail(&r->stream, e_r, NULL, "the sender broke the protocol: malformed ENTRY");
    e_r = stream_step(&r->stream, peer, WIRE_ENTRY, e.kind == WIRE_ENTRY_FILE);
    if (e_r == 0)
        e_r = end_file(r);
    if (e_r < 0)
        return e_r;
    memcpy(r->path, e.path.s, e.path.len);
    r->path[e.path.len] = '\0';
    r->path_len = e.path.len;
    if ((e.path.len == 0) != (res->entries == 0))
        return fail(r, -EPROTO, "the sender broke the protocol: only the first entry is the copy itself");
    if (r->options->max_entries > 0 && res->entries >= r->options->max_entries)
        return fail(r, -E2BIG, "more entries than the limit of this copy");
    res->entries++;
    attrs = (struct tree_attrs){.mode = e.mode, .uid = e.uid, .gid = e.gid, .mtime_ns = e.mtime_ns};
    switch (e.kind) {
    case WIRE_ENTRY_DIR:
        return fail_tree(r, tree_directory(&r->tree, r->path, r->path_len, &attrs));
    case WIRE_ENTRY_SYMLINK:
        memcpy(r->target, e.target.s, e.target.len);
        r->target[e.target.len] = '\0';
        return fail_tree(r, tree_symlink(&r->tree, r->path, r->path_len, r->target, &attrs));
    case WIRE_ENTRY_FILE:
        r->size = e.size;
        r->offset = 0;
        e_r = tree_file(&r->tree, r->path, r->path_len, &attrs);
        r->in_file = e_r == 0;
        return fail_tree(r, e_r);
    }
    return -EPROTO;
}

static int take_data(struct receiver *r, const uint8_t *payload, size_t len)
{
    int e = account(r, len);

    if (e == 0)
        e = fail_tree(r, tree_write(&r->tree, payload, len, r->offset));
    if (e == 0)
        r->offset += len;
    return e;
}

static int take_hole(struct receiver *r, const uint8_t *payload, size_t len)
{
    uint64_t hole;
    int e = wire_get_hole(&hole, payload, len);

    if (e < 0)
        return stream_fail(&r->stream, e, NULL, "the sender broke the protocol: malformed HOLE");
    e = account(r, hole);
    if (e == 0)
        r->offset += hole;
    return e;
}

/* Text of the other side: made printable here, whatever it is. */
static void keep_skipped(struct transfer_result *res, const struct wire_done *done)
{
    size_t len = MIN(done->message.len, sizeof(res->message) - 1);

    res->skipped = done->skipped;
    if (done->skipped == 0)
        return;
    for (size_t i = 0; i < len; i++)
        res->message[i] = done->message.s[i] >= 0x20 && done->message.s[i] < 0x7f ? done->message.s[i] : '?';
    res->message[len] = '\0';
}

static int take_done(struct receiver *r, struct wire_done *ret, const uint8_t *payload, size_t len)
{
    int e = wire_get_done(ret, payload, len);

    if (e < 0)
        return stream_fail(&r->stream, e, NULL, "the sender broke the protocol: malformed DONE");
    if (r->stream.result->entries == 0)
        return stream_fail(&r->stream, -EPROTO, NULL, "the sender broke the protocol: no entry before DONE");
    return end_file(r);
}

static int receive_all(struct receiver *r)
{
    struct wire_done done;
    struct wire_frame f;
    const uint8_t *payload;
    int e, closed;

    for (;;) {
        e = stream_next(&r->stream, &f, &payload);
        if (e == 0)
            e = stream_progress(&r->stream);
        if (e != 0)
            return e;
        switch (f.type) {
        case WIRE_ENTRY:
            e = take_entry(r, payload, f.len);
            break;
        case WIRE_DATA:
            e = take_data(r, payload, f.len);
            break;
        case WIRE_HOLE:
            e = take_hole(r, payload, f.len);
            break;
        case WIRE_DONE:
            e = take_done(r, &done, payload, f.len);
            if (e < 0)
                return e;
            r->path_len = 0;
            r->path[0] = '\0';
            closed = fail_tree(r, tree_close(&r->tree));
            if (closed == 0)
                keep_skipped(r->stream.result, &done);
            return closed;
        default:
            return stream_fail(&r->stream, -EPROTO, NULL, "the sender broke the protocol: unexpected frame");
        }
        if (e < 0)
            return e;
    }
}

int transfer_receive(int sock, struct wire_reader *reader, const struct transfer_receive_options *options,
        struct transfer_result *ret)
{
    const bool put = options->common.put;
    _cleanup_(freep) struct receiver *r = calloc(1, sizeof(*r));
    _cleanup_(buf_deinit) struct buf ok = {0};
    int e;

    if (!r) {
        *ret = (struct transfer_result){.message = "out of memory"};
        return -ENOMEM;
    }
    r->options = options;
    stream_init(&r->stream, sock, reader, &options->common, put ? WIRE_FROM_AGENT : WIRE_FROM_HOST, ret);
    e = fail_tree(r, tree_open(&r->tree, options));
    if (e == 0)
        e = receive_all(r);
    (void)tree_close(&r->tree);
    if (e < 0 && put)
        stream_send_error(&r->stream, e);
    if (e == 0 && put) {
        wire_put_empty(&ok, WIRE_OK);
        e = stream_flush(&r->stream, &ok);
        if (e == STREAM_PEER_SPOKE)
            e = stream_fail(&r->stream, -EPROTO, NULL, "the host broke the protocol: a frame behind DONE");
    }
    return e;
}
