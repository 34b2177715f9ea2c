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

static void tells_events(void **state)
{
    static const struct {
        const char *line, *text;
    } lines[] = {
            {"{\"event\": \"STOP\"}", "STOP"},
            {"{\"event\": \"MIGRATION\", \"data\": {\"status\": \"completed\"}}", "MIGRATION completed"},
            {"{\"event\": \"MIGRATION\", \"data\": {\"status\": 7}}", "MIGRATION"},
            {"{\"event\": \"MIGRATION\", \"data\": []}", "MIGRATION"},
            {"{\"event\": 1}", ""},
            {"{\"event\": \"E\", \"data\": {\"status\": \"much longer than there is room for\"}}", NULL},
            {"{\"event\": \"a name of thirty-one characters!\", \"data\": {\"status\": \"s\"}}", NULL},
            {"{\"return\": {\"status\": \"failed\", \"error-desc\": \"full\"}}", "full"},
            {"{\"return\": [1]}", ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        enum qmp_kind kind;
        char text[32];

        assert_int_equal(qmp_parse(lines[i].line, strlen(lines[i].line), &kind, text, sizeof(text)), 0);
        assert_true(strnlen(text, sizeof(text)) < sizeof(text));
        if (lines[i].text)
            assert_string_equal(text, lines[i].text);
    }
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

static void *greet_main(void *arg)
{
    struct peer *peer = arg;

    peer->listen_fd = accept(peer->listen_fd, NULL, NULL);
    (void)fd_write_all(peer->listen_fd, peer->script, strlen(peer->script), DEADLINE_NEVER);
    return NULL;
}

/* ---- one command after the other ---- */

#define HELLO     "{\"QMP\":{}}\n{\"return\":{}}\n"
#define MIGRATION "{\"event\":\"MIGRATION\",\"data\":{\"status\":\"%s\"}}\n"

struct conversation {
    int fd; /* QEMU's end */
    char path[64];
    int listen_fd;
    struct qmp *q;
    struct ic_error error;
};

/* What QEMU says is there before it is asked. */
static void begin(struct conversation *c, const char *script)
{
    *c = (struct conversation){0};
    (void)snprintf(c->path, sizeof(c->path), "/tmp/ironclaw-test-qmp.%ld", (long)getpid());
    assert_int_equal(unix_listen(c->path, 1, &c->listen_fd), 0);
    struct peer peer = {.listen_fd = c->listen_fd, .script = HELLO};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, greet_main, &peer), 0);
    assert_int_equal(qmp_open(c->path, deadline_after_ms(500), &c->q, &c->error), 0);
    pthread_join(thread, NULL);
    c->fd = peer.listen_fd;
    assert_int_equal(fd_write_all(c->fd, script, strlen(script), DEADLINE_NEVER), 0);
}

static void end(struct conversation *c)
{
    qmp_free(c->q);
    close(c->fd);
    close(c->listen_fd);
    unlink(c->path);
}

static void passes_descriptors(void **state)
{
    static const char wanted[] = "{\"execute\":\"qmp_capabilities\"}\n"
                                 "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"state\"}}\n";
    struct conversation c;
    char said[256] = "", text[8] = "";
    size_t len = 0, count = 0, fds_seen = 0;
    int pipe_fds[2], fd = -1;

    assert_int_equal(pipe(pipe_fds), 0);
    begin(&c, "{\"event\":\"STOP\"}\n{\"return\":{}}\n");
    assert_int_equal(qmp_run(c.q, "getfd", "{\"fdname\":\"state\"}", pipe_fds[1], &c.error), 0);
    close(pipe_fds[1]);
    while (len < strlen(wanted)) {
        ssize_t n = unix_recv_fds(c.fd, said + len, sizeof(said) - len, &fd, 1, &count);

        assert_true(n > 0);
        len += (size_t)n;
        fds_seen += count;
    }
    assert_string_equal(said, wanted);
    assert_int_equal(fds_seen, 1);
    assert_int_equal(write(fd, "x", 1), 1);
    assert_int_equal(read(pipe_fds[0], text, sizeof(text)), 1);
    close(fd);
    close(pipe_fds[0]);
    end(&c);
}

static void waits_for_migrations(void **state)
{
    char script[512];
    struct conversation c;

    (void)snprintf(script, sizeof(script), "{\"return\":{}}\n" MIGRATION MIGRATION, "active", "completed");
    begin(&c, script);
    assert_int_equal(qmp_run(c.q, "migrate", "{\"uri\":\"fd:state\"}", -1, &c.error), 0);
    assert_int_equal(qmp_wait_migrated(c.q, &c.error), 0);
    end(&c);

    /* It may be over before the answer. */
    (void)snprintf(script, sizeof(script), MIGRATION "{\"return\":{}}\n", "completed");
    begin(&c, script);
    assert_int_equal(qmp_run(c.q, "migrate", NULL, -1, &c.error), 0);
    assert_int_equal(qmp_wait_migrated(c.q, &c.error), 0);
    end(&c);

    (void)snprintf(script, sizeof(script), MIGRATION "{\"return\":{\"error-desc\":\"no room\"}}\n", "failed");
    begin(&c, script);
    assert_int_equal(qmp_wait_migrated(c.q, &c.error), -IC_ERR_BACKEND);
    assert_non_null(strstr(c.error.message, "no room"));
    end(&c);

    begin(&c, "{\"event\":\"STOP\"}\n");
    assert_int_equal(qmp_wait_migrated(c.q, &c.error), -IC_ERR_TIMEOUT);
    end(&c);
}

static void refuses_long_commands(void **state)
{
    char arguments[2000];
    struct conversation c;

    memset(arguments, ' ', sizeof(arguments) - 1);
    arguments[sizeof(arguments) - 1] = '\0';
    begin(&c, "{\"return\":{}}\n");
    assert_true(qmp_run(c.q, "migrate", arguments, -1, &c.error) < 0);
    end(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(tells_lines_apart),
            cmocka_unit_test(tells_events),
            cmocka_unit_test(talks),
            cmocka_unit_test(passes_descriptors),
            cmocka_unit_test(waits_for_migrations),
            cmocka_unit_test(refuses_long_commands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
