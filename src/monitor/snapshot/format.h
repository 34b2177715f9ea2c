/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state file of a snapshot: everything of a VM but its memory. All
 * integers are little-endian, structures of KVM are those of Linux's UAPI for
 * x86-64. What is in each part is said where it is written: machine.h, kvm-state.h,
 * mmio.h, devices.h.
 *
 *   0   struct header, 64 bytes:
 *         magic "IronClaw", u32 version, u32 minimum, u8 id[16], u64 length of
 *         the file, u32 parts, u32 checksum of header (with 0 here) and table, u64 zero[2]
 *   64  the table, 32 bytes for each part: u32 part, u32 index (of vCPU or
 *         device), u64 offset, u64 length, u32 checksum, u32 zero
 *   ... the parts in the table's order, each at the next multiple of 8, with zeroes between them
 *
 * `version` is the writer's. A change that older readers would misunderstand
 * raises `minimum`, the oldest reader's version that may load the file; parts that
 * a reader does not know are skipped. The id binds the memory file, which
 * has it too.
 *
 * Checksums (CRC-32C) are against torn and rotten files. They keep nobody from
 * making a file of his own, so everything that is read is checked as if a
 * guest had written it. Pure: no system call.
 */
#pragma once

#include "base/buf.h"
#include "monitor/vm-config.h"

#define SNAPSHOT_VERSION   2u /* 1: with KVM's I/O APIC, PICs and PIT */
#define SNAPSHOT_MINIMUM   2u /* what we write is for readers of this version and later ones, */
#define SNAPSHOT_OLDEST    2u /* and we read files of writers from this one on */
#define SNAPSHOT_ID_BYTES  16u
#define SNAPSHOT_MAX_PARTS 128u
#define SNAPSHOT_MAX_BYTES ((size_t)16 << 20)
#define SNAPSHOT_MAX_PATH  4095u

enum snapshot_part {
    SNAPSHOT_HOST = 1, /* what it was made on */
    SNAPSHOT_CONFIG,
    SNAPSHOT_VM, /* clock */
    SNAPSHOT_VCPU,
    SNAPSHOT_VIRTIO,
    SNAPSHOT_SERIAL,
    SNAPSHOT_KEYBOARD,
    SNAPSHOT_IOAPIC,
};

struct snapshot_entry {
    uint32_t part, index;
    uint64_t offset, length;
    uint32_t checksum, zero;
};

/* Zeroed is empty. */
struct snapshot_writer {
    struct snapshot_entry table[SNAPSHOT_MAX_PARTS];
    uint32_t count;
    struct buf body;
};

/* A new part, which goes on until the next one or the end: what is put into the buffer is in it. */
struct buf *snapshot_begin(struct snapshot_writer *writer, enum snapshot_part part, uint32_t index);
/* The whole file, into an empty buffer. -ENOMEM, -EMSGSIZE: too many parts or bytes. */
int snapshot_finish(struct snapshot_writer *writer, const uint8_t id[SNAPSHOT_ID_BYTES], struct buf *ret);
void snapshot_writer_deinit(struct snapshot_writer *writer); /* for _cleanup_ */

/* A file that was checked as a whole; borrows the bytes and the path, which is for messages. */
struct snapshot {
    const char *path;
    const uint8_t *bytes;
    uint8_t id[SNAPSHOT_ID_BYTES];
    uint32_t version, count;
    struct snapshot_entry table[SNAPSHOT_MAX_PARTS];
};

/* -EBADMSG: not a state file, cut or damaged; -ENOTSUP: of another version. */
int snapshot_open(struct snapshot *ret, const void *bytes, size_t len, const char *path, struct vm_error *error);
/* -ENOENT: there is none. */
int snapshot_part(const struct snapshot *snapshot, enum snapshot_part part, uint32_t index, struct rd *ret,
        struct vm_error *error);
/* Whether all of the part was read, and nothing else. `r` is what reading it came to: its message gets file and part.
 */
int snapshot_part_end(const struct snapshot *snapshot, enum snapshot_part part, uint32_t index, const struct rd *rd,
        int r, struct vm_error *error);
