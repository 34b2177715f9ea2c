/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/vm-private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "monitor/snapshot/memory-file.h"
#include "monitor/snapshot/prefetch.h"
#include "monitor/snapshot/uffd.h"
#include "vsock/vsock.h"

/* What a guest gets whose boot source says nothing of it; as Firecracker. */
#define DEFAULT_BOOT_ARGS                                                                                              \
    "reboot=k panic=1 pci=off nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd"
#define BOOT_TIMER_VALUE 123u

/* ---- the end ---- */

static void report_end(void *userdata, const struct vm_end *end)
{
    struct vm *vm = userdata;
    uint64_t one = 1;

    pthread_mutex_lock(&vm->end_lock);
    if (!vm->ended) {
        vm->ended = true;
        vm->end = *end;
        (void)!write(vm->end_event.fd, &one, sizeof(one));
    }
    pthread_mutex_unlock(&vm->end_lock);
}

static void on_i8042_reset(void *userdata)
{
    const struct vm_end end = {.cause = VM_END_RESET, .vcpu = -1, .text = "the guest reset itself"};

    report_end(userdata, &end);
}

static int on_end_event(struct loop_fd *source, uint32_t events)
{
    struct vm *vm = CONTAINER_OF(source, struct vm, end_event);
    struct vm_end end;

    loop_remove(vm->loop, source);
    pthread_mutex_lock(&vm->end_lock);
    end = vm->end;
    pthread_mutex_unlock(&vm->end_lock);
    vm->on_end(vm->userdata, &end);
    return 0;
}

/* ---- the boot timer ---- */

static void on_boot_timer(void *userdata, uint64_t offset, const uint8_t *data, uint32_t len)
{
    struct vm *vm = userdata;
    struct timespec cpu;
    uint64_t us, cpu_us;

    if (offset != 0 || len != 1 || data[0] != BOOT_TIMER_VALUE)
        return;
    if (__atomic_exchange_n(&vm->boot_timed, true, __ATOMIC_RELAXED)) /* one line, however often it writes */
        return;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    us = clock_now_us() - vm->start_us;
    cpu_us = (uint64_t)cpu.tv_sec * 1000000 + (uint64_t)cpu.tv_nsec / 1000 - vm->start_cpu_us;
    log_msg(LOG_INFO, "Guest-boot-time = %6llu us %llu ms, %6llu CPU us %llu CPU ms", (unsigned long long)us,
            (unsigned long long)us / 1000, (unsigned long long)cpu_us, (unsigned long long)cpu_us / 1000);
}

/* ---- devices ---- */

static int add_range(struct bus *bus, struct bus_range range, struct vm_error *error)
{
    int r = bus_add(bus, &range);

    return r < 0 ? vm_fail(error, r, "no room for a device at %#llx", (unsigned long long)range.base) : 0;
}

/* Gives the device its page, its interrupt and its kicks. */
static int attach(
        struct vm *vm, struct virtio_device *dev, struct loop *loop, struct virtio_mmio **ret, struct vm_error *error)
{
    struct virtio_mmio *mmio = &vm->virtio[vm->virtio_count];
    struct boot_device *where = &vm->announced[vm->virtio_count];
    int r;

    if (vm->virtio_count == LAYOUT_MAX_VIRTIO)
        return vm_fail(error, -ENOSPC, "more than %u devices", LAYOUT_MAX_VIRTIO);
    *where = (struct boot_device){
            .base = LAYOUT_VIRTIO + vm->virtio_count * LAYOUT_VIRTIO_STEP,
            .size = LAYOUT_VIRTIO_STEP,
            .irq = LAYOUT_VIRTIO_IRQ + (uint32_t)vm->virtio_count,
    };
    r = virtio_mmio_init(mmio, dev, &vm->memory.gmem, ioapic_line(&vm->ioapic, where->irq), loop);
    if (r < 0)
        return vm_fail(error, r, "%s: %s", dev->name, strerror(-r));
    vm->virtio_count++;
    r = add_range(&vm->mmio, virtio_mmio_range(mmio, where->base), error);
    for (unsigned i = 0; r == 0 && i < dev->queue_count; i++)
        r = kvm_add_ioeventfd(&vm->kvm, mmio->kicks[i].source.fd, where->base + VIRTIO_MMIO_QUEUE_NOTIFY, i, error);
    *ret = mmio;
    return r;
}

static int add_drive(struct vm *vm, const struct drive_config *config, struct vm_error *error)
{
    struct vm_drive *drive = &vm->drives[vm->drive_count];
    int r = block_new(&drive->block, config, error);

    if (r < 0)
        return r;
    vm->drive_count++;
    drive->id = strdup(config->drive_id);
    if (!drive->id)
        return vm_fail(error, -ENOMEM, "out of memory");
    return attach(vm, block_device(drive->block), block_loop(drive->block), &drive->mmio, error);
}

static int add_virtio(struct vm *vm, const struct vm_options *options, struct vm_error *error)
{
    const struct vm_config *config = options->config;
    struct virtio_mmio *mmio = NULL;
    int r = 0;

    for (size_t i = 0; r == 0 && i < config->drive_count; i++)
        r = add_drive(vm, &config->drives[i], error);
    if (r == 0 && config->vsock.uds_path) {
        r = vsock_dev_new(&vm->vsock, &config->vsock, options->vsock_max_connections, vm->loop, error);
        if (r == 0)
            r = attach(vm, vsock_dev_device(vm->vsock), vm->loop, &mmio, error);
        if (r == 0)
            vsock_dev_connect(vm->vsock, mmio);
    }
    if (r == 0 && config->entropy) {
        r = rng_new(&vm->rng, vm->loop, error);
        if (r == 0)
            r = attach(vm, rng_device(vm->rng), vm->loop, &mmio, error);
        if (r == 0)
            rng_connect(vm->rng, mmio);
    }
    if (r == 0 && config->balloon.present) {
        r = balloon_new(&vm->balloon, &config->balloon, &vm->memory.gmem, vm->loop, error);
        if (r == 0)
            r = attach(vm, balloon_device(vm->balloon), vm->loop, &mmio, error);
        if (r == 0)
            balloon_connect(vm->balloon, mmio);
    }
    return r;
}

static int add_legacy(struct vm *vm, const struct vm_options *options, struct vm_error *error)
{
    const char *path = options->config->serial.output_path;
    struct serial_options serial = {
            .size = sizeof(serial),
            .loop = vm->loop,
            .input_fd = path ? -1 : STDIN_FILENO,
            .output_fd = STDOUT_FILENO,
            .output_path = path,
            .irq = ioapic_line(&vm->ioapic, LAYOUT_SERIAL_IRQ),
    };
    struct bus_range range;
    int r = serial_new(&vm->serial, &serial, error);

    if (r < 0)
        return r;
    serial_range(vm->serial, &range);
    r = add_range(&vm->pio, range, error);
    if (r < 0)
        return r;
    r = i8042_new(&vm->kbd, ioapic_line(&vm->ioapic, LAYOUT_I8042_IRQ), on_i8042_reset, vm);
    if (r < 0)
        return vm_fail(error, r, "keyboard controller: %s", strerror(-r));
    i8042_range(vm->kbd, &range);
    return add_range(&vm->pio, range, error);
}

/* ---- the generation id ---- */

static int new_generation(struct vm *vm, struct vm_error *error)
{
    uint8_t id[16];

    if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id)) /* so few are never cut short */
        return vm_fail(error, -errno, "random bytes for the generation id: %s", strerror(errno));
    if (gmem_write(&vm->memory.gmem, (struct gpa){LAYOUT_GENERATION}, id, sizeof(id)) < 0)
        return vm_fail(error, -EFAULT, "guest memory is too small for the generation id; raise mem_size_mib");
    return 0;
}

int vm_set_generation(struct vm *vm, struct vm_error *error)
{
    int r = new_generation(vm, error);

    if (r == 0)
        irq_raise(&vm->event_irq);
    return r;
}

/* ---- making ---- */

static int open_for_boot(const char *path, const char *what, const char *way_out, int *ret_fd, struct vm_error *error)
{
    /* Without O_NONBLOCK a FIFO would keep us here; as it is it is no regular file, and refused for that. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0)
        return vm_fail(error, -errno, "%s %s: %s; %s", what, path, strerror(errno), way_out);
    *ret_fd = fd;
    return 0;
}

static int load_kernel(struct vm *vm, const struct vm_config *config, struct boot_entry *ret, struct vm_error *error)
{
    _cleanup_(fd_closep) int kernel_fd = -1, initrd_fd = -1;
    struct boot_options boot = {
            .mem = &vm->memory.gmem,
            .ram_bytes = vm->memory.bytes,
            .vcpu_count = config->machine.vcpu_count,
            .kernel_path = config->boot.kernel_image_path,
            .initrd_path = config->boot.initrd_path,
            .cmdline = config->boot.boot_args ? config->boot.boot_args : DEFAULT_BOOT_ARGS,
            .devices = vm->announced,
            .device_count = vm->virtio_count,
    };
    int r;

    if (!boot.kernel_path)
        return vm_fail(error, -EINVAL, "Cannot start microvm without kernel configuration.");
    r = open_for_boot(boot.kernel_path, "kernel", "name a vmlinux or bzImage in kernel_image_path", &kernel_fd, error);
    if (r == 0 && boot.initrd_path)
        r = open_for_boot(
                boot.initrd_path, "initramfs", "name another in initrd_path or leave it out", &initrd_fd, error);
    if (r < 0)
        return r;
    boot.kernel_fd = kernel_fd;
    boot.initrd_fd = initrd_fd;
    return boot_load(ret, &boot, error);
}

/* What a thread of its own fills while KVM, which waits more than it works, makes the rest. */
struct prefetching {
    struct vm *vm;
    const struct vm_source *from;
    pthread_t thread;
    bool begun;
};

/* Only advice: without it all goes well, and slower. */
static void *prefetch(void *arg)
{
    struct vm *vm = ((struct prefetching *)arg)->vm;
    const struct vm_source *from = ((struct prefetching *)arg)->from;
    _cleanup_(fd_closep) int fd = open(from->prefetch_path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct vm_error error;
    uint64_t pages = 0;
    int r;

    if (fd < 0)
        r = vm_fail(&error, -errno, "working set %s: %s", from->prefetch_path, strerror(errno));
    else
        r = memory_prefetch(&vm->memory, fd, from->prefetch_path, from->state->id, &pages, &error);
    if (r < 0)
        log_msg(LOG_WARN, "%s; memory comes as it is touched", error.text);
    else
        log_msg(LOG_DEBUG, "working set %s: %llu pages", from->prefetch_path, (unsigned long long)pages);
    return NULL;
}

/* Ends before any guest runs: it has no filter. */
static void prefetch_begin(struct prefetching *p)
{
    if (p->from && p->from->prefetch_path && p->from->backend == MEMORY_BACKEND_FILE)
        p->begun = pthread_create(&p->thread, NULL, prefetch, p) == 0;
}

static void prefetch_end(struct prefetching *p)
{
    if (p->begun)
        (void)pthread_join(p->thread, NULL);
}

static int load_memory(struct vm *vm, const struct vm_options *options, struct vm_error *error)
{
    const struct machine_config *machine = &options->config->machine;
    const struct vm_source *from = options->from;
    _cleanup_(fd_closep) int fd = -1;

    if (from->backend == MEMORY_BACKEND_UFFD)
        return memory_load_uffd(&vm->memory, machine, from->memory_path, error);
    fd = open(from->memory_path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return vm_fail(error, -errno, "memory file %s: %s; name the one that was made with this snapshot",
                from->memory_path, strerror(errno));
    return memory_load_file(&vm->memory, machine, fd, from->memory_path, from->state->id, error);
}

static int build(struct vm *vm, const struct vm_options *options, struct vm_error *error)
{
    const struct vm_config *config = options->config;
    struct bus_range timer = {.base = LAYOUT_BOOT_TIMER, .size = 1, .write = on_boot_timer, .device = vm};
    const struct vm_source *from = options->from;
    struct boot_entry entry;
    struct vcpus_options vcpus = {
            .kvm = &vm->kvm,
            .mem = &vm->memory.gmem,
            .count = config->machine.vcpu_count,
            .entry = &entry,
            .from = from ? from->state : NULL,
            .pio = &vm->pio,
            .mmio = &vm->mmio,
            .on_end = report_end,
            .userdata = vm,
    };
    struct prefetching prefetching = {.vm = vm, .from = from};
    int r = from ? load_memory(vm, options, error) : memory_init(&vm->memory, &config->machine, error);

    if (r == 0)
        prefetch_begin(&prefetching);
    if (r == 0)
        r = kvm_finish(options->early, &vm->kvm, error);
    if (r == 0)
        r = kvm_add_memory(&vm->kvm, &vm->memory, config->machine.track_dirty_pages, error);
    if (r == 0)
        r = add_range(&vm->mmio, ioapic_range(&vm->ioapic), error);
    if (r == 0)
        r = add_legacy(vm, options, error);
    if (r == 0)
        r = add_virtio(vm, options, error);
    if (r == 0 && options->boot_timer)
        r = add_range(&vm->mmio, timer, error);
    if (r == 0 && !from)
        r = load_kernel(vm, config, &entry, error);
    if (r == 0 && !from)
        r = new_generation(vm, error);
    if (r == 0)
        r = vcpus_init(&vm->vcpus, &vcpus, error);
    if (r == 0 && from)
        r = vm_restore(vm, from->state, error);
    prefetch_end(&prefetching);
    return r;
}

static int start_drives(struct vm *vm, struct vm_error *error)
{
    for (size_t i = 0; i < vm->drive_count; i++) {
        int r = block_start(vm->drives[i].block);

        if (r < 0)
            return vm_fail(error, r, "drive %s: can't make its thread: %s", vm->drives[i].id, strerror(-r));
    }
    return 0;
}

int vm_new(struct vm **ret, const struct vm_options *options, struct vm_error *error)
{
    _cleanup_(vm_freep) struct vm *vm = calloc(1, sizeof(*vm));
    int r;

    if (!vm)
        return vm_fail(error, -ENOMEM, "out of memory");
    vm->loop = options->loop;
    vm->kvm.fd = vm->kvm.vm_fd = -1;
    ioapic_init(&vm->ioapic, kvm_send_msi, &vm->kvm);
    vm->event_irq = ioapic_line(&vm->ioapic, LAYOUT_EVENT_IRQ);
    vm->start_us = options->start_us;
    vm->start_cpu_us = options->start_cpu_us;
    vm->on_end = options->on_end;
    vm->userdata = options->userdata;
    pthread_mutex_init(&vm->end_lock, NULL);
    vm->end_event =
            (struct loop_fd){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = EPOLLIN, .ready = on_end_event};
    if (vm->end_event.fd < 0)
        return vm_fail(error, -errno, "eventfd: %s", strerror(errno));
    r = loop_add(vm->loop, &vm->end_event);
    if (r < 0)
        return vm_fail(error, r, "epoll: %s", strerror(-r));
    r = build(vm, options, error);
    if (r == 0)
        r = start_drives(vm, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(vm);
    return 0;
}

static void free_devices(struct vm *vm)
{
    for (size_t i = 0; i < vm->drive_count; i++)
        block_stop(vm->drives[i].block);
    for (size_t i = 0; i < vm->virtio_count; i++)
        virtio_mmio_deinit(&vm->virtio[i]);
    for (size_t i = 0; i < vm->drive_count; i++) {
        block_free(vm->drives[i].block);
        free(vm->drives[i].id);
    }
    vsock_dev_free(vm->vsock);
    rng_free(vm->rng);
    balloon_free(vm->balloon);
    serial_free(vm->serial);
    i8042_free(vm->kbd);
}

/* vCPUs first, as they call devices; then devices, as they use memory. */
void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    vcpus_deinit(&vm->vcpus);
    free_devices(vm);
    if (vm->end_event.fd >= 0) {
        loop_remove(vm->loop, &vm->end_event);
        fd_close(vm->end_event.fd);
    }
    kvm_deinit(&vm->kvm);
    memory_deinit(&vm->memory);
    pthread_mutex_destroy(&vm->end_lock);
    free(vm);
}

/* ---- driving ---- */

static void run(struct vm *vm)
{
    if (vm->restored)
        vm_go_on(vm);
    vm->restored = false;
    vm->started = true;
    vcpus_run(&vm->vcpus);
}

int vm_start(struct vm *vm, struct vm_error *error)
{
    if (vm->started)
        return vm_fail(error, -EALREADY, "the VM runs already");
    run(vm);
    return 0;
}

int vm_pause(struct vm *vm, struct vm_error *error)
{
    if (!vm->started)
        return vm_fail(error, -EINVAL, "the VM was not started");
    vcpus_hold(&vm->vcpus);
    return 0;
}

int vm_resume(struct vm *vm, struct vm_error *error)
{
    if (!vm->started)
        return vm_fail(error, -EINVAL, "the VM was not started");
    run(vm);
    return 0;
}

int vm_send_ctrl_alt_del(struct vm *vm, struct vm_error *error)
{
    i8042_ctrl_alt_del(vm->kbd);
    return 0;
}

int vm_update_drive(struct vm *vm, const char *drive_id, const char *path_on_host, struct vm_error *error)
{
    for (size_t i = 0; i < vm->drive_count; i++) {
        struct vm_drive *drive = &vm->drives[i];
        int r;

        if (strcmp(drive->id, drive_id) != 0)
            continue;
        virtio_mmio_lock(drive->mmio);
        r = block_replace(drive->block, path_on_host, error);
        virtio_mmio_unlock(drive->mmio, r == 0);
        return r;
    }
    return vm_fail(error, -ENOENT, "drive %s: there is none of this name", drive_id);
}

static int need_balloon(const struct vm *vm, struct vm_error *error)
{
    return vm->balloon ? 0 : vm_fail(error, -ENOENT, "no balloon was configured; PUT /balloon before the start");
}

int vm_balloon_set_target(struct vm *vm, uint32_t amount_mib, struct vm_error *error)
{
    int r = need_balloon(vm, error);

    if (r == 0 && amount_mib > vm->memory.bytes >> 20)
        r = vm_fail(error, -EINVAL, "amount_mib %u: the guest has %llu MiB", amount_mib,
                (unsigned long long)vm->memory.bytes >> 20);
    if (r == 0)
        balloon_set_target(vm->balloon, amount_mib);
    return r;
}

int vm_balloon_set_interval(struct vm *vm, uint32_t seconds, struct vm_error *error)
{
    int r = need_balloon(vm, error);

    if (r == 0)
        balloon_set_interval(vm->balloon, seconds);
    return r;
}

int vm_balloon_stats(struct vm *vm, struct balloon_stats *ret, struct vm_error *error)
{
    int r = need_balloon(vm, error);

    if (r == 0)
        balloon_stats(vm->balloon, ret);
    return r;
}

void vm_get_stats(const struct vm *vm, struct vm_stats *ret)
{
    struct vm_stats stats = {0};
    struct vsock_stats vsock;

    for (uint32_t i = 0; i < vm->vcpus.count; i++) {
        const struct vcpu *vcpu = &vm->vcpus.table[i];

        stats.exit_io_in += __atomic_load_n(&vcpu->io_in, __ATOMIC_RELAXED);
        stats.exit_io_out += __atomic_load_n(&vcpu->io_out, __ATOMIC_RELAXED);
        stats.exit_mmio_read += __atomic_load_n(&vcpu->mmio_read, __ATOMIC_RELAXED);
        stats.exit_mmio_write += __atomic_load_n(&vcpu->mmio_write, __ATOMIC_RELAXED);
    }
    for (size_t i = 0; i < vm->drive_count; i++) {
        struct block_stats block;

        block_get_stats(vm->drives[i].block, &block);
        stats.block_reads += block.reads;
        stats.block_read_bytes += block.read_bytes;
        stats.block_writes += block.writes;
        stats.block_write_bytes += block.write_bytes;
        stats.block_flushes += block.flushes;
        stats.block_failures += block.failures;
    }
    if (vm->vsock) {
        vsock_dev_get_stats(vm->vsock, &vsock);
        stats.vsock_bytes_from_guest = vsock.bytes_from_guest;
        stats.vsock_bytes_to_guest = vsock.bytes_to_guest;
        stats.vsock_connections = vsock.connections;
    }
    *ret = stats;
}
