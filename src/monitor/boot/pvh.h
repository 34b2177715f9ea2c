/* SPDX-License-Identifier: Apache-2.0 */
/* Xen's x86/HVM direct boot ABI ("PVH"), docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h. */
#pragma once

#include <assert.h>
#include <stdint.h>

#define PVH_NOTE_NAME   "Xen"
#define PVH_NOTE_ENTRY  18u /* XEN_ELFNOTE_PHYS32_ENTRY: 4 or 8 bytes, an address below 4 GiB */
#define PVH_START_MAGIC 0x336ec578u
#define PVH_VERSION     1u

struct pvh_start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
    uint32_t memmap_entries, reserved;
};
static_assert(sizeof(struct pvh_start_info) == 56, "ABI");

struct pvh_module {
    uint64_t paddr, size, cmdline_paddr, reserved;
};
static_assert(sizeof(struct pvh_module) == 32, "ABI");

struct pvh_memmap_entry {
    uint64_t addr, size;
    uint32_t type, reserved;
};
static_assert(sizeof(struct pvh_memmap_entry) == 24, "ABI");
