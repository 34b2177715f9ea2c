/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building an image from its recipe, and no more than what changed: the root
 * file system of an image that is there is linked when its key is the
 * recipe's, the kernel is linked from the kernel store, and the initramfs
 * is packed anew, which takes less than a second.
 */
#include "orchestrator/images/build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/buf.h"
#include "orchestrator/images/image.h"
#include "orchestrator/images/initramfs.h"
#include "orchestrator/images/recipe.h"
#include "orchestrator/images/rootfs.h"
#include "orchestrator/images/vmlinux.h"
#include "orchestrator/paths.h"

#define EROFS_SUPER_OFFSET 1024
#define EROFS_SUPER_MAGIC  0xE0F5E1E2u
#define HEAD_BYTES         4096

int build_copy_env(char *const *env, char ***ret, struct ic_error *error)
{
    struct strlist list = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && env && env[i]; i++)
        r = strlist_add(&list, env[i], error);
    if (r < 0)
        strlist_deinit(&list);
    else
        *ret = list.items;
    return r;
}

int build_load_manifest(const char *object, struct manifest *ret, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *json = NULL;
    char digest[DIGEST_HEX_LEN + 1];
    size_t len;
    int r = store_path(STORE_IMAGES, object, "manifest.json", &path, error);

    if (r < 0)
        return r;
    r = fd_read_file(AT_FDCWD, path, MANIFEST_BYTES_MAX, &json, &len);
    if (r < 0)
        return ic_fail_errno(error, r, "%s", path);
    digest_bytes(json, len, digest);
    if (strcmp(digest, object) != 0)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: has not the digest that its directory is named by", path);
    return manifest_parse(json, len, path, ret, error);
}

static bool magic_ok(enum manifest_part part, const uint8_t *head, size_t len)
{
    struct rd r;

    if (part == PART_KERNEL)
        return vmlinux_is_elf(head, len);
    if (part == PART_INITRAMFS)
        return len >= 4 && memcmp(head, "\x02\x21\x4c\x18", 4) == 0;
    if (len < EROFS_SUPER_OFFSET + 4)
        return false;
    r = rd_of(head + EROFS_SUPER_OFFSET, 4);
    return rd_le32(&r) == EROFS_SUPER_MAGIC;
}

void build_remedy(const struct manifest *manifest, char *ret, size_t size)
{
    if (strcmp(manifest->recipe_key, BUILD_KEY_IMPORTED) == 0)
        (void)snprintf(ret, size, "import it again with 'ironclaw image import'");
    else
        (void)snprintf(ret, size, "run 'ironclaw image build %s --force'", manifest->name);
}

int build_check_part(const char *object, const struct manifest *manifest, enum manifest_part part, const char *image,
        struct ic_error *error)
{
    static const char *const what[PART_COUNT] = {"an x86-64 ELF kernel", "an LZ4 initramfs", "an erofs image"};
    const char *file = manifest_part_file[part];
    unsigned long long expected = manifest->parts[part].size_bytes;
    _cleanup_(freep) char *path = NULL;
    _cleanup_(fd_closep) int fd = -1;
    uint8_t head[HEAD_BYTES];
    char remedy[256];
    struct stat st;
    ssize_t n;
    int r = store_path(STORE_IMAGES, object, file, &path, error);

    if (r < 0)
        return r;
    build_remedy(manifest, remedy, sizeof(remedy));
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return ic_fail(error, IC_ERR_CORRUPT, "image %s: %s is missing; %s", image, file, remedy);
    if (fd < 0 || fstat(fd, &st) < 0)
        return ic_fail_errno(error, -errno, "image %s: %s", image, path);
    if (!S_ISREG(st.st_mode) || (unsigned long long)st.st_size != expected)
        return ic_fail(error, IC_ERR_CORRUPT, "image %s: %s is %s (%llu of %llu bytes); %s", image, file,
                (unsigned long long)st.st_size < expected ? "truncated" : "too large", (unsigned long long)st.st_size,
                expected, remedy);
    n = pread(fd, head, sizeof(head), 0);
    if (n < 0)
        return ic_fail_errno(error, -errno, "image %s: %s", image, path);
    if (!magic_ok(part, head, (size_t)n))
        return ic_fail(error, IC_ERR_CORRUPT, "image %s: %s is not %s; %s", image, file, what[part], remedy);
    return 0;
}

static int fill_part(const char *dir, enum manifest_part part, struct manifest *manifest,
        const struct progress *progress, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *what = NULL;
    int r = text_format(&path, error, "%s/%s", dir, manifest_part_file[part]);

    if (r == 0)
        r = text_format(&what, error, "digest of %s", manifest_part_file[part]);
    return r != 0 ? r
                  : digest_file(path, progress, what, manifest->parts[part].sha256, &manifest->parts[part].size_bytes,
                            error);
}

static void set_kernel(struct manifest *manifest, const struct kernel *kernel)
{
    memcpy(manifest->kernel_kind, kernel->kind, sizeof(manifest->kernel_kind));
    memcpy(manifest->kernel_release, kernel->release, sizeof(manifest->kernel_release));
    memcpy(manifest->kernel_version, kernel->version, sizeof(manifest->kernel_version));
    memcpy(manifest->kernel_devices, kernel->devices, sizeof(manifest->kernel_devices));
    memcpy(manifest->parts[PART_KERNEL].sha256, kernel->sha256, sizeof(kernel->sha256));
    manifest->parts[PART_KERNEL].size_bytes = kernel->size_bytes;
}

static int add_kernel(const char *dir, const struct kernel *kernel, struct ic_error *error)
{
    _cleanup_(freep) char *from = NULL;
    _cleanup_(freep) char *to = NULL;
    int r = text_format(&from, error, "%s/vmlinux", kernel->dir);

    if (r == 0)
        r = text_format(&to, error, "%s/%s", dir, manifest_part_file[PART_KERNEL]);
    return r != 0 ? r : store_link_file(from, to, error);
}

static int add_initramfs(
        const char *dir, const struct kernel *kernel, struct manifest *manifest, struct ic_error *error)
{
    _cleanup_(freep) char *agent = NULL;
    _cleanup_(freep) char *to = NULL;
    int r = recipe_program_path("ironclaw-agent", &agent, error);

    if (r == 0)
        r = digest_file(agent, NULL, "", manifest->agent_sha256, NULL, error);
    if (r == 0)
        r = text_format(&to, error, "%s/%s", dir, manifest_part_file[PART_INITRAMFS]);
    return r != 0 ? r : initramfs_build(agent, kernel, to, error);
}

int build_finish(struct workdir *workdir, const char *name, const struct kernel *kernel, struct manifest *manifest,
        const struct progress *progress, struct ic_error *error)
{
    _cleanup_(freep) char *json = NULL;
    _cleanup_(freep) char *path = NULL;
    char digest[DIGEST_HEX_LEN + 1];
    size_t len;
    int r = progress_report(progress, "packing the initramfs", 0, 0, error);

    set_kernel(manifest, kernel);
    memcpy(manifest->name, name, strlen(name) + 1);
    if (r == 0)
        r = add_kernel(workdir->path, kernel, error);
    if (r == 0)
        r = add_initramfs(workdir->path, kernel, manifest, error);
    if (r == 0)
        r = fill_part(workdir->path, PART_INITRAMFS, manifest, NULL, error);
    if (r == 0 && manifest->parts[PART_ROOTFS].size_bytes == 0)
        r = fill_part(workdir->path, PART_ROOTFS, manifest, progress, error);
    if (r == 0)
        r = manifest_format(manifest, &json, &len, error);
    if (r == 0)
        r = text_format(&path, error, "%s/manifest.json", workdir->path);
    if (r != 0)
        return r;
    r = fd_write_file_atomic(AT_FDCWD, path, json, len, 0600);
    if (r < 0)
        return ic_fail_errno(error, r, "%s", path);
    digest_bytes(json, len, digest);
    return workdir_commit(workdir, digest, name, error);
}

/* What the name stands for now; loaded is false when there is no whole image. */
struct previous {
    bool loaded;
    char *object;
    struct manifest manifest;
};

static void previous_deinit(struct previous *previous)
{
    free(previous->object);
    manifest_deinit(&previous->manifest);
}

static void load_previous(const char *name, struct previous *ret)
{
    if (store_resolve(STORE_IMAGES, name, &ret->object, NULL) < 0 ||
            build_load_manifest(ret->object, &ret->manifest, NULL) < 0)
        return;
    ret->loaded = true;
    for (unsigned i = 0; i < PART_COUNT; i++) {
        if (build_check_part(ret->object, &ret->manifest, i, name, NULL) < 0)
            ret->loaded = false;
    }
}

static int unchanged(const struct previous *previous, const struct recipe *recipe, const struct kernel *kernel,
        bool *ret, struct ic_error *error)
{
    _cleanup_(freep) char *agent = NULL;
    char sha256[DIGEST_HEX_LEN + 1];
    int r = recipe_program_path("ironclaw-agent", &agent, error);

    if (r == 0)
        r = digest_file(agent, NULL, "", sha256, NULL, error);
    if (r != 0)
        return r;
    *ret = previous->loaded && strcmp(previous->manifest.recipe_key, recipe->key) == 0 &&
           strcmp(previous->manifest.rootfs_key, recipe->rootfs_key) == 0 &&
           strcmp(previous->manifest.parts[PART_KERNEL].sha256, kernel->sha256) == 0 &&
           strcmp(previous->manifest.agent_sha256, sha256) == 0;
    return 0;
}

/* An image of any name whose root file system was made from the same recipe. */
static void find_rootfs(const char *rootfs_key, struct previous *ret)
{
    _cleanup_(strlist_deinit) struct strlist names = {0};

    if (store_list(STORE_IMAGES, &names, NULL) < 0)
        return;
    for (size_t i = 0; i < names.count; i++) {
        load_previous(names.items[i], ret);
        if (ret->loaded && strcmp(ret->manifest.rootfs_key, rootfs_key) == 0)
            return;
        previous_deinit(ret);
        *ret = (struct previous){0};
    }
}

static int add_rootfs(const char *dir, const struct recipe *recipe, bool force, struct manifest *manifest,
        const struct progress *progress, struct ic_error *error)
{
    _cleanup_(previous_deinit) struct previous previous = {0};
    _cleanup_(freep) char *from = NULL;
    _cleanup_(freep) char *to = NULL;
    int r;

    if (!force)
        find_rootfs(recipe->rootfs_key, &previous);
    if (!previous.loaded)
        return rootfs_build(recipe, dir, progress, error);
    r = store_path(STORE_IMAGES, previous.object, manifest_part_file[PART_ROOTFS], &from, error);
    if (r == 0)
        r = text_format(&to, error, "%s/%s", dir, manifest_part_file[PART_ROOTFS]);
    if (r == 0)
        r = store_link_file(from, to, error);
    manifest->parts[PART_ROOTFS] = previous.manifest.parts[PART_ROOTFS];
    return r;
}

static int build(const char *name, const struct recipe *recipe, const struct kernel *kernel, bool force,
        const struct progress *progress, struct ic_error *error)
{
    _cleanup_(workdir_drop) struct workdir workdir = WORKDIR_NONE;
    _cleanup_(manifest_deinit) struct manifest manifest = {0};
    int r = workdir_make(STORE_IMAGES, &workdir, error);

    if (r < 0)
        return r;
    memcpy(manifest.recipe_key, recipe->key, sizeof(recipe->key));
    memcpy(manifest.rootfs_key, recipe->rootfs_key, sizeof(recipe->rootfs_key));
    manifest.user = recipe->user ? strdup(recipe->user) : NULL;
    manifest.workdir = recipe->workdir ? strdup(recipe->workdir) : NULL;
    if ((recipe->user && !manifest.user) || (recipe->workdir && !manifest.workdir))
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    r = build_copy_env(recipe->env, &manifest.env, error);
    if (r == 0)
        r = add_rootfs(workdir.path, recipe, force, &manifest, progress, error);
    return r != 0 ? r : build_finish(&workdir, name, kernel, &manifest, progress, error);
}

/* "base:today" is made from the recipe "base". */
static int load_recipe(const char *name, struct recipe *ret, struct ic_error *error)
{
    char recipe[128];

    if (!path_image_name_ok(name))
        return ic_fail(error, IC_ERR_INVALID,
                "image name '%.128s': use a-z, 0-9, '.', '_', '-', at most 64, and perhaps ':tag'", name);
    memcpy(recipe, name, strlen(name) + 1);
    recipe[strcspn(recipe, ":")] = '\0';
    return recipe_load(recipe, ret, error);
}

int image_build(const struct ic_image_build_options *options, bool *ret_built, struct ic_error *error)
{
    const char *name = options->name ? options->name : "base";
    const struct progress progress = {.fn = options->progress, .userdata = options->userdata};
    _cleanup_(recipe_deinit) struct recipe recipe = {0};
    _cleanup_(kernel_deinit) struct kernel kernel = {0};
    _cleanup_(previous_deinit) struct previous previous = {0};
    _cleanup_(fd_unlockp) int lock_fd = -1;
    bool same = false, made;
    const char *kind;
    int r;

    if (options->size != 0 && options->size != sizeof(*options))
        return ic_fail(error, IC_ERR_INVALID, "image build options: size must be that of the structure");
    r = load_recipe(name, &recipe, error);
    if (r == 0)
        r = store_lock_build(STORE_IMAGES, &progress, &lock_fd, error);
    if (r != 0)
        return r;
    load_previous(name, &previous);
    kind = options->kernel ? options->kernel : recipe.kernel;
    /* A forced build looks for a newer Debian kernel too; compiling the fast one again is `kernel build --force`. */
    r = kernel_ensure(kind, options->force && strcmp(kind, "debian") == 0, &progress, &kernel, &made, error);
    if (r == 0)
        r = unchanged(&previous, &recipe, &kernel, &same, error);
    if (r != 0)
        return r;
    if (!same || options->force)
        r = build(name, &recipe, &kernel, options->force, &progress, error);
    if (r == 0 && ret_built)
        *ret_built = !same || options->force;
    return r;
}
