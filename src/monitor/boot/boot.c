/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/boot/boot.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "monitor/boot/parts.h"
#include "monitor/layout.h"

#define PAGE 4096u
#define MIB  (1ull << 20)

/* The 64-bit entry runs on an identity map of the first GiB (vcpu-state.c); PVH without paging. */
#define MAPPED_BYTES (1ull << 30)

/* Below 1 MiB, a kernel (a bare-metal one: Linux goes above) may use what lies between the command line and the MP
 * table. */
#define LOW_KERNEL_START (LAYOUT_CMDLINE + PAGE)

uint64_t file_size(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

static int read_view(int fd, uint64_t at, uint8_t *view, uint64_t len)
{
    while (len > 0) {
        ssize_t n;

        if (at > INT64_MAX || len > INT64_MAX - at) /* no file is so long, and pread would say EINVAL */
            return -ENODATA;
        n = pread(fd, view, MIN(len, (uint64_t)1 << 30), (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -EIO;
        if (n == 0)
            return -ENODATA;
        at += (uint64_t)n;
        view += n;
        len -= (uint64_t)n;
    }
    return 0;
}

int file_read(int fd, uint64_t at, void *data, size_t len)
{
    return read_view(fd, at, data, len);
}

int file_load(int fd, uint64_t at, const struct gmem *mem, uint64_t gpa, uint64_t len)
{
    struct iovec iov[GMEM_MAX_REGIONS];
    int n = gmem_iovec(mem, (struct gpa){gpa}, len, iov, ARRAY_SIZE(iov));

    if (n < 0)
        return -EFAULT;
    for (int i = 0; i < n; i++) {
        int r = read_view(fd, at, iov[i].iov_base, iov[i].iov_len);

        gmem_wrote(mem, iov[i].iov_base, iov[i].iov_len);
        if (r < 0)
            return r;
        if (add_overflows(at, iov[i].iov_len, &at))
            return -ENODATA;
    }
    return 0;
}

int kernel_cut(const struct boot_options *o, struct vm_error *error, int r, const char *what, uint64_t end)
{
    if (r == -EIO)
        return vm_fail(error, -EIO, "kernel %s: its %s can't be read; is the disk all right?", o->kernel_path, what);
    return vm_fail(error, -ENOEXEC, "kernel %s: truncated: its %s ends at byte %llu, the file at %llu; copy it again",
            o->kernel_path, what, (unsigned long long)end, (unsigned long long)file_size(o->kernel_fd));
}

int kernel_misplaced(const struct boot_options *o, struct vm_error *error, uint64_t start, uint64_t size)
{
    if (start < LAYOUT_HIGH_MEMORY)
        return vm_fail(error, -E2BIG,
                "kernel %s: wants %llu bytes of memory at 0x%llx, which must lie in 0x%x..0x%x or from 1 MiB up",
                o->kernel_path, (unsigned long long)size, (unsigned long long)start, LOW_KERNEL_START, LAYOUT_MPTABLE);
    return vm_fail(error, -E2BIG,
            "kernel %s: wants %llu bytes of memory at 0x%llx, the VM has %llu MiB%s; give it more memory "
            "(mem_size_mib)",
            o->kernel_path, (unsigned long long)size, (unsigned long long)start,
            (unsigned long long)(o->ram_bytes / MIB), o->ram_bytes > LAYOUT_GAP_START ? " (with a gap at 3 GiB)" : "");
}

bool kernel_fits(const struct boot_options *o, uint64_t start, uint64_t size)
{
    struct iovec iov[GMEM_MAX_REGIONS];

    if (start < LAYOUT_HIGH_MEMORY &&
            (start < LOW_KERNEL_START || start >= LAYOUT_MPTABLE || size > LAYOUT_MPTABLE - start))
        return false;
    return gmem_iovec(o->mem, (struct gpa){start}, size, iov, ARRAY_SIZE(iov)) >= 0;
}

static const char *describe(const uint8_t *head, size_t len)
{
    static const struct {
        uint8_t len;
        const char *magic, *name;
    } known[] = {
            {2, "\x1f\x8b", "a gzip file; unpack it first"},
            {4, "\x28\xb5\x2f\xfd", "a zstd file; unpack it first"},
            {5, "\xfd\x37zXZ", "an xz file; unpack it first"},
            {4, "\x04\x22\x4d\x18", "an lz4 file; unpack it first"},
            {4, "\x02\x21\x4c\x18", "an lz4 file; unpack it first"},
            {6, "070701", "an initramfs"},
            {2, "MZ", "an EFI program, or a bzImage cut short"},
            {2, "#!", "a script"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (len >= known[i].len && memcmp(head, known[i].magic, known[i].len) == 0)
            return known[i].name;
    }
    return "not a kernel that is known here";
}

static int load_kernel(struct boot_image *ret, const struct boot_options *o, struct vm_error *error)
{
    uint8_t head[offsetof(struct boot_params, hdr.version)] = {0};
    size_t len = MIN(file_size(o->kernel_fd), sizeof(head));
    uint32_t header_magic;
    uint16_t boot_flag;

    if (file_read(o->kernel_fd, 0, head, len) < 0)
        return vm_fail(error, -EIO, "kernel %s: can't be read; is the disk all right?", o->kernel_path);
    memcpy(&boot_flag, head + offsetof(struct boot_params, hdr.boot_flag), sizeof(boot_flag));
    memcpy(&header_magic, head + offsetof(struct boot_params, hdr.header), sizeof(header_magic));
    if (len >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0)
        return elf_load(ret, o, error);
    if (boot_flag == 0xaa55 && header_magic == 0x53726448 /* HdrS */)
        return bzimage_load(ret, o, error);
    if (len == 0)
        return vm_fail(error, -ENOEXEC, "kernel %s: empty, or not a regular file; give an x86-64 vmlinux or bzImage",
                o->kernel_path);
    return vm_fail(error, -ENOEXEC, "kernel %s: magic %02x%02x%02x%02x: %s; give an x86-64 vmlinux or bzImage",
            o->kernel_path, head[0], head[1], head[2], head[3], describe(head, len));
}

/* Page-aligned, as high as the kernel allows: low memory is where kernels unpack themselves. */
static int load_initrd(
        struct boot_initrd *ret, const struct boot_image *image, const struct boot_options *o, struct vm_error *error)
{
    uint64_t size = file_size(o->initrd_fd), start, low_ram = MIN(o->ram_bytes, (uint64_t)LAYOUT_GAP_START);
    uint64_t limit = MIN(low_ram, image->initrd_limit);
    uint64_t floor = MAX(image->low_end, (uint64_t)LAYOUT_HIGH_MEMORY);
    int r;

    if (size == 0)
        return vm_fail(
                error, -ENOEXEC, "initramfs %s: empty, or not a regular file; give a cpio archive", o->initrd_path);
    if (size > limit || (start = (limit - size) & ~(uint64_t)(PAGE - 1)) < floor)
        return vm_fail(error, -E2BIG,
                "initramfs %s: its %llu bytes don't fit the VM's %llu MiB beside the kernel, which ends at 0x%llx; "
                "give the VM more memory (mem_size_mib) or a smaller initramfs",
                o->initrd_path, (unsigned long long)size, (unsigned long long)(o->ram_bytes / MIB),
                (unsigned long long)image->low_end);
    r = file_load(o->initrd_fd, 0, o->mem, start, size);
    if (r < 0)
        return vm_fail(error, -EIO, "initramfs %s: can't be read up to its %llu bytes (%s)", o->initrd_path,
                (unsigned long long)size, strerror(-r));
    *ret = (struct boot_initrd){.start = start, .size = size};
    return 0;
}

size_t ram_map(uint64_t ram_bytes, struct ram_range ret[static RAM_MAX_RANGES])
{
    size_t n = 0;

    ret[n++] = (struct ram_range){0, LAYOUT_MPTABLE, RAM_USABLE};
    ret[n++] = (struct ram_range){LAYOUT_MPTABLE, LAYOUT_HIGH_MEMORY - LAYOUT_MPTABLE, RAM_RESERVED};
    if (ram_bytes > LAYOUT_HIGH_MEMORY)
        ret[n++] = (struct ram_range){
                LAYOUT_HIGH_MEMORY, MIN(ram_bytes, (uint64_t)LAYOUT_GAP_START) - LAYOUT_HIGH_MEMORY, RAM_USABLE};
    if (ram_bytes > LAYOUT_GAP_START)
        ret[n++] = (struct ram_range){LAYOUT_GAP_END, ram_bytes - LAYOUT_GAP_START, RAM_USABLE};
    return n;
}

int boot_load(struct boot_entry *ret, const struct boot_options *options, struct vm_error *error)
{
    struct boot_image image = {0};
    struct boot_initrd initrd = {0};
    char cmdline[VM_MAX_CMDLINE];
    int r;

    if (options->ram_bytes < LAYOUT_HIGH_MEMORY)
        return vm_fail(error, -E2BIG, "%llu bytes of memory are too few to start a kernel; give the VM at least 1 MiB",
                (unsigned long long)options->ram_bytes);
    r = cmdline_make(cmdline, options, error);
    if (r == 0)
        r = load_kernel(&image, options, error);
    if (r == 0 && options->initrd_fd >= 0)
        r = load_initrd(&initrd, &image, options, error);
    if (r < 0)
        return r;
    if (image.entry.protocol == BOOT_LINUX64 && image.entry.rip >= MAPPED_BYTES)
        return vm_fail(error, -ENOEXEC, "kernel %s: its entry point 0x%llx is not in the first GiB, where it must be",
                options->kernel_path, (unsigned long long)image.entry.rip);

    r = gmem_write(options->mem, (struct gpa){LAYOUT_CMDLINE}, cmdline, strlen(cmdline) + 1);
    if (r == 0)
        r = params_write(options, &image, &initrd, (uint32_t)strlen(cmdline));
    if (r == 0)
        r = mptable_write(options->mem, options->vcpu_count);
    if (r == 0)
        r = acpi_write(options->mem, options->vcpu_count, options->devices, options->device_count);
    if (r < 0)
        return vm_fail(error, r, "the tables for %u vCPUs and %zu devices can't be placed in guest memory (%s)",
                options->vcpu_count, options->device_count, strerror(-r));
    *ret = image.entry;
    return 0;
}
