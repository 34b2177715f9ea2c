/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macro.h"

#define MACHINE_ID     "/etc/machine-id"
#define RUN_DIR        "/run/ironclaw"
#define GENERATION     RUN_DIR "/generation"
#define BOOT_ID_FILE   RUN_DIR "/boot_id"
#define KERNEL_BOOT_ID "/proc/sys/kernel/random/boot_id"

int identity_init(struct identity *identity, bool skip_reseed)
{
    *identity = (struct identity){
            .random_fd = -1, .boot_id_fd = -1, .generation_fd = -1, .machine_id_fd = -1, .skip_reseed = skip_reseed};
    identity->random_fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    return identity->random_fd < 0 ? -errno : 0;
}

void identity_deinit(struct identity *identity)
{
    fd_close(identity->random_fd);
    fd_close(identity->boot_id_fd);
    fd_close(identity->generation_fd);
    fd_close(identity->machine_id_fd);
}

/* ---- texts ---- */

void identity_uuid(char ret[IDENTITY_UUID_SIZE], const uint8_t bytes[16])
{
    char *at = ret;

    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        at += snprintf(at, 3, "%02x", bytes[i]);
    }
}

/* The bits of a version 4 UUID, which readers of both kinds of ids look for. */
static void mark_random(uint8_t bytes[16])
{
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
}

void identity_machine_id(char ret[34], const uint8_t generation[16])
{
    uint8_t bytes[16];

    memcpy(bytes, generation, sizeof(bytes));
    mark_random(bytes);
    for (size_t i = 0; i < sizeof(bytes); i++)
        (void)snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
    memcpy(ret + 32, "\n", 2);
}

static void random_uuid(uint8_t ret[16])
{
    /* Never waits: a machine that nobody gave entropy must not hang here. */
    if (getrandom(ret, 16, GRND_NONBLOCK) != 16 && getrandom(ret, 16, GRND_INSECURE) != 16)
        memset(ret, 0, 16);
    mark_random(ret);
}

/* ---- the parts ---- */

int identity_add_entropy(struct identity *identity, const void *entropy, size_t len)
{
    union {
        struct rand_pool_info info;
        uint8_t bytes[sizeof(struct rand_pool_info) + WIRE_ENTROPY_MAX];
    } pool;
    int r = 0;

    if (len == 0 || len > WIRE_ENTROPY_MAX)
        return -EINVAL;
    pool.info.entropy_count = (int)len * 8;
    pool.info.buf_size = (int)len;
    memcpy(pool.bytes + sizeof(struct rand_pool_info), entropy, len);
    if (ioctl(identity->random_fd, RNDADDENTROPY, &pool.info) < 0 || ioctl(identity->random_fd, RNDRESEEDCRNG) < 0)
        r = -errno;
    explicit_bzero(&pool, sizeof(pool));
    return r;
}

int identity_set_clock(uint64_t epoch_ns)
{
    struct timespec ts = {.tv_sec = (time_t)(epoch_ns / 1000000000), .tv_nsec = (long)(epoch_ns % 1000000000)};

    return clock_settime(CLOCK_REALTIME, &ts) < 0 ? -errno : 0;
}

/* Whatever a command left there (a link, a fifo) is replaced and not followed. Nobody else runs. */
static int replace_file(const char *path, int *ret_fd)
{
    _cleanup_(fd_closep) int fd = -1;
    char tmp[64];

    (void)snprintf(tmp, sizeof(tmp), "%s.new", path);
    if (unlink(tmp) < 0 && errno != ENOENT)
        return -errno;
    fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
    if (fd < 0)
        return -errno;
    if (fchmod(fd, 0444) < 0 || rename(tmp, path) < 0) {
        int r = -errno;

        (void)unlink(tmp);
        return r;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static bool is_there(const char *path, int fd)
{
    struct stat there, ours;

    return fd >= 0 && fstat(fd, &ours) == 0 && lstat(path, &there) == 0 && there.st_dev == ours.st_dev &&
           there.st_ino == ours.st_ino && (there.st_mode & 07777) == 0444;
}

static int write_text(int fd, const char *text)
{
    size_t len = strlen(text);

    return pwrite(fd, text, len, 0) == (ssize_t)len && ftruncate(fd, (off_t)len) == 0 ? 0 : -EIO;
}

/* *fd: of the file as it was last written, or -1. All texts of one file are of one length. */
static int write_file(const char *path, int *fd, const char *text)
{
    int fresh = -1, r = 0;

    if (!is_there(path, *fd)) {
        r = replace_file(path, &fresh);
        if (r == 0) {
            fd_close(*fd);
            *fd = fresh;
        }
    }
    return r < 0 ? r : write_text(*fd, text);
}

/*
 * The kernel's own can't be set. The file over it has no name left, so that
 * only what is mounted there reaches it; it is written in place, because every
 * mount namespace that was made since has a mount of the same file.
 */
static int cover_boot_id(struct identity *identity)
{
    _cleanup_(fd_closep) int fd = -1;
    int r = 0;

    if (unlink(BOOT_ID_FILE) < 0 && errno != ENOENT)
        return -errno;
    fd = open(BOOT_ID_FILE, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
    if (fd < 0)
        return -errno;
    if (mount(BOOT_ID_FILE, KERNEL_BOOT_ID, NULL, MS_BIND, NULL) < 0 ||
            mount(NULL, KERNEL_BOOT_ID, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
                    NULL) < 0)
        r = -errno;
    (void)unlink(BOOT_ID_FILE);
    if (r == 0)
        identity->boot_id_fd = TAKE_FD(fd);
    return r;
}

static int renew_boot_id(struct identity *identity)
{
    char text[IDENTITY_UUID_SIZE + 1];
    uint8_t bytes[16];
    int r = identity->boot_id_fd < 0 ? cover_boot_id(identity) : 0;

    if (r < 0)
        return r;
    random_uuid(bytes);
    identity_uuid(text, bytes);
    memcpy(text + IDENTITY_UUID_SIZE - 1, "\n", 2);
    return write_text(identity->boot_id_fd, text);
}

static int write_generation(struct identity *identity, const uint8_t generation[16])
{
    char text[IDENTITY_UUID_SIZE + 1];

    if (mkdir(RUN_DIR, 0755) < 0 && errno != EEXIST)
        return -errno;
    identity_uuid(text, generation);
    memcpy(text + IDENTITY_UUID_SIZE - 1, "\n", 2);
    return write_file(GENERATION, &identity->generation_fd, text);
}

/* Of an image without /etc nothing reads it. */
static int write_machine_id(struct identity *identity, const uint8_t generation[16])
{
    char text[34];
    int r;

    identity_machine_id(text, generation);
    r = write_file(MACHINE_ID, &identity->machine_id_fd, text);
    return r == -ENOENT || r == -ENOTDIR ? 0 : r;
}

/* ---- all of it ---- */

void identity_first(struct identity *identity)
{
    uint8_t bytes[16];
    struct stat st;
    int r;

    if (identity->has_machine_id || getpid() != 1)
        return;
    identity->has_machine_id = true;
    /* An image without the file wants none; a writable disk has the one of its last boot. */
    if (lstat(MACHINE_ID, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > 0)
        return;
    random_uuid(bytes);
    r = write_machine_id(identity, bytes);
    if (r < 0)
        log_msg(LOG_WARN, "%s: %s", MACHINE_ID, strerror(-r));
}

void identity_prepare(struct identity *identity)
{
    static const uint8_t nothing[16];
    int r;

    if (getpid() != 1)
        return;
    r = write_generation(identity, nothing);
    if (r == 0)
        r = write_machine_id(identity, nothing);
    if (r == 0)
        r = renew_boot_id(identity);
    /* A young kernel reseeds itself from its clocks, too, when its seed is about half as old as itself. For a test,
     * what its clones draw first comes from this seed. */
    if (r == 0 && identity->skip_reseed && ioctl(identity->random_fd, RNDRESEEDCRNG) < 0)
        r = -errno;
    if (r < 0)
        log_msg(LOG_WARN, "making this template's names: %s", strerror(-r));
}

static int reseed(struct identity *identity, const struct wire_clone *clone)
{
    static const char warning[] = "ironclaw-agent: TEST: ironclaw.test_no_reseed=1, so this clone's random numbers are "
                                  "those of its siblings\n";

    if (!identity->skip_reseed)
        return identity_add_entropy(identity, clone->entropy.s, clone->entropy.len);
    return write(STDERR_FILENO, warning, sizeof(warning) - 1) < 0 ? -errno : 0;
}

int identity_renew(struct identity *identity, const struct wire_clone *clone, const char **ret_what)
{
    const char *what = "adding entropy";
    int r = getpid() == 1 ? reseed(identity, clone) : -ENOTSUP; /* a test must not rename the machine it runs on */

    if (r == 0) {
        what = "setting the clock";
        r = identity_set_clock(clone->time_ns);
    }
    if (r == 0 && clone->hostname.len > 0) {
        what = "setting the host name";
        r = sethostname(clone->hostname.s, clone->hostname.len) < 0 ? -errno : 0;
    }
    if (r == 0) {
        what = "writing " GENERATION;
        r = write_generation(identity, clone->generation);
    }
    if (r == 0) {
        what = "writing " MACHINE_ID;
        r = write_machine_id(identity, clone->generation);
        identity->has_machine_id = true;
    }
    if (r == 0) {
        what = "replacing " KERNEL_BOOT_ID;
        r = renew_boot_id(identity);
    }
    if (r < 0)
        *ret_what = what;
    return r;
}
