/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keyboard controller (IBM PS/2 Technical Reference, "Keyboard and Auxiliary
 * Device Controller") with a keyboard that answers its commands and has three
 * keys, and no mouse. It is there for two things: a guest resets the machine
 * through it, and the host's Ctrl-Alt-Del comes through it.
 *
 * Whatever the guest does not answer or read in time fits in one small queue,
 * or is lost. Everything is answered at once, since drivers wait up to half a
 * second for each answer that does not come.
 */
#include "monitor/devices/devices.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/fd.h"
#include "monitor/bus.h"
#include "monitor/layout.h"

#define PORTS       5u
#define PORT_DATA   0u
#define PORT_B      1u /* 0x61: speaker and timer; its bit 5 is waited for when the TSC is calibrated by it */
#define PORT_STATUS 4u /* read: status; written: command */
#define PORT_B_OUT2 0x20u

#define STATUS_OUTPUT_FULL 0x01u
#define STATUS_SYSTEM      0x04u
#define STATUS_UNLOCKED    0x10u

#define CTR_INTERRUPT 0x01u /* the command byte */
#define CTR_SYSTEM    0x04u
#define CTR_DISABLED  0x10u
#define CTR_TRANSLATE 0x40u /* scan code set 2 to set 1 */

#define OUTPUT_PORT    0x03u /* not in reset, A20 open */
#define OUTPUT_RUNNING 0x01u
#define KEYBOARD_ACK   0xfau
#define QUEUE_BYTES    32u

struct i8042 {
    pthread_mutex_t lock;
    struct irq_line irq;
    void (*on_reset)(void *userdata);
    void *userdata;
    uint8_t ctr, command; /* command: the last one, 0 after its data byte */
    uint8_t queue[QUEUE_BYTES];
    unsigned first, len;
};

static void put(struct i8042 *k, uint8_t byte)
{
    if (k->len < QUEUE_BYTES)
        k->queue[(k->first + k->len++) % QUEUE_BYTES] = byte;
}

static uint8_t take(struct i8042 *k)
{
    uint8_t byte = k->queue[k->first];

    if (k->len == 0)
        return 0;
    k->first = (k->first + 1) % QUEUE_BYTES;
    k->len--;
    return byte;
}

/* What the controller says to a command at once, or -1. */
static int answer(struct i8042 *k, uint8_t command)
{
    switch (command) {
    case 0x20: /* read the command byte */
        return k->ctr;
    case 0xa9: /* test the mouse's port: its clock is stuck */
        return 0x01;
    case 0xaa: /* self-test */
        k->len = 0;
        return 0x55;
    case 0xab: /* test the keyboard's port */
        return 0x00;
    case 0xd0:
        return OUTPUT_PORT;
    default:
        return -1;
    }
}

static void write_command(struct i8042 *k, uint8_t command, bool *ret_reset)
{
    int byte = answer(k, command);

    if (byte >= 0)
        put(k, (uint8_t)byte);
    else if (command == 0xad)
        k->ctr |= CTR_DISABLED;
    else if (command == 0xae)
        k->ctr &= (uint8_t)~CTR_DISABLED;
    else if (command == 0xfe) /* pulse the reset line */
        *ret_reset = true;
    k->command = command; /* for the data byte that some have */
}

static void write_keyboard(struct i8042 *k, uint8_t byte)
{
    put(k, byte == 0xee ? byte : KEYBOARD_ACK); /* echo */
    if (byte == 0xff) {                         /* reset: self-test passed */
        put(k, 0xaa);
    } else if (byte == 0xf2) { /* identify: MF2 */
        put(k, 0xab);
        put(k, k->ctr & CTR_TRANSLATE ? 0x41 : 0x83);
    }
}

static void write_data(struct i8042 *k, uint8_t byte, bool *ret_reset)
{
    switch (k->command) {
    case 0x60: /* write the command byte */
        k->ctr = byte;
        break;
    case 0xd1: /* write the output port */
        *ret_reset = !(byte & OUTPUT_RUNNING);
        break;
    case 0xd3: /* loop through the mouse's port, which isn't there */
        put(k, 0xff);
        break;
    case 0xd4: /* to the mouse */
        break;
    default:
        write_keyboard(k, byte);
    }
    k->command = 0;
}

/* The interrupt is an edge for each byte, so also for the next one when one was read. Unlocks. */
static void unlock_and_raise(struct i8042 *k, bool changed)
{
    bool raise = changed && k->len > 0 && (k->ctr & CTR_INTERRUPT);

    pthread_mutex_unlock(&k->lock);
    if (raise)
        irq_raise(&k->irq);
}

static void i8042_read(void *device, uint64_t offset, uint8_t *data, uint32_t len)
{
    struct i8042 *k = device;
    bool taken = false;

    pthread_mutex_lock(&k->lock);
    for (uint32_t i = 0; i < len; i++) {
        uint64_t port = offset + i;

        if (port == PORT_DATA) {
            data[i] = take(k);
            taken = true;
        } else if (port == PORT_STATUS) {
            data[i] = STATUS_UNLOCKED | (k->ctr & STATUS_SYSTEM) | (k->len > 0 ? STATUS_OUTPUT_FULL : 0);
        } else {
            data[i] = port == PORT_B ? PORT_B_OUT2 : 0;
        }
    }
    unlock_and_raise(k, taken);
}

static void i8042_write(void *device, uint64_t offset, const uint8_t *data, uint32_t len)
{
    struct i8042 *k = device;
    bool reset = false, written = false;

    pthread_mutex_lock(&k->lock);
    for (uint32_t i = 0; i < len; i++) {
        if (offset + i == PORT_DATA)
            write_data(k, data[i], &reset);
        else if (offset + i == PORT_STATUS)
            write_command(k, data[i], &reset);
        written |= offset + i == PORT_DATA || offset + i == PORT_STATUS;
    }
    unlock_and_raise(k, written);
    if (reset)
        k->on_reset(k->userdata);
}

/* Make and break of left Ctrl, left Alt and Delete. All or nothing: half of it would leave keys pressed. */
void i8042_ctrl_alt_del(struct i8042 *k)
{
    static const uint8_t set1[] = {0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d};
    static const uint8_t set2[] = {0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14};
    bool translate, fits;
    size_t len;

    pthread_mutex_lock(&k->lock);
    translate = (k->ctr & CTR_TRANSLATE) != 0;
    len = translate ? sizeof(set1) : sizeof(set2);
    fits = len <= QUEUE_BYTES - k->len;
    for (size_t i = 0; fits && i < len; i++)
        put(k, translate ? set1[i] : set2[i]);
    unlock_and_raise(k, fits);
}

int i8042_new(struct i8042 **ret, struct irq_line irq, void (*on_reset)(void *userdata), void *userdata)
{
    struct i8042 *k = calloc(1, sizeof(*k));

    if (!k)
        return -ENOMEM;
    pthread_mutex_init(&k->lock, NULL);
    k->irq = irq;
    k->on_reset = on_reset;
    k->userdata = userdata;
    k->ctr = CTR_SYSTEM | CTR_TRANSLATE; /* as firmware leaves it, but without interrupts */
    *ret = k;
    return 0;
}

void i8042_free(struct i8042 *k)
{
    if (!k)
        return;
    pthread_mutex_destroy(&k->lock);
    free(k);
}

void i8042_range(struct i8042 *k, struct bus_range *ret)
{
    *ret = (struct bus_range){
            .base = LAYOUT_I8042_PORT, .size = PORTS, .read = i8042_read, .write = i8042_write, .device = k};
}

void i8042_save(struct i8042 *k, struct buf *buf)
{
    uint8_t bytes[QUEUE_BYTES] = {0};

    pthread_mutex_lock(&k->lock);
    for (unsigned i = 0; i < k->len; i++)
        bytes[i] = k->queue[(k->first + i) % QUEUE_BYTES];
    buf_put_u8(buf, k->ctr);
    buf_put_u8(buf, k->command);
    buf_put_u8(buf, (uint8_t)k->len);
    buf_put(buf, bytes, sizeof(bytes));
    pthread_mutex_unlock(&k->lock);
}

int i8042_load(struct i8042 *k, struct rd *rd, struct vm_error *error)
{
    uint8_t ctr = rd_u8(rd), command = rd_u8(rd), len = rd_u8(rd);
    const uint8_t *bytes = rd_bytes(rd, QUEUE_BYTES);

    if (!bytes)
        return -EBADMSG;
    if (len > QUEUE_BYTES)
        return vm_fail(error, -EBADMSG, "keyboard controller: %u bytes wait, %u are possible", len, QUEUE_BYTES);
    pthread_mutex_lock(&k->lock);
    k->ctr = ctr;
    k->command = command;
    memcpy(k->queue, bytes, QUEUE_BYTES);
    k->first = 0;
    k->len = len;
    pthread_mutex_unlock(&k->lock);
    return 0;
}
