/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libironclaw for the CLI's own tests: no VM, commands run on the host as
 * they are. Two VMs exist, "alpha" (ready) and "omega" (failed, with hostile
 * bytes in its texts); one image, "base". Variables choose behaviours:
 *   FAKE_LOG        file that gets a line for each call worth checking
 *   FAKE_SPAWN_MS   how long a spawn takes (interrupted by a signal: cancelled)
 */
#include <ironclaw/ironclaw.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct ic_vm {
    char id[IC_VM_ID_MAX + 1];
    bool keep;
    uint32_t timeout_ms, memory_mib;
};

struct ic_exec {
    pid_t pid;
    uint32_t timeout_ms, max_output; /* which is always exceeded here */
    volatile sig_atomic_t cancelled;
};

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...)
{
    const char *path = getenv("FAKE_LOG");
    FILE *f = path ? fopen(path, "a") : NULL;
    va_list ap;

    if (!f)
        return;
    va_start(ap, fmt);
    (void)vfprintf(f, fmt, ap);
    va_end(ap);
    (void)fputc('\n', f);
    (void)fclose(f);
}

static int fail(struct ic_error *error, enum ic_error_code code, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
static int fail(struct ic_error *error, enum ic_error_code code, const char *fmt, ...)
{
    va_list ap;

    if (error) {
        error->code = code;
        va_start(ap, fmt);
        (void)vsnprintf(error->message, sizeof(error->message), fmt, ap);
        va_end(ap);
    }
    return -(int)code;
}

const char *ic_version(void)
{
    return IRONCLAW_VERSION;
}

const char *ic_error_name(enum ic_error_code code)
{
    return code == IC_ERR_NOT_FOUND ? "IC_ERR_NOT_FOUND" : "IC_ERR_OTHER";
}

/* ---- configuration ---- */

void ic_vm_config_init(struct ic_vm_config *config)
{
    *config = (struct ic_vm_config){.size = sizeof(*config), .vcpu_count = 1, .memory_mib = 256};
}

void ic_vm_config_deinit(struct ic_vm_config *config)
{
    free(config->vm_id);
    free(config->image);
    *config = (struct ic_vm_config){0};
}

int ic_vm_config_set(struct ic_vm_config *config, const char *key, const char *value, struct ic_error *error)
{
    note("set %s=%s", key, value);
    if (strcmp(key, "vm_id") == 0) {
        if (strchr(value, '/'))
            return fail(error, IC_ERR_INVALID, "vm_id: '%s' is not a VM id", value);
        free(config->vm_id);
        config->vm_id = strdup(value);
    } else if (strcmp(key, "image") == 0) {
        free(config->image);
        config->image = strdup(value);
    } else if (strcmp(key, "vcpu_count") == 0) {
        config->vcpu_count = (uint32_t)strtoul(value, NULL, 10);
    } else if (strcmp(key, "memory_mib") == 0) {
        config->memory_mib = (uint32_t)strtoul(value, NULL, 10);
    } else if (strcmp(key, "timeout_ms") == 0) {
        config->timeout_ms = (uint32_t)strtoul(value, NULL, 10);
    }
    return 0;
}

int ic_vm_config_load_json(
        struct ic_vm_config *config, const char *json, size_t len, const char *name, struct ic_error *error)
{
    (void)config;
    (void)json;
    (void)len;
    (void)name;
    (void)error;
    return 0;
}

int ic_vm_config_load_file(struct ic_vm_config *config, const char *path, struct ic_error *error)
{
    (void)config;
    note("load %s", path);
    return access(path, R_OK) < 0 ? fail(error, IC_ERR_NOT_FOUND, "%s: %s", path, strerror(errno)) : 0;
}

int ic_vm_config_validate(const struct ic_vm_config *config, struct ic_error *error)
{
    if (config->vcpu_count < 1 || config->vcpu_count > IC_VCPU_MAX)
        return fail(error, IC_ERR_INVALID, "vcpu_count: %u is not in 1..32", config->vcpu_count);
    if (config->memory_mib < IC_MEMORY_MIB_MIN)
        return fail(error, IC_ERR_INVALID, "memory_mib: %u is less than 64", config->memory_mib);
    return 0;
}

/* ---- VMs ---- */

const char *ic_vm_state_name(enum ic_vm_state state)
{
    return state == IC_VM_READY ? "ready" : state == IC_VM_FAILED ? "failed" : "other";
}

const char *ic_backend_name(enum ic_backend backend)
{
    return backend == IC_BACKEND_QEMU ? "qemu" : "auto";
}

const char *ic_isolation_name(enum ic_isolation isolation)
{
    return isolation == IC_ISOLATION_SOFTWARE_EMULATION ? "software emulation" : "hardware";
}

int ic_spawn_vm(const char *task_id, ic_vm **ret_vm, struct ic_error *error)
{
    (void)task_id;
    (void)ret_vm;
    return fail(error, IC_ERR_UNSUPPORTED, "not in the fake");
}

int ic_spawn_vm_with_config(const struct ic_vm_config *config, ic_vm **ret_vm, struct ic_error *error)
{
    const char *ms = getenv("FAKE_SPAWN_MS");
    long wait_ms = ms ? strtol(ms, NULL, 10) : 0;
    struct timespec t = {.tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000};
    struct ic_vm *vm;

    note("spawn keep=%d tied=%d", config->keep, config->tied_to_caller);
    if (config->image && strcmp(config->image, "base") != 0)
        return fail(error, IC_ERR_NOT_FOUND, "image %s: not found; run 'ironclaw image ls'", config->image);
    if (nanosleep(&t, NULL) < 0) {
        note("spawn cancelled");
        return fail(error, IC_ERR_CANCELLED, "cancelled");
    }
    vm = calloc(1, sizeof(*vm));
    if (!vm)
        return fail(error, IC_ERR_NO_MEMORY, "out of memory");
    (void)snprintf(vm->id, sizeof(vm->id), "%s", config->vm_id ? config->vm_id : "task-1");
    vm->keep = config->keep;
    vm->timeout_ms = config->timeout_ms;
    vm->memory_mib = config->memory_mib;
    *ret_vm = vm;
    return 0;
}

int ic_open_vm(const char *vm_id, ic_vm **ret_vm, struct ic_error *error)
{
    struct ic_vm *vm;
    const char *id = strncmp("alpha", vm_id, strlen(vm_id)) == 0   ? "alpha"
                     : strncmp("omega", vm_id, strlen(vm_id)) == 0 ? "omega"
                                                                   : NULL;

    if (!id)
        return fail(error, IC_ERR_NOT_FOUND, "no VM '%s'; see 'ironclaw ps -a'", vm_id);
    vm = calloc(1, sizeof(*vm));
    if (!vm)
        return fail(error, IC_ERR_NO_MEMORY, "out of memory");
    (void)snprintf(vm->id, sizeof(vm->id), "%s", id);
    *ret_vm = vm;
    return 0;
}

void ic_vm_free(ic_vm *vm)
{
    free(vm);
}

int ic_destroy_vm(ic_vm *vm, struct ic_error *error)
{
    (void)error;
    note("destroy %s", vm->id);
    return 0;
}

int ic_vm_stop(ic_vm *vm, uint32_t timeout_ms, struct ic_error *error)
{
    (void)error;
    note("stop %s %u", vm->id, timeout_ms);
    return 0;
}

int ic_vm_kill(ic_vm *vm, struct ic_error *error)
{
    (void)error;
    note("kill %s", vm->id);
    return 0;
}

int ic_vm_pause(ic_vm *vm, struct ic_error *error)
{
    (void)error;
    note("pause %s", vm->id);
    return 0;
}

int ic_vm_resume(ic_vm *vm, struct ic_error *error)
{
    (void)error;
    note("resume %s", vm->id);
    return 0;
}

int ic_vm_snapshot(ic_vm *vm, const char *name, uint64_t *ret_pause_us, struct ic_error *error)
{
    (void)error;
    note("snapshot %s %s", vm->id, name);
    *ret_pause_us = 12340;
    return 0;
}

int ic_restore_vm(const char *name, const struct ic_restore_options *options, ic_vm **ret_vm, struct ic_error *error)
{
    if (strcmp(name, "nope") == 0)
        return fail(error, IC_ERR_NOT_FOUND, "no snapshot 'nope'");
    note("restore %s as %s keep=%d max_lifetime_ms=%u", name, options->vm_id ? options->vm_id : "-", options->keep,
            options->max_lifetime_ms);
    if (options->max_disk_mib_per_s || options->max_disk_ops_per_s)
        note("max_disk=%u ops=%u", options->max_disk_mib_per_s, options->max_disk_ops_per_s);
    return ic_open_vm("alpha", ret_vm, error);
}

int ic_vm_fork(ic_vm *vm, const struct ic_fork_options *options, ic_vm **ret_vms, uint64_t *ret_pause_us,
        struct ic_error *error)
{
    note("fork %s %u %s", vm->id, options->count, options->vm_id ? options->vm_id : "-");
    *ret_pause_us = 4560;
    for (uint32_t i = 0; i < options->count; i++) {
        int r = ic_open_vm("alpha", &ret_vms[i], error);

        if (r < 0)
            return r;
    }
    return 0;
}

static int list_one(const char *name, const char *vm_id, struct ic_snapshot_info **ret, size_t *ret_count)
{
    struct ic_snapshot_info *info = calloc(1, sizeof(*info));

    if (!info)
        abort();
    *info = (struct ic_snapshot_info){.size = sizeof(*info),
            .backend = IC_BACKEND_QEMU,
            .vcpu_count = 1,
            .memory_mib = 256,
            .size_bytes = 1 << 20};
    (void)snprintf(info->name, sizeof(info->name), "%s", name);
    (void)snprintf(info->vm_id, sizeof(info->vm_id), "%s", vm_id);
    (void)snprintf(info->image, sizeof(info->image), "base");
    *ret = info;
    *ret_count = 1;
    return 0;
}

int ic_template_list(struct ic_snapshot_info **ret, size_t *ret_count, struct ic_error *error)
{
    (void)error;
    return list_one("0123456789abcdef", "", ret, ret_count);
}

int ic_snapshot_list(struct ic_snapshot_info **ret, size_t *ret_count, struct ic_error *error)
{
    (void)error;
    return list_one("before", "alpha", ret, ret_count);
}

static int remove_one(const char *kind, const char *name, struct ic_error *error)
{
    if (strcmp(name, "nope") == 0)
        return fail(error, IC_ERR_NOT_FOUND, "there is none");
    note("%s rm %s", kind, name);
    return 0;
}

int ic_template_remove(const char *name, struct ic_error *error)
{
    return remove_one("template", name, error);
}

int ic_snapshot_remove(const char *name, struct ic_error *error)
{
    return remove_one("snapshot", name, error);
}

static int verify_one(const char *name, struct ic_error *error)
{
    return strcmp(name, "bad") == 0 ? fail(error, IC_ERR_CORRUPT, "its memory is damaged") : 0;
}

int ic_template_verify(const char *name, ic_progress_fn progress, void *userdata, struct ic_error *error)
{
    (void)progress;
    (void)userdata;
    return verify_one(name, error);
}

int ic_snapshot_verify(const char *name, ic_progress_fn progress, void *userdata, struct ic_error *error)
{
    (void)progress;
    (void)userdata;
    return verify_one(name, error);
}

int ic_template_build(
        const struct ic_vm_config *config, bool force, char *ret_name, bool *ret_built, struct ic_error *error)
{
    (void)error;
    note("template build force=%d memory_mib=%u", force, config->memory_mib);
    (void)snprintf(ret_name, 65, "0123456789abcdef");
    *ret_built = force;
    return 0;
}

int ic_pool_run(const struct ic_vm_config *config, const struct ic_pool_options *options, struct ic_error *error)
{
    if (options->count == 13)
        return fail(error, IC_ERR_LIMIT, "limits.max_vms 12");
    note("pool run %u memory_mib=%u%s%s", options->count, config->memory_mib, options->warm_up ? " warm-up" : "",
            options->warm_up && !options->warm_up[0] ? "=none" : "");
    for (size_t i = 0; options->warm_up && options->warm_up[i]; i++)
        note("warm-up %s", options->warm_up[i]);
    options->ready(options->userdata, "00112233445566aa");
    return 0;
}

int ic_pool_list(struct ic_pool_info **ret, size_t *ret_count, struct ic_error *error)
{
    struct ic_pool_info *info = calloc(1, sizeof(*info));

    (void)error;
    if (!info)
        abort();
    *info = (struct ic_pool_info){.size = sizeof(*info),
            .pid = 42,
            .backend = IC_BACKEND_QEMU,
            .ready = 3,
            .wanted = 4,
            .vcpu_count = 1,
            .memory_mib = 256,
            .handed_over = 7};
    (void)snprintf(info->name, sizeof(info->name), "00112233445566aa");
    (void)snprintf(info->image, sizeof(info->image), "base");
    *ret = info;
    *ret_count = 1;
    return 0;
}

int ic_pool_stop(const char *name, struct ic_error *error)
{
    if (strcmp(name, "nope") == 0)
        return fail(error, IC_ERR_NOT_FOUND, "no pool 'nope'");
    note("pool stop %s", name);
    return 0;
}

int ic_template_prune(uint32_t max_age_days, uint32_t max_total_mib, size_t *ret_removed, struct ic_error *error)
{
    (void)error;
    note("template prune %u %u", max_age_days, max_total_mib);
    *ret_removed = 2;
    return 0;
}

int ic_vm_info(ic_vm *vm, struct ic_vm_info *ret, struct ic_error *error)
{
    bool failed = strcmp(vm->id, "omega") == 0;

    (void)error;
    *ret = (struct ic_vm_info){.size = sizeof(*ret),
            .state = failed ? IC_VM_FAILED : IC_VM_READY,
            .backend = IC_BACKEND_QEMU,
            .isolation = IC_ISOLATION_SOFTWARE_EMULATION,
            .keep = vm->keep,
            .vcpu_count = 1,
            .memory_mib = vm->memory_mib ? vm->memory_mib : 256,
            .created_unix_ms = 1,
            .boot_ms = 5};
    (void)snprintf(ret->vm_id, sizeof(ret->vm_id), "%s", vm->id);
    (void)snprintf(ret->image, sizeof(ret->image), "%s", failed ? "b\xff\x1b[31mse" : "base");
    (void)snprintf(ret->failure, sizeof(ret->failure), "%s", failed ? "\"panic\"\n\x80 \xe2\x82\xac" : "");
    return 0;
}

int ic_list_vms(struct ic_vm_info **ret, size_t *ret_count, struct ic_error *error)
{
    struct ic_vm_info *vms = calloc(2, sizeof(*vms));

    if (!vms)
        return fail(error, IC_ERR_NO_MEMORY, "out of memory");
    (void)ic_vm_info(&(struct ic_vm){.id = "alpha"}, &vms[0], error);
    (void)ic_vm_info(&(struct ic_vm){.id = "omega"}, &vms[1], error);
    *ret = vms;
    *ret_count = 2;
    return 0;
}

int ic_vm_inspect_json(ic_vm *vm, char **ret, struct ic_error *error)
{
    (void)error;
    return asprintf(ret, "{\"vm_id\": \"%s\"}\n", vm->id) < 0 ? -IC_ERR_NO_MEMORY : 0;
}

int ic_vm_open_log(ic_vm *vm, enum ic_log log, int *ret_fd, struct ic_error *error)
{
    const char *path = getenv(log == IC_LOG_CONSOLE ? "FAKE_CONSOLE" : "FAKE_MONITOR");

    (void)vm;
    *ret_fd = open(path ? path : "/dev/null", O_RDONLY | O_CLOEXEC);
    return *ret_fd < 0 ? fail(error, IC_ERR_IO, "%s", strerror(errno)) : 0;
}

const char *ic_audit_action_name(enum ic_audit_action action)
{
    return action == IC_AUDIT_KILLED ? "killed" : "refused";
}

int ic_audit_read(const char *vm_id, struct ic_audit_entry **ret, size_t *ret_count, uint64_t *ret_dropped,
        struct ic_error *error)
{
    static const struct ic_audit_entry entries[] = {
            {.time_unix_ms = 1700000000123,
                    .action = IC_AUDIT_KILLED,
                    .call = 59,
                    .call_name = "execve",
                    .args = {0x123, UINT64_MAX},
                    .count = 1,
                    .pid = 42,
                    .vm_id = "alpha",
                    .process = "ironclaw-vmm",
                    .thread = "fc_vcpu \x1b[2J"},
            {.time_unix_ms = 1700000001000, .action = IC_AUDIT_REFUSED, .call = -1, .count = 1, .text = "max_vms 64"},
    };
    size_t count = vm_id ? 1 : 2;

    if (vm_id && strcmp(vm_id, "alpha") != 0)
        return fail(error, IC_ERR_INVALID, "vm id %s", vm_id);
    *ret = calloc(count, sizeof(**ret));
    if (!*ret)
        return fail(error, IC_ERR_NO_MEMORY, "out of memory");
    memcpy(*ret, entries, count * sizeof(**ret));
    *ret_count = count;
    *ret_dropped = 7;
    return 0;
}

int ic_vm_stats(ic_vm *vm, struct ic_vm_stats *ret, struct ic_error *error)
{
    (void)vm;
    (void)error;
    *ret = (struct ic_vm_stats){.size = sizeof(*ret),
            .uptime_ms = 61000,
            .mem_total_kib = 1024,
            .mem_available_kib = UINT64_MAX,
            .processes = 3};
    return 0;
}

/* ---- commands ---- */

void ic_exec_options_init(struct ic_exec_options *options)
{
    *options = (struct ic_exec_options){.size = sizeof(*options), .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
}

static void child(const struct ic_exec_options *options)
{
    int null = open("/dev/null", O_RDONLY);

    (void)setpgid(0, 0);
    for (size_t i = 0; options->env && options->env[i]; i++)
        (void)putenv((char *)options->env[i]);
    if (options->cwd && chdir(options->cwd) < 0)
        _exit(127);
    (void)dup2(options->stdin_fd >= 0 ? options->stdin_fd : null, 0);
    (void)dup2(options->stdout_fd, 1);
    (void)dup2(options->stderr_fd, 2);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)execvp(options->argv[0], (char *const *)options->argv);
    _exit(errno == ENOENT ? 127 : 126);
}

int ic_vm_exec_start(ic_vm *vm, const struct ic_exec_options *options, ic_exec **ret, struct ic_error *error)
{
    struct ic_exec *exec = calloc(1, sizeof(*exec));

    if (!exec)
        return fail(error, IC_ERR_NO_MEMORY, "out of memory");
    note("exec %s tty=%d %ux%u", options->argv[0], options->tty, options->rows, options->cols);
    exec->timeout_ms = options->no_timeout ? 0 : options->timeout_ms ? options->timeout_ms : vm->timeout_ms;
    exec->max_output = options->no_max_output ? 0 : options->max_output_bytes;
    if (options->max_output_bytes || options->no_max_output)
        note("max_output=%u none=%d", options->max_output_bytes, options->no_max_output);
    exec->pid = fork();
    if (exec->pid == 0)
        child(options);
    *ret = exec;
    return exec->pid < 0 ? fail(error, IC_ERR_IO, "fork: %s", strerror(errno)) : 0;
}

int ic_exec_wait(ic_exec *exec, struct ic_exec_result *ret, struct ic_error *error)
{
    uint32_t waited_ms = 0;
    int status;

    *ret = (struct ic_exec_result){.size = sizeof(*ret)};
    while (waitpid(exec->pid, &status, WNOHANG) == 0) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        waited_ms += 5;
        if (exec->cancelled || (exec->timeout_ms && waited_ms >= exec->timeout_ms)) {
            (void)kill(-exec->pid, SIGKILL);
            (void)waitpid(exec->pid, &status, 0);
            exec->pid = 0;
            if (exec->cancelled)
                return fail(error, IC_ERR_CANCELLED, "cancelled");
            ret->outcome = IC_EXEC_TIMED_OUT;
            ret->signal = SIGKILL;
            ret->status = 124;
            return 0;
        }
    }
    exec->pid = 0;
    if (WIFSIGNALED(status)) {
        ret->outcome = IC_EXEC_SIGNALED;
        ret->signal = WTERMSIG(status);
        ret->status = 128 + ret->signal;
        return 0;
    }
    if (exec->max_output) {
        ret->outcome = IC_EXEC_OUTPUT_LIMIT;
        ret->signal = SIGKILL;
        ret->status = 125;
        (void)snprintf(ret->message, sizeof(ret->message), "wrote too much");
        return 0;
    }
    ret->status = ret->exit_code = WEXITSTATUS(status);
    if (ret->status == 126 || ret->status == 127) {
        ret->outcome = ret->status == 127 ? IC_EXEC_NOT_FOUND : IC_EXEC_NOT_EXECUTABLE;
        (void)snprintf(ret->message, sizeof(ret->message), "the program can't be run \x1b[31m");
    }
    return 0;
}

void ic_exec_resize(ic_exec *exec, uint16_t rows, uint16_t cols)
{
    (void)exec;
    note("resize %ux%u", rows, cols);
}

void ic_exec_signal(ic_exec *exec, int signo)
{
    (void)kill(-exec->pid, signo);
}

void ic_exec_cancel(ic_exec *exec)
{
    exec->cancelled = 1;
}

void ic_exec_free(ic_exec *exec)
{
    free(exec);
}

int ic_vm_exec(ic_vm *vm, const struct ic_exec_options *options, struct ic_exec_result *ret, struct ic_error *error)
{
    (void)vm;
    (void)options;
    (void)ret;
    return fail(error, IC_ERR_UNSUPPORTED, "not in the fake");
}

/* ---- files, images, kernels, host ---- */

static int copy(const char *from, const char *to, const struct ic_copy_options *options, struct ic_copy_result *ret)
{
    note("copy %s -> %s user=%s follow=%d owner=%d", from, to, options->user ? options->user : "", options->follow,
            options->keep_owner);
    (void)options->progress(options->userdata, "file\x1b", 1, 2);
    *ret = (struct ic_copy_result){.size = sizeof(*ret), .entries = 2, .bytes = 2048};
    return 0;
}

int ic_vm_copy_in(ic_vm *vm, const char *host_path, const char *guest_path, const struct ic_copy_options *options,
        struct ic_copy_result *ret, struct ic_error *error)
{
    (void)vm;
    (void)error;
    return copy(host_path, guest_path, options, ret);
}

int ic_vm_copy_out(ic_vm *vm, const char *guest_path, const char *host_path, const struct ic_copy_options *options,
        struct ic_copy_result *ret, struct ic_error *error)
{
    (void)vm;
    (void)error;
    return copy(guest_path, host_path, options, ret);
}

int ic_image_list(struct ic_image_info **ret, size_t *ret_count, struct ic_error *error)
{
    struct ic_image_info *images = calloc(1, sizeof(*images));

    if (!images)
        return fail(error, IC_ERR_NO_MEMORY, "out of memory");
    *images = (struct ic_image_info){.size = sizeof(*images), .name = "base", .kernel = "6.1.0", .size_bytes = 1 << 20};
    (void)memset(images->digest, 'a', 64);
    (void)snprintf(images->kernel_kind, sizeof(images->kernel_kind), "debian");
    *ret = images;
    *ret_count = 1;
    return 0;
}

int ic_image_build(const struct ic_image_build_options *options, bool *ret_built, struct ic_error *error)
{
    (void)error;
    note("build %s kernel=%s force=%d", options->name, options->kernel ? options->kernel : "", options->force);
    *ret_built = options->force;
    return 0;
}

int ic_image_import(const char *path, const struct ic_image_import_options *options, struct ic_error *error)
{
    (void)error;
    note("import %s %s", path, options->name);
    return 0;
}

int ic_image_inspect_json(const char *name, char **ret, struct ic_error *error)
{
    if (strcmp(name, "base") != 0)
        return fail(error, IC_ERR_NOT_FOUND, "no image '%s'", name);
    *ret = strdup("{\"name\": \"base\"}");
    return *ret ? 0 : -IC_ERR_NO_MEMORY;
}

int ic_image_remove(const char *name, bool force, struct ic_error *error)
{
    (void)force;
    return strcmp(name, "base") == 0 ? 0 : fail(error, IC_ERR_NOT_FOUND, "no image '%s'", name);
}

int ic_image_verify(const char *name, ic_progress_fn progress, void *userdata, struct ic_error *error)
{
    (void)progress;
    (void)userdata;
    return strcmp(name, "base") == 0 ? 0 : fail(error, IC_ERR_CORRUPT, "image %s: rootfs.erofs differs", name);
}

int ic_kernel_list(struct ic_kernel_info **ret, size_t *ret_count, struct ic_error *error)
{
    (void)error;
    *ret = NULL;
    *ret_count = 0;
    return 0;
}

int ic_kernel_build(bool force, ic_progress_fn progress, void *userdata, struct ic_error *error)
{
    (void)force;
    (void)error;
    (void)progress(userdata, "compiling", 0, 0);
    return 0;
}

int ic_probe_host(struct ic_host_report *ret, struct ic_error *error)
{
    (void)error;
    *ret = (struct ic_host_report){.size = sizeof(*ret),
            .backend = IC_BACKEND_QEMU,
            .isolation = IC_ISOLATION_SOFTWARE_EMULATION,
            .reason = "no /dev/kvm",
            .check_count = 1,
            .checks = {{.name = "kvm", .status = IC_CHECK_WARNING, .detail = "no /dev/kvm", .remedy = "use another"}}};
    return 0;
}

int ic_path_of(enum ic_path which, char **ret, struct ic_error *error)
{
    const char *home = getenv("IRONCLAW_HOME");

    (void)which;
    (void)error;
    return asprintf(ret, "%s/config.json", home ? home : "/nonexistent") < 0 ? -IC_ERR_NO_MEMORY : 0;
}
