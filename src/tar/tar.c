/* SPDX-License-Identifier: Apache-2.0 */
#include "tar/tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/room.h"

#define READ_BLOCK_BYTES ((size_t)128 << 10)
#define EPOCH            0 /* files get one fixed time, as in images from recipes */

const char *const tar_codes[TAR_CODES] = {
        [TAR_CODE_FAILED] = "failed",
        [TAR_CODE_INVALID] = "invalid",
        [TAR_CODE_CORRUPT] = "corrupt",
        [TAR_CODE_NO_SPACE] = "no-space",
};

_printf_(3, 4) static int fail(struct tar_error *error, enum tar_code code, const char *format, ...)
{
    va_list args;

    error->code = code;
    va_start(args, format);
    (void)vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    for (char *c = error->text; *c; c++) /* names are anybody's bytes */
        *c = *c == '\n' ? '?' : *c;
    return -1;
}

static void archive_closep(struct archive **a)
{
    if (*a)
        (void)archive_read_free(*a);
}

static int open_archive(int fd, struct archive **ret, struct tar_error *error)
{
    _cleanup_(archive_closep) struct archive *a = archive_read_new();

    if (!a)
        return fail(error, TAR_CODE_FAILED, "out of memory");
    /* gzip, xz, zstd and bzip2 only: libarchive would run programs for others. */
    (void)archive_read_support_filter_gzip(a);
    (void)archive_read_support_filter_xz(a);
    (void)archive_read_support_filter_zstd(a);
    (void)archive_read_support_filter_bzip2(a);
    (void)archive_read_support_format_tar(a);
    /* Names are bytes. */
    (void)archive_read_set_options(a, "hdrcharset=BINARY");
    if (archive_read_open_fd(a, fd, READ_BLOCK_BYTES) != ARCHIVE_OK)
        return fail(error, TAR_CODE_INVALID, "not a tar, nor an OCI or docker archive (%s)", archive_error_string(a));
    *ret = TAKE_PTR(a);
    return 0;
}

int tar_detect(int fd, enum tar_kind *ret, struct tar_error *error)
{
    _cleanup_(archive_closep) struct archive *a = NULL;
    bool oci = false, docker = false, root = false;
    struct archive_entry *entry;
    int r = open_archive(fd, &a, error);

    if (r < 0)
        return r;
    while (!oci && !root && archive_read_next_header(a, &entry) == ARCHIVE_OK) {
        const char *name = archive_entry_pathname(entry);

        if (!name)
            continue;
        if (strncmp(name, "./", 2) == 0)
            name += 2;
        oci = oci || strcmp(name, "oci-layout") == 0;
        docker = docker || strcmp(name, "manifest.json") == 0;
        root = root || strncmp(name, "usr/", 4) == 0 || strncmp(name, "bin", 3) == 0 || strncmp(name, "etc/", 4) == 0;
    }
    *ret = oci && !root ? TAR_OCI : docker && !root ? TAR_DOCKER : TAR_ROOT;
    return 0;
}

bool tar_path_ok(const char *name, char *ret, size_t size)
{
    size_t n = 0;

    /* "./a//b/" becomes "a/b"; a part that is ".." is refused. */
    while (*name) {
        size_t len;

        name += strspn(name, "/");
        len = strcspn(name, "/");
        if (len == 2 && name[0] == '.' && name[1] == '.')
            return false;
        if (len > 0 && !(len == 1 && name[0] == '.')) {
            if (n + len + 2 > size)
                return false;
            if (n > 0)
                ret[n++] = '/';
            memcpy(ret + n, name, len);
            n += len;
        }
        name += len;
    }
    ret[n] = '\0';
    return true;
}

/* Sets the entry's names to ones below the root. 0: take it, 1: leave it out. */
static int clean_entry(struct archive_entry *entry, struct tar_error *error)
{
    const char *name = archive_entry_pathname(entry), *link = archive_entry_hardlink(entry);
    char clean[4096], prefixed[4096 + 2];
    mode_t type = archive_entry_filetype(entry);

    if (!name || !tar_path_ok(name, clean, sizeof(clean)))
        return fail(error, TAR_CODE_INVALID, "the entry '%.200s' leads out of the root", name ? name : "?");
    if (!link && type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK)
        return 1;
    (void)snprintf(prefixed, sizeof(prefixed), "./%s", clean);
    archive_entry_set_pathname(entry, prefixed);
    if (link) {
        if (!tar_path_ok(link, clean, sizeof(clean)))
            return fail(error, TAR_CODE_INVALID, "the link target '%.200s' leads out of the root", link);
        (void)snprintf(prefixed, sizeof(prefixed), "./%s", clean);
        archive_entry_set_hardlink(entry, prefixed);
    }
    archive_entry_xattr_clear(entry);
    archive_entry_acl_clear(entry);
    archive_entry_set_fflags(entry, 0, 0);
    archive_entry_set_uname(entry, NULL);
    archive_entry_set_gname(entry, NULL);
    archive_entry_set_mtime(entry, EPOCH, 0);
    archive_entry_unset_atime(entry);
    archive_entry_unset_ctime(entry);
    archive_entry_unset_birthtime(entry);
    archive_entry_sparse_clear(entry);
    return 0;
}

/* The tar that is written. */
struct sink {
    struct archive *archive;
    int fd;
    bool abandoned;
};

static la_ssize_t sink_write(struct archive *a, void *userdata, const void *data, size_t len)
{
    const struct sink *sink = userdata;
    ssize_t n = -1;

    errno = ECANCELED;
    while (!sink->abandoned && (n = write(sink->fd, data, len)) < 0 && errno == EINTR)
        continue;
    if (n < 0)
        archive_set_error(a, errno, "%s", strerror(errno));
    return n; /* the rest comes again */
}

/* libarchive ends a file that was begun by filling it up with zeroes, whatever size it claims to have; a sink that
 * takes nothing more ends that at once, and frees all (archive_write_fail would leak). */
static void sink_deinit(struct sink *sink)
{
    sink->abandoned = true;
    if (sink->archive)
        (void)archive_write_free(sink->archive);
}

static int fail_writing(const struct sink *sink, struct tar_error *error)
{
    int code = archive_errno(sink->archive);

    return fail(error, code == ENOSPC || code == EDQUOT ? TAR_CODE_NO_SPACE : TAR_CODE_FAILED,
            "can't write what is in it: %s", archive_error_string(sink->archive));
}

static int sink_open(struct sink *sink, struct tar_error *error)
{
    sink->archive = archive_write_new();
    if (!sink->archive)
        return fail(error, TAR_CODE_FAILED, "out of memory");
    (void)archive_write_set_format_pax_restricted(sink->archive);
    (void)archive_write_set_options(sink->archive, "hdrcharset=BINARY");
    return archive_write_open(sink->archive, sink, NULL, sink_write, NULL) == ARCHIVE_OK ? 0
                                                                                         : fail_writing(sink, error);
}

static int check_room(const struct sink *sink, struct tar_error *error)
{
    struct statvfs vfs;

    if (fstatvfs(sink->fd, &vfs) < 0)
        return fail(error, TAR_CODE_FAILED, "how full the disk is can't be told: %s", strerror(errno));
    if (room_is_left(&vfs))
        return 0;
    return fail(error, TAR_CODE_NO_SPACE,
            "the disk is nearly full (%llu MiB left); the rest is not for foreign data: make room",
            (unsigned long long)(room_bytes(&vfs) >> 20));
}

static int put_data(const struct sink *to, const void *data, size_t len, struct tar_error *error)
{
    int r = check_room(to, error);

    return r == 0 && archive_write_data(to->archive, data, len) < 0 ? fail_writing(to, error) : r;
}

static int copy_data(struct archive *from, const struct sink *to, struct tar_error *error)
{
    static const char zero[65536];
    const void *block;
    la_int64_t at = 0, offset;
    size_t len;
    int r, failed = 0;

    while (failed == 0 && (r = archive_read_data_block(from, &block, &len, &offset)) == ARCHIVE_OK) {
        while (failed == 0 && at < offset) {
            size_t gap = (size_t)MIN(offset - at, (la_int64_t)sizeof(zero));

            failed = put_data(to, zero, gap, error);
            at += (la_int64_t)gap;
        }
        if (failed == 0)
            failed = put_data(to, block, len, error);
        at += (la_int64_t)len;
    }
    if (failed < 0)
        return failed;
    return r == ARCHIVE_EOF ? 0 : fail(error, TAR_CODE_CORRUPT, "%s", archive_error_string(from));
}

/* 1: left out. */
static int copy_entry(struct archive *from, struct archive_entry *entry, const struct sink *to, struct tar_error *error)
{
    int r = check_room(to, error);

    if (r == 0)
        r = clean_entry(entry, error);
    if (r != 0)
        return r;
    if (archive_write_header(to->archive, entry) < ARCHIVE_WARN)
        return fail_writing(to, error);
    return archive_entry_size(entry) > 0 ? copy_data(from, to, error) : 0;
}

int tar_clean(int from_fd, int to_fd, const struct tar_progress *progress, struct tar_error *error)
{
    _cleanup_(archive_closep) struct archive *from = NULL;
    _cleanup_(sink_deinit) struct sink to = {.fd = to_fd};
    struct archive_entry *entry;
    uint64_t entries = 0;
    int r = open_archive(from_fd, &from, error);

    if (r == 0)
        r = sink_open(&to, error);
    if (r < 0)
        return r;
    while ((r = archive_read_next_header(from, &entry)) == ARCHIVE_OK || r == ARCHIVE_WARN) {
        if (progress->report)
            progress->report(progress->userdata, (uint64_t)archive_filter_bytes(from, -1));
        r = copy_entry(from, entry, &to, error);
        if (r < 0)
            return r;
        entries += r == 0;
    }
    if (r != ARCHIVE_EOF)
        return fail(error, TAR_CODE_CORRUPT, "%s", archive_error_string(from));
    if (entries == 0)
        return fail(error, TAR_CODE_INVALID, "no files in it");
    return archive_write_close(to.archive) == ARCHIVE_OK ? 0 : fail_writing(&to, error);
}
