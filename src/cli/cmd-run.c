/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run: a VM, one command in it, and nothing left.
 *
 * Order matters: everything that can be checked is checked before the VM
 * exists; signals are ours before it is started; and from then on each way out
 * passes finish(), which destroys a VM that is not to be kept while signals
 * wait.
 */
#include "cli/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/config.h"
#include "cli/progress.h"
#include "cli/session.h"
#include "cli/signals.h"
#include "cli/tty.h"

struct run_args {
    bool interactive, tty, rm, keep, require_hardware, strict, cold, quiet, json;
    struct cli_list env, env_files;
    struct cli_number memory, timeout, max_lifetime, max_output, max_connections, max_disk, max_disk_ops;
    const char *workdir, *user, *cpus, *name, *image, *backend, *jail, *guest_seccomp, *config;
};

#define FIELD(f) offsetof(struct run_args, f)

static const struct cli_option options[] = {
        {'i', "interactive", NULL, "connect standard input", CLI_FLAG, FIELD(interactive), 0},
        {'t', "tty", NULL, "give the command a terminal (with -i: this one)", CLI_FLAG, FIELD(tty), 0},
        {0, "rm", NULL, "remove the VM afterwards (the default)", CLI_FLAG, FIELD(rm), 0},
        {'d', "keep", NULL, "leave the VM running; without COMMAND only start it", CLI_FLAG, FIELD(keep), 0},
        {'e', "env", "NAME=VALUE", "set a variable; NAME alone takes its value here", CLI_LIST, FIELD(env), 0},
        {0, "env-file", "FILE", "read variables from FILE", CLI_LIST, FIELD(env_files), CLI_COMPLETE_FILE},
        {'w', "workdir", "DIR", "run it in DIR of the guest", CLI_STRING, FIELD(workdir), 0},
        {'u', "user", "USER", "run it as USER (name, or uid[:gid])", CLI_STRING, FIELD(user), 0},
        {'m', "memory", "SIZE", "the guest's memory: 256 (MiB), 512m, 1g", CLI_MEMORY, FIELD(memory), 0},
        {0, "cpus", "N", "virtual CPUs, 1 to 32", CLI_STRING, FIELD(cpus), 0},
        {0, "timeout", "TIME", "end the command after 500ms, 10s, 2m; 0: never", CLI_DURATION, FIELD(timeout), 0},
        {0, "max-lifetime", "TIME", "end the VM after so long, whatever it does", CLI_DURATION, FIELD(max_lifetime), 0},
        {0, "max-output", "SIZE", "kill a command that writes more: 64k, 10m", CLI_BYTES, FIELD(max_output), 0},
        {0, "max-connections", "N", "connections at a time (a command has one), 4 to 1023", CLI_COUNT,
                FIELD(max_connections), 0},
        {0, "max-disk", "N", "MiB/s from, and to, each of the host's disks", CLI_COUNT, FIELD(max_disk), 0},
        {0, "max-disk-ops", "N", "the same in reads, and in writes, a second", CLI_COUNT, FIELD(max_disk_ops), 0},
        {0, "name", "ID", "name the VM", CLI_STRING, FIELD(name), 0},
        {0, "image", "NAME", "the image to boot (base)", CLI_STRING, FIELD(image), CLI_COMPLETE_IMAGE},
        {0, "backend", "auto|ironclaw|firecracker|qemu", "what runs the VM", CLI_CHOICE, FIELD(backend), 0},
        {0, "require-hardware-isolation", NULL, "refuse software emulation", CLI_FLAG, FIELD(require_hardware), 0},
        {0, "jail", "auto|strict|off", "confine its processes as far as this host can, fully, or not", CLI_CHOICE,
                FIELD(jail), 0},
        {0, "strict", NULL, "the same as --jail strict", CLI_FLAG, FIELD(strict), 0},
        {0, "guest-seccomp", "minimal|basic|permissive", "what commands may ask of the guest's kernel (basic)",
                CLI_CHOICE, FIELD(guest_seccomp), 0},
        {0, "cold", NULL, "boot, though there is a template to start from", CLI_FLAG, FIELD(cold), 0},
        {0, "config", "FILE", "read the VM's configuration (JSON)", CLI_STRING, FIELD(config), CLI_COMPLETE_FILE},
        {'q', "quiet", NULL, "say nothing about the VM", CLI_FLAG, FIELD(quiet), 0},
        {0, "json", NULL, "print one JSON object with the result and the output", CLI_FLAG, FIELD(json), 0},
        {0},
};

struct run {
    const struct run_args *args;
    struct session_options session;
    struct ic_vm_config config;
    struct ic_vm_info info;
    char **env;
    bool has_command;
    bool started; /* and not cancelled while it did: from now on --keep holds */
    ic_vm *vm;
};

/* ---- configuration: config.json, then --config, then the options ---------------------------------------------------
 */

static int apply_options(struct run *run)
{
    const struct run_args *a = run->args;
    struct ic_vm_config *config = &run->config;
    int r;

    if ((r = cli_config_set(config, "vm_id", a->name)) || (r = cli_config_set(config, "image", a->image)) ||
            (r = cli_config_set(config, "backend", a->backend)) ||
            (r = cli_config_set(config, "vcpu_count", a->cpus)) || (r = cli_config_set(config, "user", a->user)) ||
            (r = cli_config_set_number(config, "memory_mib", &a->memory)) ||
            (r = cli_config_set_number(config, "timeout_ms", &a->timeout)) ||
            (r = cli_config_set(config, "guest_seccomp", a->guest_seccomp)) ||
            (r = cli_config_set(config, "jail", a->strict ? "strict" : a->jail)) ||
            (r = cli_config_set_number(config, "max_lifetime_ms", &a->max_lifetime)) ||
            (r = cli_config_set_number(config, "max_output_bytes", &a->max_output)) ||
            (r = cli_config_set_number(config, "max_connections", &a->max_connections)) ||
            (r = cli_config_set_number(config, "max_disk_mib_per_s", &a->max_disk)) ||
            (r = cli_config_set_number(config, "max_disk_ops_per_s", &a->max_disk_ops)) ||
            (r = cli_config_set(config, "require_hardware_isolation", a->require_hardware ? "true" : NULL)) ||
            (r = cli_config_set(config, "cold_start", a->cold ? "true" : NULL)))
        return r;
    /* The environment belongs to the VM: later commands in a kept one have it too. */
    for (size_t i = 0; run->env[i]; i++) {
        r = cli_config_set(config, "env", run->env[i]);
        if (r != CLI_OK)
            return r;
    }
    config->keep = a->keep;
    config->tied_to_caller = !a->keep;
    return CLI_OK;
}

static int configure(struct run *run)
{
    struct ic_error error = {0};
    int r;

    r = cli_config_load(&run->config);
    if (r != CLI_OK)
        return r;
    if (run->args->config) {
        r = ic_vm_config_load_file(&run->config, run->args->config, &error);
        if (r < 0)
            return cli_usage("%s", error.message);
    }
    r = session_env(&run->args->env_files, &run->args->env, &run->env);
    if (r == CLI_OK)
        r = apply_options(run);
    if (r != CLI_OK)
        return r;
    r = ic_vm_config_validate(&run->config, &error);
    return r < 0 ? cli_config_fail(r, &error) : CLI_OK;
}

static int check(const struct run *run)
{
    const struct run_args *a = run->args;

    if (a->keep && a->rm)
        return cli_usage("--keep and --rm exclude each other");
    if (a->strict && a->jail && strcmp(a->jail, "strict") != 0)
        return cli_usage("--strict and --jail %s exclude each other", a->jail);
    if (a->name && !a->name[0])
        return cli_usage("--name is empty; without it the VM gets a name of its own");
    if (!run->has_command && !a->keep)
        return cli_usage("no command given; for a shell: ironclaw run -it -- bash");
    if (!run->has_command && (a->interactive || a->tty || a->workdir))
        return cli_usage("-i, -t and -w need a command");
    return run->has_command ? session_check(&run->session) : CLI_OK;
}

/* ---- the VM ------------------------------------------------------------------------------------------------------ */

static int fail(const struct run *run, int r, const struct ic_error *error)
{
    int status = cli_fail(r, error);

    if (run->args->json)
        session_json_error(r, error, status);
    return status;
}

/* Isolation by hardware and a jail are what everybody expects, so only less than that is worth a line. A group of its
 * own bounds what the VM takes, not what it reaches: without one there is nothing to warn of. */
static void announce(const struct run *run)
{
    const struct ic_vm_info *info = &run->info;
    bool jailed = !info->jail_missing[0] || strcmp(info->jail_missing, "cgroup") == 0;

    if (run->args->quiet || run->args->json || (info->isolation == IC_ISOLATION_HARDWARE && jailed))
        return;
    (void)fprintf(stderr, "ironclaw: backend %s, isolation: %s%s%s\n", ic_backend_name(info->backend),
            ic_isolation_name(info->isolation),
            jailed ? "" : ", its jail is without: ", jailed ? "" : info->jail_missing);
}

static void put_vm(struct json *j, const struct ic_vm_info *info)
{
    json_key(j, "vm_id");
    json_string(j, info->vm_id);
    json_key(j, "image");
    json_string(j, info->image);
    json_key(j, "image_digest");
    json_string(j, info->image_digest);
    json_key(j, "backend");
    json_string(j, ic_backend_name(info->backend));
    json_key(j, "isolation");
    json_string(j, ic_isolation_name(info->isolation));
    json_key(j, "kept");
    json_bool(j, info->keep);
    json_key(j, "origin");
    json_string(j, info->origin);
    json_key(j, "boot_ms");
    json_u64(j, info->boot_ms);
}

static int run_command(struct run *run)
{
    struct session_result result = {0};
    struct ic_error error = {0};
    struct json j = {.one_line = true};
    int r, status;

    run->session.memory_mib = run->info.memory_mib;
    r = session_run(run->vm, &run->session, NULL, &result, &error);
    if (r < 0)
        return fail(run, r, &error);
    status = result.exec.status;
    session_explain(&run->session, &result);
    if (run->args->json) {
        json_begin_object(&j);
        put_vm(&j, &run->info);
        session_json(&j, &result);
        json_end(&j);
        json_print(&j);
    }
    session_result_deinit(&result);
    return status;
}

static void print_id(const struct run *run)
{
    struct json j = {.one_line = true};

    if (run->args->json) {
        json_begin_object(&j);
        put_vm(&j, &run->info);
        json_end(&j);
        json_print(&j);
    } else {
        (void)printf("%s\n", run->info.vm_id);
    }
}

static int start(struct run *run)
{
    struct ic_error error = {0};
    int r;

    struct progress progress;

    signals_init();
    progress_init(&progress, run->args->quiet || run->args->json || !tty_is(2));
    run->config.progress = progress_update;
    run->config.progress_userdata = &progress;
    r = ic_spawn_vm_with_config(&run->config, &run->vm, &error);
    progress_finish(&progress);
    run->config.progress = NULL;
    if (r >= 0) {
        run->info.size = sizeof(run->info);
        r = ic_vm_info(run->vm, &run->info, &error);
    }
    return r < 0 ? fail(run, r, &error) : CLI_OK;
}

static int finish(struct run *run, int status)
{
    struct ic_error error = {0};
    int r;

    signals_hold();
    if (run->vm && run->started && !run->args->keep && run->config.overlay.kind == IC_OVERLAY_EXT4)
        (void)ic_vm_stop(run->vm, 0, NULL); /* what the command wrote is to be on the disk */
    if (run->vm && !(run->args->keep && run->started)) {
        r = ic_destroy_vm(run->vm, &error);
        if (r < 0) {
            cli_error("%s", error.message);
            status = CLI_FAILED;
        }
    } else if (run->vm && run->has_command && !run->args->quiet && !run->args->json) {
        (void)fprintf(
                stderr, "ironclaw: VM %s is kept; 'ironclaw rm -f %s' removes it\n", run->info.vm_id, run->info.vm_id);
    }
    ic_vm_free(run->vm);
    ic_vm_config_deinit(&run->config);
    session_env_free(run->env);
    return status;
}

static int run_vm(struct run *run)
{
    int status = start(run);

    if (status != CLI_OK)
        return status;
    if (signals_pending())
        return 128 + signals_pending();
    run->started = true;
    announce(run);
    if (run->has_command)
        return run_command(run);
    print_id(run);
    return CLI_OK;
}

static int run_main(const struct cli_call *call)
{
    const struct run_args *a = call->args;
    struct run run = {
            .args = a,
            .has_command = call->operand_count > 0,
            .session = {.interactive = a->interactive,
                    .tty = a->tty,
                    .json = a->json,
                    .quiet = a->quiet,
                    .cwd = a->workdir,
                    .argv = call->operands},
    };
    int status;

    ic_vm_config_init(&run.config);
    status = check(&run);
    if (status == CLI_OK)
        status = configure(&run);
    if (status == CLI_OK)
        status = run_vm(&run);
    return finish(&run, status);
}

const struct cli_command cmd_run = {
        .name = "run",
        .operands = "[--] COMMAND [ARG...]",
        .summary = "Start a VM, run a command in it, remove the VM",
        .details = "The options end at the first word that is not one, or at '--'. The VM has no network\n"
                   "card and a read-only root image; what the command writes goes with the VM.\n"
                   "With --json the command's output is in the object, at most 16 MiB of each.",
        .options = options,
        .args_size = sizeof(struct run_args),
        .max_operands = SIZE_MAX,
        .stops = true,
        .complete = CLI_COMPLETE_COMMAND,
        .run = run_main,
};
