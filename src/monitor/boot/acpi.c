/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI 6.0 tables of a hardware-reduced machine: RSDP, XSDT, FADT, MADT, DSDT
 * and one SSDT. Hardware-reduced (no PM timer, no SCI, no fixed buttons)
 * spares a Linux guest the probing of the PIT, the PIC and the RTC.
 *
 * The DSDT (dsdt.asl) is used as compiled. The SSDT holds one copy of the
 * device of ssdt.asl for each virtio-mmio device, with its values put in.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dsdt.hex"
#include "monitor/boot/parts.h"
#include "monitor/layout.h"
#include "ssdt.hex"

#define HEADER_SIZE 36u /* of every table but the RSDP */
#define AREA_SIZE   8192u
#define FADT_SIZE   276u
#define TABLE_ALIGN 16u

struct area {
    uint8_t bytes[AREA_SIZE]; /* at LAYOUT_ACPI */
    size_t used;
};
static_assert(LAYOUT_ACPI + AREA_SIZE <= LAYOUT_GENERATION && LAYOUT_GENERATION < LAYOUT_HIGH_MEMORY, "below 1 MiB");
static_assert(LAYOUT_VIRTIO_IRQ + LAYOUT_MAX_VIRTIO <= LAYOUT_EVENT_IRQ, "a pin of its own");

static void put(uint8_t *to, uint64_t value, size_t len)
{
    memcpy(to, &value, len); /* little-endian, as the host */
}

static void put_text(uint8_t *to, const char *text)
{
    while (*text) /* fields in the tables have no NUL */
        *to++ = (uint8_t)*text++;
}

static uint8_t *take(struct area *area, size_t len)
{
    uint8_t *at = area->bytes + area->used;

    if (len > sizeof(area->bytes) - area->used)
        return NULL;
    area->used = MIN((area->used + len + TABLE_ALIGN - 1) & ~(size_t)(TABLE_ALIGN - 1), sizeof(area->bytes));
    return at;
}

static uint64_t address(const struct area *area, const uint8_t *table)
{
    return LAYOUT_ACPI + (uint64_t)(table - area->bytes);
}

/* ACPI 6.0 §5.2.6 */
static void header(uint8_t *t, const char *signature, uint8_t revision, size_t len)
{
    put_text(t, signature);
    put(t + 4, len, 4);
    t[8] = revision;
    put_text(t + 10, "IRONCLMONITOR"); /* OEM id, OEM table id */
    put(t + 24, 1, 4);
    put_text(t + 28, "IRCL");
    put(t + 32, 1, 4);
    t[9] = 0;
    t[9] = table_checksum(t, len);
}

/* ACPI 6.0 §5.2.9 (FADT); a generic address (§5.2.3) is: space, bits, offset, access size, 64-bit address. */
static uint8_t *add_fadt(struct area *area, uint64_t dsdt)
{
    uint8_t *t = take(area, FADT_SIZE);

    if (!t)
        return NULL;
    put(t + 40, dsdt, 4);
    put(t + 109, 1u << 1 | 1u << 2 | 1u << 3 | 1u << 5, 2); /* there is an 8042; no VGA, no MSI, no CMOS clock */
    /* wbinvd works; no fixed power and sleep buttons; the reset register is there; hardware-reduced */
    put(t + 112, 1u << 0 | 1u << 4 | 1u << 5 | 1u << 10 | 1u << 20, 4);
    memcpy(t + 116, (const uint8_t[]){1 /* port */, 8, 0, 1}, 4);
    put(t + 120, LAYOUT_I8042_PORT + 4, 8);
    t[128] = 0xfe; /* its reset pulse */
    put(t + 140, dsdt, 8);
    put_text(t + 268, "IRONCLAW");
    header(t, "FACP", 6, FADT_SIZE);
    return t;
}

/* ACPI 6.0 §5.2.12 (MADT): local APICs 0..n-1, one IOAPIC with the next id, LINT1 as NMI on all. */
static uint8_t *add_madt(struct area *area, uint32_t vcpu_count)
{
    size_t len = HEADER_SIZE + 8 + 8 * (size_t)vcpu_count + 12 + 6;
    uint8_t *t = take(area, len), *p;

    if (!t)
        return NULL;
    put(t + HEADER_SIZE, LAYOUT_APIC, 4);
    p = t + HEADER_SIZE + 8;
    for (uint32_t i = 0; i < vcpu_count; i++, p += 8)
        memcpy(p, (const uint8_t[]){0, 8, (uint8_t)i, (uint8_t)i, 1}, 5);
    memcpy(p, (const uint8_t[]){1, 12, (uint8_t)vcpu_count}, 3);
    put(p + 4, LAYOUT_IOAPIC, 4);
    memcpy(p + 12, (const uint8_t[]){4, 6, 0xff, 0, 0, 1}, 6);
    header(t, "APIC", 4, len);
    return t;
}

static uint8_t *add_dsdt(struct area *area)
{
    uint8_t *t = take(area, sizeof(dsdt_aml_code));

    if (t)
        memcpy(t, dsdt_aml_code, sizeof(dsdt_aml_code));
    return t;
}

/* Replaces the mould's value, which ssdt.asl has exactly once. */
static void set(uint8_t *code, size_t len, const void *mould, uint32_t value)
{
    uint8_t *at = memmem(code, len, mould, 4);

    assert(at);
    put(at, value, 4);
}

static uint8_t *add_ssdt(struct area *area, const struct boot_device *devices, size_t count)
{
    const uint8_t *mould = ssdt_aml_code + HEADER_SIZE;
    size_t each = sizeof(ssdt_aml_code) - HEADER_SIZE, len = HEADER_SIZE + count * each;
    uint8_t *t = count <= LAYOUT_MAX_VIRTIO ? take(area, len) : NULL;

    if (!t)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        uint8_t *code = t + HEADER_SIZE + i * each;
        uint32_t name;
        char text[5];

        (void)snprintf(text, sizeof(text), "V%03u", (unsigned)i & 0xff);
        memcpy(&name, text, sizeof(name));
        memcpy(code, mould, each);
        set(code, each, "VXXX", name);
        set(code, each, (const uint8_t[]){0xa3, 0xa2, 0xa1, 0xa0}, (uint32_t)i);
        set(code, each, (const uint8_t[]){0xb3, 0xb2, 0xb1, 0xb0}, (uint32_t)devices[i].base);
        set(code, each, (const uint8_t[]){0xc3, 0xc2, 0xc1, 0xc0}, (uint32_t)devices[i].size);
        set(code, each, (const uint8_t[]){0xd3, 0xd2, 0xd1, 0xd0}, devices[i].irq);
    }
    header(t, "SSDT", 2, len);
    return t;
}

/* ACPI 6.0 §5.2.5.3; the area's first bytes. */
static void fill_rsdp(uint8_t *t, uint64_t xsdt)
{
    put_text(t, "RSD PTR ");
    put_text(t + 9, "IRONCL");
    t[15] = 2;
    put(t + 20, 36, 4);
    put(t + 24, xsdt, 8);
    t[8] = table_checksum(t, 20);
    t[32] = table_checksum(t, 36);
}

int acpi_write(const struct gmem *mem, uint32_t vcpu_count, const struct boot_device *devices, size_t device_count)
{
    struct area area = {0};
    size_t tables = device_count > 0 ? 3 : 2, len = HEADER_SIZE + 8 * tables;
    uint8_t *rsdp = take(&area, 36), *xsdt = take(&area, len), *dsdt, *list[3] = {0};

    if (vcpu_count == 0 || vcpu_count > VM_MAX_VCPUS)
        return -EINVAL;
    for (size_t i = 0; i < device_count; i++) {
        if (devices[i].base > UINT32_MAX || devices[i].size > LAYOUT_GAP_END - devices[i].base)
            return -EINVAL;
    }
    dsdt = add_dsdt(&area);
    list[0] = dsdt ? add_fadt(&area, address(&area, dsdt)) : NULL;
    list[1] = add_madt(&area, vcpu_count);
    if (device_count > 0)
        list[2] = add_ssdt(&area, devices, device_count);
    for (size_t i = 0; i < tables; i++) {
        if (!list[i])
            return -ENOSPC;
        put(xsdt + HEADER_SIZE + 8 * i, address(&area, list[i]), 8);
    }
    header(xsdt, "XSDT", 1, len);
    fill_rsdp(rsdp, address(&area, xsdt));
    return gmem_write(mem, (struct gpa){LAYOUT_ACPI}, area.bytes, area.used);
}
