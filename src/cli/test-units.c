/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/copy-path.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "cli/values.h"

/* ---- values ------------------------------------------------------------------------------------------------------ */

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        int r;
        uint32_t ms;
    } cases[] = {
            {"10s", 0, 10000},
            {"500ms", 0, 500},
            {"2m", 0, 120000},
            {"1.5s", 0, 1500},
            {"7", 0, 7000},
            {"0", 0, 0},
            {"0s", 0, 0},
            {"1h", 0, 3600000},
            {"0.25", 0, 250},
            {"2min", 0, 120000},
            {"3D", 0, 259200000},
            {"", -EINVAL, 0},
            {"s", -EINVAL, 0},
            {"-1s", -EINVAL, 0},
            {"1.s", -EINVAL, 0},
            {".5s", -EINVAL, 0},
            {"1 s", -EINVAL, 0},
            {"1sx", -EINVAL, 0},
            {"0.0001ms", -EINVAL, 0},
            {"0.9ms", -EINVAL, 0},
            {"1.0000001s", -EINVAL, 0},
            {"50d", -ERANGE, 0},
            {"99999999999999999999999999s", -ERANGE, 0},
            {"18446744073709551615s", -ERANGE, 0},
            {"18446744073709551616ms", -ERANGE, 0},
            {"0x10", -EINVAL, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint32_t ms = 0;

        assert_int_equal(value_parse_duration_ms(cases[i].text, &ms), cases[i].r);
        assert_int_equal(ms, cases[i].ms);
    }
}

static void test_memory(void **state)
{
    static const struct {
        const char *text;
        int r;
        uint32_t mib;
    } cases[] = {
            {"256", 0, 256},
            {"512m", 0, 512},
            {"512M", 0, 512},
            {"1g", 0, 1024},
            {"1.5GiB", 0, 1536},
            {"64MB", 0, 64},
            {"2048k", 0, 2},
            {"1048576b", 0, 1},
            {"1", 0, 1},
            {"0", 0, 0},
            {"1000k", -EINVAL, 0},
            {"m", -EINVAL, 0},
            {"12q", -EINVAL, 0},
            {"-5m", -EINVAL, 0},
            {"99999999999g", -ERANGE, 0},
            {"4294967296", -ERANGE, 0},
            {"4294967295", 0, 4294967295u},
            {"17592186044416", -ERANGE, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint32_t mib = 0;

        assert_int_equal(value_parse_memory_mib(cases[i].text, &mib), cases[i].r);
        assert_int_equal(mib, cases[i].mib);
    }
}

static void test_bytes(void **state)
{
    static const struct {
        const char *text;
        int r;
        uint32_t bytes;
    } cases[] = {
            {"500", 0, 500},
            {"500b", 0, 500},
            {"64k", 0, 65536},
            {"1.5M", 0, 1572864},
            {"3GiB", 0, 3221225472u},
            {"0", 0, 0},
            {"4294967295", 0, 4294967295u},
            {"4294967296", -ERANGE, 0},
            {"4g", -ERANGE, 0},
            {"0.5", -EINVAL, 0}, /* rounds to "no limit" */
            {"k", -EINVAL, 0},
            {"-1", -EINVAL, 0},
            {"1t", -EINVAL, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint32_t bytes = 0;

        assert_int_equal(value_parse_bytes(cases[i].text, &bytes), cases[i].r);
        assert_int_equal(bytes, cases[i].bytes);
    }
}

static void test_formats(void **state)
{
    char s[32];

    (void)state;
    value_format_bytes(0, s);
    assert_string_equal(s, "0 B");
    value_format_bytes(1023, s);
    assert_string_equal(s, "1023 B");
    value_format_bytes(1536, s);
    assert_string_equal(s, "1.5 KiB");
    value_format_bytes((uint64_t)256 << 20, s);
    assert_string_equal(s, "256 MiB");
    value_format_bytes(UINT64_MAX, s);
    assert_string_equal(s, "16.0 EiB");
    value_format_duration(850, s);
    assert_string_equal(s, "850 ms");
    value_format_duration(12340, s);
    assert_string_equal(s, "12.3 s");
    value_format_duration(250000, s);
    assert_string_equal(s, "4 min 10 s");
    value_format_age(200000, 20000, s);
    assert_string_equal(s, "3 minutes ago");
    value_format_age(5, 20000, s);
    assert_string_equal(s, "now");
    value_format_age(5, 0, s);
    assert_string_equal(s, "");
}

/* ---- text, JSON, tables ------------------------------------------------------------------------------------------ */

static void test_utf8(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } cases[] = {
            {"a", 1},
            {"\xc3\xa9", 2},
            {"\xe2\x82\xac", 3},
            {"\xf0\x9f\xa6\x80", 4},
            {"\xf4\x8f\xbf\xbf", 4},
            {"\x80", 0},
            {"\xc0\x80", 0},
            {"\xc1\xbf", 0},
            {"\xe0\x9f\xbf", 0},
            {"\xed\xa0\x80", 0},
            {"\xf0\x8f\xbf\xbf", 0},
            {"\xf4\x90\x80\x80", 0},
            {"\xf5\x80\x80\x80", 0},
            {"\xe2\x82", 0},
            {"\xc3", 0},
            {"\xff", 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(text_utf8(cases[i].text, strlen(cases[i].text)), cases[i].len);
}

static void test_escape(void **state)
{
    struct text t = {0};

    (void)state;
    text_put_escaped(&t, "a\r\nb\tc\x1b[2J\x9b\r", 12, TEXT_MANY_LINES);
    assert_string_equal(text_str(&t), "a\nb\tc\\x1b[2J\\x9b\\x0d");
    text_deinit(&t);
    text_put_escaped(&t, "a\nb\0c", 5, TEXT_ONE_LINE);
    assert_string_equal(text_str(&t), "a\\x0ab\\x00c");
    text_deinit(&t);
}

static void test_base64(void **state)
{
    static const char *const cases[][2] = {
            {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xff\xfe\xfd", "//79"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct text t = {0};

        text_put_base64(&t, cases[i][0], strlen(cases[i][0]));
        assert_string_equal(text_str(&t), cases[i][1]);
        text_deinit(&t);
    }
}

static void test_json(void **state)
{
    struct json j = {0};

    (void)state;
    json_begin_object(&j);
    json_key(&j, "a\"b");
    json_bytes(&j,
            "\xff"
            "x\x01\n\\\x7f",
            6);
    json_key(&j, "list");
    json_begin_array(&j);
    json_u64(&j, UINT64_MAX);
    json_i64(&j, INT64_MIN);
    json_bool(&j, true);
    json_null(&j);
    json_begin_array(&j);
    json_end(&j);
    json_begin_object(&j);
    json_end(&j);
    json_end(&j);
    json_key(&j, "none");
    json_string(&j, NULL);
    json_key(&j, "raw");
    json_raw(&j, "{\"k\": 1}\n");
    json_end(&j);
    assert_string_equal(text_str(&j.text), "{\n"
                                           "  \"a\\\"b\": \"\xef\xbf\xbdx\\u0001\\n\\\\\\u007f\",\n"
                                           "  \"list\": [\n"
                                           "    18446744073709551615,\n"
                                           "    -9223372036854775808,\n"
                                           "    true,\n"
                                           "    null,\n"
                                           "    [],\n"
                                           "    {}\n"
                                           "  ],\n"
                                           "  \"none\": null,\n"
                                           "  \"raw\": {\"k\": 1}\n"
                                           "}");
    json_deinit(&j);
}

static void test_json_on_one_line(void **state)
{
    struct json j = {.one_line = true};

    (void)state;
    json_begin_object(&j);
    json_key(&j, "a");
    json_string(&j, "1\n2");
    json_key(&j, "b");
    json_begin_array(&j);
    json_u64(&j, 1);
    json_u64(&j, 2);
    json_end(&j);
    json_end(&j);
    assert_string_equal(text_str(&j.text), "{\"a\": \"1\\n2\", \"b\": [1, 2]}");
    json_deinit(&j);
}

static void test_table(void **state)
{
    struct text out = {0};
    struct table t;

    (void)state;
    table_init(&t, (const char *const[]){"NAME", "X", "LAST", NULL});
    table_row(&t, (const char *const[]){"a", "", "one"});
    table_row(&t, (const char *const[]){"longer", "1\n2", NULL});
    table_format(&t, &out);
    assert_string_equal(text_str(&out), "NAME     X        LAST\n"
                                        "a        -        one\n"
                                        "longer   1\\x0a2   -\n");
    text_deinit(&out);
    table_deinit(&t);
}

static void test_progress(void **state)
{
    struct text t = {0};

    (void)state;
    progress_format(&t, "a file", 512, 1024, 0, 200);
    assert_string_equal(text_str(&t), "[##########..........]  50%  512 B of 1.0 KiB  a file");
    text_deinit(&t);
    progress_format(&t, "x\x1b", 0, 0, 1, 200);
    assert_string_equal(text_str(&t), "/ x\\x1b");
    text_deinit(&t);
    progress_format(&t, "more than there is", 9, 3, 0, 24);
    assert_string_equal(text_str(&t), "[####################] 1");
    text_deinit(&t);
}

static void test_copy_path(void **state)
{
    static const char *const cases[][3] = {{"vm:/etc", "vm", "/etc"}, {"vm:etc", "vm", "/etc"}, {"vm:", "vm", "/"},
            {"./a:b", NULL, "./a:b"}, {"/a:b", NULL, "/a:b"}, {"plain", NULL, "plain"}, {":x", NULL, ":x"},
            {"", NULL, ""}, {"a:b:c", "a", "/b:c"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct copy_path p;

        copy_path_parse(cases[i][0], &p);
        if (cases[i][1])
            assert_string_equal(p.vm, cases[i][1]);
        else
            assert_null(p.vm);
        assert_string_equal(p.path, cases[i][2]);
        copy_path_deinit(&p);
    }
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

struct sample_args {
    bool flag, other;
    const char *string, *choice;
    struct cli_list list;
    struct cli_number count, duration, memory, bytes;
};

#define FIELD(f) offsetof(struct sample_args, f)

static const struct cli_option sample_options[] = {
        {'f', "flag", NULL, "h", CLI_FLAG, FIELD(flag), 0},
        {'o', "other", NULL, "h", CLI_FLAG, FIELD(other), 0},
        {'s', "string", "S", "h", CLI_STRING, FIELD(string), 0},
        {0, "choice", "red|green", "h", CLI_CHOICE, FIELD(choice), 0},
        {'l', "list", "L", "h", CLI_LIST, FIELD(list), 0},
        {'n', "count", "N", "h", CLI_COUNT, FIELD(count), 0},
        {0, "duration", "T", "h", CLI_DURATION, FIELD(duration), 0},
        {0, "memory", "M", "h", CLI_MEMORY, FIELD(memory), 0},
        {0, "bytes", "B", "h", CLI_BYTES, FIELD(bytes), 0},
        {0},
};

static const struct cli_command sample = {.name = "sample",
        .operands = "[X...]",
        .options = sample_options,
        .args_size = sizeof(struct sample_args),
        .max_operands = 2};
static const struct cli_command sample_run = {.name = "sample",
        .operands = "[--] COMMAND",
        .options = sample_options,
        .args_size = sizeof(struct sample_args),
        .max_operands = SIZE_MAX,
        .stops = true};
static const struct cli_command sample_exec = {.name = "sample",
        .operands = "VM [--] COMMAND",
        .options = sample_options,
        .args_size = sizeof(struct sample_args),
        .min_operands = 2,
        .max_operands = SIZE_MAX,
        .stops = true};

static int parse(const struct cli_command *command, const char *line, struct cli_call *ret, struct text *message)
{
    static char buffer[256];
    static char *argv[32];
    int argc = 0;

    (void)snprintf(buffer, sizeof(buffer), "%s", line);
    for (char *save, *word = strtok_r(buffer, " ", &save); word; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    argv[argc] = NULL;
    return cli_parse(command, argc, argv, ret, message);
}

static void test_parse(void **state)
{
    const struct sample_args *a;
    struct text message = {0};
    struct cli_call call;

    (void)state;
    assert_int_equal(parse(&sample, "-fo x --string=a -l1 -l 2 --list 3 --choice green -n5 --duration 2s --memory 1g y",
                             &call, &message),
            CLI_PARSE_OK);
    a = call.args;
    assert_true(a->flag && a->other);
    assert_string_equal(a->string, "a");
    assert_string_equal(a->choice, "green");
    assert_int_equal(a->list.count, 3);
    assert_string_equal(a->list.items[2], "3");
    assert_true(a->count.given);
    assert_int_equal(a->count.value, 5);
    assert_int_equal(a->duration.value, 2000);
    assert_int_equal(a->memory.value, 1024);
    assert_int_equal(call.operand_count, 2);
    assert_string_equal(call.operands[1], "y");
    assert_null(call.operands[2]);
    cli_call_deinit(&call);

    assert_int_equal(parse(&sample, "-fs value - -- -x", &call, &message), CLI_PARSE_OK);
    a = call.args;
    assert_string_equal(a->string, "value");
    assert_string_equal(call.operands[0], "-");
    assert_string_equal(call.operands[1], "-x");
    cli_call_deinit(&call);
    assert_int_equal(parse(&sample, "-f --help --nonsense", &call, &message), CLI_PARSE_HELP);
    assert_int_equal(parse(&sample, "-fh", &call, &message), CLI_PARSE_HELP);
    assert_int_equal(message.len, 0);
}

static void test_parse_stops(void **state)
{
    static const struct {
        const struct cli_command *command;
        const char *line, *first, *last;
        size_t count;
    } cases[] = {
            {&sample_run, "-f ls -f --help", "ls", "--help", 3},
            {&sample_run, "-- -f -- x", "-f", "x", 3},
            {&sample_run, "ls -- x", "ls", "x", 3},
            {&sample_run, "-f", NULL, NULL, 0},
            {&sample_exec, "vm ls -f", "vm", "-f", 3},
            {&sample_exec, "-f vm -- -ls -- x", "vm", "x", 4},
            {&sample_exec, "-- vm ls", "vm", "ls", 2},
            {&sample_exec, "vm -f x", "vm", "x", 3},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct text message = {0};
        struct cli_call call;

        assert_int_equal(parse(cases[i].command, cases[i].line, &call, &message), CLI_PARSE_OK);
        assert_int_equal(call.operand_count, cases[i].count);
        if (cases[i].count) {
            assert_string_equal(call.operands[0], cases[i].first);
            assert_string_equal(call.operands[cases[i].count - 1], cases[i].last);
        }
        cli_call_deinit(&call);
    }
}

static void test_parse_refuses(void **state)
{
    static const struct {
        const struct cli_command *command;
        const char *line, *message;
    } cases[] = {
            {&sample, "--strnig x", "unknown option '--strnig'; did you mean '--string'?"},
            {&sample, "-memory", "unknown option '-memory'; did you mean '--memory'?"},
            {&sample, "--xyzzy", "unknown option '--xyzzy'; see 'ironclaw sample --help'"},
            {&sample, "-x", "unknown option '-x'; see 'ironclaw sample --help'"},
            {&sample, "-fx", "unknown option '-x'; see 'ironclaw sample --help'"},
            {&sample, "--flag=1", "option '--flag' takes no value"},
            {&sample, "--string", "option '--string' needs a value: S"},
            {&sample, "-s", "option '-s' needs a value: S"},
            {&sample, "--choice blue", "--choice: 'blue' is not one of red|green"},
            {&sample, "--choice red|green", "--choice: 'red|green' is not one of red|green"},
            {&sample, "--choice=", "--choice: '' is not one of red|green"},
            {&sample, "-n -1", "--count: '-1' is not a number"},
            {&sample, "-n 4294967296", "--count: '4294967296' is too large"},
            {&sample, "--duration soon", "--duration: 'soon' is not a time such as 500ms, 10s or 2m"},
            {&sample, "--memory 1t", "--memory: '1t' is not a size such as 256 (MiB), 512m or 1g"},
            {&sample, "--bytes much", "--bytes: 'much' is not a size such as 500 (bytes), 64k or 10m"},
            {&sample, "--bytes 4g", "--bytes: '4g' is too large; at most 4095m"},
            {&sample, "a b c", "unexpected operand 'c'; usage: ironclaw sample [OPTION...] [X...]"},
            {&sample_exec, "vm", "missing operand; usage: ironclaw sample [OPTION...] VM [--] COMMAND"},
            {&sample_exec, "vm --", "missing operand; usage: ironclaw sample [OPTION...] VM [--] COMMAND"},
            {&sample, "--\x1b[31m", "unknown option '--\\x1b[31m'; see 'ironclaw sample --help'"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct text message = {0};
        struct cli_call call;

        assert_int_equal(parse(cases[i].command, cases[i].line, &call, &message), CLI_PARSE_USAGE);
        assert_string_equal(text_str(&message), cases[i].message);
        text_deinit(&message);
    }
}

static void test_verbs(void **state)
{
    static const struct {
        const char *a, *b, *found, *message;
    } cases[] = {
            {"run", NULL, "run", ""},
            {"image", "ls", "image ls", ""},
            {"rnu", NULL, NULL, "unknown command 'rnu'; did you mean 'ironclaw run'?"},
            {"inspct", NULL, NULL, "unknown command 'inspct'; did you mean 'ironclaw inspect'?"},
            {"images", NULL, NULL, "unknown command 'images'; did you mean 'ironclaw image'?"},
            {"image", "biuld", NULL, "unknown command 'biuld'; did you mean 'ironclaw image build'?"},
            {"image", "zzzz", NULL, "unknown command 'zzzz'; see 'ironclaw help image'"},
            {"image", NULL, NULL, "'ironclaw image' needs a subcommand; see 'ironclaw help image'"},
            {"quark", NULL, NULL, "unknown command 'quark'; see 'ironclaw help'"},
            {"", NULL, NULL, "unknown command ''; see 'ironclaw help'"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char *argv[] = {(char *)cases[i].a, (char *)cases[i].b, NULL};
        const struct cli_command *command;
        struct text message = {0};
        int used = 0;

        command = cli_find(cases[i].b ? 2 : 1, argv, &used, &message);
        assert_string_equal(text_str(&message), cases[i].message);
        if (cases[i].found) {
            assert_string_equal(command->name, cases[i].found);
            assert_int_equal(used, strchr(cases[i].found, ' ') ? 2 : 1);
        } else {
            assert_null(command);
        }
        text_deinit(&message);
    }
}

/* ---- the tables themselves --------------------------------------------------------------------------------------- */

static void test_tables_are_sound(void **state)
{
    (void)state;
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        assert_non_null((*c)->run);
        assert_true((*c)->summary[strlen((*c)->summary) - 1] != '.');
        assert_true((*c)->max_operands >= (*c)->min_operands);
        for (const struct cli_option *o = (*c)->options; o->name; o++) {
            assert_true((o->kind == CLI_FLAG) == (o->metavar == NULL));
            assert_true(o->offset < (*c)->args_size);
            assert_true(strlen(o->help) <= 60);
            for (const struct cli_option *other = o + 1; other->name; other++) {
                assert_string_not_equal(o->name, other->name);
                assert_true(!o->letter || o->letter != other->letter);
            }
        }
    }
}

static void test_help_names_everything(void **state)
{
    struct text overview = {0};

    (void)state;
    cli_help_overview(&overview);
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        struct text help = {0};

        assert_non_null(strstr(overview.data, (*c)->name));
        assert_non_null(strstr(overview.data, (*c)->summary));
        cli_help_command(*c, &help);
        for (const struct cli_option *o = (*c)->options; o->name; o++) {
            assert_non_null(strstr(help.data, o->name));
            assert_non_null(strstr(help.data, o->help));
        }
        for (const char *line = help.data; *line; line += strcspn(line, "\n") + 1)
            assert_true(strcspn(line, "\n") <= 100);
        text_deinit(&help);
    }
    text_deinit(&overview);
}

/* Where `word` stands whole (no letter, digit or dash around it) in the part of a script after `from`. */
static bool has_word(const char *from, const char *until, const char *word)
{
    static const char inside[] = "abcdefghijklmnopqrstuvwxyz0123456789-";

    for (const char *p = from; (p = strstr(p, word)) && p < until; p++) {
        if ((p == from || !strchr(inside, p[-1])) && !strchr(inside, p[strlen(word)]))
            return true;
    }
    return false;
}

static void test_completion_names_everything(void **state)
{
    static const char *const shells[] = {"bash", "zsh"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(shells); i++) {
        struct text script = {0};

        assert_int_equal(cli_completion(shells[i], &script), 0);
        for (const struct cli_command *const *c = cli_commands; *c; c++) {
            struct text label = {0};
            const char *part, *end;

            text_printf(&label, "    '%s')\n", (*c)->name);
            part = strstr(script.data, label.data);
            assert_non_null(part);
            end = strstr(part + 1, "\n    '");
            for (const struct cli_option *o = (*c)->options; o->name; o++) {
                struct text dashed = {0};

                text_printf(&dashed, "--%s", o->name);
                assert_true(has_word(part, end ? end : script.data + script.len, dashed.data));
                text_deinit(&dashed);
            }
            text_deinit(&label);
        }
        text_deinit(&script);
    }
}

static void test_fish_names_everything(void **state)
{
    struct text script = {0}, message = {0};

    (void)state;
    assert_int_equal(cli_completion("fish", &script), 0);
    for (const struct cli_command *const *c = cli_commands; *c; c++) {
        for (const struct cli_option *o = (*c)->options; o->name; o++) {
            struct text line = {0};

            text_printf(&line, "'__ironclaw_is %s'", (*c)->name);
            if (o->letter)
                text_printf(&line, " -s %c", o->letter);
            text_printf(&line, " -l %s ", o->name);
            assert_non_null(strstr(script.data, line.data));
            text_deinit(&line);
        }
    }
    text_deinit(&script);
    assert_int_equal(cli_completion("tcsh", &message), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_durations),
            cmocka_unit_test(test_memory),
            cmocka_unit_test(test_bytes),
            cmocka_unit_test(test_formats),
            cmocka_unit_test(test_utf8),
            cmocka_unit_test(test_escape),
            cmocka_unit_test(test_base64),
            cmocka_unit_test(test_json),
            cmocka_unit_test(test_json_on_one_line),
            cmocka_unit_test(test_table),
            cmocka_unit_test(test_progress),
            cmocka_unit_test(test_copy_path),
            cmocka_unit_test(test_parse),
            cmocka_unit_test(test_parse_stops),
            cmocka_unit_test(test_parse_refuses),
            cmocka_unit_test(test_verbs),
            cmocka_unit_test(test_tables_are_sound),
            cmocka_unit_test(test_help_names_everything),
            cmocka_unit_test(test_completion_names_everything),
            cmocka_unit_test(test_fish_names_everything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
