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
#include "orchestrator/backends/qmp.h"

static enum qmp_kind kind_of(const char *line)
{
    enum qmp_kind kind = 99;
    char text[64];

    if (qmp_parse(line, strlen(line), &kind, text, sizeof(text)) < 0)
        return 99;
    return kind;
}

static void tells_lines_apart(void **state)
{
    enum qmp_kind kind;
    char text[32];
    const char *line = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u001b such\"}}";

    assert_int_equal(kind_of("{\"QMP\": {\"version\": {}, \"capabilities\": []}}"), QMP_GREETING);
    assert_int_equal(kind_of("{\"return\": {}}"), QMP_RETURN);
    assert_int_equal(kind_of("{\"event\": \"STOP\", \"timestamp\": {}}"), QMP_EVENT);
    assert_int_equal(qmp_parse(line, strlen(line), &kind, text, sizeof(text)), 0);
    assert_int_equal(kind, QMP_ERROR);
    assert_string_equal(text, "no\\x1b such");
    assert_int_equal(kind_of(""), 99);
    assert_int_equal(kind_of("{}"), 99);
    assert_int_equal(kind_of("[]"), 99);
    assert_int_equal(kind_of("{\"error\": 1}"), 99);
    assert_int_equal(kind_of("{\"return\": {}"), 99);
}

struct peer {
    int listen_fd;
    const char *script; /* sent at once */
};

static void *peer_main(void *arg)
{
    struct peer *peer = arg;
    int fd = accept(peer->listen_fd, NULL, NULL);
    char sink[512];

    (void)fd_write_all(fd, peer->script, strlen(peer->script), DEADLINE_NEVER);
    while (read(fd, sink, sizeof(sink)) > 0)
        ;
    close(fd);
    return NULL;
}

static int talk(const char *script, struct ic_error *error)
{
    char path[64];
    struct peer peer = {.script = script};
    pthread_t thread;
    int r;

    (void)snprintf(path, sizeof(path), "/tmp/ironclaw-test-qmp.%ld", (long)getpid());
    assert_int_equal(unix_listen(path, 1, &peer.listen_fd), 0);
    assert_int_equal(pthread_create(&thread, NULL, peer_main, &peer), 0);
    r = qmp_command(path, "stop", deadline_after_ms(200), error);
    pthread_join(thread, NULL);
    close(peer.listen_fd);
    unlink(path);
    return r;
}

static void talks(void **state)
{
    static char flood[QMP_MAX_LINE + 4096];
    struct ic_error error;

    assert_int_equal(talk("{\"QMP\":{}}\r\n{\"return\":{}}\r\n{\"event\":\"STOP\"}\r\n{\"return\":{}}\r\n", &error), 0);
    assert_int_equal(
            talk("{\"QMP\":{}}\r\n{\"return\":{}}\r\n{\"error\":{\"desc\":\"busy\"}}\r\n", &error), -IC_ERR_BACKEND);
    assert_non_null(strstr(error.message, "busy"));
    assert_int_equal(talk("{\"QMP\":{}}\n", &error), -IC_ERR_TIMEOUT);
    assert_int_equal(talk("garbage\n", &error), -IC_ERR_PROTOCOL);
    memset(flood, 'x', sizeof(flood) - 1);
    assert_true(talk(flood, &error) < 0);
    assert_int_equal(qmp_command("/nonexistent/q", "stop", 0, &error), -IC_ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(tells_lines_apart),
            cmocka_unit_test(talks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
