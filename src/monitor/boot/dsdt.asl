/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices that every VM has: the serial port and the keyboard controller,
 * at LAYOUT_SERIAL_* and LAYOUT_I8042_* of monitor/layout.h, and the VM
 * generation id at LAYOUT_GENERATION. Interrupts are in the extended form,
 * which names the IOAPIC's pin: a hardware-reduced machine has no 8259 for the
 * ISA form to mean.
 *
 * The generation id is Microsoft's "Virtual Machine Generation ID" (2012):
 * 16 bytes in guest memory that are others in every clone. A machine without
 * an SCI has no general-purpose events, so that they changed is told by a
 * Generic Event Device (ACPI 6.0, 5.6.9) with a pin of its own.
 */
DefinitionBlock ("", "DSDT", 2, "IRONCL", "MONITOR", 1)
{
    Device (\_SB.COM1)
    {
        Name (_HID, EisaId ("PNP0501"))
        Name (_UID, Zero)
        Name (_CRS, ResourceTemplate ()
        {
            IO (Decode16, 0x03F8, 0x03F8, 1, 8)
            Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 4 }
        })
    }

    Device (\_SB.KBD)
    {
        Name (_HID, EisaId ("PNP0303"))
        Name (_CRS, ResourceTemplate ()
        {
            IO (Decode16, 0x0060, 0x0060, 1, 1)
            IO (Decode16, 0x0064, 0x0064, 1, 1)
            Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 1 }
        })
    }

    Device (\_SB.VGEN)
    {
        Name (_HID, "IRCL0001")
        Name (_CID, "VM_Gen_Counter")
        Name (_DDN, "VM_Gen_Counter")
        Name (ADDR, Package (2) { 0x000E3000, Zero })
    }

    Device (\_SB.GED)
    {
        Name (_HID, "ACPI0013")
        Name (_UID, Zero)
        Name (_CRS, ResourceTemplate ()
        {
            Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 21 }
        })
        Method (_EVT, 1, Serialized)
        {
            If (LEqual (Arg0, 21))
            {
                Notify (\_SB.VGEN, 0x80)
            }
        }
    }
}
