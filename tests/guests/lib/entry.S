/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three ways into C: the 64-bit Linux entry (long mode, rsi = zero page), the
 * 32-bit PVH entry (rbx = start_info; only when built with GUEST_PVH), and the
 * start of another processor by SIPI (real mode). All end with the same GDT
 * and the same page tables: 8 GiB, mapped to themselves by 2 MiB pages.
 */
#define CODE64 0x08
#define DATA   0x10
#define CODE32 0x18

#ifdef GUEST_PVH
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY of the PVH boot ABI */
    .asciz "Xen"
    .long pvh_start
#endif

    .text

/* 32-bit protected mode with flat segments -> 64-bit. Clobbers eax, ecx, edx; continues at 1: in 64-bit code. */
.macro enter_long_mode
    movl %cr4, %eax
    orl $0x20, %eax /* PAE */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx /* EFER.LME */
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax
    movl %eax, %cr0
    ljmp $CODE64, $1f
    .code64
1:
.endm

#ifdef GUEST_PVH
    .code32
    .globl pvh_start
pvh_start:
    cli
    cld
    lgdt gdt_pointer
    enter_long_mode
    movl %ebx, %edi
    movl $1, %esi
    jmp enter_c
#endif

    .code64
    .globl start64
start64:
    cli
    cld
    movq %rsi, %rdi
    xorl %esi, %esi
    lgdt gdt_pointer
    movq $pml4, %rax
    movq %rax, %cr3
enter_c:
    movq $boot_stack_top, %rsp
    pushq $CODE64
    pushq $1f
    lretq
1:
    movw $DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %ebp, %ebp
    call guest_main
2:
    cli
    hlt
    jmp 2b

/* Copied to a page below 1 MiB; a SIPI starts it there with cs = page / 16, ip = 0. */
    .code16
    .globl ap_page, ap_page_end
ap_page:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl (gdt_pointer_copy - ap_page)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $CODE32, $ap_start32
    .align 4
gdt_pointer_copy:
    .word gdt_end - gdt - 1
    .long gdt
ap_page_end:

    .code32
ap_start32:
    movw $DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    enter_long_mode
    movl $1, %edi
    lock xaddl %edi, ap_next
    movl %edi, %eax /* its number, from 1 */
    shll $12, %eax
    leaq ap_stacks(%rax), %rsp
    xorl %ebp, %ebp
    call ap_main
3:
    cli
    hlt
    jmp 3b

/* Interrupts: 256 entries of 16 bytes, all to isr() with the same frame. */
    .code64
    .globl isr_entries
    .align 16
isr_entries:
    .set vector, 0
    .rept 256
    .align 16
    .if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21 && vector != 29 && vector != 30
    pushq $0
    .endif
    pushq $vector
    jmp isr_common
    .set vector, vector + 1
    .endr

isr_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    call isr
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

    .data
    .align 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 64-bit code */
    .quad 0x00cf93000000ffff /* data */
    .quad 0x00cf9b000000ffff /* 32-bit code */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
    .align 4
ap_next:
    .long 1

    .align 4096
pml4:
    .quad pdpt + 3
    .fill 511, 8, 0
pdpt:
    .set i, 0
    .rept 8
    .quad pds + i * 4096 + 3
    .set i, i + 1
    .endr
    .fill 504, 8, 0
pds:
    .set i, 0
    .rept 4096
    .quad i * 0x200000 + 0x83
    .set i, i + 1
    .endr

    .bss
    .align 4096
    .skip 16384
boot_stack_top:
ap_stacks: /* the stack of number n ends at ap_stacks + n * 4096 */
    .skip 32 * 4096

    .section .note.GNU-stack, "", @progbits
