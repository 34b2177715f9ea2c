/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <string.h>
#include <unistd.h>

#include "base/log.h"

static void guest_text_cannot_forge_lines(void **state)
{
    char out[64];

    (void)state;
    assert_string_equal(log_escape(out, sizeof(out), "a\nb\x1b[2J\\", 8), "a\\x0ab\\x1b[2J\\x5c");
    assert_string_equal(log_escape(out, 4, "\n\n", 2), "");
    assert_string_equal(log_escape(out, 5, "\n\n", 2), "\\x0a");
    assert_string_equal(log_escape(out, 4, "abcdef", 6), "abc");
}

static void long_lines_are_cut_and_end_in_newline(void **state)
{
    char text[2 * LOG_LINE_MAX + 1], out[2 * LOG_LINE_MAX];
    int fds[2];
    ssize_t n;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(pipe(fds), 0);
    log_init("t", LOG_WARN, fds[1]);
    log_msg(LOG_INFO, "not shown");
    log_msg(LOG_WARN, "%s", text);
    n = read(fds[0], out, sizeof(out));
    assert_true(n > 0 && n <= LOG_LINE_MAX);
    assert_memory_equal(out, "t: warning: xxx", 15);
    assert_int_equal(out[n - 1], '\n');
    close(fds[0]);
    close(fds[1]);
}

static void a_flood_is_limited_and_counted(void **state)
{
    struct log_limit limit = {.burst = 3};
    unsigned allowed = 0;

    (void)state;
    for (int i = 0; i < 1000; i++)
        allowed += log_allowed(&limit);
    assert_true(allowed >= 3 && allowed < 1000);
    assert_int_equal(allowed + limit.dropped, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(guest_text_cannot_forge_lines),
            cmocka_unit_test(long_lines_are_cut_and_end_in_newline),
            cmocka_unit_test(a_flood_is_limited_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
