/* SPDX-License-Identifier: Apache-2.0 */
/* One boot_load() of a made-up kernel file into a small VM, and what must hold after it. For fuzz-elf and fuzz-bzimage.
 */
#pragma once

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/macro.h"
#include "fuzz.h"
#include "monitor/boot/boot.h"
#include "monitor/layout.h"

/* Two adjacent regions that are exact heap blocks: ASan sees a byte beside them. */
#define FUZZ_RAM   0x240000u
#define FUZZ_SPLIT 0x180000u

struct fuzz_vm {
    uint8_t *halves[2];
    struct gmem mem;
    int kernel_fd, initrd_fd;
};

static inline void fuzz_vm_init(struct fuzz_vm *vm)
{
    vm->halves[0] = calloc(1, FUZZ_SPLIT);
    vm->halves[1] = calloc(1, FUZZ_RAM - FUZZ_SPLIT);
    vm->kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
    vm->initrd_fd = memfd_create("initramfs", MFD_CLOEXEC);
    if (!vm->halves[0] || !vm->halves[1] || vm->kernel_fd < 0 || vm->initrd_fd < 0 ||
            gmem_add(&vm->mem, (struct gpa){0}, FUZZ_SPLIT, vm->halves[0]) < 0 ||
            gmem_add(&vm->mem, (struct gpa){FUZZ_SPLIT}, FUZZ_RAM - FUZZ_SPLIT, vm->halves[1]) < 0)
        abort();
}

/* knobs[0]: initramfs of so many pages (0: none); knobs[1]: CPUs and devices. */
static inline void fuzz_boot(struct fuzz_vm *vm, const uint8_t knobs[2], const uint8_t *kernel, size_t len)
{
    struct boot_device devices[LAYOUT_MAX_VIRTIO];
    struct boot_entry entry = {.rip = 0xdead};
    struct vm_error error = {""};
    struct boot_options o = {.mem = &vm->mem,
            .ram_bytes = FUZZ_RAM,
            .vcpu_count = 1 + (knobs[1] >> 4),
            .kernel_fd = vm->kernel_fd,
            .initrd_fd = knobs[0] ? vm->initrd_fd : -1,
            .kernel_path = "kernel",
            .initrd_path = "initramfs",
            .cmdline = "quiet -- x",
            .devices = devices,
            .device_count = knobs[1] & 15};
    int r;

    for (uint32_t i = 0; i < ARRAY_SIZE(devices); i++)
        devices[i] = (struct boot_device){LAYOUT_VIRTIO + i * LAYOUT_VIRTIO_STEP, LAYOUT_VIRTIO_STEP, 5 + i};
    if (ftruncate(vm->kernel_fd, 0) < 0 || pwrite(vm->kernel_fd, kernel, len, 0) != (ssize_t)len ||
            ftruncate(vm->initrd_fd, (off_t)knobs[0] * 4096) < 0)
        abort();
    r = boot_load(&entry, &o, &error);
    if (r < 0) {
        FUZZ_CHECK(r == -ENOEXEC || r == -E2BIG);
        FUZZ_CHECK(error.text[0] && entry.rip == 0xdead);
        return;
    }
    FUZZ_CHECK(r == 0 && !error.text[0]);
    FUZZ_CHECK(gmem_slice(&vm->mem, (struct gpa){entry.rip}, 1));
    FUZZ_CHECK(entry.params == (entry.protocol == BOOT_PVH ? LAYOUT_PVH_INFO : LAYOUT_ZERO_PAGE));
    /* No file reaches the places that the monitor fills. */
    FUZZ_CHECK(memcmp(vm->halves[0] + LAYOUT_ACPI, "RSD PTR ", 8) == 0);
    FUZZ_CHECK(memcmp(vm->halves[0] + LAYOUT_CMDLINE, "quiet ", 6) == 0);
}
