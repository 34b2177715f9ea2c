/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/cpuid-filter.h"

#include <stdbool.h>

#define BIT(n) (1u << (n))

/* Bits that hold numbers below `count`. */
static uint32_t width_of(uint32_t count)
{
    uint32_t width = 0;

    while (width < 31 && BIT(width) < count)
        width++;
    return width;
}

static void clear_values(struct kvm_cpuid_entry2 *e)
{
    e->eax = e->ebx = e->ecx = e->edx = 0;
}

static void set_features(struct kvm_cpuid_entry2 *e, uint32_t index, uint32_t count)
{
    e->ecx &= ~(BIT(2) | BIT(3) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(15)); /* DS64 MONITOR VMX SMX EIST TM2 PDCM */
    e->ecx |= BIT(24) | BIT(31);                                                /* TSC deadline, hypervisor */
    e->edx &= ~(BIT(21) | BIT(22) | BIT(29) | BIT(31));                         /* DS ACPI TM PBE */
    if (count > 1)
        e->edx |= BIT(28); /* HTT: the count in ebx is valid */
    else
        e->edx &= ~BIT(28);
    e->ebx = (e->ebx & 0x0000ffffu) | (BIT(width_of(count)) << 16) | (index << 24);
}

/* Leaf 4 and 0x8000001d: each core has caches of its own except the last level, which the package shares. */
static void set_caches(struct kvm_cpuid_entry2 *e, uint32_t count, bool intel)
{
    uint32_t level = (e->eax >> 5) & 7u;

    if ((e->eax & 0x1fu) == 0)
        return;
    e->eax &= intel ? 0x00003fffu : 0xfc003fffu;
    if (level >= 3)
        e->eax |= (count - 1) << 14;
    if (intel)
        e->eax |= (BIT(width_of(count)) - 1) << 26;
}

/* Leaf 0xb and 0x1f: level 0 is the thread (one), level 1 the core. */
static void set_topology(struct kvm_cpuid_entry2 *e, uint32_t index, uint32_t count)
{
    clear_values(e);
    e->ecx = e->index & 0xffu;
    e->edx = index;
    if (e->index == 0) {
        e->ebx = 1;
        e->ecx |= 1u << 8;
    } else if (e->index == 1) {
        e->eax = width_of(count);
        e->ebx = count;
        e->ecx |= 2u << 8;
    }
}

static void filter_extended(struct kvm_cpuid_entry2 *e)
{
    e->ebx &= ~(BIT(2) | BIT(12) | BIT(15)); /* SGX, RDT monitoring and allocation */
    e->ecx &= ~BIT(30);                      /* SGX launch control */
}

void cpuid_filter(struct kvm_cpuid2 *cpuid, uint32_t index, uint32_t count)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

        switch (e->function) {
        case 0x1:
            set_features(e, index, count);
            break;
        case 0x4:
            set_caches(e, count, true);
            break;
        case 0x6: /* thermal and power: only the always running APIC timer */
            *e = (struct kvm_cpuid_entry2){.function = 0x6, .index = e->index, .flags = e->flags, .eax = BIT(2)};
            break;
        case 0x7:
            if (e->index == 0)
                filter_extended(e);
            break;
        case 0xb:
        case 0x1f:
            set_topology(e, index, count);
            break;
        case 0x5:        /* MONITOR/MWAIT */
        case 0xa:        /* performance counters */
        case 0xf:        /* RDT */
        case 0x10:       /* RDT */
        case 0x12:       /* SGX */
        case 0x14:       /* processor trace */
        case 0x8000000a: /* SVM */
        case 0x80000022: /* performance counters */
            clear_values(e);
            break;
        case 0x80000001:
            /* SVM, IBS, SKINIT, the counters' extensions */
            e->ecx &= ~(BIT(2) | BIT(10) | BIT(12) | BIT(23) | BIT(24) | BIT(28));
            if (count > 1)
                e->ecx |= BIT(1); /* CmpLegacy: the count is of cores, not of threads */
            else
                e->ecx &= ~BIT(1);
            break;
        case 0x80000008:
            e->ecx = (width_of(count) << 12) | (count - 1);
            break;
        case 0x8000001d:
            set_caches(e, count, false);
            break;
        case 0x8000001e: /* APIC id, core id with one thread, one node */
            e->eax = index;
            e->ebx = index;
            e->ecx = 0;
            break;
        default:
            break;
        }
    }
}
