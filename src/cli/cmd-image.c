/* SPDX-License-Identifier: Apache-2.0 */
/* image ls, build, import, inspect, rm, verify */
#include "cli/commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/json.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/table.h"
#include "cli/tty.h"
#include "cli/values.h"
#include "cli/vms.h"

#define DEFAULT_IMAGE    "base"
#define SHORT_DIGEST_LEN 12

/* ---- ls ---------------------------------------------------------------------------------------------------------- */

struct ls_args {
    bool quiet, json, no_trunc;
};

static const struct cli_option ls_options[] = {
        {'q', "quiet", NULL, "names only", CLI_FLAG, offsetof(struct ls_args, quiet), 0},
        {0, "no-trunc", NULL, "show whole digests", CLI_FLAG, offsetof(struct ls_args, no_trunc), 0},
        {0, "json", NULL, "print a JSON array", CLI_FLAG, offsetof(struct ls_args, json), 0},
        {0},
};

static void put_json(struct json *j, const struct ic_image_info *image)
{
    json_begin_object(j);
    json_key(j, "name");
    json_string(j, image->name);
    json_key(j, "digest");
    json_string(j, image->digest);
    json_key(j, "kernel");
    json_string(j, image->kernel);
    json_key(j, "kernel_kind");
    json_string(j, image->kernel_kind);
    json_key(j, "size_bytes");
    json_u64(j, image->size_bytes);
    json_key(j, "created_unix_ms");
    json_i64(j, image->created_unix_ms);
    json_end(j);
}

static void put_row(struct table *t, const struct ls_args *a, const struct ic_image_info *image)
{
    char digest[sizeof(image->digest)], size[32], age[32];
    struct text kernel = {0};

    (void)snprintf(digest, sizeof(digest), "%.*s", a->no_trunc ? 64 : SHORT_DIGEST_LEN, image->digest);
    text_printf(&kernel, "%s (%s)", image->kernel, image->kernel_kind);
    value_format_bytes(image->size_bytes, size);
    value_format_age(tty_unix_ms(), image->created_unix_ms, age);
    table_row(t, (const char *const[]){image->name[0] ? image->name : "<none>", digest, text_str(&kernel), age, size});
    text_deinit(&kernel);
}

static int ls_main(const struct cli_call *call)
{
    const struct ls_args *a = call->args;
    struct ic_image_info *images = NULL;
    struct ic_error error = {0};
    struct table table;
    struct json j = {0};
    size_t count = 0;
    int r;

    r = ic_image_list(&images, &count, &error);
    if (r < 0)
        return cli_fail(r, &error);
    table_init(&table, (const char *const[]){"NAME", "DIGEST", "KERNEL", "CREATED", "SIZE", NULL});
    json_begin_array(&j);
    for (size_t i = 0; i < count; i++) {
        put_json(&j, &images[i]);
        put_row(&table, a, &images[i]);
        if (a->quiet && !a->json)
            (void)printf("%s\n", images[i].name[0] ? images[i].name : images[i].digest);
    }
    json_end(&j);
    if (a->json)
        json_print(&j);
    else if (!a->quiet)
        table_print(&table);
    json_deinit(&j);
    table_deinit(&table);
    free(images);
    return CLI_OK;
}

const struct cli_command cmd_image_ls = {
        .name = "image ls",
        .operands = "",
        .summary = "List images",
        .options = ls_options,
        .args_size = sizeof(struct ls_args),
        .run = ls_main,
};

/* ---- build ------------------------------------------------------------------------------------------------------- */

struct build_args {
    bool force, quiet;
    const char *kernel;
};

static const struct cli_option build_options[] = {
        {0, "kernel", "debian|fast", "the kernel to put in", CLI_CHOICE, offsetof(struct build_args, kernel), 0},
        {'f', "force", NULL, "build it again though nothing changed", CLI_FLAG, offsetof(struct build_args, force), 0},
        {'q', "quiet", NULL, "no progress", CLI_FLAG, offsetof(struct build_args, quiet), 0},
        {0},
};

static int build_main(const struct cli_call *call)
{
    const struct build_args *a = call->args;
    const char *name = call->operand_count ? call->operands[0] : DEFAULT_IMAGE;
    struct progress progress;
    struct ic_image_build_options build = {.size = sizeof(build),
            .name = name,
            .kernel = a->kernel,
            .force = a->force,
            .progress = progress_update,
            .userdata = &progress};
    struct ic_error error = {0};
    bool built = false;
    int r;

    signals_init();
    progress_init(&progress, a->quiet);
    r = ic_image_build(&build, &built, &error);
    progress_finish(&progress);
    if (r < 0)
        return cli_fail(r, &error);
    if (!a->quiet)
        (void)fprintf(stderr, "ironclaw: image %s %s\n", name, built ? "is built" : "is up to date");
    return CLI_OK;
}

const struct cli_command cmd_image_build = {
        .name = "image build",
        .operands = "[NAME]",
        .summary = "Build an image from its recipe (base)",
        .details = "Does nothing when the image is there and nothing that it is made of has changed.",
        .options = build_options,
        .args_size = sizeof(struct build_args),
        .max_operands = 1,
        .complete = CLI_COMPLETE_IMAGE,
        .run = build_main,
};

/* ---- import ------------------------------------------------------------------------------------------------------ */

struct import_args {
    bool quiet;
    const char *kernel;
};

static const struct cli_option import_options[] = {
        {0, "kernel", "debian|fast", "the kernel to put in", CLI_CHOICE, offsetof(struct import_args, kernel), 0},
        {'q', "quiet", NULL, "no progress", CLI_FLAG, offsetof(struct import_args, quiet), 0},
        {0},
};

static int import_main(const struct cli_call *call)
{
    const struct import_args *a = call->args;
    struct progress progress;
    struct ic_image_import_options import = {.size = sizeof(import),
            .name = call->operands[1],
            .kernel = a->kernel,
            .progress = progress_update,
            .userdata = &progress};
    struct ic_error error = {0};
    int r;

    signals_init();
    progress_init(&progress, a->quiet);
    r = ic_image_import(call->operands[0], &import, &error);
    progress_finish(&progress);
    if (r < 0)
        return cli_fail(r, &error);
    if (!a->quiet)
        (void)fprintf(stderr, "ironclaw: image %s is imported\n", call->operands[1]);
    return CLI_OK;
}

const struct cli_command cmd_image_import = {
        .name = "image import",
        .operands = "FILE NAME",
        .summary = "Make an image of a root filesystem tar or a container image",
        .details = "FILE: a tar of a root filesystem (also compressed), an OCI or docker archive, or an OCI\n"
                   "layout directory.",
        .options = import_options,
        .args_size = sizeof(struct import_args),
        .min_operands = 2,
        .max_operands = 2,
        .complete = CLI_COMPLETE_FILE,
        .run = import_main,
};

/* ---- inspect ----------------------------------------------------------------------------------------------------- */

static const struct cli_option no_options[] = {{0}};

static int inspect_image(const char *name, const void *args, char **ret, struct ic_error *error)
{
    (void)args;
    return ic_image_inspect_json(name, ret, error);
}

static int inspect_main(const struct cli_call *call)
{
    return vms_print_json(call, inspect_image);
}

const struct cli_command cmd_image_inspect = {
        .name = "image inspect",
        .operands = "IMAGE...",
        .summary = "Show all that is known of images, as JSON",
        .options = no_options,
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_IMAGE,
        .run = inspect_main,
};

/* ---- rm ---------------------------------------------------------------------------------------------------------- */

struct rm_args {
    bool force;
};

static const struct cli_option rm_options[] = {
        {'f', "force", NULL, "also when it is needed; no error when it is not there", CLI_FLAG,
                offsetof(struct rm_args, force), 0},
        {0},
};

static int rm_main(const struct cli_call *call)
{
    const struct rm_args *a = call->args;
    int status = CLI_OK;

    for (size_t i = 0; i < call->operand_count; i++) {
        struct ic_error error = {0};
        int r = ic_image_remove(call->operands[i], a->force, &error);

        if (r == -IC_ERR_NOT_FOUND && a->force)
            continue;
        if (r < 0)
            status = cli_fail(r, &error);
        else
            (void)printf("%s\n", call->operands[i]);
    }
    return status;
}

const struct cli_command cmd_image_rm = {
        .name = "image rm",
        .operands = "IMAGE...",
        .summary = "Remove images",
        .options = rm_options,
        .args_size = sizeof(struct rm_args),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_IMAGE,
        .run = rm_main,
};

/* ---- verify ------------------------------------------------------------------------------------------------------ */

struct verify_args {
    bool quiet;
};

static const struct cli_option verify_options[] = {
        {'q', "quiet", NULL, "no progress", CLI_FLAG, offsetof(struct verify_args, quiet), 0},
        {0},
};

static int verify_one(const char *name, bool quiet)
{
    struct ic_error error = {0};
    struct progress progress;
    int r;

    progress_init(&progress, quiet || !tty_is(2));
    r = ic_image_verify(name, progress_update, &progress, &error);
    progress_finish(&progress);
    if (r < 0)
        return cli_fail(r, &error);
    if (!quiet)
        (void)printf("%s: every digest is right\n", name);
    return CLI_OK;
}

static int verify_all(bool quiet)
{
    struct ic_image_info *images = NULL;
    int r, one, status = CLI_OK;
    struct ic_error error = {0};
    size_t count = 0;

    r = ic_image_list(&images, &count, &error);
    if (r < 0)
        return cli_fail(r, &error);
    for (size_t i = 0; i < count && !signals_pending(); i++) {
        one = verify_one(images[i].name[0] ? images[i].name : images[i].digest, quiet);
        status = one != CLI_OK ? one : status;
    }
    free(images);
    return status;
}

static int verify_main(const struct cli_call *call)
{
    const struct verify_args *a = call->args;
    int status = CLI_OK, one;

    signals_init();
    if (call->operand_count == 0)
        return verify_all(a->quiet);
    for (size_t i = 0; i < call->operand_count && !signals_pending(); i++) {
        one = verify_one(call->operands[i], a->quiet);
        status = one != CLI_OK ? one : status;
    }
    return status;
}

const struct cli_command cmd_image_verify = {
        .name = "image verify",
        .operands = "[IMAGE...]",
        .summary = "Compute every digest of images again",
        .details = "Without IMAGE: all of them.",
        .options = verify_options,
        .args_size = sizeof(struct verify_args),
        .max_operands = SIZE_MAX,
        .complete = CLI_COMPLETE_IMAGE,
        .run = verify_main,
};
