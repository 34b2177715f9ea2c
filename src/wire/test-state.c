/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>

#include "wire/wire.h"

struct step {
    enum wire_sender sender;
    enum wire_type type;
    bool regular;
};
#define H(type_)                                                                                                       \
    {                                                                                                                  \
        .sender = WIRE_FROM_HOST, .type = WIRE_##type_                                                                 \
    }
#define A(type_)                                                                                                       \
    {                                                                                                                  \
        .sender = WIRE_FROM_AGENT, .type = WIRE_##type_                                                                \
    }
#define HF(type_)                                                                                                      \
    {                                                                                                                  \
        .sender = WIRE_FROM_HOST, .type = WIRE_##type_, .regular = true                                                \
    }
#define AF(type_)                                                                                                      \
    {                                                                                                                  \
        .sender = WIRE_FROM_AGENT, .type = WIRE_##type_, .regular = true                                               \
    }

/* Runs all steps; the last one must give `want`, all before it 0. Returns the last state. */
static enum wire_state run(enum wire_state st, enum wire_session session, const struct step *s, size_t n, int want)
{
    for (size_t i = 0; i < n; i++) {
        enum wire_state before = st;
        int r = wire_step(&st, session, s[i].sender, s[i].type, s[i].regular);

        assert_int_equal(r, i + 1 == n ? want : 0);
        if (r < 0)
            assert_int_equal(st, before);
    }
    return st;
}
#define RUN(start, session, want, ...)                                                                                 \
    run(start, session, (const struct step[]){__VA_ARGS__},                                                            \
            sizeof((const struct step[]){__VA_ARGS__}) / sizeof(struct step), want)

static void exec_sessions(void **state)
{
    (void)state;
    assert_int_equal(RUN(WIRE_ST_START, WIRE_SESSION_EXEC, 0, H(HELLO), H(EXEC), A(STARTED), H(STDIN), A(STDOUT),
                             A(STDERR), H(RESIZE), H(SIGNAL), H(CLOSE_STDIN), A(EXIT)),
            WIRE_ST_ENDED);
    assert_int_equal(RUN(WIRE_ST_START, WIRE_SESSION_EXEC, 0, H(HELLO), H(EXEC), H(STDIN), H(CLOSE_STDIN), A(STARTED)),
            WIRE_ST_RUNNING);
    assert_int_equal(RUN(WIRE_ST_START, WIRE_SESSION_EXEC, 0, H(HELLO), H(EXEC), A(ERROR)), WIRE_ST_ENDED);
    RUN(WIRE_ST_START, WIRE_SESSION_EXEC, -EPROTO, H(EXEC));
    RUN(WIRE_ST_START, WIRE_SESSION_EXEC, -EPROTO, H(HELLO), H(PUT));
    RUN(WIRE_ST_START, WIRE_SESSION_EXEC, -EPROTO, H(HELLO), H(HELLO));
    RUN(WIRE_ST_EXEC_START, WIRE_SESSION_EXEC, -EPROTO, A(STDOUT));
    RUN(WIRE_ST_EXEC_START, WIRE_SESSION_EXEC, -EPROTO, A(EXIT));
    RUN(WIRE_ST_RUNNING, WIRE_SESSION_EXEC, -EPROTO, A(EXIT), A(STDOUT));
    RUN(WIRE_ST_RUNNING, WIRE_SESSION_EXEC, -EPROTO, A(STDIN));
    RUN(WIRE_ST_RUNNING, WIRE_SESSION_EXEC, -EPROTO, H(STDOUT));
    RUN(WIRE_ST_RUNNING, WIRE_SESSION_EXEC, -EPROTO, H(ERROR));
    RUN(WIRE_ST_RUNNING, WIRE_SESSION_EXEC, -EPROTO, H(EXEC));
}

static void copy_sessions(void **state)
{
    (void)state;
    assert_int_equal(RUN(WIRE_ST_START, WIRE_SESSION_PUT, 0, H(HELLO), H(PUT), H(ENTRY), HF(ENTRY), H(DATA), H(HOLE),
                             H(ENTRY), H(DONE), A(OK)),
            WIRE_ST_ENDED);
    assert_int_equal(
            RUN(WIRE_ST_START, WIRE_SESSION_GET, 0, H(HELLO), H(GET), AF(ENTRY), A(DATA), A(DONE)), WIRE_ST_ENDED);
    RUN(WIRE_ST_PUT, WIRE_SESSION_PUT, -EPROTO, H(ENTRY), H(DATA));
    RUN(WIRE_ST_PUT, WIRE_SESSION_PUT, -EPROTO, HF(ENTRY), H(ENTRY), H(HOLE));
    RUN(WIRE_ST_PUT, WIRE_SESSION_PUT, -EPROTO, A(OK));
    RUN(WIRE_ST_PUT, WIRE_SESSION_PUT, -EPROTO, A(ENTRY));
    RUN(WIRE_ST_PUT_DONE, WIRE_SESSION_PUT, -EPROTO, H(ENTRY));
    RUN(WIRE_ST_GET, WIRE_SESSION_GET, -EPROTO, H(ENTRY));
    RUN(WIRE_ST_GET, WIRE_SESSION_GET, -EPROTO, A(DATA));
    RUN(WIRE_ST_GET, WIRE_SESSION_GET, -EPROTO, A(DONE), A(ENTRY));
}

static void control_sessions(void **state)
{
    (void)state;
    assert_int_equal(RUN(WIRE_ST_START, WIRE_SESSION_CONTROL, 0, H(HELLO), H(TIME), H(ENTROPY), A(OK), A(OK),
                             H(STATS_REQ), A(STATS), H(SHUTDOWN)),
            WIRE_ST_CONTROL);
    assert_int_equal(RUN(WIRE_ST_READY, WIRE_SESSION_CONTROL, 0, A(READY), H(TIME), A(OK)), WIRE_ST_CONTROL);
    assert_int_equal(
            RUN(WIRE_ST_START, WIRE_SESSION_CONTROL, 0, H(HELLO), H(FREEZE), A(OK), H(THAW), A(OK)), WIRE_ST_CONTROL);
    assert_int_equal(
            RUN(WIRE_ST_READY, WIRE_SESSION_CONTROL, 0, A(READY), H(CLONE), A(OK), H(FREEZE), A(OK)), WIRE_ST_CONTROL);
    assert_int_equal(RUN(WIRE_ST_START, WIRE_SESSION_CONTROL, 0, H(HELLO), H(CLONE), A(ERROR)), WIRE_ST_ENDED);
    assert_int_equal(RUN(WIRE_ST_START, WIRE_SESSION_CONTROL, 0, H(HELLO), H(THAW), A(ERROR)), WIRE_ST_ENDED);
    RUN(WIRE_ST_READY, WIRE_SESSION_CONTROL, -EPROTO, H(CLONE));
    assert_int_equal(
            RUN(WIRE_ST_START, WIRE_SESSION_CONTROL, 0, H(HELLO), H(FREEZE), A(OK), H(UNPLUG), A(OK)), WIRE_ST_CONTROL);
    RUN(WIRE_ST_START, WIRE_SESSION_CONTROL, -EPROTO, H(HELLO), H(UNPLUG)); /* FREEZE comes before it */
    RUN(WIRE_ST_REQUEST, WIRE_SESSION_EXEC, -EPROTO, H(FREEZE));
    RUN(WIRE_ST_REQUEST, WIRE_SESSION_PUT, -EPROTO, H(THAW));
    RUN(WIRE_ST_REQUEST, WIRE_SESSION_GET, -EPROTO, H(CLONE));
    RUN(WIRE_ST_RUNNING, WIRE_SESSION_EXEC, -EPROTO, H(FREEZE));
    RUN(WIRE_ST_CONTROL, WIRE_SESSION_CONTROL, -EPROTO, A(FREEZE));
    RUN(WIRE_ST_CONTROL, WIRE_SESSION_CONTROL, -EPROTO, A(CLONE));
    RUN(WIRE_ST_READY, WIRE_SESSION_CONTROL, -EPROTO, H(TIME));
    RUN(WIRE_ST_READY, WIRE_SESSION_CONTROL, -EPROTO, A(READY), A(READY));
    RUN(WIRE_ST_CONTROL, WIRE_SESSION_CONTROL, -EPROTO, H(EXEC));
    RUN(WIRE_ST_REQUEST, WIRE_SESSION_EXEC, -EPROTO, H(TIME));
    RUN(WIRE_ST_REQUEST, WIRE_SESSION_CONTROL, -EPROTO, A(OK));
}

static void nothing_is_legal_after_the_end(void **state)
{
    (void)state;
    for (unsigned type = 0; type < 256; type++) {
        enum wire_state st = WIRE_ST_ENDED;

        assert_int_equal(wire_step(&st, WIRE_SESSION_CONTROL, WIRE_FROM_AGENT, (enum wire_type)type, false), -EPROTO);
        assert_int_equal(wire_step(&st, WIRE_SESSION_CONTROL, WIRE_FROM_HOST, (enum wire_type)type, false), -EPROTO);
        assert_int_equal(st, WIRE_ST_ENDED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(exec_sessions),
            cmocka_unit_test(copy_sessions),
            cmocka_unit_test(control_sessions),
            cmocka_unit_test(nothing_is_legal_after_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
