/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <string.h>

#include "vsock/connect-line.h"

static int parse(const char *text, uint32_t *ret_port)
{
    *ret_port = 12345;
    return connect_line_parse(text, strlen(text), ret_port);
}

static void valid_lines(void **state)
{
    static const struct {
        const char *text;
        int len;
        uint32_t port;
    } cases[] = {
            {"CONNECT 0\n", 10, 0},
            {"CONNECT 1\n", 10, 1},
            {"CONNECT 1024\n", 13, 1024},
            {"CONNECT 4294967295\n", 19, UINT32_MAX},
            {"CONNECT 52\nGET / HTTP/1.1\r\n", 11, 52},
            {"CONNECT 7\n\n", 10, 7},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint32_t port;

        assert_int_equal(parse(cases[i].text, &port), cases[i].len);
        assert_int_equal(port, cases[i].port);
    }
}

static void every_prefix_waits_for_more(void **state)
{
    static const char text[] = "CONNECT 4294967295";

    for (size_t len = 0; len < sizeof(text); len++) {
        uint32_t port = 77;

        assert_int_equal(connect_line_parse(text, len, &port), 0);
        assert_int_equal(port, 77);
    }
}

static void invalid_lines(void **state)
{
    static const char *const cases[] = {
            "\n",
            "connect 5\n",
            "CONNECT\n",
            "CONNECT \n",
            "CONNECT  5\n",
            "CONNECT +5\n",
            "CONNECT -1\n",
            "CONNECT 5 \n",
            "CONNECT 5\r\n",
            "CONNECT 05\n",
            "CONNECT 00\n",
            "CONNECT 0x5\n",
            "CONNECT 4294967296\n",
            "CONNECT 99999999999999999999999999999999999\n",
            "CONNECT 5a\n",
            " CONNECT 5\n",
            "GET / HTTP/1.1\r\n",
            "CONNECTED 5\n",
            "CONNECT 000000000000000000000000000000000",
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint32_t port;

        assert_int_equal(parse(cases[i], &port), -EBADMSG);
        assert_int_equal(port, 12345);
    }
    assert_int_equal(connect_line_parse("CONNECT 5\0\n", 11, &(uint32_t){0}), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(valid_lines),
            cmocka_unit_test(every_prefix_waits_for_more),
            cmocka_unit_test(invalid_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
