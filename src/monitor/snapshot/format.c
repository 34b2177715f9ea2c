/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/snapshot/format.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"

static const char magic[8] = {'I', 'r', 'o', 'n', 'C', 'l', 'a', 'w'};

struct header {
    char magic[8];
    uint32_t version, minimum;
    uint8_t id[SNAPSHOT_ID_BYTES];
    uint64_t length;
    uint32_t parts, checksum;
    uint64_t zero[2];
};
static_assert(sizeof(struct header) == 64, "as documented");
static_assert(offsetof(struct header, id) == 16 && offsetof(struct header, checksum) == 44, "as documented");
static_assert(sizeof(struct snapshot_entry) == 32, "as documented");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the structures are written as they are");

#define WAY_OUT "make the snapshot again"
#define ALIGN   8u

static uint32_t checksum_table(const struct header *header, const struct snapshot_entry *table)
{
    struct header copy = *header;

    copy.checksum = 0;
    return crc32c(crc32c(0, &copy, sizeof(copy)), table, header->parts * sizeof(*table));
}

static const char *part_name(uint32_t part)
{
    static const char *const names[] = {
            [SNAPSHOT_HOST] = "host",
            [SNAPSHOT_CONFIG] = "config",
            [SNAPSHOT_VM] = "vm",
            [SNAPSHOT_VCPU] = "vcpu",
            [SNAPSHOT_VIRTIO] = "virtio",
            [SNAPSHOT_SERIAL] = "serial",
            [SNAPSHOT_KEYBOARD] = "keyboard",
            [SNAPSHOT_IOAPIC] = "ioapic",
    };

    return part < ARRAY_SIZE(names) && names[part] ? names[part] : "unknown";
}

/* ---- writing ---- */

static void end_part(struct snapshot_writer *writer)
{
    static const uint8_t zeroes[ALIGN];
    struct snapshot_entry *last;

    if (writer->count == 0 || writer->count > SNAPSHOT_MAX_PARTS)
        return;
    last = &writer->table[writer->count - 1];
    last->length = writer->body.len - last->offset;
    buf_put(&writer->body, zeroes, -writer->body.len & (ALIGN - 1));
}

struct buf *snapshot_begin(struct snapshot_writer *writer, enum snapshot_part part, uint32_t index)
{
    writer->body.max = SNAPSHOT_MAX_BYTES;
    end_part(writer);
    if (writer->count >= SNAPSHOT_MAX_PARTS)
        writer->count = SNAPSHOT_MAX_PARTS + 1; /* told at the end */
    else
        writer->table[writer->count++] = (struct snapshot_entry){part, index, writer->body.len, 0, 0, 0};
    return &writer->body;
}

int snapshot_finish(struct snapshot_writer *writer, const uint8_t id[SNAPSHOT_ID_BYTES], struct buf *ret)
{
    struct header header = {.version = SNAPSHOT_VERSION, .minimum = SNAPSHOT_MINIMUM, .parts = writer->count};
    size_t start = sizeof(header) + writer->count * sizeof(writer->table[0]);

    if (writer->count > SNAPSHOT_MAX_PARTS)
        return -EMSGSIZE;
    end_part(writer);
    if (writer->body.error < 0)
        return writer->body.error;
    for (uint32_t i = 0; i < writer->count; i++) {
        struct snapshot_entry *entry = &writer->table[i];

        entry->checksum = crc32c(0, writer->body.data + entry->offset, entry->length);
        entry->offset += start;
    }
    memcpy(header.magic, magic, sizeof(magic));
    memcpy(header.id, id, SNAPSHOT_ID_BYTES);
    header.length = start + writer->body.len;
    header.checksum = checksum_table(&header, writer->table);
    buf_put(ret, &header, sizeof(header));
    buf_put(ret, writer->table, writer->count * sizeof(writer->table[0]));
    buf_put(ret, writer->body.data, writer->body.len);
    return ret->error;
}

void snapshot_writer_deinit(struct snapshot_writer *writer)
{
    buf_deinit(&writer->body);
    writer->count = 0;
}

/* ---- reading ---- */

static int check_header(const struct header *header, size_t len, const char *path, struct vm_error *error)
{
    if (len < sizeof(*header) || memcmp(header->magic, magic, sizeof(magic)) != 0)
        return vm_fail(error, -EBADMSG, "snapshot %.300s: not a state file of ironclaw-vmm", path);
    if (header->minimum > SNAPSHOT_VERSION)
        return vm_fail(error, -ENOTSUP,
                "snapshot %.300s: made by a newer monitor (format %u, for %u and later; this one is %u); load it with "
                "that one, or " WAY_OUT,
                path, header->version, header->minimum, SNAPSHOT_VERSION);
    if (header->version < SNAPSHOT_OLDEST)
        return vm_fail(error, -ENOTSUP,
                "snapshot %.300s: made by an older monitor (format %u; this one reads %u and later); " WAY_OUT, path,
                header->version, SNAPSHOT_OLDEST);
    if (header->length != len)
        return vm_fail(error, -EBADMSG, "snapshot %.300s: has %zu bytes and not the %llu that it should; " WAY_OUT,
                path, len, (unsigned long long)header->length);
    if (header->parts == 0 || header->parts > SNAPSHOT_MAX_PARTS ||
            len - sizeof(*header) < header->parts * sizeof(struct snapshot_entry))
        return vm_fail(error, -EBADMSG, "snapshot %.300s: a table of %u parts; " WAY_OUT, path, header->parts);
    return 0;
}

static bool is_zero(const uint8_t *bytes, uint64_t from, uint64_t to)
{
    while (from < to && bytes[from] == 0)
        from++;
    return from >= to;
}

/* One after the other without gaps, so that no byte of the file is unchecked. */
static int check_parts(const struct snapshot *s, size_t len, struct vm_error *error)
{
    uint64_t at = sizeof(struct header) + s->count * sizeof(s->table[0]);

    for (uint32_t i = 0; i < s->count; i++) {
        const struct snapshot_entry *entry = &s->table[i];
        uint64_t end, next;

        if (entry->offset != at || entry->length > len - at)
            return vm_fail(error, -EBADMSG, "snapshot %.300s: part %s %u is not where it should be; " WAY_OUT, s->path,
                    part_name(entry->part), entry->index);
        end = at + entry->length;
        next = MIN((end + ALIGN - 1) & ~(uint64_t)(ALIGN - 1), (uint64_t)len);
        if (crc32c(0, s->bytes + at, entry->length) != entry->checksum || entry->zero != 0 ||
                !is_zero(s->bytes, end, next))
            return vm_fail(error, -EBADMSG, "snapshot %.300s: part %s %u is damaged (checksum); " WAY_OUT, s->path,
                    part_name(entry->part), entry->index);
        at = next;
    }
    return at == len ? 0 : vm_fail(error, -EBADMSG, "snapshot %.300s: bytes behind the last part; " WAY_OUT, s->path);
}

int snapshot_open(struct snapshot *ret, const void *bytes, size_t len, const char *path, struct vm_error *error)
{
    struct header header = {0};
    struct snapshot s = {.path = path, .bytes = bytes};
    int r;

    memcpy(&header, bytes, MIN(len, sizeof(header)));
    r = check_header(&header, len, path, error);
    if (r < 0)
        return r;
    s.version = header.version;
    s.count = header.parts;
    memcpy(s.id, header.id, sizeof(s.id));
    memcpy(s.table, s.bytes + sizeof(header), header.parts * sizeof(s.table[0]));
    if (header.zero[0] != 0 || header.zero[1] != 0 || checksum_table(&header, s.table) != header.checksum)
        return vm_fail(error, -EBADMSG, "snapshot %.300s: its header or table is damaged (checksum); " WAY_OUT, path);
    r = check_parts(&s, len, error);
    if (r == 0)
        *ret = s;
    return r;
}

int snapshot_part(const struct snapshot *snapshot, enum snapshot_part part, uint32_t index, struct rd *ret,
        struct vm_error *error)
{
    for (uint32_t i = 0; i < snapshot->count; i++) {
        const struct snapshot_entry *entry = &snapshot->table[i];

        if (entry->part == part && entry->index == index) {
            *ret = rd_of(snapshot->bytes + entry->offset, entry->length);
            return 0;
        }
    }
    return vm_fail(
            error, -ENOENT, "snapshot %.300s: part %s %u is missing; " WAY_OUT, snapshot->path, part_name(part), index);
}

int snapshot_part_end(const struct snapshot *snapshot, enum snapshot_part part, uint32_t index, const struct rd *rd,
        int r, struct vm_error *error)
{
    struct vm_error why = {0};

    if (r == 0 && rd_finish(rd) == 0)
        return 0;
    if (r == 0 || rd->failed)
        return vm_fail(error, -EBADMSG, "snapshot %.300s: part %s %u has another length than it should; " WAY_OUT,
                snapshot->path, part_name(part), index);
    if (error)
        why = *error;
    return vm_fail(error, r, "snapshot %.150s: part %s %u: %.300s", snapshot->path, part_name(part), index, why.text);
}
