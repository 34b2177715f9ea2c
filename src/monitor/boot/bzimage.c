/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel as a bzImage: Linux boot protocol 2.15 (Documentation/x86/boot.rst),
 * entered at its 64-bit entry. The setup code in front is for BIOSes and is
 * skipped; what follows it goes to the address that the kernel prefers, with
 * init_size bytes of memory for it to unpack itself.
 */
#include <errno.h>
#include <string.h>

#include "monitor/boot/parts.h"
#include "monitor/layout.h"

#define SECTOR              512u
#define HEADER_AT           offsetof(struct boot_params, hdr)
#define VERSION_XLOADFLAGS  0x20cu
#define DEFAULT_SETUP_SECTS 4u
#define ENTRY_64            0x200u

/* The header says its own end: 0x202 plus the byte at 0x201, the distance of the jump over it. */
static int read_header(struct setup_header *ret, const struct boot_options *o, struct vm_error *error)
{
    struct setup_header setup = {0};
    uint8_t raw[sizeof(setup)];
    size_t len = 0;
    int r = file_read(o->kernel_fd, HEADER_AT, raw, offsetof(struct setup_header, version) + sizeof(setup.version));

    if (r == 0) {
        len = offsetof(struct setup_header, header) + raw[offsetof(struct setup_header, jump) + 1];
        len = MIN(len, sizeof(setup));
        r = file_read(o->kernel_fd, HEADER_AT, raw, len);
    }
    if (r < 0)
        return kernel_cut(o, error, r, "setup header", HEADER_AT + sizeof(setup));
    memcpy(&setup, raw, len);
    if (setup.version < VERSION_XLOADFLAGS || len < offsetof(struct setup_header, handover_offset) ||
            !(setup.xloadflags & XLF_KERNEL_64))
        return vm_fail(error, -ENOEXEC,
                "kernel %s: bzImage without a 64-bit entry (boot protocol %u.%u, xloadflags 0x%x); give a "
                "64-bit kernel of Linux 3.8 or later",
                o->kernel_path, setup.version >> 8, setup.version & 0xff, setup.xloadflags);
    *ret = setup;
    return 0;
}

int bzimage_load(struct boot_image *ret, const struct boot_options *o, struct vm_error *error)
{
    struct boot_image image = {0};
    uint64_t start, size, payload, at;
    int r = read_header(&image.setup, o, error);

    if (r < 0)
        return r;
    at = (1 + (uint64_t)(image.setup.setup_sects ? image.setup.setup_sects : DEFAULT_SETUP_SECTS)) * SECTOR;
    payload = (uint64_t)image.setup.syssize * 16;
    if (payload <= ENTRY_64)
        return vm_fail(error, -ENOEXEC, "kernel %s: damaged: bzImage with %llu bytes of code", o->kernel_path,
                (unsigned long long)payload);
    /* A kernel that can run elsewhere still unpacks itself to the preferred address at the lowest. */
    start = MAX(image.setup.pref_address, (uint64_t)LAYOUT_HIGH_MEMORY);
    size = MAX((uint64_t)image.setup.init_size, payload);
    if (start >= LAYOUT_GAP_START || !kernel_fits(o, start, size))
        return kernel_misplaced(o, error, start, size);
    r = file_load(o->kernel_fd, at, o->mem, start, payload);
    if (r < 0)
        return kernel_cut(o, error, r, "protected-mode code", at + payload);
    image.entry = (struct boot_entry){.protocol = BOOT_LINUX64, .rip = start + ENTRY_64, .params = LAYOUT_ZERO_PAGE};
    image.low_end = start + size;
    image.initrd_limit = (uint64_t)image.setup.initrd_addr_max + 1;
    *ret = image;
    return 0;
}
