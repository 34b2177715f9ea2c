/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One command in a VM, as `run` and `exec` both do it: terminal, signals,
 * environment, captured output for --json, and the exit status.
 */
#pragma once

#include "cli/cli.h"
#include "cli/json.h"

#define SESSION_CAPTURE_MAX ((size_t)16 << 20) /* bytes kept of each output under --json */

struct session_options {
    bool interactive, tty, json, quiet;
    struct cli_list env, env_files;
    const char *cwd, *user;
    struct cli_number timeout;    /* ms */
    struct cli_number max_output; /* bytes */
    uint32_t memory_mib;          /* for a message; 0: not known */
    char *const *argv;
};

struct session_result {
    struct ic_exec_result exec;
    uint64_t command_ms;
    char *out, *err; /* captured under json */
    size_t out_len, err_len;
    bool out_truncated, err_truncated;
};

/* CLI_OK, or CLI_USAGE after a message: what can be checked before a VM is started. */
int session_check(const struct session_options *options);

/*
 * NAME=value strings of --env-file and -e, in this order, NULL-terminated; a bare NAME takes the host's value, or is
 * left out. CLI_OK or CLI_USAGE after a message. Free with session_env_free.
 */
int session_env(const struct cli_list *files, const struct cli_list *values, char ***ret);
void session_env_free(char **env);

/* Runs it to its end. 0, or a negative error of libironclaw with *error filled. signals_init() must have been called.
 */
int session_run(ic_vm *vm, const struct session_options *options, char *const *env, struct session_result *ret,
        struct ic_error *error);
void session_result_deinit(struct session_result *result);

/* Says on stderr why a command did not end by itself (timeout, not found, ...); nothing when it did. */
void session_explain(const struct session_options *options, const struct session_result *result);
/* The members "status" to "stderr" of the result object. */
void session_json(struct json *j, const struct session_result *result);
/* The whole object when there is no result: {"status": ..., "error": {"code", "message"}}. */
void session_json_error(int r, const struct ic_error *error, int status);
