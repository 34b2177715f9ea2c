/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O APIC (Intel 82093AA data sheet): from a device's line to the message that
 * a local APIC takes. The local APICs are KVM's, this is ours: KVM's own comes
 * with two 8259s and an 8254, some 2,000 lines of the host's kernel that a
 * guest could talk to and none here needs, and which are slow to make and to
 * unmake.
 *
 * All lines are edges, as the tables of boot/ say: a pin that is set to levels
 * sends its message at each raise, too, and has no remote IRR. As in hardware,
 * an edge is lost while its pin is masked: drivers look at their device after
 * they have unmasked.
 *
 * Registers are atomics: vCPUs write them while any thread raises a line. What
 * is raised during a change may be sent twice, before and after it, and once
 * with halves of both.
 */
#pragma once

#include "base/buf.h"
#include "monitor/bus.h"
#include "monitor/devices/irq.h"
#include "monitor/vm-config.h"

#define IOAPIC_PINS    24u
#define IOAPIC_VERSION 0x11u /* of 82093AA: without an EOI register */

struct ioapic {
    /* A write of `data` to `address`, as PCI's MSI (Intel SDM volume 3, Message Signalled Interrupts). On any thread;
     * does not wait. */
    void (*send)(void *userdata, uint32_t address, uint32_t data);
    void *userdata;
    uint32_t select, id;              /* registers as written, both */
    uint32_t entries[IOAPIC_PINS][2]; /* low, high */
};

/* As after a reset: all pins masked. */
void ioapic_init(struct ioapic *ioapic, void (*send)(void *userdata, uint32_t address, uint32_t data), void *userdata);
/* `pin` < IOAPIC_PINS. The line lives as long as the I/O APIC. */
struct irq_line ioapic_line(struct ioapic *ioapic, uint32_t pin);
struct bus_range ioapic_range(struct ioapic *ioapic);

/* The part "ioapic" of a snapshot: u32 select, id; for each pin u64. While no vCPU runs. -EBADMSG: no guest could have
 * made that. */
void ioapic_save(const struct ioapic *ioapic, struct buf *buf);
int ioapic_load(struct ioapic *ioapic, struct rd *rd, struct vm_error *error);
