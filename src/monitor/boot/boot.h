/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts a kernel, its initramfs, command line and tables into guest memory and
 * says how the first vCPU enters it. Runs before any vCPU exists; every byte
 * of the files is hostile (an image may come from anyone).
 *
 *   ELF vmlinux with a PVH note   32-bit entry, rbx = hvm_start_info (Xen's PVH ABI, boot/pvh.h)
 *   ELF vmlinux without one       64-bit entry, rsi = zero page (Linux boot protocol 2.15)
 *   bzImage                       64-bit entry of its setup header (xloadflags bit 0), rsi = zero page
 *
 * The tables (ACPI, and an MP table for kernels without ACPI) are written for
 * all three.
 */
#pragma once

#include "monitor/vm-config.h"
#include "virtio/gmem.h"

struct boot_device { /* virtio-mmio, announced by ACPI (LNRO0005) and on the command line */
    uint64_t base, size;
    uint32_t irq;
};

struct boot_options {
    struct gmem *mem;
    uint64_t ram_bytes; /* all RAM, below and above the gap */
    uint32_t vcpu_count;
    int kernel_fd, initrd_fd;              /* borrowed; initrd_fd -1: none */
    const char *kernel_path, *initrd_path; /* for messages */
    const char *cmdline;
    const struct boot_device *devices;
    size_t device_count;
};

enum boot_protocol { BOOT_PVH, BOOT_LINUX64 };

struct boot_entry {
    enum boot_protocol protocol;
    uint64_t rip;
    uint64_t params; /* rbx under PVH, rsi under the Linux protocol */
};

/* -ENOEXEC: not a kernel, or truncated; -E2BIG: does not fit the memory or the command line its 2,048 bytes; -EIO. */
int boot_load(struct boot_entry *ret, const struct boot_options *options, struct vm_error *error);
