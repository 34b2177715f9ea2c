/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backends: the program that runs the guest's vCPUs. Each is one constant
 * table of operations; what it can do is data, so that the callers need no
 * knowledge of any of them. A backend starts processes and talks to its
 * monitor; it knows nothing of the table of VMs, the agent, or images' store.
 *
 * Nothing in here can give a VM a network device: there is no field for one.
 */
#pragma once

#include "orchestrator/error.h"
#include "orchestrator/record.h"

struct backend_child {
    struct process_id id;
    int pidfd; /* -1: not started */
};

/* What a backend needs to start a VM. All descriptors are borrowed and above 2. */
struct backend_start {
    const struct record *record;
    const char *mark;        /* PROCESS_MARK_ENV of the children */
    const char *kernel_args; /* the agent's part of the kernel command line */
    int rootfs_fd;           /* read-only */
    int uds_fd, qmp_fd;      /* listening */
    const char *uds_path;
    int console_fd, log_fd, alive_fd;
    bool die_with_parent;
    struct backend_child monitor, vsock; /* out: filled as they start, also when a later step fails */
};

struct backend_probe {
    bool usable;
    enum ic_isolation isolation;
    char reason[256]; /* why it is used, or why it can't be */
};

enum {
    BACKEND_PAUSE = 1 << 0,
    BACKEND_SNAPSHOT = 1 << 1,
};

struct backend {
    enum ic_backend id;
    unsigned capabilities;
    void (*probe)(struct backend_probe *ret);
    int (*start)(struct backend_start *start, struct ic_error *error);
    int (*pause)(const char *run_dir, struct ic_error *error);
    int (*resume)(const char *run_dir, struct ic_error *error);
};

/* NULL for AUTO and for values that are none. */
const struct backend *backend_get(enum ic_backend id);

/* The one that was asked for, or for AUTO the first that is usable. -IC_ERR_UNSUPPORTED, -IC_ERR_BACKEND with its
 * reason; -IC_ERR_DENIED when hardware isolation is required and can't be had. */
int backend_pick(enum ic_backend wanted, bool require_hardware, const struct backend **ret,
        struct backend_probe *ret_probe, struct ic_error *error);

/* Facts about /dev/kvm: usable only with the processor's vmx or svm. Fills `reason` with what is missing. */
bool backend_kvm_usable(char *reason, size_t size);

extern const struct backend backend_qemu;
