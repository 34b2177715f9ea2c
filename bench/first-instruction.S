/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel whose first instructions write "~~~" to the serial port, for the time from a monitor's start to the guest's
 * first instruction. An ELF file with the PVH entry point (32-bit protected mode, no paging), which our monitor,
 * Firecracker and QEMU load alike. gcc -nostdlib -static -Wl,-n,-Ttext=0x100000
 */
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 8, 18 /* sizes of name and value; XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h) */
    .asciz "Xen"
    .quad _start

    .text
    .code32
    .globl _start
_start:
    movl $0x3f8, %edx
    movb $'~', %al
    outb %al, %dx
    outb %al, %dx
    outb %al, %dx
stop:
    cli
    hlt
    jmp stop

    .section .note.GNU-stack, "", @progbits
