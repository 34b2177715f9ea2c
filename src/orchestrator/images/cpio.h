/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the cpio archive that the kernel unpacks as its initramfs ("newc",
 * Documentation/driver-api/early-userspace/buffer-format.rst). The bytes
 * depend on the calls alone: owner root, time 0, inode numbers counted.
 *
 * Names are relative, without a leading '/'; a directory comes before what
 * is in it. Errors are sticky in the buffer: check `out->error` at the end.
 */
#pragma once

#include <sys/types.h>

#include "base/buf.h"

struct cpio {
    struct buf *out;
    uint32_t next_inode;
};

void cpio_init(struct cpio *cpio, struct buf *out);
void cpio_add_dir(struct cpio *cpio, const char *name, mode_t mode);
void cpio_add_file(struct cpio *cpio, const char *name, mode_t mode, const void *data, size_t len);
void cpio_add_char_device(struct cpio *cpio, const char *name, mode_t mode, unsigned major, unsigned minor);
/* The trailer; nothing may be added after it. */
void cpio_finish(struct cpio *cpio);
