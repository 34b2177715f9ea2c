/* SPDX-License-Identifier: Apache-2.0 */
/* Files of the host, and the few that it has. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "intruder.h"

#define FILES_MANY 300
#define FILE_BYTES (1u << 20)
#define BYTES_MANY 20

static int open_host_file(void)
{
    return TRY(open("/etc/passwd", O_RDONLY));
}

static int open_secret(void)
{
    return TRY(open(plan("secret"), O_RDONLY));
}

static int open_settings(void)
{
    return TRY(open(plan("settings"), O_RDONLY));
}

static int open_mem(void)
{
    return TRY(open("/proc/self/mem", O_RDWR));
}

static int open_proc(void)
{
    return TRY(open("/proc", O_RDONLY | O_DIRECTORY));
}

static int open_sys(void)
{
    return TRY(open("/sys", O_RDONLY | O_DIRECTORY));
}

static int open_dev_mem(void)
{
    return TRY(open("/dev/mem", O_RDONLY));
}

static int open_terminal(void)
{
    return TRY(open("/dev/tty", O_RDWR));
}

static int open_log(void)
{
    return TRY(open(plan("log"), O_RDONLY));
}

static int open_above_root(void)
{
    return TRY(open("/../../../../etc/passwd", O_RDONLY));
}

static int open_above_run_dir(void)
{
    return TRY(open("../../../../../../../etc/passwd", O_RDONLY));
}

/* Leaves the root that it has by one directory that is not below it. */
static int open_from_inherited_directory(void)
{
    struct stat st;

    for (int fd = 0; fd < 64; fd++) {
        if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && openat(fd, "..", O_RDONLY) >= 0)
            return 0;
    }
    return ENOTDIR;
}

static int open_by_handle(void)
{
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } u = {.handle.handle_bytes = MAX_HANDLE_SZ};
    int dir = open(".", O_RDONLY | O_DIRECTORY), mount_id;

    if (dir < 0 || name_to_handle_at(AT_FDCWD, ".", &u.handle, &mount_id, 0) < 0)
        return NOT_HERE;
    return TRY(open_by_handle_at(dir, &u.handle, O_RDONLY));
}

static int list_root(void)
{
    DIR *dir = opendir("/");
    struct dirent *entry;

    *reached = 0;
    while (dir && (entry = readdir(dir)))
        *reached += entry->d_name[0] != '.';
    return dir ? 0 : errno;
}

static int write_program(void)
{
    return TRY(open(own_program, O_WRONLY));
}

static int make_in_root(void)
{
    return TRY(open("/file", O_WRONLY | O_CREAT, 0600));
}

static int link_secret(void)
{
    return TRY(link(plan("secret"), "link"));
}

static int make_device(void)
{
    return TRY(mknod("mem", S_IFCHR | 0600, makedev(1, 1)));
}

static int exec_own_file(void)
{
    char *argv[] = {(char *)"x", NULL};
    int fd = open("x", O_WRONLY | O_CREAT | O_CLOEXEC, 0700), r;

    if (fd < 0)
        return errno;
    (void)!write(fd, "#!/bin/sh\n", 10);
    close(fd);
    execv("./x", argv);
    r = errno;
    unlink("x");
    return r;
}

static int map_own_file(void)
{
    int fd = open("code", O_RDWR | O_CREAT | O_CLOEXEC, 0700), r;

    if (fd < 0 || ftruncate(fd, 4096) < 0)
        return errno;
    r = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? errno : 0;
    unlink("code");
    return r;
}

/* ---- the image, read-only to every VM that has it ---- */

static int image_fd(void)
{
    return inherited(plan_number("image_inode"));
}

static int image_open(void)
{
    return TRY(open(plan("image"), O_RDWR));
}

static int image_truncate(void)
{
    return TRY(truncate(plan("image"), 0));
}

static int image_chmod(void)
{
    return TRY(chmod(plan("image"), 0666));
}

static int image_write_fd(void)
{
    return TRY(pwrite(image_fd(), "x", 1, 0));
}

static int image_truncate_fd(void)
{
    return ftruncate(image_fd(), 0) == 0 ? 0 : errno == EINVAL ? EBADF : errno; /* EINVAL: it can't write */
}

static int image_map_fd(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, image_fd(), 0) == MAP_FAILED ? errno : 0;
}

static int image_chmod_fd(void)
{
    return TRY(fchmod(image_fd(), 0666));
}

static int image_touch_fd(void)
{
    return image_fd() < 0 ? EBADF : TRY(futimens(image_fd(), NULL));
}

static int image_flags_fd(void)
{
    long flags = 0;

    if (ioctl(image_fd(), FS_IOC_GETFLAGS, &flags) < 0)
        return errno;
    flags ^= FS_NODUMP_FL; /* that one alone: ext4 does not let go of some others */
    return TRY(ioctl(image_fd(), FS_IOC_SETFLAGS, &flags));
}

/* Another's overlay and image parts lie beside: the directory that the image is in. */
static int image_neighbour(void)
{
    return TRY(open(plan("image_beside"), O_RDONLY));
}

/* ---- its own directory, outside of which nobody must suffer ---- */

static int fill_inodes(void)
{
    char name[32];
    int fd, r = 0;
    long made = 0;

    for (; made < FILES_MANY && r == 0; made++) {
        snprintf(name, sizeof(name), "file%ld", made);
        fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        r = fd < 0 ? errno : 0;
        close(fd);
    }
    for (long i = 0; i < made; i++) {
        snprintf(name, sizeof(name), "file%ld", i);
        unlink(name);
    }
    *reached = made;
    return r;
}

static int fill_bytes(void)
{
    static char zeroes[FILE_BYTES];
    int fd = open("big", O_WRONLY | O_CREAT | O_CLOEXEC, 0600), r = fd < 0 ? errno : 0;

    *reached = 0;
    while (r == 0 && *reached < BYTES_MANY) {
        ssize_t n = write(fd, zeroes, sizeof(zeroes));

        r = n < 0 ? errno : n < (ssize_t)sizeof(zeroes) ? ENOSPC : 0;
        *reached += r == 0;
    }
    unlink("big");
    return r;
}

const struct attempt file_attempts[] = {
        {"open /etc/passwd", open_host_file},
        {"open a user's file", open_secret},
        {"open the user's configuration", open_settings},
        {"open /proc/self/mem", open_mem},
        {"open /proc", open_proc},
        {"open /sys", open_sys},
        {"open /dev/mem", open_dev_mem},
        {"open the terminal", open_terminal},
        {"open the VM's log by its path", open_log},
        {"leave the root by ..", open_above_root},
        {"leave the run directory by ..", open_above_run_dir},
        {"leave by an inherited directory", open_from_inherited_directory},
        {"open a file by its handle", open_by_handle},
        {"list the root", list_root},
        {"write its own program", write_program},
        {"make a file in the root", make_in_root},
        {"link a user's file", link_secret},
        {"make a device", make_device},
        {"run a file that it wrote", exec_own_file},
        {"map code that it wrote", map_own_file},
        {"image: open for writing", image_open},
        {"image: truncate", image_truncate},
        {"image: change its mode", image_chmod},
        {"image: write through the descriptor", image_write_fd},
        {"image: truncate through the descriptor", image_truncate_fd},
        {"image: map for writing through the descriptor", image_map_fd},
        {"image: change its mode through the descriptor", image_chmod_fd},
        {"image: change its times through the descriptor", image_touch_fd},
        {"image: change its flags through the descriptor", image_flags_fd},
        {"image: open a file beside it", image_neighbour},
        {"fill the run directory with files", fill_inodes},
        {"fill the run directory with bytes", fill_bytes},
        {NULL, NULL},
};
