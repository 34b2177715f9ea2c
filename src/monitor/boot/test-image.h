/* SPDX-License-Identifier: Apache-2.0 */
/* Small made-up kernels and a guest memory for them. Tests only. */
#pragma once

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/test.h"
#include "monitor/boot/parts.h"
#include "monitor/boot/pvh.h"
#include "monitor/layout.h"

#define MIB       (1ull << 20)
#define RAM_BYTES (8 * MIB)
#define TEXT_AT   0x100000u
#define DATA_AT   0x110000u
#define TEXT      "first segment, its code"
#define DATA      "second segment, its data"

struct test_elf {
    Elf64_Ehdr eh;
    Elf64_Phdr ph[3];
    struct {
        Elf64_Nhdr other;
        char other_name[4];
        uint32_t other_desc;
        Elf64_Nhdr pvh;
        char pvh_name[4];
        uint64_t entry;
    } __attribute__((packed)) notes;
    char text[32], data[32];
} __attribute__((packed));

static inline struct test_elf test_elf(void)
{
    return (struct test_elf){
            .eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                    .e_type = ET_EXEC,
                    .e_machine = EM_X86_64,
                    .e_version = EV_CURRENT,
                    .e_entry = TEXT_AT + 16,
                    .e_phoff = offsetof(struct test_elf, ph),
                    .e_ehsize = sizeof(Elf64_Ehdr),
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 3},
            .ph = {{.p_type = PT_LOAD,
                           .p_offset = offsetof(struct test_elf, text),
                           .p_vaddr = 0xffffffff80000000 + TEXT_AT,
                           .p_paddr = TEXT_AT,
                           .p_filesz = 32,
                           .p_memsz = 32},
                    {.p_type = PT_LOAD,
                            .p_offset = offsetof(struct test_elf, data),
                            .p_paddr = DATA_AT,
                            .p_filesz = 32,
                            .p_memsz = 0x10000},
                    {.p_type = PT_NOTE,
                            .p_offset = offsetof(struct test_elf, notes),
                            .p_filesz = sizeof(((struct test_elf *)NULL)->notes),
                            .p_align = 4}},
            .notes = {.other = {4, 4, 6},
                    .other_name = "Xen",
                    .other_desc = 1,
                    .pvh = {4, 8, PVH_NOTE_ENTRY},
                    .pvh_name = "Xen",
                    .entry = TEXT_AT + 8},
            .text = TEXT,
            .data = DATA,
    };
}

struct test_bzimage {
    uint8_t before[0x1f1];
    struct setup_header hdr;
    uint8_t rest[1024 - 0x1f1 - sizeof(struct setup_header)];
    uint8_t code[1024];
};

static inline struct test_bzimage test_bzimage(void)
{
    struct test_bzimage image = {
            .hdr = {.setup_sects = 1,
                    .syssize = 1024 / 16,
                    .boot_flag = 0xaa55,
                    .jump = (uint16_t)(0xeb | (sizeof(struct setup_header) - 0x11) << 8),
                    .header = 0x53726448,
                    .version = 0x20f,
                    .loadflags = LOADED_HIGH,
                    .initrd_addr_max = 0x7fffffff,
                    .kernel_alignment = 0x200000,
                    .relocatable_kernel = 1,
                    .xloadflags = XLF_KERNEL_64,
                    .cmdline_size = 2047,
                    .pref_address = 2 * MIB,
                    .init_size = MIB},
    };

    memset(image.code, 0xc3, sizeof(image.code));
    return image;
}

static inline int test_file(const void *data, size_t len)
{
    int fd = memfd_create("kernel", MFD_CLOEXEC);

    assert_true(fd >= 0);
    if (len > 0)
        assert_int_equal(write(fd, data, len), (ssize_t)len);
    return fd;
}

/* Fresh memory of a VM, with the gap when `bytes` is beyond 3 GiB; most of it is never touched. */
static inline struct gmem test_memory(uint64_t bytes)
{
    uint64_t low = MIN(bytes, (uint64_t)LAYOUT_GAP_START);
    struct gmem mem = {0};
    uint8_t *host = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_ptr_not_equal(host, MAP_FAILED);
    assert_int_equal(gmem_add(&mem, (struct gpa){0}, low, host), 0);
    if (bytes > low)
        assert_int_equal(gmem_add(&mem, (struct gpa){LAYOUT_GAP_END}, bytes - low, host + low), 0);
    return mem;
}

static inline void test_memory_free(struct gmem *mem)
{
    for (size_t i = 0; i < mem->count; i++)
        assert_int_equal(munmap(mem->regions[i].host, mem->regions[i].size), 0);
    mem->count = 0;
}
