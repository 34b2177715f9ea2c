/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <string.h>

#include "monitor/snapshot/machine.h"

static const uint8_t id[SNAPSHOT_ID_BYTES];
static struct vm_error error;

static char root[] = "root", disk[] = "/images/root", second[] = "second", other[] = "/x", kernel[] = "/k",
            uds[] = "/run/v", args[] = "";

static struct vm_config example(void)
{
    return (struct vm_config){.machine = {.vcpu_count = 3, .mem_size_mib = 300, .track_dirty_pages = true},
            .boot = {.kernel_image_path = kernel, .boot_args = args},
            .drives = {{.drive_id = root, .path_on_host = disk, .is_root_device = true, .is_read_only = true},
                    {.drive_id = second, .path_on_host = other, .writeback = true}},
            .drive_count = 2,
            .vsock = {.uds_path = uds, .guest_cid = 7},
            .balloon = {.present = true, .amount_mib = 5, .stats_polling_interval_s = 2},
            .entropy = true};
}

static void write_file(struct buf *ret, const struct vm_config *config, const struct snapshot_host *host)
{
    _cleanup_(snapshot_writer_deinit) struct snapshot_writer writer = {0};

    snapshot_put_config(snapshot_begin(&writer, SNAPSHOT_CONFIG, 0), config);
    if (host)
        snapshot_put_host(snapshot_begin(&writer, SNAPSHOT_HOST, 0), host);
    *ret = (struct buf){0};
    assert_int_equal(snapshot_finish(&writer, id, ret), 0);
}

static int read_config(const struct buf *file, struct vm_config *ret)
{
    struct snapshot snapshot;

    assert_int_equal(snapshot_open(&snapshot, file->data, file->len, "state", &error), 0);
    *ret = (struct vm_config){0};
    return snapshot_get_config(&snapshot, ret, &error);
}

static void test_config(void **state)
{
    _cleanup_(buf_deinit) struct buf file;
    struct vm_config config = example(), got;

    write_file(&file, &config, NULL);
    assert_int_equal(read_config(&file, &got), 0);
    assert_int_equal(got.machine.vcpu_count, 3);
    assert_int_equal(got.machine.mem_size_mib, 300);
    assert_true(got.machine.track_dirty_pages && got.entropy && got.balloon.present && !got.balloon.deflate_on_oom);
    assert_string_equal(got.boot.kernel_image_path, kernel);
    assert_null(got.boot.initrd_path);
    assert_string_equal(got.boot.boot_args, "");
    assert_int_equal(got.drive_count, 2);
    assert_string_equal(got.drives[0].drive_id, root);
    assert_string_equal(got.drives[1].path_on_host, other);
    assert_true(got.drives[0].is_root_device && got.drives[0].is_read_only && !got.drives[0].writeback);
    assert_true(!got.drives[1].is_root_device && !got.drives[1].is_read_only && got.drives[1].writeback);
    assert_string_equal(got.vsock.uds_path, uds);
    assert_int_equal(got.vsock.guest_cid, 7);
    assert_int_equal(got.balloon.amount_mib, 5);
    assert_int_equal(got.balloon.stats_polling_interval_s, 2);
    assert_null(got.serial.output_path);
    vm_config_deinit(&got);
}

static void config_refused(const struct vm_config *config, const char *text)
{
    _cleanup_(buf_deinit) struct buf file;
    struct vm_config got;
    int r;

    write_file(&file, config, NULL);
    r = read_config(&file, &got);
    if (r >= 0 || !strstr(error.text, text) || !strstr(error.text, "snapshot state: part config 0"))
        fail_msg("%d, '%s' and not '%s'", r, error.text, text);
    vm_config_deinit(&got);
}

/* What the API would never have let in. */
static void test_impossible_configs(void **state)
{
    char control[] = "/x\n", minus[] = "a-b", empty[] = "";
    struct vm_config c = example();

    c.machine.vcpu_count = 0;
    config_refused(&c, "no machine is possible with 0 vCPUs");
    c.machine.vcpu_count = VM_MAX_VCPUS + 1;
    config_refused(&c, "no machine");
    c = example();
    c.machine.mem_size_mib = 0;
    config_refused(&c, "no machine");
    c = example();
    c.drives[1].drive_id = root;
    config_refused(&c, "drive root is there twice");
    c.drives[1].drive_id = minus;
    config_refused(&c, "no such drive");
    c.drives[1].drive_id = empty;
    config_refused(&c, "no such drive");
    c = example();
    c.drives[0].path_on_host = control;
    config_refused(&c, "control characters");
    c.drives[0].path_on_host = empty;
    config_refused(&c, "no such drive");
    c = example();
    c.balloon.amount_mib = 301;
    config_refused(&c, "no such balloon");
    c = example();
    c.balloon.stats_polling_interval_s = 65536;
    config_refused(&c, "no such balloon");
    c = example();
    c.vsock.uds_path = empty;
    config_refused(&c, "no such balloon or vsock");
}

/* Every length that its bytes could be cut at. */
static void test_short_config(void **state)
{
    _cleanup_(buf_deinit) struct buf bytes = {0};
    struct vm_config config = example(), got;

    snapshot_put_config(&bytes, &config);
    for (size_t len = 0; len <= bytes.len + 1; len++) {
        _cleanup_(snapshot_writer_deinit) struct snapshot_writer writer = {0};
        _cleanup_(buf_deinit) struct buf file = {0};
        struct buf *part = snapshot_begin(&writer, SNAPSHOT_CONFIG, 0);

        buf_put(part, bytes.data, MIN(len, bytes.len));
        if (len > bytes.len)
            buf_put_u8(part, 0);
        assert_int_equal(snapshot_finish(&writer, id, &file), 0);
        if ((read_config(&file, &got) == 0) != (len == bytes.len))
            fail_msg("%zu of %zu bytes: %s", len, bytes.len, error.text);
        vm_config_deinit(&got);
    }
}

static void test_huge_pages(void **state)
{
    struct vm_config config = example();

    assert_int_equal(snapshot_check_config(&config, &error), 0);
    config.machine.huge_pages = HUGE_PAGES_2M;
    assert_int_equal(snapshot_check_config(&config, &error), -ENOTSUP);
    assert_non_null(strstr(error.text, "huge_pages"));
}

static void test_host(void **state)
{
    struct snapshot_host here, got, made_on = {.vendor = "GenuineIntel", .signature = 0x000806f8, .monitor = "0.1"};
    struct vm_config config = example();
    _cleanup_(buf_deinit) struct buf file;
    struct snapshot snapshot;

    write_file(&file, &config, &made_on);
    assert_int_equal(snapshot_open(&snapshot, file.data, file.len, "state", &error), 0);
    assert_int_equal(snapshot_get_host(&snapshot, &got, &error), 0);
    assert_memory_equal(got.vendor, "GenuineIntel", 12);
    assert_int_equal(got.signature, 0x000806f8);
    assert_string_equal(got.monitor, "0.1");

    here = made_on;
    assert_int_equal(snapshot_check_host(&made_on, &here, "state", &error), 0);
    here.signature = 0x000806f5; /* another stepping */
    assert_int_equal(snapshot_check_host(&made_on, &here, "state", &error), 0);
    here.signature = 0x000906f8; /* another model */
    assert_int_equal(snapshot_check_host(&made_on, &here, "state", &error), -ENOTSUP);
    assert_non_null(strstr(error.text, "GenuineIntel family 6 model 143; this is GenuineIntel family 6 model 159"));
    here.signature = 0x00a00f11;
    memcpy(here.vendor, "AuthenticAMD", 12);
    assert_int_equal(snapshot_check_host(&made_on, &here, "state", &error), -ENOTSUP);
    assert_non_null(strstr(error.text, "AuthenticAMD family 25 model 1"));
    snapshot_host_here(&here);
    assert_int_equal(snapshot_check_host(&here, &here, "state", &error), 0);
}

/* A feature that the guest saw has to be here; more may be. */
static void test_cpuid(void **state)
{
    static const struct kvm_cpuid_entry2 leaves[] = {
            {.function = 0x1, .eax = 0x806f8, .ebx = 0x1234, .ecx = 0xf0, .edx = 0x0f},
            {.function = 0x7, .index = 0, .ebx = 0xff, .ecx = 3, .edx = 1},
            {.function = 0x80000001, .ecx = 1},
    };
    struct kvm_cpuid2 *guest = calloc(1, sizeof(*guest) + sizeof(leaves)),
                      *here = calloc(1, sizeof(*here) + sizeof(leaves));

    assert_true(guest && here);
    guest->nent = here->nent = ARRAY_SIZE(leaves);
    memcpy(guest->entries, leaves, sizeof(leaves));
    memcpy(here->entries, leaves, sizeof(leaves));
    assert_int_equal(snapshot_check_cpuid(guest, here, &error), 0);
    here->entries[0].eax = here->entries[0].ebx = 0; /* no features */
    here->entries[1].ebx |= 0xff00;
    assert_int_equal(snapshot_check_cpuid(guest, here, &error), 0);
    here->entries[1].ebx = 0xfe;
    assert_int_equal(snapshot_check_cpuid(guest, here, &error), -ENOTSUP);
    assert_non_null(strstr(error.text, "CPUID 0x7.0 ebx: 0x1)"));
    here->entries[1].ebx = 0xff;
    here->nent = 2; /* no such leaf here */
    assert_int_equal(snapshot_check_cpuid(guest, here, &error), -ENOTSUP);
    assert_non_null(strstr(error.text, "0x80000001.0 ecx"));
    guest->nent = 0;
    assert_int_equal(snapshot_check_cpuid(guest, here, &error), 0);
    free(guest);
    free(here);
}

/* As KVM would set any for a monitor, only what saving has, and what is here. */
static void test_msrs(void **state)
{
    static const struct snapshot_msrs known = {.count = 3, .index = {0x10, 0x174, 0x6e0}};
    struct kvm_msr_entry good[] = {
            {.index = 0x10, .data = 5}, {.index = 0x999}, {.index = 0x174}, {.index = 0x6e0, .data = 7}};
    static const uint32_t left_out[] = {0xc1, 0x186, 0x38f, 0x480, 0x493, 0x560, 0x600, 0x40000000, 0xc0010117};
    struct kvm_msr_entry one = {.index = 0x999, .data = 0x123};
    uint32_t count = ARRAY_SIZE(good);

    assert_int_equal(snapshot_check_msrs(good, &count, &known, &error), 0);
    assert_int_equal(count, 3); /* without the one that is not here and was not used */
    assert_true(good[0].index == 0x10 && good[0].data == 5 && good[1].index == 0x174 && good[2].index == 0x6e0);
    assert_int_equal(good[2].data, 7);
    count = 1;
    assert_int_equal(snapshot_check_msrs(&one, &count, &known, &error), -ENOTSUP);
    assert_string_equal(error.text, "this host's KVM has no MSR 0x999 (0x123); load it where it was made");
    for (size_t i = 0; i < ARRAY_SIZE(left_out); i++) {
        const struct snapshot_msrs lists = {.count = 1, .index = {left_out[i]}};

        one = (struct kvm_msr_entry){.index = left_out[i]};
        assert_int_equal(snapshot_check_msrs(&one, &count, &lists, &error), -EBADMSG);
        assert_non_null(strstr(error.text, "which no snapshot has"));
    }
}

static void test_expected(void **state)
{
    const struct machine_config machine = {.vcpu_count = 2, .mem_size_mib = 64};
    struct snapshot_load_config request = {0};

    assert_int_equal(snapshot_check_expected(&machine, &request, "state", &error), 0);
    request.expect_vcpus = 2;
    request.expect_mib = 64;
    assert_int_equal(snapshot_check_expected(&machine, &request, "state", &error), 0);
    request.expect_mib = 65;
    assert_int_equal(snapshot_check_expected(&machine, &request, "state", &error), -EINVAL);
    assert_non_null(strstr(error.text, "snapshot state: has 64 MiB of memory, and `expect` says 65"));
    request.expect_vcpus = 1;
    assert_int_equal(snapshot_check_expected(&machine, &request, "state", &error), -EINVAL);
    assert_non_null(strstr(error.text, "snapshot state: has 2 vCPUs, and `expect` says 1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_config),
            cmocka_unit_test(test_impossible_configs),
            cmocka_unit_test(test_short_config),
            cmocka_unit_test(test_huge_pages),
            cmocka_unit_test(test_host),
            cmocka_unit_test(test_cpuid),
            cmocka_unit_test(test_msrs),
            cmocka_unit_test(test_expected),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
