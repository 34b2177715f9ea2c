/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/vmlinux.h"

#include <elf.h>
#include <lz4.h>
#include <lz4hc.h>
#include <string.h>

#define LZ4_LEGACY_MAGIC 0x184C2102u
#define LZ4_BLOCK_BYTES  ((size_t)8 << 20)
#define SECTOR_BYTES     512u
#define TRAILER_BYTES    4u /* the unpacked size, appended by the kernel's build to every payload */

bool vmlinux_is_elf(const void *head, size_t len)
{
    Elf64_Ehdr ehdr;

    if (len < sizeof(ehdr))
        return false;
    memcpy(&ehdr, head, sizeof(ehdr));
    return memcmp(ehdr.e_ident, ELFMAG, SELFMAG) == 0 && ehdr.e_ident[EI_CLASS] == ELFCLASS64 &&
           ehdr.e_machine == EM_X86_64 && ehdr.e_type == ET_EXEC;
}

static const char *compression_name(const uint8_t *payload, size_t len)
{
    static const struct {
        const char *magic;
        size_t len;
        const char *name;
    } known[] = {
            {"\x1f\x8b", 2, "gzip"},
            {"\x28\xb5\x2f\xfd", 4, "zstd"},
            {"\xfd\x37\x7a\x58\x5a", 5, "xz"},
            {"BZh", 3, "bzip2"},
            {"\x5d\x00\x00", 3, "lzma"},
            {"\x89LZO", 4, "lzo"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (len >= known[i].len && memcmp(payload, known[i].magic, known[i].len) == 0)
            return known[i].name;
    }
    return "an unknown method";
}

static int find_payload(const uint8_t *image, size_t len, const char *name, struct rd *ret, struct ic_error *error)
{
    uint32_t offset, length, setup_sects;
    uint64_t start;
    struct rd r;

    if (len < 0x250 || memcmp(image + 0x202, "HdrS", 4) != 0)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: not a bzImage (no boot header)", name);
    r = rd_of(image + 0x206, 2);
    if (rd_le16(&r) < 0x208)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: boot protocol older than 2.08: no payload in it", name);
    setup_sects = image[0x1f1] ? image[0x1f1] : 4;
    r = rd_of(image + 0x248, 8);
    offset = rd_le32(&r);
    length = rd_le32(&r);
    start = (uint64_t)(setup_sects + 1) * SECTOR_BYTES + offset;
    if (start > len || length > len - start || length <= TRAILER_BYTES + 4)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: the payload is outside of the file (truncated?)", name);
    *ret = rd_of(image + start, length);
    return 0;
}

static int unpack_blocks(struct rd *blocks, size_t expected, const char *name, struct buf *ret, struct ic_error *error)
{
    while (blocks->left > 0) {
        uint32_t packed = rd_le32(blocks);
        const uint8_t *data = rd_bytes(blocks, packed);
        size_t room = MIN(LZ4_BLOCK_BYTES, expected - ret->len);
        uint8_t *to;
        int n;

        if (!data)
            return ic_fail(error, IC_ERR_CORRUPT, "%s: an LZ4 block is longer than the payload", name);
        to = buf_reserve(ret, room);
        if (!to)
            return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
        n = LZ4_decompress_safe((const char *)data, (char *)to, (int)packed, (int)room);
        if (n <= 0)
            return ic_fail(error, IC_ERR_CORRUPT, "%s: an LZ4 block is damaged", name);
        ret->len += (size_t)n;
    }
    if (ret->len != expected)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: %zu bytes unpacked, %zu expected", name, ret->len, expected);
    return 0;
}

int vmlinux_extract(const void *bzimage, size_t len, const char *name, struct buf *ret, struct ic_error *error)
{
    struct rd payload, trailer;
    uint32_t expected;
    int r = find_payload(bzimage, len, name, &payload, error);

    if (r < 0)
        return r;
    trailer = rd_of(payload.p + payload.left - TRAILER_BYTES, TRAILER_BYTES);
    expected = rd_le32(&trailer);
    payload.left -= TRAILER_BYTES;
    if (expected == 0 || expected > VMLINUX_BYTES_MAX)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: says that it unpacks to %u bytes", name, expected);
    trailer = payload;
    if (rd_le32(&trailer) != LZ4_LEGACY_MAGIC)
        return ic_fail(error, IC_ERR_UNSUPPORTED, "%s: the kernel is packed with %s; only LZ4 is known", name,
                compression_name(payload.p, payload.left));
    (void)rd_le32(&payload);
    buf_reset(ret);
    ret->max = VMLINUX_BYTES_MAX;
    r = unpack_blocks(&payload, expected, name, ret, error);
    if (r < 0)
        return r;
    if (!vmlinux_is_elf(ret->data, ret->len))
        return ic_fail(error, IC_ERR_CORRUPT, "%s: what is packed in it is not an x86-64 ELF kernel", name);
    return 0;
}

int lz4_legacy_pack(const void *data, size_t len, struct buf *ret, struct ic_error *error)
{
    const char *from = data;

    buf_reset(ret);
    buf_put_le32(ret, LZ4_LEGACY_MAGIC);
    while (len > 0) {
        int block = (int)MIN(len, LZ4_BLOCK_BYTES), room = LZ4_compressBound(block), n;
        size_t at = ret->len;
        uint8_t *to;

        buf_put_le32(ret, 0);
        to = buf_reserve(ret, (size_t)room);
        if (!to)
            return ic_fail(error, IC_ERR_NO_MEMORY, "initramfs: out of memory");
        n = LZ4_compress_HC(from, (char *)to, block, room, LZ4HC_CLEVEL_MIN);
        if (n <= 0)
            return ic_fail(error, IC_ERR_IO, "initramfs: LZ4 failed");
        ret->len += (size_t)n;
        buf_patch_le32(ret, at, (uint32_t)n);
        from += block;
        len -= (size_t)block;
    }
    return ret->error ? ic_fail(error, IC_ERR_NO_MEMORY, "initramfs: larger than %zu MiB", ret->max >> 20) : 0;
}
