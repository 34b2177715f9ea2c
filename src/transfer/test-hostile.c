/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest may send to a host that only wanted to copy a file out. */
#include "transfer/test-util.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "transfer/transfer.h"

/* Everything in `frames`, then the end of the connection, as a get to dir/out. */
static int receive(const char *dir, const struct buf *frames, struct transfer_receive_options o, const char *dest,
        struct transfer_result *ret)
{
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    int sv[2], r;

    assert_int_equal(frames->error, 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    assert_int_equal(fd_write_all(sv[0], frames->data, frames->len, DEADLINE_NEVER), 0);
    (void)close(sv[0]);
    o.size = sizeof(o);
    o.dest = in_dir(dir, dest);
    r = transfer_receive(sv[1], &reader, &o, ret);
    (void)close(sv[1]);
    return r;
}

static void entry(struct buf *b, enum wire_entry_kind kind, const char *path, uint64_t size, const char *target)
{
    struct wire_entry e = {
            .kind = kind, .mode = 0755, .size = size, .path = wire_str_of(path), .target = wire_str_of(target)};

    wire_put_entry(b, &e);
}

/* An ENTRY that our encoder would refuse. */
static void raw_entry(struct buf *b, const char *path)
{
    size_t start = b->len, n = strlen(path);

    buf_put_le32(b, (uint32_t)(29 + 4 + n + 4));
    buf_put_u8(b, WIRE_ENTRY);
    buf_put_u8(b, WIRE_ENTRY_FILE);
    for (int i = 0; i < 7; i++)
        buf_put_le32(b, 0);
    buf_put_str(b, path, n);
    buf_put_str(b, "", 0);
    assert_int_equal(b->len - start, WIRE_HEADER_SIZE + 29 + 8 + n);
}

static void data(struct buf *b, const char *text)
{
    wire_put_bytes(b, WIRE_DATA, text, strlen(text));
}

static void paths_that_leave_the_tree(void **state)
{
    static const char *const bad[] = {"..", "../x", "/etc/x", "a/../../x", "a//x", "./x", "a/"};
    struct scratch *s = *state;
    struct transfer_result res;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        _cleanup_(buf_deinit) struct buf b = {0};

        entry(&b, WIRE_ENTRY_DIR, "", 0, "");
        raw_entry(&b, bad[i]);
        wire_put_done(&b, 0, "");
        assert_int_equal(receive(s->dir, &b, (struct transfer_receive_options){0}, "out", &res), -EBADMSG);
        assert_int_equal(count_entries(s->dir), 1);
    }
}

static void symlinks_are_never_passed_through(void **state)
{
    struct scratch *s = *state;
    char outside[128];
    struct transfer_result res;
    _cleanup_(buf_deinit) struct buf below = {0}, over = {0}, dir = {0};

    (void)snprintf(outside, sizeof(outside), "%s/outside", s->dir);
    assert_int_equal(mkdir(outside, 0700), 0);
    make_file(in_dir(s->dir, "outside/secret"), "secret", 6, 0600);

    entry(&below, WIRE_ENTRY_DIR, "", 0, "");
    entry(&below, WIRE_ENTRY_SYMLINK, "l", 0, outside);
    entry(&below, WIRE_ENTRY_FILE, "l/evil", 0, "");
    wire_put_done(&below, 0, "");
    assert_int_equal(receive(s->dir, &below, (struct transfer_receive_options){0}, "a", &res), -ENOTDIR);
    assert_non_null(strstr(res.message, "a/l/evil: "));

    entry(&dir, WIRE_ENTRY_DIR, "", 0, "");
    entry(&dir, WIRE_ENTRY_SYMLINK, "l", 0, outside);
    entry(&dir, WIRE_ENTRY_DIR, "l", 0, "");
    entry(&dir, WIRE_ENTRY_FILE, "l/evil", 0, "");
    assert_int_equal(receive(s->dir, &dir, (struct transfer_receive_options){0}, "b", &res), -ENOTDIR);
    assert_int_equal(count_entries(outside), 1);

    /* A file on top of a symlink replaces the symlink. */
    entry(&over, WIRE_ENTRY_DIR, "", 0, "");
    entry(&over, WIRE_ENTRY_SYMLINK, "l", 0, "../outside/secret");
    entry(&over, WIRE_ENTRY_FILE, "l", 4, "");
    data(&over, "evil");
    wire_put_done(&over, 0, "");
    assert_int_equal(receive(s->dir, &over, (struct transfer_receive_options){0}, "c", &res), 0);
    assert_true(file_is(in_dir(s->dir, "c/l"), "evil"));
    assert_true(file_is(in_dir(s->dir, "outside/secret"), "secret"));
}

/* One copy plants a symlink, the next one aims at its name. */
static void symlinks_of_an_earlier_copy(void **state)
{
    struct scratch *s = *state;
    struct transfer_receive_options o = {.name = "x"};
    struct transfer_result res;
    _cleanup_(buf_deinit) struct buf link = {0}, file = {0}, tree = {0};

    assert_int_equal(mkdir(in_dir(s->dir, "out"), 0700), 0);
    assert_int_equal(mkdir(in_dir(s->dir, "home"), 0700), 0);
    entry(&link, WIRE_ENTRY_SYMLINK, "", 0, "../home");
    wire_put_done(&link, 0, "");
    assert_int_equal(receive(s->dir, &link, o, "out", &res), 0);

    entry(&tree, WIRE_ENTRY_DIR, "", 0, "");
    entry(&tree, WIRE_ENTRY_FILE, "evil", 0, "");
    assert_int_equal(receive(s->dir, &tree, o, "out", &res), -ENOTDIR);
    entry(&file, WIRE_ENTRY_FILE, "", 0, "");
    wire_put_done(&file, 0, "");
    assert_int_equal(receive(s->dir, &file, o, "out", &res), 0);
    assert_int_equal(count_entries(in_dir(s->dir, "home")), 0);
    assert_true(file_is(in_dir(s->dir, "out/x"), ""));
}

static void sizes_that_lie(void **state)
{
    struct scratch *s = *state;
    struct transfer_result res;
    _cleanup_(buf_deinit) struct buf more = {0}, less = {0}, hole = {0}, wrap = {0}, huge = {0};

    entry(&more, WIRE_ENTRY_FILE, "", 3, "");
    data(&more, "four");
    assert_int_equal(receive(s->dir, &more, (struct transfer_receive_options){0}, "f", &res), -EPROTO);

    entry(&less, WIRE_ENTRY_FILE, "", 3, "");
    data(&less, "ab");
    wire_put_done(&less, 0, "");
    assert_int_equal(receive(s->dir, &less, (struct transfer_receive_options){0}, "f", &res), -EPROTO);

    entry(&hole, WIRE_ENTRY_FILE, "", 10, "");
    wire_put_hole(&hole, 11);
    assert_int_equal(receive(s->dir, &hole, (struct transfer_receive_options){0}, "f", &res), -EPROTO);

    entry(&wrap, WIRE_ENTRY_FILE, "", INT64_MAX, "");
    wire_put_hole(&wrap, INT64_MAX);
    wire_put_hole(&wrap, INT64_MAX);
    assert_int_equal(receive(s->dir, &wrap, (struct transfer_receive_options){0}, "f", &res), -EPROTO);

    /* As big as the type allows: whether the file system takes it or not, nothing stays half done. */
    entry(&huge, WIRE_ENTRY_FILE, "", INT64_MAX, "");
    wire_put_hole(&huge, INT64_MAX);
    wire_put_done(&huge, 0, "");
    assert_int_equal(
            receive(s->dir, &huge, (struct transfer_receive_options){.max_bytes = 1 << 20}, "f", &res), -EFBIG);
    assert_int_equal(count_entries(s->dir), 0);
}

static void frames_out_of_order(void **state)
{
    struct scratch *s = *state;
    struct transfer_result res;
    _cleanup_(buf_deinit) struct buf nothing = {0}, done = {0}, data_first = {0}, dir_data = {0}, link_data = {0},
                                     not_first = {0}, twice = {0}, ok = {0}, cut = {0}, under_file = {0}, orphan = {0};
    const struct transfer_receive_options o = {0};

    assert_int_equal(receive(s->dir, &nothing, o, "x", &res), -ECONNRESET);
    wire_put_done(&done, 0, "");
    assert_int_equal(receive(s->dir, &done, o, "x", &res), -EPROTO);
    data(&data_first, "a");
    assert_int_equal(receive(s->dir, &data_first, o, "x", &res), -EPROTO);
    wire_put_empty(&ok, WIRE_OK);
    assert_int_equal(receive(s->dir, &ok, o, "x", &res), -EPROTO);
    entry(&not_first, WIRE_ENTRY_FILE, "a", 0, "");
    assert_int_equal(receive(s->dir, &not_first, o, "x", &res), -EPROTO);
    entry(&cut, WIRE_ENTRY_FILE, "", 100, "");
    data(&cut, "part");
    cut.len -= 1;
    assert_int_equal(receive(s->dir, &cut, o, "x", &res), -ECONNRESET);
    assert_int_equal(count_entries(s->dir), 0);

    entry(&dir_data, WIRE_ENTRY_DIR, "", 0, "");
    data(&dir_data, "a");
    assert_int_equal(receive(s->dir, &dir_data, o, "d1", &res), -EPROTO);
    entry(&link_data, WIRE_ENTRY_SYMLINK, "", 0, "t");
    data(&link_data, "a");
    assert_int_equal(receive(s->dir, &link_data, o, "l1", &res), -EPROTO);
    entry(&twice, WIRE_ENTRY_DIR, "", 0, "");
    entry(&twice, WIRE_ENTRY_DIR, "", 0, "");
    assert_int_equal(receive(s->dir, &twice, o, "d2", &res), -EPROTO);
    entry(&under_file, WIRE_ENTRY_FILE, "", 0, "");
    entry(&under_file, WIRE_ENTRY_FILE, "a", 0, "");
    assert_int_equal(receive(s->dir, &under_file, o, "f1", &res), -ENOTDIR);
    entry(&orphan, WIRE_ENTRY_DIR, "", 0, "");
    entry(&orphan, WIRE_ENTRY_FILE, "no/such", 0, "");
    assert_int_equal(receive(s->dir, &orphan, o, "d3", &res), -ENOENT);
}

static void duplicates_and_kinds_that_clash(void **state)
{
    struct scratch *s = *state;
    struct transfer_result res;
    _cleanup_(buf_deinit) struct buf twice = {0}, file_dir = {0}, dir_file = {0}, dir_link = {0}, fifo = {0};
    const struct transfer_receive_options o = {0};

    entry(&twice, WIRE_ENTRY_DIR, "", 0, "");
    entry(&twice, WIRE_ENTRY_FILE, "f", 3, "");
    data(&twice, "one");
    entry(&twice, WIRE_ENTRY_FILE, "f", 3, "");
    data(&twice, "two");
    entry(&twice, WIRE_ENTRY_SYMLINK, "l", 0, "1");
    entry(&twice, WIRE_ENTRY_SYMLINK, "l", 0, "2");
    entry(&twice, WIRE_ENTRY_DIR, "d", 0, "");
    entry(&twice, WIRE_ENTRY_FILE, "d/f", 0, "");
    entry(&twice, WIRE_ENTRY_FILE, "g", 0, "");
    entry(&twice, WIRE_ENTRY_DIR, "d", 0, "");
    entry(&twice, WIRE_ENTRY_FILE, "d/g", 0, "");
    wire_put_done(&twice, 0, "");
    assert_int_equal(receive(s->dir, &twice, o, "a", &res), 0);
    assert_true(file_is(in_dir(s->dir, "a/f"), "two"));
    assert_int_equal(count_entries(in_dir(s->dir, "a")), 6);

    entry(&dir_file, WIRE_ENTRY_DIR, "", 0, "");
    entry(&dir_file, WIRE_ENTRY_DIR, "d", 0, "");
    entry(&dir_file, WIRE_ENTRY_FILE, "d", 0, "");
    assert_int_equal(receive(s->dir, &dir_file, o, "a", &res), -EISDIR);

    /* The directory is open when a symlink tries to take its place. */
    entry(&dir_link, WIRE_ENTRY_DIR, "", 0, "");
    entry(&dir_link, WIRE_ENTRY_DIR, "d", 0, "");
    entry(&dir_link, WIRE_ENTRY_SYMLINK, "d", 0, "/");
    entry(&dir_link, WIRE_ENTRY_FILE, "d/x", 0, "");
    assert_int_equal(receive(s->dir, &dir_link, o, "a", &res), -EISDIR);

    entry(&file_dir, WIRE_ENTRY_DIR, "", 0, "");
    entry(&file_dir, WIRE_ENTRY_DIR, "f", 0, "");
    assert_int_equal(receive(s->dir, &file_dir, o, "a", &res), -ENOTDIR);

    assert_int_equal(mkfifo(in_dir(s->dir, "fifo"), 0600), 0);
    entry(&fifo, WIRE_ENTRY_FILE, "", 0, "");
    assert_int_equal(receive(s->dir, &fifo, o, "fifo", &res), -EEXIST);
}

static void limits_hold(void **state)
{
    struct scratch *s = *state;
    struct transfer_result res;
    _cleanup_(buf_deinit) struct buf b = {0}, deep = {0};
    char path[WIRE_MAX_PATH] = "";

    entry(&b, WIRE_ENTRY_DIR, "", 0, "");
    for (int i = 0; i < 20; i++) {
        char name[8];

        (void)snprintf(name, sizeof(name), "f%d", i);
        entry(&b, WIRE_ENTRY_FILE, name, 10, "");
        data(&b, "0123456789");
    }
    wire_put_done(&b, 0, "");
    assert_int_equal(receive(s->dir, &b, (struct transfer_receive_options){.max_entries = 5}, "a", &res), -E2BIG);
    assert_int_equal(count_entries(in_dir(s->dir, "a")), 4);
    assert_int_equal(receive(s->dir, &b, (struct transfer_receive_options){.max_bytes = 95}, "b", &res), -EFBIG);
    assert_int_equal(count_entries(in_dir(s->dir, "b")), 9); /* the tenth was not complete */
    assert_int_equal(
            receive(s->dir, &b, (struct transfer_receive_options){.max_bytes = 200, .max_entries = 21}, "c", &res), 0);

    entry(&deep, WIRE_ENTRY_DIR, "", 0, "");
    for (int i = 0; i < 300; i++) {
        (void)strcat(path, i ? "/d" : "d");
        entry(&deep, WIRE_ENTRY_DIR, path, 0, "");
    }
    assert_int_equal(receive(s->dir, &deep, (struct transfer_receive_options){0}, "d", &res), -ENAMETOOLONG);
}

static void modes_are_masked(void **state)
{
    struct scratch *s = *state;
    struct wire_entry e = {.kind = WIRE_ENTRY_FILE, .mode = 06777};
    struct transfer_result res;
    _cleanup_(buf_deinit) struct buf b = {0};
    struct stat st;

    wire_put_entry(&b, &e);
    wire_put_done(&b, 0, "");
    assert_int_equal(receive(s->dir, &b, (struct transfer_receive_options){0}, "a", &res), 0);
    assert_int_equal(stat(in_dir(s->dir, "a"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0777);
    assert_int_equal(receive(s->dir, &b, (struct transfer_receive_options){.mode_mask = 0755}, "b", &res), 0);
    assert_int_equal(stat(in_dir(s->dir, "b"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
}

static void texts_of_the_peer_are_made_harmless(void **state)
{
    struct scratch *s = *state;
    struct transfer_result res;
    _cleanup_(buf_deinit) struct buf b = {0}, d = {0};

    wire_put_error(&b, WIRE_E_NOT_FOUND, ENOENT, "/x\033[2J\n: gone");
    assert_int_equal(receive(s->dir, &b, (struct transfer_receive_options){0}, "a", &res), TRANSFER_PEER_ERROR);
    assert_string_equal(res.message, "/x?[2J?: gone");
    assert_int_equal(res.peer_code, WIRE_E_NOT_FOUND);
    assert_int_equal(res.peer_errno, ENOENT);
    entry(&d, WIRE_ENTRY_FILE, "", 0, "");
    wire_put_done(&d, 2, "sock\r: skipped");
    assert_int_equal(receive(s->dir, &d, (struct transfer_receive_options){0}, "a", &res), 0);
    assert_int_equal(res.skipped, 2);
    assert_string_equal(res.message, "sock?: skipped");
}

/* Endless empty frames never make the receiver wait; its deadline must hold all the same. */
static void a_flood_without_progress_meets_the_deadline(void **state)
{
    struct scratch *s = *state;
    struct transfer_receive_options o = {.common = {.deadline = clock_now_ms()}};
    struct transfer_result res;
    _cleanup_(buf_deinit) struct buf b = {0};

    entry(&b, WIRE_ENTRY_FILE, "", 1, "");
    for (int i = 0; i < 100; i++)
        wire_put_empty(&b, WIRE_DATA);
    assert_int_equal(receive(s->dir, &b, o, "a", &res), -ETIMEDOUT);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
            TEST(paths_that_leave_the_tree),
            TEST(symlinks_are_never_passed_through),
            TEST(symlinks_of_an_earlier_copy),
            TEST(sizes_that_lie),
            TEST(frames_out_of_order),
            TEST(duplicates_and_kinds_that_clash),
            TEST(limits_hold),
            TEST(modes_are_masked),
            TEST(texts_of_the_peer_are_made_harmless),
            TEST(a_flood_without_progress_meets_the_deadline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
