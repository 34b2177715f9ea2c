/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts, the APICs, other processors, and instructions that may fault. */
#include "guest.h"

#define AP_PAGE 0x10000u /* where other processors start; free in the layout of every boot protocol here */

extern char isr_entries[], ap_page[], ap_page_end[];

static struct {
    uint16_t offset_low, selector, flags, offset_middle;
    uint32_t offset_high, zero;
} idt[256];

volatile uint32_t interrupts[256];
void (*volatile handlers[256])(struct frame *frame);
volatile uint32_t processors_up, processors_done;
static void (*volatile ap_function)(unsigned number);

/* Set by an instruction that may fault: where to go on when it did. */
static volatile uint64_t fault_continue;
static volatile bool faulted;

void isr(struct frame *frame);
_Noreturn void ap_main(unsigned number);

void isr(struct frame *frame)
{
    uint8_t vector = (uint8_t)frame->vector;

    __atomic_fetch_add(&interrupts[vector], 1, __ATOMIC_SEQ_CST);
    if (vector < 32 && fault_continue) {
        frame->rip = fault_continue;
        fault_continue = 0;
        faulted = true;
        return;
    }
    if (handlers[vector])
        handlers[vector](frame);
    else if (vector < 32)
        FAIL("exception %u, error 0x%x, at 0x%x", (uint64_t)vector, frame->error, frame->rip);
    if (vector >= 32 && vector != SPUR_VECTOR)
        mmio_write32(APIC + 0xb0, 0); /* EOI */
}

static void idt_load(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint64_t)idt};

    __asm__ volatile("lidt %0" ::"m"(pointer));
}

void interrupts_init(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t entry = (uint64_t)isr_entries + 16ull * i;

        idt[i].offset_low = (uint16_t)entry;
        idt[i].selector = 0x08;
        idt[i].flags = 0x8e00;
        idt[i].offset_middle = (uint16_t)(entry >> 16);
    }
    idt_load();
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
    apic_enable();
}

void apic_enable(void)
{
    mmio_write32(APIC + 0x80, 0);                   /* task priority */
    mmio_write32(APIC + 0xf0, 0x100 | SPUR_VECTOR); /* enabled */
}

uint32_t apic_id(void)
{
    return mmio_read32(APIC + 0x20) >> 24;
}

uint32_t ioapic_read(uint8_t reg)
{
    mmio_write32(IOAPIC, reg);
    return mmio_read32(IOAPIC + 0x10);
}

void ioapic_write(uint8_t reg, uint32_t v)
{
    mmio_write32(IOAPIC, reg);
    mmio_write32(IOAPIC + 0x10, v);
}

void pin_enable(unsigned pin)
{
    ioapic_write((uint8_t)(0x11 + 2 * pin), apic_id() << 24);
    ioapic_write((uint8_t)(0x10 + 2 * pin), PIN_VECTOR + pin); /* fixed, physical, edge, active high, unmasked */
}

void ap_main(unsigned number)
{
    idt_load();
    apic_enable();
    __atomic_fetch_add(&processors_up, 1, __ATOMIC_SEQ_CST);
    ap_function(number);
    __atomic_fetch_add(&processors_done, 1, __ATOMIC_SEQ_CST);
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void ipi(uint32_t to, uint32_t command)
{
    mmio_write32(APIC + 0x310, to << 24);
    mmio_write32(APIC + 0x300, command);
    WAIT_UNTIL(!(mmio_read32(APIC + 0x300) & 0x1000), 1);
}

void processor_call(unsigned number)
{
    ipi(number, 0x4500); /* INIT */
    ipi(number, 0x4600 | AP_PAGE >> 12);
}

unsigned processors_start(unsigned count, void (*fn)(unsigned number))
{
    memcpy((void *)(uint64_t)AP_PAGE, ap_page, (size_t)(ap_page_end - ap_page));
    ap_function = fn;
    for (unsigned i = 1; i <= count; i++) {
        processor_call(i);
        if (!WAIT_UNTIL(processors_up >= i, 20))
            return i - 1;
    }
    return count;
}

/* The label's address goes to fault_continue first, so that the fault goes on behind the instruction. */
#define MAY_FAULT "leaq 1f(%%rip), %%r8; movq %%r8, %[go_on]; "

bool rdmsr_try(uint32_t msr, uint64_t *ret)
{
    uint32_t lo = 0, hi = 0;

    faulted = false;
    __asm__ volatile(MAY_FAULT "rdmsr; 1:"
                     : "+a"(lo), "+d"(hi), [go_on] "=m"(fault_continue)
                     : "c"(msr)
                     : "r8", "memory");
    fault_continue = 0;
    *ret = (uint64_t)hi << 32 | lo;
    return !faulted;
}

bool wrmsr_try(uint32_t msr, uint64_t v)
{
    faulted = false;
    __asm__ volatile(MAY_FAULT "wrmsr; 1:"
                     : [go_on] "=m"(fault_continue)
                     : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32))
                     : "r8", "memory");
    fault_continue = 0;
    return !faulted;
}
