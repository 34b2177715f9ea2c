/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serial console, the keyboard controller and the I/O APIC, to which their
 * interrupts go, under a guest that does what it likes to their registers,
 * while the host types, reads or does not read, and presses Ctrl-Alt-Del. The
 * input is a list of steps.
 *
 * Besides what the sanitizers see: an access fills exactly its bytes, the
 * transmitter is always ready, the keyboard's queue comes to an end, and
 * messages go to local APICs only.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/macro.h"
#include "monitor/bus.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/ioapic.h"
#include "monitor/devices/serial-output.h"
#include "monitor/layout.h"

#define STEPS_MAX  2000
#define FLOOD_MAX  (SERIAL_RING_BYTES * 5u / 4) /* bytes per input: more than the serial console's ring holds */
#define LSR        5u
#define KBD_STATUS 4u
#define KBD_MAX    64u /* more than its queue holds */

static struct loop loop;
static bool ready;
static int typed[2], shown[2];
static uint32_t flooded;
static struct serial *serial;
static struct i8042 *kbd;
static struct ioapic ioapic;
static struct bus_range ranges[3];

static void on_reset(void *userdata)
{
}

static void check_message(void *userdata, uint32_t address, uint32_t data)
{
    FUZZ_CHECK((address & ~0xff004u) == LAYOUT_APIC && data <= 0x7ff);
}

/* Pipes live as long as the process; what is left in them belongs to the next input. */
static void set_up(void)
{
    if (ready)
        return;
    ready = true;
    (void)signal(SIGPIPE, SIG_IGN);
    log_init("fuzz-ports", LOG_ERROR, STDERR_FILENO);
    if (loop_init(&loop) < 0 || pipe2(typed, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(shown, O_CLOEXEC | O_NONBLOCK) < 0 ||
            fcntl(shown[1], F_SETPIPE_SZ, 4096) < 0)
        abort(); /* small, so that the ring behind it gets full */
}

static void drain(int fd)
{
    uint8_t bytes[4096];

    while (read(fd, bytes, sizeof(bytes)) > 0)
        continue;
}

static uint8_t in(const struct bus_range *range, uint64_t offset)
{
    uint8_t value;

    range->read(range->device, offset, &value, 1);
    return value;
}

static void access_ports(struct rd *r, const struct bus_range *range, bool write)
{
    uint8_t bytes[16], shape = rd_u8(r);
    uint32_t len = 1u << (shape & 3);
    uint64_t offset = (shape >> 2) % range->size;

    if (len > range->size - offset) /* the bus sees to that */
        len = 1;
    memset(bytes, 0xc3, sizeof(bytes));
    for (uint32_t i = 0; i < len && write; i++)
        bytes[i] = rd_u8(r);
    if (write)
        range->write(range->device, offset, bytes, len);
    else
        range->read(range->device, offset, bytes, len);
    for (size_t i = len; i < sizeof(bytes); i++)
        FUZZ_CHECK(bytes[i] == 0xc3);
}

static void flood(struct rd *r)
{
    /* Many steps to fill the ring, so that most inputs are quick: 65,535 stands for an eighth of it. */
    uint32_t count = rd_le16(r) / 8u * (SERIAL_RING_BYTES >> 10) / 64u;
    uint8_t byte = rd_u8(r);

    for (uint32_t i = 0; i < count && flooded++ < FLOOD_MAX; i++)
        ranges[0].write(ranges[0].device, 0, &byte, 1);
}

static void step(struct rd *r)
{
    uint8_t op = rd_u8(r) % 12, byte;
    struct irq_line line;

    switch (op) {
    case 0:
    case 1:
        access_ports(r, &ranges[0], op == 1);
        break;
    case 2:
    case 3:
        access_ports(r, &ranges[1], op == 3);
        break;
    case 4:
        (void)loop_once(&loop, 0);
        break;
    case 5:
        byte = rd_u8(r);
        for (unsigned i = 0; i < byte % 40u; i++) {
            if (write(typed[1], &byte, 1) < 0)
                break;
        }
        break;
    case 6:
        i8042_ctrl_alt_del(kbd);
        break;
    case 7:
        drain(shown[0]);
        break;
    case 8:
        flood(r);
        break;
    case 9:
    case 10:
        access_ports(r, &ranges[2], op == 10);
        break;
    default:
        line = ioapic_line(&ioapic, rd_u8(r) % IOAPIC_PINS);
        irq_raise(&line);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rd r = rd_of(data, size);
    struct serial_options options = {.size = sizeof(options), .loop = &loop};
    unsigned keys = 0;

    set_up();
    flooded = 0;
    options.input_fd = typed[0];
    options.output_fd = shown[1];
    ioapic_init(&ioapic, check_message, NULL);
    ranges[2] = ioapic_range(&ioapic);
    options.irq = ioapic_line(&ioapic, LAYOUT_SERIAL_IRQ);
    FUZZ_CHECK(serial_new(&serial, &options, NULL) == 0);
    FUZZ_CHECK(i8042_new(&kbd, ioapic_line(&ioapic, LAYOUT_I8042_IRQ), on_reset, NULL) == 0);
    serial_range(serial, &ranges[0]);
    i8042_range(kbd, &ranges[1]);
    for (int i = 0; i < STEPS_MAX && !r.failed && r.left > 0; i++)
        step(&r);
    FUZZ_CHECK((in(&ranges[0], LSR) >> 5 & 3) == 3);
    while (in(&ranges[1], KBD_STATUS) & 1) {
        FUZZ_CHECK(keys++ < KBD_MAX);
        (void)in(&ranges[1], 0);
    }
    serial_free(serial);
    i8042_free(kbd);
    drain(shown[0]);
    drain(typed[0]);
    return 0;
}
