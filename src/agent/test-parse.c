/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's pure parts: the kernel command line, passwd and group, the command's environment, the limits. */
#include "base/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/cgroup.h"
#include "agent/cmdline.h"
#include "agent/command.h"
#include "agent/identity.h"
#include "agent/user.h"

/* ---- command line ---- */

static void the_kernel_s_words_are_skipped(void **state)
{
    struct boot_options o;
    char bad[64];

    assert_int_equal(cmdline_parse(&o, "console=ttyS0 reboot=t  quiet\n", bad, sizeof(bad)), 0);
    assert_string_equal(o.root, "/dev/vda");
    assert_string_equal(o.rootfstype, "erofs");
    assert_string_equal(o.hostname, "ironclaw");
    assert_int_equal(o.overlay_mib, 0);
    assert_int_equal(o.console_level, -1);
    assert_int_equal(o.seccomp, SECCOMP_BASIC);
    assert_false(o.tied);
    assert_false(o.template);
    assert_false(o.test_no_reseed);
}

static void every_option_is_read(void **state)
{
    struct boot_options o;
    char bad[64];

    assert_int_equal(cmdline_parse(&o,
                             "ironclaw.root=/dev/vdb ironclaw.rootfstype=ext4 ironclaw.overlay=tmpfs "
                             "ironclaw.overlay_mib=128 ironclaw.hostname=task-1 ironclaw.seccomp=minimal "
                             "ironclaw.console_level=4 ironclaw.tied=1 ironclaw.template=1 ironclaw.test_no_reseed=1",
                             bad, sizeof(bad)),
            0);
    assert_string_equal(o.root, "/dev/vdb");
    assert_string_equal(o.rootfstype, "ext4");
    assert_string_equal(o.hostname, "task-1");
    assert_int_equal(o.overlay_mib, 128);
    assert_int_equal(o.console_level, 4);
    assert_int_equal(o.seccomp, SECCOMP_MINIMAL);
    assert_true(o.tied);
    assert_true(o.template);
    assert_true(o.test_no_reseed);
    assert_int_equal(cmdline_parse(&o, "ironclaw.template=1 ironclaw.template=0", bad, sizeof(bad)), 0);
    assert_false(o.template);
    assert_int_equal(
            cmdline_parse(&o, "ironclaw.hostname=0123456789012345678901234567890123456789012345678901234567890123", bad,
                    sizeof(bad)),
            0); /* 64, the longest name of a VM */
    assert_int_equal(strlen(o.hostname), 64);
}

static void a_bad_option_is_named_and_changes_nothing(void **state)
{
    static const char *const words[] = {
            "ironclaw.root=/etc/passwd", "ironclaw.root=/dev/../etc", "ironclaw.root=/dev/",
            "ironclaw.rootfstype=", "ironclaw.rootfstype=a,b", "ironclaw.overlay=xfs", "ironclaw.overlay_device=vdb",
            "ironclaw.overlay_mib=-1", "ironclaw.overlay_mib=99999999999999999999",
            "ironclaw.overlay_mib=", "ironclaw.seccomp=", "ironclaw.seccomp=off", "ironclaw.hostname=a/b",
            "ironclaw.console_level=9", "ironclaw.tied=2", "ironclaw.template=yes",
            "ironclaw.template=", "ironclaw.test_no_reseed=2", "ironclaw.unknown=1", "ironclaw.tied",
            "ironclaw.hostname=01234567890123456789012345678901234567890123456789012345678901234", /* 65 */
    };
    struct boot_options o = {.overlay_mib = 77};
    char bad[128];

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        assert_int_equal(cmdline_parse(&o, words[i], bad, sizeof(bad)), -EINVAL);
        assert_string_equal(bad, words[i]);
        assert_int_equal(o.overlay_mib, 77);
    }
}

/* ---- names of a machine ---- */

static void generations_are_told_as_uuids(void **state)
{
    const uint8_t bytes[16] = {
            0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0xf6, 0x07, 0xf8, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0xff};
    char uuid[IDENTITY_UUID_SIZE], machine_id[34];

    identity_uuid(uuid, bytes);
    assert_string_equal(uuid, "00010203-0405-f607-f809-0a0b0c0d0eff");
    identity_machine_id(machine_id, bytes);
    assert_string_equal(machine_id, "0001020304054607b8090a0b0c0d0eff\n"); /* version 4, variant 1 */
}

/* ---- users ---- */

static const char passwd[] = "# comment\n"
                             "root:x:0:0:root:/root:/bin/bash\n"
                             "broken:x:12\n"
                             "huge:x:4294967295:1::/:/bin/sh\n"
                             "negative:x:-1:1::/:/bin/sh\n"
                             ":x:5:5::/:/bin/sh\n"
                             "agent:x:1000:1001:Agent,,,:/home/agent:/bin/dash\n"
                             "web:x:33:33::/var/www:";
static const char group[] = "root:x:0:\n"
                            "dialout:x:20:agent,web\n"
                            "agents:x:1001:agent\n"
                            "video:x:44:web,agentx,agent\n"
                            "cut:x:77";

static int resolve(struct user *u, const char *spec)
{
    return user_resolve(u, spec, strlen(spec), passwd, strlen(passwd), group, strlen(group));
}

static void the_default_user_is_agent(void **state)
{
    struct user u;

    assert_int_equal(resolve(&u, ""), 0);
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 1001);
    assert_string_equal(u.name, "agent");
    assert_string_equal(u.home, "/home/agent");
    assert_string_equal(u.shell, "/bin/dash");
    assert_int_equal(u.group_count, 3);
    assert_int_equal(u.groups[0], 1001);
    assert_int_equal(u.groups[1], 20);
    assert_int_equal(u.groups[2], 44);
    assert_int_equal(user_resolve(&u, "", 0, "", 0, "", 0), 0);
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 1000);
    assert_string_equal(u.home, "");
}

static void names_and_numbers_are_found(void **state)
{
    struct user u;

    assert_int_equal(resolve(&u, "root"), 0);
    assert_int_equal(u.uid, 0);
    assert_int_equal(resolve(&u, "33"), 0);
    assert_string_equal(u.name, "web");
    assert_string_equal(u.shell, "/bin/sh");
    assert_int_equal(resolve(&u, "4242"), 0);
    assert_int_equal(u.gid, 4242);
    assert_string_equal(u.name, "4242");
    assert_int_equal(u.group_count, 1);
    assert_int_equal(resolve(&u, "1000:20"), 0);
    assert_int_equal(u.gid, 20);
    assert_int_equal(u.groups[0], 20);
    assert_int_equal(resolve(&u, "agent:video"), 0);
    assert_int_equal(u.gid, 44);
}

static void other_users_are_refused(void **state)
{
    static const char *const specs[] = {"nobody", "broken", "huge", "negative", "-1", "4294967295", "99999999999",
            "agent:nogroup", "agent:4294967295", "age", "agent "};
    struct user u = {.uid = 7};

    for (size_t i = 0; i < ARRAY_SIZE(specs); i++)
        assert_int_equal(resolve(&u, specs[i]), -ENOENT);
    assert_int_equal(resolve(&u, ":0"), -EINVAL);
    assert_int_equal(resolve(&u, "agent:"), -EINVAL);
    assert_int_equal(u.uid, 7);
}

static void many_groups_are_cut(void **state)
{
    struct user u;
    char text[4096] = "";

    for (int i = 0; i < 100; i++)
        (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "g%d:x:%d:agent\n", i, 2000 + i);
    assert_int_equal(user_resolve(&u, "agent", 5, passwd, strlen(passwd), text, strlen(text)), 0);
    assert_int_equal(u.group_count, USER_GROUPS_MAX);
}

/* ---- commands ---- */

static const char *get(const struct command *c, const char *name)
{
    const char *found = NULL;

    for (char **env = c->env; *env; env++) {
        if (strncmp(*env, name, strlen(name)) == 0 && (*env)[strlen(name)] == '=') {
            assert_null(found); /* each name once */
            found = *env + strlen(name) + 1;
        }
    }
    return found;
}

static void the_last_value_of_a_name_wins(void **state)
{
    struct wire_str argv[] = {wire_str_of("prog"), wire_str_of(""), wire_str_of("x y")};
    struct wire_str env[] = {wire_str_of("A=1"), wire_str_of("HOME=/else"), wire_str_of("A=2"), wire_str_of("AB=3"),
            wire_str_of("E="), wire_str_of("PATH=/opt")};
    struct wire_exec exec = {.argc = 3, .argv = argv, .envc = ARRAY_SIZE(env), .env = env};
    struct user user;
    struct command c;

    assert_int_equal(resolve(&user, ""), 0);
    assert_int_equal(command_build(&c, &exec, &user), 0);
    assert_string_equal(c.argv[0], "prog");
    assert_string_equal(c.argv[1], "");
    assert_string_equal(c.argv[2], "x y");
    assert_null(c.argv[3]);
    assert_string_equal(get(&c, "A"), "2");
    assert_string_equal(get(&c, "AB"), "3");
    assert_string_equal(get(&c, "E"), "");
    assert_string_equal(get(&c, "HOME"), "/else");
    assert_string_equal(get(&c, "USER"), "agent");
    assert_string_equal(get(&c, "SHELL"), "/bin/dash");
    assert_null(get(&c, "TERM"));
    assert_string_equal(c.path, "/opt");
    assert_string_equal(c.cwd, "/home/agent");
    assert_true(c.cwd_optional);
    command_deinit(&c);
}

static void a_terminal_has_a_type_and_a_directory_is_taken(void **state)
{
    struct wire_str argv[] = {wire_str_of("sh")};
    struct wire_exec exec = {.flags = WIRE_EXEC_TTY, .argc = 1, .argv = argv, .cwd = wire_str_of("/srv")};
    struct user user;
    struct command c;

    assert_int_equal(resolve(&user, "root"), 0);
    assert_int_equal(command_build(&c, &exec, &user), 0);
    assert_non_null(get(&c, "TERM"));
    assert_string_equal(c.path, COMMAND_PATH);
    assert_string_equal(c.cwd, "/srv");
    assert_false(c.cwd_optional);
    command_deinit(&c);
}

static void impossible_requests_are_refused(void **state)
{
    struct wire_str argv[] = {wire_str_of("sh")}, no_name[] = {wire_str_of("=x")}, no_equals[] = {wire_str_of("x")};
    struct user user = {0};
    struct command c;

    assert_int_equal(command_build(&c, &(struct wire_exec){0}, &user), -EINVAL);
    assert_int_equal(
            command_build(&c, &(struct wire_exec){.argc = 1, .argv = argv, .envc = 1, .env = no_name}, &user), -EINVAL);
    assert_int_equal(
            command_build(&c, &(struct wire_exec){.argc = 1, .argv = argv, .envc = 1, .env = no_equals}, &user),
            -EINVAL);
    assert_int_equal(
            command_build(&c, &(struct wire_exec){.argc = 1, .argv = argv, .cwd = wire_str_of("rel")}, &user), -EINVAL);
}

/* ---- limits ---- */

static void the_agent_keeps_memory_for_itself(void **state)
{
    const uint64_t mib = 1 << 20;

    assert_int_equal(cgroups_memory_max(1024 * mib, 1000 * mib), 1024 * mib - 1024 * mib / 100 * 8);
    assert_int_equal(cgroups_memory_max(224 * mib, 190 * mib), 178 * mib);
    assert_int_equal(cgroups_memory_max(40 * mib, 20 * mib), 10 * mib);
    assert_int_equal(cgroups_memory_max(16 * mib, 0), 4 * mib);
    assert_int_equal(cgroups_pids_max(16 * mib), 256);
    assert_int_equal(cgroups_pids_max(256 * mib), 1024);
    assert_int_equal(cgroups_pids_max(65536 * mib), 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(the_kernel_s_words_are_skipped),
            cmocka_unit_test(every_option_is_read),
            cmocka_unit_test(a_bad_option_is_named_and_changes_nothing),
            cmocka_unit_test(generations_are_told_as_uuids),
            cmocka_unit_test(the_default_user_is_agent),
            cmocka_unit_test(names_and_numbers_are_found),
            cmocka_unit_test(other_users_are_refused),
            cmocka_unit_test(many_groups_are_cut),
            cmocka_unit_test(the_last_value_of_a_name_wins),
            cmocka_unit_test(a_terminal_has_a_type_and_a_directory_is_taken),
            cmocka_unit_test(impossible_requests_are_refused),
            cmocka_unit_test(the_agent_keeps_memory_for_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
