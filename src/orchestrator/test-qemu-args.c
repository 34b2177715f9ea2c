/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/test-util.h"

#include "orchestrator/backends/qemu-args.h"

static struct record record;
static const struct backend_snapshot snapshot = {.state_path = "/s"};

static void build(struct qemu_args *a, bool for_template, bool clone, const char *kind)
{
    struct backend_start start = {
            .record = &record,
            .kernel_args = "ironclaw.root=/dev/vda",
            .rootfs_fd = 10,
            .overlay_fd = -1,
            .console_fd = 11,
            .for_template = for_template,
            .snapshot = clone ? &snapshot : NULL,
    };

    record = (struct record){.vcpu_count = 2,
            .memory_mib = 256,
            .kernel_path = (char *)"/kernel",
            .initrd_path = (char *)"/initrd",
            .isolation = IC_ISOLATION_HARDWARE};
    (void)snprintf(record.kernel_kind, sizeof(record.kernel_kind), "%s", kind);
    *a = (struct qemu_args){0};
    qemu_args_build(a, "/qemu", &start, for_template ? -1 : 12, 13);
    assert_false(a->failed);
    assert_null(a->v[a->count]);
}

/* How many arguments have this text in them. */
static unsigned count(const struct qemu_args *a, const char *text)
{
    unsigned n = 0;

    for (size_t i = 0; i < a->count; i++)
        n += strstr(a->v[i], text) != NULL;
    return n;
}

static void boots_without_pci(void **state)
{
    struct qemu_args a;

    build(&a, false, false, "debian");
    assert_int_equal(count(&a, "pci=off"), 1);
    assert_int_equal(count(&a, "pcie"), 0);
    assert_int_equal(count(&a, "vhost-user-vsock-device,chardev=vsock"), 1);
    assert_int_equal(count(&a, "socket,id=vsock,fd=12"), 1);
    assert_int_equal(count(&a, "-incoming"), 0);
    assert_int_equal(count(&a, "acpi=on"), 1);
    qemu_args_deinit(&a);
    build(&a, false, false, "fast");
    assert_int_equal(count(&a, "acpi=off"), 1);
    qemu_args_deinit(&a);
}

static void gives_templates_a_port(void **state)
{
    struct qemu_args a;

    build(&a, true, false, "debian");
    assert_int_equal(count(&a, "pci=off"), 0);
    assert_int_equal(count(&a, ",pcie=on"), 1);
    assert_int_equal(count(&a, "pcie-root-port,id=vsock-port,io-reserve=0"), 1);
    assert_int_equal(count(&a, "vhost-user-vsock"), 0); /* could not be saved */
    assert_int_equal(count(&a, "socket,id=vsock"), 0);
    assert_int_equal(count(&a, "net"), 0);
    assert_int_equal(count(&a, "-incoming"), 0);
    qemu_args_deinit(&a);
}

/* QEMU loads a machine only into the same one: beside the socket and the way it starts nothing may differ. */
static void clones_are_the_same_machine(void **state)
{
    struct qemu_args t, c;
    size_t j = 0;

    build(&t, true, false, "debian");
    build(&c, false, true, "debian");
    assert_int_equal(c.count, t.count + 5);
    for (size_t i = 0; i < t.count; i++, j++) {
        if (j + 1 < c.count && strcmp(c.v[j + 1], "socket,id=vsock,fd=12") == 0)
            j += 2;
        assert_string_equal(t.v[i], c.v[j]);
    }
    assert_string_equal(c.v[j], "-incoming");
    assert_string_equal(c.v[j + 1], "defer");
    assert_string_equal(c.v[j + 2], "-S");
    qemu_args_deinit(&t);
    qemu_args_deinit(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(boots_without_pci),
            cmocka_unit_test(gives_templates_a_port),
            cmocka_unit_test(clones_are_the_same_machine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
