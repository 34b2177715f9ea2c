/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/options.h"

#include <errno.h>
#include <string.h>

#include "base/test.h"

static int parse(struct options *ret, ...)
{
    char *argv[20] = {(char *)"ironclaw-vmm"};
    int argc = 1;
    va_list ap;

    va_start(ap, ret);
    while ((argv[argc] = va_arg(ap, char *)))
        argc++;
    va_end(ap);
    return options_parse(ret, argc, argv);
}

static void test_good(void **state)
{
    struct options o;

    assert_int_equal(parse(&o, NULL), 0);
    assert_string_equal(o.api_sock, OPTIONS_DEFAULT_SOCKET);
    assert_string_equal(o.id, "anonymous-instance");
    assert_int_equal(o.level, LOG_INFO);
    assert_int_equal(o.seccomp_level, SECCOMP_MINIMAL);

    assert_int_equal(parse(&o, "--no-api", "--config-file", "x.json", "--id", "a-1_B", "--level", "Warning",
                             "--boot-timer", "--no-seccomp", "--seccomp-level", "basic", "--max-lifetime-ms",
                             "4294967295", "--vsock-max-connections=1023", NULL),
            0);
    assert_null(o.api_sock);
    assert_string_equal(o.config_file, "x.json");
    assert_string_equal(o.id, "a-1_B");
    assert_int_equal(o.level, LOG_WARN);
    assert_true(o.boot_timer);
    assert_true(o.no_seccomp);
    assert_int_equal(o.seccomp_level, SECCOMP_BASIC);
    assert_int_equal(o.max_lifetime_ms, UINT32_MAX);
    assert_int_equal(o.vsock_max_connections, 1023);
    assert_null(o.merge_full);

    assert_int_equal(parse(&o, "--merge-memory", "full", "diff", NULL), 0);
    assert_string_equal(o.merge_full, "full");
    assert_string_equal(o.merge_diff, "diff");
    assert_int_equal(o.set_pid, 0);
    assert_int_equal(parse(&o, "--working-set", "77", "memory", "set", NULL), 0);
    assert_int_equal(o.set_pid, 77);
    assert_string_equal(o.set_memory, "memory");
    assert_string_equal(o.set_path, "set");
}

static void test_refused(void **state)
{
    struct options o = {.id = "untouched"};

    assert_int_equal(parse(&o, "--no-api", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--merge-memory", "full", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--working-set", "77", "memory", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--working-set", "0", "memory", "set", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--working-set", "77", "memory", "set", "more", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--merge-memory", "full", "diff", "more", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--no-api", "--api-sock", "s", "--config-file", "f", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--id", "../x", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--id", "", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--level", "loud", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--seccomp-filter", "f", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--seccomp-level", "none", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--max-lifetime-ms", "0", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--max-lifetime-ms", "4294967296", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--max-lifetime-ms", "1s", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--vsock-max-connections", "1024", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--vsock-max-connections", "-1", NULL), -EINVAL);
    assert_int_equal(parse(&o, "--nonsense", NULL), -EINVAL);
    assert_int_equal(parse(&o, "word", NULL), -EINVAL);
    assert_string_equal(o.id, "untouched");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_good),
            cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
