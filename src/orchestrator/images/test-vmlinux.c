/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/vmlinux.h"

#include <elf.h>
#include <string.h>

#include "base/test.h"
#include "orchestrator/images/cpio.h"
#include "orchestrator/images/modules.h"

#define SETUP_SECTS    2
#define PAYLOAD_OFFSET 100

/* An ELF header and enough bytes after it that LZ4 has something to do. */
static void make_kernel(uint8_t *kernel, size_t len)
{
    Elf64_Ehdr ehdr = {.e_machine = EM_X86_64, .e_type = ET_EXEC};

    memset(kernel, 'k', len);
    memcpy(ehdr.e_ident, ELFMAG, SELFMAG);
    ehdr.e_ident[EI_CLASS] = ELFCLASS64;
    memcpy(kernel, &ehdr, sizeof(ehdr));
}

/* A bzImage around a payload; `unpacked` is what the payload's trailer says. */
static void make_bzimage(struct buf *ret, const void *payload, size_t len, uint32_t unpacked)
{
    static const uint8_t zero[4096];
    size_t start = (SETUP_SECTS + 1) * 512 + PAYLOAD_OFFSET;

    buf_reset(ret);
    buf_put(ret, zero, start);
    buf_put(ret, payload, len);
    buf_put_le32(ret, unpacked);
    assert_int_equal(ret->error, 0);
    ret->data[0x1f1] = SETUP_SECTS;
    memcpy(ret->data + 0x202, "HdrS\x0f\x02", 6);
    buf_patch_le32(ret, 0x248, PAYLOAD_OFFSET);
    buf_patch_le32(ret, 0x24c, (uint32_t)len + 4);
}

static int extract(const struct buf *image, size_t len, struct ic_error *error)
{
    struct buf vmlinux = {0};
    /* A copy of exactly this length, so that the sanitizer sees a read past it. */
    uint8_t *exact = malloc(len ? len : 1);
    int r;

    assert_non_null(exact);
    memcpy(exact, image->data, len);
    r = vmlinux_extract(exact, len, "vmlinuz", &vmlinux, error);
    free(exact);
    buf_deinit(&vmlinux);
    return r;
}

static void the_kernel_comes_out_as_it_went_in(void **state)
{
    struct buf packed = {0}, image = {0}, vmlinux = {0};
    size_t len = ((size_t)8 << 20) + 12345; /* two blocks */
    uint8_t *kernel = malloc(len);

    assert_non_null(kernel);
    make_kernel(kernel, len);
    packed.max = image.max = (size_t)64 << 20;
    assert_int_equal(lz4_legacy_pack(kernel, len, &packed, NULL), 0);
    make_bzimage(&image, packed.data, packed.len, (uint32_t)len);
    assert_int_equal(vmlinux_extract(image.data, image.len, "vmlinuz", &vmlinux, NULL), 0);
    assert_int_equal(vmlinux.len, len);
    assert_memory_equal(vmlinux.data, kernel, len);
    buf_deinit(&packed);
    buf_deinit(&image);
    buf_deinit(&vmlinux);
    free(kernel);
}

static void damaged_kernels_are_refused(void **state)
{
    struct buf packed = {0}, image = {0};
    struct ic_error error;
    uint8_t kernel[5000];

    make_kernel(kernel, sizeof(kernel));
    assert_int_equal(lz4_legacy_pack(kernel, sizeof(kernel), &packed, NULL), 0);
    make_bzimage(&image, packed.data, packed.len, sizeof(kernel));
    assert_int_equal(extract(&image, image.len, &error), 0);
    for (size_t len = 0; len < image.len; len++)
        assert_int_equal(extract(&image, len, &error), -IC_ERR_CORRUPT);

    make_bzimage(&image, packed.data, packed.len, sizeof(kernel) - 1);
    assert_int_equal(extract(&image, image.len, &error), -IC_ERR_CORRUPT);
    make_bzimage(&image, packed.data, packed.len, sizeof(kernel) + 1);
    assert_int_equal(extract(&image, image.len, &error), -IC_ERR_CORRUPT);
    make_bzimage(&image, packed.data, packed.len, UINT32_MAX);
    assert_int_equal(extract(&image, image.len, &error), -IC_ERR_CORRUPT);

    make_bzimage(&image, packed.data, packed.len, sizeof(kernel));
    buf_patch_le32(&image, (SETUP_SECTS + 1) * 512 + PAYLOAD_OFFSET + 4, UINT32_MAX);
    assert_int_equal(extract(&image, image.len, &error), -IC_ERR_CORRUPT);
    make_bzimage(&image, packed.data, packed.len, sizeof(kernel));
    buf_patch_le32(&image, 0x248, UINT32_MAX);
    assert_int_equal(extract(&image, image.len, &error), -IC_ERR_CORRUPT);

    memset(kernel, 0, sizeof(kernel));
    assert_int_equal(lz4_legacy_pack(kernel, sizeof(kernel), &packed, NULL), 0);
    make_bzimage(&image, packed.data, packed.len, sizeof(kernel));
    assert_int_equal(extract(&image, image.len, &error), -IC_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "ELF"));
    buf_deinit(&packed);
    buf_deinit(&image);
}

static void other_compressions_are_named(void **state)
{
    struct buf image = {0};
    struct ic_error error;

    make_bzimage(&image, "\x28\xb5\x2f\xfd........", 12, 100);
    assert_int_equal(extract(&image, image.len, &error), -IC_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "zstd"));
    buf_deinit(&image);
}

static void an_archive_is_what_the_kernel_reads(void **state)
{
    static const char expected[] = "07070100000001000041ed0000000000000000000000020000000000000000000000000000"
                                   "000000000000000000000000000400000000dev\0\0\0\0";
    struct buf out = {0}, again = {0};

    for (int i = 0; i < 2; i++) {
        struct cpio cpio;

        cpio_init(&cpio, i == 0 ? &out : &again);
        cpio_add_dir(&cpio, "dev", 0755);
        cpio_add_char_device(&cpio, "dev/console", 0600, 5, 1);
        cpio_add_file(&cpio, "init", 0755, "12345", 5);
        cpio_finish(&cpio);
    }
    assert_int_equal(out.error, 0);
    assert_int_equal(out.len % 512, 0);
    assert_int_equal(out.len, again.len);
    assert_memory_equal(out.data, again.data, out.len);
    assert_memory_equal(out.data, expected, 116);
    assert_non_null(memmem(out.data, out.len, "TRAILER!!!", 11));
    /* Data starts and ends on multiples of four. */
    assert_int_equal(((uint8_t *)memmem(out.data, out.len,
                              "12345\0\0\0"
                              "070701",
                              14) -
                             out.data) %
                             4,
            0);
    buf_deinit(&out);
    buf_deinit(&again);
}

static void what_a_module_needs_is_read_from_it(void **state)
{
    static const char names[] = "\0.modinfo\0.shstrtab";
    static const char info[] = "license=GPL\0depends=virtio,virtio_ring\0name=x";
    struct strlist list = {0};
    Elf64_Ehdr ehdr = {.e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 3, .e_shstrndx = 2};
    Elf64_Shdr shdr[3] = {{0}};
    uint8_t ko[1024] = {0};

    memcpy(ehdr.e_ident, ELFMAG, SELFMAG);
    ehdr.e_ident[EI_CLASS] = ELFCLASS64;
    ehdr.e_shoff = 512;
    shdr[1] = (Elf64_Shdr){.sh_name = 1, .sh_offset = 64, .sh_size = sizeof(info)};
    shdr[2] = (Elf64_Shdr){.sh_name = 10, .sh_offset = 256, .sh_size = sizeof(names)};
    memcpy(ko, &ehdr, sizeof(ehdr));
    memcpy(ko + 64, info, sizeof(info));
    memcpy(ko + 256, names, sizeof(names));
    memcpy(ko + 512, shdr, sizeof(shdr));
    assert_int_equal(module_depends(ko, 512 + sizeof(shdr), "x.ko", &list, NULL), 0);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.items[1], "virtio_ring");
    strlist_deinit(&list);

    for (size_t len = 0; len < 512 + sizeof(shdr); len++)
        assert_int_equal(module_depends(ko, len, "x.ko", &list, NULL), -IC_ERR_CORRUPT);
    shdr[1].sh_size = UINT64_MAX;
    memcpy(ko + 512, shdr, sizeof(shdr));
    assert_int_equal(module_depends(ko, sizeof(ko), "x.ko", &list, NULL), -IC_ERR_CORRUPT);
    shdr[1].sh_name = UINT32_MAX;
    memcpy(ko + 512, shdr, sizeof(shdr));
    assert_int_equal(module_depends(ko, sizeof(ko), "x.ko", &list, NULL), -IC_ERR_CORRUPT);
    ehdr.e_shoff = UINT64_MAX - 10;
    memcpy(ko, &ehdr, sizeof(ehdr));
    assert_int_equal(module_depends(ko, sizeof(ko), "x.ko", &list, NULL), -IC_ERR_CORRUPT);
}

static void a_module_without_its_signature(void **state)
{
    static const char mark[] = "~Module signature appended~\n";
    uint8_t ko[200] = {0};
    const size_t end = sizeof(ko) - (sizeof(mark) - 1);

    (void)state;
    assert_int_equal(module_unsigned_len(ko, sizeof(ko)), sizeof(ko));
    memcpy(ko + end, mark, sizeof(mark) - 1);
    ko[end - 1] = 60;
    assert_int_equal(module_unsigned_len(ko, sizeof(ko)), end - 12 - 60);
    /* A length that the file does not have: nothing is cut. */
    ko[end - 1] = (uint8_t)(end - 12);
    assert_int_equal(module_unsigned_len(ko, sizeof(ko)), sizeof(ko));
    ko[end - 4] = 0xff;
    assert_int_equal(module_unsigned_len(ko, sizeof(ko)), sizeof(ko));
    /* The mark alone. */
    assert_int_equal(module_unsigned_len(ko + end, sizeof(mark) - 1), sizeof(mark) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(the_kernel_comes_out_as_it_went_in),
            cmocka_unit_test(damaged_kernels_are_refused),
            cmocka_unit_test(other_compressions_are_named),
            cmocka_unit_test(an_archive_is_what_the_kernel_reads),
            cmocka_unit_test(what_a_module_needs_is_read_from_it),
            cmocka_unit_test(a_module_without_its_signature),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
