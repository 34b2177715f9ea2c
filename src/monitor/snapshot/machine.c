/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/snapshot/machine.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_TRACK_DIRTY    1u
#define CONFIG_ENTROPY        2u
#define CONFIG_BALLOON        4u
#define CONFIG_DEFLATE_ON_OOM 8u
#define CONFIG_ALL            15u

#define DRIVE_ROOT      1u
#define DRIVE_READ_ONLY 2u
#define DRIVE_WRITEBACK 4u
#define DRIVE_ALL       7u

#define MAX_STATS_INTERVAL UINT16_MAX
#define MAX_VERSION        31u

/* ---- host ---- */

void snapshot_host_here(struct snapshot_host *ret)
{
    unsigned a = 0, b = 0, c = 0, d = 0;

    *ret = (struct snapshot_host){0};
    if (__get_cpuid(0, &a, &b, &c, &d)) {
        memcpy(ret->vendor, &b, 4);
        memcpy(ret->vendor + 4, &d, 4);
        memcpy(ret->vendor + 8, &c, 4);
    }
    if (__get_cpuid(1, &a, &b, &c, &d))
        ret->signature = a;
    (void)snprintf(ret->monitor, sizeof(ret->monitor), "%s", IRONCLAW_VERSION);
}

void snapshot_put_host(struct buf *buf, const struct snapshot_host *host)
{
    buf_put(buf, host->vendor, sizeof(host->vendor));
    buf_put_le32(buf, host->signature);
    buf_put_str(buf, host->monitor, strlen(host->monitor));
}

int snapshot_get_host(const struct snapshot *snapshot, struct snapshot_host *ret, struct vm_error *error)
{
    struct snapshot_host host = {0};
    const uint8_t *vendor;
    const char *version;
    struct rd rd;
    size_t len = 0;
    int r = snapshot_part(snapshot, SNAPSHOT_HOST, 0, &rd, error);

    if (r < 0)
        return r;
    vendor = rd_bytes(&rd, sizeof(host.vendor));
    host.signature = rd_le32(&rd);
    version = rd_str(&rd, MAX_VERSION, &len);
    r = snapshot_part_end(snapshot, SNAPSHOT_HOST, 0, &rd, 0, error);
    if (r < 0)
        return r;
    memcpy(host.vendor, vendor, sizeof(host.vendor));
    memcpy(host.monitor, version, len);
    *ret = host;
    return 0;
}

/* Intel SDM volume 2, CPUID 1: the extended family counts only for family 15, the extended model for 6 and 15. */
static unsigned family_of(uint32_t signature)
{
    unsigned family = (signature >> 8) & 15u;

    return family == 15 ? family + ((signature >> 20) & 255u) : family;
}

static unsigned model_of(uint32_t signature)
{
    unsigned family = (signature >> 8) & 15u, model = (signature >> 4) & 15u;

    return family == 6 || family == 15 ? model | ((signature >> 12) & 0xf0u) : model;
}

/* The stepping may differ: features are compared one by one. */
int snapshot_check_host(
        const struct snapshot_host *made_on, const struct snapshot_host *here, const char *path, struct vm_error *error)
{
    if (memcmp(made_on->vendor, here->vendor, sizeof(here->vendor)) == 0 &&
            family_of(made_on->signature) == family_of(here->signature) &&
            model_of(made_on->signature) == model_of(here->signature))
        return 0;
    return vm_fail(error, -ENOTSUP,
            "snapshot %.200s: made on another processor (%.12s family %u model %u; this is %.12s family %u model %u); "
            "load it on such a one, or make the snapshot again here",
            path, made_on->vendor, family_of(made_on->signature), model_of(made_on->signature), here->vendor,
            family_of(here->signature), model_of(here->signature));
}

static const struct kvm_cpuid_entry2 *find_leaf(const struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    }
    return NULL;
}

int snapshot_check_cpuid(const struct kvm_cpuid2 *guest, const struct kvm_cpuid2 *here, struct vm_error *error)
{
    /* The leaves that list features, and the registers of them that don't. */
    static const struct {
        uint32_t function, index, ignored[4]; /* eax, ebx, ecx, edx */
    } leaves[] = {
            {0x1, 0, {~0u, ~0u, 0, 0}},
            {0x7, 0, {~0u, 0, 0, 0}},
            {0x7, 1, {0, ~0u, ~0u, 0}},
            {0xd, 0, {0, ~0u, ~0u, 0}},
            {0xd, 1, {0, ~0u, 0, 0}},
            {0x80000001, 0, {~0u, ~0u, 0, 0}},
            {0x80000008, 0, {~0u, 0, ~0u, ~0u}},
            {0x40000001, 0, {0, ~0u, ~0u, ~0u}},
    };
    static const char *const names[4] = {"eax", "ebx", "ecx", "edx"};

    for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
        const struct kvm_cpuid_entry2 *a = find_leaf(guest, leaves[i].function, leaves[i].index);
        const struct kvm_cpuid_entry2 *b = find_leaf(here, leaves[i].function, leaves[i].index);
        const uint32_t had[4] = {a ? a->eax : 0, a ? a->ebx : 0, a ? a->ecx : 0, a ? a->edx : 0};
        const uint32_t has[4] = {b ? b->eax : 0, b ? b->ebx : 0, b ? b->ecx : 0, b ? b->edx : 0};

        for (unsigned j = 0; j < 4; j++) {
            uint32_t missing = had[j] & ~has[j] & ~leaves[i].ignored[j];

            if (missing != 0)
                return vm_fail(error, -ENOTSUP,
                        "the guest uses a processor with features that this one, or its KVM, lacks (CPUID %#x.%u %s: "
                        "%#x); load it where it was made, or make the snapshot again here",
                        leaves[i].function, leaves[i].index, names[j], missing);
        }
    }
    return 0;
}

/* ---- MSRs ---- */

/* What a guest of ours can't have used, as its CPUID has none of it, and what some KVMs list and then refuse. */
bool snapshot_leaves_out_msr(uint32_t msr)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
            {0xc1, 0xc8},             /* performance counters */
            {0x186, 0x18d},           /* their events */
            {0x309, 0x30d},           /* fixed counters */
            {0x345, 0x345},           /* their capabilities */
            {0x38d, 0x390},           /* their control */
            {0x3f1, 0x3f2},           /* PEBS */
            {0x480, 0x493},           /* VMX */
            {0x4c1, 0x4c8},           /* counters, full width */
            {0x560, 0x587},           /* processor trace */
            {0x600, 0x600},           /* debug store */
            {0x40000000, 0x400001ff}, /* Hyper-V */
            {0xc0010000, 0xc0010007}, /* AMD's counters */
            {0xc0010114, 0xc0010117}, /* SVM */
            {0xc0010200, 0xc001020b}, /* AMD's counters */
            {0xc0000300, 0xc0000303}, /* their control */
    };

    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
        if (msr >= ranges[i].first && msr <= ranges[i].last)
            return true;
    }
    return false;
}

static bool is_known(const struct snapshot_msrs *known, uint32_t msr)
{
    for (uint32_t i = 0; i < known->count; i++) {
        if (known->index[i] == msr)
            return true;
    }
    return false;
}

int snapshot_check_msrs(
        struct kvm_msr_entry *entries, uint32_t *count, const struct snapshot_msrs *known, struct vm_error *error)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < *count; i++) {
        uint32_t msr = entries[i].index;

        if (snapshot_leaves_out_msr(msr))
            return vm_fail(error, -EBADMSG, "MSR %#x, which no snapshot has", msr);
        if (is_known(known, msr))
            entries[kept++] = entries[i];
        else if (entries[i].data != 0)
            return vm_fail(error, -ENOTSUP, "this host's KVM has no MSR %#x (%#llx); load it where it was made", msr,
                    (unsigned long long)entries[i].data);
    }
    *count = kept;
    return 0;
}

/* ---- config ---- */

int snapshot_check_expected(const struct machine_config *machine, const struct snapshot_load_config *request,
        const char *path, struct vm_error *error)
{
    if (request->expect_vcpus != 0 && machine->vcpu_count != request->expect_vcpus)
        return vm_fail(error, -EINVAL,
                "snapshot %.200s: has %u vCPUs, and `expect` says %u; load the one that is meant", path,
                machine->vcpu_count, request->expect_vcpus);
    if (request->expect_mib != 0 && machine->mem_size_mib != request->expect_mib)
        return vm_fail(error, -EINVAL,
                "snapshot %.200s: has %u MiB of memory, and `expect` says %u; load the one that is meant", path,
                machine->mem_size_mib, request->expect_mib);
    return 0;
}

int snapshot_check_config(const struct vm_config *config, struct vm_error *error)
{
    if (config->machine.huge_pages == HUGE_PAGES_NONE)
        return 0;
    return vm_fail(error, -ENOTSUP,
            "Cannot create a snapshot of a microVM with huge_pages: its memory file could not be mapped; leave "
            "huge_pages out.");
}

static void put_str(struct buf *buf, const char *text)
{
    buf_put_str(buf, text, strlen(text));
}

static void put_optional(struct buf *buf, const char *text)
{
    buf_put_u8(buf, text != NULL);
    if (text)
        put_str(buf, text);
}

void snapshot_put_config(struct buf *buf, const struct vm_config *config)
{
    buf_put_le32(buf, config->machine.vcpu_count);
    buf_put_le32(buf, config->machine.mem_size_mib);
    buf_put_le32(buf, (config->machine.track_dirty_pages ? CONFIG_TRACK_DIRTY : 0) |
                              (config->entropy ? CONFIG_ENTROPY : 0) | (config->balloon.present ? CONFIG_BALLOON : 0) |
                              (config->balloon.deflate_on_oom ? CONFIG_DEFLATE_ON_OOM : 0));
    put_optional(buf, config->boot.kernel_image_path);
    put_optional(buf, config->boot.initrd_path);
    put_optional(buf, config->boot.boot_args);
    buf_put_le32(buf, (uint32_t)config->drive_count);
    for (size_t i = 0; i < config->drive_count; i++) {
        const struct drive_config *drive = &config->drives[i];

        put_str(buf, drive->drive_id);
        put_str(buf, drive->path_on_host);
        buf_put_le32(buf, (drive->is_root_device ? DRIVE_ROOT : 0) | (drive->is_read_only ? DRIVE_READ_ONLY : 0) |
                                  (drive->writeback ? DRIVE_WRITEBACK : 0));
    }
    put_optional(buf, config->vsock.uds_path);
    buf_put_le32(buf, config->vsock.guest_cid);
    buf_put_le32(buf, config->balloon.amount_mib);
    buf_put_le32(buf, config->balloon.stats_polling_interval_s);
}

static bool is_printable(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    }
    return true;
}

static int get_str(struct rd *rd, size_t max, const char *what, char **ret, struct vm_error *error)
{
    size_t len = 0;
    const char *text = rd_str(rd, max, &len);

    if (!text)
        return -EBADMSG; /* said by who looks at rd->failed */
    if (!is_printable(text, len))
        return vm_fail(error, -EBADMSG, "%s has control characters in it", what);
    *ret = strndup(text, len);
    return *ret ? 0 : vm_fail(error, -ENOMEM, "out of memory");
}

static int get_optional(struct rd *rd, size_t max, const char *what, char **ret, struct vm_error *error)
{
    uint8_t there = rd_u8(rd);

    if (there > 1)
        return vm_fail(error, -EBADMSG, "%s is neither there nor missing (%u)", what, there);
    return there ? get_str(rd, max, what, ret, error) : 0;
}

static bool is_drive_id(const char *id)
{
    return *id && !id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")];
}

static int get_drive(struct rd *rd, struct vm_config *config, struct vm_error *error)
{
    struct drive_config *drive = &config->drives[config->drive_count++];
    int r = get_str(rd, VM_MAX_ID, "a drive's id", &drive->drive_id, error);
    uint32_t flags;

    if (r == 0)
        r = get_str(rd, SNAPSHOT_MAX_PATH, "a drive's path", &drive->path_on_host, error);
    if (r < 0)
        return r;
    flags = rd_le32(rd);
    drive->is_root_device = flags & DRIVE_ROOT;
    drive->is_read_only = flags & DRIVE_READ_ONLY;
    drive->writeback = flags & DRIVE_WRITEBACK;
    if (rd->failed || flags & ~DRIVE_ALL || !is_drive_id(drive->drive_id) || !*drive->path_on_host)
        return vm_fail(error, -EBADMSG, "drive %zu: no such drive is possible", config->drive_count - 1);
    for (size_t i = 0; i + 1 < config->drive_count; i++) {
        if (strcmp(config->drives[i].drive_id, drive->drive_id) == 0)
            return vm_fail(error, -EBADMSG, "drive %s is there twice", drive->drive_id);
    }
    return 0;
}

static int get_machine(struct rd *rd, struct vm_config *config, struct vm_error *error)
{
    struct machine_config *machine = &config->machine;
    uint32_t flags;

    machine->vcpu_count = rd_le32(rd);
    machine->mem_size_mib = rd_le32(rd);
    flags = rd_le32(rd);
    machine->track_dirty_pages = flags & CONFIG_TRACK_DIRTY;
    config->entropy = flags & CONFIG_ENTROPY;
    config->balloon.present = flags & CONFIG_BALLOON;
    config->balloon.deflate_on_oom = flags & CONFIG_DEFLATE_ON_OOM;
    if (rd->failed || flags & ~CONFIG_ALL || machine->vcpu_count == 0 || machine->vcpu_count > VM_MAX_VCPUS ||
            machine->mem_size_mib < VM_MIN_MEMORY_MIB)
        return vm_fail(error, -EBADMSG, "no machine is possible with %u vCPUs, %u MiB and flags %#x",
                machine->vcpu_count, machine->mem_size_mib, flags);
    return 0;
}

static int get_boot(struct rd *rd, struct boot_source *boot, struct vm_error *error)
{
    int r = get_optional(rd, SNAPSHOT_MAX_PATH, "the kernel's path", &boot->kernel_image_path, error);

    if (r == 0)
        r = get_optional(rd, SNAPSHOT_MAX_PATH, "the initramfs's path", &boot->initrd_path, error);
    return r == 0 ? get_optional(rd, VM_MAX_CMDLINE - 1, "the command line", &boot->boot_args, error) : r;
}

static int get_rest(struct rd *rd, struct vm_config *config, struct vm_error *error)
{
    int r = get_optional(rd, SNAPSHOT_MAX_PATH, "the vsock's path", &config->vsock.uds_path, error);

    config->vsock.guest_cid = rd_le32(rd);
    config->balloon.amount_mib = rd_le32(rd);
    config->balloon.stats_polling_interval_s = rd_le32(rd);
    if (r == 0 && (config->balloon.amount_mib > config->machine.mem_size_mib ||
                          config->balloon.stats_polling_interval_s > MAX_STATS_INTERVAL ||
                          (config->vsock.uds_path && !*config->vsock.uds_path)))
        r = vm_fail(error, -EBADMSG, "no such balloon or vsock is possible");
    return r;
}

int snapshot_get_config(const struct snapshot *snapshot, struct vm_config *config, struct vm_error *error)
{
    struct vm_error why = {0};
    uint32_t drives;
    struct rd rd;
    int r = snapshot_part(snapshot, SNAPSHOT_CONFIG, 0, &rd, error);

    if (r < 0)
        return r;
    r = get_machine(&rd, config, &why);
    if (r == 0)
        r = get_boot(&rd, &config->boot, &why);
    drives = r == 0 ? rd_le32(&rd) : 0;
    if (drives > VM_MAX_DRIVES)
        r = vm_fail(&why, -EBADMSG, "%u drives, %u are possible", drives, VM_MAX_DRIVES);
    while (r == 0 && config->drive_count < drives)
        r = get_drive(&rd, config, &why);
    if (r == 0)
        r = get_rest(&rd, config, &why);
    if (error)
        *error = why;
    return snapshot_part_end(snapshot, SNAPSHOT_CONFIG, 0, &rd, r, error);
}
