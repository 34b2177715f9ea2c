/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of guest memory were written: a bit for each 4 KiB of one
 * mapping of the host.
 *
 * Hardware logs what the guest writes; nothing logs what the host writes on
 * its behalf (devices, rings, tables). So everything that does marks it here,
 * by gmem_wrote() or by what calls that. Several threads do so at once: bits
 * are set atomically, and only when they aren't yet, so that a page written
 * again and again costs a load.
 *
 * Marking allocates nothing and calls nobody. The words have the layout that
 * KVM_GET_DIRTY_LOG fills: bit n % 64 of word n / 64 is page n.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIRTY_PAGE_SHIFT 12u
#define DIRTY_PAGE       (1u << DIRTY_PAGE_SHIFT)

struct dirty_pages {
    const uint8_t *host; /* where page 0 is; never followed */
    size_t count;        /* pages */
    uint64_t *words;     /* dirty_pages_words() of them, owned; bits past the last page stay clear */
};

/* All clean. bytes is a multiple of DIRTY_PAGE. -ENOMEM. */
int dirty_pages_init(struct dirty_pages *dirty, const void *host, uint64_t bytes);
void dirty_pages_deinit(struct dirty_pages *dirty); /* right also for a zeroed one */

static inline size_t dirty_pages_words(const struct dirty_pages *dirty)
{
    return (dirty->count + 63) / 64;
}

/* Marks every page that has a byte of the view, which lies in the mapping (what doesn't is left out). Any thread. */
void dirty_pages_add(struct dirty_pages *dirty, const void *view, size_t len);
bool dirty_pages_has(const struct dirty_pages *dirty, size_t page); /* false past the end */
size_t dirty_pages_total(const struct dirty_pages *dirty);
/* What is marked in `from` becomes marked in `to`, of the same mapping, and clean in `from`. Any thread may add to
 * `from` meanwhile: a mark is in either of them afterwards. */
void dirty_pages_move(struct dirty_pages *from, struct dirty_pages *to);
