/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/backends/qemu-snapshot.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/backends/qemu-args.h"
#include "orchestrator/backends/qemu-stream.h"
#include "orchestrator/backends/qmp.h"
#include "orchestrator/process.h"
#include "orchestrator/tail.h"

#define STATE_MAGIC      "ironclaw qemu 1"
#define TRANSFER_MS      60000u /* either way: a quarter of a second where nobody else computes */
#define PLUGGED          "/machine/peripheral/"
#define GO_ON_MS         10000u
#define UNPLUG_MS        10000u /* the guest's drivers may have to wait for a processor */
#define UNPLUG_LOOK_US   2000u
#define PIPE_BYTES       (1 << 20)            /* as much as a user may have without being asked */
#define BESIDE_PAGES     ((uint64_t)64 << 20) /* of a stream: firmware, devices, and what names the pages */
#define PAGE_NAMES_SHIFT 8                    /* 8 bytes for each page of 4096, with room to spare */
#define PIECE_BYTES      ((size_t)256 << 10)
#define SUM_LANES        4u

/* Little-endian. */
struct qemu_state_header {
    char magic[16];
    uint32_t memory_mib, vcpu_count;
    uint64_t stream_bytes;
    uint64_t checksum;        /* of the stream */
    uint64_t header_checksum; /* of all before it */
    uint8_t reserved[16];
};
static_assert(sizeof(struct qemu_state_header) == 64, "a fixed format");
static_assert(sizeof(STATE_MAGIC) == sizeof(((struct qemu_state_header *)NULL)->magic), "fills the field");

/* ---- the checksum ---- */

/* Each step is a bijection of the lane for the same word, and of the word for the same lane: any single change shows.
 */
struct sum {
    uint64_t lanes[SUM_LANES];
    uint8_t rest[8 * SUM_LANES];
    size_t rest_len;
    uint64_t bytes;
};

static uint64_t mix(uint64_t lane, uint64_t word)
{
    lane = (lane ^ word) * 0x9e3779b97f4a7c15u;
    return lane << 29 | lane >> 35;
}

static void sum_words(struct sum *sum, const uint8_t *data, size_t blocks)
{
    for (size_t i = 0; i < blocks; i++) {
        for (size_t lane = 0; lane < SUM_LANES; lane++) {
            uint64_t word;

            memcpy(&word, data + (i * SUM_LANES + lane) * sizeof(word), sizeof(word));
            sum->lanes[lane] = mix(sum->lanes[lane], le64toh(word));
        }
    }
}

static void sum_add(struct sum *sum, const uint8_t *data, size_t len)
{
    sum->bytes += len;
    while (len > 0) {
        if (sum->rest_len == 0 && len >= sizeof(sum->rest)) {
            size_t blocks = len / sizeof(sum->rest);

            sum_words(sum, data, blocks);
            data += blocks * sizeof(sum->rest);
            len -= blocks * sizeof(sum->rest);
        } else {
            size_t n = MIN(len, sizeof(sum->rest) - sum->rest_len);

            memcpy(sum->rest + sum->rest_len, data, n);
            sum->rest_len += n;
            data += n;
            len -= n;
            if (sum->rest_len == sizeof(sum->rest)) {
                sum_words(sum, sum->rest, 1);
                sum->rest_len = 0;
            }
        }
    }
}

static uint64_t sum_finish(struct sum *sum)
{
    uint64_t value = sum->bytes;

    memset(sum->rest + sum->rest_len, 0, sizeof(sum->rest) - sum->rest_len);
    sum_words(sum, sum->rest, 1);
    for (size_t lane = 0; lane < SUM_LANES; lane++)
        value = mix(value, sum->lanes[lane]);
    return value;
}

static uint64_t header_sum(const struct qemu_state_header *header)
{
    struct sum sum = {0};

    sum_add(&sum, (const uint8_t *)header, offsetof(struct qemu_state_header, header_checksum));
    return sum_finish(&sum);
}

/* ---- saving ---- */

int qemu_qmp_path(char *dst, size_t size, const char *run_dir, struct ic_error *error)
{
    if ((size_t)snprintf(dst, size, "%s/" BACKEND_QMP, run_dir) >= size)
        return ic_fail(error, IC_ERR_INVALID, "%s: path too long", run_dir);
    return 0;
}

static int want_events(struct qmp *q, struct ic_error *error)
{
    return qmp_run(q, "migrate-set-capabilities", "{\"capabilities\":[{\"capability\":\"events\",\"state\":true}]}", -1,
            error);
}

/* The file that a stream goes to. */
struct writer {
    int fd;
    uint64_t left; /* bytes that a sane stream can still have */
    struct sum sum;
    struct qemu_stream stream;
    struct buf out;
};

static void writer_deinit(struct writer *w)
{
    qemu_stream_deinit(&w->stream);
    buf_deinit(&w->out);
}

static int write_piece(struct writer *w, const uint8_t *data, size_t len)
{
    int r = qemu_stream_push(&w->stream, data, len, &w->out);

    if (r == 0 && w->out.len > w->left)
        r = -EBADMSG;
    if (r == 0 && w->out.len > 0)
        r = fd_write_all(w->fd, w->out.data, w->out.len, DEADLINE_NEVER);
    if (r < 0)
        return r;
    sum_add(&w->sum, w->out.data, w->out.len);
    w->left -= w->out.len;
    buf_reset(&w->out);
    return 0;
}

/* Until QEMU closes its end, which it does when it is done and when it fails. */
static int write_stream(struct writer *w, int pipe_fd, uint64_t deadline)
{
    uint8_t piece[65536];
    int r;

    for (;;) {
        ssize_t n;

        r = fd_wait(pipe_fd, POLLIN, deadline);
        if (r < 0)
            return r;
        n = read(pipe_fd, piece, sizeof(piece));
        if (n == 0)
            return qemu_stream_finish(&w->stream);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return -errno;
        r = n > 0 ? write_piece(w, piece, (size_t)n) : 0;
        if (r < 0)
            return r;
    }
}

static int write_header(const struct writer *w, const struct record *record)
{
    struct sum sum = w->sum;
    struct qemu_state_header header = {
            .magic = STATE_MAGIC,
            .memory_mib = htole32(record->memory_mib),
            .vcpu_count = htole32(record->vcpu_count),
            .stream_bytes = htole64(w->sum.bytes),
            .checksum = htole64(sum_finish(&sum)),
    };
    ssize_t n;

    header.header_checksum = htole64(header_sum(&header));
    n = pwrite(w->fd, &header, sizeof(header), 0);
    if (n < 0)
        return -errno;
    return (size_t)n < sizeof(header) ? -ENOSPC : 0;
}

/* Without limits on rate and on the time of its last round, as nothing runs that could be held up by it. */
static int begin_migration(struct qmp *q, int fd, struct ic_error *error)
{
    int r = want_events(q, error);

    if (r == 0)
        r = qmp_run(
                q, "migrate-set-parameters", "{\"max-bandwidth\":1099511627776,\"downtime-limit\":2000000}", -1, error);
    if (r == 0)
        r = qmp_run(q, "getfd", "{\"fdname\":\"state\"}", fd, error);
    return r < 0 ? r : qmp_run(q, "migrate", "{\"uri\":\"fd:state\"}", -1, error);
}

static int save_to(
        struct qmp *q, int fd, const char *path, const struct record *record, uint64_t deadline, struct ic_error *error)
{
    const uint64_t memory_bytes = (uint64_t)record->memory_mib << 20;
    _cleanup_(fd_closep) int read_fd = -1, write_fd = -1;
    _cleanup_(writer_deinit) struct writer w = {
            .fd = fd, .left = memory_bytes + (memory_bytes >> PAGE_NAMES_SHIFT) + BESIDE_PAGES};
    struct ic_error cause;
    int pipe_fds[2], r, migrated;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return ic_fail_errno(error, -errno, "pipe");
    read_fd = pipe_fds[0];
    write_fd = pipe_fds[1];
    (void)fcntl(read_fd, F_SETPIPE_SZ, PIPE_BYTES); /* else more turns */
    qemu_stream_init(&w.stream);
    if (lseek(fd, sizeof(struct qemu_state_header), SEEK_SET) < 0)
        return ic_fail_errno(error, -errno, "%s", path);
    r = begin_migration(q, write_fd, error);
    if (r < 0)
        return r;
    fd_close(TAKE_FD(write_fd));
    r = write_stream(&w, read_fd, deadline);
    fd_close(TAKE_FD(read_fd)); /* QEMU gives up if it is not done */
    migrated = qmp_wait_migrated(q, r == 0 || r == -EBADMSG ? error : &cause);
    if (migrated < 0 && (r == 0 || r == -EBADMSG))
        return migrated; /* then it ended early, and says why */
    if (r == -EBADMSG)
        return ic_fail(error, IC_ERR_PROTOCOL,
                "QEMU's migration stream is none that this IronClaw knows (QEMU 7.2 is tested); start VMs cold "
                "(--cold)");
    if (r == 0)
        r = write_header(&w, record);
    return r < 0 ? ic_fail_errno(error, r, "%s", path) : 0;
}

/* Whether there is an object of QEMU's, by its path: 1, 0, or a negative IC_ERR when that can't be said. */
static int has(struct qmp *q, const char *what, struct ic_error *error)
{
    char arguments[128];
    int r;

    (void)snprintf(arguments, sizeof(arguments), "{\"path\":\"%s\",\"property\":\"type\"}", what);
    r = qmp_run(q, "qom-get", arguments, -1, error);
    return r == 0 ? 1 : r == -IC_ERR_BACKEND ? 0 : r;
}

/* Its guest says when; it has been asked to (snapshots/freeze.c). */
static int wait_unplugged(struct qmp *q, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(UNPLUG_MS);
    int r;

    while ((r = has(q, PLUGGED QEMU_VSOCK_DEVICE, error)) > 0) {
        if (deadline_poll_ms(deadline) == 0)
            return ic_fail(error, IC_ERR_TIMEOUT, "the guest did not let go of its vsock device within %u s",
                    UNPLUG_MS / 1000);
        (void)usleep(UNPLUG_LOOK_US);
    }
    return r;
}

int qemu_save(const struct record *record, struct ic_error *error)
{
    uint64_t deadline = deadline_after_ms(TRANSFER_MS);
    _cleanup_(qmp_freep) struct qmp *q = NULL;
    _cleanup_(fd_closep) int fd = -1;
    char socket[4200], path[4200];
    int r = qemu_qmp_path(socket, sizeof(socket), record->run_dir, error);

    if (r < 0)
        return r;
    (void)snprintf(path, sizeof(path), "%s/" BACKEND_STATE, record->run_dir); /* as long as the other */
    r = qmp_open(socket, deadline, &q, error);
    if (r < 0)
        return r;
    r = wait_unplugged(q, error);
    if (r == 0)
        r = qmp_run(q, "stop", NULL, -1, error);
    if (r < 0)
        return r;
    if (unlink(path) < 0 && errno != ENOENT)
        return ic_fail_errno(error, -errno, "%s", path);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return ic_fail_errno(error, -errno, "%s", path);
    r = save_to(q, fd, path, record, deadline, error);
    if (r < 0) {
        (void)unlink(path);
        return r;
    }
    return 0;
}

/* ---- loading ---- */

/* With read(2): a mapping of a file that somebody cuts off meanwhile would end us. */
static int check_stream(int fd, const char *path, const struct qemu_state_header *header, struct ic_error *error)
{
    _cleanup_(freep) uint8_t *piece = malloc(PIECE_BYTES);
    uint64_t left = le64toh(header->stream_bytes);
    struct sum sum = {0};
    int r = 0;

    if (!piece)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    while (r == 0 && left > 0) {
        size_t n = (size_t)MIN(left, (uint64_t)PIECE_BYTES);

        r = fd_read_all(fd, piece, n, DEADLINE_NEVER);
        if (r == 0)
            sum_add(&sum, piece, n);
        left -= n;
    }
    if (r == 0 && lseek(fd, sizeof(*header), SEEK_SET) < 0)
        r = -errno;
    if (r < 0)
        return ic_fail_errno(error, r, "snapshot %s", path);
    if (sum_finish(&sum) != le64toh(header->checksum))
        return ic_fail(error, IC_ERR_CORRUPT,
                "snapshot %s: damaged: its contents don't have the checksum that its header names; make it anew", path);
    return 0;
}

static int check_header(const struct qemu_state_header *header, uint64_t file_bytes, const char *path,
        const struct record *record, struct ic_error *error)
{
    if (memcmp(header->magic, STATE_MAGIC, sizeof(header->magic)) != 0)
        return ic_fail(error, IC_ERR_CORRUPT,
                "snapshot %s: no snapshot of the backend qemu, or one of another version of IronClaw; make it anew",
                path);
    if (le64toh(header->header_checksum) != header_sum(header))
        return ic_fail(error, IC_ERR_CORRUPT, "snapshot %s: its header is damaged; make it anew", path);
    if (file_bytes - sizeof(*header) != le64toh(header->stream_bytes))
        return ic_fail(error, IC_ERR_CORRUPT,
                "snapshot %s: has %llu bytes behind its header, which names %llu; make it anew", path,
                (unsigned long long)(file_bytes - sizeof(*header)), (unsigned long long)le64toh(header->stream_bytes));
    if (le32toh(header->memory_mib) != record->memory_mib || le32toh(header->vcpu_count) != record->vcpu_count)
        return ic_fail(error, IC_ERR_INVALID,
                "snapshot %s: of a VM with %u MiB and %u vCPUs, and this one has %u and %u; a clone has what its "
                "template "
                "has",
                path, le32toh(header->memory_mib), le32toh(header->vcpu_count), record->memory_mib, record->vcpu_count);
    return 0;
}

int qemu_open_state(const char *path, const struct record *record, int *ret_fd, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct qemu_state_header header = {0};
    struct stat st;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0)
        return ic_fail_errno(error, -errno, "snapshot %s", path);
    r = fd_above_stdio(&fd);
    if (r == 0)
        r = fd_read_all(fd, &header, sizeof(header), DEADLINE_NEVER);
    if (r == -ECONNRESET || r == -EPIPE || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < sizeof(header))
        return ic_fail(error, IC_ERR_CORRUPT, "snapshot %s: too short to be one; make it anew", path);
    if (r < 0)
        return ic_fail_errno(error, r, "snapshot %s", path);
    r = check_header(&header, (uint64_t)st.st_size, path, record, error);
    if (r == 0)
        r = check_stream(fd, path, &header, error);
    if (r == 0)
        *ret_fd = TAKE_FD(fd);
    return r;
}

/* A QEMU that can't load a machine says why in its log, and ends. */
static int fail_load(const struct backend_start *start, struct ic_error *error)
{
    struct ic_error cause = *error;
    char said[256];

    (void)fd_wait(start->monitor.pidfd, POLLIN, deadline_after_ms(1000));
    (void)tail_monitor(said, sizeof(said), start->mark);
    return ic_fail(error, IC_ERR_BACKEND, "backend qemu: the snapshot can't be loaded: %s%s%s", cause.message,
            said[0] ? "; QEMU said: " : "", said);
}

static int plug(struct qmp *q, struct ic_error *error)
{
    /* As in qemu-args.c, as a PCI device. */
    static const char device[] =
            "{\"driver\":\"vhost-user-vsock-pci-non-transitional\",\"chardev\":\"" QEMU_VSOCK_CHARDEV
            "\",\"bus\":\"" QEMU_VSOCK_PORT "\",\"id\":\"" QEMU_VSOCK_DEVICE
            "\",\"notify_on_empty\":false,\"any_layout\":false}";

    return qmp_run(q, "device_add", device, -1, error);
}

/* 1: it has lost its device. A template has the port and no vsock; what was booted cold has no port. */
static int is_unplugged(struct qmp *q, struct ic_error *error)
{
    int r = has(q, PLUGGED QEMU_VSOCK_DEVICE, error);

    if (r != 0)
        return r > 0 ? 0 : r;
    r = has(q, PLUGGED QEMU_VSOCK_PORT, error);
    return r > 0 ? has(q, "/chardevs/" QEMU_VSOCK_CHARDEV, error) : r;
}

int qemu_go_on(const char *run_dir, struct ic_error *error)
{
    _cleanup_(qmp_freep) struct qmp *q = NULL;
    char socket[4200];
    int r = qemu_qmp_path(socket, sizeof(socket), run_dir, error);

    if (r == 0)
        r = qmp_open(socket, deadline_after_ms(GO_ON_MS), &q, error);
    if (r == 0)
        r = is_unplugged(q, error);
    if (r > 0)
        r = plug(q, error);
    return r < 0 ? r : qmp_run(q, "cont", NULL, -1, error);
}

static int load(struct qmp *q, int state_fd, struct ic_error *error)
{
    int r = want_events(q, error);

    if (r == 0)
        r = qmp_run(q, "getfd", "{\"fdname\":\"state\"}", state_fd, error);
    if (r == 0)
        r = qmp_run(q, "migrate-incoming", "{\"uri\":\"fd:state\"}", -1, error);
    if (r == 0)
        r = qmp_wait_migrated(q, error);
    if (r == 0)
        r = plug(q, error);
    return r < 0 ? r : qmp_run(q, "cont", NULL, -1, error);
}

int qemu_load(const struct backend_start *start, int state_fd, struct ic_error *error)
{
    _cleanup_(qmp_freep) struct qmp *q = NULL;
    struct ic_error local;
    char socket[4200];
    int r;

    if (!error)
        error = &local;
    r = qemu_qmp_path(socket, sizeof(socket), start->record->run_dir, error);
    if (r < 0)
        return r;
    r = qmp_open(socket, deadline_after_ms(TRANSFER_MS), &q, error);
    if (r == 0)
        r = load(q, state_fd, error);
    return r < 0 ? fail_load(start, error) : 0;
}
