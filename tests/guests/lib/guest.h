/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a bare-metal guest has: a serial port to talk to its test, ports and
 * MMIO, interrupts, other processors, and a way to end. No SSE, no C library.
 *
 * A guest runs the one case that its command line names ("case=NAME", further
 * words are the case's own) and says on the serial port how that went:
 * "PASS NAME" or "FAIL NAME: where: what"; then it ends the VM by a reset.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guest_case {
    const char *name;
    void (*run)(void);
};
/* CASE(name) { ... } adds a case; returning from it is success. */
#define CASE(name)                                                                                                     \
    static void case_##name(void);                                                                                     \
    static const struct guest_case entry_##name                                                                        \
            __attribute__((section(".cases"), used, aligned(16))) = {#name, case_##name};                              \
    static void case_##name(void)

/* Ends the guest with "FAIL" unless the condition holds. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail(__FILE__, __LINE__, "%s", #condition);                                                                \
    } while (0)
#define CHECK_EQ(value, wanted)                                                                                        \
    do {                                                                                                               \
        uint64_t value_ = (uint64_t)(value), wanted_ = (uint64_t)(wanted);                                             \
        if (value_ != wanted_)                                                                                         \
            fail(__FILE__, __LINE__, "%s is 0x%x and not 0x%x", #value, value_, wanted_);                              \
    } while (0)
#define FAIL(...) fail(__FILE__, __LINE__, __VA_ARGS__)

_Noreturn void fail(const char *file, int line, const char *format, ...);
_Noreturn void guest_exit(void);     /* i8042 reset */
void print(const char *format, ...); /* %s %c %d %u %x (64-bit all) %% */

/* Prints "SYNC what" and waits for one byte from the test. */
uint8_t sync_with_host(const char *what);

/* A number among the words of the command line, "name=123" or "name=0x7b". */
uint64_t argument(const char *name, uint64_t otherwise);
extern char command_line[2048];

/* Memory, as the boot protocol told it. */
struct ram {
    uint64_t start, size;
};
#define MAX_RAM 16
extern struct ram ram[MAX_RAM];
extern unsigned ram_count;
extern bool booted_by_pvh;
extern uint64_t boot_params; /* where start_info or the zero page is */
uint64_t ram_total(void);
uint64_t ram_low_end(void); /* end of the RAM that starts at 1 MiB */
/* Zeroed pages behind the image, never given back. */
void *allocate(uint64_t bytes, uint64_t alignment);

void *memset(void *to, int byte, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
bool equal(const char *a, const char *b);
/* 64-bit words that say where they are; true when they still do. Multiples of 8 bytes. */
void pattern_fill(void *at, size_t bytes, uint64_t seed);
bool pattern_check(const void *at, size_t bytes, uint64_t seed);

/* Time: only to give up, so any TSC will do. */
#define SECONDS 3000000000ull
static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return (uint64_t)hi << 32 | lo;
}
#define WAIT_UNTIL(condition, seconds)                                                                                 \
    ({                                                                                                                 \
        uint64_t end_ = rdtsc() + (seconds)*SECONDS;                                                                   \
        bool met_;                                                                                                     \
        while (!(met_ = (condition)) && rdtsc() < end_)                                                                \
            pause_cpu();                                                                                               \
        met_ || (condition);                                                                                           \
    })
void spin(uint64_t cycles);

static inline void pause_cpu(void)
{
    __asm__ volatile("pause" ::: "memory");
}

/* Ports and MMIO. */
#define PORT_ACCESS(bits, type, suffix, reg)                                                                           \
    static inline type in##bits(uint16_t port)                                                                         \
    {                                                                                                                  \
        type v;                                                                                                        \
        __asm__ volatile("in" suffix " %w1, %0" : "=a"(v) : "Nd"(port) : "memory");                                    \
        return v;                                                                                                      \
    }                                                                                                                  \
    static inline void out##bits(uint16_t port, type v)                                                                \
    {                                                                                                                  \
        __asm__ volatile("out" suffix " %0, %w1" ::"a"(v), "Nd"(port) : "memory");                                     \
    }
PORT_ACCESS(8, uint8_t, "b", al)
PORT_ACCESS(16, uint16_t, "w", ax)
PORT_ACCESS(32, uint32_t, "l", eax)

static inline void outs8(uint16_t port, const void *from, uint64_t count)
{
    __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}

static inline void ins8(uint16_t port, void *to, uint64_t count)
{
    __asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(port) : "memory");
}

/* One move each, of that width and no other. */
#define MMIO_ACCESS(bits, type)                                                                                        \
    static inline type mmio_read##bits(uint64_t at)                                                                    \
    {                                                                                                                  \
        type v;                                                                                                        \
        __asm__ volatile("mov %1, %0" : "=r"(v) : "m"(*(volatile type *)at) : "memory");                               \
        return v;                                                                                                      \
    }                                                                                                                  \
    static inline void mmio_write##bits(uint64_t at, type v)                                                           \
    {                                                                                                                  \
        __asm__ volatile("mov %1, %0" : "=m"(*(volatile type *)at) : "r"(v) : "memory");                               \
    }
MMIO_ACCESS(8, uint8_t)
MMIO_ACCESS(16, uint16_t)
MMIO_ACCESS(32, uint32_t)
MMIO_ACCESS(64, uint64_t)

/* Serial port. */
#define SERIAL 0x3f8u
void serial_put(const char *bytes, size_t n);
bool serial_get(uint8_t *ret, unsigned seconds);

/* Interrupts: the vectors of IOAPIC pins are 0x30 + pin. */
struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, flags, rsp, ss;
};
#define APIC        0xfee00000ull
#define IOAPIC      0xfec00000ull
#define PIN_VECTOR  0x30u
#define IPI_VECTOR  0x60u
#define SPUR_VECTOR 0xffu
extern volatile uint32_t interrupts[256]; /* how often each vector came */
extern void (*volatile handlers[256])(struct frame *frame);
void interrupts_init(void); /* IDT, masks the PIC, enables the local APIC; leaves interrupts off */
void apic_enable(void);     /* on every processor */
uint32_t apic_id(void);
void pin_enable(unsigned pin); /* edge, to this processor */
uint32_t ioapic_read(uint8_t reg);
void ioapic_write(uint8_t reg, uint32_t v);
static inline void interrupts_on(void)
{
    __asm__ volatile("sti" ::: "memory");
}
static inline void interrupts_off(void)
{
    __asm__ volatile("cli" ::: "memory");
}
static inline void halt(void)
{
    __asm__ volatile("sti; hlt; cli" ::: "memory");
}

/* Other processors: start one and have it call fn(number). They run with interrupts off and halt when fn returns. */
unsigned processors_start(unsigned count, void (*fn)(unsigned number));
void processor_call(unsigned number); /* INIT and SIPI for one; the page that it starts in is there */
extern volatile uint32_t processors_up, processors_done;

/* Instructions that may fault; false when they did. */
bool rdmsr_try(uint32_t msr, uint64_t *ret);
bool wrmsr_try(uint32_t msr, uint64_t v);
static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t ret[4])
{
    __asm__ volatile("cpuid" : "=a"(ret[0]), "=b"(ret[1]), "=c"(ret[2]), "=d"(ret[3]) : "a"(leaf), "c"(sub));
}
