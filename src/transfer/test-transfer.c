/* SPDX-License-Identifier: Apache-2.0 */
/* Both sides of real transfers over a socketpair: what arrives is what was there. */
#include "transfer/test-util.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "transfer/transfer.h"

/* ---- the other side, in a thread ----------------------------------------- */

struct copy {
    struct transfer_send_options send;
    struct transfer_receive_options receive;
    struct transfer_result sent, received;
    int sv[2], send_r, receive_r;
    bool narrow;
};

static void *receiver_main(void *arg)
{
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    struct copy *c = arg;

    c->receive_r = transfer_receive(c->sv[1], &reader, &c->receive, &c->received);
    (void)close(c->sv[1]);
    return NULL;
}

static void run(struct copy *c, bool put, const char *from, const char *to)
{
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    pthread_t thread;

    c->send.size = sizeof(c->send);
    c->receive.size = sizeof(c->receive);
    c->send.path = from;
    c->receive.dest = to;
    c->send.common.put = c->receive.common.put = put;
    c->send.common.deadline = c->receive.common.deadline = deadline_after_ms(60000);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c->sv), 0);
    if (c->narrow) /* a socket that is nearly always full: partial writes, and waits */
        assert_int_equal(setsockopt(c->sv[0], SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int)), 0);
    assert_int_equal(pthread_create(&thread, NULL, receiver_main, c), 0);
    c->send_r = transfer_send(c->sv[0], &reader, &c->send, &c->sent);
    (void)close(c->sv[0]);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void copy_ok(bool put, const char *from, const char *to, const char *name)
{
    struct copy c = {.receive = {.name = name}, .narrow = !put};

    run(&c, put, from, to);
    if (c.send_r != 0 || c.receive_r != 0)
        print_error("send %d %s, receive %d %s\n", c.send_r, c.sent.message, c.receive_r, c.received.message);
    assert_int_equal(c.send_r, 0);
    assert_int_equal(c.receive_r, 0);
    assert_true(c.sent.entries == c.received.entries);
    assert_true(c.sent.bytes == c.received.bytes);
}

/* ---- comparing trees ------------------------------------------------------ */

static const char *cmp_a, *cmp_b;

static void same_data(const char *a, const char *b, off_t size)
{
    static char buf_a[1 << 16], buf_b[1 << 16];
    int fa = open(a, O_RDONLY), fb = open(b, O_RDONLY);

    assert_true(fa >= 0 && fb >= 0);
    for (off_t off = 0; off < size;) {
        off_t next = lseek(fa, off, SEEK_DATA), other = lseek(fb, off, SEEK_DATA);
        ssize_t n;

        off = next < 0 ? size : next;
        off = MIN(off, other < 0 ? size : other);
        if (off >= size)
            break;
        n = pread(fa, buf_a, sizeof(buf_a), off);
        assert_true(n > 0);
        assert_int_equal(pread(fb, buf_b, (size_t)n, off), n);
        assert_memory_equal(buf_a, buf_b, (size_t)n);
        off += n;
    }
    (void)close(fa);
    (void)close(fb);
}

static int same_entry(const char *path, const struct stat *a, int type, struct FTW *ftw)
{
    char other[8192], link_a[4096] = "", link_b[4096] = "";
    struct stat b;

    (void)type;
    (void)snprintf(other, sizeof(other), "%s%s", cmp_b, path + strlen(cmp_a));
    if (lstat(other, &b) < 0) {
        print_error("%s is missing\n", other);
        return -1;
    }
    assert_int_equal(a->st_mode, b.st_mode);
    if (!S_ISDIR(a->st_mode))
        assert_true(a->st_size == b.st_size);
    assert_true(a->st_mtim.tv_sec == b.st_mtim.tv_sec && a->st_mtim.tv_nsec == b.st_mtim.tv_nsec);
    if (S_ISLNK(a->st_mode)) {
        assert_true(readlink(path, link_a, sizeof(link_a) - 1) > 0);
        assert_true(readlink(other, link_b, sizeof(link_b) - 1) > 0);
        assert_string_equal(link_a, link_b);
    } else if (S_ISREG(a->st_mode)) {
        same_data(path, other, a->st_size);
    }
    (void)ftw;
    return 0;
}

static void assert_same_tree(const char *a, const char *b)
{
    assert_int_equal(count_entries(a), count_entries(b));
    cmp_a = a;
    cmp_b = b;
    assert_int_equal(nftw(a, same_entry, 64, FTW_PHYS), 0);
}

static void make_tree(const char *path, int files_per_dir)
{
    static char big[300000];
    char root[128], name[64];
    int fd;

    (void)snprintf(root, sizeof(root), "%s", path);
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)(i * 7 + i / 251);
    assert_int_equal(mkdir(root, 0755), 0);
    for (int d = 0; d < 20; d++) {
        (void)snprintf(name, sizeof(name), "dir%d", d);
        assert_int_equal(mkdir(in_dir(root, name), 0755), 0);
        for (int i = 0; i < files_per_dir; i++) {
            (void)snprintf(name, sizeof(name), "dir%d/file-%d", d, i);
            make_file(in_dir(root, name), big, (size_t)i * 37, i % 2 ? 0644 : 0751);
        }
    }
    make_file(in_dir(root, "empty"), "", 0, 0400);
    make_file(in_dir(root, "big"), big, sizeof(big), 0600);
    make_file(in_dir(root, "exactly 64 KiB"), big, 65536, 0600);
    make_file(in_dir(root, "new\nline \\ \xff\xfe"), "x", 1, 0600);
    assert_int_equal(symlink("dir0/file-1", in_dir(root, "link")), 0);
    assert_int_equal(symlink("/no/where", in_dir(root, "dangling")), 0);
    assert_int_equal(mkdir(in_dir(root, "hollow"), 0700), 0);

    make_file(in_dir(root, "sparse"), "", 0, 0600);
    fd = open(in_dir(root, "sparse"), O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 30), 0);
    assert_int_equal(pwrite(fd, "middle", 6, 500 << 20), 6);
    (void)close(fd);

    assert_int_equal(mkdir(in_dir(root, "locked"), 0755), 0);
    make_file(in_dir(root, "locked/f"), "f", 1, 0444);
    assert_int_equal(mkdir(in_dir(root, "locked/in"), 0500), 0);
    assert_int_equal(chmod(in_dir(root, "locked"), 0555), 0);
}

/* ---- tests ----------------------------------------------------------------- */

static void trees_survive_both_ways(void **state)
{
    struct scratch *s = *state;
    char a[128], b[128], c[128];
    struct stat st;
    uint64_t began;

    (void)snprintf(a, sizeof(a), "%s/a", s->dir);
    (void)snprintf(b, sizeof(b), "%s/b", s->dir);
    (void)snprintf(c, sizeof(c), "%s/c", s->dir);
    make_tree(a, 100);
    began = clock_now_ms();
    copy_ok(true, a, b, "a"); /* b is a new name */
    assert_int_equal(mkdir(c, 0755), 0);
    copy_ok(false, b, c, "b"); /* c exists: below it */
    print_message("two copies of the tree: %u ms\n", (unsigned)(clock_now_ms() - began));
    assert_same_tree(a, b);
    assert_same_tree(a, in_dir(c, "b"));
    assert_int_equal(stat(in_dir(c, "b/sparse"), &st), 0);
    assert_true(st.st_size == 1 << 30);
    assert_true(st.st_blocks < 4096);
}

static void an_existing_tree_is_merged_into(void **state)
{
    struct scratch *s = *state;
    char from[128], to[128];
    struct stat st;

    (void)snprintf(from, sizeof(from), "%s/from", s->dir);
    (void)snprintf(to, sizeof(to), "%s/to", s->dir);
    assert_int_equal(mkdir(from, 0755), 0);
    assert_int_equal(mkdir(in_dir(from, "d"), 0755), 0);
    make_file(in_dir(from, "d/new"), "new", 3, 0600);
    make_file(in_dir(from, "d/both"), "from", 4, 0640);
    assert_int_equal(mkdir(to, 0700), 0);
    assert_int_equal(mkdir(in_dir(to, "d"), 0700), 0);
    make_file(in_dir(to, "d/both"), "to", 2, 0600);
    make_file(in_dir(to, "d/old"), "old", 3, 0600);
    assert_int_equal(link(in_dir(to, "d/both"), in_dir(s->dir, "hard")), 0);

    copy_ok(true, in_dir(from, "."), to, "");
    assert_true(file_is(in_dir(to, "d/both"), "from"));
    assert_true(file_is(in_dir(to, "d/new"), "new"));
    assert_true(file_is(in_dir(to, "d/old"), "old"));
    assert_true(file_is(in_dir(s->dir, "hard"), "to"));
    assert_int_equal(stat(in_dir(to, "d"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700); /* it was there: keeps its mode */
    assert_int_equal(count_entries(to), 4);
}

static void single_entries_and_names(void **state)
{
    struct scratch *s = *state;
    char f[128], l[128], target[16] = "";
    struct copy c;

    (void)snprintf(f, sizeof(f), "%s/f", s->dir);
    (void)snprintf(l, sizeof(l), "%s/l", s->dir);
    make_file(f, "data", 4, 0600);
    assert_int_equal(symlink("f", l), 0);
    assert_int_equal(mkdir(in_dir(s->dir, "d"), 0755), 0);
    copy_ok(true, f, in_dir(s->dir, "d"), "f");
    assert_true(file_is(in_dir(s->dir, "d/f"), "data"));
    copy_ok(false, f, in_dir(s->dir, "d/"), "g");
    copy_ok(false, f, in_dir(s->dir, "d/h"), "f");
    assert_true(file_is(in_dir(s->dir, "d/g"), "data"));
    assert_true(file_is(in_dir(s->dir, "d/h"), "data"));
    copy_ok(false, l, in_dir(s->dir, "d"), "l");
    assert_int_equal(readlink(in_dir(s->dir, "d/l"), target, sizeof(target)), 1);

    c = (struct copy){.send = {.follow = true}};
    run(&c, false, l, in_dir(s->dir, "followed"));
    assert_int_equal(c.receive_r, 0);
    assert_true(file_is(in_dir(s->dir, "followed"), "data"));

    c = (struct copy){.receive = {.name = "f"}};
    run(&c, false, f, in_dir(s->dir, "no/parent"));
    assert_int_equal(c.receive_r, -ENOENT);
    assert_non_null(strstr(c.received.message, "/no/parent: No such file"));
    c = (struct copy){.receive = {.name = "f"}};
    run(&c, false, f, in_dir(s->dir, "newdir/"));
    assert_int_equal(c.receive_r, -ENOTDIR);
    c = (struct copy){.receive = {.name = ""}};
    run(&c, false, in_dir(s->dir, "d"), f);
    assert_int_equal(c.receive_r, -ENOTDIR);
}

static void base_names(void **state)
{
    static const struct {
        const char *path, *want;
    } cases[] = {{"/a/b", "b"}, {"/a/b/", "b"}, {"a", "a"}, {"/", ""}, {"a/.", ""}, {"..", ""}, {"a//", "a"}, {"", ""}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct wire_str got = transfer_base_name(cases[i].path);

        assert_int_equal(got.len, strlen(cases[i].want));
        assert_memory_equal(got.s, cases[i].want, got.len);
    }
}

static void errors_reach_the_other_side(void **state)
{
    struct scratch *s = *state;
    struct copy c = {0};

    run(&c, false, "/no/such/thing", in_dir(s->dir, "x"));
    assert_int_equal(c.send_r, -ENOENT);
    assert_int_equal(c.receive_r, TRANSFER_PEER_ERROR);
    assert_int_equal(c.received.peer_code, WIRE_E_NOT_FOUND);
    assert_string_equal(c.received.message, "/no/such/thing: No such file or directory");

    /* The receiver fails at once, while the sender still has much to say. */
    make_tree(in_dir(s->dir, "t"), 10);
    c = (struct copy){0};
    run(&c, true, in_dir(s->dir, "t"), "/no/such/dest");
    assert_int_equal(c.receive_r, -ENOENT);
    assert_int_equal(c.send_r, TRANSFER_PEER_ERROR);
    assert_string_equal(c.sent.message, "/no/such/dest: No such file or directory");

    /* ... and in the middle. */
    c = (struct copy){.receive = {.max_entries = 150}};
    run(&c, true, in_dir(s->dir, "t"), in_dir(s->dir, "u"));
    assert_int_equal(c.receive_r, -E2BIG);
    assert_int_equal(c.send_r, TRANSFER_PEER_ERROR);
    assert_int_equal(c.sent.peer_code, WIRE_E_LIMIT);
}

static void other_kinds_are_skipped_and_told(void **state)
{
    struct scratch *s = *state;
    struct copy c = {0};

    assert_int_equal(mkdir(in_dir(s->dir, "a"), 0755), 0);
    assert_int_equal(mkfifo(in_dir(s->dir, "a/fifo"), 0600), 0);
    make_file(in_dir(s->dir, "a/f"), "f", 1, 0600);
    run(&c, false, in_dir(s->dir, "a"), in_dir(s->dir, "b"));
    assert_int_equal(c.send_r, 0);
    assert_int_equal(c.receive_r, 0);
    assert_int_equal(c.received.skipped, 1);
    assert_non_null(strstr(c.received.message, "/a/fifo: not a file, directory or symlink"));
    assert_true(file_is(in_dir(s->dir, "b/f"), "f"));

    c = (struct copy){0};
    run(&c, false, in_dir(s->dir, "a/fifo"), in_dir(s->dir, "c"));
    assert_int_equal(c.send_r, -EINVAL);
    assert_int_equal(c.receive_r, TRANSFER_PEER_ERROR);
}

/* One that has /proc in it would have no end. */
static void trees_of_the_kernels_are_not_copied(void **state)
{
    struct scratch *s = *state;
    struct copy c = {0};

    run(&c, false, "/proc/self/", in_dir(s->dir, "p"));
    assert_int_equal(c.send_r, -EINVAL);
    assert_int_equal(c.receive_r, TRANSFER_PEER_ERROR);
    assert_string_equal(c.received.message, "/proc/self: is the kernel's, of which only single files can be copied");
    assert_int_equal(access(in_dir(s->dir, "p"), F_OK), -1);

    c = (struct copy){0};
    run(&c, false, "/proc/sys/kernel/ostype", in_dir(s->dir, "ostype"));
    assert_int_equal(c.receive_r, 0);
    assert_true(file_is(in_dir(s->dir, "ostype"), "Linux\n"));
}

static void too_deep_a_tree_is_an_error(void **state)
{
    struct scratch *s = *state;
    char path[2048];
    struct copy c = {0};
    size_t n = (size_t)snprintf(path, sizeof(path), "%s/deep", s->dir);

    for (unsigned i = 0; i < TRANSFER_MAX_DEPTH + 1; i++) {
        assert_int_equal(mkdir(path, 0755), 0);
        n += (size_t)snprintf(path + n, sizeof(path) - n, "/d");
    }
    run(&c, true, in_dir(s->dir, "deep"), in_dir(s->dir, "copy"));
    assert_int_equal(c.send_r, -ENAMETOOLONG);
    assert_non_null(strstr(c.sent.message, "too many directories inside each other"));
    assert_int_equal(c.receive_r, -ECONNRESET);

    c = (struct copy){0};
    run(&c, true, in_dir(s->dir, "deep/d"), in_dir(s->dir, "fits"));
    assert_int_equal(c.send_r, 0);
    assert_int_equal(c.receive_r, 0);
}

static int cancel_later(void *userdata, uint64_t bytes, uint64_t entries)
{
    (void)userdata;
    (void)bytes;
    return entries > 600;
}

static void callers_can_give_up(void **state)
{
    struct scratch *s = *state;
    volatile sig_atomic_t cancel = 1;
    struct copy c = {.send = {.common = {.progress = cancel_later}}};

    make_tree(in_dir(s->dir, "t"), 60);
    run(&c, true, in_dir(s->dir, "t"), in_dir(s->dir, "a"));
    assert_int_equal(c.send_r, -ECANCELED);
    assert_int_equal(c.receive_r, -ECONNRESET);
    assert_int_equal(access(in_dir(s->dir, "a"), F_OK), 0); /* what was copied stays */

    c = (struct copy){.receive = {.common = {.cancel = &cancel}}};
    run(&c, false, in_dir(s->dir, "t"), in_dir(s->dir, "b"));
    assert_int_equal(c.receive_r, -ECANCELED);
    assert_int_equal(c.send_r, -ECONNRESET);
}

static void a_silent_peer_meets_the_deadline(void **state)
{
    struct scratch *s = *state;
    _cleanup_(wire_reader_deinit) struct wire_reader reader = {0};
    struct transfer_receive_options o = {.size = sizeof(o), .dest = in_dir(s->dir, "x")};
    struct transfer_result res;
    int sv[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    o.common.deadline = deadline_after_ms(50);
    assert_int_equal(transfer_receive(sv[0], &reader, &o, &res), -ETIMEDOUT);
    (void)close(sv[0]);
    (void)close(sv[1]);
}

/* The size that was promised holds, whatever happens to the file meanwhile. */
static atomic_bool keep_changing;
static void *change_file(void *path)
{
    while (keep_changing && truncate(path, 1000) == 0 && truncate(path, 1 << 20) == 0)
        ;
    return NULL;
}

static void files_that_change_meanwhile(void **state)
{
    struct scratch *s = *state;
    char path[128];
    pthread_t thread;

    (void)snprintf(path, sizeof(path), "%s/f", s->dir);
    make_file(path, "", 0, 0600);
    keep_changing = true;
    assert_int_equal(pthread_create(&thread, NULL, change_file, path), 0);
    for (int i = 0; i < 10; i++) {
        struct copy c = {0};

        run(&c, false, path, in_dir(s->dir, "copy"));
        assert_int_equal(c.send_r, 0);
        assert_int_equal(c.receive_r, 0);
    }
    keep_changing = false;
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(count_entries(s->dir), 2); /* no temporary file */
}

/* Files of the kernel say that their size is 0 (/proc) or a page (/sys), and have another one. */
static void files_that_hide_their_size(void **state)
{
    struct scratch *s = *state;
    char want[4096], got[4096];
    int a = open("/proc/version", O_RDONLY), b;
    ssize_t n;

    if (a < 0)
        skip();
    n = read(a, want, sizeof(want));
    assert_true(n > 0);
    copy_ok(false, "/proc/version", in_dir(s->dir, "v"), "");
    b = open(in_dir(s->dir, "v"), O_RDONLY);
    assert_int_equal(read(b, got, sizeof(got)), n);
    assert_memory_equal(want, got, (size_t)n);
    (void)close(a);
    (void)close(b);
    if (access("/sys/kernel/mm/transparent_hugepage/enabled", R_OK) == 0)
        copy_ok(true, "/sys/kernel/mm/transparent_hugepage/enabled", in_dir(s->dir, "t"), "");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
            TEST(trees_survive_both_ways),
            TEST(an_existing_tree_is_merged_into),
            TEST(single_entries_and_names),
            TEST(base_names),
            TEST(errors_reach_the_other_side),
            TEST(other_kinds_are_skipped_and_told),
            TEST(trees_of_the_kernels_are_not_copied),
            TEST(too_deep_a_tree_is_an_error),
            TEST(callers_can_give_up),
            TEST(a_silent_peer_meets_the_deadline),
            TEST(files_that_change_meanwhile),
            TEST(files_that_hide_their_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
