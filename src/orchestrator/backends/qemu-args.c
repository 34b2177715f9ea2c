/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/backends/qemu-args.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/backends/tsc.h"
#include "orchestrator/names.h"

void qemu_args_deinit(struct qemu_args *a)
{
    for (size_t i = 0; i < a->count; i++)
        free(a->v[i]);
}

static void add(struct qemu_args *a, const char *fmt, ...) _printf_(2, 3);
static void add(struct qemu_args *a, const char *fmt, ...)
{
    va_list ap;

    if (a->failed || a->count == QEMU_ARGS_MAX) {
        a->failed = true;
        return;
    }
    va_start(ap, fmt);
    a->failed = vasprintf(&a->v[a->count], fmt, ap) < 0;
    va_end(ap);
    if (!a->failed)
        a->v[++a->count] = NULL;
}

/* A template, or one of its clones. */
static bool is_pluggable(const struct backend_start *start)
{
    return start->for_template || start->snapshot;
}

/*
 * The clock rate (see tsc.h), and what spares an emulated guest work that makes no sense there. Above all norandmaps:
 * QEMU 7.2 finds translated code by its virtual address, so with programs at random addresses each start of one
 * translates its loader and libraries anew, which made fork and exec of /bin/true five times as long.
 */
static void add_kernel_args(struct qemu_args *a, const struct backend_start *start)
{
    const struct record *record = start->record;
    bool emulated = record->isolation != IC_ISOLATION_HARDWARE;
    uint32_t khz = emulated ? tsc_khz() : 0;
    char clock[128] = "", lpj[48] = "";
    /* The kernel's HZ: delay loops per tick spare each processor its calibration. Unknown for a foreign kernel. */
    unsigned hz = strcmp(record->kernel_kind, "debian") == 0 ? 250 : strcmp(record->kernel_kind, "fast") == 0 ? 100 : 0;

    if (khz > 0) {
        if (hz > 0)
            (void)snprintf(lpj, sizeof(lpj), " lpj=%llu", (unsigned long long)khz * 1000 / hz);
        (void)snprintf(clock, sizeof(clock), "tsc_early_khz=%u tsc=reliable%s ", khz, lpj);
    }
    add(a, "-append");
    add(a,
            "%s%sconsole=ttyS0 loglevel=4 panic=-1 reboot=t %s random.trust_cpu=on cryptomgr.notests "
            "mitigations=%s %s",
            clock, emulated ? "no_timer_check nokaslr norandmaps " : "",
            /* The port without its driver, which would wait for a button to be pressed, and without room for the old
             * I/O ports, about whose lack the kernel complains on each look. */
            is_pluggable(start) ? "pcie_ports=compat pci=hpiosize=0" : "pci=off", emulated ? "off" : "auto",
            start->kernel_args);
}

static void add_machine(struct qemu_args *a, const struct backend_start *start)
{
    const struct record *record = start->record;
    bool hardware = record->isolation == IC_ISOLATION_HARDWARE;
    /* Our fast kernel takes its devices from the command line; any other may have to find them by ACPI. */
    bool acpi = strcmp(record->kernel_kind, "fast") != 0;

    add(a, "-M");
    add(a, "microvm,acpi=%s,rtc=on,x-option-roms=off,dump-guest-core=off,memory-backend=ram%s", acpi ? "on" : "off",
            is_pluggable(start) ? ",pcie=on" : "");
    add(a, "-bios");
    add(a, "qboot.rom");
    add(a, "-accel");
    if (hardware)
        add(a, "kvm");
    else
        add(a, "tcg,thread=%s,tb-size=256", record->vcpu_count > 1 ? "multi" : "single");
    /* With erms the guest's kernel copies by rep movsb, which the translator does byte by byte: three times the CPU
     * time per megabyte of a stream. Without, it copies by words in a loop. */
    add(a, "-cpu");
    add(a, "%s", hardware ? "host" : "max,la57=off,erms=off,fsrm=off");
    add(a, "-smp");
    add(a, "%u", record->vcpu_count);
    add(a, "-m");
    add(a, "%uM", record->memory_mib);
    add(a, "-object");
    add(a, "memory-backend-memfd,id=ram,size=%uM,share=on", record->memory_mib);
}

static void add_devices(struct qemu_args *a, const struct backend_start *start, int vhost_fd, int qmp_fd)
{
    const char *const devices[] = {
            "virtio-blk-device,drive=root",
            /* Without max-bytes one request makes QEMU allocate and fill as much as it asks for: up to 4 GiB. */
            "virtio-rng-device,rng=rng,max-bytes=65536,period=1000",
            /* The other: these two QEMU offers on its own, and a guest that takes them has it ask ironclaw-vsock for
             * them. */
            is_pluggable(start) ? "pcie-root-port,id=" QEMU_VSOCK_PORT ",io-reserve=0"
                                : "vhost-user-vsock-device,chardev=" QEMU_VSOCK_CHARDEV
                                  ",notify_on_empty=off,any_layout=off",
    };

    add(a, "-add-fd");
    add(a, "fd=%d,set=1", start->rootfs_fd);
    add(a, "-add-fd");
    add(a, "fd=%d,set=2", start->console_fd);
    add(a, "-blockdev");
    add(a, "driver=file,node-name=root,filename=/dev/fdset/"
           "1,read-only=on,auto-read-only=off,locking=off,drop-cache=off");
    if (start->overlay_fd >= 0) {
        add(a, "-add-fd");
        add(a, "fd=%d,set=3", start->overlay_fd);
        add(a, "-blockdev");
        add(a, "driver=file,node-name=overlay,filename=/dev/fdset/"
               "3,read-only=off,auto-read-only=off,locking=off,drop-cache=off");
    }
    add(a, "-object");
    add(a, "rng-random,id=rng,filename=/dev/urandom");
    if (vhost_fd >= 0) {
        add(a, "-chardev");
        add(a, "socket,id=" QEMU_VSOCK_CHARDEV ",fd=%d", vhost_fd);
    }
    add(a, "-chardev");
    add(a, "file,id=console,path=/dev/fdset/2,append=on");
    add(a, "-serial");
    add(a, "chardev:console");
    add(a, "-chardev");
    add(a, "socket,id=qmp,fd=%d,server=on,wait=off", qmp_fd);
    add(a, "-mon");
    add(a, "chardev=qmp,mode=control");
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        add(a, "-device");
        add(a, "%s", devices[i]);
        if (i == 0 && start->overlay_fd >= 0) {
            add(a, "-device");
            add(a, "virtio-blk-device,drive=overlay");
        }
    }
}

void qemu_args_build(struct qemu_args *a, const char *qemu, const struct backend_start *start, int vhost_fd, int qmp_fd)
{
    static const char *const fixed[] = {
            "-nodefaults",
            "-no-user-config",
            "-nographic",
            "-no-reboot",
            /* Version 2 tells a driver that broke the rules (DEVICE_NEEDS_RESET); version 1 just falls silent. */
            "-global",
            "virtio-mmio.force-legacy=off",
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    };

    add(a, "%s", qemu);
    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
        add(a, "%s", fixed[i]);
    add_machine(a, start);
    add_devices(a, start, vhost_fd, qmp_fd);
    add(a, "-kernel");
    add(a, "%s", start->record->kernel_path);
    if (start->record->initrd_path) {
        add(a, "-initrd");
        add(a, "%s", start->record->initrd_path);
    }
    add_kernel_args(a, start);
    if (start->snapshot) {
        add(a, "-incoming");
        add(a, "defer");
        add(a, "-S");
    }
}

void qemu_vsock_args_build(struct qemu_args *a, const char *vsock, const struct backend_start *start, int uds_fd,
        int vhost_fd, int held_fd)
{
    const struct record *record = start->record;

    add(a, "%s", vsock);
    add(a, "--guest-cid");
    add(a, "%u", BACKEND_GUEST_CID);
    add(a, "--uds-path");
    add(a, "%s", start->uds_path);
    add(a, "--uds-fd");
    add(a, "%d", uds_fd);
    add(a, "--fd");
    add(a, "%d", vhost_fd);
    add(a, "--log-level");
    add(a, "warning");
    add(a, "--seccomp-level");
    add(a, "%s", seccomp_words[record->seccomp_level]);
    add(a, "--audit-fd");
    add(a, "%d", start->vsock_audit_fd);
    if (record->max_connections > 0) {
        add(a, "--max-connections");
        add(a, "%u", record->max_connections);
    }
    if (record->max_lifetime_ms > 0) {
        add(a, "--max-lifetime-ms");
        add(a, "%u", record->max_lifetime_ms);
        add(a, "--hold-fd");
        add(a, "%d", held_fd);
    }
}
