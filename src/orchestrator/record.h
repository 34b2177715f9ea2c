/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of one VM, as state/vms/<id>/record.json. The file is written
 * by us in a directory that only this user can write, and is still parsed
 * strictly: every member present, of its type, in its range.
 */
#pragma once

#include "jail/jail.h"
#include "orchestrator/error.h"
#include "orchestrator/process.h"

#define RECORD_VERSION   4
#define RECORD_MAX_BYTES (1u << 20)
#define RECORD_MAX_ENV   4096u

/* Of a start, in order: each phase lasts from the end of the one before. */
enum record_phase {
    PHASE_LOOK,     /* configuration, image, template */
    PHASE_CLAIM,    /* name, directories, sockets, logs; or a VM that waited in a pool was taken */
    PHASE_SPAWN,    /* the first process runs in its jail */
    PHASE_LOAD,     /* the monitor has all that it needs, and the guest runs */
    PHASE_READY,    /* the agent said so */
    PHASE_IDENTITY, /* of a clone: it is somebody of its own */
    RECORD_PHASES,
};
extern const char *const record_phase_names[RECORD_PHASES];

struct record {
    char vm_id[IC_VM_ID_MAX + 1];
    enum ic_vm_state state;
    enum ic_backend backend;
    enum ic_isolation isolation;
    bool keep, tied;
    uint32_t vcpu_count, memory_mib, timeout_ms, boot_timeout_ms;
    uint32_t max_lifetime_ms, max_output_bytes, max_connections; /* 0: none, none, as many as there can be */
    uint32_t max_disk_mib_per_s, max_disk_ops_per_s;             /* 0: none */
    enum ic_overlay_kind overlay_kind;
    uint32_t overlay_size_mib;
    char *overlay_path; /* of ext4, else NULL */
    enum ic_seccomp_level seccomp_level, guest_seccomp;
    enum ic_jail jail_mode;
    char jail[JAIL_STAGES][192]; /* per stage: "" done for every process, else why not */
    uint32_t uid;                /* the VM's own; 0: that of who started it */
    char *cgroup;                /* path of its group; may be NULL */
    bool require_hardware_isolation;
    char image[128], image_digest[65], kernel[128], kernel_kind[16];
    char origin[160];    /* what it began as: "template <id>", "snapshot <name>", "fork of <id>"; "" a boot */
    char generation[33]; /* of the guest, hex: no two that come from one snapshot have the same; "" after a boot */
    char *kernel_path, *initrd_path, *rootfs_path; /* initrd_path may be NULL */
    char *run_dir;
    uint64_t run_dir_inode; /* its number when it was made: what is in it may be the monitor's word */
    char *user, *cwd;       /* defaults for commands; may be NULL */
    char **env;             /* the image's, then the VM's; NULL-terminated or NULL */
    char boot_id[BOOT_ID_SIZE];
    struct process_id creator, monitor, vsock;
    int64_t created_unix_ms, ready_unix_ms;
    uint64_t boot_ms;
    uint64_t phase_us[RECORD_PHASES]; /* how long each lasted; 0: there was none */
    char failure[512];
};

void record_deinit(struct record *record);

/* Allocated JSON text, NULL when out of memory, or when a string is not UTF-8. */
char *record_encode(const struct record *record);

/* 0, -EBADMSG, -EPROTONOSUPPORT (of another version), -ENOMEM. *ret is untouched on failure. */
int record_decode(struct record *ret, const char *text, size_t len);

/* Do the processes live that should? A monitor may have the vsock itself, and the VM then none for it. */
bool record_monitor_alive(const struct record *record);
bool record_vsock_alive(const struct record *record);

void record_to_info(const struct record *record, struct ic_vm_info *ret);
