/* SPDX-License-Identifier: Apache-2.0 */
/* What a user's VMs may take: the file, one VM, and all of them. */
#include "orchestrator/test-util.h"

#include "orchestrator/config.h"
#include "orchestrator/table.h"

static struct ic_error error;

static void write_config(const char *home, const char *text)
{
    char path[512];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/config.json", home);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) >= 0, 1);
    assert_int_equal(fclose(f), 0);
}

static void reads_the_users_file(void **state)
{
    struct limits l;

    assert_int_equal(limits_load(&l, &error), 0);
    assert_int_equal(l.max_vms, LIMITS_DEFAULT_VMS);
    assert_int_equal(l.max_total_memory_mib, 0);
    limits_deinit(&l);
    write_config(*state, "{\"memory_mib\": 128, \"limits\": {\"max_vms\": 2, \"max_vcpus\": 3,"
                         " \"max_memory_mib\": 300, \"max_total_memory_mib\": 500}}");
    assert_int_equal(limits_load(&l, &error), 0);
    assert_int_equal(l.max_vms, 2);
    assert_int_equal(l.max_vcpus, 3);
    assert_int_equal(l.max_memory_mib, 300);
    assert_int_equal(l.max_total_memory_mib, 500);
    limits_deinit(&l);
}

static void refuses_what_it_does_not_understand(void **state)
{
    static const struct {
        const char *text, *word;
    } cases[] = {
            {"{", "JSON object"},
            {"[]", "JSON object"},
            {"{\"limits\": 1}", "limits: must be an object"},
            {"{\"limits\": {\"max_vm\": 1}}", "'limits.max_vm'"},
            {"{\"limits\": {\"max_vms\": 0}}", "limits.max_vms: must be a whole number, 1 to 65536"},
            {"{\"limits\": {\"max_vms\": \"1\"}}", "limits.max_vms"},
            {"{\"limits\": {\"max_vcpus\": 33}}", "1 to 32"},
            {"{\"limits\": {\"max_memory_mib\": 63}}", "64 to 4294967295"},
            {"{\"limits\": {\"max_total_memory_mib\": -1}}", "limits.max_total_memory_mib"},
            {"{\"limits\": {\"\\u001b[31m\": 1}}", "\\x1b"},
    };
    struct limits l = {.max_vms = 77};
    struct ic_vm_config config;
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/config.json", (char *)*state);
    ic_vm_config_init(&config);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        write_config(*state, cases[i].text);
        assert_int_equal(limits_load(&l, &error), -IC_ERR_INVALID);
        assert_non_null(strstr(error.message, cases[i].word));
        assert_non_null(strstr(error.message, path));
        assert_int_equal(l.max_vms, 77);
        /* And so does whoever reads it as the configuration of a VM. */
        assert_int_equal(ic_vm_config_load_file(&config, path, &error), -IC_ERR_INVALID);
    }
    write_config(*state, "{\"limits\": {\"max_vms\": 1}, \"memory_mib\": 128}");
    assert_int_equal(ic_vm_config_load_file(&config, path, &error), 0);
    assert_int_equal(config.memory_mib, 128);
    /* No other document sets limits. */
    assert_int_equal(ic_vm_config_load_json(&config, "{\"limits\": {}}", 14, "other.json", &error), -IC_ERR_INVALID);
    assert_non_null(strstr(error.message, path));
    assert_int_equal(ic_vm_config_set(&config, "limits", "{}", &error), -IC_ERR_INVALID);
    ic_vm_config_deinit(&config);
}

static void refuses_one_vm(void **state)
{
    const struct limits l = {.path = (char *)"/c", .max_vms = 1, .max_vcpus = 2, .max_memory_mib = 256};
    struct record r = sample_record("vm");

    assert_int_equal(limits_check_vm(&l, &r, &error), 0);
    r.memory_mib = 257;
    assert_int_equal(limits_check_vm(&l, &r, &error), -IC_ERR_LIMIT);
    assert_string_equal(error.message,
            "limits.max_memory_mib 256: the VM asks for memory_mib 257; give it less, or raise the limit in /c");
    r.memory_mib = 256;
    r.vcpu_count = 3;
    assert_int_equal(limits_check_vm(&l, &r, &error), -IC_ERR_LIMIT);
    assert_non_null(strstr(error.message, "limits.max_vcpus 2: the VM asks for vcpu_count 3"));
    record_deinit(&r);
}

static int claim(const char *vm_id, const struct limits *limits, struct table_entry *entry, struct record *record)
{
    *record = sample_record(vm_id);
    return table_claim(entry, record, limits, &error);
}

static void counts_what_lives(void **state)
{
    struct limits l = {.path = (char *)"/c", .max_vms = 2, .max_total_memory_mib = 600};
    struct table_entry entries[2], entry;
    struct record records[2], record;

    assert_int_equal(claim("a", &l, &entries[0], &records[0]), 0);
    assert_int_equal(claim("b", &l, &entries[1], &records[1]), 0);
    assert_int_equal(claim("c", &l, &entry, &record), -IC_ERR_LIMIT);
    assert_non_null(strstr(error.message, "limits.max_vms 2: 2 VMs of yours are there already"));
    assert_false(in_home(*state, "state/vms/c"));
    l.max_vms = 3; /* 512 MiB, and 256 more */
    assert_int_equal(table_claim(&entry, &record, &l, &error), -IC_ERR_LIMIT);
    assert_non_null(strstr(error.message, "limits.max_total_memory_mib 600: your VMs have 512 MiB"));
    /* One that has ended takes nothing, though its record is still there. */
    assert_int_equal(table_change(&entries[0], &records[0], IC_VM_FAILED, "test", &error), 0);
    assert_int_equal(table_claim(&entry, &record, &l, &error), 0);
    assert_int_equal(table_remove(&entry, &record, &error), 0);
    record_deinit(&record);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(table_remove(&entries[i], &records[i], &error), 0);
        record_deinit(&records[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(reads_the_users_file, home_setup, home_teardown),
            cmocka_unit_test_setup_teardown(refuses_what_it_does_not_understand, home_setup, home_teardown),
            cmocka_unit_test_setup_teardown(refuses_one_vm, home_setup, home_teardown),
            cmocka_unit_test_setup_teardown(counts_what_lives, home_setup, home_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
