/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/userns.h"

#include <unistd.h>

#define ARGV_MAX 64

int userns_run(const struct subprocess *process, struct ic_error *error)
{
    static const char *const prefix[] = {"unshare", "--map-root-user", "--map-auto", "--"};
    const char *argv[ARGV_MAX];
    struct subprocess mapped = *process;
    _cleanup_(freep) char *tool = NULL;
    size_t n = 0;
    int r;

    if (geteuid() == 0)
        return subprocess_run(process, error);
    r = subprocess_find("newuidmap", "uidmap", &tool, error);
    if (r < 0)
        return r;
    free(TAKE_PTR(tool));
    r = subprocess_find(process->argv[0], process->package, &tool, error);
    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(prefix); i++)
        argv[n++] = prefix[i];
    argv[n++] = tool;
    for (size_t i = 1; process->argv[i]; i++) {
        if (n + 1 >= ARGV_MAX)
            return ic_fail(error, IC_ERR_INVALID, "%s: too many arguments", process->argv[0]);
        argv[n++] = process->argv[i];
    }
    argv[n] = NULL;
    mapped.argv = argv;
    mapped.package = "util-linux";
    return subprocess_run(&mapped, error);
}
