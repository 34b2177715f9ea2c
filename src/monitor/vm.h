/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One VM: guest memory, vCPUs, buses and devices, built from a vm_config in
 * one go and driven from the VMM thread. All functions are called on that
 * thread; the vCPU threads and the block threads live inside.
 *
 *   vm_new      acquires everything: memory, KVM, kernel, drives, sockets, threads; no guest instruction has run
 *   vm_start    lets the vCPUs run
 *   vm_pause    returns when no vCPU is in the guest any more
 *   vm_save     the state of a paused VM, for a snapshot; vm_new makes a VM from it again
 *   vm_free     ends the threads, closes everything; right in every state
 *
 * The end of the guest (reset, triple fault, KVM error) reaches on_end on the
 * VMM thread, once.
 */
#pragma once

#include "base/loop.h"
#include "monitor/snapshot/format.h"
#include "monitor/vm-config.h"

struct vm;
struct kvm_early;

enum vm_end_cause {
    VM_END_RESET,    /* the guest asked for it: i8042 reset, Ctrl-Alt-Del; exit status 0 */
    VM_END_SHUTDOWN, /* KVM_EXIT_SHUTDOWN: triple fault. Linux with reboot=t ends so: exit status 0 */
    VM_END_SYSTEM_EVENT,
    VM_END_KVM_ERROR,  /* KVM_EXIT_FAIL_ENTRY, INTERNAL_ERROR or KVM_RUN failed */
    VM_END_HOST_ERROR, /* a thread of ours could not go on */
};

struct vm_end {
    enum vm_end_cause cause;
    int vcpu; /* -1: none */
    char text[VM_ERROR_MAX];
};

/* What a VM goes on from, in place of a kernel. */
struct vm_source {
    const struct snapshot *state;
    enum memory_backend backend;
    const char *memory_path;   /* the memory file, or the socket of who serves its pages */
    const char *prefetch_path; /* a working set (snapshot/prefetch.h) of that file; NULL: none */
};

struct vm_options {
    const struct vm_config *config; /* borrowed for vm_new() only */
    const struct vm_source *from;   /* borrowed likewise; its state's configuration is `config`. NULL: it boots */
    struct loop *loop;              /* the VMM thread's; outlives the VM */
    struct kvm_early *early;        /* KVM's part of it, perhaps begun already */
    void (*on_end)(void *userdata, const struct vm_end *end);
    void *userdata;
    uint32_t vsock_max_connections;  /* 0: as many as it can */
    bool boot_timer;                 /* --boot-timer: log the time from start_us to the guest's write of 123 */
    uint64_t start_us, start_cpu_us; /* of the process: CLOCK_MONOTONIC and CLOCK_PROCESS_CPUTIME_ID */
};

int vm_new(struct vm **ret, const struct vm_options *options, struct vm_error *error);
void vm_free(struct vm *vm);
DEFINE_CLEANUP(struct vm *, vm_free)

int vm_start(struct vm *vm, struct vm_error *error);
int vm_pause(struct vm *vm, struct vm_error *error);
int vm_resume(struct vm *vm, struct vm_error *error); /* also for the first time, when it was made from a snapshot */
/* -ENOTSUP: the guest has no keyboard controller that listens. */
int vm_send_ctrl_alt_del(struct vm *vm, struct vm_error *error);

/*
 * The state file of a VM that is paused, into an empty buffer, and its memory
 * into memory_fd. Nothing of the VM changes but the marks of dirty pages,
 * which vm_saved() gives back when no snapshot came of it after all; it is to
 * be called once after each vm_save(), also after one that failed.
 * -EINVAL: a diff, and nobody knows what changed.
 */
struct vm_save_options {
    const struct vm_config *config;
    const uint8_t *id; /* SNAPSHOT_ID_BYTES */
    bool diff;
    int memory_fd;
};
int vm_save(struct vm *vm, const struct vm_save_options *options, struct buf *ret, struct vm_error *error);
void vm_saved(struct vm *vm, bool kept);

/*
 * Another VM generation id than all VMs before (boot/dsdt.asl), and the guest
 * is told; a kernel that knows it reseeds its random numbers. At the end of a
 * load, before the vCPUs go on. A guest without ACPI sees nothing of it.
 */
int vm_set_generation(struct vm *vm, struct vm_error *error);

/* Opens the drive's (new) path_on_host again and tells the guest its size. -ENOENT: no such drive. */
int vm_update_drive(struct vm *vm, const char *drive_id, const char *path_on_host, struct vm_error *error);

struct balloon_stats {
    uint32_t target_pages, actual_pages, target_mib, actual_mib; /* pages of 4 KiB */
    uint64_t present; /* bit n: value n of the guest's statistics (virtio 1.2 §5.5.6.3) was reported */
    uint64_t value[16];
};
/* -ENOENT: no balloon configured. */
int vm_balloon_set_target(struct vm *vm, uint32_t amount_mib, struct vm_error *error);
int vm_balloon_set_interval(struct vm *vm, uint32_t seconds, struct vm_error *error);
int vm_balloon_stats(struct vm *vm, struct balloon_stats *ret, struct vm_error *error);

/* Counters since the start; all drives together. */
struct vm_stats {
    uint64_t exit_io_in, exit_io_out, exit_mmio_read, exit_mmio_write;
    uint64_t block_reads, block_read_bytes, block_writes, block_write_bytes, block_flushes, block_failures;
    uint64_t vsock_bytes_from_guest, vsock_bytes_to_guest, vsock_connections;
};
void vm_get_stats(const struct vm *vm, struct vm_stats *ret);
