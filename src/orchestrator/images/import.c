/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images from elsewhere: a root file system tar, an OCI or docker archive, or
 * an OCI layout directory. All of it is foreign.
 *
 * A plain tar is read by libarchive in this process and written again as a
 * tar that holds only what a root file system needs: names that stay below
 * the root, no devices, no fifos. That one is unpacked by tar(1), which makes
 * symlinks that lead out of the tree only after everything else. OCI images
 * go through skopeo, which checks every layer's digest, and umoci, which
 * unpacks layers without following links out of the bundle.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/images/build.h"
#include "orchestrator/images/import.h"
#include "orchestrator/images/rootfs.h"
#include "orchestrator/images/userns.h"
#include "orchestrator/paths.h"

#define READ_BLOCK_BYTES ((size_t)128 << 10)
#define PEEK_ENTRIES     64
#define CONFIG_BYTES_MAX ((size_t)4 << 20)
/* Files get one fixed time, as in images from recipes. */
#define IMPORT_EPOCH 0

enum source { SOURCE_TAR, SOURCE_OCI_ARCHIVE, SOURCE_DOCKER_ARCHIVE, SOURCE_OCI_LAYOUT };

static void archive_closep(struct archive **a)
{
    if (*a)
        (void)archive_read_free(*a);
}

static int open_archive(const char *path, struct archive **ret, struct ic_error *error)
{
    struct archive *a = archive_read_new();

    if (!a)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    /* gzip, xz, zstd and bzip2 only: libarchive would run programs for others. */
    (void)archive_read_support_filter_gzip(a);
    (void)archive_read_support_filter_xz(a);
    (void)archive_read_support_filter_zstd(a);
    (void)archive_read_support_filter_bzip2(a);
    (void)archive_read_support_format_tar(a);
    /* Names are bytes. */
    (void)archive_read_set_options(a, "hdrcharset=BINARY");
    if (archive_read_open_filename(a, path, READ_BLOCK_BYTES) != ARCHIVE_OK) {
        int r = ic_fail(error, IC_ERR_INVALID, "%s: not a tar, nor an OCI or docker archive (%s)", path,
                archive_error_string(a));

        (void)archive_read_free(a);
        return r;
    }
    *ret = a;
    return 0;
}

/* By the names at the archive's start and the markers that these formats must have. */
static int detect(const char *path, enum source *ret, struct ic_error *error)
{
    _cleanup_(archive_closep) struct archive *a = NULL;
    _cleanup_(freep) char *layout = NULL;
    bool oci = false, docker = false, root = false;
    struct archive_entry *entry;
    struct stat st;
    int r;

    if (stat(path, &st) < 0)
        return ic_fail_errno(error, -errno, "%s", path);
    if (S_ISDIR(st.st_mode)) {
        r = text_format(&layout, error, "%s/oci-layout", path);
        if (r < 0)
            return r;
        if (access(layout, R_OK) < 0)
            return ic_fail(error, IC_ERR_INVALID,
                    "%s: a directory without oci-layout; give an OCI layout directory, or a tar of the root", path);
        *ret = SOURCE_OCI_LAYOUT;
        return 0;
    }
    r = open_archive(path, &a, error);
    if (r < 0)
        return r;
    for (;;) {
        const char *name;

        if (archive_read_next_header(a, &entry) != ARCHIVE_OK)
            break;
        name = archive_entry_pathname(entry);
        if (!name)
            continue;
        if (strncmp(name, "./", 2) == 0)
            name += 2;
        oci = oci || strcmp(name, "oci-layout") == 0;
        docker = docker || strcmp(name, "manifest.json") == 0;
        root = root || strncmp(name, "usr/", 4) == 0 || strncmp(name, "bin", 3) == 0 || strncmp(name, "etc/", 4) == 0;
        if (oci || root)
            break;
    }
    *ret = oci && !root ? SOURCE_OCI_ARCHIVE : docker && !root ? SOURCE_DOCKER_ARCHIVE : SOURCE_TAR;
    return 0;
}

bool import_path_ok(const char *name, char *ret, size_t size)
{
    size_t n = 0;

    /* "./a//b/" becomes "a/b"; a part that is ".." is refused. */
    while (*name) {
        size_t len;

        name += strspn(name, "/");
        len = strcspn(name, "/");
        if (len == 2 && name[0] == '.' && name[1] == '.')
            return false;
        if (len > 0 && !(len == 1 && name[0] == '.')) {
            if (n + len + 2 > size)
                return false;
            if (n > 0)
                ret[n++] = '/';
            memcpy(ret + n, name, len);
            n += len;
        }
        name += len;
    }
    ret[n] = '\0';
    return true;
}

/* Sets the entry's names to ones below the root. 0: take it, 1: leave it out. */
static int clean_entry(struct archive_entry *entry, const char *path, struct ic_error *error)
{
    const char *name = archive_entry_pathname(entry), *link = archive_entry_hardlink(entry);
    char clean[4096], prefixed[4096 + 2];
    mode_t type = archive_entry_filetype(entry);

    if (!name || !import_path_ok(name, clean, sizeof(clean)))
        return ic_fail(error, IC_ERR_INVALID, "%s: the entry '%.200s' leads out of the root", path, name ? name : "?");
    if (!link && type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK)
        return 1;
    (void)snprintf(prefixed, sizeof(prefixed), "./%s", clean);
    archive_entry_set_pathname(entry, prefixed);
    if (link) {
        if (!import_path_ok(link, clean, sizeof(clean)))
            return ic_fail(error, IC_ERR_INVALID, "%s: the link target '%.200s' leads out of the root", path, link);
        (void)snprintf(prefixed, sizeof(prefixed), "./%s", clean);
        archive_entry_set_hardlink(entry, prefixed);
    }
    archive_entry_xattr_clear(entry);
    archive_entry_acl_clear(entry);
    archive_entry_set_fflags(entry, 0, 0);
    archive_entry_set_uname(entry, NULL);
    archive_entry_set_gname(entry, NULL);
    archive_entry_set_mtime(entry, IMPORT_EPOCH, 0);
    archive_entry_unset_atime(entry);
    archive_entry_unset_ctime(entry);
    archive_entry_unset_birthtime(entry);
    archive_entry_sparse_clear(entry);
    return 0;
}

/* The file that is written, and the directory that it is in. */
struct sink {
    struct archive *archive;
    const char *path;
    char *dir;
    int fd;
    bool abandoned;
};

static la_ssize_t sink_write(struct archive *a, void *userdata, const void *data, size_t len)
{
    const struct sink *sink = userdata;
    int r = sink->abandoned ? -ECANCELED : fd_write_all(sink->fd, data, len, DEADLINE_NEVER);

    if (r == 0)
        return (la_ssize_t)len;
    archive_set_error(a, -r, "%s", strerror(-r));
    return -1;
}

/* libarchive ends a file that was begun by filling it up with zeroes, whatever size it claims to have; a sink that
 * takes nothing more ends that at once, and frees all (archive_write_fail would leak). */
static void sink_deinit(struct sink *sink)
{
    sink->abandoned = true;
    if (sink->archive)
        (void)archive_write_free(sink->archive);
    fd_close(sink->fd);
    free(sink->dir);
}

static int sink_open(struct sink *sink, const char *path, struct ic_error *error)
{
    const char *slash = strrchr(path, '/');
    int r = text_format(&sink->dir, error, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");

    if (r < 0)
        return r;
    sink->path = path;
    sink->archive = archive_write_new();
    if (!sink->archive)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    sink->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (sink->fd < 0)
        return ic_fail_errno(error, -errno, "%s", path);
    (void)archive_write_set_format_pax_restricted(sink->archive);
    (void)archive_write_set_options(sink->archive, "hdrcharset=BINARY");
    if (archive_write_open(sink->archive, sink, NULL, sink_write, NULL) != ARCHIVE_OK)
        return ic_fail_errno(error, -archive_errno(sink->archive), "%s", path);
    return 0;
}

static int put_data(const struct sink *to, const void *data, size_t len, struct ic_error *error)
{
    int r = path_check_room(to->dir, error);

    if (r == 0 && archive_write_data(to->archive, data, len) < 0)
        r = ic_fail_errno(error, -archive_errno(to->archive), "%s", to->path);
    return r;
}

static int copy_data(struct archive *from, const struct sink *to, const char *path, struct ic_error *error)
{
    static const char zero[65536];
    const void *block;
    la_int64_t at = 0, offset;
    size_t len;
    int r, failed = 0;

    while (failed == 0 && (r = archive_read_data_block(from, &block, &len, &offset)) == ARCHIVE_OK) {
        while (failed == 0 && at < offset) {
            size_t gap = (size_t)MIN(offset - at, (la_int64_t)sizeof(zero));

            failed = put_data(to, zero, gap, error);
            at += (la_int64_t)gap;
        }
        if (failed == 0)
            failed = put_data(to, block, len, error);
        at += (la_int64_t)len;
    }
    if (failed < 0)
        return failed;
    return r == ARCHIVE_EOF ? 0 : ic_fail(error, IC_ERR_CORRUPT, "%s: %s", path, archive_error_string(from));
}

int import_clean_tar(const char *path, const char *to_path, const struct progress *progress, struct ic_error *error)
{
    _cleanup_(archive_closep) struct archive *from = NULL;
    _cleanup_(sink_deinit) struct sink to = {.fd = -1};
    struct archive_entry *entry;
    struct stat st;
    uint64_t entries = 0;
    int r = open_archive(path, &from, error);

    if (r == 0)
        r = sink_open(&to, to_path, error);
    if (r != 0)
        return r;
    if (stat(path, &st) < 0)
        return ic_fail_errno(error, -errno, "%s", path);
    while ((r = archive_read_next_header(from, &entry)) == ARCHIVE_OK || r == ARCHIVE_WARN) {
        r = progress_report(
                progress, "reading the archive", (uint64_t)archive_filter_bytes(from, -1), (uint64_t)st.st_size, error);
        if (r == 0)
            r = path_check_room(to.dir, error);
        if (r == 0)
            r = clean_entry(entry, path, error);
        if (r < 0)
            return r;
        if (r > 0)
            continue;
        if (archive_write_header(to.archive, entry) < ARCHIVE_WARN)
            return ic_fail_errno(
                    error, -archive_errno(to.archive), "%s: '%.200s'", to_path, archive_entry_pathname(entry));
        r = archive_entry_size(entry) > 0 ? copy_data(from, &to, path, error) : 0;
        if (r < 0)
            return r;
        entries++;
    }
    if (r != ARCHIVE_EOF)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: %s", path, archive_error_string(from));
    if (entries == 0)
        return ic_fail(error, IC_ERR_INVALID, "%s: no files in it", path);
    if (archive_write_close(to.archive) != ARCHIVE_OK)
        return ic_fail_errno(error, -archive_errno(to.archive), "%s", to_path);
    return 0;
}

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
        r = import_clean_tar(path, tar, progress, error);
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

int ic_image_import(const char *path, const struct ic_image_import_options *options, struct ic_error *error)
{
    const struct progress progress = {.fn = options->progress, .userdata = options->userdata};
    _cleanup_(kernel_deinit) struct kernel kernel = {0};
    _cleanup_(freep) char *absolute = NULL;
    _cleanup_(fd_closep) int lock_fd = -1;
    enum source source = SOURCE_TAR;
    bool made;
    int r;

    if (!options->name || !path_image_name_ok(options->name))
        return ic_fail(error, IC_ERR_INVALID,
                "image name '%.128s': use a-z, 0-9, '.', '_', '-', at most 64, and perhaps ':tag'",
                options->name ? options->name : "");
    absolute = realpath(path, NULL);
    if (!absolute)
        return ic_fail_errno(error, -errno, "%s", path);
    r = detect(absolute, &source, error);
    if (r == 0)
        r = store_lock_build(STORE_IMAGES, &progress, &lock_fd, error);
    if (r == 0)
        r = kernel_ensure(options->kernel ? options->kernel : "debian", false, &progress, &kernel, &made, error);
    return r != 0 ? r : import(absolute, source, options->name, &kernel, &progress, error);
}
