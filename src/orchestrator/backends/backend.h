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

#include "orchestrator/confine.h"
#include "orchestrator/error.h"
#include "orchestrator/record.h"

struct backend_child {
    struct process_id id;
    int pidfd; /* -1: not started */
};

/* A VM at rest: what save() writes and a start may begin from. Whose files they are and where is the caller's business;
 * what is in them the backend's own. Some backends need no second file: memory_path is then NULL. */
struct backend_snapshot {
    const char *state_path, *memory_path;
    const char *touched_path; /* which pages a clone touches first, for a backend with BACKEND_TOUCHED; NULL: unknown */
};

/* What a backend needs to start a VM. All descriptors are borrowed and above 2. The directory record->run_dir is there,
 * for its sockets: BACKEND_VSOCK (made by its own hand or its monitor's), one for control; reap.c knows their names. */
struct backend_start {
    struct record *record; /* its jail is noted by confine_spawn() */
    const struct confine *confine;
    const char *mark;        /* PROCESS_MARK_ENV of the children */
    const char *kernel_args; /* the agent's part of the kernel command line */
    int rootfs_fd;           /* read-only */
    uint64_t max_file_bytes; /* of logs, and of the overlay's file */
    uint64_t file_ceiling;   /* of what save() writes, as in struct process_options */
    int overlay_fd;       /* of record->overlay_path: read-write, with its lock; -1: none. The VM's processes keep it */
    const char *uds_path; /* where the guest's vsock is to be reached; nothing is there yet */
    int console_fd, log_fd, alive_fd;
    int monitor_audit_fd, vsock_audit_fd; /* rings for what their filters refuse (jail/audit.h) */
    bool die_with_parent;
    /* Begin from this, whose agent is frozen, in place of a boot: the VM runs when start() returns, and its agent
     * connects to the ready port anew. Its files can be read by the VM's user. NULL: boot. */
    const struct backend_snapshot *snapshot;
    /* Boot, for save(): kernel_args has ironclaw.template=1, so the agent freezes itself when it is ready. A backend
     * whose vsock can't be saved leaves it out; the agent then says on its console that it is frozen. */
    bool for_template;
    /* Out, for the record: when the (last) process ran, as clock_now_us(). */
    uint64_t spawned_us;
    /* Out: filled as they start, also when a later step fails. `vsock` only of a monitor that has no vsock itself. */
    struct backend_child monitor, vsock;
};

#define BACKEND_GUEST_CID 3u /* each VM has a vsock of its own, so all may have the same */

/* Names in the run directory. */
#define BACKEND_VSOCK "v" /* and v_<port> for what the guest connects to */
#define BACKEND_QMP   "q"
#define BACKEND_API   "a"
/* The last words on the console of a template without a vsock: it can be saved (agent/freeze.c). */
#define BACKEND_FROZEN "ironclaw-agent: frozen, waiting for a vsock device"
/* What save() writes. */
#define BACKEND_STATE  "s"
#define BACKEND_MEMORY "m"

struct backend_probe {
    bool usable;
    enum ic_isolation isolation;
    char reason[256]; /* why it is used, or why it can't be */
};

enum {
    BACKEND_PAUSE = 1 << 0,
    BACKEND_SNAPSHOT = 1 << 1,   /* save() of a VM that runs */
    BACKEND_PERMISSIVE = 1 << 2, /* its filters are ours, so that they can be told to refuse nothing */
    BACKEND_LIMITS = 1 << 3,     /* max_lifetime_ms, max_connections */
    BACKEND_TEMPLATE = 1 << 4,   /* save() of a VM that was started for_template, and a start from that */
    BACKEND_TOUCHED = 1 << 5,    /* touched() tells what a clone has touched, and a start can use it */
    /* save() takes no VM with a vsock device: its agent lets go of it before, and gets one anew by resume(); the
     * connections that it had end (snapshots/freeze.c). */
    BACKEND_UNPLUG = 1 << 6,
    BACKEND_WRITES_STATE = 1 << 7, /* save() has the monitor write files, up to file_ceiling */
};

struct backend {
    enum ic_backend id;
    unsigned capabilities;
    const void *data; /* the operations' own */
    void (*probe)(const struct backend *backend, struct backend_probe *ret);
    int (*start)(const struct backend *backend, struct backend_start *start, struct ic_error *error);
    int (*pause)(const struct backend *backend, const char *run_dir, struct ic_error *error);
    int (*resume)(const struct backend *backend, const char *run_dir, struct ic_error *error);
    /* Path of the program that runs the guest, allocated; NULL when it is not there. */
    char *(*program)(const struct backend *backend);
    /* Which pages of its memory file the clone `record` has touched by now, into the new file `to`. */
    int (*touched)(const struct backend *backend, const struct record *record, const char *memory_path, const char *to,
            struct ic_error *error);
    /* With BACKEND_TEMPLATE: why there can be no template of such a VM, of which the kernel is known; NULL: there can.
     * A backend without this operation can make one of any. */
    const char *(*no_template)(const struct backend *backend, const struct record *record);
    /* With BACKEND_SNAPSHOT: why this VM can't be saved while it runs; NULL: it can. Without: any can. */
    const char *(*no_snapshot)(const struct backend *backend, const struct record *record);
    /* The VM, whose agent is frozen, into BACKEND_STATE and (unless the backend needs none) BACKEND_MEMORY in its run
     * directory. It is paused afterwards, also on failure if it lives; resume() or a kill is up to the caller, and so
     * is the limit of the size of its files. */
    int (*save)(const struct backend *backend, const struct record *record, struct ic_error *error);
};

/* NULL for AUTO and for values that are none. */
const struct backend *backend_get(enum ic_backend id);

/* The one that was asked for, or for AUTO the first of ironclaw and qemu that is usable. -IC_ERR_UNSUPPORTED,
 * -IC_ERR_BACKEND with its reason; -IC_ERR_DENIED when hardware isolation is required and can't be had. */
int backend_pick(enum ic_backend wanted, bool require_hardware, const struct backend **ret,
        struct backend_probe *ret_probe, struct ic_error *error);

/* Facts about /dev/kvm: usable only with the processor's vmx or svm. Fills `reason` with what is missing. */
bool backend_kvm_usable(char *reason, size_t size);

/* Where our own programs are (IRONCLAW_LIBEXEC, else as installed), and the path of one of them, allocated; NULL when
 * it is not there. */
const char *backend_libexec_dir(void);
char *backend_libexec(const char *program);

/* A listening socket in the VM's run directory; above 2. */
int backend_listen(
        const struct backend_start *start, const char *name, int backlog, int *ret_fd, struct ic_error *error);

extern const struct backend backend_qemu, backend_ironclaw, backend_firecracker;
