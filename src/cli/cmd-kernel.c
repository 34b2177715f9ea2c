/* SPDX-License-Identifier: Apache-2.0 */
/* kernel ls, build */
#include "cli/commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/json.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/table.h"
#include "cli/values.h"

struct ls_args {
    bool json;
};

static const struct cli_option ls_options[] = {
        {0, "json", NULL, "print a JSON array", CLI_FLAG, offsetof(struct ls_args, json), 0},
        {0},
};

static void put(struct json *j, struct table *t, const struct ic_kernel_info *kernel)
{
    char size[32], digest[13];

    json_begin_object(j);
    json_key(j, "kind");
    json_string(j, kernel->kind);
    json_key(j, "release");
    json_string(j, kernel->release);
    json_key(j, "digest");
    json_string(j, kernel->digest);
    json_key(j, "size_bytes");
    json_u64(j, kernel->size_bytes);
    json_end(j);
    (void)snprintf(digest, sizeof(digest), "%.12s", kernel->digest);
    value_format_bytes(kernel->size_bytes, size);
    table_row(t, (const char *const[]){kernel->kind, kernel->release, digest, size});
}

static int ls_main(const struct cli_call *call)
{
    const struct ls_args *a = call->args;
    struct ic_kernel_info *kernels = NULL;
    struct ic_error error = {0};
    struct table table;
    struct json j = {0};
    size_t count = 0;
    int r;

    r = ic_kernel_list(&kernels, &count, &error);
    if (r < 0)
        return cli_fail(r, &error);
    table_init(&table, (const char *const[]){"KIND", "RELEASE", "DIGEST", "SIZE", NULL});
    json_begin_array(&j);
    for (size_t i = 0; i < count; i++)
        put(&j, &table, &kernels[i]);
    json_end(&j);
    if (a->json)
        json_print(&j);
    else
        table_print(&table);
    json_deinit(&j);
    table_deinit(&table);
    free(kernels);
    return CLI_OK;
}

const struct cli_command cmd_kernel_ls = {
        .name = "kernel ls",
        .operands = "",
        .summary = "List kernels",
        .options = ls_options,
        .args_size = sizeof(struct ls_args),
        .run = ls_main,
};

struct build_args {
    bool force, quiet;
};

static const struct cli_option build_options[] = {
        {'f', "force", NULL, "build it again though it is there", CLI_FLAG, offsetof(struct build_args, force), 0},
        {'q', "quiet", NULL, "no progress", CLI_FLAG, offsetof(struct build_args, quiet), 0},
        {0},
};

static int build_main(const struct cli_call *call)
{
    const struct build_args *a = call->args;
    struct ic_error error = {0};
    struct progress progress;
    int r;

    signals_init();
    progress_init(&progress, a->quiet);
    r = ic_kernel_build(a->force, progress_update, &progress, &error);
    progress_finish(&progress);
    if (r < 0)
        return cli_fail(r, &error);
    if (!a->quiet)
        (void)fprintf(stderr, "ironclaw: the fast kernel is there; 'ironclaw image build --kernel fast' uses it\n");
    return CLI_OK;
}

const struct cli_command cmd_kernel_build = {
        .name = "kernel build",
        .operands = "",
        .summary = "Build the fast kernel from Debian's source (minutes)",
        .options = build_options,
        .args_size = sizeof(struct build_args),
        .run = build_main,
};
