/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/user-limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/audit-log.h"
#include "orchestrator/config.h"
#include "orchestrator/paths.h"

static const struct member {
    const char *name;
    size_t offset;
    uint32_t min, max;
} members[] = {
        {"max_vms", offsetof(struct limits, max_vms), 1, 1u << 16},
        {"max_vcpus", offsetof(struct limits, max_vcpus), 1, IC_VCPU_MAX},
        {"max_memory_mib", offsetof(struct limits, max_memory_mib), IC_MEMORY_MIB_MIN, UINT32_MAX},
        {"max_total_memory_mib", offsetof(struct limits, max_total_memory_mib), IC_MEMORY_MIB_MIN, UINT32_MAX},
};

void limits_deinit(struct limits *limits)
{
    free(limits->path);
    *limits = (struct limits){0};
}

static int parse_member(const char *name, const json_t *value, struct limits *ret, struct ic_error *error)
{
    char shown[100];

    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        const struct member *m = &members[i];

        if (strcmp(m->name, name) != 0)
            continue;
        if (!json_is_integer(value) || json_integer_value(value) < m->min || json_integer_value(value) > m->max)
            return ic_fail(error, IC_ERR_INVALID, "limits.%s: must be a whole number, %u to %u", name, m->min, m->max);
        *(uint32_t *)((char *)ret + m->offset) = (uint32_t)json_integer_value(value);
        return 0;
    }
    return ic_fail(error, IC_ERR_INVALID,
            "unknown key 'limits.%s'; the keys are max_vms, max_vcpus, max_memory_mib, max_total_memory_mib",
            log_escape(shown, sizeof(shown), name, strlen(name)));
}

int limits_parse(const json_t *object, struct limits *ret, struct ic_error *error)
{
    struct limits limits = ret ? *ret : (struct limits){0};
    const char *name;
    json_t *value;

    if (!json_is_object(object))
        return ic_fail(error, IC_ERR_INVALID, "limits: must be an object {...}");
    json_object_foreach((json_t *)object, name, value)
    {
        int r = parse_member(name, value, &limits, error);

        if (r < 0)
            return r;
    }
    if (ret)
        *ret = limits;
    return 0;
}

static int load_text(struct limits *limits, const char *text, size_t len, struct ic_error *error)
{
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *object = json_object_get(root, "limits");
    struct ic_error inner = {0};
    int r = 0;

    if (!json_is_object(root))
        r = ic_fail(error, IC_ERR_INVALID, "%s: must be a JSON object {...}; it may hold limits", limits->path);
    else if (object && limits_parse(object, limits, &inner) < 0)
        r = ic_fail(error, inner.code, "%s: %.900s", limits->path, inner.message);
    json_decref(root);
    return r;
}

int limits_load(struct limits *ret, struct ic_error *error)
{
    struct limits limits = {.max_vms = LIMITS_DEFAULT_VMS};
    _cleanup_(freep) char *text = NULL;
    size_t len = 0;
    int r = path_of(IC_PATH_CONFIG, &limits.path, error);

    if (r < 0)
        return r;
    r = fd_read_file(AT_FDCWD, limits.path, CONFIG_MAX_BYTES, &text, &len);
    if (r == -ENOENT || r == -ENOTDIR)
        r = 0;
    else if (r < 0)
        r = ic_fail_errno(error, r, "configuration %s", limits.path);
    else
        r = load_text(&limits, text, len, error);
    if (r < 0)
        limits_deinit(&limits);
    else
        *ret = limits;
    return r;
}

static int refuse(const struct limits *limits, const struct record *record, const char *name, uint32_t limit,
        const char *asked, const char *way_out, struct ic_error *error)
{
    audit_note(record->vm_id[0] ? record->vm_id : NULL, AUDIT_REFUSED, "limits.%s %u: %s", name, limit, asked);
    return ic_fail(error, IC_ERR_LIMIT, "limits.%s %u: %s; %s, or raise the limit in %.300s", name, limit, asked,
            way_out, limits->path);
}

int limits_check_vm(const struct limits *limits, const struct record *record, struct ic_error *error)
{
    char asked[96];

    if (limits->max_memory_mib > 0 && record->memory_mib > limits->max_memory_mib) {
        (void)snprintf(asked, sizeof(asked), "the VM asks for memory_mib %u", record->memory_mib);
        return refuse(limits, record, "max_memory_mib", limits->max_memory_mib, asked, "give it less", error);
    }
    if (limits->max_vcpus > 0 && record->vcpu_count > limits->max_vcpus) {
        (void)snprintf(asked, sizeof(asked), "the VM asks for vcpu_count %u", record->vcpu_count);
        return refuse(limits, record, "max_vcpus", limits->max_vcpus, asked, "give it fewer", error);
    }
    return 0;
}

int limits_check_room(const struct limits *limits, const struct limits_usage *usage, const struct record *record,
        struct ic_error *error)
{
    static const char way_out[] = "end one ('ironclaw ps' lists them)";
    char asked[128];

    if (usage->vms >= limits->max_vms) {
        (void)snprintf(asked, sizeof(asked), "%u VMs of yours are there already", usage->vms);
        return refuse(limits, record, "max_vms", limits->max_vms, asked, way_out, error);
    }
    if (limits->max_total_memory_mib > 0 && usage->memory_mib + record->memory_mib > limits->max_total_memory_mib) {
        (void)snprintf(asked, sizeof(asked), "your VMs have %llu MiB, and this one asks for memory_mib %u",
                (unsigned long long)usage->memory_mib, record->memory_mib);
        return refuse(limits, record, "max_total_memory_mib", limits->max_total_memory_mib, asked, way_out, error);
    }
    return 0;
}
