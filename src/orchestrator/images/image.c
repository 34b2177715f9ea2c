/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/image.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "orchestrator/images/build.h"
#include "orchestrator/paths.h"

#define PREFIX_MIN 8 /* hex digits of a digest that are enough */

static int no_such_image(const char *name, struct ic_error *error)
{
    return ic_fail(error, IC_ERR_NOT_FOUND,
            "no image named '%.128s'; 'ironclaw image ls' lists them, 'ironclaw image build base' makes the base image",
            name);
}

static bool prefix_ok(const char *name)
{
    size_t len = strspn(name, "0123456789abcdef");

    return len >= PREFIX_MIN && len <= DIGEST_HEX_LEN && name[len] == '\0';
}

/* A name, a digest, or the start of one. */
static int find_object(const char *name, char **ret, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist found = {0};
    int r;

    if (path_image_name_ok(name)) {
        r = store_resolve(STORE_IMAGES, name, ret, error);
        if (r != -IC_ERR_NOT_FOUND)
            return r;
    }
    if (!prefix_ok(name))
        return no_such_image(name, error);
    r = store_find(STORE_IMAGES, name, &found, error);
    if (r < 0)
        return r;
    if (found.count == 0)
        return no_such_image(name, error);
    if (found.count > 1)
        return ic_fail(
                error, IC_ERR_INVALID, "image '%s': %zu digests start with it; give more digits", name, found.count);
    return text_format(ret, error, "%s", found.items[0]);
}

/* The object with a shared lock, so that it stays while its parts are being opened. */
static int lock_object(const char *name, char **ret_object, int *ret_fd, struct ic_error *error)
{
    for (unsigned tries = 0; tries < 10; tries++) {
        _cleanup_(freep) char *object = NULL;
        _cleanup_(freep) char *path = NULL;
        _cleanup_(fd_closep) int fd = -1;
        struct stat st;
        int r = find_object(name, &object, error);

        if (r == 0)
            r = store_path(STORE_IMAGES, object, NULL, &path, error);
        if (r != 0)
            return r;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 && errno != ENOENT)
            return ic_fail_errno(error, -errno, "image %.128s: %s", name, path);
        /* Busy, or replaced since the name was read: look again. */
        if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0 || stat(path, &st) < 0) {
            (void)usleep(20000);
            continue;
        }
        *ret_object = TAKE_PTR(object);
        *ret_fd = TAKE_FD(fd);
        return 0;
    }
    return ic_fail(error, IC_ERR_CORRUPT,
            "image %.128s: its directory is gone or being removed; run 'ironclaw image build "
            "base' or import it again",
            name);
}

void image_deinit(struct image *image)
{
    free(image->kernel_path);
    free(image->initrd_path);
    free(image->rootfs_path);
    free(image->user);
    free(image->cwd);
    strv_free(image->env);
    if (image->lock_fd > 0)
        fd_unlock(image->lock_fd);
    *image = (struct image){.lock_fd = -1};
}

/* Without links: what was saved of a VM opens them again, by whichever path the store is reached then. */
static int part_path(const char *object, unsigned part, char **ret, struct ic_error *error)
{
    _cleanup_(freep) char *dir = NULL, *real = NULL;
    int r = store_path(STORE_IMAGES, object, NULL, &dir, error);

    if (r < 0)
        return r;
    real = realpath(dir, NULL);
    if (!real)
        return ic_fail_errno(error, -errno, "%s", dir);
    return text_format(ret, error, "%s/%s", real, manifest_part_file[part]);
}

static int fill(struct image *image, const char *object, struct manifest *manifest, struct ic_error *error)
{
    char **const paths[PART_COUNT] = {&image->kernel_path, &image->initrd_path, &image->rootfs_path};

    for (unsigned i = 0; i < PART_COUNT; i++) {
        int r = build_check_part(object, manifest, i, image->name, error);

        if (r == 0)
            r = part_path(object, i, paths[i], error);
        if (r != 0)
            return r;
    }
    memcpy(image->digest, object, DIGEST_HEX_LEN + 1);
    memcpy(image->kernel_release, manifest->kernel_release, sizeof(image->kernel_release));
    memcpy(image->kernel_kind, manifest->kernel_kind, sizeof(image->kernel_kind));
    memcpy(image->kernel_devices, manifest->kernel_devices, sizeof(image->kernel_devices));
    image->user = TAKE_PTR(manifest->user);
    image->cwd = TAKE_PTR(manifest->workdir);
    image->env = TAKE_PTR(manifest->env);
    return 0;
}

int image_hold(const char *digest)
{
    _cleanup_(freep) char *path = NULL;
    int fd;

    if (!digest_hex_ok(digest) || store_path(STORE_IMAGES, digest, NULL, &path, NULL) < 0)
        return -1;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0)
        (void)flock(fd, LOCK_SH | LOCK_NB);
    return fd;
}

int image_open(const char *name, struct image *ret, struct ic_error *error)
{
    _cleanup_(image_deinit) struct image image = {.lock_fd = -1};
    _cleanup_(manifest_deinit) struct manifest manifest = {0};
    _cleanup_(freep) char *object = NULL;
    int r = lock_object(name, &object, &image.lock_fd, error);

    if (r < 0)
        return r;
    memcpy(image.name, name, MIN(strlen(name), sizeof(image.name) - 1));
    r = build_load_manifest(object, &manifest, error);
    if (r == 0)
        r = fill(&image, object, &manifest, error);
    if (r != 0)
        return r;
    *ret = image;
    image = (struct image){.lock_fd = -1};
    return 0;
}

static int64_t created_ms(const char *object)
{
    _cleanup_(freep) char *path = NULL;
    struct stat st;

    if (store_path(STORE_IMAGES, object, "manifest.json", &path, NULL) < 0 || stat(path, &st) < 0)
        return 0;
    return (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
}

static uint64_t total_bytes(const struct manifest *manifest)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < PART_COUNT; i++)
        sum += manifest->parts[i].size_bytes;
    return sum;
}

/* False: without a name, and gone. */
static bool fill_info(struct ic_image_info *info, const char *name, const char *object)
{
    _cleanup_(manifest_deinit) struct manifest manifest = {0};
    _cleanup_(freep) char *path = NULL;

    if (!name[0] && (!digest_hex_ok(object) || store_path(STORE_IMAGES, object, NULL, &path, NULL) < 0 ||
                            access(path, F_OK) < 0))
        return false;
    *info = (struct ic_image_info){.size = sizeof(*info), .created_unix_ms = created_ms(object)};
    memcpy(info->name, name, MIN(strlen(name), sizeof(info->name) - 1));
    memcpy(info->digest, object, MIN(strlen(object), sizeof(info->digest) - 1));
    if (build_load_manifest(object, &manifest, NULL) == 0) {
        memcpy(info->kernel, manifest.kernel_release, sizeof(info->kernel));
        memcpy(info->kernel_kind, manifest.kernel_kind, sizeof(info->kernel_kind));
        info->size_bytes = total_bytes(&manifest);
    } else {
        /* Listed all the same, so that it can be seen and removed. */
        memcpy(info->kernel, "(damaged)", sizeof("(damaged)"));
    }
    return true;
}

int ic_image_list(struct ic_image_info **ret, size_t *ret_count, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist names = {0}, objects = {0}, named = {0};
    _cleanup_(freep) struct ic_image_info *infos = NULL;
    size_t count = 0;
    /* Objects first: one that is there before its name is one that has lost it, and not one that is about to get it. */
    int r = store_find(STORE_IMAGES, "", &objects, error);

    if (r == 0)
        r = store_list(STORE_IMAGES, &names, error);
    if (r < 0)
        return r;
    infos = calloc(names.count + objects.count + 1, sizeof(*infos));
    if (!infos)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < names.count; i++) {
        _cleanup_(freep) char *object = NULL;

        /* Gone since the names were read. */
        if (store_resolve(STORE_IMAGES, names.items[i], &object, NULL) < 0)
            continue;
        r = strlist_add(&named, object, error);
        if (r < 0)
            return r;
        count += fill_info(&infos[count], names.items[i], object);
    }
    for (size_t i = 0; i < objects.count; i++) {
        if (!strlist_has(&named, objects.items[i]))
            count += fill_info(&infos[count], "", objects.items[i]);
    }
    *ret = TAKE_PTR(infos);
    *ret_count = count;
    return 0;
}

int ic_image_inspect_json(const char *name, char **ret, struct ic_error *error)
{
    _cleanup_(manifest_deinit) struct manifest manifest = {0};
    _cleanup_(json_decrefp) json_t *root = NULL;
    _cleanup_(freep) char *object = NULL;
    _cleanup_(freep) char *dir = NULL;
    _cleanup_(freep) char *text = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1;
    size_t len;
    int r = lock_object(name, &object, &lock_fd, error);

    if (r == 0)
        r = build_load_manifest(object, &manifest, error);
    if (r == 0)
        r = store_path(STORE_IMAGES, object, NULL, &dir, error);
    if (r == 0)
        r = manifest_format(&manifest, &text, &len, error);
    if (r != 0)
        return r;
    root = json_pack("{s:s, s:s, s:I, s:I, s:o}", "digest", object, "path", dir, "size_bytes",
            (json_int_t)total_bytes(&manifest), "created_unix_ms", (json_int_t)created_ms(object), "manifest",
            json_loadb(text, len, 0, NULL));
    *ret = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    return *ret ? 0 : ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
}

static int names_of(const char *object, struct strlist *ret, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist names = {0};
    int r = store_list(STORE_IMAGES, &names, error);

    for (size_t i = 0; r == 0 && i < names.count; i++) {
        _cleanup_(freep) char *other = NULL;

        if (store_resolve(STORE_IMAGES, names.items[i], &other, NULL) == 0 && strcmp(other, object) == 0)
            r = strlist_add(ret, names.items[i], error);
    }
    return r;
}

int image_remove(const char *name, image_unused_fn unused, store_needed_fn needed, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist names = {0};
    _cleanup_(freep) char *object = NULL;
    bool by_name = path_image_name_ok(name);
    int r = by_name ? store_resolve(STORE_IMAGES, name, &object, error) : -IC_ERR_NOT_FOUND;

    /* A name whose link is broken can still be removed. */
    if (by_name && r == -IC_ERR_CORRUPT && !unused)
        return store_remove_name(STORE_IMAGES, name, NULL, error);
    if (r < 0 && r != -IC_ERR_NOT_FOUND)
        return r;
    by_name = r == 0;
    if (!by_name)
        r = find_object(name, &object, error);
    if (r == 0)
        r = names_of(object, &names, error);
    if (r == 0 && unused && (!by_name || names.count < 2))
        r = unused(object, name, names.count > 0, error);
    if (r == 0 && by_name)
        return store_remove_name(STORE_IMAGES, name, object, error);
    if (r == 0 && names.count == 0)
        return store_remove_object(STORE_IMAGES, object, needed, error);
    for (size_t i = 0; r == 0 && i < names.count; i++)
        r = store_remove_name(STORE_IMAGES, names.items[i], object, error);
    return r;
}

int ic_image_verify(const char *name, ic_progress_fn progress, void *userdata, struct ic_error *error)
{
    const struct progress report = {.fn = progress, .userdata = userdata};
    _cleanup_(manifest_deinit) struct manifest manifest = {0};
    _cleanup_(freep) char *object = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1;
    char digest[DIGEST_HEX_LEN + 1], remedy[256];
    int r = lock_object(name, &object, &lock_fd, error);

    if (r == 0)
        r = build_load_manifest(object, &manifest, error);
    if (r != 0)
        return r;
    build_remedy(&manifest, remedy, sizeof(remedy));
    for (unsigned i = 0; i < PART_COUNT; i++) {
        _cleanup_(freep) char *path = NULL;

        r = build_check_part(object, &manifest, i, name, error);
        if (r == 0)
            r = store_path(STORE_IMAGES, object, manifest_part_file[i], &path, error);
        if (r == 0)
            r = digest_file(path, &report, manifest_part_file[i], digest, NULL, error);
        if (r != 0)
            return r;
        if (strcmp(digest, manifest.parts[i].sha256) != 0)
            return ic_fail(error, IC_ERR_CORRUPT, "image %s: %s is corrupted (sha256 %.12s, recorded %.12s); %s", name,
                    manifest_part_file[i], digest, manifest.parts[i].sha256, remedy);
    }
    return 0;
}
