/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/manifest.h"

#include <jansson.h>
#include <limits.h>
#include <string.h>

#include "orchestrator/images/text.h"
#include "orchestrator/paths.h"

#define FORMAT_VERSION 1
#define PART_BYTES_MAX ((json_int_t)1 << 40)

const char *const manifest_part_file[PART_COUNT] = {"vmlinux", "initramfs", "rootfs.erofs"};
const char *const manifest_part_key[PART_COUNT] = {"kernel", "initramfs", "rootfs"};

void manifest_deinit(struct manifest *manifest)
{
    free(manifest->user);
    free(manifest->workdir);
    strv_free(manifest->env);
    *manifest = (struct manifest){0};
}

bool manifest_kind_ok(const char *kind)
{
    return strcmp(kind, "debian") == 0 || strcmp(kind, "fast") == 0;
}

bool manifest_user_ok(const char *user)
{
    size_t len = strspn(user, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-:");

    return len >= 1 && len <= 64 && user[len] == '\0' && user[0] != '-' && user[0] != ':';
}

bool manifest_workdir_ok(const char *path)
{
    return path[0] == '/' && strlen(path) < PATH_MAX;
}

bool manifest_env_ok(const char *entry)
{
    const char *equals = strchr(entry, '=');

    return equals && equals != entry && strlen(entry) <= 32768;
}

/* The parser's state: the first fault is kept, every getter after it yields nothing. */
struct parse {
    const char *where;
    struct ic_error *error;
    int failed;
};

static void fault(struct parse *parse, const char *what)
{
    if (parse->failed == 0)
        parse->failed = ic_fail(parse->error, IC_ERR_CORRUPT, "%s: %s", parse->where, what);
}

/* An object with exactly these keys. */
static json_t *object(struct parse *parse, json_t *json, const char *what, const char *const *keys, size_t count)
{
    const char *key;
    json_t *value;

    if (!json_is_object(json)) {
        fault(parse, what);
        return NULL;
    }
    json_object_foreach(json, key, value)
    {
        bool known = false;

        for (size_t i = 0; i < count && !known; i++)
            known = strcmp(key, keys[i]) == 0;
        if (!known)
            fault(parse, "a key that format 1 does not have");
    }
    if (json_object_size(json) != count)
        fault(parse, "a key is missing");
    return json;
}

static const char *string(struct parse *parse, json_t *object_, const char *key, size_t max)
{
    json_t *value = json_object_get(object_, key);
    const char *s = json_string_value(value);

    if (!s || json_string_length(value) > max || s[0] == '\0') {
        fault(parse, key);
        return "";
    }
    return s;
}

static void copy(struct parse *parse, json_t *object_, const char *key, char *ret, size_t size)
{
    const char *s = string(parse, object_, key, size - 1);

    for (const char *p = s; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            fault(parse, key);
    }
    memcpy(ret, s, strlen(s) + 1);
}

static void hex(struct parse *parse, json_t *object_, const char *key, char ret[DIGEST_HEX_LEN + 1])
{
    const char *s = string(parse, object_, key, DIGEST_HEX_LEN);

    if (!digest_hex_ok(s))
        fault(parse, key);
    else
        memcpy(ret, s, DIGEST_HEX_LEN + 1);
}

static char *optional(struct parse *parse, json_t *object_, const char *key, bool (*ok)(const char *))
{
    json_t *value = json_object_get(object_, key);
    const char *s = json_string_value(value);
    char *dup;

    if (json_is_null(value))
        return NULL;
    if (!s || !ok(s)) {
        fault(parse, key);
        return NULL;
    }
    dup = strdup(s);
    if (!dup)
        fault(parse, "out of memory");
    return dup;
}

static void parse_parts(struct parse *parse, json_t *json, struct manifest *ret)
{
    static const char *const keys[] = {"file", "size", "sha256"};

    json = object(parse, json, "parts", manifest_part_key, PART_COUNT);
    for (unsigned i = 0; i < PART_COUNT; i++) {
        json_t *part = object(parse, json_object_get(json, manifest_part_key[i]), manifest_part_key[i], keys, 3);
        json_t *size = json_object_get(part, "size");

        if (strcmp(string(parse, part, "file", 64), manifest_part_file[i]) != 0)
            fault(parse, "file: not the name that this part has");
        if (!json_is_integer(size) || json_integer_value(size) < 1 || json_integer_value(size) > PART_BYTES_MAX)
            fault(parse, "size");
        else
            ret->parts[i].size_bytes = (uint64_t)json_integer_value(size);
        hex(parse, part, "sha256", ret->parts[i].sha256);
    }
}

static void parse_kernel(struct parse *parse, json_t *json, struct manifest *ret)
{
    static const char *const keys[] = {"kind", "release", "version", "devices"};

    json = object(parse, json, "kernel", keys, ARRAY_SIZE(keys));
    copy(parse, json, "kind", ret->kernel_kind, sizeof(ret->kernel_kind));
    copy(parse, json, "release", ret->kernel_release, sizeof(ret->kernel_release));
    copy(parse, json, "version", ret->kernel_version, sizeof(ret->kernel_version));
    copy(parse, json, "devices", ret->kernel_devices, sizeof(ret->kernel_devices));
    if (!manifest_kind_ok(ret->kernel_kind))
        fault(parse, "kind: neither debian nor fast");
    if (strcmp(ret->kernel_devices, "acpi") != 0 && strcmp(ret->kernel_devices, "cmdline") != 0)
        fault(parse, "devices: neither acpi nor cmdline");
}

static void parse_env(struct parse *parse, json_t *json, struct manifest *ret)
{
    size_t count = json_array_size(json);

    if (!json_is_array(json) || count > MANIFEST_ENV_MAX) {
        fault(parse, "env");
        return;
    }
    ret->env = calloc(count + 1, sizeof(*ret->env));
    for (size_t i = 0; ret->env && i < count; i++) {
        const char *entry = json_string_value(json_array_get(json, i));

        if (!entry || !manifest_env_ok(entry)) {
            fault(parse, "env: an entry is not NAME=value");
            return;
        }
        ret->env[i] = strdup(entry);
        if (!ret->env[i])
            break;
    }
    if (!ret->env || (count > 0 && !ret->env[count - 1]))
        fault(parse, "out of memory");
}

static void parse_defaults(struct parse *parse, json_t *json, struct manifest *ret)
{
    static const char *const keys[] = {"user", "workdir", "env"};

    json = object(parse, json, "defaults", keys, ARRAY_SIZE(keys));
    ret->user = optional(parse, json, "user", manifest_user_ok);
    ret->workdir = optional(parse, json, "workdir", manifest_workdir_ok);
    parse_env(parse, json_object_get(json, "env"), ret);
}

int manifest_parse(const char *json, size_t len, const char *where, struct manifest *ret, struct ic_error *error)
{
    static const char *const keys[] = {
            "format", "name", "parts", "kernel", "agent_sha256", "recipe_key", "rootfs_key", "defaults"};
    struct parse parse = {.where = where, .error = error};
    struct manifest manifest = {0};
    _cleanup_(json_decrefp) json_t *root = NULL;
    json_error_t why;
    json_t *top;

    if (len > MANIFEST_BYTES_MAX)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: larger than %zu KiB", where, MANIFEST_BYTES_MAX >> 10);
    root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: line %d: %s", where, why.line, why.text);
    top = object(&parse, root, "not a JSON object", keys, ARRAY_SIZE(keys));
    if (json_integer_value(json_object_get(top, "format")) != FORMAT_VERSION)
        fault(&parse, "format: not 1; made by another version of ironclaw");
    copy(&parse, top, "name", manifest.name, sizeof(manifest.name));
    if (parse.failed == 0 && !path_image_name_ok(manifest.name))
        fault(&parse, "name: not an image name");
    parse_parts(&parse, json_object_get(top, "parts"), &manifest);
    parse_kernel(&parse, json_object_get(top, "kernel"), &manifest);
    hex(&parse, top, "agent_sha256", manifest.agent_sha256);
    hex(&parse, top, "recipe_key", manifest.recipe_key);
    hex(&parse, top, "rootfs_key", manifest.rootfs_key);
    parse_defaults(&parse, json_object_get(top, "defaults"), &manifest);
    if (parse.failed) {
        manifest_deinit(&manifest);
        return parse.failed;
    }
    *ret = manifest;
    return 0;
}

static json_t *format_parts(const struct manifest *manifest)
{
    json_t *parts = json_object();

    for (unsigned i = 0; i < PART_COUNT; i++)
        (void)json_object_set_new(parts, manifest_part_key[i],
                json_pack("{s:s, s:I, s:s}", "file", manifest_part_file[i], "size",
                        (json_int_t)manifest->parts[i].size_bytes, "sha256", manifest->parts[i].sha256));
    return parts;
}

static json_t *format_defaults(const struct manifest *manifest)
{
    json_t *env = json_array();

    for (size_t i = 0; manifest->env && manifest->env[i]; i++)
        (void)json_array_append_new(env, json_string(manifest->env[i]));
    return json_pack("{s:s?, s:s?, s:o}", "user", manifest->user, "workdir", manifest->workdir, "env", env);
}

int manifest_format(const struct manifest *manifest, char **ret, size_t *ret_len, struct ic_error *error)
{
    _cleanup_(json_decrefp) json_t *root = NULL;
    _cleanup_(freep) char *body = NULL;
    int r;

    root = json_pack("{s:i, s:s, s:o, s:{s:s, s:s, s:s, s:s}, s:s, s:s, s:s, s:o}", "format", FORMAT_VERSION, "name",
            manifest->name, "parts", format_parts(manifest), "kernel", "kind", manifest->kernel_kind, "release",
            manifest->kernel_release, "version", manifest->kernel_version, "devices", manifest->kernel_devices,
            "agent_sha256", manifest->agent_sha256, "recipe_key", manifest->recipe_key, "rootfs_key",
            manifest->rootfs_key, "defaults", format_defaults(manifest));
    body = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (!body)
        return ic_fail(error, IC_ERR_INVALID, "image %s: its defaults can't be written as JSON", manifest->name);
    r = text_format(ret, error, "%s\n", body);
    if (r == 0)
        *ret_len = strlen(*ret);
    return r;
}
