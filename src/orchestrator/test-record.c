/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/test-util.h"

#include <errno.h>

static void round_trip(void **state)
{
    struct record a = sample_record("vm-1"), b;
    char *text;

    a.state = IC_VM_PAUSED;
    a.keep = true;
    a.monitor = (struct process_id){.pid = 17, .start_ticks = UINT32_MAX + 5ull};
    a.kernel_path = strdup("/k \"quoted\", with comma");
    a.user = strdup("agent");
    a.max_lifetime_ms = UINT32_MAX;
    a.max_output_bytes = 7;
    a.max_connections = 1023;
    a.max_disk_mib_per_s = 5;
    a.max_disk_ops_per_s = 6;
    a.phase_us[PHASE_LOAD] = 1234;
    (void)snprintf(a.origin, sizeof(a.origin), "template 0123456789abcdef");
    (void)snprintf(a.generation, sizeof(a.generation), "00112233445566778899aabbccddeeff");
    a.overlay_kind = IC_OVERLAY_EXT4;
    a.overlay_path = strdup("/o");
    a.env = calloc(2, sizeof(*a.env));
    a.env[0] = strdup("A=\xc3\xa4\n");
    (void)snprintf(a.failure, sizeof(a.failure), "why");
    text = record_encode(&a);
    assert_non_null(text);
    assert_int_equal(record_decode(&b, text, strlen(text)), 0);
    assert_string_equal(b.vm_id, "vm-1");
    assert_int_equal(b.state, IC_VM_PAUSED);
    assert_true(b.keep);
    assert_int_equal(b.monitor.pid, 17);
    assert_int_equal(b.monitor.start_ticks, a.monitor.start_ticks);
    assert_string_equal(b.kernel_path, a.kernel_path);
    assert_null(b.initrd_path);
    assert_string_equal(b.overlay_path, "/o");
    assert_int_equal(b.max_lifetime_ms, UINT32_MAX);
    assert_int_equal(b.max_output_bytes, 7);
    assert_int_equal(b.max_connections, 1023);
    assert_int_equal(b.max_disk_mib_per_s, 5);
    assert_int_equal(b.max_disk_ops_per_s, 6);
    assert_int_equal(b.phase_us[PHASE_LOAD], 1234);
    assert_int_equal(b.phase_us[PHASE_IDENTITY], 0);
    assert_string_equal(b.origin, a.origin);
    assert_string_equal(b.generation, a.generation);
    assert_string_equal(b.env[0], a.env[0]);
    assert_null(b.env[1]);
    assert_string_equal(b.failure, "why");
    free(text);
    record_deinit(&a);
    record_deinit(&b);
}

/* Every prefix, and every byte changed: a verdict, never a crash, and never half a record. */
static void survives_damage(void **state)
{
    struct record a = sample_record("vm-1"), b;
    char *text = record_encode(&a);
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++)
        assert_int_equal(record_decode(&b, text, i), -EBADMSG);
    for (size_t i = 0; i < len; i++) {
        char saved = text[i];

        text[i] ^= 0x15;
        if (record_decode(&b, text, len) == 0)
            record_deinit(&b);
        text[i] = saved;
    }
    free(text);
    record_deinit(&a);
}

static void refuse_as(const char *from, const char *to, int expected)
{
    struct record a = sample_record("vm-1"), b;
    char *text = record_encode(&a), *at = strstr(text, from);
    char changed[8192];

    assert_non_null(at);
    (void)snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    assert_int_equal(record_decode(&b, changed, strlen(changed)), expected);
    free(text);
    record_deinit(&a);
}

static void refuse(const char *from, const char *to)
{
    refuse_as(from, to, -EBADMSG);
}

static void refuses_wrong_values(void **state)
{
    refuse_as("\"version\": 4", "\"version\": 5", -EPROTONOSUPPORT);
    refuse("\"version\": 4", "\"version\": \"4\"");
    refuse("\"vm_id\": \"vm-1\"", "\"vm_id\": \"../vm\"");
    refuse("\"state\": \"created\"", "\"state\": \"dreaming\"");
    refuse("\"pid\": 0", "\"pid\": -1");
    refuse("\"pid\": 0", "\"pid\": 4294967296");
    refuse("\"vcpu_count\": 1", "\"vcpu_count\": 33");
    refuse("\"max_lifetime_ms\": 0", "\"max_lifetime_ms\": -1");
    refuse("\"max_output_bytes\": 0", "\"max_output_bytes\": 4294967296");
    refuse("\"generation\": \"\"", "\"generation\": \"00112233445566778899aabbccddeeff0\"");
    refuse("\"max_connections\": 0", "\"max_connections\": true");
    refuse("\"keep\": false", "\"keep\": 0");
    refuse("\"keep\": false", "\"keep\": false, \"keep\": true");
    refuse("\"run_dir\": \"/", "\"run_dir\": \"");
    refuse("\"env\": []", "\"env\": [1]");
    refuse("\"vsock\": {", "\"vsock\": 1, \"x\": {");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(round_trip),
            cmocka_unit_test(survives_damage),
            cmocka_unit_test(refuses_wrong_values),
    };

    return cmocka_run_group_tests(tests, home_setup, home_teardown);
}
