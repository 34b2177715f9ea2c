/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/parts.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/fd.h"

#define EROFS_MAGIC      0xe0f5e1e2u /* Linux include/uapi/linux/magic.h */
#define EROFS_SUPER      1024        /* offset of the superblock: magic, then as in fs/erofs/erofs_fs.h */
#define EROFS_BLKSZBITS  12
#define EROFS_BLOCKS     36
#define EXT4_SUPER       1024 /* as in Linux's fs/ext4/ext4.h */
#define EXT4_BLOCKS      4
#define EXT4_LOG_BLOCK   24
#define EXT4_MAGIC_AT    56
#define EXT4_MAGIC       0xef53u
#define BZIMAGE_MAGIC    0x53726448u /* "HdrS", Linux boot protocol 2.15, offset 0x202 */
#define BZIMAGE_MAGIC_AT 0x202
#define KERNEL_PHDRS_MAX 64u

static int open_file_as(
        const char *what, const char *path, int access, int *ret_fd, uint64_t *ret_size, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = open(path, access | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return ic_fail_errno(error, -errno, "%s %s", what, path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return ic_fail(error, IC_ERR_INVALID, "%s %s: not a regular file", what, path);
    *ret_size = (uint64_t)st.st_size;
    if (S_ISBLK(st.st_mode)) {
        off_t end = lseek(fd, 0, SEEK_END);
        *ret_size = end > 0 ? (uint64_t)end : 0;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int open_file(const char *what, const char *path, int *ret_fd, uint64_t *ret_size, struct ic_error *error)
{
    return open_file_as(what, path, O_RDONLY, ret_fd, ret_size, error);
}

int part_check_file(const char *what, const char *path, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = -1;
    uint64_t size;
    int r = open_file(what, path, &fd, &size, error);

    if (r == 0 && size == 0)
        return ic_fail(error, IC_ERR_CORRUPT, "%s %s: is empty", what, path);
    return r;
}

static int check_elf(int fd, const Elf64_Ehdr *header, uint64_t size, const char *path, struct ic_error *error)
{
    Elf64_Phdr segments[KERNEL_PHDRS_MAX];
    uint64_t end;

    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64 ||
            header->e_phentsize != sizeof(segments[0]) || header->e_phnum == 0 || header->e_phnum > KERNEL_PHDRS_MAX)
        return ic_fail(error, IC_ERR_INVALID, "kernel %s: an ELF file, but not an x86-64 kernel", path);
    if (header->e_phoff > size || pread(fd, segments, header->e_phnum * sizeof(segments[0]), (off_t)header->e_phoff) !=
                                          (ssize_t)(header->e_phnum * sizeof(segments[0])))
        return ic_fail(error, IC_ERR_CORRUPT, "kernel %s: is cut short", path);
    for (unsigned i = 0; i < header->e_phnum; i++) {
        if (segments[i].p_type == PT_LOAD &&
                (add_overflows(segments[i].p_offset, segments[i].p_filesz, &end) || end > size))
            return ic_fail(
                    error, IC_ERR_CORRUPT, "kernel %s: is cut short (%llu bytes)", path, (unsigned long long)size);
    }
    return 0;
}

int part_check_kernel(const char *path, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = -1;
    uint8_t head[BZIMAGE_MAGIC_AT + 4];
    Elf64_Ehdr header;
    uint64_t size;
    struct rd rd;
    int r = open_file("kernel", path, &fd, &size, error);

    if (r < 0)
        return r;
    if (pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head))
        return ic_fail(error, IC_ERR_CORRUPT, "kernel %s: is cut short (%llu bytes)", path, (unsigned long long)size);
    if (memcmp(head, ELFMAG, SELFMAG) == 0) {
        memcpy(&header, head, sizeof(header));
        return check_elf(fd, &header, size, path, error);
    }
    rd = rd_of(head + BZIMAGE_MAGIC_AT, 4);
    if (rd_le32(&rd) != BZIMAGE_MAGIC)
        return ic_fail(error, IC_ERR_INVALID, "kernel %s: neither an ELF kernel (vmlinux) nor a bzImage", path);
    return 0;
}

int part_open_rootfs(const char *path, int *ret_fd, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = -1;
    uint8_t super[128];
    uint64_t size, need;
    uint32_t magic, bits;
    struct rd rd;
    int r = open_file("rootfs", path, &fd, &size, error);

    if (r < 0)
        return r;
    if (pread(fd, super, sizeof(super), EROFS_SUPER) != (ssize_t)sizeof(super))
        return ic_fail(error, IC_ERR_CORRUPT,
                "rootfs %s: is cut short (%llu bytes); build it again with 'ironclaw image build'", path,
                (unsigned long long)size);
    rd = rd_of(super, sizeof(super));
    magic = rd_le32(&rd);
    if (magic != EROFS_MAGIC)
        return ic_fail(error, IC_ERR_CORRUPT,
                "rootfs %s: not an erofs image (magic 0x%08x); make one with 'ironclaw image build' or mkfs.erofs",
                path, magic);
    bits = super[EROFS_BLKSZBITS];
    rd = rd_of(super + EROFS_BLOCKS, 4);
    if (bits < 9 || bits > 16 || mul_overflows((uint64_t)rd_le32(&rd), (uint64_t)1 << bits, &need) || need > size)
        return ic_fail(error, IC_ERR_CORRUPT,
                "rootfs %s: is cut short (%llu bytes); build it again with 'ironclaw image build'", path,
                (unsigned long long)size);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int part_open_overlay(const char *path, int *ret_fd, uint64_t *ret_bytes, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = -1;
    uint64_t size, blocks, need;
    uint8_t super[64];
    struct rd rd;
    uint32_t log;
    int r = open_file_as("overlay.path", path, O_RDWR, &fd, &size, error);

    if (r < 0)
        return r;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? ic_fail(error, IC_ERR_STATE,
                                              "overlay.path %s: is in use by another VM; give each its own", path)
                                    : ic_fail_errno(error, -errno, "overlay.path %s", path);
    if (pread(fd, super, sizeof(super), EXT4_SUPER) != (ssize_t)sizeof(super))
        memset(super, 0, sizeof(super));
    rd = rd_of(super + EXT4_MAGIC_AT, 2);
    if (rd_le16(&rd) != EXT4_MAGIC)
        return ic_fail(error, IC_ERR_CORRUPT,
                "overlay.path %s: not an ext4 file system; make one with 'truncate -s 1G FILE && mkfs.ext4 FILE'",
                path);
    rd = rd_of(super + EXT4_LOG_BLOCK, 4);
    log = rd_le32(&rd);
    rd = rd_of(super + EXT4_BLOCKS, 4); /* its upper half is set beyond 16 TiB only */
    blocks = rd_le32(&rd);
    if (log > 6 || mul_overflows(blocks, (uint64_t)1024 << log, &need) || need > size)
        return ic_fail(
                error, IC_ERR_CORRUPT, "overlay.path %s: is cut short (%llu bytes)", path, (unsigned long long)size);
    *ret_fd = TAKE_FD(fd);
    *ret_bytes = size;
    return 0;
}
