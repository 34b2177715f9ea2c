/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool start, ls, stop
 *
 * `start` runs itself once more with --foreground, detached, and returns when
 * that says on --ready-fd that all VMs wait.
 */
#include "cli/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/config.h"
#include "cli/detach.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/table.h"
#include "cli/tty.h"

#define DEFAULT_SIZE 4
#define SIZE_LIMIT   64
#define FD_LIMIT     1024
#define VERB_WORDS   2

/* ---- start ------------------------------------------------------------------------------------------------------- */

struct start_args {
    bool foreground, quiet, no_warm_up;
    struct cli_number size, ready_fd;
    struct cli_machine machine;
};

#define FIELD(f) offsetof(struct start_args, f)

static const struct cli_option start_options[] = {
        {'n', "size", "N", "how many VMs wait, 1 to 64 (4)", CLI_COUNT, FIELD(size), 0},
        {'m', "memory", "SIZE", "the guest's memory: 256 (MiB), 512m, 1g", CLI_MEMORY, FIELD(machine.memory), 0},
        {0, "cpus", "N", "virtual CPUs, 1 to 32", CLI_STRING, FIELD(machine.cpus), 0},
        {0, "max-connections", "N", "connections at a time (a command has one), 4 to 1023", CLI_COUNT,
                FIELD(machine.max_connections), 0},
        {0, "max-disk", "N", "MiB/s from, and to, each of the host's disks", CLI_COUNT, FIELD(machine.max_disk), 0},
        {0, "max-disk-ops", "N", "the same in reads, and in writes, a second", CLI_COUNT, FIELD(machine.max_disk_ops),
                0},
        {0, "image", "NAME", "the image to boot (base)", CLI_STRING, FIELD(machine.image), CLI_COMPLETE_IMAGE},
        {0, "backend", "auto|ironclaw|firecracker|qemu", "what runs the VM", CLI_CHOICE, FIELD(machine.backend), 0},
        {0, "jail", "auto|strict|off", "confine its processes as far as this host can, fully, or not", CLI_CHOICE,
                FIELD(machine.jail), 0},
        {0, "guest-seccomp", "minimal|basic|permissive", "what commands may ask of the guest's kernel (basic)",
                CLI_CHOICE, FIELD(machine.guest_seccomp), 0},
        {0, "config", "FILE", "read the VM's configuration (JSON)", CLI_STRING, FIELD(machine.config),
                CLI_COMPLETE_FILE},
        {0, "no-warm-up", NULL, "they run nothing before they wait, not even 'true'", CLI_FLAG, FIELD(no_warm_up), 0},
        {0, "foreground", NULL, "stay, until a signal comes", CLI_FLAG, FIELD(foreground), 0},
        {0, "ready-fd", "N", "say on descriptor N when all VMs wait", CLI_COUNT, FIELD(ready_fd), 0},
        {'q', "quiet", NULL, "no progress", CLI_FLAG, FIELD(quiet), 0},
        {0},
};

static void say_ready(void *userdata, const char *name)
{
    const struct start_args *a = userdata;

    if (a->ready_fd.given)
        detach_say((int)a->ready_fd.value, name);
    else
        (void)printf("%s\n", name);
    (void)fflush(stdout);
}

static int keep(const struct start_args *a, char *const *command)
{
    static const char *const nothing[] = {NULL};
    const struct ic_pool_options options = {.size = sizeof(options),
            .count = a->size.given ? a->size.value : DEFAULT_SIZE,
            .warm_up = a->no_warm_up ? nothing : (const char *const *)command,
            .ready = say_ready,
            .userdata = (void *)a};
    struct ic_error error = {0};
    struct ic_vm_config config;
    struct progress progress;
    int status, r;

    ic_vm_config_init(&config);
    status = cli_config_machine(&config, &a->machine);
    if (status == CLI_OK) {
        signals_init();
        progress_init(&progress, a->quiet || !tty_is(2));
        config.progress = progress_update;
        config.progress_userdata = &progress;
        r = ic_pool_run(&config, &options, &error);
        progress_finish(&progress);
        status = r < 0 ? cli_fail(r, &error) : CLI_OK;
    }
    ic_vm_config_deinit(&config);
    return status;
}

static int start_main(const struct cli_call *call)
{
    const struct start_args *a = call->args;
    char name[64] = "";
    int status;

    if (a->size.given && (a->size.value < 1 || a->size.value > SIZE_LIMIT))
        return cli_usage("--size %u: must be 1 to %d", a->size.value, SIZE_LIMIT);
    if (a->ready_fd.given && (!a->foreground || a->ready_fd.value > FD_LIMIT))
        return cli_usage("--ready-fd: a number of a descriptor, and only with --foreground");
    if (a->ready_fd.given && !detach_can_say((int)a->ready_fd.value))
        return cli_usage("--ready-fd %u: no descriptor that is open for writing", a->ready_fd.value);
    if (a->no_warm_up && call->operand_count > 0)
        return cli_usage("--no-warm-up and a command: one or the other");
    if (a->foreground)
        return keep(a, call->operand_count > 0 ? call->operands : NULL);
    status = detach_again(call->argv, VERB_WORDS, name, sizeof(name));
    if (status == CLI_OK)
        (void)printf("%s\n", name);
    return status;
}

const struct cli_command cmd_pool_start = {
        .name = "pool start",
        .operands = "[[--] COMMAND [ARG...]]",
        .summary = "Keep VMs waiting for 'run', which then takes one at once",
        .details = "Commands that start a VM of this configuration without a name take one that waits, if there\n"
                   "is one; others are made in their place. The pool is a process of yours until 'pool stop'.\n"
                   "\n"
                   "Each VM runs COMMAND (true) before it waits, so that what the next one needs is in its memory:\n"
                   "'pool start -- python3 -c \"import json\"'. It must end well; what it leaves running goes on when\n"
                   "the VM is taken. Each VM has randomness and ids of its own before, and gets others when taken.",
        .options = start_options,
        .args_size = sizeof(struct start_args),
        .max_operands = SIZE_MAX,
        .stops = true,
        .run = start_main,
};

/* ---- ls ---------------------------------------------------------------------------------------------------------- */

struct ls_args {
    bool quiet, json;
};

static const struct cli_option ls_options[] = {
        {'q', "quiet", NULL, "names only", CLI_FLAG, offsetof(struct ls_args, quiet), 0},
        {0, "json", NULL, "print a JSON array", CLI_FLAG, offsetof(struct ls_args, json), 0},
        {0},
};

static void put_json(struct json *j, const struct ic_pool_info *info)
{
    json_begin_object(j);
    json_key(j, "name");
    json_string(j, info->name);
    json_key(j, "pid");
    json_i64(j, info->pid);
    json_key(j, "backend");
    json_string(j, ic_backend_name(info->backend));
    json_key(j, "image");
    json_string(j, info->image);
    json_key(j, "vcpu_count");
    json_u64(j, info->vcpu_count);
    json_key(j, "memory_mib");
    json_u64(j, info->memory_mib);
    json_key(j, "ready");
    json_u64(j, info->ready);
    json_key(j, "wanted");
    json_u64(j, info->wanted);
    json_key(j, "handed_over");
    json_u64(j, info->handed_over);
    json_key(j, "trouble");
    json_string(j, info->trouble);
    json_end(j);
}

static void put_row(struct table *t, const struct ic_pool_info *info)
{
    char shape[48], ready[32], taken[24], pid[16];

    (void)snprintf(shape, sizeof(shape), "%u CPU%s, %u MiB", info->vcpu_count, info->vcpu_count == 1 ? "" : "s",
            info->memory_mib);
    (void)snprintf(ready, sizeof(ready), "%u of %u", info->ready, info->wanted);
    (void)snprintf(taken, sizeof(taken), "%llu", (unsigned long long)info->handed_over);
    (void)snprintf(pid, sizeof(pid), "%d", (int)info->pid);
    table_row(t, (const char *const[]){info->name, info->image, ic_backend_name(info->backend), shape, ready, taken,
                         pid, info->trouble[0] ? info->trouble : NULL});
}

static int ls_main(const struct cli_call *call)
{
    const struct ls_args *a = call->args;
    struct ic_pool_info *infos = NULL;
    struct ic_error error = {0};
    struct table table;
    struct json j = {0};
    size_t count = 0;
    int r = ic_pool_list(&infos, &count, &error);

    if (r < 0)
        return cli_fail(r, &error);
    table_init(&table,
            (const char *const[]){"NAME", "IMAGE", "BACKEND", "SHAPE", "READY", "TAKEN", "PID", "TROUBLE", NULL});
    json_begin_array(&j);
    for (size_t i = 0; i < count; i++) {
        put_json(&j, &infos[i]);
        put_row(&table, &infos[i]);
        if (a->quiet && !a->json)
            (void)printf("%s\n", infos[i].name);
    }
    json_end(&j);
    if (a->json)
        json_print(&j);
    else if (!a->quiet)
        table_print(&table);
    json_deinit(&j);
    table_deinit(&table);
    free(infos);
    return CLI_OK;
}

const struct cli_command cmd_pool_ls = {
        .name = "pool ls",
        .operands = "",
        .summary = "List pools",
        .options = ls_options,
        .args_size = sizeof(struct ls_args),
        .run = ls_main,
};

/* ---- stop -------------------------------------------------------------------------------------------------------- */

struct stop_args {
    bool all;
};

static const struct cli_option stop_options[] = {
        {'a', "all", NULL, "all of them", CLI_FLAG, offsetof(struct stop_args, all), 0},
        {0},
};

static int stop_one(const char *name)
{
    struct ic_error error = {0};
    int r = ic_pool_stop(name, &error);

    if (r < 0)
        return cli_fail(r, &error);
    (void)printf("%s\n", name);
    return CLI_OK;
}

static int stop_main(const struct cli_call *call)
{
    const struct stop_args *a = call->args;
    struct ic_pool_info *infos = NULL;
    struct ic_error error = {0};
    int status = CLI_OK, one, r;
    size_t count = 0;

    if (a->all == (call->operand_count > 0))
        return cli_usage(a->all ? "--all and names exclude each other" : "name a pool, or --all");
    for (size_t i = 0; i < call->operand_count; i++) {
        one = stop_one(call->operands[i]);
        status = one != CLI_OK ? one : status;
    }
    r = a->all ? ic_pool_list(&infos, &count, &error) : 0;
    if (r < 0)
        return cli_fail(r, &error);
    for (size_t i = 0; i < count; i++) {
        one = stop_one(infos[i].name);
        status = one != CLI_OK ? one : status;
    }
    free(infos);
    return status;
}

const struct cli_command cmd_pool_stop = {
        .name = "pool stop",
        .operands = "[NAME...]",
        .summary = "End pools and the VMs that wait in them",
        .options = stop_options,
        .args_size = sizeof(struct stop_args),
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_POOL,
        .run = stop_main,
};
