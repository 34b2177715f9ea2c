/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices that every VM has: the serial port and the keyboard controller,
 * at LAYOUT_SERIAL_* and LAYOUT_I8042_* of monitor/layout.h. Interrupts are in
 * the extended form, which names the IOAPIC's pin: a hardware-reduced machine
 * has no 8259 for the ISA form to mean.
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
}
