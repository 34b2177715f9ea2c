/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <stdio.h>
#include <string.h>

#include "monitor/api/http.h"

/* Feeds `text` in pieces of `step` bytes up to the first event. */
static enum http_event feed(struct http_parser *p, const char *text, size_t len, size_t step, size_t *ret_used)
{
    size_t at = 0;

    while (at < len) {
        size_t used, n = MIN(step, len - at);
        enum http_event event = http_feed(p, text + at, n, &used);

        at += used;
        if (event != HTTP_MORE) {
            *ret_used = at;
            return event;
        }
        assert_int_equal(used, n);
    }
    *ret_used = at;
    return HTTP_MORE;
}

static enum http_event parse(struct http_parser *p, const char *text)
{
    size_t used;

    http_init(p);
    return feed(p, text, strlen(text), SIZE_MAX, &used);
}

static void test_good(void **state)
{
    static const char text[] = "PUT /boot-source HTTP/1.1\r\nHost: localhost\r\ncontent-LENGTH:  4 \r\n\r\n{ }\nGET ";

    for (size_t step = 1; step < sizeof(text); step++) {
        struct http_parser p;
        size_t used;

        http_init(&p);
        assert_int_equal(feed(&p, text, sizeof(text) - 1, step, &used), HTTP_REQUEST);
        assert_int_equal(used, sizeof(text) - 1 - strlen("GET "));
        assert_string_equal(p.method, "PUT");
        assert_string_equal(p.path, "boot-source");
        assert_int_equal(p.body_len, 4);
        assert_string_equal(p.body, "{ }\n");
        assert_true(p.keep_alive);
        http_reset(&p);
        assert_null(p.body);
    }
}

static void test_pipelined(void **state)
{
    static const char text[] = "GET / HTTP/1.1\r\n\r\n\r\nGET /version HTTP/1.1\r\n\r\n";
    struct http_parser p;
    size_t used, more;

    http_init(&p);
    assert_int_equal(feed(&p, text, sizeof(text) - 1, SIZE_MAX, &used), HTTP_REQUEST);
    assert_string_equal(p.path, "");
    assert_int_equal(used, 18);
    http_reset(&p);
    assert_int_equal(feed(&p, text + used, sizeof(text) - 1 - used, SIZE_MAX, &more), HTTP_REQUEST);
    assert_string_equal(p.path, "version");
    assert_int_equal(used + more, sizeof(text) - 1);
    http_reset(&p);
}

static void test_keep_alive(void **state)
{
    static const struct {
        const char *text;
        bool keep;
    } cases[] = {
            {"GET / HTTP/1.1\r\n\r\n", true},
            {"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", false},
            {"GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n", false},
            {"GET / HTTP/1.1\r\nConnection: closed\r\n\r\n", true},
            {"GET / HTTP/1.0\r\n\r\n", false},
            {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
            {"GET http://localhost/ HTTP/1.1\r\n\r\n", true},
            {"GET http://localhost HTTP/1.1\r\n\r\n", true},
    };
    struct http_parser p;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(parse(&p, cases[i].text), HTTP_REQUEST);
        assert_int_equal(p.keep_alive, cases[i].keep);
        assert_string_equal(p.path, "");
    }
}

static void test_bad(void **state)
{
    static const char *const cases[] = {
            "GET\r\n",
            "GET /\r\n",
            "GET / HTTP/1.2\r\n",
            "GET / http/1.1\r\n",
            "GET  / HTTP/1.1\r\n",
            "GET x HTTP/1.1\r\n",
            "GET /\x80 HTTP/1.1\r\n",
            "GET /\ta HTTP/1.1\r\n",
            "G\x01T / HTTP/1.1\r\n",
            "METHODTHATISLONG / HTTP/1.1\r\n",
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1\rHost: a\r\n",
            " GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nHost\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n",
            "GET / HTTP/1.1\r\n: a\r\n",
            "GET / HTTP/1.1\r\nHost: \x01\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 0\r\nContent-length: 0\r\n",
            "PUT / HTTP/1.1\r\nContent-Length:\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: -1\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: +1\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 1 1\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 5, 5\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 0x5\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 51201\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 18446744073709551617\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: identity\r\n",
    };
    struct http_parser p;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (parse(&p, cases[i]) != HTTP_BAD)
            fail_msg("accepted: %s", cases[i]);
        assert_true(p.fault[0]);
    }
    http_init(&p);
    assert_int_equal(feed(&p, "GET /\0 HTTP/1.1\r\n", 17, 1, &(size_t){0}), HTTP_BAD);
}

/* A line of exactly the limit with its CR LF is good, one byte more is not. */
static void test_line_limit(void **state)
{
    char text[API_MAX_LINE + 64];
    struct http_parser p;

    for (size_t extra = 0; extra < 2; extra++) {
        size_t n = API_MAX_LINE - strlen("GET / HTTP/1.1\r\n") + extra;

        (void)snprintf(text, sizeof(text), "GET /%0*d HTTP/1.1\r\n\r\n", (int)n, 0);
        assert_int_equal(parse(&p, text), extra ? HTTP_BAD : HTTP_REQUEST);
        if (!extra)
            assert_int_equal(strlen(p.path), n);
        n = API_MAX_LINE - strlen("a:\r\n") + extra;
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\na:%0*d\r\n\r\n", (int)n, 0);
        assert_int_equal(parse(&p, text), extra ? HTTP_BAD : HTTP_REQUEST);
    }
    /* Without an end nothing grows either. */
    memset(text, 'a', sizeof(text));
    http_init(&p);
    assert_int_equal(feed(&p, text, sizeof(text), 1, &(size_t){0}), HTTP_BAD);
}

static void test_header_count(void **state)
{
    for (size_t count = HTTP_MAX_HEADERS; count <= HTTP_MAX_HEADERS + 1; count++) {
        struct http_parser p;
        size_t used;

        assert_int_equal(parse(&p, "GET / HTTP/1.1\r\n"), HTTP_MORE);
        for (size_t i = 0; i < count - 1; i++)
            assert_int_equal(feed(&p, "a: b\r\n", 6, 6, &used), HTTP_MORE);
        assert_int_equal(feed(&p, "a: b\r\n\r\n", 8, 8, &used), count > HTTP_MAX_HEADERS ? HTTP_BAD : HTTP_REQUEST);
    }
}

static void test_body_limit(void **state)
{
    _cleanup_(freep) char *body = calloc(1, API_MAX_BODY);
    struct http_parser p;
    size_t used;

    assert_non_null(body);
    memset(body, 'x', API_MAX_BODY);
    assert_int_equal(parse(&p, "PUT / HTTP/1.1\r\nContent-Length: 51200\r\n\r\n"), HTTP_MORE);
    assert_int_equal(feed(&p, body, API_MAX_BODY - 1, 4096, &used), HTTP_MORE);
    assert_int_equal(feed(&p, "yz", 2, 2, &used), HTTP_REQUEST);
    assert_int_equal(used, 1);
    assert_int_equal(p.body_len, API_MAX_BODY);
    assert_int_equal(p.body[API_MAX_BODY - 1], 'y');
    http_reset(&p);
    assert_int_equal(parse(&p, "PUT / HTTP/1.1\r\nContent-Length: 51201\r\n"), HTTP_BAD);
    assert_string_equal(
            p.fault, "Request payload with size 51201 is larger than the limit of 51200 allowed by server.");
}

static void test_expect(void **state)
{
    static const char head[] = "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    struct http_parser p;
    size_t used;

    http_init(&p);
    assert_int_equal(feed(&p, head, sizeof(head) - 1, 7, &used), HTTP_CONTINUE);
    assert_int_equal(used, sizeof(head) - 1);
    assert_int_equal(feed(&p, "{}", 2, 1, &used), HTTP_REQUEST);
    http_reset(&p);
    assert_int_equal(parse(&p, "PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"), HTTP_MORE);
    http_reset(&p);
    assert_int_equal(parse(&p, "PUT / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n"), HTTP_REQUEST);
}

static void test_format(void **state)
{
    static const char full[] = "HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
                               "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    static const char none[] = "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: close\r\n\r\n";
    char out[HTTP_MAX_HEAD + 2];

    assert_int_equal(http_format(out, sizeof(out), 200, "{}", true), sizeof(full) - 1);
    assert_memory_equal(out, full, sizeof(full) - 1);
    assert_int_equal(http_format(out, sizeof(out), 204, "", false), sizeof(none) - 1);
    assert_memory_equal(out, none, sizeof(none) - 1);
    assert_int_equal(http_format(out, sizeof(full) - 1, 200, "{}", true), 0);
    assert_int_equal(http_format(out, sizeof(full), 200, "{}", true), sizeof(full) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_good),
            cmocka_unit_test(test_pipelined),
            cmocka_unit_test(test_keep_alive),
            cmocka_unit_test(test_bad),
            cmocka_unit_test(test_line_limit),
            cmocka_unit_test(test_header_count),
            cmocka_unit_test(test_body_limit),
            cmocka_unit_test(test_expect),
            cmocka_unit_test(test_format),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
