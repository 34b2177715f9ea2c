/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/dirty.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/macro.h"

int dirty_pages_init(struct dirty_pages *dirty, const void *host, uint64_t bytes)
{
    struct dirty_pages made = {.host = host, .count = (size_t)(bytes >> DIRTY_PAGE_SHIFT)};

    made.words = calloc(MAX(dirty_pages_words(&made), (size_t)1), sizeof(*made.words));
    if (!made.words)
        return -ENOMEM;
    *dirty = made;
    return 0;
}

void dirty_pages_deinit(struct dirty_pages *dirty)
{
    free(dirty->words);
    *dirty = (struct dirty_pages){0};
}

void dirty_pages_add(struct dirty_pages *dirty, const void *view, size_t len)
{
    uintptr_t offset = (uintptr_t)view - (uintptr_t)dirty->host; /* wraps to a huge value when the view is below */
    size_t page = offset >> DIRTY_PAGE_SHIFT, last;

    if (len == 0 || page >= dirty->count)
        return;
    last = add_overflows(offset, len - 1, &offset) ? SIZE_MAX : offset >> DIRTY_PAGE_SHIFT;
    last = MIN(last, dirty->count - 1);
    for (; page <= last; page++) {
        uint64_t *word = &dirty->words[page / 64], bit = 1ull << (page % 64);

        if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
            (void)__atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
    }
}

bool dirty_pages_has(const struct dirty_pages *dirty, size_t page)
{
    return page < dirty->count && (__atomic_load_n(&dirty->words[page / 64], __ATOMIC_RELAXED) >> (page % 64) & 1);
}

size_t dirty_pages_total(const struct dirty_pages *dirty)
{
    size_t total = 0;

    for (size_t i = 0; i < dirty_pages_words(dirty); i++)
        total += (size_t)__builtin_popcountll(__atomic_load_n(&dirty->words[i], __ATOMIC_RELAXED));
    return total;
}

void dirty_pages_move(struct dirty_pages *from, struct dirty_pages *to)
{
    assert(from->count == to->count);
    for (size_t i = 0; i < dirty_pages_words(from); i++) {
        uint64_t word = __atomic_exchange_n(&from->words[i], 0, __ATOMIC_RELAXED);

        if (word)
            (void)__atomic_fetch_or(&to->words[i], word, __ATOMIC_RELAXED);
    }
}
