/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sending side: a walk over a tree that others may change meanwhile.
 *
 * Directories are read as a stream and kept on an explicit stack, so neither
 * a huge nor a deep tree costs memory. Every entry is opened relative to its
 * directory and never through a symlink, and what counts is what fstat says
 * of the open file. A file's size is promised in its ENTRY: one that grows
 * meanwhile is cut there, one that shrinks is filled up with a hole and
 * reported as skipped. Small files are read before their ENTRY is written: the
 * kernel's own files (/proc, /sys) only show their size when they are read.
 * Of these only single files are sent: as a tree they have no end, and reading
 * some of them does something.
 * Frames gather in one buffer, so that many small files cost few writes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/macro.h"
#include "transfer/stream.h"

#ifndef CONFIGFS_MAGIC
#define CONFIGFS_MAGIC 0x62656570 /* fs/configfs; in no header of the kernel's */
#endif
#define FLUSH_AT  (128u << 10)
#define SMALL_MAX ((size_t)16 << 20) /* most that is read of a file which says that its size is 0 */

struct level {
    DIR *dir;
    dev_t dev;
    size_t path_len; /* of this directory in sender.path */
};

struct sender {
    struct stream stream;
    const struct transfer_send_options *options;
    struct buf out;
    struct buf small; /* content of a small file */
    struct level stack[TRANSFER_MAX_DEPTH];
    unsigned depth;
    char path[WIRE_MAX_PATH]; /* of the current entry, relative to the copied thing */
    size_t path_len;
    char target[WIRE_MAX_PATH];
    const char *why; /* with SKIP_ENTRY: why the entry can't be sent, and the errno of that */
    int why_errno;
    char first_skipped[WIRE_MAX_MESSAGE + 1];
    uint8_t data[WIRE_MAX_STREAM];
};

static void sender_free(struct sender *s)
{
    if (!s)
        return;
    while (s->depth > 0)
        (void)closedir(s->stack[--s->depth].dir);
    buf_deinit(&s->out);
    buf_deinit(&s->small);
    free(s);
}
DEFINE_CLEANUP(struct sender *, sender_free)

/* Where the current entry is, for messages. */
static const char *shown(const struct sender *s, char *buf, size_t size)
{
    size_t n = strlen(s->options->path);

    while (n > 1 && s->options->path[n - 1] == '/')
        n--;
    if (s->path_len == 0)
        (void)snprintf(buf, size, "%.*s", (int)n, s->options->path);
    else
        (void)snprintf(buf, size, "%.*s%s%.*s", (int)n, s->options->path,
                n == 1 && s->options->path[0] == '/' ? "" : "/", (int)s->path_len, s->path);
    return buf;
}

static int fail(struct sender *s, int error, const char *reason)
{
    char buf[2 * WIRE_MAX_PATH];

    return stream_fail(&s->stream, error, shown(s, buf, sizeof(buf)), reason);
}

/* Not fatal unless it is the copied thing itself. */
enum { SKIP_ENTRY = 2 };
static int cannot(struct sender *s, int error, const char *reason)
{
    s->why_errno = error;
    s->why = reason ? reason : strerror(-error);
    return SKIP_ENTRY;
}

static void skip(struct sender *s, const char *reason)
{
    char path[2 * WIRE_MAX_PATH], safe[WIRE_MAX_MESSAGE - 256], message[WIRE_MAX_MESSAGE + 1];

    shown(s, path, sizeof(path));
    (void)snprintf(message, sizeof(message), "%s: %.200s", log_escape(safe, sizeof(safe), path, strlen(path)), reason);
    if (s->stream.result->skipped++ == 0)
        memcpy(s->first_skipped, message, sizeof(message));
    if (s->options->skipped)
        s->options->skipped(s->options->common.userdata, message);
}

static int flush_if_full(struct sender *s)
{
    return s->out.len >= FLUSH_AT || s->out.error ? stream_flush(&s->stream, &s->out) : 0;
}

static int put_entry(struct sender *s, const struct stat *st, enum wire_entry_kind kind, struct wire_str target)
{
    struct wire_entry e = {
            .kind = kind,
            .mode = st->st_mode & 07777,
            .uid = st->st_uid,
            .gid = st->st_gid,
            .size = kind == WIRE_ENTRY_FILE ? (uint64_t)st->st_size : 0,
            .path = {.s = s->path, .len = s->path_len},
            .target = target,
    };

    if (st->st_mtim.tv_sec >= 0 && (mul_overflows((uint64_t)st->st_mtim.tv_sec, 1000000000u, &e.mtime_ns) ||
                                           add_overflows(e.mtime_ns, (uint64_t)st->st_mtim.tv_nsec, &e.mtime_ns)))
        e.mtime_ns = 0;
    wire_put_entry(&s->out, &e);
    if (s->out.error)
        return fail(s, s->out.error, NULL);
    s->stream.result->entries++;
    (void)wire_step(&s->stream.state, s->stream.session, s->stream.self, WIRE_ENTRY, kind == WIRE_ENTRY_FILE);
    return flush_if_full(s);
}

static int put_hole(struct sender *s, uint64_t len)
{
    wire_put_hole(&s->out, len);
    s->stream.result->bytes += len;
    return flush_if_full(s);
}

/* One run of data: [off, end). *ret_off is where it stopped, less than end if the file shrank. */
static int put_run(struct sender *s, int fd, uint64_t off, uint64_t end, uint64_t *ret_off)
{
    int r = 0;

    while (r == 0 && off < end) {
        ssize_t n = pread(fd, s->data, (size_t)MIN(end - off, (uint64_t)sizeof(s->data)), (off_t)off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(s, -errno, NULL);
        if (n == 0)
            break;
        wire_put_bytes(&s->out, WIRE_DATA, s->data, (size_t)n);
        off += (uint64_t)n;
        s->stream.result->bytes += (uint64_t)n;
        r = flush_if_full(s);
    }
    *ret_off = off;
    return r;
}

/* The next run of data at or behind off: [*ret_start, *ret_end), empty at the end. A file system that can't say has one
 * run. Answers are clamped: another process may change the file between two calls. */
static void next_run(int fd, bool sparse, uint64_t off, uint64_t size, uint64_t *ret_start, uint64_t *ret_end)
{
    off_t data = (off_t)off, hole;

    *ret_start = off;
    *ret_end = size;
    if (!sparse)
        return;
    data = lseek(fd, (off_t)off, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
        *ret_start = size;
        return;
    }
    if (data < (off_t)off)
        return;
    *ret_start = MIN((uint64_t)data, size);
    hole = lseek(fd, data, SEEK_HOLE);
    if (hole > data)
        *ret_end = MIN((uint64_t)hole, size);
}

static int put_file(struct sender *s, int fd, const struct stat *st)
{
    const uint64_t size = (uint64_t)st->st_size;
    const bool sparse = (uint64_t)st->st_blocks * 512 < size;
    uint64_t off = 0, start, end;
    int r = put_entry(s, st, WIRE_ENTRY_FILE, (struct wire_str){0});

    while (r == 0 && off < size) {
        next_run(fd, sparse, off, size, &start, &end);
        if (start > off)
            r = put_hole(s, start - off);
        off = start;
        if (r == 0)
            r = put_run(s, fd, start, end, &off);
        if (r == 0 && off < end) {
            skip(s, "shrank while it was copied; the missing part is zeroes");
            return put_hole(s, size - off);
        }
    }
    return r;
}

/* The content into s->small. A size that is not 0 is taken at its word, so a file that grows ends there. */
static int read_small(struct sender *s, int fd, uint64_t size)
{
    buf_reset(&s->small);
    while (size == 0 || s->small.len < size) {
        uint8_t *p = buf_reserve(&s->small, WIRE_MAX_STREAM);
        ssize_t n;

        if (!p)
            return s->small.error == -EMSGSIZE ? cannot(s, -EFBIG, NULL) : fail(s, s->small.error, NULL);
        n = pread(fd, p, WIRE_MAX_STREAM, (off_t)s->small.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cannot(s, -errno, NULL);
        if (n == 0)
            break;
        s->small.len += (size_t)n;
    }
    if (size > 0 && s->small.len > size)
        s->small.len = (size_t)size;
    return 0;
}

static int put_small_file(struct sender *s, int fd, const struct stat *st)
{
    struct stat real = *st;
    int r = read_small(s, fd, (uint64_t)st->st_size);

    if (r != 0)
        return r;
    real.st_size = (off_t)s->small.len;
    r = put_entry(s, &real, WIRE_ENTRY_FILE, (struct wire_str){0});
    for (size_t off = 0; r == 0 && off < s->small.len;) {
        size_t n = MIN(s->small.len - off, (size_t)WIRE_MAX_STREAM);

        wire_put_bytes(&s->out, WIRE_DATA, s->small.data + off, n);
        s->stream.result->bytes += n;
        off += n;
        r = flush_if_full(s);
    }
    return r;
}

/* What only looks like files: the kernel's answers to who reads them. */
static bool is_kernels(int fd)
{
    static const long magic[] = {PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC,
            TRACEFS_MAGIC, SECURITYFS_MAGIC, BPF_FS_MAGIC, PSTOREFS_MAGIC, EFIVARFS_MAGIC, SELINUX_MAGIC,
            DEVPTS_SUPER_MAGIC, BINFMTFS_MAGIC, CONFIGFS_MAGIC, RDTGROUP_SUPER_MAGIC};
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(magic); i++) {
        if ((unsigned long)fs.f_type == (unsigned long)magic[i])
            return true;
    }
    return false;
}

/* Opens a directory on the stack. */
static int enter(struct sender *s, int fd, const struct stat *st)
{
    DIR *dir;

    if (s->depth == TRANSFER_MAX_DEPTH) {
        fd_close(fd);
        return fail(s, -ENAMETOOLONG, "too many directories inside each other");
    }
    dir = fdopendir(fd);
    if (!dir) {
        int r = -errno;

        fd_close(fd);
        return fail(s, r, NULL);
    }
    s->stack[s->depth++] = (struct level){.dir = dir, .dev = st->st_dev, .path_len = s->path_len};
    return put_entry(s, st, WIRE_ENTRY_DIR, (struct wire_str){0});
}

static int put_symlink(struct sender *s, int dirfd, const char *name, const struct stat *st)
{
    ssize_t n = readlinkat(dirfd, name, s->target, sizeof(s->target));

    if (n < 0)
        return cannot(s, -errno, NULL);
    if (n == 0 || (size_t)n >= sizeof(s->target))
        return cannot(s, -ENAMETOOLONG, NULL);
    return put_entry(s, st, WIRE_ENTRY_SYMLINK, (struct wire_str){.s = s->target, .len = (size_t)n});
}

/* Sends the entry `name` of dirfd; a directory goes onto the stack. */
static int put_any(struct sender *s, int dirfd, const char *name, bool follow)
{
    _cleanup_(fd_closep) int fd = -1;
    struct stat st;

    if (fstatat(dirfd, name, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
        return cannot(s, -errno, NULL);
    if (S_ISLNK(st.st_mode))
        return put_symlink(s, dirfd, name, &st);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return cannot(s, -EINVAL, "not a file, directory or symlink");
    fd = openat(dirfd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
    if (fd < 0 || fstat(fd, &st) < 0)
        return cannot(s, -errno, NULL);
    if (S_ISDIR(st.st_mode) && (s->depth == 0 || s->stack[s->depth - 1].dev != st.st_dev) && is_kernels(fd))
        return cannot(s, -EINVAL, "is the kernel's, of which only single files can be copied");
    if (S_ISDIR(st.st_mode))
        return enter(s, TAKE_FD(fd), &st);
    if (S_ISREG(st.st_mode))
        return st.st_size <= (off_t)WIRE_MAX_STREAM ? put_small_file(s, fd, &st) : put_file(s, fd, &st);
    return cannot(s, -EINVAL, "changed while it was copied");
}

/* Appends a name to the current directory's path. False when it becomes too long for an ENTRY. */
static bool set_path(struct sender *s, size_t dir_len, const char *name)
{
    size_t n = strlen(name), sep = dir_len > 0 ? 1 : 0;

    if (dir_len + sep + n >= sizeof(s->path))
        return false;
    if (sep)
        s->path[dir_len] = '/';
    memcpy(s->path + dir_len + sep, name, n);
    s->path_len = dir_len + sep + n;
    return true;
}

static int walk(struct sender *s)
{
    int r = put_any(s, AT_FDCWD, s->options->path, s->options->follow);

    if (r == SKIP_ENTRY)
        return fail(s, s->why_errno, s->why);
    while (r == 0 && s->depth > 0) {
        struct level *top = &s->stack[s->depth - 1];
        struct dirent *d;

        errno = 0;
        d = readdir(top->dir);
        if (!d && errno != 0) {
            s->path_len = top->path_len;
            return fail(s, -errno, NULL);
        }
        if (!d) {
            (void)closedir(top->dir);
            s->depth--;
            continue;
        }
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        if (!set_path(s, top->path_len, d->d_name)) {
            s->path_len = top->path_len;
            return fail(s, -ENAMETOOLONG, "a path below it is too long to be copied");
        }
        r = stream_progress(&s->stream);
        if (r == 0)
            r = put_any(s, dirfd(top->dir), d->d_name, false);
        if (r == SKIP_ENTRY) {
            skip(s, s->why);
            r = 0;
        }
    }
    return r;
}

/* What the peer has to say: its ERROR while we were sending, or the answer to DONE. */
static int hear_answer(struct sender *s)
{
    struct wire_frame f;
    const uint8_t *payload;
    int r = stream_next(&s->stream, &f, &payload);

    if (r == 0 && (f.type != WIRE_OK || s->stream.state != WIRE_ST_ENDED))
        r = stream_fail(&s->stream, -EPROTO, NULL, "the other side broke the protocol while it received");
    return r;
}

int transfer_send(
        int sock, struct wire_reader *reader, const struct transfer_send_options *options, struct transfer_result *ret)
{
    const bool put = options->common.put;
    _cleanup_(sender_freep) struct sender *s = calloc(1, sizeof(*s));
    int r;

    if (!s) {
        *ret = (struct transfer_result){.message = "out of memory"};
        return -ENOMEM;
    }
    s->options = options;
    s->small.max = SMALL_MAX;
    stream_init(&s->stream, sock, reader, &options->common, put ? WIRE_FROM_HOST : WIRE_FROM_AGENT, ret);
    r = walk(s);
    if (r == 0) {
        wire_put_done(&s->out, ret->skipped, s->first_skipped);
        (void)wire_step(&s->stream.state, s->stream.session, s->stream.self, WIRE_DONE, false);
        r = stream_flush(&s->stream, &s->out);
    } else if (r < 0 && !put && stream_flush(&s->stream, &s->out) == 0) {
        stream_send_error(&s->stream, r);
    }
    if (r == STREAM_PEER_SPOKE || (r == 0 && put))
        r = hear_answer(s);
    if (r == 0 && ret->skipped > 0)
        memcpy(ret->message, s->first_skipped, sizeof(ret->message));
    return r;
}

struct wire_str transfer_base_name(const char *path)
{
    size_t end = strlen(path), start;

    while (end > 0 && path[end - 1] == '/')
        end--;
    start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    if ((end - start == 1 && path[start] == '.') || (end - start == 2 && memcmp(path + start, "..", 2) == 0))
        return (struct wire_str){.s = path + end, .len = 0};
    return (struct wire_str){.s = path + start, .len = end - start};
}
