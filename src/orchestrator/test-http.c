/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/backends/http.h"

static struct http_response response;

static int parse(const char *text)
{
    response = (struct http_response){0};
    return http_parse(text, strlen(text), &response);
}

static void parses_answers(void **state)
{
    assert_int_equal(parse("HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"), 1);
    assert_int_equal(response.status, 204);
    assert_int_equal(response.body_len, 0);
    assert_false(response.closing);
    assert_int_equal(
            parse("HTTP/1.1 400 Bad Request\r\ncontent-length:\t 2 \r\nConnection: Close\r\n\r\n{}HTTP/1.1 2"), 1);
    assert_int_equal(response.status, 400);
    assert_int_equal(response.body_len, 2);
    assert_memory_equal(response.body, "{}", 2);
    assert_int_equal(
            response.size, strlen("HTTP/1.1 400 Bad Request\r\ncontent-length:\t 2 \r\nConnection: Close\r\n\r\n{}"));
    assert_true(response.closing);
    assert_int_equal(parse("HTTP/1.0 200\r\n\r\n"), 1);
    assert_int_equal(response.status, 200);
    assert_true(response.closing);
    assert_int_equal(parse("HTTP/1.1 204 No Content\r\nContent-Length: 10\r\n\r\n"), 1);
    assert_int_equal(response.body_len, 0);
}

/* Every beginning of an answer is one of which more is to come. */
static void waits_for_the_rest(void **state)
{
    static const char whole[] =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}";

    for (size_t n = 0; n < sizeof(whole) - 1; n++)
        assert_int_equal(http_parse(whole, n, &response), 0);
    assert_int_equal(http_parse(whole, sizeof(whole) - 1, &response), 1);
    assert_int_equal(response.size, sizeof(whole) - 1);
}

static void refuses(void **state)
{
    static const char *const bad[] = {
            "\r\n\r\n",
            "HTTP/2 204 \r\n\r\n",
            "HTTP/1.2 204 \r\n\r\n",
            "HTTP/1.1 20 \r\n\r\n",
            "HTTP/1.1 2040 \r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 600 \r\n\r\n",
            "HTTP/1.1 -20 \r\n\r\n",
            "http/1.1 200 \r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nA: b\rContent-Length: 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\nx",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(parse(bad[i]), -EBADMSG);
        assert_int_equal(response.status, 0);
    }
    assert_int_equal(http_parse("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", 25, &response), -EBADMSG);
}

static void is_bounded(void **state)
{
    static char flood[HTTP_MAX_HEAD + 100];
    char head[128];

    memset(flood, 'x', sizeof(flood));
    assert_int_equal(http_parse(flood, HTTP_MAX_HEAD - 1, &response), 0);
    assert_int_equal(http_parse(flood, HTTP_MAX_HEAD, &response), -EMSGSIZE);
    memcpy(flood + HTTP_MAX_HEAD, "\r\n\r\n", 4);
    assert_int_equal(http_parse(flood, sizeof(flood), &response), -EMSGSIZE);
    (void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", HTTP_MAX_BODY);
    assert_int_equal(parse(head), 0);
    (void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", HTTP_MAX_BODY + 1);
    assert_int_equal(parse(head), -EMSGSIZE);
    assert_int_equal(parse("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551617\r\n\r\nx"), -EMSGSIZE);
}

/* A peer that sends its script piece by piece, each after it got something. */
struct peer {
    int fd;
    const char *const *script;
    char got[1024];
};

static void *peer_main(void *arg)
{
    struct peer *peer = arg;
    size_t len = 0;

    for (size_t i = 0; peer->script[i]; i++) {
        ssize_t n = read(peer->fd, peer->got + len, sizeof(peer->got) - 1 - len);

        if (n <= 0)
            break;
        len += (size_t)n;
        for (const char *p = peer->script[i]; *p; p++) /* byte by byte: what TCP may do, a socket may do */
            (void)fd_write_all(peer->fd, p, 1, DEADLINE_NEVER);
    }
    if (peer->script[0])
        (void)shutdown(peer->fd, SHUT_WR);
    while (read(peer->fd, peer->got + len, sizeof(peer->got) - 1 - len) > 0)
        ;
    return NULL;
}

static void talk_begin(struct http *h, struct peer *peer, pthread_t *thread, const char *const *script, unsigned ms)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(fd_set_nonblock(pair[0], true), 0);
    *peer = (struct peer){.fd = pair[1], .script = script};
    http_init(h, pair[0], deadline_after_ms(ms));
    assert_int_equal(pthread_create(thread, NULL, peer_main, peer), 0);
}

static void talk_end(struct http *h, struct peer *peer, pthread_t thread)
{
    http_deinit(h);
    assert_int_equal(pthread_join(thread, NULL), 0);
    close(peer->fd);
}

static void talks(void **state)
{
    static const char *const script[] = {
            "HTTP/1.1 204 \r\n\r\n", "HTTP/1.1 400 \r\nContent-Length: 21\r\n\r\n{\"fault_message\":\"x\"}", NULL};
    pthread_t thread;
    struct peer peer;
    struct http h;

    talk_begin(&h, &peer, &thread, script, 5000);
    assert_int_equal(http_request(&h, "PUT", "/vsock", "{\"a\":1}", &response), 0);
    assert_int_equal(response.status, 204);
    assert_int_equal(http_request(&h, "GET", "/", NULL, &response), 0);
    assert_int_equal(response.status, 400);
    assert_memory_equal(response.body, "{\"fault_message\":\"x\"}", 21);
    assert_int_equal(http_request(&h, "GET", "/", NULL, &response), -ECONNRESET);
    talk_end(&h, &peer, thread);
    assert_non_null(strstr(peer.got, "PUT /vsock HTTP/1.1\r\nHost: localhost\r\n"));
    assert_non_null(strstr(peer.got, "Content-Length: 7\r\n\r\n{\"a\":1}GET / HTTP/1.1\r\n"));
}

static void survives_bad_peers(void **state)
{
    static const char *const garbage[] = {"garbage\r\n\r\n", NULL}, *const half[] = {"HTTP/1.1 2", NULL},
                             *const silent[] = {NULL};
    pthread_t thread;
    struct peer peer;
    struct http h;

    talk_begin(&h, &peer, &thread, garbage, 5000);
    assert_int_equal(http_request(&h, "GET", "/", NULL, &response), -EBADMSG);
    talk_end(&h, &peer, thread);
    talk_begin(&h, &peer, &thread, half, 5000);
    assert_int_equal(http_request(&h, "GET", "/", NULL, &response), -ECONNRESET);
    talk_end(&h, &peer, thread);
    talk_begin(&h, &peer, &thread, silent, 100);
    assert_int_equal(http_request(&h, "GET", "/", NULL, &response), -ETIMEDOUT);
    talk_end(&h, &peer, thread);
}

/* It would be taken for the next request's. */
static void refuses_an_answer_to_nothing(void **state)
{
    static const char two[] = "HTTP/1.1 204 \r\n\r\nHTTP/1.1 204 \r\n\r\n";
    struct http h;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    http_init(&h, pair[0], deadline_after_ms(5000));
    assert_int_equal(fd_write_all(pair[1], two, sizeof(two) - 1, DEADLINE_NEVER), 0);
    assert_int_equal(http_request(&h, "GET", "/", NULL, &response), 0);
    assert_int_equal(http_request(&h, "GET", "/", NULL, &response), -EBADMSG);
    http_deinit(&h);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(parses_answers),
            cmocka_unit_test(waits_for_the_rest),
            cmocka_unit_test(refuses),
            cmocka_unit_test(is_bounded),
            cmocka_unit_test(talks),
            cmocka_unit_test(survives_bad_peers),
            cmocka_unit_test(refuses_an_answer_to_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
