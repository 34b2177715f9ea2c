/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/boot/test-image.h"

#include <stdio.h>

#define GIB (1ull << 30)

static struct vm_error error;
static struct boot_entry entry;
static struct gmem mem;
static struct dirty_pages *tracked; /* of the next memory; NULL: none */

/* Loads into fresh memory that stays in `mem` for the caller to look at. initrd NULL: none. */
static int load_in(uint64_t ram, const void *kernel, size_t len, const void *initrd, size_t initrd_len)
{
    struct boot_options o = {.mem = &mem,
            .ram_bytes = ram,
            .vcpu_count = 2,
            .kernel_fd = test_file(kernel, len),
            .initrd_fd = initrd ? test_file(initrd, initrd_len) : -1,
            .kernel_path = "/k/vmlinux",
            .initrd_path = "/k/initramfs",
            .cmdline = "console=ttyS0 -- init",
            .devices = &(struct boot_device){.base = LAYOUT_VIRTIO, .size = LAYOUT_VIRTIO_STEP, .irq = 5},
            .device_count = 1};
    int r;

    test_memory_free(&mem);
    mem = test_memory(ram);
    mem.dirty = tracked;
    if (tracked)
        tracked->host = mem.regions[0].host;
    memset(&error, 0, sizeof(error));
    r = boot_load(&entry, &o, &error);
    (void)close(o.kernel_fd);
    if (initrd)
        (void)close(o.initrd_fd);
    assert_int_equal(r < 0, error.text[0] != 0);
    assert_null(strpbrk(error.text, "\r\n"));
    return r;
}

static int load(const void *kernel, size_t len)
{
    return load_in(RAM_BYTES, kernel, len, NULL, 0);
}

static void assert_fails(int r, int code, const char *text)
{
    assert_int_equal(r, code);
    if (!strstr(error.text, text))
        fail_msg("'%s' is not in: %s", text, error.text);
}

static void assert_memory(uint64_t at, const void *expected, size_t len)
{
    const void *view = gmem_slice(&mem, (struct gpa){at}, len);

    assert_non_null(view);
    assert_memory_equal(view, expected, len);
}

static void read_memory(uint64_t at, void *to, size_t len)
{
    assert_int_equal(gmem_read(&mem, (struct gpa){at}, to, len), 0);
}

/* Of the pages of fresh memory those that the loader wrote, and no other. */
static void what_is_loaded_is_marked(void **state)
{
    struct test_elf elf = test_elf();
    struct test_bzimage bzimage = test_bzimage();
    struct dirty_pages dirty;

    for (unsigned kind = 0; kind < 2; kind++) {
        const uint8_t *host;

        assert_int_equal(dirty_pages_init(&dirty, NULL, RAM_BYTES), 0);
        tracked = &dirty;
        assert_int_equal(load_in(RAM_BYTES, kind ? (void *)&bzimage : (void *)&elf,
                                 kind ? sizeof(bzimage) : sizeof(elf), "070701", 6),
                0);
        tracked = NULL;
        host = mem.regions[0].host;
        for (size_t i = 0; i < RAM_BYTES / 4096; i++) {
            static const uint8_t zeros[4096];

            if (memcmp(host + i * 4096, zeros, 4096) != 0 && !dirty_pages_has(&dirty, i))
                fail_msg("page %zu was written and not marked", i);
        }
        assert_in_range(dirty_pages_total(&dirty), 5, 40);
        mem.dirty = NULL;
        dirty_pages_deinit(&dirty);
    }
}

static const char words[] = "console=ttyS0 virtio_mmio.device=4K@0xc0001000:5 -- init";

static void elf_with_a_note_boots_by_pvh(void **state)
{
    struct test_elf elf = test_elf();
    struct pvh_start_info info;
    struct pvh_memmap_entry map[3];
    struct pvh_module module;

    assert_int_equal(load_in(RAM_BYTES, &elf, sizeof(elf), "070701", 6), 0);
    assert_int_equal(entry.protocol, BOOT_PVH);
    assert_int_equal(entry.rip, TEXT_AT + 8);
    assert_int_equal(entry.params, LAYOUT_PVH_INFO);
    assert_memory(TEXT_AT, TEXT, sizeof(TEXT));
    assert_memory(DATA_AT, DATA, sizeof(DATA));
    read_memory(entry.params, &info, sizeof(info));
    assert_int_equal(info.magic, 0x336ec578);
    assert_int_equal(info.version, 1);
    assert_int_equal(info.flags, 0);
    assert_int_equal(info.rsdp_paddr, LAYOUT_ACPI);
    assert_memory(info.cmdline_paddr, words, sizeof(words));
    assert_int_equal(info.nr_modules, 1);
    read_memory(info.modlist_paddr, &module, sizeof(module));
    assert_int_equal(module.size, 6);
    assert_int_equal(module.paddr, RAM_BYTES - 4096);
    assert_memory(module.paddr, "070701", 6);
    assert_int_equal(info.memmap_entries, 3);
    read_memory(info.memmap_paddr, map, sizeof(map));
    assert_int_equal(map[0].addr, 0);
    assert_int_equal(map[0].size, LAYOUT_MPTABLE);
    assert_int_equal(map[0].type, 1);
    assert_int_equal(map[1].addr, LAYOUT_MPTABLE);
    assert_int_equal(map[1].size, 0x100000 - LAYOUT_MPTABLE);
    assert_int_equal(map[1].type, 2);
    assert_int_equal(map[2].addr, 0x100000);
    assert_int_equal(map[2].size, RAM_BYTES - 0x100000);
    assert_int_equal(map[2].type, 1);
    assert_memory(LAYOUT_MPTABLE, "_MP_", 4);
    assert_memory(LAYOUT_ACPI, "RSD PTR ", 8);
}

static void elf_without_a_note_boots_by_the_zero_page(void **state)
{
    struct test_elf elf = test_elf();
    struct boot_params zero;

    elf.notes.pvh.n_type = 17;
    assert_int_equal(load_in(RAM_BYTES, &elf, sizeof(elf), "070701", 6), 0);
    assert_int_equal(entry.protocol, BOOT_LINUX64);
    assert_int_equal(entry.rip, TEXT_AT + 16);
    assert_int_equal(entry.params, LAYOUT_ZERO_PAGE);
    read_memory(entry.params, &zero, sizeof(zero));
    assert_int_equal(zero.hdr.boot_flag, 0xaa55);
    assert_memory_equal(&zero.hdr.header, "HdrS", 4);
    assert_int_equal(zero.hdr.type_of_loader, 0xff);
    assert_int_equal(zero.hdr.ramdisk_image, RAM_BYTES - 4096);
    assert_int_equal(zero.hdr.ramdisk_size, 6);
    assert_int_equal(zero.hdr.cmdline_size, sizeof(words) - 1);
    assert_memory(zero.hdr.cmd_line_ptr, words, sizeof(words));
    assert_int_equal(zero.acpi_rsdp_addr, LAYOUT_ACPI);
    assert_int_equal(zero.e820_entries, 3);
    assert_int_equal(zero.e820_table[2].addr, 0x100000);
    assert_int_equal(zero.e820_table[2].size, RAM_BYTES - 0x100000);
}

static void bzimage_boots_at_its_64_bit_entry(void **state)
{
    struct test_bzimage bz = test_bzimage();
    struct boot_params zero;

    bz.hdr.setup_data = 0x1234;
    assert_int_equal(load_in(RAM_BYTES, &bz, sizeof(bz), "070701", 6), 0);
    assert_int_equal(entry.protocol, BOOT_LINUX64);
    assert_int_equal(entry.rip, 2 * MIB + 0x200);
    assert_memory(2 * MIB, bz.code, sizeof(bz.code));
    read_memory(entry.params, &zero, sizeof(zero));
    assert_int_equal(zero.hdr.version, 0x20f);
    assert_int_equal(zero.hdr.init_size, MIB);
    assert_int_equal(zero.hdr.setup_data, 0);
    assert_int_equal(zero.hdr.ramdisk_image, RAM_BYTES - 4096);

    bz.hdr.pref_address = 0;
    bz.hdr.initrd_addr_max = 4 * MIB + 100;
    assert_int_equal(load_in(RAM_BYTES, &bz, sizeof(bz), "070701", 6), 0);
    assert_int_equal(entry.rip, MIB + 0x200);
    read_memory(entry.params, &zero, sizeof(zero));
    assert_int_equal(zero.hdr.ramdisk_image, 4 * MIB);
}

static void every_truncation_is_said(void **state)
{
    struct test_elf elf = test_elf();
    struct test_bzimage bz = test_bzimage();

    for (size_t len = 0; len < sizeof(elf); len++) {
        /* The second segment is the file's end; its last byte is missing last. */
        assert_fails(load(&elf, len), -ENOEXEC, "kernel /k/vmlinux: ");
        if (len >= SELFMAG)
            assert_fails(-ENOEXEC, -ENOEXEC, "truncated");
    }
    assert_int_equal(load(&elf, sizeof(elf)), 0);
    bz.before[0] = 'M';
    bz.before[1] = 'Z';
    for (size_t len = 0; len < sizeof(bz); len++) {
        assert_fails(load(&bz, len), -ENOEXEC, "kernel /k/vmlinux: ");
        if (len >= 0x206)
            assert_fails(-ENOEXEC, -ENOEXEC, "truncated");
        else if (len >= 2)
            assert_fails(-ENOEXEC, -ENOEXEC, "bzImage cut short");
    }
    assert_int_equal(load(&bz, sizeof(bz)), 0);
}

static void what_is_no_kernel_is_named(void **state)
{
    static const struct {
        const char *content, *text;
    } cases[] = {
            {"\x1f\x8b\x08 compressed", "gzip"},
            {"\x28\xb5\x2f\xfd compressed", "zstd"},
            {"070701 newc", "initramfs"},
            {"#!/bin/sh\n", "script"},
            {"hello\n", "magic 68656c6c"},
            {"h", "magic 68000000"},
            {"", "empty"},
    };
    struct test_elf elf = test_elf();

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_fails(load(cases[i].content, strlen(cases[i].content)), -ENOEXEC, cases[i].text);
    elf.eh.e_ident[EI_CLASS] = ELFCLASS32;
    assert_fails(load(&elf, sizeof(elf)), -ENOEXEC, "another machine");
    elf = test_elf();
    elf.eh.e_machine = EM_AARCH64;
    assert_fails(load(&elf, sizeof(elf)), -ENOEXEC, "machine 183");
    elf = test_elf();
    elf.eh.e_type = ET_DYN;
    assert_fails(load(&elf, sizeof(elf)), -ENOEXEC, "type 3");
}

static void bad_elf_headers_are_refused(void **state)
{
    const struct test_elf good = test_elf();
    struct test_elf elf;

#define EXPECT(change, code, text)                                                                                     \
    do {                                                                                                               \
        elf = good;                                                                                                    \
        change;                                                                                                        \
        assert_fails(load(&elf, sizeof(elf)), code, text);                                                             \
    } while (0)
    EXPECT(elf.eh.e_phnum = 0, -ENOEXEC, "program headers");
    EXPECT(elf.eh.e_phnum = 65, -ENOEXEC, "program headers");
    EXPECT(elf.eh.e_phnum = 64, -ENOEXEC, "truncated");
    EXPECT(elf.eh.e_phentsize = 32, -ENOEXEC, "32 bytes");
    EXPECT(elf.eh.e_phoff = UINT64_MAX, -ENOEXEC, "truncated");
    EXPECT(elf.eh.e_phoff = INT64_MAX, -ENOEXEC, "truncated");
    EXPECT(elf.ph[0].p_filesz = 33, -ENOEXEC, "damaged");
    EXPECT(elf.ph[0].p_offset = UINT64_MAX, -ENOEXEC, "damaged");
    EXPECT(elf.ph[0].p_offset = INT64_MAX - 8, -ENOEXEC, "truncated");
    EXPECT(elf.ph[0].p_paddr = 0, -E2BIG, "0x0, which");
    EXPECT(elf.ph[0].p_paddr = 0xfffff, -E2BIG, "which must lie");
    EXPECT(elf.ph[0].p_paddr = LAYOUT_CMDLINE + 4095, -E2BIG, "which must lie");
    EXPECT(elf.ph[0].p_paddr = LAYOUT_MPTABLE - 31, -E2BIG, "which must lie");
    EXPECT(elf.ph[0].p_paddr = RAM_BYTES - 31, -E2BIG, "more memory");
    EXPECT(elf.ph[0].p_paddr = UINT64_MAX - 10, -E2BIG, "more memory");
    EXPECT(elf.ph[0].p_paddr = LAYOUT_GAP_END, -E2BIG, "8 MiB; give");
    EXPECT(elf.ph[0].p_memsz = UINT64_MAX, -E2BIG, "more memory");
    EXPECT(elf.ph[1].p_memsz = RAM_BYTES - DATA_AT + 1, -E2BIG, "more memory");
    EXPECT((elf.ph[0].p_memsz = RAM_BYTES - MIB, elf.ph[1].p_memsz = MIB + 1), -E2BIG, "more memory");
    EXPECT(elf.notes.entry = TEXT_AT + 32, -ENOEXEC, "PVH entry point 0x100020");
    EXPECT(elf.notes.entry = UINT64_MAX - 1, -ENOEXEC, "PVH entry point");
    EXPECT((elf.notes.pvh.n_type = 1, elf.eh.e_entry = TEXT_AT - 1), -ENOEXEC, "its entry point");
    EXPECT(elf.notes.pvh.n_descsz = 12, -ENOEXEC, "longer than its segment");
    EXPECT(elf.notes.other.n_descsz = UINT32_MAX, -ENOEXEC, "longer than its segment");
    EXPECT(elf.notes.other.n_namesz = UINT32_MAX, -ENOEXEC, "longer than its segment");
    EXPECT(elf.ph[2].p_filesz = 65537, -ENOEXEC, "65537 bytes");
    EXPECT(elf.ph[2].p_offset = UINT64_MAX - 3, -ENOEXEC, "note segment");
#undef EXPECT
}

static void unusual_elf_files_are_loaded(void **state)
{
    struct test_elf elf = test_elf();

    elf.ph[1].p_memsz = RAM_BYTES - DATA_AT;
    assert_int_equal(load(&elf, sizeof(elf)), 0);
    elf = test_elf();
    elf.ph[0].p_paddr = LAYOUT_MPTABLE - 32; /* below 1 MiB, for guests of 1 MiB */
    elf.notes.entry = LAYOUT_MPTABLE - 1;
    elf.ph[1].p_memsz = elf.ph[1].p_filesz = 0;
    elf.ph[1].p_paddr = UINT64_MAX; /* an empty segment is nowhere */
    assert_int_equal(load_in(MIB, &elf, sizeof(elf), NULL, 0), 0);
    assert_memory(LAYOUT_MPTABLE - 32, TEXT, sizeof(TEXT));
    elf = test_elf();
    elf.notes.pvh_name[3] = 'x'; /* not "Xen" */
    assert_int_equal(load(&elf, sizeof(elf)), 0);
    assert_int_equal(entry.protocol, BOOT_LINUX64);
    elf = test_elf();
    elf.notes.pvh.n_descsz = 4;
    elf.ph[2].p_filesz -= 4;
    assert_int_equal(load(&elf, sizeof(elf)), 0);
    assert_int_equal(entry.rip, TEXT_AT + 8);
}

static void the_gap_is_no_memory(void **state)
{
    uint64_t ram = LAYOUT_GAP_START + 2 * MIB;
    struct test_elf elf = test_elf();
    struct pvh_start_info info;
    struct pvh_memmap_entry map[4];
    struct pvh_module module;

    assert_int_equal(load_in(ram, &elf, sizeof(elf), "070701", 6), 0);
    read_memory(entry.params, &info, sizeof(info));
    assert_int_equal(info.memmap_entries, 4);
    read_memory(info.memmap_paddr, map, sizeof(map));
    assert_int_equal(map[2].addr + map[2].size, LAYOUT_GAP_START);
    assert_int_equal(map[3].addr, LAYOUT_GAP_END);
    assert_int_equal(map[3].size, 2 * MIB);
    read_memory(info.modlist_paddr, &module, sizeof(module));
    assert_int_equal(module.paddr, LAYOUT_GAP_START - 4096);

    elf.ph[1].p_paddr = LAYOUT_GAP_START - 32;
    assert_fails(load_in(ram, &elf, sizeof(elf), NULL, 0), -E2BIG, "gap");
    elf.ph[1].p_memsz = 32;
    assert_int_equal(load_in(ram, &elf, sizeof(elf), NULL, 0), 0);
    assert_fails(load_in(ram, &elf, sizeof(elf), "070701", 6), -E2BIG, "initramfs");
    elf.ph[1].p_paddr = LAYOUT_GAP_END + 2 * MIB - 32;
    assert_int_equal(load_in(ram, &elf, sizeof(elf), "070701", 6), 0);
    assert_memory(elf.ph[1].p_paddr, DATA, sizeof(DATA));
    elf.ph[1].p_paddr++;
    assert_fails(load_in(ram, &elf, sizeof(elf), NULL, 0), -E2BIG, "gap");
    elf = test_elf();
    elf.ph[1].p_paddr = GIB;
    elf.eh.e_entry = GIB;
    elf.notes.entry = GIB;
    assert_int_equal(load_in(ram, &elf, sizeof(elf), NULL, 0), 0);
    elf.notes.pvh.n_type = 17;
    assert_fails(load_in(ram, &elf, sizeof(elf), NULL, 0), -ENOEXEC, "first GiB");
    elf.ph[1].p_paddr = elf.eh.e_entry = GIB - 1;
    assert_int_equal(load_in(ram, &elf, sizeof(elf), NULL, 0), 0);
    elf = test_elf();
    elf.notes.entry = elf.ph[1].p_paddr = LAYOUT_GAP_END;
    elf.ph[1].p_memsz = 32;
    assert_fails(load_in(ram, &elf, sizeof(elf), NULL, 0), -ENOEXEC, "PVH entry point 0x100000000");
}

static void bad_setup_headers_are_refused(void **state)
{
    const struct test_bzimage good = test_bzimage();
    struct test_bzimage bz;

#define EXPECT(change, code, text)                                                                                     \
    do {                                                                                                               \
        bz = good;                                                                                                     \
        change;                                                                                                        \
        assert_fails(load(&bz, sizeof(bz)), code, text);                                                               \
    } while (0)
    EXPECT(bz.hdr.version = 0x20b, -ENOEXEC, "boot protocol 2.11");
    EXPECT(bz.hdr.xloadflags = 0, -ENOEXEC, "64-bit entry");
    EXPECT(bz.hdr.jump = 0x10eb, -ENOEXEC, "64-bit entry");
    EXPECT(bz.hdr.syssize = 32, -ENOEXEC, "512 bytes of code");
    EXPECT(bz.hdr.syssize = 65, -ENOEXEC, "truncated");
    EXPECT(bz.hdr.syssize = UINT32_MAX, -E2BIG, "68719476720 bytes");
    EXPECT(bz.hdr.setup_sects = 0, -ENOEXEC, "truncated");
    EXPECT(bz.hdr.setup_sects = 255, -ENOEXEC, "truncated");
    EXPECT(bz.hdr.init_size = UINT32_MAX, -E2BIG, "more memory");
    EXPECT(bz.hdr.init_size = 6 * MIB + 1, -E2BIG, "more memory");
    EXPECT(bz.hdr.pref_address = UINT64_MAX, -E2BIG, "more memory");
    EXPECT(bz.hdr.pref_address = LAYOUT_GAP_END, -E2BIG, "more memory");
#undef EXPECT
    bz = good;
    bz.hdr.jump |= 0xff00; /* a longer header of a later protocol */
    assert_int_equal(load(&bz, sizeof(bz)), 0);
    bz.hdr.init_size = 6 * MIB;
    assert_int_equal(load(&bz, sizeof(bz)), 0);
    assert_fails(load_in(RAM_BYTES, &bz, sizeof(bz), "070701", 6), -E2BIG, "initramfs /k/initramfs: its 6 bytes");
}

static void initramfs_fits_or_is_refused(void **state)
{
    struct test_elf elf = test_elf();
    uint64_t room = RAM_BYTES - DATA_AT - 0x10000;
    char *big = calloc(1, RAM_BYTES + 1);
    struct pvh_module module;
    struct pvh_start_info info;

    big[room - 1] = 'z';
    assert_int_equal(load_in(RAM_BYTES, &elf, sizeof(elf), big, room), 0);
    read_memory(entry.params, &info, sizeof(info));
    read_memory(info.modlist_paddr, &module, sizeof(module));
    assert_int_equal(module.paddr, DATA_AT + 0x10000);
    assert_memory(RAM_BYTES - 1, "z", 1);
    assert_fails(load_in(RAM_BYTES, &elf, sizeof(elf), big, room + 1), -E2BIG, "initramfs /k/initramfs");
    assert_fails(load_in(RAM_BYTES, &elf, sizeof(elf), big, RAM_BYTES + 1), -E2BIG, "8388609 bytes");
    assert_fails(load_in(RAM_BYTES, &elf, sizeof(elf), big, 0), -ENOEXEC, "empty");
    assert_fails(load_in(MIB - 1, &elf, sizeof(elf), NULL, 0), -E2BIG, "at least 1 MiB");
    free(big);
}

static void files_that_cannot_be_read_are_said(void **state)
{
    struct test_elf elf = test_elf();
    struct boot_options o = {.mem = &mem,
            .ram_bytes = RAM_BYTES,
            .vcpu_count = 1,
            .initrd_fd = -1,
            .kernel_path = "/k/vmlinux",
            .initrd_path = "/k/initramfs"};
    int fd = test_file(&elf, sizeof(elf));
    char path[64];

    test_memory_free(&mem);
    mem = test_memory(RAM_BYTES);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    o.kernel_fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_fails(boot_load(&entry, &o, &error), -EIO, "kernel /k/vmlinux: can't be read");
    (void)close(o.kernel_fd);
    o.kernel_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_fails(boot_load(&entry, &o, &error), -ENOEXEC, "not a regular file");
    o.initrd_fd = o.kernel_fd;
    o.kernel_fd = fd;
    assert_fails(boot_load(&entry, &o, &error), -ENOEXEC, "initramfs /k/initramfs: empty, or not a regular file");
    (void)close(o.initrd_fd);
    o.initrd_fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_fails(boot_load(&entry, &o, &error), -EIO, "initramfs /k/initramfs: can't be read");
    (void)close(o.initrd_fd);
    (void)close(fd);
}

static const char *cmdline_of(const char *args, size_t devices)
{
    static char line[VM_MAX_CMDLINE];
    static const struct boot_device list[] = {{0xc0001000, 0x1000, 5}, {0xc0002000, 0x1000, 6}};
    struct boot_options o = {.cmdline = args, .devices = list, .device_count = devices};

    error.text[0] = 0;
    return cmdline_make(line, &o, &error) == 0 ? line : NULL;
}

static void device_words_come_before_inits(void **state)
{
#define ONE "virtio_mmio.device=4K@0xc0001000:5"
#define TWO ONE " virtio_mmio.device=4K@0xc0002000:6"
    assert_string_equal(cmdline_of(NULL, 0), "");
    assert_string_equal(cmdline_of("", 1), ONE);
    assert_string_equal(cmdline_of("quiet", 0), "quiet");
    assert_string_equal(cmdline_of("quiet ", 2), "quiet " TWO " ");
    assert_string_equal(cmdline_of("quiet -- a b", 1), "quiet " ONE " -- a b");
    assert_string_equal(cmdline_of("quiet  --", 1), "quiet " ONE "  --");
    assert_string_equal(cmdline_of("-- a", 1), ONE " -- a");
    assert_string_equal(cmdline_of("--", 0), "--");
    assert_string_equal(cmdline_of("a--b --c -- d -- e", 1), "a--b --c " ONE " -- d -- e");
    assert_string_equal(cmdline_of("x=\"a -- b\" c", 1), "x=\"a -- b\" c " ONE);
    assert_string_equal(cmdline_of("a\t--\tb", 1), "a " ONE "\t--\tb");
}

static void command_line_has_its_limit(void **state)
{
    char args[VM_MAX_CMDLINE + 1] = "";
    size_t one = strlen(ONE) + 1;

    memset(args, 'a', VM_MAX_CMDLINE - 1);
    assert_string_equal(cmdline_of(args, 0), args);
    assert_null(cmdline_of(args, 1));
    assert_non_null(strstr(error.text, "2047 bytes"));
    args[VM_MAX_CMDLINE - 1 - one] = 0;
    assert_int_equal(strlen(cmdline_of(args, 1)), VM_MAX_CMDLINE - 1);
    args[VM_MAX_CMDLINE - 1 - one] = 'a';
    args[VM_MAX_CMDLINE - one] = 0;
    assert_null(cmdline_of(args, 1));
    memset(args, 'a', VM_MAX_CMDLINE);
    assert_null(cmdline_of(args, 0));
    memcpy(args, "-- ", 3);
    args[VM_MAX_CMDLINE - 2] = 0;
    assert_null(cmdline_of(args, 1));
}

static int forget_memory(void **state)
{
    test_memory_free(&mem);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(what_is_loaded_is_marked),
            cmocka_unit_test(elf_with_a_note_boots_by_pvh),
            cmocka_unit_test(elf_without_a_note_boots_by_the_zero_page),
            cmocka_unit_test(bzimage_boots_at_its_64_bit_entry),
            cmocka_unit_test(every_truncation_is_said),
            cmocka_unit_test(what_is_no_kernel_is_named),
            cmocka_unit_test(bad_elf_headers_are_refused),
            cmocka_unit_test(unusual_elf_files_are_loaded),
            cmocka_unit_test(the_gap_is_no_memory),
            cmocka_unit_test(bad_setup_headers_are_refused),
            cmocka_unit_test(initramfs_fits_or_is_refused),
            cmocka_unit_test(files_that_cannot_be_read_are_said),
            cmocka_unit_test(device_words_come_before_inits),
            cmocka_unit_test(command_line_has_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, forget_memory);
}
