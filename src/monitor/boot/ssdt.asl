/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtio-mmio device. acpi.c takes the code after the table's header as a
 * mould: it is copied once for each device that exists, and the values below
 * that no real device has are replaced (each occurs once and has a fixed
 * width, so no length inside the code changes).
 */
DefinitionBlock ("", "SSDT", 2, "IRONCL", "VIRTIO", 1)
{
    Device (\_SB.VXXX)
    {
        Name (_HID, "LNRO0005")
        Name (_UID, 0xA0A1A2A3)
        Name (_CCA, One)
        Name (_CRS, ResourceTemplate ()
        {
            Memory32Fixed (ReadWrite, 0xB0B1B2B3, 0xC0C1C2C3)
            Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 0xD0D1D2D3 }
        })
    }
}
