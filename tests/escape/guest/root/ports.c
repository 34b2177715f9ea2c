/* SPDX-License-Identifier: Apache-2.0 */
/* I/O ports: noise on all but those that end the guest, QEMU's fw_cfg, the serial port, and then those that end it. */
#include "root.h"

#include <fcntl.h>
#include <string.h>
#include <sys/io.h>
#include <sys/reboot.h>
#include <termios.h>
#include <unistd.h>

#define GROUP      "ports"
#define FW_CFG     0x510u
#define FW_CFG_DMA 0x514u
#define COM1       0x3f8u

static void open_ports(void)
{
    if (iopl(3) < 0)
        fail("the kernel refuses iopl()");
}

/* These end the guest, or its clock, or its console; they have attempts of their own. */
static bool left_out(uint16_t port)
{
    return (port >= COM1 && port < COM1 + 8) || port == 0x20 || port == 0x21 || port == 0xa0 || port == 0xa1 ||
           (port >= 0x40 && port < 0x44) || port == 0x4d0 || port == 0x4d1 || port == 0x61 || port == 0x64 ||
           port == 0x92 || port == 0xcf9 || (port >= FW_CFG && port < FW_CFG + 12) || (port & ~7u) == 0x600;
}

static void poke(uint16_t port, unsigned width, uint32_t v)
{
    switch (width) {
    case 1:
        outb((uint8_t)v, port);
        inb(port);
        break;
    case 2:
        outw((uint16_t)v, port);
        inw(port);
        break;
    default:
        outl(v, port);
        inl(port);
    }
}

static void noise(uint32_t first, uint32_t count, unsigned width)
{
    if (!try(GROUP, "%x to %x, %u bytes wide", first, first + count - 1, width))
        return;
    for (uint32_t port = first; port < first + count && port + width <= 1u << 16; port++) {
        bool out = false;

        /* A wide access reaches the ports behind it. */
        for (uint32_t i = 0; i < width; i++)
            out |= left_out((uint16_t)(port + i));
        if (!out)
            poke((uint16_t)port, width, random32());
    }
    did(BY_SILENCE);
}

static void strings(void)
{
    static const uint16_t ports[] = {0x60, 0x70, 0x80, 0x2f8, 0xcf8, 0xcfc, 0xb2, 0xfff0};
    struct page page = page_new();

    if (!try(GROUP, "string instructions"))
        return;
    for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
        outsb(ports[i], page.at, PAGE);
        insb(ports[i], page.at, PAGE);
        outsl(ports[i], page.at, PAGE / 4);
        insl(ports[i], page.at, PAGE / 4);
    }
    did(BY_SILENCE);
}

/* QEMU's own description of the machine, which can write to guest memory by itself (QEMU docs/specs/fw_cfg). */
static bool fw_cfg_is_there(void)
{
    char magic[4];

    outw(0, FW_CFG);
    for (size_t i = 0; i < sizeof(magic); i++)
        magic[i] = (char)inb(FW_CFG + 1);
    return memcmp(magic, "QEMU", sizeof(magic)) == 0;
}

static void fw_cfg(bool there)
{
    static const struct {
        const char *name;
        uint32_t control, length;
        int64_t address;
        bool from_end;
    } transfers[] = {
            {"read to beyond RAM", 0x2, 4096, 1 << 20, true},
            {"read across the end of RAM", 0x2, 4096, -16, true},
            {"read over 2^64", 0x2, 64, -16, false},
            {"write", 0x10, 4096, 0, false},
            {"write of an item that is not there", 0x7fff0018, 16, 0, false},
            {"skip of 2^32-1", 0x4, UINT32_MAX, 0, false},
            {"all commands at once", 0xffffffff, 16, -16, true},
    };
    struct page page = page_new();

    for (size_t i = 0; i < ARRAY_SIZE(transfers); i++) {
        volatile uint32_t *command = (volatile uint32_t *)page.at;
        uint64_t to = (transfers[i].from_end ? ram_end() : 0) + (uint64_t)transfers[i].address;

        if (!there) {
            not_made("fw_cfg", transfers[i].name, "this machine has none");
            continue;
        }
        if (!try("fw_cfg", "%s", transfers[i].name))
            continue;
        command[0] = __builtin_bswap32(transfers[i].control);
        command[1] = __builtin_bswap32(transfers[i].length);
        command[2] = __builtin_bswap32((uint32_t)(to >> 32));
        command[3] = __builtin_bswap32((uint32_t)to);
        outl(__builtin_bswap32((uint32_t)(page.gpa >> 32)), FW_CFG_DMA);
        outl(__builtin_bswap32((uint32_t)page.gpa), FW_CFG_DMA + 4);
        did(command[0] & __builtin_bswap32(1) ? BY_REFUSAL : BY_ANSWER);
    }
}

static void fw_cfg_command_outside(bool there)
{
    static const uint64_t places[] = {1ull << 40, UINT64_MAX - 7, 0xfec00000};

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        if (!there) {
            not_made("fw_cfg", "its command outside of RAM", "this machine has none");
            continue;
        }
        if (!try("fw_cfg", "its command at %llx", (unsigned long long)places[i]))
            continue;
        outl(__builtin_bswap32((uint32_t)(places[i] >> 32)), FW_CFG_DMA);
        outl(__builtin_bswap32((uint32_t)places[i]), FW_CFG_DMA + 4);
        did(BY_SILENCE);
    }
}

void attack_ports(void)
{
    open_ports();
    for (unsigned width = 1; width <= 4; width *= 2) {
        for (uint32_t port = 0; port < 0x1000; port += 0x100)
            noise(port, 0x100, width);
        noise(0x1000, 0xf000, width);
    }
    strings();
    fw_cfg(fw_cfg_is_there());
    fw_cfg_command_outside(fw_cfg_is_there());
}

/* The registers in any order; then the console as it was, for the next lines. */
/* What the noise sends in a loop comes back to the terminal, whose echo would get into what we say. */
static void no_echo(void)
{
    struct termios t;
    int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (tcgetattr(fd, &t) == 0) {
        t.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG);
        (void)tcsetattr(fd, TCSANOW, &t);
    }
    close(fd);
}

static void serial_noise(void)
{
    uint8_t before[8];

    if (!try("serial port", "noise in all registers"))
        return;
    no_echo();
    for (unsigned i = 0; i < 8; i++)
        before[i] = inb((uint16_t)(COM1 + i));
    for (unsigned i = 0; i < 20000; i++) {
        outb((uint8_t)random32(), (uint16_t)(COM1 + random32() % 8));
        inb((uint16_t)(COM1 + random32() % 8));
    }
    outb(0, COM1 + 1);
    outb(3, COM1 + 3);
    outb(7, COM1 + 2);
    outb(before[4], COM1 + 4);
    outb(before[1], COM1 + 1);
    did(BY_SILENCE);
}

void attack_serial(void)
{
    open_ports();
    serial_noise();
    if (!try("serial port", "a flood of bytes"))
        return;
    for (uint64_t end = now_us() + 6000000; now_us() < end;) {
        for (unsigned i = 0; i < 4096; i++)
            outb(i % 80 ? (uint8_t)('!' + i % 80) : '\n', COM1);
    }
    did(BY_LIMIT);
}

static void acpi_register(uint64_t at, uint8_t value)
{
    volatile uint8_t *r = map_registers(at);

    if (r)
        *r = value;
}

static void write_sysrq(char command)
{
    int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, &command, 1) != 1)
        fail("/proc/sysrq-trigger");
}

bool attack_reset(const char *how)
{
    static const char *const ways[] = {
            "i8042", "port92", "cf9", "acpi-reset", "acpi-off", "reboot", "power-off", "panic"};
    size_t way = 0;

    while (way < ARRAY_SIZE(ways) && strcmp(ways[way], how) != 0)
        way++;
    if (way == ARRAY_SIZE(ways))
        return false;
    open_ports();
    if (!try("ends", "%s", how))
        return true;
    switch (way) {
    case 0:
        outb(0xfe, 0x64);
        break;
    case 1:
        outb(1, 0x92);
        break;
    case 2:
        outb(2, 0xcf9);
        outb(6, 0xcf9);
        break;
    case 3:
        acpi_register(0xfea00202, 0x42); /* of QEMU's microvm */
        break;
    case 4:
        acpi_register(0xfea00200, 5 << 2 | 0x20);
        break;
    case 5:
        reboot(RB_AUTOBOOT);
        break;
    case 6:
        reboot(RB_POWER_OFF);
        break;
    default:
        write_sysrq('c');
    }
    sleep(1);
    did(BY_SILENCE);
    return true;
}
