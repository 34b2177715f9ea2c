/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/copy-path.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/tty.h"
#include "cli/values.h"

struct cp_args {
    bool archive, follow, quiet, json;
    const char *user;
};

#define FIELD(f) offsetof(struct cp_args, f)

static const struct cli_option options[] = {
        {'a', "archive", NULL, "keep numeric owners on the way into the guest", CLI_FLAG, FIELD(archive), 0},
        {'L', "follow-link", NULL, "follow SOURCE when it is a symbolic link", CLI_FLAG, FIELD(follow), 0},
        {'u', "user", "USER", "with the rights of USER in the guest (root)", CLI_STRING, FIELD(user), 0},
        {'q', "quiet", NULL, "no progress, no summary", CLI_FLAG, FIELD(quiet), 0},
        {0, "json", NULL, "print the counts as a JSON object", CLI_FLAG, FIELD(json), 0},
        {0},
};

static void report(const struct cp_args *a, const struct ic_copy_result *result)
{
    struct json j = {0};
    char bytes[32];

    if (a->json) {
        json_begin_object(&j);
        json_key(&j, "entries");
        json_u64(&j, result->entries);
        json_key(&j, "bytes");
        json_u64(&j, result->bytes);
        json_key(&j, "skipped");
        json_u64(&j, result->skipped);
        json_end(&j);
        json_print(&j);
    } else if (!a->quiet) {
        value_format_bytes(result->bytes, bytes);
        (void)fprintf(stderr, "ironclaw: copied %" PRIu64 " entries, %s\n", result->entries, bytes);
    }
    if (result->skipped == 1 && !a->quiet)
        cli_error("skipped %s", result->first_skipped);
    else if (result->skipped && !a->quiet)
        cli_error("skipped %" PRIu64 " entries; the first: %s", result->skipped, result->first_skipped);
}

/* "notes:today" is a VM's, also where there is such a file. */
static void hint(const char *operand, struct ic_error *error)
{
    size_t used = strlen(error->message);
    struct stat st;

    if (stat(operand, &st) < 0)
        return;
    (void)snprintf(
            error->message + used, sizeof(error->message) - used, "; the file of this host is ./%.200s", operand);
}

static int copy(
        const struct cp_args *a, const char *operand, const struct copy_path *source, const struct copy_path *target)
{
    struct ic_copy_result result = {.size = sizeof(result)};
    struct progress progress;
    struct ic_copy_options copy_options = {.size = sizeof(copy_options),
            .user = a->user,
            .follow = a->follow,
            .keep_owner = a->archive,
            .progress = progress_update,
            .userdata = &progress};
    struct ic_error error = {0};
    ic_vm *vm = NULL;
    int r;

    signals_init();
    progress_init(&progress, a->quiet || !tty_is(2));
    r = ic_open_vm(source->vm ? source->vm : target->vm, &vm, &error);
    if (r == -IC_ERR_NOT_FOUND && source->vm)
        hint(operand, &error);
    if (r >= 0 && source->vm)
        r = ic_vm_copy_out(vm, source->path, target->path, &copy_options, &result, &error);
    else if (r >= 0)
        r = ic_vm_copy_in(vm, source->path, target->path, &copy_options, &result, &error);
    progress_finish(&progress);
    ic_vm_free(vm);
    if (r < 0)
        return cli_fail(r, &error);
    report(a, &result);
    return CLI_OK;
}

static int cp_main(const struct cli_call *call)
{
    struct copy_path source = {0}, target = {0};
    int status;

    copy_path_parse(call->operands[0], &source);
    copy_path_parse(call->operands[1], &target);
    if (source.vm && target.vm)
        status = cli_usage("copying between two VMs goes by way of the host: copy twice");
    else if (!source.vm && !target.vm)
        status = cli_usage("one of SOURCE and TARGET must be VM:/path");
    else if (source.bare)
        status = cli_usage("'%s:' names no file; all of its files are '%s:/'", source.vm, source.vm);
    else if (!source.path[0] || !target.path[0])
        status = cli_usage("SOURCE and TARGET need a path");
    else if (strcmp(source.path, "-") == 0 || strcmp(target.path, "-") == 0)
        status = cli_usage("'-' is not supported; use ./- for a file of that name");
    else
        status = copy(call->args, call->operands[0], &source, &target);
    copy_path_deinit(&source);
    copy_path_deinit(&target);
    return status;
}

const struct cli_command cmd_cp = {
        .name = "cp",
        .operands = "SOURCE TARGET",
        .summary = "Copy files and trees into and out of a VM",
        .details = "One of them is VM:/path. As with 'cp -a': into TARGET when it is a directory, else to\n"
                   "that name; a SOURCE that ends in '/.' means its contents. A host path that has a colon\n"
                   "is written with a slash before it (./a:b).",
        .options = options,
        .args_size = sizeof(struct cp_args),
        .min_operands = 2,
        .max_operands = 2,
        .complete = CLI_COMPLETE_VM_FILE,
        .run = cp_main,
};
