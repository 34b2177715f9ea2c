/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of boot_load(), private to this folder. All take the options as
 * boot_load() got them and return its codes with error->text filled.
 *
 * Guest memory is all zeros on entry. That is why neither a .bss nor the rest
 * of a table is cleared here: pages that are never touched stay unallocated.
 */
#pragma once

#include <asm/bootparam.h>

#include "monitor/boot/boot.h"

/* The kernel in guest memory. */
struct boot_image {
    struct boot_entry entry;
    uint64_t low_end;          /* where free memory below the gap starts, as far as the kernel is concerned */
    uint64_t initrd_limit;     /* the initramfs ends at or below it */
    struct setup_header setup; /* the file's own; all zero for an ELF kernel */
};

struct boot_initrd {
    uint64_t start, size; /* size 0: none */
};

enum ram_type { RAM_USABLE = 1, RAM_RESERVED = 2 }; /* e820's numbers, which PVH uses too */

struct ram_range {
    uint64_t start, size;
    enum ram_type type;
};
#define RAM_MAX_RANGES 4u
size_t ram_map(uint64_t ram_bytes, struct ram_range ret[static RAM_MAX_RANGES]);

/* Fills a buffer, or guest memory, from the file. -ENODATA: the file ends before; -EIO; load also -EFAULT: no memory.
 */
int file_read(int fd, uint64_t at, void *data, size_t len);
int file_load(int fd, uint64_t at, const struct gmem *mem, uint64_t gpa, uint64_t len);
uint64_t file_size(int fd); /* 0 when it is not known */

/* Messages of several steps. `what` ends at byte `end` of the kernel file, which is shorter (or, -EIO, not readable).
 */
int kernel_cut(const struct boot_options *o, struct vm_error *error, int r, const char *what, uint64_t end);
int kernel_misplaced(const struct boot_options *o, struct vm_error *error, uint64_t start, uint64_t size);

/* True when [start, start+size) is RAM that a kernel may fill: not the tables' places below 1 MiB. */
bool kernel_fits(const struct boot_options *o, uint64_t start, uint64_t size);

int elf_load(struct boot_image *ret, const struct boot_options *o, struct vm_error *error);
int bzimage_load(struct boot_image *ret, const struct boot_options *o, struct vm_error *error);

/* The byte that makes the sum of all 0: with the field itself zero, what goes into it. For ACPI and MP tables alike. */
static inline uint8_t table_checksum(const void *table, size_t len)
{
    const uint8_t *byte = table;
    uint8_t sum = 0;

    while (len-- > 0)
        sum = (uint8_t)(sum - *byte++);
    return sum;
}

/* `ret` holds VM_MAX_CMDLINE bytes. */
int cmdline_make(char *ret, const struct boot_options *o, struct vm_error *error);
/* All of it at its place in guest memory; the command line is at LAYOUT_CMDLINE, NUL-terminated, cmdline_size long. */
int params_write(const struct boot_options *o, const struct boot_image *image, const struct boot_initrd *initrd,
        uint32_t cmdline_size);
int mptable_write(const struct gmem *mem, uint32_t vcpu_count);
/* -EINVAL: a device outside the first 4 GiB. -ENOSPC: more of them than the area has room for. */
int acpi_write(const struct gmem *mem, uint32_t vcpu_count, const struct boot_device *devices, size_t device_count);
