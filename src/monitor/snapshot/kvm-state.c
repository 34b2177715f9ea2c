/* SPDX-License-Identifier: Apache-2.0 */
/* The order of calls: Linux Documentation/virt/kvm/api.rst, and what its comments in arch/x86/kvm ask of user space. */
#include "monitor/snapshot/kvm-state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "monitor/snapshot/machine.h"

#define MSR_TSC          0x10u
#define MSR_TSC_DEADLINE 0x6e0u
#define TSC_FAR          (1ull << 60) /* centuries from any clock that runs */
#define TSC_TOLERANCE    250u         /* parts per million, as KVM's own */
#define XSAVE_BYTES      sizeof(struct kvm_xsave)

/*
 * In the order in which they are set: the APIC's base, in sregs, before the APIC. They are read in the same order but
 * for mp_state, which comes first, as reading it carries out a pending INIT or SIPI.
 */
struct fixed_parts {
    struct kvm_mp_state mp_state;
    uint32_t zero;
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
};
static_assert(sizeof(struct kvm_mp_state) == 4 && sizeof(struct kvm_sregs) == 312 && sizeof(struct kvm_regs) == 144 &&
                      sizeof(struct kvm_xcrs) == 392 && sizeof(struct kvm_debugregs) == 128 &&
                      sizeof(struct kvm_lapic_state) == 1024 && sizeof(struct kvm_vcpu_events) == 64,
        "Linux UAPI");
static_assert(sizeof(struct fixed_parts) == 8 + 312 + 144 + 392 + 128 + 1024 + 64, "no padding");
static_assert(sizeof(struct kvm_cpuid_entry2) == 40 && sizeof(struct kvm_msr_entry) == 16, "Linux UAPI");

static int failed(struct vm_error *error, const char *what)
{
    return vm_fail(error, -errno, "KVM: %s: %s", what, strerror(errno));
}

/* ---- the VM ---- */

int snapshot_save_vm(const struct kvm *kvm, struct buf *buf, struct vm_error *error)
{
    struct kvm_clock_data clock;

    if (ioctl(kvm->vm_fd, KVM_GET_CLOCK, &clock) < 0)
        return failed(error, "clock");
    buf_put_le64(buf, clock.clock);
    return 0;
}

int snapshot_restore_vm(const struct snapshot *snapshot, const struct kvm *kvm, struct vm_error *error)
{
    struct kvm_clock_data clock = {0}; /* no flags: it goes on where it was, whatever the time is */
    struct rd rd;
    int r = snapshot_part(snapshot, SNAPSHOT_VM, 0, &rd, error);

    if (r < 0)
        return r;
    clock.clock = rd_le64(&rd);
    r = snapshot_part_end(snapshot, SNAPSHOT_VM, 0, &rd, 0, error);
    if (r < 0)
        return r;
    return ioctl(kvm->vm_fd, KVM_SET_CLOCK, &clock) < 0 ? failed(error, "clock") : 0;
}

/* ---- lists of a vCPU ---- */

/* The deadline comes last: it is taken only when APIC and TSC are there. */
int snapshot_list_msrs(const struct kvm *kvm, struct snapshot_msrs *ret, struct vm_error *error)
{
    _cleanup_(freep) struct kvm_msr_list *list = calloc(1, sizeof(*list) + sizeof(ret->index));
    bool deadline = false;

    if (!list)
        return vm_fail(error, -ENOMEM, "out of memory");
    list->nmsrs = SNAPSHOT_MAX_MSRS;
    if (ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
        return failed(error, "list of MSRs");
    ret->count = 0;
    for (uint32_t i = 0; i < MIN(list->nmsrs, SNAPSHOT_MAX_MSRS - 1); i++) {
        if (list->indices[i] == MSR_TSC_DEADLINE)
            deadline = true;
        else if (!snapshot_leaves_out_msr(list->indices[i]))
            ret->index[ret->count++] = list->indices[i];
    }
    if (deadline)
        ret->index[ret->count++] = MSR_TSC_DEADLINE;
    return 0;
}

static struct kvm_msrs *new_msrs(uint32_t count)
{
    return calloc(1, sizeof(struct kvm_msrs) + count * sizeof(struct kvm_msr_entry));
}

/* One that can't be read, as it depends on a feature that the guest has not, is left out. */
static int save_msrs(int fd, const struct snapshot_msrs *list, struct buf *buf, struct vm_error *error)
{
    _cleanup_(freep) struct kvm_msrs *msrs = new_msrs(list->count);
    _cleanup_(freep) struct kvm_msr_entry *got = calloc(list->count + 1, sizeof(*got));
    uint32_t done = 0, count = 0;

    if (!msrs || !got)
        return vm_fail(error, -ENOMEM, "out of memory");
    while (done < list->count) {
        int n;

        msrs->nmsrs = list->count - done;
        for (uint32_t i = 0; i < msrs->nmsrs; i++)
            msrs->entries[i] = (struct kvm_msr_entry){.index = list->index[done + i]};
        n = ioctl(fd, KVM_GET_MSRS, msrs);
        if (n < 0)
            return failed(error, "MSRs");
        n = MIN(n, (int)msrs->nmsrs);
        memcpy(got + count, msrs->entries, (size_t)n * sizeof(*got));
        count += (uint32_t)n;
        done += (uint32_t)n + 1; /* behind the one that was refused */
    }
    buf_put_le32(buf, count);
    buf_put(buf, got, count * sizeof(*got));
    return 0;
}

static bool has_value(int fd, const struct kvm_msr_entry *entry)
{
    _cleanup_(freep) struct kvm_msrs *one = new_msrs(1);

    if (!one)
        return false;
    one->nmsrs = 1;
    one->entries[0].index = entry->index;
    return ioctl(fd, KVM_GET_MSRS, one) == 1 && one->entries[0].data == entry->data;
}

/* What is refused but has its value already, or none, is a constant of this KVM or a feature that was not used. */
static int set_msrs(int fd, const struct kvm_msr_entry *entries, uint32_t count, struct vm_error *error)
{
    _cleanup_(freep) struct kvm_msrs *msrs = new_msrs(count);
    uint32_t done = 0;

    if (!msrs)
        return vm_fail(error, -ENOMEM, "out of memory");
    while (done < count) {
        int n;

        msrs->nmsrs = count - done;
        memcpy(msrs->entries, entries + done, msrs->nmsrs * sizeof(*entries));
        n = ioctl(fd, KVM_SET_MSRS, msrs);
        if (n < 0)
            return failed(error, "MSRs");
        if (n < (int)msrs->nmsrs && msrs->entries[n].data != 0 && !has_value(fd, &msrs->entries[n]))
            return vm_fail(error, -ENOTSUP, "this host's KVM does not take MSR %#x (%#llx); load it where it was made",
                    msrs->entries[n].index, (unsigned long long)msrs->entries[n].data);
        done += (uint32_t)n + 1;
    }
    return 0;
}

/* KVM lets a monitor set more than its guest could: only what saving would have saved. */
static int restore_msrs(struct rd *rd, const struct kvm *kvm, int fd, struct vm_error *error)
{
    uint32_t count = rd_le32(rd);
    const uint8_t *bytes = count <= SNAPSHOT_MAX_MSRS ? rd_bytes(rd, count * sizeof(struct kvm_msr_entry)) : NULL;
    _cleanup_(freep) struct kvm_msr_entry *entries = bytes ? calloc(count + 1, sizeof(*entries)) : NULL;
    struct snapshot_msrs known;
    int r;

    if (!bytes)
        return vm_fail(error, -EBADMSG, "%u MSRs", count);
    if (!entries)
        return vm_fail(error, -ENOMEM, "out of memory");
    memcpy(entries, bytes, count * sizeof(*entries));
    r = snapshot_list_msrs(kvm, &known, error);
    if (r == 0)
        r = snapshot_check_msrs(entries, &count, &known, error);
    return r == 0 ? set_msrs(fd, entries, count, error) : r;
}

static struct kvm_cpuid2 *new_cpuid(uint32_t count)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + count * sizeof(cpuid->entries[0]));

    if (cpuid)
        cpuid->nent = count;
    return cpuid;
}

static void save_cpuid(const struct kvm_cpuid2 *cpuid, struct buf *buf)
{
    buf_put_le32(buf, cpuid->nent);
    buf_put(buf, cpuid->entries, cpuid->nent * sizeof(cpuid->entries[0]));
}

static int restore_cpuid(
        struct rd *rd, int fd, const struct kvm_cpuid2 *here, struct kvm_cpuid2 **ret, struct vm_error *error)
{
    uint32_t count = rd_le32(rd);
    const uint8_t *bytes = count <= KVM_MAX_CPUID ? rd_bytes(rd, count * sizeof(here->entries[0])) : NULL;
    _cleanup_(freep) struct kvm_cpuid2 *cpuid = bytes ? new_cpuid(count) : NULL;
    int r;

    if (!bytes)
        return vm_fail(error, -EBADMSG, "%u entries of CPUID", count);
    if (!cpuid)
        return vm_fail(error, -ENOMEM, "out of memory");
    memcpy(cpuid->entries, bytes, count * sizeof(cpuid->entries[0]));
    r = snapshot_check_cpuid(cpuid, here, error);
    if (r == 0 && ioctl(fd, KVM_SET_CPUID2, cpuid) < 0)
        r = failed(error, "CPUID");
    if (r == 0)
        *ret = TAKE_PTR(cpuid);
    return r;
}

/* Bytes of the extended state here; more than the classic 4,096 only for guests with AMX. */
static size_t xsave_bytes(const struct kvm *kvm)
{
    int r = ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

    return r > (int)XSAVE_BYTES ? MIN((size_t)r, SNAPSHOT_MAX_XSAVE) : XSAVE_BYTES;
}

static int save_xsave(const struct kvm *kvm, int fd, struct buf *buf, struct vm_error *error)
{
    size_t size = xsave_bytes(kvm);
    _cleanup_(freep) void *xsave = calloc(1, size);

    if (!xsave)
        return vm_fail(error, -ENOMEM, "out of memory");
    if (ioctl(fd, size > XSAVE_BYTES ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, xsave) < 0)
        return failed(error, "FPU");
    buf_put_le32(buf, (uint32_t)size);
    buf_put(buf, xsave, size);
    return 0;
}

static int restore_xsave(struct rd *rd, const struct kvm *kvm, int fd, struct vm_error *error)
{
    size_t here = xsave_bytes(kvm), len = rd_le32(rd);
    const uint8_t *bytes = len >= XSAVE_BYTES && len <= SNAPSHOT_MAX_XSAVE ? rd_bytes(rd, len) : NULL;
    _cleanup_(freep) void *xsave = bytes ? calloc(1, MAX(here, len)) : NULL; /* KVM reads as much as it has here */

    if (!bytes)
        return vm_fail(error, -EBADMSG, "%zu bytes of FPU state", len);
    if (!xsave)
        return vm_fail(error, -ENOMEM, "out of memory");
    memcpy(xsave, bytes, len);
    return ioctl(fd, KVM_SET_XSAVE, xsave) < 0 ? failed(error, "FPU") : 0;
}

/* ---- a vCPU ---- */

int snapshot_save_vcpu(const struct kvm *kvm, int vcpu_fd, const struct kvm_cpuid2 *cpuid,
        const struct snapshot_msrs *msrs, struct buf *buf, struct vm_error *error)
{
    struct fixed_parts parts = {0};
    int khz, r;

    if (ioctl(vcpu_fd, KVM_GET_MP_STATE, &parts.mp_state) < 0 || ioctl(vcpu_fd, KVM_GET_SREGS, &parts.sregs) < 0 ||
            ioctl(vcpu_fd, KVM_GET_REGS, &parts.regs) < 0 || ioctl(vcpu_fd, KVM_GET_XCRS, &parts.xcrs) < 0 ||
            ioctl(vcpu_fd, KVM_GET_DEBUGREGS, &parts.debugregs) < 0 ||
            ioctl(vcpu_fd, KVM_GET_LAPIC, &parts.lapic) < 0 || ioctl(vcpu_fd, KVM_GET_VCPU_EVENTS, &parts.events) < 0)
        return failed(error, "registers");
    khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);
    buf_put(buf, &parts, sizeof(parts));
    buf_put_le32(buf, khz > 0 ? (uint32_t)khz : 0);
    save_cpuid(cpuid, buf);
    r = save_msrs(vcpu_fd, msrs, buf, error);
    return r == 0 ? save_xsave(kvm, vcpu_fd, buf, error) : r;
}

/* The guest has calibrated its clock by it: another frequency has to be scaled, which not every processor can. */
static int restore_tsc(uint32_t khz, int fd, struct vm_error *error)
{
    int here = ioctl(fd, KVM_GET_TSC_KHZ, 0);
    uint32_t differs = here > 0 ? (uint32_t)abs(here - (int)(khz & INT32_MAX)) : 0;

    if (khz == 0 || here <= 0 || differs <= (uint64_t)here * TSC_TOLERANCE / 1000000)
        return 0;
    if (ioctl(fd, KVM_SET_TSC_KHZ, (unsigned long)khz) == 0)
        return 0;
    return vm_fail(error, -ENOTSUP,
            "made where the TSC has %u kHz; here it has %d, and can't be scaled; make the snapshot again here", khz,
            here);
}

/*
 * KVM takes a TSC that is within a second of what the VM's would be now for an attempt to keep processors in step, and
 * does not move it: that of a guest which was saved in its first second stayed at 0, and all of its timers slept until
 * it had come to where it was. From far away it is moved. The other processors are to be in step with the first.
 */
static int move_tsc_away(int fd, struct vm_error *error)
{
    union {
        struct kvm_msrs msrs;
        uint8_t bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } tsc = {.msrs.nmsrs = 1};
    const struct kvm_msr_entry entry = {.index = MSR_TSC, .data = TSC_FAR};

    memcpy(tsc.bytes + sizeof(struct kvm_msrs), &entry, sizeof(entry));
    return ioctl(fd, KVM_SET_MSRS, &tsc) < 0 ? failed(error, "time stamp counter") : 0;
}

static int restore_fixed(const struct fixed_parts *parts, int fd, struct vm_error *error)
{
    if (ioctl(fd, KVM_SET_SREGS, &parts->sregs) < 0)
        return failed(error, "system registers");
    if (ioctl(fd, KVM_SET_REGS, &parts->regs) < 0)
        return failed(error, "registers");
    /* None without XSAVE, and then KVM has no call to set none. */
    if (parts->xcrs.nr_xcrs > 0 && ioctl(fd, KVM_SET_XCRS, &parts->xcrs) < 0)
        return failed(error, "extended control registers");
    if (ioctl(fd, KVM_SET_DEBUGREGS, &parts->debugregs) < 0)
        return failed(error, "debug registers");
    return ioctl(fd, KVM_SET_LAPIC, &parts->lapic) < 0 ? failed(error, "local APIC") : 0;
}

/* What is pending comes last, so that nothing of the above clears it. */
static int restore_pending(const struct fixed_parts *parts, int fd, struct vm_error *error)
{
    if (ioctl(fd, KVM_SET_VCPU_EVENTS, &parts->events) < 0)
        return failed(error, "pending events");
    return ioctl(fd, KVM_SET_MP_STATE, &parts->mp_state) < 0 ? failed(error, "state of a processor") : 0;
}

static int restore(struct rd *rd, const struct kvm *kvm, int fd, bool first, const struct kvm_cpuid2 *here,
        struct kvm_cpuid2 **ret_cpuid, struct vm_error *error)
{
    const uint8_t *bytes = rd_bytes(rd, sizeof(struct fixed_parts));
    uint32_t khz = rd_le32(rd);
    struct fixed_parts parts;
    int r;

    if (!bytes || rd->failed)
        return -EBADMSG;
    memcpy(&parts, bytes, sizeof(parts));
    r = restore_cpuid(rd, fd, here, ret_cpuid, error);
    if (r == 0)
        r = restore_tsc(khz, fd, error);
    if (r == 0)
        r = restore_fixed(&parts, fd, error);
    if (r == 0 && first)
        r = move_tsc_away(fd, error);
    if (r == 0)
        r = restore_msrs(rd, kvm, fd, error);
    if (r == 0)
        r = restore_xsave(rd, kvm, fd, error);
    return r == 0 ? restore_pending(&parts, fd, error) : r;
}

int snapshot_restore_vcpu(const struct snapshot *snapshot, const struct kvm *kvm, int vcpu_fd, uint32_t index,
        const struct kvm_cpuid2 *here, struct kvm_cpuid2 **ret_cpuid, struct vm_error *error)
{
    struct rd rd;
    int r = snapshot_part(snapshot, SNAPSHOT_VCPU, index, &rd, error);

    if (r < 0)
        return r;
    r = restore(&rd, kvm, vcpu_fd, index == 0, here, ret_cpuid, error);
    return snapshot_part_end(snapshot, SNAPSHOT_VCPU, index, &rd, r, error);
}
