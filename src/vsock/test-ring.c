/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <string.h>

#include "vsock/ring.h"

static void put(struct ring *r, const char *text)
{
    ring_put(r, &(struct iovec){(void *)text, strlen(text)}, 1, 0, (uint32_t)strlen(text));
}

static void expect(const struct ring *r, const char *text)
{
    struct iovec p[2];
    size_t n = ring_peek(r, p), at = 0;

    for (size_t i = 0; i < n; i++) {
        assert_memory_equal(p[i].iov_base, text + at, p[i].iov_len);
        at += p[i].iov_len;
    }
    assert_int_equal(at, strlen(text));
    assert_int_equal(r->len, strlen(text));
}

static void wraps_around(void **state)
{
    uint8_t memory[8];
    struct ring r = {.data = memory, .size = sizeof(memory)};

    expect(&r, "");
    put(&r, "abcdef");
    ring_drop(&r, 4);
    put(&r, "ghijkl");
    expect(&r, "efghijkl");
    ring_drop(&r, 5);
    put(&r, "mn");
    expect(&r, "jklmn");
    ring_drop(&r, 5);
    assert_int_equal(r.start, 0);
    put(&r, "01234567");
    expect(&r, "01234567");
}

static void takes_the_middle_of_pieces(void **state)
{
    uint8_t memory[16];
    struct ring r = {.data = memory, .size = sizeof(memory)};
    char text[] = "abcdefghi";
    const struct iovec pieces[] = {{text, 3}, {NULL, 0}, {text + 3, 3}, {text + 6, 3}};

    ring_put(&r, pieces, ARRAY_SIZE(pieces), 2, 5);
    expect(&r, "cdefg");
    ring_put(&r, pieces, ARRAY_SIZE(pieces), 3, 0);
    expect(&r, "cdefg");
    ring_put(&r, pieces, ARRAY_SIZE(pieces), 6, 3);
    expect(&r, "cdefgghi");
}

static void is_a_queue(void **state)
{
    uint8_t memory[251], in = 0, out = 0;
    struct ring r = {.data = memory, .size = sizeof(memory)};
    unsigned seed = 1;

    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[251];
        struct iovec p[2];
        uint32_t n = (uint32_t)rand_r(&seed) % (r.size - r.len + 1);
        size_t pieces;

        for (uint32_t i = 0; i < n; i++)
            bytes[i] = in++;
        ring_put(&r, &(struct iovec){bytes, n}, 1, 0, n);
        pieces = ring_peek(&r, p);
        n = (uint32_t)rand_r(&seed) % (r.len + 1);
        for (uint32_t i = 0; i < n; i++) {
            const uint8_t *at =
                    i < p[0].iov_len ? (uint8_t *)p[0].iov_base + i : (uint8_t *)p[1].iov_base + (i - p[0].iov_len);

            assert_true(i < p[0].iov_len || pieces == 2);
            assert_int_equal(*at, out);
            out++;
        }
        ring_drop(&r, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(wraps_around),
            cmocka_unit_test(takes_the_middle_of_pieces),
            cmocka_unit_test(is_a_queue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
