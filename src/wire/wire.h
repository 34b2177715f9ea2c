/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames between the host and the guest's agent: pure encoding, no I/O.
 * docs/protocol.md is the specification; this header is its shape in C.
 *
 * One vsock connection is one session. A frame is
 *     le32 length of the payload, u8 type, payload.
 * Stream frames (STDIN, STDOUT, STDERR, DATA) carry at most 64 KiB; every
 * other type has a limit of its own, at most 1 MiB. A receiver checks the
 * length before it buffers a byte of the payload, and a table (wire_step)
 * says which type is legal in which state of the session; anything else ends
 * the session.
 *
 * Strings are le32 length + bytes without NUL; counts precede lists.
 * Decoded structs borrow from the payload that they were decoded from,
 * except where a member is an array.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define WIRE_VERSION      3u
#define WIRE_VERSION_MIN  1u          /* all that version 1 has is unchanged; it has no FREEZE, THAW and CLONE */
#define WIRE_FREEZE_SINCE 2u          /* the lowest version with them: look at READY before sending one */
#define WIRE_UNPLUG_SINCE 3u          /* and with UNPLUG */
#define WIRE_MAGIC        0x574c4349u /* "ICLW" */
#define WIRE_HEADER_SIZE  5u
#define WIRE_MAX_STREAM   (64u << 10)
#define WIRE_MAX_CONTROL  (1u << 20)
#define WIRE_MAX_ARGS     4096u /* argv and env entries, each list */
#define WIRE_MAX_PATH     4096u /* with the NUL that C adds: 4095 bytes in a frame */
#define WIRE_MAX_NAME     256u  /* user names, messages' short strings */
#define WIRE_MAX_MESSAGE  1024u /* bytes of an error text */
#define WIRE_MAX_HOSTNAME 64u
#define WIRE_ENTROPY_MIN  32u /* bytes in CLONE */
#define WIRE_ENTROPY_MAX  512u
#define WIRE_AGENT_PORT   1024u /* guest port: the host connects here */
#define WIRE_READY_PORT   1025u /* host port: the agent connects here after boot, and while it is frozen */

enum wire_type {
    /* every session, host -> agent, first */
    WIRE_HELLO = 1, /* struct wire_hello */
    /* agent -> host, any session: it failed; the session ends after it */
    WIRE_ERROR = 2, /* struct wire_error */
    /* agent -> host: the request is done (put, and each control request without an answer of its own) */
    WIRE_OK = 3, /* empty */

    /* exec session */
    WIRE_EXEC = 16,        /* h->a: struct wire_exec */
    WIRE_STARTED = 17,     /* a->h: le32 pid */
    WIRE_STDIN = 18,       /* h->a: bytes */
    WIRE_CLOSE_STDIN = 19, /* h->a: empty */
    WIRE_STDOUT = 20,      /* a->h: bytes; with a tty all output is STDOUT */
    WIRE_STDERR = 21,      /* a->h: bytes */
    WIRE_RESIZE = 22,      /* h->a: le16 rows, le16 columns */
    WIRE_SIGNAL = 23,      /* h->a: u8 signal number, sent to the command's process group */
    WIRE_EXIT = 24,        /* a->h: struct wire_exit; last frame, after all output */

    /* put (h->a) and get (a->h): ENTRY, its DATA/HOLE, next ENTRY ..., DONE */
    WIRE_PUT = 32,   /* h->a: struct wire_copy: where to */
    WIRE_GET = 33,   /* h->a: struct wire_copy: what */
    WIRE_ENTRY = 34, /* struct wire_entry */
    WIRE_DATA = 35,  /* bytes of the current regular file */
    WIRE_HOLE = 36,  /* le64 length of a run of zeroes of the current file */
    WIRE_DONE = 37,  /* struct wire_done: no more entries; put is answered by OK */

    /* control session; on the ready connection the agent sends READY first, then it is a control session too */
    WIRE_READY = 48,     /* a->h: struct wire_ready */
    WIRE_TIME = 49,      /* h->a: le64 nanoseconds since the epoch; answered OK */
    WIRE_ENTROPY = 50,   /* h->a: 1..512 bytes, credited and reseeded; answered OK */
    WIRE_STATS_REQ = 51, /* h->a: empty */
    WIRE_STATS = 52,     /* a->h: struct wire_stats */
    WIRE_SHUTDOWN = 53,  /* h->a: empty; the agent ends every command, syncs and powers off; the connection just ends */
    WIRE_PING = 54,      /* h->a: empty; answered OK */
    WIRE_FREEZE = 55,    /* h->a: empty; answered OK when nothing of the commands runs any more */
    WIRE_THAW = 56,      /* h->a: empty; answered OK: the same machine goes on */
    WIRE_CLONE = 57,  /* h->a: struct wire_clone, only while frozen; answered OK when no other machine is like this */
    WIRE_UNPLUG = 58, /* h->a: empty, on the session that sent FREEZE; answered OK: with it all connections will end */
};

enum wire_session {
    WIRE_SESSION_EXEC = 1,
    WIRE_SESSION_PUT = 2,
    WIRE_SESSION_GET = 3,
    WIRE_SESSION_CONTROL = 4,
};

/* Frame header. 0 and *ret; -EBADMSG for an unknown type, -EMSGSIZE for a length over the type's limit. */
struct wire_frame {
    enum wire_type type;
    uint32_t len; /* of the payload */
};
int wire_header_decode(struct wire_frame *ret, const uint8_t bytes[WIRE_HEADER_SIZE]);

/*
 * Sender of a frame, and the session's states. Each side calls wire_step() for
 * the frames that it sends and for those that arrive. Frames cross on the way,
 * so the host's STDIN, RESIZE... are legal before it has seen STARTED, and a
 * side that has sent its last frame ignores what still arrives.
 */
enum wire_sender { WIRE_FROM_HOST, WIRE_FROM_AGENT };
enum wire_state {
    WIRE_ST_START,      /* host must send HELLO */
    WIRE_ST_REQUEST,    /* host must send EXEC / PUT / GET, or any control request */
    WIRE_ST_EXEC_START, /* agent must answer STARTED or ERROR; the host may send input already */
    WIRE_ST_RUNNING,
    WIRE_ST_PUT,
    WIRE_ST_PUT_FILE, /* inside a regular file: DATA and HOLE are legal too */
    WIRE_ST_PUT_DONE, /* agent must answer OK or ERROR */
    WIRE_ST_GET,
    WIRE_ST_GET_FILE,
    WIRE_ST_CONTROL, /* requests and, in their order, answers */
    WIRE_ST_READY,   /* ready connection: agent must send READY */
    WIRE_ST_ENDED,
};
/* 0 and the next state in *state, or -EPROTO when `type` from `sender` is not legal now. `session` is HELLO's kind;
 * for ENTRY the caller passes whether it opens a regular file. */
int wire_step(enum wire_state *state, enum wire_session session, enum wire_sender sender, enum wire_type type,
        bool regular_file);

struct wire_hello {
    uint16_t version, version_min;
    enum wire_session session;
};

struct wire_str {
    const char *s; /* not NUL-terminated */
    size_t len;
};

enum wire_exec_flags {
    WIRE_EXEC_TTY = 1 << 0,
    WIRE_EXEC_STDIN = 1 << 1, /* without it the command's stdin is /dev/null */
};

struct wire_exec {
    uint32_t flags;
    uint32_t timeout_ms; /* 0: none; then TERM, and KILL kill_grace_ms later, to all of the command's processes */
    uint32_t kill_grace_ms;
    uint16_t rows, cols;         /* of the tty */
    struct wire_str user;        /* "", name, or uid[:gid]; empty means the image's user ("agent") */
    struct wire_str cwd;         /* absolute; empty means the user's home */
    uint32_t argc, envc;         /* argc >= 1 */
    struct wire_str *argv, *env; /* env: NAME=value. decode: one allocation owned by argv, see wire_exec_deinit */
};

enum wire_exit_kind {
    WIRE_EXIT_CODE = 0,    /* value: exit code */
    WIRE_EXIT_SIGNAL = 1,  /* value: signal that ended it */
    WIRE_EXIT_TIMEOUT = 2, /* value: signal that ended it */
    WIRE_EXIT_OOM = 3,     /* value: SIGKILL; the guest's memory limit ended it */
};
struct wire_exit {
    enum wire_exit_kind kind;
    uint32_t value;
    uint64_t user_us, system_us, max_rss_kib;
};

enum wire_error_code {
    WIRE_E_PROTOCOL = 1,
    WIRE_E_VERSION = 2,
    WIRE_E_NOT_FOUND = 3, /* exec: the program; copy: the path */
    WIRE_E_NOT_EXECUTABLE = 4,
    WIRE_E_NO_USER = 5,
    WIRE_E_NO_CWD = 6,
    WIRE_E_IO = 7,    /* os_errno says which */
    WIRE_E_LIMIT = 8, /* too many sessions, processes, entries */
    WIRE_E_NO_SPACE = 9,
    WIRE_E_INVALID = 10,
};
struct wire_error {
    enum wire_error_code code;
    uint32_t os_errno;       /* Linux numbering, 0 if none */
    struct wire_str message; /* the host escapes it before it prints it */
};

enum wire_copy_flags {
    WIRE_COPY_KEEP_OWNER = 1 << 0, /* put: apply uid/gid of the entries; else all belong to `user` */
    WIRE_COPY_FOLLOW = 1 << 1,     /* get: follow a symlink that is the path itself */
};
struct wire_copy {
    uint32_t flags;
    struct wire_str path; /* absolute. put: see docs/protocol.md for the rules of an existing directory */
    struct wire_str user; /* as in wire_exec: whose rights are used */
    struct wire_str name; /* put: the source's base name, used below an existing directory; empty: merge into it */
};

enum wire_entry_kind {
    WIRE_ENTRY_FILE = 1,
    WIRE_ENTRY_DIR = 2,
    WIRE_ENTRY_SYMLINK = 3,
};
/* Path: relative, "" for the copied thing itself, no "." or ".." part, no leading or doubled '/', parents come first.
 */
struct wire_entry {
    enum wire_entry_kind kind;
    uint32_t mode; /* 07777 */
    uint32_t uid, gid;
    uint64_t mtime_ns; /* since the epoch; older times are sent as 0 */
    uint64_t size;     /* regular files: total with holes, at most INT64_MAX */
    struct wire_str path;
    struct wire_str target; /* symlinks */
};

struct wire_done {
    uint32_t skipped;        /* entries that the sender left out: sockets, devices, unreadable ones */
    struct wire_str message; /* about the first of them */
};

struct wire_ready {
    uint16_t version;
    uint64_t boot_us; /* CLOCK_MONOTONIC when the agent sent it */
    uint64_t init_us; /* ... when the agent's main() began */
    struct wire_str agent_version, kernel_release;
};

enum wire_clone_flags {
    WIRE_CLONE_TIED = 1 << 0, /* power off when the ready connection ends */
};
/* What a machine that was copied needs to be one of its own, before it runs anything. */
struct wire_clone {
    uint8_t generation[16]; /* never used before */
    uint64_t time_ns;       /* since the epoch */
    uint32_t flags;
    struct wire_str hostname; /* letters, digits, '-', '_', '.'; empty: as it was */
    struct wire_str entropy;  /* WIRE_ENTROPY_MIN to WIRE_ENTROPY_MAX bytes; NULs too */
};

struct wire_stats {
    uint64_t uptime_ms, mem_total_kib, mem_available_kib, overlay_size_kib, overlay_used_kib;
    uint32_t processes, sessions;
    uint64_t cpu_busy_ms, reaped, oom_kills;
};

/*
 * Encoders append one whole frame, or nothing and set the buf's sticky error
 * (-EMSGSIZE: the frame is over its type's limit, -EINVAL: the receiver would
 * refuse it, -ENOMEM); check it once. Texts of errors are cut at WIRE_MAX_MESSAGE.
 */
void wire_put_bytes(struct buf *b, enum wire_type type, const void *data, size_t len);
void wire_put_empty(struct buf *b, enum wire_type type);
void wire_put_hello(struct buf *b, enum wire_session session);
void wire_put_error(struct buf *b, enum wire_error_code code, uint32_t os_errno, const char *message);
void wire_put_exec(struct buf *b, const struct wire_exec *exec);
void wire_put_started(struct buf *b, uint32_t pid);
void wire_put_resize(struct buf *b, uint16_t rows, uint16_t cols);
void wire_put_signal(struct buf *b, uint8_t signo);
void wire_put_exit(struct buf *b, const struct wire_exit *e);
void wire_put_copy(struct buf *b, enum wire_type put_or_get, const struct wire_copy *copy);
void wire_put_entry(struct buf *b, const struct wire_entry *entry);
void wire_put_hole(struct buf *b, uint64_t len);
void wire_put_done(struct buf *b, uint32_t skipped, const char *message);
void wire_put_ready(struct buf *b, const struct wire_ready *ready);
void wire_put_time(struct buf *b, uint64_t epoch_ns);
void wire_put_stats(struct buf *b, const struct wire_stats *stats);
void wire_put_clone(struct buf *b, const struct wire_clone *clone);

/* Decoders of payloads: 0, -EBADMSG (malformed), -ENOMEM. *ret is untouched on failure. */
int wire_get_hello(struct wire_hello *ret, const void *payload, size_t len);
int wire_get_error(struct wire_error *ret, const void *payload, size_t len);
int wire_get_exec(struct wire_exec *ret, const void *payload, size_t len);
void wire_exec_deinit(struct wire_exec *exec);
int wire_get_started(uint32_t *ret_pid, const void *payload, size_t len);
int wire_get_resize(uint16_t *ret_rows, uint16_t *ret_cols, const void *payload, size_t len);
int wire_get_signal(uint8_t *ret, const void *payload, size_t len);
int wire_get_exit(struct wire_exit *ret, const void *payload, size_t len);
int wire_get_copy(struct wire_copy *ret, const void *payload, size_t len);
int wire_get_entry(struct wire_entry *ret, const void *payload, size_t len);
int wire_get_hole(uint64_t *ret, const void *payload, size_t len);
int wire_get_done(struct wire_done *ret, const void *payload, size_t len);
int wire_get_ready(struct wire_ready *ret, const void *payload, size_t len);
int wire_get_time(uint64_t *ret, const void *payload, size_t len);
int wire_get_stats(struct wire_stats *ret, const void *payload, size_t len);
int wire_get_clone(struct wire_clone *ret, const void *payload, size_t len);

/* A string literal or C string as struct wire_str; NULL is empty. */
struct wire_str wire_str_of(const char *s);

/* The agent can serve this host: the ranges of versions meet. The session then speaks the lower of the two versions. */
bool wire_version_ok(const struct wire_hello *hello);

/* The code that tells a Linux errno (positive) best; WIRE_E_IO when none is better. */
enum wire_error_code wire_error_of_errno(int os_errno);

/* True for a path that an entry may carry (see struct wire_entry): "" too, each part at most 255 bytes. */
bool wire_path_ok(const char *path, size_t len);

/*
 * Incremental receiver: feed it what read(2) gave, take whole frames out until
 * it asks for more. It starts as {0}. What it holds is bounded by one frame of
 * WIRE_MAX_CONTROL and one read.
 */
#define WIRE_READ_ROOM (128u << 10)

struct wire_reader {
    struct buf in;
    size_t taken; /* bytes at the front that belong to frames already returned */
};
/* Where to read(2) into: returns a pointer with *ret_room bytes (WIRE_READ_ROOM, less near the cap), then
 * wire_reader_filled(n). Ends the life of payloads returned before. NULL when out of memory, or when the cap is
 * reached because frames were not taken out. */
uint8_t *wire_reader_space(struct wire_reader *r, size_t *ret_room);
void wire_reader_filled(struct wire_reader *r, size_t n);
/* 1: *ret and *ret_payload (valid until the next wire_reader_space); 0: need more bytes; negative as
 * wire_header_decode. */
int wire_reader_next(struct wire_reader *r, struct wire_frame *ret, const uint8_t **ret_payload);
/* Nothing stays in the buffer of frames that were returned, which ends the life of their payloads: they were secret. */
void wire_reader_wipe(struct wire_reader *r);
/* True when bytes were received that no returned frame covers: the peer may not end the connection here. */
bool wire_reader_pending(const struct wire_reader *r);
void wire_reader_deinit(struct wire_reader *r);
