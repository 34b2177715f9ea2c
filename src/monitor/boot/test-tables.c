/* SPDX-License-Identifier: Apache-2.0 */
/* The tables as a kernel reads them: from guest memory, by signatures, lengths and checksums. */
#include "monitor/boot/test-image.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/test.h"

static uint8_t low[MIB];
static struct boot_device devices[LAYOUT_MAX_VIRTIO + 1];

static struct gmem memory(void)
{
    struct gmem mem = {0};

    memset(low, 0, sizeof(low));
    assert_int_equal(gmem_add(&mem, (struct gpa){0}, sizeof(low), low), 0);
    for (uint32_t i = 0; i < ARRAY_SIZE(devices); i++)
        devices[i] = (struct boot_device){LAYOUT_VIRTIO + i * LAYOUT_VIRTIO_STEP, LAYOUT_VIRTIO_STEP, 5 + i};
    return mem;
}

static uint64_t get(const uint8_t *p, size_t len)
{
    uint64_t v = 0;

    memcpy(&v, p, len);
    return v;
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t total = 0;

    while (len-- > 0)
        total = (uint8_t)(total + *p++);
    return total;
}

/* The table at a guest address, with its signature and checksum checked. */
static const uint8_t *table_at(uint64_t at, const char *signature)
{
    uint64_t len;

    assert_in_range(at, LAYOUT_ACPI, MIB - 36);
    assert_int_equal(at % 4, 0);
    len = get(low + at + 4, 4);
    assert_in_range(len, 36, MIB - at);
    assert_memory_equal(low + at, signature, 4);
    assert_int_equal(sum(low + at, len), 0);
    return low + at;
}

static const uint8_t *xsdt(void)
{
    const uint8_t *rsdp = low + LAYOUT_ACPI;

    assert_memory_equal(rsdp, "RSD PTR ", 8);
    assert_int_equal(sum(rsdp, 20), 0);
    assert_int_equal(sum(rsdp, 36), 0);
    assert_int_equal(rsdp[15], 2);
    assert_int_equal(get(rsdp + 20, 4), 36);
    return table_at(get(rsdp + 24, 8), "XSDT");
}

static void check_madt(const uint8_t *t, uint32_t cpus)
{
    size_t len = get(t + 4, 4), at = 44;

    assert_int_equal(get(t + 36, 4), 0xfee00000);
    for (uint32_t i = 0; i < cpus; i++, at += 8) {
        const uint8_t expected[8] = {0, 8, (uint8_t)i, (uint8_t)i, 1, 0, 0, 0};

        assert_memory_equal(t + at, expected, 8);
    }
    assert_memory_equal(t + at, ((const uint8_t[]){1, 12, (uint8_t)cpus, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0}), 12);
    assert_memory_equal(t + at + 12, ((const uint8_t[]){4, 6, 0xff, 0, 0, 1}), 6);
    assert_int_equal(at + 18, len);
}

static void check_fadt(const uint8_t *t)
{
    assert_int_equal(get(t + 4, 4), 276);
    assert_int_equal(t[8], 6);
    (void)table_at(get(t + 40, 4), "DSDT");
    assert_int_equal(get(t + 40, 4), get(t + 140, 8));
    assert_true(get(t + 112, 4) & 1u << 20);
    assert_true(get(t + 112, 4) & 1u << 10);
    assert_memory_equal(t + 116, ((const uint8_t[]){1, 8, 0, 1, 0x64, 0, 0, 0, 0, 0, 0, 0, 0xfe}), 13);
}

/* Every device's object: its name, and in its resources its base, size and interrupt. */
static void check_ssdt(const uint8_t *t, size_t count)
{
    size_t len = get(t + 4, 4), each = (len - 36) / count;

    assert_int_equal((len - 36) % count, 0);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *code = t + 36 + i * each;
        uint8_t fixed[12] = {0x86, 9, 0, 1}, interrupt[9] = {0x89, 6, 0, 3, 1}, uid[9] = "\x08_UID\x0c";
        uint32_t base = LAYOUT_VIRTIO + (uint32_t)i * 0x1000, size = 0x1000, irq = 5 + (uint32_t)i;
        char name[11];

        (void)snprintf(name, sizeof(name), "\\._SB_V%03u", (unsigned)i % 100);
        assert_memory_equal(code, "\x5b\x82", 2);
        assert_non_null(memmem(code, each, name, 10));
        assert_non_null(memmem(code, each, "LNRO0005", 9));
        memcpy(fixed + 4, &base, 4);
        memcpy(fixed + 8, &size, 4);
        memcpy(interrupt + 5, &irq, 4);
        memcpy(uid + 6, &(uint16_t){(uint16_t)i}, 2);
        assert_non_null(memmem(code, each, fixed, sizeof(fixed)));
        assert_non_null(memmem(code, each, interrupt, sizeof(interrupt)));
        assert_non_null(memmem(code, each, uid, 8));
        assert_null(memmem(code, each, "VXXX", 4));
    }
}

static void acpi_tables_hold_together(void **state)
{
    static const uint32_t cpus[] = {1, 2, 31, 32};
    static const size_t counts[] = {0, 1, 3, LAYOUT_MAX_VIRTIO};

    for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(counts); k++) {
            struct gmem mem = memory();
            const uint8_t *x;

            assert_int_equal(acpi_write(&mem, cpus[i], devices, counts[k]), 0);
            x = xsdt();
            assert_int_equal(get(x + 4, 4), 36 + 8 * (counts[k] > 0 ? 3 : 2));
            check_fadt(table_at(get(x + 36, 8), "FACP"));
            check_madt(table_at(get(x + 44, 8), "APIC"), cpus[i]);
            if (counts[k] > 0)
                check_ssdt(table_at(get(x + 52, 8), "SSDT"), counts[k]);
        }
    }
}

static void acpi_refuses_what_it_cannot_say(void **state)
{
    struct gmem mem = memory();

    assert_int_equal(acpi_write(&mem, 0, NULL, 0), -EINVAL);
    assert_int_equal(acpi_write(&mem, VM_MAX_VCPUS + 1, NULL, 0), -EINVAL);
    assert_int_equal(acpi_write(&mem, 1, devices, LAYOUT_MAX_VIRTIO + 1), -ENOSPC);
    devices[0].base = LAYOUT_GAP_END;
    assert_int_equal(acpi_write(&mem, 1, devices, 1), -EINVAL);
    devices[0] = (struct boot_device){LAYOUT_GAP_END - 0x1000, 0x1001, 5};
    assert_int_equal(acpi_write(&mem, 1, devices, 1), -EINVAL);
    assert_int_equal(acpi_write(&(struct gmem){0}, 1, NULL, 0), -EFAULT);
}

/* iasl disassembles the table without complaint, into a text with all of the wanted parts. */
static void assert_disassembles(const uint8_t *table, const char *const *wanted, size_t count)
{
    char dir[] = "/tmp/ironclaw-acpi-XXXXXX", aml[64], dsl[64];
    _cleanup_(freep) char *text = NULL;
    char *argv[] = {(char *)"iasl", (char *)"-d", aml, NULL};
    posix_spawn_file_actions_t actions;
    size_t len;
    int status, fd;
    pid_t pid;

    assert_non_null(mkdtemp(dir));
    (void)snprintf(aml, sizeof(aml), "%s/t.aml", dir);
    (void)snprintf(dsl, sizeof(dsl), "%s/t.dsl", dir);
    fd = open(aml, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, table, get(table + 4, 4)), (ssize_t)get(table + 4, 4));
    (void)close(fd);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    (void)posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    (void)posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    assert_int_equal(posix_spawnp(&pid, IASL, &actions, NULL, argv, environ), 0);
    (void)posix_spawn_file_actions_destroy(&actions);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(fd_read_file(AT_FDCWD, dsl, MIB, &text, &len), 0);
    (void)unlink(aml);
    (void)unlink(dsl);
    (void)rmdir(dir);
    for (size_t i = 0; i < count; i++) {
        if (!strstr(text, wanted[i]))
            fail_msg("no '%s' in:\n%s", wanted[i], text);
    }
}

static void iasl_reads_them(void **state)
{
    static const char *const in_ssdt[] = {"Device (\\_SB.V000)", "Device (\\_SB.V015)", "0xC0001000,", "0xC0010000,",
            "0x00000005,", "0x00000014,", "\"LNRO0005\""};
    static const char *const in_dsdt[] = {"Device (_SB.COM1)", "PNP0501", "0x03F8,", "PNP0303", "Device (_SB.VGEN)",
            "\"VM_Gen_Counter\"", "0x000E3000,", "\"ACPI0013\"", "0x00000015,", "Notify (VGEN, 0x80)"};
    struct gmem mem = memory();
    const uint8_t *x;

    assert_int_equal(acpi_write(&mem, 32, devices, LAYOUT_MAX_VIRTIO), 0);
    x = xsdt();
    assert_disassembles(table_at(get(x + 52, 8), "SSDT"), in_ssdt, ARRAY_SIZE(in_ssdt));
    assert_disassembles(table_at(get(low + get(x + 36, 8) + 40, 4), "DSDT"), in_dsdt, ARRAY_SIZE(in_dsdt));
    /* Data tables: iasl names every field, and a length or subtype that is wrong. */
    assert_disassembles(table_at(get(x + 36, 8), "FACP"), (const char *const[]){"Hardware Reduced (V5) : 1"}, 1);
    assert_disassembles(table_at(get(x + 44, 8), "APIC"), (const char *const[]){"I/O Apic ID : 20"}, 1);
}

static void mp_table_holds_together(void **state)
{
    for (uint32_t cpus = 1; cpus <= VM_MAX_VCPUS; cpus++) {
        struct gmem mem = memory();
        const uint8_t *p = low + LAYOUT_MPTABLE, *t = p + 16, *e = t + 44;
        unsigned counts[5] = {0};

        assert_int_equal(mptable_write(&mem, cpus), 0);
        assert_memory_equal(p, "_MP_", 4);
        assert_int_equal(get(p + 4, 4), LAYOUT_MPTABLE + 16);
        assert_int_equal(sum(p, 16), 0);
        assert_memory_equal(t, "PCMP", 4);
        assert_int_equal(sum(t, get(t + 4, 2)), 0);
        assert_true(LAYOUT_MPTABLE + 16 + get(t + 4, 2) <= 0xa0000);
        for (uint64_t n = get(t + 34, 2); n > 0; n--) {
            assert_true(*e < 5);
            if (*e == 0) {
                assert_int_equal(e[1], counts[0]);
                assert_int_equal(e[3], counts[0] == 0 ? 3 : 1);
            } else if (*e == 2) {
                assert_int_equal(e[1], cpus);
                assert_int_equal(get(e + 4, 4), 0xfec00000);
            } else if (*e == 3) {
                assert_int_equal(e[5], counts[3]); /* the bus's IRQ is the pin */
                assert_int_equal(e[7], counts[3]);
                assert_int_equal(e[6], cpus);
            }
            counts[*e]++;
            e += *e == 0 ? 20 : 8;
        }
        assert_int_equal(e - t, get(t + 4, 2));
        assert_int_equal(counts[0], cpus);
        assert_int_equal(counts[1], 1);
        assert_int_equal(counts[2], 1);
        assert_int_equal(counts[3], 24);
        assert_int_equal(counts[4], 2);
    }
}

static void mp_table_refuses_other_counts(void **state)
{
    struct gmem mem = memory();

    assert_int_equal(mptable_write(&mem, 0), -EINVAL);
    assert_int_equal(mptable_write(&mem, VM_MAX_VCPUS + 1), -EINVAL);
    assert_int_equal(mptable_write(&(struct gmem){0}, 1), -EFAULT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(acpi_tables_hold_together),
            cmocka_unit_test(acpi_refuses_what_it_cannot_say),
            cmocka_unit_test(iasl_reads_them),
            cmocka_unit_test(mp_table_holds_together),
            cmocka_unit_test(mp_table_refuses_other_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
