/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/dirty.h"

#include <pthread.h>
#include <string.h>

#include "base/test.h"

#define PAGES 130u

/* Never followed, so it need not be memory. */
static uint8_t *const host = (uint8_t *)(uintptr_t)0x7f0000000000;

static struct dirty_pages fresh(void)
{
    struct dirty_pages dirty;

    assert_int_equal(dirty_pages_init(&dirty, host, PAGES * DIRTY_PAGE), 0);
    assert_int_equal(dirty.count, PAGES);
    assert_int_equal(dirty_pages_words(&dirty), 3);
    assert_int_equal(dirty_pages_total(&dirty), 0);
    return dirty;
}

static void marks_every_page_that_has_a_byte(void **state)
{
    struct dirty_pages dirty = fresh();

    dirty_pages_add(&dirty, host, 0);
    assert_int_equal(dirty_pages_total(&dirty), 0);
    dirty_pages_add(&dirty, host + 4095, 1);
    assert_int_equal(dirty.words[0], 1);
    dirty_pages_add(&dirty, host + 2 * 4096 + 4095, 2);
    assert_int_equal(dirty.words[0], 1 | 1 << 2 | 1 << 3);
    dirty_pages_add(&dirty, host + 63 * 4096, 2 * 4096); /* across words */
    assert_int_equal(dirty_pages_total(&dirty), 5);
    assert_true(dirty_pages_has(&dirty, 63) && dirty_pages_has(&dirty, 64) && !dirty_pages_has(&dirty, 65));
    dirty_pages_deinit(&dirty);
    dirty_pages_deinit(&dirty);
}

static void nothing_outside(void **state)
{
    struct dirty_pages dirty = fresh();

    dirty_pages_add(&dirty, host - 1, 1);
    dirty_pages_add(&dirty, host - 4096, 3 * 4096);
    dirty_pages_add(&dirty, host + PAGES * 4096, 1);
    assert_int_equal(dirty_pages_total(&dirty), 0);
    dirty_pages_add(&dirty, host + (PAGES - 1) * 4096, SIZE_MAX);
    assert_int_equal(dirty_pages_total(&dirty), 1);
    assert_int_equal(dirty.words[2], 2);
    assert_false(dirty_pages_has(&dirty, PAGES));
    assert_false(dirty_pages_has(&dirty, SIZE_MAX));
    dirty_pages_deinit(&dirty);
}

static void moves(void **state)
{
    struct dirty_pages from = fresh(), to = fresh();

    dirty_pages_add(&from, host + 4096, 1);
    dirty_pages_add(&from, host + 129 * 4096, 1);
    dirty_pages_add(&to, host, 2 * 4096);
    dirty_pages_move(&from, &to);
    assert_int_equal(dirty_pages_total(&from), 0);
    assert_int_equal(dirty_pages_total(&to), 3);
    assert_true(dirty_pages_has(&to, 0) && dirty_pages_has(&to, 1) && dirty_pages_has(&to, 129));
    dirty_pages_deinit(&from);
    dirty_pages_deinit(&to);
}

/* ---- threads: no mark is lost, however they share words and whoever collects meanwhile ---- */

#define THREADS 4u
#define ROUNDS  2000u

struct marker {
    pthread_t thread;
    struct dirty_pages *dirty;
    uint32_t *counts; /* marks that were made, for each page */
    unsigned number;
};

static void *mark(void *arg)
{
    struct marker *m = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        for (unsigned page = m->number; page < PAGES; page += THREADS) {
            /* A page has one owner, which marks again only what was collected: so each mark can be counted. */
            if (dirty_pages_has(m->dirty, page))
                continue;
            dirty_pages_add(m->dirty, host + page * 4096, 1);
            m->counts[page]++;
        }
    }
    return NULL;
}

static void no_mark_is_lost(void **state)
{
    struct dirty_pages dirty = fresh(), taken = fresh();
    uint32_t made[PAGES] = {0}, seen[PAGES] = {0};
    struct marker markers[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        markers[i] = (struct marker){.dirty = &dirty, .counts = made, .number = i};
        assert_int_equal(pthread_create(&markers[i].thread, NULL, mark, &markers[i]), 0);
    }
    for (unsigned i = 0; i <= ROUNDS; i++) {
        if (i == ROUNDS) {
            for (unsigned k = 0; k < THREADS; k++)
                assert_int_equal(pthread_join(markers[k].thread, NULL), 0);
        }
        dirty_pages_move(&dirty, &taken);
        for (unsigned page = 0; page < PAGES; page++)
            seen[page] += dirty_pages_has(&taken, page);
        memset(taken.words, 0, dirty_pages_words(&taken) * sizeof(*taken.words));
    }
    assert_memory_equal(made, seen, sizeof(made));
    assert_true(made[0] > 0);
    dirty_pages_deinit(&dirty);
    dirty_pages_deinit(&taken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(marks_every_page_that_has_a_byte),
            cmocka_unit_test(nothing_outside),
            cmocka_unit_test(moves),
            cmocka_unit_test(no_mark_is_lost),
    };

    return cmocka_run_group_tests_name("dirty", tests, NULL, NULL);
}
