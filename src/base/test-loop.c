/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"

struct fixture {
    struct loop loop;
    struct loop_fd a, b;
    struct loop_timer timers[3];
    int calls, order[3];
};
static struct fixture f;

static int setup(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    return loop_init(&f.loop);
}

static int teardown(void **state)
{
    (void)state;
    loop_deinit(&f.loop);
    return 0;
}

static int remove_both(struct loop_fd *source, uint32_t events)
{
    (void)source;
    (void)events;
    f.calls++;
    loop_remove(&f.loop, &f.a);
    loop_remove(&f.loop, &f.b);
    return 0;
}

static void a_removed_source_is_not_called(void **state)
{
    int one[2], two[2];

    (void)state;
    assert_int_equal(pipe(one), 0);
    assert_int_equal(pipe(two), 0);
    f.a = (struct loop_fd){.fd = one[0], .events = EPOLLIN, .ready = remove_both};
    f.b = (struct loop_fd){.fd = two[0], .events = EPOLLIN, .ready = remove_both};
    assert_int_equal(loop_add(&f.loop, &f.a), 0);
    assert_int_equal(loop_add(&f.loop, &f.b), 0);
    assert_int_equal(write(one[1], "x", 1), 1);
    assert_int_equal(write(two[1], "x", 1), 1);
    assert_int_equal(loop_once(&f.loop, 1000), 0);
    assert_int_equal(f.calls, 1);
    for (int i = 0; i < 2; i++) {
        close(one[i]);
        close(two[i]);
    }
}

static int note_order(struct loop_timer *timer)
{
    f.order[f.calls++] = (int)(timer - f.timers);
    if (f.calls == 2)
        loop_stop(&f.loop);
    return 0;
}

static void timers_fire_in_order_once(void **state)
{
    uint64_t now = clock_now_ms();

    (void)state;
    for (int i = 0; i < 3; i++)
        f.timers[i].expired = note_order;
    loop_arm(&f.loop, &f.timers[0], now + 2);
    loop_arm(&f.loop, &f.timers[1], now + 1);
    loop_arm(&f.loop, &f.timers[2], now + 1);
    loop_disarm(&f.loop, &f.timers[2]);
    assert_int_equal(loop_run(&f.loop), 0);
    assert_int_equal(f.calls, 2);
    assert_int_equal(f.order[0], 1);
    assert_int_equal(f.order[1], 0);
    assert_null(f.loop.timers);
}

static int fail_timer(struct loop_timer *timer)
{
    (void)timer;
    return -EIO;
}

static void an_error_stops_the_loop(void **state)
{
    (void)state;
    f.timers[0].expired = fail_timer;
    loop_arm(&f.loop, &f.timers[0], clock_now_ms());
    assert_int_equal(loop_run(&f.loop), -EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(a_removed_source_is_not_called, setup, teardown),
            cmocka_unit_test_setup_teardown(timers_fire_in_order_once, setup, teardown),
            cmocka_unit_test_setup_teardown(an_error_stops_the_loop, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
