/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM is made of, as the API or the configuration file said it, checked
 * but not yet tried: paths are not opened here. Owned by the VMM thread once
 * the API server handed it over; strings are owned by the structure.
 *
 * There is no field for a network device, and none to make the root drive of
 * an IronClaw VM writable by accident: a drive is read-only unless its own
 * request says otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macro.h"

#define VM_MAX_VCPUS      32u
#define VM_MAX_DRIVES     8u
#define VM_MIN_MEMORY_MIB 1u    /* bare-metal guests are small */
#define VM_MAX_CMDLINE    2048u /* bytes with the NUL, Firecracker's limit */
#define VM_MAX_ID         64u
#define VM_ERROR_MAX      512u

/* What went wrong, for people: names the thing, the value and the way out. One line, no control characters. */
struct vm_error {
    char text[VM_ERROR_MAX];
};
/* Fills error->text (error may be NULL) and returns `code`, a negative errno. */
int vm_fail(struct vm_error *error, int code, const char *fmt, ...) _printf_(3, 4);

enum huge_pages { HUGE_PAGES_NONE, HUGE_PAGES_2M };

struct machine_config {
    uint32_t vcpu_count;   /* 1..VM_MAX_VCPUS */
    uint32_t mem_size_mib; /* VM_MIN_MEMORY_MIB.. */
    bool smt, track_dirty_pages;
    enum huge_pages huge_pages;
};

struct boot_source {
    char *kernel_image_path; /* NULL: not configured */
    char *initrd_path;       /* NULL: none */
    char *boot_args;         /* NULL: the default */
};

struct drive_config {
    char *drive_id, *path_on_host;
    bool is_root_device, is_read_only;
    bool writeback; /* cache_type Writeback: the guest may flush; Unsafe (Firecracker's default) offers no flush */
};

struct vsock_config {
    char *uds_path; /* NULL: not configured */
    uint32_t guest_cid;
};

struct balloon_config {
    bool present, deflate_on_oom;
    uint32_t amount_mib, stats_polling_interval_s; /* 0: no statistics */
};

struct serial_config {
    char *output_path; /* NULL: the monitor's stdout */
};

/* Requests about snapshots. */
struct snapshot_create_config {
    char *snapshot_path, *mem_file_path;
    bool diff;
};

enum memory_backend { MEMORY_BACKEND_FILE, MEMORY_BACKEND_UFFD };

struct snapshot_load_config {
    char *snapshot_path;
    char *backend_path;                /* of mem_backend, */
    enum memory_backend backend;       /* whose kind this is; */
    char *mem_file_path;               /* or this one, the older way to say File */
    char *uds_path;                    /* NULL: the vsock's path stays what it was */
    char *prefetch_path;               /* NULL: none */
    uint32_t expect_vcpus, expect_mib; /* what the machine must have; 0: whatever it has */
    bool track_dirty_pages, resume;
};

struct vm_config {
    char id[VM_MAX_ID + 1]; /* --id, "anonymous-instance" unless given */
    struct machine_config machine;
    struct boot_source boot;
    struct drive_config drives[VM_MAX_DRIVES];
    size_t drive_count; /* in the order of the guest's device names; a root device comes first */
    struct vsock_config vsock;
    struct balloon_config balloon;
    struct serial_config serial;
    bool entropy;
};

void vm_config_init(struct vm_config *config); /* Firecracker's defaults: 1 vCPU, 128 MiB */
void vm_config_deinit(struct vm_config *config);
