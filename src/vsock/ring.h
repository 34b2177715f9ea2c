/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte queue in memory that its owner lends: what the guest sent and the
 * unix socket did not take yet. Not more than its size ever fits; the owner
 * checks before it puts. An emptied ring starts over at its first byte, so a
 * connection that is rarely behind touches few pages.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct ring {
    uint8_t *data;
    uint32_t size, start, len;
    bool touched; /* something was ever put since the owner cleared this */
};

/* The `len` bytes that follow the first `skip` of the pieces; they must exist and fit. */
void ring_put(struct ring *r, const struct iovec *pieces, size_t count, size_t skip, uint32_t len);
/* Fills in the content as at most two pieces; returns how many. */
size_t ring_peek(const struct ring *r, struct iovec ret_pieces[2]);
/* Forgets the first len bytes, at most what it holds. */
void ring_drop(struct ring *r, uint32_t len);
