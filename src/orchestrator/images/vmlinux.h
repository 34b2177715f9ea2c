/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ELF kernel inside a bzImage (Linux boot protocol 2.15: setup_sects at
 * 0x1f1, "HdrS" at 0x202, payload_offset and payload_length at 0x248): pure
 * functions on bytes, and the LZ4 legacy frame that Debian's kernels and our
 * initramfs use (magic 0x184C2102, then blocks: le32 length + data, each at
 * most 8 MiB unpacked).
 */
#pragma once

#include "base/buf.h"
#include "orchestrator/error.h"

#define VMLINUX_BYTES_MAX ((size_t)256 << 20)

/* True for a 64-bit x86 ELF executable. */
bool vmlinux_is_elf(const void *head, size_t len);

/* The kernel in bzimage; `name` is for messages. */
int vmlinux_extract(const void *bzimage, size_t len, const char *name, struct buf *ret, struct ic_error *error);

int lz4_legacy_pack(const void *data, size_t len, struct buf *ret, struct ic_error *error);
