/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include "vsock/table.h"

static struct table *new_table(void)
{
    struct table *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    assert_int_equal(table_init(t, VSOCK_MAX_CONNECTIONS), 0);
    return t;
}

static void free_table(struct table *t)
{
    table_deinit(t);
    free(t);
}

static struct conn *take(struct table *t, uint32_t local_port, uint32_t guest_port)
{
    struct conn *c = table_take(t);

    assert_non_null(c);
    c->state = CONN_ESTABLISHED;
    c->local_port = local_port;
    c->guest_port = guest_port;
    table_hash(t, c);
    return c;
}

static void finds_what_is_in_it(void **state)
{
    struct table *t = new_table();
    struct conn *conns[VSOCK_MAX_CONNECTIONS];

    for (uint32_t i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
        conns[i] = take(t, i / 32, i % 32);
    assert_true(table_full(t));
    assert_null(table_take(t));
    for (uint32_t i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
        assert_ptr_equal(table_find(t, i / 32, i % 32), conns[i]);
    assert_null(table_find(t, 0, 32));
    for (uint32_t i = 0; i < VSOCK_MAX_CONNECTIONS; i += 2)
        table_release(t, conns[i]);
    for (uint32_t i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
        assert_ptr_equal(table_find(t, i / 32, i % 32), i % 2 ? conns[i] : NULL);
    assert_int_equal(t->used, VSOCK_MAX_CONNECTIONS / 2);
    free_table(t);
}

static void a_slot_comes_back_clean(void **state)
{
    struct table *t = new_table();
    struct conn *c = take(t, 1, 2);
    char secret[] = "secret";

    ring_put(&c->ring, &(struct iovec){secret, 6}, 1, 0, 6);
    c->pending = PENDING_RST;
    table_turn_add(t, c);
    table_release(t, c);
    assert_null(t->turn_first);
    assert_ptr_equal(table_take(t), c);
    assert_int_equal(c->ring.len, 0);
    assert_int_equal(c->pending, 0);
    assert_int_equal(c->source.fd, -1);
    assert_int_equal(c->ring.data[0], 0); /* nothing of an earlier connection's bytes is left */
    free_table(t);
}

static void ports_in_use_are_passed_over(void **state)
{
    struct table *t = new_table();

    assert_int_equal(table_unused_port(t), VSOCK_HOST_PORT_BASE);
    take(t, VSOCK_HOST_PORT_BASE + 1, 9);
    take(t, VSOCK_HOST_PORT_BASE, 9);
    assert_int_equal(table_unused_port(t), VSOCK_HOST_PORT_BASE + 2);
    t->last_port = UINT32_MAX - 2;
    assert_int_equal(table_unused_port(t), UINT32_MAX - 1);
    assert_int_equal(table_unused_port(t), VSOCK_HOST_PORT_BASE + 2);
    free_table(t);
}

static void turns_are_a_queue(void **state)
{
    struct table *t = new_table();
    struct conn *a = take(t, 1, 1), *b = take(t, 2, 2), *c = take(t, 3, 3);

    table_turn_add(t, a);
    table_turn_add(t, b);
    table_turn_add(t, a);
    table_turn_add(t, c);
    table_turn_remove(t, b);
    table_turn_remove(t, b);
    assert_ptr_equal(t->turn_first, a);
    assert_ptr_equal(a->turn_next, c);
    table_turn_remove(t, a);
    table_turn_add(t, a);
    assert_ptr_equal(t->turn_first, c);
    assert_ptr_equal(t->turn_last, a);
    table_turn_remove(t, c);
    table_turn_remove(t, a);
    assert_null(t->turn_first);
    assert_null(t->turn_last);
    free_table(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(finds_what_is_in_it),
            cmocka_unit_test(a_slot_comes_back_clean),
            cmocka_unit_test(ports_in_use_are_passed_over),
            cmocka_unit_test(turns_are_a_queue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
