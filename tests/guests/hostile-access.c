/* SPDX-License-Identifier: Apache-2.0 */
/* Accesses of every kind to what is there and what is not: registers, ports, holes, APICs, MSRs. */
#include "hostile.h"

static const uint64_t patterns[] = {0, 1, 0xffffffffffffffff, 0x8000000080000000, 0x0102040810204080, 0x5a};
#define PATTERNS (sizeof(patterns) / sizeof(*patterns))

static uint64_t access(uint64_t at, unsigned width, bool write, uint64_t v)
{
    switch (width + write) {
    case 1:
        return mmio_read8(at);
    case 2:
        mmio_write8(at, (uint8_t)v);
        return 0;
    case 3:
        return mmio_read16(at);
    case 4:
        mmio_write16(at, (uint16_t)v);
        return 0;
    case 5:
        return mmio_read32(at);
    case 6:
        mmio_write32(at, (uint32_t)v);
        return 0;
    case 7:
        return mmio_read64(at);
    default:
        mmio_write64(at, v);
        return 0;
    }
}
/* width + write from above: 1, 3, 5, 7 stand for 1, 2, 4, 8 bytes. */
static const unsigned widths[] = {1, 3, 5, 7};

static void into_state(struct device *d, unsigned state)
{
    static const uint8_t steps[] = {0, 1, 3, 11, 15, 0x8f};

    if (state == 3) {
        device_begin(d, 0);
        return;
    }
    if (state == 4) {
        start_all(d, 0, true);
        return;
    }
    device_reset(d);
    for (unsigned i = 1; i <= state; i++)
        set_reg(d, R_STATUS, steps[i]);
}

/* Patterns into every register of every device in every state of the status, in every width, aligned or not. */
CASE(hostile_registers)
{
    static struct device devices[VIRTIO_SLOTS];
    unsigned count = devices_all(devices, VIRTIO_SLOTS);
    unsigned first = (unsigned)argument("first", 0), step = (unsigned)argument("step", 1);

    CHECK(count >= 4);
    for (unsigned n = first; n < count; n++) {
        struct device *d = &devices[n];

        for (unsigned state = 0; state < 6; state++) {
            for (unsigned w = 0; w < 4; w++) {
                into_state(d, state);
                for (unsigned offset = 0; offset < 0x140; offset += step)
                    access(d->base + offset, widths[w], false, 0);
                for (unsigned offset = 0; offset < 0x140; offset += step) {
                    if (offset % 0x40 == 0 && offset)
                        into_state(d, state);
                    for (size_t p = 0; p < PATTERNS; p++)
                        access(d->base + offset, widths[w], true, patterns[(p + offset) % PATTERNS]);
                }
            }
        }
        /* The rest of the page, and across its end into the next device. */
        for (unsigned offset = 0x140; offset < 0x1000; offset += 61) {
            access(d->base + offset, widths[offset % 4], true, ~0ull);
            access(d->base + offset, widths[offset % 4], false, 0);
        }
        for (unsigned back = 1; back < 8; back++) {
            access(d->base + 0x1000 - back, 7, true, ~0ull);
            access(d->base + 0x1000 - back, 7, false, 0);
            access(d->base + 0x1000 - back, 5, true, ~0ull);
        }
    }
    for (unsigned n = 0; n < count; n++)
        must_work(&devices[n]);
}

/* Config space: reads in every width agree, at its end nothing is there. */
CASE(hostile_config)
{
    static struct device devices[VIRTIO_SLOTS];
    unsigned count = devices_all(devices, VIRTIO_SLOTS);

    for (unsigned n = 0; n < count; n++) {
        struct device *d = &devices[n];

        for (unsigned offset = R_CONFIG; offset < R_CONFIG + 16; offset += 4) {
            uint32_t whole = mmio_read32(d->base + offset), bytes = 0;

            for (unsigned i = 0; i < 4; i++)
                bytes |= (uint32_t)mmio_read8(d->base + offset + i) << 8 * i;
            if (d->id == ID_BLOCK && offset < R_CONFIG + 8)
                CHECK_EQ(bytes, whole);
        }
        for (unsigned offset = R_CONFIG; offset < 0x1000; offset += 7) {
            for (unsigned w = 0; w < 4; w++) {
                access(d->base + offset, widths[w], true, ~0ull);
                access(d->base + offset, widths[w], false, 0);
            }
        }
        must_work(d);
    }
}

static bool ends_the_vm(uint32_t port)
{
    return port == 0x64 || port == 0x92 || port == 0xcf9;
}

/* Every port, read and written in every width. The test says which part: 65536 × 6 accesses take their time. */
CASE(hostile_ports)
{
    uint32_t from = (uint32_t)argument("from", 0), to = (uint32_t)argument("to", 0x10000);
    uint32_t step = (uint32_t)argument("step", 1);

    for (uint32_t port = from; port < to; port += step) {
        bool ours = port - SERIAL < 8; /* what goes out there is looked at by the test */

        in8((uint16_t)port);
        in16((uint16_t)port);
        in32((uint16_t)port);
        if (ours || ends_the_vm(port) || ends_the_vm(port + 1) || ends_the_vm(port + 2) || ends_the_vm(port + 3))
            continue;
        if (port + 3 >= SERIAL && port < SERIAL)
            continue;
        for (size_t p = 0; p < 2; p++) {
            out8((uint16_t)port, (uint8_t)patterns[1 + p]);
            out16((uint16_t)port, (uint16_t)patterns[1 + p]);
            out32((uint16_t)port, (uint32_t)patterns[1 + p]);
        }
    }
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
}

/* The keyboard controller: every command but the reset, with and without data. */
CASE(hostile_keyboard)
{
    for (unsigned command = 0; command < 256; command++) {
        if (command >= 0xf0 || command == 0xd1) /* the output lines: bit 0 is the reset */
            continue;
        out8(0x64, (uint8_t)command);
        for (unsigned i = 0; i < 4; i++)
            in8(0x60);
        out8(0x60, 0xfe);
        out8(0x60, (uint8_t)command);
        out16(0x60, 0x1234);
        out32(0x61, 0x12345678);
        in32(0x60);
        in32(0x62);
    }
    for (unsigned i = 0; i < 1000; i++)
        out8(0x60, (uint8_t)i);
    for (unsigned i = 0; i < 1000; i++)
        in8(0x60);
}

/* String instructions: many at once, and into memory that is not there. */
CASE(hostile_strings)
{
    uint8_t *page = allocate(8192, 4096);

    ins8(SERIAL, page, 5000);
    ins8(0x60, page, 5000);
    ins8(0x1234, page, 5000);
    CHECK_EQ(page[0], 0xff);
    CHECK_EQ(page[4999], 0xff);
    outs8(0x1234, page, 5000);
    outs8(0x60, page, 500);
    __asm__ volatile("rep movsb" ::"S"(0xc0001000ull), "D"(page), "c"(256) : "memory");
    __asm__ volatile("rep movsb" ::"S"(page), "D"(0xc0001100ull), "c"(256) : "memory");
    __asm__ volatile("rep movsq" ::"S"(0xc0001000ull), "D"(page), "c"(64) : "memory");
    __asm__ volatile("rep movsb" ::"S"(0xd0000000ull), "D"(0xd0001000ull), "c"(64) : "memory");
}

/* Where nothing is: reads give all ones, writes are lost. */
CASE(hostile_holes)
{
    static struct device devices[VIRTIO_SLOTS];
    unsigned count = devices_all(devices, VIRTIO_SLOTS);
    const uint64_t holes[] = {ram_low_end(), ram_low_end() + 0x1000, 0xbffffff8, 0xc0000000, 0xc0000ff8,
            VIRTIO_BASE + count * VIRTIO_STEP, 0xc0100000, 0xd0000000, 0xe0000000, 0xf0000000, 0xfeb00000, 0xfec01000,
            0xfed00000, 0xfee01000, 0xff000000, 0xffffff00, 4ull << 30, 5ull << 30, (8ull << 30) - 64};

    for (size_t i = 0; i < sizeof(holes) / sizeof(*holes); i++) {
        if (holes[i] >= 3ull << 30 && holes[i] >= 0xfff00000 && holes[i] < 4ull << 30)
            continue;
        for (unsigned w = 0; w < 4; w++) {
            for (size_t p = 0; p < PATTERNS; p++)
                access(holes[i] + p, widths[w], true, patterns[p]);
        }
        if (mmio_read64(holes[i]) != ~0ull || mmio_read8(holes[i] + 3) != 0xff || mmio_read16(holes[i] + 1) != 0xffff)
            FAIL("0x%x reads 0x%x", holes[i], mmio_read64(holes[i]));
    }
    for (uint64_t at = 0xc0000000; at < 0xfec00000; at += 0x173000)
        CHECK(mmio_read32(at) == ~0u || (at >= VIRTIO_BASE && at < VIRTIO_BASE + count * VIRTIO_STEP));
}

/* The APICs take what comes; afterwards they can be set up again. */
CASE(hostile_apic)
{
    for (unsigned offset = 0; offset < 0x1000; offset += 4) {
        for (size_t p = 0; p < PATTERNS; p++) {
            if (offset == 0x300 || offset == 0x310) /* an INIT to itself would end the guest */
                continue;
            mmio_write32(APIC + offset, (uint32_t)patterns[p]);
        }
        mmio_read32(APIC + offset);
    }
    for (unsigned i = 0; i < 1000; i++)
        mmio_write32(APIC + 0x300, 0x40000 | IPI_VECTOR); /* to itself, never taken: interrupts are off */
    for (unsigned i = 0; i < 256; i++) {
        for (size_t p = 0; p < PATTERNS; p++)
            ioapic_write((uint8_t)i, (uint32_t)patterns[p]);
        ioapic_read((uint8_t)i);
    }
    for (unsigned offset = 0; offset < 0x100; offset++) {
        mmio_write8(IOAPIC + offset, 0xff);
        mmio_write64(IOAPIC + offset, ~0ull);
        mmio_read16(IOAPIC + offset);
    }
    /* All pins to all kinds of delivery while devices raise them. */
    for (unsigned pin = 0; pin < 24; pin++) {
        static const uint32_t modes[] = {0, 0x100, 0x400, 0x700};

        for (unsigned m = 0; m < 4; m++) {
            ioapic_write((uint8_t)(0x11 + 2 * pin), 0xff000000);
            ioapic_write((uint8_t)(0x10 + 2 * pin), 0x10000 | 0x8000 | modes[m] | (0x20 + pin));
        }
    }
    interrupts_init();
    mmio_write32(APIC + 0x320, 0x10000); /* the timer */
    interrupts_on();
    mmio_write32(APIC + 0x300, 0x40000 | IPI_VECTOR);
    CHECK(WAIT_UNTIL(interrupts[IPI_VECTOR] > 0, 5));
}

static bool changes_the_mode(uint32_t msr)
{
    return msr == 0x1b || msr == 0xc0000080 || msr == 0x830;
}

/* Every MSR of the usual ranges read, written back, and written with what does not belong there. */
CASE(hostile_msrs)
{
    static const struct {
        uint32_t from, to;
    } ranges[] = {{0, 0x300}, {0x300, 0x900}, {0xc00, 0xe00}, {0x40000000, 0x40000110}, {0x4b564d00, 0x4b564d10},
            {0xc0000080, 0xc0000110}, {0xc0010000, 0xc0010120}, {0xc0011000, 0xc0011040}};
    uint64_t there = 0, v;

    for (size_t r = 0; r < sizeof(ranges) / sizeof(*ranges); r++) {
        for (uint32_t msr = ranges[r].from; msr < ranges[r].to; msr++) {
            if (changes_the_mode(msr))
                continue;
            if (rdmsr_try(msr, &v)) {
                there++;
                wrmsr_try(msr, v);
            } else {
                wrmsr_try(msr, 0);
            }
        }
    }
    print("%u of them are there\n", there);
    /* kvm-clock and its kin, at addresses outside of memory. */
    for (uint32_t msr = 0x4b564d00; msr < 0x4b564d05; msr++) {
        wrmsr_try(msr, (3ull << 30) | 1);
        wrmsr_try(msr, ram_low_end() - 1);
        wrmsr_try(msr, UINT64_MAX - 62);
        wrmsr_try(msr, 0);
    }
    for (unsigned i = 0; i < 20000; i++)
        rdmsr_try(0x10 + i % 16, &v);
}

CASE(hostile_cpuid)
{
    uint32_t r[4], sum = 0;

    for (uint32_t leaf = 0; leaf < 0x80; leaf++) {
        for (uint32_t sub = 0; sub < 16; sub++) {
            cpuid(leaf, sub, r);
            cpuid(0x80000000 + leaf, sub, r);
            cpuid(0x40000000 + leaf, sub, r);
            sum += r[0];
        }
    }
    for (unsigned i = 0; i < 20000; i++)
        cpuid(i * 2654435761u, i, r);
    print("sum 0x%x\n", (uint64_t)sum);
}

/* kib= of output; nobody may read it. */
CASE(hostile_serial_flood)
{
    uint64_t kib = argument("kib", 1024);
    char *page = allocate(4096, 4096);

    for (unsigned i = 0; i < 4096; i++)
        page[i] = (i + 1) % 64 ? (char)('a' + i % 23) : '\n';
    for (uint64_t i = 0; i < kib / 4; i++)
        outs8(SERIAL, page, 4096);
    print("\n");
}

/* Every byte value goes out as it is, control characters of a terminal too. */
CASE(hostile_serial_bytes)
{
    for (unsigned i = 0; i < 256; i++)
        out8(SERIAL, (uint8_t)i);
    for (unsigned r = 0; r < 8; r++) {
        for (size_t p = 0; p < 256; p++) {
            if (r == 0) /* the data register */
                continue;
            out8((uint16_t)(SERIAL + r), (uint8_t)p);
            in8((uint16_t)(SERIAL + r));
        }
    }
    out8(SERIAL + 3, 3);
    out8(SERIAL + 1, 0);
    out8(SERIAL + 4, 0);
    out8(SERIAL + 2, 0);
    print("\n");
}

static void everything(unsigned number)
{
    uint64_t random = 0x9e3779b97f4a7c15ull * number, left = argument("times", 3000);

    for (; left; left--) {
        uint64_t at;

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        at = VIRTIO_BASE + (random & 7) * VIRTIO_STEP + (random >> 8 & 0x1fc);
        access(at, widths[random >> 20 & 3], random >> 24 & 1, random >> 32 & 15);
        if ((random >> 40 & 15) == 0)
            mmio_write32(VIRTIO_BASE + (random & 7) * VIRTIO_STEP + R_STATUS, 0);
    }
}

/* All processors at once on the registers of all devices. */
CASE(hostile_processors)
{
    static struct device devices[VIRTIO_SLOTS];
    unsigned others = (unsigned)argument("cpus", 2) - 1, count = devices_all(devices, VIRTIO_SLOTS);

    CHECK_EQ(processors_start(others, everything), others);
    everything(99);
    CHECK(WAIT_UNTIL(processors_done == others, 120));
    for (unsigned n = 0; n < count; n++)
        must_work(&devices[n]);
}
