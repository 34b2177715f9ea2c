/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's migration stream, with most of the guest's empty pages taken out.
 *
 * QEMU sends a mark for each page of zeroes, and on loading it looks whether
 * the page has them, which makes the kernel allocate it: 256 MiB of page
 * faults where 50 MiB hold something. In the guest's memory, which is fresh
 * in the loading process, the marks mean nothing. So they go, and only they;
 * marks in other blocks (firmware, ACPI tables) stay, as those have contents
 * by then.
 *
 * As much of the format as that takes (QEMU 7.2, docs/devel/migration.rst,
 * migration/savevm.c and ram.c), big-endian:
 *
 *     magic, version        4 + 4 bytes
 *     configuration         07, length (4), bytes
 *     section start         01, id (4), name (1 + n), instance (4), version (4), contents, footer
 *     section part, end     02 or 03, id (4), contents, footer
 *     footer                7e, id (4)
 *
 * The only section that comes in parts is "ram". Start: size of all blocks
 * with flag 04, for each its name (1 + n) and size (8), flag 10. Part and end:
 * pages, each offset | flags (8), the block's name (1 + n) unless flag 20 says
 * that it is the one before, then a byte (flag 02) or 4096 (flag 08); flag 10
 * ends them. What follows the end of "ram", the devices, is passed on as it
 * is. Anything else is refused: another version of QEMU may have changed it.
 *
 * QEMU is attacked by its guest, so its stream is parsed like foreign input.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define QEMU_STREAM_BLOCK "ram" /* id of the guest's memory on QEMU's command line */
#define QEMU_STREAM_PAGE  4096u

struct qemu_stream {
    int state;
    uint8_t section[4];                   /* id of "ram" */
    uint64_t blocks_left;                 /* bytes of blocks that the start has still to name */
    uint8_t in_block[256], to_block[256]; /* what a page without a name belongs to: 1 + n bytes, 0: none yet */
    bool started, last;                   /* "ram" is known; this is its end */
    struct buf in;                        /* of which nothing is known yet */
    uint64_t pages, dropped;
};

void qemu_stream_init(struct qemu_stream *s);
void qemu_stream_deinit(struct qemu_stream *s);

/* More of the stream, whose part that stays is appended to `out`. 0, -EBADMSG, -ENOMEM. */
int qemu_stream_push(struct qemu_stream *s, const void *data, size_t len, struct buf *out);

/* At its end: -EBADMSG if that is not where it can end. */
int qemu_stream_finish(const struct qemu_stream *s);
