/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names, types and defaults are those of Firecracker's API description
 * (firecracker.yaml, 1.7 to 1.13). What it has and we do not is in the tables
 * too, with the reason that the client gets.
 */
#include "monitor/api/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"

#define NO_NETWORK        "IronClaw VMs have no network card; use /vsock to talk to the guest"
#define NO_LIMITER        "rate limiters are not supported; limit the process with cgroups (io.max, cpu.max)"
#define PATH_MAX_         4095u
#define SNAPSHOT_PATH_MAX 4091u /* leaves room for a temporary name */
#define BAD_BODY          "An error occurred when deserializing the json body of a request: "
#define MAX_UDS           107u /* sun_path with its NUL is 108 bytes */
#define CID_MIN           3u   /* 0 to 2 and -1 are taken, virtio 1.2 §5.10.4 */
#define CID_MAX           (UINT32_MAX - 1)
#define UNSTORED          SIZE_MAX

enum field_type {
    FIELD_STRING,  /* char * */
    FIELD_BOOL,    /* bool */
    FIELD_U32,     /* uint32_t, min..max */
    FIELD_CHOICE,  /* one of `words`; its index + min is stored in a bool or an int */
    FIELD_LIMITER, /* refused with the reason unless it limits nothing */
    FIELD_NEVER,   /* a string or true is refused with the reason; false is what we do anyway */
    FIELD_ARRAY,
    FIELD_OBJECT,
};

struct field {
    const char *name;
    enum field_type type;
    bool required;
    bool any_case;
    size_t at; /* in struct api_request */
    size_t size;
    uint32_t min, max; /* of the number, or bytes of the string */
    unsigned has;
    const char *const *words;   /* ends with NULL */
    const char *reason;         /* why another word than these is refused */
    const struct field *fields; /* of an object, as of a body */
    size_t count;
};

#define BODY(table) .fields = (table), .count = ARRAY_SIZE(table)
#define AT(member)  .at = offsetof(struct api_request, member), .size = sizeof(((struct api_request *)0)->member)
#define WORDS(...)                                                                                                     \
    .words = (const char *const[])                                                                                     \
    {                                                                                                                  \
        __VA_ARGS__, NULL                                                                                              \
    }

static const struct field machine_fields[] = {
        {"vcpu_count", FIELD_U32, true, AT(machine.vcpu_count), .min = 1, .max = VM_MAX_VCPUS,
                .has = API_HAS_VCPU_COUNT},
        {"mem_size_mib", FIELD_U32, true, AT(machine.mem_size_mib), .min = VM_MIN_MEMORY_MIB, .max = UINT32_MAX,
                .has = API_HAS_MEM_SIZE},
        {"smt", FIELD_NEVER, .at = UNSTORED, .has = API_HAS_SMT,
                .reason = "every vCPU is a core of its own, so that guests are not told of siblings that they do not "
                          "have; leave it out or false"},
        {"track_dirty_pages", FIELD_BOOL, AT(machine.track_dirty_pages), .has = API_HAS_TRACK_DIRTY},
        {"huge_pages", FIELD_CHOICE, AT(machine.huge_pages), WORDS("None", "2M"), .has = API_HAS_HUGE_PAGES},
        {"cpu_template", FIELD_CHOICE, .at = UNSTORED, WORDS("None"), .has = API_HAS_SMT,
                .reason = "CPU templates are not supported: the monitor has one documented CPUID filter"},
};

static const struct field boot_fields[] = {
        {"kernel_image_path", FIELD_STRING, true, AT(boot.kernel_image_path), .max = PATH_MAX_},
        {"initrd_path", FIELD_STRING, AT(boot.initrd_path), .max = PATH_MAX_},
        {"boot_args", FIELD_STRING, AT(boot.boot_args), .max = VM_MAX_CMDLINE - 1},
};

static const struct field drive_fields[] = {
        {"drive_id", FIELD_STRING, true, AT(drive.drive_id), .max = VM_MAX_ID},
        {"path_on_host", FIELD_STRING, true, AT(drive.path_on_host), .max = PATH_MAX_},
        {"is_root_device", FIELD_BOOL, true, AT(drive.is_root_device)},
        {"is_read_only", FIELD_BOOL, AT(drive.is_read_only)},
        {"cache_type", FIELD_CHOICE, AT(drive.writeback), WORDS("Unsafe", "Writeback")},
        {"io_engine", FIELD_CHOICE, .at = UNSTORED, WORDS("Sync"),
                .reason = "only the Sync engine is there; each drive has a thread of its own"},
        {"rate_limiter", FIELD_LIMITER, .at = UNSTORED, .reason = NO_LIMITER},
        {"partuuid", FIELD_NEVER, .at = UNSTORED,
                .reason = "the root is the whole device; put root=PARTUUID=... into boot_args"},
        {"socket", FIELD_NEVER, .at = UNSTORED, .reason = "vhost-user drives are not supported; use path_on_host"},
};

static const struct field drive_patch_fields[] = {
        {"drive_id", FIELD_STRING, true, AT(drive.drive_id), .max = VM_MAX_ID},
        {"path_on_host", FIELD_STRING, AT(drive.path_on_host), .max = PATH_MAX_, .has = API_HAS_PATH},
        {"rate_limiter", FIELD_LIMITER, .at = UNSTORED, .reason = NO_LIMITER},
};

static const struct field vsock_fields[] = {
        {"guest_cid", FIELD_U32, true, AT(vsock.guest_cid), .min = CID_MIN, .max = CID_MAX},
        {"uds_path", FIELD_STRING, true, AT(vsock.uds_path), .max = MAX_UDS},
        {"vsock_id", FIELD_STRING, .at = UNSTORED, .max = VM_MAX_ID}, /* deprecated by Firecracker in 1.0 */
};

static const struct field entropy_fields[] = {
        {"rate_limiter", FIELD_LIMITER, .at = UNSTORED, .reason = NO_LIMITER},
};

static const struct field serial_fields[] = {
        {"serial_out_path", FIELD_STRING, AT(serial.output_path), .max = PATH_MAX_},
        {"rate_limiter", FIELD_LIMITER, .at = UNSTORED, .reason = "the log is bounded anyway; leave it out"},
};

static const struct field logger_fields[] = {
        {"log_path", FIELD_STRING, AT(logger.path), .max = PATH_MAX_, .has = API_HAS_PATH},
        /* From LOG_ERROR - 1. There is no Off and no Trace: errors are always logged, and debug is all there is. */
        {"level", FIELD_CHOICE, AT(logger.level), .min = UINT32_MAX,
                WORDS("Off", "Error", "Warning", "Info", "Debug", "Trace"), .any_case = true, .has = API_HAS_LEVEL},
        {"show_level", FIELD_BOOL, AT(logger.show_level), .has = API_HAS_SHOW_LEVEL},
        {"show_log_origin", FIELD_BOOL, AT(logger.show_origin), .has = API_HAS_SHOW_ORIGIN},
        {"module", FIELD_NEVER, .at = UNSTORED, .reason = "the log is not divided into modules; leave it out"},
};

static const struct field metrics_fields[] = {
        {"metrics_path", FIELD_STRING, true, AT(logger.path), .max = PATH_MAX_, .has = API_HAS_PATH},
};

static const struct field balloon_fields[] = {
        {"amount_mib", FIELD_U32, true, AT(balloon.amount_mib), .max = UINT32_MAX},
        {"deflate_on_oom", FIELD_BOOL, true, AT(balloon.deflate_on_oom)},
        {"stats_polling_interval_s", FIELD_U32, AT(balloon.stats_polling_interval_s), .max = UINT16_MAX},
        {"free_page_hinting", FIELD_NEVER, .at = UNSTORED, .reason = "free page hinting is not supported"},
        {"free_page_reporting", FIELD_NEVER, .at = UNSTORED, .reason = "free page reporting is not supported"},
};

static const struct field balloon_patch_fields[] = {
        {"amount_mib", FIELD_U32, true, AT(balloon.amount_mib), .max = UINT32_MAX},
};

static const struct field balloon_stats_fields[] = {
        {"stats_polling_interval_s", FIELD_U32, true, AT(balloon.stats_polling_interval_s), .max = UINT16_MAX},
};

static const struct field action_fields[] = {
        {"action_type", FIELD_CHOICE, true, AT(verb), .min = API_START,
                WORDS("InstanceStart", "FlushMetrics", "SendCtrlAltDel")}, /* in the order of enum api_verb */
};

static const struct field vm_fields[] = {
        {"state", FIELD_CHOICE, true, AT(paused), WORDS("Resumed", "Paused")},
};

static const struct field snapshot_create_fields[] = {
        {"snapshot_path", FIELD_STRING, true, AT(create.snapshot_path), .max = SNAPSHOT_PATH_MAX},
        {"mem_file_path", FIELD_STRING, true, AT(create.mem_file_path), .max = SNAPSHOT_PATH_MAX},
        {"snapshot_type", FIELD_CHOICE, AT(create.diff), WORDS("Full", "Diff")},
};

static const struct field mem_backend_fields[] = {
        {"backend_type", FIELD_CHOICE, true, AT(load.backend), WORDS("File", "Uffd")}, /* as enum memory_backend */
        {"backend_path", FIELD_STRING, true, AT(load.backend_path), .max = PATH_MAX_},
};

static const struct field vsock_override_fields[] = {
        {"uds_path", FIELD_STRING, true, AT(load.uds_path), .max = MAX_UDS},
};

/* Ours, as a state file from a monitor that its guest took over could ask for more than the VM had. */
static const struct field expect_fields[] = {
        {"vcpu_count", FIELD_U32, true, AT(load.expect_vcpus), .min = 1, .max = VM_MAX_VCPUS},
        {"mem_size_mib", FIELD_U32, true, AT(load.expect_mib), .min = VM_MIN_MEMORY_MIB, .max = UINT32_MAX},
};

static const struct field snapshot_load_fields[] = {
        {"snapshot_path", FIELD_STRING, true, AT(load.snapshot_path), .max = PATH_MAX_},
        {"mem_file_path", FIELD_STRING, AT(load.mem_file_path), .max = PATH_MAX_},
        {"mem_backend", FIELD_OBJECT, .at = UNSTORED, BODY(mem_backend_fields)},
        {"enable_diff_snapshots", FIELD_BOOL, AT(load.track_dirty_pages)},
        {"track_dirty_pages", FIELD_BOOL, AT(load.track_dirty_pages)},
        {"resume_vm", FIELD_BOOL, AT(load.resume)},
        {"network_overrides", FIELD_ARRAY, .at = UNSTORED, .reason = NO_NETWORK},
        {"vsock_override", FIELD_OBJECT, .at = UNSTORED, BODY(vsock_override_fields)},
        {"clock_realtime", FIELD_NEVER, .at = UNSTORED,
                .reason = "the guest's clock goes on where it was, and who runs in it sets the time; leave it out or "
                          "false"},
        {"prefetch_path", FIELD_STRING, AT(load.prefetch_path), .max = PATH_MAX_}, /* ours */
        {"expect", FIELD_OBJECT, .at = UNSTORED, BODY(expect_fields)},
};

static const struct route {
    const char *method, *path; /* "drives/" takes an id */
    enum api_verb verb;
    bool partial; /* no field is required, but there must be one */
    const struct field *fields;
    size_t count;
} routes[] = {
        {"GET", "", API_GET_INSTANCE},
        {"GET", "version", API_GET_VERSION},
        {"GET", "vm/config", API_GET_VM_CONFIG},
        {"GET", "machine-config", API_GET_MACHINE_CONFIG},
        {"GET", "balloon", API_GET_BALLOON},
        {"GET", "balloon/statistics", API_GET_BALLOON_STATS},
        {"PUT", "machine-config", API_PUT_MACHINE_CONFIG, BODY(machine_fields)},
        {"PATCH", "machine-config", API_PATCH_MACHINE_CONFIG, true, BODY(machine_fields)},
        {"PUT", "boot-source", API_PUT_BOOT_SOURCE, BODY(boot_fields)},
        {"PUT", "drives/", API_PUT_DRIVE, BODY(drive_fields)},
        {"PATCH", "drives/", API_PATCH_DRIVE, BODY(drive_patch_fields)},
        {"PUT", "vsock", API_PUT_VSOCK, BODY(vsock_fields)},
        {"PUT", "entropy", API_PUT_ENTROPY, BODY(entropy_fields)},
        {"PUT", "serial", API_PUT_SERIAL, BODY(serial_fields)},
        {"PUT", "logger", API_PUT_LOGGER, BODY(logger_fields)},
        {"PUT", "metrics", API_PUT_METRICS, BODY(metrics_fields)},
        {"PUT", "balloon", API_PUT_BALLOON, BODY(balloon_fields)},
        {"PATCH", "balloon", API_PATCH_BALLOON, BODY(balloon_patch_fields)},
        {"PATCH", "balloon/statistics", API_PATCH_BALLOON_STATS, BODY(balloon_stats_fields)},
        {"PUT", "actions", API_START, BODY(action_fields)},
        {"PATCH", "vm", API_PATCH_VM, BODY(vm_fields)},
        {"PUT", "snapshot/create", API_SNAPSHOT_CREATE, BODY(snapshot_create_fields)},
        {"PUT", "snapshot/load", API_SNAPSHOT_LOAD, BODY(snapshot_load_fields)},
};

/* Refused on purpose, with whatever method and body. */
static const struct {
    const char *path;
    const char *reason;
} refused[] = {
        {"network-interfaces", NO_NETWORK},
        {"mmds", "the metadata service needs a network card; " NO_NETWORK},
        {"cpu-config", "CPU templates are not supported: the monitor has one documented CPUID filter"},
        {"pmem", "persistent memory devices are not supported; use /drives"},
        {"hotplug", "memory hotplug is not supported; use /balloon"},
        {"balloon/hinting", "free page hinting is not supported"},
};

void api_request_deinit(struct api_request *request)
{
    free(request->boot.kernel_image_path);
    free(request->boot.initrd_path);
    free(request->boot.boot_args);
    free(request->drive.drive_id);
    free(request->drive.path_on_host);
    free(request->vsock.uds_path);
    free(request->serial.output_path);
    free(request->create.snapshot_path);
    free(request->create.mem_file_path);
    free(request->load.snapshot_path);
    free(request->load.backend_path);
    free(request->load.mem_file_path);
    free(request->load.uds_path);
    free(request->load.prefetch_path);
    free(request->logger.path);
    memset(request, 0, sizeof(*request));
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a floating point number";
    case JSON_NULL:
        return "null";
    default:
        return "a boolean";
    }
}

static int wrong_type(const struct field *f, const json_t *value, const char *expected, struct vm_error *error)
{
    return vm_fail(
            error, -EINVAL, BAD_BODY "invalid type for `%s`: %s, expected %s.", f->name, type_name(value), expected);
}

/* Copies at most 40 bytes of foreign text for a message. */
static const char *excerpt(char buf[48], const char *text)
{
    int n = snprintf(buf, 48, "%.40s", text);

    /* The cut may be inside of a character. */
    if (n == 40 && ((unsigned char)text[40] & 0xc0) == 0x80) {
        while (n > 0 && ((unsigned char)buf[--n] & 0xc0) == 0x80)
            ;
        buf[n] = '\0';
    }
    return buf;
}

static int set_string(struct api_request *r, const struct field *f, const json_t *value, struct vm_error *error)
{
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    char **at = f->at == UNSTORED ? NULL : (char **)(void *)((char *)r + f->at);

    if (!text)
        return wrong_type(f, value, "a string", error);
    if (len == 0 && f->at != offsetof(struct api_request, boot.boot_args))
        return vm_fail(error, -EINVAL, BAD_BODY "`%s` is empty.", f->name);
    if (len > f->max)
        return vm_fail(error, -EINVAL, BAD_BODY "`%s` has %zu bytes, at most %u are possible.", f->name, len, f->max);
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return vm_fail(error, -EINVAL, BAD_BODY "`%s` has a control character in it.", f->name);
    }
    if (!at)
        return 0;
    *at = strdup(text);
    return *at ? 0 : vm_fail(error, -ENOMEM, "no memory for the request");
}

static int set_u32(struct api_request *r, const struct field *f, const json_t *value, struct vm_error *error)
{
    json_int_t n = json_integer_value(value);

    if (!json_is_integer(value))
        return wrong_type(f, value, "an integer", error);
    if (n < (json_int_t)f->min || n > (json_int_t)f->max)
        return vm_fail(error, -EINVAL, BAD_BODY "invalid value for `%s`: %" JSON_INTEGER_FORMAT ", expected %u to %u.",
                f->name, n, f->min, f->max);
    *(uint32_t *)(void *)((char *)r + f->at) = (uint32_t)n;
    return 0;
}

static int set_choice(struct api_request *r, const struct field *f, const json_t *value, struct vm_error *error)
{
    const char *text = json_string_value(value);
    char buf[48], list[128] = "";
    size_t used = 0;

    if (!text)
        return wrong_type(f, value, "a string", error);
    for (int i = 0; f->words[i]; i++) {
        if ((f->any_case ? strcasecmp : strcmp)(text, f->words[i]) != 0) {
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%s`%s`", i ? ", " : "", f->words[i]);
            continue;
        }
        if (f->at != UNSTORED && f->size == sizeof(bool))
            *(bool *)((char *)r + f->at) = i;
        else if (f->at != UNSTORED)
            *(int *)(void *)((char *)r + f->at) = (int)f->min + i;
        return 0;
    }
    if (f->reason)
        return vm_fail(error, -EINVAL, "`%s`: `%s` is refused: %s.", f->name, excerpt(buf, text), f->reason);
    return vm_fail(error, -EINVAL, BAD_BODY "unknown variant `%s` of `%s`, expected one of %s.", excerpt(buf, text),
            f->name, list);
}

/* {"bandwidth": null, "ops": {}} and the like limit nothing. */
static bool is_hollow(const json_t *value)
{
    const char *key;
    json_t *member;

    json_object_foreach((json_t *)value, key, member)
    {
        if (!json_is_null(member) && !(json_is_object(member) && json_object_size(member) == 0))
            return false;
    }
    return true;
}

static int set_fields(struct api_request *r, const struct field *fields, size_t count, bool partial,
        const json_t *object, struct vm_error *error);

/* Recursive, by as much as the tables are. */
static int set_field(struct api_request *r, const struct field *f, const json_t *value, struct vm_error *error)
{
    switch (f->type) {
    case FIELD_STRING:
        return set_string(r, f, value, error);
    case FIELD_U32:
        return set_u32(r, f, value, error);
    case FIELD_CHOICE:
        return set_choice(r, f, value, error);
    case FIELD_BOOL:
        if (!json_is_boolean(value))
            return wrong_type(f, value, "a boolean", error);
        if (f->at != UNSTORED)
            *(bool *)((char *)r + f->at) = json_is_true(value);
        return 0;
    case FIELD_NEVER:
        if (json_is_false(value))
            return 0;
        if (!json_is_true(value) && !json_is_string(value))
            return wrong_type(f, value, "null", error);
        return vm_fail(error, -EINVAL, "`%s` is refused: %s.", f->name, f->reason);
    case FIELD_ARRAY:
        if (json_is_array(value) && json_array_size(value) > 0)
            return vm_fail(error, -EINVAL, "`%s` is refused: %s.", f->name, f->reason);
        return json_is_array(value) ? 0 : wrong_type(f, value, "an array", error);
    default:
        if (!json_is_object(value))
            return wrong_type(f, value, "an object", error);
        if (f->type == FIELD_LIMITER && !is_hollow(value))
            return vm_fail(error, -EINVAL, "`%s` is refused: %s.", f->name, f->reason);
        return f->fields ? set_fields(r, f->fields, f->count, false, value, error) : 0;
    }
}

static int set_fields(struct api_request *r, const struct field *fields, size_t count, bool partial,
        const json_t *object, struct vm_error *error)
{
    const struct field *end = fields + count, *f;
    const char *key;
    json_t *value;
    char buf[48];
    int rc;

    json_object_foreach((json_t *)object, key, value)
    {
        for (f = fields; f < end && strcmp(f->name, key) != 0; f++)
            ;
        if (f == end)
            return vm_fail(error, -EINVAL, BAD_BODY "unknown field `%s`.", excerpt(buf, key));
        /* As for Firecracker, null stands for an optional field that is not there. */
        if (json_is_null(value) && (!f->required || partial))
            continue;
        rc = set_field(r, f, value, error);
        if (rc < 0)
            return rc;
        r->has |= f->has;
    }
    for (f = fields; f < end && !partial; f++) {
        if (f->required && !json_object_get(object, f->name))
            return vm_fail(error, -EINVAL, BAD_BODY "missing field `%s`.", f->name);
    }
    return partial && r->has == 0 ? vm_fail(error, -EINVAL, "Empty PATCH request.") : 0;
}

/* Two ways to say where the memory is, and the texts are Firecracker's. */
static int check_load(struct api_request *r, struct vm_error *error)
{
    struct snapshot_load_config *load = &r->load;

    if (load->backend_path && load->mem_file_path)
        return vm_fail(error, -EINVAL,
                BAD_BODY "too many fields: either `mem_backend` or `mem_file_path` exclusively is required.");
    if (!load->backend_path && !load->mem_file_path)
        return vm_fail(error, -EINVAL, BAD_BODY "missing field: either `mem_backend` or `mem_file_path` is required.");
    if (load->mem_file_path) {
        load->backend_path = load->mem_file_path;
        load->mem_file_path = NULL;
    }
    if (load->prefetch_path && load->backend != MEMORY_BACKEND_FILE)
        return vm_fail(error, -EINVAL, "`prefetch_path` is for mem_backend File; leave it out.");
    return 0;
}

static int check_id(const char *id, struct vm_error *error)
{
    size_t len = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

    if (!*id)
        return vm_fail(error, -EINVAL, "The ID cannot be empty.");
    if (id[len])
        return vm_fail(error, -EINVAL, "API Resource IDs can only contain alphanumeric characters and underscores.");
    return len <= VM_MAX_ID ? 0 : vm_fail(error, -EINVAL, "API Resource IDs have at most %u characters.", VM_MAX_ID);
}

/* id: the one of the path, or NULL. */
static int parse_body(
        struct api_request *ret, const struct route *route, const char *id, const json_t *body, struct vm_error *error)
{
    struct api_request r = {.verb = route->verb, .drive = {.is_read_only = true}};
    int rc;

    if (!json_is_object(body))
        return vm_fail(error, -EINVAL, BAD_BODY "invalid type: %s, expected an object.", type_name(body));
    rc = set_fields(&r, route->fields, route->count, route->partial, body, error);
    if (rc == 0 && route->verb == API_SNAPSHOT_LOAD)
        rc = check_load(&r, error);
    if (rc == 0 && r.drive.drive_id) {
        rc = check_id(r.drive.drive_id, error);
        if (rc == 0 && id && strcmp(r.drive.drive_id, id) != 0)
            rc = vm_fail(error, -EINVAL, "The id from the path does not match the id from the body!");
    }
    if (rc < 0) {
        api_request_deinit(&r);
        return rc;
    }
    r.balloon.present = route->verb == API_PUT_BALLOON;
    r.logger.level = MAX(MIN(r.logger.level, (int)LOG_DEBUG), (int)LOG_ERROR);
    *ret = r;
    return 0;
}

int api_parse_body(struct api_request *ret, enum api_verb verb, const json_t *body, struct vm_error *error)
{
    for (const struct route *route = routes; route < routes + ARRAY_SIZE(routes); route++) {
        if (route->verb == verb && route->fields)
            return parse_body(ret, route, NULL, body, error);
    }
    return vm_fail(error, -EINVAL, "a request without a body");
}

/* The parser recurses on what it reads, so the depth is looked at first. Strings matter only in that they hide
 * brackets; what is wrong otherwise the parser will say. */
static bool is_too_deep(const char *text, size_t len)
{
    size_t depth = 0;
    bool quoted = false;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (c == '"')
            quoted = !quoted;
        else if (quoted && c == '\\')
            i++;
        else if (!quoted && (c == '{' || c == '['))
            depth++;
        else if (!quoted && (c == '}' || c == ']'))
            depth -= depth > 0;
        if (depth > API_MAX_DEPTH)
            return true;
    }
    return false;
}

json_t *api_parse_json(const char *text, size_t len, struct vm_error *error)
{
    json_error_t why;
    json_t *root;

    if (is_too_deep(text, len)) {
        (void)vm_fail(error, -EINVAL, BAD_BODY "more than %u levels.", API_MAX_DEPTH);
        return NULL;
    }
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!root)
        (void)vm_fail(error, -EINVAL, BAD_BODY "%s at line %d column %d.", why.text, why.line, why.column);
    return root;
}

/* Does `path` begin with the whole words of `prefix`? */
static bool is_under(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);

    return strncmp(path, prefix, len) == 0 && (path[len] == '\0' || path[len] == '/' || path[len] == '?');
}

static int check_refused(const char *method, const char *path, struct vm_error *error)
{
    char buf[48];

    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        if (is_under(path, refused[i].path))
            return vm_fail(error, -EINVAL, "%s /%s is refused: %s.", method, excerpt(buf, path), refused[i].reason);
    }
    return 0;
}

static const struct route *find_route(const char *method, const char *path, const char **ret_id)
{
    size_t len = strlen(path);

    for (const struct route *r = routes; r < routes + ARRAY_SIZE(routes); r++) {
        size_t n = strlen(r->path);
        bool takes_id = n > 0 && r->path[n - 1] == '/';

        if (strcmp(r->method, method) != 0)
            continue;
        *ret_id = NULL;
        if (takes_id && strncmp(path, r->path, n) == 0) {
            *ret_id = path + n;
            return r;
        }
        if (takes_id && len == n - 1 && memcmp(path, r->path, len) == 0) {
            *ret_id = "";
            return r;
        }
        /* A slash at the end makes no difference. */
        if (strncmp(path, r->path, n) == 0 && (len == n || (len == n + 1 && n > 0 && path[n] == '/')))
            return r;
    }
    return NULL;
}

int api_parse(struct api_request *ret, const char *method, const char *path, const char *body, size_t len,
        struct vm_error *error)
{
    _cleanup_(json_decrefp) json_t *json = NULL;
    const struct route *route;
    const char *id;
    char buf[48];
    int rc = check_refused(method, path, error);

    if (rc < 0)
        return rc;
    if (body && strcmp(method, "GET") == 0)
        return vm_fail(error, -EINVAL, "GET request cannot have a body.");
    if (!body && (strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0))
        return vm_fail(error, -EINVAL, "Empty %s request.", method);
    route = find_route(method, path, &id);
    if (!route)
        return vm_fail(error, -EINVAL, "Invalid request method and/or path: %s %s.", method, excerpt(buf, path));
    if (!body) {
        *ret = (struct api_request){.verb = route->verb};
        return 0;
    }
    if (id) {
        rc = check_id(id, error);
        if (rc < 0)
            return rc;
    }
    json = api_parse_json(body, len, error);
    return json ? parse_body(ret, route, id, json, error) : -EINVAL;
}

void api_fault(struct api_response *response, const char *fmt, ...)
{
    _cleanup_(json_decrefp) json_t *text = NULL, *object = NULL;
    char message[1024];
    va_list args;
    size_t n;

    va_start(args, fmt);
    (void)vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    text = json_string(message);
    if (!text) { /* not UTF-8, or cut inside of a character */
        for (char *p = message; *p; p++)
            *p = (unsigned char)*p < 0x80 ? *p : '?';
        text = json_string(message);
    }
    response->status = 400;
    object = json_pack("{s:O?}", "fault_message", text);
    n = object ? json_dumpb(object, response->body, sizeof(response->body) - 1, JSON_COMPACT) : 0;
    response->body[MIN(n, sizeof(response->body) - 1)] = '\0';
}

void api_answer(const char *method, const char *path, const char *body, size_t len, api_handler handler, void *userdata,
        struct api_response *response)
{
    struct api_request request;
    struct vm_error error;

    response->status = 0; /* what a handler that can't answer leaves */
    response->body[0] = '\0';
    if (api_parse(&request, method, path, body, len, &error) < 0) {
        api_fault(response, "%s", error.text);
        return;
    }
    handler(userdata, &request, response);
    api_request_deinit(&request);
}
