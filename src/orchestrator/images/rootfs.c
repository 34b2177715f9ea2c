/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "orchestrator/images/apt.h"
#include "orchestrator/images/userns.h"
#include "orchestrator/paths.h"

#define EROFS_UUID "-U69726f6e-636c-6177-8000-000000000001"
#define STEP_CHARS 96

struct step {
    const struct progress *progress;
    const char *dir; /* of what is written; NULL: not looked at */
    char what[STEP_CHARS];
};

static int step_tick(void *userdata, struct ic_error *error)
{
    const struct step *step = userdata;
    int r = step->dir ? path_check_room(step->dir, error) : 0;

    return r < 0 ? r : progress_report(step->progress, step->what, 0, 0, error);
}

/* mmdebstrap says "I: installing essential packages..." when it starts something. */
static int step_line(void *userdata, const char *line, struct ic_error *error)
{
    struct step *step = userdata;

    if (strncmp(line, "I: ", 3) != 0 || strchr(line, '/'))
        return 0;
    (void)snprintf(step->what, sizeof(step->what), "root file system: %.*s", (int)strcspn(line + 3, "."), line + 3);
    return step_tick(step, error);
}

static int write_sources(const char *path, struct ic_error *error)
{
    _cleanup_(freep) char *sources = NULL;
    _cleanup_(freep) char *text = NULL;
    int r = apt_debian_sources(&sources, error);

    if (r == 0)
        r = text_format(&text, error, "%s\n", sources);
    if (r != 0)
        return r;
    r = fd_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0644);
    return r < 0 ? ic_fail_errno(error, r, "%s", path) : 0;
}

/* As root mmdebstrap works below our build directory, so that nothing can be left elsewhere; an ordinary user's
 * build directory can't be entered by the subordinate ids that it works with. */
static int make_tmpdir(const char *dir, char **ret, struct ic_error *error)
{
    const char *tmp = getenv("TMPDIR");
    _cleanup_(freep) char *path = NULL;
    int r;

    if (geteuid() != 0)
        return text_format(ret, error, "TMPDIR=%s", tmp ? tmp : "/tmp");
    r = text_format(&path, error, "%s/tmp", dir);
    if (r == 0 && mkdir(path, 0755) < 0)
        r = ic_fail_errno(error, -errno, "%s", path);
    return r != 0 ? r : text_format(ret, error, "TMPDIR=%s", path);
}

static int bootstrap(const struct recipe *recipe, const char *dir, const char *sources, const char *tar,
        const struct progress *progress, struct ic_error *error)
{
    struct step step = {.progress = progress, .what = "root file system: preparing"};
    _cleanup_(freep) char *packages = NULL;
    _cleanup_(freep) char *include = NULL;
    _cleanup_(freep) char *variant = NULL;
    _cleanup_(freep) char *dpkgopt = NULL;
    _cleanup_(freep) char *hook = NULL;
    _cleanup_(freep) char *epoch = NULL;
    _cleanup_(freep) char *tmpdir = NULL;
    int r = strlist_join(&recipe->packages, ',', &packages, error);

    if (r == 0)
        r = text_format(&include, error, "--include=%s", packages);
    if (r == 0)
        r = text_format(&variant, error, "--variant=%s", recipe->variant);
    if (r == 0)
        r = text_format(&dpkgopt, error, "--dpkgopt=%s", recipe->excludes_path);
    if (r == 0)
        r = text_format(&hook, error, "--customize-hook=%s", recipe->customize_path);
    if (r == 0)
        r = text_format(&epoch, error, "SOURCE_DATE_EPOCH=%lld", (long long)recipe->source_date_epoch);
    if (r == 0)
        r = make_tmpdir(dir, &tmpdir, error);
    if (r != 0)
        return r;
    /* Cleaning up after apt is left to the hook: mmdebstrap's own way gives the directories one owner or another,
     * depending on whether apt's user could enter them. */
    const char *const argv[] = {"mmdebstrap", "--format=tar", "--skip=cleanup/apt",
            "--aptopt=Acquire::Languages \"none\"", variant, include, dpkgopt, hook, recipe->suite, tar, sources, NULL};
    const char *const env[] = {epoch, tmpdir, NULL};
    return subprocess_run(&(struct subprocess){.argv = argv,
                                  .package = "mmdebstrap",
                                  .env = env,
                                  .tick = step_tick,
                                  .line = step_line,
                                  .line_from_stderr = true,
                                  .userdata = &step},
            error);
}

int rootfs_unpack_tar(const char *tar, const char *dir, const struct progress *progress, struct ic_error *error)
{
    struct step step = {.progress = progress, .dir = dir, .what = "root file system: unpacking"};
    _cleanup_(freep) char *root = NULL;
    int r = text_format(&root, error, "%s/root", dir);

    if (r < 0)
        return r;
    if (mkdir(root, 0755) < 0)
        return ic_fail_errno(error, -errno, "%s", root);
    /* Device nodes: the guest has a devtmpfs, and a user namespace can't make any. */
    const char *const argv[] = {"tar", "-xpf", tar, "-C", root, "--numeric-owner", "--same-owner",
            "--warning=no-unknown-keyword", "--exclude=./dev/*", NULL};
    return userns_run(
            &(struct subprocess){.argv = argv, .package = "tar", .tick = step_tick, .userdata = &step}, error);
}

int rootfs_pack(
        const char *tree, const char *dir, int64_t epoch, const struct progress *progress, struct ic_error *error)
{
    struct step step = {.progress = progress, .dir = dir, .what = "root file system: packing as erofs"};
    _cleanup_(freep) char *image = NULL;
    _cleanup_(freep) char *stamp = NULL;
    int r = text_format(&image, error, "%s/rootfs.erofs", dir);

    if (r == 0)
        r = text_format(&stamp, error, "-T%lld", (long long)epoch);
    if (r != 0)
        return r;
    const char *const argv[] = {"mkfs.erofs", "--quiet", "-x-1", EROFS_UUID, stamp, image, tree, NULL};
    r = userns_run(
            &(struct subprocess){.argv = argv, .package = "erofs-utils", .tick = step_tick, .userdata = &step}, error);
    return r < 0 ? r : store_remove_tree(tree, error);
}

int rootfs_build(const struct recipe *recipe, const char *dir, const struct progress *progress, struct ic_error *error)
{
    _cleanup_(freep) char *sources = NULL;
    _cleanup_(freep) char *tar = NULL;
    _cleanup_(freep) char *tree = NULL;
    _cleanup_(freep) char *tmp = NULL;
    _cleanup_(freep) char *tool = NULL;
    int r = subprocess_find("mkfs.erofs", "erofs-utils", &tool, error);

    if (r == 0)
        r = text_format(&sources, error, "%s/sources.list", dir);
    if (r == 0)
        r = text_format(&tar, error, "%s/rootfs.tar", dir);
    if (r == 0)
        r = text_format(&tree, error, "%s/root", dir);
    if (r == 0)
        r = text_format(&tmp, error, "%s/tmp", dir);
    if (r == 0)
        r = write_sources(sources, error);
    if (r == 0)
        r = bootstrap(recipe, dir, sources, tar, progress, error);
    if (r == 0)
        r = rootfs_unpack_tar(tar, dir, progress, error);
    if (r != 0)
        return r;
    if (unlink(tar) < 0 || unlink(sources) < 0)
        return ic_fail_errno(error, -errno, "%s", dir);
    r = store_remove_tree(tmp, error);
    return r < 0 ? r : rootfs_pack(tree, dir, recipe->source_date_epoch, progress, error);
}
