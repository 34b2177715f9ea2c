/* SPDX-License-Identifier: Apache-2.0 */
/* What the monitors with Firecracker's API are told. */
#include "orchestrator/test-util.h"

#include <errno.h>
#include <jansson.h>

#include "orchestrator/backends/fcapi.h"

static struct record record;
static struct backend_start start;

static int make_start(void **state)
{
    record = (struct record){.vm_id = "one", .vcpu_count = 2, .memory_mib = 512};
    record.kernel_path = strdup("/k/vm \"linux\"");
    record.initrd_path = strdup("/k/initramfs");
    record.rootfs_path = strdup("/k/rootfs.erofs");
    start = (struct backend_start){
            .record = &record, .overlay_fd = -1, .kernel_args = "ironclaw.tied=1", .uds_path = "/run/one/v"};
    return 0;
}

static int drop_start(void **state)
{
    record_deinit(&record);
    return 0;
}

/* Each body is JSON with exactly these members. */
static void same(const char *body, const char *expected)
{
    json_t *a = json_loads(body, JSON_REJECT_DUPLICATES, NULL), *b = json_loads(expected, 0, NULL);

    assert_non_null(b);
    if (!a || !json_equal(a, b))
        fail_msg("%s is not %s", body, expected);
    json_decref(a);
    json_decref(b);
}

static void plans_in_order(void **state)
{
    struct fcapi_call calls[FCAPI_CALLS_MAX] = {0};

    assert_int_equal(fcapi_plan(&fcapi_ironclaw, &start, calls), 6);
    assert_string_equal(calls[0].path, "/machine-config");
    same(calls[0].body, "{\"vcpu_count\": 2, \"mem_size_mib\": 512}");
    assert_string_equal(calls[1].path, "/boot-source");
    same(calls[1].body,
            "{\"kernel_image_path\": \"/k/vm \\\"linux\\\"\", \"initrd_path\": \"/k/initramfs\", \"boot_args\": "
            "\"console=ttyS0 loglevel=4 panic=-1 reboot=t pci=off random.trust_cpu=on cryptomgr.notests "
            "ironclaw.tied=1\"}");
    assert_string_equal(calls[2].path, "/drives/root");
    same(calls[2].body, "{\"drive_id\": \"root\", \"path_on_host\": \"/k/rootfs.erofs\", \"is_root_device\": true, "
                        "\"is_read_only\": true}");
    assert_string_equal(calls[3].path, "/vsock");
    same(calls[3].body, "{\"guest_cid\": 3, \"uds_path\": \"/run/one/v\"}");
    assert_string_equal(calls[4].path, "/entropy");
    same(calls[4].body, "{}");
    assert_string_equal(calls[5].path, "/actions");
    same(calls[5].body, "{\"action_type\": \"InstanceStart\"}");
    fcapi_free_calls(calls);
}

static void plans_for_firecracker(void **state)
{
    struct fcapi_call calls[FCAPI_CALLS_MAX] = {0};

    free(record.initrd_path);
    record.initrd_path = NULL;
    assert_int_equal(fcapi_plan(&fcapi_firecracker, &start, calls), 6);
    assert_null(strstr(calls[1].body, "initrd_path"));
    assert_non_null(strstr(calls[1].body, "reboot=k"));
    fcapi_free_calls(calls);
}

static void plans_the_overlay_behind_the_root(void **state)
{
    struct fcapi_call calls[FCAPI_CALLS_MAX] = {0};

    record.overlay_path = strdup("/o.img");
    assert_int_equal(fcapi_plan(&fcapi_ironclaw, &start, calls), 7);
    assert_string_equal(calls[2].path, "/drives/root");
    assert_non_null(strstr(calls[2].body, "\"is_read_only\":true"));
    assert_string_equal(calls[3].path, "/drives/overlay");
    same(calls[3].body, "{\"drive_id\": \"overlay\", \"path_on_host\": \"/o.img\", \"is_root_device\": false, "
                        "\"is_read_only\": false, \"cache_type\": \"Writeback\"}");
    assert_string_equal(calls[6].path, "/actions");
    fcapi_free_calls(calls);
}

/* What is ours, Firecracker would refuse. */
static void plans_a_load(void **state)
{
    static const struct backend_snapshot bare = {.state_path = "/s/state", .memory_path = "/s/memory"},
                                         measured = {.state_path = "/s/state",
                                                 .memory_path = "/s/memory",
                                                 .touched_path = "/s/.touched"};
    static const char both[] = "\"snapshot_path\": \"/s/state\", \"mem_backend\": {\"backend_type\": \"File\", "
                               "\"backend_path\": \"/s/memory\"}, \"resume_vm\": true, "
                               "\"vsock_override\": {\"uds_path\": \"/run/one/v\"}";
    static const char expect[] = "\"expect\": {\"vcpu_count\": 2, \"mem_size_mib\": 512}";
    const struct {
        const struct fcapi *kind;
        const struct backend_snapshot *from;
        const char *members[2];
    } cases[] = {
            {&fcapi_ironclaw, &bare, {expect}},
            {&fcapi_ironclaw, &measured, {expect, "\"prefetch_path\": \"/s/.touched\""}},
            {&fcapi_firecracker, &bare, {NULL}},
            {&fcapi_firecracker, &measured, {NULL}},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fcapi_call calls[FCAPI_CALLS_MAX] = {0};
        const char *const *more = cases[i].members;
        char body[1024];

        (void)snprintf(body, sizeof(body), "{%s%s%s%s%s}", both, more[0] ? ", " : "", more[0] ? more[0] : "",
                more[1] ? ", " : "", more[1] ? more[1] : "");
        start.snapshot = cases[i].from;
        assert_int_equal(fcapi_plan(cases[i].kind, &start, calls), 1);
        assert_string_equal(calls[0].path, "/snapshot/load");
        same(calls[0].body, body);
        fcapi_free_calls(calls);
    }
}

static void never_plans_a_network(void **state)
{
    struct fcapi_call calls[FCAPI_CALLS_MAX] = {0};
    int n = fcapi_plan(&fcapi_ironclaw, &start, calls);

    for (int i = 0; i < n; i++)
        assert_null(strstr(calls[i].path, "network"));
    fcapi_free_calls(calls);
}

static void refuses_what_json_cannot_say(void **state)
{
    struct fcapi_call calls[FCAPI_CALLS_MAX] = {0};

    free(record.rootfs_path);
    record.rootfs_path = strdup("/k/\xff");
    assert_int_equal(fcapi_plan(&fcapi_ironclaw, &start, calls), -EILSEQ);
    assert_null(calls[0].body);
}

static void reads_faults(void **state)
{
    static const char good[] = "{\"fault_message\": \"no \\u001b[31mkernel\\n\"}";
    char text[64];

    assert_string_equal(fcapi_fault(text, sizeof(text), 400, good, sizeof(good) - 1), "no \\x1b[31mkernel\\x0a");
    assert_string_equal(
            fcapi_fault(text, sizeof(text), 400, "{\"fault_message\": 1}", 20), "status 400 without a reason");
    assert_string_equal(fcapi_fault(text, sizeof(text), 500, "<html>", 6), "status 500 without a reason");
    assert_string_equal(fcapi_fault(text, sizeof(text), 500, "", 0), "status 500 without a reason");
    assert_string_equal(fcapi_fault(text, 8, 400, good, sizeof(good) - 1), "no \\x1b");
}

/* Without hardware virtualization, or without the program, each says so and what to do. */
static void says_why_not(void **state)
{
    static const struct backend *const both[] = {&backend_ironclaw, &backend_firecracker};
    struct backend_probe probe;
    const struct backend *picked;
    struct ic_error error;

    assert_int_equal(setenv("IRONCLAW_LIBEXEC", "/nonexistent", 1), 0);
    assert_int_equal(setenv("IRONCLAW_FIRECRACKER", "/nonexistent/fc", 1), 0);
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        both[i]->probe(both[i], &probe);
        assert_false(probe.usable);
        assert_non_null(strstr(probe.reason, "/nonexistent"));
        assert_non_null(strstr(probe.reason, "install"));
        assert_int_equal(backend_pick(both[i]->id, false, &picked, &probe, &error), -IC_ERR_BACKEND);
        assert_non_null(strstr(error.message, ic_backend_name(both[i]->id)));
    }
    if (backend_kvm_usable((char[128]){0}, 128))
        return;
    assert_int_equal(setenv("IRONCLAW_FIRECRACKER", "/bin/true", 1), 0);
    backend_firecracker.probe(&backend_firecracker, &probe);
    assert_false(probe.usable);
    assert_non_null(strstr(probe.reason, "--backend qemu"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(plans_in_order, make_start, drop_start),
            cmocka_unit_test_setup_teardown(plans_for_firecracker, make_start, drop_start),
            cmocka_unit_test_setup_teardown(plans_the_overlay_behind_the_root, make_start, drop_start),
            cmocka_unit_test_setup_teardown(plans_a_load, make_start, drop_start),
            cmocka_unit_test_setup_teardown(never_plans_a_network, make_start, drop_start),
            cmocka_unit_test_setup_teardown(refuses_what_json_cannot_say, make_start, drop_start),
            cmocka_unit_test(reads_faults),
            cmocka_unit_test(says_why_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
