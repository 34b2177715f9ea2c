/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images from elsewhere: a root file system tar, an OCI or docker archive, or
 * an OCI layout directory. All of it is foreign.
 *
 * A plain tar is read by ironclaw-tar (src/tar), a process that can do nothing
 * else, and written again as a tar that holds only what a root file system
 * needs: names that stay below the root, no devices, no fifos. That one is
 * unpacked by tar(1), which makes symlinks that lead out of the tree only after
 * everything else, and takes no name that leads out either: what ironclaw-tar
 * wrote is as foreign as what it read, should it be the archive's by then.
 * OCI images go through skopeo, which checks every layer's digest, and umoci,
 * which unpacks layers without following links out of the bundle.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/room.h"
#include "orchestrator/images/build.h"
#include "orchestrator/images/image.h"
#include "orchestrator/images/recipe.h"
#include "orchestrator/images/rootfs.h"
#include "orchestrator/images/userns.h"
#include "orchestrator/paths.h"
#include "orchestrator/process.h"

#define CONFIG_BYTES_MAX ((size_t)4 << 20)
/* Files get one fixed time, as in images from recipes. */
#define IMPORT_EPOCH 0

enum source { SOURCE_TAR, SOURCE_OCI_ARCHIVE, SOURCE_DOCKER_ARCHIVE, SOURCE_OCI_LAYOUT };

/* ---- ironclaw-tar ---- */

/* What it says on standard error (src/tar/main.c); foreign as the archive is. */
struct tar_talk {
    const char *path; /* of the archive */
    const struct progress *progress;
    uint64_t done, total; /* bytes of the archive */
    int to_fd;            /* 0: nothing is written */
    char kind[16];
    enum ic_error_code code; /* 0: no error yet */
    char text[640];
};

static void take_error(struct tar_talk *talk, const char *code)
{
    static const struct {
        const char *word;
        enum ic_error_code code;
    } codes[] = {{"failed ", IC_ERR_IO}, {"invalid ", IC_ERR_INVALID}, {"corrupt ", IC_ERR_CORRUPT},
            {"no-space ", IC_ERR_NO_SPACE}};

    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        size_t len = strlen(codes[i].word);

        if (strncmp(code, codes[i].word, len) != 0)
            continue;
        talk->code = codes[i].code;
        (void)snprintf(talk->text, sizeof(talk->text), "%s", code + len);
    }
}

static int on_line(void *userdata, const char *line, struct ic_error *error)
{
    struct tar_talk *talk = userdata;

    if (strncmp(line, "progress ", 9) == 0)
        talk->done = MIN((uint64_t)strtoull(line + 9, NULL, 10), talk->total); /* of whatever it says: only shown */
    else if (strncmp(line, "kind ", 5) == 0)
        (void)snprintf(talk->kind, sizeof(talk->kind), "%s", line + 5);
    else if (strncmp(line, "error ", 6) == 0)
        take_error(talk, line + 6);
    return 0;
}

/* It sees to that itself, as long as it is itself. */
static int check_room(const char *path, int fd, struct ic_error *error)
{
    struct statvfs vfs;

    if (fstatvfs(fd, &vfs) == 0 && !room_is_left(&vfs))
        return ic_fail(error, IC_ERR_NO_SPACE, "%s: what is in it fills the disk; make room", path);
    return 0;
}

static int on_tick(void *userdata, struct ic_error *error)
{
    const struct tar_talk *talk = userdata;
    int r = talk->to_fd > 0 ? check_room(talk->path, talk->to_fd, error) : 0;

    return r < 0 ? r : progress_report(talk->progress, "reading the archive", talk->done, talk->total, error);
}

static int run_tar(const char *what, struct tar_talk *talk, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = open(talk->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    _cleanup_(freep) char *program = NULL;
    int r = recipe_program_path("ironclaw-tar", &program, error), status = 0;
    struct stat st;

    if (r < 0)
        return r;
    if (fd < 0 || fstat(fd, &st) < 0)
        return ic_fail_errno(error, -errno, "%s", talk->path);
    if (!S_ISREG(st.st_mode))
        return ic_fail(error, IC_ERR_INVALID, "%s: not a regular file", talk->path);
    r = fd_above_stdio(&fd);
    if (r < 0)
        return ic_fail_errno(error, r, "%s", talk->path);
    const char *const argv[] = {program, what, NULL};
    const struct subprocess process = {.argv = argv,
            .package = "ironclaw",
            .stdin_fd = fd,
            .stdout_fd = talk->to_fd,
            .tick = on_tick,
            .line = on_line,
            .line_from_stderr = true,
            .userdata = talk,
            .ret_status = &status};
    talk->total = (uint64_t)st.st_size;
    r = subprocess_run(&process, error);
    if (r < 0 || status == 0)
        return r;
    if (talk->code != 0)
        return ic_fail(error, talk->code, "%s: %s", talk->path, talk->text);
    return ic_fail(error, IC_ERR_IO, "%s: ironclaw-tar failed with status %d", talk->path, status);
}

static int detect(const char *path, const struct progress *progress, enum source *ret, struct ic_error *error)
{
    _cleanup_(freep) char *layout = NULL;
    struct tar_talk talk = {.path = path, .progress = progress};
    struct stat st;
    int r;

    if (stat(path, &st) < 0)
        return ic_fail_errno(error, -errno, "%s", path);
    if (!S_ISDIR(st.st_mode)) {
        r = run_tar("detect", &talk, error);
        if (r < 0)
            return r;
        *ret = strcmp(talk.kind, "oci") == 0      ? SOURCE_OCI_ARCHIVE
               : strcmp(talk.kind, "docker") == 0 ? SOURCE_DOCKER_ARCHIVE
                                                  : SOURCE_TAR;
        return 0;
    }
    r = text_format(&layout, error, "%s/oci-layout", path);
    if (r < 0)
        return r;
    if (access(layout, R_OK) < 0)
        return ic_fail(error, IC_ERR_INVALID,
                "%s: a directory without oci-layout; give an OCI layout directory, or a tar of the root", path);
    *ret = SOURCE_OCI_LAYOUT;
    return 0;
}

static int clean_tar(const char *path, const char *to_path, const struct progress *progress, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = open(to_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct tar_talk talk = {.path = path, .progress = progress};
    int r = fd < 0 ? -errno : fd_above_stdio(&fd);

    if (r < 0)
        return ic_fail_errno(error, r, "%s", to_path);
    talk.to_fd = fd;
    return run_tar("clean", &talk, error);
}

/* ---- steps of other programs ---- */

struct step {
    const struct progress *progress;
    const char *what, *dir;
};

static int step_tick(void *userdata, struct ic_error *error)
{
    const struct step *step = userdata;
    int r = path_check_room(step->dir, error);

    return r < 0 ? r : progress_report(step->progress, step->what, 0, 0, error);
}

static int run_step(
        const char *const *argv, const struct step *given, struct buf *output, bool mapped, struct ic_error *error)
{
    struct step step = *given;
    const struct subprocess process = {
            .argv = argv, .package = argv[0], .output = output, .tick = step_tick, .userdata = &step};

    return mapped ? userns_run(&process, error) : subprocess_run(&process, error);
}

static int take_config(const char *text, size_t len, struct manifest *manifest, struct ic_error *error)
{
    _cleanup_(json_decrefp) json_t *root = json_loadb(text, len, 0, NULL);
    json_t *config = json_object_get(root, "config"), *env = json_object_get(config, "Env");
    const char *user = json_string_value(json_object_get(config, "User"));
    const char *workdir = json_string_value(json_object_get(config, "WorkingDir"));
    struct strlist list = {0};
    int r = 0;

    if (!root)
        return ic_fail(error, IC_ERR_CORRUPT, "the image's configuration is not JSON");
    if (user && user[0] && manifest_user_ok(user))
        manifest->user = strdup(user);
    if (workdir && workdir[0] && manifest_workdir_ok(workdir))
        manifest->workdir = strdup(workdir);
    for (size_t i = 0; r == 0 && i < MIN(json_array_size(env), (size_t)MANIFEST_ENV_MAX); i++) {
        const char *entry = json_string_value(json_array_get(env, i));

        if (entry && manifest_env_ok(entry))
            r = strlist_add(&list, entry, error);
    }
    manifest->env = list.items;
    return r;
}

/* Leaves the unpacked tree at *ret_tree and the defaults in the manifest. */
static int unpack_oci(const char *path, enum source source, const char *dir, const struct progress *progress,
        struct manifest *manifest, char **ret_tree, struct ic_error *error)
{
    static const char *const transport[] = {
            [SOURCE_OCI_ARCHIVE] = "oci-archive",
            [SOURCE_DOCKER_ARCHIVE] = "docker-archive",
            [SOURCE_OCI_LAYOUT] = "oci",
    };
    _cleanup_(buf_deinit) struct buf config = {.max = CONFIG_BYTES_MAX};
    _cleanup_(freep) char *from = NULL;
    _cleanup_(freep) char *to = NULL;
    _cleanup_(freep) char *layout = NULL;
    _cleanup_(freep) char *bundle = NULL;
    int r = text_format(&from, error, "%s:%s", transport[source], path);

    if (r == 0)
        r = text_format(&to, error, "oci:%s/oci:image", dir);
    if (r == 0)
        r = text_format(&layout, error, "%s/oci:image", dir);
    if (r == 0)
        r = text_format(&bundle, error, "%s/bundle", dir);
    if (r != 0)
        return r;
    const char *const copy[] = {"skopeo", "copy", "--quiet", "--insecure-policy", "--tmpdir", dir, from, to, NULL};
    const char *const inspect[] = {"skopeo", "inspect", "--config", to, NULL};
    const char *const unpack[] = {"umoci", "unpack", "--image", layout, bundle, NULL};
    r = run_step(copy, &(struct step){progress, "reading the archive", dir}, NULL, false, error);
    if (r == 0)
        r = run_step(inspect, &(struct step){progress, "reading the configuration", dir}, &config, false, error);
    if (r == 0)
        r = take_config((const char *)config.data, config.len, manifest, error);
    if (r == 0)
        r = run_step(unpack, &(struct step){progress, "unpacking the layers", dir}, NULL, true, error);
    return r != 0 ? r : text_format(ret_tree, error, "%s/rootfs", bundle);
}

static int unpack_tar(
        const char *path, const char *dir, const struct progress *progress, char **ret_tree, struct ic_error *error)
{
    _cleanup_(freep) char *tar = NULL;
    int r = text_format(&tar, error, "%s/rootfs.tar", dir);

    if (r == 0)
        r = clean_tar(path, tar, progress, error);
    if (r == 0) {
        struct ic_error why = {0};

        r = rootfs_unpack_tar(tar, dir, progress, &why);
        if (r < 0)
            return ic_fail(error, why.code, "%s: %s", path, why.message);
    }
    if (r == 0 && unlink(tar) < 0)
        r = ic_fail_errno(error, -errno, "%s", tar);
    return r != 0 ? r : text_format(ret_tree, error, "%s/root", dir);
}

/* An image directory holds its parts and nothing else. */
static int remove_leftovers(const char *dir, struct ic_error *error)
{
    static const char *const names[] = {"oci", "bundle", "root"};
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(names); i++) {
        _cleanup_(freep) char *path = NULL;

        r = text_format(&path, error, "%s/%s", dir, names[i]);
        if (r == 0)
            r = store_remove_tree(path, error);
    }
    return r;
}

static int import(const char *path, enum source source, const char *name, const struct kernel *kernel,
        const struct progress *progress, struct ic_error *error)
{
    _cleanup_(workdir_drop) struct workdir workdir = WORKDIR_NONE;
    _cleanup_(manifest_deinit) struct manifest manifest = {.recipe_key = BUILD_KEY_IMPORTED};
    _cleanup_(freep) char *tree = NULL;
    int r = workdir_make(STORE_IMAGES, &workdir, error);

    if (r < 0)
        return r;
    r = source == SOURCE_TAR ? unpack_tar(path, workdir.path, progress, &tree, error)
                             : unpack_oci(path, source, workdir.path, progress, &manifest, &tree, error);
    if (r == 0)
        r = rootfs_pack(tree, workdir.path, IMPORT_EPOCH, progress, error);
    if (r == 0)
        r = remove_leftovers(workdir.path, error);
    if (r != 0)
        return r;
    memcpy(manifest.rootfs_key, BUILD_KEY_IMPORTED, sizeof(manifest.rootfs_key));
    return build_finish(&workdir, name, kernel, &manifest, progress, error);
}

int image_import(const char *path, const struct ic_image_import_options *options, struct ic_error *error)
{
    const struct progress progress = {.fn = options->progress, .userdata = options->userdata};
    _cleanup_(kernel_deinit) struct kernel kernel = {0};
    _cleanup_(freep) char *absolute = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1;
    enum source source = SOURCE_TAR;
    bool made;
    int r;

    if (options->size != 0 && options->size != sizeof(*options))
        return ic_fail(error, IC_ERR_INVALID, "image import options: size must be that of the structure");
    if (!options->name || !path_image_name_ok(options->name))
        return ic_fail(error, IC_ERR_INVALID,
                "image name '%.128s': use a-z, 0-9, '.', '_', '-', at most 64, and perhaps ':tag'",
                options->name ? options->name : "");
    absolute = realpath(path, NULL);
    if (!absolute)
        return ic_fail_errno(error, -errno, "%s", path);
    r = detect(absolute, &progress, &source, error);
    if (r == 0)
        r = store_lock_build(STORE_IMAGES, &progress, &lock_fd, error);
    if (r == 0)
        r = kernel_ensure(options->kernel ? options->kernel : "debian", false, &progress, &kernel, &made, error);
    return r != 0 ? r : import(absolute, source, options->name, &kernel, &progress, error);
}
