/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "monitor/api/request.h"

static struct api_request request;
static struct vm_error error;

static int parse(const char *method, const char *path, const char *body)
{
    api_request_deinit(&request);
    error.text[0] = '\0';
    return api_parse(&request, method, path, body, body ? strlen(body) : 0, &error);
}

static void good(const char *method, const char *path, const char *body, enum api_verb verb)
{
    if (parse(method, path, body) != 0)
        fail_msg("%s %s %s: %s", method, path, body ? body : "", error.text);
    assert_int_equal(request.verb, verb);
}

static void refused(const char *method, const char *path, const char *body, const char *text)
{
    if (parse(method, path, body) != -EINVAL)
        fail_msg("accepted: %s %s %s", method, path, body ? body : "");
    if (!strstr(error.text, text))
        fail_msg("%s %s %s: '%s' is not in '%s'", method, path, body ? body : "", text, error.text);
}

static void test_routes(void **state)
{
    good("GET", "", NULL, API_GET_INSTANCE);
    good("GET", "version", NULL, API_GET_VERSION);
    good("GET", "version/", NULL, API_GET_VERSION);
    good("GET", "vm/config", NULL, API_GET_VM_CONFIG);
    good("GET", "machine-config", NULL, API_GET_MACHINE_CONFIG);
    good("GET", "balloon", NULL, API_GET_BALLOON);
    good("GET", "balloon/statistics", NULL, API_GET_BALLOON_STATS);
    good("PUT", "actions", "{\"action_type\": \"InstanceStart\"}", API_START);
    good("PUT", "actions", "{\"action_type\": \"FlushMetrics\"}", API_FLUSH_METRICS);
    good("PUT", "actions", "{\"action_type\": \"SendCtrlAltDel\"}", API_CTRL_ALT_DEL);
    good("PUT", "entropy", "{}", API_PUT_ENTROPY);
    good("PUT", "snapshot/create", "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"snapshot_type\": \"Diff\"}",
            API_SNAPSHOT_CREATE);
    good("PUT", "snapshot/load",
            "{\"snapshot_path\": \"a\", \"mem_backend\": {\"backend_type\": \"File\", \"backend_path\": \"m\"}, "
            "\"resume_vm\": true, "
            "\"network_overrides\": []}",
            API_SNAPSHOT_LOAD);

    refused("GET", "nothing", NULL, "Invalid request method and/or path: GET nothing.");
    refused("GET", "vm", NULL, "Invalid request method and/or path: GET vm.");
    refused("GET", "version?a=b", NULL, "Invalid request method and/or path");
    refused("GET", "drives/root", NULL, "Invalid request method and/or path");
    refused("PUT", "version", "{}", "Invalid request method and/or path: PUT version.");
    refused("PUT", "versio", "{}", "Invalid request method and/or path");
    refused("PUT", "vm/config", "{}", "Invalid request method and/or path");
    refused("DELETE", "drives/a", NULL, "Invalid request method and/or path: DELETE drives/a.");
    refused("GET", "version", "{}", "GET request cannot have a body.");
    refused("GET", "nothing", "{}", "GET request cannot have a body.");
    refused("PUT", "actions", NULL, "Empty PUT request.");
    refused("PATCH", "vm", NULL, "Empty PATCH request.");
}

static void test_refused_endpoints(void **state)
{
    refused("PUT", "network-interfaces/eth0", "{}", "no network card");
    refused("PATCH", "network-interfaces", NULL, "no network card");
    refused("GET", "mmds", NULL, "no network card");
    refused("PUT", "mmds/config", "{}", "no network card");
    refused("PUT", "cpu-config", "{}", "CPU templates are not supported");
    refused("PUT", "pmem/a", "{}", "not supported");
    refused("GET", "hotplug/memory", NULL, "not supported");
    refused("PATCH", "balloon/hinting/start", NULL, "not supported");
    refused("GET", "mmdsx", NULL, "Invalid request");
}

static void test_json(void **state)
{
    char deep[256] = "{\"rate_limiter\": ";

    refused("PUT", "entropy", "", "An error occurred when deserializing the json body of a request: ");
    refused("PUT", "entropy", "{", "deserializing");
    refused("PUT", "entropy", "[]", "an array, expected an object");
    refused("PUT", "entropy", "null", "null, expected an object");
    refused("PUT", "entropy", "{} x", "deserializing");
    refused("PUT", "entropy", "{\"\xff\": 1}", "deserializing");
    refused("PUT", "actions", "{\"action_type\": \"InstanceStart\", \"action_type\": \"InstanceStart\"}", "duplicate");
    refused("PUT", "actions", "{\"action_type\": \"Instance\\u0000Start\"}", "deserializing");
    for (unsigned i = 0; i < API_MAX_DEPTH; i++)
        (void)strcat(deep, "[");
    refused("PUT", "entropy", deep, "levels");
    /* Brackets in a string are text. */
    refused("PUT", "entropy", "{\"[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[\": 1}", "unknown field");
}

static void test_snapshot_create(void **state)
{
    static const char path[] = "snapshot/create";

    good("PUT", path, "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\"}", API_SNAPSHOT_CREATE);
    assert_string_equal(request.create.snapshot_path, "a");
    assert_string_equal(request.create.mem_file_path, "b");
    assert_false(request.create.diff);
    good("PUT", path, "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"snapshot_type\": \"Diff\"}",
            API_SNAPSHOT_CREATE);
    assert_true(request.create.diff);
    refused("PUT", path, "{\"snapshot_path\": \"a\"}", "missing field `mem_file_path`");
    refused("PUT", path, "{\"snapshot_path\": \"\", \"mem_file_path\": \"b\"}", "`snapshot_path` is empty");
    refused("PUT", path, "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"snapshot_type\": \"full\"}",
            "unknown variant `full`");
    refused("PUT", path, "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"version\": \"1\"}",
            "unknown field `version`");
}

static void test_snapshot_load(void **state)
{
    static const char path[] = "snapshot/load";

    good("PUT", path, "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\"}", API_SNAPSHOT_LOAD);
    assert_string_equal(request.load.backend_path, "b"); /* the older way to say so */
    assert_int_equal(request.load.backend, MEMORY_BACKEND_FILE);
    assert_false(request.load.resume || request.load.track_dirty_pages);
    assert_null(request.load.uds_path);
    good("PUT", path,
            "{\"snapshot_path\": \"a\", \"mem_backend\": {\"backend_type\": \"Uffd\", \"backend_path\": \"u\"}, "
            "\"enable_diff_snapshots\": true, \"resume_vm\": true, \"clock_realtime\": false, "
            "\"vsock_override\": {\"uds_path\": \"v\"}}",
            API_SNAPSHOT_LOAD);
    assert_int_equal(request.load.backend, MEMORY_BACKEND_UFFD);
    assert_string_equal(request.load.backend_path, "u");
    assert_string_equal(request.load.uds_path, "v");
    assert_true(request.load.resume && request.load.track_dirty_pages);
    good("PUT", path, "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"prefetch_path\": \"p\"}",
            API_SNAPSHOT_LOAD);
    assert_string_equal(request.load.prefetch_path, "p");
    assert_true(request.load.expect_vcpus == 0 && request.load.expect_mib == 0);
    good("PUT", path,
            "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"expect\": {\"vcpu_count\": 2, \"mem_size_mib\": "
            "64}}",
            API_SNAPSHOT_LOAD);
    assert_int_equal(request.load.expect_vcpus, 2);
    assert_int_equal(request.load.expect_mib, 64);

    refused("PUT", path, "{\"snapshot_path\": \"a\"}",
            "missing field: either `mem_backend` or `mem_file_path` is required");
    refused("PUT", path,
            "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"mem_backend\": {\"backend_type\": \"File\", "
            "\"backend_path\": \"m\"}}",
            "too many fields: either `mem_backend` or `mem_file_path` exclusively is required");
    refused("PUT", path, "{\"snapshot_path\": \"a\", \"mem_backend\": {\"backend_type\": \"File\"}}",
            "missing field `backend_path`");
    refused("PUT", path,
            "{\"snapshot_path\": \"a\", \"mem_backend\": {\"backend_type\": \"Net\", \"backend_path\": \"m\"}}",
            "unknown variant `Net`");
    refused("PUT", path,
            "{\"snapshot_path\": \"a\", \"mem_backend\": {\"backend_type\": \"File\", \"backend_path\": \"m\", \"x\": "
            "1}}",
            "unknown field `x`");
    refused("PUT", path, "{\"snapshot_path\": \"a\", \"mem_backend\": \"m\"}", "expected an object");
    refused("PUT", path,
            "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"network_overrides\": [{\"iface_id\": \"e\"}]}",
            "no network card");
    refused("PUT", path, "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"vsock_override\": {}}",
            "missing field `uds_path`");
    refused("PUT", path, "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"clock_realtime\": true}",
            "`clock_realtime` is refused");
    refused("PUT", path,
            "{\"snapshot_path\": \"a\", \"mem_backend\": {\"backend_type\": \"Uffd\", \"backend_path\": \"m\"}, "
            "\"prefetch_path\": \"p\"}",
            "for mem_backend File");
    refused("PUT", path, "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"expect\": {\"vcpu_count\": 2}}",
            "missing field `mem_size_mib`");
    refused("PUT", path,
            "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"expect\": {\"vcpu_count\": 0, \"mem_size_mib\": "
            "64}}",
            "invalid value for `vcpu_count`: 0");
    refused("PUT", path,
            "{\"snapshot_path\": \"a\", \"mem_file_path\": \"b\", \"expect\": {\"vcpu_count\": 1, \"mem_size_mib\": 1, "
            "\"smt\": true}}",
            "unknown field `smt`");
}

static void test_machine(void **state)
{
    static const char path[] = "machine-config";

    good("PUT", path, "{\"vcpu_count\": 32, \"mem_size_mib\": 1}", API_PUT_MACHINE_CONFIG);
    assert_int_equal(request.machine.vcpu_count, 32);
    assert_int_equal(request.machine.mem_size_mib, 1);
    assert_int_equal(request.machine.huge_pages, HUGE_PAGES_NONE);
    good("PUT", path,
            "{\"vcpu_count\": 1, \"mem_size_mib\": 128, \"smt\": false, \"cpu_template\": \"None\", "
            "\"track_dirty_pages\": true, \"huge_pages\": \"2M\"}",
            API_PUT_MACHINE_CONFIG);
    assert_true(request.machine.track_dirty_pages);
    assert_int_equal(request.machine.huge_pages, HUGE_PAGES_2M);
    good("PUT", path, "{\"vcpu_count\": 1, \"mem_size_mib\": 128, \"cpu_template\": null}", API_PUT_MACHINE_CONFIG);
    good("PATCH", path, "{\"mem_size_mib\": 256}", API_PATCH_MACHINE_CONFIG);
    assert_int_equal(request.has, API_HAS_MEM_SIZE);
    good("PATCH", path, "{\"smt\": false}", API_PATCH_MACHINE_CONFIG);

    refused("PATCH", path, "{}", "Empty PATCH request.");
    refused("PATCH", path, "{\"vcpu_count\": null}", "Empty PATCH request.");
    refused("PUT", path, "{\"vcpu_count\": 1}", "missing field `mem_size_mib`");
    refused("PUT", path, "{\"vcpu_count\": null, \"mem_size_mib\": 1}", "invalid type for `vcpu_count`: null");
    refused("PUT", path, "{\"vcpu_count\": 0, \"mem_size_mib\": 1}", "`vcpu_count`: 0, expected 1 to 32");
    refused("PUT", path, "{\"vcpu_count\": 33, \"mem_size_mib\": 1}", "`vcpu_count`: 33");
    refused("PUT", path, "{\"vcpu_count\": -1, \"mem_size_mib\": 1}", "`vcpu_count`: -1");
    refused("PUT", path, "{\"vcpu_count\": 1, \"mem_size_mib\": 0}", "`mem_size_mib`: 0");
    refused("PUT", path, "{\"vcpu_count\": 1, \"mem_size_mib\": 4294967296}", "`mem_size_mib`: 4294967296");
    refused("PUT", path, "{\"vcpu_count\": 1, \"mem_size_mib\": 99999999999999999999}", "too big");
    refused("PUT", path, "{\"vcpu_count\": 1.0, \"mem_size_mib\": 1}", "a floating point number, expected an integer");
    refused("PUT", path, "{\"vcpu_count\": \"1\", \"mem_size_mib\": 1}", "a string, expected an integer");
    refused("PATCH", path, "{\"smt\": true}", "`smt` is refused: every vCPU is a core of its own");
    refused("PATCH", path, "{\"smt\": 1}", "invalid type for `smt`: an integer");
    refused("PATCH", path, "{\"cpu_template\": \"T2\"}", "CPU templates are not supported");
    refused("PATCH", path, "{\"huge_pages\": \"1G\"}",
            "unknown variant `1G` of `huge_pages`, expected one of `None`, `2M`");
    refused("PATCH", path, "{\"track_dirty_pages\": \"yes\"}", "a string, expected a boolean");
    refused("PATCH", path, "{\"ht_enabled\": false}", "unknown field `ht_enabled`.");
}

static void test_boot(void **state)
{
    char body[VM_MAX_CMDLINE + 128];

    good("PUT", "boot-source", "{\"kernel_image_path\": \"/vmlinux\", \"boot_args\": \"\"}", API_PUT_BOOT_SOURCE);
    assert_string_equal(request.boot.kernel_image_path, "/vmlinux");
    assert_string_equal(request.boot.boot_args, "");
    assert_null(request.boot.initrd_path);
    good("PUT", "boot-source", "{\"kernel_image_path\": \"k\", \"boot_args\": null, \"initrd_path\": \"i\"}",
            API_PUT_BOOT_SOURCE);
    assert_null(request.boot.boot_args);
    refused("PUT", "boot-source", "{}", "missing field `kernel_image_path`.");
    refused("PUT", "boot-source", "{\"kernel_image_path\": \"\"}", "`kernel_image_path` is empty");
    refused("PUT", "boot-source", "{\"kernel_image_path\": 1}", "an integer, expected a string");
    refused("PUT", "boot-source", "{\"kernel_image_path\": \"a\\nb\"}", "control character");
    refused("PUT", "boot-source", "{\"kernel\": \"a\"}", "unknown field `kernel`.");
    for (int extra = 0; extra < 2; extra++) {
        (void)snprintf(body, sizeof(body), "{\"kernel_image_path\": \"k\", \"boot_args\": \"%0*d\"}",
                (int)VM_MAX_CMDLINE - 1 + extra, 0);
        assert_int_equal(parse("PUT", "boot-source", body), extra ? -EINVAL : 0);
    }
}

static void test_drive(void **state)
{
    static const char root[] = "{\"drive_id\": \"root_1\", \"path_on_host\": \"/r\", \"is_root_device\": true}";
    char body[256], path[128];

    good("PUT", "drives/root_1", root, API_PUT_DRIVE);
    assert_string_equal(request.drive.drive_id, "root_1");
    assert_true(request.drive.is_root_device);
    assert_true(request.drive.is_read_only); /* unless it says otherwise */
    assert_false(request.drive.writeback);
    good("PUT", "drives/d",
            "{\"drive_id\": \"d\", \"path_on_host\": \"/d\", \"is_root_device\": false, \"is_read_only\": false, "
            "\"cache_type\": \"Writeback\", \"io_engine\": \"Sync\", \"rate_limiter\": {\"bandwidth\": null, \"ops\": "
            "{}}, "
            "\"partuuid\": null, \"socket\": null}",
            API_PUT_DRIVE);
    assert_false(request.drive.is_read_only);
    assert_true(request.drive.writeback);
    good("PATCH", "drives/d", "{\"drive_id\": \"d\", \"path_on_host\": \"/n\"}", API_PATCH_DRIVE);
    assert_int_equal(request.has, API_HAS_PATH);
    good("PATCH", "drives/d", "{\"drive_id\": \"d\"}", API_PATCH_DRIVE);

    refused("PUT", "drives", root, "The ID cannot be empty.");
    refused("PUT", "drives/", root, "The ID cannot be empty.");
    refused("PUT", "drives/root-1", root, "API Resource IDs can only contain alphanumeric characters and underscores.");
    refused("PUT", "drives/root_1/x", root, "API Resource IDs");
    refused("PUT", "drives/other", root, "The id from the path does not match the id from the body!");
    refused("PUT", "drives/d", "{\"drive_id\": \"d\", \"path_on_host\": \"/d\"}", "missing field `is_root_device`");
    refused("PATCH", "drives/d", "{\"drive_id\": \"d\", \"is_read_only\": true}", "unknown field `is_read_only`");
    static const struct {
        const char *member, *text;
    } cases[] = {
            {"\"rate_limiter\": {\"ops\": {\"size\": 1}}", "rate limiters are not supported"},
            {"\"rate_limiter\": 1", "an integer, expected an object"},
            {"\"cache_type\": \"Direct\"", "unknown variant `Direct`"},
            {"\"io_engine\": \"Async\"", "only the Sync engine"},
            {"\"partuuid\": \"x\"", "root=PARTUUID="},
            {"\"socket\": \"x\"", "vhost-user drives are not supported"},
            {"\"is_read_only\": 1", "an integer, expected a boolean"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        (void)snprintf(body, sizeof(body),
                "{\"drive_id\": \"d\", \"path_on_host\": \"/d\", \"is_root_device\": false, %s}", cases[i].member);
        refused("PUT", "drives/d", body, cases[i].text);
    }
    for (int extra = 0; extra < 2; extra++) {
        (void)snprintf(path, sizeof(path), "drives/%0*d", (int)VM_MAX_ID + extra, 0);
        (void)snprintf(body, sizeof(body), "{\"drive_id\": \"%s\"}", path + 7);
        assert_int_equal(parse("PATCH", path, body), extra ? -EINVAL : 0);
    }
}

static void test_vsock(void **state)
{
    char body[256];

    good("PUT", "vsock", "{\"guest_cid\": 3, \"uds_path\": \"./v.sock\", \"vsock_id\": \"1\"}", API_PUT_VSOCK);
    assert_int_equal(request.vsock.guest_cid, 3);
    good("PUT", "vsock", "{\"guest_cid\": 4294967294, \"uds_path\": \"v\"}", API_PUT_VSOCK);
    refused("PUT", "vsock", "{\"guest_cid\": 2, \"uds_path\": \"v\"}", "`guest_cid`: 2, expected 3 to 4294967294");
    refused("PUT", "vsock", "{\"guest_cid\": 4294967295, \"uds_path\": \"v\"}", "`guest_cid`");
    refused("PUT", "vsock", "{\"guest_cid\": 3}", "missing field `uds_path`");
    (void)snprintf(body, sizeof(body), "{\"guest_cid\": 3, \"uds_path\": \"%0108d\"}", 0);
    refused("PUT", "vsock", body, "`uds_path` has 108 bytes, at most 107");
}

static void test_others(void **state)
{
    good("PUT", "logger",
            "{\"log_path\": \"/l\", \"level\": \"warning\", \"show_level\": true, \"show_log_origin\": false}",
            API_PUT_LOGGER);
    assert_int_equal(request.logger.level, LOG_WARN);
    assert_int_equal(request.has, API_HAS_PATH | API_HAS_LEVEL | API_HAS_SHOW_LEVEL | API_HAS_SHOW_ORIGIN);
    good("PUT", "logger", "{\"level\": \"Off\"}", API_PUT_LOGGER);
    assert_int_equal(request.logger.level, LOG_ERROR);
    good("PUT", "logger", "{\"level\": \"Trace\"}", API_PUT_LOGGER);
    assert_int_equal(request.logger.level, LOG_DEBUG);
    refused("PUT", "logger", "{\"level\": \"Loud\"}",
            "unknown variant `Loud` of `level`, expected one of `Off`, `Error`");
    refused("PUT", "logger", "{\"module\": \"a\"}", "`module` is refused");
    good("PUT", "metrics", "{\"metrics_path\": \"/m\"}", API_PUT_METRICS);
    assert_string_equal(request.logger.path, "/m");
    good("PUT", "serial", "{\"serial_out_path\": \"/s\"}", API_PUT_SERIAL);
    good("PUT", "serial", "{}", API_PUT_SERIAL);
    good("PUT", "balloon", "{\"amount_mib\": 0, \"deflate_on_oom\": false}", API_PUT_BALLOON);
    assert_true(request.balloon.present);
    good("PUT", "balloon",
            "{\"amount_mib\": 1, \"deflate_on_oom\": true, \"stats_polling_interval_s\": 65535, "
            "\"free_page_hinting\": false}",
            API_PUT_BALLOON);
    refused("PUT", "balloon", "{\"amount_mib\": 1, \"deflate_on_oom\": true, \"stats_polling_interval_s\": 65536}",
            "expected 0 to 65535");
    refused("PUT", "balloon", "{\"amount_mib\": 1, \"deflate_on_oom\": true, \"free_page_reporting\": true}",
            "free page reporting is not supported");
    good("PATCH", "balloon", "{\"amount_mib\": 1}", API_PATCH_BALLOON);
    assert_false(request.balloon.present);
    good("PATCH", "balloon/statistics", "{\"stats_polling_interval_s\": 1}", API_PATCH_BALLOON_STATS);
    good("PATCH", "vm", "{\"state\": \"Paused\"}", API_PATCH_VM);
    assert_true(request.paused);
    good("PATCH", "vm", "{\"state\": \"Resumed\"}", API_PATCH_VM);
    assert_false(request.paused);
    refused("PATCH", "vm", "{\"state\": \"Stopped\"}", "unknown variant `Stopped`");
    refused("PUT", "actions", "{\"action_type\": \"Stop\"}", "expected one of `InstanceStart`, `FlushMetrics`, ");
    refused("PUT", "snapshot/create", "{\"snapshot_path\": \"a\"}", "missing field `mem_file_path`");
}

static void test_fault(void **state)
{
    struct api_response response;
    char text[2048];

    api_fault(&response, "a \"%s\"\n", "b");
    assert_int_equal(response.status, 400);
    assert_string_equal(response.body, "{\"fault_message\":\"a \\\"b\\\"\\n\"}");
    api_fault(&response, "\xff%s", "\xc3\xa4");
    assert_string_equal(response.body, "{\"fault_message\":\"???\"}");
    memset(text, 1, sizeof(text) - 1); /* each becomes six */
    text[sizeof(text) - 1] = '\0';
    api_fault(&response, "%s", text);
    assert_true(strlen(response.body) > 6000);
}

/* A message with a part of a long foreign name is cut between two characters. */
static void test_excerpt(void **state)
{
    char body[128] = "{\"";

    for (int i = 0; i < 13; i++)
        (void)strcat(body, "\xe2\x82\xac");
    (void)strcat(body, "\xe2\x82\xac\": 1}");
    refused("PUT", "entropy", body, "unknown field `\xe2\x82\xac");
    assert_true(strstr(error.text, "\xe2\x82\xac`.") != NULL);
}

static int teardown(void **state)
{
    api_request_deinit(&request);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_routes),
            cmocka_unit_test(test_refused_endpoints),
            cmocka_unit_test(test_json),
            cmocka_unit_test(test_machine),
            cmocka_unit_test(test_snapshot_create),
            cmocka_unit_test(test_snapshot_load),
            cmocka_unit_test(test_boot),
            cmocka_unit_test(test_drive),
            cmocka_unit_test(test_vsock),
            cmocka_unit_test(test_others),
            cmocka_unit_test(test_fault),
            cmocka_unit_test(test_excerpt),
    };

    return cmocka_run_group_tests(tests, NULL, teardown);
}
