/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/transfer only: temporary directories and small files. */
#pragma once

#include "base/test.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct scratch {
    char dir[64];
};

static inline int scratch_setup(void **state)
{
    struct scratch *s = calloc(1, sizeof(*s));

    if (!s)
        return -1;
    (void)snprintf(s->dir, sizeof(s->dir), "/tmp/ironclaw-transfer-XXXXXX");
    *state = s;
    return mkdtemp(s->dir) ? 0 : -1;
}

static inline int scratch_unlock(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    return type == FTW_D || type == FTW_DNR ? chmod(path, 0700) : 0;
}

static inline int scratch_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline int scratch_teardown(void **state)
{
    struct scratch *s = *state;

    (void)nftw(s->dir, scratch_unlock, 64, FTW_PHYS);
    (void)nftw(s->dir, scratch_remove, 64, FTW_PHYS | FTW_DEPTH);
    free(s);
    return 0;
}

/* dir/name, in one of eight static buffers: use it at once. */
static inline const char *in_dir(const char *dir, const char *name)
{
    static char bufs[8][8192];
    static unsigned next;
    char *b = bufs[next++ % ARRAY_SIZE(bufs)];

    assert_true((size_t)snprintf(b, sizeof(bufs[0]), "%s/%s", dir, name) < sizeof(bufs[0]));
    return b;
}

static inline void make_file(const char *path, const void *data, size_t len, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static inline bool file_is(const char *path, const char *want)
{
    char got[256];
    int fd = open(path, O_RDONLY | O_NOFOLLOW);
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, got, sizeof(got));
    (void)close(fd);
    return n == (ssize_t)strlen(want) && memcmp(got, want, (size_t)n) == 0;
}

static unsigned counted_entries;
static inline int count_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)st;
    (void)type;
    counted_entries += ftw->level > 0;
    return 0;
}
static inline unsigned count_entries(const char *dir)
{
    counted_entries = 0;
    (void)nftw(dir, count_one, 64, FTW_PHYS);
    return counted_entries;
}
