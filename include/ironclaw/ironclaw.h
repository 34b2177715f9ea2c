/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libironclaw: run code that nobody trusts in a throwaway Linux microVM.
 *
 *     struct ic_vm_config config;
 *     struct ic_error error;
 *     ic_vm *vm = NULL;
 *
 *     ic_vm_config_init(&config);
 *     ic_vm_config_set(&config, "image", "base", &error);
 *     if (ic_spawn_vm_with_config(&config, &vm, &error) < 0)
 *         fprintf(stderr, "%s\n", error.message);
 *
 * Conventions
 *   Return values: 0, or a negative enum ic_error_code; then *error (may be NULL) says what, which, and the way out.
 *   Output parameters (ret_*) are untouched on failure. Strings are UTF-8 and NUL-terminated.
 *   Ownership: what a function returns through ret_* belongs to the caller and has a free function below.
 *   Units are in the names: _ms, _mib, _bytes.
 *   Threads: a handle is used by one thread at a time; different handles are independent. ic_exec_resize,
 *   ic_exec_signal and ic_exec_cancel may be called from any thread and from signal handlers.
 *   State lives in directories (see ic_paths), shared with other processes: no daemon, and a VM outlives the handle.
 *   Structs with a `size` member: set it to sizeof; zero means the default in all else, but for struct ic_vm_config and
 *   struct ic_exec_options, which have init functions (0 is a descriptor, and a profile of system calls).
 *   Pointers must not be NULL where that is not said.
 *   On systems other than Linux every function that needs a VM returns -IC_ERR_UNSUPPORTED.
 */
#ifndef IRONCLAW_H
#define IRONCLAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define IC_API
#else
#define IC_API __attribute__((visibility("default")))
#endif

#define IC_VM_ID_MAX      64
#define IC_VCPU_MAX       32
#define IC_MEMORY_MIB_MIN 64

enum ic_error_code {
    IC_ERR_INVALID = 1,     /* an argument, option, configuration key or value is wrong */
    IC_ERR_NOT_FOUND = 2,   /* no such VM, image, kernel, file or directory */
    IC_ERR_EXISTS = 3,      /* the name is taken */
    IC_ERR_UNSUPPORTED = 4, /* this system, backend or build can't do it */
    IC_ERR_IO = 5,          /* a system call failed */
    IC_ERR_NO_SPACE = 6,    /* a disk or a table is full */
    IC_ERR_TIMEOUT = 7,     /* the VM or the peer did not answer in time */
    IC_ERR_STATE = 8,       /* the VM is not in a state that allows it */
    IC_ERR_BACKEND = 9,     /* the monitor (QEMU, ...) could not be started or failed */
    IC_ERR_GUEST = 10,      /* the guest answered with an error */
    IC_ERR_PROTOCOL = 11,   /* the guest or the monitor broke the protocol */
    IC_ERR_CORRUPT = 12,    /* a file does not have the digest or the format it must have */
    IC_ERR_CANCELLED = 13,  /* the caller's callback or a signal asked for it */
    IC_ERR_NO_MEMORY = 14,
    IC_ERR_DENIED = 15, /* permission, or refused under require_hardware_isolation */
    IC_ERR_LIMIT = 16,  /* more than the user's configuration allows (its "limits") */
};

struct ic_error {
    enum ic_error_code code;
    char message[1024]; /* one line, without newline */
};

IC_API const char *ic_version(void);
IC_API const char *ic_error_name(enum ic_error_code code); /* "IC_ERR_INVALID" */

/* ---- configuration ---------------------------------------------------------------------------------------------- */

enum ic_backend {
    IC_BACKEND_AUTO = 0,
    IC_BACKEND_IRONCLAW,
    IC_BACKEND_FIRECRACKER,
    IC_BACKEND_QEMU,
};

enum ic_isolation {
    IC_ISOLATION_NONE = 0,
    IC_ISOLATION_SOFTWARE_EMULATION, /* QEMU's TCG: a big program interprets the guest */
    IC_ISOLATION_HARDWARE,           /* KVM with hardware virtualization */
};

enum ic_overlay_kind { IC_OVERLAY_TMPFS = 0, IC_OVERLAY_EXT4 };

/* What to do where the host does not permit every stage of the jail around the VM's processes: start with those that it
 * does, and say so; refuse to start; or do without any. ironclaw-jail(7). */
enum ic_jail { IC_JAIL_AUTO = 0, IC_JAIL_STRICT, IC_JAIL_OFF };
/* How strictly the VM's processes are confined: ironclaw-vmm(8), --seccomp-level. Or, as guest_seccomp, the commands in
 * the guest: ironclaw-agent(8). */
enum ic_seccomp_level { IC_SECCOMP_MINIMAL = 0, IC_SECCOMP_BASIC, IC_SECCOMP_PERMISSIVE };

/* Names in JSON are the same. Strings belong to the config; set them with ic_vm_config_set only. */
struct ic_vm_config {
    size_t size;
    char *vm_id;         /* [a-zA-Z0-9_-]{1,64}; NULL: one is made up */
    uint32_t vcpu_count; /* 1..32; default 1 */
    uint32_t memory_mib; /* 64..; default 256 */
    char *image;         /* name or digest; default "base" */
    char *kernel_path;   /* instead of the image's */
    char *initrd_path;
    char *rootfs_path; /* always attached read-only */
    struct {
        enum ic_overlay_kind kind;
        uint32_t size_mib; /* tmpfs; 0: half of the guest's memory */
        char *path;        /* ext4 */
    } overlay;
    bool enable_networking; /* true is refused */
    enum ic_seccomp_level seccomp_level;
    enum ic_jail jail;
    enum ic_seccomp_level guest_seccomp; /* default basic */
    enum ic_backend backend;
    bool require_hardware_isolation;
    uint32_t timeout_ms;       /* for each command that has none of its own; 0: none */
    uint32_t boot_timeout_ms;  /* 0: 120,000 under software emulation, else 10,000 */
    uint32_t max_lifetime_ms;  /* from the start on, whatever the VM does then; its monitor sees to it; 0: none */
    uint32_t max_output_bytes; /* of each command, both outputs together; 0: none */
    uint32_t max_connections;  /* vsock connections at a time, 4..1023; 0: 1023 */
    /* What its processes may read from, and write to, each of the host's disks; by cgroup v2. 0: no limit. */
    uint32_t max_disk_mib_per_s, max_disk_ops_per_s;
    char **env; /* NAME=value, for each command; NULL-terminated or NULL */
    size_t env_count;
    char *user; /* for each command; NULL: the image's */
    /* Not in JSON: the VM ends when the thread that spawned it ends, or, taken from a pool, the process. Freeing its
     * handle does not end it; a descriptor stays open for it until then. */
    bool tied_to_caller;
    bool keep;       /* not in JSON: ic_vm_info says so; `ironclaw stop` keeps the record's logs until rm */
    bool cold_start; /* boot, though there is a template to start from */
    /* Not in JSON: told what takes long, which is the making of a template. As for images below. */
    int (*progress)(void *userdata, const char *what, uint64_t done, uint64_t total);
    void *progress_userdata;
};

IC_API void ic_vm_config_init(struct ic_vm_config *config);
IC_API void ic_vm_config_deinit(struct ic_vm_config *config);
/* One key as text; nested keys with a dot: "overlay.size_mib"; "env" appends. Refuses unknown keys and bad values. */
IC_API int ic_vm_config_set(struct ic_vm_config *config, const char *key, const char *value, struct ic_error *error);
/* A JSON object; unknown keys are refused; keys that are absent keep their value. `name` is used in messages. */
IC_API int ic_vm_config_load_json(
        struct ic_vm_config *config, const char *json, size_t len, const char *name, struct ic_error *error);
IC_API int ic_vm_config_load_file(struct ic_vm_config *config, const char *path, struct ic_error *error);
IC_API int ic_vm_config_validate(const struct ic_vm_config *config, struct ic_error *error);

/* ---- VMs -------------------------------------------------------------------------------------------------------- */

typedef struct ic_vm ic_vm;

enum ic_vm_state {
    IC_VM_CREATED = 0,
    IC_VM_BOOTING,
    IC_VM_READY,
    IC_VM_PAUSED,
    IC_VM_STOPPING,
    IC_VM_FAILED,
    IC_VM_GONE,
};
IC_API const char *ic_vm_state_name(enum ic_vm_state state);
IC_API const char *ic_backend_name(enum ic_backend backend);
IC_API const char *ic_isolation_name(enum ic_isolation isolation); /* "software emulation", "hardware" */

struct ic_vm_info {
    size_t size;
    char vm_id[IC_VM_ID_MAX + 1];
    enum ic_vm_state state;
    enum ic_backend backend; /* never AUTO */
    enum ic_isolation isolation;
    bool keep;
    uint32_t vcpu_count, memory_mib;
    char image[128];                /* name as asked for, or "" */
    char image_digest[65];          /* hex sha256 of the manifest, or "" */
    char kernel[128];               /* release */
    int32_t monitor_pid, vsock_pid; /* 0 when gone; vsock_pid also when the monitor has the vsock itself */
    int64_t created_unix_ms, ready_unix_ms;
    uint64_t boot_ms;      /* spawn to ready */
    char failure[512];     /* cause, when FAILED */
    char jail_missing[64]; /* the stages of its jail that it is without: "cgroup, root"; "all": off; "" none */
    char origin[160];      /* what it began as: "template ID", "snapshot NAME", "fork of ID"; "" a boot */
    char generation[33];   /* hex; no two VMs from one template or snapshot have the same; "" after a boot */
};

/* A VM with the default configuration, named task_id. Returns when it is ready. */
IC_API int ic_spawn_vm(const char *task_id, ic_vm **ret_vm, struct ic_error *error);
/* A signal handler of the caller, with SA_RESTART or without, that interrupts its wait for the guest cancels it:
 * everything is cleaned up and -IC_ERR_CANCELLED returned. So do the calls below that wait for the guest, except
 * ic_exec_wait, which goes on: handlers use ic_exec_signal and ic_exec_cancel. A signal between two waits does not; a
 * program with timers or children of its own blocks their signals meanwhile. */
IC_API int ic_spawn_vm_with_config(const struct ic_vm_config *config, ic_vm **ret_vm, struct ic_error *error);
/* A VM that runs already; a unique prefix of its id is enough. */
IC_API int ic_open_vm(const char *vm_id, ic_vm **ret_vm, struct ic_error *error);
/* Releases the handle, not the VM. Accepts NULL. */
IC_API void ic_vm_free(ic_vm *vm);
/* Ends the VM at once and removes all it left. Does not release the handle. Success when it is gone already. */
IC_API int ic_destroy_vm(ic_vm *vm, struct ic_error *error);
/* Asks the guest to power off, waits at most timeout_ms, then ends it. The record and logs of a `keep` VM stay. */
IC_API int ic_vm_stop(ic_vm *vm, uint32_t timeout_ms, struct ic_error *error);
/* Ends its processes at once. The record and logs of a `keep` VM stay. */
IC_API int ic_vm_kill(ic_vm *vm, struct ic_error *error);
IC_API int ic_vm_pause(ic_vm *vm, struct ic_error *error);
/* Its clock, which may have stood, gets the host's time; a guest that can't be told within 2 s goes on without. */
IC_API int ic_vm_resume(ic_vm *vm, struct ic_error *error);
/* Saves a running VM under a name, for ic_restore_vm(); it goes on afterwards. Its commands and connections are not
 * part of it: they end in what is restored, as if their caller had hung up. *ret_pause_us (may be NULL): how long the
 * VM did not run. With QEMU, and for ic_vm_fork(), too: -IC_ERR_UNSUPPORTED when it was booted cold or is tied to its
 * caller, -IC_ERR_GUEST while a command or a copy is in progress in it that does not end within a second, as its
 * connections have to end. Commands and copies that begin meanwhile wait. */
IC_API int ic_vm_snapshot(ic_vm *vm, const char *name, uint64_t *ret_pause_us, struct ic_error *error);

/* Called now and then; total is 0 when unknown. A value other than 0 cancels. */
typedef int (*ic_progress_fn)(void *userdata, const char *what, uint64_t done, uint64_t total);

struct ic_restore_options {
    size_t size;
    const char *vm_id;   /* NULL: one is made up */
    bool tied_to_caller; /* as in struct ic_vm_config */
    bool keep;
    uint32_t max_lifetime_ms;
    uint32_t max_disk_mib_per_s, max_disk_ops_per_s; /* 0: as when it was saved; UINT32_MAX: no limit */
    ic_progress_fn progress;                         /* may be NULL; not 0 from it: there is no VM, IC_ERR_CANCELLED */
    void *userdata;
};
/* A new VM that goes on where the snapshot was taken, with a generation, host name, ids and randomness of its own. */
IC_API int ic_restore_vm(
        const char *name, const struct ic_restore_options *options, ic_vm **ret_vm, struct ic_error *error);

struct ic_fork_options {
    size_t size;
    uint32_t count;          /* of children, 1..IC_FORK_MAX; 0: 1 */
    const char *vm_id;       /* of the child; with more than one, its beginning: "NAME-1", ...; NULL: made up */
    ic_progress_fn progress; /* may be NULL; not 0 from it: there are no children, IC_ERR_CANCELLED */
    void *userdata;
};
#define IC_FORK_MAX 64
/* Children of a running VM, which goes on. They are `keep` VMs. ret_vms has room for `count`; on failure there is none.
 * *ret_pause_us (may be NULL): how long the parent did not run. */
IC_API int ic_vm_fork(ic_vm *vm, const struct ic_fork_options *options, ic_vm **ret_vms, uint64_t *ret_pause_us,
        struct ic_error *error);
IC_API int ic_vm_info(ic_vm *vm, struct ic_vm_info *ret, struct ic_error *error);
/* All VMs of this user, oldest first; reaps what crashed processes left. Free with free(). */
IC_API int ic_list_vms(struct ic_vm_info **ret, size_t *ret_count, struct ic_error *error);
/* The record as JSON (configuration, state, processes, paths), for inspect. Free with free(). */
IC_API int ic_vm_inspect_json(ic_vm *vm, char **ret, struct ic_error *error);

enum ic_log { IC_LOG_CONSOLE = 0 /* kernel log */, IC_LOG_MONITOR /* the monitor's and our own processes' messages */ };
/* A descriptor to read the log from its start; the caller closes it. Guest text is raw: escape before printing. */
IC_API int ic_vm_open_log(ic_vm *vm, enum ic_log log, int *ret_fd, struct ic_error *error);

/* What system call filters and limits refused, of all VMs of this user: a ring of 10,000 entries, and what VMs that
 * live have still in their own. The VM's processes write the call, its arguments and the thread; a monitor in foreign
 * hands can lie there about its own VM. */
enum ic_audit_action {
    IC_AUDIT_KILLED = 1, /* a filter refused the call: it was not made, and the process ended */
    IC_AUDIT_ALLOWED,    /* made, under seccomp_level permissive; minimal would refuse it */
    IC_AUDIT_REFUSED,    /* a limit refused what somebody asked for */
    IC_AUDIT_ENDED,      /* a limit ended a VM or a command */
    IC_AUDIT_LOST,       /* `count` more entries of this process, which are lost */
};
struct ic_audit_entry {
    uint64_t number; /* of this list, in the order of writing */
    int64_t time_unix_ms;
    enum ic_audit_action action;
    int32_t call;       /* number of the system call; -1: none, or unknown */
    char call_name[28]; /* or "" */
    uint64_t args[6];
    uint64_t count; /* how often this thread made this call; time and arguments are those of the first */
    int32_t pid;
    char vm_id[IC_VM_ID_MAX + 1];
    char process[20], thread[16];
    char text[112]; /* of a limit: which, and what was asked for */
};
IC_API const char *ic_audit_action_name(enum ic_audit_action action);
/* Oldest first; of one VM, which may be gone, or of all (NULL). *ret_dropped: how many older ones made room. Reaps what
 * crashed processes left. Free with free(). */
IC_API int ic_audit_read(const char *vm_id, struct ic_audit_entry **ret, size_t *ret_count, uint64_t *ret_dropped,
        struct ic_error *error);

struct ic_vm_stats {
    size_t size;
    uint64_t uptime_ms, mem_total_kib, mem_available_kib, overlay_size_kib, overlay_used_kib, oom_kills;
    uint32_t processes, sessions;
};
IC_API int ic_vm_stats(ic_vm *vm, struct ic_vm_stats *ret, struct ic_error *error);

/* ---- commands --------------------------------------------------------------------------------------------------- */

struct ic_exec_options {
    size_t size;
    const char *const *argv; /* NULL-terminated */
    const char *const *env;  /* NAME=value, NULL-terminated; NULL: none besides the image's and the VM's */
    const char *cwd;         /* absolute; NULL: the image's */
    const char *user;        /* name or uid[:gid]; NULL: the VM's, else the image's */
    bool tty;
    uint16_t rows, cols;
    uint32_t timeout_ms;       /* 0: the VM's */
    bool no_timeout;           /* none, though the VM has one */
    uint32_t max_output_bytes; /* 0: the VM's */
    bool no_max_output;        /* none, though the VM has one */
    /* Borrowed; -1 means none. stdin: nothing is read without it. The caller's file flags are left as they are. When an
     * output's reader is gone (EPIPE), the command is ended as by SIGPIPE, with what it would write to the other. */
    int stdin_fd, stdout_fd, stderr_fd;
};

enum ic_exec_outcome {
    IC_EXEC_EXITED = 0,
    IC_EXEC_SIGNALED,
    IC_EXEC_TIMED_OUT,
    IC_EXEC_OUT_OF_MEMORY,
    IC_EXEC_NOT_FOUND,      /* the program is not there */
    IC_EXEC_NOT_EXECUTABLE, /* it is there and can't be executed */
    IC_EXEC_OUTPUT_LIMIT,   /* it wrote more than max_output_bytes, which were passed on, and was killed */
};

struct ic_exec_result {
    size_t size;
    enum ic_exec_outcome outcome;
    int exit_code; /* EXITED */
    int signal;    /* SIGNALED, TIMED_OUT, OUT_OF_MEMORY, OUTPUT_LIMIT; Linux numbering */
    int status;    /* what a shell would show: exit_code, 128+signal, 124, 126, 127; 125 for OUTPUT_LIMIT */
    uint64_t user_us, system_us, max_rss_kib;
    char message[512]; /* NOT_FOUND, NOT_EXECUTABLE, OUTPUT_LIMIT, TIMED_OUT with its VM (max_lifetime_ms): why */
};

typedef struct ic_exec ic_exec;

IC_API void ic_exec_options_init(struct ic_exec_options *options);
/* Starts the command; ic_exec_wait moves its input and output until it ends. */
IC_API int ic_vm_exec_start(ic_vm *vm, const struct ic_exec_options *options, ic_exec **ret, struct ic_error *error);
IC_API int ic_exec_wait(ic_exec *exec, struct ic_exec_result *ret, struct ic_error *error);
IC_API void ic_exec_resize(ic_exec *exec, uint16_t rows, uint16_t cols);
IC_API void ic_exec_signal(ic_exec *exec, int signo);
IC_API void ic_exec_cancel(ic_exec *exec); /* ic_exec_wait returns -IC_ERR_CANCELLED; the guest kills the command */
IC_API void ic_exec_free(ic_exec *exec);   /* a command that still runs is killed */
/* Start and wait. */
IC_API int ic_vm_exec(
        ic_vm *vm, const struct ic_exec_options *options, struct ic_exec_result *ret, struct ic_error *error);

/* ---- files ------------------------------------------------------------------------------------------------------ */

struct ic_copy_options {
    size_t size;
    const char *user; /* whose rights are used in the guest; NULL: root */
    bool follow;      /* follow a symlink that is the source itself */
    bool keep_owner;  /* into the guest: numeric owners are kept */
    ic_progress_fn progress;
    void *userdata;
};
struct ic_copy_result {
    size_t size;                      /* the caller's sizeof */
    uint64_t entries, bytes, skipped; /* skipped: sockets, devices, fifos, trees of the kernel's, what can't be read */
    char first_skipped[512];          /* the first one and why, or "" */
};
/* As `cp -a`: into an existing directory, or to a new name; a source that ends in "/." means its contents. */
IC_API int ic_vm_copy_in(ic_vm *vm, const char *host_path, const char *guest_path,
        const struct ic_copy_options *options, struct ic_copy_result *ret, struct ic_error *error);
IC_API int ic_vm_copy_out(ic_vm *vm, const char *guest_path, const char *host_path,
        const struct ic_copy_options *options, struct ic_copy_result *ret, struct ic_error *error);

/* ---- images and kernels ----------------------------------------------------------------------------------------- */

struct ic_image_info {
    size_t size;
    char name[128];       /* "": it has none any more, and something needs it */
    char digest[65];      /* hex sha256 of manifest.json */
    char kernel[128];     /* release */
    char kernel_kind[16]; /* "debian" or "fast" */
    uint64_t size_bytes;
    int64_t created_unix_ms;
};

struct ic_image_build_options {
    size_t size;
    const char *name;        /* recipe and image name; NULL: "base" */
    const char *kernel;      /* "debian", "fast", or NULL: the recipe's choice */
    bool force;              /* rebuild though nothing changed */
    ic_progress_fn progress; /* `what` names the step */
    void *userdata;
};
struct ic_image_import_options {
    size_t size;
    const char *name; /* required */
    const char *kernel;
    ic_progress_fn progress;
    void *userdata;
};

IC_API int ic_image_list(struct ic_image_info **ret, size_t *ret_count, struct ic_error *error); /* free() */
/* Does nothing when the image is there and its recipe, agent and kernel are unchanged; *ret_built says which. */
IC_API int ic_image_build(const struct ic_image_build_options *options, bool *ret_built, struct ic_error *error);
/* A root filesystem tar (also compressed), an OCI or docker archive, or an OCI layout directory. */
IC_API int ic_image_import(const char *path, const struct ic_image_import_options *options, struct ic_error *error);
IC_API int ic_image_inspect_json(const char *name, char **ret, struct ic_error *error); /* free() */
/* A name, or by a digest all of its names. IC_ERR_STATE: a VM or snapshot needs the image, and not `force`. With it the
 * name goes, and the image with a later change of images, when nothing needs it; one without a name goes at once.
 * -IC_ERR_NOT_FOUND also with it. */
IC_API int ic_image_remove(const char *name, bool force, struct ic_error *error);
/* Recomputes every digest. -IC_ERR_CORRUPT names the first part that differs. */
IC_API int ic_image_verify(const char *name, ic_progress_fn progress, void *userdata, struct ic_error *error);

struct ic_kernel_info {
    size_t size;
    char kind[16]; /* "debian" or "fast" */
    char release[128];
    char digest[65]; /* sha256 of vmlinux */
    uint64_t size_bytes;
};
IC_API int ic_kernel_list(struct ic_kernel_info **ret, size_t *ret_count, struct ic_error *error); /* free() */
/* The fast kernel from Debian's linux-source; minutes. Nothing to do when it is there. */
IC_API int ic_kernel_build(bool force, ic_progress_fn progress, void *userdata, struct ic_error *error);

/* ---- templates and snapshots ------------------------------------------------------------------------------------ */

/* A template is a VM that was booted once, for all that are configured alike: ic_spawn_vm_with_config() makes it when
 * it is first needed and starts from it. A snapshot has a name, and is somebody's. */
struct ic_snapshot_info {
    size_t size;
    char name[65];
    char vm_id[IC_VM_ID_MAX + 1]; /* of the VM that it was taken of; "" for a template */
    enum ic_backend backend;
    uint32_t vcpu_count, memory_mib;
    char image[128], image_digest[65];
    uint64_t size_bytes; /* on the disk */
    int64_t created_unix_ms, used_unix_ms;
};
IC_API int ic_template_list(struct ic_snapshot_info **ret, size_t *ret_count, struct ic_error *error); /* free() */
IC_API int ic_snapshot_list(struct ic_snapshot_info **ret, size_t *ret_count, struct ic_error *error); /* free() */
/* Makes the template of VMs that are configured so, unless it is there; *ret_built (may be NULL) says which. `name` has
 * room for 65 bytes and may be NULL. -IC_ERR_UNSUPPORTED: such VMs have none. */
IC_API int ic_template_build(
        const struct ic_vm_config *config, bool force, char *ret_name, bool *ret_built, struct ic_error *error);
IC_API int ic_template_remove(const char *name, struct ic_error *error);
IC_API int ic_snapshot_remove(const char *name, struct ic_error *error);
/* Recomputes every digest. -IC_ERR_CORRUPT names the part that differs. */
IC_API int ic_template_verify(const char *name, ic_progress_fn progress, void *userdata, struct ic_error *error);
IC_API int ic_snapshot_verify(const char *name, ic_progress_fn progress, void *userdata, struct ic_error *error);
/* Removes templates that were not used for max_age_days (0: any), and the longest unused while together they have more
 * than max_total_mib (0: no limit). Both UINT32_MAX: as the configuration says, which is done after each build anyway.
 */
IC_API int ic_template_prune(
        uint32_t max_age_days, uint32_t max_total_mib, size_t *ret_removed, struct ic_error *error);

/* ---- pools ------------------------------------------------------------------------------------------------------ */

struct ic_pool_options {
    size_t size;
    uint32_t count; /* of VMs that wait, 1..64; each takes its memory's worth of the limits */
    int stop_fd;    /* readable: end; 0: none */
    /* What each of them runs before it waits, so that what a first command needs is in its memory: NULL-terminated, as
     * argv of ic_vm_exec(), with the image's user and environment; it must end with status 0 within boot_timeout_ms, or
     * ic_pool_run() fails. NULL: `true`, and it does not matter how that ends. Empty: nothing. A process that it leaves
     * behind goes on when the VM is taken. */
    const char *const *warm_up;
    /* Once, when all of them wait. */
    void (*ready)(void *userdata, const char *name);
    void *userdata;
};
/* Keeps VMs of this configuration waiting, frozen and paused, for whoever starts one without a name of its own; makes
 * new ones for those that were taken. Returns when stop_fd says so, a signal handler interrupts it, or ic_pool_stop()
 * asks. Before all of them wait for the first time, a limit (IC_ERR_LIMIT) or three failures in a row end it; later it
 * tries on. When it is killed, what waits is removed by the next command, and what was taken goes on. */
IC_API int ic_pool_run(
        const struct ic_vm_config *config, const struct ic_pool_options *options, struct ic_error *error);

struct ic_pool_info {
    size_t size;
    char name[17];
    int32_t pid;
    enum ic_backend backend;
    uint32_t ready, wanted, vcpu_count, memory_mib;
    uint64_t handed_over;
    char image[128];
    char trouble[256]; /* why it can't make more VMs, or "" */
};
IC_API int ic_pool_list(struct ic_pool_info **ret, size_t *ret_count, struct ic_error *error); /* free() */
/* Returns when it and what waited in it are gone. */
IC_API int ic_pool_stop(const char *name, struct ic_error *error);

/* ---- host ------------------------------------------------------------------------------------------------------- */

enum ic_check_status { IC_CHECK_OK = 0, IC_CHECK_WARNING, IC_CHECK_FAILED };
struct ic_check {
    char name[32]; /* "kvm", "qemu", "image base", ... */
    enum ic_check_status status;
    char detail[256];
    char remedy[256]; /* what to do, or "" */
};
struct ic_host_report {
    size_t size;
    enum ic_backend backend; /* what `auto` picks; AUTO when nothing works */
    enum ic_isolation isolation;
    char reason[256];
    size_t check_count;
    struct ic_check checks[24];
};
IC_API int ic_probe_host(struct ic_host_report *ret, struct ic_error *error);

enum ic_path { IC_PATH_DATA, IC_PATH_STATE, IC_PATH_RUNTIME, IC_PATH_CONFIG };
/* Where things are for this user (IRONCLAW_HOME, else XDG). Free with free(). */
IC_API int ic_path_of(enum ic_path which, char **ret, struct ic_error *error);

#ifdef __cplusplus
}
#endif
#endif
