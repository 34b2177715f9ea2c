/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel is told: memory map, command line, initramfs, RSDP, in the form of its way of booting. */
#include "monitor/boot/parts.h"
#include "monitor/boot/pvh.h"
#include "monitor/layout.h"

#define LOADER_UNDEFINED 0xffu /* boot.rst: type_of_loader of a boot loader without a number of its own */

static int write_pvh(const struct boot_options *o, const struct boot_initrd *initrd)
{
    struct {
        struct pvh_start_info info;
        struct pvh_module module;
        struct pvh_memmap_entry map[RAM_MAX_RANGES];
    } all = {.info = {.magic = PVH_START_MAGIC,
                     .version = PVH_VERSION,
                     .cmdline_paddr = LAYOUT_CMDLINE,
                     .rsdp_paddr = LAYOUT_ACPI,
                     .memmap_paddr = LAYOUT_PVH_INFO + offsetof(__typeof__(all), map)}};
    struct ram_range ram[RAM_MAX_RANGES];
    size_t n = ram_map(o->ram_bytes, ram);

    static_assert(LAYOUT_PVH_INFO + sizeof(all) <= LAYOUT_ZERO_PAGE, "overlap");
    if (initrd->size > 0) {
        all.info.nr_modules = 1;
        all.info.modlist_paddr = LAYOUT_PVH_INFO + offsetof(__typeof__(all), module);
        all.module = (struct pvh_module){.paddr = initrd->start, .size = initrd->size};
    }
    all.info.memmap_entries = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        all.map[i] = (struct pvh_memmap_entry){.addr = ram[i].start, .size = ram[i].size, .type = ram[i].type};
    return gmem_write(o->mem, (struct gpa){LAYOUT_PVH_INFO}, &all, sizeof(all));
}

static int write_zero_page(const struct boot_options *o, const struct boot_image *image,
        const struct boot_initrd *initrd, uint32_t cmdline_size)
{
    struct boot_params zero = {.hdr = image->setup};
    struct ram_range ram[RAM_MAX_RANGES];
    size_t n = ram_map(o->ram_bytes, ram);

    static_assert(sizeof(zero) == 4096 && LAYOUT_ZERO_PAGE + 4096 <= LAYOUT_BOOT_STACK, "overlap");
    zero.hdr.boot_flag = 0xaa55;
    zero.hdr.header = 0x53726448;
    zero.hdr.type_of_loader = LOADER_UNDEFINED;
    zero.hdr.loadflags |= LOADED_HIGH;
    zero.hdr.setup_data = 0; /* a list of guest addresses: none of the file's business */
    zero.hdr.cmd_line_ptr = LAYOUT_CMDLINE;
    zero.hdr.cmdline_size = cmdline_size;
    zero.hdr.ramdisk_image = (uint32_t)initrd->start; /* below the gap */
    zero.hdr.ramdisk_size = (uint32_t)initrd->size;
    zero.acpi_rsdp_addr = LAYOUT_ACPI;
    zero.e820_entries = (uint8_t)n;
    for (size_t i = 0; i < n; i++)
        zero.e820_table[i] = (struct boot_e820_entry){.addr = ram[i].start, .size = ram[i].size, .type = ram[i].type};
    return gmem_write(o->mem, (struct gpa){LAYOUT_ZERO_PAGE}, &zero, sizeof(zero));
}

int params_write(const struct boot_options *o, const struct boot_image *image, const struct boot_initrd *initrd,
        uint32_t cmdline_size)
{
    if (image->entry.protocol == BOOT_PVH)
        return write_pvh(o, initrd);
    return write_zero_page(o, image, initrd, cmdline_size);
}
