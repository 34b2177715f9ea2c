/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: one table of keys; text (ic_vm_config_set) and JSON are two
 * ways to the same setters. A document is applied as a whole or not at all.
 *
 * In the struct a zero means the default; written out in text or JSON a zero
 * is a value like any other and must be in the key's range.
 */
#include "orchestrator/config.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/snapshots/prune.h"
#include "orchestrator/user-limits.h"
#include "orchestrator/names.h"
#include "orchestrator/paths.h"

enum key_kind { KEY_STRING, KEY_U32, KEY_BOOL, KEY_WORD, KEY_ENV };

struct key {
    const char *name;
    enum key_kind kind;
    size_t offset;
    uint32_t min, max; /* KEY_U32; max 0: the host's memory */
    const char *const *words;
};

#define FIELD(member) offsetof(struct ic_vm_config, member)

/* clang-format off */
static const struct key keys[] = {
        {"vm_id", KEY_STRING, FIELD(vm_id)},
        {"vcpu_count", KEY_U32, FIELD(vcpu_count), 1, IC_VCPU_MAX},
        {"memory_mib", KEY_U32, FIELD(memory_mib), IC_MEMORY_MIB_MIN, 0},
        {"image", KEY_STRING, FIELD(image)},
        {"kernel_path", KEY_STRING, FIELD(kernel_path)},
        {"initrd_path", KEY_STRING, FIELD(initrd_path)},
        {"rootfs_path", KEY_STRING, FIELD(rootfs_path)},
        {"overlay.kind", KEY_WORD, FIELD(overlay.kind), .words = overlay_words},
        {"overlay.size_mib", KEY_U32, FIELD(overlay.size_mib), 0, CONFIG_MAX_OVERLAY},
        {"overlay.path", KEY_STRING, FIELD(overlay.path)},
        {"enable_networking", KEY_BOOL, FIELD(enable_networking)},
        {"seccomp_level", KEY_WORD, FIELD(seccomp_level), .words = seccomp_words},
        {"jail", KEY_WORD, FIELD(jail), .words = jail_words},
        {"guest_seccomp", KEY_WORD, FIELD(guest_seccomp), .words = seccomp_words},
        {"backend", KEY_WORD, FIELD(backend), .words = backend_words},
        {"require_hardware_isolation", KEY_BOOL, FIELD(require_hardware_isolation)},
        {"timeout_ms", KEY_U32, FIELD(timeout_ms), 0, UINT32_MAX},
        {"boot_timeout_ms", KEY_U32, FIELD(boot_timeout_ms), 0, UINT32_MAX},
        {"max_lifetime_ms", KEY_U32, FIELD(max_lifetime_ms), 0, UINT32_MAX},
        {"max_output_bytes", KEY_U32, FIELD(max_output_bytes), 0, UINT32_MAX},
        {"max_connections", KEY_U32, FIELD(max_connections), CONFIG_MIN_CONNECTIONS, CONFIG_MAX_CONNECTIONS},
        {"max_disk_mib_per_s", KEY_U32, FIELD(max_disk_mib_per_s), 0, CONFIG_MAX_DISK_MIB_PER_S},
        {"max_disk_ops_per_s", KEY_U32, FIELD(max_disk_ops_per_s), 0, UINT32_MAX},
        {"cold_start", KEY_BOOL, FIELD(cold_start)},
        {"env", KEY_ENV, FIELD(env)},
        {"user", KEY_STRING, FIELD(user)},
};
/* clang-format on */

/* Values come from outside: shortened and with control bytes shown as \xNN before they enter a message. */
struct shown {
    char text[160];
};

static const char *show(struct shown *s, const char *value)
{
    return log_escape(s->text, sizeof(s->text), value, strlen(value));
}

static void *field(struct ic_vm_config *config, const struct key *key)
{
    return (char *)config + key->offset;
}

static const void *field_const(const struct ic_vm_config *config, const struct key *key)
{
    return (const char *)config + key->offset;
}

uint32_t config_memory_mib_max(void)
{
    struct sysinfo info;
    uint64_t mib;

    if (sysinfo(&info) < 0)
        return UINT32_MAX;
    mib = (uint64_t)info.totalram * info.mem_unit >> 20;
    return mib > UINT32_MAX ? UINT32_MAX : (uint32_t)mib;
}

static bool is_utf8(const char *s)
{
    _cleanup_(json_decrefp) json_t *value = json_string(s);

    return value != NULL;
}

bool config_env_ok(const char *entry)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";

    return strspn(entry, first) > 0 && entry[strspn(entry, rest)] == '=' && strlen(entry) <= CONFIG_MAX_STRING;
}

void ic_vm_config_init(struct ic_vm_config *config)
{
    *config = (struct ic_vm_config){
            .size = sizeof(*config), .vcpu_count = 1, .memory_mib = 256, .guest_seccomp = IC_SECCOMP_BASIC};
}

static void free_env(struct ic_vm_config *config)
{
    for (size_t i = 0; i < config->env_count; i++)
        free(config->env[i]);
    free(config->env);
    config->env = NULL;
    config->env_count = 0;
}

void ic_vm_config_deinit(struct ic_vm_config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (keys[i].kind == KEY_STRING)
            free(*(char **)field(config, &keys[i]));
    }
    free_env(config);
    *config = (struct ic_vm_config){0};
}

static int set_string(struct ic_vm_config *config, const struct key *key, const char *value, struct ic_error *error)
{
    char **slot = field(config, key), *copy;

    if (strlen(value) > CONFIG_MAX_STRING)
        return ic_fail(error, IC_ERR_INVALID, "%s: longer than %u bytes", key->name, CONFIG_MAX_STRING);
    if (value[0] == '\0')
        return ic_fail(error, IC_ERR_INVALID, "%s: is empty; leave the key out to have the default", key->name);
    if (!is_utf8(value))
        return ic_fail(error, IC_ERR_INVALID, "%s: is not UTF-8", key->name);
    copy = strdup(value);
    if (!copy)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    free(*slot);
    *slot = copy;
    return 0;
}

static uint32_t key_max(const struct key *key)
{
    return key->max > 0 ? key->max : config_memory_mib_max();
}

static int fail_range(const struct key *key, const char *value, struct ic_error *error)
{
    struct shown s;

    if (key->max == 0)
        return ic_fail(error, IC_ERR_INVALID, "%s %s: must be %u to %u (this host's memory)", key->name,
                show(&s, value), key->min, key_max(key));
    return ic_fail(
            error, IC_ERR_INVALID, "%s %s: must be %u to %u", key->name, show(&s, value), key->min, key_max(key));
}

static int set_u32(struct ic_vm_config *config, const struct key *key, int64_t value, struct ic_error *error)
{
    char text[32];

    if (value < key->min || value > key_max(key)) {
        (void)snprintf(text, sizeof(text), "%lld", (long long)value);
        return fail_range(key, text, error);
    }
    *(uint32_t *)field(config, key) = (uint32_t)value;
    return 0;
}

static int set_bool(struct ic_vm_config *config, const struct key *key, bool value, struct ic_error *error)
{
    if (key->offset == FIELD(enable_networking) && value)
        return ic_fail(error, IC_ERR_INVALID,
                "enable_networking true: IronClaw VMs have no network card; leave the key out, and use copy and exec "
                "to move data");
    *(bool *)field(config, key) = value;
    return 0;
}

static int set_word(struct ic_vm_config *config, const struct key *key, const char *value, struct ic_error *error)
{
    char list[128] = "";
    struct shown s;

    for (unsigned i = 0; key->words[i]; i++) {
        if (strcmp(key->words[i], value) == 0) {
            *(unsigned *)field(config, key) = i;
            return 0;
        }
        (void)snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "", key->words[i]);
    }
    return ic_fail(error, IC_ERR_INVALID, "%s '%s': must be one of %s", key->name, show(&s, value), list);
}

static int add_env(struct ic_vm_config *config, const char *entry, struct ic_error *error)
{
    struct shown s;
    char **grown, *copy;

    if (!config_env_ok(entry))
        return ic_fail(error, IC_ERR_INVALID,
                "env '%s': must be NAME=value, with a name of letters, digits and _, at most %u bytes", show(&s, entry),
                CONFIG_MAX_STRING);
    if (!is_utf8(entry))
        return ic_fail(
                error, IC_ERR_INVALID, "env '%s': is not UTF-8; only 'exec -e' takes other bytes", show(&s, entry));
    if (config->env_count >= CONFIG_MAX_ENV)
        return ic_fail(error, IC_ERR_INVALID, "env: more than %u entries", CONFIG_MAX_ENV);
    copy = strdup(entry);
    if (!copy)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    grown = realloc(config->env, (config->env_count + 2) * sizeof(*grown));
    if (!grown) {
        free(copy);
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    }
    config->env = grown;
    config->env[config->env_count++] = copy;
    config->env[config->env_count] = NULL;
    return 0;
}

/* Edit distance of two short words; a misspelt key is worth a hint. */
static size_t distance(const char *a, const char *b)
{
    size_t row[40], la = strlen(a), lb = strlen(b);

    if (la >= ARRAY_SIZE(row) || lb >= ARRAY_SIZE(row))
        return SIZE_MAX;
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t above = row[j], replace = diagonal + (a[i - 1] != b[j - 1]);
            size_t insert_or_delete = MIN(above, row[j - 1]) + 1;

            row[j] = MIN(insert_or_delete, replace);
            diagonal = above;
        }
    }
    return row[lb];
}

static int fail_unknown(const char *name, const char *key, struct ic_error *error)
{
    char list[512] = "";
    const char *near = NULL;
    size_t best = 4;
    struct shown s;

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        size_t d = distance(key, keys[i].name);

        if (d < best) {
            best = d;
            near = keys[i].name;
        }
        (void)snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "", keys[i].name);
    }
    show(&s, key);
    if (near)
        return ic_fail(error, IC_ERR_INVALID, "%s%sunknown key '%s'; did you mean '%s'?", name, name[0] ? ": " : "",
                s.text, near);
    return ic_fail(
            error, IC_ERR_INVALID, "%s%sunknown key '%s'; the keys are %s", name, name[0] ? ": " : "", s.text, list);
}

static const struct key *find_key(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    }
    return NULL;
}

static int parse_u32(const struct key *key, const char *value, int64_t *ret, struct ic_error *error)
{
    int64_t v = 0;
    size_t n = strspn(value, "0123456789");
    struct shown s;

    if (n == 0 || value[n] != '\0')
        return ic_fail(error, IC_ERR_INVALID, "%s '%s': must be a whole number, %u to %u", key->name, show(&s, value),
                key->min, key_max(key));
    if (n > 10)
        return fail_range(key, value, error);
    for (size_t i = 0; i < n; i++)
        v = v * 10 + (value[i] - '0');
    *ret = v;
    return 0;
}

int ic_vm_config_set(struct ic_vm_config *config, const char *name, const char *value, struct ic_error *error)
{
    const struct key *key = find_key(name);
    struct shown s;
    int64_t number = 0;
    int r;

    if (!key)
        return fail_unknown("", name, error);
    switch (key->kind) {
    case KEY_STRING:
        return set_string(config, key, value, error);
    case KEY_U32:
        r = parse_u32(key, value, &number, error);
        return r < 0 ? r : set_u32(config, key, number, error);
    case KEY_BOOL:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
            return ic_fail(error, IC_ERR_INVALID, "%s '%s': must be true or false", key->name, show(&s, value));
        return set_bool(config, key, value[0] == 't', error);
    case KEY_WORD:
        return set_word(config, key, value, error);
    case KEY_ENV:
        return add_env(config, value, error);
    }
    return ic_fail(error, IC_ERR_INVALID, "%s: can't be set", name);
}

static const char *type_word(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "a number";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

static int fail_type(const char *key, const char *wanted, const json_t *value, struct ic_error *error)
{
    return ic_fail(error, IC_ERR_INVALID, "%s: must be %s, not %s", key, wanted, type_word(value));
}

static int apply_env(struct ic_vm_config *config, const json_t *value, struct ic_error *error)
{
    json_t *item;
    size_t i;

    if (!json_is_array(value))
        return fail_type("env", "a list of \"NAME=value\" strings", value, error);
    free_env(config); /* a document's list replaces the one before */
    json_array_foreach(value, i, item)
    {
        int r;

        if (!json_is_string(item))
            return fail_type("env", "a list of \"NAME=value\" strings", item, error);
        r = add_env(config, json_string_value(item), error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int apply_value(struct ic_vm_config *config, const struct key *key, const json_t *value, struct ic_error *error)
{
    switch (key->kind) {
    case KEY_STRING:
        if (!json_is_string(value))
            return fail_type(key->name, "a string", value, error);
        return set_string(config, key, json_string_value(value), error);
    case KEY_U32:
        if (!json_is_integer(value))
            return fail_type(key->name, "a whole number", value, error);
        return set_u32(config, key, json_integer_value(value), error);
    case KEY_BOOL:
        if (!json_is_boolean(value))
            return fail_type(key->name, "true or false", value, error);
        return set_bool(config, key, json_is_true(value), error);
    case KEY_WORD:
        if (!json_is_string(value))
            return fail_type(key->name, "a string", value, error);
        return set_word(config, key, json_string_value(value), error);
    case KEY_ENV:
        return apply_env(config, value, error);
    }
    return -IC_ERR_INVALID;
}

/* Whose document it is matters for one key only. */
static bool is_users_own(const char *path)
{
    _cleanup_(freep) char *own = NULL;

    return path_of(IC_PATH_CONFIG, &own, NULL) == 0 && strcmp(path, own) == 0;
}

static int check_limits(const json_t *value, struct ic_error *error)
{
    return limits_parse(value, NULL, error);
}

static int check_templates(const json_t *value, struct ic_error *error)
{
    uint32_t age, total;

    return prune_parse(value, &age, &total, error);
}

/* Objects of the user's own file that are no VM's. Who needs them reads them again; here they are only checked, and
 * taken out of `root`. */
static int apply_own(json_t *root, const char *document, struct ic_error *error)
{
    static const struct {
        const char *name;
        int (*check)(const json_t *value, struct ic_error *error);
    } own[] = {{"limits", check_limits}, {"templates", check_templates}};
    _cleanup_(freep) char *path = NULL;
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(own); i++) {
        const json_t *value = json_object_get(root, own[i].name);

        if (!value)
            continue;
        if (is_users_own(document))
            r = own[i].check(value, error);
        else
            r = path_of(IC_PATH_CONFIG, &path, error);
        if (path)
            return ic_fail(error, IC_ERR_INVALID, "%s: are your own configuration's, %.300s, and of no other file",
                    own[i].name, path);
        if (r == 0)
            (void)json_object_del(root, own[i].name);
    }
    return r;
}

static int apply_object(struct ic_vm_config *config, json_t *object, const char *prefix, struct ic_error *error)
{
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        char full[96];
        const struct key *key;
        int r;

        if ((size_t)snprintf(full, sizeof(full), "%s%s", prefix, name) >= sizeof(full) || strchr(name, '.'))
            return fail_unknown("", name, error);
        if (strcmp(full, "overlay") == 0) {
            if (!json_is_object(value))
                return fail_type("overlay", "an object with kind, size_mib, path", value, error);
            r = apply_object(config, value, "overlay.", error);
            if (r < 0)
                return r;
            continue;
        }
        key = find_key(full);
        if (!key)
            return fail_unknown("", full, error);
        r = apply_value(config, key, value, error);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Puts the document's name before the message of a step below. */
static int name_error(int code, const char *name, struct ic_error *error)
{
    struct ic_error inner;

    if (!error)
        return code;
    inner = *error;
    return ic_fail(error, inner.code, "%s: %.900s", name, inner.message);
}

static int copy_fields(struct ic_vm_config *ret, const struct ic_vm_config *config, struct ic_error *error)
{
    struct ic_vm_config copy = *config;

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (keys[i].kind == KEY_STRING)
            *(char **)field(&copy, &keys[i]) = NULL;
    }
    copy.env = NULL;
    copy.env_count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        const char *value;
        char *dup;

        if (keys[i].kind != KEY_STRING)
            continue;
        value = *(char *const *)field_const(config, &keys[i]);
        dup = value ? strdup(value) : NULL;
        if (value && !dup) {
            ic_vm_config_deinit(&copy);
            return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
        }
        *(char **)field(&copy, &keys[i]) = dup;
    }
    for (size_t i = 0; i < config->env_count; i++) {
        int r = add_env(&copy, config->env[i], error);

        if (r < 0) {
            ic_vm_config_deinit(&copy);
            return r;
        }
    }
    *ret = copy;
    return 0;
}

int ic_vm_config_load_json(
        struct ic_vm_config *config, const char *json, size_t len, const char *name, struct ic_error *error)
{
    struct ic_vm_config copy;
    json_error_t parse_error;
    json_t *root;
    struct shown s;
    int r;

    if (!name)
        name = "configuration";
    if (len > CONFIG_MAX_BYTES)
        return ic_fail(
                error, IC_ERR_INVALID, "%s: %zu bytes; a configuration has at most %u", name, len, CONFIG_MAX_BYTES);
    root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &parse_error);
    if (!root)
        return ic_fail(error, IC_ERR_INVALID, "%s: line %d, column %d: not valid JSON: %s", name, parse_error.line,
                parse_error.column, show(&s, parse_error.text));
    if (!json_is_object(root)) {
        r = ic_fail(error, IC_ERR_INVALID, "%s: must be a JSON object {...}, not %s", name, type_word(root));
        json_decref(root);
        return r;
    }
    r = copy_fields(&copy, config, error);
    if (r == 0) {
        r = apply_own(root, name, error);
        if (r == 0)
            r = apply_object(&copy, root, "", error);
        if (r < 0) {
            r = name_error(r, name, error);
            ic_vm_config_deinit(&copy);
        } else {
            ic_vm_config_deinit(config);
            *config = copy;
        }
    }
    json_decref(root);
    return r;
}

int ic_vm_config_load_file(struct ic_vm_config *config, const char *path, struct ic_error *error)
{
    _cleanup_(freep) char *text = NULL;
    size_t len = 0;
    int r = fd_read_file(AT_FDCWD, path, CONFIG_MAX_BYTES, &text, &len);

    if (r == -EFBIG)
        return ic_fail(error, IC_ERR_INVALID, "%s: larger than %u bytes, which is a configuration's limit", path,
                CONFIG_MAX_BYTES);
    if (r < 0)
        return ic_fail_errno(error, r, "configuration %s", path);
    return ic_vm_config_load_json(config, text, len, path, error);
}

static int validate_numbers(const struct ic_vm_config *config, struct ic_error *error)
{
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        uint32_t value;
        char text[32];

        if (keys[i].kind != KEY_U32)
            continue;
        value = *(const uint32_t *)field_const(config, &keys[i]);
        if (value == 0 || (value >= keys[i].min && value <= key_max(&keys[i])))
            continue;
        (void)snprintf(text, sizeof(text), "%u", value);
        return fail_range(&keys[i], text, error);
    }
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        unsigned value, count = 0;

        if (keys[i].kind != KEY_WORD)
            continue;
        value = *(const unsigned *)field_const(config, &keys[i]);
        while (keys[i].words[count])
            count++;
        if (value >= count)
            return ic_fail(error, IC_ERR_INVALID, "%s: %u is not one of its values", keys[i].name, value);
    }
    return 0;
}

static int validate_paths(const struct ic_vm_config *config, struct ic_error *error)
{
    struct shown s;

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        size_t len = strlen(keys[i].name);
        const char *value;

        if (keys[i].kind != KEY_STRING || len < 4 || strcmp(keys[i].name + len - 4, "path") != 0)
            continue;
        value = *(char *const *)field_const(config, &keys[i]);
        if (value && value[0] != '/')
            return ic_fail(error, IC_ERR_INVALID, "%s '%s': must be absolute; give a path that starts with /",
                    keys[i].name, show(&s, value));
    }
    return 0;
}

static int validate_names(const struct ic_vm_config *config, struct ic_error *error)
{
    struct shown s;

    if (config->vm_id && config->vm_id[0] == '-')
        return ic_fail(error, IC_ERR_INVALID, "vm_id '%s': begins with '-', as options do", show(&s, config->vm_id));
    if (config->vm_id && !path_vm_id_ok(config->vm_id))
        return ic_fail(error, IC_ERR_INVALID, "vm_id '%s': must be 1 to %d of the characters a-z A-Z 0-9 _ -",
                show(&s, config->vm_id), IC_VM_ID_MAX);
    if (config->image && !path_image_name_ok(config->image) &&
            (strspn(config->image, "0123456789abcdef") != strlen(config->image) || strlen(config->image) > 64))
        return ic_fail(error, IC_ERR_INVALID,
                "image '%s': not a name (a-z 0-9 . _ - and an optional :tag) and not a digest; 'ironclaw image ls' "
                "lists images",
                show(&s, config->image));
    for (size_t i = 0; i < config->env_count; i++) {
        if (!config->env[i] || !config_env_ok(config->env[i]))
            return ic_fail(error, IC_ERR_INVALID, "env '%s': must be NAME=value",
                    config->env[i] ? show(&s, config->env[i]) : "");
    }
    return 0;
}

int ic_vm_config_validate(const struct ic_vm_config *config, struct ic_error *error)
{
    int r;

    if (!config || config->size != sizeof(*config))
        return ic_fail(error, IC_ERR_INVALID,
                "configuration: its size member is %zu, this library's is %zu; use ic_vm_config_init",
                config ? config->size : 0, sizeof(*config));
    if (config->enable_networking)
        return set_bool((struct ic_vm_config *)config, find_key("enable_networking"), true, error);
    r = validate_numbers(config, error);
    if (r == 0)
        r = validate_names(config, error);
    if (r == 0)
        r = validate_paths(config, error);
    if (r < 0)
        return r;
    if (config->jail == IC_JAIL_STRICT && config->seccomp_level == IC_SECCOMP_PERMISSIVE)
        return ic_fail(error, IC_ERR_INVALID,
                "seccomp_level permissive: refuses no system call, so not under jail strict; use minimal or basic");
    if (config->overlay.kind == IC_OVERLAY_EXT4 && !config->overlay.path)
        return ic_fail(error, IC_ERR_INVALID, "overlay.kind ext4: needs overlay.path, the file to use");
    if (config->overlay.kind == IC_OVERLAY_TMPFS && config->overlay.path)
        return ic_fail(error, IC_ERR_INVALID, "overlay.path %s: only with overlay.kind ext4", config->overlay.path);
    return 0;
}

void config_forget_commands(struct ic_vm_config *config)
{
    free_env(config);
    free(config->user);
    config->user = NULL;
}

int config_copy(struct ic_vm_config *ret, const struct ic_vm_config *config, struct ic_error *error)
{
    struct ic_vm_config copy;
    int r = copy_fields(&copy, config, error);

    if (r < 0)
        return r;
    if (copy.vcpu_count == 0)
        copy.vcpu_count = 1;
    if (copy.memory_mib == 0)
        copy.memory_mib = 256;
    if (!copy.image && !(copy.image = strdup("base"))) {
        ic_vm_config_deinit(&copy);
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    }
    *ret = copy;
    return 0;
}
