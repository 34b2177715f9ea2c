/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/record.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "orchestrator/names.h"
#include "orchestrator/paths.h"

static void free_list(char **list)
{
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

void record_deinit(struct record *record)
{
    free(record->kernel_path);
    free(record->initrd_path);
    free(record->rootfs_path);
    free(record->overlay_path);
    free(record->run_dir);
    free(record->cgroup);
    free(record->user);
    free(record->cwd);
    free_list(record->env);
    *record = (struct record){0};
}

static json_t *encode_list(char *const *list)
{
    json_t *array = json_array();

    for (size_t i = 0; array && list && list[i]; i++) {
        if (json_array_append_new(array, json_string(list[i])) < 0) { /* not UTF-8 */
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

static json_t *encode_stages(const struct record *r)
{
    json_t *object = json_object();

    for (int i = 0; object && i < JAIL_STAGES; i++) {
        if (json_object_set_new(object, jail_stage_names[i], json_string(r->jail[i][0] ? r->jail[i] : "done")) < 0) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

const char *const record_phase_names[RECORD_PHASES] = {"look", "claim", "spawn", "load", "ready", "identity"};

static json_t *encode_phases(const struct record *r)
{
    json_t *object = json_object();

    for (int i = 0; object && i < RECORD_PHASES; i++) {
        if (json_object_set_new(object, record_phase_names[i], json_integer((json_int_t)r->phase_us[i])) < 0) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

static json_t *encode_process(const struct process_id *p)
{
    return json_pack("{s:i, s:I}", "pid", (int)p->pid, "start_ticks", (json_int_t)p->start_ticks);
}

char *record_encode(const struct record *r)
{
    json_t *root = json_object();
    char *text = NULL;
    int failed = 0;

    if (!root)
        return NULL;
#define ADD(...)                                                                                                       \
    do {                                                                                                               \
        json_t *part_ = json_pack(__VA_ARGS__);                                                                        \
        failed |= !part_ || json_object_update(root, part_) < 0;                                                       \
        json_decref(part_);                                                                                            \
    } while (0)
    ADD("{s:i, s:s, s:s, s:s}", "version", RECORD_VERSION, "vm_id", r->vm_id, "state", state_words[r->state], "failure",
            r->failure);
    ADD("{s:s, s:s, s:b, s:b}", "backend", backend_words[r->backend], "isolation", isolation_words[r->isolation],
            "keep", r->keep, "tied_to_caller", r->tied);
    ADD("{s:I, s:I, s:I, s:I}", "vcpu_count", (json_int_t)r->vcpu_count, "memory_mib", (json_int_t)r->memory_mib,
            "timeout_ms", (json_int_t)r->timeout_ms, "boot_timeout_ms", (json_int_t)r->boot_timeout_ms);
    ADD("{s:I, s:I, s:I}", "max_lifetime_ms", (json_int_t)r->max_lifetime_ms, "max_output_bytes",
            (json_int_t)r->max_output_bytes, "max_connections", (json_int_t)r->max_connections);
    ADD("{s:I, s:I}", "max_disk_mib_per_s", (json_int_t)r->max_disk_mib_per_s, "max_disk_ops_per_s",
            (json_int_t)r->max_disk_ops_per_s);
    ADD("{s:{s:s, s:I, s:s?}}", "overlay", "kind", overlay_words[r->overlay_kind], "size_mib",
            (json_int_t)r->overlay_size_mib, "path", r->overlay_path);
    ADD("{s:s, s:s, s:b, s:b}", "seccomp_level", seccomp_words[r->seccomp_level], "guest_seccomp",
            seccomp_words[r->guest_seccomp], "require_hardware_isolation", r->require_hardware_isolation,
            "enable_networking", 0);
    ADD("{s:{s:s, s:I, s:s?, s:o}}", "jail", "mode", jail_words[r->jail_mode], "uid", (json_int_t)r->uid, "cgroup",
            r->cgroup, "stages", encode_stages(r));
    ADD("{s:s, s:s}", "origin", r->origin, "generation", r->generation);
    ADD("{s:{s:s, s:s}}", "image", "name", r->image, "digest", r->image_digest);
    ADD("{s:{s:s, s:s, s:s?, s:s?}}", "kernel", "release", r->kernel, "kind", r->kernel_kind, "path", r->kernel_path,
            "initrd_path", r->initrd_path);
    ADD("{s:s?, s:s?, s:I, s:s?, s:s?}", "rootfs_path", r->rootfs_path, "run_dir", r->run_dir, "run_dir_inode",
            (json_int_t)r->run_dir_inode, "user", r->user, "cwd", r->cwd);
    ADD("{s:o}", "env", encode_list(r->env));
    ADD("{s:s, s:o, s:o, s:o}", "boot_id", r->boot_id, "creator", encode_process(&r->creator), "monitor",
            encode_process(&r->monitor), "vsock", encode_process(&r->vsock));
    ADD("{s:I, s:I, s:I}", "created_unix_ms", (json_int_t)r->created_unix_ms, "ready_unix_ms",
            (json_int_t)r->ready_unix_ms, "boot_ms", (json_int_t)r->boot_ms);
    ADD("{s:o}", "phases_us", encode_phases(r));
#undef ADD
    if (!failed)
        text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    return text;
}

/* Sticky, as the readers of base/buf.h: one check at the end. */
struct get {
    const json_t *object;
    int error;
};

static const json_t *member(struct get *g, const char *name)
{
    const json_t *value = json_object_get(g->object, name);

    if (!value && g->error == 0)
        g->error = -EBADMSG;
    return value;
}

static void get_text(struct get *g, const char *name, char *dst, size_t size)
{
    const json_t *value = member(g, name);

    if (!json_is_string(value) || json_string_length(value) >= size)
        g->error = g->error ? g->error : -EBADMSG;
    else
        memcpy(dst, json_string_value(value), json_string_length(value) + 1);
}

static void get_optional(struct get *g, const char *name, char **dst)
{
    const json_t *value = member(g, name);

    if (json_is_null(value) || g->error)
        return;
    if (!json_is_string(value)) {
        g->error = -EBADMSG;
        return;
    }
    *dst = strdup(json_string_value(value));
    if (!*dst)
        g->error = -ENOMEM;
}

static int64_t get_int(struct get *g, const char *name, int64_t min, int64_t max)
{
    const json_t *value = member(g, name);
    int64_t v = json_integer_value(value);

    if (!json_is_integer(value) || v < min || v > max) {
        g->error = g->error ? g->error : -EBADMSG;
        return min;
    }
    return v;
}

static bool get_bool(struct get *g, const char *name)
{
    const json_t *value = member(g, name);

    if (!json_is_boolean(value))
        g->error = g->error ? g->error : -EBADMSG;
    return json_is_true(value);
}

static unsigned get_word(struct get *g, const char *name, const char *const *words)
{
    const json_t *value = member(g, name);

    for (unsigned i = 0; json_is_string(value) && words[i]; i++) {
        if (strcmp(words[i], json_string_value(value)) == 0)
            return i;
    }
    g->error = g->error ? g->error : -EBADMSG;
    return 0;
}

static struct get get_object(struct get *g, const char *name)
{
    const json_t *value = member(g, name);

    if (!json_is_object(value))
        g->error = g->error ? g->error : -EBADMSG;
    return (struct get){.object = value, .error = g->error};
}

static void get_process(struct get *g, const char *name, struct process_id *ret)
{
    struct get p = get_object(g, name);

    ret->pid = (pid_t)get_int(&p, "pid", 0, INT32_MAX);
    ret->start_ticks = (uint64_t)get_int(&p, "start_ticks", 0, INT64_MAX);
    g->error = p.error;
}

static void get_env(struct get *g, struct record *r)
{
    const json_t *list = member(g, "env");
    json_t *item;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) > RECORD_MAX_ENV) {
        g->error = g->error ? g->error : -EBADMSG;
        return;
    }
    r->env = calloc(json_array_size(list) + 1, sizeof(*r->env));
    if (!r->env) {
        g->error = -ENOMEM;
        return;
    }
    json_array_foreach(list, i, item)
    {
        r->env[i] = json_is_string(item) ? strdup(json_string_value(item)) : NULL;
        if (!r->env[i]) {
            g->error = json_is_string(item) ? -ENOMEM : -EBADMSG;
            return;
        }
    }
}

static void get_jail(struct get *g, struct record *r)
{
    struct get part = get_object(g, "jail"), stages;

    r->jail_mode = get_word(&part, "mode", jail_words);
    r->uid = (uint32_t)get_int(&part, "uid", 0, UINT32_MAX);
    get_optional(&part, "cgroup", &r->cgroup);
    stages = get_object(&part, "stages");
    for (int i = 0; i < JAIL_STAGES; i++) {
        get_text(&stages, jail_stage_names[i], r->jail[i], sizeof(r->jail[i]));
        if (strcmp(r->jail[i], "done") == 0)
            r->jail[i][0] = '\0';
    }
    g->error = stages.error;
}

static int decode_object(struct record *r, const json_t *root)
{
    struct get g = {.object = root}, part;

    if (get_int(&g, "version", 0, INT32_MAX) != RECORD_VERSION)
        return g.error ? g.error : -EPROTONOSUPPORT;
    get_text(&g, "vm_id", r->vm_id, sizeof(r->vm_id));
    get_text(&g, "failure", r->failure, sizeof(r->failure));
    r->state = get_word(&g, "state", state_words);
    r->backend = get_word(&g, "backend", backend_words);
    r->isolation = get_word(&g, "isolation", isolation_words);
    r->keep = get_bool(&g, "keep");
    r->tied = get_bool(&g, "tied_to_caller");
    r->vcpu_count = (uint32_t)get_int(&g, "vcpu_count", 1, IC_VCPU_MAX);
    r->memory_mib = (uint32_t)get_int(&g, "memory_mib", 1, UINT32_MAX);
    r->timeout_ms = (uint32_t)get_int(&g, "timeout_ms", 0, UINT32_MAX);
    r->boot_timeout_ms = (uint32_t)get_int(&g, "boot_timeout_ms", 0, UINT32_MAX);
    r->max_lifetime_ms = (uint32_t)get_int(&g, "max_lifetime_ms", 0, UINT32_MAX);
    r->max_output_bytes = (uint32_t)get_int(&g, "max_output_bytes", 0, UINT32_MAX);
    r->max_connections = (uint32_t)get_int(&g, "max_connections", 0, UINT32_MAX);
    /* Not in snapshots from before there was such a limit. */
    if (json_object_get(root, "max_disk_mib_per_s") || json_object_get(root, "max_disk_ops_per_s")) {
        r->max_disk_mib_per_s = (uint32_t)get_int(&g, "max_disk_mib_per_s", 0, UINT32_MAX);
        r->max_disk_ops_per_s = (uint32_t)get_int(&g, "max_disk_ops_per_s", 0, UINT32_MAX);
    }
    r->seccomp_level = get_word(&g, "seccomp_level", seccomp_words);
    r->guest_seccomp = get_word(&g, "guest_seccomp", seccomp_words);
    r->require_hardware_isolation = get_bool(&g, "require_hardware_isolation");
    part = get_object(&g, "overlay");
    r->overlay_kind = get_word(&part, "kind", overlay_words);
    r->overlay_size_mib = (uint32_t)get_int(&part, "size_mib", 0, UINT32_MAX);
    get_optional(&part, "path", &r->overlay_path);
    g.error = part.error;
    get_jail(&g, r);
    get_text(&g, "origin", r->origin, sizeof(r->origin));
    get_text(&g, "generation", r->generation, sizeof(r->generation));
    part = get_object(&g, "image");
    get_text(&part, "name", r->image, sizeof(r->image));
    get_text(&part, "digest", r->image_digest, sizeof(r->image_digest));
    g.error = part.error;
    part = get_object(&g, "kernel");
    get_text(&part, "release", r->kernel, sizeof(r->kernel));
    get_text(&part, "kind", r->kernel_kind, sizeof(r->kernel_kind));
    get_optional(&part, "path", &r->kernel_path);
    get_optional(&part, "initrd_path", &r->initrd_path);
    g.error = part.error;
    get_optional(&g, "rootfs_path", &r->rootfs_path);
    get_optional(&g, "run_dir", &r->run_dir);
    r->run_dir_inode = (uint64_t)get_int(&g, "run_dir_inode", 0, INT64_MAX);
    get_optional(&g, "user", &r->user);
    get_optional(&g, "cwd", &r->cwd);
    get_env(&g, r);
    get_text(&g, "boot_id", r->boot_id, sizeof(r->boot_id));
    get_process(&g, "creator", &r->creator);
    get_process(&g, "monitor", &r->monitor);
    get_process(&g, "vsock", &r->vsock);
    r->created_unix_ms = get_int(&g, "created_unix_ms", 0, INT64_MAX);
    r->ready_unix_ms = get_int(&g, "ready_unix_ms", 0, INT64_MAX);
    r->boot_ms = (uint64_t)get_int(&g, "boot_ms", 0, INT64_MAX);
    part = get_object(&g, "phases_us");
    for (int i = 0; i < RECORD_PHASES; i++)
        r->phase_us[i] = (uint64_t)get_int(&part, record_phase_names[i], 0, INT64_MAX);
    g.error = part.error;
    if (g.error == 0 && (!path_vm_id_ok(r->vm_id) || !r->run_dir || r->run_dir[0] != '/'))
        return -EBADMSG;
    return g.error;
}

int record_decode(struct record *ret, const char *text, size_t len)
{
    struct record r = {0};
    json_t *root;
    int result;

    if (len > RECORD_MAX_BYTES)
        return -EBADMSG;
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (!root)
        return -EBADMSG;
    result = json_is_object(root) ? decode_object(&r, root) : -EBADMSG;
    json_decref(root);
    if (result < 0) {
        record_deinit(&r);
        return result;
    }
    *ret = r;
    return 0;
}

bool record_monitor_alive(const struct record *record)
{
    return process_well(&record->monitor);
}

bool record_vsock_alive(const struct record *record)
{
    return record->vsock.pid == 0 || process_well(&record->vsock);
}

static void list_missing(const struct record *r, char *dst, size_t size)
{
    size_t len = 0;

    dst[0] = '\0';
    if (r->jail_mode == IC_JAIL_OFF)
        (void)snprintf(dst, size, "all");
    for (int i = 0; r->jail_mode != IC_JAIL_OFF && i < JAIL_STAGES && len < size; i++) {
        if (r->jail[i][0])
            len += (size_t)snprintf(dst + len, size - len, "%s%s", len ? ", " : "", jail_stage_names[i]);
    }
}

void record_to_info(const struct record *r, struct ic_vm_info *ret)
{
    struct ic_vm_info info = {
            .size = sizeof(info),
            .state = r->state,
            .backend = r->backend,
            .isolation = r->isolation,
            .keep = r->keep,
            .vcpu_count = r->vcpu_count,
            .memory_mib = r->memory_mib,
            .monitor_pid = r->monitor.pid,
            .vsock_pid = r->vsock.pid,
            .created_unix_ms = r->created_unix_ms,
            .ready_unix_ms = r->ready_unix_ms,
            .boot_ms = r->boot_ms,
    };

    memcpy(info.vm_id, r->vm_id, sizeof(info.vm_id));
    memcpy(info.image, r->image, sizeof(info.image));
    memcpy(info.image_digest, r->image_digest, sizeof(info.image_digest));
    memcpy(info.kernel, r->kernel, sizeof(info.kernel));
    memcpy(info.failure, r->failure, sizeof(info.failure));
    memcpy(info.origin, r->origin, sizeof(info.origin));
    memcpy(info.generation, r->generation, sizeof(info.generation));
    list_missing(r, info.jail_missing, sizeof(info.jail_missing));
    *ret = info;
}
