/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/signals.h"
#include "cli/tty.h"
#include "cli/values.h"

#define ENV_FILE_MAX ((size_t)1 << 20) /* bytes */

int session_check(const struct session_options *options)
{
    if (options->tty && options->json)
        return cli_usage("--tty and --json exclude each other");
    if (options->tty && !tty_is(0))
        return cli_usage("the input device is not a TTY; leave out -t");
    if (options->cwd && options->cwd[0] != '/')
        return cli_usage("--workdir: '%s' is not an absolute path", options->cwd);
    if (options->argv && options->argv[0] && !options->argv[0][0])
        return cli_usage("the command is an empty word");
    return CLI_OK;
}

/* ---- environment ------------------------------------------------------------------------------------------------- */

static void append(char ***env, size_t *count, const char *s, size_t len)
{
    char *copy = text_dup(s, len);
    size_t name_len = strcspn(copy, "=");

    /* The later one wins, and stays one. */
    for (size_t i = 0; i < *count; i++) {
        if (strncmp((*env)[i], copy, name_len + 1) == 0) {
            free((*env)[i]);
            (*env)[i] = copy;
            return;
        }
    }
    *env = text_realloc(*env, *count + 2, sizeof(**env));
    (*env)[(*count)++] = copy;
    (*env)[*count] = NULL;
}

static int add_one(char ***env, size_t *count, const char *item, size_t len)
{
    const char *equals = memchr(item, '=', len), *value;
    char *name;

    if (len == 0 || equals == item)
        return -EINVAL;
    if (equals) {
        append(env, count, item, len);
        return 0;
    }
    name = text_dup(item, len);
    value = getenv(name);
    if (value) {
        struct text pair = {0};

        text_printf(&pair, "%s=%s", name, value);
        append(env, count, pair.data, pair.len);
        text_deinit(&pair);
    }
    free(name);
    return 0;
}

static int read_env_file(const char *path, char **ret, size_t *ret_len)
{
    char *data = text_alloc(ENV_FILE_MAX + 1, 1);
    FILE *f = fopen(path, "rb");
    size_t len;

    if (!f) {
        free(data);
        return cli_usage("--env-file: %s: %s", path, strerror(errno));
    }
    len = fread(data, 1, ENV_FILE_MAX + 1, f);
    if (ferror(f) || len > ENV_FILE_MAX || memchr(data, '\0', len)) {
        const char *why = ferror(f) ? strerror(errno) : len > ENV_FILE_MAX ? "larger than 1 MiB" : "not a text file";

        (void)fclose(f);
        free(data);
        return cli_usage("--env-file: %s: %s", path, why);
    }
    (void)fclose(f);
    *ret = data;
    *ret_len = len;
    return CLI_OK;
}

/* One NAME=value or NAME per line, taken literally; empty lines and lines that start with '#' don't count. */
static int add_file(char ***env, size_t *count, const char *path)
{
    char *data = NULL, *line, *end;
    size_t len = 0, number = 0;
    int r = read_env_file(path, &data, &len);

    if (r != CLI_OK)
        return r;
    for (line = data; line < data + len; line = end + 1) {
        size_t n;

        number++;
        end = memchr(line, '\n', (size_t)(data + len - line));
        if (!end)
            end = data + len;
        line += strspn(line, " \t");
        n = line < end ? (size_t)(end - line) : 0;
        if (n > 0 && line[n - 1] == '\r')
            n--;
        if (n == 0 || line[0] == '#')
            continue;
        if (add_one(env, count, line, n) < 0) {
            r = cli_usage("--env-file: %s:%zu: not NAME=value", path, number);
            break;
        }
    }
    free(data);
    return r;
}

int session_env(const struct cli_list *files, const struct cli_list *values, char ***ret)
{
    char **env = text_alloc(1, sizeof(*env));
    size_t count = 0;
    int r = CLI_OK;

    for (size_t i = 0; i < files->count && r == CLI_OK; i++)
        r = add_file(&env, &count, files->items[i]);
    for (size_t i = 0; i < values->count && r == CLI_OK; i++) {
        if (add_one(&env, &count, values->items[i], strlen(values->items[i])) < 0)
            r = cli_usage("--env: '%s' is not NAME=value", values->items[i]);
    }
    if (r != CLI_OK) {
        session_env_free(env);
        return r;
    }
    *ret = env;
    return CLI_OK;
}

void session_env_free(char **env)
{
    for (size_t i = 0; env && env[i]; i++)
        free(env[i]);
    free(env);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

struct captures {
    struct capture *out, *err;
};

static int start_captures(struct captures *c, struct ic_exec_options *options, struct ic_error *error)
{
    int r = capture_start(&c->out, SESSION_CAPTURE_MAX, &options->stdout_fd);

    if (r == 0)
        r = capture_start(&c->err, SESSION_CAPTURE_MAX, &options->stderr_fd);
    if (r == 0)
        return 0;
    error->code = IC_ERR_IO;
    (void)snprintf(error->message, sizeof(error->message), "can't capture the command's output: %s", strerror(-r));
    return -IC_ERR_IO;
}

static void finish_captures(struct captures *c, struct session_result *result)
{
    if (c->out)
        capture_finish(c->out, &result->out, &result->out_len, &result->out_truncated);
    if (c->err)
        capture_finish(c->err, &result->err, &result->err_len, &result->err_truncated);
}

static void fill_options(struct ic_exec_options *ret, const struct session_options *options, char *const *env)
{
    ic_exec_options_init(ret);
    ret->argv = (const char *const *)options->argv;
    ret->env = (const char *const *)env;
    ret->cwd = options->cwd;
    ret->user = options->user;
    ret->timeout_ms = options->timeout.value;
    ret->no_timeout = options->timeout.given && options->timeout.value == 0;
    ret->max_output_bytes = options->max_output.value;
    ret->no_max_output = options->max_output.given && options->max_output.value == 0;
    ret->tty = options->tty;
    if (options->tty)
        tty_size(0, &ret->rows, &ret->cols);
    ret->stdin_fd = options->interactive ? 0 : -1;
    ret->stdout_fd = 1;
    ret->stderr_fd = 2;
}

static int start_and_wait(ic_vm *vm, const struct session_options *options, const struct ic_exec_options *exec_options,
        struct session_result *result, struct ic_error *error)
{
    uint64_t start_ms = tty_now_ms();
    ic_exec *exec = NULL;
    int r;

    r = ic_vm_exec_start(vm, exec_options, &exec, error);
    if (r < 0)
        return r;
    signals_attach(exec, options->tty);
    if (options->tty) {
        tty_follow_size(0, exec);
        if (options->interactive)
            (void)tty_raw(0);
    }
    r = ic_exec_wait(exec, &result->exec, error);
    tty_restore();
    if (options->tty)
        tty_unfollow_size();
    signals_detach();
    ic_exec_free(exec);
    result->command_ms = tty_now_ms() - start_ms;
    return r;
}

int session_run(ic_vm *vm, const struct session_options *options, char *const *env, struct session_result *ret,
        struct ic_error *error)
{
    struct session_result result = {.exec.size = sizeof(result.exec)};
    struct ic_exec_options exec_options;
    struct captures captures = {0};
    int r = 0;

    fill_options(&exec_options, options, env);
    (void)fflush(stdout);
    if (options->json)
        r = start_captures(&captures, &exec_options, error);
    if (r == 0)
        r = start_and_wait(vm, options, &exec_options, &result, error);
    finish_captures(&captures, &result);
    if (r < 0) {
        session_result_deinit(&result);
        return r;
    }
    *ret = result;
    return 0;
}

void session_result_deinit(struct session_result *result)
{
    free(result->out);
    free(result->err);
    result->out = result->err = NULL;
}

/* ---- reporting --------------------------------------------------------------------------------------------------- */

void session_explain(const struct session_options *options, const struct session_result *result)
{
    const struct ic_exec_result *e = &result->exec;
    const char *program = options->argv[0];
    char took[32];

    switch (e->outcome) {
    case IC_EXEC_OUTPUT_LIMIT:
        cli_error("%s: %s; it was killed; see --max-output", program, e->message);
        return;
    case IC_EXEC_TIMED_OUT:
        if (e->message[0]) {
            cli_error("%s: %s", program, e->message);
            return;
        }
        value_format_duration(result->command_ms, took);
        cli_error("%s: timed out after %s", program, took);
        return;
    case IC_EXEC_OUT_OF_MEMORY:
        if (options->memory_mib)
            cli_error("%s: the guest ran out of memory (it has %u MiB; see --memory)", program, options->memory_mib);
        else
            cli_error("%s: the guest ran out of memory", program);
        return;
    case IC_EXEC_NOT_FOUND:
        cli_error("%s", e->message[0] ? e->message : "command not found");
        return;
    case IC_EXEC_NOT_EXECUTABLE:
        cli_error("%s", e->message[0] ? e->message : "command can't be executed");
        return;
    case IC_EXEC_EXITED:
    case IC_EXEC_SIGNALED:
        return;
    }
}

static const char *outcome_name(enum ic_exec_outcome outcome)
{
    switch (outcome) {
    case IC_EXEC_EXITED:
        return "exited";
    case IC_EXEC_SIGNALED:
        return "signaled";
    case IC_EXEC_TIMED_OUT:
        return "timed out";
    case IC_EXEC_OUT_OF_MEMORY:
        return "out of memory";
    case IC_EXEC_NOT_FOUND:
        return "not found";
    case IC_EXEC_NOT_EXECUTABLE:
        return "not executable";
    case IC_EXEC_OUTPUT_LIMIT:
        return "output limit";
    }
    return "unknown";
}

static void put_output(struct json *j, const char *name, const char *data, size_t len, bool truncated)
{
    struct text key = {0}, base64 = {0};
    /* A cut inside a character is no reason to call all of it binary. */
    size_t usable = len;

    while (truncated && len - usable < 4 && usable > 0 && !text_is_utf8(data, usable))
        usable--;
    if (text_is_utf8(data, usable)) {
        json_key(j, name);
        json_bytes(j, data ? data : "", usable);
    } else {
        text_printf(&key, "%s_base64", name);
        text_put_base64(&base64, data, len);
        json_key(j, key.data);
        json_string(j, text_str(&base64));
        text_deinit(&key);
        text_deinit(&base64);
    }
    text_printf(&key, "%s_truncated", name);
    json_key(j, key.data);
    json_bool(j, truncated);
    text_deinit(&key);
}

void session_json(struct json *j, const struct session_result *result)
{
    const struct ic_exec_result *e = &result->exec;
    bool by_signal = e->outcome == IC_EXEC_SIGNALED || e->outcome == IC_EXEC_TIMED_OUT ||
                     e->outcome == IC_EXEC_OUT_OF_MEMORY || e->outcome == IC_EXEC_OUTPUT_LIMIT;

    json_key(j, "status");
    json_i64(j, e->status);
    json_key(j, "outcome");
    json_string(j, outcome_name(e->outcome));
    json_key(j, "exit_code");
    if (e->outcome == IC_EXEC_EXITED)
        json_i64(j, e->exit_code);
    else
        json_null(j);
    json_key(j, "signal");
    if (by_signal)
        json_i64(j, e->signal);
    else
        json_null(j);
    json_key(j, "message");
    json_string(j, e->message[0] ? e->message : NULL);
    json_key(j, "command_ms");
    json_u64(j, result->command_ms);
    json_key(j, "user_us");
    json_u64(j, e->user_us);
    json_key(j, "system_us");
    json_u64(j, e->system_us);
    json_key(j, "max_rss_kib");
    json_u64(j, e->max_rss_kib);
    put_output(j, "stdout", result->out, result->out_len, result->out_truncated);
    put_output(j, "stderr", result->err, result->err_len, result->err_truncated);
}

void session_json_error(int r, const struct ic_error *error, int status)
{
    struct json j = {.one_line = true};

    json_begin_object(&j);
    json_key(&j, "status");
    json_i64(&j, status);
    json_key(&j, "error");
    json_begin_object(&j);
    json_key(&j, "code");
    json_string(&j, ic_error_name((enum ic_error_code) - r));
    json_key(&j, "message");
    json_string(&j, error->message);
    json_end(&j);
    json_end(&j);
    json_print(&j);
}
