/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/kvm.h"

#include <assert.h>
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "monitor/layout.h"

bool kvm_has_hardware(void)
{
    unsigned a, b, c, d;

    if (__get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 5)))
        return true;                                                    /* vmx */
    return __get_cpuid(0x80000001u, &a, &b, &c, &d) && (c & (1u << 2)); /* svm */
}

static int open_kvm(struct vm_error *error)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd >= 0)
        return fd;
    switch (errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return vm_fail(error, -errno,
                "/dev/kvm: %s; load kvm-intel or kvm-amd (is virtualization on in the firmware?), or use the qemu "
                "backend",
                strerror(errno));
    case EACCES:
    case EPERM:
        return vm_fail(error, -errno, "/dev/kvm: %s; add this user to the group 'kvm'", strerror(errno));
    default:
        return vm_fail(error, -errno, "/dev/kvm: %s", strerror(errno));
    }
}

static int check_capabilities(struct kvm *kvm, struct vm_error *error)
{
    static const struct {
        int id;
        const char *name;
    } needed[] = {
            {KVM_CAP_SPLIT_IRQCHIP, "split_irqchip"},
            {KVM_CAP_SIGNAL_MSI, "signal_msi"},
            {KVM_CAP_IOEVENTFD, "ioeventfd"},
            {KVM_CAP_USER_MEMORY, "user_memory"},
            {KVM_CAP_IMMEDIATE_EXIT, "immediate_exit"},
            {KVM_CAP_EXT_CPUID, "ext_cpuid"},
            {KVM_CAP_SET_TSS_ADDR, "set_tss_addr"},
    };
    int version = ioctl(kvm->fd, KVM_GET_API_VERSION, 0), size;

    if (version != KVM_API_VERSION)
        return vm_fail(error, -ENOTSUP, "/dev/kvm: API version %d, wanted %d", version, KVM_API_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
        if (ioctl(kvm->fd, KVM_CHECK_EXTENSION, needed[i].id) <= 0)
            return vm_fail(
                    error, -ENOTSUP, "/dev/kvm: capability %s is missing; a newer host kernel has it", needed[i].name);
    }
    size = ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return vm_fail(error, -ENOTSUP, "/dev/kvm: vCPU mapping of %d bytes", size);
    kvm->run_size = (size_t)size;
    return 0;
}

static int get_cpuid(struct kvm *kvm, struct vm_error *error)
{
    kvm->cpuid = calloc(1, sizeof(*kvm->cpuid) + KVM_MAX_CPUID * sizeof(struct kvm_cpuid_entry2));
    if (!kvm->cpuid)
        return vm_fail(error, -ENOMEM, "out of memory");
    kvm->cpuid->nent = KVM_MAX_CPUID;
    if (ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, kvm->cpuid) < 0)
        return vm_fail(error, -errno, "/dev/kvm: KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
    return 0;
}

static int make_vm(struct kvm *kvm, struct vm_error *error)
{
    struct kvm_enable_cap local_apics = {.cap = KVM_CAP_SPLIT_IRQCHIP}; /* and no routes from pins: none is KVM's */
    uint64_t identity_map = LAYOUT_KVM_TSS - 0x1000;

    do {
        kvm->vm_fd = ioctl(kvm->fd, KVM_CREATE_VM, 0); /* close-on-exec by itself */
    } while (kvm->vm_fd < 0 && errno == EINTR);
    if (kvm->vm_fd < 0)
        return vm_fail(error, -errno, "/dev/kvm: can't make a VM: %s", strerror(errno));
    if (ioctl(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
            ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)LAYOUT_KVM_TSS) < 0 ||
            ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &local_apics) < 0)
        return vm_fail(error, -errno, "/dev/kvm: can't make the local APICs: %s", strerror(errno));
    return 0;
}

int kvm_init(struct kvm *kvm, struct vm_error *error)
{
    int r;

    *kvm = (struct kvm){.fd = open_kvm(error), .vm_fd = -1};
    if (kvm->fd < 0)
        return kvm->fd;
    r = check_capabilities(kvm, error);
    if (r == 0)
        r = get_cpuid(kvm, error);
    if (r == 0)
        r = make_vm(kvm, error);
    if (r < 0)
        kvm_deinit(kvm);
    return r;
}

void kvm_deinit(struct kvm *kvm)
{
    fd_close(kvm->vm_fd);
    fd_close(kvm->fd);
    free(kvm->cpuid);
    *kvm = (struct kvm){.fd = -1, .vm_fd = -1};
}

static void *make_early(void *arg)
{
    struct kvm_early *early = arg;

    early->r = kvm_init(&early->kvm, &early->error);
    return NULL;
}

void kvm_begin(struct kvm_early *early)
{
    early->begun = pthread_create(&early->thread, NULL, make_early, early) == 0;
}

int kvm_finish(struct kvm_early *early, struct kvm *ret, struct vm_error *error)
{
    if (!early->begun)
        return kvm_init(ret, error);
    (void)pthread_join(early->thread, NULL);
    early->begun = false;
    *ret = early->kvm;
    *error = early->error;
    return early->r;
}

int kvm_add_memory(struct kvm *kvm, const struct memory *memory, bool track_dirty, struct vm_error *error)
{
    for (size_t i = 0; i < memory->gmem.count; i++) {
        const struct gmem_region *region = &memory->gmem.regions[i];
        struct kvm_userspace_memory_region slot = {
                .slot = (uint32_t)i,
                .flags = track_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0,
                .guest_phys_addr = region->start.v,
                .memory_size = region->size,
                .userspace_addr = (uint64_t)(uintptr_t)region->host,
        };

        if (ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
            return vm_fail(error, -errno, "KVM does not take %llu MiB of guest memory at %#llx: %s",
                    (unsigned long long)region->size >> 20, (unsigned long long)region->start.v, strerror(errno));
    }
    return 0;
}

/* Slots start at whole words of the bitmap, as RAM is whole MiB: KVM's words go right where they belong. */
static int take_slot(const struct kvm *kvm, const struct memory *memory, size_t slot, struct dirty_pages *dirty,
        struct vm_error *error)
{
    size_t page = (size_t)(memory->gmem.regions[slot].host - memory->host) / DIRTY_PAGE;
    struct kvm_dirty_log log = {.slot = (uint32_t)slot, .dirty_bitmap = &dirty->words[page / 64]};

    assert(page % 64 == 0 && memory->gmem.regions[slot].size % (64ull * DIRTY_PAGE) == 0);
    if (ioctl(kvm->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
        return vm_fail(error, -errno, "KVM does not tell which pages are dirty: %s", strerror(errno));
    return 0;
}

int kvm_take_dirty(const struct kvm *kvm, struct memory *memory, struct dirty_pages *ret, struct vm_error *error)
{
    struct dirty_pages dirty;
    int r;

    if (!memory->gmem.dirty)
        return vm_fail(error, -EINVAL, "what changed is not known: track_dirty_pages was not set before the start");
    r = dirty_pages_init(&dirty, memory->host, memory->bytes);
    if (r < 0)
        return vm_fail(error, r, "out of memory");
    for (size_t i = 0; r == 0 && i < memory->gmem.count; i++)
        r = take_slot(kvm, memory, i, &dirty, error);
    if (r < 0) {
        memory_put_dirty(memory, &dirty);
        dirty_pages_deinit(&dirty);
        return r;
    }
    dirty_pages_move(&memory->written, &dirty);
    *ret = dirty;
    return 0;
}

int kvm_add_ioeventfd(struct kvm *kvm, int fd, uint64_t address, uint32_t value, struct vm_error *error)
{
    struct kvm_ioeventfd event = {
            .datamatch = value,
            .addr = address,
            .len = 4,
            .fd = fd,
            .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
    };

    if (ioctl(kvm->vm_fd, KVM_IOEVENTFD, &event) < 0)
        return vm_fail(error, -errno, "KVM ioeventfd at %#llx: %s", (unsigned long long)address, strerror(errno));
    return 0;
}

void kvm_send_msi(void *kvm, uint32_t address, uint32_t data)
{
    struct kvm_msi message = {.address_lo = address, .data = data};

    /* Fails when no local APIC is meant, as nothing in hardware would tell. */
    (void)ioctl(((struct kvm *)kvm)->vm_fd, KVM_SIGNAL_MSI, &message);
}
