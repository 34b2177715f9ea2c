/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "monitor/api/request.h"
#include "monitor/api/test-ops.h"

#define BEFORE_TEXT "The requested operation is not supported before starting the microVM."
#define AFTER_TEXT  "The requested operation is not supported after starting the microVM."
#define KERNEL      "PUT", "boot-source", "{\"kernel_image_path\": \"/k\"}"
#define START       "PUT", "actions", "{\"action_type\": \"InstanceStart\"}"

static struct fake_vm vm;
static struct controller controller;
static struct api_response response;

static void handle(void *userdata, struct api_request *request, struct api_response *ret)
{
    controller_handle(userdata, request, ret);
}

static void ask(int status, const char *method, const char *path, const char *body)
{
    api_answer(method, path, body, body ? strlen(body) : 0, handle, &controller, &response);
    if (response.status != status)
        fail_msg("%s %s %s: %d %s", method, path, body ? body : "", response.status, response.body);
    assert_int_equal(status == 204, response.body[0] == '\0');
}

static void refused(const char *method, const char *path, const char *body, const char *text)
{
    ask(400, method, path, body);
    assert_memory_equal(response.body, "{\"fault_message\":\"", 18);
    if (!strstr(response.body, text))
        fail_msg("%s %s: '%s' is not in %s", method, path, text, response.body);
}

static void has(const char *text)
{
    if (!strstr(response.body, text))
        fail_msg("'%s' is not in %s", text, response.body);
}

static int setup(void **state)
{
    memset(&vm, 0, sizeof(vm));
    controller_init(&controller, "test", &fake_ops, &vm);
    return 0;
}

static int teardown(void **state)
{
    controller_deinit(&controller);
    return 0;
}

static void test_instance(void **state)
{
    ask(200, "GET", "", NULL);
    assert_string_equal(response.body, "{\"id\":\"test\",\"state\":\"Not started\",\"vmm_version\":\"" IRONCLAW_VERSION
                                       "\",\"app_name\":\"IronClaw\"}");
    ask(200, "GET", "version", NULL);
    assert_string_equal(response.body, "{\"firecracker_version\":\"" IRONCLAW_VERSION "\"}");
    ask(204, KERNEL);
    ask(204, START);
    ask(200, "GET", "", NULL);
    has("\"state\":\"Running\"");
    ask(204, "PATCH", "vm", "{\"state\": \"Paused\"}");
    ask(200, "GET", "", NULL);
    has("\"state\":\"Paused\"");
}

static void test_start(void **state)
{
    refused(START, "Cannot start microvm without kernel configuration.");
    ask(204, KERNEL);
    vm.fail = true;
    refused(START, "as told");
    assert_int_equal(controller.state, CONTROLLER_NOT_STARTED);
    vm.fail = false;
    ask(204, START);
    assert_int_equal(vm.starts, 1);
    refused(START, AFTER_TEXT);
    assert_int_equal(vm.starts, 1);
}

/* Every verb that has its time, at the wrong one. */
static void test_times(void **state)
{
    static const char *const before[][3] = {
            {KERNEL},
            {"PUT", "machine-config", "{\"vcpu_count\": 1, \"mem_size_mib\": 128}"},
            {"PATCH", "machine-config", "{\"vcpu_count\": 1}"},
            {"PUT", "drives/a", "{\"drive_id\": \"a\", \"path_on_host\": \"/a\", \"is_root_device\": false}"},
            {"PUT", "vsock", "{\"guest_cid\": 3, \"uds_path\": \"v\"}"},
            {"PUT", "entropy", "{}"},
            {"PUT", "serial", "{}"},
            {"PUT", "logger", "{}"},
            {"PUT", "metrics", "{\"metrics_path\": \"/m\"}"},
            {"PUT", "balloon", "{\"amount_mib\": 1, \"deflate_on_oom\": true, \"stats_polling_interval_s\": 1}"},
    };
    static const char *const after[][3] = {
            {"PATCH", "drives/a", "{\"drive_id\": \"a\", \"path_on_host\": \"/b\"}"},
            {"PATCH", "balloon", "{\"amount_mib\": 2}"},
            {"GET", "balloon/statistics", NULL},
            {"PATCH", "balloon/statistics", "{\"stats_polling_interval_s\": 2}"},
            {"PUT", "actions", "{\"action_type\": \"FlushMetrics\"}"},
            {"PUT", "actions", "{\"action_type\": \"SendCtrlAltDel\"}"},
            {"PATCH", "vm", "{\"state\": \"Paused\"}"},
            {"PATCH", "vm", "{\"state\": \"Resumed\"}"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(after); i++)
        refused(after[i][0], after[i][1], after[i][2], BEFORE_TEXT);
    for (size_t i = 0; i < ARRAY_SIZE(before); i++)
        ask(204, before[i][0], before[i][1], before[i][2]);
    ask(204, START);
    for (size_t i = 0; i < ARRAY_SIZE(before); i++)
        refused(before[i][0], before[i][1], before[i][2], AFTER_TEXT);
    for (size_t i = 0; i < ARRAY_SIZE(after); i++)
        ask(strcmp(after[i][0], "GET") ? 204 : 200, after[i][0], after[i][1], after[i][2]);
    assert_int_equal(vm.loggers + vm.metrics + vm.drive_updates + vm.targets + vm.intervals + vm.flushes, 6);
    assert_int_equal(vm.ctrl_alt_dels + vm.pauses + vm.resumes, 3);
}

static void test_snapshots(void **state)
{
    static const char create[] = "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\"}";
    static const char load[] = "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\"}";

    refused("PUT", "snapshot/create", create, BEFORE_TEXT);
    ask(204, KERNEL);
    refused("PUT", "snapshot/load", load,
            "Loading a microVM snapshot not allowed after configuring boot-specific resources.");
    ask(204, START);
    refused("PUT", "snapshot/create", create, "pause it first");
    refused("PUT", "snapshot/load", load, AFTER_TEXT);
    ask(204, "PATCH", "vm", "{\"state\": \"Paused\"}");
    ask(204, "PUT", "snapshot/create", create);
    assert_string_equal(vm.path, "Full a b");
    ask(204, "PUT", "snapshot/create",
            "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"snapshot_type\": \"Diff\"}");
    assert_string_equal(vm.path, "Diff a b");
    vm.fail = true;
    refused("PUT", "snapshot/create", create, "as told");
    vm.fail = false;
    refused("PUT", "snapshot/load", load, AFTER_TEXT);
    ask(204, "PATCH", "vm", "{\"state\": \"Resumed\"}"); /* it can go on after a failure */
    assert_int_equal(vm.creates, 2);
    assert_int_equal(vm.loads, 0);
}

/* One that is loaded is paused, or runs at once; one that failed leaves everything as it was. */
static void test_load(void **state)
{
    static const char load[] = "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\"}";

    ask(204, "PUT", "logger", "{\"level\": \"Error\"}"); /* where its output goes is no part of a VM */
    ask(204, "PUT", "metrics", "{\"metrics_path\": \"/m\"}");
    ask(204, "PUT", "serial", "{\"serial_out_path\": \"/s\"}");
    vm.fail = true;
    refused("PUT", "snapshot/load", load, "as told");
    vm.fail = false;
    ask(200, "GET", "", NULL);
    has("Not started");
    ask(204, "PUT", "snapshot/load", load);
    assert_string_equal(vm.path, "a File b - -");
    ask(200, "GET", "", NULL);
    has("Paused");
    ask(200, "GET", "machine-config", NULL);
    has("\"vcpu_count\":7");
    refused("PUT", "snapshot/load", load, AFTER_TEXT);
    refused(START, AFTER_TEXT);
    ask(204, "PUT", "snapshot/create", load);
    ask(204, "PATCH", "vm", "{\"state\": \"Resumed\"}");
    assert_int_equal(vm.resumes, 1);
    assert_int_equal(vm.starts, 0);
}

static void test_load_and_resume(void **state)
{
    ask(204, "PUT", "snapshot/load",
            "{\"snapshot_path\": \"a\", \"mem_backend\": {\"backend_type\": \"Uffd\", \"backend_path\": \"u\"}, "
            "\"resume_vm\": true, \"track_dirty_pages\": true, \"vsock_override\": {\"uds_path\": \"v\"}}");
    assert_string_equal(vm.path, "a Uffd u v - tracked resumed");
    ask(200, "GET", "", NULL);
    has("Running");
    assert_int_equal(vm.resumes, 0);
}

/* Each of these is what a snapshot brings with it. */
static void test_load_after_anything(void **state)
{
    static const char *const some[][3] = {
            {"PUT", "machine-config", "{\"vcpu_count\": 2, \"mem_size_mib\": 64}"},
            {"PATCH", "machine-config", "{\"mem_size_mib\": 32}"},
            {"PUT", "drives/a", "{\"drive_id\": \"a\", \"path_on_host\": \"/a\", \"is_root_device\": true}"},
            {"PUT", "vsock", "{\"guest_cid\": 3, \"uds_path\": \"v\"}"},
            {"PUT", "entropy", "{}"},
            {"PUT", "balloon", "{\"amount_mib\": 1, \"deflate_on_oom\": true}"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
        controller_deinit(&controller);
        controller_init(&controller, "test", &fake_ops, &vm);
        ask(204, some[i][0], some[i][1], some[i][2]);
        refused("PUT", "snapshot/load", "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\"}",
                "not allowed after configuring");
    }
    assert_int_equal(vm.loads, 0);
}

static void test_drives(void **state)
{
    char path[32], body[128];

    ask(204, "PUT", "drives/a", "{\"drive_id\": \"a\", \"path_on_host\": \"/a\", \"is_root_device\": false}");
    ask(204, "PUT", "drives/b", "{\"drive_id\": \"b\", \"path_on_host\": \"/b\", \"is_root_device\": false}");
    ask(204, "PUT", "drives/r", "{\"drive_id\": \"r\", \"path_on_host\": \"/r\", \"is_root_device\": true}");
    assert_int_equal(controller.config.drive_count, 3);
    assert_string_equal(controller.config.drives[0].drive_id, "r");
    assert_string_equal(controller.config.drives[1].drive_id, "a");
    assert_string_equal(controller.config.drives[2].drive_id, "b");
    refused("PUT", "drives/b", "{\"drive_id\": \"b\", \"path_on_host\": \"/b\", \"is_root_device\": true}",
            "A root block device already exists!");
    refused("PUT", "drives/c", "{\"drive_id\": \"c\", \"path_on_host\": \"/c\", \"is_root_device\": true}",
            "A root block device already exists!");
    /* The root may be changed, and give its place to another. */
    ask(204, "PUT", "drives/r", "{\"drive_id\": \"r\", \"path_on_host\": \"/r2\", \"is_root_device\": true}");
    assert_string_equal(controller.config.drives[0].path_on_host, "/r2");
    ask(204, "PUT", "drives/r", "{\"drive_id\": \"r\", \"path_on_host\": \"/r3\", \"is_root_device\": false}");
    ask(204, "PUT", "drives/b", "{\"drive_id\": \"b\", \"path_on_host\": \"/b2\", \"is_root_device\": true}");
    assert_int_equal(controller.config.drive_count, 3);
    assert_string_equal(controller.config.drives[0].path_on_host, "/b2");
    assert_string_equal(controller.config.drives[1].path_on_host, "/r3");
    assert_string_equal(controller.config.drives[2].path_on_host, "/a");
    for (unsigned i = 3; i <= VM_MAX_DRIVES; i++) {
        (void)snprintf(path, sizeof(path), "drives/%u", i);
        (void)snprintf(
                body, sizeof(body), "{\"drive_id\": \"%u\", \"path_on_host\": \"/\", \"is_root_device\": false}", i);
        ask(i < VM_MAX_DRIVES ? 204 : 400, "PUT", path, body);
    }
    ask(204, KERNEL);
    ask(204, START);
    refused("PATCH", "drives/none", "{\"drive_id\": \"none\", \"path_on_host\": \"/x\"}", "There is no drive none.");
    vm.fail = true;
    refused("PATCH", "drives/a", "{\"drive_id\": \"a\", \"path_on_host\": \"/x\"}", "as told");
    assert_string_equal(controller.config.drives[2].path_on_host, "/a");
    vm.fail = false;
    ask(204, "PATCH", "drives/a", "{\"drive_id\": \"a\", \"path_on_host\": \"/x\"}");
    assert_string_equal(controller.config.drives[2].path_on_host, "/x");
    assert_string_equal(vm.path, "a=/x");
}

static void test_machine(void **state)
{
    ask(200, "GET", "machine-config", NULL);
    assert_string_equal(response.body, "{\"vcpu_count\":1,\"mem_size_mib\":128,\"smt\":false,"
                                       "\"track_dirty_pages\":false,\"huge_pages\":\"None\"}");
    ask(204, "PUT", "machine-config", "{\"vcpu_count\": 2, \"mem_size_mib\": 256, \"huge_pages\": \"2M\"}");
    refused("PATCH", "machine-config", "{\"mem_size_mib\": 255}", "not a multiple of the configured page size");
    ask(204, "PATCH", "machine-config", "{\"mem_size_mib\": 255, \"huge_pages\": \"None\"}");
    ask(200, "GET", "machine-config", NULL);
    has("\"vcpu_count\":2,\"mem_size_mib\":255");
    ask(204, "PUT", "machine-config", "{\"vcpu_count\": 2, \"mem_size_mib\": 256, \"track_dirty_pages\": true}");
    ask(204, "PATCH", "machine-config", "{\"vcpu_count\": 4}");
    assert_true(controller.config.machine.track_dirty_pages);
    ask(204, "PUT", "machine-config", "{\"vcpu_count\": 2, \"mem_size_mib\": 256}");
    assert_false(controller.config.machine.track_dirty_pages); /* PUT resets what it leaves out */
}

static void test_balloon(void **state)
{
    refused("GET", "balloon", NULL, "No balloon device found.");
    refused("PUT", "balloon", "{\"amount_mib\": 129, \"deflate_on_oom\": true}",
            "Amount of pages requested is too large.");
    ask(204, "PUT", "balloon", "{\"amount_mib\": 64, \"deflate_on_oom\": true}");
    ask(200, "GET", "balloon", NULL);
    assert_string_equal(response.body, "{\"amount_mib\":64,\"deflate_on_oom\":true,\"stats_polling_interval_s\":0}");
    refused("PATCH", "machine-config", "{\"mem_size_mib\": 63}", "too large");
    refused("PATCH", "machine-config", "{\"huge_pages\": \"2M\"}", "A balloon gives back pages of 4 KiB");
    ask(204, KERNEL);
    ask(204, START);
    refused("PATCH", "balloon", "{\"amount_mib\": 129}", "too large");
    ask(204, "PATCH", "balloon", "{\"amount_mib\": 128}");
    ask(200, "GET", "balloon", NULL);
    has("\"amount_mib\":128");
    refused("GET", "balloon/statistics", NULL, "Statistics for the balloon device are not enabled");
    refused("PATCH", "balloon/statistics", "{\"stats_polling_interval_s\": 1}",
            "Cannot enable/disable the statistics after boot.");
    vm.fail = true;
    refused("PATCH", "balloon", "{\"amount_mib\": 1}", "as told");
    assert_int_equal(controller.config.balloon.amount_mib, 128);
}

static void test_no_balloon(void **state)
{
    ask(204, KERNEL);
    ask(204, START);
    refused("PATCH", "balloon", "{\"amount_mib\": 1}", "No balloon device found.");
    refused("GET", "balloon/statistics", NULL, "No balloon device found.");
    refused("PATCH", "balloon/statistics", "{\"stats_polling_interval_s\": 1}", "No balloon device found.");
}

static void test_balloon_stats(void **state)
{
    ask(204, "PUT", "balloon", "{\"amount_mib\": 1, \"deflate_on_oom\": true, \"stats_polling_interval_s\": 1}");
    ask(204, KERNEL);
    ask(204, START);
    vm.stats = (struct balloon_stats){.target_pages = 256, .target_mib = 1, .present = 1u << 0 | 1u << 15 | 1ull << 40};
    vm.stats.value[0] = UINT64_MAX; /* the guest may say anything */
    vm.stats.value[15] = 7;
    ask(200, "GET", "balloon/statistics", NULL);
    assert_string_equal(response.body, "{\"target_pages\":256,\"actual_pages\":0,\"target_mib\":1,\"actual_mib\":0,"
                                       "\"swap_in\":9223372036854775807,\"direct_reclaim\":7}");
    refused("PATCH", "balloon/statistics", "{\"stats_polling_interval_s\": 0}",
            "Cannot enable/disable the statistics after boot.");
    ask(204, "PATCH", "balloon/statistics", "{\"stats_polling_interval_s\": 60}");
}

static void test_pause(void **state)
{
    ask(204, KERNEL);
    ask(204, START);
    ask(204, "PATCH", "vm", "{\"state\": \"Resumed\"}");
    assert_int_equal(vm.resumes, 0);
    vm.fail = true;
    refused("PATCH", "vm", "{\"state\": \"Paused\"}", "as told");
    assert_int_equal(controller.state, CONTROLLER_RUNNING);
    vm.fail = false;
    ask(204, "PATCH", "vm", "{\"state\": \"Paused\"}");
    ask(204, "PATCH", "vm", "{\"state\": \"Paused\"}");
    assert_int_equal(vm.pauses, 1);
    ask(204, "PATCH", "vm", "{\"state\": \"Resumed\"}");
    assert_int_equal(vm.resumes, 1);
}

static void test_metrics_once(void **state)
{
    vm.fail = true;
    refused("PUT", "metrics", "{\"metrics_path\": \"/m\"}", "as told");
    vm.fail = false;
    ask(204, "PUT", "metrics", "{\"metrics_path\": \"/m\"}");
    refused("PUT", "metrics", "{\"metrics_path\": \"/n\"}", "have their file already");
    assert_string_equal(vm.path, "/m");
}

static int load(const char *text, struct vm_error *error)
{
    char path[] = "/tmp/test-controller-XXXXXX";
    int fd = mkstemp(path), rc;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
    rc = controller_load_file(&controller, path, error);
    (void)unlink(path);
    return rc;
}

/* What /vm/config says is a configuration file that gives the same VM. */
static void test_config(void **state)
{
    _cleanup_(freep) char *first = NULL;
    struct vm_error error;

    ask(200, "GET", "vm/config", NULL);
    assert_string_equal(response.body,
            "{\"balloon\":null,\"drives\":[],\"boot-source\":{\"kernel_image_path\":\"\",\"initrd_path\":null,"
            "\"boot_args\":null},\"cpu-config\":null,\"logger\":null,\"machine-config\":{\"vcpu_count\":1,"
            "\"mem_size_mib\":128,\"smt\":false,\"track_dirty_pages\":false,\"huge_pages\":\"None\"},"
            "\"metrics\":null,\"mmds-config\":null,\"network-interfaces\":[],\"pmem\":[],\"vsock\":null,"
            "\"serial\":null,\"entropy\":null}");
    ask(204, KERNEL);
    ask(204, "PUT", "machine-config", "{\"vcpu_count\": 2, \"mem_size_mib\": 512}");
    ask(204, "PUT", "balloon", "{\"amount_mib\": 300, \"deflate_on_oom\": true}");
    ask(204, "PUT", "drives/a",
            "{\"drive_id\": \"a\", \"path_on_host\": \"/a\", \"is_root_device\": false, "
            "\"is_read_only\": false, \"cache_type\": \"Writeback\"}");
    ask(204, "PUT", "drives/r", "{\"drive_id\": \"r\", \"path_on_host\": \"/\xc3\xa4\", \"is_root_device\": true}");
    ask(204, "PUT", "vsock", "{\"guest_cid\": 9, \"uds_path\": \"v\"}");
    ask(204, "PUT", "entropy", "{}");
    ask(204, "PUT", "serial", "{\"serial_out_path\": \"/s\"}");
    ask(200, "GET", "vm/config", NULL);
    first = strdup(response.body);

    controller_deinit(&controller);
    controller_init(&controller, NULL, &fake_ops, &vm);
    if (load(first, &error) != 0)
        fail_msg("%s", error.text);
    ask(200, "GET", "vm/config", NULL);
    assert_string_equal(response.body, first);
    assert_int_equal(vm.starts, 0);
    assert_int_equal(controller.config.drive_count, 2);
    assert_string_equal(controller.config.id, "anonymous-instance");
}

static void test_config_too_long(void **state)
{
    char path[32], body[4300];

    for (unsigned i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof(path), "drives/%u", i);
        (void)snprintf(body, sizeof(body),
                "{\"drive_id\": \"%u\", \"path_on_host\": \"%04090d\", \"is_root_device\": false}", i, 0);
        ask(204, "PUT", path, body);
    }
    refused("GET", "vm/config", NULL, "would be longer than");
}

static void test_config_file_bad(void **state)
{
    static const char *const cases[][2] = {
            {"", "deserializing"},
            {"[]", "not a JSON object"},
            {"{\"boot\": {}}", "unknown section \"boot\""},
            {"{\"network-interfaces\": [{}]}", "no network card"},
            {"{\"cpu-config\": \"file\"}", "section \"cpu-config\": not supported"},
            {"{\"drives\": {}}", "section \"drives\": not a list"},
            {"{\"drives\": [{}]}", "section \"drives\": An error occurred"},
            {"{\"drives\": [{\"drive_id\": \"a-b\", \"path_on_host\": \"/\", \"is_root_device\": true}]}",
                    "Resource IDs"},
            {"{\"boot-source\": []}", "section \"boot-source\": An error occurred"},
            {"{\"machine-config\": {\"vcpu_count\": 1, \"mem_size_mib\": 1, \"smt\": true}}", "`smt` is refused"},
            {"{\"balloon\": {\"amount_mib\": 900, \"deflate_on_oom\": true}}", "too large"},
    };
    struct vm_error error;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(load(cases[i][0], &error) < 0);
        if (!strstr(error.text, cases[i][1]) || !strstr(error.text, "/tmp/test-controller-"))
            fail_msg("'%s' is not in '%s'", cases[i][1], error.text);
    }
    assert_int_equal(controller_load_file(&controller, "/nowhere", &error), -ENOENT);
    assert_string_equal(error.text, "configuration /nowhere: No such file or directory");
    assert_int_equal(controller_load_file(&controller, "/dev/zero", &error), -EFBIG);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
            TEST(test_instance),
            TEST(test_start),
            TEST(test_times),
            TEST(test_snapshots),
            TEST(test_load),
            TEST(test_load_and_resume),
            TEST(test_load_after_anything),
            TEST(test_drives),
            TEST(test_machine),
            TEST(test_balloon),
            TEST(test_no_balloon),
            TEST(test_balloon_stats),
            TEST(test_pause),
            TEST(test_metrics_once),
            TEST(test_config),
            TEST(test_config_too_long),
            TEST(test_config_file_bad),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
