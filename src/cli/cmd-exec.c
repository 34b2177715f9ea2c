/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include "cli/session.h"
#include "cli/signals.h"

struct exec_args {
    bool interactive, tty, json;
    struct cli_list env, env_files;
    struct cli_number timeout, max_output;
    const char *workdir, *user;
};

#define FIELD(f) offsetof(struct exec_args, f)

static const struct cli_option options[] = {
        {'i', "interactive", NULL, "connect standard input", CLI_FLAG, FIELD(interactive), 0},
        {'t', "tty", NULL, "give the command a terminal (with -i: this one)", CLI_FLAG, FIELD(tty), 0},
        {'e', "env", "NAME=VALUE", "set a variable; NAME alone takes its value here", CLI_LIST, FIELD(env), 0},
        {0, "env-file", "FILE", "read variables from FILE", CLI_LIST, FIELD(env_files), CLI_COMPLETE_FILE},
        {'w', "workdir", "DIR", "run it in DIR of the guest", CLI_STRING, FIELD(workdir), 0},
        {'u', "user", "USER", "run it as USER (name, or uid[:gid])", CLI_STRING, FIELD(user), 0},
        {0, "timeout", "TIME", "end the command after 500ms, 10s, 2m; 0: never", CLI_DURATION, FIELD(timeout), 0},
        {0, "max-output", "SIZE", "kill it when it writes more: 64k, 10m; 0: no limit", CLI_BYTES, FIELD(max_output),
                0},
        {0, "json", NULL, "print one JSON object with the result and the output", CLI_FLAG, FIELD(json), 0},
        {0},
};

static int run_in(ic_vm *vm, const struct session_options *session, char *const *env)
{
    struct session_result result = {0};
    struct ic_error error = {0};
    struct json j = {.one_line = true};
    int r, status;

    r = session_run(vm, session, env, &result, &error);
    if (r < 0) {
        status = cli_fail(r, &error);
        if (session->json)
            session_json_error(r, &error, status);
        return status;
    }
    status = result.exec.status;
    session_explain(session, &result);
    if (session->json) {
        json_begin_object(&j);
        session_json(&j, &result);
        json_end(&j);
        json_print(&j);
    }
    session_result_deinit(&result);
    return status;
}

static int exec_main(const struct cli_call *call)
{
    const struct exec_args *a = call->args;
    struct session_options session = {.interactive = a->interactive,
            .tty = a->tty,
            .json = a->json,
            .cwd = a->workdir,
            .user = a->user,
            .timeout = a->timeout,
            .max_output = a->max_output,
            .argv = call->operands + 1};
    struct ic_error error = {0};
    char **env = NULL;
    ic_vm *vm = NULL;
    int r, status;

    status = session_check(&session);
    if (status == CLI_OK)
        status = session_env(&a->env_files, &a->env, &env);
    if (status != CLI_OK)
        return status;
    signals_init();
    r = ic_open_vm(call->operands[0], &vm, &error);
    if (r < 0) {
        status = cli_fail(r, &error);
        if (a->json)
            session_json_error(r, &error, status);
    } else {
        status = run_in(vm, &session, env);
    }
    ic_vm_free(vm);
    session_env_free(env);
    return status;
}

const struct cli_command cmd_exec = {
        .name = "exec",
        .operands = "VM [--] COMMAND [ARG...]",
        .summary = "Run another command in a VM",
        .details = "VM is an id or the unique beginning of one.",
        .options = options,
        .args_size = sizeof(struct exec_args),
        .min_operands = 2,
        .max_operands = SIZE_MAX,
        .stops = true,
        .complete = CLI_COMPLETE_VM_COMMAND,
        .run = exec_main,
};
