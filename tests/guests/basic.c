/* SPDX-License-Identifier: Apache-2.0 */
/* The machine without its virtio devices: boot, memory, serial port, processors, and every way to end. */
#include "lib/guest.h"

CASE(boot)
{
    print("boot: %s, params 0x%x, %u MiB, '%s'\n", booted_by_pvh ? "pvh" : "linux64", boot_params, ram_total() >> 20,
            command_line);
}

/* Every region of RAM is there from its first to its last byte, and nothing aliases. mem= says how much is due. */
CASE(memory)
{
    uint64_t total = 0, step;

    CHECK(ram_count > 0);
    for (unsigned i = 0; i < ram_count; i++) {
        uint64_t last = ram[i].start + ram[i].size - 8;

        print("ram 0x%x + 0x%x\n", ram[i].start, ram[i].size);
        CHECK(ram[i].start + ram[i].size <= 3ull << 30 || ram[i].start >= 4ull << 30);
        if (ram[i].start + ram[i].size > total)
            total = ram[i].start + ram[i].size;
        if (ram[i].start < 0x100000)
            continue; /* the boot protocol's own pages are in there */
        mmio_write64(last, last);
        step = ram[i].size / 64 & ~7ull;
        for (uint64_t at = ram[i].start; at < last; at += step) {
            if (at > (uint64_t)allocate(0, 8))
                mmio_write64(at, at);
        }
    }
    for (unsigned i = 0; i < ram_count; i++) {
        uint64_t last = ram[i].start + ram[i].size - 8;

        if (ram[i].start < 0x100000)
            continue;
        CHECK_EQ(mmio_read64(last), last);
        step = ram[i].size / 64 & ~7ull;
        for (uint64_t at = ram[i].start; at < last; at += step) {
            if (at > (uint64_t)allocate(0, 8))
                CHECK_EQ(mmio_read64(at), at);
        }
    }
    if (total > 4ull << 30)
        total -= 1ull << 30;
    CHECK_EQ(total >> 20, argument("mem", 0));
}

/* Lines of known content as bytes, as string output, and as wider writes; the test compares. */
CASE(serial_out)
{
    static const char text[] = "string output of a line that crosses no limit\n";

    print("begin\n");
    outs8(SERIAL, text, sizeof(text) - 1);
    for (unsigned i = 0; i < 1000; i++)
        print("line %u of output\n", (uint64_t)i);
    print("end\n");
}

/* Says back what it is told, until a dot. */
CASE(serial_echo)
{
    uint8_t byte = 0;

    print("SYNC echo\n");
    while (byte != '.') {
        if (!serial_get(&byte, 20))
            FAIL("no input");
        serial_put((const char *)&byte, 1);
    }
    print("\n");
}

/* Input arrives by interrupt 4. */
CASE(serial_interrupt)
{
    uint8_t byte;

    pin_enable(4);
    out8(SERIAL + 4, 0x0b); /* OUT2 lets interrupts through */
    out8(SERIAL + 1, 1);    /* on received data */
    interrupts_on();
    print("SYNC type\n");
    CHECK(WAIT_UNTIL(interrupts[PIN_VECTOR + 4] > 0, 20));
    interrupts_off();
    CHECK(serial_get(&byte, 1));
    CHECK_EQ(byte, '!');
}

/* Registers of the 16550 that a driver probes. */
CASE(serial_registers)
{
    out8(SERIAL + 7, 0x5a);
    CHECK_EQ(in8(SERIAL + 7), 0x5a);
    out8(SERIAL + 3, 0x83); /* divisor latch */
    out8(SERIAL, 1);
    out8(SERIAL + 1, 0);
    CHECK_EQ(in8(SERIAL), 1);
    CHECK_EQ(in8(SERIAL + 1), 0);
    out8(SERIAL + 3, 0x03);
    CHECK_EQ(in8(SERIAL + 3), 0x03);
    CHECK_EQ(in8(SERIAL + 5) & 0x60, 0x60);
    CHECK_EQ(in8(SERIAL + 5) & 0x01, 0);
    out8(SERIAL + 4, 0x1b); /* loopback */
    out8(SERIAL, 'x');
    CHECK(WAIT_UNTIL(in8(SERIAL + 5) & 1, 1));
    CHECK_EQ(in8(SERIAL), 'x');
    out8(SERIAL + 4, 0x03);
}

/* Prints a line every now and then, for ever: for pause, resume, and the ways in which the host ends a VM. */
CASE(ticks)
{
    for (uint64_t i = 0;; i++) {
        print("tick %u\n", i);
        spin(SECONDS / 50);
    }
}

CASE(halt_for_ever)
{
    print("halting\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}

CASE(spin_for_ever)
{
    print("spinning\n");
    for (;;)
        pause_cpu();
}

static void spin_or_halt(unsigned number)
{
    for (;;) {
        if (number % 2)
            pause_cpu();
        else
            __asm__ volatile("cli; hlt");
    }
}

/* All processors busy or halted, and nobody ends it. */
CASE(processors_for_ever)
{
    unsigned others = (unsigned)argument("cpus", 2) - 1;

    CHECK_EQ(processors_start(others, spin_or_halt), others);
    print("spinning\n");
    spin_or_halt(1);
}

static void end_by_reset(unsigned number)
{
    if (number == argument("by", 1))
        guest_exit();
    for (;;)
        pause_cpu();
}

/* Another processor than the first ends the VM while the rest spin. */
CASE(reset_by_another)
{
    unsigned others = (unsigned)argument("cpus", 2) - 1;

    print("PASS reset_by_another\n");
    processors_start(others, end_by_reset);
    for (;;)
        pause_cpu();
}

CASE(triple_fault)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) nothing = {0, 0};

    print("PASS triple_fault\n");
    __asm__ volatile("lidt %0; ud2" ::"m"(nothing));
    print("FAIL triple_fault: it goes on\n");
}

/* Instructions are fetched from where no memory is: KVM can't emulate that. */
CASE(jump_to_nothing)
{
    print("PASS jump_to_nothing\n");
    __asm__ volatile("jmp *%0" ::"r"(0xd0000000ull));
}

/* The stack where no memory is, and an interrupt. */
CASE(stack_in_nothing)
{
    print("PASS stack_in_nothing\n");
    __asm__ volatile("movq %0, %%rsp; int3" ::"r"(0xd0001000ull));
}

/* The keyboard controller says Ctrl, Alt, Del (set 1 make codes); the guest answers with a reset. */
CASE(ctrl_alt_del)
{
    static const uint8_t wanted[] = {0x1d, 0x38, 0x53};
    uint8_t got[16];
    unsigned count = 0, seen = 0;

    out8(0x64, 0x60); /* write the command byte: keyboard interrupt, translation */
    out8(0x60, 0x41);
    pin_enable(1);
    interrupts_on();
    print("SYNC ready\n");
    while (seen < sizeof(wanted) && count < sizeof(got)) {
        if (!WAIT_UNTIL(in8(0x64) & 1, 20))
            FAIL("%u of 3 keys", (uint64_t)seen);
        got[count] = in8(0x60);
        if (got[count] == wanted[seen])
            seen++;
        count++;
    }
    CHECK_EQ(seen, sizeof(wanted));
    CHECK(WAIT_UNTIL(interrupts[PIN_VECTOR + 1] > 0, 5));
    interrupts_off();
}

/* What a driver of the keyboard controller asks first. */
CASE(keyboard_controller)
{
    out8(0x64, 0x60);
    out8(0x60, 0x65);
    out8(0x64, 0x20);
    CHECK(WAIT_UNTIL(in8(0x64) & 1, 1));
    CHECK_EQ(in8(0x60), 0x65);
    CHECK_EQ(in8(0x64) & 1, 0);
}

CASE(boot_timer)
{
    mmio_write8(0xc0000000, 123);
    mmio_write8(0xc0000000, 123);
    mmio_write8(0xc0000000, 7);
    mmio_write32(0xc0000000, 123);
    mmio_write64(0xc0000ff8, 123);
    print("timer 0x%x\n", (uint64_t)mmio_read8(0xc0000000));
}

static volatile uint32_t sum, together, ids[32];

static void count_me(unsigned number)
{
    ids[number] = apic_id();
    __atomic_fetch_add(&sum, number, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < 10000; i++)
        __atomic_fetch_add(&together, 1, __ATOMIC_SEQ_CST);
}

CASE(processors)
{
    unsigned count = (unsigned)argument("cpus", 1);

    CHECK_EQ(processors_start(count - 1, count_me), count - 1);
    CHECK(WAIT_UNTIL(processors_done == count - 1, 60));
    CHECK_EQ(sum, count * (count - 1) / 2);
    CHECK_EQ(together, 10000 * (count - 1));
    for (unsigned i = 1; i < count; i++)
        CHECK_EQ(ids[i], i);
}

static volatile uint32_t stop;

static void answer_interrupts(unsigned number)
{
    CHECK_EQ(number, 1);
    while (!stop)
        halt();
}

/* Interrupts from processor to processor wake one that halts. */
CASE(processors_interrupt)
{
    CHECK_EQ(processors_start(1, answer_interrupts), 1);
    for (unsigned i = 1; i <= 100; i++) {
        mmio_write32(APIC + 0x310, 1u << 24);
        mmio_write32(APIC + 0x300, 0x4000 | IPI_VECTOR);
        if (!WAIT_UNTIL(interrupts[IPI_VECTOR] >= i, 5))
            FAIL("interrupt %u did not come", (uint64_t)i);
    }
    stop = 1;
    mmio_write32(APIC + 0x300, 0x4000 | IPI_VECTOR);
    CHECK(WAIT_UNTIL(processors_done == 1, 5));
}

/* No more than was asked for, and what CPUID tells is what there is. */
CASE(cpuid_truth)
{
    unsigned count = (unsigned)argument("cpus", 1);
    uint32_t r[4];

    cpuid(1, 0, r);
    CHECK_EQ(r[1] >> 24, apic_id());
    CHECK(r[2] & 1u << 31);   /* hypervisor */
    CHECK(!(r[2] & 1u << 5)); /* no VMX: the guest runs no guests */
    cpuid(0x80000001, 0, r);
    CHECK(!(r[2] & 1u << 2)); /* nor SVM */
    cpuid(0x40000000, 0, r);
    CHECK_EQ(r[1], 0x4b4d564b); /* "KVMK": kvm-clock is to be had */
    CHECK_EQ(processors_start(count - 1, count_me), count - 1);
    processor_call(count); /* nobody there */
    spin(SECONDS / 5);
    CHECK_EQ(processors_up, count - 1);
}
