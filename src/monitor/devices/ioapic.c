/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/devices/ioapic.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/macro.h"
#include "monitor/layout.h"

/* What is mapped: two windows, 32 bits wide. */
#define PAGE   0x1000u
#define SELECT 0x00u
#define WINDOW 0x10u

/* What SELECT chooses. */
#define REG_ID          0x00u
#define REG_VERSION     0x01u
#define REG_ARBITRATION 0x02u
#define REG_ENTRIES     0x10u /* two for each pin */

#define SELECT_BITS 0x000000ffu
#define ID_BITS     0x0f000000u

/* The low half of an entry; the high half is its destination. */
#define ENTRY_VECTOR    0x000000ffu
#define ENTRY_DELIVERY  0x00000700u
#define ENTRY_LOGICAL   0x00000800u
#define ENTRY_STATUS    0x00001000u /* read-only, as remote IRR: */
#define ENTRY_IRR       0x00004000u
#define ENTRY_MASKED    0x00010000u
#define ENTRY_LOW_BITS  (0x0001ffffu & ~(ENTRY_STATUS | ENTRY_IRR))
#define ENTRY_HIGH_BITS 0xff000000u

/* A message: vector and delivery mode are where an entry has them. */
#define MESSAGE_ADDRESS     LAYOUT_APIC
#define MESSAGE_LOGICAL     0x4u
#define MESSAGE_DESTINATION 12u /* shift */

static uint32_t get(const uint32_t *reg)
{
    return __atomic_load_n(reg, __ATOMIC_SEQ_CST);
}

static void set(uint32_t *reg, uint32_t value)
{
    __atomic_store_n(reg, value, __ATOMIC_SEQ_CST);
}

static void send_entry(const struct ioapic *ioapic, uint32_t low, uint32_t high)
{
    uint32_t address = MESSAGE_ADDRESS | high >> 24 << MESSAGE_DESTINATION;

    if (!(low & ENTRY_MASKED))
        ioapic->send(ioapic->userdata, address | (low & ENTRY_LOGICAL ? MESSAGE_LOGICAL : 0),
                low & (ENTRY_VECTOR | ENTRY_DELIVERY));
}

/* Twice when the driver changes the pin meanwhile: the second time it goes where the driver now waits for it. One too
 * many does no harm. */
static void raise_pin(void *userdata, uint32_t pin)
{
    struct ioapic *ioapic = userdata;
    uint32_t *entry = ioapic->entries[pin], low = get(&entry[0]), high = get(&entry[1]);

    send_entry(ioapic, low, high);
    if (get(&entry[0]) != low || get(&entry[1]) != high)
        send_entry(ioapic, get(&entry[0]), get(&entry[1]));
}

/* The register that is selected, or NULL: not one that keeps what is written. */
static uint32_t *selected(struct ioapic *ioapic, uint32_t *ret_bits)
{
    uint32_t reg = get(&ioapic->select), at = reg - REG_ENTRIES;

    if (reg == REG_ID) {
        *ret_bits = ID_BITS;
        return &ioapic->id;
    }
    if (reg < REG_ENTRIES || at / 2 >= IOAPIC_PINS)
        return NULL;
    *ret_bits = at % 2 == 0 ? ENTRY_LOW_BITS : ENTRY_HIGH_BITS;
    return &ioapic->entries[at / 2][at % 2];
}

static void ioapic_read(void *device, uint64_t offset, uint8_t *data, uint32_t len)
{
    struct ioapic *ioapic = device;
    uint32_t value = 0, unused, *reg = selected(ioapic, &unused);

    if (offset == SELECT)
        value = get(&ioapic->select);
    else if (offset == WINDOW && reg)
        value = get(reg);
    else if (offset == WINDOW && get(&ioapic->select) == REG_VERSION)
        value = IOAPIC_VERSION | (IOAPIC_PINS - 1) << 16;
    else if (offset == WINDOW && get(&ioapic->select) == REG_ARBITRATION)
        value = get(&ioapic->id);
    memset(data, 0, len);
    memcpy(data, &value, MIN(len, (uint32_t)sizeof(value)));
}

/* Whole registers only; anything else is ignored. */
static void ioapic_write(void *device, uint64_t offset, const uint8_t *data, uint32_t len)
{
    struct ioapic *ioapic = device;
    uint32_t value, bits = 0, *reg = selected(ioapic, &bits);

    if (len != sizeof(value))
        return;
    memcpy(&value, data, sizeof(value));
    if (offset == SELECT)
        set(&ioapic->select, value & SELECT_BITS);
    else if (offset == WINDOW && reg)
        set(reg, value & bits);
}

void ioapic_init(struct ioapic *ioapic, void (*send)(void *userdata, uint32_t address, uint32_t data), void *userdata)
{
    *ioapic = (struct ioapic){.send = send, .userdata = userdata};
    for (unsigned i = 0; i < IOAPIC_PINS; i++)
        ioapic->entries[i][0] = ENTRY_MASKED;
}

struct irq_line ioapic_line(struct ioapic *ioapic, uint32_t pin)
{
    assert(pin < IOAPIC_PINS);
    return (struct irq_line){.raise = raise_pin, .userdata = ioapic, .pin = pin};
}

struct bus_range ioapic_range(struct ioapic *ioapic)
{
    return (struct bus_range){
            .base = LAYOUT_IOAPIC, .size = PAGE, .read = ioapic_read, .write = ioapic_write, .device = ioapic};
}

void ioapic_save(const struct ioapic *ioapic, struct buf *buf)
{
    buf_put_le32(buf, get(&ioapic->select));
    buf_put_le32(buf, get(&ioapic->id));
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        buf_put_le32(buf, get(&ioapic->entries[i][0]));
        buf_put_le32(buf, get(&ioapic->entries[i][1]));
    }
}

int ioapic_load(struct ioapic *ioapic, struct rd *rd, struct vm_error *error)
{
    struct ioapic to = *ioapic;
    uint32_t wrong;

    to.select = rd_le32(rd);
    to.id = rd_le32(rd);
    wrong = (to.select & ~SELECT_BITS) | (to.id & ~ID_BITS);
    for (unsigned i = 0; i < IOAPIC_PINS; i++) {
        to.entries[i][0] = rd_le32(rd);
        to.entries[i][1] = rd_le32(rd);
        wrong |= (to.entries[i][0] & ~ENTRY_LOW_BITS) | (to.entries[i][1] & ~ENTRY_HIGH_BITS);
    }
    if (rd->failed)
        return -EBADMSG;
    if (wrong)
        return vm_fail(error, -EBADMSG, "I/O APIC: registers that it can't have");
    *ioapic = to;
    return 0;
}
