/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUs and interrupt wiring for kernels without ACPI: Intel MultiProcessor
 * Specification 1.4, chapter 4. One ISA bus whose IRQ n is the IOAPIC's pin n,
 * for all 24 pins, which is how KVM wires its own by default.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "monitor/boot/parts.h"
#include "monitor/layout.h"

#define IOAPIC_PINS    24u
#define APIC_VERSION   0x14u /* of KVM's local APIC */
#define IOAPIC_VERSION 0x11u
#define ISA_BUS        0u
#define ALL_APICS      0xffu

enum entry_type { ENTRY_CPU, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_INTERRUPT, ENTRY_LOCAL };
enum interrupt_type { INTERRUPT_VECTORED, INTERRUPT_NMI, INTERRUPT_SMI, INTERRUPT_EXTINT };

struct mp_pointer {
    char signature[4];
    uint32_t table;
    uint8_t paragraphs, revision, checksum, features[5];
};
static_assert(sizeof(struct mp_pointer) == 16, "4.1");

struct mp_header {
    char signature[4];
    uint16_t length;
    uint8_t revision, checksum;
    char oem[8], product[12];
    uint32_t oem_table;
    uint16_t oem_size, entries;
    uint32_t apic;
    uint16_t extended_length;
    uint8_t extended_checksum, reserved;
};
static_assert(sizeof(struct mp_header) == 44, "4.2");

struct mp_cpu {
    uint8_t type, apic_id, apic_version, flags; /* flags: bit 0 enabled, bit 1 boot processor */
    uint32_t signature, features, reserved[2];
};
static_assert(sizeof(struct mp_cpu) == 20, "4.3.1");

struct mp_small { /* bus, IOAPIC and interrupt entries are all 8 bytes */
    uint8_t type, bytes[7];
};

struct mp_table {
    struct mp_pointer pointer;
    struct mp_header header;
    uint8_t entries[VM_MAX_VCPUS * sizeof(struct mp_cpu) + (1 + 1 + IOAPIC_PINS + 2) * sizeof(struct mp_small)];
};
static_assert(sizeof(struct mp_table) <= 1024, "kernels search 1 KiB from there");

static void add(struct mp_table *table, const void *entry, size_t len)
{
    memcpy(table->entries + table->header.length, entry, len);
    table->header.length = (uint16_t)(table->header.length + len);
    table->header.entries++;
}

int mptable_write(const struct gmem *mem, uint32_t vcpu_count)
{
    struct mp_table t = {.pointer = {.signature = "_MP_",
                                 .table = LAYOUT_MPTABLE + sizeof(struct mp_pointer),
                                 .paragraphs = 1,
                                 .revision = 4},
            .header = {.signature = "PCMP",
                    .revision = 4,
                    .oem = "IRONCLAW",
                    .product = "MICROVM     ",
                    .apic = LAYOUT_APIC}};
    uint8_t ioapic = (uint8_t)vcpu_count; /* the first id that no CPU has */

    if (vcpu_count == 0 || vcpu_count > VM_MAX_VCPUS)
        return -EINVAL;
    for (uint32_t i = 0; i < vcpu_count; i++)
        add(&t,
                &(struct mp_cpu){.type = ENTRY_CPU,
                        .apic_id = (uint8_t)i,
                        .apic_version = APIC_VERSION,
                        .flags = i == 0 ? 3 : 1},
                sizeof(struct mp_cpu));
    add(&t, &(struct mp_small){ENTRY_BUS, {ISA_BUS, 'I', 'S', 'A', ' ', ' ', ' '}}, sizeof(struct mp_small));
    add(&t,
            &(struct mp_small){
                    ENTRY_IOAPIC, {ioapic, IOAPIC_VERSION, 1, LAYOUT_IOAPIC & 0xff, LAYOUT_IOAPIC >> 8 & 0xff,
                                          LAYOUT_IOAPIC >> 16 & 0xff, LAYOUT_IOAPIC >> 24}},
            sizeof(struct mp_small));
    /* kind, polarity and trigger (2 bytes; 0: as the bus has it), bus, its IRQ, destination, its pin */
    for (uint8_t i = 0; i < IOAPIC_PINS; i++)
        add(&t, &(struct mp_small){ENTRY_INTERRUPT, {INTERRUPT_VECTORED, 0, 0, ISA_BUS, i, ioapic, i}},
                sizeof(struct mp_small));
    add(&t, &(struct mp_small){ENTRY_LOCAL, {INTERRUPT_EXTINT, 0, 0, ISA_BUS, 0, 0, 0}}, sizeof(struct mp_small));
    add(&t, &(struct mp_small){ENTRY_LOCAL, {INTERRUPT_NMI, 0, 0, ISA_BUS, 0, ALL_APICS, 1}}, sizeof(struct mp_small));

    t.pointer.checksum = table_checksum(&t.pointer, sizeof(t.pointer));
    t.header.length = (uint16_t)(t.header.length + sizeof(t.header));
    t.header.checksum = table_checksum(&t.header, t.header.length);
    return gmem_write(mem, (struct gpa){LAYOUT_MPTABLE}, &t, sizeof(t.pointer) + t.header.length);
}
