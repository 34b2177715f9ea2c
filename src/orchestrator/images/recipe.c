/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/recipe.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "orchestrator/images/manifest.h"
#include "places.h"

#define RECIPE_FILE_BYTES_MAX ((size_t)1 << 20)
/* Raised when the code makes another root file system or initramfs from the same recipe. */
#define BUILDER_VERSION "2"

static const char *place(const char *env, const char *installed)
{
    const char *path = getenv(env);

    return path && path[0] == '/' ? path : installed;
}

int recipe_program_path(const char *program, char **ret, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    int r = text_format(&path, error, "%s/%s", place("IRONCLAW_LIBEXEC", PLACES_LIBEXEC), program);

    if (r < 0)
        return r;
    if (access(path, R_OK) < 0)
        return ic_fail(error, IC_ERR_NOT_FOUND,
                "program %s: not there; install ironclaw completely, or set IRONCLAW_LIBEXEC to its directory", path);
    *ret = TAKE_PTR(path);
    return 0;
}

int recipe_read_file(const char *file, char **ret, size_t *ret_len, char **ret_path, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    int r = text_format(&path, error, "%s/%s", place("IRONCLAW_RECIPES", PLACES_RECIPES), file);

    if (r < 0)
        return r;
    r = fd_read_file(AT_FDCWD, path, RECIPE_FILE_BYTES_MAX, ret, ret_len);
    if (r == -ENOENT)
        return ic_fail(error, IC_ERR_NOT_FOUND,
                "recipe %s: not there; install ironclaw completely, or set IRONCLAW_RECIPES to the recipes' directory",
                path);
    if (r < 0)
        return ic_fail_errno(error, r, "recipe %s", path);
    if (ret_path)
        *ret_path = TAKE_PTR(path);
    return 0;
}

int recipe_modules(struct strlist *ret, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *text = NULL;
    int r = recipe_read_file("initramfs/modules", &text, NULL, &path, error);

    return r < 0 ? r : strlist_parse(text, path, ret, error);
}

void recipe_deinit(struct recipe *recipe)
{
    free(recipe->suite);
    free(recipe->variant);
    free(recipe->kernel);
    free(recipe->user);
    free(recipe->workdir);
    free(recipe->customize_path);
    free(recipe->excludes_path);
    strv_free(recipe->env);
    strlist_deinit(&recipe->packages);
    *recipe = (struct recipe){0};
}

static bool word_ok(const char *s)
{
    size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return len > 0 && s[len] == '\0' && s[0] != '-';
}

static int take_env(json_t *json, const char *path, struct recipe *ret, struct ic_error *error)
{
    struct strlist list = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < json_array_size(json); i++) {
        const char *entry = json_string_value(json_array_get(json, i));

        if (!entry || !manifest_env_ok(entry))
            r = ic_fail(error, IC_ERR_INVALID, "recipe %s: env: an entry is not NAME=value", path);
        else
            r = strlist_add(&list, entry, error);
    }
    if (r < 0)
        strlist_deinit(&list);
    ret->env = list.items;
    return r;
}

static int parse(const char *text, size_t len, const char *path, struct recipe *ret, struct ic_error *error)
{
    const char *suite, *variant, *kernel, *user = NULL, *workdir = NULL;
    _cleanup_(json_decrefp) json_t *root = NULL;
    json_t *env = NULL;
    json_int_t epoch;
    json_error_t why;
    int format;

    root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!root || json_unpack_ex(root, &why, JSON_STRICT, "{s:i, s:s, s:s, s:s, s:I, s?s, s?s, s?o}", "format", &format,
                         "suite", &suite, "variant", &variant, "kernel", &kernel, "source_date_epoch", &epoch, "user",
                         &user, "workdir", &workdir, "env", &env) < 0)
        return ic_fail(error, IC_ERR_INVALID, "recipe %s: line %d: %s", path, why.line, why.text);
    if (format != 1 || !word_ok(suite) || !word_ok(variant) || !manifest_kind_ok(kernel) || epoch < 0 ||
            (user && !manifest_user_ok(user)) || (workdir && !manifest_workdir_ok(workdir)) ||
            (env && !json_is_array(env)))
        return ic_fail(error, IC_ERR_INVALID,
                "recipe %s: format, suite, variant, kernel, user, workdir or env is wrong", path);
    ret->suite = strdup(suite);
    ret->variant = strdup(variant);
    ret->kernel = strdup(kernel);
    ret->user = user ? strdup(user) : NULL;
    ret->workdir = workdir ? strdup(workdir) : NULL;
    ret->source_date_epoch = epoch;
    if (!ret->suite || !ret->variant || !ret->kernel || (user && !ret->user) || (workdir && !ret->workdir))
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    return env ? take_env(env, path, ret, error) : 0;
}

static int make_keys(struct recipe *recipe, const char *const parts[3], const char *json, const char *modules,
        struct ic_error *error)
{
    _cleanup_(freep) char *epoch = NULL;
    struct digest_key key;
    int r = text_format(&epoch, error, "%lld", (long long)recipe->source_date_epoch);

    if (r < 0)
        return r;
    digest_key_init(&key);
    digest_key_add_str(&key, "rootfs " BUILDER_VERSION);
    digest_key_add_str(&key, recipe->suite);
    digest_key_add_str(&key, recipe->variant);
    digest_key_add_str(&key, epoch);
    for (unsigned i = 0; i < 3; i++)
        digest_key_add_str(&key, parts[i]);
    digest_key_finish(&key, recipe->rootfs_key);

    digest_key_init(&key);
    digest_key_add_str(&key, "image " BUILDER_VERSION " initramfs 2");
    digest_key_add_str(&key, recipe->rootfs_key);
    digest_key_add_str(&key, json);
    digest_key_add_str(&key, modules);
    digest_key_finish(&key, recipe->key);
    return 0;
}

/* Where the recipes are there, a name that is not among them is the caller's mistake. */
static int check_name(const char *name, struct ic_error *error)
{
    const char *recipes = place("IRONCLAW_RECIPES", PLACES_RECIPES);
    _cleanup_(freep) char *dir = NULL;
    int r = text_format(&dir, error, "%s/%s", recipes, name);

    if (r < 0 || access(dir, F_OK) == 0 || access(recipes, F_OK) < 0)
        return r;
    return ic_fail(error, IC_ERR_NOT_FOUND,
            "no recipe '%.128s' in %s; 'ironclaw image import' makes an image of a tar or a container image, and "
            "IRONCLAW_RECIPES names another directory of recipes",
            name, recipes);
}

static int load(const char *name, struct recipe *ret, struct ic_error *error)
{
    static const char *const files[] = {"recipe.json", "packages", "customize", "dpkg.excludes"};
    _cleanup_(strv_freep) char **texts = calloc(ARRAY_SIZE(files) + 1, sizeof(char *));
    _cleanup_(strv_freep) char **paths = calloc(ARRAY_SIZE(files) + 1, sizeof(char *));
    _cleanup_(freep) char *modules = NULL;
    size_t len;
    int r = texts && paths ? check_name(name, error) : ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(files); i++) {
        _cleanup_(freep) char *file = NULL;

        r = text_format(&file, error, "%s/%s", name, files[i]);
        if (r == 0)
            r = recipe_read_file(file, &texts[i], &len, &paths[i], error);
        if (r == 0 && i == 0)
            r = parse(texts[0], len, paths[0], ret, error);
    }
    if (r == 0)
        r = recipe_read_file("initramfs/modules", &modules, NULL, NULL, error);
    if (r == 0)
        r = strlist_parse(texts[1], paths[1], &ret->packages, error);
    if (r != 0)
        return r;
    ret->customize_path = TAKE_PTR(paths[2]);
    ret->excludes_path = TAKE_PTR(paths[3]);
    r = make_keys(ret, (const char *const *)texts + 1, texts[0], modules, error);
    /* paths[2] is the list's end now; paths[3] is taken as well. */
    return r;
}

int recipe_load(const char *name, struct recipe *ret, struct ic_error *error)
{
    struct recipe recipe = {0};
    int r = load(name, &recipe, error);

    if (r < 0)
        recipe_deinit(&recipe);
    else
        *ret = recipe;
    return r;
}
