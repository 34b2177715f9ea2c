/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: options, then everything that a sender says. It is received into a
 * fresh directory that has traps in it and a file outside; afterwards the
 * outside must be what it was, and no temporary file may be left anywhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/macro.h"
#include "fuzz.h"
#include "transfer/transfer.h"

#define INPUT_MAX (64u << 10) /* what a socket takes without a reader */

enum {
    OPT_PUT = 1 << 0,
    OPT_NAME = 1 << 1,     /* the copy is dest/a, else it goes into dest */
    OPT_NEW = 1 << 2,      /* dest does not exist */
    OPT_ALL_BITS = 1 << 3, /* set-uid and so on are kept */
};

static unsigned seen;

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    FUZZ_CHECK(strncmp(path + ftw->base, ".ironclaw-", 10) != 0);
    FUZZ_CHECK(S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) || S_ISLNK(st->st_mode));
    if (type == FTW_D || type == FTW_DNR)
        (void)chmod(path, 0700);
    seen++;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void write_file(int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    FUZZ_CHECK(fd >= 0 && write(fd, "secret", 6) == 6);
    fd_close(fd);
}

/* outside/secret, and in/ with a file, a directory and links that lead out. */
static void set_traps(int dirfd)
{
    FUZZ_CHECK(mkdirat(dirfd, "outside", 0700) == 0);
    write_file(dirfd, "outside/secret");
    FUZZ_CHECK(mkdirat(dirfd, "in", 0700) == 0);
    FUZZ_CHECK(mkdirat(dirfd, "in/d", 0700) == 0);
    write_file(dirfd, "in/f");
    FUZZ_CHECK(symlinkat("../outside", dirfd, "in/l") == 0);
    FUZZ_CHECK(symlinkat("../outside/secret", dirfd, "in/s") == 0);
}

static void check_outside(int dirfd)
{
    _cleanup_(fd_closep) int fd = openat(dirfd, "outside/secret", O_RDONLY | O_CLOEXEC);
    char got[8];
    struct stat st;

    FUZZ_CHECK(fd >= 0 && read(fd, got, sizeof(got)) == 6 && memcmp(got, "secret", 6) == 0);
    FUZZ_CHECK(fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0600);
    FUZZ_CHECK(fstatat(dirfd, "outside", &st, AT_SYMLINK_NOFOLLOW) == 0);
    FUZZ_CHECK((st.st_mode & 07777) == 0700 && st.st_nlink == 2);
}

static void receive(const char *dir, uint8_t flags, const uint8_t *data, size_t size)
{
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    char dest[96];
    struct transfer_receive_options o = {
            .size = sizeof(o),
            .common = {.put = flags & OPT_PUT, .deadline = deadline_after_ms(5000)},
            .dest = dest,
            .name = flags & OPT_NAME ? "a" : "",
            .mode_mask = flags & OPT_ALL_BITS ? 07777 : 0,
            .max_bytes = 1 << 20,
            .max_entries = 64,
    };
    struct transfer_result res;
    int sv[2], r;

    (void)snprintf(dest, sizeof(dest), "%s/%s", dir, flags & OPT_NEW ? "new" : "in");
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
    FUZZ_CHECK(fd_write_all(sv[0], data, size, DEADLINE_NEVER) == 0);
    (void)shutdown(sv[0], SHUT_WR);
    if (!(flags & OPT_PUT))
        fd_close(TAKE_FD(sv[0]));
    r = transfer_receive(sv[1], &reader, &o, &res);
    FUZZ_CHECK(r <= TRANSFER_PEER_ERROR && r != -ETIMEDOUT);
    FUZZ_CHECK((r < 0) == (r != 0 && r != TRANSFER_PEER_ERROR));
    FUZZ_CHECK(r >= 0 || res.message[0] != '\0');
    FUZZ_CHECK(res.bytes <= o.max_bytes && res.entries <= o.max_entries);
    fd_close(sv[0]);
    fd_close(sv[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char dir[] = "/tmp/ironclaw-fuzz-XXXXXX";
    _cleanup_(fd_closep) int fd = -1;
    unsigned top = 0;
    struct stat st;

    if (size < 1 || size > INPUT_MAX)
        return 0;
    FUZZ_CHECK(mkdtemp(dir));
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(fd >= 0);
    set_traps(fd);
    receive(dir, data[0], data + 1, size - 1);
    check_outside(fd);
    top = fstatat(fd, "new", &st, AT_SYMLINK_NOFOLLOW) == 0;
    FUZZ_CHECK(!top || (data[0] & OPT_NEW));
    seen = 0;
    FUZZ_CHECK(nftw(dir, visit, 16, FTW_PHYS) == 0);
    FUZZ_CHECK(seen <= 8 + 64);
    FUZZ_CHECK(nftw(dir, remove_one, 16, FTW_PHYS | FTW_DEPTH) == 0);
    return 0;
}
