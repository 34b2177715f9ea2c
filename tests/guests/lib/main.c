/* SPDX-License-Identifier: Apache-2.0 */
/* From the boot protocol to the case, and what every case may call. */
#include <stdarg.h>

#include "guest.h"

extern const struct guest_case cases_start[], cases_end[];
extern char image_end[];

char command_line[2048];
struct ram ram[MAX_RAM];
unsigned ram_count;
bool booted_by_pvh;
uint64_t boot_params;
static const char *case_name = "none";
static uint64_t heap;

void *memset(void *to, int byte, size_t n)
{
    void *p = to;

    __asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *p = to;

    __asm__ volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n)::"memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;

    for (; n; n--, x++, y++) {
        if (*x != *y)
            return *x - *y;
    }
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

bool equal(const char *a, const char *b)
{
    return strlen(a) == strlen(b) && memcmp(a, b, strlen(a)) == 0;
}

void pattern_fill(void *at, size_t bytes, uint64_t seed)
{
    uint64_t *words = at;

    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = seed + i;
}

bool pattern_check(const void *at, size_t bytes, uint64_t seed)
{
    const uint64_t *words = at;

    for (size_t i = 0; i < bytes / 8; i++) {
        if (words[i] != seed + i)
            return false;
    }
    return true;
}

void spin(uint64_t cycles)
{
    uint64_t end = rdtsc() + cycles;

    while (rdtsc() < end)
        pause_cpu();
}

void serial_put(const char *bytes, size_t n)
{
    for (; n; n--, bytes++) {
        for (unsigned i = 0; i < 100000 && !(in8(SERIAL + 5) & 0x20); i++)
            pause_cpu();
        out8(SERIAL, (uint8_t)*bytes);
    }
}

bool serial_get(uint8_t *ret, unsigned seconds)
{
    if (!WAIT_UNTIL(in8(SERIAL + 5) & 1, seconds))
        return false;
    *ret = in8(SERIAL);
    return true;
}

static void print_number(uint64_t v, unsigned base)
{
    char digits[24];
    size_t at = sizeof(digits);

    do {
        digits[--at] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    serial_put(digits + at, sizeof(digits) - at);
}

static void vprint(const char *format, va_list args)
{
    for (; *format; format++) {
        const char *s;
        int64_t d;
        char c;

        if (*format != '%') {
            serial_put(format, 1);
            continue;
        }
        switch (*++format) {
        case 's':
            s = va_arg(args, const char *);
            serial_put(s, strlen(s));
            break;
        case 'c':
            c = (char)va_arg(args, int);
            serial_put(&c, 1);
            break;
        case 'd':
            d = va_arg(args, int64_t);
            if (d < 0)
                serial_put("-", 1);
            print_number(d < 0 ? -(uint64_t)d : (uint64_t)d, 10);
            break;
        case 'u':
            print_number(va_arg(args, uint64_t), 10);
            break;
        case 'x':
            print_number(va_arg(args, uint64_t), 16);
            break;
        default:
            serial_put(format, 1);
            break;
        }
    }
}

void print(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprint(format, args);
    va_end(args);
}

void guest_exit(void)
{
    out8(0x64, 0xfe);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    const char *slash = file;

    for (const char *p = file; *p; p++) {
        if (*p == '/')
            slash = p + 1;
    }
    print("FAIL %s: %s:%d: ", case_name, slash, (int64_t)line);
    va_start(args, format);
    vprint(format, args);
    va_end(args);
    print("\n");
    guest_exit();
}

uint8_t sync_with_host(const char *what)
{
    uint8_t byte = 0;

    print("SYNC %s\n", what);
    if (!serial_get(&byte, 30))
        FAIL("no answer to SYNC %s", what);
    return byte;
}

/* The text behind "name=" in the command line, or NULL. */
static const char *word(const char *name)
{
    size_t n = strlen(name);

    for (const char *p = command_line; *p; p++) {
        if ((p == command_line || p[-1] == ' ') && memcmp(p, name, n) == 0 && p[n] == '=')
            return p + n + 1;
    }
    return NULL;
}

uint64_t argument(const char *name, uint64_t otherwise)
{
    const char *p = word(name);
    uint64_t v = 0;
    unsigned base = 10;

    if (!p)
        return otherwise;
    if (p[0] == '0' && p[1] == 'x') {
        base = 16;
        p += 2;
    }
    for (; (*p >= '0' && *p <= '9') || (base == 16 && *p >= 'a' && *p <= 'f'); p++)
        v = v * base + (unsigned)(*p >= 'a' ? *p - 'a' + 10 : *p - '0');
    return v;
}

static void add_ram(uint64_t start, uint64_t size, uint32_t type)
{
    if (type == 1 && ram_count < MAX_RAM)
        ram[ram_count++] = (struct ram){start, size};
}

uint64_t ram_total(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < ram_count; i++)
        sum += ram[i].size;
    return sum;
}

uint64_t ram_low_end(void)
{
    for (unsigned i = 0; i < ram_count; i++) {
        if (ram[i].start <= 0x100000 && ram[i].start + ram[i].size > 0x100000)
            return ram[i].start + ram[i].size;
    }
    FAIL("no RAM at 1 MiB");
}

void *allocate(uint64_t bytes, uint64_t alignment)
{
    uint64_t at = (heap + alignment - 1) & ~(alignment - 1);

    if (at + bytes > ram_low_end())
        FAIL("out of memory");
    heap = at + bytes;
    return memset((void *)at, 0, bytes);
}

/* hvm_start_info and its memory map, version 1 (Xen's PVH boot ABI). */
static void read_start_info(uint64_t at)
{
    const uint8_t *info = (const uint8_t *)at;
    uint64_t cmdline = *(const uint64_t *)(info + 24), map = *(const uint64_t *)(info + 40);
    uint32_t count = *(const uint32_t *)(info + 48);

    if (*(const uint32_t *)info != 0x336ec578)
        FAIL("start_info has magic 0x%x", (uint64_t) * (const uint32_t *)info);
    if (cmdline)
        memcpy(command_line, (const void *)cmdline, sizeof(command_line) - 1);
    for (uint32_t i = 0; i < count; i++, map += 24)
        add_ram(*(const uint64_t *)map, *(const uint64_t *)(map + 8), *(const uint32_t *)(map + 16));
}

/* The zero page: e820_entries at 0x1e8, cmd_line_ptr at 0x228, the map at 0x2d0 (Linux boot protocol 2.15). */
static void read_zero_page(uint64_t at)
{
    uint32_t cmdline = *(const uint32_t *)(at + 0x228);
    unsigned count = *(const uint8_t *)(at + 0x1e8);

    if (cmdline)
        memcpy(command_line, (const void *)(uint64_t)cmdline, sizeof(command_line) - 1);
    for (unsigned i = 0; i < count; i++) {
        uint64_t entry = at + 0x2d0 + 20ull * i;

        add_ram(*(const uint64_t *)entry, *(const uint64_t *)(entry + 8), *(const uint32_t *)(entry + 16));
    }
}

_Noreturn void guest_main(uint64_t params, uint64_t pvh);

void guest_main(uint64_t params, uint64_t pvh)
{
    const char *wanted;

    booted_by_pvh = pvh != 0;
    boot_params = params;
    out8(SERIAL + 1, 0); /* no interrupts; FIFOs on */
    out8(SERIAL + 2, 7);
    interrupts_init();
    if (booted_by_pvh)
        read_start_info(params);
    else
        read_zero_page(params);
    heap = (uint64_t)image_end;

    wanted = word("case");
    if (!wanted)
        FAIL("no case= in the command line '%s'", command_line);
    for (const struct guest_case *c = cases_start; c < cases_end; c++) {
        size_t n = strlen(c->name);

        if (memcmp(wanted, c->name, n) != 0 || (wanted[n] && wanted[n] != ' '))
            continue;
        case_name = c->name;
        c->run();
        print("PASS %s\n", case_name);
        guest_exit();
    }
    FAIL("no such case: '%s'", wanted);
}
