/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

/* The payload of the one frame in b, after checking its header. */
static const uint8_t *payload_of(const struct buf *b, enum wire_type type, size_t *ret_len)
{
    struct wire_frame f;

    assert_int_equal(b->error, 0);
    assert_true(b->len >= WIRE_HEADER_SIZE);
    assert_int_equal(wire_header_decode(&f, b->data), 0);
    assert_int_equal(f.type, type);
    assert_int_equal(f.len, b->len - WIRE_HEADER_SIZE);
    *ret_len = f.len;
    return b->data + WIRE_HEADER_SIZE;
}

static void assert_str(struct wire_str got, const char *want)
{
    assert_int_equal(got.len, strlen(want));
    assert_memory_equal(got.s, want, got.len);
}

static void header_refuses_unknown_types_and_long_frames(void **state)
{
    const uint8_t unknown[] = {0, 0, 0, 0, 99}, zero[] = {0, 0, 0, 0, 0}, far[] = {0, 0, 0, 0, 255};
    const uint8_t long_stream[] = {1, 0, 1, 0, WIRE_DATA}, full_stream[] = {0, 0, 1, 0, WIRE_DATA};
    const uint8_t long_exec[] = {1, 0, 16, 0, WIRE_EXEC}, long_ok[] = {1, 0, 0, 0, WIRE_OK};
    const uint8_t huge[] = {255, 255, 255, 255, WIRE_STDOUT};
    struct wire_frame f;

    (void)state;
    assert_int_equal(wire_header_decode(&f, unknown), -EBADMSG);
    assert_int_equal(wire_header_decode(&f, zero), -EBADMSG);
    assert_int_equal(wire_header_decode(&f, far), -EBADMSG);
    assert_int_equal(wire_header_decode(&f, long_stream), -EMSGSIZE);
    assert_int_equal(wire_header_decode(&f, long_exec), -EMSGSIZE);
    assert_int_equal(wire_header_decode(&f, long_ok), -EMSGSIZE);
    assert_int_equal(wire_header_decode(&f, huge), -EMSGSIZE);
    assert_int_equal(wire_header_decode(&f, full_stream), 0);
    assert_int_equal(f.len, WIRE_MAX_STREAM);
}

static void hello_round_trip(void **state)
{
    _cleanup_(buf_deinit) struct buf b = {0};
    struct wire_hello h;
    const uint8_t *p;
    size_t len;

    (void)state;
    wire_put_hello(&b, WIRE_SESSION_GET);
    p = payload_of(&b, WIRE_HELLO, &len);
    assert_int_equal(wire_get_hello(&h, p, len), 0);
    assert_int_equal(h.version, WIRE_VERSION);
    assert_int_equal(h.session, WIRE_SESSION_GET);
    assert_true(wire_version_ok(&h));
    h.version_min = WIRE_VERSION + 1;
    h.version = WIRE_VERSION + 1;
    assert_false(wire_version_ok(&h));

    b.data[WIRE_HEADER_SIZE] ^= 1;
    assert_int_equal(wire_get_hello(&h, p, len), -EBADMSG);
    b.data[WIRE_HEADER_SIZE] ^= 1;
    b.data[WIRE_HEADER_SIZE + 8] = 5;
    assert_int_equal(wire_get_hello(&h, p, len), -EBADMSG);
}

static void exec_round_trip(void **state)
{
    struct wire_str argv[] = {wire_str_of("sh"), wire_str_of("-c"), wire_str_of("")};
    struct wire_str env[] = {wire_str_of("A=1"), wire_str_of("EMPTY=")};
    struct wire_exec e = {.flags = WIRE_EXEC_TTY | WIRE_EXEC_STDIN,
            .timeout_ms = 1000,
            .kill_grace_ms = 50,
            .rows = 24,
            .cols = 80,
            .user = wire_str_of("root"),
            .cwd = wire_str_of("/tmp"),
            .argc = 3,
            .envc = 2,
            .argv = argv,
            .env = env};
    _cleanup_(buf_deinit) struct buf b = {0};
    struct wire_exec got;
    const uint8_t *p;
    size_t len;

    (void)state;
    wire_put_exec(&b, &e);
    p = payload_of(&b, WIRE_EXEC, &len);
    assert_int_equal(wire_get_exec(&got, p, len), 0);
    assert_int_equal(got.flags, e.flags);
    assert_int_equal(got.timeout_ms, 1000);
    assert_int_equal(got.kill_grace_ms, 50);
    assert_int_equal(got.rows, 24);
    assert_int_equal(got.cols, 80);
    assert_str(got.user, "root");
    assert_str(got.cwd, "/tmp");
    assert_int_equal(got.argc, 3);
    assert_str(got.argv[0], "sh");
    assert_str(got.argv[2], "");
    assert_str(got.env[1], "EMPTY=");
    wire_exec_deinit(&got);
    wire_exec_deinit(&got);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(wire_get_exec(&got, p, cut), -EBADMSG);
}

static void exec_refuses_nonsense(void **state)
{
    struct wire_str argv[] = {wire_str_of("true")}, no_name[] = {wire_str_of("=1")}, no_eq[] = {wire_str_of("A")};
    struct wire_exec good = {.argc = 1, .argv = argv}, e;
    _cleanup_(buf_deinit) struct buf b = {0};
    _cleanup_(buf_deinit) struct buf evil = {0};
    struct wire_exec got;

    (void)state;
    e = good;
    e.argc = 0;
    wire_put_exec(&b, &e);
    assert_int_equal(b.error, -EINVAL);
    assert_int_equal(b.len, 0);
    buf_reset(&b);
    e = good;
    e.envc = 1;
    e.env = no_name;
    wire_put_exec(&b, &e);
    assert_int_equal(b.error, -EINVAL);
    buf_reset(&b);
    e.env = no_eq;
    wire_put_exec(&b, &e);
    assert_int_equal(b.error, -EINVAL);
    buf_reset(&b);
    e = good;
    e.cwd = wire_str_of("tmp");
    wire_put_exec(&b, &e);
    assert_int_equal(b.error, -EINVAL);

    /* A count far beyond the payload must not become an allocation. */
    for (int i = 0; i < 4; i++)
        buf_put_le32(&evil, 0);
    buf_put_str(&evil, "", 0);
    buf_put_str(&evil, "", 0);
    buf_put_le32(&evil, WIRE_MAX_ARGS);
    buf_put_le32(&evil, WIRE_MAX_ARGS);
    assert_int_equal(wire_get_exec(&got, evil.data, evil.len), -EBADMSG);
    buf_patch_le32(&evil, evil.len - 8, UINT32_MAX);
    buf_patch_le32(&evil, evil.len - 4, 2);
    assert_int_equal(wire_get_exec(&got, evil.data, evil.len), -EBADMSG);
}

static void exec_over_the_frame_limit_is_refused_when_encoded(void **state)
{
    char *big = calloc(1, WIRE_MAX_CONTROL + 1);
    struct wire_str argv[1];
    struct wire_exec e = {.argc = 1, .argv = argv};
    _cleanup_(buf_deinit) struct buf b = {0};

    (void)state;
    assert_non_null(big);
    memset(big, 'a', WIRE_MAX_CONTROL);
    argv[0] = wire_str_of(big);
    wire_put_empty(&b, WIRE_OK);
    wire_put_exec(&b, &e);
    assert_int_equal(b.error, -EMSGSIZE);
    assert_int_equal(b.len, WIRE_HEADER_SIZE);
    free(big);
}

static void small_messages_round_trip(void **state)
{
    _cleanup_(buf_deinit) struct buf b = {0};
    struct wire_exit e = {.kind = WIRE_EXIT_SIGNAL, .value = 9, .user_us = 1, .system_us = 2, .max_rss_kib = 3};
    struct wire_exit got;
    uint16_t rows, cols;
    const uint8_t *p;
    uint64_t u64;
    uint32_t pid;
    uint8_t sig;
    size_t len;

    (void)state;
    wire_put_started(&b, 77);
    p = payload_of(&b, WIRE_STARTED, &len);
    assert_int_equal(wire_get_started(&pid, p, len), 0);
    assert_int_equal(pid, 77);
    buf_reset(&b);
    wire_put_resize(&b, 50, 132);
    p = payload_of(&b, WIRE_RESIZE, &len);
    assert_int_equal(wire_get_resize(&rows, &cols, p, len), 0);
    assert_int_equal(rows, 50);
    assert_int_equal(cols, 132);
    buf_reset(&b);
    wire_put_signal(&b, 15);
    p = payload_of(&b, WIRE_SIGNAL, &len);
    assert_int_equal(wire_get_signal(&sig, p, len), 0);
    assert_int_equal(sig, 15);
    assert_int_equal(wire_get_signal(&sig, "\0", 1), -EBADMSG);
    assert_int_equal(wire_get_signal(&sig, "A", 1), -EBADMSG);
    buf_reset(&b);
    wire_put_exit(&b, &e);
    p = payload_of(&b, WIRE_EXIT, &len);
    assert_int_equal(wire_get_exit(&got, p, len), 0);
    assert_memory_equal(&got, &e, sizeof(e));
    b.data[WIRE_HEADER_SIZE] = 4;
    assert_int_equal(wire_get_exit(&got, p, len), -EBADMSG);
    buf_reset(&b);
    wire_put_hole(&b, 1ull << 40);
    p = payload_of(&b, WIRE_HOLE, &len);
    assert_int_equal(wire_get_hole(&u64, p, len), 0);
    assert_true(u64 == 1ull << 40);
    assert_int_equal(wire_get_hole(&u64, "\0\0\0\0\0\0\0\0", 8), -EBADMSG);
    assert_int_equal(wire_get_hole(&u64, "\0\0\0\0\0\0\0\x80", 8), -EBADMSG);
    buf_reset(&b);
    wire_put_time(&b, 123456789);
    p = payload_of(&b, WIRE_TIME, &len);
    assert_int_equal(wire_get_time(&u64, p, len), 0);
    assert_int_equal(u64, 123456789);
}

static void errors_and_done_cut_their_text(void **state)
{
    char text[WIRE_MAX_MESSAGE + 100];
    _cleanup_(buf_deinit) struct buf b = {0};
    struct wire_error e;
    struct wire_done d;
    const uint8_t *p;
    size_t len;

    (void)state;
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    wire_put_error(&b, WIRE_E_IO, 28, text);
    p = payload_of(&b, WIRE_ERROR, &len);
    assert_int_equal(wire_get_error(&e, p, len), 0);
    assert_int_equal(e.code, WIRE_E_IO);
    assert_int_equal(e.os_errno, 28);
    assert_int_equal(e.message.len, WIRE_MAX_MESSAGE);
    buf_reset(&b);
    wire_put_done(&b, 3, text);
    p = payload_of(&b, WIRE_DONE, &len);
    assert_int_equal(wire_get_done(&d, p, len), 0);
    assert_int_equal(d.skipped, 3);
    assert_int_equal(d.message.len, WIRE_MAX_MESSAGE);
    assert_int_equal(wire_error_of_errno(ENOSPC), WIRE_E_NO_SPACE);
    assert_int_equal(wire_error_of_errno(EACCES), WIRE_E_IO);
}

static void copy_round_trip(void **state)
{
    struct wire_copy c = {.flags = WIRE_COPY_FOLLOW,
            .path = wire_str_of("/a b"),
            .user = wire_str_of("1000:1000"),
            .name = wire_str_of("x\ny")};
    _cleanup_(buf_deinit) struct buf b = {0};
    struct wire_copy got;
    const uint8_t *p;
    size_t len;

    (void)state;
    wire_put_copy(&b, WIRE_GET, &c);
    p = payload_of(&b, WIRE_GET, &len);
    assert_int_equal(wire_get_copy(&got, p, len), 0);
    assert_int_equal(got.flags, WIRE_COPY_FOLLOW);
    assert_str(got.path, "/a b");
    assert_str(got.user, "1000:1000");
    assert_str(got.name, "x\ny");
    buf_reset(&b);
    c.name = wire_str_of("..");
    wire_put_copy(&b, WIRE_PUT, &c);
    assert_int_equal(b.error, -EINVAL);
    buf_reset(&b);
    c.name = wire_str_of("a/b");
    wire_put_copy(&b, WIRE_PUT, &c);
    assert_int_equal(b.error, -EINVAL);
    buf_reset(&b);
    c.name = wire_str_of("");
    c.path = wire_str_of("relative");
    wire_put_copy(&b, WIRE_PUT, &c);
    assert_int_equal(b.error, -EINVAL);
}

static void entry_round_trip_and_rules(void **state)
{
    struct wire_entry e = {.kind = WIRE_ENTRY_FILE,
            .mode = 0644,
            .uid = 1,
            .gid = 2,
            .mtime_ns = 3,
            .size = INT64_MAX,
            .path = wire_str_of("d/f")};
    _cleanup_(buf_deinit) struct buf b = {0};
    struct wire_entry got;
    const uint8_t *p;
    size_t len;

    (void)state;
    wire_put_entry(&b, &e);
    p = payload_of(&b, WIRE_ENTRY, &len);
    assert_int_equal(wire_get_entry(&got, p, len), 0);
    assert_int_equal(got.mode, 0644);
    assert_true(got.size == INT64_MAX);
    assert_str(got.path, "d/f");
    b.data[WIRE_HEADER_SIZE + 28] = 0x80; /* top byte of size */
    assert_int_equal(wire_get_entry(&got, p, len), -EBADMSG);

    const struct wire_entry bad[] = {
            {.kind = WIRE_ENTRY_FILE, .path = wire_str_of("../x")},
            {.kind = WIRE_ENTRY_FILE, .mode = 010000},
            {.kind = WIRE_ENTRY_FILE, .target = wire_str_of("t")},
            {.kind = WIRE_ENTRY_SYMLINK},
            {.kind = WIRE_ENTRY_SYMLINK, .target = wire_str_of("t"), .size = 1},
            {.kind = WIRE_ENTRY_DIR, .size = 1},
            {.kind = 4},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        buf_reset(&b);
        wire_put_entry(&b, &bad[i]);
        assert_int_equal(b.error, -EINVAL);
    }
}

static void paths(void **state)
{
    static const char *const good[] = {"", "a", "a/b", "...", "..a/b..", " \n", "\xff\xfe", ".a"};
    static const char *const bad[] = {"/", "/a", "a/", "a//b", ".", "..", "a/.", "a/..", "./a", "../a", "a/../b"};
    char part[300];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_true(wire_path_ok(good[i], strlen(good[i])));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(wire_path_ok(bad[i], strlen(bad[i])));
    assert_false(wire_path_ok("a\0b", 3));
    memset(part, 'n', sizeof(part));
    assert_true(wire_path_ok(part, 255));
    assert_false(wire_path_ok(part, 256));
}

static void ready_and_stats_round_trip(void **state)
{
    struct wire_ready r = {.version = 1,
            .boot_us = 2,
            .init_us = 3,
            .agent_version = wire_str_of("0.1.0"),
            .kernel_release = wire_str_of("6.1")};
    struct wire_stats s = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, s_got;
    _cleanup_(buf_deinit) struct buf b = {0};
    struct wire_ready r_got;
    const uint8_t *p;
    size_t len;

    (void)state;
    wire_put_ready(&b, &r);
    p = payload_of(&b, WIRE_READY, &len);
    assert_int_equal(wire_get_ready(&r_got, p, len), 0);
    assert_int_equal(r_got.init_us, 3);
    assert_str(r_got.agent_version, "0.1.0");
    assert_str(r_got.kernel_release, "6.1");
    buf_reset(&b);
    wire_put_stats(&b, &s);
    p = payload_of(&b, WIRE_STATS, &len);
    assert_int_equal(wire_get_stats(&s_got, p, len), 0);
    assert_memory_equal(&s_got, &s, sizeof(s));
    assert_int_equal(wire_get_stats(&s_got, p, len - 1), -EBADMSG);
}

static void clone_round_trip_and_rules(void **state)
{
    static const char entropy[WIRE_ENTROPY_MAX + 1] = {1, 0, 2};
    const struct wire_clone good = {.generation = {1, 2, 0, 4},
            .time_ns = 5,
            .flags = WIRE_CLONE_TIED,
            .hostname = wire_str_of("a-B_9.x"),
            .entropy = {entropy, WIRE_ENTROPY_MIN}};
    char name[WIRE_MAX_HOSTNAME + 1];
    struct wire_clone c, got = {.time_ns = 77};
    _cleanup_(buf_deinit) struct buf b = {0};
    const uint8_t *p;
    size_t len;

    (void)state;
    wire_put_clone(&b, &good);
    p = payload_of(&b, WIRE_CLONE, &len);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(wire_get_clone(&got, p, cut), -EBADMSG);
    assert_int_equal(got.time_ns, 77);
    assert_int_equal(wire_get_clone(&got, p, len), 0);
    assert_memory_equal(got.generation, good.generation, sizeof(got.generation));
    assert_int_equal(got.time_ns, 5);
    assert_int_equal(got.flags, WIRE_CLONE_TIED);
    assert_str(got.hostname, "a-B_9.x");
    assert_int_equal(got.entropy.len, WIRE_ENTROPY_MIN);
    assert_memory_equal(got.entropy.s, entropy, WIRE_ENTROPY_MIN);
    b.data[WIRE_HEADER_SIZE + 24] = 2; /* flags */
    assert_int_equal(wire_get_clone(&got, p, len), -EBADMSG);
    b.data[WIRE_HEADER_SIZE + 24] = 0;
    b.data[WIRE_HEADER_SIZE + 32] = '/'; /* the name's first byte */
    assert_int_equal(wire_get_clone(&got, p, len), -EBADMSG);

    /* The longest is exactly what the frame's limit lets through. */
    memset(name, 'n', sizeof(name));
    c = good;
    c.hostname = (struct wire_str){name, WIRE_MAX_HOSTNAME};
    c.entropy.len = WIRE_ENTROPY_MAX;
    buf_reset(&b);
    wire_put_clone(&b, &c);
    p = payload_of(&b, WIRE_CLONE, &len);
    assert_int_equal(wire_get_clone(&got, p, len), 0);
    assert_int_equal(got.hostname.len, WIRE_MAX_HOSTNAME);

    c.hostname = wire_str_of("");
    buf_reset(&b);
    wire_put_clone(&b, &c);
    assert_int_equal(b.error, 0);

    const struct wire_clone bad[] = {
            {.entropy = {entropy, WIRE_ENTROPY_MIN - 1}},
            {.entropy = {entropy, WIRE_ENTROPY_MAX + 1}},
            {.entropy = {entropy, WIRE_ENTROPY_MIN}, .flags = 2},
            {.entropy = {entropy, WIRE_ENTROPY_MIN}, .hostname = wire_str_of("a b")},
            {.entropy = {entropy, WIRE_ENTROPY_MIN}, .hostname = {name, WIRE_MAX_HOSTNAME + 1}},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        buf_reset(&b);
        wire_put_clone(&b, &bad[i]);
        assert_int_equal(b.error, -EINVAL);
        assert_int_equal(b.len, 0);
    }
}

static void versions_that_meet(void **state)
{
    (void)state;
    assert_true(wire_version_ok(&(struct wire_hello){.version = 1, .version_min = 1}));
    assert_true(wire_version_ok(&(struct wire_hello){.version = WIRE_FREEZE_SINCE, .version_min = 1}));
    assert_true(wire_version_ok(&(struct wire_hello){.version = WIRE_VERSION + 7, .version_min = WIRE_VERSION}));
    assert_false(wire_version_ok(&(struct wire_hello){.version = WIRE_VERSION + 7, .version_min = WIRE_VERSION + 1}));
    assert_false(wire_version_ok(&(struct wire_hello){.version = 0, .version_min = 0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(header_refuses_unknown_types_and_long_frames),
            cmocka_unit_test(hello_round_trip),
            cmocka_unit_test(exec_round_trip),
            cmocka_unit_test(exec_refuses_nonsense),
            cmocka_unit_test(exec_over_the_frame_limit_is_refused_when_encoded),
            cmocka_unit_test(small_messages_round_trip),
            cmocka_unit_test(errors_and_done_cut_their_text),
            cmocka_unit_test(copy_round_trip),
            cmocka_unit_test(entry_round_trip_and_rules),
            cmocka_unit_test(paths),
            cmocka_unit_test(ready_and_stats_round_trip),
            cmocka_unit_test(clone_round_trip_and_rules),
            cmocka_unit_test(versions_that_meet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
