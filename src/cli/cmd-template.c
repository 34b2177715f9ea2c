/* SPDX-License-Identifier: Apache-2.0 */
/* template build, ls, rm, verify, prune */
#include "cli/commands.h"

#include <stdio.h>

#include "cli/config.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/snapshots.h"

static const struct snapshots_kind templates = {
        .word = "template",
        .list = ic_template_list,
        .remove = ic_template_remove,
        .verify = ic_template_verify,
};

/* ---- build ------------------------------------------------------------------------------------------------------- */

struct build_args {
    bool force, quiet;
    struct cli_machine machine;
};

#define FIELD(f) offsetof(struct build_args, f)

static const struct cli_option build_options[] = {
        {'m', "memory", "SIZE", "the guest's memory: 256 (MiB), 512m, 1g", CLI_MEMORY, FIELD(machine.memory), 0},
        {0, "cpus", "N", "virtual CPUs, 1 to 32", CLI_STRING, FIELD(machine.cpus), 0},
        {0, "image", "NAME", "the image to boot (base)", CLI_STRING, FIELD(machine.image), CLI_COMPLETE_IMAGE},
        {0, "backend", "auto|ironclaw|firecracker|qemu", "what runs the VM", CLI_CHOICE, FIELD(machine.backend), 0},
        {0, "guest-seccomp", "minimal|basic|permissive", "what commands may ask of the guest's kernel (basic)",
                CLI_CHOICE, FIELD(machine.guest_seccomp), 0},
        {0, "config", "FILE", "read the VM's configuration (JSON)", CLI_STRING, FIELD(machine.config),
                CLI_COMPLETE_FILE},
        {'f', "force", NULL, "make it again though it is there", CLI_FLAG, FIELD(force), 0},
        {'q', "quiet", NULL, "no progress", CLI_FLAG, FIELD(quiet), 0},
        {0},
};

static int build_main(const struct cli_call *call)
{
    const struct build_args *a = call->args;
    struct ic_vm_config config;
    struct ic_error error = {0};
    struct progress progress;
    bool built = false;
    char name[65];
    int status, r;

    ic_vm_config_init(&config);
    status = cli_config_machine(&config, &a->machine);
    if (status == CLI_OK) {
        signals_init();
        progress_init(&progress, a->quiet);
        config.progress = progress_update;
        config.progress_userdata = &progress;
        r = ic_template_build(&config, a->force, name, &built, &error);
        progress_finish(&progress);
        status = r < 0 ? cli_fail(r, &error) : CLI_OK;
    }
    ic_vm_config_deinit(&config);
    if (status == CLI_OK && !a->quiet)
        (void)fprintf(stderr, "ironclaw: template %s %s\n", name, built ? "is made" : "is there already");
    if (status == CLI_OK)
        (void)printf("%s\n", name);
    return status;
}

const struct cli_command cmd_template_build = {
        .name = "template build",
        .operands = "",
        .summary = "Boot a VM once, for all that are configured alike to start from",
        .details = "'ironclaw run' does this by itself when it first needs one.",
        .options = build_options,
        .args_size = sizeof(struct build_args),
        .run = build_main,
};

/* ---- ls, rm, verify ---------------------------------------------------------------------------------------------- */

static int ls_main(const struct cli_call *call)
{
    return snapshots_ls(call, &templates);
}

static int rm_main(const struct cli_call *call)
{
    return snapshots_rm(call, &templates);
}

static int verify_main(const struct cli_call *call)
{
    return snapshots_verify(call, &templates);
}

const struct cli_command cmd_template_ls = {
        .name = "template ls",
        .operands = "",
        .summary = "List templates",
        .options = snapshots_ls_options,
        .args_size = sizeof(struct snapshots_ls_args),
        .run = ls_main,
};

const struct cli_command cmd_template_rm = {
        .name = "template rm",
        .operands = "NAME...",
        .summary = "Remove templates; the next VM that needs one makes it again",
        .options = snapshots_rm_options,
        .args_size = sizeof(struct snapshots_rm_args),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_TEMPLATE,
        .run = rm_main,
};

const struct cli_command cmd_template_verify = {
        .name = "template verify",
        .operands = "[NAME...]",
        .summary = "Compute every digest of templates again",
        .details = "Without NAME: all of them.",
        .options = snapshots_verify_options,
        .args_size = sizeof(struct snapshots_verify_args),
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_TEMPLATE,
        .run = verify_main,
};

/* ---- prune ------------------------------------------------------------------------------------------------------- */

struct prune_args {
    struct cli_number age, total;
};

static const struct cli_option prune_options[] = {
        {0, "max-age", "DAYS", "remove what was not used for so many days", CLI_COUNT, offsetof(struct prune_args, age),
                0},
        {0, "max-total", "SIZE", "and the longest unused, until all have less", CLI_MEMORY,
                offsetof(struct prune_args, total), 0},
        {0},
};

static int prune_main(const struct cli_call *call)
{
    const struct prune_args *a = call->args;
    bool given = a->age.given || a->total.given;
    struct ic_error error = {0};
    size_t removed = 0;
    /* One that is not given sets no limit beside the other. */
    int r = ic_template_prune(a->age.given ? a->age.value
                              : given      ? UINT16_MAX
                                           : UINT32_MAX,
            a->total.given ? a->total.value
            : given        ? 0
                           : UINT32_MAX,
            &removed, &error);

    if (r < 0)
        return cli_fail(r, &error);
    (void)printf("%zu removed\n", removed);
    return CLI_OK;
}

const struct cli_command cmd_template_prune = {
        .name = "template prune",
        .operands = "",
        .summary = "Remove templates that nobody needs",
        .details = "Without options: as config.json says (\"templates\"), which each build does, too.",
        .options = prune_options,
        .args_size = sizeof(struct prune_args),
        .run = prune_main,
};
