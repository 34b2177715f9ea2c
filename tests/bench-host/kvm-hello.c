/* SPDX-License-Identifier: Apache-2.0 */
/* A guest of three instructions: whether KVM runs one at all. Prints the byte that it sent, "K". */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define LOAD 0x1000

int main(void)
{
    /* mov al, 'K'; out 0xe9, al; hlt */
    static const unsigned char code[] = {0xb0, 'K', 0xe6, 0xe9, 0xf4};
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    int vcpu = vm < 0 ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
    struct kvm_userspace_memory_region region = {.guest_phys_addr = LOAD, .memory_size = 4096};
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = LOAD, .rflags = 2};
    struct kvm_run *run;
    char *memory;

    if (vcpu < 0)
        err(1, "/dev/kvm");
    memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    run = mmap(NULL, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (memory == MAP_FAILED || run == MAP_FAILED)
        err(1, "mmap");
    memcpy(memory, code, sizeof(code));
    region.userspace_addr = (__u64)memory;
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 || ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
        err(1, "memory");
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
        err(1, "registers");
    if (ioctl(vcpu, KVM_RUN, 0) < 0 || run->exit_reason != KVM_EXIT_IO)
        errx(1, "exit reason %u", run->exit_reason);
    printf("%c\n", *((char *)run + run->io.data_offset));
    if (ioctl(vcpu, KVM_RUN, 0) < 0 || run->exit_reason != KVM_EXIT_HLT)
        errx(1, "exit reason %u", run->exit_reason);
    return 0;
}
