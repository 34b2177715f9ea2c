/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's other sessions over a unix socket: control, transfers, hosts that break the protocol, too many of them.
 */
#include "agent/test-client.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "transfer/transfer.h"

static uint32_t count_sessions(void)
{
    struct wire_stats stats;
    struct wire_frame frame;
    const uint8_t *payload;
    struct client c;

    client_open(&c, WIRE_SESSION_CONTROL);
    wire_put_empty(&c.out, WIRE_PING);
    wire_put_empty(&c.out, WIRE_STATS_REQ);
    client_send(&c);
    assert_int_equal(client_step(&c), WIRE_OK);
    assert_int_equal(client_next(&c, &frame, &payload), 1);
    assert_int_equal(frame.type, WIRE_STATS);
    assert_int_equal(wire_get_stats(&stats, payload, frame.len), 0);
    assert_true(stats.mem_total_kib > 0 && stats.mem_available_kib <= stats.mem_total_kib);
    client_close(&c);
    return stats.sessions;
}

static void control_requests_are_answered(void **state)
{
    uint64_t deadline = deadline_after_ms(CLIENT_WAIT_MS);

    /* Those that were closed on our side leave the table when the agent has seen it. */
    while (count_sessions() != 1)
        assert_true(deadline_poll_ms(deadline) > 0);
}

static void expect_refusal(struct client *c, enum wire_error_code code)
{
    assert_int_equal(client_step(c), WIRE_ERROR);
    assert_int_equal(c->error.code, code);
    assert_int_equal(client_step(c), 0);
    client_close(c);
}

static void what_breaks_the_protocol_ends_its_session(void **state)
{
    static const uint8_t garbage[64] = {0xff, 0xff, 0xff, 0xff, 0xff};
    struct client c;

    client_open(&c, WIRE_SESSION_EXEC);
    buf_reset(&c.out);
    buf_put(&c.out, garbage, sizeof(garbage));
    client_send(&c);
    expect_refusal(&c, WIRE_E_PROTOCOL);

    client_open(&c, WIRE_SESSION_EXEC); /* a request of another session */
    wire_put_empty(&c.out, WIRE_PING);
    client_send(&c);
    expect_refusal(&c, WIRE_E_PROTOCOL);

    client_open(&c, WIRE_SESSION_CONTROL);
    wire_put_bytes(&c.out, WIRE_STDIN, "x", 1);
    client_send(&c);
    expect_refusal(&c, WIRE_E_PROTOCOL);

    client_open(&c, WIRE_SESSION_EXEC); /* a frame that only the agent may send */
    wire_put_started(&c.out, 1);
    client_send(&c);
    expect_refusal(&c, WIRE_E_PROTOCOL);
}

static void a_host_that_leaves_early_leaves_nothing(void **state)
{
    struct client c;

    for (int i = 0; i < 300; i++) {
        client_open(&c, WIRE_SESSION_CONTROL);
        if (i % 2)
            client_send(&c);
        client_close(&c);
    }
    control_requests_are_answered(state);
}

static void sessions_over_the_limit_are_refused(void **state)
{
    static struct client held[AGENT_SESSIONS_MAX];
    struct client c;

    for (size_t i = 0; i < AGENT_SESSIONS_MAX; i++) {
        client_open(&held[i], WIRE_SESSION_CONTROL);
        wire_put_empty(&held[i].out, WIRE_PING);
        client_send(&held[i]);
        assert_int_equal(client_step(&held[i]), WIRE_OK);
    }
    client_open(&c, WIRE_SESSION_CONTROL);
    expect_refusal(&c, WIRE_E_LIMIT);
    for (size_t i = 0; i < AGENT_SESSIONS_MAX; i++)
        client_close(&held[i]);
    control_requests_are_answered(state);
}

/* ---- frozen ---- */

static void ask_clone(struct client *c, size_t entropy)
{
    static const char bytes[WIRE_ENTROPY_MIN];
    struct wire_clone clone = {.time_ns = 1, .hostname = wire_str_of("nobody"), .entropy = {bytes, WIRE_ENTROPY_MIN}};

    client_open(c, WIRE_SESSION_CONTROL);
    wire_put_clone(&c->out, &clone);
    c->out.data[c->out.len - WIRE_ENTROPY_MIN - 4] = (uint8_t)entropy; /* the length's low byte */
    client_send(c);
}

static void a_guest_without_control_groups_is_not_frozen(void **state)
{
    struct client c;

    client_open(&c, WIRE_SESSION_CONTROL);
    wire_put_empty(&c.out, WIRE_FREEZE);
    client_send(&c);
    expect_refusal(&c, WIRE_E_IO);
    assert_non_null(strstr(c.message, "no control groups"));
    client_exec(&c, &(struct run){.argv = {"echo", "goes on"}});
    assert_int_equal(client_wait(&c), WIRE_EXIT);
    assert_string_equal(client_stdout(&c), "goes on\n");
    client_close(&c);
}

static void thaw_of_what_is_not_frozen_is_in_order_and_clone_is_not(void **state)
{
    struct client c;

    client_open(&c, WIRE_SESSION_CONTROL);
    wire_put_empty(&c.out, WIRE_THAW);
    client_send(&c);
    assert_int_equal(client_step(&c), WIRE_OK);
    client_close(&c);
    ask_clone(&c, WIRE_ENTROPY_MIN);
    expect_refusal(&c, WIRE_E_INVALID);
    assert_non_null(strstr(c.message, "not frozen"));
}

/* As a host of this version; PING shows that the session is served. */
static void ask_in_version(struct client *c, unsigned version, enum wire_type type)
{
    client_open(c, WIRE_SESSION_CONTROL);
    c->out.data[WIRE_HEADER_SIZE + 4] = (uint8_t)version; /* HELLO's */
    wire_put_empty(&c->out, WIRE_PING);
    wire_put_empty(&c->out, type);
    client_send(c);
    assert_int_equal(client_step(c), WIRE_OK);
}

static void hosts_of_older_versions_can_not_freeze_or_unplug(void **state)
{
    struct client c;

    ask_in_version(&c, WIRE_FREEZE_SINCE - 1, WIRE_FREEZE);
    expect_refusal(&c, WIRE_E_PROTOCOL);
    ask_in_version(&c, WIRE_UNPLUG_SINCE - 1, WIRE_UNPLUG);
    expect_refusal(&c, WIRE_E_PROTOCOL);
}

static void who_has_not_frozen_the_guest_can_not_unplug_it(void **state)
{
    struct client c;

    ask_in_version(&c, WIRE_VERSION, WIRE_UNPLUG);
    expect_refusal(&c, WIRE_E_INVALID);
    assert_non_null(strstr(c.message, "has not frozen"));
}

/* A snapshot has the agent's memory, too. Read page by page, as some of it can't be. */
static bool agent_remembers(const uint8_t *secret, size_t len)
{
    _cleanup_(fd_closep) int fd = -1;
    char path[64], line[512];
    uint8_t page[4096 + 64];
    bool found = false;
    FILE *maps;

    (void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)agent_pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    (void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)agent_pid);
    maps = fopen(path, "re");
    assert_true(fd >= 0 && maps);
    while (!found && fgets(line, sizeof(line), maps)) {
        char *end = NULL;
        uint64_t at = strtoull(line, &end, 16), to = strtoull(end + 1, &end, 16);

        if (strncmp(end, " rw-p", 5) != 0 || (!strstr(line, "[heap]") && !strstr(line, "[stack]")))
            continue;
        for (; !found && at < to; at += 4096) {
            ssize_t n = pread(fd, page, sizeof(page), (off_t)at);

            found = n > 0 && memmem(page, (size_t)n, secret, len);
        }
    }
    (void)fclose(maps);
    return found;
}

static void entropy_is_forgotten(void **state)
{
    uint8_t entropy[64];
    enum wire_type type;
    struct client c;

    for (size_t i = 0; i < sizeof(entropy); i++)
        entropy[i] = (uint8_t)(i * 7 + 1);
    client_open(&c, WIRE_SESSION_CONTROL);
    wire_put_bytes(&c.out, WIRE_ENTROPY, entropy, sizeof(entropy));
    client_send(&c);
    type = (enum wire_type)client_step(&c); /* only root may */
    assert_true(type == WIRE_OK || type == WIRE_ERROR);
    assert_false(agent_remembers(entropy, 16));
    client_close(&c);
}

static void expect_frozen(struct client *c)
{
    expect_refusal(c, WIRE_E_LIMIT);
    assert_non_null(strstr(c->message, "template"));
}

static void a_template_serves_only_control_sessions(void **state)
{
    struct client c;

    client_exec(&c, &(struct run){.argv = {"true"}});
    expect_frozen(&c);
    client_open(&c, WIRE_SESSION_GET);
    wire_put_copy(&c.out, WIRE_GET, &(struct wire_copy){.path = wire_str_of("/etc/hosts")});
    client_send(&c);
    expect_frozen(&c);
    client_open(&c, WIRE_SESSION_PUT);
    client_send(&c); /* without a request */
    expect_frozen(&c);
    (void)count_sessions();
    client_open(&c, WIRE_SESSION_CONTROL);
    wire_put_empty(&c.out, WIRE_FREEZE);
    client_send(&c);
    assert_int_equal(client_step(&c), WIRE_OK);
    client_close(&c);
}

static void a_template_goes_on_only_as_a_clone(void **state)
{
    struct client c;

    client_open(&c, WIRE_SESSION_CONTROL);
    wire_put_empty(&c.out, WIRE_THAW);
    client_send(&c);
    expect_refusal(&c, WIRE_E_INVALID);
    ask_clone(&c, WIRE_ENTROPY_MIN - 1);
    expect_refusal(&c, WIRE_E_PROTOCOL);
    /* A clone that could not be made one of its own stays frozen. Only PID 1 gives a machine names, so this fails. */
    ask_clone(&c, WIRE_ENTROPY_MIN);
    expect_refusal(&c, WIRE_E_IO);
    assert_non_null(strstr(c.message, "adding entropy"));
    client_exec(&c, &(struct run){.argv = {"true"}});
    expect_frozen(&c);
}

/* ---- transfers ---- */

static void write_file(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    fd_close(fd);
}

static int put(const char *from, const char *to, const char *name, struct transfer_result *result)
{
    struct transfer_send_options options = {.size = sizeof(options), .common.put = true, .path = from};
    struct wire_copy copy = {.path = wire_str_of(to), .name = wire_str_of(name)};
    struct client c;
    int r;

    client_open(&c, WIRE_SESSION_PUT);
    wire_put_copy(&c.out, WIRE_PUT, &copy);
    client_send(&c);
    r = transfer_send(c.fd, &c.reader, &options, result);
    client_close(&c);
    return r;
}

static int get(const char *from, const char *to, struct transfer_result *result)
{
    struct transfer_receive_options options = {.size = sizeof(options), .dest = to};
    struct wire_copy copy = {.path = wire_str_of(from)};
    struct client c;
    int r;

    client_open(&c, WIRE_SESSION_GET);
    wire_put_copy(&c.out, WIRE_GET, &copy);
    client_send(&c);
    r = transfer_receive(c.fd, &c.reader, &options, result);
    client_close(&c);
    return r;
}

/* `script` with $0 as the directory. */
static int run_shell(const char *script, const char *dir)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        (void)execl("/bin/sh", "sh", "-c", script, dir, (char *)NULL);
        _exit(127);
    }
    return pid < 0 || waitpid(pid, &status, 0) < 0 ? -1 : status;
}

static void a_tree_goes_in_and_comes_out_again(void **state)
{
    char dir[] = "/tmp/ironclaw-test-copy.XXXXXX", path[256], to[256];
    struct transfer_result result;

    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0777), 0); /* the agent's user writes here too */
    (void)snprintf(path, sizeof(path), "%s/src", dir);
    assert_int_equal(mkdir(path, 0755), 0);
    (void)snprintf(path, sizeof(path), "%s/src/a file\nwith lines", dir);
    write_file(path, "text", 0640);
    (void)snprintf(path, sizeof(path), "%s/src/empty", dir);
    write_file(path, "", 0644);
    (void)snprintf(path, sizeof(path), "%s/src/link", dir);
    assert_int_equal(symlink("a file\nwith lines", path), 0);

    (void)snprintf(path, sizeof(path), "%s/src", dir);
    (void)snprintf(to, sizeof(to), "%s/guest", dir);
    assert_int_equal(put(path, to, "src", &result), 0);
    (void)snprintf(path, sizeof(path), "%s/back", dir);
    assert_int_equal(get(to, path, &result), 0);
    assert_int_equal(run_shell("diff -r --no-dereference \"$0/src\" \"$0/back\"", dir), 0);
    assert_int_equal(run_shell("test $(stat -c %a \"$0\"/back/a*) = 640", dir), 0);
    assert_int_equal(run_shell("rm -rf \"$0\"", dir), 0);
}

static void transfers_use_the_user_s_rights(void **state)
{
    char dir[] = "/tmp/ironclaw-test-copy.XXXXXX", path[256];
    struct transfer_result result;

    if (geteuid() != 0)
        skip();                    /* there is only one user then */
    assert_non_null(mkdtemp(dir)); /* 0700 */
    (void)snprintf(path, sizeof(path), "%s/file", dir);
    assert_int_equal(put("/etc/passwd", path, "passwd", &result), TRANSFER_PEER_ERROR);
    assert_int_equal(result.peer_errno, EACCES);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(get("/etc/shadow", "/tmp/ironclaw-test-shadow", &result), TRANSFER_PEER_ERROR);
    assert_int_equal(access("/tmp/ironclaw-test-shadow", F_OK), -1);
}

static void transfers_that_can_not_be_say_why(void **state)
{
    struct transfer_result result;
    struct client c;

    assert_int_equal(get("/no/such/path", "/tmp/ironclaw-test-none", &result), TRANSFER_PEER_ERROR);
    assert_int_equal(result.peer_code, WIRE_E_NOT_FOUND);
    client_open(&c, WIRE_SESSION_GET);
    wire_put_copy(
            &c.out, WIRE_GET, &(struct wire_copy){.path = wire_str_of("/etc"), .user = wire_str_of("nobody-here")});
    client_send(&c);
    expect_refusal(&c, WIRE_E_NO_USER);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(control_requests_are_answered),
            cmocka_unit_test(what_breaks_the_protocol_ends_its_session),
            cmocka_unit_test(a_host_that_leaves_early_leaves_nothing),
            cmocka_unit_test(sessions_over_the_limit_are_refused),
            cmocka_unit_test(a_guest_without_control_groups_is_not_frozen),
            cmocka_unit_test(thaw_of_what_is_not_frozen_is_in_order_and_clone_is_not),
            cmocka_unit_test(hosts_of_older_versions_can_not_freeze_or_unplug),
            cmocka_unit_test(who_has_not_frozen_the_guest_can_not_unplug_it),
            cmocka_unit_test(entropy_is_forgotten),
            cmocka_unit_test(a_tree_goes_in_and_comes_out_again),
            cmocka_unit_test(transfers_use_the_user_s_rights),
            cmocka_unit_test(transfers_that_can_not_be_say_why),
    };

    const struct CMUnitTest frozen[] = {
            cmocka_unit_test(a_template_serves_only_control_sessions),
            cmocka_unit_test(a_template_goes_on_only_as_a_clone),
    };
    int failed;

    if (argc != 2)
        return 2;
    agent_program = argv[1];
    failed = cmocka_run_group_tests(tests, start_agent, stop_agent);
    agent_frozen = true;
    return failed + cmocka_run_group_tests(frozen, start_agent, stop_agent);
}
