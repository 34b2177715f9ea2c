/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/images/apt.h"
#include "orchestrator/images/manifest.h"
#include "orchestrator/images/modules.h"
#include "orchestrator/images/recipe.h"
#include "orchestrator/images/vmlinux.h"

#define KERNEL_JSON_BYTES_MAX ((size_t)64 << 10)
#define DEBIAN_METAPACKAGE    "linux-image-cloud-amd64"
#define DEBIAN_PREFIX         "linux-image-"
/* Raised when the code makes another kernel directory from the same inputs. */
#define KERNEL_FORMAT 1

void kernel_deinit(struct kernel *kernel)
{
    strlist_deinit(&kernel->modules);
    free(kernel->dir);
    *kernel = (struct kernel){0};
}

static bool copy(char *to, size_t size, const char *from)
{
    size_t len = strlen(from);

    if (len == 0 || len >= size)
        return false;
    memcpy(to, from, len + 1);
    return true;
}

static int take_modules(json_t *json, const char *path, struct kernel *ret, struct ic_error *error)
{
    for (size_t i = 0; i < json_array_size(json); i++) {
        const char *name = json_string_value(json_array_get(json, i));
        int r;

        if (!name || name[0] == '.' || strchr(name, '/') || strlen(name) > 128)
            return ic_fail(error, IC_ERR_CORRUPT, "%s: modules: not a file name", path);
        r = strlist_add(&ret->modules, name, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int parse(const char *text, size_t len, const char *path, struct kernel *ret, struct ic_error *error)
{
    const char *kind, *release, *version, *devices, *sha256, *key;
    _cleanup_(json_decrefp) json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    json_int_t size;
    json_t *modules;
    int format;

    if (!root || json_unpack_ex(root, NULL, JSON_STRICT, "{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:o}", "format",
                         &format, "kind", &kind, "release", &release, "version", &version, "devices", &devices,
                         "sha256", &sha256, "size", &size, "key", &key, "modules", &modules) < 0)
        return ic_fail(error, IC_ERR_CORRUPT, "%s: damaged; build the kernel again", path);
    if (format != KERNEL_FORMAT || !copy(ret->kind, sizeof(ret->kind), kind) ||
            !copy(ret->release, sizeof(ret->release), release) || !copy(ret->version, sizeof(ret->version), version) ||
            !copy(ret->devices, sizeof(ret->devices), devices) || !digest_hex_ok(sha256) || !digest_hex_ok(key) ||
            size < 1 || !json_is_array(modules))
        return ic_fail(error, IC_ERR_CORRUPT, "%s: damaged; build the kernel again", path);
    (void)copy(ret->sha256, sizeof(ret->sha256), sha256);
    (void)copy(ret->key, sizeof(ret->key), key);
    ret->size_bytes = (uint64_t)size;
    return take_modules(modules, path, ret, error);
}

static int load_object(const char *object, struct kernel *ret, struct ic_error *error)
{
    struct kernel kernel = {0};
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *text = NULL;
    size_t len;
    int r = store_path(STORE_KERNELS, object, NULL, &kernel.dir, error);

    if (r == 0)
        r = text_format(&path, error, "%s/kernel.json", kernel.dir);
    if (r == 0) {
        r = fd_read_file(AT_FDCWD, path, KERNEL_JSON_BYTES_MAX, &text, &len);
        r = r < 0 ? ic_fail_errno(error, r, "%s", path) : parse(text, len, path, &kernel, error);
    }
    if (r < 0)
        kernel_deinit(&kernel);
    else
        *ret = kernel;
    return r;
}

int kernel_load(const char *kind, struct kernel *ret, struct ic_error *error)
{
    _cleanup_(freep) char *object = NULL;
    int r = store_resolve(STORE_KERNELS, kind, &object, error);

    return r < 0 ? r : load_object(object, ret, error);
}

static int write_json(const struct kernel *kernel, const char *dir, struct ic_error *error)
{
    _cleanup_(json_decrefp) json_t *root = NULL;
    _cleanup_(freep) char *text = NULL;
    _cleanup_(freep) char *path = NULL;
    json_t *modules = json_array();
    int r = text_format(&path, error, "%s/kernel.json", dir);

    for (size_t i = 0; i < kernel->modules.count; i++)
        (void)json_array_append_new(modules, json_string(kernel->modules.items[i]));
    root = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:o}", "format", KERNEL_FORMAT, "kind", kernel->kind,
            "release", kernel->release, "version", kernel->version, "devices", kernel->devices, "sha256",
            kernel->sha256, "size", (json_int_t)kernel->size_bytes, "key", kernel->key, "modules", modules);
    text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (r == 0 && !text)
        r = ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    if (r != 0)
        return r;
    r = fd_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600);
    return r < 0 ? ic_fail_errno(error, r, "%s", path) : 0;
}

static int write_vmlinux(const char *boot, const char *to, const struct progress *progress, struct ic_error *error)
{
    _cleanup_(buf_deinit) struct buf vmlinux = {0};
    _cleanup_(freep) char *bzimage = NULL;
    size_t len;
    int r = progress_report(progress, "unpacking the kernel", 0, 0, error);

    if (r < 0)
        return r;
    r = fd_read_file(AT_FDCWD, boot, VMLINUX_BYTES_MAX, &bzimage, &len);
    if (r < 0)
        return ic_fail_errno(error, r, "%s", boot);
    r = vmlinux_extract(bzimage, len, boot, &vmlinux, error);
    if (r < 0)
        return r;
    r = fd_write_file_atomic(AT_FDCWD, to, vmlinux.data, vmlinux.len, 0600);
    return r < 0 ? ic_fail_errno(error, r, "%s", to) : 0;
}

/* Moves the modules that a guest needs from the unpacked package to modules/. */
static int keep_modules(const char *unpacked, const char *dir, struct kernel *kernel, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist wanted = {0}, files = {0};
    _cleanup_(freep) char *from = NULL;
    _cleanup_(freep) char *to = NULL;
    int r = recipe_modules(&wanted, error);

    if (r == 0)
        r = text_format(&from, error, "%s/lib/modules/%s", unpacked, kernel->release);
    if (r == 0)
        r = text_format(&to, error, "%s/modules", dir);
    if (r == 0)
        r = modules_resolve(from, &wanted, &files, error);
    if (r == 0 && mkdir(to, 0700) < 0)
        r = ic_fail_errno(error, -errno, "%s", to);
    for (size_t i = 0; r == 0 && i < files.count; i++) {
        const char *base = strrchr(files.items[i], '/') + 1;
        _cleanup_(freep) char *path = NULL;

        r = text_format(&path, error, "%s/%s", to, base);
        if (r == 0 && rename(files.items[i], path) < 0)
            r = ic_fail_errno(error, -errno, "%s", path);
        if (r == 0)
            r = strlist_add(&kernel->modules, base, error);
    }
    return r;
}

int kernel_make_debian(
        const struct workdir *workdir, const struct progress *progress, struct kernel *ret, struct ic_error *error)
{
    _cleanup_(freep) char *package = NULL;
    _cleanup_(freep) char *version = NULL;
    _cleanup_(freep) char *deb = NULL;
    _cleanup_(freep) char *unpacked = NULL;
    _cleanup_(freep) char *boot = NULL;
    _cleanup_(freep) char *vmlinux = NULL;
    int r = apt_depends(DEBIAN_METAPACKAGE, DEBIAN_PREFIX, &package, error);

    if (r == 0)
        r = apt_download(package, workdir->path, progress, &deb, &version, error);
    if (r == 0)
        r = text_format(&unpacked, error, "%s/unpacked", workdir->path);
    if (r == 0 && mkdir(unpacked, 0700) < 0)
        r = ic_fail_errno(error, -errno, "%s", unpacked);
    if (r == 0)
        r = apt_unpack(deb, unpacked, progress, error);
    if (r == 0 && (!copy(ret->release, sizeof(ret->release), package + strlen(DEBIAN_PREFIX)) ||
                          !copy(ret->version, sizeof(ret->version), version)))
        r = ic_fail(error, IC_ERR_INVALID, "apt: package %s: name or version is too long", package);
    (void)copy(ret->kind, sizeof(ret->kind), "debian");
    (void)copy(ret->devices, sizeof(ret->devices), "acpi");
    if (r == 0)
        r = text_format(&boot, error, "%s/boot/vmlinuz-%s", unpacked, ret->release);
    if (r == 0)
        r = text_format(&vmlinux, error, "%s/vmlinux", workdir->path);
    if (r == 0)
        r = write_vmlinux(boot, vmlinux, progress, error);
    if (r == 0)
        r = keep_modules(unpacked, workdir->path, ret, error);
    return r;
}

/* What a kernel of this kind is made from, besides the version that the sources offer. */
static int key_of(const char *kind, char ret[65], char **ret_fragment, struct ic_error *error)
{
    const char *file = strcmp(kind, "fast") == 0 ? "kernel/fast.config" : "initramfs/modules";
    struct digest_key key;
    size_t len;
    int r = recipe_read_file(file, ret_fragment, &len, NULL, error);

    if (r < 0)
        return r;
    digest_key_init(&key);
    digest_key_add_str(&key, kind);
    digest_key_add(&key, *ret_fragment, len);
    digest_key_finish(&key, ret);
    return 0;
}

/* Removes all but the kernel's own files from the build directory. */
static int tidy(const char *dir, struct ic_error *error)
{
    static const char *const keep[] = {"vmlinux", "modules", "kernel.json"};
    _cleanup_(strlist_deinit) struct strlist extra = {0};
    int r = store_entries(dir, &extra, error);

    for (size_t i = 0; r == 0 && i < extra.count; i++) {
        _cleanup_(freep) char *path = NULL;
        bool kept = false;

        for (size_t j = 0; j < ARRAY_SIZE(keep) && !kept; j++)
            kept = strcmp(extra.items[i], keep[j]) == 0;
        if (kept)
            continue;
        r = text_format(&path, error, "%s/%s", dir, extra.items[i]);
        if (r == 0)
            r = store_remove_tree(path, error);
    }
    return r;
}

static int make(const char *kind, const char *key, const char *fragment, const struct progress *progress,
        struct kernel *kernel, struct ic_error *error)
{
    _cleanup_(workdir_drop) struct workdir workdir = WORKDIR_NONE;
    _cleanup_(freep) char *vmlinux = NULL;
    _cleanup_(freep) char *object = NULL;
    int r = workdir_make(STORE_KERNELS, &workdir, error);

    if (r < 0)
        return r;
    r = strcmp(kind, "fast") == 0 ? kernel_make_fast(&workdir, fragment, progress, kernel, error)
                                  : kernel_make_debian(&workdir, progress, kernel, error);
    if (r == 0)
        r = text_format(&vmlinux, error, "%s/vmlinux", workdir.path);
    if (r == 0)
        r = digest_file(vmlinux, progress, "digest of the kernel", kernel->sha256, &kernel->size_bytes, error);
    if (r == 0)
        (void)copy(kernel->key, sizeof(kernel->key), key);
    if (r == 0)
        r = write_json(kernel, workdir.path, error);
    if (r == 0)
        r = tidy(workdir.path, error);
    if (r == 0)
        r = text_format(&object, error, "%s-%s-%.12s", kind, kernel->release, kernel->sha256);
    return r != 0 ? r : workdir_commit(&workdir, object, kind, error);
}

/* Loaded, whole, and made from what the recipes say now. */
static bool current(const char *kind, const char *key, struct kernel *ret)
{
    _cleanup_(freep) char *path = NULL;
    struct kernel kernel = {0};
    struct stat st;

    if (kernel_load(kind, &kernel, NULL) < 0)
        return false;
    if (strcmp(kernel.key, key) != 0 || text_format(&path, NULL, "%s/vmlinux", kernel.dir) < 0 || stat(path, &st) < 0 ||
            (uint64_t)st.st_size != kernel.size_bytes) {
        kernel_deinit(&kernel);
        return false;
    }
    *ret = kernel;
    return true;
}

int kernel_ensure(const char *kind, bool force, const struct progress *progress, struct kernel *ret, bool *ret_made,
        struct ic_error *error)
{
    _cleanup_(kernel_deinit) struct kernel kernel = {0};
    _cleanup_(freep) char *fragment = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1;
    char key[65];
    int r;

    if (!manifest_kind_ok(kind))
        return ic_fail(error, IC_ERR_INVALID, "kernel '%.64s': not a kind; use 'debian' or 'fast'", kind);
    r = key_of(kind, key, &fragment, error);
    if (r < 0)
        return r;
    *ret_made = false;
    if (!force && current(kind, key, ret))
        return 0;
    r = store_lock_build(STORE_KERNELS, progress, &lock_fd, error);
    if (r < 0)
        return r;
    /* Somebody else may have made it while we waited. */
    if (!force && current(kind, key, ret))
        return 0;
    r = make(kind, key, fragment, progress, &kernel, error);
    if (r == 0)
        r = kernel_load(kind, ret, error);
    if (r == 0)
        *ret_made = true;
    return r;
}

int ic_kernel_build(bool force, ic_progress_fn progress, void *userdata, struct ic_error *error)
{
    const struct progress report = {.fn = progress, .userdata = userdata};
    struct kernel kernel = {0};
    bool made;
    int r = kernel_ensure("fast", force, &report, &kernel, &made, error);

    kernel_deinit(&kernel);
    return r;
}

int ic_kernel_list(struct ic_kernel_info **ret, size_t *ret_count, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist names = {0};
    struct ic_kernel_info *infos;
    size_t count = 0;
    int r = store_list(STORE_KERNELS, &names, error);

    if (r < 0)
        return r;
    infos = calloc(names.count + 1, sizeof(*infos));
    if (!infos)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < names.count; i++) {
        struct ic_kernel_info *info = &infos[count];
        struct kernel kernel = {0};

        if (kernel_load(names.items[i], &kernel, NULL) < 0)
            continue;
        info->size = sizeof(*info);
        info->size_bytes = kernel.size_bytes;
        (void)copy(info->kind, sizeof(info->kind), kernel.kind);
        (void)copy(info->release, sizeof(info->release), kernel.release);
        (void)copy(info->digest, sizeof(info->digest), kernel.sha256);
        kernel_deinit(&kernel);
        count++;
    }
    *ret = infos;
    *ret_count = count;
    return 0;
}
