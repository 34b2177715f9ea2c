/* SPDX-License-Identifier: Apache-2.0 */
/* Where things are in the guest's physical address space. Firecracker's layout on x86-64, which its guests expect. */
#pragma once

#include <stdint.h>

#define LAYOUT_GDT        0x500u
#define LAYOUT_IDT        0x520u
#define LAYOUT_PVH_INFO   0x6000u
#define LAYOUT_ZERO_PAGE  0x7000u
#define LAYOUT_BOOT_STACK 0x8ff0u
#define LAYOUT_PML4       0x9000u
#define LAYOUT_CMDLINE    0x20000u
#define LAYOUT_MPTABLE    0x9fc00u /* also the end of low memory in the memory map */
#define LAYOUT_ACPI       0xe0000u /* RSDP, then the tables, up to 1 MiB */
#define LAYOUT_GENERATION                                                                                              \
    0xe3000u /* the VM generation id, 16 bytes, as boot/dsdt.asl says; reserved in the memory map */
#define LAYOUT_HIGH_MEMORY 0x100000u

#define LAYOUT_GAP_START (3ull << 30) /* no RAM here up to 4 GiB: devices, IOAPIC, APIC */
#define LAYOUT_GAP_END   (4ull << 30)

#define LAYOUT_BOOT_TIMER  0xc0000000u /* 1-byte write of 123 */
#define LAYOUT_VIRTIO      0xc0001000u /* the first virtio-mmio device */
#define LAYOUT_VIRTIO_STEP 0x1000u
#define LAYOUT_IOAPIC      0xfec00000u
#define LAYOUT_APIC        0xfee00000u
#define LAYOUT_KVM_TSS     0xfffbd000u /* 3 pages that KVM wants on Intel */

#define LAYOUT_SERIAL_PORT 0x3f8u
#define LAYOUT_SERIAL_IRQ  4u
#define LAYOUT_I8042_PORT  0x60u /* 5 ports: data 0x60, command and status 0x64 */
#define LAYOUT_I8042_IRQ   1u
#define LAYOUT_VIRTIO_IRQ  5u /* of the first device; the n-th has 5 + n, up to 20 */
#define LAYOUT_MAX_VIRTIO  16u
#define LAYOUT_EVENT_IRQ   21u /* the Generic Event Device of boot/dsdt.asl: the generation id changed */
