/* SPDX-License-Identifier: Apache-2.0 */
/* Inside src/transfer only: one session's frames on a socket, with deadline, cancellation and legality. */
#pragma once

#include "transfer/transfer.h"

struct stream {
    int sock;
    struct wire_reader *reader;
    const struct transfer_common *common;
    struct transfer_result *result;
    enum wire_session session;
    enum wire_sender self;
    enum wire_state state;
    bool cut; /* a frame was sent in part: nothing can follow it */
};

void stream_init(struct stream *s, int sock, struct wire_reader *reader, const struct transfer_common *common,
        enum wire_sender self, struct transfer_result *result);

/* Sends all of b and empties it. STREAM_PEER_SPOKE: a frame is coming in, what was not sent is lost. */
enum { STREAM_PEER_SPOKE = 1 };
int stream_flush(struct stream *s, struct buf *b);

/* Waits for one whole frame; its payload is valid until the next call. A legal frame that is ERROR fills in the result
 * and returns TRANSFER_PEER_ERROR. ENTRY is stepped by the caller, once it is decoded. */
int stream_next(struct stream *s, struct wire_frame *ret, const uint8_t **ret_payload);

/* The state table for one frame; -EPROTO with a message. */
int stream_step(struct stream *s, enum wire_sender sender, enum wire_type type, bool regular_file);

/* Progress callback, cancellation and deadline: also a stream that never makes us wait must end. */
int stream_progress(struct stream *s);

/* Agent only: reports `error` with the result's message, then drops what still arrives until the host hangs up. */
void stream_send_error(struct stream *s, int error);

/* Sets the result's message, unless there is one: "path: reason", escaped. Returns `error`. */
int stream_fail(struct stream *s, int error, const char *path, const char *reason);
