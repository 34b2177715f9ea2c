/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <string.h>

#include "orchestrator/config.h"

static struct ic_error error;

static int load(struct ic_vm_config *config, const char *json)
{
    memset(&error, 0, sizeof(error));
    return ic_vm_config_load_json(config, json, strlen(json), "test.json", &error);
}

static void refuse_json(const char *json, const char *word, const char *other)
{
    struct ic_vm_config config;

    ic_vm_config_init(&config);
    assert_int_equal(load(&config, json), -IC_ERR_INVALID);
    assert_int_equal(error.code, IC_ERR_INVALID);
    assert_non_null(strstr(error.message, word));
    if (!strstr(error.message, other))
        fail_msg("no \"%s\" in: %s", other, error.message);
    assert_null(strchr(error.message, '\n'));
    assert_int_equal(config.vcpu_count, 1); /* nothing of a refused document is applied */
    assert_null(config.image);
    ic_vm_config_deinit(&config);
}

static void refuse_set(const char *key, const char *value, const char *word)
{
    struct ic_vm_config config;

    ic_vm_config_init(&config);
    assert_int_equal(ic_vm_config_set(&config, key, value, &error), -IC_ERR_INVALID);
    assert_non_null(strstr(error.message, word));
    ic_vm_config_deinit(&config);
}

static void takes_every_key(void **state)
{
    struct ic_vm_config config;

    ic_vm_config_init(&config);
    assert_int_equal(config.seccomp_level, IC_SECCOMP_MINIMAL); /* the strictest, also of a zeroed one */
    assert_int_equal(config.guest_seccomp, IC_SECCOMP_BASIC);
    assert_int_equal(
            load(&config, "{\"vm_id\": \"a-B_9\", \"vcpu_count\": 32, \"memory_mib\": 64, \"image\": \"base:v1\","
                          " \"kernel_path\": \"/k\", \"initrd_path\": \"/i\", \"rootfs_path\": \"/r\","
                          " \"overlay\": {\"kind\": \"tmpfs\", \"size_mib\": 32}, \"enable_networking\": false,"
                          " \"seccomp_level\": \"basic\", \"guest_seccomp\": \"permissive\", \"backend\": \"qemu\","
                          " \"require_hardware_isolation\": true, \"timeout_ms\": 4294967295,"
                          " \"boot_timeout_ms\": 5, \"max_lifetime_ms\": 86400000, \"max_output_bytes\": 4294967295,"
                          " \"max_connections\": 4, \"max_disk_mib_per_s\": 1048576, \"max_disk_ops_per_s\": 9, "
                          "\"env\": [\"A=1\", \"B=\"], \"user\": \"agent\"}"),
            0);
    assert_string_equal(config.vm_id, "a-B_9");
    assert_int_equal(config.vcpu_count, 32);
    assert_int_equal(config.memory_mib, 64);
    assert_int_equal(config.overlay.size_mib, 32);
    assert_int_equal(config.seccomp_level, IC_SECCOMP_BASIC);
    assert_int_equal(config.guest_seccomp, IC_SECCOMP_PERMISSIVE);
    assert_int_equal(config.backend, IC_BACKEND_QEMU);
    assert_true(config.require_hardware_isolation);
    assert_int_equal(config.timeout_ms, UINT32_MAX);
    assert_int_equal(config.max_lifetime_ms, 86400000);
    assert_int_equal(config.max_output_bytes, UINT32_MAX);
    assert_int_equal(config.max_connections, 4);
    assert_int_equal(config.max_disk_mib_per_s, 1 << 20);
    assert_int_equal(config.max_disk_ops_per_s, 9);
    assert_int_equal(config.env_count, 2);
    assert_string_equal(config.env[1], "B=");
    assert_null(config.env[2]);
    assert_int_equal(ic_vm_config_validate(&config, &error), 0);
    assert_int_equal(load(&config, "{\"env\": [\"C=3\"]}"), 0);
    assert_int_equal(config.env_count, 1);
    assert_string_equal(config.image, "base:v1");
    ic_vm_config_deinit(&config);
}

static void refuses_in_json(void **state)
{
    refuse_json("{\"image\": \"x\", \"vcpu_cout\": 1}", "'vcpu_cout'", "'vcpu_count'");
    refuse_json("{\"image\": \"x\", \"colour\": 1}", "'colour'", "memory_mib");
    refuse_json("{\"overlay.kind\": \"tmpfs\"}", "overlay.kind", "unknown key");
    refuse_json("{\"overlay\": {\"size_mb\": 1}}", "overlay.size_mb", "'overlay.size_mib'");
    refuse_json("{\"overlay\": 1}", "overlay", "object");
    refuse_json("{\"image\": \"a\", \"image\": \"b\"}", "test.json", "duplicate");
    refuse_json("{\"enable_networking\": true}", "enable_networking", "no network card");
    refuse_json("{\"vcpu_count\": 0}", "vcpu_count 0", "1 to 32");
    refuse_json("{\"vcpu_count\": 33}", "vcpu_count 33", "1 to 32");
    refuse_json("{\"vcpu_count\": 1.5}", "vcpu_count", "fraction");
    refuse_json("{\"vcpu_count\": \"1\"}", "vcpu_count", "a string");
    refuse_json("{\"vcpu_count\": 99999999999999999999}", "test.json", "JSON");
    refuse_json("{\"memory_mib\": 1}", "memory_mib 1", "64");
    refuse_json("{\"memory_mib\": 4294967295}", "memory_mib", "host's memory");
    refuse_json("{\"max_connections\": 3}", "max_connections 3", "4 to 1023");
    refuse_json("{\"max_connections\": 1024}", "max_connections 1024", "4 to 1023");
    refuse_json("{\"max_disk_mib_per_s\": 1048577}", "max_disk_mib_per_s 1048577", "0 to 1048576");
    refuse_json("{\"max_output_bytes\": 4294967296}", "max_output_bytes 4294967296", "0 to 4294967295");
    refuse_json("{\"max_lifetime_ms\": -1}", "max_lifetime_ms -1", "0 to 4294967295");
    refuse_json("{\"backend\": \"xen\"}", "'xen'", "firecracker");
    refuse_json("{\"image\": \"\"}", "image", "empty");
    refuse_json("{\"image\": null}", "image", "null");
    refuse_json("{\"env\": [\"1A=2\"]}", "1A=2", "NAME=value");
    refuse_json("{\"env\": {\"A\": \"1\"}}", "env", "list");
    refuse_json("[1]", "test.json", "object");
    refuse_json("", "test.json", "JSON");
    refuse_json("{\"a\nb\": 1}", "test.json", "JSON");
    refuse_json("{\"a\\n\\u001b[31m\": 1}", "\\x0a\\x1b", "unknown key");
}

static void refuses_in_text(void **state)
{
    refuse_set("vcpu_count", "33", "1 to 32");
    refuse_set("vcpu_count", "-1", "whole number");
    refuse_set("vcpu_count", "", "whole number");
    refuse_set("vcpu_count", "1x", "whole number");
    refuse_set("memory_mib", "99999999999999999999999", "memory_mib");
    refuse_set("enable_networking", "true", "no network card");
    refuse_set("require_hardware_isolation", "yes", "true or false");
    refuse_set("keep", "true", "unknown key");
    refuse_set("env", "=x", "NAME=value");
}

static void validates(void **state)
{
    static const char *const bad_ids[] = {"../x", "", "a b", "a/b", "\xc3\xa4", "x.y"};
    struct ic_vm_config config;

    for (size_t i = 0; i < ARRAY_SIZE(bad_ids); i++) {
        ic_vm_config_init(&config);
        if (bad_ids[i][0])
            assert_int_equal(ic_vm_config_set(&config, "vm_id", bad_ids[i], &error), 0);
        else
            assert_int_equal(ic_vm_config_set(&config, "vm_id", bad_ids[i], &error), -IC_ERR_INVALID);
        if (bad_ids[i][0])
            assert_int_equal(ic_vm_config_validate(&config, &error), -IC_ERR_INVALID);
        ic_vm_config_deinit(&config);
    }
    ic_vm_config_init(&config);
    assert_int_equal(ic_vm_config_validate(&config, &error), 0);
    config.vcpu_count = 33;
    assert_int_equal(ic_vm_config_validate(&config, &error), -IC_ERR_INVALID);
    config.vcpu_count = 0; /* the default */
    config.memory_mib = 0;
    assert_int_equal(ic_vm_config_validate(&config, &error), 0);
    config.enable_networking = true;
    assert_int_equal(ic_vm_config_validate(&config, &error), -IC_ERR_INVALID);
    assert_non_null(strstr(error.message, "no network card"));
    config.enable_networking = false;
    config.backend = 77;
    assert_int_equal(ic_vm_config_validate(&config, &error), -IC_ERR_INVALID);
    config.backend = IC_BACKEND_AUTO;
    assert_int_equal(ic_vm_config_set(&config, "kernel_path", "vmlinux", &error), 0);
    assert_int_equal(ic_vm_config_validate(&config, &error), -IC_ERR_INVALID);
    assert_non_null(strstr(error.message, "absolute"));
    config.size = 3;
    assert_int_equal(ic_vm_config_validate(&config, &error), -IC_ERR_INVALID);
    config.size = sizeof(config);
    ic_vm_config_deinit(&config);
}

static void copies(void **state)
{
    struct ic_vm_config config, copy;

    ic_vm_config_init(&config);
    assert_int_equal(ic_vm_config_set(&config, "env", "A=1", NULL), 0);
    config.keep = true;
    config.memory_mib = 0;
    assert_int_equal(config_copy(&copy, &config, NULL), 0);
    ic_vm_config_deinit(&config);
    assert_string_equal(copy.image, "base");
    assert_string_equal(copy.env[0], "A=1");
    assert_int_equal(copy.memory_mib, 256);
    assert_true(copy.keep);
    ic_vm_config_deinit(&copy);
}

static void bounds_documents(void **state)
{
    static char big[CONFIG_MAX_BYTES + 2];
    struct ic_vm_config config;

    memset(big, ' ', sizeof(big) - 1);
    ic_vm_config_init(&config);
    assert_int_equal(ic_vm_config_load_json(&config, big, sizeof(big) - 1, "big.json", &error), -IC_ERR_INVALID);
    assert_non_null(strstr(error.message, "65536"));
    assert_int_equal(ic_vm_config_load_file(&config, "/nonexistent/c.json", &error), -IC_ERR_NOT_FOUND);
    assert_non_null(strstr(error.message, "/nonexistent/c.json"));
    ic_vm_config_deinit(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(takes_every_key),
            cmocka_unit_test(refuses_in_json),
            cmocka_unit_test(refuses_in_text),
            cmocka_unit_test(validates),
            cmocka_unit_test(copies),
            cmocka_unit_test(bounds_documents),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
