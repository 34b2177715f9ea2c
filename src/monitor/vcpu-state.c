/* SPDX-License-Identifier: Apache-2.0 */
/* Linux boot protocol 2.15 §1.14 (64-bit entry), Xen's PVH start-of-day state, Intel SDM volume 3. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "monitor/cpuid-filter.h"
#include "monitor/layout.h"
#include "monitor/snapshot/kvm-state.h"
#include "monitor/vcpu.h"

#define CR0_PE    (1u << 0)
#define CR0_ET    (1u << 4)
#define CR0_PG    (1u << 31)
#define CR4_PAE   (1u << 5)
#define EFER_LME  (1u << 8)
#define EFER_LMA  (1u << 10)
#define PTE_VALID 3u /* present, writable */
#define PTE_LARGE (1u << 7)

#define MSR_MISC_ENABLE   0x1a0u
#define MSR_MTRR_DEF_TYPE 0x2ffu

#define APIC_LVT1 0x360u
#define APIC_NMI  0x400u

enum { SEL_CODE = 0x10, SEL_DATA = 0x18, SEL_TSS = 0x20 };

static int failed(struct vm_error *error, const struct vcpu *vcpu, const char *what)
{
    return vm_fail(error, -errno, "vCPU %u: %s: %s", vcpu->index, what, strerror(errno));
}

/* What a vCPU of a new guest sees; NULL without memory. */
static struct kvm_cpuid2 *make_cpuid(const struct vcpu *vcpu, const struct vcpus_options *options)
{
    const struct kvm_cpuid2 *host = options->kvm->cpuid;
    size_t bytes = sizeof(*host) + host->nent * sizeof(host->entries[0]);
    struct kvm_cpuid2 *cpuid = malloc(bytes);

    if (!cpuid)
        return NULL;
    memcpy(cpuid, host, bytes);
    cpuid_filter(cpuid, vcpu->index, options->count);
    return cpuid;
}

static int set_cpuid(struct vcpu *vcpu, const struct vcpus_options *options, struct vm_error *error)
{
    vcpu->cpuid = make_cpuid(vcpu, options);
    if (!vcpu->cpuid)
        return vm_fail(error, -ENOMEM, "out of memory");
    return ioctl(vcpu->fd, KVM_SET_CPUID2, vcpu->cpuid) < 0 ? failed(error, vcpu, "CPUID") : 0;
}

static int restore(struct vcpu *vcpu, const struct vcpus_options *options, struct vm_error *error)
{
    _cleanup_(freep) struct kvm_cpuid2 *here = make_cpuid(vcpu, options);

    if (!here)
        return vm_fail(error, -ENOMEM, "out of memory");
    return snapshot_restore_vcpu(options->from, options->kvm, vcpu->fd, vcpu->index, here, &vcpu->cpuid, error);
}

static int set_msrs(struct vcpu *vcpu, struct vm_error *error)
{
    static const struct kvm_msr_entry entries[] = {
            {.index = MSR_MISC_ENABLE, .data = 1},                   /* fast strings */
            {.index = MSR_MTRR_DEF_TYPE, .data = (1u << 11) | 0x06}, /* on, write-back */
    };
    _cleanup_(freep) struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + sizeof(entries));

    if (!msrs)
        return vm_fail(error, -ENOMEM, "out of memory");
    msrs->nmsrs = ARRAY_SIZE(entries);
    memcpy(msrs->entries, entries, sizeof(entries));
    return ioctl(vcpu->fd, KVM_SET_MSRS, msrs) < 0 ? failed(error, vcpu, "MSRs") : 0;
}

static void put_register(struct kvm_lapic_state *apic, uint32_t offset, uint32_t value)
{
    memcpy(apic->regs + offset, &value, sizeof(value));
}

/* As a firmware leaves it: NMI on LINT1. */
static int set_apic(struct vcpu *vcpu, struct vm_error *error)
{
    struct kvm_lapic_state apic;

    if (ioctl(vcpu->fd, KVM_GET_LAPIC, &apic) < 0)
        return failed(error, vcpu, "local APIC");
    put_register(&apic, APIC_LVT1, APIC_NMI);
    return ioctl(vcpu->fd, KVM_SET_LAPIC, &apic) < 0 ? failed(error, vcpu, "local APIC") : 0;
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code64, bool system)
{
    return (struct kvm_segment){
            .limit = system ? 0x67 : 0xffffffffu,
            .selector = selector,
            .type = type,
            .present = 1,
            .db = !code64 && !system,
            .s = !system,
            .l = code64,
            .g = !system,
    };
}

static uint64_t descriptor(const struct kvm_segment *s)
{
    uint64_t limit = s->g ? s->limit >> 12 : s->limit;

    return (limit & 0xffffu) | ((uint64_t)s->type << 40) | ((uint64_t)s->s << 44) | ((uint64_t)s->present << 47) |
           (((limit >> 16) & 0xfu) << 48) | ((uint64_t)s->l << 53) | ((uint64_t)s->db << 54) | ((uint64_t)s->g << 55);
}

/* The first GiB, identity-mapped with 2 MiB pages. */
static int write_page_tables(const struct gmem *mem)
{
    uint64_t pml4 = (LAYOUT_PML4 + 0x1000u) | PTE_VALID, pdpt = (LAYOUT_PML4 + 0x2000u) | PTE_VALID, pd[512];
    int r;

    for (uint64_t i = 0; i < ARRAY_SIZE(pd); i++)
        pd[i] = (i << 21) | PTE_VALID | PTE_LARGE;
    r = gmem_write(mem, (struct gpa){LAYOUT_PML4}, &pml4, sizeof(pml4));
    if (r == 0)
        r = gmem_write(mem, (struct gpa){LAYOUT_PML4 + 0x1000u}, &pdpt, sizeof(pdpt));
    return r == 0 ? gmem_write(mem, (struct gpa){LAYOUT_PML4 + 0x2000u}, pd, sizeof(pd)) : r;
}

static int enter_long_mode(struct kvm_sregs *sregs, const struct gmem *mem)
{
    sregs->cr0 |= CR0_PG;
    sregs->cr3 = LAYOUT_PML4;
    sregs->cr4 |= CR4_PAE;
    sregs->efer |= EFER_LME | EFER_LMA;
    return write_page_tables(mem);
}

static int set_segments(struct kvm_sregs *sregs, const struct gmem *mem, bool long_mode)
{
    struct kvm_segment code = segment(SEL_CODE, 0xb, long_mode, false);
    struct kvm_segment data = segment(SEL_DATA, 0x3, false, false);
    struct kvm_segment tss = segment(SEL_TSS, 0xb, false, true);
    uint64_t gdt[6] = {0, 0, descriptor(&code), descriptor(&data), descriptor(&tss), 0}, idt = 0;
    int r = gmem_write(mem, (struct gpa){LAYOUT_GDT}, gdt, sizeof(gdt));

    if (r == 0)
        r = gmem_write(mem, (struct gpa){LAYOUT_IDT}, &idt, sizeof(idt));
    sregs->cs = code;
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
    sregs->tr = tss;
    sregs->gdt.base = LAYOUT_GDT;
    sregs->gdt.limit = sizeof(gdt) - 1;
    sregs->idt.base = LAYOUT_IDT;
    sregs->idt.limit = sizeof(idt) - 1;
    return r;
}

static int set_entry(struct vcpu *vcpu, const struct boot_entry *entry, const struct gmem *mem, struct vm_error *error)
{
    bool long_mode = entry->protocol == BOOT_LINUX64;
    struct kvm_regs regs = {.rflags = 2, .rip = entry->rip, .rsp = LAYOUT_BOOT_STACK, .rbp = LAYOUT_BOOT_STACK};
    struct kvm_sregs sregs;
    int r;

    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return failed(error, vcpu, "registers");
    sregs.cr0 = CR0_PE | CR0_ET;
    r = set_segments(&sregs, mem, long_mode);
    if (r == 0 && long_mode)
        r = enter_long_mode(&sregs, mem);
    if (r < 0)
        return vm_fail(error, r, "guest memory is too small for the boot tables; raise mem_size_mib");
    if (long_mode)
        regs.rsi = entry->params;
    else
        regs.rbx = entry->params;
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return failed(error, vcpu, "registers");
    return 0;
}

int vcpu_set_state(struct vcpu *vcpu, const struct vcpus_options *options, struct vm_error *error)
{
    struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80};
    int r;

    if (options->from)
        return restore(vcpu, options, error);
    r = set_cpuid(vcpu, options, error);
    if (r == 0)
        r = set_msrs(vcpu, error);
    if (r == 0 && ioctl(vcpu->fd, KVM_SET_FPU, &fpu) < 0)
        r = failed(error, vcpu, "FPU");
    if (r == 0)
        r = set_apic(vcpu, error);
    if (r == 0 && vcpu->index == 0)
        r = set_entry(vcpu, options->entry, options->mem, error);
    return r;
}
